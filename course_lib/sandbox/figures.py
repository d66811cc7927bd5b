"""A matplotlib backend for notebooks that nobody watches: figures are kept, and never drawn.

As in a notebook, `show` takes no notice of whether there is a window, and closes the figures.
"""

from matplotlib.backends.backend_agg import FigureCanvasAgg, FigureManagerBase

FigureCanvas = FigureCanvasAgg
FigureManager = FigureManagerBase


def show(*_: object, **__: object) -> None:
    """End the figures, as a notebook does once they stand on its page."""
    import matplotlib.pyplot as plt

    plt.close("all")
