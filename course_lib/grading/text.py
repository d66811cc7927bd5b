"""What strangers wrote, made fit for files, tables, pages and terminals.

A submission holds any text: halves of characters, control characters, markup, formulas, megabytes.
Each has one place here where it becomes harmless.
"""

import hashlib
import html
import re
import unicodedata
from collections.abc import Sequence

# Bytes of a file's name that are left for a student's, of the 255 that file systems take.
NAME_BYTES = 200
# What belongs to the spelling of names in some scripts, though it is not printed by itself.
JOINERS = "\u200c\u200d"
FORMULA = re.compile(r"[\s'\"]*[=+\-@＝＋－＠\t\r]")


def storable(text: str) -> str:
    """Join the halves of characters (surrogates) that belong together, and replace lone ones.

    JSON can hold half a character, and no file in UTF-8 can.
    """
    if text.isascii():
        return text
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def shortened(text: str, limit: int) -> str:
    """The beginning of a text, `limit` characters at most, and what was cut off, if anything was.

    Two texts that differ anywhere differ in this form as well.
    """
    if len(text) <= limit:
        return text
    note = f" … (cut: {len(text):,} characters in all, digest {_digest(text)})"
    return text[: max(0, limit - len(note))] + note


def readable(text: str) -> str:
    """A text whose every character is seen, or is a space, a tab or the end of a line.

    Control characters become their pictures (␛ for that which begins a terminal's commands). Those
    that reverse the direction of writing become �: they make a text look like another one.
    """
    text = re.sub("\r\n?|[\x85\u2028\u2029]", "\n", storable(text))
    return "".join(map(_seen, text)) if not text.isprintable() else text


def one_line(text: str, limit: int) -> str:
    """A readable text on one line, `limit` characters at most."""
    # What is cut off need not be read first: it may have megabytes.
    return " ".join(readable(shortened(text, limit)).split())


def escaped(text: str) -> str:
    """A readable text inside a page or an attribute of one."""
    return html.escape(readable(text), quote=True)


def cell(text: str) -> str:
    """A readable text in a table that a spreadsheet opens: never taken for a formula.

    Such a text begins with an apostrophe. No two texts become the same one.
    """
    text = readable(text)
    return f"'{text}" if FORMULA.match(text) else text


def label(name: str) -> str:
    """The name of a student for tables, pages and files: the name itself, where all of them take it.

    Any other is made readable and short, and ends in a digest, so that two students never share one.
    """
    plain = (
        name
        and len(name) <= NAME_BYTES  # first, since whoever names a file chooses how long it takes
        and all(c.isprintable() or c in JOINERS for c in name)
        and not name.startswith((".", " "))
        and not name.endswith(" ")
        and "/" not in name
        and len(name.encode()) <= NAME_BYTES
    )
    if plain:
        return name
    kept = (
        c if (c.isprintable() and c != "/") or c in JOINERS else "�"
        for c in readable(name[:NAME_BYTES])
    )
    shown = "".join(kept).strip(" .").encode()[: NAME_BYTES - 13].decode(errors="ignore")
    return f"{shown}~{_digest(name)}"


def labels(names: Sequence[str]) -> list[str]:
    """The `label` of each name, no two alike: nobody gets the label of another by taking its form."""
    made = {label(name) for name in names if label(name) != name}
    return [
        f"{label(name)}~{_digest(name)}" if label(name) == name and name in made else label(name)
        for name in names
    ]


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:12]


def _seen(character: str) -> str:
    code = ord(character)
    if character in "\n\t" or character.isprintable() or character in JOINERS:
        return character
    if code < 0x20:
        return chr(0x2400 + code)
    if code == 0x7F:
        return "\u2421"
    # Marks that only hint at a direction, soft hyphens and the like change no other character.
    reverses = "\u202a" <= character <= "\u202e" or "\u2066" <= character <= "\u2069"
    never_one = code & 0xFFFE == 0xFFFE or 0xFDD0 <= code <= 0xFDEF
    harmless = unicodedata.category(character) in ("Zs", "Cf", "Cn", "Co")
    return character if harmless and not reverses and not never_one else "�"
