"""Finds the answer to a question in words, wherever in the notebook the student has put it."""

import re
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import nbformat

from course_lib.grading.question import Written
from course_lib.grading.release import TEXT_STUB, marks, student_version

# Comments of a cell that also computes something are an answer only if they say more than that.
REMARK_WORDS = 12
# Longer code is not an answer in words, and the search for texts in it could take for ever.
REMARK_CODE = 20_000
STUB = re.compile(rf"\W*{TEXT_STUB}\W*", re.IGNORECASE)
# A text between triple quotes that nothing is done with.
TEXT = re.compile(
    r"^[ \t]*(?P<quote>\"{3}|'{3})(?P<text>.*?)(?P=quote)[ \t]*$", re.MULTILINE | re.DOTALL
)
IMAGE = ("![", "<img", "attachment:")


@dataclass(frozen=True)
class Answer:
    """What a person reads as the answer.

    Attributes:
        text: the answer; empty if there is none.
        doubt: why a person should look into the notebook; empty if the text is all there is.
    """

    text: str
    doubt: str = ""


def written_answer(
    cells: list[dict[str, Any]], question: Written, given: frozenset[str]
) -> Answer | None:
    """Read the answer to a question in words.

    All cells that carry the question's name count, in order, without what is left of the stub. If they
    hold nothing, text beside them is taken that the notebook was not handed out with, and a person is
    asked to look.

    Args:
        cells: the notebook's, as `course_lib.grading.notebook.read_notebook` returns them.
        question: the question.
        given: the lines of the notebook that was handed out; see `lines_handed_out`.

    Returns:
        The answer, or ``None`` if no cell carries the question's name, as in a notebook that has lost
        its metadata: then a person has to look.
    """
    own = [i for i, cell in enumerate(cells) if marks(cell).get("grade_id") == question.name]
    if not own:
        return None
    image = any(_has_image(cells[i]) for i in own)
    parts = [_without_stub(cells[i]["source"]) for i in own]
    text = "\n\n".join(dict.fromkeys(part for part in parts if part))  # a copy says nothing new
    beside = [i for i in _neighbours(cells, own) if i not in own]
    if text:
        after = [_added(cells[i], given) for i in beside if i > own[0] and not _is_code(cells[i])]
        if more := "\n\n".join(part for part in after if part):
            text += f"\n\n(In cells beside that of the answer:)\n\n{more}"
        return Answer(text, "it holds an image, which only the notebook shows" if image else "")
    added = [_added(cells[i], given) for i in beside]
    if text := "\n\n".join(part for part in added if part):
        doubt = "the cell of the answer is as it was handed out, and this text stands beside it"
        return Answer(text, doubt)
    if image or any(_has_image(cells[i]) for i in beside if not _is_code(cells[i])):
        return Answer("(An image.)", "it holds an image, which only the notebook shows")
    return Answer("")


def lines_handed_out(master: Path) -> frozenset[str]:
    """The lines of the notebook that students get, by which what they add is told from it.

    Each is without the spaces around it.
    """
    return _lines_handed_out(master, master.stat().st_mtime_ns)


@lru_cache
def _lines_handed_out(master: Path, changed: int) -> frozenset[str]:
    cells = student_version(nbformat.read(master, as_version=4)).cells
    return frozenset(line.strip() for cell in cells for line in cell.source.splitlines())


def _has_image(cell: dict[str, Any]) -> bool:
    text = cell["source"].lower()
    return bool(cell.get("attachments")) or any(sign in text for sign in IMAGE)


def _without_stub(text: str) -> str:
    lines = [line for line in text.splitlines() if not STUB.fullmatch(line)]
    return "\n".join(lines).strip()


def _neighbours(cells: list[dict[str, Any]], own: list[int]) -> range:
    """The cells from the graded cell of the question before to that of the question behind."""
    graded = {i for i, cell in enumerate(cells) if marks(cell).get("grade")} - {*own}
    first = max((i + 1 for i in graded if i < own[0]), default=0)
    last = min((i for i in graded if i > own[-1]), default=len(cells))
    return range(first, last)


def _is_code(cell: dict[str, Any]) -> bool:
    return cell.get("cell_type") == "code"


def _added(cell: dict[str, Any], given: frozenset[str]) -> str:
    """The words of a cell that the notebook was not handed out with."""
    if _is_code(cell) and len(cell["source"]) > REMARK_CODE:
        return ""
    source = _without_stub(cell["source"])
    code = False
    if _is_code(cell):
        source, code = _remarks(source)
    added = "\n".join(line for line in source.splitlines() if line.strip() not in given).strip()
    return "" if code and len(added.split()) < REMARK_WORDS else added


def _remarks(source: str) -> tuple[str, bool]:
    """The comments of code, and the texts that stand for themselves; and whether there is more."""
    texts = [match["text"] for match in TEXT.finditer(source)]
    rest = [line.strip() for line in TEXT.sub("", source).splitlines() if line.strip()]
    comments = [line for line in rest if line.startswith("#")]
    return "\n".join([*comments, *texts]), len(comments) < len(rest)
