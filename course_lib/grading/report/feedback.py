"""The page that a student gets."""

from course_lib.grading.judge import GradingRecord, Verdict
from course_lib.grading.question import Assignment, Written
from course_lib.grading.report.page import UNSAFE, page, question_name
from course_lib.grading.text import escaped, shortened

ERRORS_SHOWN = 20
ANSWER_SHOWN = 20_000


def feedback_page(record: GradingRecord, assignment: Assignment) -> str:
    """One student's page: points and comment of every question, and the cells that failed."""
    parts = [f"<h1>{escaped(assignment.title)}</h1>"]
    open_points = sum(v.possible for v in record.verdicts if v.points is None)
    parts.append(
        f"<p><strong>{escaped(record.student)}</strong>: {record.points:g} of {assignment.points:g} points"
        + (f"; {open_points:g} more are graded by a person" if open_points else "")
        + ".</p>"
    )
    if record.sandbox == "none":
        parts.append(f'<p class="note">{UNSAFE}</p>')
    if record.fault:
        parts.append(f'<p class="note">Nothing could be graded: {escaped(record.fault)}.</p>')
    rows = "".join(
        f"<tr><td>{question_name(v.name)}</td>"
        f'<td class="number">{_points(v)}</td>'
        f'<td class="comment">{escaped(v.comment)}</td></tr>'
        for v in record.verdicts
    )
    parts.append(
        '<table><caption>Questions</caption><tr><th>Question</th><th class="number">Points</th>'
        f"<th>Comment</th></tr>{rows}</table>"
    )
    if record.errors:
        items = "".join(
            f"<li>Code cell {number + 1}: <code>{escaped(text)}</code></li>"
            for number, text in record.errors[:ERRORS_SHOWN]
        )
        if len(record.errors) > ERRORS_SHOWN:
            items += "<li>and further cells.</li>"
        parts.append(
            "<h2>Cells that did not run to their end</h2><p>Checks of unsolved questions are "
            f"among them.</p><ul>{items}</ul>"
        )
    for question in assignment.questions:
        if isinstance(question, Written) and record.answers.get(question.name):
            answer = shortened(record.answers[question.name], ANSWER_SHOWN)
            parts.append(f"<h2>Your answer to {escaped(question.name)}</h2>")
            parts.append(f"<pre>{escaped(answer)}</pre>")
    if record.memory:  # nothing has run where nothing could be graded
        parts.append(
            f"<p>Graded in {record.seconds:.0f} s; at most {record.memory / 2**20:.0f} MiB of memory "
            "were used.</p>"
        )
    return page(f"{assignment.title}: {record.student}", "".join(parts))


def _points(verdict: Verdict) -> str:
    if not verdict.possible:
        return "optional"
    return f"{'–' if verdict.points is None else f'{verdict.points:g}'} of {verdict.possible:g}"
