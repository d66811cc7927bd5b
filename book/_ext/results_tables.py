"""The directive ``results-table``: a table made of the records in ``results/``, never typed.

    ```{results-table} mnist
    ```

What has not been run has no row. What several runs of one published number share is written once, in a
cell as high as their rows.
"""

import re
from itertools import groupby
from pathlib import Path

from docutils import nodes
from docutils.parsers.rst import Directive
from sphinx import addnodes
from sphinx.application import Sphinx

ROOT = Path(__file__).parents[2]


class ResultsTable(Directive):
    """A table of the records of one data set, or of one study."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        """Build the table."""
        from course_lib.experiments import read_records, read_study
        from course_lib.experiments.tables import (
            digits_rows,
            mnist_rows,
            sampler_rows,
            source_rows,
            stability_rows,
        )

        folder = ROOT / "results"
        # The records, their rows, how many columns at the left rows below one another may share, and on
        # paper the widths of the columns to one another.
        of_samples = (sampler_rows, 1, (4, 3, 3, 4, 4, 4, 4, 6))
        tables = {
            "mnist": (read_records(folder), mnist_rows, 2, (3, 4, 5, 3, 5)),
            "digits": (read_records(folder), digits_rows, 0, (5, 5, 3, 4, 2, 3, 3, 8)),
            "stability": (
                read_study(folder, "gan_stability"),
                stability_rows,
                1,
                (3, 5, 4, 4, 2, 4, 2, 7),
            ),
            "samplers": (read_study(folder, "diffusion_samplers"), *of_samples),
            "flow-samples": (read_study(folder, "flow_samples"), *of_samples),
            "sources": (
                read_records(folder),
                lambda records: source_rows(
                    records, read_study(folder, "gan_source"), read_study(folder, "gan_stability")
                ),
                0,
                (4, 4, 7, 4, 4),
            ),
        }
        if self.arguments[0] not in tables:
            raise self.error(
                f"results-table {self.arguments[0]}: one of {', '.join(tables)} is expected."
            )
        for path in folder.glob("*.json"):
            self.state.document.settings.record_dependencies.add(str(path))
        records, make_rows, shared, widths = tables[self.arguments[0]]
        header, *rows = make_rows(records)
        group = nodes.tgroup(cols=len(header))
        group += [nodes.colspec(colwidth=1) for _ in header]
        group += nodes.thead("", self.row(header, code=False))
        body = nodes.tbody()
        for _, equal in groupby(rows, key=lambda row: row[:shared]):
            first, *others = equal
            row = self.row(first, code=True)
            row["classes"] += ["published"] * bool(shared)  # the style draws a line above it
            if others:
                for entry in row[:shared]:
                    entry["morerows"] = len(others)
            body += [row, *(self.row(other[shared:], code=True) for other in others)]
        group += body
        columns = "".join(f"\\X{{{width}}}{{{sum(widths)}}}" for width in widths)
        return [
            addnodes.tabular_col_spec(spec=columns),
            nodes.table(
                "", group, classes=["results", "longtable"]
            ),  # on as many pages as it needs
        ]

    def row(self, cells: list[str], *, code: bool) -> nodes.row:
        """One row of cells in Markdown; the last one is code, if that is asked for."""
        row = nodes.row()
        for index, cell in enumerate(cells):
            is_code = code and index == len(cells) - 1
            # A number, its error and its unit stay on one line.
            text = (
                f"`{cell}`"
                if is_code
                else re.sub(
                    r"(?<=\d) (?=s\b|min\b|CPU|cores?\b|nats|bits|±)|(?<=±) ", "\u00a0", cell
                )
            )
            inline, messages = self.state.inline_text(text, self.lineno)
            row += nodes.entry("", nodes.paragraph("", "", *inline), *messages)
        return row


def setup(app: Sphinx) -> dict[str, bool | str]:
    app.add_directive("results-table", ResultsTable)
    return {"version": "1", "parallel_read_safe": True}
