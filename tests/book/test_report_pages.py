"""The pages that grading writes, as a browser shows them: nothing wider than the screen of a phone."""

from dataclasses import replace
from pathlib import Path

import pytest

from course_lib.grading.judge import GradingRecord, Verdict
from course_lib.grading.question import load_assignment
from course_lib.grading.report import write_reports
from course_lib.grading.report.runs import read_runs, runs_page
from tests.book.conftest import Visit

ROOT = Path(__file__).parents[2]
ASSIGNMENTS = sorted(path.parent.name for path in ROOT.glob("assignments/*/questions.py"))
LONG = "Lovelace_500105_assignsubmission_file_/" * 3
WORDS = "the result holds NaN or infinity in " + "x" * 200


@pytest.mark.browser
@pytest.mark.parametrize("name", ASSIGNMENTS)
def test_no_page_is_wider_than_a_phone(browser, tmp_path, name):
    assignment = load_assignment(name, ROOT)
    graded = GradingRecord(
        "00101",
        "key",
        [
            Verdict(q.name, q.points, q.points, WORDS, f"slip {q.name}")
            for q in assignment.questions
        ],
        errors=[(2, WORDS)],
        answers={assignment.questions[-1].name: WORDS * 20},
        notes=[WORDS],
        memory=2**28,
    )
    graded.verdicts[-1] = replace(graded.verdicts[-1], points=None)
    nothing = GradingRecord("ada" * 20, "", fault=f"several notebooks: {LONG}; keep one")
    for run in (tmp_path / ("winter " * 9) / name, tmp_path / "2026" / name):
        run.mkdir(parents=True)
        write_reports([graded, nothing], assignment, run)
    runs = read_runs([run, tmp_path / ("winter " * 9) / name])
    page = tmp_path / "runs.html"
    page.write_text(runs_page(runs, assignment.title), encoding="utf-8")
    pages = [page, *sorted(run.rglob("*.html"))]
    assert len(pages) == 5
    visit = Visit(browser, pages[0], viewport={"width": 360, "height": 800})
    for path in pages:
        for scheme in ("light", "dark"):
            visit.page.emulate_media(color_scheme=scheme)
            visit.page.goto(path.as_uri())  # in the same window: to open one costs more than a page
            width = visit.page.evaluate("document.documentElement.scrollWidth")
            assert width <= 360, f"{path.name} is {width} pixels wide, in {scheme} colours"
            assert not visit.errors
    visit.page.close()
