"""The public side of a question: probes, expected arrays and what known mistakes would give.

Stored as JSON in ``course_lib/checking/public/<assignment>.json``, written by
``course-lib assignment release``. It holds arrays and words; no solution, no hidden probe, and of
the numbers that a question asks for only seals.
"""

import json
from dataclasses import asdict, dataclass
from functools import cache
from importlib.resources import files
from typing import Any

import numpy as np

from course_lib.checking.compare import Expected, Tolerance
from course_lib.checking.sealed import Seal


@dataclass(frozen=True)
class Case:
    """One probe: its inputs, in order, and the expected results."""

    name: str
    inputs: tuple[Any, ...]
    expected: Expected
    tolerance: Tolerance


@dataclass(frozen=True)
class KnownMistake:
    """What a mistake gives on every probe, and the hint that it earns."""

    hint: str
    results: tuple[Expected, ...]


@dataclass(frozen=True)
class PublicQuestion:
    """All that a student's check knows of a question with probes.

    The grading allows `seconds` for the public probes and as many hidden ones together.
    """

    name: str
    kind: str
    symbols: tuple[str, ...]
    cases: tuple[Case, ...]
    mistakes: tuple[KnownMistake, ...]
    seconds: float = 10.0


@dataclass(frozen=True)
class PublicMeasure:
    """A question whose answer is measured, a trained model: see `course_lib.checking.measures`."""

    name: str
    measure: str
    functions: tuple[str, ...]
    limit: float
    seconds: float = 60.0


@cache
def load(assignment: str) -> dict[str, PublicQuestion | PublicMeasure]:
    """Return the public questions of an assignment, by name.

    Raises:
        ValueError: there is no such assignment; the message lists those that exist.
    """
    folder = files("course_lib.checking") / "public"
    path = folder / f"{assignment}.json"
    if not path.is_file():
        known = sorted(p.name.removesuffix(".json") for p in folder.iterdir())
        raise ValueError(f"there is no assignment {assignment!r}; there are {', '.join(known)}")
    return {q["name"]: _question(q) for q in json.loads(path.read_text(encoding="utf-8"))}


def encode(value: Any) -> Any:
    """Write an input or a result as JSON: arrays with dtype and shape, numbers as they are."""
    if isinstance(value, np.ndarray):
        return {
            "dtype": str(value.dtype),
            "shape": list(value.shape),
            "data": [_rounded(entry) for entry in value.ravel().tolist()],
        }
    if isinstance(value, Seal):
        return asdict(value) | {"offsets": list(map(_rounded, value.offsets))}
    if isinstance(value, (bool, int, float, str)):
        return value
    raise TypeError(f"probes hold arrays and plain values, not {type(value).__name__}")


def _rounded(entry: Any) -> Any:
    """Nine digits: all of a float32, and none of a float64 that depend on the processor."""
    return float(f"{entry:.9g}") if isinstance(entry, float) else entry


def decode(value: Any) -> Any:
    """Undo `encode`."""
    if isinstance(value, dict) and "digest" in value:
        return Seal(**{k: tuple(v) if isinstance(v, list) else v for k, v in value.items()})
    if isinstance(value, dict):
        return np.array(value["data"], dtype=value["dtype"]).reshape(value["shape"])
    return value


def _arrays(stored: dict[str, Any]) -> Expected:
    return {name: decode(value) for name, value in stored.items()}


def _question(stored: dict[str, Any]) -> PublicQuestion | PublicMeasure:
    if stored["kind"] == "measure":
        return PublicMeasure(
            stored["name"],
            stored["measure"],
            tuple(stored["functions"]),
            stored["limit"],
            stored["seconds"],
        )
    cases = tuple(
        Case(
            case["name"],
            tuple(map(decode, case["inputs"])),
            _arrays(case["expected"]),
            Tolerance(**case["tolerance"]),
        )
        for case in stored["cases"]
    )
    mistakes = tuple(
        KnownMistake(mistake["hint"], tuple(map(_arrays, mistake["results"])))
        for mistake in stored["mistakes"]
    )
    return PublicQuestion(
        stored["name"],
        stored["kind"],
        tuple(stored["symbols"]),
        cases,
        mistakes,
        stored["seconds"],
    )
