"""Transforms that treat every entry, or every channel, alike: affine maps, actnorm, the logit."""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from course_lib.flow.transform import Transform
from course_lib.inputs import (
    require_batch,
    require_event_shape,
    require_real,
    where_values_can_be_read,
)
from course_lib.precision import at_least_float32


class ElementwiseAffine(Transform):
    """A scale and a shift of its own for every entry: z = x · exp(s) + t.

    ``initialize`` sets them so that each entry of the given batch has mean 0 and variance 1.

    Args:
        event_shape: shape of one x.
    """

    def __init__(self, event_shape: Sequence[int]) -> None:
        self._build(event_shape, require_event_shape(event_shape))

    def _build(self, event_shape: Sequence[int], parameter_shape: Sequence[int]) -> None:
        super().__init__(event_shape)
        self.log_scale = nn.Parameter(torch.zeros(*parameter_shape))
        self.shift = nn.Parameter(torch.zeros(*parameter_shape))
        # How many entries share one scale: each counts in the log-determinant.
        self.shared = math.prod(event_shape) // math.prod(parameter_shape)

    def _forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return x * self._log_scale().exp() + self.shift, self._log_det(x)

    def _inverse(self, z: Tensor) -> tuple[Tensor, Tensor]:
        return (z - self.shift) * (-self._log_scale()).exp(), -self._log_det(z)

    def _log_det(self, x: Tensor) -> Tensor:
        return (self.shared * self._log_scale().sum()).expand(len(x))

    def _log_scale(self) -> Tensor:
        # Half precision would round exp(s) and exp(−s), and they would be no inverses.
        return at_least_float32(self.log_scale)

    def initialize(self, x: Tensor) -> Tensor:
        """Standardize the batch `x`: every scale's entries get mean 0 and variance 1."""
        require_batch(x, self.event_shape)
        x = at_least_float32(x)
        with torch.no_grad():
            # All dimensions that share a parameter: the batch, and those of size 1.
            sizes = (1, *self.log_scale.shape)
            shared = [i for i, size in enumerate(sizes) if size == 1]
            mean = x.mean(shared, keepdim=True).squeeze(0)
            deviation = (x - mean).square().mean(shared, keepdim=True).squeeze(0).sqrt()
            self.log_scale.copy_(-deviation.clamp(min=1e-3).log())
            self.shift.copy_(-mean * self._log_scale().exp())
        return super().initialize(x)


class ActNorm(ElementwiseAffine):
    """Activation normalization: one scale and one shift per channel, set by the first batch.

    After ``initialize`` they are ordinary parameters; unlike batch normalization nothing depends on
    the other examples. Source: Kingma and Dhariwal (2018), "Glow".

    Args:
        event_shape: shape ``(C, H, W)`` of one x; also ``(D,)``, where every entry is a channel.
    """

    def __init__(self, event_shape: Sequence[int]) -> None:
        event_shape = require_event_shape(event_shape)
        self._build(event_shape, (event_shape[0], *(1 for _ in event_shape[1:])))


class Logit(Transform):
    r"""From the unit interval to the line: z = logit(α + (1 − 2α) x), for every entry.

    The margin α keeps the data away from 0 and 1, where the logit is infinite. Its log-determinant
    is :math:`\sum_i \log(1 - 2α) - \log s_i - \log(1 - s_i)` with :math:`s_i = α + (1 - 2α) x_i`.
    Source: Papamakarios, Pavlakou and Murray (2017), "Masked Autoregressive Flow"; the RealNVP of
    Dinh, Sohl-Dickstein and Bengio (2017) has α + (1 − α) x.

    Args:
        event_shape: shape of one x.
        alpha: the margin, between 0 and ½.

    Raises:
        ValueError: `alpha` is out of range.
    """

    def __init__(self, event_shape: Sequence[int], alpha: float = 0.05) -> None:
        super().__init__(event_shape)
        margin = "a margin between 0 and 0.5, such as 0.05,"
        self.alpha = require_real(alpha, "alpha", margin, above=0, below=0.5)

    def settings(self) -> dict[str, object]:
        """What the map depends on, which has no weights."""
        return {**super().settings(), "alpha": self.alpha}

    def _forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        squeezed = self.alpha + (1 - 2 * self.alpha) * x
        # Samples may lie a little outside [0, 1], within the margin; nothing else can be mapped.
        with where_values_can_be_read():
            if squeezed.min() <= 0 or squeezed.max() >= 1:
                margin = self.alpha / (1 - 2 * self.alpha)
                raise ValueError(
                    f"x has values in [{x.min().item():.4g}, {x.max().item():.4g}]; values between "
                    f"{-margin:.4g} and {1 + margin:.4g} are expected. Pass dequantized levels, "
                    f"course_lib.data.dequantize(x, levels), or build the model with logit_margin=None."
                )
        z = squeezed.logit()
        return z, -self._log_det_inverse(z)

    def _inverse(self, z: Tensor) -> tuple[Tensor, Tensor]:
        # A far latent would be rounded to the end of the margin, or past it, which forward refuses.
        # Two units of rounding are what the steps there and back can add up to.
        rounding = 2 * torch.finfo(z.dtype).eps
        squeezed = z.sigmoid().clamp(rounding * self.alpha, 1 - rounding)
        x = (squeezed - self.alpha) / (1 - 2 * self.alpha)
        # The determinant belongs to the point that is returned, whose latent may be another one.
        reached = (self.alpha + (1 - 2 * self.alpha) * x).logit()
        return x, self._log_det_inverse(reached)

    def is_coarse(self, x: Tensor) -> Tensor:
        """Which examples have an entry so near an end that its latent has lost half of its digits."""
        squeezed = self.alpha + (1 - 2 * self.alpha) * x
        distance = torch.minimum(squeezed / self.alpha, 1 - squeezed)
        return (distance < torch.finfo(x.dtype).eps ** 0.5).flatten(1).any(1)

    def _log_det_inverse(self, z: Tensor) -> Tensor:
        # log σ'(z) = −softplus(z) − softplus(−z): finite for every z.
        slope = -F.softplus(z) - F.softplus(-z) - math.log(1 - 2 * self.alpha)
        return slope.flatten(1).sum(1)


def preprocessing(event_shape: Sequence[int], logit_margin: float | None) -> list[Transform]:
    """Return what comes before a flow's first layer: a `Logit` of that margin, or nothing."""
    require_event_shape(event_shape)
    if logit_margin is None:
        return []
    margin = "None, or a margin between 0 and 0.5, such as 0.05,"
    return [
        Logit(event_shape, require_real(logit_margin, "logit_margin", margin, above=0, below=0.5))
    ]
