"""Numbers for the text: a value that a notebook computed, named so that prose can quote it."""

from IPython.display import display


def glue(name: str, value: object) -> None:
    """Record a value under a name; the book's text quotes it as ``{glue:text}`name```.

    Writes the same record as ``myst_nb.glue``, without needing myst-nb where the notebook
    runs (a hosted notebook does not have it).

    Args:
        name: the name, unique within the notebook.
        value: what to quote; shown as ``str(value)``.
    """
    prefix = "application/papermill.record/"
    display(
        # A quoted string: the book would read 1.50 as a number, and show 1.5.
        {f"{prefix}text/plain": repr(str(value))},
        metadata={"scrapbook": {"name": name, "mime_prefix": prefix}},
        raw=True,
    )
