"""Figures of the pages that have no kernel, drawn by code whenever the book is built.

``book/<chapter>/figures.py`` holds a function for each: it takes nothing and returns a matplotlib
figure. ``elbo_curves`` becomes ``_build/figures/<chapter>/elbo-curves.svg``, which a page shows by the
usual directive::

    ```{figure} /_build/figures/vae/elbo-curves.svg
    :alt: what is drawn, for those who do not see it
    What to see in it.
    ```

A chapter is drawn again when its file, the library, a recorded result or matplotlib has changed.
"""

import hashlib
import inspect
import os
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from types import ModuleType

from sphinx.application import Sphinx
from sphinx.util.logging import getLogger

from equation_labels import ROOT

FOLDER = ROOT / "_build" / "figures"
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


def draw(path: Path) -> int:
    """Draw what has changed of a chapter's figures; return how many were drawn."""
    import matplotlib as mpl

    folder = FOLDER / path.parent.name
    folder.mkdir(parents=True, exist_ok=True)
    made, key = folder / ".made-from", _key(path, mpl.__version__)
    if made.exists() and made.read_text() == key:
        return 0
    made.unlink(missing_ok=True)
    for left in folder.glob("*.svg"):
        left.unlink()
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
    """Draw all chapters' figures, before the pages are read."""
    files = chapters()
    # Processes of their own: what a chapter seeds or sets is not another's. Fresh ones, since torch is
    # loaded here.
    workers = min(len(files), os.cpu_count()) or 1
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        drawn = sum(pool.map(draw, files))
    LOGGER.info("figures drawn for the pages: %d", drawn)


def setup(app: Sphinx) -> dict[str, bool | str]:
    app.connect("builder-inited", draw_all)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
