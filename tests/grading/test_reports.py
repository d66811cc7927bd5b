"""What is reported of a class, and the points that a person gives."""

import csv
import io
import json
from dataclasses import replace

import pytest

from course_lib.grading import judge, report
from course_lib.grading.judge import GradingRecord, Verdict

from .reports import example, table
from .test_classroom import MINI


def test_reports_escape_what_students_wrote(tmp_path):
    paths = report.write_reports([example("=cmd()")], MINI, tmp_path)
    page = (tmp_path / "feedback" / "=cmd().html").read_text(encoding="utf-8")
    assert "<script>" not in page
    assert "&lt;i&gt;because" in page
    assert "'=cmd()" in paths["grades"].read_text(encoding="utf-8")
    assert "'=cmd()" in table(paths["grades"])


def test_points_of_a_person_are_checked_and_kept(tmp_path):
    report.write_reports([example()], MINI, tmp_path)
    manual = tmp_path / "manual.csv"
    text = manual.read_text(encoding="utf-8")
    manual.write_text(text.replace("ada,words,,", "ada,words,7,"), encoding="utf-8")
    with pytest.raises(ValueError, match="a number from 0 to 1 is expected"):
        report.write_reports([example()], MINI, tmp_path)
    manual.write_text(text.replace("ada,words,,", "ada,wrods,1,"), encoding="utf-8")
    with pytest.raises(ValueError, match="a question among words"):
        report.write_reports([example()], MINI, tmp_path)
    # As a spreadsheet saves it where the comma is the decimal sign.
    rows = list(csv.reader(io.StringIO(text.removeprefix("\ufeff"))))
    rows[1][2] = "0,75"
    with manual.open("w", newline="", encoding="utf-8-sig") as file:
        csv.writer(file, delimiter=";").writerows(rows)
    record = example()
    report.write_reports([record], MINI, tmp_path)
    assert record.points == 2.75
    manual.write_text(text.replace("ada,words,,", "ada,words,0.75,"), encoding="utf-8")
    record = example()
    report.write_reports([record], MINI, tmp_path)
    assert record.points == 2.75
    assert "0.75" in manual.read_text(encoding="utf-8")


def test_points_belong_to_the_answer_that_was_read(tmp_path, capsys):
    """Another answer is read again; the points wait until the person has said that it was."""
    report.write_reports([example(), example("bob")], MINI, tmp_path)
    manual = tmp_path / "manual.csv"
    text = manual.read_text(encoding="utf-8-sig")
    manual.write_text(text.replace("words,,", "words,1,"), encoding="utf-8")
    other = example(answers={"words": "I do not know."})

    def written(*records):
        paths = report.write_reports([*records], MINI, tmp_path)
        return table(paths["grades"])

    for _ in range(2):  # nothing is forgotten by calling again
        grades = written(other, example("bob"))
        assert [row["words"] for row in grades.values()] == ["", "1"]
        assert [row["status"] for row in grades.values()] == ["to be graded", "graded"]
        said = capsys.readouterr().err
        assert "the answer of ada to words is another one" in said
        assert "clear the cell “version”" in said
        concerns = json.loads((tmp_path / "summary.json").read_text(encoding="utf-8"))["look at"]
        assert [c["student"] for c in concerns if "another answer" in c["why"]] == ["ada"]
    kept = manual.read_text(encoding="utf-8-sig")
    first, _, rest = kept.partition("\nada,words,1,")
    line, _, rest = rest.partition("\n")
    manual.write_text(
        f"{first}\nada,words,0,{line.rpartition(',')[0]},\n{rest}", encoding="utf-8-sig"
    )
    again = example(answers={"words": "I do not know."})
    assert [row["words"] for row in written(again, example("bob")).values()] == ["0", "1"]
    assert "another one" not in capsys.readouterr().err
    # A table that was written without the last column.
    old = "student,question,points,possible,comment,rubric\nada,words,1,1,,One point.\n"
    manual.write_text(old, encoding="utf-8")
    assert written(example())["ada"]["words"] == "1"
    other = example(answers={"words": "I do not know."})
    assert written(other)["ada"]["words"] == ""


def test_an_answer_whose_cell_was_not_found_is_named_where_a_person_looks(tmp_path):
    record = example(answers={"words": judge.NOT_FOUND})
    report.write_reports([record, example("bob")], MINI, tmp_path)
    rows = (tmp_path / "manual.csv").read_text(encoding="utf-8-sig").splitlines()
    assert ["LOOK INTO THE NOTEBOOK" in row for row in rows if row[:3] in ("ada", "bob")] == [
        True,
        False,
    ]
    concerns = json.loads((tmp_path / "summary.json").read_text(encoding="utf-8"))["look at"]
    assert ("ada", f"words: {judge.NOT_FOUND}") in [(c["student"], c["why"]) for c in concerns]
    # The points are those of this notebook: another one, whose cell is lost as well, is read again.
    manual = tmp_path / "manual.csv"
    text = manual.read_text(encoding="utf-8").replace("ada,words,,", "ada,words,1,")
    manual.write_text(text, encoding="utf-8")
    for key, points in ((record.key, "1"), ("another", "")):
        again = example(answers={"words": judge.NOT_FOUND}, key=key)
        report.write_reports([again, example("bob")], MINI, tmp_path)
        assert table(tmp_path / "grades.csv")["ada"]["words"] == points


def test_points_of_a_person_go_to_the_student_of_the_row(tmp_path):
    report.write_reports([example(), example("bob"), example("=eve")], MINI, tmp_path)
    manual = tmp_path / "manual.csv"
    text = manual.read_text(encoding="utf-8").replace("bob,words,,1,,", "bob,words,0.5,1,Half.,")
    manual.write_text(text.replace("'=eve,words,,", "'=eve,words,1,"), encoding="utf-8")
    records = [example(), example("bob"), example("=eve")]
    report.write_reports(records, MINI, tmp_path)
    assert [record.points for record in records] == [2, 2.5, 3]
    grades = table(tmp_path / "grades.csv")
    assert {name: (row["words"], row["status"]) for name, row in grades.items()} == {
        "ada": ("", "to be graded"), "bob": ("0.5", "graded"), "'=eve": ("1", "graded"),
    }  # fmt: skip
    assert "Half." in (tmp_path / "feedback" / "bob.html").read_text(encoding="utf-8")
    assert "Half." not in (tmp_path / "feedback" / "ada.html").read_text(encoding="utf-8")
    manual.write_text(text.replace("bob,words,0.5", "bob,words,nan"), encoding="utf-8")
    with pytest.raises(ValueError, match="'nan' points for bob, words; a number from 0 to 1"):
        report.write_reports(records, MINI, tmp_path)


def test_what_spreadsheets_do_to_the_table_of_points_loses_nothing(tmp_path, capsys):
    names = ("007", "Jürgen", "'quoted")
    records = [example(name) for name in names]
    report.write_reports(records, MINI, tmp_path)
    manual = tmp_path / "manual.csv"
    assert manual.read_bytes().startswith(b"\xef\xbb\xbf")  # by this a spreadsheet knows UTF-8
    text = manual.read_bytes().decode("utf-8-sig")
    comment = "One line,\nanother;\u2028a third.\x0b"
    text = text.replace("Jürgen,words,,1,,", f'Jürgen,words,1,1,"{comment}",')
    text = text.replace("'quoted,words,,", "'quoted,words,0.5,").replace(
        "007,words,,", "7,words,1,"
    )
    manual.write_bytes(text.encode("cp1252", "replace"))
    with pytest.raises(ValueError, match=r"manual\.csv is not UTF-8 text .* “CSV UTF-8”"):
        report.write_reports(records, MINI, tmp_path)
    for encoding, first in (("utf-8", ""), ("utf-16", ""), ("utf-8", "sep=,\r\n")):
        manual.write_bytes((first + text).encode(encoding))
        records = [example(name) for name in names]
        report.write_reports(records, MINI, tmp_path)
        assert [record.points for record in records] == [3, 3, 2.5]
    assert records[1].verdicts[-1].comment == comment
    assert set(table(manual)) == set(names)
    # A row of nobody is said, and its points are kept.
    manual.write_text(manual.read_text(encoding="utf-8").replace("\n007,", "\n7,").replace(
        table(manual)["007"]["page"], ""), encoding="utf-8")  # fmt: skip
    again = [example(name) for name in names]
    report.write_reports(again, MINI, tmp_path)
    assert "points for 7, and no submission of that name" in capsys.readouterr().err
    assert [record.points for record in again] == [2, 3, 2.5]
    assert "\n7,words,1," in manual.read_text(encoding="utf-8-sig")


@pytest.mark.parametrize("separator", [",", ";", "\t"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_names_that_a_spreadsheet_has_changed_come_back(tmp_path, separator, encoding):
    """``00123`` for 123, and dates; also where a call without the points has come in between."""
    changed = {"00123": "123", "1-2": "02. Jan", "1E5": "100000", "Zoë; M": "Zoë; M", "12": "12"}
    manual = tmp_path / "manual.csv"
    report.write_reports([example(name) for name in changed], MINI, tmp_path)
    rows = list(table(manual).values())
    saved = io.StringIO(newline="")
    writer = csv.DictWriter(saved, rows[0], delimiter=separator)
    writer.writeheader()
    for row in reversed(rows):
        comment = f"for {row['student']}"
        name = changed[row["student"]]
        writer.writerow(row | {"student": name, "points": "0,5", "comment": comment})
    manual.write_bytes(saved.getvalue().encode(encoding))
    for _ in range(2):
        report.write_reports([example(name) for name in changed], MINI, tmp_path)
        assert {s: row["comment"] for s, row in table(manual).items()} == {
            name: f"for {name}" for name in changed
        }
        assert {row["words"] for row in table(tmp_path / "grades.csv").values()} == {"0.5"}


def test_a_changed_name_never_takes_the_points_of_a_row_that_is_there(tmp_path, capsys):
    manual = tmp_path / "manual.csv"
    report.write_reports([example("007")], MINI, tmp_path)
    page = table(manual)["007"]["page"]
    text = "student,question,points,comment,page\n"
    for rows in (["007,words,1,a,", "7,words,0,b,"], ["7,words,0,b,", "007,words,1,a,"]):
        manual.write_text(text + "".join(f"{row}{page}\n" for row in rows), encoding="utf-8")
        report.write_reports([example("007")], MINI, tmp_path)
        assert table(tmp_path / "grades.csv")["007"]["words"] == "1"
        assert {s: row["points"] for s, row in table(manual).items()} == {"007": "1", "7": "0"}
        assert "points for 7, and no submission" in capsys.readouterr().err


def test_an_optional_question_is_counted_where_it_is_right(tmp_path):
    """It has no points, so that nothing is all that anybody can earn."""
    questions = [replace(MINI.questions[0], points=0), *MINI.questions[1:]]
    assignment = replace(MINI, questions=tuple(questions))
    records = [example("ada"), example("bob")]
    for record, comment in zip(records, ("right", "not answered"), strict=True):
        record.verdicts[0] = Verdict("first", 0, 0, comment)
    row = report.summarize(records, assignment)["questions"][0]
    assert (row["full"], row["part"], row["not answered"]) == (1, 0, 1)
    report.write_reports(records, assignment, tmp_path)
    page = (tmp_path / "feedback" / "ada.html").read_text(encoding="utf-8")
    assert '<td class="number">optional</td>' in page
    assert f"of {MINI.points - 1:g} points" in page


def test_the_summary_counts_what_the_class_did(tmp_path):
    def record(student, target):
        return example(student, verdicts=[*example().verdicts[:1], target, *example().verdicts[2:]])

    records = [
        record("ada", Verdict("target", 1, 1, "right")),
        record("bob", Verdict("target", 0, 1, "The terms are averaged", "mean")),
        record("cyd", Verdict("target", 0, 1, "The terms are averaged", "mean")),
        record("dan", Verdict("target", 0, 1, "The weights are not used", "weights dropped")),
        record("eve", Verdict("target", 0, 1, "not answered")),
        record("fay", Verdict("target", 1, 1, "better than expected", suspicious=True)),
    ]
    summary = report.summarize(records, MINI)
    assert summary["submissions"] == 6
    assert summary["points"] == [3, 2, 2, 2, 2, 3]
    rows = {row["name"]: row for row in summary["questions"]}
    counts = ("full", "not answered", "to be graded", "mean")
    assert [rows["target"][name] for name in counts] == [2, 1, 0, pytest.approx(2 / 6)]
    assert [rows["words"][name] for name in counts] == [0, 0, 6, 0]
    assert summary["mistakes"] == [
        {"question": "target", "mistake": "mean", "students": 2},
        {"question": "target", "mistake": "weights dropped", "students": 1},
    ]
    assert summary["look at"] == [{"student": "fay", "why": "target: better than expected"}]
    page = report.summary_page(summary, MINI)
    assert "6 students; 2.33 of 4 points on average" in page
    assert "2 of 6 have full marks" in page


def test_no_hidden_value_reaches_the_feedback(tmp_path):
    """Comments name public cases only; what is drawn for a student is in no report."""
    page = report.feedback_page(example(), MINI)
    for case in MINI.questions[1].cases("mini", "secret", "ada"):
        for value in case.expected[""]:
            assert f"{value:.6g}" not in page


def test_grading_without_isolation_says_so_everywhere(tmp_path):
    record = example(sandbox="none")
    report.write_reports([record], MINI, tmp_path)
    assert "without isolation" in (tmp_path / "feedback" / "ada.html").read_text()
    assert table(tmp_path / "grades.csv")["ada"]["sandbox"] == "none"


def test_the_answer_stands_beside_the_points_and_on_a_page_of_its_own(tmp_path):
    record = example(answers={"words": "Because <b>of</b> it.\n" * 2000}, output="loss 0.5")
    report.write_reports([record, example("=x y")], MINI, tmp_path)
    rows = table(tmp_path / "manual.csv")
    assert rows["ada"]["answer"].startswith("Because <b>of</b> it.\nBecause")
    assert len(rows["ada"]["answer"]) <= 5000
    assert rows["'=x y"]["answer"] == "<i>because</i>"
    page = (tmp_path / "manual.html").read_text(encoding="utf-8")
    for row in rows.values():
        name, _, anchor = row["page"].partition("#")
        assert name == "manual.html"
        assert f'id="{anchor}"' in page
    assert 'href="feedback/%3Dx%20y.html"' in page
    assert "One point for a reason." in page
    # What the rubric asks about; it may tell of hidden inputs, so students do not get it.
    assert "loss 0.5" in page
    assert "loss 0.5" not in (tmp_path / "feedback" / "ada.html").read_text(encoding="utf-8")


def test_tables_of_earlier_versions_and_columns_of_a_person_are_kept(tmp_path):
    manual = tmp_path / "manual.csv"
    report.write_reports([example()], MINI, tmp_path)
    version = table(manual)["ada"]["version"]
    old = "student,question,points,possible,comment,rubric,answer\nada,words,1,1,Good.,One point.,{}\n"
    for digest, points in ((version, "1"), ("a0123456789", "")):
        manual.write_text(old.format(digest), encoding="utf-8-sig")
        report.write_reports([example()], MINI, tmp_path)
        row = table(manual)["ada"]
        assert (row["points"], row["comment"], row["version"]) == ("1", "Good.", digest)
        assert row["answer"] == "<i>because</i>"
        assert table(tmp_path / "grades.csv")["ada"]["words"] == points
    moved = f"Points,marker,version,student,question,comment\n1,Me,{version},ada,words,Good.\n"
    manual.write_text(moved, encoding="utf-8")
    report.write_reports([example()], MINI, tmp_path)
    assert table(manual)["ada"]["marker"] == "Me"
    assert table(tmp_path / "grades.csv")["ada"]["words"] == "1"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("ada,words,1,1,\n", "without a column student, question, points, comment"),
        ("student,question,points,comment\nada,words,1,a,b,c\n", "row 2: .* is not understood"),
        ("student,question,points,comment\nada,words,1,\nada,words,0,\n", "two rows with points"),
        (
            f"student,question,points,comment\nada,words,1,{'x' * 200_000}\n",
            "field larger than field limit",
        ),
        (
            'student,question,points,comment\nada,words,,"Good\nbob,words,1,\n',
            "is not a table .* a quotation mark not closed",
        ),
    ],
)
def test_a_table_that_could_lose_points_is_refused_and_left_alone(tmp_path, text, message):
    manual = tmp_path / "manual.csv"
    manual.write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match=message):
        report.write_reports([example()], MINI, tmp_path)
    assert manual.read_text(encoding="utf-8") == text
    assert [path.name for path in tmp_path.iterdir()] == ["manual.csv"]


def test_thousands_of_errors_and_long_texts_make_no_long_pages(tmp_path):
    long = "<&>" * 100_000
    record = GradingRecord(
        "ada", "key", errors=[(k, long) for k in range(5000)], output=long, fault=long
    )
    record.answers = {"words": long}
    record.verdicts = [Verdict(q.name, 0, q.points, long) for q in MINI.questions]
    judge._bound(record)
    report.write_reports([record], MINI, tmp_path)
    for path in tmp_path.rglob("*.*"):
        if path.is_file():
            assert path.stat().st_size < 200_000, path
    assert "and 4900 more" in record.errors[-1][1]
