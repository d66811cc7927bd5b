"""Planar flow: a rank-one change of the identity, whose determinant costs O(D)."""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from course_lib.flow.transform import Transform
from course_lib.precision import at_least_float32, without_autocast


class Planar(Transform):
    r"""z = x + u tanh(wᵀx + b), equation ``eq-planar``.

    By the matrix determinant lemma :math:`\det = 1 + u^\top w\,(1 - \tanh^2(w^\top x + b))`. The map
    is invertible when :math:`w^\top u > -1`; u is computed from a free vector so that this always
    holds. The inverse has no formula, but only one unknown number, wᵀx, on which z depends
    monotonically: it is found by bisection. Source: Rezende and Mohamed (2015), section 4.1 and
    appendix A.1.

    Args:
        event_shape: shape ``(D,)`` of one x.

    Raises:
        ValueError: `event_shape` has more than one entry.
    """

    def __init__(self, event_shape: Sequence[int]) -> None:
        super().__init__(event_shape)
        if len(self.event_shape) != 1:
            raise ValueError(
                f"event_shape is {self.event_shape}; (D,) is expected. Flatten the examples with "
                f"x.flatten(1), and give their number of entries: ({math.prod(self.event_shape)},)."
            )
        (features,) = self.event_shape
        self.weight = nn.Parameter(torch.randn(features) / features**0.5)
        self.free_direction = nn.Parameter(0.1 * torch.randn(features))
        self.bias = nn.Parameter(torch.zeros(()))

    def direction(self) -> Tensor:
        """Return u with wᵀu > −1: the free vector, moved along w only."""
        return self._direction_and_least_slope()[0]

    def _direction_and_least_slope(self) -> tuple[Tensor, Tensor]:
        """u, and 1 + wᵀu > 0, the derivative of wᵀz with respect to wᵀx where the tanh is steepest.

        The second is known before u is; computed from u it would cancel where it is small.
        """
        weight, free = at_least_float32(self.weight), at_least_float32(self.free_direction)
        inner = weight @ free
        tiny = torch.finfo(inner.dtype).tiny
        norm = weight.square().sum()
        least = F.softplus(inner).clamp(min=tiny)
        direction = free + (least - 1 - inner) * weight / norm.clamp(min=tiny)
        # Without a weight nothing bends, whatever u is.
        return direction, torch.where(norm >= tiny, least, torch.ones_like(least))

    def _forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        with without_autocast(x):
            direction, least = self._direction_and_least_slope()
            bend = torch.tanh(x @ self.weight.to(x.dtype) + self.bias)  # (N,)
            z = x + bend[:, None] * direction
            return z, _slope(bend, least).log()

    def _inverse(self, z: Tensor) -> tuple[Tensor, Tensor]:
        with without_autocast(z):
            return self._invert(z)

    def _invert(self, z: Tensor) -> tuple[Tensor, Tensor]:
        direction, least = self._direction_and_least_slope()
        inner = least - 1
        target = z @ self.weight.to(z.dtype)  # wᵀz = a + wᵀu tanh(a + b) for the unknown a = wᵀx
        a = self._solve(target.detach(), inner.detach())
        # Newton steps outside the search: they polish a, and carry the derivatives with it, the first
        # step those of first order, the second those of second and third.
        for _ in range(2):
            bend = torch.tanh(a + self.bias)
            residual = a + inner * bend - target
            a = a - residual / _slope(bend, least)
        bend = torch.tanh(a + self.bias)
        return z - bend[:, None] * direction, -_slope(bend, least).log()

    @torch.no_grad()
    def _solve(self, target: Tensor, slope: Tensor) -> Tensor:
        """Bisection: |tanh| ≤ 1 encloses the root within |wᵀu| of the target."""
        low, high = target - slope.abs(), target + slope.abs()
        for _ in range(60):
            middle = 0.5 * (low + high)
            below = middle + slope * torch.tanh(middle + self.bias) < target
            low, high = torch.where(below, middle, low), torch.where(below, high, middle)
        return 0.5 * (low + high)


def _slope(bend: Tensor, least: Tensor) -> Tensor:
    """1 + wᵀu (1 − tanh²), the determinant, as a mean of 1 and its least value: nothing cancels."""
    square = bend.square()
    return square + (1 - square) * least
