"""Whether two lists of answers agree, and in words what differs if they do not."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from course_lib.checking.answers import Arrays
from course_lib.checking.sealed import Seal

Expected = Mapping[str, np.ndarray | Seal]

LABEL_LENGTH = 60
LABELS = 8


@dataclass(frozen=True)
class Tolerance:
    """How far an answer may be from the expected value: ``atol + rtol · max |expected|``.

    The largest entry of a result counts for all of it, since the rounding of a sum or a product of
    matrices is as large in an entry that happens to be near zero.
    """

    rtol: float = 1e-5
    atol: float = 1e-7

    def __post_init__(self) -> None:
        if not (self.rtol >= 0 and self.atol >= 0):
            raise ValueError(f"tolerances are ({self.rtol}, {self.atol}); both must be at least 0")


def agree(answer: Arrays, expected: Expected, tolerance: Tolerance) -> bool:
    """Whether labels and shapes are equal and all values finite and within the tolerance."""
    return structure_fault(answer, expected) is None and all(
        bool(np.all(_close(answer[name], expected[name], tolerance))) for name in expected
    )


def structure_fault(answer: Arrays, expected: Expected) -> str | None:
    """What is wrong with number, shape or kind of the results; ``None`` if nothing is."""
    if set(answer) != set(expected):
        return f"{_results(expected)} expected, and {_results(answer)} given"
    for name, value in expected.items():
        what = f"result {name}" if name else "the result"
        given = answer[name]
        if given.shape != value.shape:
            return f"{what} has shape {given.shape}; {value.shape} is expected"
        if given.dtype.kind == "c":
            return f"{what} is complex; a real number is expected"
        finite = np.isfinite(given.astype(np.float64))
        if not finite.all():
            return f"{what} holds NaN or infinity ({(~finite).sum()} of {finite.size} values)"
    return None


def wrong_results(answer: Arrays, expected: Expected, tolerance: Tolerance) -> str:
    """Say which results of a wrong answer are wrong, and not what they should be."""
    fault = structure_fault(answer, expected)
    if fault is not None:
        return fault
    wrong = [
        (name or "the result") + (f" is {answer[name]:.6g}" if answer[name].shape == () else "")
        for name in expected
        if not np.all(_close(answer[name], expected[name], tolerance))
    ]
    right = len(expected) - len(wrong)
    return f"{', '.join(wrong)}: not right" + (f"; {right} of {len(expected)} are" if right else "")


def difference(
    answers: Sequence[Arrays],
    expected: Sequence[Arrays],
    tolerances: Sequence[Tolerance],
    cases: Sequence[str],
) -> str | None:
    """Say how wrong answers to several cases differ from the expected ones; ``None`` if they agree.

    Tries, in this order: shape and finiteness; one sign, one factor or one offset that explains
    every case; the first case that differs.
    """
    wrong = [
        k
        for k, case in enumerate(zip(answers, expected, tolerances, strict=True))
        if not agree(*case)
    ]
    if not wrong:
        return None
    for k in wrong:
        fault = structure_fault(answers[k], expected[k])
        if fault is not None:
            return f"{fault} (in {cases[k]})"
    given = _flat(answers)
    right = _flat(expected)
    margin = _flat(
        [
            {name: np.full(value.shape, _margin(value, t)) for name, value in e.items()}
            for e, t in zip(expected, tolerances, strict=True)
        ]
    )
    explained = _explanation(given, right, margin)
    first = wrong[0]
    name, index = _worst(answers[first], expected[first])
    label = f" {name}" if name else ""
    place = f" at {list(map(int, index))}" if index else ""
    example = (
        f"in {cases[first]} the result{label}{place} is {answers[first][name][index]:.6g} "
        f"where {expected[first][name][index]:.6g} is expected"
    )
    if explained:
        return f"{explained}; {example}"
    return f"{len(wrong)} of {len(cases)} cases differ; {example}"


def _explanation(given: np.ndarray, right: np.ndarray, margin: np.ndarray) -> str | None:
    if right.size < 2:
        return None
    if np.all(np.abs(given + right) <= margin):
        return "the sign is flipped everywhere"
    large = np.argmax(np.abs(right))
    if right[large] != 0:
        factor = given[large] / right[large]
        # A factor near 1 explains nothing: what differs is then an entry, or the rounding.
        explains = np.abs(given - factor * right) <= (1 + abs(factor)) * margin
        if abs(factor - 1) > 1e-3 and factor != 0 and explains.all():
            return f"every value is {factor:.6g} times the expected one"
    offset = np.median(given - right)
    if np.ptp(right) > 0 and np.all(np.abs(given - right - offset) <= 2 * margin):
        return f"every value is off by the same {offset:+.6g}"
    return None


def _worst(answer: Arrays, expected: Arrays) -> tuple[str, tuple[int, ...]]:
    errors = {
        name: np.abs(answer[name].astype(np.float64) - value) for name, value in expected.items()
    }
    name = max(errors, key=lambda key: errors[key].max(initial=0.0))
    index = (
        np.unravel_index(np.argmax(errors[name]), errors[name].shape) if errors[name].shape else ()
    )
    return name, tuple(index)


def _close(
    answer: np.ndarray, expected: np.ndarray | Seal, tolerance: Tolerance
) -> np.ndarray | bool:
    if isinstance(expected, Seal):
        return expected.holds(answer)
    answer, expected = answer.astype(np.float64), expected.astype(np.float64)
    return np.abs(answer - expected) <= _margin(expected, tolerance)


def _margin(expected: np.ndarray, tolerance: Tolerance) -> float:
    return tolerance.atol + tolerance.rtol * np.abs(expected).max(initial=0.0)


def _flat(arrays: Sequence[Arrays]) -> np.ndarray:
    parts = [a[name].astype(np.float64).ravel() for a in arrays for name in sorted(a)]
    return np.concatenate(parts) if parts else np.zeros(0)


def _results(arrays: Expected) -> str:
    if len(arrays) == 1 and "" in arrays:
        return "one result is"
    # A submission chooses these labels, and how long and how many they are.
    shown = [name if len(name) <= LABEL_LENGTH else f"{name[:LABEL_LENGTH]}…" for name in arrays]
    names = ", ".join(map(repr, shown[:LABELS])) + (", …" if len(shown) > LABELS else "")
    return f"{len(arrays)} results ({names}) are"
