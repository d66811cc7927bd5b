"""What grading costs: seconds beyond a notebook's own running time, and several jobs against one.

    python -m benchmarks.grading [--assignment vae] [--submissions 8]

The notebook's own time is that of its cells as one Python script in a fresh process, imports
included; the grader's is one submission, from its bytes to its record. Both are measured in turn.
"""

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import nbformat

from course_lib.grading.box import Limits, room
from course_lib.grading.classroom import grade_all
from course_lib.grading.collecting import Submission
from course_lib.grading.judge import grade
from course_lib.grading.question import load_assignment

ROOT = Path(__file__).parents[1]


def main() -> None:
    """Print the overhead per submission and the gain of two jobs."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--assignment", default="vae")
    parser.add_argument("--submissions", type=int, default=6, help="submissions in each class")
    parser.add_argument("--repeats", type=int, default=3, help="of each single measurement")
    options = parser.parse_args()
    assignment = load_assignment(options.assignment, ROOT)
    master = nbformat.read(assignment.master, as_version=4)
    submission = nbformat.writes(master).encode()
    cells = [cell.source for cell in master.cells if cell.cell_type == "code"]
    with tempfile.TemporaryDirectory() as folder, room() as shared:
        script = Path(folder, "cells.py")
        script.write_text("\n".join(cells), encoding="utf-8")
        overheads, own = [], []
        for _ in range(options.repeats):
            start = time.perf_counter()
            subprocess.run([sys.executable, script], check=True, capture_output=True, cwd=ROOT)
            own.append(time.perf_counter() - start)
            record = grade(submission, "a", assignment, secret="s", room=shared, limits=Limits())
            overheads.append(record.seconds - own[-1])
        print(f"{options.assignment}: {statistics.median(own):.2f} s as a script; grading it costs")
        print(
            f"  {statistics.median(overheads):+.2f} s more (from {min(overheads):+.2f} to "
            f"{max(overheads):+.2f}), {record.memory / 2**20:.0f} MiB at most"
        )
        path = Path(folder, "master.ipynb")
        path.write_bytes(submission)
        class_ = [Submission(f"s{k}", path) for k in range(options.submissions)]
        seconds = {}
        for jobs in (1, 2):
            start = time.perf_counter()
            grade_all(
                class_,
                assignment,
                Path(folder, str(jobs)),
                jobs=jobs,
                sandbox="bubblewrap",
                limits=Limits(),
            )
            seconds[jobs] = time.perf_counter() - start
        print(
            f"{len(class_)} submissions: {seconds[1]:.1f} s with one job, {seconds[2]:.1f} s with "
            f"two: {seconds[1] / seconds[2]:.2f} times as fast"
        )


if __name__ == "__main__":
    main()
