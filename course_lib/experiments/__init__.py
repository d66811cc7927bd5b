"""Recorded runs: the settings behind every number of the book, and how a number is written down.

`recipes` holds the settings, `running` trains and measures by them, `studies` names the studies of
families without a likelihood, `records` writes and reads what came out. The commands
``course-lib train`` and ``course-lib study`` are thin layers over these.
"""

from course_lib.experiments.recipes import RECIPES, find_recipe
from course_lib.experiments.records import (
    Metric,
    Record,
    StudyRecord,
    read_records,
    read_study,
    write_record,
    write_study,
)
from course_lib.experiments.running import checkpoint_path, is_finished, plan, run
from course_lib.experiments.studies import STUDIES, Study, find_study
from course_lib.family import Recipe

__all__ = [
    "RECIPES",
    "STUDIES",
    "Metric",
    "Recipe",
    "Record",
    "Study",
    "StudyRecord",
    "checkpoint_path",
    "find_recipe",
    "find_study",
    "is_finished",
    "plan",
    "read_records",
    "read_study",
    "run",
    "write_record",
    "write_study",
]
