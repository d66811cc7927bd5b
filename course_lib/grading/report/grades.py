"""The table that a grade book imports."""

import csv
import io

from course_lib.grading.judge import GradingRecord
from course_lib.grading.question import Assignment
from course_lib.grading.text import cell, one_line

STATUS_LENGTH = 300


def grades_table(records: list[GradingRecord], assignment: Assignment) -> str:
    """``grades.csv``: a row for each student, with total, points by question, and status."""
    names = [question.name for question in assignment.questions]
    today = assignment.digest()
    text = io.StringIO(newline="")
    table = csv.writer(text)
    table.writerow(["student", "points", "possible", *names, "status", "sandbox"])
    for record in records:
        table.writerow(
            [
                cell(record.student),
                f"{record.points:g}",
                f"{assignment.points:g}",
                *("" if v.points is None else f"{v.points:g}" for v in record.verdicts),
                cell(status(record, today)),
                cell(record.sandbox),
            ]
        )
    return text.getvalue()


def status(record: GradingRecord, today: str) -> str:
    """Whether a student's points are complete, and if not, why; `today` is the questions' digest."""
    said = [one_line(record.fault, STATUS_LENGTH)] if record.fault else []
    if record.questions and record.questions != today:
        said.append("graded with earlier questions: grade again")
    waits = any(verdict.points is None for verdict in record.verdicts)
    if waits and (record.answers or not record.fault):
        said.append("to be graded")
    return "; ".join(said) or "graded"
