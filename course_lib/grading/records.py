"""The records in an output folder: read, written, kept, and held by one run at a time."""

import contextlib
import json
import math
import os
from collections.abc import Collection, Iterator
from dataclasses import asdict
from pathlib import Path

from course_lib.files import locked, remove_leftovers, replace_text
from course_lib.grading.judge import GradingRecord, Verdict
from course_lib.grading.text import label
from course_lib.inputs import require_writable

ENDING = ".json"


def record_path(output: Path, student: str) -> Path:
    """Where the record of a student (a `label`) lies."""
    return output / "records" / f"{student}{ENDING}"


def read_record(path: Path) -> GradingRecord | None:
    """Read a record; ``None`` if there is none, or none that is whole."""
    try:
        stored = json.loads(path.read_text(encoding="utf-8"))
        stored["verdicts"] = [Verdict(**verdict) for verdict in stored["verdicts"]]
        stored["errors"] = [(number, text) for number, text in stored["errors"]]
        record = GradingRecord(**stored)
        return record if _is_whole(record) else None
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None


def write_record(path: Path, record: GradingRecord) -> None:
    """Write a record at once: a file that exists is whole."""
    replace_text(path, json.dumps(asdict(record), indent=1))


def other_records(output: Path, students: Collection[str]) -> list[GradingRecord]:
    """The records in `output` of everybody but `students`, those of earlier runs.

    One that cannot be read any more is named in its fault: nobody vanishes.
    """
    found = []
    for path in sorted((output / "records").glob(f"*{ENDING}")):
        student = label(path.name.removesuffix(ENDING))
        if student in students:
            continue
        record = read_record(path)
        if record is None or label(record.student) != student:
            record = GradingRecord(
                student, "", fault=f"{path.name} is damaged: grade this student again"
            )
        record.student = student
        found.append(record)
    return found


@contextlib.contextmanager
def held(output: Path) -> Iterator[None]:
    """Hold an output folder, which is made if need be, until the block ends.

    The hold ends with the process, however it ends.

    Raises:
        ValueError: another run holds it, or nothing can be written to it.
    """
    require_writable(output, "the reports")
    lock = output / ".lock"
    with contextlib.ExitStack() as stack:
        try:
            file = stack.enter_context(locked(lock))
        except BlockingIOError:
            who = lock.read_bytes()[:20].decode(errors="replace").strip()
            raise ValueError(
                f"another run (process {who}) is grading into {output}. Wait until it has ended, or "
                f"name another folder with --output."
            ) from None
        os.truncate(file, 0)
        os.write(file, f"{os.getpid()}\n".encode())
        for folder in (output, output / "records", output / "feedback"):
            remove_leftovers(folder, age=0)
        yield


def _is_whole(record: GradingRecord) -> bool:
    """Whether everything in it is of its kind: a file may have been edited, or be another's."""
    verdicts = record.verdicts
    texts = [record.student, record.key, record.fault, record.sandbox, record.output]
    texts += [record.questions, *record.answers, *record.answers.values()]
    texts += [text for _, text in record.errors] + record.notes
    texts += [text for v in verdicts for text in (v.name, v.comment, v.mistake or "")]
    numbers = [record.seconds, record.memory, record.more_time]
    numbers += [number for number, _ in record.errors]
    numbers += [x for v in verdicts for x in (v.possible, 0 if v.points is None else v.points)]
    return all(isinstance(text, str) for text in texts) and all(
        isinstance(x, (int, float)) and math.isfinite(x) for x in numbers
    )
