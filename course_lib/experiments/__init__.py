"""Recorded runs: the settings behind every number of the book, and how a number is written down.

`recipes` holds the settings, `running` trains and measures by them, `records` writes and reads what
came out. The command ``course-lib train`` is a thin layer over these.
"""

from course_lib.experiments.recipes import RECIPES, Recipe, find_recipe
from course_lib.experiments.records import Metric, Record, read_records, write_record
from course_lib.experiments.running import checkpoint_path, is_finished, plan, run

__all__ = [
    "RECIPES",
    "Metric",
    "Recipe",
    "Record",
    "checkpoint_path",
    "find_recipe",
    "is_finished",
    "plan",
    "read_records",
    "run",
    "write_record",
]
