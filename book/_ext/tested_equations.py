"""Marks every displayed equation that a test checks, and lists the tests in the book.

After each equation whose label starts with ``eq-`` stands a small "tested" link to the test's
source, shown on the page with the directive ``{tested-equations}``, and a link to the function
of the library that implements it.
"""

import inspect
import json
import re
from functools import cache
from pathlib import Path

from docutils import nodes
from sphinx import addnodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective, SphinxRole
from torch import nn

from drawn_figures import chapters, drawings, load
from equation_labels import ROOT, book_labels, equation_tests
from repository import read
from self_checks import read as read_questions

# Directives of pages, and functions of `course_lib.widgets` in notebooks, that show an element to move.
DIRECTIVES = ("recorded-plane",)


def _reference(domain: str, kind: str, target: str, text: str, docname: str) -> nodes.Node:
    node = addnodes.pending_xref(
        "",
        refdomain=domain,
        reftype=kind,
        reftarget=target,
        refexplicit=True,
        refwarn=True,
        refdoc=docname,
    )
    node += nodes.inline("", text)
    return node


def mark_equations(app: Sphinx, doctree: nodes.document) -> None:
    """Put the mark behind each labelled equation of a page."""
    docname = app.env.docname
    for equation in list(doctree.findall(nodes.math_block)):
        test = app.env.equation_tests.get(equation.get("label"))
        if test is None:
            continue
        mark = nodes.paragraph(classes=["tested-equation"])
        mark += _reference("std", "ref", f"tested-{test.label}", "tested", docname)
        if test.implemented_by:
            mark += nodes.Text(" · ")
            mark += _reference("py", "obj", test.implemented_by, "code", docname)
        equation.parent.insert(equation.parent.index(equation) + 1, mark)


def notebooks() -> list[Path]:
    """The notebooks that are executed for the book."""
    return sorted((ROOT / "book").rglob("*.ipynb"))


def count_models() -> int:
    """Number of public classes of the library that have parameters to train."""
    from course_lib.families import FAMILIES

    return len(
        {
            value
            for family in FAMILIES.values()
            for value in (getattr(family.package, name) for name in family.package.__all__)
            if isinstance(value, type) and issubclass(value, nn.Module)
        }
    )


def element_makers() -> list[str]:
    """The functions of the library that make an element to drag, slide or click."""
    from course_lib import widgets

    functions = inspect.getmembers(widgets, inspect.isfunction)
    return [
        name
        for name, function in functions
        if not name.startswith("_")
        and inspect.signature(function).return_annotation is widgets.Element
    ]


def count_figures() -> tuple[int, int]:
    """Numbers of captioned figures that are computed, and of elements to move, on all pages."""
    cells = [
        cell
        for path in notebooks()
        for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]
    ]
    text = [path.read_text(encoding="utf-8") for path in (ROOT / "book").rglob("*.md")]
    text += ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown"]
    code = [cell for cell in cells if cell["cell_type"] == "code"]
    figures = sum("figure" in cell["metadata"].get("mystnb", {}) for cell in code)
    figures += sum(len(drawings(load(path))) for path in chapters())
    call = re.compile(rf"^(?:{'|'.join(element_makers())})\(", re.MULTILINE)
    elements = sum(len(call.findall("".join(cell["source"]))) for cell in code)
    shown = re.compile(rf"^```\{{(?:{'|'.join(DIRECTIVES)})\}}", re.MULTILINE)
    return figures, elements + sum(len(shown.findall(page)) for page in text)


@cache
def counts() -> dict[str, int]:
    """What the book consists of, by the name under which a page asks for it."""
    tests = equation_tests()
    figures, elements = count_figures()
    questions = sum(len(read_questions(path)) for path in ROOT.glob("book/*/self-checks.yml"))
    return {
        "equations": len(book_labels()),
        "wrong-versions": sum(len(test.wrong) for test in tests.values()),
        "models": count_models(),
        "figures": figures,
        "elements": elements,
        "notebooks": len(notebooks()),
        "questions": questions,
    }


class CountRole(SphinxRole):
    """One of the counts, as a number."""

    def run(self) -> tuple[list[nodes.Node], list[nodes.system_message]]:
        """Write the number."""
        if self.text not in counts():
            known = ", ".join(counts())
            message = self.inliner.reporter.error(f"count {self.text!r}: one of {known}")
            return [], [message]
        return [nodes.Text(str(counts()[self.text]))], []


class TestedEquations(SphinxDirective):
    """List every labelled equation with the source of its test."""

    def run(self) -> list[nodes.Node]:
        """Build the list."""
        tests, labels = self.env.equation_tests, book_labels()
        known = counts()
        result: list[nodes.Node] = [
            nodes.paragraph(
                "",
                f"{len(labels)} equations carry a label, {len(tests)} tests check them, and "
                f"each test is also run on deliberately wrong versions, {known['wrong-versions']} in all, "
                f"that it must tell apart.",
            ),
            nodes.paragraph(
                "",
                f"{known['models']} models and networks (classes that can be trained) are part of the tested "
                f"library. {known['figures']} figures and {known['elements']} elements to drag, slide or "
                f"click are computed whenever the book is built, by {known['notebooks']} notebooks and "
                f"the functions that draw for the text; each has a caption "
                f"or an alternative text, and a browser opens every page, moves every element and audits "
                f"what it sees.",
            ),
        ]
        for label in labels:
            if label in tests:
                result += self._entry(label, tests[label])
        return result

    def _entry(self, label: str, test: object) -> list[nodes.Node]:
        self.env.note_dependency(str(ROOT / test.file))
        name = f"tested-{label}"
        lines = (ROOT / test.file).read_text(encoding="utf-8").splitlines()
        source = "\n".join(lines[test.first - 1 : test.last])
        title = nodes.paragraph(classes=["tested-title"])
        title += nodes.target("", "", ids=[name])  # in print a paragraph itself cannot be one
        title += nodes.Text("Equation ")
        title += addnodes.pending_xref(
            "",
            nodes.literal("", label),
            refdomain="math",
            reftype="eq",
            reftarget=label,
            refexplicit=False,
            refwarn=True,
            refdoc=self.env.docname,
        )
        title += nodes.Text(f" ({label}), told apart from: {', '.join(test.wrong)}. Source: ")
        repository = read(ROOT / "_config.yml")
        if repository.is_set:
            address = f"{repository.page(test.file)}#L{test.first}-L{test.last}"
            title += nodes.reference("", test.file, refuri=address)
        else:
            title += nodes.Text(f"{test.file}, lines {test.first} to {test.last}")
        std = self.env.get_domain("std")
        std.labels[name] = (self.env.docname, name, label)
        std.anonlabels[name] = (self.env.docname, name)
        code = nodes.literal_block(source, source, language="python")
        return [title, code]


def read_tests(app: Sphinx) -> None:
    """Read the marks once per build; a changed set of tests re-reads every page."""
    app.env.equation_tests = equation_tests()


def setup(app: Sphinx) -> dict[str, bool | str]:
    app.add_directive("tested-equations", TestedEquations)
    app.add_role("count", CountRole())
    app.connect("builder-inited", read_tests)
    app.connect("doctree-read", mark_equations)
    return {"version": "1", "parallel_read_safe": False}
