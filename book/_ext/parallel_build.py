"""Lets Sphinx read and write pages with all processors, which Jupyter Book's command does not ask for.

Pages are read in processes of their own, whose environments are merged. Each extension of this folder says
that it can stand this, and merges what it keeps (see ``env-merge-info`` in `common_mistakes`).
"""

import os
from collections.abc import Iterable

from sphinx.application import Sphinx

# It does not say whether it can be used in parallel. It numbers sections when all pages have been read.
UNDECLARED = "sphinx_multitoc_numbering"
MOST = 8  # as many pages at once as a laptop's memory holds


def processors() -> int:
    """How many this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def use_processors(app: Sphinx, env: object, docnames: Iterable[str]) -> None:
    """Set how many processes read and write; this is asked for only after this event."""
    if UNDECLARED in app.extensions:
        app.extensions[UNDECLARED].parallel_read_safe = True
    if processors() > 1:
        # One of them resolves references while the others write.
        app.parallel = min(MOST, processors()) + 1


def setup(app: Sphinx) -> dict[str, bool | str]:
    app.connect("env-before-read-docs", use_processors)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
