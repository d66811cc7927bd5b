"""Figures. Every function draws into matplotlib axes, given or new, and returns them."""

import math
from collections.abc import Callable, Sequence

import matplotlib.pyplot as plt
import numpy as np
import seaborn as sns
import torch
from matplotlib.axes import Axes
from matplotlib.patches import Ellipse
from torch import Tensor

from course_lib.inputs import (
    require_function,
    require_kind,
    require_levels,
    require_positive_integer,
    require_real,
    require_shapes,
    require_tensor,
)
from course_lib.training import History


def use_style() -> None:
    """Set the course's figure style: a colour-blind-safe palette on a white ground.

    The white ground stays white on a dark page, where the book frames it.
    """
    sns.set_theme(style="ticks", palette="colorblind", context="notebook")
    plt.rcParams.update(
        {
            "figure.figsize": (6.4, 3.6),
            "figure.dpi": 110,
            "savefig.bbox": "tight",
            "figure.constrained_layout.use": True,
            "axes.spines.top": False,
            "axes.spines.right": False,
            "legend.frameon": False,
            "image.cmap": "gray",
        }
    )


def image_grid(
    images: Tensor, *, columns: int | None = None, title: str = "", ax: Axes | None = None
) -> Axes:
    """Draw a batch of images as one grid, row by row.

    Args:
        images: values in [0, 1] (others are clipped), shape ``(N, C, H, W)`` with C of 1 or 3.
        columns: images per row; by default as square as it goes.
        title: written above the grid.
        ax: where to draw; new axes if none is given.

    Returns:
        The axes.

    Raises:
        TypeError: `images` are no tensor, or integers, which may be grey levels of any number.
        ValueError: `images` is not of that shape.
    """
    require_tensor(images, "images")
    if not images.is_floating_point() and images.dtype != torch.bool:
        raise TypeError(
            f"images has dtype {images.dtype}; intensities in [0, 1] are expected. Convert grey levels "
            f"with course_lib.data.intensities(images, levels)."
        )
    if images.dim() != 4 or images.shape[1] not in (1, 3) or len(images) == 0:
        raise ValueError(
            f"images has shape {tuple(images.shape)}; (N, 1, H, W) or (N, 3, H, W) is expected."
        )
    n, channels, height, width = images.shape
    if columns is None:
        columns = math.ceil(math.sqrt(n))
    columns = require_positive_integer(columns, "columns")
    rows = -(-n // columns)
    # One pixel of mid-grey between neighbours, so that dark and light images both have an edge.
    canvas = np.full((rows * (height + 1) + 1, columns * (width + 1) + 1, channels), 0.5)
    pixels = images.detach().cpu().double().clamp(0, 1).permute(0, 2, 3, 1)  # a type that NumPy has
    for index, image in enumerate(pixels.numpy()):
        top = (index // columns) * (height + 1) + 1
        left = (index % columns) * (width + 1) + 1
        canvas[top : top + height, left : left + width] = image
    ax = ax or plt.subplots(figsize=(min(8, 0.6 * columns), min(8, 0.6 * rows)))[1]
    ax.imshow(canvas.squeeze(-1) if channels == 1 else canvas, vmin=0, vmax=1)
    ax.set_axis_off()
    ax.set_title(title)
    return ax


def curves(
    history: History,
    terms: Sequence[str] = ("loss",),
    *,
    ylabel: str = "nats per image",
    ax: Axes | None = None,
) -> Axes:
    """Draw terms of the loss over the steps: training solid, validation dashed.

    Args:
        history: what `course_lib.training.fit` returned.
        terms: names of the terms.
        ylabel: what the terms measure, with the unit.
        ax: where to draw; new axes if none is given.

    Returns:
        The axes.
    """
    require_kind(history, History, "history")
    sequence = isinstance(terms, Sequence) and not isinstance(terms, str)
    if not sequence or not terms or not all(isinstance(term, str) for term in terms):
        raise TypeError(f"terms is {terms!r}; a sequence of names is expected, such as ('loss',).")
    ax = ax or plt.subplots()[1]
    for index, term in enumerate(terms):
        ax.plot(*history.curve(term), color=f"C{index}", label=f"{term}, training")
        if history.validation:
            ax.plot(
                *history.curve(term, "validation"),
                color=f"C{index}",
                linestyle="--",
                label=f"{term}, validation",
            )
    ax.set(xlabel="step", ylabel=ylabel)
    # Above the curves, one column for each term: inside, some curve would run through it.
    ax.legend(loc="lower center", bbox_to_anchor=(0.5, 1), ncols=len(terms), fontsize="small")
    return ax


def density_1d(
    log_prob: Callable[[Tensor], Tensor],
    low: float,
    high: float,
    *,
    label: str = "",
    n_points: int = 400,
    ax: Axes | None = None,
    **line: object,
) -> Axes:
    """Draw a density on the line.

    Args:
        log_prob: maps points, shape ``(P,)``, to log densities, shape ``(P,)``. The points are of the
            type that it takes.
        low: left end of the drawn interval.
        high: right end.
        label: name of the curve in the legend.
        n_points: number of points.
        ax: where to draw; new axes if none is given.
        line: further arguments of matplotlib's ``plot``.

    Returns:
        The axes.
    """
    n_points = require_positive_integer(n_points, "n_points")
    require_function(log_prob, "log_prob", "a function of points")
    low, high = require_real(low, "low"), require_real(high, "high")
    ax = ax or plt.subplots()[1]
    points = torch.linspace(low, high, n_points, dtype=torch.float64)
    ax.plot(points.numpy(), _density(log_prob, points).numpy(), label=label, **line)
    ax.set(xlabel="x", ylabel="density")
    return ax


def density_2d(
    log_prob: Callable[[Tensor], Tensor],
    *,
    limit: float = 4.0,
    n_points: int = 120,
    ax: Axes | None = None,
) -> Axes:
    """Draw a density on the plane as shades over the square [−limit, limit]².

    Args:
        log_prob: maps points, shape ``(P, 2)``, to log densities, shape ``(P,)``. The points are of
            the type that it takes.
        limit: half the side of the square.
        n_points: points per side.
        ax: where to draw; new axes if none is given.

    Returns:
        The axes.
    """
    n_points = require_positive_integer(n_points, "n_points")
    require_function(log_prob, "log_prob", "a function of points")
    limit = require_real(limit, "limit", "a positive number", above=0)
    ax = ax or plt.subplots(figsize=(4, 4))[1]
    side = torch.linspace(-limit, limit, n_points)
    points = torch.cartesian_prod(side, side)
    values = _density(log_prob, points).reshape(n_points, n_points).T
    ax.imshow(values.numpy(), origin="lower", extent=(-limit, limit) * 2, cmap="viridis")
    ax.set(xlabel="$x_1$", ylabel="$x_2$")
    return ax


@torch.no_grad()
def _density(log_prob: Callable[[Tensor], Tensor], points: Tensor) -> Tensor:
    """Values of a density at points, on the CPU and of a type that NumPy has.

    A function does not say which type it takes, since most often it is an expression around a model:
    where it refuses that of the points, the others are tried.
    """
    others = (torch.float64, torch.float32, torch.bfloat16, torch.float16)
    refusal = None
    for dtype in dict.fromkeys((points.dtype, *others)):
        try:
            values = log_prob(points.to(dtype))
        except (TypeError, RuntimeError) as error:
            refusal = refusal or error  # the first: it is about what the caller sees
        else:
            return values.detach().double().exp().cpu()
    raise refusal


def posterior_ellipses(
    mean: Tensor, std: Tensor, labels: Tensor, *, ax: Axes | None = None
) -> Axes:
    """Draw diagonal Gaussian posteriors in the plane as ellipses of one standard deviation.

    Args:
        mean: means, shape ``(N, 2)``.
        std: standard deviations, shape ``(N, 2)``.
        labels: class of each example, shape ``(N,)``; gives the colour.
        ax: where to draw; new axes if none is given.

    Returns:
        The axes.

    Raises:
        ValueError: the latent space is not a plane.
    """
    for name, value in (("mean", mean), ("std", std), ("labels", labels)):
        require_tensor(value, name)
    advice = "Of more latent dimensions choose two first."
    require_shapes(advice, mean=(mean, "N 2"), std=(std, "N 2"), labels=(labels, "N"))
    require_levels(labels, 2**31, "labels")
    ax = ax or plt.subplots(figsize=(5, 5))[1]
    palette = sns.color_palette("tab10")
    for centre, (width, height), label in zip(
        mean.tolist(), (2 * std).tolist(), labels.tolist(), strict=True
    ):
        ax.add_patch(
            Ellipse(centre, width, height, facecolor=palette[label % 10], alpha=0.35, lw=0)
        )
    for label in sorted(set(labels.tolist())):
        ax.scatter([], [], color=palette[label % 10], label=str(label))
    ax.autoscale_view()
    ax.set(xlabel="$z_1$", ylabel="$z_2$", aspect="equal")
    ax.legend(loc="center left", bbox_to_anchor=(1, 0.5), title="class")
    return ax
