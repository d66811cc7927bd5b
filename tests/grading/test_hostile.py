"""Whatever one submission holds, the run ends and every other row is what it would be alone."""

import csv
import io
import json
import os
import re
import tempfile
from contextlib import nullcontext
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

import hypothesis.strategies as st
import nbformat
import pytest
from hypothesis import HealthCheck, Phase, given, settings

from course_lib.grading import classroom, judge, report
from course_lib.grading.box import Limits, Room
from course_lib.grading.classroom import Submission, grade_all

from . import hostile
from .course import make
from .hostile import TRIED, Puppet
from .test_classroom import COURSE, MINI

LIMITS = Limits(cell_seconds=5, total_seconds=60)
HONEST = nbformat.writes(make.master()).encode()
TAGS = {
    *("html", "head", "meta", "title", "style", "body", "main", "h1", "h2", "h3", "p", "strong"),
    *("table", "caption", "tr", "th", "td", "ul", "li", "code", "pre", "wbr", "meter", "a"),
    *("details", "summary"),
}
ATTRIBUTES = {"lang", "charset", "name", "content", "class", "href", "id"}
ATTRIBUTES |= {"min", "max", "value", "aria-label"}
CONTROL = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")
FORMULA = re.compile(r"[\s\"]*[=+\-@＝＋－＠]|[\t\r]")


class Reader(HTMLParser):
    """Collects what a browser would act on."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.attributes, self.links = set(), set(), []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attributes):
        self.tags.add(tag)
        self.attributes |= {name for name, _ in attributes}
        self.links += [value for name, value in attributes if name == "href"]


def rows(path: Path) -> list[dict[str, str]]:
    text = path.read_bytes().decode("utf-8-sig")
    return list(csv.DictReader(io.StringIO(text, newline=""), strict=True))


def graded(folder: Path, handed_in: dict[str, bytes], sandbox: str = "none", jobs: int = 1) -> Path:
    """Grade and report submissions by student; return the output folder."""
    output = folder / "out"
    output.mkdir()
    (output / "secret").write_text("always the same\n")
    submissions = []
    for index, (student, content) in enumerate(handed_in.items()):
        path = folder / f"{index}.ipynb"
        path.write_bytes(content)
        submissions.append(Submission(student, path))
    records = grade_all(submissions, MINI, output, jobs=jobs, sandbox=sandbox, limits=LIMITS)
    report.write_reports(records, MINI, output)
    return output


def honest_results(output: Path, student: str) -> tuple:
    """What an honest student and the instructor see of the student's work."""
    page = (output / "feedback" / f"{student}.html").read_text(encoding="utf-8")
    page = re.sub(r"Graded in .*? of memory", "", page)
    manual = [row for row in rows(output / "manual.csv") if row["student"] == student]
    return [row for row in rows(output / "grades.csv") if row["student"] == student], manual, page


def require_sound(output: Path, students: list[str]) -> None:
    """Require a row for everybody, and files that harm neither a browser, a spreadsheet nor a terminal."""
    grades = rows(output / "grades.csv")
    assert len(grades) == len(students)
    assert all(row["status"] for row in grades)
    for path in (output / "grades.csv", output / "manual.csv"):
        for row in rows(path):
            for text in row.values():
                assert not FORMULA.match(text), (path, text[:50])
                assert len(text) < 32_767
        assert not CONTROL.search(path.read_bytes().decode("utf-8-sig")), path
    pages = [output / "summary.html", output / "manual.html", *(output / "feedback").iterdir()]
    assert len(pages) == 2 + len(students)
    for path in pages:
        text = path.read_bytes().decode("utf-8")
        assert not CONTROL.search(text), path
        assert len(text) < 500_000
        read = Reader(text)
        assert read.tags <= TAGS, path
        assert read.attributes <= ATTRIBUTES, path
        assert all((output / unquote(link)).is_file() for link in read.links)
    json.loads((output / "summary.json").read_text(), parse_constant=pytest.fail)
    assert all(path.stat().st_size < 2**20 for path in (output / "records").iterdir())


@pytest.fixture
def puppets(monkeypatch):
    monkeypatch.setattr(judge, "Box", Puppet)
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)
    monkeypatch.setattr(classroom, "room", lambda sandbox: nullcontext(Room(COURSE, sandbox)))


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """What each honest student gets when nobody else is graded."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(judge, "Box", Puppet)
        patch.setattr(classroom, "room", lambda sandbox: nullcontext(Room(COURSE, sandbox)))
        outputs = {s: graded(tmp_path_factory.mktemp(s), {s: HONEST}) for s in ("ada", "eve")}
    results = {student: honest_results(output, student) for student, output in outputs.items()}
    for (row,), (words,), _ in results.values():
        assert (row["points"], row["status"], words["answer"]) == ("3", "to be graded", make.WORDS)
    return results


@pytest.mark.parametrize("kind", hostile.KINDS)
@given(data=st.data(), name=hostile.names, box=hostile.boxes())
@settings(
    max_examples=20,
    derandomize=True,
    phases=[Phase.explicit, Phase.generate],  # to shrink an example takes longer than to read it
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
def test_one_submission_never_touches_anothers_result(puppets, alone, kind, data, name, box):
    content = data.draw(hostile.submissions(kind))
    if name in ("ada", "eve"):
        return
    TRIED[kind] += 1
    Puppet.made.clear()
    with tempfile.TemporaryDirectory() as folder:
        output = graded(Path(folder), {"ada": HONEST, name: content, "eve": HONEST})
        require_sound(output, ["ada", name, "eve"])
        for student, expected in alone.items():
            assert honest_results(output, student) == expected
        files = {p: p.read_bytes() for p in output.rglob("*") if p.is_file()}
        # Calling again reads all of it back, and grades nothing.
        made = len(Puppet.made)
        submissions = [
            Submission(s, Path(folder, f"{k}.ipynb")) for k, s in enumerate(("ada", name, "eve"))
        ]
        records = grade_all(submissions, MINI, output, jobs=1, sandbox="none", limits=LIMITS)
        report.write_reports(records, MINI, output)
        assert len(Puppet.made) == made
        assert {p: p.read_bytes() for p in output.rglob("*") if p.is_file()} == files


def test_hostile_submissions_of_every_kind_were_tried(record_property):
    """Runs behind the one above, and says how many there were."""
    record_property("hostile submissions", dict(TRIED))
    print(dict(TRIED))
    if set(TRIED) == set(hostile.KINDS):
        assert min(TRIED.values()) >= 10


@pytest.mark.isolation
def test_what_hostile_cells_really_say_and_return_touches_nobody_else(shared, alone, tmp_path):
    """As above, with boxes that are processes."""
    odd = hostile.real_notebooks("\ud83d</script>\0\x1b[2J\u202e\r=1")
    output = graded(tmp_path, {"ada": HONEST, **odd, "eve": HONEST}, shared.sandbox)
    require_sound(output, ["ada", *odd, "eve"])
    for student, ((row,), manual, _) in alone.items():
        ((real,), real_manual, _) = honest_results(output, student)
        assert real == row | {"sandbox": shared.sandbox}
        assert real_manual == manual
    for row in rows(output / "grades.csv"):
        if row["student"] in odd:
            assert (row["first"], row["target"], row["last"]) == ("1", "0", "1"), row
