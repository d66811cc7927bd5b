"""Every question of every page, answered in a browser: right, by each slip, and by nonsense."""

import json
from functools import cache
from pathlib import Path

import formulas
import pytest
import self_checks

pytestmark = pytest.mark.browser
ROOT = Path(__file__).parents[2]


# What is said, without formulas, as one line.
WORDS = """node => {
  const copy = node.cloneNode(true);
  for (const formula of copy.querySelectorAll(".math, mjx-container")) formula.remove();
  return copy.textContent.replace(/\\s+/g, " ").trim();
}"""
# The browser's own keys and clicks cost a tenth of a second each, most of it for the layout of a long page.
# So one answer of each question is typed and entered by keys; the others reach the form in one call.
ANSWER = f"""(box, texts) => {{
  const form = box.querySelector("form"), field = form.querySelector("input");
  return texts.map(text => {{
    field.value = text;
    form.requestSubmit();
    return ({WORDS})(box.querySelector(".verdict"));
  }});
}}"""
# What lies at the place of each choice is clicked, whether it is the choice or something that covers it.
CHOOSE = f"""box => Array.from(box.querySelectorAll(".choice .step"), step => {{
  step.scrollIntoView({{block: "center", behavior: "instant"}});
  const {{x, y}} = step.getBoundingClientRect();
  const hit = document.elementFromPoint(x + 2, y + 5);  // a part of a drawn formula has no click()
  hit.dispatchEvent(new MouseEvent("click", {{bubbles: true}}));
  box.querySelector("form").requestSubmit();
  return ({WORDS})(box.querySelector(".verdict"));
}})"""
DRAW_AGAIN = """box => Array.from(box.querySelectorAll("button"))
  .find(button => button.textContent == "Other numbers").click()"""


@cache
def questions_of(chapter):
    return self_checks.read(ROOT / "book" / chapter / "self-checks.yml")


@pytest.fixture
def boxes(page, path):
    """The questions of the page, with what their file says of them."""
    if not page.locator(".self-check").count():
        return []
    page.wait_for_selector(".self-check form", state="attached")
    questions = questions_of(path.parent.name)
    names = page.locator(".self-check").evaluate_all("all => all.map(box => box.id)")
    return [(page.locator(f"#{name}"), questions[name.removeprefix("check-")]) for name in names]


def words(locator):
    return locator.evaluate(WORDS)


def said(box):
    return words(box.locator(".verdict"))


def hints(box):
    """The words of all hints, in their order."""
    found = box.locator(".hints > .hint")
    return found.evaluate_all(f"all => all.map({WORDS})")


def said_to(box, *texts):
    """What the question says to each text that is entered."""
    return dict(zip(texts, box.evaluate(ANSWER, texts), strict=True))


def write(box, text):
    """Type a text and enter it, by keys."""
    box.locator("input").fill(text)
    box.locator("input").press("Enter")


def test_every_question_is_judged(page, boxes):
    for box, question in boxes:
        check = box.get_by_role("button", name="Check")
        if question.kind == "answer":
            check_numbers(box, question)
            right = json.loads(box.get_attribute("data-values"))["answer"]
            write(box, f"{right:.8f}")
            assert said(box).startswith("Right."), question.name
            if question.draw:
                box.get_by_role("button", name="Other numbers").click()
                assert said(box) == "", question.name
                for _ in range(3):
                    check_numbers(box, question)
                    box.evaluate(DRAW_AGAIN)
                    assert said(box) == "", question.name
        elif question.kind == "steps":
            check_steps(page, box, question)
        else:
            check.click()
            assert "first" in said(box), question.name
            verdicts = zip(question.choices, hints(box), box.evaluate(CHOOSE), strict=True)
            for choice, hint, verdict in verdicts:
                assert verdict.startswith("Right." if choice.right else "Not right."), question.name
                assert hint in verdict, question.name
            # Once more by the browser's own clicks.
            box.locator(".choice .step").first.click(position={"x": 2, "y": 5})
            check.click()
            right = question.choices[0].right
            assert said(box).startswith("Right." if right else "Not right."), question.name
        box.locator("summary").click()
        assert words(box.locator("details")).removeprefix("Show the answer").strip()


def check_numbers(box, question):
    values = json.loads(box.get_attribute("data-values"))
    for name in question.draw:
        assert values[name] in question.draw[name]
    tree = question.answer
    for name, between in question.let.items():
        assert values[name] == pytest.approx(formulas.evaluate(between, values), rel=1e-12)
    assert values["answer"] == pytest.approx(formulas.evaluate(tree, values), rel=1e-12)
    shown = box.locator(".question .drawn").all_text_contents()
    assert set(shown) <= {self_checks.shown(value) for value in values.values()}
    right = [f"{values['answer']:.8f}".replace("-", "−")]
    if not question.whole:
        right.append(f"{values['answer']:.3f}")  # three decimals suffice
    for text, verdict in said_to(box, *right).items():
        assert verdict.startswith("Right."), (question.name, text)
    slips = [f"{value:.8f}" for value in question.wrong_values(values)]
    for hint, (text, verdict) in zip(hints(box), said_to(box, *slips).items(), strict=True):
        assert verdict.startswith("Not right."), (question.name, text)
        assert hint in verdict, (question.name, text)
    far = f"{1234.5 + abs(values['answer']):.4f}"
    verdict = said_to(box, far)[far]
    assert verdict.startswith("Not right."), (question.name, far)
    assert not any(verdict == f"Not right. {one}" for one in hints(box)), question.name
    assert "too large" in verdict or "sign" in verdict, (question.name, far)
    for text, verdict in said_to(box, "", "ELBO", "1.2.3", "1/0", "--1").items():
        assert "Right" not in verdict, (question.name, text)
        assert "number" in verdict, (question.name, text)
    assert "decimal point" in said_to(box, "0,5")["0,5"], question.name


def check_steps(page, box, question):
    order = question.shuffled()
    check = box.get_by_role("button", name="Check")
    check.click()
    wrong = next(place for place, index in enumerate(order) if place != index)
    assert said(box).startswith("Not right.")
    assert hints(box)[order[wrong]] in said(box)
    # By the keyboard alone: each line is brought to its place.
    for place in range(len(order)):
        now = [
            int(step.get_attribute("id").rsplit("-", 1)[1]) for step in box.locator(".step").all()
        ]
        for _ in range(now.index(place) - place):
            up = box.locator(f".choice-{place}").get_by_role("button", name="Earlier")
            up.focus()
            page.keyboard.press("Enter")
            assert up.evaluate("node => node === document.activeElement"), "the focus is lost"
    check.focus()
    page.keyboard.press("Enter")
    assert said(box).startswith("Right.")


def test_progress_is_kept_and_forgotten(page, boxes):
    if not boxes:
        return
    place = page.locator(".self-check-progress")
    assert place.count() == 1, "the page does not say how far its reader is"
    if place.get_by_role("button").count():
        place.get_by_role("button").click()
    assert f"Of the {len(boxes)} questions on this page you have answered 0." in place.inner_text()
    box, question = next(pair for pair in boxes if pair[1].kind == "options")
    index = [choice.right for choice in question.choices].index(True)
    box.locator("input").nth(index).check()
    box.get_by_role("button", name="Check").click()
    assert "you have answered 1." in place.inner_text()
    kept = page.evaluate("localStorage.getItem('self-checks')")
    assert json.loads(kept) == {f"{'/'.join(Path(page.url).parts[-2:])}#{question.name}": True}
    place.get_by_role("button").click()
    assert "you have answered 0." in place.inner_text()


def test_print_shows_questions_and_answers_without_controls(page, boxes):
    if not boxes:
        return
    answers = page.locator(".self-check-answers")
    assert not answers.is_visible()
    page.emulate_media(media="print")
    assert answers.is_visible()
    assert answers.locator(".answer").count() == len(boxes)
    for box, _ in boxes:
        assert not box.locator("form").is_visible()
    page.emulate_media(media="screen")


def test_without_a_script_the_page_has_questions_and_answers(browser, path, boxes):
    if not boxes:
        return
    context = browser.new_context(java_script_enabled=False)
    bare = context.new_page()
    bare.goto(path.as_uri())
    assert bare.locator(".self-check .question").first.is_visible()
    assert bare.locator(".self-check-answers").is_visible()
    assert not bare.locator(".self-check .hint").first.is_visible()
    context.close()
