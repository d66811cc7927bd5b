"""Whose work a file or folder is, by the names that learning management systems give to them.

Moodle
    ``Ada Lovelace_123456_assignsubmission_file_/`` (newer versions without the last underscore), or one
    file of that name where folders are switched off; ``…_onlinetext_`` holds what was typed into the
    page. The number belongs to the participant and the assignment: Moodle's grading worksheet calls
    it “Participant 123456”. Anonymous submissions begin with ``Participant_123456_``.
Canvas
    ``lovelaceada_LATE_12345_67890_vae-1.ipynb``: the sortable name without its spaces, ``LATE`` where
    it was, the user's number, the upload's number, the student's own name of the file. An export
    holds the last attempt only. Canvas itself adds ``-1``, ``-2`` to a name that is uploaded again.
    Anonymous submissions begin with ``anon_abc12_``.
GitHub Classroom
    ``assignment-slug-username/``, a clone.
nbgrader, or by hand
    ``identifier/`` or ``identifier.ipynb``.
"""

import re
import unicodedata
from dataclasses import dataclass

MOODLE = re.compile(
    r"(?P<name>.+?)_(?P<number>\d+)_assignsubmission_[a-z]+(?:_(?P<file>.*))?", re.DOTALL
)
CANVAS = re.compile(
    r"(?P<name>.+?)_(?:late_)?(?P<number>\d+)_(?P<upload>\d+)_(?P<file>.+)",
    re.DOTALL | re.IGNORECASE,
)
ANONYMOUS = re.compile(
    r"(?P<name>anon_[a-z0-9]+)_(?:late_)?(?P<upload>\d+)_(?P<file>.+)", re.DOTALL | re.IGNORECASE
)
# What Canvas adds to a name that is uploaded again, and browsers and file managers to a copy.
AGAIN = re.compile(r"-(\d+)$")
COPY = re.compile(r"(?P<name>.+?)(?: ?\(\d+\)|-Copy\d+| - Copy(?: \(\d+\))?)", re.DOTALL)
# They join letters or mark them; all other signs without a shape of their own are shown by number.
JOINERS = "\u200c\u200d"


@dataclass(frozen=True)
class Owner:
    """Who handed in a file or folder, as far as its name tells.

    Attributes:
        name: the student, where no roster says more.
        keys: what to look for in a roster, the surest first: pairs of a kind and a text.
        file: the student's own name of the file; empty for a folder.
        upload: Canvas' number of the upload, which grows with every upload; ``None`` elsewhere.
        copy_of: the name without what marks a copy; empty if nothing does.
    """

    name: str
    keys: tuple[tuple[str, str], ...]
    file: str = ""
    upload: int | None = None
    copy_of: str = ""


def owner(name: str, is_file: bool, slug: str = "") -> Owner:
    """Say whose the file or folder of this name is.

    What a student has chosen, the end of the name, is never read as the system's part of it.

    Args:
        name: the name, as `readable` returns it.
        is_file: whether it is a file; otherwise it is a folder.
        slug: what the names of all folders begin with, where it is known; see `common_slug`.
    """
    moodle = MOODLE.fullmatch(name)
    canvas = CANVAS.fullmatch(name) if is_file else None
    if is_file and (found := ANONYMOUS.fullmatch(name)):
        keys = (("folder", key(name)), *_by_name(found["name"]))
        return Owner(found["name"], keys, found["file"], int(found["upload"]))
    if moodle and not (canvas and len(canvas["name"]) < len(moodle["name"])):
        who, number = moodle["name"], moodle["number"]
        keys = (("folder", key(name)), ("moodle", number), ("any", key(f"participant {number}")))
        file = (moodle["file"] or "") if is_file else ""
        return Owner(f"{who}_{number}", (*keys, *_by_name(who)), file)
    if canvas:
        who, number = canvas["name"], canvas["number"]
        keys = (("folder", key(name)), ("canvas", number), *_by_name(who), ("student", number))
        return Owner(f"{who}_{number}", keys, canvas["file"], int(canvas["upload"]))
    who = (_stem(name) if is_file else name).strip() or name
    clone = ("github", key(who[len(slug) :])) if slug else ("clone", key(who))
    keys = (("folder", key(name)), ("folder", key(who)), *_by_name(who), clone)
    copy = COPY.fullmatch(who)
    if copy:
        keys += _by_name(copy["name"])
    return Owner(who, keys, name if is_file else "", copy_of=copy["name"] if copy else "")


def common_slug(folders: list[str]) -> str:
    """What the names of all clones of an assignment begin with: ``vae-`` of ``vae-ada``, ``vae-bob``."""
    if len(folders) < 2:
        return ""
    first, last = min(folders), max(folders)
    length = next(
        (k for k, (a, b) in enumerate(zip(first, last, strict=False)) if a != b), len(first)
    )
    return first[: first.rfind("-", 0, length) + 1]


def without_suffix(file: str) -> str:
    """A file's name without what Canvas adds when it is uploaded again: ``vae-1.ipynb``, ``vae``."""
    return AGAIN.sub("", _stem(file))


def readable(name: str) -> str:
    """A file's name as text that can be shown and stored anywhere.

    Bytes that are not UTF-8, as some archives leave them, are read as Latin-1; signs that have no
    shape or turn the direction of writing become their numbers; composed and decomposed letters are
    the same.
    """
    try:
        text = name.encode("utf-8", "surrogateescape").decode("utf-8")
    except UnicodeError:
        text = name.encode("utf-8", "surrogateescape").decode("latin-1")
    shown = (c if _visible(c) else c.encode("unicode_escape").decode() for c in text)
    return unicodedata.normalize("NFC", "".join(shown))


def key(text: str) -> str:
    """A text by which names are compared: without case, spaces around, and forms of one letter."""
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())


def squashed(text: str) -> str:
    """The letters and digits of a name, without accents: Canvas leaves no more of it."""
    letters = unicodedata.normalize("NFKD", text).casefold()
    return "".join(c for c in letters if c.isalnum())


def _by_name(who: str) -> tuple[tuple[str, str], ...]:
    return ("student", who), ("identifier", key(who)), ("any", key(who)), ("name", squashed(who))


def _visible(character: str) -> bool:
    kind = unicodedata.category(character)
    return character in JOINERS or kind not in ("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp")


def _stem(name: str) -> str:
    """A file's name without its endings; systems add some to those that they do not know."""
    if notebook := re.search(r"\.ipynb", name, re.IGNORECASE):
        return name[: notebook.start()]
    return name.rpartition(".")[0].removesuffix(".tar") or name
