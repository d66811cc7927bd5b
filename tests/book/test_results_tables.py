"""The table of the results on a page: every cell in its place, what runs share written once."""

from pathlib import Path
from xml.etree import ElementTree

import pytest
from sphinx.cmd.build import build_main

from course_lib.experiments import read_records, read_study
from course_lib.experiments.tables import MNIST

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("book")
    (folder / "conf.py").write_text('extensions = ["myst_parser", "results_tables"]')
    (folder / "index.md").write_text(
        "# Results\n\n```{results-table} mnist\n```\n\n```{results-table} digits\n```\n\n"
        "```{results-table} stability\n```\n\n```{results-table} samplers\n```\n\n"
        "```{results-table} sources\n```\n\n"
        "```{results-table} flow-samples\n```\n"
    )
    return folder


@pytest.fixture(scope="module")
def tables(folder):
    assert build_main(["-q", "-b", "xml", str(folder), str(folder / "xml")]) == 0
    page = ElementTree.parse(folder / "xml" / "index.xml")
    return [grid(table) for table in page.iter("table")]


def grid(table):
    """Texts of all places of a table; a cell over several rows stands in each of them."""
    places = {}
    for i, row in enumerate(table.iter("row")):
        for cell in row.iter("entry"):
            j = next(j for j in range(99) if (i, j) not in places)
            for below in range(int(cell.get("morerows", 0)) + 1):
                places[i + below, j] = "".join(cell.itertext()).strip()
    n_rows, n_columns = (1 + max(index) for index in zip(*places, strict=True))
    return [[places[i, j] for j in range(n_columns)] for i in range(n_rows)]  # no place is empty


def test_a_published_row_spans_its_runs_and_no_others(tables):
    header, *rows = tables[0]
    assert header[0] == "model"
    recorded = {(r.model, r.budget) for r in read_records(ROOT / "results", data="mnist")}
    expected = [
        (p.name, f"{p.model} --budget {b}")
        for p in MNIST
        for b in p.budgets
        if (p.model, b) in recorded
    ]
    # A run of several processes says so behind its budget.
    assert [(row[0], row[-1].partition(" --devices ")[0]) for row in rows] == expected


def test_nothing_is_joined_in_a_ranking(tables):
    header, *rows = tables[1]
    assert len(rows) >= 2
    assert all(len(row) == len(header) for row in rows)
    assert all(row[-1].startswith(row[0]) for row in rows)


def test_what_the_rows_of_a_study_share_is_written_once(tables):
    header, *rows = tables[2]
    assert header[0] == "target"
    assert len({row[0] for row in rows}) == 2
    assert rows == sorted(rows, key=lambda row: row[0], reverse=True)  # the Gaussian, then Beta


def test_every_sampler_of_the_study_has_a_row(tables):
    header, *rows = tables[3]
    assert header[:3] == ["images", "sampler", "evaluations"]
    recorded = read_study(ROOT / "results", "diffusion_samplers").rows
    assert [row[1:3] for row in rows] == [[r["method"], str(r["evaluations"])] for r in recorded]
    assert len({row[0] for row in rows}) == 1


def test_every_way_of_the_study_of_flows_has_a_row(tables):
    header, *rows = tables[5]
    assert header[:3] == ["images", "sampler", "evaluations"]
    recorded = read_study(ROOT / "results", "flow_samples").rows
    assert [row[1:3] for row in rows] == [[r["method"], str(r["evaluations"])] for r in recorded]


def test_on_paper_a_table_goes_on_over_the_end_of_a_page(folder):
    assert build_main(["-q", "-b", "latex", str(folder), str(folder / "latex")]) == 0
    (document,) = (folder / "latex").glob("*.tex")
    text = document.read_text()
    assert text.count(r"\begin{longtable}") == 6
