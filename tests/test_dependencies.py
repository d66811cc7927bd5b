"""Whatever is imported is the standard library's, ours, or a declared dependency of that place."""

import ast
import json
import re
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
TOOLS = ("book/_ext", "tools")  # folders whose modules are imported by their bare names
OURS = {"course_lib", "benchmarks", "tests", "assignments"}
OURS |= {path.stem for folder in TOOLS for path in (ROOT / folder).glob("*.py")}
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
DISTRIBUTIONS = packages_distributions()

# Which extras the code in a place may use, beside what every installation has. The first fit counts.
EXTRAS = {
    "course_lib/grading/": ("grade", "cluster"),
    "course_lib/sandbox/": ("grade",),
    "course_lib/": (),
    "book/_ext/": ("book",),
    "tools/slides.py": ("slides",),
    "tools/": ("book",),
    # What draws a chapter's figures runs when the book is built.
    **{path.relative_to(ROOT).as_posix(): ("book",) for path in ROOT.glob("book/*/figures.py")},
    "book/": (),  # notebooks: readers have the package alone
    "assignments/": (),
    "benchmarks/": ("grade", "peers"),
    "tests/": ("test",),
}


def declared(extra: str | None = None) -> set[str]:
    """Canonical names of the run-time dependencies, or of an extra and the extras it includes."""
    if extra == "peers":  # installed apart from all others: see the Makefile
        return set(re.findall(r"([\w-]+)==", (ROOT / "Makefile").read_text(encoding="utf-8")))
    lines = PROJECT["optional-dependencies"][extra] if extra else PROJECT["dependencies"]
    found = set()
    for requirement in map(Requirement, lines):
        if requirement.name == PROJECT["name"]:
            found |= set().union(*map(declared, requirement.extras))
        else:
            found.add(canonicalize_name(requirement.name))
    return found


def code(path: Path) -> str:
    """The Python of a module, or of a notebook's cells without their magics."""
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".py":
        return text
    cells = (cell for cell in json.loads(text)["cells"] if cell["cell_type"] == "code")
    lines = (line for cell in cells for line in [*"".join(cell["source"]).splitlines(), ""])
    return "\n".join(line for line in lines if not line.lstrip().startswith(("%", "!")))


def imported(source: str) -> set[str]:
    """Top-level names of all imports, also of those inside functions."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level:
            found.add(node.module)
    return {name.partition(".")[0] for name in found}


def undeclared(names: set[str], place: str) -> set[str]:
    """Those of the imported `names` that nothing declares for a file in `place`."""
    extras = next(extras for start, extras in EXTRAS.items() if place.startswith(start))
    allowed = declared().union(*map(declared, extras))
    return {
        name
        for name in names - OURS - sys.stdlib_module_names
        if not allowed & {canonicalize_name(d) for d in DISTRIBUTIONS.get(name, [name])}
    }


def test_every_import_is_declared():
    missing = {}
    for folder in sorted({start.partition("/")[0] for start in EXTRAS}):
        for path in (p for p in (ROOT / folder).rglob("*") if p.suffix in (".py", ".ipynb")):
            place = path.relative_to(ROOT).as_posix()
            if names := undeclared(imported(code(path)), place):
                missing[place] = names
    assert missing == {}, "declare in pyproject.toml what these files import"


def test_an_import_without_a_declaration_is_noticed():
    source = "import os\nimport sklearn.svm\ndef f():\n    from pandas.core import api\n"
    assert imported(source) == {"os", "sklearn", "pandas"}
    assert undeclared(imported(source), "course_lib/data.py") == {"pandas"}
    assert undeclared({"nbformat"}, "course_lib/grading/release.py") == set()
    assert undeclared({"nbformat"}, "course_lib/vae/vae.py") == {"nbformat"}
    assert undeclared({"yaml"}, "tests/test_versions.py") == set()
    assert undeclared({"yaml"}, "book/gan/gan.ipynb") == {"yaml"}
