"""The trusted side of grading: sends hidden probes to a box and compares what comes back.

Nothing of the submission is imported or unpickled here; its answers are plain arrays.
"""

import hashlib
import math
import time
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from course_lib.checking import measures
from course_lib.checking.answers import Arrays
from course_lib.checking.checking import diagnosis, shows
from course_lib.checking.compare import agree
from course_lib.checking.public import Case
from course_lib.grading.box import BOOT_SECONDS, Box, Limits, Room
from course_lib.grading.notebook import read_notebook
from course_lib.grading.question import (
    Assignment,
    Measure,
    Question,
    Written,
    seed,
)
from course_lib.grading.recognising import other_assignment
from course_lib.grading.text import shortened, storable
from course_lib.grading.written import Answer, lines_handed_out, written_answer
from course_lib.sandbox import wire

CELLS_LIMIT = 2_000
RESTARTS = 12
GRACE = 5
# How many of the things that a limit of time has stopped are named to the instructor.
LATE_NAMED = 5

# A record is read by people and kept for every student: what a submission can put into one is cut.
COMMENT_LENGTH = 1000
ERROR_LENGTH = 500
ANSWER_LENGTH = 50_000
ERRORS = 100

RIGHT = "right"  # the comment on an answer that agrees with the reference
# Stands for an answer in words whose cell lost its metadata; students read it, too.
NOT_FOUND = "(The cell of this answer was not found by its metadata: a person looks for it in the notebook.)"


@dataclass
class Verdict:
    """The outcome of one question.

    Attributes:
        name: the question's name.
        points: points earned; ``None`` where a person is to give them.
        possible: points that it is worth.
        comment: what the student is told.
        mistake: name of the known mistake that the answer shows, if it shows one.
        suspicious: set when a person should look at the answer.
    """

    name: str
    points: float | None
    possible: float
    comment: str
    mistake: str | None = None
    suspicious: bool = False

    @property
    def full(self) -> bool:
        """Whether all points were earned; those of an optional question are none, and it has to be right."""
        return self.points == self.possible and (self.possible > 0 or self.comment == RIGHT)


@dataclass
class GradingRecord:
    """What grading found out about one submission; written as JSON.

    Attributes:
        student: who handed it in: the name of its file or folder.
        key: digest of submission, questions and seed; an equal key makes a record reusable.
        verdicts: one per question, in the assignment's order.
        errors: cells that raised or were stopped: number of the code cell and description.
        fault: why nothing could be graded; empty if something could.
        answers: the texts of written questions, by name.
        sandbox: how the submission was isolated.
        seconds: time that grading took.
        memory: the most memory, in bytes, that the submission's processes held at once.
        output: the first part of what the submission printed.
        questions: digest of the questions that were asked.
        more_time: factor of the time limits that this student was given.
        notes: what else a person should look at: how the notebook was handed in.
    """

    student: str
    key: str
    verdicts: list[Verdict] = field(default_factory=list)
    errors: list[tuple[int, str]] = field(default_factory=list)
    fault: str = ""
    answers: dict[str, str] = field(default_factory=dict)
    sandbox: str = "bubblewrap"
    seconds: float = 0.0
    memory: int = 0
    output: str = ""
    questions: str = ""
    more_time: float = 1.0
    notes: list[str] = field(default_factory=list)

    @property
    def points(self) -> float:
        """Points earned so far; written questions that nobody has graded count as 0."""
        return sum(verdict.points or 0 for verdict in self.verdicts)


class Lost(Exception):
    """The box died or fell silent over a question; the message says which."""


def record_key(submission: bytes, assignment: Assignment, secret: str, limits: Limits) -> str:
    """Digest of all that a record depends on."""
    parts = (assignment.name, assignment.digest(), secret, repr(limits))
    return hashlib.sha256("\0".join(parts).encode() + b"\0" + submission).hexdigest()[:32]


def grade(
    submission: bytes,
    student: str,
    assignment: Assignment,
    *,
    secret: str,
    room: Room,
    limits: Limits,
    slot: int = 0,
) -> GradingRecord:
    """Grade one submission. Never raises for anything that the submission holds or does.

    Args:
        submission: the bytes of the notebook.
        student: who handed it in; hidden probes are drawn for this name.
        assignment: the questions.
        secret: the instructor's seed of the hidden probes.
        room: the shared files of the boxes.
        limits: what the submission may use.
        slot: number of the box among those that run at the same time.
    """
    start = time.monotonic()
    record = GradingRecord(
        student,
        record_key(submission, assignment, secret, limits),
        sandbox=room.sandbox,
        questions=assignment.digest(),
    )
    try:
        notebook = read_notebook(submission)
        if other := other_assignment(notebook, assignment):
            raise ValueError(f"this looks like the notebook of {other}, not of {assignment.name}")
    except ValueError as error:
        return ungraded(record, assignment, str(error))
    sources = [
        cell["source"]
        for cell in notebook["cells"]
        if cell.get("cell_type") == "code" and cell["source"].strip()
    ]
    with Session(sources, room, limits, slot, record) as session:
        for question in assignment.questions:
            if isinstance(question, Written):
                record.verdicts.append(_written(notebook, question, assignment, record))
            elif isinstance(question, Measure):
                record.verdicts.append(_measured(session, question, (secret, student)))
            else:
                key = (secret, student)
                record.verdicts.append(_compared(session, question, assignment.name, key))
    if all(verdict.comment == "not answered" for verdict in record.verdicts):
        record.notes.append("no question is answered in the notebook")
    record.seconds = time.monotonic() - start
    _bound(record)
    return record


def ungraded(record: GradingRecord, assignment: Assignment, fault: str) -> GradingRecord:
    """Complete the record of a submission of which nothing can be graded: no points, and why."""
    record.fault = fault
    record.verdicts = [Verdict(q.name, 0, q.points, "not graded") for q in assignment.questions]
    _bound(record)
    return record


def _bound(record: GradingRecord) -> None:
    """Make every text of a record one that can be stored, of bounded length."""
    record.fault = shortened(storable(record.fault), ERROR_LENGTH)
    for verdict in record.verdicts:
        verdict.comment = shortened(storable(verdict.comment), COMMENT_LENGTH)
    more = len(record.errors) - ERRORS
    if more > 0:
        record.errors = record.errors[:ERRORS]
        record.errors[-1] = (record.errors[-1][0], f"this cell failed, and {more} more behind it")
    record.errors = [(k, shortened(storable(text), ERROR_LENGTH)) for k, text in record.errors]
    record.answers = {
        name: shortened(storable(text), ANSWER_LENGTH) for name, text in record.answers.items()
    }
    record.notes = [shortened(storable(note), ERROR_LENGTH) for note in record.notes]
    record.output = storable(record.output)


class Session:
    """A submission's boxes, one after another: a dead one is replaced, without what killed it.

    All of them together end when the total time of the limits is used up: each wait ends then, and
    what it takes to kill the last box (a fraction of a second, `course_lib.grading.box.END_SECONDS`
    in the worst case) is all that comes on top. A box can only say what is to come next: cells in
    their order, each with its beginning and its end, and one answer to each question.
    """

    def __init__(
        self, sources: list[str], room: Room, limits: Limits, slot: int, record: GradingRecord
    ) -> None:
        self._sources, self._room, self._limits, self._slot = sources, room, limits, slot
        self._record = record
        self._skip: set[int] = set()
        self._errors: dict[int, str] = {}
        self._late: dict[str, None] = {}  # in their order
        self._end = time.monotonic() + limits.total_seconds
        self._restarts = 0
        self._box: Box | None = None
        self._given_up = ""
        if len(sources) > CELLS_LIMIT:
            self._given_up = (
                f"the notebook has {len(sources)} code cells; at most {CELLS_LIMIT} run"
            )

    def __enter__(self) -> "Session":
        return self

    def __exit__(self, *_: object) -> None:
        self._close()
        self._record.errors = sorted(self._errors.items())
        if self._late:
            more = len(self._late) - LATE_NAMED
            named = ", ".join([*self._late][:LATE_NAMED]) + (
                f" and {more} more" if more > 0 else ""
            )
            self._record.notes.append(
                f"stopped by a limit of time: {named}. If the machine was busy, grade again (--only)"
            )

    def late(self, what: str) -> None:
        """Note that a limit of time has stopped something, by the grader's clock."""
        self._late[what] = None

    def ask(
        self,
        name: str,
        inputs: tuple[Any, ...],
        deadline: float,
        kind: str = "function",
        symbols: tuple[str, ...] = (),
    ) -> Arrays | str | None:
        """Ask for one answer: arrays, the description of an error, or ``None`` if it is missing.

        Raises:
            Lost: the box died or did not answer in time; the next question gets a new one.
        """
        box = self.ready()
        identity = int.from_bytes(np.random.default_rng().bytes(6), "big")
        arrays = {str(k): x for k, x in enumerate(inputs) if isinstance(x, np.ndarray)}
        header = {
            "id": identity,
            "name": name,
            "inputs": [None if isinstance(x, np.ndarray) else x for x in inputs],
            "kind": kind,
            "symbols": list(symbols),
            "seconds": max(0.1, min(deadline, self._end) - time.monotonic()),
        }
        last = min(deadline + GRACE, self._end)
        try:
            box.send(header, arrays, deadline=last)
            reply, results = box.receive(last)
            if reply.get("id") != identity:
                raise wire.Malformed("an answer to another question")
        except (TimeoutError, wire.Broken) as error:
            raise Lost(self._cause(box, error, "no answer within the time limit")) from None
        if reply.get("missing") is True:
            return None
        if "error" in reply:
            return _line(reply["error"])
        return results

    def ready(self) -> Box:
        """The running box; a new one, with the notebook executed, where there is none."""
        while self._box is None:
            if time.monotonic() >= self._end:
                self._given_up = self._used_up()
            elif self._restarts > RESTARTS:
                self._given_up = f"given up after {RESTARTS} restarts"
            if self._given_up:
                raise Lost(self._given_up)
            self._start()
        return self._box

    def _start(self) -> None:
        """Boot a box and run the notebook in it; a cell that kills it is skipped the next time."""
        self._restarts += 1
        box = self._box = Box(self._room, self._limits, self._slot)
        seconds = self._limits.cell_seconds
        request = {"cells": self._sources, "skip": sorted(self._skip), "cell_seconds": seconds}
        # Who is to blame if the box dies: the cell that runs, and behind its end the same one.
        running: int | None = None
        try:
            _expect(box.receive(self._within(BOOT_SECONDS))[0], ready="shell")
            box.send(request, deadline=self._within(BOOT_SECONDS))
            for cell in range(len(self._sources)):
                if cell in self._skip:
                    continue
                _expect(box.receive(self._within(GRACE + seconds))[0], cell=cell)
                running, began = cell, time.monotonic()
                message = _expect(box.receive(self._within(GRACE + seconds))[0], cell=cell)
                if "error" not in message:
                    raise wire.Malformed("the end of a cell was to come")
                if message["error"] is not None:
                    if time.monotonic() - began >= seconds:
                        self.late(f"code cell {cell + 1}")
                    self._errors[cell] = _line(message["error"])
            _expect(box.receive(self._within(GRACE + seconds))[0], ready="notebook")
        except (TimeoutError, wire.Broken) as error:
            cause = self._cause(box, error, f"stopped after {seconds:g} s")
            if running is None:
                self._given_up = f"the notebook could not be executed: {cause}"
            else:
                self._skip.add(running)
                if isinstance(error, TimeoutError):
                    self.late(f"code cell {running + 1}")
                self._errors[running] = f"{cause}; the cell was left out"

    def _within(self, seconds: float) -> float:
        """The moment in so many seconds, or the end of the submission's time if that is earlier."""
        return min(time.monotonic() + seconds, self._end)

    def _cause(self, box: Box, error: Exception, late: str) -> str:
        """Close the box; say why it could not continue, in words none of which are the submission's."""
        self._close()
        if box.killed_for_memory:
            return f"the process used more than {self._limits.memory / 2**30:.1f} GiB of memory"
        if isinstance(error, wire.Malformed):
            return "the process sent something that was not asked for"
        if isinstance(error, TimeoutError):
            return self._used_up() if time.monotonic() >= self._end else late
        return "the process ended"

    def _used_up(self) -> str:
        self.late("the whole notebook")
        return f"the time limit of {self._limits.total_seconds:g} s was used up"

    def _close(self) -> None:
        if self._box is not None:
            self._box.close()
            self._record.memory = max(self._record.memory, self._box.peak_memory)
            self._record.output = (self._record.output + self._box.output)[: self._limits.output]
            self._box = None


def _expect(message: dict[str, Any], **entries: object) -> dict[str, Any]:
    """The message, which must have these entries.

    Raises:
        course_lib.sandbox.wire.Malformed: it has others.
    """
    for name, value in entries.items():
        if type(message.get(name)) is not type(value) or message[name] != value:
            raise wire.Malformed(f"a message with {name} = {value!r} was to come")
    return message


def _line(text: object) -> str:
    """What a submission calls its error, in one short line that can be written to every file."""
    words = " ".join(str(text).split()) if isinstance(text, str) else "an error without a text"
    return words.encode(errors="replace").decode()[:500]


def _compared(
    session: Session, question: Question, assignment: str, key: tuple[str, str]
) -> Verdict:
    """Grade on public and hidden probes; only right answers to all of them earn the points."""
    public = question.public(assignment)
    hidden = question.cases(assignment, *key)
    answers: list[Arrays | str] = []
    cases = [*public.cases, *hidden]
    deadline = math.inf
    try:
        session.ready()  # the clock of the question starts when the notebook has been executed
        deadline = time.monotonic() + question.seconds
        for case in cases:
            given = session.ask(
                question.name, case.inputs, deadline, question.kind, question.symbols
            )
            if given is None:
                return Verdict(question.name, 0, question.points, "not answered")
            if isinstance(given, str) and time.monotonic() >= deadline:
                raise Lost(given)
            answers.append(given)
    except Lost as error:
        comment = str(error)
        if time.monotonic() >= deadline:
            session.late(question.name)
            comment = _late(question.seconds, f"{len(answers)} of {len(cases)} inputs")
            if answers and all(map(_right, answers, cases)):
                comment += ". The answers that came in time are right: what is missing is speed"
        return Verdict(question.name, 0, question.points, comment)
    to_public, to_hidden = answers[: len(public.cases)], answers[len(public.cases) :]
    fault = diagnosis(public, to_public)
    if fault is None and all(map(_right, to_hidden, hidden)):
        return Verdict(question.name, question.points, question.points, RIGHT)
    mistake = _mistake(question, hidden, to_hidden)
    if mistake is not None:
        return Verdict(question.name, 0, question.points, mistake.hint, mistake.name)
    comment = fault or (
        "right on the public cases, but not on others of the same kind: does it compute the "
        "answer for every input, or only for those shown?"
    )
    return Verdict(question.name, 0, question.points, comment)


def _right(given: Arrays | str, case: Case) -> bool:
    return not isinstance(given, str) and agree(given, case.expected, case.tolerance)


def _late(seconds: float, answered: str) -> str:
    return (
        f"too slow: {answered} were answered within the {seconds:g} s that this question has for all "
        f"of them"
    )


def _mistake(question: Question, cases: list[Case], answers: list[Arrays | str]) -> Any:
    for mistake in question.mistakes:
        expected = question.results(mistake.answer, cases)
        if shows(answers, expected, cases):
            return mistake
    return None


def _measured(session: Session, question: Measure, key: tuple[str, str]) -> Verdict:
    nothing = Verdict(question.name, 0, question.points, "not answered")
    deadline, asked = math.inf, []

    def ask(name: str, *inputs: Any) -> Arrays:
        given = session.ask(name, inputs, deadline)
        if given is None:
            raise _Missing
        if isinstance(given, str) and time.monotonic() >= deadline:
            raise Lost(given)
        if isinstance(given, str):
            raise measures.Invalid(f"{name} raised {given}")
        asked.append(name)
        return given

    try:
        session.ready()
        deadline = time.monotonic() + question.seconds
        measure = getattr(measures, question.measure)
        found = measure(ask, split="test", seed=seed(question.name, *key) % 2**31)
    except _Missing:
        return nothing
    except measures.Invalid as error:
        nothing.comment = str(error)
        return nothing
    except Lost as error:
        nothing.comment = str(error)
        if time.monotonic() >= deadline:
            session.late(question.name)
            nothing.comment = _late(question.seconds, f"{len(asked)} of the batches")
        return nothing
    reached = found.value <= question.limit
    text = f"{found.value:.4g} {found.unit} on the test images; at most {question.limit:g} is asked"
    if found.suspicious and reached:
        text += "; better than expected of such a model, so a person looks at it"
    return Verdict(
        question.name,
        question.points if reached else 0,
        question.points,
        text,
        suspicious=found.suspicious and reached,
    )


def _written(
    notebook: dict[str, Any], question: Written, assignment: Assignment, record: GradingRecord
) -> Verdict:
    answer = written_answer(notebook["cells"], question, lines_handed_out(assignment.master))
    if answer is None:
        answer = Answer(NOT_FOUND)
    if not answer.text:
        return Verdict(question.name, 0, question.points, "not answered")
    record.answers[question.name] = answer.text
    verdict = Verdict(question.name, None, question.points, "graded by a person")
    if answer.doubt:
        verdict.comment, verdict.suspicious = f"graded by a person: {answer.doubt}", True
    return verdict


class _Missing(Exception):
    """A function that a measure asks for is not defined."""
