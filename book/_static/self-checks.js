// Questions in the page: draws their numbers, judges answers, and tells which slip leads to a wrong one.
// What is answered stays in the reader's browser. The formulas are trees of book/_ext/formulas.py.
const selfChecks = (() => {
  const store = "self-checks";
  const operations = {
    "+": (a, b) => a + b, "-": (a, b) => a - b, "*": (a, b) => a * b, "/": (a, b) => a / b,
    "**": (a, b) => a ** b, "%": (a, b) => ((a % b) + b) % b, neg: (a) => -a,
    log: Math.log, log2: Math.log2, exp: Math.exp, sqrt: Math.sqrt, abs: Math.abs, tanh: Math.tanh,
    floor: Math.floor, ceil: Math.ceil, min: Math.min, max: Math.max,
  };
  const evaluate = (tree, values) => Array.isArray(tree)
    ? operations[tree[0]](...tree.slice(1).map((part) => evaluate(part, values)))
    : typeof tree === "number" ? tree : tree === "pi" ? Math.PI : values[tree];

  const complete = ({ let: between, answer }, drawn) => {
    const values = { ...drawn };
    for (const [name, tree] of between) values[name] = evaluate(tree, values);
    values.answer = evaluate(answer, values);
    return values;
  };
  const tolerance = ({ whole, tolerance: share }, answer) =>
    whole ? 1e-9 : share * Math.max(1, Math.abs(answer));

  // Draws for which two of the answer and the slips nearly agree are drawn again: a number has one meaning.
  const clear = (data, values) => {
    const apart = 4 * tolerance(data, values.answer);
    const meanings = [values.answer, ...data.slips.map((tree) => evaluate(tree, values))];
    return meanings.every((a, i) => meanings.slice(0, i).every((b) => Math.abs(a - b) > apart));
  };
  const draw = (data) => {
    for (;;) {
      const drawn = {};
      for (const [name, list] of Object.entries(data.draw)) {
        drawn[name] = list[Math.floor(Math.random() * list.length)];
      }
      const values = complete(data, drawn);
      if (clear(data, values)) return values;
    }
  };

  const shown = (value) => String(Number(value.toFixed(4))).replace("-", "−");

  // A number as people write it, or what is wrong with it. `unit` is the one that stands behind the field.
  const raised = "⁰¹²³⁴⁵⁶⁷⁸⁹";
  const power = (text) => [...text].map((sign) => sign === "⁻" ? "-" : sign === "⁺" ? "+" : raised.indexOf(sign)).join("");
  const parse = (text, unit = "") => {
    const one = "Write one number, such as −0.25, 3/4 or 1e-3.";
    if (text.length > 99) return { problem: one };
    let plain = text.trim().replace(/[⁺⁻⁰¹²³⁴⁵⁶⁷⁸⁹]+/g, (signs) => `^${power(signs)}`)
      .replace(/(\d)(?=[¼-¾⅐-⅞])/g, "$1 ")  // 1½ is not 11/2
      .normalize("NFKC").replace(/[−–—‐‑‒﹣]/g, "-").replace(/⁄/g, "/").replace(/^[=≈~]\s*/, "");
    if (/(^|[^a-z])(ln|log|exp|sqrt|pi|e\^)|[√π]/i.test(plain)) return { problem: "Write the number itself, such as 0.693 for ln 2." };
    if (/\d\s*[,'’]\s*\d/.test(plain)) return { problem: "Write a decimal point, not a comma, and nothing between thousands." };
    const named = plain.match(/^(.*[\d.%])\s*(nats?|bits?|[a-z]+)((?:\/dim)?)$/i);
    if (named) {
      // One of them, or several.
      if (named[2].length > 2 && unit.toLowerCase().startsWith(named[2].toLowerCase().replace(/s$/, ""))) plain = named[1];
      else if (/^(nat|bit)/i.test(named[2])) return { problem: unit ? `Give the number in ${unit}.` : "Write the number without a unit." };
    }
    // Spaces group thousands; elsewhere they part two numbers.
    plain = plain.replace(/(^|[^\d.])(\d{1,3}(?:\s\d{3})+)(?!\d)/g, (all, before, digits) => before + digits.replace(/\s/g, ""));
    if (/[\d.]\s+[\d.]/.test(plain)) return { problem: one };
    plain = plain.replace(/\s+/g, "").replace(/^([-+]?)10(?=\^|\*\*)/, (all, sign) => `${sign}1*10`)
      .replace(/[·*×x⋅∙]10(?:\^|\*\*)\(?([-+]?\d+)\)?/gi, "e$1");
    const number = "[-+]?(?:\\d+(?:\\.\\d*)?|\\.\\d+)(?:[eE][-+]?\\d+)?";
    const match = plain.match(new RegExp(`^(${number})(?:/(${number}))?(%?)$`));
    if (!match) return { problem: one };
    const value = Number(match[1]) / (match[2] === undefined ? 1 : Number(match[2])) / (match[3] ? 100 : 1);
    return Number.isFinite(value) ? { value } : { problem: "This is not a finite number." };
  };

  // What a wrong number without a known slip has to do with the answer.
  const factors = [[2, "twice the answer"], [1 / 2, "half the answer"], [Math.LN2, "the answer times log 2: nats and bits are exchanged"],
    [1 / Math.LN2, "the answer divided by log 2: nats and bits are exchanged"], [-2, "minus twice the answer"],
    [-1 / 2, "minus half the answer"], [100, "a hundred times the answer"], [1 / 100, "a hundredth of the answer"]];
  const difference = (data, value, answer) => {
    const near = (other) => Math.abs(value - other) <= tolerance(data, other);
    if (!data.whole && Math.abs(value - answer) <= 5 * tolerance(data, answer)) return "This is close. Give three decimals, and round nothing before the end.";
    if (answer !== 0 && near(-answer)) return "The size is right, the sign is not.";
    const factor = answer !== 0 && factors.find(([times]) => near(times * answer));
    if (factor) return `This is ${factor[1]}.`;
    if (answer !== 0 && near(1 / answer)) return "This is the reciprocal of the answer.";
    if (near(answer + 1) || near(answer - 1)) return "This differs from the answer by exactly 1.";
    const size = Math.sign(value) * Math.sign(answer) < 0 ? "Its sign is wrong." : value > answer ? "It is too large." : "It is too small.";
    return `This is not the answer, and no slip that this page knows leads to it. ${size}`;
  };
  // Index of the slip that leads to a value, or -1; null if the value is right.
  const judge = (data, values, value) => {
    const near = (other) => Math.abs(value - other) <= tolerance(data, other);
    if (near(values.answer)) return null;
    return data.slips.findIndex((tree) => near(evaluate(tree, values)));
  };

  // Some browsers keep nothing, for pages opened from a folder or where no room is left; then this page does.
  let own = null;
  const remembered = () => {
    if (own) return own;
    try {
      const kept = JSON.parse(localStorage.getItem(store));
      return kept && typeof kept === "object" && !Array.isArray(kept) ? kept : {};
    } catch { return {}; }
  };
  const remember = (answers) => {
    try { localStorage.setItem(store, JSON.stringify(answers)); } catch { own = answers; }
  };
  // One key for each question of the course: its page, without the folder in which the site lies, and name.
  const page = location.pathname.split("/").slice(-2).join("/");

  const element = (tag, attributes = {}, text = "") => {
    const node = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
    node.textContent = text;
    return node;
  };
  const button = (text, act, attributes = {}) => {
    const node = element("button", { type: "button", ...attributes }, text);
    node.addEventListener("click", act);
    return node;
  };

  const progress = (boxes) => {
    const answers = remembered(), right = boxes.filter(({ data }) => answers[`${page}#${data.name}`]).length;
    for (const { data, title } of boxes) {
      title.dataset.state = answers[`${page}#${data.name}`] ? " – answered" : "";
    }
    for (const place of document.querySelectorAll(".self-check-progress")) {
      place.replaceChildren(element("p", {}, `Of the ${boxes.length} questions on this page you have answered ${right}. ` +
        (own ? "This browser keeps nothing for this page: it is forgotten when you leave." : "This is kept in this browser only.")));
      if (right) {
        place.append(button("Forget my answers", () => {
          const kept = Object.entries(remembered()).filter(([key]) => !key.startsWith(`${page}#`));
          remember(Object.fromEntries(kept));
          progress(boxes);
        }));
      }
    }
  };

  const start = () => {
    const boxes = [...document.querySelectorAll(".self-check")].map((box) => ({ box,
      data: JSON.parse(box.querySelector("script[type='application/json']").textContent),
      title: box.querySelector(".self-check-title"), hints: [...box.querySelectorAll(".hints > .hint")] }));
    for (const { box, data, title, hints } of boxes) {
      title.id = `title-of-${data.name}`;
      box.setAttribute("role", "group");
      box.setAttribute("aria-labelledby", title.id);
      const answer = document.querySelector(`.self-check-answers .of-${data.name}`);
      const verdict = element("div", { class: "verdict", role: "status" });
      // Formulas come typeset: what is said is a copy of what the page holds.
      const say = (right, words, hint) => {
        verdict.className = `verdict ${right === null ? "" : right ? "right" : "wrong"}`;
        const head = right === null ? "" : right ? "Right. " : "Not right. ";
        verdict.replaceChildren(element("strong", {}, head), words);
        if (hint) verdict.append(...[...hint.childNodes].map((node) => node.cloneNode(true)));
        if (right) {
          remember({ ...remembered(), [`${page}#${data.name}`]: true });
          progress(boxes);
        }
      };
      const folded = element("details");
      folded.append(element("summary", {}, "Show the answer"));
      const form = element("form", { class: "controls" });
      form.noValidate = true;
      const check = element("button", { type: "submit" }, "Check");
      let submit;

      if (data.kind === "answer") {
        let values;
        // No keyboard of digits: on some telephones it has neither a minus nor a fraction's stroke.
        const field = element("input", { type: "text", dir: "ltr", maxlength: 60, autocomplete: "off", autocapitalize: "off", spellcheck: "false" });
        const label = element("label", {}, "Your answer ");
        label.append(field, data.unit ? ` ${data.unit}` : "");
        const redraw = () => {
          values = draw(data);
          box.dataset.values = JSON.stringify(values);
          for (const place of document.querySelectorAll(`.drawn.of-${data.name}`)) {
            const name = [...place.classList].find((word) => word.startsWith("value-")).slice(6);
            place.textContent = shown(values[name]);
          }
          field.value = "";
          verdict.className = "verdict";
          verdict.replaceChildren();
          folded.open = false;
        };
        submit = () => {
          const { value, problem } = parse(field.value, data.unit);
          if (problem) return say(null, problem);
          const slip = judge(data, values, value);
          if (slip === null) return say(true, `The answer is ${shown(values.answer)}${data.unit ? ` ${data.unit}` : ""}.`);
          if (slip < 0) return say(false, difference(data, value, values.answer));
          say(false, "", hints[slip]);
        };
        form.append(label, check);
        if (Object.keys(data.draw).length) form.append(button("Other numbers", redraw));
        redraw();
      } else if (data.kind === "steps") {
        const list = box.querySelector(".choices");
        list.setAttribute("role", "list");
        const items = [...list.children];
        const index = (item) => Number([...item.classList].find((word) => word.startsWith("choice-")).slice(7));
        const places = () => [...list.children].map(index);
        const move = (item, by, own) => {
          const now = [...list.children], place = now.indexOf(item) + by;
          if (place < 0 || place >= now.length) return say(null, by < 0 ? "This line is the first already." : "This line is the last already.");
          by < 0 ? list.insertBefore(item, now[place]) : list.insertBefore(now[place], item);
          own.focus();
          say(null, `Now in place ${place + 1} of ${now.length}.`);
        };
        for (const item of items) {
          item.setAttribute("role", "listitem");
          const text = element("div", { class: "step", id: `step-${data.name}-${index(item)}` });
          text.append(...item.childNodes);
          const buttons = element("div", { class: "moves" });
          for (const [sign, by, words] of [["↑", -1, "Earlier"], ["↓", 1, "Later"]]) {
            const own = button(sign, () => move(item, by, own), { "aria-label": words, "aria-describedby": text.id });
            buttons.append(own);
          }
          item.append(buttons, text);
        }
        submit = () => {
          const order = places(), wrong = order.findIndex((value, place) => value !== place);
          if (wrong < 0) return say(true, "Every line follows from those above it.");
          const before = wrong === 0 ? "The first line does not belong there. " :
            `The first ${wrong === 1 ? "line is" : `${wrong} lines are`} in place; the next one comes too early. `;
          say(false, before, hints[order[wrong]]);
        };
        form.append(check);
      } else {
        const choices = [...box.querySelector(".choices").children];
        box.querySelector(".choices").setAttribute("role", "radiogroup");
        box.querySelector(".choices").setAttribute("aria-labelledby", title.id);
        const inputs = choices.map((choice, place) => {
          const text = element("div", { class: "step", id: `choice-${data.name}-${place}` });
          text.append(...choice.childNodes);
          const input = element("input", { type: "radio", name: `of-${data.name}`, value: place, "aria-labelledby": text.id });
          choice.append(input, text);
          text.addEventListener("click", () => { input.click(); input.focus(); });
          return input;
        });
        submit = () => {
          const chosen = inputs.findIndex((input) => input.checked);
          if (chosen < 0) return say(null, data.kind === "lines" ? "Choose a line first." : "Choose an option first.");
          say(chosen === data.right, "", hints[chosen]);
        };
        form.append(check);
      }

      form.addEventListener("submit", (event) => { event.preventDefault(); submit(); });
      folded.append(...answer.cloneNode(true).childNodes);
      folded.querySelector("strong").remove();  // which question it answers needs no telling here
      box.append(form, verdict, folded);
    }
    document.querySelector(".self-check-answers")?.classList.add("printed-only");
    progress(boxes);
    // What is answered or forgotten in another tab.
    window.addEventListener("storage", () => progress(boxes));
  };
  // Formulas are moved and copied, which they can be once all are typeset: MathJax promises that when it has begun.
  // Where it never comes, because its file is missing or fails, the questions are asked all the same.
  const ready = (tries = 0) => {
    const promise = window.MathJax?.startup?.promise;
    if (window.MathJax && !promise && tries < 100) setTimeout(ready, 50, tries + 1);
    else Promise.resolve(promise).catch(() => {}).then(start);
  };
  document.readyState === "complete" ? ready() : window.addEventListener("load", () => ready());
  return { evaluate, complete, clear, draw, judge, parse, tolerance };
})();
