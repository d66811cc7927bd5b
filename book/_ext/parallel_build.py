"""Lets Sphinx read and write pages with all processors, which Jupyter Book's command does not ask for.

Pages are read in processes of their own, whose environments are merged. Each extension of this folder says
that it can stand this, and merges what it keeps (see ``env-merge-info`` in `common_mistakes`).
"""

import os
from collections.abc import Iterable

from sphinx.application import Sphinx

# They do not say whether pages can be read in parallel. The first works when all of them have been read, the
# second for LaTeX, and keeps nothing.
UNDECLARED = ("sphinx_multitoc_numbering", "sphinx_jupyterbook_latex")
MOST = 8  # as many pages at once as a laptop's memory holds


def processors() -> int:
    """How many this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def use_processors(app: Sphinx, env: object, docnames: Iterable[str]) -> None:
    """Set how many processes read and write; this is asked for only after this event."""
    for name in set(UNDECLARED) & set(app.extensions):
        app.extensions[name].parallel_read_safe = True
    if app.builder.format == "html" and processors() > 1:
        # One of them resolves references while the others write.
        app.parallel = min(MOST, processors()) + 1


def setup(app: Sphinx) -> dict[str, bool | str]:
    app.connect("env-before-read-docs", use_processors)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
