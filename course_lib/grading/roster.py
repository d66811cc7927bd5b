"""The list of a class: whose work a file or folder is, and who has handed in nothing."""

import re
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from course_lib.grading.exports import AGAIN, Owner, key, readable, squashed
from course_lib.grading.tables import read_table

# A first row without any of these words is taken for a student, not for a header.
HEADINGS = {
    *("student", "students", "id", "ids", "sid", "identifier", "login", "user", "username"),
    *("number", "name", "email", "mail", "matriculation", "participant", "netid", "uid", "sis"),
}
# What is to be unique in a class; names and sections are not.
UNIQUE = ("student", "github", "canvas", "moodle", "email", "folder", "login")


@dataclass
class Roster:
    """A class.

    Attributes:
        students: the identifiers, in the order of the rows.
        rows: number of the row of each student.
        index: the students that a key (see `course_lib.grading.exports.Owner`) stands for.
    """

    students: list[str] = field(default_factory=list)
    rows: dict[str, int] = field(default_factory=dict)
    index: dict[tuple[str, str], set[str]] = field(default_factory=dict)

    def find(self, owner: Owner) -> tuple[str | None, str]:
        """The student whose work it is, or ``None`` and why there is none."""
        unclear: set[str] = set()
        for kind, text in owner.keys:
            found = self._clones(text) if kind == "clone" else self.index.get((kind, text), set())
            if len(found) == 1:
                return next(iter(found)), ""
            unclear |= found
        if not unclear:
            return None, "not on the roster"
        rows = sorted(self.rows[student] for student in unclear)
        return None, f"not on the roster: the name fits rows {_listed(rows)}"

    def _clones(self, folder: str) -> set[str]:
        """The owners of a clone ``assignment-user``: those with the longest name that ends it."""
        again = AGAIN.sub("", folder)  # GitHub adds a number where the name was taken
        ends = [name[match.end() :] for name in (folder, again) for match in re.finditer("-", name)]
        return next((self.index["github", e] for e in ends if ("github", e) in self.index), set())


def read_roster(path: Path) -> Roster:
    """Read the list of a class: CSV with a header, one student a row.

    The column ``student``, else the first, identifies a student in all tables. All others help to find
    whose work a file or folder is: names, e-mail addresses, folders, Canvas' and Moodle's numbers, users
    of GitHub. Headings are found by what they contain, so what Moodle (grading worksheet), Canvas
    (grade book) and GitHub Classroom export can be given as it is.

    Raises:
        ValueError: the file cannot be read, has no header or nobody in it, or two rows say the same of
            two students; the message names the rows.
    """
    table = read_table(path)
    header = [cell.strip() for cell in table[0][1]] if table else []
    if not any(_words(cell) & HEADINGS for cell in header):
        raise ValueError(
            f"{path}, row 1: {', '.join(header) or 'nothing'} is not a header; a row of headings such as "
            "student,name,email,folder,canvas,github is expected, with the identifier under student"
        )
    names = [cell.casefold() for cell in header]
    first = names.index("student") if "student" in names else 0
    kinds = [_kind(name) for name in names]
    roster, owners = Roster(), {}
    for number, row in table[1:]:
        cells = [_text(cell) for cell in row[: len(header)]] + [""] * (len(header) - len(row))
        student = cells[first]
        if key(student) == "points possible":  # the second row of Canvas' grade book
            continue
        if not student:
            raise ValueError(f"{path}, row {number}: there is nothing under {header[first]!r}")
        if readable(student) != student:
            raise ValueError(
                f"{path}, row {number}: {student!r} holds signs that cannot be seen; remove them"
            )
        for kind, text in {("student", student), *_unique(kinds, cells)}:
            if owners.setdefault((kind, text), number) != number:
                where = "identifier" if kind == "student" else kind
                raise ValueError(
                    f"{path}: rows {owners[kind, text]} and {number} have the same {where} {text!r}; "
                    "each student needs one of their own"
                )
        roster.students.append(student)
        roster.rows[student] = number
        for entry in _keys(kinds, cells, first):
            roster.index.setdefault(entry, set()).add(student)
    if not roster.students:
        raise ValueError(f"{path} names no student; one in each row below the header is expected")
    return roster


def _unique(kinds: list[str], cells: list[str]) -> Iterable[tuple[str, str]]:
    return (
        (kind, key(cell))
        for kind, cell in zip(kinds, cells, strict=True)
        if cell and kind in UNIQUE
    )


def _keys(kinds: list[str], cells: list[str], first: int) -> set[tuple[str, str]]:
    """All by which a row may be found."""
    student = cells[first]
    found = {("student", student), ("identifier", key(student)), ("any", key(student))}
    by_kind = dict(zip(kinds, cells, strict=True))
    for kind, cell in zip(kinds, cells, strict=True):
        if not cell or not kind:
            continue
        found |= {(kind, key(cell)), ("any", key(cell))}
        if kind == "moodle":
            found.add((kind, cell.split()[-1]))
        elif kind == "email":
            found.add(("any", key(cell.partition("@")[0])))
        elif kind == "name":
            found |= {("name", squashed(order)) for order in _orders(cell)}
            found |= {("any", key(order)) for order in _orders(cell)}
    whole = f"{by_kind.get('given', '')} {by_kind.get('family', '')}"
    if whole.strip():
        found |= {("name", squashed(order)) for order in _orders(whole)}
        found.add(("any", key(whole)))
        found.add(("name", squashed(f"{by_kind.get('family', '')} {by_kind.get('given', '')}")))
    return {(kind, text) for kind, text in found if text}


def _orders(name: str) -> list[str]:
    """A name as it is written, with the last word first (Canvas) and with the first one last."""
    family, comma, given = name.partition(",")
    words = (f"{given} {family}" if comma else name).split()
    return [
        " ".join(words),
        " ".join(words[-1:] + words[:-1]),
        " ".join(words[1:] + words[:1]),
        name,
    ]


def _kind(heading: str) -> str:
    """What a column holds; empty if it tells nothing about whose work a file is."""
    for kind, sign in (
        ("github", "git"),
        ("canvas", "canvas|^id$"),
        ("moodle", "moodle|participant"),
        ("email", "mail"),
        ("folder", "folder|^files?$|^file ?name$"),
        ("login", "user|login"),
        ("given", "(first|given|fore)[ _-]?name"),
        ("family", "(last|family|sur)[ _-]?name"),
        ("name", "name|^student$"),
    ):
        if re.search(sign, heading):
            return kind
    return "other" if _words(heading) & HEADINGS else ""


def _words(heading: str) -> set[str]:
    return set(re.findall(r"[a-z]+", heading.casefold()))


def _text(cell: str) -> str:
    """A cell's text; ``="007"`` is how some programs keep a spreadsheet from taking it for a number."""
    cell = unicodedata.normalize("NFC", cell).strip()
    formula = re.fullmatch(r'="(.*)"', cell, re.DOTALL)
    return formula[1].strip() if formula else cell


def _listed(rows: list[int]) -> str:
    return f"{', '.join(map(str, rows[:-1]))} and {rows[-1]}"
