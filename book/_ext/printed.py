"""What only the printed book needs: macros of its formulas, and pictures in a form that LaTeX reads."""

import importlib.util

from sphinx.application import Sphinx
from sphinx.config import Config

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


def setup(app: Sphinx) -> dict[str, bool | str]:
    # Only `make pdf` installs it.
    if importlib.util.find_spec("cairosvg"):
        app.setup_extension(CONVERTER)
    app.connect("config-inited", configure)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
