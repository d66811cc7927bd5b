"""The bibliography: labels that can be read, one for each entry."""

import re
from pathlib import Path

from pybtex.database import parse_file
from pybtex.plugin import find_plugin

REFERENCES = Path(__file__).parents[2] / "book" / "references.bib"


def test_labels_are_short_and_differ():
    """A letter that is written in TeX, such as {\\"a}, would put the whole name into the label."""
    entries = list(parse_file(REFERENCES, encoding="utf-8").entries.values())
    labels = list(find_plugin("pybtex.style.labels", "alpha")().format_labels(entries))
    assert len(set(labels)) == len(labels)
    assert [label for label in labels if not re.fullmatch(r"[A-Za-z]{2,6}\+?\d\d", label)] == []
