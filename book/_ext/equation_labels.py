"""Reads the labels of displayed equations from the book, and the tests' marks of them.

Both are read as text, without importing anything: the book's build uses the same functions to
link each equation to its test.
"""

import ast
import json
import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
LABEL = re.compile(r"^\$\$\s*\((eq-[\w-]+)\)|^:label:\s*(eq-[\w-]+)", re.MULTILINE)


@dataclass(frozen=True)
class EquationTest:
    """Where one equation is tested.

    Attributes:
        label: label of the equation.
        name: name of the test function.
        file: its file, relative to the root of the repository.
        first: its first line, decorators included.
        last: its last line.
        wrong: names of the perturbations that it must tell apart.
        implemented_by: dotted name of the library's function for it, if there is one.
    """

    label: str
    name: str
    file: str
    first: int
    last: int
    wrong: tuple[str, ...]
    implemented_by: str | None


def book_labels(root: Path = ROOT) -> dict[str, str]:
    """Map each label of a displayed equation to the page that shows it."""
    found: dict[str, str] = {}
    for path in sorted((root / "book").rglob("*")):
        if path.suffix == ".md":
            text = path.read_text(encoding="utf-8")
        elif path.suffix == ".ipynb":
            cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
            text = "\n".join("".join(c["source"]) for c in cells if c["cell_type"] == "markdown")
        else:
            continue
        for match in LABEL.finditer(text):
            label = match[1] or match[2]
            if label in found:
                raise ValueError(f"{label} stands in {found[label]} and again in {path}")
            found[label] = path.relative_to(root).as_posix()
    return found


def equation_tests(root: Path = ROOT) -> dict[str, EquationTest]:
    """Map each label that a test marks to that test."""
    found: dict[str, EquationTest] = {}
    for path in sorted((root / "tests").rglob("test_*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.FunctionDef):
                continue
            for mark in node.decorator_list:
                if ast.unparse(mark).startswith("pytest.mark.equation("):
                    test = _read_mark(mark, node, path.relative_to(root).as_posix())
                    if test.label in found:
                        raise ValueError(
                            f"{test.label} is marked twice: {found[test.label]}, {test}"
                        )
                    found[test.label] = test
    return found


def _read_mark(mark: ast.Call, node: ast.FunctionDef, file: str) -> EquationTest:
    keywords = {keyword.arg: keyword.value for keyword in mark.keywords}
    implemented_by = keywords.get("implemented_by")
    return EquationTest(
        label=ast.literal_eval(mark.args[0]),
        name=node.name,
        file=file,
        first=min(d.lineno for d in node.decorator_list),
        last=node.end_lineno,
        wrong=tuple(ast.literal_eval(key) for key in keywords["wrong"].keys),
        implemented_by=implemented_by and ast.literal_eval(implemented_by),
    )
