"""Reads a table as spreadsheets save it: UTF-8 with or without a mark, commas, semicolons or tabs."""

import csv
import io
from pathlib import Path


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
    # Spreadsheets of some countries write semicolons.
    head = text.partition("\n")[0]
    separator = max(",;\t", key=head.count)
    lines = io.StringIO(text, newline="")  # a cell may have several
    rows = enumerate(csv.reader(lines, delimiter=separator), start=1)
    try:
        return [(number, row) for number, row in rows if any(cell.strip() for cell in row)]
    except csv.Error as error:
        raise ValueError(f"{path} is not a table in CSV: {error}") from error
