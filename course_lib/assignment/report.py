"""What an instructor and a student get to read: a table, a page each, and a summary of the class."""

import csv
import hashlib
import html
import io
import json
import sys
from collections import Counter
from pathlib import Path

from course_lib.assignment.judge import NOT_FOUND, Record, Verdict
from course_lib.assignment.question import Assignment, Written

STYLE = """
:root { color-scheme: light dark; }
body { font: 16px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 56rem; padding: 0 1rem; }
table { border-collapse: collapse; width: 100%; }
th, td { border-bottom: 1px solid #8886; padding: .4rem .6rem; text-align: left; vertical-align: top; }
td.number, th.number { text-align: right; }
td.number { white-space: nowrap; }
meter { width: 8rem; }
td.comment { overflow-wrap: anywhere; }
@media (max-width: 40rem) {
  th, td { padding: .4rem .2rem; }
  meter { width: 2rem; }
}
pre { overflow: auto; padding: .6rem; background: #8882; white-space: pre-wrap; }
.note { border-left: .3rem solid #c60; padding: .2rem .8rem; }
"""
UNSAFE = "Graded without isolation (--sandbox none): the points can be forged by hostile code."


def write_reports(records: list[Record], assignment: Assignment, output: Path) -> dict[str, Path]:
    """Write ``grades.csv``, ``manual.csv``, ``feedback/<student>.html`` and ``summary.html``.

    Points for written questions are read from ``manual.csv``, which a person fills in; what stands
    there is kept. Points belong to the answer that was read: if the student has handed in another
    one since, they do not count until the person has cleared the row's last cell.

    Returns:
        The paths, by name.
    """
    given, changed = _manual(records, assignment, output / "manual.csv")
    feedback = output / "feedback"
    feedback.mkdir(exist_ok=True)
    for record in records:
        for verdict in record.verdicts:
            if (_cell(record.student), verdict.name) in given:
                points, comment = given[_cell(record.student), verdict.name]
                verdict.points = points
                verdict.comment = comment or verdict.comment
        page = feedback_page(record, assignment)
        (feedback / f"{record.student}.html").write_text(page, encoding="utf-8")
    _grades(records, assignment, output / "grades.csv")
    summary = summarize(records, assignment)
    summary["look at"] += [
        {"student": student, "why": f"{name}: another answer than the one that was given points"}
        for student, name in changed
    ]
    (output / "summary.json").write_text(json.dumps(summary, indent=1), encoding="utf-8")
    (output / "summary.html").write_text(summary_page(summary, assignment), encoding="utf-8")
    return {
        "grades": output / "grades.csv",
        "feedback": feedback,
        "summary": output / "summary.html",
        "manual": output / "manual.csv",
    }


def feedback_page(record: Record, assignment: Assignment) -> str:
    """One student's page: points and comment of every question, and the cells that failed."""
    parts = [f"<h1>{_escape(assignment.title)}</h1>"]
    open_points = sum(v.possible for v in record.verdicts if v.points is None)
    parts.append(
        f"<p><strong>{_escape(record.student)}</strong>: {record.points:g} of {assignment.points:g} points"
        + (f"; {open_points:g} more are graded by a person" if open_points else "")
        + ".</p>"
    )
    if record.sandbox == "none":
        parts.append(f'<p class="note">{UNSAFE}</p>')
    if record.fault:
        parts.append(f'<p class="note">Nothing could be graded: {_escape(record.fault)}.</p>')
    rows = "".join(
        f"<tr><td>{_name(v.name)}</td>"
        f'<td class="number">{"–" if v.points is None else f"{v.points:g}"} of {v.possible:g}</td>'
        f'<td class="comment">{_escape(v.comment)}</td></tr>'
        for v in record.verdicts
    )
    parts.append(
        '<table><caption>Questions</caption><tr><th>Question</th><th class="number">Points</th>'
        f"<th>Comment</th></tr>{rows}</table>"
    )
    if record.errors:
        items = "".join(
            f"<li>Code cell {number + 1}: <code>{_escape(text)}</code></li>"
            for number, text in record.errors
        )
        parts.append(
            "<h2>Cells that did not run to their end</h2><p>Checks of unsolved questions are "
            f"among them.</p><ul>{items}</ul>"
        )
    for question in assignment.questions:
        if isinstance(question, Written) and record.answers.get(question.name):
            parts.append(f"<h2>Your answer to {_escape(question.name)}</h2>")
            parts.append(f"<pre>{_escape(record.answers[question.name])}</pre>")
    parts.append(
        f"<p>Graded in {record.seconds:.0f} s; at most {record.memory / 2**20:.0f} MiB of memory "
        "were used.</p>"
    )
    return _page(f"{assignment.title}: {record.student}", "".join(parts))


def summarize(records: list[Record], assignment: Assignment) -> dict:
    """Counts per question, the most common mistakes, and what a person should look at."""
    questions = []
    for index, question in enumerate(assignment.questions):
        verdicts = [record.verdicts[index] for record in records]
        questions.append(
            {
                "name": question.name,
                "points": question.points,
                "full": sum(v.points == v.possible for v in verdicts),
                "not answered": sum(v.comment == "not answered" for v in verdicts),
                "to be graded": sum(v.points is None for v in verdicts),
                "mean": sum(v.points or 0 for v in verdicts) / max(len(verdicts), 1),
            }
        )
    mistakes = Counter(
        (verdict.name, verdict.mistake)
        for record in records
        for verdict in record.verdicts
        if verdict.mistake
    )
    return {
        "assignment": assignment.name,
        "submissions": len(records),
        "points": [record.points for record in records],
        "possible": assignment.points,
        "questions": questions,
        "mistakes": [
            {"question": name, "mistake": mistake, "students": count}
            for (name, mistake), count in mistakes.most_common()
        ],
        "look at": [
            {"student": record.student, "why": why}
            for record in records
            for why in _concerns(record)
        ],
        "seconds": sum(record.seconds for record in records),
    }


def summary_page(summary: dict, assignment: Assignment) -> str:
    """The class on one page."""
    n = summary["submissions"]
    mean = sum(summary["points"]) / max(n, 1)
    parts = [
        f"<h1>{_escape(assignment.title)}: summary</h1>",
        f"<p>{n} submissions; {mean:.2f} of {assignment.points:g} points on average.</p>",
        '<table><caption>Questions</caption><tr><th>Question</th><th class="number">Points</th>'
        '<th class="number">Mean</th><th>Full marks</th><th class="number">Not answered</th>'
        '<th class="number">To be graded</th></tr>',
    ]
    for q in summary["questions"]:
        label = _escape(f"{q['full']} of {n} have full marks")
        parts.append(
            f"<tr><td>{_name(q['name'])}</td>"
            f'<td class="number">{q["points"]:g}</td><td class="number">{q["mean"]:.2f}</td>'
            f'<td><meter min="0" max="{max(n, 1)}" value="{q["full"]}" aria-label="{label}"></meter> '
            f'{q["full"]}</td><td class="number">{q["not answered"]}</td>'
            f'<td class="number">{q["to be graded"]}</td></tr>'
        )
    parts.append("</table>")
    for title, key, fields in (
        ("Most common mistakes", "mistakes", ("question", "mistake", "students")),
        ("To be looked at by a person", "look at", ("student", "why")),
    ):
        head = "".join(f"<th>{_escape(name)}</th>" for name in fields)
        rows = "".join(
            "<tr>" + "".join(f"<td>{_escape(str(row[name]))}</td>" for name in fields) + "</tr>"
            for row in summary[key]
        )
        table = f"<table><tr>{head}</tr>{rows}</table>" if rows else "<p>None.</p>"
        parts.append(f"<h2>{title}</h2>{table}")
    return _page(f"{assignment.title}: summary", "".join(parts))


def _concerns(record: Record) -> list[str]:
    found = [record.fault] if record.fault else []
    found += record.notes
    found += [f"{v.name}: {v.comment}" for v in record.verdicts if v.suspicious]
    found += [f"{name}: {text}" for name, text in record.answers.items() if text == NOT_FOUND]
    found += [f"cell {number + 1}: {text}" for number, text in record.errors if "left out" in text]
    return found


def _grades(records: list[Record], assignment: Assignment, path: Path) -> None:
    names = [question.name for question in assignment.questions]
    with path.open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(["student", "points", "possible", *names, "status", "sandbox"])
        for record in records:
            points = ["" if v.points is None else f"{v.points:g}" for v in record.verdicts]
            status = record.fault or ("to be graded" if "" in points else "graded")
            table.writerow(
                [
                    _cell(record.student),
                    f"{record.points:g}",
                    f"{assignment.points:g}",
                    *points,
                    _cell(status),
                    record.sandbox,
                ]
            )


def _manual(
    records: list[Record], assignment: Assignment, path: Path
) -> tuple[dict[tuple[str, str], tuple[float, str]], list[tuple[str, str]]]:
    """Read what a person gave for written questions, and write rows for what is still missing.

    Returns:
        Points and comment by student and question; and the students and questions whose points were
        given to another answer than the present one.

    Raises:
        ValueError: a row is not understood; its points are no number, or more than the question is worth.
    """
    kept: dict[tuple[str, str], list[str]] = {}
    written = {q.name: q for q in assignment.questions if isinstance(q, Written)}
    if path.exists():
        try:
            text = path.read_bytes().decode("utf-8-sig")
        except UnicodeDecodeError as error:
            raise ValueError(
                f"{path} is no UTF-8 text (byte {error.start}); save it again, in a spreadsheet as "
                f"“CSV UTF-8”, and call the command again"
            ) from error
        # Spreadsheets of some countries write semicolons.
        separator = ";" if ";" in text.partition("\n")[0] else ","
        lines = io.StringIO(text, newline="")  # a comment may have several
        for number, row in enumerate(csv.reader(lines, delimiter=separator), start=1):
            if number == 1 or not any(row):
                continue
            if len(row) < 5 or row[1] not in written:
                raise ValueError(
                    f"{path}, row {number}: {row} is not understood; student, question, points, "
                    f"possible and comment are expected, with a question among {', '.join(written)}"
                )
            kept[row[0], row[1]] = row
    changed = []
    for record in records:
        for name, question in written.items():
            student, answer = _cell(record.student), record.answers.get(name, "")
            if answer:
                look = (
                    "LOOK INTO THE NOTEBOOK, the cell was not found. "
                    if answer == NOT_FOUND
                    else ""
                )
                new = [student, name, "", f"{question.points:g}", "", look + question.rubric]
                kept.setdefault((student, name), new)
            if (student, name) in kept:
                row = kept[student, name]
                row += [""] * (7 - len(row))  # as a file without the last column has it
                # What a person found in a notebook whose cell was lost belongs to that notebook.
                digest = _digest(record.key if answer == NOT_FOUND else answer)
                if not row[2].strip() or not row[6].strip():
                    row[6] = digest
                elif row[6] != digest:
                    changed.append((student, name))
    # With the mark by which spreadsheets know UTF-8: this table is edited in one.
    with path.open("w", newline="", encoding="utf-8-sig") as file:
        table = csv.writer(file)
        table.writerow(["student", "question", "points", "possible", "comment", "rubric", "answer"])
        table.writerows(kept.values())
    given = {}
    for (student, name), row in kept.items():
        if row[2].strip():
            try:
                points = float(row[2].replace(",", "."))
            except ValueError:
                points = float("nan")
            if not 0 <= points <= written[name].points:
                raise ValueError(
                    f"{path}: {row[2]!r} points for {student}, {name}; a number from 0 to "
                    f"{written[name].points:g} is expected. Correct it and call the command again."
                )
            given[student, name] = (points, row[4])
    strangers = {student for student, _ in given} - {_cell(record.student) for record in records}
    if strangers:
        print(
            f"{path}: there are points for {', '.join(sorted(strangers))}, and no submission of that "
            f"name; nobody gets them. A spreadsheet that takes names for numbers drops leading zeros.",
            file=sys.stderr,
        )
    for student, name in changed:
        del given[student, name]
        print(
            f"{path}: the answer of {student} to {name} is another one than that which was given points. "
            f"Read it, correct the points, clear the cell “answer” of the row and call the command again.",
            file=sys.stderr,
        )
    return given, changed


def _digest(answer: str) -> str:
    """Of an answer in words; the letter in front keeps a spreadsheet from taking it for a number."""
    return "a" + hashlib.sha256(answer.encode("utf-8", "surrogatepass")).hexdigest()[:10]


def _cell(text: str) -> str:
    """Keep a spreadsheet from taking a student's text for a formula."""
    return f"'{text}" if text[:1] in "=+-@\t\r" else text


def _name(text: str) -> str:
    """A question's name, which a narrow page may break where its words end."""
    return _escape(text).replace("_", "_<wbr>")


def _escape(text: str) -> str:
    return html.escape(text, quote=True)


def _page(title: str, body: str) -> str:
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{_escape(title)}</title><style>{STYLE}</style></head><body><main>{body}</main></body></html>\n"
    )


__all__ = ["Verdict", "feedback_page", "summarize", "summary_page", "write_reports"]
