"""Maximum mean discrepancy: a distance between distributions that needs only samples and a kernel."""

from collections.abc import Callable

import torch
from torch import Tensor

from course_lib.inputs import require_function, require_real, require_shapes
from course_lib.precision import in_one_type

Kernel = Callable[[Tensor, Tensor], Tensor]

# Values of the kernel computed at once: those of all pairs of 55,000 images would take 24 GB in float64.
PAIRS = 2**24


def gaussian_kernel(x: Tensor, y: Tensor, bandwidth: float = 1.0) -> Tensor:
    r""":math:`\exp(-\lVert x-y\rVert^2 / 2h^2)` for all pairs, shape ``(N, M)``."""
    bandwidth = require_real(bandwidth, "bandwidth", "a positive number", above=0)
    return (-_squared_distances(x, y) / (2 * bandwidth**2)).exp()


def imq_kernel(x: Tensor, y: Tensor) -> Tensor:
    r"""Inverse multiquadrics kernel, summed over scales, for all pairs: shape ``(N, M)``.

    .. math:: \sum_s \frac{C_s}{C_s + \lVert x-y\rVert^2}, \qquad C_s = 2 d s

    2d is the expected squared distance of two standard normal points in d dimensions. Its tails
    fall slowly, so that latents far from the prior still feel a gradient (Tolstikhin et al., 2018).
    """
    squared = _squared_distances(x, y)
    base = 2 * x.shape[-1]
    return sum(
        base * scale / (base * scale + squared) for scale in (0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)
    )


def cubic_kernel(x: Tensor, y: Tensor) -> Tensor:
    r""":math:`(x^\top y / d + 1)^3` for all pairs, shape ``(N, M)``: that of ``eq-kernel-distance``."""
    x, y = _require_points(x, y)
    return (x @ y.T / x.shape[1] + 1) ** 3


def mmd(x: Tensor, y: Tensor, kernel: Kernel = imq_kernel) -> Tensor:
    r"""Unbiased estimate of the squared MMD, equation ``eq-mmd-unbiased``.

    .. math:: \frac{1}{n(n-1)}\sum_{i\ne j} k(x_i,x_j) + \frac{1}{m(m-1)}\sum_{i\ne j} k(y_i,y_j)
              - \frac{2}{nm}\sum_{i,j} k(x_i,y_j)

    Being unbiased it can be slightly negative. Gretton et al. (2012).

    Args:
        x: sample of the first distribution, shape ``(n, d)``, n ≥ 2.
        y: sample of the second distribution, shape ``(m, d)``, m ≥ 2.
        kernel: positive definite kernel on all pairs.

    Returns:
        The estimate, a 0-d tensor, differentiable.

    Raises:
        ValueError: a sample has fewer than two points, or the dimensions differ.
    """
    x, y = _require_points(x, y, at_least=2)
    require_function(kernel, "kernel", "a function of two samples, such as imq_kernel,")

    def mean_of_distinct(sample: Tensor) -> Tensor:
        n, start = len(sample), 0
        total = diagonal = 0
        for part in _pieces(sample, n):
            gram = kernel(part, sample)
            total = total + gram.sum()
            diagonal = diagonal + gram.diagonal(start).sum()
            start += len(part)
        return (total - diagonal) / (n * (n - 1))

    within = mean_of_distinct(x) + mean_of_distinct(y)
    between = sum(kernel(part, y).sum() for part in _pieces(x, len(y))) / (len(x) * len(y))
    return within - 2 * between


def _pieces(x: Tensor, others: int) -> tuple[Tensor, ...]:
    rows = max(1, PAIRS // others)
    return (x,) if len(x) <= rows else x.split(rows)


def _require_points(x: Tensor, y: Tensor, at_least: int = 1) -> tuple[Tensor, Tensor]:
    """Require two sets of points of one dimension, and return them in one type."""
    advice = "Use a larger batch, or flatten the examples."
    require_shapes(advice, examples=at_least, x=(x, "N d"), y=(y, "M d"))
    return in_one_type(x=x, y=y)


def _squared_distances(x: Tensor, y: Tensor) -> Tensor:
    x, y = _require_points(x, y)
    # From the differences themselves: |x|² + |y|² − 2xᵀy cancels where the points are far from 0.
    # The gradient of this distance at equal points is 0, not that of a square root.
    return torch.cdist(x, y, compute_mode="donot_use_mm_for_euclid_dist").square()
