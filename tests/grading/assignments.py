"""The assignments under test."""

from pathlib import Path

from course_lib.grading.question import load_assignment

ROOT = Path(__file__).parents[2]
NAMES = sorted(path.parent.name for path in (ROOT / "assignments").glob("*/questions.py"))
ASSIGNMENTS = [load_assignment(name, ROOT) for name in NAMES]
