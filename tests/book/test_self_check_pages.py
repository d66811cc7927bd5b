"""Every question of every page, answered in a browser: right, by each slip, and by nonsense."""

import json
from pathlib import Path

import formulas
import pytest
import self_checks

pytestmark = pytest.mark.browser
ROOT = Path(__file__).parents[2]


@pytest.fixture
def boxes(page, path):
    """The questions of the page, with what their file says of them."""
    source = ROOT / "book" / path.parent.name / "self-checks.yml"
    if not page.locator(".self-check").count():
        return []
    page.wait_for_selector(".self-check form", state="attached")
    questions = self_checks.read(source)
    found = []
    for index in range(page.locator(".self-check").count()):
        box = page.locator(".self-check").nth(index)
        name = box.get_attribute("id").removeprefix("check-")
        found.append((box, questions[name]))
    return found


def words(locator):
    """What is said, without formulas, as one line."""
    return locator.evaluate(
        """node => {
             const copy = node.cloneNode(true);
             for (const formula of copy.querySelectorAll(".math, mjx-container")) formula.remove();
             return copy.textContent.replace(/\\s+/g, " ").trim();
           }"""
    )


def said(box):
    return words(box.locator(".verdict"))


def hint(box, index):
    return words(box.locator(".hints > .hint").nth(index))


def write(box, text):
    box.locator("input").fill(text)
    box.locator("input").press("Enter")


def test_every_question_is_judged(page, boxes):
    for box, question in boxes:
        check = box.get_by_role("button", name="Check")
        if question.kind == "answer":
            for _ in range(4):
                check_numbers(box, question)
                if not question.draw:
                    break
                box.get_by_role("button", name="Other numbers").click()
                assert said(box) == ""
        elif question.kind == "steps":
            check_steps(page, box, question)
        else:
            check.click()
            assert "first" in said(box)
            for index, choice in enumerate(question.choices):
                box.locator(".choice .step").nth(index).click(position={"x": 2, "y": 5})
                check.click()
                assert said(box).startswith("Right." if choice.right else "Not right.")
                assert hint(box, index) in said(box)
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
    shown = box.locator(".question .drawn").all_inner_texts()
    assert set(shown) <= {self_checks.shown(value) for value in values.values()}
    write(box, f"{values['answer']:.8f}".replace("-", "−"))
    assert said(box).startswith("Right.")
    if not question.whole:
        write(box, f"{values['answer']:.3f}")
        assert said(box).startswith("Right."), "three decimals suffice"
    for index, value in enumerate(question.wrong_values(values)):
        write(box, f"{value:.8f}")
        assert said(box).startswith("Not right.")
        assert hint(box, index) in said(box)
    hints = [hint(box, index) for index in range(len(question.slips))]
    write(box, f"{1234.5 + abs(values['answer']):.4f}")
    assert said(box).startswith("Not right.")
    assert not any(said(box) == f"Not right. {one}" for one in hints)
    assert "too large" in said(box) or "sign" in said(box)
    for nonsense in ("", "ELBO", "1.2.3", "1/0", "--1"):
        write(box, nonsense)
        assert "Right" not in said(box)
        assert "number" in said(box)
    write(box, "0,5")
    assert "decimal point" in said(box)


def check_steps(page, box, question):
    order = question.shuffled()
    check = box.get_by_role("button", name="Check")
    check.click()
    wrong = next(place for place, index in enumerate(order) if place != index)
    assert said(box).startswith("Not right.")
    assert hint(box, order[wrong]) in said(box)
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
