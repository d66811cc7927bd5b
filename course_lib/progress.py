"""Progress bars: a widget in a notebook, a line in a terminal, nothing where they are unwanted."""

import os

from tqdm.auto import tqdm


def progress_bar(*, show: bool = True, **arguments: object) -> tqdm:
    """A bar that disappears when it is done.

    Args:
        show: whether to show it; the environment variable ``TQDM_DISABLE`` hides every bar, as
            the book's build does.
        arguments: those of ``tqdm``: what to iterate over, ``total``, ``desc``, ``unit``.
    """
    # tqdm itself reads the variable in a terminal, but not in a notebook.
    disable = not show or bool(os.environ.get("TQDM_DISABLE"))
    return tqdm(leave=False, disable=disable, **arguments)
