"""Grades a folder of submissions: several at a time, resumable, one never costing another."""

import json
import os
import queue
import secrets
import sys
from collections.abc import Iterator
from concurrent.futures import Executor, ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import nbformat

from course_lib.assignment.box import Limits, Stopped, require_hidden, room
from course_lib.assignment.collecting import Submission
from course_lib.assignment.judge import Record, Verdict, grade, record_key, ungraded
from course_lib.assignment.question import Assignment, load_assignment
from course_lib.assignment.release import public_checks, require_consistent
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
) -> list[Record]:
    """Grade what has no record yet; return the records of all submissions, in their order.

    Each record is written as soon as it exists, so an interrupted run goes on where it was.

    Args:
        submissions: what was handed in.
        assignment: the questions.
        output: the folder for records; keeps the seed of the hidden probes in ``secret``.
        jobs: submissions at the same time on this machine.
        sandbox: ``"bubblewrap"`` or ``"none"``.
        limits: what each submission may use.
        dask: address of a scheduler whose workers grade instead of this machine. They need the
            same files (assignments, package, bubblewrap) at the same place.

    Raises:
        SandboxError: isolation is asked for and cannot be had.
        ValueError: the assignment's questions and its master contradict each other, or nothing can be
            written to `output`.
    """
    require_writable(output, "the reports")
    # A fault in the questions themselves is to be found now, not once for every submission.
    public_checks(assignment)
    require_consistent(assignment, nbformat.read(assignment.master, as_version=4))
    if sandbox == "bubblewrap":
        require_hidden(assignment.folder, output, *(s.path for s in submissions if s.path))
    folder = output / "records"
    folder.mkdir(parents=True, exist_ok=True)
    secret = _secret(output)
    records: dict[str, Record] = {}
    faults: dict[str, Record] = {}  # not stored: they cost nothing
    todo: list[tuple[Submission, bytes]] = []
    for submission in submissions:
        record = read_record(folder / f"{submission.student}.json")
        try:
            content = submission.read()
        except ValueError as error:
            nothing = Record(submission.student, "", sandbox=sandbox)
            faults[submission.student] = ungraded(nothing, assignment, str(error))
            if not submission.entries and record is not None:
                faults[submission.student] = record  # handed in earlier, into another folder
            continue
        key = record_key(content, assignment, secret, limits)
        if record is not None and record.key == key and record.sandbox == sandbox:
            records[submission.student] = record
        else:
            todo.append((submission, content))
    if records:
        print(f"{len(records)} of {len(submissions)} are graded already; going on with the rest")
    with _executor(assignment, jobs, sandbox, dask) as (executor, task):
        pending = {
            executor.submit(task, content, submission.student, secret, limits): submission
            for submission, content in todo
        }
        with progress_bar(total=len(todo), desc="grading", unit="submission") as bar:
            try:
                for future in as_completed(pending):
                    student = pending[future].student
                    record = _outcome(future, pending[future], assignment)
                    records[student] = record
                    if future.exception() is None:
                        write_record(folder / f"{student}.json", record)
                    bar.update()
            except BaseException:
                for future in pending:
                    future.cancel()
                raise
    records |= faults
    for submission in submissions:
        if submission.note:
            records[submission.student].notes.insert(0, submission.note)
    return [records[submission.student] for submission in submissions]


def read_record(path: Path) -> Record | None:
    """Read a record; ``None`` if there is none, or none that is whole."""
    try:
        stored = json.loads(path.read_text(encoding="utf-8"))
        stored["verdicts"] = [Verdict(**verdict) for verdict in stored["verdicts"]]
        stored["errors"] = [(number, text) for number, text in stored["errors"]]
        return Record(**stored)
    except (OSError, ValueError, KeyError, TypeError):
        return None


def write_record(path: Path, record: Record) -> None:
    """Write a record at once: a file that exists is whole."""
    temporary = path.with_suffix(".part")
    temporary.write_text(json.dumps(asdict(record), indent=1), encoding="utf-8")
    temporary.replace(path)


def _outcome(future, submission: Submission, assignment: Assignment) -> Record:
    """A future's record; a fault of the grader itself costs one submission its record, no more."""
    error = future.exception()
    if error is None:
        return future.result()
    print(f"{submission.student}: the grader failed: {error!r}", file=sys.stderr)
    verdicts = [Verdict(q.name, None, q.points, "not graded yet") for q in assignment.questions]
    return Record(submission.student, "", verdicts, fault=f"the grader failed: {error!r}")


@contextmanager
def _executor(
    assignment: Assignment, jobs: int, sandbox: str, dask: str | None
) -> Iterator[tuple[Executor, object]]:
    if dask is not None:
        from distributed import Client

        # A worker's current folder is another one.
        root = assignment.folder.absolute().parents[1]
        with Client(dask, set_as_default=False) as client:
            yield client.get_executor(pure=False), _GradeAlone(assignment.name, root, sandbox)
        return
    with room(sandbox) as shared, ThreadPoolExecutor(jobs) as pool:
        slots: queue.SimpleQueue[int] = queue.SimpleQueue()
        for slot in range(jobs):
            slots.put(slot)

        def task(submission: bytes, student: str, secret: str, limits: Limits) -> Record:
            slot = slots.get()
            try:
                record = grade(
                    submission,
                    student,
                    assignment,
                    secret=secret,
                    room=shared,
                    limits=limits,
                    slot=slot,
                )
            finally:
                slots.put(slot)
            if shared.stopped.is_set():  # its box may have been killed over a question
                raise Stopped
            return record

        try:
            yield pool, task
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

    def __call__(self, submission: bytes, student: str, secret: str, limits: Limits) -> Record:
        with room(self.sandbox) as shared:
            return grade(
                submission,
                student,
                load_assignment(self.name, self.root),
                secret=secret,
                room=shared,
                limits=limits,
                slot=os.getpid(),
            )


def _secret(output: Path) -> str:
    """The seed of the hidden probes, drawn once and kept: the same submission, the same score."""
    path = output / "secret"
    # One that is empty, as a full disk leaves it, would be known to everybody.
    if not path.exists() or not path.read_text(encoding="utf-8").strip():
        temporary = path.with_suffix(".part")
        temporary.touch(mode=0o600)
        temporary.write_text(secrets.token_hex(16) + "\n", encoding="utf-8")
        temporary.replace(path)
    return path.read_text(encoding="utf-8").strip()
