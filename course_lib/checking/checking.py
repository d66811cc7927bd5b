"""`check`: tells a student whether an answer is right, and if not, which mistake it looks like."""

import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch

from course_lib.checking import measures, numerics, presence
from course_lib.checking.answers import Arrays, NotAnswered, as_arrays, as_function
from course_lib.checking.compare import Expected, Tolerance, agree, difference, wrong_results
from course_lib.checking.public import Case, PublicMeasure, PublicQuestion, load


class WrongAnswer(AssertionError):
    """An answer is not right; the message says what is known about it."""

    def _render_traceback_(self) -> list[str]:
        # Jupyter prints this instead of the library's frames, which say nothing to a student.
        return [f"{type(self).__name__}: {self}"]


def check(question: str, *answers: Any) -> None:
    """Check an answer on the public probes; print a line if it is right, raise if it is not.

    Prints as well if the answer takes so long that the grading may stop it, or if the notebook uses modules
    that are absent there. While a notebook is graded another `check` stands here, which compares nothing.

    Args:
        question: ``"<assignment>.<question>"``, for instance ``"vae.kl_diagonal"``.
        *answers: the function, expression or value that answers it; the several functions of
            a question about a trained model, in the order of the statement.

    Raises:
        WrongAnswer: the answer is wrong. A known mistake is named; otherwise the message says
            what differs: shape, sign, factor, or which case.
        NotImplementedError: the question still holds its placeholder.
        TypeError: the first argument is not a name, or the number of answers is another one.
        ValueError: there is no such question; the message lists those that exist.
    """
    if not isinstance(question, str):
        raise TypeError(
            f"the first argument is a {type(question).__name__}; the name of a question is expected, "
            f'and behind it the answer, as in check("vae.kl_diagonal", kl_diagonal).'
        )
    assignment, _, name = question.partition(".")
    questions = load(assignment)
    if name not in questions:
        raise ValueError(
            f"there is no question {question!r}; assignment {assignment!r} has "
            f"{', '.join(questions)}"
        )
    public = questions[name]
    names = public.functions if isinstance(public, PublicMeasure) else (name,)
    if len(answers) != len(names):
        raise TypeError(
            f"{len(answers)} answers are given; {question} takes {len(names)}, as in "
            f'check("{question}", {", ".join(names)}).'
        )
    for note in presence.notes(answers):
        print(note)
    start = time.monotonic()
    try:
        if isinstance(public, PublicMeasure):
            fault, success = _measured(public, answers)
        else:
            fault = diagnosis(public, evaluate(public, *answers))
            success = f"right on {len(public.cases)} public cases"
    except (NotAnswered, NotImplementedError):
        raise NotImplementedError(f"{question} is not answered yet") from None
    slow = _slowness(public, time.monotonic() - start)
    if fault is not None:
        raise WrongAnswer(f"{question}: {fault}. {slow}".rstrip())
    print(f"✓ {question}: {success}. {slow}".rstrip(" ."))


def _slowness(public: PublicQuestion | PublicMeasure, seconds: float) -> str:
    """A sentence if an answer may run out of time in the grading, else nothing."""
    # There are as many hidden inputs as public ones.
    needed = seconds if isinstance(public, PublicMeasure) else 2 * seconds
    if needed <= public.seconds / 2:
        return ""
    return (
        f"But it is slow: the grading stops it after {public.seconds:g} s and asks for about "
        f"{needed:.2g} s of what this computer takes. Compute with whole tensors instead of loops, and "
        f"nothing twice"
    )


def evaluate(public: PublicQuestion, answer: Any) -> list[Arrays | str]:
    """Evaluate an answer on the public probes; an error in the answer becomes its description."""
    try:
        function = as_function(answer, public.kind, public.symbols)
    except (TypeError, ValueError) as error:
        return [str(error)] * len(public.cases)
    return [_result(function, case) for case in public.cases]


def diagnosis(public: PublicQuestion, results: Sequence[Arrays | str]) -> str | None:
    """Say what is wrong with results on the public probes; ``None`` if nothing is."""
    for case, result in zip(public.cases, results, strict=True):
        if isinstance(result, str):
            return f"{result} (in {case.name})"
    expected = [case.expected for case in public.cases]
    tolerances = [case.tolerance for case in public.cases]
    if all(map(agree, results, expected, tolerances)):
        return None
    for mistake in public.mistakes:
        if shows(results, mistake.results, public.cases):
            return mistake.hint.rstrip(".")
    if public.kind == "value":  # it has no other inputs: what is expected here is the answer
        return wrong_results(results[0], expected[0], tolerances[0])
    said = difference(results, expected, tolerances, [case.name for case in public.cases])
    why = numerics.suspicion(results, public.cases)
    return f"{said}; {why}" if why else said


def shows(
    results: Sequence[Arrays | str], mistaken: Sequence[Arrays], cases: Sequence[Case]
) -> bool:
    """Whether results are those of a known mistake, which were computed in float64.

    A mistake may divide 0 by 0 in some entries: then the same ones are expected not to be finite. In float32
    it may cancel or overflow where the right answer does not: there it need only come near, or leave the
    finite numbers.
    """
    for result, wrong, case in zip(results, mistaken, cases, strict=True):
        if isinstance(result, str):
            return False
        if any(isinstance(x, np.ndarray) and x.dtype == np.float32 for x in case.inputs):
            near = Tolerance(100 * case.tolerance.rtol, 100 * case.tolerance.atol)
            finite = all(np.isfinite(value.astype(np.float64)).all() for value in result.values())
            if finite and not agree(result, wrong, near):
                return False
        elif not agree(*_finite_where_both_are(result, wrong), case.tolerance):
            return False
    return True


def _finite_where_both_are(result: Arrays, wrong: Expected) -> tuple[Arrays, Expected]:
    """Results and a mistake's results, with 0 where both are not finite."""
    result, wrong = dict(result), dict(wrong)
    for name, value in wrong.items():
        given = result.get(name)
        if isinstance(value, np.ndarray) and given is not None and given.shape == value.shape:
            neither = ~(np.isfinite(given) | np.isfinite(value))
            result[name], wrong[name] = (np.where(neither, 0, part) for part in (given, value))
    return result, wrong


def _result(function: Callable[..., Any], case: Case) -> Arrays | str:
    try:
        return as_arrays(function(*_tensors(case.inputs)))
    except (NotAnswered, NotImplementedError):
        raise
    except Exception as error:
        return f"it raised {type(error).__name__}: {error}"


def _tensors(inputs: Sequence[Any]) -> list[Any]:
    # Copies: a function may change its input in place, and the next question holds it again.
    return [torch.tensor(x) if isinstance(x, np.ndarray) else x for x in inputs]


def _measured(public: PublicMeasure, answers: Sequence[Any]) -> tuple[str | None, str]:
    if any(answer is None or answer is ... for answer in answers):
        raise NotAnswered
    functions = dict(zip(public.functions, answers, strict=True))

    def ask(name: str, *inputs: Any) -> Arrays:
        return as_arrays(as_function(functions[name], "function")(*_tensors(inputs)))

    try:
        found = getattr(measures, public.measure)(ask, split="validation", seed=0)
    except measures.Invalid as error:
        return str(error), ""
    except (NotAnswered, NotImplementedError):
        raise
    except Exception as error:
        return f"it raised {type(error).__name__}: {error}", ""
    text = f"{found.value:.4g} {found.unit} on the validation images; at most {public.limit:g} is asked"
    return (text, "") if found.value > public.limit else (None, text)
