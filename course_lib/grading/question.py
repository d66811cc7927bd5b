"""What an instructor writes about a question, and the probes that follow from it.

An assignment is a folder ``assignments/<name>/`` with a master notebook ``<name>.ipynb`` and a
file ``questions.py`` that holds ``TITLE`` and ``QUESTIONS``.
"""

import hashlib
import importlib.util
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from course_lib.checking.answers import KINDS, Arrays, as_arrays, as_function
from course_lib.checking.compare import Tolerance
from course_lib.checking.public import Case, KnownMistake, PublicQuestion
from course_lib.checking.sealed import Seal, seal

PUBLIC_SEED = "public"
FLOAT64 = Tolerance()
FLOAT32 = Tolerance(rtol=3e-5, atol=3e-6)
# Numbers are asked for "to five digits": decimals, or significant ones.
FIVE_DIGITS = Tolerance(rtol=6e-5, atol=6e-6)

Draw = Callable[[torch.Generator], tuple[Any, ...]]


@dataclass(frozen=True)
class Mistake:
    """A named wrong implementation.

    Attributes:
        name: what is wrong, in a few words; also the key in the summary of a class.
        hint: what the student is told, one sentence that names the mistake, not the answer.
        answer: the wrong answer, of the same kind as the question's reference.
    """

    name: str
    hint: str
    answer: Any


@dataclass(frozen=True)
class Question:
    """A question whose answer is compared with a reference on drawn inputs.

    Attributes:
        name: the name of the variable or function in the notebook.
        points: what it is worth; an optional question has none.
        reference: the right answer: a function, an expression or a value.
        draw: draws one set of inputs, float64 tensors or plain values, from a generator; it
            must not draw degenerate ones. Where the answer distinguishes cases that one set of
            inputs cannot hold together (real and complex eigenvalues, more rows or more columns),
            several such functions, one for each case: all of them serve every submission, each
            for equally many probes. A value takes no inputs and needs none.
        mistakes: the known wrong answers, each told apart from the right one by at least two
            probes of every submission.
        equivalents: right answers in other forms, which must be accepted.
        kind: ``"function"``, ``"expression"`` or ``"value"``.
        symbols: names of an expression's variables, in the order in which `draw` returns them.
        tolerance: for float64 inputs; float32 inputs have a wider one, and so have values, which
            may be rounded to five digits.
        dtypes: types of the probes, in turn.
        draws: number of probes, public ones and hidden ones alike; a multiple of the number of
            functions that draw them.
        seconds: time limit for all probes together, in the isolated process.
    """

    name: str
    points: float
    reference: Any
    draw: Draw | tuple[Draw, ...] | None = None
    mistakes: tuple[Mistake, ...] = ()
    equivalents: tuple[Any, ...] = ()
    kind: str = "function"
    symbols: tuple[str, ...] = ()
    tolerance: Tolerance = FLOAT64
    dtypes: tuple[torch.dtype, ...] = (torch.float64, torch.float32)
    draws: int = 4
    seconds: float = 10

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"kind is {self.kind!r}; one of {', '.join(KINDS)} is expected")
        if self.kind == "value":
            return
        if not self._draw_functions or self.draws < 3:
            raise ValueError(f"{self.name}: a question needs at least three draws of inputs")
        if self.draws % len(self._draw_functions):
            raise ValueError(
                f"{self.name}: {len(self._draw_functions)} functions draw {self.draws} probes; a "
                f"multiple of their number is expected, so that each draws equally many"
            )

    @property
    def _draw_functions(self) -> tuple[Draw, ...]:
        if self.draw is None:
            return ()
        return self.draw if isinstance(self.draw, tuple) else (self.draw,)

    def cases(self, *key: str) -> list[Case]:
        """Draw the probes that belong to `key`, with the reference's results on them.

        The same key gives the same probes on every machine.
        """
        if self.kind == "value":
            return [self._case("the value", (), FIVE_DIGITS)]
        generator = torch.Generator().manual_seed(seed(self.name, *key))
        each = self.draws // len(self._draw_functions)
        drawn = []
        for k in range(self.draws):
            # Neighbours share the function that draws them, and differ in their type.
            draw = self._draw_functions[k // each]
            dtype = self.dtypes[k % len(self.dtypes)]
            inputs = tuple(_plain(x, dtype) for x in draw(generator))
            tolerance = self.tolerance if dtype == torch.float64 else FLOAT32
            drawn.append(self._case(f"case {k + 1}, {str(dtype)[6:]}", inputs, tolerance))
        return drawn

    def public(self, assignment: str) -> PublicQuestion:
        """What a student's check knows: the public probes, and what the mistakes give on them.

        It is the same for every submission, and computed for the first one.
        """
        if assignment not in self._public:
            self._public[assignment] = self._computed_public(assignment)
        return self._public[assignment]

    @cached_property
    def _public(self) -> dict[str, PublicQuestion]:
        return {}

    def _computed_public(self, assignment: str) -> PublicQuestion:
        cases = self.cases(assignment, PUBLIC_SEED)
        results = [self.results(mistake.answer, cases) for mistake in self.mistakes]
        if self.kind == "value":
            where = f"{assignment}.{self.name}"
            cases = [replace(case, expected=_sealed(case.expected, where)) for case in cases]
            results = [[_sealed(result, where) for result in wrong] for wrong in results]
        mistakes = tuple(
            KnownMistake(mistake.hint, tuple(wrong))
            for mistake, wrong in zip(self.mistakes, results, strict=True)
        )
        return PublicQuestion(
            self.name, self.kind, self.symbols, tuple(cases), mistakes, self.seconds
        )

    def results(self, answer: Any, cases: list[Case]) -> list[Arrays]:
        """Evaluate a trusted answer (the reference, a mistake, an equivalent form) on probes."""
        function = as_function(answer, self.kind, self.symbols)
        return [as_arrays(function(*map(_double, case.inputs))) for case in cases]

    @cached_property
    def _function(self) -> Callable[..., Any]:
        return as_function(self.reference, self.kind, self.symbols)

    def _case(self, name: str, inputs: tuple[Any, ...], tolerance: Tolerance) -> Case:
        return Case(name, inputs, as_arrays(self._function(*map(_double, inputs))), tolerance)


@dataclass(frozen=True)
class Measure:
    """A question about a trained model, measured from what it answers.

    Attributes:
        name: the name of the question.
        points: what it is worth; all of it at or below `limit`, else nothing.
        measure: a function of `course_lib.checking.measures`.
        functions: the functions that the notebook must define, in the order of the statement.
        limit: the largest value that earns the points.
        seconds: time limit for all answers together.
    """

    name: str
    points: float
    measure: str
    functions: tuple[str, ...]
    limit: float
    seconds: float = 60


@dataclass(frozen=True)
class Written:
    """A question answered in words and graded by a person.

    Attributes:
        name: the name of the question.
        points: what it is worth at most.
        rubric: what earns how much, for the person who grades.
    """

    name: str
    points: float
    rubric: str


@dataclass(frozen=True)
class Assignment:
    """An assignment as its folder describes it."""

    name: str
    title: str
    folder: Path
    questions: tuple[Question | Measure | Written, ...]

    @property
    def master(self) -> Path:
        """The notebook that holds statement and solution."""
        return self.folder / f"{self.name}.ipynb"

    @property
    def points(self) -> float:
        """The sum of all points, those given by a person included."""
        return sum(question.points for question in self.questions)

    def digest(self) -> str:
        """Digest of the questions: a record made with other questions is not reused."""
        return hashlib.sha256((self.folder / "questions.py").read_bytes()).hexdigest()[:16]


def load_assignment(name: str, root: Path) -> Assignment:
    """Load ``assignments/<name>`` below `root`.

    Raises:
        ValueError: there is no such assignment; the message lists those that exist.
    """
    folder = root / "assignments" / name
    path = folder / "questions.py"
    if not path.is_file():
        known = sorted(p.parent.name for p in (root / "assignments").glob("*/questions.py"))
        raise ValueError(
            f"there is no assignment {name!r} in {root / 'assignments'} (found: "
            f"{', '.join(known) or 'none'}). Call this in a clone of the course, or give --root."
        )
    specification = importlib.util.spec_from_file_location(f"questions_of_{name}", path)
    module = importlib.util.module_from_spec(specification)
    sys.modules[specification.name] = module
    specification.loader.exec_module(module)
    return Assignment(name, module.TITLE, folder, tuple(module.QUESTIONS))


def seed(*key: str) -> int:
    """A seed of 63 bits that depends on every part of the key, the same on every machine."""
    digest = hashlib.sha256("\0".join(key).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def _sealed(results: Arrays, where: str) -> dict[str, Seal]:
    return {name: seal(f"{where}.{name}", value) for name, value in results.items()}


def _plain(value: Any, dtype: torch.dtype) -> Any:
    if isinstance(value, Tensor):
        return (value.to(dtype) if value.is_floating_point() else value).numpy()
    return value


def _double(value: Any) -> Any:
    """A probe's input as the reference takes it: in float64, whatever the probe's own type."""
    if isinstance(value, np.ndarray):
        tensor = torch.tensor(value)
        return tensor.double() if tensor.is_floating_point() else tensor
    return value
