"""A whole class: resumed after a kill, several at a time, on an engine, and what is reported."""

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import nullcontext
from pathlib import Path

import nbformat
import pytest

from course_lib.command_line import main
from course_lib.grading import box, classroom
from course_lib.grading.box import Limits, Room, SandboxError, descendants
from course_lib.grading.classroom import grade_all, read_record, write_record
from course_lib.grading.collecting import collect
from course_lib.grading.judge import GradingRecord, Verdict
from course_lib.grading.notebook import read_notebook
from course_lib.grading.question import load_assignment

from .course import make
from .reports import example, table

COURSE = Path(__file__).parent / "course"
MINI = load_assignment("mini", COURSE)
LIMITS = Limits(cell_seconds=5, total_seconds=60)


@pytest.fixture
def sandbox(shared):
    """The name of the sandbox, where there is one."""
    return shared.sandbox


def hand_in(folder: Path, **submissions: nbformat.NotebookNode) -> Path:
    folder.mkdir(exist_ok=True)
    for student, notebook in submissions.items():
        nbformat.write(notebook, folder / f"{student}.ipynb")
    return folder


def graded(folder: Path, output: Path, sandbox: str, **options) -> list[GradingRecord]:
    arguments = {"assignment": MINI, "jobs": 2, "sandbox": sandbox, "limits": LIMITS} | options
    return grade_all(collect(folder, "mini"), output=output, **arguments)


def alive(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.isolation
def test_the_command_grades_a_folder_and_writes_the_reports(tmp_path, sandbox, capsys):
    folder = hand_in(
        tmp_path / "in",
        ada=make.master(),
        bob=make.notebook("def target(x, w): return 7.25 * (x**2).sum(1)"),
        eve=make.notebook("import os; os._exit(0)"),
    )
    (folder / "mallory.ipynb").write_bytes(b"{")
    arguments = ["assignment", "grade", str(folder), "--assignment", "mini", "--jobs", "2"]
    arguments += ["--root", str(COURSE), "--output", str(tmp_path / "out"), "--cell-seconds", "5"]
    assert main(arguments) == 0
    grades = table(tmp_path / "out" / "grades.csv")
    assert {s: row["points"] for s, row in grades.items()} == {
        "ada": "3", "bob": "2", "eve": "2", "mallory": "0",
    }  # fmt: skip
    assert "no JSON" in grades["mallory"]["status"]
    page = (tmp_path / "out" / "feedback" / "bob.html").read_text(encoding="utf-8")
    assert "The weights are not used" in page
    summary = json.loads((tmp_path / "out" / "summary.json").read_text(encoding="utf-8"))
    assert summary["mistakes"] == [
        {"question": "target", "mistake": "weights dropped", "students": 1}
    ]
    assert {row["student"] for row in summary["look at"]} == {"eve", "mallory"}
    # A person's points for the written question are merged by calling the command again.
    manual = tmp_path / "out" / "manual.csv"
    manual.write_text(manual.read_text(encoding="utf-8").replace("ada,words,,", "ada,words,0.5,"))
    capsys.readouterr()
    assert main(arguments) == 0
    assert "4 of 4 are graded already" in capsys.readouterr().out
    assert table(tmp_path / "out" / "grades.csv")["ada"]["points"] == "3.5"


@pytest.mark.isolation
def test_ctrl_c_stops_at_once_keeps_what_is_finished_and_invents_nothing(tmp_path, sandbox):
    """A submission may have minutes left; what its box would have answered is not known."""
    slow = make.notebook(make.TARGET, "import time; time.sleep(150)")
    folder = hand_in(tmp_path / "in", a=make.master(), b=slow, c=slow)
    command = [sys.executable, "-m", "course_lib.command_line", "assignment", "grade", str(folder)]
    command += ["--assignment", "mini", "--root", str(COURSE), "--output", str(tmp_path / "out")]
    command += ["--jobs", "1"]
    # A shell lets its background jobs ignore Ctrl-C, and this test may run in one.
    heeding = ["env", "--default-signal=INT", *command]
    running = subprocess.Popen(heeding, stderr=subprocess.PIPE, text=True)
    records = tmp_path / "out" / "records"
    deadline = time.monotonic() + 120
    while not (list(records.glob("*.json")) and descendants(running.pid)):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    running.send_signal(signal.SIGINT)
    _, printed = running.communicate(timeout=60)  # far less than a slow submission takes
    assert "Interrupted. What was finished is kept" in printed
    assert running.returncode == 130
    assert [path.name for path in records.iterdir()] == ["a.json"]


@pytest.mark.isolation
def test_a_killed_run_goes_on_where_it_was(tmp_path, sandbox):
    quick = make.notebook(make.TARGET)
    slow = make.notebook(make.TARGET, "import time; time.sleep(3600)")
    folder = hand_in(tmp_path / "in", s00=quick, s01=quick, s02=slow, s03=slow)
    command = [sys.executable, "-m", "course_lib.command_line", "assignment", "grade", str(folder)]
    command += ["--assignment", "mini", "--root", str(COURSE), "--output", str(tmp_path / "out")]
    command += ["--jobs", "1"]
    running = subprocess.Popen(command, start_new_session=True, stderr=subprocess.DEVNULL)
    records = tmp_path / "out" / "records"
    deadline = time.monotonic() + 120
    while not (len(list(records.glob("*.json"))) == 2 and (boxes := descendants(running.pid))):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    os.kill(running.pid, signal.SIGKILL)
    running.wait()
    before = {path: path.stat().st_mtime_ns for path in records.glob("*.json")}
    assert len(before) == 2
    deadline = time.monotonic() + 10
    while any(map(alive, boxes)) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not any(map(alive, boxes)), "a box outlived the grader that was killed"
    hand_in(folder, s02=quick, s03=quick)  # only so that nobody waits an hour
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert f"{len(before)} of 4 are graded already" in done.stdout
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert {row["points"] for row in table(tmp_path / "out" / "grades.csv").values()} == {"3"}


@pytest.mark.isolation
def test_the_same_command_runs_on_an_existing_engine(tmp_path, sandbox, monkeypatch):
    contact = tmp_path / "scheduler.json"
    engine = [sys.executable, "-m", "distributed.cli.dask_scheduler", "--port", "0"]
    engine += ["--no-dashboard", "--host", "127.0.0.1", "--scheduler-file", str(contact)]
    scheduler = subprocess.Popen(engine, stderr=subprocess.DEVNULL)
    worker = [sys.executable, "-m", "distributed.cli.dask_worker", "--no-dashboard", "--no-nanny"]
    worker += ["--nthreads", "1", "--scheduler-file", str(contact)]
    worker += ["--local-directory", str(tmp_path)]
    elsewhere = {"cwd": tmp_path, "env": {**os.environ, "PYTHONPATH": str(COURSE.parents[2])}}
    workers = [subprocess.Popen(worker, stderr=subprocess.DEVNULL, **elsewhere) for _ in range(2)]
    try:
        deadline = time.monotonic() + 60
        while not contact.exists() and time.monotonic() < deadline:
            time.sleep(0.1)
        address = json.loads(contact.read_text())["address"]
        folder = hand_in(
            tmp_path / "in", ada=make.master(), eve=make.notebook("import os; os._exit(0)")
        )
        monkeypatch.chdir(COURSE.parent)
        relative = load_assignment("mini", Path(COURSE.name))
        there = graded(folder, tmp_path / "there", sandbox, dask=address, assignment=relative)
        (tmp_path / "here").mkdir()
        (tmp_path / "here" / "secret").write_text((tmp_path / "there" / "secret").read_text())
        here = graded(folder, tmp_path / "here", sandbox)
    finally:
        for process in (*workers, scheduler):
            process.terminate()
            process.wait()
    assert [r.points for r in there] == [r.points for r in here] == [3, 2]
    assert [r.key for r in there] == [r.key for r in here]


@pytest.mark.isolation
def test_a_changed_submission_is_graded_again_and_no_other(tmp_path, sandbox):
    folder = hand_in(tmp_path / "in", ada=make.notebook(), bob=make.master())
    graded(folder, tmp_path / "out", sandbox)
    bob = (tmp_path / "out" / "records" / "bob.json").stat().st_mtime_ns
    hand_in(folder, ada=make.master())
    records = graded(folder, tmp_path / "out", sandbox)
    assert [r.points for r in records] == [3, 3]
    assert (tmp_path / "out" / "records" / "bob.json").stat().st_mtime_ns == bob


def test_a_fault_of_the_grader_costs_one_submission_its_record_only(tmp_path, monkeypatch):
    def fails_for_bob(submission, student, *arguments, **more):
        if student == "bob":
            raise RuntimeError("broken")
        return GradingRecord(
            student, "key", [Verdict(q.name, 1, 1, "right") for q in MINI.questions]
        )

    monkeypatch.setattr(classroom, "grade", fails_for_bob)
    folder = hand_in(tmp_path / "in", ada=make.master(), bob=make.master(), eve=make.master())
    records = graded(folder, tmp_path / "out", "none")
    assert [r.points for r in records] == [4, 0, 4]
    assert "broken" in records[1].fault
    # Its row stays when a part of the class is graded; when it is handed in, it is graded again.
    monkeypatch.undo()
    students = stand_in(monkeypatch)
    records = graded(folder, tmp_path / "out", "none")
    assert "bob" in students
    assert [r.fault for r in records] == ["", "", ""]


def stand_in(monkeypatch, note=lambda student, assignment, limits: None):
    """Grade everything as right, without boxes; return the list of the students that are graded."""
    students = []

    def grade(submission, student, assignment, *, secret, room, limits, slot):
        students.append(student)
        note(student, assignment, limits)
        read_notebook(submission)
        key = classroom.record_key(submission, assignment, secret, limits)
        verdicts = [Verdict(q.name, 1, 1, "right") for q in assignment.questions]
        return GradingRecord(student, key, verdicts, sandbox=room.sandbox)

    monkeypatch.setattr(classroom, "grade", grade)
    monkeypatch.setattr(classroom, "room", lambda sandbox: nullcontext(Room(COURSE, sandbox)))
    return students


def test_only_what_a_record_does_not_hold_is_graded(tmp_path, monkeypatch):
    students = stand_in(monkeypatch)
    folder = hand_in(tmp_path / "in", ada=make.master(), bob=make.notebook(), eve=make.master())
    output = tmp_path / "out"
    for changed, again in [
        ({}, ["ada", "bob", "eve"]),
        ({}, []),
        ({"sandbox": "bubblewrap"}, ["ada", "bob", "eve"]),
        ({"sandbox": "bubblewrap"}, []),
        ({"sandbox": "bubblewrap", "limits": Limits(memory=1)}, ["ada", "bob", "eve"]),
    ]:
        students.clear()
        records = graded(folder, output, **({"sandbox": "none"} | changed))
        assert sorted(students) == again
        assert [record.student for record in records] == ["ada", "bob", "eve"]
    secret = (output / "secret").read_text()
    assert len(secret.strip()) == 32
    assert (output / "secret").stat().st_mode & 0o077 == 0
    # Another's record under the student's name is not taken for it.
    (output / "records" / "ada.json").write_bytes((output / "records" / "bob.json").read_bytes())
    students.clear()
    graded(folder, output, sandbox="bubblewrap", limits=Limits(memory=1))
    assert students == ["ada"]
    (output / "secret").write_text("another")
    students.clear()
    graded(folder, output, sandbox="bubblewrap", limits=Limits(memory=1))
    assert sorted(students) == ["ada", "bob", "eve"]


def test_references_and_submissions_that_boxes_could_read_stop_the_run(tmp_path, monkeypatch):
    students = stand_in(monkeypatch)
    folder, output = hand_in(tmp_path / "in", ada=make.master()), tmp_path / "out"
    for shown in (folder, output, COURSE):
        monkeypatch.setattr(box, "_system_paths", lambda shown=shown: [shown])
        with pytest.raises(SandboxError, match="Move it elsewhere"):
            graded(folder, output, "bubblewrap")
    assert students == []
    monkeypatch.setattr(box, "_system_paths", lambda: [tmp_path / "other"])
    graded(folder, output, "bubblewrap")
    assert students == ["ada"]


def test_the_seed_of_hidden_inputs_is_kept_private_and_never_empty(tmp_path):
    first = classroom._secret(tmp_path)
    assert len(first) == 32
    assert classroom._secret(tmp_path) == first
    assert [path.name for path in tmp_path.iterdir()] == ["secret"]
    assert (tmp_path / "secret").stat().st_mode & 0o777 == 0o600
    (tmp_path / "secret").write_bytes(b"")
    assert len(classroom._secret(tmp_path)) == 32
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match="the reports cannot be written to"):
        graded(hand_in(tmp_path / "in", ada=make.master()), tmp_path / "file", sandbox="none")


def test_records_survive_a_round_trip_and_broken_ones_are_ignored(tmp_path):
    path = tmp_path / "ada.json"
    write_record(path, example())
    assert read_record(path) == example()
    path.write_text(path.read_text()[:-20])
    assert read_record(path) is None
    assert read_record(tmp_path / "nobody.json") is None


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["grade", "nowhere", "--assignment", "mini"], "not a folder"),
        (["grade", ".", "--assignment", "minni"], "found: mini"),
        (["release", "minni"], "found: mini"),
    ],
)
def test_the_command_says_what_to_do(arguments, message, capsys):
    assert main(["assignment", *arguments, "--root", str(COURSE)]) == 2
    assert message in capsys.readouterr().err
