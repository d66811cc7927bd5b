"""Every question: the right forms are accepted, every known mistake is rejected with its own hint."""

import json
import math
import re
from dataclasses import replace

import nbformat
import notebooks as tool
import numpy as np
import pytest
import torch

from course_lib.checking.checking import diagnosis, evaluate, shows
from course_lib.checking.compare import agree
from course_lib.checking.public import decode, encode, load
from course_lib.grading.question import Measure, Question, Written
from course_lib.grading.release import (
    public_text,
    require_consistent,
    solution_version,
    student_version,
)

from .assignments import ASSIGNMENTS, NAMES, ROOT

COMPARED = [
    pytest.param(a, q, id=f"{a.name}.{q.name}")
    for a in ASSIGNMENTS
    for q in a.questions
    if isinstance(q, Question)
]
MISTAKES = [
    pytest.param(a, q, m, id=f"{a.name}.{q.name}: {m.name}")
    for a in ASSIGNMENTS
    for q in a.questions
    if isinstance(q, Question)
    for m in q.mistakes
]
SUBMISSIONS = [("seed", "ada"), ("seed", "emmy"), ("another seed", "ada")]


@pytest.mark.parametrize(("assignment", "question"), COMPARED)
def test_right_answers_are_accepted_in_every_form(assignment, question):
    public = load(assignment.name)[question.name]
    for answer in (question.reference, *question.equivalents):
        assert diagnosis(public, evaluate(public, answer)) is None
        for key in SUBMISSIONS:
            hidden = replace(public, cases=tuple(question.cases(assignment.name, *key)))
            # In the types of the probes, as a student's function gets them.
            for case, result in zip(hidden.cases, evaluate(hidden, answer), strict=True):
                assert not isinstance(result, str), result
                assert agree(result, case.expected, case.tolerance), case.name


def test_the_rounding_of_large_entries_is_no_mistake_in_a_small_one():
    """One of these draws has an entry of 0.05 in a gradient whose others reach 90."""
    gan = next(a for a in ASSIGNMENTS if a.name == "gan")
    question = next(q for q in gan.questions if q.name == "penalty_gradient")
    public = load("gan")["penalty_gradient"]
    hidden = replace(public, cases=tuple(question.cases("gan", "sec", "stud652")))
    for case, result in zip(hidden.cases, evaluate(hidden, question.reference), strict=True):
        assert agree(result, case.expected, case.tolerance)


@pytest.mark.parametrize(("assignment", "question", "mistake"), MISTAKES)
def test_every_mistake_is_rejected_with_its_own_hint(assignment, question, mistake):
    public = load(assignment.name)[question.name]
    # In the types of the probes, as a student's function gets them.
    assert diagnosis(public, evaluate(public, mistake.answer)) == mistake.hint.rstrip(".")
    for key in SUBMISSIONS:
        cases = question.cases(assignment.name, *key)
        wrong = question.results(mistake.answer, cases)
        # Not one lucky draw: some mistakes are right in one of the cases that an answer distinguishes,
        # and each case has two probes.
        told = [not agree(r, c.expected, c.tolerance) for c, r in zip(cases, wrong, strict=True)]
        assert sum(told) >= min(2, len(cases))
        for other in question.mistakes:
            if other is not mistake:
                given = question.results(other.answer, cases)
                assert not shows(wrong, given, cases)


@pytest.mark.parametrize(("assignment", "question"), COMPARED)
def test_inputs_are_drawn_per_submission(assignment, question):
    if question.kind == "value":
        pytest.skip("a value takes no inputs")
    draws = [question.cases(assignment.name, *key) for key in SUBMISSIONS]
    assert all(len(cases) >= 3 for cases in draws)
    seen = set()
    for cases in draws:
        for case in cases:
            seen.add(tuple(repr(x.tolist()) if hasattr(x, "tolist") else x for x in case.inputs))
    assert len(seen) == sum(map(len, draws))
    # A function that was written for one size alone is found out.
    public = load(assignment.name)[question.name].cases
    for cases in draws:
        shapes = {tuple(getattr(x, "shape", ()) for x in case.inputs) for case in (*public, *cases)}
        numbers = not any(map(any, shapes))
        assert len(shapes) > 1 or numbers or question.kind == "expression"
    again = question.cases(assignment.name, *SUBMISSIONS[0])
    for case, same in zip(draws[0], again, strict=True):
        assert agree(case.expected, same.expected, case.tolerance)


@pytest.mark.parametrize("assignment", ASSIGNMENTS, ids=NAMES)
def test_the_assignment_is_complete(assignment):
    kinds = [q.kind for q in assignment.questions if isinstance(q, Question) and q.points]
    assert 8 <= len(kinds) + 1 <= 13
    assert {"function", "expression", "value"} <= set(kinds)
    assert sum(isinstance(q, Measure) for q in assignment.questions) == 1
    assert sum(isinstance(q, Written) for q in assignment.questions) == 1
    forms = sum(len(q.equivalents) for q in assignment.questions if isinstance(q, Question))
    assert forms >= 5
    for question in assignment.questions:
        if isinstance(question, Question):
            assert len(question.mistakes) >= 2, question.name
            hints = [m.hint for m in question.mistakes]
            assert len(set(hints)) == len(hints)


NUMBERS = dict(enumerate(["Nine", "Ten", "Eleven", "Twelve", "Thirteen", "Fourteen"], 9))


@pytest.mark.parametrize("assignment", ASSIGNMENTS, ids=NAMES)
def test_the_master_says_how_many_questions_there_are_and_for_how_many_points(assignment):
    written = [q for q in assignment.questions if isinstance(q, Written)]
    machine = [q for q in assignment.questions if q.points and q not in written]
    cells = [c.source for c in nbformat.read(assignment.master, as_version=4).cells]
    assert (
        f"{NUMBERS[len(machine)]} questions that a machine grades "
        f"({sum(q.points for q in machine):g} points) and one that a person reads "
        f"({written[0].points:g} points)"
    ) in cells[0]
    headings = [text.splitlines()[0] for text in cells if text.startswith("## ")]
    optional = [text for text in headings if text.startswith("## Optional: ")]
    assert all(text.endswith("(no points)") for text in optional)
    assert len(optional) == sum(not q.points for q in assignment.questions)
    # In the order of the questions, each with its number and its points.
    points = (q.points for q in assignment.questions if q.points)
    counted = [text for text in headings if text not in optional]
    for number, (text, worth) in enumerate(zip(counted, points, strict=True), 1):
        said = re.fullmatch(r"## (\d+)\. .*\(([\d.]+) points?(?:, .*)?\)", text)
        assert said, text
        assert (int(said[1]), float(said[2])) == (number, worth)


def test_where_a_mistake_divides_0_by_0_it_is_known_by_the_same_entries():
    question = next(q for q in COMPARED if q.id == "autoregressive.causal_attention").values[1]
    mistake = next(m for m in question.mistakes if m.name == "own place hidden")
    public = load("autoregressive")["causal_attention"]
    wrong = evaluate(public, mistake.answer)
    assert diagnosis(public, wrong) == mistake.hint
    for change in (
        lambda a: np.nan_to_num(a),  # other entries are finite
        lambda a: np.where(np.isfinite(a), 2 * a, a),  # the same ones, and other values
        lambda a: a[..., :1],
    ):
        other = [{name: change(a) for name, a in result.items()} for result in wrong]
        assert diagnosis(public, other) != mistake.hint


def assert_same(stored, computed, where="public"):
    """Equal up to the last of nine digits, which rounding may turn on another processor."""
    assert type(stored) is type(computed), where
    if isinstance(stored, dict):
        assert stored.keys() == computed.keys(), where
        for key, value in stored.items():
            assert_same(value, computed[key], f"{where}/{key}")
    elif isinstance(stored, list):
        assert len(stored) == len(computed), where
        for index, pair in enumerate(zip(stored, computed, strict=True)):
            assert_same(*pair, f"{where}/{index}")
    elif isinstance(stored, float) and not math.isnan(stored):
        assert math.isclose(stored, computed, rel_tol=1e-8, abs_tol=1e-12), where
    else:
        assert stored == computed or (stored != stored and computed != computed), where


@pytest.mark.parametrize("assignment", ASSIGNMENTS, ids=NAMES)
def test_what_is_released_is_what_the_sources_give(assignment):
    """Otherwise call: course-lib assignment release NAME."""
    master = nbformat.read(assignment.master, as_version=4)
    require_consistent(assignment, master)
    public = ROOT / "course_lib" / "checking" / "public" / f"{assignment.name}.json"
    assert_same(json.loads(public.read_text(encoding="utf-8")), json.loads(public_text(assignment)))
    released = assignment.folder / "student" / f"{assignment.name}.ipynb"
    assert nbformat.read(released, as_version=4) == student_version(master)
    text = released.read_text(encoding="utf-8")
    assert "SOLUTION" not in text
    assert "SOLUTION" not in nbformat.writes(solution_version(master))


def test_what_is_released_does_not_depend_on_the_processor():
    """Whose last digits differ: those of float64 are not written, those of float32 all."""
    x = np.random.default_rng(0).standard_normal(500)
    assert encode(x) == encode(np.nextafter(x, np.inf))
    assert decode(encode(x)) == pytest.approx(x, rel=1e-8)
    assert np.array_equal(decode(encode(x.astype(np.float32))), x.astype(np.float32))


def test_every_solution_of_a_cell_becomes_a_placeholder():
    source = """a = 1
### BEGIN SOLUTION
a = 2
### END SOLUTION
def f(x):
    ### BEGIN SOLUTION
    return a * x
    ### END SOLUTION"""
    marks = {"nbgrader": {"solution": True, "grade": False, "grade_id": "f"}}
    master = nbformat.v4.new_notebook(
        cells=[nbformat.v4.new_code_cell(source, metadata=marks), nbformat.v4.new_code_cell(source)]
    )
    (asked, shown), (solved, _) = student_version(master).cells, solution_version(master).cells
    stub = "# YOUR CODE HERE\nraise NotImplementedError()"
    indented = "    " + stub.replace("\n", "\n    ")
    assert asked.source == f"a = 1\n{stub}\ndef f(x):\n{indented}"
    assert shown.source == source
    assert "raises-exception" in asked.metadata["tags"]
    assert solved.source == "a = 1\na = 2\ndef f(x):\n    return a * x"


@pytest.mark.parametrize("assignment", ASSIGNMENTS, ids=NAMES)
def test_the_master_is_stored_clean_with_the_common_setup(assignment):
    master = nbformat.read(assignment.master, as_version=4)
    code = [cell for cell in master.cells if cell.cell_type == "code"]
    assert code[0].source == tool.setup_cell(tool.repository()), (
        "run: python tools/notebooks.py sync"
    )
    assert not any(cell.outputs for cell in code)


@pytest.mark.parametrize(("assignment", "question"), COMPARED)
def test_float64_and_other_layouts_are_accepted_where_the_answer_is_right(assignment, question):
    """The type and layout of a right result never cost a point."""
    for case in question.cases(assignment.name, *SUBMISSIONS[0]):
        for name, value in case.expected.items():
            tensor = torch.tensor(value)
            for form in (tensor.double(), tensor.double().numpy().T.copy().T):
                form = form.numpy() if isinstance(form, torch.Tensor) else form
                assert agree({**case.expected, name: form}, case.expected, case.tolerance)
