"""A record to report on, and the tables that are read back."""

import csv
from dataclasses import replace
from pathlib import Path

from course_lib.grading.judge import GradingRecord, Verdict


def table(path: Path) -> dict[str, dict[str, str]]:
    """The rows of a table by student."""
    with path.open(newline="", encoding="utf-8-sig") as file:
        return {row["student"]: row for row in csv.DictReader(file)}


def example(student: str = "ada", **changes) -> GradingRecord:
    verdicts = [
        Verdict("first", 1, 1, "right"),
        Verdict("target", 0, 1, "<script>alert(1)</script>"),
        Verdict("last", 1, 1, "right"),
        Verdict("words", None, 1, "graded by a person"),
    ]
    record = GradingRecord(
        student, "key", verdicts, errors=[(2, "<b>x</b>")], answers={"words": "<i>because</i>"}
    )
    return replace(record, **changes)
