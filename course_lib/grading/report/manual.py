"""Points that a person gives: the table to fill in, and the page to read beside it."""

import csv
import hashlib
import io
from pathlib import Path

from course_lib.grading.judge import NOT_FOUND, GradingRecord
from course_lib.grading.question import Assignment, Written
from course_lib.grading.report.page import link_to_feedback, page
from course_lib.grading.tables import read_table
from course_lib.grading.text import cell, escaped, shortened

# A person fills in `points` and `comment`; the others are written anew at every run, except that
# clearing `version` says that the answer as it is now has been read.
COLUMNS = (
    *("student", "question", "points", "possible", "comment"),
    *("answer", "rubric", "page", "version"),
)
# In a cell of a table, of which spreadsheets take 32,767; and on the page.
ANSWER_IN_TABLE = 5_000
ANSWER_ON_PAGE = 20_000
PRINTED_ON_PAGE = 4_000
LOOK = "LOOK INTO THE NOTEBOOK, the cell was not found. "

Key = tuple[str, str]  # the cell of a student, and the name of a question
Row = dict[str, str]


def read_manual(assignment: Assignment, output: Path) -> dict[Key, Row]:
    """Read the rows of ``manual.csv``, also of one that was written by an earlier version.

    Raises:
        ValueError: it is not a table of the expected columns, or a row is not understood.
    """
    path = output / "manual.csv"
    if not path.exists():
        return {}
    written = [question.name for question in _written(assignment)]
    table = read_table(path)
    header = _header(path, table[0][1] if table else [])
    rows: dict[Key, Row] = {}
    for number, cells in table[1:]:
        row = dict.fromkeys(COLUMNS, "") | dict(zip(header, cells, strict=False))
        row.pop("", None)  # a column without a name
        key = row["student"], row["question"]
        if len(cells) < 3 or any(cells[len(header) :]) or row["question"] not in written:
            raise ValueError(
                f"{path}, row {number}: {shortened(str(cells), 300)} is not understood; "
                f"{', '.join(header)} are expected, with a question among {', '.join(written)}"
            )
        if _points_differ(rows.get(key), row):
            raise ValueError(
                f"{path}, row {number}: there are two rows with points for {', '.join(key)}; "
                f"keep one and call the command again"
            )
        if key not in rows or row["points"].strip():
            rows[key] = row
    return rows


def recognised(
    rows: dict[Key, Row], records: list[GradingRecord], assignment: Assignment
) -> dict[Key, Row]:
    """The rows, with the names back that a spreadsheet took for a number or a date (``007``, ``1-2``).

    A row whose name is nobody's is told by its place on the page, which is another text for everyone.
    Where it would meet another row with points, it is left as it is.
    """
    known = {cell(record.student) for record in records}
    places = {
        _place(record, question): (cell(record.student), question.name)
        for record in records
        for question in _written(assignment)
    }
    found: dict[Key, Row] = {}
    for key, row in rows.items():
        meant = key if key[0] in known else places.get(row["page"].strip(), key)
        if any(_points_differ(other, row) for other in (rows.get(meant), found.get(meant))):
            meant = key
        if meant not in found or row["points"].strip():
            found[meant] = row
    return found


def points_given(rows: dict[Key, Row], assignment: Assignment) -> dict[Key, tuple[float, str]]:
    """The points and the comment of every row that a person has filled in.

    Raises:
        ValueError: points are not a number, or more than the question is worth.
    """
    worth = {question.name: question.points for question in _written(assignment)}
    given = {}
    for (student, name), row in rows.items():
        if row["points"].strip():
            try:
                points = float(row["points"].replace(",", "."))
            except ValueError:
                points = float("nan")
            if not 0 <= points <= worth[name]:
                raise ValueError(
                    f"manual.csv: {row['points']!r} points for {student}, {name}; a number from 0 to "
                    f"{worth[name]:g} is expected. Correct it and call the command again."
                )
            given[student, name] = (points, row["comment"])
    return given


def changed_answers(rows: dict[Key, Row], records: list[GradingRecord]) -> list[Key]:
    """Whose points were given to another answer than the present one."""
    known = {cell(record.student): record for record in records}
    return [
        (student, name)
        for (student, name), row in rows.items()
        if student in known
        and row["points"].strip()
        and row["version"].strip() not in ("", _version(known[student], name))
    ]


def manual_table(rows: dict[Key, Row], records: list[GradingRecord], assignment: Assignment) -> str:
    """``manual.csv``: what a person has entered, and a row for every answer that waits."""
    rows = {key: dict(row) for key, row in rows.items()}
    for record in records:
        for question in _written(assignment):
            key = cell(record.student), question.name
            answer = record.answers.get(question.name, "")
            if answer:
                rows.setdefault(key, dict.fromkeys(COLUMNS, ""))
            if key in rows:
                row, version = rows[key], _version(record, question.name)
                row["student"], row["question"] = key
                row["possible"] = f"{question.points:g}"
                row["answer"] = cell(shortened(answer, ANSWER_IN_TABLE))
                row["rubric"] = (LOOK if answer == NOT_FOUND else "") + question.rubric
                row["page"] = _place(record, question) if answer else ""
                if not row["points"].strip() or not row["version"].strip():
                    row["version"] = version
    text = io.StringIO(newline="")
    # A person may have added columns.
    columns = dict.fromkeys([*COLUMNS, *(name for row in rows.values() for name in row)])
    table = csv.DictWriter(text, list(columns), restval="")
    table.writeheader()
    table.writerows(rows.values())
    return text.getvalue()


def reading_page(records: list[GradingRecord], assignment: Assignment) -> str:
    """``manual.html``: every answer in words, with what its notebook printed when it was graded.

    For the instructor alone: what a notebook prints may tell of hidden inputs.
    """
    parts = [f"<h1>{escaped(assignment.title)}: answers in words</h1>"]
    parts.append("<p>Points and comments are entered into <code>manual.csv</code>.</p>")
    for question in _written(assignment):
        parts.append(f"<h2>{escaped(question.name)}, {question.points:g} points</h2>")
        parts.append(f"<p>{escaped(question.rubric)}</p>")
        for record in records:
            if answer := record.answers.get(question.name):
                anchor = _anchor(record, question)
                parts.append(f'<h3 id="{anchor}">{link_to_feedback(record.student)}</h3>')
                parts.append(f"<pre>{escaped(shortened(answer, ANSWER_ON_PAGE))}</pre>")
                printed = escaped(shortened(record.output, PRINTED_ON_PAGE))
                parts.append(f"<details><summary>Printed</summary><pre>{printed}</pre></details>")
    return page(f"{assignment.title}: answers in words", "".join(parts))


def _header(path: Path, cells: list[str]) -> list[str]:
    header = [name.strip("\ufeff \t").lower() for name in cells]
    if "version" not in header:  # as earlier versions wrote it, with the digest in this column
        header = ["version" if name == "answer" else name for name in header]
    missing = [name for name in COLUMNS[:3] + COLUMNS[4:5] if header.count(name) != 1]
    if missing:
        raise ValueError(
            f"{path}: its first row is {shortened(str(cells), 300)}, without a column "
            f"{', '.join(missing)}; restore the names of the columns and call the command again"
        )
    return header


def _points_differ(one: Row | None, other: Row) -> bool:
    points = {row["points"].strip() for row in (one, other) if row is not None}
    return len(points - {""}) > 1


def _version(record: GradingRecord, name: str) -> str:
    """Digest of an answer; the letter in front keeps a spreadsheet from taking it for a number."""
    answer = record.answers.get(name, "")
    # What a person found in a notebook whose cell was lost belongs to that notebook.
    text = record.key if answer == NOT_FOUND else answer
    return "a" + hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:10]


def _anchor(record: GradingRecord, question: Written) -> str:
    return "a" + hashlib.sha256(f"{question.name}\0{record.student}".encode()).hexdigest()[:12]


def _place(record: GradingRecord, question: Written) -> str:
    """Where an answer stands, as it is written into the table."""
    return f"manual.html#{_anchor(record, question)}"


def _written(assignment: Assignment) -> list[Written]:
    return [question for question in assignment.questions if isinstance(question, Written)]
