"""Solved masters earn full marks, unsolved releases nothing: with our grader and with nbgrader.

A solved master is executed once, and that shows both that no cell of it fails, those that check an answer
included, and that the grader gives it full marks: in a box whose `check` is that of the students. One is
executed by nbgrader instead, in a kernel, and graded in a box as it stands.
"""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

import course_lib
from course_lib.grading.box import Limits, room
from course_lib.grading.judge import grade
from course_lib.grading.question import Measure, Question, Written
from course_lib.grading.release import marks, student_version
from tests.sharing import once

from .assignments import ASSIGNMENTS, NAMES, ROOT

pytestmark = pytest.mark.isolation
# This one is executed by nbgrader; that takes as long as to train its models.
IN_A_KERNEL = "vae"
NBGRADER = """
import json, sys
from nbgrader.apps import NbGraderAPI
from traitlets.config import Config

root, graded, *names = sys.argv[1:]
config = Config()
config.CourseDirectory.root = root
config.CourseDirectory.db_url = f"sqlite:///{root}/gradebook.db"
config.ExecutePreprocessor.timeout = 600
api = NbGraderAPI(config=config)
outcomes = {}
for name in names:
    outcomes[name] = outcome = {"release": api.generate_assignment(name)["success"]}
    outcome["of"] = api.get_assignment(name)["max_code_score"]
    if name == graded:
        outcome["grade"] = api.autograde(name, "ada")["success"]
        (submission,) = [s for s in api.get_submissions(name) if s["student"] == "ada"]
        outcome["score"] = submission["code_score"]
print(json.dumps(outcomes))
"""


def machine_points(assignment) -> float:
    return sum(q.points for q in assignment.questions if not isinstance(q, Written))


@pytest.fixture(scope="module")
def checking(shared):
    """A room whose `check` compares, as a student's does, where that of a grader's box does not."""
    with room(shared.sandbox) as made:
        library = Path(course_lib.__file__).parent
        for part in ("checking", "evaluation.py", "mmd.py"):  # a measure needs these
            if (library / part).is_dir():
                shutil.copytree(
                    library / part, made.folder / "course_lib" / part, dirs_exist_ok=True
                )
            else:
                shutil.copy(library / part, made.folder / "course_lib" / part)
        yield made


def graded(notebook, assignment, boxes):
    """The grader's record of a notebook."""
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0")[2:])
    return grade(
        nbformat.writes(notebook).encode(),
        "ada",
        assignment,
        secret="of the tests",
        room=boxes,
        limits=Limits(),
        slot=20 + worker,
    )


@pytest.mark.parametrize("assignment", ASSIGNMENTS, ids=NAMES)
def test_the_grader_gives_a_solved_master_everything_and_no_cell_of_it_fails(
    shared, checking, assignment
):
    master = nbformat.read(assignment.master, as_version=4)
    is_checked = assignment.name != IN_A_KERNEL
    record = graded(master, assignment, checking if is_checked else shared)
    assert record.points == machine_points(assignment), record.verdicts
    assert record.errors == []
    said = [line.split()[:2] for line in record.output.splitlines()]
    for question in assignment.questions:
        if not isinstance(question, Written):
            name = f"{assignment.name}.{question.name}:"
            assert (["✓", name] if is_checked else [name, "not"]) in said


@pytest.mark.parametrize("assignment", ASSIGNMENTS, ids=NAMES)
def test_the_grader_gives_an_unsolved_master_nothing(shared, assignment):
    master = nbformat.read(assignment.master, as_version=4)
    record = graded(student_version(master), assignment, shared)
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


def nbgrader(folder, names, graded=""):
    """What nbgrader says of masters, as its source and as submissions of ada's, in `folder`, by name."""
    for name in names:
        master = ROOT / "assignments" / name / f"{name}.ipynb"
        for place in ("source", "submitted/ada"):
            target = folder / place / name
            target.mkdir(parents=True)
            (target / f"{name}.ipynb").write_bytes(master.read_bytes())
    run = subprocess.run(
        [sys.executable, "-c", NBGRADER, str(folder), graded, *names],
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
    (folder / "outcomes.json").write_text(run.stdout.splitlines()[-1])


@pytest.fixture(scope="module")
def released(tmp_path_factory):
    """The folder of a course in which nbgrader has released each master: in one process for all."""
    return once(tmp_path_factory, "released", lambda folder: nbgrader(folder, NAMES))


@pytest.mark.parametrize("assignment", ASSIGNMENTS, ids=NAMES)
def test_nbgrader_reads_the_master(assignment, released):
    name = assignment.name
    outcome = json.loads((released / "outcomes.json").read_text())[name]
    assert outcome["release"]
    assert outcome["of"] == machine_points(assignment)
    # nbgrader's own release hides the same solutions behind the same placeholders.
    theirs = nbformat.read(released / "release" / name / f"{name}.ipynb", as_version=4)
    ours = student_version(nbformat.read(assignment.master, as_version=4))
    for their, our in zip(theirs.cells, ours.cells, strict=True):
        assert their.source.strip() == our.source.strip()


def test_nbgrader_gives_a_solved_master_full_marks(tmp_path):
    """One master stands for all: nbgrader gives the points of each check that does not fail."""
    name = IN_A_KERNEL
    nbgrader(tmp_path, [name], name)
    (outcome,) = json.loads((tmp_path / "outcomes.json").read_text()).values()
    assert outcome["grade"]
    (assignment,) = (a for a in ASSIGNMENTS if a.name == name)
    assert outcome["score"] == outcome["of"] == machine_points(assignment)
    (run,) = tmp_path.glob(f"autograded/ada/{name}/{name}.ipynb")
    cells = [c for c in nbformat.read(run, as_version=4).cells if c.cell_type == "code"]
    assert all(c.execution_count for c in cells if c.source.strip())
    assert [o for c in cells for o in c.outputs if o.output_type == "error"] == []
