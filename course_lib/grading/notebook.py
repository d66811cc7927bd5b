"""Reads a notebook that a stranger wrote: what is graded of it, and nothing that is not."""

import json
import re
from typing import Any

# Outputs count for the first limit only: they are dropped before anything is kept or sent.
FILE_LIMIT = 64 * 2**20
SUBMISSION_LIMIT = 20 * 2**20
CELL_LIMIT = 10_000
VALUE_LIMIT = 3_000_000
# Python's own limit counts the calls around it, too: the same file would be read or not.
DEPTH_LIMIT = 200
TOKEN = re.compile(r'"(?:[^"\\]|\\.)*+"?|[\[\]{}]', re.DOTALL)

# What a byte that is not UTF-8 stands for, by the number that Python gives to it.
OF_WINDOWS = {
    0xDC00 + byte: bytes([byte]).decode("cp1252", "replace") for byte in range(0x80, 0x100)
}

BEGINNINGS = {
    b"PK\x03\x04": "a zip archive",
    b"\x1f\x8b": "a gzip archive",
    b"7z\xbc\xaf": "a 7z archive",
    b"Rar!": "a rar archive",
    b"BZh": "a bzip2 archive",
    b"\xfd7zXZ": "an xz archive",
    b"%PDF": "a PDF",
    b"{\\rtf": "a text document",
    b"\xd0\xcf\x11\xe0": "an office document",
    b"\x89PNG": "an image",
    b"\xff\xd8\xff": "an image",
    b"version https://git-lfs": "a pointer of Git LFS, not the file itself",
    b"<": "a web page",
}
PYTHON = re.compile(r"\s*(#|import |from \w+ import |def |class |\"\"\"|%)")


def read_notebook(submission: bytes) -> dict[str, Any]:
    """Read what is graded of a notebook: types, sources and marks of its cells, without outputs.

    Files as people have them are understood: with a byte order mark, in UTF-16 or an encoding of
    Windows, padded with zeros as a crash leaves them, of format 3. The result is in format 4 and can
    be written as JSON and read again.

    Args:
        submission: the bytes of the file.

    Returns:
        A notebook whose ``cells`` have ``cell_type``, ``source`` (one text), ``metadata`` (with
        ``nbgrader`` where it is a dictionary) and ``attachments`` (true where there are any).

    Raises:
        ValueError: it is not a notebook, or is too large; the message says what was found.
    """
    if not submission.strip(b"\0 \t\r\n"):
        raise ValueError("the file is empty")
    size = f"{len(submission) / 2**20:.1f} MiB"
    if len(submission) > FILE_LIMIT:
        raise ValueError(
            f"the file has {size}; at most {FILE_LIMIT // 2**20} MiB are read (clear the outputs and "
            "hand in again)"
        )
    for beginning, kind in BEGINNINGS.items():
        if submission.lstrip().startswith(beginning):
            raise ValueError(f"the file holds no notebook but {kind}")
    notebook = _parsed(submission, size)
    cells = _cells(notebook)
    if len(cells) > CELL_LIMIT:
        raise ValueError(f"the notebook has {len(cells)} cells; at most {CELL_LIMIT} are read")
    kept = [_kept(cell) for cell in cells]
    total = sum(len(cell["source"]) for cell in kept)
    if total > SUBMISSION_LIMIT:
        raise ValueError(
            f"the cells hold {total / 2**20:.1f} MiB of text; at most "
            f"{SUBMISSION_LIMIT // 2**20} MiB are read"
        )
    return {"nbformat": 4, "cells": kept}


def _parsed(content: bytes, size: str) -> Any:
    """The value that a text in JSON stands for.

    Raises:
        ValueError: it is not JSON, or one that takes too much memory.
    """
    text, odd = _decoded(content)
    text = text.rstrip("\0")
    # Every value of an array or an object costs one of these: a bound before any memory is taken.
    if text.count(",") + text.count("[") + text.count("{") > VALUE_LIMIT:
        raise ValueError(
            f"the file ({size}) holds more than {VALUE_LIMIT:,} values; clear the outputs and hand in again"
        )
    if _depth(text) > DEPTH_LIMIT:
        raise ValueError(f"the file ({size}) is nested more than {DEPTH_LIMIT} deep")
    try:
        # Of numbers only those in outputs are long; as floats they are read in linear time.
        return json.loads(text, parse_int=float)
    except (ValueError, RecursionError) as error:
        found = "no UTF-8 text and no JSON" if odd else "no JSON"
        if PYTHON.match(text) and not odd:
            found += ", but text that looks like a Python program"
        raise ValueError(
            f"the file ({size}) holds {found}, so it is not a notebook: {error}"
        ) from error


def _decoded(content: bytes) -> tuple[str, bool]:
    """The text of a file, and whether it is another one than UTF-8.

    JSON's own signs are ASCII, so a notebook in an encoding of Windows, or with a damaged byte, can
    still be executed. Only what is not UTF-8 is read otherwise: every σ in the code stays one.
    """
    encoding = json.detect_encoding(content)
    for errors in (
        "strict",
        "surrogatepass",
    ):  # some programs write halves of characters as they are
        try:
            return content.decode(encoding, errors), not encoding.startswith("utf-8")
        except UnicodeDecodeError:
            pass
    return content.decode("utf-8", "surrogateescape").translate(OF_WINDOWS), True


def _depth(text: str) -> int:
    """How deep a text in JSON is nested; quickly 0 where it cannot be deep."""
    if text.count("[") + text.count("{") <= DEPTH_LIMIT:
        return 0
    depth = deepest = 0
    for token in TOKEN.finditer(text):
        sign = token[0]
        if sign in "[{":
            depth += 1
            deepest = max(deepest, depth)
        elif sign in "]}":
            depth -= 1
    return deepest


def _cells(notebook: Any) -> list[dict[str, Any]]:
    cells = notebook.get("cells") if isinstance(notebook, dict) else None
    if cells is None and isinstance(notebook, dict):  # format 3 has worksheets
        sheets = notebook.get("worksheets")
        if isinstance(sheets, list) and sheets and all(isinstance(s, dict) for s in sheets):
            parts = [sheet.get("cells") for sheet in sheets]
            if all(isinstance(part, list) for part in parts):
                cells = [cell for part in parts for cell in part]
    if not isinstance(cells, list) or not all(isinstance(cell, dict) for cell in cells):
        raise ValueError("the file holds JSON that is not a notebook: it has no list of cells")
    return cells


def _kept(cell: dict[str, Any]) -> dict[str, Any]:
    """What is graded of a cell."""
    source = cell.get("source", cell.get("input"))
    lines = source if isinstance(source, list) else [source or ""]
    if not all(isinstance(line, str) for line in lines):
        raise ValueError("the file is not a notebook: the source of a cell holds no text")
    kind = cell.get("cell_type")
    if not isinstance(kind, str):
        kind = "code" if {"outputs", "execution_count"} & cell.keys() else "markdown"
    metadata = cell.get("metadata")
    marks = metadata.get("nbgrader") if isinstance(metadata, dict) else None
    kept = {
        "cell_type": "markdown" if kind == "heading" else kind,
        "source": re.sub(r"\r\n?", "\n", "".join(lines)),
        "metadata": {"nbgrader": _marks(marks)} if isinstance(marks, dict) else {},
    }
    if cell.get("attachments"):
        kept["attachments"] = True
    return kept


def _marks(marks: dict[str, Any]) -> dict[str, str | bool]:
    kinds = {"grade_id": str, "grade": bool, "solution": bool, "locked": bool}
    return {name: marks[name] for name, kind in kinds.items() if isinstance(marks.get(name), kind)}
