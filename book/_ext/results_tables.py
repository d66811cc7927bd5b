"""The directive ``results-table``: a table made of the records in ``results/``, never typed.

    ```{results-table} mnist
    ```

A row that has not been run says so.
"""

from pathlib import Path

from docutils import nodes
from docutils.parsers.rst import Directive
from sphinx.application import Sphinx

ROOT = Path(__file__).parents[2]


class ResultsTable(Directive):
    """A table of the records of one data set."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        """Build the table."""
        from course_lib.experiments import read_records
        from course_lib.experiments.tables import digits_rows, mnist_rows

        tables = {"mnist": mnist_rows, "digits": digits_rows}
        if self.arguments[0] not in tables:
            raise self.error(
                f"results-table {self.arguments[0]}: one of {', '.join(tables)} is expected."
            )
        folder = ROOT / "results"
        for path in folder.glob("*.json"):
            self.state.document.settings.record_dependencies.add(str(path))
        header, *rows = tables[self.arguments[0]](read_records(folder))
        return [build(header, rows)]


def build(header: list[str], rows: list[list[str]]) -> nodes.table:
    """A docutils table; the last column is code."""
    group = nodes.tgroup(cols=len(header))
    group += [nodes.colspec(colwidth=1) for _ in header]
    group += nodes.thead("", _row(header, code=False))
    group += nodes.tbody("", *(_row(row, code=True) for row in rows))
    return nodes.table("", group, classes=["results"])


def _row(cells: list[str], *, code: bool) -> nodes.row:
    row = nodes.row()
    for index, cell in enumerate(cells):
        is_code = code and index == len(cells) - 1
        text = nodes.literal(cell, cell) if is_code else nodes.Text(cell)
        row += nodes.entry("", nodes.paragraph("", "", text))
    return row


def setup(app: Sphinx) -> dict[str, bool | str]:
    app.add_directive("results-table", ResultsTable)
    return {"version": "1", "parallel_read_safe": True}
