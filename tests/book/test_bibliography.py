"""The bibliography: names in their own letters."""

import re
from pathlib import Path

REFERENCES = Path(__file__).parents[2] / "book" / "references.bib"


def test_names_hold_no_commands_of_tex():
    """A letter such as {\\"a} would put the whole name into the label of a citation."""
    names = re.findall(r"^  author = \{(.*)\},$", REFERENCES.read_text(encoding="utf-8"), re.M)
    assert len(names) > 50
    assert [name for name in names if "\\" in name or "{" in name] == []
