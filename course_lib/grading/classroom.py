"""Grades a folder of submissions: several at a time, resumable, one never costing another."""

import difflib
import os
import queue
import secrets
import sys
from collections.abc import Callable, Collection, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import nbformat

from course_lib.files import replace_text
from course_lib.grading.box import Limits, Stopped, require_hidden, room
from course_lib.grading.collecting import Submission
from course_lib.grading.judge import GradingRecord, Verdict, grade, record_key, ungraded
from course_lib.grading.question import Assignment, Written, load_assignment
from course_lib.grading.records import read_record, record_path, write_record
from course_lib.grading.release import public_checks, require_consistent
from course_lib.grading.text import labels, one_line
from course_lib.inputs import require_writable
from course_lib.progress import progress_bar


def grade_all(
    submissions: list[Submission],
    assignment: Assignment,
    output: Path,
    *,
    jobs: int,
    sandbox: str,
    limits: Limits,
    dask: str | None = None,
    only: Collection[str] = (),
    more_time: Mapping[str, float] | None = None,
) -> list[GradingRecord]:
    """Grade what has no record yet; return the records of all submissions, in their order.

    Each record is written as soon as it exists, so an interrupted run resumes where it was. Records
    carry a student's name as `course_lib.grading.text.label` writes it.

    Args:
        submissions: what was handed in.
        assignment: the questions.
        output: the folder for records; keeps the seed of the hidden probes in ``secret``.
        jobs: submissions at the same time on this machine.
        sandbox: ``"bubblewrap"`` or ``"none"``.
        limits: what each submission may use.
        dask: address of a scheduler whose workers grade instead of this machine. They need the
            same files (assignments, package, bubblewrap) at the same place.
        only: names of students: they are graded again, whatever their records say, and nobody else.
        more_time: by student, the factor of all limits of time. It is kept in the student's record
            and holds until another one is given.

    Raises:
        SandboxError: isolation is asked for and cannot be had.
        ValueError: the assignment's questions and its master contradict each other, nothing can be
            written to `output`, or a name in `only` or `more_time` is nobody's.
    """
    require_writable(output, "the reports")
    # A fault in the questions themselves is to be found now, not once for every submission.
    public_checks(assignment)
    require_consistent(assignment, nbformat.read(assignment.master, as_version=4))
    if sandbox == "bubblewrap":
        require_hidden(assignment.folder, output, *(s.path for s in submissions if s.path))
    (output / "records").mkdir(parents=True, exist_ok=True)
    secret = _secret(output)
    students = labels([submission.student for submission in submissions])
    named = {s.student: student for s, student in zip(submissions, students, strict=True)}
    again = {_named(name, named) for name in only}
    factors = {_named(name, named): factor for name, factor in (more_time or {}).items()}
    records: dict[str, GradingRecord] = {}
    todo: list[_Task] = []
    for submission, student in zip(submissions, students, strict=True):
        earlier = read_record(record_path(output, student))
        if earlier is not None and earlier.student != student:
            earlier = None
        factor = factors.get(student, earlier.more_time if earlier else 1.0)
        if again and student not in again:
            records[student] = earlier or _waiting(student, assignment, "not graded yet")
            continue
        try:
            content = submission.read()
        except ValueError as error:
            if not submission.entries and earlier is not None:
                records[student] = earlier  # handed in earlier, into another folder
                continue
            nothing = GradingRecord(student, "", sandbox=sandbox)
            records[student] = ungraded(nothing, assignment, str(error))
            write_record(record_path(output, student), records[student])
            continue
        _, scaled = _with_time(assignment, limits, factor)
        made_so = (record_key(content, assignment, secret, scaled), sandbox, factor)
        if (
            earlier is not None
            and student not in again
            and (earlier.key, earlier.sandbox, earlier.more_time) == made_so
        ):
            records[student] = earlier
        else:
            todo.append(_Task(submission, student, factor))
    if records and not again:
        print(f"{len(records)} of {len(submissions)} are graded already; continuing with the rest")
    with _grading(assignment, jobs, sandbox, dask, secret, limits) as start:
        pending = {start(task): task for task in todo}
        with progress_bar(total=len(todo), desc="grading", unit="submission") as bar:
            try:
                for future in as_completed(pending):
                    task = pending[future]
                    record = _outcome(future, task.student, assignment)
                    record.more_time = task.more_time
                    records[task.student] = record
                    write_record(record_path(output, task.student), record)
                    bar.update()
            except BaseException:
                for future in pending:
                    future.cancel()
                raise
    for submission, student in zip(submissions, students, strict=True):
        if submission.note:
            records[student].notes.insert(0, submission.note)
    return [records[student] for student in students]


@dataclass(frozen=True)
class _Task:
    """A submission to be graded: whose, and with how much time."""

    submission: Submission
    student: str
    more_time: float


def _named(name: str, students: Mapping[str, str]) -> str:
    """The label of the student whom an instructor means.

    Raises:
        ValueError: nobody has that name.
    """
    if name in students:
        return students[name]
    if name in students.values():
        return name
    near = difflib.get_close_matches(name, students.values(), n=5)
    known = f"; there are {', '.join(near)}" if near else ""
    raise ValueError(
        f"nobody is named {name!r} among the {len(students)} submissions{known}. Give a name as it "
        f"stands in grades.csv."
    )


def _with_time(assignment: Assignment, limits: Limits, factor: float) -> tuple[Assignment, Limits]:
    """The questions and limits with `factor` times the time."""
    if factor == 1:
        return assignment, limits
    questions = tuple(
        q if isinstance(q, Written) else replace(q, seconds=factor * q.seconds)
        for q in assignment.questions
    )
    times = {"cell_seconds": factor * limits.cell_seconds}
    times["total_seconds"] = factor * limits.total_seconds
    return replace(assignment, questions=questions), replace(limits, **times)


def _waiting(student: str, assignment: Assignment, fault: str) -> GradingRecord:
    """A record without points or a key: the next call grades the submission."""
    verdicts = [Verdict(q.name, None, q.points, "not graded yet") for q in assignment.questions]
    return GradingRecord(student, "", verdicts, fault=fault)


def _outcome(future: Future, student: str, assignment: Assignment) -> GradingRecord:
    """A future's record; a fault of the grader itself costs one submission its record, no more."""
    error = future.exception()
    if error is None:
        return future.result()
    # Some errors hold the whole text that they are about.
    said = one_line(repr(error), 300)
    print(f"{student}: the grader failed: {said}", file=sys.stderr)
    return _waiting(student, assignment, f"the grader failed: {said}")


@contextmanager
def _grading(
    assignment: Assignment, jobs: int, sandbox: str, dask: str | None, secret: str, limits: Limits
) -> Iterator[Callable[[_Task], Future]]:
    """A function that starts to grade a submission, on this machine or on an engine."""
    if dask is not None:
        from distributed import Client

        # A worker's current folder is another one.
        root = assignment.folder.absolute().parents[1]
        alone = _GradeAlone(assignment.name, root, sandbox, secret, limits)
        with Client(dask, set_as_default=False) as client:
            executor = client.get_executor(pure=False)
            yield lambda task: executor.submit(
                alone, task.submission.read(), task.student, task.more_time
            )
        return
    with room(sandbox) as shared, ThreadPoolExecutor(jobs) as pool:
        slots: queue.SimpleQueue[int] = queue.SimpleQueue()
        for slot in range(jobs):
            slots.put(slot)

        def run(task: _Task) -> GradingRecord:
            asked, scaled = _with_time(assignment, limits, task.more_time)
            slot = slots.get()
            try:
                record = grade(
                    task.submission.read(),  # not before: a class has gigabytes
                    task.student,
                    asked,
                    secret=secret,
                    room=shared,
                    limits=scaled,
                    slot=slot,
                )
            finally:
                slots.put(slot)
            if shared.stopped.is_set():  # its box may have been killed over a question
                raise Stopped
            return record

        try:
            yield lambda task: pool.submit(run, task)
        except BaseException:
            shared.stop()  # a submission may have minutes left, and its record is not waited for
            pool.shutdown(cancel_futures=True)
            raise


@dataclass(frozen=True)
class _GradeAlone:
    """Grades one submission on a worker of an engine: loads and prepares what it needs there."""

    name: str
    root: Path
    sandbox: str
    secret: str
    limits: Limits

    def __call__(self, submission: bytes, student: str, more_time: float) -> GradingRecord:
        assignment, limits = _with_time(
            load_assignment(self.name, self.root), self.limits, more_time
        )
        with room(self.sandbox) as shared:
            return grade(
                submission,
                student,
                assignment,
                secret=self.secret,
                room=shared,
                limits=limits,
                slot=os.getpid(),
            )


def _secret(output: Path) -> str:
    """The seed of the hidden probes, drawn once and kept: the same submission, the same score."""
    path = output / "secret"
    # One that is empty, as a full disk leaves it, would be known to everybody.
    if not path.exists() or not path.read_text(encoding="utf-8").strip():
        replace_text(path, secrets.token_hex(16) + "\n", mode=0o600)
    return path.read_text(encoding="utf-8").strip()
