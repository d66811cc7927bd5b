"""What a trustworthy, self-contained build needs beyond the book's configuration.

* Notebooks are executed again when the library's code changes: the execution cache is keyed by a
  digest of `course_lib`, because the cache's own key holds only the cells.
* Pages load nothing from another host: MathJax is served from the site, and scripts of features
  that the book does not use are left out.
"""

import ast
import hashlib
import importlib.metadata
import os
from pathlib import Path
from shutil import copyfile

from sphinx.application import Sphinx
from sphinx.config import Config

ROOT = Path(__file__).parents[2]
# The pieces that `_config.yml` tells MathJax to load.
MATHJAX = (
    "startup.js",
    "core.js",
    "input/tex.js",
    "output/svg.js",
    "output/svg/fonts/tex.js",
    "a11y/assistive-mml.js",
)


# What no chapter's notebook imports: a change there leaves all outputs as they are.
UNUSED = ("checking", "command_line", "grading", "sandbox")


def library_digest() -> str:
    """Digest of all that a notebook's output depends on besides its cells."""
    digest = hashlib.sha256()
    library = ROOT / "course_lib"
    sources = [
        path
        for ending in ("py", "js", "css")
        for path in library.rglob(f"*.{ending}")
        if path.relative_to(library).parts[0] not in UNUSED
    ]
    for path in sorted([*sources, ROOT / "constraints.txt"]):
        text = path.read_text(encoding="utf-8")
        content = without_words(text) if path.suffix == ".py" else text
        digest.update(f"{path.relative_to(ROOT).as_posix()}\0{content}".encode())
    return digest.hexdigest()[:16]


def without_words(source: str) -> str:
    """Python without comments, docstrings and layout, on which no output depends."""
    tree = ast.parse(source)
    described = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef
    for node in ast.walk(tree):
        if isinstance(node, described) and ast.get_docstring(node, clean=False) is not None:
            node.body[0] = ast.Pass()
    return ast.unparse(tree)


def cache_folder() -> Path:
    """Where executed notebooks are kept for this state of the library."""
    return ROOT / "_build" / "notebooks" / library_digest()


def prepare_kernels() -> None:
    """Set what kernels inherit: one thread each, no progress bars on pages."""
    # With several busy processes, spinning workers cost far more than they bring.
    os.environ.update(OMP_NUM_THREADS="1", OMP_WAIT_POLICY="PASSIVE", TQDM_DISABLE="1")


def configure(app: Sphinx, config: Config) -> None:
    config.nb_execution_cache_path = str(cache_folder())
    prepare_kernels()


def drop_unused_scripts(app, pagename, templatename, context, doctree) -> None:
    """Jupyter Book declares Thebe's address on every page; the book has no live kernels in the page."""
    context["script_files"] = [
        script
        for script in context["script_files"]
        if not any("THEBE" in str(part) or "thebe" in str(part) for part in (script, _body(script)))
    ]


def _body(script: object) -> str:
    return str(getattr(script, "attributes", {}).get("body", ""))


def copy_mathjax(app: Sphinx, error: Exception | None) -> None:
    """Copy 2 MB out of the installed package, instead of the 30 MB that it brings."""
    if error is None and app.builder.format == "html":
        files = importlib.metadata.files("sphinx-mathjax-offline") or []
        start = next(file for file in files if file.name == "startup.js").locate()
        for piece in MATHJAX:
            target = Path(app.outdir) / "_static" / "mathjax" / piece
            target.parent.mkdir(parents=True, exist_ok=True)
            copyfile(Path(start).parent / piece, target)


def setup(app: Sphinx) -> dict[str, bool | str]:
    app.connect("config-inited", configure, priority=900)
    app.connect("html-page-context", drop_unused_scripts, priority=900)
    app.connect("build-finished", copy_mathjax)
    return {"version": "1", "parallel_read_safe": True}
