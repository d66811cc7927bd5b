"""Paths between two points of a latent space."""

import torch
from torch import Tensor

from course_lib.inputs import require_count, require_floating
from course_lib.precision import at_least_float32


def straight_path(start: Tensor, end: Tensor, n: int) -> Tensor:
    """Points at equal steps on the segment from one point to another.

    Args:
        start: first points, shape ``(..., d)``.
        end: last points, same shape.
        n: number of points, both ends included, at least 2.

    Returns:
        Points, shape ``(..., n, d)``; the first is `start` and the last `end`, exactly.

    Raises:
        TypeError: an end is not of a floating-point type, or `n` is not an integer.
        ValueError: `n` is below 2, or the shapes differ.
    """
    share = _shares(start, end, n)
    path = (1 - share) * start.unsqueeze(-2) + share * end.unsqueeze(-2)
    return path.to(start.dtype)


def spherical_path(start: Tensor, end: Tensor, n: int) -> Tensor:
    """Points at equal angles on a great circle, while the norm goes evenly from one to the other.

    In many dimensions the mass of a standard normal distribution lies near a sphere, and the middle
    of a segment between two of its points leaves it (White, 2016, "Sampling Generative Networks").
    No point is longer than the longer end. Between opposite points every great circle is as short:
    one of them is taken. In one dimension there is none between opposite points, and where an end is
    the origin it has no direction: the path is then the segment.

    Arguments, result and errors are those of `straight_path`.
    """
    share = _shares(start, end, n)
    dtype, start, end = start.dtype, at_least_float32(start), at_least_float32(end)
    radius_a, radius_b = map(_norm, (start, end))
    a, b = (_direction(point) for point in (start, end))
    # From the two chords the angle is exact near 0 and near π, where the cosine is flat.
    angle = 2 * torch.atan2((a - b).norm(dim=-1), (a + b).norm(dim=-1))[..., None, None]
    # Opposite directions leave no plane to turn in: the axis farthest from them spans one.
    axis = torch.nn.functional.one_hot(a.abs().argmin(-1), a.shape[-1]).to(a)
    opposite = (a + b).norm(dim=-1, keepdim=True) < torch.finfo(a.dtype).eps ** 0.5
    towards = torch.where(opposite, axis, b)
    across = _direction(_without(_direction(_without(towards, a)), a))
    turn = share * angle
    direction = turn.cos() * a.unsqueeze(-2) + turn.sin() * across.unsqueeze(-2)
    radius = (1 - share) * radius_a.unsqueeze(-2) + share * radius_b.unsqueeze(-2)
    straight = straight_path(start, end, n)
    undetermined = (radius_a == 0) | (radius_b == 0) | (opposite & (a.shape[-1] == 1))
    path = torch.where(undetermined.unsqueeze(-2), straight, radius * direction)
    inner = (share > 0) & (share < 1)
    return torch.where(inner, path, straight).to(dtype)  # the ends are given, not computed


def _direction(point: Tensor) -> Tensor:
    """The unit vector; zero for zero."""
    scaled = point / _scale(point)
    norm = scaled.norm(dim=-1, keepdim=True)
    return scaled / torch.where(norm > 0, norm, 1)


def _norm(point: Tensor) -> Tensor:
    """The Euclidean norm, with the last dimension kept."""
    scale = _scale(point)
    return scale * (point / scale).norm(dim=-1, keepdim=True)


def _scale(point: Tensor) -> Tensor:
    """What to divide by first, so that no square underflows or overflows: the largest entry."""
    largest = point.abs().amax(-1, keepdim=True)
    return torch.where(largest > 0, largest, 1)


def _without(point: Tensor, direction: Tensor) -> Tensor:
    """What is left of `point` without its part along `direction`, a unit vector."""
    return point - (point * direction).sum(-1, keepdim=True) * direction


def _shares(start: Tensor, end: Tensor, n: int) -> Tensor:
    """Equal steps from 0 to 1, shape ``(n, 1)``, for two ends that fit one another."""
    require_floating(start, "start")
    require_floating(end, "end")
    n = require_count(n, "n", at_least=2)
    if start.shape != end.shape:
        raise ValueError(
            f"start has shape {tuple(start.shape)} and end {tuple(end.shape)}; the same is expected."
        )
    # Neither shares nor angles have their digits in half precision.
    return torch.linspace(0, 1, n, dtype=at_least_float32(start).dtype, device=start.device)[
        :, None
    ]
