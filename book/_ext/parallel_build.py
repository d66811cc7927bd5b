"""Lets Sphinx write pages with all processors, which Jupyter Book's command does not ask for.

Pages are read by one process: the domain of proofs cannot merge what several have read.
"""

import os

from sphinx.application import Sphinx

MOST = 8  # as many pages at once as a laptop's memory holds


def processors() -> int:
    """How many this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def use_processors(app: Sphinx, env: object) -> None:
    """Set how many processes write; Sphinx looks when all pages have been read."""
    if app.builder.format == "html" and processors() > 1:
        # One of them resolves references while the others write.
        app.parallel = min(MOST, processors()) + 1


def setup(app: Sphinx) -> dict[str, bool | str]:
    app.connect("env-updated", use_processors)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
