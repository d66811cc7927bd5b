"""The script and the style of live elements stand once in the site, not once in each element.

Where a notebook is shown alone, each element of `course_lib.widgets` brings both. On a page of the book they
are taken out of the elements, and the page loads ``_static/elements.js`` and ``_static/elements.css``, if it
has an element at all.
"""

import re
from pathlib import Path

from docutils import nodes
from sphinx.application import Sphinx

from equation_labels import ROOT

NAME = "elements"
# What stands in an element is escaped, so that these tags end where they seem to.
ELEMENT = re.compile(
    r'(<figure class="course-element".*?</figure>)<style>.*?</style><script>.*?</script>', re.DOTALL
)
START = """\
for (const figure of document.querySelectorAll(".course-element")) start(figure);
"""


def shared_script() -> str:
    """The script of a page: the elements' own, and a line that starts all of them."""
    script = (ROOT / "course_lib" / "widgets.js").read_text(encoding="utf-8")
    return f"(() => {{\n{script}{START}}})();\n"


def shared_style() -> str:
    """The style of the elements."""
    return (ROOT / "course_lib" / "widgets.css").read_text(encoding="utf-8")


def own_part(markup: str) -> str:
    """Elements without script and style."""
    return ELEMENT.sub(r"\1", markup)


def elements(doctree: nodes.document) -> list[nodes.raw]:
    """What holds live elements."""
    return [
        node
        for node in doctree.findall(nodes.raw)
        if node["format"] == "html" and 'class="course-element"' in node.astext()
    ]


def take_out(app: Sphinx, doctree: nodes.document, docname: str) -> None:
    """Leave in a page's elements what is theirs alone."""
    if app.builder.format == "html":
        for node in elements(doctree):
            node[:] = [nodes.Text(own_part(node.astext()))]


def load(app: Sphinx, name: str, template: str, context: dict, doctree: nodes.document) -> None:
    """Load script and style on pages that have elements, and on no other."""
    if doctree and elements(doctree):
        app.add_css_file(f"{NAME}.css")
        app.add_js_file(f"{NAME}.js", loading_method="defer")


def write(app: Sphinx) -> None:
    """Write both files, before the pages are, which name them with a digest of what is in them."""
    if app.builder.format == "html":
        folder = Path(app.outdir) / "_static"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{NAME}.js").write_text(shared_script(), encoding="utf-8")
        (folder / f"{NAME}.css").write_text(shared_style(), encoding="utf-8")


def setup(app: Sphinx) -> dict[str, bool | str]:
    app.connect("doctree-resolved", take_out)
    app.connect("html-page-context", load)
    app.connect("builder-inited", write)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
