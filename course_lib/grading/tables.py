"""Reads a table as spreadsheets save it: UTF-8 with or without a mark, commas, semicolons or tabs."""

import csv
import io
import re
from pathlib import Path

# The first line by which Excel is told what separates the cells.
SEPARATOR = re.compile(r"\"?sep=([,;\t])\"?\s*?[\r\n]", re.IGNORECASE)
QUOTED = re.compile(r'"[^"]*"')
HEADINGS_LENGTH = 10_000


def read_table(path: Path) -> list[tuple[int, list[str]]]:
    """Read the rows of a CSV file that are not empty, each with its number; the header has number 1.

    Raises:
        ValueError: the file is missing, its text is not UTF-8 or UTF-16, or is not CSV; the message
            says what to do.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error.strerror}") from error
    encoding = "utf-16" if content[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"
    try:
        text = content.decode(encoding)
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{path} is not UTF-8 text (byte {error.start}); save it again, in a spreadsheet as “CSV "
            f"UTF-8”, and call the command again"
        ) from error
    named = SEPARATOR.match(text)
    separator = named[1] if named else _separator(text)
    lines = io.StringIO(text, newline="")  # a cell may have several
    rows = enumerate(csv.reader(lines, delimiter=separator, strict=True), start=1)
    try:
        return [
            (number, row)
            for number, row in rows
            if any(cell.strip() for cell in row) and not (named and number == 1)
        ]
    except csv.Error as error:
        raise ValueError(
            f"{path} is not a table in CSV: {error} (is a quotation mark not closed?)"
        ) from error


def _separator(text: str) -> str:
    """What separates the headings: some countries' spreadsheets write semicolons."""
    unquoted = QUOTED.sub("", text[:HEADINGS_LENGTH]).strip("\r\n")
    head = re.split("[\r\n]", unquoted, maxsplit=1)[0]
    return max(",;\t", key=head.count)
