"""``course-lib assignment``: release an assignment, grade what was handed in, compare classes."""

import argparse
import os
import sys
from pathlib import Path

import course_lib
from course_lib.command_line.options import factor, positive


def add_parser(subparsers: argparse._SubParsersAction) -> None:
    """Declare ``assignment release``, ``assignment grade`` and ``assignment compare``."""
    parser = subparsers.add_parser("assignment", help="release, grade and compare assignments")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)

    command = commands.add_parser(
        "release", help="write the student's and the solution's notebook, and the public checks"
    )
    command.add_argument("names", nargs="+", metavar="ASSIGNMENT", help="for instance vae")
    _root(command)
    command.set_defaults(run=release)

    command = commands.add_parser(
        "grade", help="grade a folder of submissions, each in isolation; resumable"
    )
    command.add_argument(
        "submissions",
        type=Path,
        metavar="SUBMISSIONS",
        help="folder with a file or folder a student, as by hand or as Moodle, Canvas, GitHub "
        "Classroom or nbgrader export it",
    )
    command.add_argument("--assignment", required=True, metavar="NAME", help="for instance vae")
    command.add_argument(
        "--roster",
        type=Path,
        metavar="FILE",
        help="the class, as CSV with a header: identifiers and what else names a student's folder",
    )
    command.add_argument(
        "--output", type=Path, help="where reports and records go (default: graded/NAME)"
    )
    command.add_argument(
        "--jobs",
        type=positive(int),
        default=os.cpu_count(),
        help="submissions at a time (default: %(default)s, the number of cores)",
    )
    command.add_argument(
        "--dask", metavar="ADDRESS", help="grade on the workers of this Dask scheduler instead"
    )
    command.add_argument(
        "--sandbox",
        choices=("bubblewrap", "none"),
        default="bubblewrap",
        help="'none' only in a container that is isolated already (default: %(default)s)",
    )
    command.add_argument(
        "--cell-seconds", type=positive(float), help="time limit of a cell (default: 180)"
    )
    command.add_argument(
        "--seconds", type=positive(float), help="time limit of a submission (default: 900)"
    )
    command.add_argument(
        "--memory", type=positive(float), metavar="GIB", help="memory of a submission (default: 3)"
    )
    command.add_argument(
        "--only",
        action="append",
        default=[],
        metavar="STUDENT",
        help="grade this student again and nobody else; may be given several times",
    )
    command.add_argument(
        "--more-time",
        action="append",
        default=[],
        type=factor,
        metavar="STUDENT=FACTOR",
        help="all limits of time of this student, FACTOR times as long; may be given several times",
    )
    _root(command)
    command.set_defaults(run=grade)

    command = commands.add_parser(
        "compare",
        help="points and misconceptions of several runs of grading, of classes or of years, on one page",
    )
    command.add_argument(
        "folders",
        nargs="+",
        type=Path,
        metavar="FOLDER",
        help="output folders of 'assignment grade' for one assignment, in the order of the page",
    )
    command.add_argument(
        "--output",
        type=Path,
        default=Path("comparison.html"),
        help="the page (default: %(default)s)",
    )
    command.set_defaults(run=compare)


def release(options: argparse.Namespace) -> int:
    """Release the assignments that `options` names."""
    from course_lib.grading.question import load_assignment
    from course_lib.grading.release import release

    for given in options.names:
        try:
            name, root = _named(given, options.root)
            written = release(load_assignment(name, root), Path(course_lib.__file__).parent)
        except (ValueError, FileNotFoundError) as error:
            return _fail(error)
        for path in written:
            print(path)
    return 0


def grade(options: argparse.Namespace) -> int:
    """Grade the submissions that `options` names and write the reports."""
    from course_lib.grading.box import Limits, SandboxError
    from course_lib.grading.classroom import grade_all
    from course_lib.grading.collecting import collect, overlooked
    from course_lib.grading.question import load_assignment
    from course_lib.grading.records import held
    from course_lib.grading.report import UNSAFE, require_manual, write_reports
    from course_lib.grading.roster import read_roster

    chosen = {
        "cell_seconds": options.cell_seconds,
        "total_seconds": options.seconds,
        "memory": options.memory and int(options.memory * 2**30),
    }
    limits = Limits(**{name: value for name, value in chosen.items() if value is not None})
    name, root = _named(options.assignment, options.root)
    output = options.output or Path("graded") / name
    if options.sandbox == "none":
        print(f"WARNING: {UNSAFE}", file=sys.stderr)
    try:
        assignment = load_assignment(name, root)
        roster = None if options.roster is None else read_roster(options.roster)
        submissions = collect(options.submissions, name, roster)
        if left := overlooked(options.submissions, submissions):
            print(f"Taken for nobody's submission: {', '.join(left)}", file=sys.stderr)
        said: dict[str, list[str]] = {}
        for submission in submissions:
            said.setdefault(submission.fault or submission.note, []).append(submission.student)
        for what, students in said.items():
            if what:
                print(f"{', '.join(students)}: {what}", file=sys.stderr)
        with held(output):
            require_manual(assignment, output)
            records = grade_all(
                submissions,
                assignment,
                output,
                jobs=options.jobs,
                sandbox=options.sandbox,
                limits=limits,
                dask=options.dask,
                only=options.only,
                more_time=dict(options.more_time),
            )
            paths = write_reports(records, assignment, output)
    except (ValueError, OSError, SandboxError, ImportError) as error:
        return _fail(error)
    for what, path in paths.items():
        print(f"{what:>8}: {path}")
    return 1 if any(record.fault.startswith("the grader failed") for record in records) else 0


def compare(options: argparse.Namespace) -> int:
    """Write the page of several runs."""
    from course_lib.files import replace_text
    from course_lib.grading.report.runs import read_runs, require_apart, runs_page

    try:
        runs = read_runs(options.folders)
        require_apart(options.output, options.folders)
        replace_text(options.output, runs_page(runs, runs[0].summary["assignment"]))
    except (ValueError, OSError) as error:
        return _fail(error)
    print(options.output)
    return 0


def _root(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--root",
        type=Path,
        help="the clone of the course that holds assignments/ (default: the current folder)",
    )


def _named(given: str, root: Path | None) -> tuple[str, Path]:
    """An assignment's name and clone, from its name or the path of its folder or of a file in it.

    Shells complete a name that is also a folder's; ``vae/`` and ``./assignments/vae/vae.ipynb`` mean
    ``vae``.
    """
    for parts in (Path(given).parts, Path(given).resolve().parts):
        for at in (at for at, part in enumerate(parts[:-1]) if part == "assignments"):
            clone, name = Path(*parts[:at]), parts[at + 1]
            if (clone / "assignments" / name / "questions.py").is_file():
                return name, clone if root is None else root
    return Path(given).name.removesuffix(".ipynb"), Path() if root is None else root


def _fail(error: Exception) -> int:
    print(f"course-lib: {error}", file=sys.stderr)
    return 2
