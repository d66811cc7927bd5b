"""Solved masters earn full marks, unsolved releases nothing: with our grader and with nbgrader.

nbgrader runs one master for all, nbval the others. What it shows is not shown again here: that no cell of
a solved one fails.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

from course_lib.grading.box import Limits
from course_lib.grading.judge import grade
from course_lib.grading.question import Measure, Question, Written
from course_lib.grading.release import marks, student_version

from .assignments import ASSIGNMENTS, NAMES, ROOT

pytestmark = pytest.mark.isolation
NBGRADER = """
import json, sys
from nbgrader.apps import NbGraderAPI
from traitlets.config import Config

root, name, *steps = sys.argv[1:]
config = Config()
config.CourseDirectory.root = root
config.CourseDirectory.db_url = f"sqlite:///{root}/gradebook.db"
config.ExecutePreprocessor.timeout = 600
api = NbGraderAPI(config=config)
outcome = {"release": api.generate_assignment(name)["success"]}
outcome["of"] = api.get_assignment(name)["max_code_score"]
if "grade" in steps:
    outcome["grade"] = api.autograde(name, "ada")["success"]
    (submission,) = [s for s in api.get_submissions(name) if s["student"] == "ada"]
    outcome["score"] = submission["code_score"]
print(json.dumps(outcome))
"""


def machine_points(assignment) -> float:
    return sum(q.points for q in assignment.questions if not isinstance(q, Written))


@pytest.mark.parametrize("assignment", ASSIGNMENTS, ids=NAMES)
@pytest.mark.parametrize("version", ["solved", "unsolved"])
def test_the_grader_gives_solved_masters_everything_and_unsolved_ones_nothing(
    shared, assignment, version
):
    master = nbformat.read(assignment.master, as_version=4)
    submission = master if version == "solved" else student_version(master)
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0")[2:])
    record = grade(
        nbformat.writes(submission).encode(),
        "ada",
        assignment,
        secret="of the tests",
        room=shared,
        limits=Limits(),
        slot=20 + worker,
    )
    if version == "solved":
        assert record.points == machine_points(assignment), record.verdicts
        assert record.errors == []
    else:
        assert record.points == 0
        assert {v.comment for v in record.verdicts} == {"not answered"}


@pytest.mark.parametrize("assignment", ASSIGNMENTS, ids=NAMES)
def test_each_unsolved_question_fails_only_itself(assignment, tmp_path):
    """The student's notebook runs from top to bottom, and every check says “not answered”."""
    notebook = student_version(nbformat.read(assignment.master, as_version=4))
    NotebookClient(notebook, timeout=120, resources={"metadata": {"path": tmp_path}}).execute()
    failures = {}
    for cell in notebook.cells:
        name = marks(cell).get("grade_id", "")
        if cell.cell_type == "code" and marks(cell).get("grade"):
            (error,) = [o for o in cell.outputs if o.output_type == "error"]
            failures[name.removeprefix("check-")] = (error.ename, error.evalue)
    asked = {q.name for q in assignment.questions if isinstance(q, (Question, Measure))}
    assert set(failures) == asked
    for name, (kind, text) in failures.items():
        assert kind == "NotImplementedError", name
        assert text == f"{assignment.name}.{name} is not answered yet"


def nbgrader(assignment, folder, *steps):
    """What nbgrader says of the master, as its source and as a submission of ada's, in `folder`."""
    name = assignment.name
    for place in ("source", "submitted/ada"):
        target = folder / place / name
        target.mkdir(parents=True)
        (target / f"{name}.ipynb").write_bytes(assignment.master.read_bytes())
    run = subprocess.run(
        [sys.executable, "-c", NBGRADER, str(folder), name, *steps],
        capture_output=True,
        text=True,
        # nbgrader calls the program `alembic`, which stands beside the interpreter.
        env={
            **os.environ,
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            "PYTHONPATH": str(ROOT),
            "TQDM_DISABLE": "1",
        },
        cwd=folder,
    )
    assert run.returncode == 0, run.stderr[-3000:]
    return json.loads(run.stdout.splitlines()[-1])


@pytest.mark.parametrize("assignment", ASSIGNMENTS, ids=NAMES)
def test_nbgrader_reads_the_master(assignment, tmp_path):
    name = assignment.name
    outcome = nbgrader(assignment, tmp_path)
    assert outcome["release"]
    assert outcome["of"] == machine_points(assignment)
    # nbgrader's own release hides the same solutions behind the same placeholders.
    theirs = nbformat.read(tmp_path / "release" / name / f"{name}.ipynb", as_version=4)
    ours = student_version(nbformat.read(assignment.master, as_version=4))
    for their, our in zip(theirs.cells, ours.cells, strict=True):
        assert their.source.strip() == our.source.strip()


def test_nbgrader_gives_a_solved_master_full_marks(tmp_path):
    """One master stands for all: nbgrader gives the points of each check that does not fail."""
    assignment = next(a for a in ASSIGNMENTS if a.name == "vae")
    outcome = nbgrader(assignment, tmp_path, "grade")
    assert outcome["grade"]
    assert outcome["score"] == outcome["of"] == machine_points(assignment)
    (run,) = tmp_path.glob("autograded/ada/vae/vae.ipynb")
    cells = [c for c in nbformat.read(run, as_version=4).cells if c.cell_type == "code"]
    assert all(c.execution_count for c in cells if c.source.strip())
    assert [o for c in cells for o in c.outputs if o.output_type == "error"] == []
