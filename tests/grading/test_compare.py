"""When two results count as equal, what is said where they do not, and what an answer may be."""

import numpy as np
import pytest
import sympy
import torch

from course_lib.checking import check, checking
from course_lib.checking.answers import NotAnswered, as_arrays, as_function
from course_lib.checking.checking import WrongAnswer, diagnosis, evaluate, shows
from course_lib.checking.compare import Tolerance, agree, difference
from course_lib.checking.measures import Measurement
from course_lib.checking.public import Case, PublicMeasure, PublicQuestion
from course_lib.grading.question import load_assignment

from .test_classroom import COURSE

TOLERANCE = Tolerance(rtol=1e-3, atol=1e-6)
EXPECTED = {"": np.array([[1.0, -2.0, 0.0, 400.0]])}
# The largest entry counts for all: rounding is as large in the entry that happens to be zero.
MARGIN = np.full((1, 4), 1e-6 + 1e-3 * 400)


@pytest.mark.parametrize("share", [-0.99, 0.0, 0.99])
def test_what_lies_within_the_tolerance_agrees(share):
    assert agree({"": EXPECTED[""] + share * MARGIN}, EXPECTED, TOLERANCE)


DISAGREE = {
    "too large": EXPECTED[""] + 1.01 * MARGIN,
    "too small": EXPECTED[""] - 1.01 * MARGIN,
    "one entry too large": EXPECTED[""] + 1.01 * MARGIN * np.array([0, 0, 1, 0]),
    "NaN": EXPECTED[""] * np.array([1, np.nan, 1, 1]),
    "infinity": EXPECTED[""] + np.array([0, 0, 0, np.inf]),
    "a shape that broadcasts": EXPECTED[""][0],
    "another order of the axes": EXPECTED[""].T,
    "complex": EXPECTED[""] + 0j,
}


@pytest.mark.parametrize("name", DISAGREE)
def test_what_does_not_agree(name):
    assert not agree({"": DISAGREE[name]}, EXPECTED, TOLERANCE)


def test_the_results_must_be_those_that_are_asked_for():
    two = {"0": np.array(1.0), "1": np.array(2.0)}
    assert agree(two, dict(two), TOLERANCE)
    for other in ({"0": two["0"]}, {**two, "2": np.array(3.0)}, {"0": two["0"], "2": two["1"]}):
        assert not agree(other, two, TOLERANCE)
        assert not agree(two, other, TOLERANCE)
    assert not agree({"0": two["1"], "1": two["0"]}, two, TOLERANCE)


def test_the_type_does_not_matter_where_the_value_is_right():
    assert agree({"": np.array([1, -2])}, {"": np.array([1.0, -2.0])}, TOLERANCE)
    assert agree({"": np.array(True)}, {"": np.array(1.0)}, TOLERANCE)


def test_a_mistake_in_float32_may_cancel_or_overflow_and_is_known_all_the_same():
    inputs = (np.zeros(2), np.zeros(2, dtype=np.float32))
    cases = [Case(f"case {k}", (x,), {"": np.ones(2)}, TOLERANCE) for k, x in enumerate(inputs)]
    huge = {"": np.full(2, 1e49)}
    assert shows([huge, {"": np.full(2, np.inf)}], [huge, huge], cases)
    two, nearly, right = ({"": np.full(2, x)} for x in (2.0, 2.05, 1.0))
    assert shows([two, nearly], [two, two], cases)
    assert not shows([nearly, two], [two, two], cases)
    assert not shows([two, right], [two, two], cases)
    assert not shows([two, "it raised"], [two, two], cases)


def test_a_wrong_number_is_named_and_the_right_one_is_not_told():
    """A value has no other inputs: what is expected is what earns the points."""
    expected = {name: np.array(value) for name, value in (("a", 1.25), ("b", 2.5))}
    public = PublicQuestion("pair", "value", (), (Case("the value", (), expected, TOLERANCE),), ())
    assert (
        diagnosis(public, evaluate(public, {"a": 1.25, "b": 0})) == "b is 0: not right; 1 of 2 are"
    )
    twice = diagnosis(public, evaluate(public, {"a": 2.5, "b": 5.0}))
    assert twice == "a is 2.5, b is 5: not right"
    assert "2 results" in diagnosis(public, evaluate(public, {"a": 1.25, "c": 0}))
    alone = (Case("the value", (), {"": np.array(1.25)}, TOLERANCE),)
    public = PublicQuestion("number", "value", (), alone, ())
    assert diagnosis(public, evaluate(public, 0.5)) == "the result is 0.5: not right"


def test_a_result_among_several_that_is_none_is_a_mistake_and_no_placeholder():
    function = as_function(lambda x: (x, None), "function")
    with pytest.raises(TypeError, match="None as one of its results"):
        function(torch.ones(2))


@pytest.mark.parametrize("bad", [(-1e-9, 0.0), (0.0, -1e-9), (float("nan"), 0.0)])
def test_a_tolerance_that_lets_nothing_or_everything_pass_is_refused(bad):
    with pytest.raises(ValueError, match="at least 0"):
        Tolerance(*bad)


RIGHT = [{"": np.array([1.0, 2.0, 4.0])}, {"": np.array([-3.0, 0.5, 7.0])}]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda x: x, None),
        (lambda x: -x, "the sign is flipped everywhere; in case 1 the result at [2] is -4 where 4"),
        (lambda x: 2.5 * x, "every value is 2.5 times the expected one"),
        (lambda x: x - 0.75, "every value is off by the same -0.75"),
        (lambda x: np.where(x == 7, 6, x), "1 of 2 cases differ; in case 2 the result at [2] is 6"),
        (lambda x: x**2, "2 of 2 cases differ"),
        (lambda x: x[:2], "the result has shape (2,); (3,) is expected (in case 1)"),
        (lambda x: np.where(x > 3, np.nan, x), "the result holds NaN or infinity (1 of 3 values)"),
        (lambda x: x + 0j, "the result is complex"),
    ],
)
def test_the_difference_is_put_in_words(change, said):
    given = [{"": change(case[""])} for case in RIGHT]
    found = difference(given, RIGHT, [TOLERANCE] * 2, ["case 1", "case 2"])
    assert found is said if said is None else said in found


def test_a_missing_result_is_put_in_words():
    pair = [{"0": np.array(1.0), "1": np.array(2.0)}]
    found = difference([{"": np.array(1.0)}], pair, [TOLERANCE], ["case 1"])
    assert found == "2 results ('0', '1') are expected, and one result is given (in case 1)"


def test_answers_are_reduced_to_arrays():
    nested = {"a": (1, torch.tensor([2.0])), "b": [np.float32(3), {"c": sympy.Rational(1, 2)}]}
    found = as_arrays(nested)
    assert {name: value.tolist() for name, value in found.items()} == {
        "a.0": 1, "a.1": [2.0], "b.0": 3.0, "b.1.c": 0.5,
    }  # fmt: skip
    assert as_arrays([1, 2.5])[""].tolist() == [1, 2.5]
    # A list of numbers of any kind is one array, as [f(example) for example in batch] is.
    numbers = as_arrays([torch.tensor(1.0), np.float32(2), sympy.Rational(1, 2), True])
    assert numbers[""].tolist() == [1, 2, 0.5, 1]
    assert as_arrays([])[""].shape == (0,)
    assert list(as_arrays([torch.ones(1), 2.0])) == ["0", "1"]
    # So is a tuple of numbers, which `return a, b` makes; a pair of other things stays a pair.
    assert as_arrays((1.0, torch.tensor(2.0)))[""].tolist() == [1, 2]
    assert list(as_arrays((1.0, torch.ones(2)))) == ["0", "1"]
    assert as_arrays(torch.ones(2, dtype=torch.bfloat16, requires_grad=True))[""].tolist() == [1, 1]
    z = torch.tensor([1 + 2j, 3j])
    assert as_arrays(z.conj().imag)[""].tolist() == [-2, -3]  # of which torch notes the sign alone
    assert as_arrays(z.conj())[""].tolist() == [1 - 2j, -3j]
    assert as_arrays(torch.eye(2).to_sparse())[""].tolist() == [[1, 0], [0, 1]]
    for nothing in (None, ..., (1, None)):
        with pytest.raises(NotAnswered):
            as_arrays(nothing)
    for other in ("1", object(), lambda: 1, np.array(["1"]), np.array([object()])):
        with pytest.raises(TypeError, match="numbers, arrays or tensors are expected"):
            as_arrays(other)


def test_an_answer_of_another_kind_is_named():
    with pytest.raises(TypeError, match="a function is expected, and float was given"):
        as_function(1.0, "function")
    with pytest.raises(NotAnswered):
        as_function(..., "function")


MINI = load_assignment("mini", COURSE)


@pytest.fixture
def public(monkeypatch):
    """The checks of the mini assignment, and one of a trained model."""
    questions = {q.name: q.public("mini") for q in MINI.questions[:3]}
    questions["model"] = PublicMeasure("model", "decoder_nats", ("decode",), 20.0)
    monkeypatch.setattr(checking, "load", lambda assignment: questions)


def test_the_check_prints_a_line_for_a_right_answer(public, capsys):
    check("mini.target", lambda x, w: 7.25 * (x**2 @ w))
    assert capsys.readouterr().out == "✓ mini.target: right on 4 public cases\n"


def fails(x, w):
    raise RuntimeError("broken")


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (lambda x, w: 7.25 * (x**2).sum(1), "mini.target: The weights are not used."),
        (lambda x, w: 7.25 * (w * x**2).mean(1), "mini.target: The terms are averaged."),
        (lambda x, w: -7.25 * (w * x**2).sum(1), "the sign is flipped everywhere"),
        (lambda x, w: (x @ w) * float("nan"), "NaN or infinity"),
        (fails, "it raised RuntimeError: broken"),
        (7.25, "a function is expected, and float was given"),
        (lambda x, w: None, "the function returned None (is its `return` missing?)"),
    ],
)
def test_the_check_says_what_is_wrong(public, answer, said):
    with pytest.raises(WrongAnswer) as raised:
        check("mini.target", answer)
    assert said in str(raised.value)


def not_yet(x, w):
    raise NotImplementedError


@pytest.mark.parametrize("answer", [None, ..., not_yet])
def test_a_placeholder_is_no_mistake(public, answer):
    with pytest.raises(NotImplementedError, match=r"mini\.target is not answered yet"):
        check("mini.target", answer)


def test_an_unknown_question_lists_those_that_exist(public):
    with pytest.raises(ValueError, match="has first, target, last, model"):
        check("mini.targt", lambda x, w: x)
    with pytest.raises(ValueError, match="there is no question 'target'"):
        check("target", lambda x, w: x)


def test_a_check_that_is_called_in_another_way_says_how_it_is_called(public):
    with pytest.raises(TypeError, match=r"is a function; the name of a question .* check\(\"vae"):
        check(not_yet, "mini.target")
    for question, answers in (("target", ()), ("target", (not_yet, not_yet)), ("model", ())):
        said = rf"{len(answers)} answers are given; mini\.{question} takes 1, as in check\("
        with pytest.raises(TypeError, match=said):
            check(f"mini.{question}", *answers)


@pytest.mark.parametrize(("value", "right"), [(20.0, True), (20.001, False)])
def test_a_model_is_checked_on_the_validation_images(public, monkeypatch, capsys, value, right):
    def measure(ask, *, split, seed):
        assert split == "validation"
        return Measurement(value + ask("decode", np.zeros(2, np.float32))[""].sum(), "nats")

    monkeypatch.setattr(checking.measures, "decoder_nats", measure)
    if right:
        check("mini.model", lambda z: z)
        assert "20 nats on the validation images; at most 20" in capsys.readouterr().out
    else:
        with pytest.raises(WrongAnswer, match="at most 20 is asked"):
            check("mini.model", lambda z: z)
    with pytest.raises(WrongAnswer, match="a function is expected, and list was given"):
        check("mini.model", [1.0])


def test_a_model_that_changes_its_input_is_asked_with_a_copy(public, monkeypatch):
    """As in the grading, where inputs are sent: the next question may hold the same values."""

    def measure(ask, *, split, seed):
        z = np.ones(2, np.float32)
        answers = [ask("decode", z)[""] for _ in range(2)]
        np.testing.assert_array_equal(*answers)
        np.testing.assert_array_equal(z, 1)
        return Measurement(20.0, "nats")

    monkeypatch.setattr(checking.measures, "decoder_nats", measure)
    check("mini.model", lambda z: z.mul_(0.5))
