"""Numbers that judge a model, each with its unit and its standard error."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from course_lib.inputs import require_tensor


@dataclass(frozen=True)
class Estimate:
    """A mean and its standard error.

    Attributes:
        mean: the estimate.
        standard_error: its standard deviation over repetitions, estimated from the sample.
        n: number of independent values behind it.
    """

    mean: float
    standard_error: float
    n: int

    def __str__(self) -> str:
        """Print as ``mean ± standard error`` with matching digits."""
        digits = 2
        if 0 < self.standard_error < math.inf:
            digits = max(0, 1 - math.floor(math.log10(self.standard_error)))
        return f"{self.mean:.{digits}f} ± {self.standard_error:.{digits}f}"


def estimate(values: Tensor) -> Estimate:
    """Mean of independent values with its standard error.

    NaN is not skipped: an example without a likelihood makes the average one without a value.

    Args:
        values: one value per example, shape ``(N,)``, N ≥ 2.

    Raises:
        ValueError: another shape, or fewer than two values.
    """
    require_tensor(values, "values")
    if values.dim() != 1 or len(values) < 2:
        raise ValueError(
            f"values has shape {tuple(values.shape)}; one value per example, at least two, is "
            f"expected. Sum over the dimensions of each example first."
        )
    values = values.double()
    return Estimate(
        values.mean().item(), (values.std() / math.sqrt(len(values))).item(), len(values)
    )


def bits_per_dim(log_prob: Tensor, event_shape: Sequence[int]) -> Tensor:
    r"""Bits per dimension of a discrete image: :math:`-\log P(x) / (D \log 2)`.

    `log_prob` must be that of the grey levels themselves. A density q of x / K (a flow on
    dequantized data) becomes one by ``log q - D * log(K)`` first.

    Args:
        log_prob: log P(x) in nats, any shape.
        event_shape: shape of one image; D is the product of its entries.

    Returns:
        Bits per dimension, in the shape of `log_prob`.

    Raises:
        ValueError: `event_shape` is empty or has an entry below 1.
    """
    if not event_shape or min(event_shape) < 1:
        raise ValueError(
            f"event_shape is {tuple(event_shape)}; a non-empty shape of positive sizes is expected."
        )
    return -log_prob / (math.prod(event_shape) * math.log(2))


def nearest_neighbours(x: Tensor, reference: Tensor) -> tuple[Tensor, Tensor]:
    """For each example, its nearest one in `reference`: a check for memorization.

    Args:
        x: examples, shape ``(N, …)``.
        reference: where to look, shape ``(M, …)``, of the same event shape.

    Returns:
        Euclidean distances, shape ``(N,)``, and indices into `reference`, shape ``(N,)``.

    Raises:
        TypeError: an argument is no tensor.
        ValueError: the event shapes differ, or `reference` is empty.
    """
    require_tensor(x)
    require_tensor(reference, "reference")
    if x.shape[1:] != reference.shape[1:] or len(reference) == 0:
        raise ValueError(
            f"x has shape {tuple(x.shape)} and reference {tuple(reference.shape)}; events of the "
            f"same shape, and at least one to compare with, are expected."
        )
    # Grey levels are integers, whose differences would wrap around.
    dtype = torch.promote_types(torch.promote_types(x.dtype, reference.dtype), torch.float32)
    flat, pool = x.flatten(1).to(dtype), reference.flatten(1).to(dtype)
    index = torch.cat([torch.cdist(part, pool).argmin(1) for part in flat.split(1024)])
    # cdist squares and subtracts large numbers; only this difference is exactly 0 for a copy.
    return (flat - pool[index]).norm(dim=1), index
