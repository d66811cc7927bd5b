"""Output laws: what a network's numbers mean as a distribution over one grey level.

A law reads P parameters, the last axis of what a model's ``forward`` returns, as a distribution
on 0 … K−1. It knows nothing of the network, and the network nothing of it but P.

Every law draws by inverting its distribution function at one uniform number. One number of noise
for each pixel is what makes two samplers comparable: from the same noise they must give the same
image, pixel by pixel.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from course_lib.inputs import require_levels, require_positive_integer
from course_lib.precision import at_least_float32


class Law:
    """A family of distributions on the grey levels 0 … K−1.

    Parameters in half precision are brought to float32, in which their densities can be added up.

    Attributes:
        levels: the number K of grey levels.
        n_parameters: the number P of parameters of one distribution.
    """

    levels: int
    n_parameters: int

    def log_prob(self, parameters: Tensor, x: Tensor) -> Tensor:
        """Log-probability of each grey level by itself.

        Args:
            parameters: shape ``(…, P)``.
            x: integer grey levels, shape ``(…)``.

        Returns:
            Nats, shape ``(…)``; the caller sums over the pixels of an image.
        """
        raise NotImplementedError

    def cdf(self, parameters: Tensor) -> Tensor:
        """Probabilities P(X ≤ k) for k = 0 … K−2, shape ``(…, K−1)``; P(X ≤ K−1) is 1."""
        raise NotImplementedError

    def draw(self, parameters: Tensor, u: Tensor) -> Tensor:
        """The quantile at `u`: the number of levels k with P(X ≤ k) ≤ u.

        Args:
            parameters: shape ``(…, P)``.
            u: uniform numbers in [0, 1), shape ``(…)``.

        Returns:
            Integer grey levels, shape ``(…)``.
        """
        return self.draw_prepared(parameters, self.prepare(u))

    def prepare(self, u: Tensor) -> Tensor:
        """Uniform numbers in the form that `draw_prepared` reads, once for a whole image."""
        return u

    def draw_prepared(self, parameters: Tensor, noise: Tensor) -> Tensor:
        """As `draw`, from noise that `prepare` has made of uniform numbers."""
        return (self.cdf(parameters) <= noise.unsqueeze(-1)).sum(-1)

    def probabilities(self, parameters: Tensor) -> Tensor:
        """The probability of every level, shape ``(…, K)``, for tables and figures."""
        every = torch.arange(self.levels, device=parameters.device)
        shape = parameters.shape[:-1]
        return self.log_prob(
            parameters.unsqueeze(-2).expand(*shape, self.levels, -1),
            every.expand(*shape, self.levels),
        ).exp()


class BernoulliLaw(Law):
    """Two levels, 0 and 1. The parameter is the logit of P(X = 1)."""

    levels = 2
    n_parameters = 1

    def log_prob(self, parameters: Tensor, x: Tensor) -> Tensor:
        """Log-probability of zeros and ones; see `Law.log_prob`."""
        logit = at_least_float32(parameters).squeeze(-1)
        return -F.binary_cross_entropy_with_logits(logit, x.to(logit.dtype), reduction="none")

    def cdf(self, parameters: Tensor) -> Tensor:
        """P(X ≤ 0), the only entry; see `Law.cdf`."""
        return torch.sigmoid(-at_least_float32(parameters))

    def prepare(self, u: Tensor) -> Tensor:
        """The smallest logit that gives 1: σ(−logit) ≤ u where logit ≥ −log(u / (1 − u))."""
        return -torch.logit(u)

    def draw_prepared(self, parameters: Tensor, noise: Tensor) -> Tensor:
        """As `Law.draw`: 1 where P(X ≤ 0) ≤ u."""
        return (parameters.squeeze(-1) >= noise).long()


class SoftmaxLaw(Law):
    """K levels without any notion that neighbouring levels are alike: one logit for each.

    Args:
        levels: the number K of grey levels.
    """

    def __init__(self, levels: int) -> None:
        self.levels = self.n_parameters = require_positive_integer(levels, "levels")

    def log_prob(self, parameters: Tensor, x: Tensor) -> Tensor:
        """Entry `x` of the logarithm of the softmax; see `Law.log_prob`."""
        logits = at_least_float32(parameters).flatten(0, -2)
        cost = F.cross_entropy(logits, x.flatten().long(), reduction="none")
        return -cost.view(x.shape)

    def cdf(self, parameters: Tensor) -> Tensor:
        """Cumulative sums of the softmax; see `Law.cdf`."""
        return F.softmax(at_least_float32(parameters), -1).cumsum(-1)[..., :-1]


class LogisticMixtureLaw(Law):
    """A mixture of logistic densities, cut into K bins (Salimans et al., 2017).

    Level k sits at 2k/(K−1) − 1, and its bin reaches half-way to its neighbours. The first bin
    reaches down to −∞ and the last up to +∞, so that the masses sum to exactly 1
    (``eq-discretized-logistic``). The parameters of one pixel are M logits of the weights, M
    means and M log-scales.

    Args:
        levels: the number K of grey levels, at least 2.
        n_components: the number M of logistic densities.
    """

    def __init__(self, levels: int, n_components: int = 5) -> None:
        self.levels = require_positive_integer(levels, "levels")
        if self.levels < 2:
            raise ValueError(f"levels is {levels}; at least 2 grey levels are expected.")
        self.n_components = require_positive_integer(n_components, "n_components")
        self.n_parameters = 3 * self.n_components

    def log_prob(self, parameters: Tensor, x: Tensor) -> Tensor:
        """Log-mass of the bin of `x` under the mixture; see `Law.log_prob`."""
        weight_logits, mean, log_scale = self._split(parameters)
        log_mass = discretized_logistic_log_mass(x.unsqueeze(-1), mean, log_scale, self.levels)
        return torch.logsumexp(F.log_softmax(weight_logits, -1) + log_mass, -1)

    def cdf(self, parameters: Tensor) -> Tensor:
        """The mixture's distribution function at the edges between bins; see `Law.cdf`."""
        weight_logits, mean, log_scale = (part.unsqueeze(-2) for part in self._split(parameters))
        k = torch.arange(self.levels - 1, device=mean.device, dtype=mean.dtype)
        edge = ((2 * k + 1) / (self.levels - 1) - 1).unsqueeze(-1)  # (K−1, 1)
        below = torch.sigmoid((edge - mean) * torch.exp(-log_scale))  # (…, K−1, M)
        return (F.softmax(weight_logits, -1) * below).sum(-1)

    def _split(self, parameters: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        weight_logits, mean, log_scale = at_least_float32(parameters).chunk(3, -1)
        # A scale far below the width of a bin is a point mass already; without a floor a pixel
        # that is always black drives it on, until its gradient overflows. Far above the range of the
        # levels, half of the mass is on either end, and that of a bin between them would underflow.
        return weight_logits, mean, log_scale.clamp(min=-math.log(self.levels) - 5, max=30)


def discretized_logistic_log_mass(
    x: Tensor, mean: Tensor, log_scale: Tensor, levels: int
) -> Tensor:
    r"""Log of the mass that a logistic density puts on the bin of level `x`.

    With a and b the standardized upper and lower edge of the bin, σ(a) − σ(b) equals
    σ(a) σ(−b) (1 − e^{b−a}), in which nothing cancels: no bin is too narrow or too far out.
    At the lowest level b is −∞, at the highest a is +∞: the edge bins take the tails.

    Source: equation ``eq-discretized-logistic``; Salimans et al. (2017).

    Args:
        x: integer grey levels, shape ``(…)``.
        mean: location on the scale where the levels span [−1, 1], broadcastable to `x`.
        log_scale: logarithm of the scale, broadcastable to `x`.
        levels: the number K of grey levels.

    Returns:
        Nats, in the broadcast shape.

    Raises:
        TypeError: `x` is not of an integer type.
        ValueError: `x` has values outside 0 … K−1.
    """
    x = require_levels(x, levels)
    mean, log_scale = at_least_float32(mean), at_least_float32(log_scale)
    centre = 2 * x.to(mean.dtype) / (levels - 1) - 1
    half = 1 / (levels - 1)
    inverse_scale = torch.exp(-log_scale)
    upper = (centre + half - mean) * inverse_scale
    lower = (centre - half - mean) * inverse_scale
    below_upper = F.logsigmoid(upper)
    above_lower = F.logsigmoid(-lower)
    between = torch.log(-torch.expm1(-2 * half * inverse_scale))
    inner = below_upper + above_lower + between
    return torch.where(x == 0, below_upper, torch.where(x == levels - 1, above_lower, inner))


def default_law(levels: int) -> Law:
    """The law that assumes least: Bernoulli for two levels, a K-way softmax for more."""
    return BernoulliLaw() if levels == 2 else SoftmaxLaw(levels)
