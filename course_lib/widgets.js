function read(figure) {
  return JSON.parse(figure.querySelector("script[type='application/json']").textContent);
}

// One node of a drawing; it is added to its parent.
function draw(parent, tag, attributes = {}, text = "") {
  const node = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  node.textContent = text;
  parent.append(node);
  return node;
}

// Maps from numbers to places in a drawing of the given size, with a frame and ticks.
function axes(svg, width, height, [left, right], [bottom, top], xticks, yticks) {
  const margin = { left: 36, right: 8, top: 8, bottom: 22 };
  const x = (v) => margin.left + (v - left) / (right - left) * (width - margin.left - margin.right);
  const y = (v) => height - margin.bottom - (v - bottom) / (top - bottom) * (height - margin.top - margin.bottom);
  for (const v of xticks) draw(svg, "text", { x: x(v), y: height - 6, "text-anchor": "middle" }, String(v));
  for (const v of yticks) draw(svg, "text", { x: margin.left - 5, y: y(v) + 4, "text-anchor": "end" }, String(v));
  draw(svg, "rect", { x: margin.left, y: margin.top, width: width - margin.left - margin.right,
    height: height - margin.top - margin.bottom, fill: "none", stroke: "#767676" });
  return { x, y };
}

function line(points, { x, y }) {
  return points.map(([a, b], i) => `${i ? "L" : "M"}${x(a).toFixed(1)} ${y(b).toFixed(1)}`).join("");
}

// Calls `show` with the controls' values, now and whenever one is changed.
function controls(figure, show) {
  const inputs = [...figure.querySelectorAll("input, select")];
  const update = () => {
    const values = {};
    for (const input of inputs) {
      // A slider over stops stands at the place of a value in a list.
      const stops = input.dataset.stops && JSON.parse(input.dataset.stops);
      const value = stops ? stops[input.value]
        : input.type === "checkbox" ? input.checked
        : input.type === "range" ? Number(input.value) : input.value;
      values[input.name] = value;
      const text = input.parentElement.querySelector("output");
      if (text) text.textContent = stops ? value : input.value;
      if (stops) input.setAttribute("aria-valuetext", value);
    }
    show(values);
  };
  for (const input of inputs) input.addEventListener("input", update);
  update();
  return update;
}

// Arrow keys, as steps to the right and up.
function arrows(node, move) {
  node.addEventListener("keydown", (event) => {
    const step = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] }[event.key];
    if (!step) return;
    event.preventDefault();
    move(...step);
  });
}

// Press, drag or touch, as the place in units of the drawing.
function pointer(svg, move) {
  const follow = (event) => {
    const place = new DOMPoint(event.clientX, event.clientY).matrixTransform(svg.getScreenCTM().inverse());
    move(place.x, place.y);
  };
  svg.addEventListener("pointerdown", (event) => { svg.setPointerCapture(event.pointerId); follow(event); });
  svg.addEventListener("pointermove", (event) => { if (event.buttons) follow(event); });
}

// Press, drag, touch or arrow keys move a point of the plane within ±limit.
function movable(svg, plot, limit, point, update) {
  const move = (a, b) => {
    [a, b].forEach((v, i) => { point[i] = Math.round(100 * Math.min(limit, Math.max(-limit, v))) / 100; });
    update();
  };
  const inverse = (map, place) => (place - map(0)) / (map(1) - map(0));
  pointer(svg, (x, y) => move(inverse(plot.x, x), inverse(plot.y, y)));
  arrows(svg, (right, up) => move(point[0] + 0.1 * right, point[1] + 0.1 * up));
}

// A Gaussian mixture of the plane under noise, as course_lib.mixtures has it: what is known at a point.
function noised_mixture({ weights, means, covariances }, alpha, sigma) {
  const parts = weights.map((weight, k) => {
    const [[a, b], [, d]] = covariances[k];
    const [p, q, r] = [alpha ** 2 * a + sigma ** 2, alpha ** 2 * b, alpha ** 2 * d + sigma ** 2];
    const determinant = p * r - q * q;
    return { mean: means[k], covariance: [a, b, d], inverse: [r, -q, p].map((v) => v / determinant),
      constant: Math.log(weight) - Math.log(2 * Math.PI) - Math.log(determinant) / 2 };
  });
  const times = ([a, b, d], [x, y]) => [a * x + b * y, b * x + d * y];
  return ([x, y]) => {
    const found = parts.map((part) => {
      const apart = [x - alpha * part.mean[0], y - alpha * part.mean[1]];
      const pull = times(part.inverse, apart);
      return { part, pull, log: part.constant - (apart[0] * pull[0] + apart[1] * pull[1]) / 2 };
    });
    const high = Math.max(...found.map(({ log }) => log));
    const sum = found.reduce((total, { log }) => total + Math.exp(log - high), 0);
    const score = [0, 0], clean = [0, 0];
    for (const { part, pull, log } of found) {
      const share = Math.exp(log - high) / sum, moved = times(part.covariance, pull);
      for (const i of [0, 1]) {
        score[i] -= share * pull[i];
        clean[i] += share * (part.mean[i] + alpha * moved[i]);
      }
    }
    return { log_density: high + Math.log(sum), score, clean, noise: score.map((v) => -sigma * v) };
  };
}

// A density over the frame of a plot, as a picture below all that is drawn later.
function density_picture(svg, plot, limit) {
  const image = draw(svg, "image", { x: plot.x(-limit), y: plot.y(limit), preserveAspectRatio: "none",
    width: plot.x(limit) - plot.x(-limit), height: plot.y(-limit) - plot.y(limit) });
  const canvas = document.createElement("canvas"), size = 90;
  canvas.width = canvas.height = size;
  return (log_density) => {
    const values = Array.from({ length: size * size }, (_, i) => log_density([
      limit * ((2 * (i % size) + 1) / size - 1), limit * (1 - (2 * Math.floor(i / size) + 1) / size)]));
    const high = values.reduce((a, b) => Math.max(a, b)), pixels = new ImageData(size, size);
    values.forEach((value, i) => {
      const share = Math.exp((value - high) / 2);
      pixels.data.set([255 - 165 * share, 255 - 95 * share, 255 - 45 * share, 255], 4 * i);
    });
    canvas.getContext("2d").putImageData(pixels, 0, 0);
    image.setAttribute("href", canvas.toDataURL());
  };
}

// What the lines and marks of a drawing are, in rows of so many columns.
function legend(svg, entries, x, y, columns = 1) {
  entries.forEach(([text, tag, attributes], i) => {
    const left = x + 180 * (i % columns), middle = y + 18 * Math.floor(i / columns);
    const place = tag === "circle" ? { cx: left + 12, cy: middle } : { d: tag === "line"
      ? `M${left} ${middle}h24` : `M${left + 6} ${middle}l6 -6l6 6l-6 6z` };
    draw(svg, tag === "circle" ? "circle" : "path", { fill: "none", ...place, ...attributes });
    draw(svg, "text", { x: left + 32, y: middle + 4 }, text);
  });
}

function pair(values, digits) {
  return `(${values.map((v) => v.toFixed(digits)).join(", ")})`;
}

function start_frames(figure) {
  const { frames, texts } = read(figure);
  const slider = figure.querySelector("input");
  const show = () => {
    figure.querySelector("img").src = frames[slider.value];
    figure.querySelector("output").textContent = texts[slider.value];
    slider.setAttribute("aria-valuetext", texts[slider.value]);
  };
  slider.addEventListener("input", show);
  show();
}

function start_plane(figure) {
  const data = read(figure);
  const bytes = (text) => Uint8Array.from(atob(text), (c) => c.charCodeAt(0)).buffer;
  // A half has a sign, five bits of an exponent and ten of a fraction.
  const half = (bits) => {
    const exponent = bits >> 10 & 31, fraction = bits & 1023;
    return (bits >> 15 ? -1 : 1) * (exponent ? (1 + fraction / 1024) * 2 ** (exponent - 15) : fraction * 2 ** -24);
  };
  const floats = (text) => data.half ? Float32Array.from(new Uint16Array(bytes(text)), half)
    : new Float32Array(bytes(text));
  const functions = { "": (v) => v, relu: (v) => Math.max(0, v), tanh: Math.tanh };
  const layers = data.layers.map((l) => ({ inputs: l.inputs, weight: floats(l.weight), bias: floats(l.bias),
    apply: functions[l.function] }));
  const decode = (z) => layers.reduce((input, layer) => Array.from(layer.bias, (bias, row) => {
    let sum = bias;
    for (let k = 0; k < layer.inputs; k++) sum += layer.weight[row * layer.inputs + k] * input[k];
    return layer.apply(sum);
  }), z).map((logit) => 1 / (1 + Math.exp(-logit)));

  const plane = figure.querySelector(".plane"), image = figure.querySelector(".image");
  const colours = ["#1f77b4", "#ff7f0e", "#2ca02c", "#d62728", "#9467bd",
                   "#8c564b", "#e377c2", "#7f7f7f", "#bcbd22", "#17becf"];
  const size = plane.width, limit = data.limit;
  const pixel = ([a, b]) => [(a / limit + 1) * size / 2, (1 - b / limit) * size / 2];
  let z = [0, 0];
  const show = () => {
    const paint = plane.getContext("2d");
    paint.clearRect(0, 0, size, size);
    data.points.forEach((point, index) => {
      const [x, y] = pixel(point);
      paint.fillStyle = colours[data.labels[index] % 10];
      paint.globalAlpha = 0.6;
      paint.fillRect(x - 2, y - 2, 4, 4);
    });
    paint.globalAlpha = 1;
    const [x, y] = pixel(z);
    paint.lineWidth = 2;
    paint.strokeStyle = "black";
    paint.beginPath();
    paint.arc(x, y, 7, 0, 2 * Math.PI);
    paint.stroke();
    const [height, width] = data.shape, values = decode(z);
    const pixels = new ImageData(width, height);
    values.forEach((value, index) => {
      const grey = Math.round(255 * value);
      pixels.data.set([grey, grey, grey, 255], 4 * index);
    });
    image.getContext("2d").putImageData(pixels, 0, 0);
    figure.dataset.z = JSON.stringify(z);
    figure.querySelector("output").textContent = `z = (${z[0].toFixed(2)}, ${z[1].toFixed(2)})`;
  };
  const move = (a, b) => {
    z = [a, b].map((v) => Math.min(limit, Math.max(-limit, v)));
    show();
  };
  const follow = (event) => {
    const box = plane.getBoundingClientRect();
    move(((event.clientX - box.left) / box.width * 2 - 1) * limit,
         (1 - (event.clientY - box.top) / box.height * 2) * limit);
  };
  plane.addEventListener("pointerdown", (event) => { plane.setPointerCapture(event.pointerId); follow(event); });
  plane.addEventListener("pointermove", (event) => { if (event.buttons) follow(event); });
  arrows(plane, (right, up) => move(z[0] + 0.1 * right, z[1] + 0.1 * up));
  show();
}

function start_gaussians(figure) {
  const { discriminator } = read(figure);
  const svg = figure.querySelector("svg"), result = figure.querySelector("p output");
  const plot = axes(svg, 560, 240, [-6, 6], [0, 1], [-6, -4, -2, 0, 2, 4, 6], [0, 0.5, 1]);
  const paths = {};
  for (const [name, colour, dash] of [["p", "#0072b2", ""], ["q", "#b34a00", "7 4"], ["D*", "black", "2 3"]]) {
    if (name === "D*" && !discriminator) continue;
    paths[name] = draw(svg, "path", { fill: "none", stroke: colour, "stroke-width": 2, "stroke-dasharray": dash });
    const row = 22 + 17 * (Object.keys(paths).length - 1);
    draw(svg, "path", { d: `M500 ${row}h24`, stroke: colour, "stroke-width": 2, "stroke-dasharray": dash });
    draw(svg, "text", { x: 529, y: row + 4 }, name);
  }
  const log_density = (x, mean, std) => -0.5 * ((x - mean) / std) ** 2 - Math.log(std * Math.sqrt(2 * Math.PI));
  const kl = (mean, std, mean0, std0) =>
    Math.log(std0 / std) + (std ** 2 + (mean - mean0) ** 2) / (2 * std0 ** 2) - 0.5;
  controls(figure, ({ mean_p, std_p, mean_q, std_q }) => {
    const p = (x) => log_density(x, mean_p, std_p), q = (x) => log_density(x, mean_q, std_q);
    const points = Array.from({ length: 301 }, (_, i) => -6 + 12 * i / 300);
    const curve = (f) => line(points.map((x) => [x, Math.min(1, f(x))]), plot);
    paths.p.setAttribute("d", curve((x) => Math.exp(p(x))));
    paths.q.setAttribute("d", curve((x) => Math.exp(q(x))));
    if (!discriminator) {
      result.textContent = `KL(q‖p) = ${kl(mean_q, std_q, mean_p, std_p).toFixed(4)} nats, ` +
        `KL(p‖q) = ${kl(mean_p, std_p, mean_q, std_q).toFixed(4)} nats`;
      return;
    }
    paths["D*"].setAttribute("d", curve((x) => 1 / (1 + Math.exp(q(x) - p(x)))));
    // The divergence is a sum over a grid that is wide and fine enough for every position of the sliders.
    let jsd = 0;
    for (let x = -30; x <= 30; x += 0.01) {
      const a = p(x), b = q(x), high = Math.max(a, b);
      const middle = high + Math.log((Math.exp(a - high) + Math.exp(b - high)) / 2);
      jsd += 0.01 * (Math.exp(a) * (a - middle) + Math.exp(b) * (b - middle)) / 2;
    }
    result.textContent = `JSD(p‖q) = ${jsd.toFixed(4)} nats, value of the game 2·JSD − log 4 = ${(2 * jsd - Math.log(4)).toFixed(4)}`;
  });
}

function start_dirac(figure) {
  const { steps, limit, start } = read(figure);
  const svg = figure.querySelector("svg"), result = figure.querySelector("p output");
  const plot = axes(svg, 400, 400, [-limit, limit], [-limit, limit], [-2, -1, 0, 1, 2], [-2, -1, 0, 1, 2]);
  draw(svg, "text", { x: 380, y: 370, "text-anchor": "end" }, "generator θ");
  draw(svg, "text", { x: 42, y: 22 }, "discriminator ψ");
  const field = draw(svg, "path", { fill: "none", stroke: "#8a8a8a" });
  const path = draw(svg, "path", { fill: "none", stroke: "#0072b2", "stroke-width": 1.5 });
  const first = draw(svg, "circle", { r: 7, fill: "none", stroke: "#b34a00", "stroke-width": 3 });
  draw(svg, "path", { d: `M${plot.x(0) - 6} ${plot.y(0)}h12m-6 -6v12`, stroke: "black", "stroke-width": 2 });
  const sigmoid = (t) => 1 / (1 + Math.exp(-t));
  const update = controls(figure, ({ gamma, rate, loss, alternating }) => {
    const velocity = ([theta, psi]) => {
      const t = psi * theta;
      return [sigmoid(loss === "minimax" ? t : -t) * psi, -sigmoid(t) * theta - gamma * psi];
    };
    let arrow = "";
    for (let a = -2; a <= 2; a += 0.4) for (let b = -2; b <= 2; b += 0.4) {
      const [da, db] = velocity([a, b]).map((v) => 0.1 * v);
      const [x, y, u, v] = [plot.x(a), plot.y(b), plot.x(a + da), plot.y(b + db)];
      const [dx, dy] = [(u - x) / 3, (v - y) / 3];
      arrow += `M${x.toFixed(1)} ${y.toFixed(1)}L${u.toFixed(1)} ${v.toFixed(1)}` +
        `l${(-dx - dy).toFixed(1)} ${(dx - dy).toFixed(1)}M${u.toFixed(1)} ${v.toFixed(1)}l${(-dx + dy).toFixed(1)} ${(-dx - dy).toFixed(1)}`;
    }
    field.setAttribute("d", arrow);
    const states = [[...start]];
    for (let n = 0; n < steps; n++) {
      const [theta, psi] = states[n], [dtheta, dpsi] = velocity([theta, psi]);
      const moved = psi + rate * dpsi;
      states.push([theta + rate * (alternating ? velocity([theta, moved])[0] : dtheta), moved]);
    }
    const clip = (v) => Math.min(limit, Math.max(-limit, v));
    path.setAttribute("d", line(states.map((s) => s.map(clip)), plot));
    first.setAttribute("cx", plot.x(start[0]));
    first.setAttribute("cy", plot.y(start[1]));
    // Eigenvalues of the update's Jacobian at the equilibrium, from its trace and determinant.
    const trace = 2 - rate * gamma - (alternating ? rate ** 2 / 4 : 0);
    const determinant = 1 - rate * gamma + (alternating ? 0 : rate ** 2 / 4);
    const root = trace ** 2 / 4 - determinant;
    const modulus = root < 0 ? Math.sqrt(determinant) : Math.abs(trace / 2) + Math.sqrt(root);
    result.textContent = `start (${start.map((v) => v.toFixed(2)).join(", ")}): distance ` +
      `${Math.hypot(...start).toFixed(3)}, after ${steps} steps ${Math.hypot(...states[steps]).toPrecision(3)}; ` +
      `largest modulus ${modulus.toFixed(4)}`;
  });
  movable(svg, plot, 2, start, update);
}

function start_field(figure) {
  const { shape: [height, width], fields } = read(figure);
  const svg = figure.querySelector("svg"), result = figure.querySelector("p output");
  let at = [Math.floor(height / 2), Math.floor(width / 2)];
  const squares = Array.from({ length: height * width }, (_, i) => draw(svg, "rect", {
    x: 20 * (i % width) + 1, y: 20 * Math.floor(i / width) + 1, width: 18, height: 18, stroke: "#767676" }));
  const cross = draw(svg, "path", { stroke: "#222", "stroke-width": 1.5 });
  const update = controls(figure, ({ model }) => {
    const place = at[0] * width + at[1];
    const seen = fields[model].slice(place * height * width, (place + 1) * height * width);
    let missed = "", count = 0, misses = 0;
    squares.forEach((square, i) => {
      square.setAttribute("fill", i === place ? "#d55e00" : seen[i] === "1" ? "#56a0d3" : "white");
      if (seen[i] === "1") count++;
      if (i < place && seen[i] !== "1") {
        misses++;
        missed += `M${20 * (i % width) + 6} ${20 * Math.floor(i / width) + 6}l8 8m0 -8l-8 8`;
      }
    });
    cross.setAttribute("d", missed);
    result.textContent = `row ${at[0] + 1}, column ${at[1] + 1}: sees ${count} of ${place} earlier pixels, misses ${misses}`;
  });
  const move = (row, column) => {
    at = [Math.min(height - 1, Math.max(0, row)), Math.min(width - 1, Math.max(0, column))];
    update();
  };
  pointer(svg, (x, y) => move(Math.floor(y / 20), Math.floor(x / 20)));
  arrows(svg, (right, up) => move(at[0] - up, at[1] + right));
}

function start_reveal(figure) {
  const { shape: [height, width], levels, image, probabilities } = read(figure);
  const [picture, chart] = figure.querySelectorAll("svg"), result = figure.querySelector("p output");
  const slider = figure.querySelector("input");
  const squares = image.map((_, i) => draw(picture, "rect", {
    x: 20 * (i % width), y: 20 * Math.floor(i / width), width: 20, height: 20 }));
  const next = draw(picture, "rect", { width: 18, height: 18, fill: "none", stroke: "#d55e00", "stroke-width": 3 });
  const plot = axes(chart, 320, 200, [-0.5, levels - 0.5], [0, 1], [0, Math.floor((levels - 1) / 2), levels - 1], [0, 0.5, 1]);
  const bars = Array.from({ length: levels }, (_, k) => draw(chart, "rect", {
    x: plot.x(k - 0.4), width: plot.x(k + 0.4) - plot.x(k - 0.4), stroke: "#222", "stroke-width": 0.5 }));
  const bits = probabilities.map((row, i) => -Math.log2(row[image[i]]));
  controls(figure, ({ known }) => {
    squares.forEach((square, i) => {
      const grey = Math.round(255 * image[i] / (levels - 1));
      square.setAttribute("fill", i < known ? `rgb(${grey} ${grey} ${grey})` : "#a9c8e0");
    });
    next.setAttribute("x", 20 * (known % width) + 1);
    next.setAttribute("y", 20 * Math.floor(known / width) + 1);
    bars.forEach((bar, k) => {
      bar.setAttribute("y", plot.y(probabilities[known][k]));
      bar.setAttribute("height", plot.y(0) - plot.y(probabilities[known][k]));
      bar.setAttribute("fill", k === image[known] ? "#d55e00" : "#56a0d3");
    });
    const total = bits.slice(0, known + 1).reduce((sum, b) => sum + b, 0);
    result.textContent = `pixel ${known + 1} is level ${image[known]}: probability ${probabilities[known][image[known]].toFixed(3)}, ` +
      `${bits[known].toFixed(2)} bits; ${(total / (known + 1)).toFixed(3)} bits per pixel so far`;
  });
  pointer(picture, (x, y) => {
    const column = Math.min(width - 1, Math.max(0, Math.floor(x / 20)));
    slider.value = Math.min(height - 1, Math.max(0, Math.floor(y / 20))) * width + column;
    slider.dispatchEvent(new Event("input"));
  });
}

function start_noised(figure) {
  const { mixture, limit, point } = read(figure);
  const svg = figure.querySelector("svg"), result = figure.querySelector("p output");
  const plot = axes(svg, 400, 400, [-limit, limit], [-limit, limit], [-2, -1, 0, 1, 2], [-2, -1, 0, 1, 2]);
  const picture = density_picture(svg, plot, limit);
  const field = draw(svg, "path", { fill: "none", stroke: "#555" });
  const way = draw(svg, "path", { fill: "none", stroke: "#8a3800", "stroke-width": 2, "stroke-dasharray": "4 3" });
  const mark = { fill: "none", stroke: "#8a3800", "stroke-width": 3 }, filled = { fill: "#8a3800", stroke: "white" };
  const noised = draw(svg, "circle", { r: 7, ...mark }), clean = draw(svg, "path", filled);
  legend(svg, [["noised point z", "circle", { r: 6, ...mark }], ["posterior mean of x", "diamond", filled]], 42, 412, 2);
  const update = controls(figure, ({ log_snr }) => {
    const [alpha, sigma] = [log_snr, -log_snr].map((v) => Math.sqrt(1 / (1 + Math.exp(-v))));
    const known = noised_mixture(mixture, alpha, sigma), here = known(point);
    picture((z) => known(z).log_density);
    let arrow = "";
    for (let i = -6; i <= 6; i++) for (let j = -6; j <= 6; j++) {
      const z = [i, j].map((v) => v * limit / 6.5), { score } = known(z), length = Math.hypot(...score);
      const [dx, dy] = score.map((v, k) => (k ? -1 : 1) * 22 * Math.tanh(length / 3) * v / Math.max(length, 1e-9));
      const tip = [plot.x(z[0]) + dx, plot.y(z[1]) + dy];
      arrow += `M${plot.x(z[0]).toFixed(1)} ${plot.y(z[1]).toFixed(1)}L${tip[0].toFixed(1)} ${tip[1].toFixed(1)}` +
        `l${(-(dx - dy) / 4).toFixed(1)} ${(-(dx + dy) / 4).toFixed(1)}M${tip[0].toFixed(1)} ${tip[1].toFixed(1)}` +
        `l${(-(dx + dy) / 4).toFixed(1)} ${((dx - dy) / 4).toFixed(1)}`;
    }
    field.setAttribute("d", arrow);
    noised.setAttribute("cx", plot.x(point[0]));
    noised.setAttribute("cy", plot.y(point[1]));
    clean.setAttribute("d", `M${plot.x(here.clean[0]) - 8} ${plot.y(here.clean[1])}l8 -8l8 8l-8 8z`);
    way.setAttribute("d", line([point, here.clean], plot));
    result.textContent = `λ = ${log_snr.toFixed(1)}: α = ${alpha.toFixed(3)}, σ = ${sigma.toFixed(3)}; at z = ${pair(point, 2)} ` +
      `log density ${here.log_density.toFixed(3)}, score ${pair(here.score, 3)}, posterior mean ${pair(here.clean, 3)}`;
  });
  movable(svg, plot, limit, point, update);
}

function start_paths(figure) {
  const { mixture, limit, start, ends, noise, fine_steps, example } = read(figure);
  const svg = figure.querySelector("svg"), result = figure.querySelector("p output");
  const plot = axes(svg, 400, 400, [-limit, limit], [-limit, limit], [-2, -1, 0, 1, 2], [-2, -1, 0, 1, 2]);
  density_picture(svg, plot, limit)((z) => noised_mixture(mixture, 1, 0)(z).log_density);
  const looks = {
    exact: { stroke: "#555", "stroke-width": 4, "stroke-opacity": 0.55 },
    solver: { stroke: "#00507a", "stroke-width": 2 },
    ancestral: { stroke: "#8a3800", "stroke-width": 1.5, "stroke-dasharray": "4 2" },
  };
  const lines = {}, dots = {};
  for (const [name, look] of Object.entries(looks)) lines[name] = draw(svg, "path", { fill: "none", ...look });
  for (const name of ["solver", "ancestral"]) {
    dots[name] = draw(svg, "path", { fill: "none", ...looks[name], "stroke-dasharray": "", "stroke-width": 6, "stroke-linecap": "round" });
  }
  const first = draw(svg, "circle", { r: 7, fill: "none", stroke: "black", "stroke-width": 3 });
  legend(svg, [["start, at time 1", "circle", { r: 6, stroke: "black", "stroke-width": 3 }], ["exact ODE", "line", looks.exact],
    ["solver", "line", looks.solver], [example ? "path of a pair" : "ancestral sampling", "line", looks.ancestral]], 42, 412, 2);
  // λ along a straight line between its ends, or the straight path α = 1 − t, σ = t; with derivatives.
  const level = (t) => {
    if (!ends) return { alpha: 1 - t, sigma: t, rates: [-1, 1] };
    const log_snr = ends[0] + (ends[1] - ends[0]) * t, [signal, rest] = [log_snr, -log_snr].map((v) => 1 / (1 + Math.exp(-v)));
    const [alpha, sigma] = [signal, rest].map(Math.sqrt), slope = (ends[1] - ends[0]) / 2;
    return { alpha, sigma, rates: [alpha * rest * slope, -sigma * signal * slope] };
  };
  const mix = (a, x, b, y) => x.map((v, i) => a * v + b * y[i]);
  const at = (z, { alpha, sigma }) => noised_mixture(mixture, alpha, sigma)(z);
  const velocity = (z, t) => {
    const now = level(t), { clean, noise } = at(z, now);
    return mix(now.rates[0], clean, now.rates[1], noise);
  };
  const ddim = (z, t, s) => {
    const { clean, noise } = at(z, level(t)), { alpha, sigma } = level(s);
    return mix(alpha, clean, sigma, noise);
  };
  // Heun's method in z/α and σ/α; on the straight path, where α is 0 at time 1, in time.
  const heun = (z, t, s) => {
    if (!ends) {
      const slope = velocity(z, t), guess = mix(1, z, s - t, slope);
      return mix(1, z, (s - t) / 2, mix(1, slope, 1, velocity(guess, s)));
    }
    const now = level(t), next = level(s), change = next.sigma / next.alpha - now.sigma / now.alpha;
    const slope = at(z, now).noise, guess = mix(next.alpha / now.alpha, z, next.alpha * change, slope);
    return mix(next.alpha / now.alpha, z, next.alpha * change / 2, mix(1, slope, 1, at(guess, next).noise));
  };
  const midpoint = (z, t, s) => mix(1, z, s - t, velocity(mix(1, z, (s - t) / 2, velocity(z, t)), (t + s) / 2));
  const rk4 = (z, t, s) => {
    const h = s - t, middle = t + h / 2, one = velocity(z, t), two = velocity(mix(1, z, h / 2, one), middle);
    const three = velocity(mix(1, z, h / 2, two), middle), four = velocity(mix(1, z, h, three), s);
    return mix(1, z, h / 6, mix(1, mix(1, one, 2, two), 1, mix(2, three, 1, four)));
  };
  const ancestral = (z, t, s, fresh) => {
    const now = level(t), next = level(s), kept = now.alpha / next.alpha;
    const beta = now.sigma ** 2 - (kept * next.sigma) ** 2, share = (next.sigma / now.sigma) ** 2;
    const mean = mix(kept * share, z, next.alpha * beta / now.sigma ** 2, at(z, now).clean);
    return mix(1, mean, Math.sqrt(beta * share), fresh);
  };
  const path = (step, n) => {
    const states = [[...start]];
    for (let i = 0; i < n; i++) states.push(step(states[i], 1 - i / n, 1 - (i + 1) / n, i));
    return states;
  };
  const update = controls(figure, ({ steps, method }) => {
    // The noise of a long step is that of the short ones within it, so that all lengths see one noise.
    const share = noise.length / steps;
    const fresh = (i) => noise.slice(i * share, (i + 1) * share).reduce((a, b) => mix(1, a, 1, b)).map((v) => v / Math.sqrt(share));
    const found = {
      exact: path(rk4, fine_steps),
      solver: path({ Heun: heun, midpoint }[method] || ddim, steps),
      // With an example, the straight path of the pair in place of random steps.
      ancestral: example ? [[...start], example] : path((z, t, s, i) => ancestral(z, t, s, fresh(i)), steps),
    };
    for (const [name, states] of Object.entries(found)) {
      const inside = states.map((z) => z.map((v) => Math.min(limit, Math.max(-limit, v))));
      lines[name].setAttribute("d", line(inside, plot));
      if (dots[name]) dots[name].setAttribute("d", inside.slice(1).map(([a, b]) => `M${plot.x(a).toFixed(1)} ${plot.y(b).toFixed(1)}h0`).join(""));
    }
    first.setAttribute("cx", plot.x(start[0]));
    first.setAttribute("cy", plot.y(start[1]));
    const [exact, end, random] = Object.values(found).map((states) => states[states.length - 1]);
    result.textContent = `start ${pair(start, 2)}: the exact ODE ends at ${pair(exact, 3)}, ${method} with ${steps} steps at ` +
      `${pair(end, 3)}, at a distance of ${Math.hypot(end[0] - exact[0], end[1] - exact[1]).toPrecision(3)}` +
      (example ? `; the path of the pair leads to ${pair(random, 2)}` : `; ancestral sampling at ${pair(random, 3)}`);
  });
  movable(svg, plot, limit, start, update);
}

function start_guided(figure) {
  const { own, every } = read(figure);
  const svg = figure.querySelector("svg"), result = figure.querySelector("p output");
  const plot = axes(svg, 560, 260, [-1, 3.5], [0, 4.5], [-1, 0, 1, 2, 3], [0, 1, 2, 3, 4]);
  const looks = {
    own: { stroke: "#444", "stroke-width": 2, "stroke-dasharray": "2 3" },
    tilted: { stroke: "#b34a00", "stroke-width": 2, "stroke-dasharray": "7 4" },
    sampled: { stroke: "#0072b2", "stroke-width": 2 },
  };
  const curves = {};
  for (const [name, look] of Object.entries(looks)) curves[name] = draw(svg, "path", { fill: "none", ...look });
  legend(svg, [["the class", "line", looks.own], ["tilted density", "line", looks.tilted], ["guided ODE", "line", looks.sampled]], 48, 22);
  const points = Array.from({ length: 451 }, (_, i) => -1 + i / 100);
  const density = (mean, variance) => line(points.map((x) =>
    [x, Math.min(4.5, Math.exp(-((x - mean) ** 2) / (2 * variance)) / Math.sqrt(2 * Math.PI * variance))]), plot);
  // The velocity of N(m, c) on the straight path between data and noise.
  const velocity = (z, t, [m, c]) => -m + (t - (1 - t) * c) / ((1 - t) ** 2 * c + t ** 2) * (z - (1 - t) * m);
  controls(figure, ({ w }) => {
    const guided = (z, t) => (1 + w) * velocity(z, t, own) - w * velocity(z, t, every);
    const steps = 100, h = -1 / steps;
    // The map is affine, so two starting points tell it.
    const [low, high] = [0, 1].map((start) => {
      let z = start;
      for (let i = 0; i < steps; i++) {
        const t = 1 + i * h, one = guided(z, t), two = guided(z + h / 2 * one, t + h / 2);
        const three = guided(z + h / 2 * two, t + h / 2), four = guided(z + h * three, Math.max(0, t + h));
        z += h / 6 * (one + 2 * two + 2 * three + four);
      }
      return z;
    });
    const precision = (1 + w) / own[1] - w / every[1];
    const tilted = [((1 + w) * own[0] / own[1] - w * every[0] / every[1]) / precision, 1 / precision];
    const sampled = [low, (high - low) ** 2];
    curves.own.setAttribute("d", density(...own));
    curves.tilted.setAttribute("d", density(...tilted));
    curves.sampled.setAttribute("d", density(...sampled));
    const words = ([mean, variance]) => `mean ${mean.toFixed(3)} and variance ${variance.toFixed(4)}`;
    result.textContent = `w = ${w.toFixed(1)}: the guided ODE ends with ${words(sampled)}, the tilted density has ${words(tilted)}`;
  });
}

// Brings an element to life.
const starts = {
  frames: start_frames, plane: start_plane, gaussians: start_gaussians, dirac: start_dirac, field: start_field,
  reveal: start_reveal, noised: start_noised, paths: start_paths, guided: start_guided,
};
function start(figure) {
  starts[figure.dataset.kind](figure);
}
