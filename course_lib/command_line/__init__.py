"""The command ``course-lib``: one module per group of subcommands.

Each module offers ``add_parser(subparsers)``, which declares its options and sets ``run`` to a
function that takes the parsed arguments and returns the exit status.
"""

import argparse
import sys
from collections.abc import Sequence
from importlib import import_module

__all__ = ["main"]

GROUPS = ("assignment", "train", "study")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run ``course-lib`` with `arguments` (default: those of the process); return the exit status."""
    parser = argparse.ArgumentParser(
        prog="course-lib",
        description="Release and grade the assignments of the course; train its models, run its studies.",
    )
    subparsers = parser.add_subparsers(metavar="COMMAND", required=True)
    for group in GROUPS:
        import_module(f"course_lib.command_line.{group}").add_parser(subparsers)
    options = parser.parse_args(arguments)
    try:
        return options.run(options)
    except KeyboardInterrupt:
        print(
            "Interrupted. What was finished is kept; the same command continues.", file=sys.stderr
        )
        return 130
