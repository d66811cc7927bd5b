"""What an instructor and a student get to read: tables, a page each, and a summary of the class."""

import json
import sys
from pathlib import Path

from course_lib.files import replace_text
from course_lib.grading.judge import GradingRecord, Verdict
from course_lib.grading.question import Assignment
from course_lib.grading.records import other_records
from course_lib.grading.report.feedback import feedback_page
from course_lib.grading.report.grades import grades_table
from course_lib.grading.report.manual import (
    Key,
    changed_answers,
    manual_table,
    points_given,
    read_manual,
    reading_page,
    recognised,
)
from course_lib.grading.report.page import UNSAFE
from course_lib.grading.report.summary import summarize, summary_page
from course_lib.grading.text import cell, label

__all__ = [
    "UNSAFE",
    "feedback_page",
    "require_manual",
    "summarize",
    "summary_page",
    "write_reports",
]


def write_reports(
    records: list[GradingRecord], assignment: Assignment, output: Path
) -> dict[str, Path]:
    """Write ``grades.csv``, ``manual.csv`` and its page, the feedback, and the summary.

    They tell of everybody who has a record in `output`, not of `records` alone: a part of the class
    may be graded again. Points for written questions are read from ``manual.csv``, which a person
    fills in; what stands there is kept. Points belong to the answer that was read: if the student
    has handed in another one since, they do not count until the person has cleared the row's last
    cell.

    Every file is whole at every moment, and none is touched if ``manual.csv`` is not understood.

    Args:
        records: what was graded; points given by a person are entered into their verdicts.
        assignment: the questions.
        output: the folder.

    Returns:
        The paths, by name.

    Raises:
        ValueError: a row of ``manual.csv`` is not understood.
        OSError: a file cannot be written.
    """
    records = [*records, *other_records(output, {label(record.student) for record in records})]
    records = sorted((_fitted(r, assignment) for r in records), key=lambda record: record.student)
    rows = recognised(read_manual(assignment, output), records, assignment)
    given = points_given(rows, assignment)
    changed = changed_answers(rows, records)
    _warn(output / "manual.csv", given, changed, records)
    for record in records:
        for verdict in record.verdicts:
            key = cell(record.student), verdict.name
            if key in given and key not in changed:
                verdict.points, comment = given[key]
                verdict.comment = comment or verdict.comment
    # First what a person has entered and will enter.
    replace_text(
        output / "manual.csv", manual_table(rows, records, assignment), encoding="utf-8-sig"
    )
    replace_text(output / "manual.html", reading_page(records, assignment))
    feedback = output / "feedback"
    feedback.mkdir(exist_ok=True)
    for record in records:
        replace_text(feedback / f"{record.student}.html", feedback_page(record, assignment))
    replace_text(output / "grades.csv", grades_table(records, assignment))
    summary = summarize(records, assignment)
    summary["look at"] += [
        {"student": student, "why": f"{name}: another answer than the one that was given points"}
        for student, name in changed
    ]
    replace_text(output / "summary.json", json.dumps(summary, indent=1, allow_nan=False))
    replace_text(output / "summary.html", summary_page(summary, assignment))
    return {
        "grades": output / "grades.csv",
        "feedback": feedback,
        "summary": output / "summary.html",
        "manual": output / "manual.csv",
        "answers": output / "manual.html",
    }


def require_manual(assignment: Assignment, output: Path) -> None:
    """Require that ``manual.csv`` is understood, if there is one: better now than after grading.

    Raises:
        ValueError: it is not.
    """
    points_given(read_manual(assignment, output), assignment)


def _fitted(record: GradingRecord, assignment: Assignment) -> GradingRecord:
    """A record with one verdict for each of today's questions, in their order."""
    record.student = label(record.student)
    known = {(verdict.name, verdict.possible): verdict for verdict in record.verdicts}
    record.verdicts = [
        known.get((q.name, q.points)) or Verdict(q.name, None, q.points, "not graded yet")
        for q in assignment.questions
    ]
    return record


def _warn(
    path: Path,
    given: dict[Key, tuple[float, str]],
    changed: list[Key],
    records: list[GradingRecord],
) -> None:
    strangers = {student for student, _ in given} - {cell(record.student) for record in records}
    if strangers:
        print(
            f"{path}: there are points for {', '.join(sorted(strangers))}, and no submission of that "
            f"name; nobody gets them. A spreadsheet that takes names for numbers drops leading zeros.",
            file=sys.stderr,
        )
    for student, name in changed:
        print(
            f"{path}: the answer of {student} to {name} is another one than that which was given points. "
            f"Read it, correct the points, clear the cell “version” of the row and call the command again.",
            file=sys.stderr,
        )
