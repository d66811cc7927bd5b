"""Imports run downwards only: a family never imports another, and models import no figures."""

import ast
from pathlib import Path

import pytest

from course_lib.families import FAMILIES

LIBRARY = Path(__file__).parents[1] / "course_lib"
ABOVE = (
    "families",
    "plotting",
    "widgets",
    "live",
    "glue",
    "grading",
    "assignment",
    "experiments",
    "command_line",
)


def imports(path):
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return {name.split(".")[1] for name in found if name.startswith("course_lib.")}


@pytest.mark.parametrize(
    "path", sorted(LIBRARY.rglob("*.py")), ids=lambda path: path.relative_to(LIBRARY).as_posix()
)
def test_imports_run_downwards(path):
    used = imports(path)
    home = path.relative_to(LIBRARY).parts[0].removesuffix(".py")
    if home in FAMILIES:
        assert not used & (set(FAMILIES) - {home}), "a family imports another family"
    if home not in ABOVE and home != "__init__":
        assert not used & set(ABOVE), "a model or a shared module imports a tool above it"
    if home not in (*FAMILIES, *ABOVE):
        assert not used & set(FAMILIES), "a shared module imports a family"


def test_every_package_that_is_a_family_is_in_the_list():
    """Else it would be taken for shared modules, and its rules be others."""
    assert {path.parent.name for path in LIBRARY.glob("*/family.py")} == set(FAMILIES)
    for package in (path.parent.name for path in LIBRARY.glob("*/__init__.py")):
        assert package in {*FAMILIES, *ABOVE, "training"}, f"{package} is none of the kinds"
