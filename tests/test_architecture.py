"""Imports run downwards only: a family never imports another, and models import no figures."""

import ast
from pathlib import Path

import pytest

from course_lib import fast
from course_lib.families import FAMILIES

LIBRARY = Path(__file__).parents[1] / "course_lib"
ABOVE = (
    "families",
    "plotting",
    "widgets",
    "live",
    "glue",
    "checking",
    "sandbox",
    "grading",
    "experiments",
    "command_line",
)

# Models that no recipe trains and no assignment asks for yet; like families they import no family.
WITHOUT_RECIPES = ()


def names_imported(path):
    """Modules, and the names that are imported from them, in full."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def imports(path):
    """Parts of the library that a file imports, by their first name."""
    return {name.split(".")[1] for name in names_imported(path) if name.startswith("course_lib.")}


@pytest.mark.parametrize(
    "path", sorted(LIBRARY.rglob("*.py")), ids=lambda path: path.relative_to(LIBRARY).as_posix()
)
def test_imports_run_downwards(path):
    used = imports(path)
    home = path.relative_to(LIBRARY).parts[0].removesuffix(".py")
    packages = {*FAMILIES, *WITHOUT_RECIPES}
    if home in packages:
        assert not used & (packages - {home}), "a family imports another family"
    if home not in ABOVE and home != "__init__":
        assert not used & set(ABOVE), "a model or a shared module imports a tool above it"
    if home not in (*packages, *ABOVE):
        assert not used & packages, "a shared module imports a family"


# The student's check knows nothing of boxes, and what runs inside a box knows nothing of the grader.
GRADING = ("checking", "sandbox", "grading")


@pytest.mark.parametrize("room", GRADING)
def test_a_box_holds_nothing_of_the_grader(room):
    above = {*GRADING[GRADING.index(room) + 1 :], "experiments", "command_line"}
    for path in (LIBRARY / room).rglob("*.py"):
        assert not imports(path) & above, path


def test_every_package_that_is_a_family_is_in_the_list():
    """Else it would be taken for shared modules, and its rules be others."""
    said = {path.parent.name for path in LIBRARY.glob("*/family.py")}
    assert said - set(WITHOUT_RECIPES) == set(FAMILIES)
    for package in (path.parent.name for path in LIBRARY.glob("*/__init__.py")):
        known = {*FAMILIES, *ABOVE, *WITHOUT_RECIPES, "fast", "training"}
        assert package in known, f"{package} is none of the kinds"


# Files that may name the fast paths: families, whose import registers them. Others ask the registry.
REGISTERING = [LIBRARY / family / "__init__.py" for family in FAMILIES]
PLAIN = [
    path
    for path in sorted(LIBRARY.rglob("*.py"))
    if "fast" not in path.relative_to(LIBRARY).parts and path not in REGISTERING
]


@pytest.mark.parametrize("path", PLAIN, ids=lambda path: path.relative_to(LIBRARY).as_posix())
def test_plain_files_know_no_fast_path(path):
    registry = {"course_lib.fast", *(f"course_lib.fast.{name}" for name in fast.__all__)}
    used = {name for name in names_imported(path) if "fast" in name.split(".")}
    assert used <= registry, "a plain file imports a fast path instead of asking for it"


def test_importing_a_family_registers_its_fast_paths():
    for folder in LIBRARY.glob("*/fast"):
        family = (folder.parent / "__init__.py").read_text(encoding="utf-8")
        assert f"from course_lib.{folder.parent.name} import fast" in family
        named = names_imported(folder / "__init__.py")
        for path in folder.glob("*.py"):
            if "@register" in path.read_text(encoding="utf-8"):
                assert f"course_lib.{folder.parent.name}.fast.{path.stem}" in named
