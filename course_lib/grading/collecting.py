"""Finds what was handed in: whose it is, which notebook counts, and why there is none."""

import json
import os
import stat
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

from course_lib.checking import public
from course_lib.grading.exports import (
    Owner,
    common_slug,
    key,
    owner,
    readable,
    without_suffix,
)
from course_lib.grading.notebook import FILE_LIMIT, read_notebook
from course_lib.grading.roster import Roster

ARCHIVES = (".zip", ".gz", ".tgz", ".tar", ".7z", ".rar", ".xz", ".bz2")
# What an instructor's programs leave in the folder is nobody's work.
TABLES = (".csv", ".tsv", ".xlsx", ".xls", ".ods", ".ini", ".db", ".log")
NOBODYS = ("readme", "timestamp", "license", "makefile")
DEPTH, ENTRIES, NAMED = 12, 20_000, 6


@dataclass(frozen=True)
class Submission:
    """What a student has handed in.

    Attributes:
        student: who: the identifier on the roster, else what the file or folder is named.
        path: the notebook; ``None`` if there is none that can be graded.
        fault: why there is nothing to grade; empty if there is something.
        note: what a person should look at, though the notebook is graded.
        entries: names of the student's files and folders in the folder of submissions.
    """

    student: str
    path: Path | None
    fault: str = ""
    note: str = ""
    entries: tuple[str, ...] = ()

    def read(self) -> bytes:
        """The notebook as it is graded: without outputs, which only take room.

        What cannot be read as a notebook is returned as it is: the judge says what is wrong with it.

        Raises:
            ValueError: there is nothing to grade, or nothing that can be opened; the message says why.
        """
        if self.path is None:
            raise ValueError(self.fault)
        try:
            # Neither follows a link that has come since, nor waits for somebody to write into a pipe.
            descriptor = os.open(self.path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
            with os.fdopen(descriptor, "rb") as file:
                if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                    raise ValueError("the notebook is not a regular file")
                content = file.read(FILE_LIMIT + 1)
        except OSError as error:
            raise ValueError(f"the notebook could not be opened: {error.strerror}") from error
        try:
            return json.dumps(read_notebook(content)).encode()
        except ValueError:
            return content


@dataclass(frozen=True)
class _Notebook:
    """A file that could be a student's notebook."""

    path: Path
    owner: Owner


@dataclass
class _Handed:
    """What stands in the folder of submissions under the name of one student."""

    notebooks: list[_Notebook] = field(default_factory=list)
    others: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    entries: list[str] = field(default_factory=list)


def collect(folder: Path, assignment: str, roster: Roster | None = None) -> list[Submission]:
    """Find what was handed in, as Moodle, Canvas, GitHub Classroom or nbgrader export it or by hand.

    `course_lib.grading.exports` lists the forms. Notebooks are found at any depth of a student's
    folder. Nothing is guessed: a student with several notebooks has a fault that names them, and the
    others are not affected. Links are not followed, at any level: they could lead to another student's
    file. What programs leave behind is nobody's: hidden files and folders such as
    ``.ipynb_checkpoints``, and the ``__MACOSX`` of some archives.

    Args:
        folder: the folder with a file or folder for each student.
        assignment: its name, by which its notebook is told from those of other assignments.
        roster: the class; everybody in it gets a submission, whatever they have handed in.

    Returns:
        One submission for each student, first those of the roster in its order, then the others.

    Raises:
        ValueError: the folder is missing, or there is nothing in it that somebody could have handed in.
    """
    if not folder.is_dir():
        raise ValueError(
            f"{folder} is not a folder; give the folder that holds the submissions (unpack an archive first)"
        )
    handed = _by_student(folder, assignment, roster)
    if not handed and roster is None:
        raise ValueError(
            f"{folder} holds no submission; <student>.ipynb or <student>/{assignment}.ipynb is expected, "
            "or what Moodle, Canvas, GitHub Classroom or nbgrader export"
        )
    first = roster.students if roster else []
    students = [*first, *sorted(handed.keys() - {*first})]
    found = [_submission(s, handed.get(s, _Handed()), folder, assignment) for s in students]
    return _with_doubts_noted(found)


def overlooked(folder: Path, submissions: list[Submission]) -> list[str]:
    """Names of the files and folders that are not taken for anybody's submission."""
    used = {name for submission in submissions for name in submission.entries}
    return [readable(name) for name in _names(folder) if name not in used]


def _names(folder: Path) -> list[str]:
    return sorted(n for n in os.listdir(folder) if not n.startswith((".", "__MACOSX")))


def _by_student(folder: Path, assignment: str, roster: Roster | None) -> dict[str, _Handed]:
    """Who has what in the folder; files that look like nobody's are left out."""
    modes = {path: path.lstat().st_mode for path in map(folder.joinpath, _names(folder))}
    slug = common_slug([readable(p.name) for p, mode in modes.items() if stat.S_ISDIR(mode)])
    entries = [
        (path, mode, owner(readable(path.name), not stat.S_ISDIR(mode), slug))
        for path, mode in modes.items()
    ]
    names = {whose.name for *_, whose in entries}
    by_student: dict[str, _Handed] = {}
    for path, mode, whose in entries:
        student, note = roster.find(whose) if roster else (None, "")
        if student is None:
            notebook = path.suffix.lower() == ".ipynb"
            if not stat.S_ISDIR(mode) and not notebook and (roster or _nobodys(path)):
                continue
            student = whose.copy_of if whose.copy_of in names else whose.name
        handed = by_student.setdefault(student, _Handed())
        handed.entries.append(path.name)
        if note and note not in handed.notes:
            handed.notes.append(note)
        _look(path, mode, whose, assignment, handed)
    return by_student


def _nobodys(path: Path) -> bool:
    name = path.name.lower()
    return name.endswith(TABLES) or name.startswith(NOBODYS)


def _look(path: Path, mode: int, whose: Owner, assignment: str, handed: _Handed) -> None:
    """Add what stands at `path`, a student's file or folder, to what was `handed` in."""
    if stat.S_ISDIR(mode):
        paths = []
        try:
            for found, kind in _walk(path):
                if kind == stat.S_IFREG and found.suffix.lower() == ".ipynb":
                    paths.append(found)
                else:
                    handed.others.append(_described(found, kind))
        except OSError as error:
            handed.others.append(f"{readable(path.name)}, which cannot be opened: {error.strerror}")
        except _TooMany:
            handed.others.append(f"more than {ENTRIES} files")
        counting = _of_assignment(paths, path, assignment)
        handed.notebooks += [_Notebook(found, whose) for found in counting]
        if not counting:
            handed.others += [_described(found, stat.S_IFREG) for found in paths]
    elif stat.S_ISREG(mode) and path.suffix.lower() == ".ipynb":
        handed.notebooks.append(_Notebook(path, whose))
    else:
        handed.others.append(_described(path, stat.S_IFMT(mode)))


class _TooMany(Exception):
    """A student's folder holds more than anybody would hand in."""


def _walk(folder: Path) -> Iterator[tuple[Path, int]]:
    """All files below a folder with their kinds, without following a link or opening a file."""
    waiting, seen = [(folder, 0)], 0
    while waiting:
        current, depth = waiting.pop()
        with os.scandir(current) as entries:
            for entry in sorted(entries, key=lambda e: e.name):
                seen += 1
                if seen > ENTRIES:
                    raise _TooMany
                if entry.name.startswith((".", "__MACOSX")):
                    continue
                kind = stat.S_IFMT(entry.stat(follow_symlinks=False).st_mode)
                if kind != stat.S_IFDIR:
                    yield Path(entry.path), kind
                elif depth < DEPTH:
                    waiting.append((Path(entry.path), depth + 1))


def _described(path: Path, kind: int) -> str:
    name = readable(path.name)
    if kind == stat.S_IFLNK:
        return f"{name}, which is a link, and links are not followed"
    if kind != stat.S_IFREG:
        return f"{name}, which is not a regular file"
    if name.lower().endswith(ARCHIVES):
        return f"{name}, which is an archive: unpack it"
    return name


def _of_assignment(paths: list[Path], folder: Path, assignment: str) -> list[Path]:
    """The notebooks that could be a student's answer to the assignment.

    Not those of other assignments, nor what a clone of the course holds besides.
    """
    inside = {path: path.relative_to(folder).parts for path in paths}
    clones = {
        parts[:depth]
        for parts in inside.values()
        for depth in range(len(parts))
        if parts[depth : depth + 3] == ("assignments", assignment, "student")
    }

    def of_course(parts: tuple[str, ...]) -> bool:
        for clone in clones:
            own = parts[len(clone) :] if parts[: len(clone)] == clone else ()
            if own[:1] == ("book",):
                return True
            if own[:1] == ("assignments",) and own[1:3] != (assignment, "student"):
                return True
        return False

    others = _known_assignments() - {assignment}
    own = [p for p, parts in inside.items() if not of_course(parts) and not {*parts[:-1]} & others]
    # nbgrader's folders: each assignment has one of the notebook's name. The only notebook of a
    # student is looked at, whatever it is called.
    named = [p for p in own if p.stem == assignment or inside[p][-2:-1] != (p.stem,)] or own
    return [p for p in named if p.stem not in others] or named


def _known_assignments() -> set[str]:
    return {path.stem for path in (Path(public.__file__).parent / "public").glob("*.json")}


def _submission(student: str, handed: _Handed, folder: Path, assignment: str) -> Submission:
    """Which of a student's notebooks counts, or why none does."""
    made = Submission(student, None, note="; ".join(handed.notes), entries=tuple(handed.entries))
    notebooks = _latest_uploads(handed.notebooks)
    shown = [readable(n.path.relative_to(folder).as_posix()) for n in notebooks]
    if len(notebooks) > 1:
        return replace(made, fault=f"several notebooks: {_listed(shown)}; keep one")
    if not notebooks:
        others = sorted(handed.others, key=lambda other: ", which" not in other)
        there = f" (there is {_listed(others)})" if others else ""
        return replace(made, fault=f"no notebook was handed in{there}")
    path = notebooks[0].path
    notes = list(handed.notes)
    if len(handed.notebooks) > 1:
        earlier = [readable(n.path.name) for n in handed.notebooks if n.path != path]
        notes.append(f"{shown[0]} counts, the last upload, and not {_listed(earlier)}")
    size = path.lstat().st_size
    if size > FILE_LIMIT:
        fault = (
            f"the file has {size / 2**20:.1f} MiB; at most {FILE_LIMIT // 2**20} MiB are read (clear "
            "the outputs and hand in again)"
        )
        return replace(made, fault=fault)
    return replace(made, path=path, note="; ".join(notes))


def _latest_uploads(notebooks: list[_Notebook]) -> list[_Notebook]:
    """Of files that a student has uploaded again under one name, the last: Canvas numbers uploads."""
    kept: dict[str, _Notebook] = {}
    for number, notebook in enumerate(notebooks):
        whose = notebook.owner
        if whose.upload is None:
            kept[f"{number}"] = notebook
            continue
        name = f"upload of {without_suffix(whose.file)}"
        if name not in kept or _upload(whose) > _upload(kept[name].owner):
            kept[name] = notebook
    return list(kept.values())


def _upload(whose: Owner) -> tuple[int, int, str]:
    return whose.upload or 0, len(whose.file), whose.file


def _listed(names: list[str]) -> str:
    more = len(names) - NAMED
    return ", ".join(names[:NAMED]) + (f" and {more} more" if more > 0 else "")


def _with_doubts_noted(submissions: list[Submission]) -> list[Submission]:
    """Note what may be another student's: one file under several names, names that differ in case."""
    files = {s.student: s.path.lstat() for s in submissions if s.path is not None}
    names = Counter(key(submission.student) for submission in submissions)
    noted = []
    for submission in submissions:
        notes = [submission.note]
        if names[key(submission.student)] > 1:
            notes.append("another student's name differs from this one by capitals only")
        file = files.get(submission.student)
        if file is not None and file.st_nlink > 1:
            same = [student for student, other in files.items() if os.path.samestat(other, file)]
            notes.append(
                f"one file (by hard links) is the notebook of {_listed(same)}"
                if len(same) > 1
                else "the notebook is a hard link: the same file has another name elsewhere"
            )
        noted.append(replace(submission, note="; ".join(filter(None, notes))))
    return noted
