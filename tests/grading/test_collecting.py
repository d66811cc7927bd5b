"""A folder of submissions: whose each is, which notebook counts, and a row for everybody."""

import csv
import json
import os
import unicodedata
from pathlib import Path

import nbformat
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from course_lib.command_line import main
from course_lib.grading.collecting import Submission, collect, overlooked
from course_lib.grading.exports import common_slug, owner, readable
from course_lib.grading.notebook import FILE_LIMIT, read_notebook
from course_lib.grading.roster import read_roster

from .course import make
from .test_classroom import COURSE, stand_in

NOTEBOOK = nbformat.writes(make.master())
HERE = settings(
    max_examples=60,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


def put(folder: Path, *names: str, text: str = NOTEBOOK) -> Path:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return folder


def rows(path: Path, text: str):
    path.write_text(text, encoding="utf-8")
    return read_roster(path)


def found(folder: Path, roster=None) -> dict[str, str]:
    """What counts for each student: the notebook, or in brackets why there is none."""
    submissions = collect(folder, "mini", roster)
    assert len({s.student for s in submissions}) == len(submissions)
    assert all((s.path is None) == bool(s.fault) for s in submissions)
    return {
        s.student: f"({s.fault})" if s.path is None else s.path.relative_to(folder).as_posix()
        for s in submissions
    }


def test_submissions_are_found_in_every_usual_layout(tmp_path):
    put(tmp_path, "ada.ipynb", "bob/mini.ipynb", "eve/mini/mini.ipynb", "eve/gan/gan.ipynb")
    put(
        tmp_path,
        "gil/week 3/homework/mini.ipynb",
        "joe/answers.ipynb",
        "kim/homework/homework.ipynb",
    )
    # What a Mac and Jupyter leave behind is nobody's.
    put(tmp_path, "._ada.ipynb", "bob/._mini.ipynb", text="\0")
    put(tmp_path, ".ipynb_checkpoints/mini.ipynb", "__MACOSX/mini.ipynb")
    put(tmp_path, "bob/.ipynb_checkpoints/mini.ipynb", "gil/week 3/__MACOSX/mini.ipynb")
    put(tmp_path, "grades.csv", "README.md", text="x")
    assert found(tmp_path) == {
        "ada": "ada.ipynb",
        "bob": "bob/mini.ipynb",
        "eve": "eve/mini/mini.ipynb",
        "gil": "gil/week 3/homework/mini.ipynb",
        "joe": "joe/answers.ipynb",
        "kim": "kim/homework/homework.ipynb",
    }
    assert overlooked(tmp_path, collect(tmp_path, "mini")) == ["README.md", "grades.csv"]
    with pytest.raises(ValueError, match="not a folder"):
        collect(tmp_path / "nowhere", "mini")
    with pytest.raises(ValueError, match="not a folder"):
        collect(tmp_path / "ada.ipynb", "mini")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="no submission"):
        collect(tmp_path / "empty", "mini")


def test_who_handed_in_something_else_gets_a_row_that_says_what(tmp_path):
    put(tmp_path, "ada.ipynb", "bob/mini.ipynb")
    put(tmp_path, "dan.pdf", "eve/report.docx", "gil/mini.zip", "hal/a.txt", "joe.zip", text="x")
    put(tmp_path, "bob/report.pdf", "ada.pdf", text="a notebook is there as well")
    (tmp_path / "kim").mkdir()
    faults = {s.student: s.fault for s in collect(tmp_path, "mini")}
    assert [faults[name] for name in ("ada", "bob")] == ["", ""]
    for name, words in {
        "dan": "dan.pdf", "eve": "report.docx", "gil": "mini.zip, which is an archive: unpack it",
        "hal": "a.txt", "joe": "joe.zip, which is an archive", "kim": "",
    }.items():  # fmt: skip
        assert faults[name].startswith("no notebook was handed in")
        assert words in faults[name]


@pytest.mark.parametrize(
    "second",
    [
        *("mini (1).ipynb", "mini-1.ipynb", "mini_final_ada.ipynb", "Copy of mini.ipynb"),
        *("mini-Copy1.ipynb", "scratch.ipynb", "MINI.ipynb", "mini.IPYNB", "old/mini.ipynb"),
        *("mini/mini.ipynb", "mini/other.ipynb", "a/b/c/x.ipynb"),
    ],
)
def test_two_notebooks_are_a_fault_of_that_student_alone_and_both_are_named(tmp_path, second):
    put(tmp_path, "ada/mini.ipynb", f"ada/{second}", "bob.ipynb")
    ada, bob = collect(tmp_path, "mini")
    assert ada.path is None
    assert f"ada/{second}" in ada.fault
    assert "several notebooks: " in ada.fault
    assert "ada/mini.ipynb" in ada.fault
    assert (bob.student, bob.fault) == ("bob", "")


def test_copies_of_a_file_and_other_places_of_one_student_are_put_together(tmp_path):
    put(tmp_path, "ada.ipynb", "ada (1).ipynb", "bob.ipynb", "bob/mini.ipynb", "class (2).ipynb")
    name = unicodedata.normalize("NFC", "Zoë")
    put(tmp_path, f"{name}.ipynb", f"{unicodedata.normalize('NFD', name)}/mini.ipynb")
    faults = {s.student: s.fault for s in collect(tmp_path, "mini")}
    assert set(faults) == {"ada", "bob", "class (2)", name}
    assert [s for s, fault in faults.items() if not fault] == ["class (2)"]
    assert all(n in faults["ada"] for n in ("ada.ipynb", "ada (1).ipynb"))


def test_other_assignments_in_one_folder_do_not_compete(tmp_path):
    put(tmp_path, "ada/vae.ipynb", "ada/gan.ipynb", "ada/flow/flow.ipynb", "bob/gan.ipynb")
    put(tmp_path, "eve/flow/flow.ipynb")
    chosen = {s.student: s.path and s.path.name for s in collect(tmp_path, "vae")}
    # The only notebook is looked at by its content; that it is another assignment's is said then.
    assert chosen == {"ada": "vae.ipynb", "bob": "gan.ipynb", "eve": None}


EXPORTS = {
    "Moodle": (
        ["Ada Lovelace_11_assignsubmission_file_/x.ipynb", "Zoë Müller_12_assignsubmission_file/mini.ipynb"],
        "Identifier,Full name,Email address\nParticipant 11,Ada Lovelace,a@b.c\n"
        "Participant 12,Zoë Müller,z@b.c\nParticipant 13,Nobody,n@b.c\n",
        ["Participant 11", "Participant 12", "Participant 13"],
    ),
    "Moodle without folders": (
        ["Ada Lovelace_11_assignsubmission_file_mini.ipynb", "王 小明_12_assignsubmission_file_a_b.ipynb"],
        "student,name\n001,Ada Lovelace\n002,王 小明\n003,Nobody\n",
        ["001", "002", "003"],
    ),
    "Moodle, anonymous": (
        ["Participant_11_assignsubmission_file_/x.ipynb", "Participant_12_assignsubmission_file_/x.ipynb"],
        "student;moodle\n001;11\n002;Participant 12\n003;13\n",
        ["001", "002", "003"],
    ),
    "Canvas": (
        ["lovelaceada_LATE_21_900_mini-1.ipynb", "mullerzoe_22_901_my_notebook.ipynb"],
        "Student,ID,SIS Login ID,Section\nPoints Possible,,,\n\"Lovelace, Ada\",21,ada,A\n"
        "\"Müller, Zoë\",,zoe,A\n\"Body, No\",23,no,A\n",
        ["Lovelace, Ada", "Müller, Zoë", "Body, No"],
    ),
    "GitHub Classroom": (
        ["week-1-octo-cat/assignments/mini/student/mini.ipynb", "week-1-cat/mini.ipynb"],
        "identifier,github_username,github_id,name\n001,octo-cat,5,\n002,cat,6,\n003,dog,7,\n",
        ["001", "002", "003"],
    ),
    "nbgrader": (
        ["001/mini/mini.ipynb", "002/mini/mini.ipynb"],
        "id,first_name,last_name\n001,A,B\n002,C,D\n003,E,F\n",
        ["001", "002", "003"],
    ),
    "by hand": (
        ["ada@b.c.ipynb", "ZOE/mini.ipynb"],
        "student;email;folder\n001;ada@b.c;\n002;;zoe\n003;;\n",
        ["001", "002", "003"],
    ),
}  # fmt: skip


@pytest.mark.parametrize("system", EXPORTS)
@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_exports_are_graded_as_they_are_and_everybody_has_a_row(tmp_path, system, mark):
    names, text, students = EXPORTS[system]
    folder = put(tmp_path / "in", *names)
    put(folder, "week-1-octo-cat/.git/x.ipynb") if "GitHub" in system else None
    roster = rows(tmp_path / "roster.csv", mark + text)
    chosen = found(folder, roster)
    assert list(chosen) == students
    assert list(chosen.values()) == [*names, "(no notebook was handed in)"]
    assert overlooked(folder, collect(folder, "mini", roster)) == []
    # Without a roster each is still one student.
    assert sorted(found(folder).values()) == sorted(names)


def test_what_a_student_typed_into_moodles_page_belongs_to_the_same_student(tmp_path):
    put(
        tmp_path, "Ada L_1_assignsubmission_file_/x.ipynb", "Bob M_2_assignsubmission_file_/x.ipynb"
    )
    put(tmp_path, "Ada L_1_assignsubmission_onlinetext_/onlinetext.html", text="<p>See file.</p>")
    put(tmp_path, "Eve N_3_assignsubmission_onlinetext_/onlinetext.html", text="<p>…</p>")
    chosen = found(tmp_path)
    assert list(chosen) == ["Ada L_1", "Bob M_2", "Eve N_3"]
    assert "onlinetext.html" in chosen["Eve N_3"]


def test_of_canvas_uploads_of_one_file_the_last_counts_and_that_is_noted(tmp_path):
    put(tmp_path, "lovelaceada_21_900_mini.ipynb", "lovelaceada_LATE_21_1000_mini-1.ipynb")
    put(tmp_path, "hoppergrace_22_901_mini.ipynb", "hoppergrace_22_902_other.ipynb")
    grace, ada = collect(tmp_path, "mini")
    assert ada.path.name == "lovelaceada_LATE_21_1000_mini-1.ipynb"
    assert "lovelaceada_21_900_mini.ipynb" in ada.note
    assert "several notebooks" in grace.fault


@pytest.mark.parametrize(
    "name",
    [
        "lovelaceada_21_900_Bob M_2_assignsubmission_file_x.ipynb",
        "lovelaceada_21_900_mullerbob_22_901_x.ipynb",
        "lovelaceada_LATE_21_900_22_901_x.ipynb",
        "Ada Lovelace_1_assignsubmission_file_Bob M_2_assignsubmission_file_x.ipynb",
        "Ada Lovelace_1_assignsubmission_file_22_901_x.ipynb",
    ],
)
def test_the_part_of_a_name_that_the_student_chose_gives_the_work_to_nobody_else(tmp_path, name):
    text = "student,name,canvas,moodle\nada,Ada Lovelace,21,1\nbob,Bob M,22,2\n"
    roster = rows(tmp_path / "roster.csv", text)
    assert roster.find(owner(name, is_file=True)) == ("ada", "")


def test_a_clone_goes_to_the_user_whose_name_ends_it(tmp_path):
    roster = rows(tmp_path / "roster.csv", "student,github\n1,Cat\n2,octo-cat\n3,dog\n")
    for folders, students in [
        (["vae-cat", "vae-octo-cat", "vae-dog"], ["1", "2", "3"]),
        (["vae-2-cat", "vae-2-dog"], ["1", "3"]),
        (["vae-octo-cat"], ["2"]),
        (["vae-jim-cat", "vae-dog"], [None, "3"]),  # jim-cat is somebody else
    ]:
        slug = common_slug(folders)
        assert [roster.find(owner(f, False, slug))[0] for f in folders] == students


def test_who_is_not_on_the_roster_is_graded_and_noted(tmp_path):
    folder = put(
        tmp_path / "in", "ada.ipynb", "stranger.ipynb", "Wei Z_1_assignsubmission_file_/x.ipynb"
    )
    put(folder, "stranger.pdf", "notes.txt", text="x")
    roster = rows(tmp_path / "r.csv", "student,name\nada,\n7,Wei Z\n8,Wei Z\n")
    submissions = {s.student: s for s in collect(folder, "mini", roster)}
    assert list(submissions) == ["ada", "7", "8", "Wei Z_1", "stranger"]
    assert submissions["stranger"].note == "not on the roster"
    assert submissions["Wei Z_1"].note == "not on the roster: the name fits rows 3 and 4"
    assert submissions["Wei Z_1"].path is not None
    assert overlooked(folder, list(submissions.values())) == ["notes.txt", "stranger.pdf"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("student\n007\nx\n007\n", "rows 2 and 4 have the same identifier '007'"),
        ("student,github\n1,Ada\n2,ada\n", "rows 2 and 3 have the same github 'ada'"),
        ("student,e-mail\n1,a@b\n2,\n3,A@B\n", "rows 2 and 4 have the same email 'a@b'"),
        ("student;canvas id\n1;5\n2;5\n", "rows 2 and 3 have the same canvas '5'"),
        ("student,name\n,Ada\n", "row 2: there is nothing under 'student'"),
        ("ada\nbob\n", "row 1: ada is not a header"),
        ("", "row 1: nothing is not a header"),
        ("student,name\n", "names no student"),
        ("student\n\"a\nb\"\n", "signs that cannot be seen"),
        ("student\na\0b\n", "signs that cannot be seen"),
        ('student,name\n1,"Ada\n2,Bob\n', "is not a table .* a quotation mark not closed"),
    ],
)  # fmt: skip
def test_a_roster_that_cannot_be_right_is_refused(tmp_path, text, message):
    with pytest.raises(ValueError, match=r"(?s)roster\.csv.*" + message.replace("(", r"\(")):
        rows(tmp_path / "roster.csv", text)


def test_a_roster_is_read_as_spreadsheets_save_it(tmp_path):
    text = 'student;name\r\n007;"Lovelace; Ada"\r\n"=""008""";x\r\n\r\n;;\r\n0xF;y;more\r\n1e5\r\n'
    path = tmp_path / "roster.csv"
    for encoding in ("utf-8", "utf-8-sig", "utf-16"):
        path.write_bytes(text.encode(encoding))
        assert read_roster(path).students == ["007", "008", "0xF", "1e5"]
    for begin, separator in (
        ("sep=;\r\n", ";"),
        ('"sep=\t"\n', "\t"),
        ("SEP=,\n", ","),
        ("\n\n", ";"),
    ):
        for heading in ("name", '"name, as\nit is; given"', '"a;b,c,d,e\tf\tg"'):
            text = f"{begin}student;{heading}\n007;x\n".replace("student;", f"student{separator}")
            path.write_text(text.replace("007;", f"007{separator}"), encoding="utf-8-sig")
            assert read_roster(path).students == ["007"], text
    path.write_bytes("student\nJürgen\n".encode("latin-1"))
    with pytest.raises(ValueError, match="“CSV UTF-8”"):
        read_roster(path)
    with pytest.raises(ValueError, match="cannot be read"):
        read_roster(tmp_path / "nowhere.csv")


@HERE
@given(
    students=st.lists(
        st.text("abcXYZ019-_ .@=+'/ü", min_size=1, max_size=8).map(str.strip).filter(bool),
        min_size=1, max_size=6, unique=True,
    ),
    data=st.data(),
)  # fmt: skip
def test_every_student_of_the_roster_has_exactly_one_submission(tmp_path, students, data):
    folder = tmp_path / "in"
    for path in sorted(folder.glob("*")) if folder.exists() else []:
        path.unlink()
    folder.mkdir(exist_ok=True)
    with (tmp_path / "r.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([["student"], *([s] for s in students)])
    given_in = data.draw(st.sets(st.sampled_from(students)))
    given_in = {s for s in given_in if "/" not in s and not s.startswith(".")}
    put(folder, *(f"{s}.ipynb" for s in given_in))
    submissions = collect(folder, "mini", read_roster(tmp_path / "r.csv"))
    assert [s.student for s in submissions] == students
    assert {s.student for s in submissions if s.path} == given_in


@HERE
@given(
    names=st.sets(
        st.text(
            st.characters(exclude_characters="\0/"), min_size=1, max_size=12
        ).map(lambda t: os.fsencode(t.encode("utf-8", "ignore")) or b"x")
        | st.binary(min_size=1, max_size=12).map(lambda b: b.replace(b"/", b"_").replace(b"\0", b"_")),
        min_size=1, max_size=5,
    ).map(lambda names: {n for n in names if not n.startswith((b".", b"__MACOSX"))})
)  # fmt: skip
def test_whatever_files_are_called_nobody_is_lost_and_names_can_be_shown(tmp_path, names):
    folder = tmp_path / "in"
    for path in os.listdir(os.fsencode(folder)) if folder.exists() else []:
        os.unlink(os.path.join(os.fsencode(folder), path))
    folder.mkdir(exist_ok=True)
    for name in names:
        Path(os.path.join(os.fsdecode(folder), os.fsdecode(name + b".ipynb"))).write_text(NOTEBOOK)
    if not names:
        return
    submissions = collect(folder, "mini")
    entries = [entry for s in submissions for entry in s.entries]
    assert sorted(map(os.fsencode, entries)) == sorted(name + b".ipynb" for name in names)
    assert len({s.student for s in submissions}) == len(submissions)
    for submission in submissions:
        submission.student.encode("utf-8")
        assert submission.student == readable(submission.student)
        assert "\n" not in submission.student + submission.fault + submission.note
        assert submission.path is None or submission.read()


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        (b"J\xfcrgen", "Jürgen"),
        (b"a\nb\tc\x1b[31m", r"a\nb\tc\x1b[31m"),
        ("a\u202eb\u200fc".encode(), r"a\u202eb\u200fc"),
        ("علی\u200cرضا".encode(), "علی\u200cرضا"),
        (b"CON", "CON"),
        (b"=x", "=x"),
        (b"'=x", "'=x"),
        (b"x" * 249, "x" * 249),
    ],
)  # fmt: skip
def test_odd_names_are_read_and_shown(tmp_path, name, shown):
    for form, ending in (("file", b".ipynb"), ("folder", b"")):
        folder = tmp_path / form
        folder.mkdir()
        path = os.fsencode(folder) + b"/" + name + ending
        if form == "folder":
            os.mkdir(path)
            path += b"/mini.ipynb"
        Path(os.fsdecode(path)).write_text(NOTEBOOK)
        (submission,) = collect(folder, "mini")
        assert submission.student == shown
        assert read_notebook(submission.read())["cells"]


def test_names_that_differ_by_capitals_only_are_two_students_and_noted(tmp_path):
    put(tmp_path, "Ada.ipynb", "ada/mini.ipynb", "bob.ipynb")
    notes = {s.student: s.note for s in collect(tmp_path, "mini")}
    assert ["capitals" in notes[name] for name in ("Ada", "ada", "bob")] == [True, True, False]


def test_no_link_is_followed_at_any_level(tmp_path):
    folder = put(tmp_path / "in", "ada/mini.ipynb", "good/mini.ipynb", "well.ipynb")
    outside = put(tmp_path / "course", "mini/mini.ipynb")
    (folder / "thief.ipynb").symlink_to(folder / "ada" / "mini.ipynb")
    (folder / "whole").symlink_to(folder / "ada")
    (folder / "master").symlink_to(outside)
    for name, link, target in [
        ("eve", "mini", folder / "ada"),
        ("eve2", "mini.ipynb", folder / "ada" / "mini.ipynb"),
        ("eve3", "a/b/mini", outside / "mini"),
        ("eve4", "a/mini.ipynb", outside / "mini" / "mini.ipynb"),
        ("eve5", "mini.ipynb", Path("/dev/zero")),
        ("eve6", "loop", Path()),
        ("eve7", "mini.ipynb", Path("nowhere")),
    ]:
        path = folder / name / link
        path.parent.mkdir(parents=True)
        path.symlink_to(target)
    (folder / "good" / "link.ipynb").symlink_to(folder / "ada" / "mini.ipynb")
    chosen = found(folder)
    assert {s for s, path in chosen.items() if not path.startswith("(")} == {"ada", "good", "well"}
    assert all("which is a link" in fault for fault in chosen.values() if fault.startswith("("))
    # The folder as a whole may be one: the instructor made it.
    (tmp_path / "link").symlink_to(folder)
    assert found(tmp_path / "link") == chosen


def test_a_link_or_pipe_that_comes_after_the_search_is_not_read(tmp_path):
    put(tmp_path, "ada.ipynb")
    for name, make_it in [
        ("link.ipynb", lambda p: p.symlink_to(tmp_path / "ada.ipynb")),
        ("pipe.ipynb", os.mkfifo),
        ("folder.ipynb", os.mkdir),
        ("gone.ipynb", lambda p: None),
    ]:
        make_it(tmp_path / name)
        with pytest.raises(ValueError, match="notebook"):
            Submission("eve", tmp_path / name).read()


def test_pipes_and_sockets_do_not_block(tmp_path):
    put(tmp_path, "ada.ipynb")
    os.mkfifo(tmp_path / "pipe.ipynb")
    (tmp_path / "eve").mkdir()
    os.mkfifo(tmp_path / "eve" / "mini.ipynb")
    chosen = found(tmp_path)
    assert chosen["ada"] == "ada.ipynb"
    assert all("not a regular file" in chosen[name] for name in ("pipe", "eve"))


def test_one_file_under_two_names_is_noted_for_both(tmp_path):
    folder = put(tmp_path / "in", "ada.ipynb", "bob.ipynb", "eve/x.txt", "gil/x.txt")
    os.link(folder / "ada.ipynb", folder / "eve" / "mini.ipynb")
    os.link(put(tmp_path, "master.ipynb") / "master.ipynb", folder / "gil" / "mini.ipynb")
    notes = {s.student: s.note for s in collect(folder, "mini")}
    assert notes["bob"] == ""
    assert "is the notebook of ada, eve" in notes["ada"] == notes["eve"]
    assert "hard link" in notes["gil"]


def test_a_clone_of_the_course_holds_one_answer(tmp_path):
    course = [
        "assignments/mini/mini.ipynb",
        "assignments/gan/student/gan.ipynb",
        "book/vae/vae.ipynb",
    ]
    course += ["assignments/mini/student/mini.ipynb", "assignments/mini/solution/mini.ipynb"]
    put(tmp_path, *(f"ada/{name}" for name in course), *(f"bob/repo/{name}" for name in course))
    put(tmp_path, *(f"eve/{name}" for name in course), "eve/mine.ipynb")
    chosen = found(tmp_path)
    assert chosen["ada"] == "ada/assignments/mini/student/mini.ipynb"
    assert chosen["bob"] == "bob/repo/assignments/mini/student/mini.ipynb"
    assert "eve/mine.ipynb" in chosen["eve"]


def test_a_file_that_is_too_large_says_its_size_and_outputs_do_not_count(tmp_path):
    notebook = make.master()
    notebook.cells[0].outputs = [nbformat.v4.new_output("stream", text="x" * 41_628_467)]
    put(tmp_path, "ada.ipynb", text=nbformat.writes(notebook))
    put(tmp_path, "bob.ipynb", "eve.ipynb")
    with (tmp_path / "bob.ipynb").open("ab") as file:
        file.truncate(FILE_LIMIT + 2**20)
    ada, bob, eve = collect(tmp_path, "mini")
    assert (ada.fault, eve.fault) == ("", "")
    assert ada.read() == eve.read()
    assert "the file has 65.0 MiB; at most 64 MiB" in bob.fault


def test_a_folder_with_more_than_anybody_hands_in_costs_only_its_owner(tmp_path, monkeypatch):
    monkeypatch.setattr("course_lib.grading.collecting.ENTRIES", 20)
    put(tmp_path, *(f"ada/{k}/x.txt" for k in range(30)), "bob.ipynb")
    chosen = found(tmp_path)
    assert "more than 20 files" in chosen["ada"]
    assert chosen["bob"] == "bob.ipynb"


@pytest.fixture
def without_boxes(monkeypatch):
    """Grade everything as right, without a box; return the students that are graded."""
    return stand_in(monkeypatch)


def command(folder: Path, output: Path, *more: str) -> dict[str, dict[str, str]]:
    arguments = ["assignment", "grade", str(folder), "--sandbox", "none", "--output", str(output)]
    if "--assignment" not in more:
        arguments += ["--assignment", "mini", "--root", str(COURSE)]
    assert main([*arguments, *more]) == 0
    with (output / "grades.csv").open(newline="", encoding="utf-8") as file:
        return {row["student"]: row for row in csv.DictReader(file)}


def test_one_command_gives_everybody_a_row(tmp_path, without_boxes, capsys):
    folder = put(tmp_path / "in", "Ada L_1_assignsubmission_file_/x.ipynb", "stranger.ipynb")
    put(folder, "Bob M_2_assignsubmission_file_/a.ipynb", "Bob M_2_assignsubmission_file_/b.ipynb")
    put(folder, "Eve N_3_assignsubmission_file_/report.pdf", text="%PDF")
    rows(tmp_path / "roster.csv", "student,name\n007,Ada L\n008,Bob M\n009,Eve N\n010,Nobody\n")
    grades = command(folder, tmp_path / "out", "--roster", str(tmp_path / "roster.csv"))
    assert {s: row["points"] for s, row in grades.items()} == {
        "007": "4", "008": "0", "009": "0", "010": "0", "stranger": "4",
    }  # fmt: skip
    assert sorted(without_boxes) == ["007", "stranger"]
    assert "a.ipynb" in grades["008"]["status"]
    assert "b.ipynb" in grades["008"]["status"]
    assert "report.pdf" in grades["009"]["status"]
    assert grades["010"]["status"] == "no notebook was handed in"
    summary = json.loads((tmp_path / "out" / "summary.json").read_text(encoding="utf-8"))
    concerns = {row["student"]: row["why"] for row in summary["look at"]}
    assert set(concerns) == {"008", "009", "010", "stranger"}
    assert concerns["stranger"] == "not on the roster"
    assert "008: several notebooks" in capsys.readouterr().err
    # What is put right is graded by the next call, and nothing else.
    without_boxes.clear()
    (folder / "Bob M_2_assignsubmission_file_" / "a.ipynb").unlink()
    grades = command(folder, tmp_path / "out", "--roster", str(tmp_path / "roster.csv"))
    assert without_boxes == ["008"]
    assert grades["008"]["points"] == "4"
    # One resubmission in a folder of its own: who handed in before keeps the points.
    late = put(tmp_path / "late", "009.ipynb")
    grades = command(late, tmp_path / "out", "--roster", str(tmp_path / "roster.csv"))
    assert [grades[s]["points"] for s in ("007", "008", "009", "010")] == ["4", "4", "4", "0"]


@pytest.mark.parametrize(
    "written", ["mini", "mini/", "./mini", "mini.ipynb", "{}", "{}/", "{}/mini.ipynb"]
)
def test_an_assignment_is_named_as_shells_complete_it(tmp_path, without_boxes, written):
    folder = put(tmp_path / "in", "ada.ipynb")
    written = written.format(COURSE / "assignments" / "mini")
    root = [] if written.startswith("/") else ["--root", str(COURSE)]
    assert command(folder, tmp_path / "out", "--assignment", written, *root)["ada"]["points"] == "4"


def test_an_assignment_is_found_from_the_folder_of_assignments(
    tmp_path, without_boxes, monkeypatch
):
    folder = put(tmp_path / "in", "ada.ipynb")
    for here, written in (
        ("assignments", "mini/"),
        (".", "assignments/mini/"),
        ("assignments/mini", "."),
    ):
        monkeypatch.chdir(COURSE / here)
        assert command(folder, tmp_path / "out", "--assignment", written)["ada"]["points"] == "4"
