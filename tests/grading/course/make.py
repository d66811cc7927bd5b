"""Makes notebooks of the mini assignment: the master, and submissions with given cells."""

from collections.abc import Sequence

import nbformat

FIRST = "def first(x, w):\n    return (w * x**2).sum(1)"
LAST = "def last(x, w):\n    return 3 * (w * x**2).sum(1)"
TARGET = "def target(x, w):\n    return 7.25 * (w * x**2).sum(1)"
WORDS = "Because of the weights."


def check_cell(name: str) -> nbformat.NotebookNode:
    marks = {"grade": True, "grade_id": f"check-{name}", "locked": True, "solution": False}
    marks |= {"points": 1, "schema_version": 3, "task": False}
    return nbformat.v4.new_code_cell(f"print({name!r} in globals())", metadata={"nbgrader": marks})


def written_cell(text: str) -> nbformat.NotebookNode:
    marks = {"grade": True, "grade_id": "words", "locked": False, "solution": True}
    marks |= {"points": 1, "schema_version": 3, "task": False}
    return nbformat.v4.new_markdown_cell(text, metadata={"nbgrader": marks})


def notebook(*between: str, first: str = FIRST, last: str = LAST) -> nbformat.NotebookNode:
    """An honest first cell, the given cells, an honest last cell, the checks, a written answer."""
    code = ["import torch", first, *between, last]
    cells = [nbformat.v4.new_code_cell(source) for source in code]
    cells += [check_cell(name) for name in ("first", "target", "last")]
    made = nbformat.v4.new_notebook(cells=[*cells, written_cell(WORDS)])
    for index, cell in enumerate(made.cells):
        cell.id = f"cell-{index}"
    return made


def master() -> nbformat.NotebookNode:
    """The master of the mini assignment."""
    return notebook(TARGET)


def with_cells(sources: Sequence[str]) -> nbformat.NotebookNode:
    """A notebook of the given code cells alone, without any metadata."""
    return nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(s) for s in sources])
