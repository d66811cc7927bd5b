"""Paths and grids in latent space, to be decoded and looked at."""

import torch
from torch import Tensor
from torch.distributions import Normal

from course_lib.inputs import (
    require_floating,
    require_integer,
    require_positive_integer,
    require_tensor,
)
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
        TypeError: `z` is not of a floating-point type, or `dim` is no integer.
        ValueError: there is no such coordinate.
    """
    require_floating(z, "z")
    require_tensor(values, "values")
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
        spherical: follow a great circle instead of a straight line. In many dimensions the prior's
            mass lies near a sphere, and the middle of a straight line leaves it (White, 2016).

    Returns:
        Points, shape ``(n, d)``.

    Raises:
        TypeError: a point is not of a floating-point type, or `n` is no integer.
        ValueError: `n` is below 2.
    """
    require_floating(start, "start")
    require_floating(end, "end")
    n = require_positive_integer(n, "n")
    if n < 2:
        raise ValueError(f"n is {n}; at least the two ends are expected.")
    if start.dtype.itemsize < 4:  # neither shares nor angles have their digits in half precision
        wide = interpolate(at_least_float32(start), at_least_float32(end), n, spherical=spherical)
        return wide.to(start.dtype)
    share = torch.linspace(0, 1, n, dtype=start.dtype, device=start.device).unsqueeze(1)
    if not spherical:
        return (1 - share) * start + share * end
    cosine = torch.dot(start, end) / (start.norm() * end.norm())
    angle = torch.arccos(cosine.clamp(-1, 1))
    # Parallel, or the origin, whose angle is NaN: the circle is not determined, the line is.
    if not angle.sin().abs() >= 1e-6:
        return interpolate(start, end, n)
    return (((1 - share) * angle).sin() * start + (share * angle).sin() * end) / angle.sin()
