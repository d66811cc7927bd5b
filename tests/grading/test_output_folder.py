"""The instructor's day: a part graded again, more time, two runs at once, a full disk, a kill."""

import csv
import fcntl
import json
import subprocess
import sys
import time

import pytest

from course_lib.command_line import main
from course_lib.grading import report
from course_lib.grading.classroom import grade_all
from course_lib.grading.collecting import collect
from course_lib.grading.judge import GradingRecord, Verdict
from course_lib.grading.records import held, read_record, write_record
from tests.test_files import full_after

from .course import make
from .reports import example, table
from .test_classroom import COURSE, LIMITS, MINI, hand_in, stand_in


def command(folder, output, *options):
    return main(
        [
            *("assignment", "grade", str(folder), "--assignment", "mini", "--root", str(COURSE)),
            *("--output", str(output), "--jobs", "1", "--sandbox", "none", *options),
        ]
    )


def snapshot(folder):
    return {
        path.relative_to(folder): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and path.name != ".lock"
    }


def give_points(output, **points):
    path = output / "manual.csv"
    with path.open(newline="", encoding="utf-8-sig") as file:
        rows = list(csv.DictReader(file))
    for row in rows:
        row["points"] = points.get(row["student"], row["points"])
    with path.open("w", newline="", encoding="utf-8-sig") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)


def test_a_resubmission_graded_alone_leaves_everybody_in_the_tables(tmp_path, monkeypatch):
    students = stand_in(monkeypatch)
    output = tmp_path / "out"
    folder = hand_in(tmp_path / "in", ada=make.master(), bob=make.master(), eve=make.master())
    assert command(folder, output) == 0
    before = table(output / "grades.csv")
    students.clear()
    late = hand_in(tmp_path / "late", bob=make.notebook(make.TARGET, "print('again')"))
    assert command(late, output) == 0
    assert students == ["bob"]
    assert table(output / "grades.csv") == before
    assert json.loads((output / "summary.json").read_text())["submissions"] == 3
    # And one who is new.
    assert command(hand_in(tmp_path / "new", cyd=make.master()), output) == 0
    assert list(table(output / "grades.csv")) == ["ada", "bob", "cyd", "eve"]


def test_points_given_by_hand_survive_whatever_part_is_graded(tmp_path):
    everybody = ("ada", "bob", "eve")
    (tmp_path / "records").mkdir()
    for student in everybody:
        write_record(tmp_path / "records" / f"{student}.json", example(student))
    report.write_reports([example(student) for student in everybody], MINI, tmp_path)
    give_points(tmp_path, ada="1", eve="0.5")
    for part in (["bob"], ["ada"], [], ["eve", "bob"]):
        report.write_reports([example(student) for student in part], MINI, tmp_path)
        assert [row["words"] for row in table(tmp_path / "grades.csv").values()] == ["1", "", "0.5"]
        assert "of 4 points" in (tmp_path / "feedback" / "ada.html").read_text()


def test_records_of_other_questions_and_damaged_ones_are_named_not_lost(tmp_path):
    folder = tmp_path / "records"
    folder.mkdir()
    write_record(folder / "ada.json", example(questions="earlier"))
    write_record(folder / "bob.json", GradingRecord("bob", "k", [Verdict("other", 1, 1, "right")]))
    (folder / "cyd.json").write_text("{")
    write_record(folder / "dan.json", example("another"))
    damaged = example("eve")
    damaged.verdicts[0].points = float("nan")
    write_record(folder / "eve.json", damaged)
    write_record(folder / "fay.json", example("fay", answers={"words": 5}))
    report.write_reports([example("gil", questions=MINI.digest())], MINI, tmp_path)
    status = {s: row["status"] for s, row in table(tmp_path / "grades.csv").items()}
    assert "earlier questions: grade again" in status["ada"]
    assert status["bob"] == status["gil"] == "to be graded"
    assert table(tmp_path / "grades.csv")["bob"]["first"] == ""
    for name in ("cyd", "dan", "eve", "fay"):
        assert status[name] == f"{name}.json is damaged: grade this student again"


def test_one_student_is_graded_again_and_nobody_else(tmp_path, monkeypatch, capsys):
    students = stand_in(monkeypatch)
    output = tmp_path / "out"
    folder = hand_in(tmp_path / "in", ada=make.master(), bob=make.master(), eve=make.master())
    command(folder, output)
    students.clear()
    hand_in(folder, eve=make.notebook())  # changed, and not asked for
    hand_in(folder, fay=make.master())
    assert command(folder, output, "--only", "ada", "--only", "bob") == 0
    assert students == ["ada", "bob"]
    grades = table(output / "grades.csv")
    assert list(grades) == ["ada", "bob", "eve", "fay"]
    assert grades["fay"]["status"] == "not graded yet"
    assert command(folder, output, "--only", "adda") == 2
    assert (
        "nobody is named 'adda' among the 4 submissions; there are ada" in capsys.readouterr().err
    )
    students.clear()
    assert command(folder, output) == 0
    assert sorted(students) == ["eve", "fay"]


def test_more_time_for_one_student_grades_that_student_alone_and_is_kept(tmp_path, monkeypatch):
    given = {}

    def note(student, assignment, limits):
        seconds = assignment.questions[0].seconds
        given[student] = (limits.cell_seconds, limits.total_seconds, seconds)

    stand_in(monkeypatch, note)
    output = tmp_path / "out"
    folder = hand_in(tmp_path / "in", ada=make.master(), bob=make.master())
    usual, double = (180, 900, 4), (360, 1800, 8)
    for options, expected in [
        ([], {"ada": usual, "bob": usual}),
        (["--more-time", "ada=2"], {"ada": double}),
        (["--more-time", "ada=2"], {}),
        ([], {}),  # it is kept
        (["--only", "ada"], {"ada": double}),
        (
            ["--cell-seconds", "360", "--seconds", "1800"],
            {"ada": (720, 3600, 8), "bob": (360, 1800, 4)},
        ),
        (["--more-time", "ada=1"], {"ada": usual, "bob": usual}),
        ([], {}),
    ]:
        given.clear()
        assert command(folder, output, *options) == 0
        assert given == expected, options
    hand_in(folder, ada=make.notebook())
    given.clear()
    command(folder, output, "--more-time", "ada=1.5")
    assert given == {"ada": (270, 1350, 6)}


@pytest.mark.parametrize("text", ["ada", "=2", "ada=", "ada=0", "ada=nan", "ada=-1", "ada=two"])
def test_a_factor_that_is_none_is_refused(tmp_path, text, capsys):
    with pytest.raises(SystemExit):
        command(tmp_path, tmp_path, "--more-time", text)
    assert "expected" in capsys.readouterr().err


def test_a_second_run_into_the_same_folder_is_refused_and_touches_nothing(
    tmp_path, monkeypatch, capsys
):
    students = stand_in(monkeypatch)
    output = tmp_path / "out"
    folder = hand_in(tmp_path / "in", ada=make.master())
    command(folder, output)
    before = snapshot(output)
    program = (
        "import sys, time\nfrom pathlib import Path\n"
        "from course_lib.grading.records import held\n"
        "with held(Path(sys.argv[1])):\n    print('held', flush=True)\n    time.sleep(600)\n"
    )
    other = subprocess.Popen([sys.executable, "-c", program, str(output)], stdout=subprocess.PIPE)
    try:
        assert other.stdout.readline() == b"held\n"
        students.clear()
        assert command(folder, output, "--only", "ada") == 2
        said = capsys.readouterr().err
        assert f"another run (process {other.pid}) is grading into {output}" in said
        assert students == []
        assert snapshot(output) == before
    finally:
        other.kill()
        other.wait()
    # What was killed holds nothing any more.
    assert command(folder, output, "--only", "ada") == 0
    assert students == ["ada"]


def test_what_a_killed_run_left_half_written_is_removed(tmp_path):
    (tmp_path / "records").mkdir()
    left = tmp_path / "records" / ".ada.json.~0123456789abcdef.part"
    left.touch()
    with held(tmp_path):
        assert not left.exists()
        with (tmp_path / ".lock").open("rb") as file, pytest.raises(BlockingIOError):
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


@pytest.mark.parametrize("size", [0, 30, 200, 700, 2000])
def test_a_full_disk_loses_no_points_and_leaves_every_file_whole(tmp_path, size):
    report.write_reports([example(), example("bob")], MINI, tmp_path)
    give_points(tmp_path, ada="1", bob="0.5")
    before = snapshot(tmp_path)
    changed = example("bob", fault="a" * 100)
    with full_after(size), pytest.raises(OSError, match="File too large"):
        report.write_reports([example(), changed, example("eve")], MINI, tmp_path)
    after = snapshot(tmp_path)
    assert set(before) <= set(after)
    assert not [path for path in after if path.name.endswith(".part")]
    report.write_reports([example(), changed, example("eve")], MINI, tmp_path)
    whole = snapshot(tmp_path)
    for path, content in after.items():
        assert content in (before.get(path), whole[path]), path
    assert [row["words"] for row in table(tmp_path / "grades.csv").values()] == ["1", "0.5", ""]


def test_a_full_disk_leaves_secret_and_records_as_they_were(tmp_path, monkeypatch):
    stand_in(monkeypatch)
    folder, output = hand_in(tmp_path / "in", ada=make.master()), tmp_path / "out"
    arguments = {"jobs": 1, "sandbox": "none", "limits": LIMITS}
    with full_after(10), pytest.raises(OSError, match="secret"):
        grade_all(collect(folder, "mini"), MINI, output, **arguments)
    assert not (output / "secret").exists()
    grade_all(collect(folder, "mini"), MINI, output, **arguments)
    before = snapshot(output)
    with full_after(10), pytest.raises(OSError, match=r"ada\.json"):
        write_record(output / "records" / "ada.json", example())
    assert snapshot(output) == before


def test_a_submission_that_cannot_be_read_costs_only_itself(tmp_path, monkeypatch):
    stand_in(monkeypatch)
    folder, output = (
        hand_in(tmp_path / "in", ada=make.master(), bob=make.master()),
        tmp_path / "out",
    )
    submissions = collect(folder, "mini")
    (folder / "bob.ipynb").unlink()
    found = grade_all(submissions, MINI, output, jobs=1, sandbox="none", limits=LIMITS)
    assert found[0].fault == ""
    assert found[1].fault == "the notebook could not be opened: No such file or directory"
    report.write_reports(found[:1], MINI, output)
    assert list(table(output / "grades.csv")) == ["ada", "bob"]


def test_a_table_that_is_not_understood_is_named_before_anything_is_graded(
    tmp_path, monkeypatch, capsys
):
    students = stand_in(monkeypatch)
    folder, output = hand_in(tmp_path / "in", ada=make.master()), tmp_path / "out"
    output.mkdir()
    (output / "manual.csv").write_text("student,question,points,possible,comment\nada,words,x,1,\n")
    before = snapshot(output)
    assert command(folder, output) == 2
    assert "'x' points for ada, words" in capsys.readouterr().err
    assert students == []
    assert snapshot(output) == before


@pytest.mark.isolation
def test_a_run_that_was_killed_ends_as_one_that_was_not(tmp_path, shared):
    quick, slow = make.notebook(), make.notebook(make.TARGET, "import time; time.sleep(3600)")
    folder = hand_in(tmp_path / "in", ada=quick, bob=slow, eve=quick)
    arguments = ["assignment", "grade", str(folder), "--assignment", "mini", "--root", str(COURSE)]
    arguments += ["--jobs", "1", "--output"]
    program = [sys.executable, "-m", "course_lib.command_line", *arguments]
    killed, whole = tmp_path / "killed", tmp_path / "whole"
    running = subprocess.Popen([*program, str(killed)], stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while not list((killed / "records").glob("*.json")) and time.monotonic() < deadline:
        time.sleep(0.05)
    running.kill()
    running.wait()
    assert not (killed / "grades.csv").exists()
    hand_in(folder, bob=quick)  # only so that nobody waits an hour
    whole.mkdir()
    (whole / "secret").write_bytes((killed / "secret").read_bytes())
    assert main([*arguments, str(killed)]) == main([*arguments, str(whole)]) == 0
    for name in ("grades.csv", "manual.csv"):
        assert (killed / name).read_bytes() == (whole / name).read_bytes()


def test_records_that_are_read_are_whole(tmp_path):
    path = tmp_path / "ada.json"
    write_record(path, example())
    good = json.loads(path.read_text())
    for name, value in [
        ("student", 5),
        ("seconds", float("nan")),
        ("verdicts", 5),
        ("verdicts", [[]]),
        ("errors", [["1", "x"]]),
        ("errors", [[1]]),
        ("answers", []),
        ("more_time", "2"),
        ("unknown", 1),
    ]:
        path.write_text(json.dumps(good | {name: value}))
        assert read_record(path) is None, name
    path.write_text("[" * 100_000)
    assert read_record(path) is None
    # As an earlier version wrote it.
    old = {name: value for name, value in good.items() if name not in ("questions", "more_time")}
    path.write_text(json.dumps(old))
    assert read_record(path) == example()
