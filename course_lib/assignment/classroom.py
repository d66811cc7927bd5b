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
from course_lib.assignment.judge import SUBMISSION_LIMIT, Record, Verdict, grade, record_key
from course_lib.assignment.question import Assignment, load_assignment
from course_lib.assignment.release import public_checks, require_consistent
from course_lib.inputs import require_writable
from course_lib.progress import progress_bar


@dataclass(frozen=True)
class Submission:
    """A notebook that was handed in, and by whom."""

    student: str
    path: Path

    def read(self) -> bytes:
        """Its bytes, one more than are accepted at most: a larger file is refused, not loaded."""
        with self.path.open("rb") as file:
            return file.read(SUBMISSION_LIMIT + 1)


def collect(folder: Path, assignment: str) -> list[Submission]:
    """Find submissions: ``<student>.ipynb``, ``<student>/<any>.ipynb`` or nbgrader's folders.

    nbgrader's are ``<student>/<assignment>/<assignment>.ipynb``. Links are not followed: a
    student's link could point to another's file. What programs leave behind is nobody's: hidden
    files and folders such as ``.ipynb_checkpoints``, and the ``__MACOSX`` of some archives.

    Raises:
        ValueError: the folder is missing or holds no notebook, or a student has several.
    """
    if not folder.is_dir():
        raise ValueError(f"{folder} is no folder; give the folder that holds the submissions")
    entries = _entries(folder)
    found = [Submission(p.stem, p) for p in entries if p.suffix == ".ipynb"]
    for student in (p for p in entries if p.is_dir() and not p.is_symlink()):
        below = [*student.glob("[!.]*.ipynb"), *(student / assignment).glob("[!.]*.ipynb")]
        named = [p for p in below if p.stem == assignment] or below
        found += [Submission(student.name, path) for path in sorted(named)]
    found = [s for s in found if s.path.is_file() and not s.path.is_symlink()]
    if not found:
        raise ValueError(
            f"{folder} holds no submission; <student>.ipynb or <student>/{assignment}.ipynb is expected"
        )
    paths: dict[str, list[str]] = {}
    for submission in found:
        path = submission.path.relative_to(folder).as_posix()
        paths.setdefault(submission.student, []).append(path)
    twice = [f"{name} ({', '.join(own)})" for name, own in paths.items() if len(own) > 1]
    if twice:
        raise ValueError(f"several notebooks of {'; '.join(twice)}; keep one for each student")
    return found


def overlooked(folder: Path, submissions: list[Submission]) -> list[str]:
    """Names of the files and folders in which `collect` has found no submission."""
    used = {s.path.relative_to(folder).parts[0] for s in submissions}
    return [p.name for p in _entries(folder) if p.name not in used]


def _entries(folder: Path) -> list[Path]:
    return sorted(p for p in folder.iterdir() if not p.name.startswith((".", "__MACOSX")))


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
        require_hidden(assignment.folder, output, *(s.path for s in submissions))
    folder = output / "records"
    folder.mkdir(parents=True, exist_ok=True)
    secret = _secret(output)
    records: dict[str, Record] = {}
    todo: list[tuple[Submission, bytes]] = []
    for submission in submissions:
        record = read_record(folder / f"{submission.student}.json")
        content = submission.read()
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
