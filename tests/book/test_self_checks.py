"""The questions in the pages: their numbers by the library, their meanings apart, the page's script alike.

The formulas of a question stand in ``book/<chapter>/self-checks.yml``; the answer and what each slip leads to
are computed once more, by the library, in ``tests/<chapter>/self_check_routes.py``.
"""

import importlib
import itertools
import json
import random
import re
from pathlib import Path

import formulas
import pytest
import self_checks

ROOT = Path(__file__).parents[2]
FILES = sorted(ROOT.glob("book/*/self-checks.yml"))
QUESTIONS = {path.parent.name: self_checks.read(path) for path in FILES}
ALL = [
    pytest.param(chapter, question, id=f"{chapter}-{name}")
    for chapter, questions in QUESTIONS.items()
    for name, question in questions.items()
]
NUMERIC = [parameter for parameter in ALL if parameter.values[1].kind == "answer"]


def some_draws(question, most=40):
    draws = list(question.draws())
    return draws if len(draws) <= most else random.Random(question.name).sample(draws, most)


@pytest.mark.parametrize(("chapter", "question"), NUMERIC)
def test_numbers_are_those_of_the_library(float64, chapter, question):
    routes = importlib.import_module(f"tests.{chapter}.self_check_routes").ROUTES
    for values in some_draws(question):
        drawn = {name: values[name] for name in question.draw}
        answer, slips = routes[question.name](**drawn)
        assert values["answer"] == pytest.approx(float(answer), rel=1e-7, abs=1e-9)
        assert question.wrong_values(values) == pytest.approx(
            [float(value) for value in slips], rel=1e-7, abs=1e-9
        )


@pytest.mark.parametrize(("chapter", "question"), NUMERIC)
def test_most_draws_give_every_number_one_meaning(chapter, question):
    draws = list(question.draws())
    clear = [question.is_clear(values) for values in draws]
    assert sum(clear) > 0.6 * len(draws)
    assert len(draws) == 1 or sum(clear) >= 4, "the numbers hardly change"
    # What is said of a number that is no slip must not be true of the answer itself or of a slip.
    for values in itertools.compress(draws, clear):
        assert abs(values["answer"]) < 1e5, "too long to type"


def test_routes_are_of_questions_that_exist():
    for chapter, questions in QUESTIONS.items():
        routes = importlib.import_module(f"tests.{chapter}.self_check_routes").ROUTES
        assert set(routes) == {name for name, one in questions.items() if one.kind == "answer"}


@pytest.mark.parametrize(("chapter", "question"), ALL)
def test_a_page_of_the_chapter_asks_the_question_once(chapter, question):
    pages = [*ROOT.glob(f"book/{chapter}/*.md"), *ROOT.glob(f"book/{chapter}/*.ipynb")]
    asked = re.compile(r"\{self-check\} " + re.escape(question.name) + r"(?![\w-])")
    assert sum(len(asked.findall(page.read_text(encoding="utf-8"))) for page in pages) == 1


@pytest.mark.parametrize(("chapter", "question"), ALL)
def test_a_question_says_something_of_every_wrong_answer(chapter, question):
    hints = [hint for _, hint in question.slips] + [choice.hint for choice in question.choices]
    if question.kind == "steps":
        # Only the first line can never stand too early.
        hints = hints[1:]
    assert hints
    assert all(len(hint.split()) >= 3 for hint in hints)
    assert len(set(hints)) == len(hints), "two different slips have one hint"


@pytest.mark.parametrize("chapter", QUESTIONS)
def test_a_chapter_has_questions_of_several_kinds(chapter):
    kinds = [question.kind for question in QUESTIONS[chapter].values()]
    assert len(kinds) >= 10
    assert kinds.count("answer") >= 4
    assert len(set(kinds)) == len(self_checks.KINDS)


@pytest.mark.parametrize(
    ("formula", "values", "expected"),
    [
        ("-x**2 / 2 - log(sqrt(2 * pi))", {"x": 0.5}, -1.0439385332046727),
        ("max(0, 1 - x) % 0.3", {"x": 0.25}, 0.15),
        ("log2(8) - 2 * -x", {"x": 1}, 5),
    ],
)
def test_formulas_are_python(formula, values, expected):
    tree = formulas.parse(formula)
    assert formulas.evaluate(tree, values) == pytest.approx(expected)
    assert formulas.evaluate(json.loads(json.dumps(tree)), values) == pytest.approx(expected)
    assert formulas.names(tree) == set(values)


@pytest.mark.parametrize(
    "formula", ["x if x else 1", "__import__('os')", "x.real", "f(x)", "1 +", "'a'", "x[0]", ""]
)
def test_what_is_no_formula_is_refused(formula):
    with pytest.raises(ValueError, match="is no formula"):
        formulas.parse(formula)


RIGHT = (
    "q: {text: 'How much?', solution: 'So much.', draw: {x: [1, 2, 3]}, answer: x, "
    "slips: [{value: 2 * x, hint: Twice.}]}"
)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("answer: x,", ""), "exactly one of"),
        (("answer: x,", "answer: x, options: [],"), "exactly one of"),
        (("solution: 'So much.',", ""), r"lacks \['solution'\]"),
        (("2 * x", "2 * y"), r"uses \['y'\]"),
        (("2 * x", "1 * x"), "for no draw"),
        (("text:", "colour: red, text:"), r"has \['colour'\]"),
        (("answer: x,", "lines: [{text: a, hint: b}],"), "marked 'right: true'"),
        (("answer: x,", "lines: [{text: a, right: true}],"), "must have a hint"),
    ],
)
def test_a_wrong_question_is_named(tmp_path, change, message):
    path = tmp_path / "self-checks.yml"
    path.write_text(RIGHT, encoding="utf-8")
    assert self_checks.read(path)["q"].first() == {"x": 1, "answer": 1}
    assert change[0] in RIGHT
    path.write_text(RIGHT.replace(*change), encoding="utf-8")
    with pytest.raises(ValueError, match=message):
        self_checks.read(path)
