"""What only the printed book needs: macros of formulas, targets, ends of proofs, pictures for LaTeX."""

import importlib.util

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.config import Config
from sphinx_exercise.nodes import is_exercise_node

CONVERTER = "sphinxcontrib.cairosvgconverter"


def preamble(macros: dict[str, str | list]) -> str:
    """MathJax's macros as LaTeX commands; some names are taken there, and are given new meanings."""
    lines = []
    for name, macro in macros.items():
        body, arguments = (macro, 0) if isinstance(macro, str) else macro[:2]
        lines += [
            rf"\providecommand{{\{name}}}{{}}",
            rf"\renewcommand{{\{name}}}[{arguments}]{{{body}}}",
        ]
    return "\n".join(lines)


def configure(app: Sphinx, config: Config) -> None:
    macros = config.mathjax3_config["tex"]["macros"]
    config.latex_elements = {
        **config.latex_elements,
        "preamble": config.latex_elements.get("preamble", "") + preamble(macros),
    }


def prepare(app: Sphinx, doctree: nodes.document, docname: str) -> None:
    if app.builder.format == "latex":
        add_targets(doctree)
        unbox_proofs(doctree)


def add_targets(doctree: nodes.document) -> None:
    """Give exercises the target that other pages refer to; sphinx-exercise writes another name."""
    for exercise in doctree.findall(is_exercise_node):
        # Within its text: before a numbered node or a section a target is left out.
        text = next(exercise.findall(nodes.paragraph))
        text.insert(0, nodes.target("", "", ids=[exercise["label"]]))


def unbox_proofs(doctree: nodes.document) -> None:
    """Print proofs as text that ends with a square, and not in a box with an empty title."""
    for box in list(doctree.findall(nodes.admonition)):
        if "proof" in box["classes"]:
            if not isinstance(box[-1], nodes.paragraph):
                box += nodes.paragraph()
            box[-1] += nodes.raw("", r"\hfill$\square$", format="latex")
            box.replace_self(box.children)


def setup(app: Sphinx) -> dict[str, bool | str]:
    # Only `make pdf` installs it.
    if importlib.util.find_spec("cairosvg"):
        app.setup_extension(CONVERTER)
    app.connect("config-inited", configure)
    app.connect("doctree-resolved", prepare)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
