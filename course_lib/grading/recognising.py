"""Tells which assignment a notebook belongs to, by the names of its questions."""

import json
import re
from functools import lru_cache
from pathlib import Path
from typing import Any

from course_lib.grading.question import Assignment
from course_lib.grading.release import marks

DEFINED = re.compile(r"^(?:def\s+([A-Za-z_]\w*)\s*\(|([A-Za-z_]\w*)\s*=(?!=))", re.MULTILINE)


def other_assignment(notebook: dict[str, Any], assignment: Assignment) -> str | None:
    """The name of the assignment to which a notebook belongs instead; ``None`` if it fits this one.

    A notebook that shares a single name with `assignment` fits, and so does one that nothing tells
    anything about: only what is plainly another assignment's is sent back.
    """
    names = _names(notebook)
    masters = assignment.folder.parent.glob("*/*.ipynb")
    asked = {p.stem: _asked(p, p.stat().st_mtime_ns) for p in masters if p.stem == p.parent.name}
    own = asked.pop(assignment.name, frozenset())
    # A name that several assignments use tells nothing.
    shared = own.intersection(frozenset().union(*asked.values()))
    if names & (own - shared):
        return None
    fitting = {name: len(names & (theirs - shared)) for name, theirs in asked.items()}
    best = max(fitting, key=fitting.__getitem__, default=None)
    return best if best is not None and fitting[best] >= 2 else None


def _names(notebook: dict[str, Any]) -> set[str]:
    """The questions that a notebook's cells are marked with, and what its code defines."""
    found = set()
    for cell in notebook["cells"]:
        found.add(marks(cell).get("grade_id", "").removeprefix("check-"))
        if cell.get("cell_type") == "code":
            found.update(a or b for a, b in DEFINED.findall(cell["source"]))
    return found - {""}


@lru_cache
def _asked(master: Path, changed: int) -> frozenset[str]:
    """The names of the questions in a master; `changed` is the time of its last change."""
    try:
        cells = json.loads(master.read_text(encoding="utf-8"))["cells"]
        found = [marks(cell).get("grade_id", "") for cell in cells]
    except (ValueError, KeyError):  # another assignment, which somebody is writing
        return frozenset()
    return frozenset(name.removeprefix("check-") for name in found if name)
