"""Several runs of grading on one page: what classes, or the years of one course, did with each question."""

import json
import math
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from course_lib.grading.report.page import page, question_name
from course_lib.grading.text import escaped

# How a question ended for a student, and the grey level that it is drawn in, from best to worst.
ENDS = {
    "full": ("full marks", 32),
    "part": ("a part", 58),
    "none": ("nothing", 80),
    "not answered": ("not answered", 93),
    "to be graded": ("to be graded", 100),
}
BINS = 10  # of the histogram of points


@dataclass(frozen=True)
class Run:
    """What one run of grading has counted.

    Attributes:
        name: what tells it from the others.
        summary: what ``summary.json`` holds.
    """

    name: str
    summary: dict

    @property
    def students(self) -> int:
        """Number of students."""
        return self.summary["submissions"]

    def ends(self, question: str) -> dict[str, int] | None:
        """How many students ended a question in which way; None if the run had no such question."""
        found = [row for row in self.summary["questions"] if row["name"] == question]
        if not found:
            return None
        counts = {end: found[0].get(end, 0) for end in ENDS if end != "none"}
        return {end: counts.get(end, self.students - sum(counts.values())) for end in ENDS}

    def mistakes(self) -> dict[tuple[str, str], int]:
        """How many students made which mistake, by question and mistake."""
        return {
            (row["question"], row["mistake"]): row["students"] for row in self.summary["mistakes"]
        }


def read_runs(folders: list[Path]) -> list[Run]:
    """The runs in some output folders of ``course-lib assignment grade``.

    Args:
        folders: the folders, in the order in which they are to be shown.

    Returns:
        The runs; each is called by what its path has that the others have not.

    Raises:
        FileNotFoundError: a folder has no summary.
        ValueError: a summary is damaged, a folder is named twice, or the runs are of several assignments.
    """
    if len({folder.resolve() for folder in folders}) < len(folders):
        raise ValueError("a folder is named twice; each run is to be compared with others.")
    summaries = []
    for folder in folders:
        path = folder / "summary.json"
        try:
            summary = json.loads(path.read_text(encoding="utf-8"))
            _require_summary(summary)
        except (FileNotFoundError, NotADirectoryError):
            raise FileNotFoundError(
                f"{path} is missing; the output folder of a finished course-lib assignment grade is expected."
            ) from None
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(
                f"{path} is damaged ({error!r}); grade again to write it anew."
            ) from None
        summaries.append(summary)
    names = {summary["assignment"] for summary in summaries}
    if len(names) > 1:
        raise ValueError(
            f"the runs are of several assignments: {', '.join(sorted(names))}; compare one at a time."
        )
    return [
        Run(name, summary) for name, summary in zip(_short_names(folders), summaries, strict=True)
    ]


def _require_summary(summary: dict) -> None:
    """Require what the page reads; raise `KeyError`, `TypeError` or `ValueError` otherwise."""
    texts = [summary["assignment"]]
    numbers = [summary["submissions"], summary["possible"], *summary["points"]]
    for row in summary["questions"]:
        texts.append(row["name"])
        numbers += [row.get(end, 0) for end in ENDS]
    for row in summary["mistakes"]:
        texts += [row["question"], row["mistake"]]
        numbers.append(row["students"])
    for text in texts:
        if not isinstance(text, str):
            raise TypeError(f"{text!r} is not a text")
    for number in numbers:
        if not isinstance(number, int | float) or not math.isfinite(number):
            raise TypeError(f"{number!r} is not a number")


def require_apart(output: Path, folders: list[Path]) -> None:
    """Require a file that is none of a run's own; raise `ValueError` otherwise."""
    for folder in folders:
        if output.resolve().is_relative_to(folder.resolve()):
            raise ValueError(
                f"the page would be written to {output}, among the files of the run in {folder}; another "
                f"folder is expected. Name one by --output."
            )


def _short_names(folders: list[Path]) -> list[str]:
    """Paths without the parts that all of them have in front and at the end."""
    parts = [list(folder.resolve().parts) for folder in folders]
    for end in (0, -1):
        while all(len(one) > 1 for one in parts) and len({one[end] for one in parts}) == 1:
            for one in parts:
                one.pop(end)
    return ["/".join(one) for one in parts]


def runs_page(runs: list[Run], title: str) -> str:
    """The page.

    Args:
        runs: in the order of the page.
        title: of the assignment.

    Returns:
        One HTML file without scripts or foreign requests.
    """
    parts = [f"<h1>{escaped(title)}: {len(runs)} runs</h1>", "<h2>Points</h2>"]
    for run in runs:
        possible, points = run.summary["possible"], run.summary["points"]
        mean = sum(points) / max(len(points), 1)
        parts.append(
            f"<h3>{escaped(run.name)}</h3><p>{run.students} students; "
            f"{mean:.2f} of {possible:g} points on average.</p>{_histogram(points, possible)}"
        )
    parts += ["<h2>Questions</h2>", _legend()]
    questions = list(dict.fromkeys(row["name"] for run in runs for row in run.summary["questions"]))
    for question in questions:
        rows = "".join(
            f'<tr><td class="comment">{escaped(run.name)}</td><td>{_bar(run.ends(question))}</td></tr>'
            for run in runs
        )
        parts.append(f"<h3>{question_name(question)}</h3><table>{rows}</table>")
    parts.append(f"<h2>Most frequent misconceptions</h2>{_mistakes(runs)}")
    return page(f"{title}: {len(runs)} runs", "".join(parts))


def _mistakes(runs: list[Run]) -> str:
    counts = [run.mistakes() for run in runs]
    shares = {
        key: [
            count.get(key, 0) / max(run.students, 1)
            for run, count in zip(runs, counts, strict=True)
        ]
        for count in counts
        for key in count
    }
    if not shares:
        return "<p>None.</p>"
    head = "".join(f'<th class="number comment">{escaped(run.name)}</th>' for run in runs)
    rows = []
    # The most frequent on average over the runs first: a small class counts as much as a large one.
    for key in sorted(shares, key=lambda key: (-sum(shares[key]), key)):
        question, mistake = key
        cells = "".join(
            f'<td class="number">{count.get(key, 0)} ({share:.0%})</td>'
            for count, share in zip(counts, shares[key], strict=True)
        )
        rows.append(
            f'<tr><td>{question_name(question)}</td><td class="comment">{escaped(mistake)}</td>{cells}</tr>'
        )
    return (
        f'<table class="counts"><tr><th>Question</th><th>Misconception</th>{head}</tr>{"".join(rows)}</table>'
        "<p>Students who made it, and their share of the run.</p>"
    )


def _said(ends: dict[str, int]) -> str:
    return ", ".join(f"{ENDS[end][0]}: {count}" for end, count in ends.items() if count)


def _rectangle(x: float, y: float, width: float, height: float, lightness: int) -> str:
    return (
        f'<rect x="{x:.2f}" y="{y:.2f}" width="{width:.2f}" height="{height:.2f}" '
        f'fill="hsl(210 60% {lightness}%)" stroke="#555" stroke-width="0.5"/>'
    )


def _bar(ends: dict[str, int] | None) -> str:
    """The shares of the ends as one bar, with the counts below it."""
    if ends is None:
        return "not asked"
    total, at, drawn = max(sum(ends.values()), 1), 0.0, []
    for end, count in ends.items():
        width = 300 * count / total
        drawn.append(_rectangle(at, 0, width, 14, ENDS[end][1]) if count else "")
        at += width
    said = _said(ends) or "nobody"
    return (
        f'<svg viewBox="0 0 300 14" width="100%" height="14" preserveAspectRatio="none" role="img" '
        f'aria-label="{escaped(said)}">{"".join(drawn)}</svg><br>{escaped(said)}'
    )


def _legend() -> str:
    entries = "".join(
        f'<svg viewBox="0 0 14 14" width="14" height="14" aria-hidden="true">'
        f"{_rectangle(0, 0, 14, 14, lightness)}</svg> {escaped(text)} &nbsp; "
        for text, lightness in ENDS.values()
    )
    return f"<p>{entries}</p>"


def _histogram(points: list[float], possible: float) -> str:
    """How many students have how many points, in tenths of what can be reached."""
    counts = [0] * BINS
    for value in points:
        counts[min(int(BINS * value / possible), BINS - 1) if possible else 0] += 1
    high = max([*counts, 1])
    bars = "".join(
        _rectangle(30 * place, 60 - 56 * count / high, 28, 56 * count / high, 58)
        for place, count in enumerate(counts)
    )
    edges = [possible * place / BINS for place in range(BINS + 1)]
    said = ", ".join(
        f"{left:g} to {right:g} points: {count}"
        for (left, right), count in zip(pairwise(edges), counts, strict=True)
        if count
    )
    text = escaped(said or "nobody")
    return (
        f'<svg viewBox="0 0 300 61" width="300" height="61" role="img" aria-label="{text}">'
        f'{bars}<path d="M0 60.5H300" stroke="currentColor"/></svg><br>{text}'
    )
