"""What the book must hold of every family and public name, as functions that name what is missing."""

import inspect
import re
from collections.abc import Collection
from pathlib import Path

import course_lib.checking
import course_lib.experiments
import course_lib.training
from course_lib.families import FAMILIES
from course_lib.family import Family


def undescribed(described: Collection[str]) -> set[str]:
    """Public classes and functions that the reference pages do not describe.

    Args:
        described: full names of what they describe.
    """
    packages = [family.package for family in FAMILIES.values()]
    packages += [course_lib.experiments, course_lib.checking, course_lib.training]
    missing = set()
    for package in packages:
        for name in package.__all__:
            it = getattr(package, name)
            places = {f"{package.__name__}.{name}", f"{getattr(it, '__module__', '')}.{name}"}
            # Constants and names of types are described where they are used.
            if (inspect.isclass(it) or inspect.isfunction(it)) and not places & set(described):
                missing.add(f"{package.__name__.removeprefix('course_lib.')}.{name}")
    return missing


def described_by(page: str) -> set[str]:
    """Full names of the public names that a reference page describes, read from its source."""
    names = set()
    for module in re.findall(r"automodule:: ([\w.]+)\n(?:   :members:\n)", page):
        *_, last = module.split(".")
        imported = f"automodule:: {module}\n   :members:\n   :imported-members:" in page
        loaded = __import__(module, fromlist=[last])
        for name, it in vars(loaded).items():
            if imported or getattr(it, "__module__", None) == module:
                names |= {f"{module}.{name}", f"{getattr(it, '__module__', '')}.{name}"}
    return names


def missing_pieces(family: Family, root: Path) -> list[str]:
    """What a family lacks beside its package: pages, their entries, an assignment, tests.

    Returns:
        Sentences, in the order in which CONTRIBUTING asks for the pieces.
    """
    name, missing = family.name, []
    for file in (
        f"book/{name}/theory.md",
        f"book/reference/api/{name}.md",
        f"book/_static/pictures/{name}.svg",
        f"assignments/{name}/questions.py",
        f"assignments/{name}/{name}.ipynb",
        f"course_lib/checking/public/{name}.json",
    ):
        if not (root / file).is_file():
            missing.append(f"{file} does not exist")
    if not list(root.glob(f"tests/{name}/test_*.py")):
        missing.append(f"tests/{name} holds no test")
    for file, entries in {
        "_toc.yml": (
            f"book/{name}/theory",
            f"assignments/{name}/student/{name}",
            f"book/reference/api/{name}",
        ),
        "README.md": (f"(book/{name}/theory.md)",),
        "book/intro.md": (f"({name}/theory.md)",),
        "book/instructors/assignments.md": (f"\n{name}: ",),
    }.items():
        text = (root / file).read_text(encoding="utf-8")
        missing += [f"{file} lacks {entry.strip()!r}" for entry in entries if entry not in text]
    page = root / f"book/reference/api/{name}.md"
    if page.is_file():
        described = described_by(page.read_text(encoding="utf-8"))
        own = {m for m in undescribed(described) if m.startswith(f"{name}.")}
        missing += [f"book/reference/api/{name}.md does not describe {m}" for m in sorted(own)]
    return missing
