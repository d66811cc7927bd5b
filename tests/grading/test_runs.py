"""Several runs of grading on one page."""

import json
import re

import pytest

from course_lib.command_line import main
from course_lib.grading import report
from course_lib.grading.judge import Verdict
from course_lib.grading.report.runs import read_runs, runs_page

from .reports import example
from .test_classroom import MINI

RIGHT = Verdict("target", 1, 1, "right")
MEAN = Verdict("target", 0, 1, "The terms are averaged", "mean")
DROPPED = Verdict("target", 0.5, 1, "The weights are not used", "weights <dropped>")
LEFT_OUT = Verdict("target", 0, 1, "not answered")


def graded(folder, *targets):
    """The output folder of a run with one student for each verdict on the question `target`."""
    first, _, *rest = example().verdicts
    records = [
        example(f"s{number}", verdicts=[first, target, *rest])
        for number, target in enumerate(targets)
    ]
    folder.mkdir(parents=True)
    report.write_reports(records, MINI, folder)
    return folder


@pytest.fixture
def folders(tmp_path):
    return [
        graded(tmp_path / "2025" / "mini", RIGHT, MEAN, MEAN, LEFT_OUT),
        graded(
            tmp_path / "2026" / "mini", RIGHT, RIGHT, DROPPED, MEAN, MEAN, DROPPED, DROPPED, RIGHT
        ),
    ]


def test_each_student_ends_a_question_in_one_way(folders):
    first, second = read_runs(folders)
    assert (first.name, second.name) == ("2025", "2026")
    assert first.ends("target") == {
        "full": 1, "part": 0, "none": 2, "not answered": 1, "to be graded": 0,
    }  # fmt: skip
    assert second.ends("target") == {
        "full": 3, "part": 3, "none": 2, "not answered": 0, "to be graded": 0,
    }  # fmt: skip
    assert first.ends("words")["to be graded"] == 4
    for run in (first, second):
        for question in MINI.questions:
            assert sum(run.ends(question.name).values()) == run.students
    assert first.ends("another") is None


def test_the_page_counts_mistakes_by_run_and_orders_them_by_their_share(folders):
    page = runs_page(read_runs(folders), "Mini")
    rows = re.findall(r"<tr><td>target</td>(.*?)</tr>", page)
    assert ["mean" in row for row in rows] == [True, False]
    assert re.findall(r"(\d+) \((\d+%)\)", rows[0]) == [("2", "50%"), ("2", "25%")]
    assert re.findall(r"(\d+) \((\d+%)\)", rows[1]) == [("0", "0%"), ("3", "38%")]
    assert "weights &lt;dropped&gt;" in page
    assert "<script" not in page
    assert "http" not in page.replace("http-equiv", "")
    # What the bars show is said as well.
    assert 'aria-label="full marks: 3, a part: 3, nothing: 2"' in page


def test_the_histogram_holds_every_student(folders):
    page = runs_page(read_runs(folders), "Mini")
    labels = re.findall(r'aria-label="([^"]*points[^"]*)"', page)
    counts = [sum(map(int, re.findall(r"points: (\d+)", label))) for label in labels]
    assert counts == [4, 8]


def test_a_run_without_a_question_says_so(folders):
    path = folders[0] / "summary.json"
    summary = json.loads(path.read_text(encoding="utf-8"))
    summary["questions"] = [row for row in summary["questions"] if row["name"] != "target"]
    summary["mistakes"] = []
    path.write_text(json.dumps(summary), encoding="utf-8")
    page = runs_page(read_runs(folders), "Mini")
    assert page.count("not asked") == 1


def test_the_command_writes_one_page(folders, tmp_path, capsys):
    output = tmp_path / "years.html"
    command = ["assignment", "compare", *map(str, folders), "--output", str(output)]
    assert main(command) == 0
    assert capsys.readouterr().out.strip() == str(output)
    assert "2 runs" in output.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda path: path.unlink(), "is missing; the output folder of a finished"),
        (lambda path: path.write_text("{", encoding="utf-8"), "is damaged"),
        (lambda path: path.write_text("{}", encoding="utf-8"), "is damaged"),
        (lambda path: path.write_text("[]", encoding="utf-8"), "is damaged"),
        (
            lambda path: path.write_text(
                path.read_text(encoding="utf-8").replace('"mini"', '"vae"'), encoding="utf-8"
            ),
            "several assignments: mini, vae",
        ),
    ],
)
def test_what_cannot_be_compared_is_named(folders, tmp_path, capsys, spoil, message):
    spoil(folders[1] / "summary.json")
    output = tmp_path / "years.html"
    command = ["assignment", "compare", *map(str, folders), "--output", str(output)]
    assert main(command) == 2
    assert message in capsys.readouterr().err
    assert not output.exists()


SPOILT = {
    "assignment": [None, 5, []],
    "submissions": [None, "4", []],
    "possible": [None, "4"],
    "points": [None, 4, [None], [float("nan")]],
    "questions": [None, 4, [None], [{}], [{"name": "target", "full": "all"}]],
    "mistakes": [None, 4, [None], [{}], [{"question": "target", "mistake": "mean"}]],
}


@pytest.mark.parametrize("name", SPOILT)
def test_every_entry_of_a_damaged_summary_is_noticed(folders, tmp_path, capsys, name):
    path, output = folders[1] / "summary.json", tmp_path / "years.html"
    whole = json.loads(path.read_text(encoding="utf-8"))
    lacking = {key: value for key, value in whole.items() if key != name}
    for spoilt in [lacking, *({**whole, name: value} for value in SPOILT[name])]:
        path.write_text(json.dumps(spoilt), encoding="utf-8")
        command = ["assignment", "compare", *map(str, folders), "--output", str(output)]
        assert main(command) == 2, spoilt
        assert f"{path} is damaged" in capsys.readouterr().err
        assert not output.exists()


def test_the_page_never_takes_the_place_of_a_file_of_a_run(folders, capsys):
    for name in ("summary.json", "comparison.html"):
        path = folders[0] / name
        before = path.read_bytes() if path.exists() else None
        assert main(["assignment", "compare", *map(str, folders), "--output", str(path)]) == 2
        assert "among the files of the run" in capsys.readouterr().err
        assert (path.read_bytes() if path.exists() else None) == before


def test_a_file_instead_of_a_folder_is_named(folders):
    with pytest.raises(FileNotFoundError, match="the output folder of a finished"):
        read_runs([folders[0] / "summary.json"])


def test_one_folder_twice_is_refused(folders):
    with pytest.raises(ValueError, match="named twice"):
        read_runs([folders[0], folders[0] / "." / ""])
