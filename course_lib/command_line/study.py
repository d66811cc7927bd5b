"""``course-lib study``: run a study of many small models, and write its record."""

import argparse
import sys
from pathlib import Path

from course_lib.command_line.options import positive


def add_parser(subparsers: argparse._SubParsersAction) -> None:
    """Declare the options."""
    parser = subparsers.add_parser(
        "study",
        help="run a recorded study and write its record",
        description="Run a study with its recorded settings, and write one JSON file, and pictures if it "
        "has any, over those that are there. A study that was stopped resumes after the last method that "
        "was done when the same command is called again.",
    )
    parser.add_argument("study", nargs="?", help="such as gan_stability; --list shows all")
    parser.add_argument("--list", action="store_true", help="list the studies")
    parser.add_argument("--results", type=Path, default=Path("results"), help="folder of records")
    parser.add_argument(
        "--checkpoints",
        type=Path,
        default=Path("checkpoints"),
        help="folder of what is done so far",
    )
    parser.add_argument(
        "--seeds", type=positive(int), help="instead of the recorded number, for a trial"
    )
    parser.add_argument(
        "--steps",
        type=positive(int),
        help="instead of each method's own, for a trial, whose record ends in .trial.json",
    )
    parser.add_argument("--threads", type=positive(int), help="threads of torch on the CPU")
    parser.add_argument("--quiet", action="store_true", help="no progress bar")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Run the study, write its record; return the exit status."""
    # Imported late: `course-lib --help` should not wait for torch.
    import torch

    from course_lib.experiments.studies import STUDIES
    from course_lib.inputs import require_writable
    from course_lib.training import TrainingError

    if options.list or options.study is None:
        for name in STUDIES:
            print(f"course-lib study {name}")
        return 0
    if options.threads:
        torch.set_num_threads(options.threads)
    try:
        # Now, and not when all has been trained.
        require_writable(options.results, "the record")
        require_writable(options.checkpoints, "what is done so far")
        one_study(options.study, options)
    except (TrainingError, OSError, ValueError) as error:
        print(f"course-lib study: {error}", file=sys.stderr)
        return 1
    return 0


def one_study(name: str, options: argparse.Namespace) -> None:
    """Run one study, write its record, say where.

    Raises:
        ValueError: there is no such study.
    """
    from course_lib.experiments.records import write_study
    from course_lib.experiments.studies import find_study

    changes = {
        parameter: value
        for parameter, option in (("n_seeds", "seeds"), ("steps", "steps"))
        if (value := getattr(options, option, None)) is not None
    }
    study = find_study(name)
    pictures = {"pictures": None if changes else options.results} if study.pictured else {}
    record = study.run(
        checkpoints=options.checkpoints, progress=not options.quiet, **changes, **pictures
    )
    path = write_study(record, options.results, trial=bool(changes))
    print(f"{name}: {record.seconds:.0f} s; written: {path}")
    if changes:
        print("  It is the record of a trial: no table and no --recorded reads it.")
