"""The script of the questions by itself: what readers type, and browsers that keep nothing."""

import json
import shutil
from pathlib import Path

import pytest

pytestmark = pytest.mark.browser
SCRIPT = Path(__file__).parents[2] / "book" / "_static" / "self-checks.js"
NUMBER = {
    "name": "half",
    "kind": "answer",
    "draw": {},
    "let": [],
    "answer": -0.5,
    "slips": [0.25],
    "unit": "nats",
    "whole": False,
    "tolerance": 0.002,
}
OPTION = {"name": "choice", "kind": "options", "right": 1, "order": [0, 1]}
PAGE = """<!doctype html><meta charset="utf-8"><title>questions</title>
<div class="self-check-progress"></div>
<div class="self-check" id="check-half"><p class="self-check-title"><strong>1</strong></p>
  <div class="question"><p>How many?</p></div><div class="hints"><div class="hint">a slip</div></div>
  <script type="application/json">{number}</script></div>
<div class="self-check" id="check-choice"><p class="self-check-title"><strong>2</strong></p>
  <div class="question"><p>Which?</p></div><div class="choices"><div class="choice choice-0">this</div>
  <div class="choice choice-1">that</div></div>
  <div class="hints"><div class="hint">no</div><div class="hint">yes</div></div>
  <script type="application/json">{option}</script></div>
<div class="self-check-answers"><div class="answer of-half"><p><strong>1</strong> A half.</p></div>
  <div class="answer of-choice"><p><strong>2</strong> That.</p></div></div>
{scripts}<script defer src="self-checks.js"></script>
"""


@pytest.fixture
def visit(browser, tmp_path):
    """Opens the page, with scripts of its own, in a browser that is prepared by another one."""
    contexts = []

    def opened(scripts="", prepared="", context=None):
        if context is None:
            context = browser.new_context()
            contexts.append(context)
        shutil.copy(SCRIPT, tmp_path)
        text = PAGE.format(number=json.dumps(NUMBER), option=json.dumps(OPTION), scripts=scripts)
        (tmp_path / "page.html").write_text(text, encoding="utf-8")
        page = context.new_page()
        page.add_init_script(prepared)
        page.goto((tmp_path / "page.html").as_uri())
        page.wait_for_selector("#check-half form")
        return page

    yield opened
    for context in contexts:
        context.close()


def answer(page, text):
    field = page.locator("#check-half input")
    field.fill(text)
    field.press("Enter")
    return page.locator("#check-half .verdict").inner_text()


def progress(page):
    return page.locator(".self-check-progress").inner_text()


READ = {
    "-0.25": -0.25,
    "−0.25": -0.25,
    "–.25": -0.25,
    "- 1/4": -0.25,
    "= 0.25": 0.25,
    "25 %": 0.25,
    "¼": 0.25,
    "3·10^-2": 0.03,
    "3×10⁻²": 0.03,
    "3*10**-2": 0.03,
    "-10^(2)": -100,
    "1.5E−3": 0.0015,
    "４．５": 4.5,
    "4 093": 4093,
    "4\u202f093.5": 4093.5,
    "0.25 nats": 0.25,
    "1/4 nat": 0.25,
    "5.": 5,
}
TOLD = {
    "1,5": "decimal point",
    "1,5e-3": "decimal point",
    "1,234.5": "nothing between thousands",
    "1'234": "nothing between thousands",
    "ln 2": "the number itself",
    "√2": "the number itself",
    "e^-1": "the number itself",
    "0.25 bits": "in nats",
    "1 2": "one number",  # not 12
    "3 1/2": "one number",  # not 31/2
    "1½": "one number",  # not 11/2
    "0.1 0.2": "one number",
    "0.25 apples": "one number",
    "9" * 100_000 + "x": "one number",
    "": "one number",
    "1e400": "finite",
}


def test_numbers_are_read_as_people_write_them(visit):
    page = visit()
    parsed = {
        text: page.evaluate("text => selfChecks.parse(text, 'nats').value", text) for text in READ
    }
    assert parsed == READ


def test_what_is_no_number_is_told(visit):
    page = visit()
    for text, said in TOLD.items():
        parsed = page.evaluate("text => selfChecks.parse(text, 'nats')", text)
        assert said in parsed.get("problem", f"read as {parsed}"), text


def test_a_minus_can_be_typed_on_every_telephone(visit):
    field = visit().locator("#check-half input")
    assert field.get_attribute("inputmode") in (None, "text")  # "decimal" has none on some
    assert field.get_attribute("dir") == "ltr"


OFF = "Object.defineProperty(window, 'localStorage', { get() { throw new DOMException('no'); } });"
FULL = (
    "Storage.prototype.setItem = () => { throw new DOMException('full', 'QuotaExceededError'); };"
)


@pytest.mark.parametrize("prepared", [OFF, FULL], ids=["switched off", "full"])
def test_what_a_browser_does_not_keep_the_page_counts(visit, prepared):
    page = visit(prepared=prepared)
    assert "answered 0" in progress(page)
    assert answer(page, "-0.5").startswith("Right.")
    assert "answered 1" in progress(page)
    assert "keeps nothing" in progress(page)
    page.locator("#check-choice .step").nth(1).click()
    page.locator("#check-choice").get_by_role("button", name="Check").click()
    assert "answered 2" in progress(page)
    page.get_by_role("button", name="Forget").click()
    assert "answered 0" in progress(page)


def test_what_another_program_left_is_replaced(visit):
    page = visit()
    for rubbish in ("{", "null", "5", '"half"', "[1, 2]", "true", ""):
        page.evaluate("text => localStorage.setItem('self-checks', text)", rubbish)
        page.reload()
        page.wait_for_selector("#check-half form")
        assert "answered 0" in progress(page), rubbish
        assert answer(page, "-0.5").startswith("Right.")
        kept = json.loads(page.evaluate("localStorage.getItem('self-checks')"))
        assert list(kept.values()) == [True], rubbish
    page.reload()
    page.wait_for_selector("#check-half form")
    assert "answered 1" in progress(page)


def test_two_tabs_count_together(visit):
    first = visit()
    second = visit(context=first.context)
    answer(first, "-0.5")
    second.wait_for_function("document.body.innerText.includes('answered 1')")
    second.locator("#check-choice .step").nth(1).click()
    second.locator("#check-choice").get_by_role("button", name="Check").click()
    first.wait_for_function("document.body.innerText.includes('answered 2')")


def test_questions_are_asked_where_formulas_never_come(visit):
    waiting = "<script>window.MathJax = { tex: {} }</script><script defer src='gone.js'></script>"
    failing = "<script>window.MathJax = { startup: { promise: Promise.reject(1) } }</script>"
    for scripts in (waiting, failing):
        assert answer(visit(scripts), "-0.5").startswith("Right.")


def test_other_numbers_take_the_verdict_with_them(visit):
    page = visit()
    answer(page, "0.25")
    verdict = page.locator("#check-half .verdict")
    assert verdict.get_attribute("class") == "verdict wrong"
    assert "a slip" in verdict.inner_text()
    assert answer(page, "-.5").startswith("Right.")
    assert verdict.get_attribute("class") == "verdict right"
