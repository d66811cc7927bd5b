"""Figures of the pages that have no kernel, drawn by code whenever the book is built.

``book/<chapter>/figures.py`` holds a function for each: it takes nothing and returns a matplotlib
figure. ``elbo_curves`` becomes ``_build/figures/<chapter>/elbo-curves.svg``, which a page shows by the
usual directive::

    ```{figure} /_build/figures/vae/elbo-curves.svg
    :alt: what is drawn, for those who do not see it
    What to see in it.
    ```

A chapter is drawn again when its file, the library, a recorded result or matplotlib has changed. Where none
has been drawn before, the pages are read meanwhile: one process reads, so a processor would be idle.
"""

import ast
import hashlib
import inspect
import os
import time
from collections.abc import Callable
from concurrent.futures import Future, ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from types import ModuleType

from sphinx.application import Sphinx
from sphinx.util.logging import getLogger

from equation_labels import ROOT

FOLDER = ROOT / "_build" / "figures"
EMPTY = '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 1 1"/>'
LOGGER = getLogger(__name__)


def chapters() -> list[Path]:
    """The files that draw figures."""
    return sorted(ROOT.glob("book/*/figures.py"))


def load(path: Path) -> ModuleType:
    """Run a chapter's file as a module; all of them have the same name.

    From its text and not by an import, which takes a compiled file whose date, in whole seconds, and size
    are those of the source.
    """
    module = ModuleType(f"figures_of_{path.parent.name}")
    module.__file__ = str(path)
    exec(compile(path.read_text(encoding="utf-8"), path, "exec"), module.__dict__)
    return module


def drawings(module: ModuleType) -> dict[str, Callable]:
    """The functions that draw, by the names of their files."""
    return {
        name.replace("_", "-"): function
        for name, function in inspect.getmembers(module, inspect.isfunction)
        if function.__module__ == module.__name__ and not name.startswith("_")
    }


def names(path: Path) -> set[str]:
    """The names of the files that a chapter will draw, without running anything."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    functions = (node.name for node in tree.body if isinstance(node, ast.FunctionDef))
    return {name.replace("_", "-") for name in functions if not name.startswith("_")}


def draw(path: Path, figures: Path | None = None) -> int:
    """Draw what has changed of a chapter's figures; return how many were drawn."""
    import matplotlib as mpl

    folder = (figures or FOLDER) / path.parent.name
    folder.mkdir(parents=True, exist_ok=True)
    made, key = folder / ".made-from", _key(path, mpl.__version__)
    if made.exists() and made.read_text() == key:
        return 0
    made.unlink(missing_ok=True)
    mpl.use("agg")
    import matplotlib.pyplot as plt
    from course_lib.plotting import use_style

    functions = drawings(load(path))
    use_style()
    # Without a date and with names of its own: the same figure is the same file.
    with mpl.rc_context({"svg.hashsalt": path.parent.name}):
        for name, function in functions.items():
            function().savefig(folder / f"{name}.svg", metadata={"Date": None})
            plt.close("all")
    for left in folder.glob("*.svg"):
        if left.stem not in functions:
            left.unlink()
    made.write_text(key)
    return len(functions)


def _key(path: Path, version: str) -> str:
    """What a chapter's figures depend on."""
    digest = hashlib.sha256(version.encode())
    used = (*sorted(ROOT.glob("course_lib/**/*.py")), *sorted(ROOT.glob("results/*.json")))
    for source in (path, Path(__file__), *used):
        digest.update(source.read_bytes())
    return digest.hexdigest()


def draw_all(app: Sphinx) -> None:
    """Draw all chapters' figures: before the pages are read, or the first time while they are."""
    files = chapters()
    first = not any((FOLDER / path.parent.name / ".made-from").exists() for path in files)
    processors = os.cpu_count() or 1
    workers = max(1, min(len(files), processors - 1 if first else processors))
    # Processes of their own: what a chapter seeds or sets is not another's. Fresh ones, since torch is
    # loaded here.
    pool = ProcessPoolExecutor(workers, mp_context=get_context("spawn"))
    app.figures_begun = time.time()
    app.figures_in_work = {path: pool.submit(draw, path, FOLDER) for path in files}
    pool.shutdown(wait=False)  # takes nothing more, and ends when all is drawn
    if first:
        for path in files:
            reserve(path)
    else:
        finish(app)


def reserve(path: Path) -> None:
    """Put empty drawings where a chapter's figures will be, for pages that are read meanwhile."""
    folder = FOLDER / path.parent.name
    folder.mkdir(parents=True, exist_ok=True)
    for name in names(path):
        try:
            with (folder / f"{name}.svg").open("x") as file:
                file.write(EMPTY)
        except FileExistsError:
            pass  # it is drawn already


def finish(app: Sphinx, env: object = None) -> list[str]:
    """Wait until all is drawn, which is before the pages are written.

    Raises:
        Exception: what a figure has raised.
    """
    in_work: dict[Path, Future] = app.figures_in_work
    drawn = sum(future.result() for future in in_work.values())
    for path in in_work if drawn else ():
        for figure in (FOLDER / path.parent.name).glob("*.svg"):
            # Not later than the pages, which would be read again by the next build.
            os.utime(figure, (min(app.figures_begun, figure.stat().st_mtime),) * 2)
    in_work.clear()
    if drawn or env is None:
        LOGGER.info("figures drawn for the pages: %d", drawn)
    return []  # no page has to be written because of it


def setup(app: Sphinx) -> dict[str, bool | str]:
    app.connect("builder-inited", draw_all)
    app.connect("env-updated", finish)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
