"""The class on one page."""

from collections import Counter

from course_lib.grading.judge import NOT_FOUND, GradingRecord
from course_lib.grading.question import Assignment
from course_lib.grading.report.page import link_to_feedback, page, question_name
from course_lib.grading.text import escaped, one_line

CONCERNS = 10
CONCERN_LENGTH = 300


def summarize(records: list[GradingRecord], assignment: Assignment) -> dict:
    """Counts per question, the most common mistakes, and what a person should look at."""
    questions = []
    for index, question in enumerate(assignment.questions):
        verdicts = [record.verdicts[index] for record in records]
        questions.append(
            {
                "name": question.name,
                "points": question.points,
                "full": sum(v.full for v in verdicts),
                "part": sum(0 < (v.points or 0) < v.possible for v in verdicts),
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
        f"<h1>{escaped(assignment.title)}: summary</h1>",
        f"<p>{n} students; {mean:.2f} of {assignment.points:g} points on average.</p>",
        '<table class="counts"><caption>Questions</caption><tr><th>Question</th>'
        '<th class="number">Points</th>'
        '<th class="number">Mean</th><th>Full marks</th><th class="number">Not answered</th>'
        '<th class="number">To be graded</th></tr>',
    ]
    for q in summary["questions"]:
        what = escaped(f"{q['full']} of {n} have full marks")
        parts.append(
            f"<tr><td>{question_name(q['name'])}</td>"
            f'<td class="number">{q["points"]:g}</td><td class="number">{q["mean"]:.2f}</td>'
            f'<td><meter min="0" max="{max(n, 1)}" value="{q["full"]}" aria-label="{what}"></meter> '
            f'{q["full"]}</td><td class="number">{q["not answered"]}</td>'
            f'<td class="number">{q["to be graded"]}</td></tr>'
        )
    parts.append("</table>")
    for title, key, fields in (
        ("Most common mistakes", "mistakes", ("question", "mistake", "students")),
        ("To be looked at by a person", "look at", ("student", "why")),
    ):
        head = "".join(f"<th{_kind(f)}>{f.capitalize()}</th>" for f in fields)
        rows = "".join(
            "<tr>" + "".join(f"<td{_kind(f)}>{_shown(row, f)}</td>" for f in fields) + "</tr>"
            for row in summary[key]
        )
        table = f"<table><tr>{head}</tr>{rows}</table>" if rows else "<p>None.</p>"
        parts.append(f"<h2>{title}</h2>{table}")
    return page(f"{assignment.title}: summary", "".join(parts))


def _kind(field: str) -> str:
    kinds = {"question": "", "students": ' class="number"'}
    return kinds.get(field, ' class="comment"')


def _shown(row: dict, field: str) -> str:
    if field == "question":
        return question_name(row[field])
    return link_to_feedback(row[field]) if field == "student" else escaped(str(row[field]))


def _concerns(record: GradingRecord) -> list[str]:
    found = ([record.fault] if record.fault else []) + record.notes
    found += [f"{v.name}: {v.comment}" for v in record.verdicts if v.suspicious]
    found += [f"{name}: {text}" for name, text in record.answers.items() if text == NOT_FOUND]
    found += [
        f"code cell {number + 1}: {text}" for number, text in record.errors if "left out" in text
    ]
    return [one_line(text, CONCERN_LENGTH) for text in found[:CONCERNS]]
