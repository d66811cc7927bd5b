"""Paths and grids in latent space, to be decoded and looked at."""

import torch
from torch import Tensor
from torch.distributions import Normal

from course_lib.inputs import (
    require_floating,
    require_integer,
    require_positive_integer,
    require_shapes,
)
from course_lib.interpolation import spherical_path, straight_path
from course_lib.precision import at_least_float32


def latent_grid(n: int) -> Tensor:
    """An n × n grid of latent points at equal steps of probability under the prior N(0, I₂).

    The inverse of the normal distribution function maps the centres of n equal intervals to the
    line, so that every cell of the plane carries the same prior mass. Rows go from the top
    (large z₂) to the bottom, as an image does.

    Args:
        n: points per side.

    Returns:
        Points, shape ``(n * n, 2)``, row by row.
    """
    n = require_positive_integer(n, "n")
    centres = (torch.arange(n) + 0.5) / n
    line = Normal(0.0, 1.0).icdf(centres)
    vertical, horizontal = torch.meshgrid(line.flip(0), line, indexing="ij")
    return torch.stack([horizontal, vertical], -1).reshape(-1, 2)


def traversal(z: Tensor, dim: int, values: Tensor) -> Tensor:
    """Copies of one latent point with one coordinate replaced.

    Args:
        z: the point, shape ``(d,)``.
        dim: which coordinate.
        values: what to put there, shape ``(n,)``.

    Returns:
        Points, shape ``(n, d)``.

    Raises:
        TypeError: `z` is not of a floating-point type, or `dim` is not an integer.
        ValueError: there is no such coordinate.
    """
    require_floating(z, "z")
    require_shapes(z=(z, "d"), values=(values, "n"))
    at_least_float32(values, "values")  # real numbers of any type
    dim = require_integer(dim, "dim")
    if not 0 <= dim < len(z):
        raise ValueError(f"dim is {dim}; one of 0 … {len(z) - 1} is expected.")
    points = z.repeat(len(values), 1)
    points[:, dim] = values
    return points


def interpolate(start: Tensor, end: Tensor, n: int, *, spherical: bool = False) -> Tensor:
    """Points on the way from one latent point to another.

    Args:
        start: first point, shape ``(d,)``.
        end: last point, shape ``(d,)``.
        n: number of points, both ends included, at least 2.
        spherical: follow a great circle instead of a straight line, see
            `course_lib.interpolation.spherical_path`.

    Returns:
        Points, shape ``(n, d)``, from `start` to `end` exactly.

    Raises:
        TypeError: a point is not of a floating-point type, or `n` is not an integer.
        ValueError: `n` is below 2, or the shapes differ.
    """
    return (spherical_path if spherical else straight_path)(start, end, n)
