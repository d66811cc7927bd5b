"""Output distributions: what a network's numbers mean as a distribution over one value.

An output distribution reads P parameters, the last axis of what a network returns, as the
distribution of one entry of an example: a grey level or an intensity. It knows nothing of the
network, and the network nothing of it but P. Autoregressive models and decoders take the same ones.

Parameters in half precision are brought to float32, in which densities can be added up.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import FunctionCtx
from torch.distributions import Distribution, Normal

from course_lib.data import intensities
from course_lib.inputs import (
    require_broadcast,
    require_count,
    require_levels,
    require_positive_integer,
    require_real,
    require_tensor,
    require_unit_interval,
    where_values_can_be_read,
)
from course_lib.precision import at_least_float32
from course_lib.saved_settings import SavedSettings


class OutputDistribution(nn.Module):
    """A family of distributions of one entry, given by P parameters.

    Attributes:
        n_parameters: the number P of parameters of one entry.
    """

    n_parameters: int = 1

    def log_prob(self, parameters: Tensor, x: Tensor) -> Tensor:
        """Log-probability, or log-density, of each entry by itself.

        Args:
            parameters: shape ``(…, P)``.
            x: values, shape ``(…)``; the shapes broadcast.

        Returns:
            Nats, shape ``(…)``, at least float32; the caller sums over the entries of an example.
        """
        raise NotImplementedError

    def mean(self, parameters: Tensor) -> Tensor:
        """The mean of each entry, shape ``(…)``, in the units of `draw`."""
        raise NotImplementedError

    def draw(self, parameters: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Draw each entry once.

        Args:
            parameters: shape ``(…, P)``.
            generator: source of the noise; the global one if none is given.

        Returns:
            Values, shape ``(…)``, in the type of `parameters`.
        """
        raise NotImplementedError

    def check(self, x: Tensor) -> None:
        """Require data that can come from this distribution.

        Raises:
            ValueError: they cannot.
        """
        raise NotImplementedError

    def check_reported(self, x: Tensor) -> None:
        """Require data whose `log_prob` is a log-likelihood, to be reported as one: see `Bernoulli`.

        Raises:
            ValueError: they are accepted as a loss, but are no values of this distribution.
        """
        self.check(x)

    def given(self, parameters: Tensor, event_dims: int) -> "Conditional":
        """The distribution of whole examples, whose last `event_dims` axes are independent entries.

        Args:
            parameters: shape ``(..., *event_shape, P)``.
            event_dims: number of axes of one example.
        """
        return Conditional(self, parameters, event_dims)

    def label(self) -> str:
        """Its name, with those settings that its state dict does not hold."""
        settings = self.extra_repr()
        return f"{type(self).__name__}({settings})" if settings else type(self).__name__


class Conditional(Distribution):
    """p(x | parameters): an example whose entries are independent, as `torch.distributions` has it.

    Args:
        output: the distribution of one entry.
        parameters: shape ``(..., *event_shape, P)``.
        event_dims: number of axes of one example.
    """

    def __init__(self, output: OutputDistribution, parameters: Tensor, event_dims: int) -> None:
        self.output, self.parameters = output, parameters
        shape = parameters.shape[:-1]
        split = len(shape) - event_dims
        super().__init__(shape[:split], shape[split:], validate_args=False)

    @property
    def mean(self) -> Tensor:
        """The mean of every entry, shape ``(..., *event_shape)``."""
        return self.output.mean(self.parameters)

    def log_prob(self, value: Tensor) -> Tensor:
        """Nats of each example: the sum over its entries."""
        each = self.output.log_prob(self.parameters, value)
        n = len(self.event_shape)
        return each.reshape(*each.shape[: each.dim() - n], -1).sum(-1)

    def sample(self, sample_shape: torch.Size = torch.Size()) -> Tensor:  # noqa: B008
        """Draw examples, shape ``(*sample_shape, ..., *event_shape)``, from the global generator."""
        with torch.no_grad():
            return self.output.draw(self.parameters.expand(*sample_shape, *self.parameters.shape))


class GreyLevels(OutputDistribution):
    """A distribution on the grey levels 0 … K−1.

    Values are levels, integers, or the intensities k/(K−1) that a decoder's images consist of.

    Levels are drawn by inverting the distribution function at one uniform number. One number of
    noise for each pixel is what makes two samplers comparable: from the same noise they must give
    the same image, pixel by pixel.

    Attributes:
        levels: the number K of grey levels.
    """

    levels: int

    def cdf(self, parameters: Tensor) -> Tensor:
        """Probabilities P(X ≤ k) for k = 0 … K−2, shape ``(…, K−1)``; P(X ≤ K−1) is 1."""
        raise NotImplementedError

    def quantile(self, parameters: Tensor, u: Tensor) -> Tensor:
        """The quantile at `u`: the number of levels k with P(X ≤ k) ≤ u.

        Args:
            parameters: shape ``(…, P)``.
            u: uniform numbers in [0, 1), shape ``(…)``.

        Returns:
            Integer grey levels, shape ``(…)``.
        """
        return self.quantile_prepared(parameters, self.prepare(u))

    def prepare(self, u: Tensor) -> Tensor:
        """Uniform numbers in the form that `quantile_prepared` reads, once for a whole image."""
        return u

    def quantile_prepared(self, parameters: Tensor, noise: Tensor) -> Tensor:
        """As `quantile`, from noise that `prepare` has made of uniform numbers."""
        return (self.cdf(parameters) <= noise.unsqueeze(-1)).sum(-1)

    def probabilities(self, parameters: Tensor) -> Tensor:
        """The probability of every level, shape ``(…, K)``, for tables and figures."""
        every = torch.arange(self.levels, device=parameters.device)
        shape = parameters.shape[:-1]
        return self.log_prob(
            parameters.unsqueeze(-2).expand(*shape, self.levels, -1),
            every.expand(*shape, self.levels),
        ).exp()

    def mean(self, parameters: Tensor) -> Tensor:
        """The mean intensity; see `OutputDistribution.mean`."""
        probabilities = self.probabilities(parameters)
        every = torch.arange(self.levels, device=parameters.device)
        return probabilities @ intensities(every, self.levels, dtype=probabilities.dtype)

    def draw(self, parameters: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Draw intensities; see `OutputDistribution.draw`."""
        wide = at_least_float32(parameters)
        u = torch.rand(wide.shape[:-1], generator=generator, dtype=wide.dtype, device=wide.device)
        return intensities(self.quantile(wide, u), self.levels, dtype=parameters.dtype)

    def check(self, x: Tensor) -> None:
        """Require levels 0 … K−1, or intensities k/(K−1); raise `ValueError` otherwise."""
        if not x.is_floating_point():
            require_levels(x, self.levels)
            return
        require_unit_interval(x)
        scaled = at_least_float32(x) * (self.levels - 1)
        # They may be off by the rounding of their type, if they are nearer to one level than to the next.
        slack = min(0.25, (self.levels - 1) * torch.finfo(x.dtype).eps)
        with where_values_can_be_read():
            off = (scaled - scaled.round()).abs().max().item()
            if off > slack:
                raise ValueError(
                    f"x has values up to {off:.3g} of a step away from the {self.levels} grey levels; "
                    f"intensities k / {self.levels - 1} are expected. Map levels to them with "
                    f"course_lib.data.intensities(x, {self.levels})."
                )

    def _pairs(self, parameters: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        """Parameters and levels in one shape, and intensities as the levels that they are."""
        if x.is_floating_point():
            x = (at_least_float32(x) * (self.levels - 1)).round().long()
        shape = torch.broadcast_shapes(parameters.shape[:-1], x.shape)
        return at_least_float32(parameters).expand(*shape, -1), x.expand(shape)


class Bernoulli(GreyLevels):
    r"""Two levels, 0 and 1. The parameter is the logit of P(X = 1).

    Made for binary data. As a loss, `log_prob` accepts intensities in [0, 1] too, because the
    expression :math:`x\log\pi + (1-x)\log(1-\pi)` is defined for them. There it is a cross-entropy
    and not a log-likelihood, so `check_reported` refuses them, and with it every estimate of log p(x).
    """

    levels = 2
    n_parameters = 1

    def log_prob(self, parameters: Tensor, x: Tensor) -> Tensor:
        """Log-probability of zeros and ones; see `OutputDistribution.log_prob`."""
        logits = at_least_float32(parameters).squeeze(-1)
        x = at_least_float32(x) if x.is_floating_point() else x.to(logits.dtype)
        logits, x = torch.broadcast_tensors(logits, x)
        # Negated in place: a step of a small VAE takes noticeably longer with another tensor of this size.
        return F.binary_cross_entropy_with_logits(logits, x, reduction="none").neg_()

    def mean(self, parameters: Tensor) -> Tensor:
        """P(X = 1)."""
        return at_least_float32(parameters).squeeze(-1).sigmoid()

    def cdf(self, parameters: Tensor) -> Tensor:
        """P(X ≤ 0), the only entry; see `GreyLevels.cdf`."""
        return torch.sigmoid(-at_least_float32(parameters))

    def prepare(self, u: Tensor) -> Tensor:
        """The smallest logit that gives 1: σ(−logit) ≤ u where logit ≥ −log(u / (1 − u))."""
        return -torch.logit(u)

    def quantile_prepared(self, parameters: Tensor, noise: Tensor) -> Tensor:
        """As `GreyLevels.quantile`: 1 where P(X ≤ 0) ≤ u."""
        return (parameters.squeeze(-1) >= noise).long()

    def draw(self, parameters: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Draw zeros and ones; see `OutputDistribution.draw`."""
        return torch.bernoulli(self.mean(parameters), generator=generator).to(parameters.dtype)

    def check(self, x: Tensor) -> None:
        """Require values in [0, 1]; raise `ValueError` otherwise."""
        require_unit_interval(x)

    def check_reported(self, x: Tensor) -> None:
        """Require zeros and ones; raise `ValueError` otherwise."""
        self.check(x)
        with where_values_can_be_read():
            grey = (x != 0) & (x != 1)
            if grey.any():
                raise ValueError(
                    f"{grey.double().mean().item():.0%} of the values of x are neither 0 nor 1, but a "
                    f"Bernoulli likelihood is one of zeros and ones: on grey values the expression is a "
                    f"cross-entropy, which must not be reported as log p(x). Binarize the data with "
                    f"course_lib.data.binarize(x), or build the model with another distribution."
                )


class Categorical(GreyLevels):
    """K levels without any notion that neighbouring levels are alike: one logit for each.

    Args:
        levels: the number K of grey levels.
    """

    def __init__(self, levels: int) -> None:
        super().__init__()
        self.levels = self.n_parameters = require_positive_integer(levels, "levels")

    def extra_repr(self) -> str:
        """The number of levels."""
        return f"{self.levels}"

    def log_prob(self, parameters: Tensor, x: Tensor) -> Tensor:
        """Entry `x` of the logarithm of the softmax; see `OutputDistribution.log_prob`."""
        logits, x = self._pairs(parameters, x)
        cost = F.cross_entropy(logits.flatten(0, -2), x.flatten().long(), reduction="none")
        return -cost.view(x.shape)

    def cdf(self, parameters: Tensor) -> Tensor:
        """Cumulative sums of the softmax; see `GreyLevels.cdf`."""
        return F.softmax(at_least_float32(parameters), -1).cumsum(-1)[..., :-1]


class DiscretizedLogisticMixture(GreyLevels):
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
        super().__init__()
        self.levels = require_count(levels, "levels", at_least=2)
        self.n_components = require_positive_integer(n_components, "n_components")
        self.n_parameters = 3 * self.n_components

    def extra_repr(self) -> str:
        """The numbers of levels and of components."""
        return f"{self.levels}, {self.n_components}"

    def log_prob(self, parameters: Tensor, x: Tensor) -> Tensor:
        """Log-mass of the bin of `x` under the mixture; see `OutputDistribution.log_prob`."""
        parameters, x = self._pairs(parameters, x)
        weight_logits, mean, log_scale = self._split(parameters)
        log_mass = discretized_logistic_log_mass(x.unsqueeze(-1), mean, log_scale, self.levels)
        return torch.logsumexp(F.log_softmax(weight_logits, -1) + log_mass, -1)

    def cdf(self, parameters: Tensor) -> Tensor:
        """The mixture's distribution function at the edges between bins; see `GreyLevels.cdf`."""
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


# Of a learned σ: a thousandth of the range of intensities in [0, 1].
LEAST_LOG_SIGMA = -7.0


class _Floor(torch.autograd.Function):
    """The larger one of `x` and a floor. Below it a gradient passes if descent would raise `x`.

    `clamp` has no gradient there: a parameter that an optimizer has carried below would stay.
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, floor: float) -> Tensor:
        return x.clamp(min=floor)

    @staticmethod
    def setup_context(ctx: FunctionCtx, inputs: tuple[Tensor, float], output: Tensor) -> None:
        x, floor = inputs
        ctx.save_for_backward(x >= floor)

    @staticmethod
    def backward(ctx: FunctionCtx, gradient: Tensor) -> tuple[Tensor, None]:
        (above,) = ctx.saved_tensors
        return gradient * (above | (gradient < 0)), None


class Gaussian(OutputDistribution, SavedSettings):
    r"""A Gaussian of one standard deviation for all entries; the parameter is the mean.

    With a fixed σ, :math:`-\log p(x|z) = \frac{1}{2\sigma^2}\lVert x-\hat x\rVert^2
    + \frac D2\log 2\pi\sigma^2`: the squared error of an autoencoder, whose weight against the
    KL term σ sets. σ = 1 on data in [0, 1] is a very large weight on the KL term.

    A learned σ has a floor of :math:`e^{-7}`, below any noise of images. Without one the density of a
    perfect fit, and with it the likelihood, would have no upper bound (``eq-unbounded-likelihood``).

    Args:
        sigma: the standard deviation; learned together with the network if ``None``.

    Raises:
        ValueError: `sigma` is not positive.
    """

    def __init__(self, sigma: float | None = None) -> None:
        super().__init__()
        if sigma is not None:
            expected = "a positive standard deviation, or None to learn it,"
            sigma = require_real(sigma, "sigma", expected, above=0)
        # A given number stays a Python number: exact in float64 too, and on no device.
        self.given_sigma = sigma
        self.log_sigma = nn.Parameter(torch.tensor(math.log(0.3))) if sigma is None else None

    def settings(self) -> dict[str, object]:
        """What the state's meaning depends on: a given σ is not a parameter."""
        return {"sigma": self.given_sigma}

    @property
    def sigma(self) -> Tensor:
        """The standard deviation, a scalar; in float64 if it was given."""
        if self.log_sigma is None:
            return torch.tensor(self.given_sigma, dtype=torch.float64)
        return _Floor.apply(at_least_float32(self.log_sigma), LEAST_LOG_SIGMA).exp()

    def log_prob(self, parameters: Tensor, x: Tensor) -> Tensor:
        """Log-density of each value; see `OutputDistribution.log_prob`."""
        mean = self.mean(parameters)
        normal = Normal(mean, self._sigma_for(mean), validate_args=False)
        return normal.log_prob(at_least_float32(x))

    def mean(self, parameters: Tensor) -> Tensor:
        """The parameter itself."""
        return at_least_float32(parameters).squeeze(-1)

    def draw(self, parameters: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Draw real numbers; see `OutputDistribution.draw`."""
        mean = self.mean(parameters)
        noise = torch.randn(mean.shape, dtype=mean.dtype, device=mean.device, generator=generator)
        return (mean + self._sigma_for(mean) * noise).to(parameters.dtype)

    def check(self, x: Tensor) -> None:
        """Accept any finite value."""

    def _sigma_for(self, mean: Tensor) -> Tensor:
        if self.log_sigma is None:
            return torch.full((), self.given_sigma, dtype=mean.dtype, device=mean.device)
        return self.sigma.to(mean.dtype)


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
        TypeError: `x` is not of an integer type, or another argument not a tensor of real numbers.
        ValueError: `x` has values outside 0 … K−1, or the shapes do not broadcast.
    """
    levels = require_count(levels, "levels", at_least=2)
    x = require_levels(x, levels)
    require_broadcast(x=x, mean=mean, log_scale=log_scale)
    mean, log_scale = at_least_float32(mean, "mean"), at_least_float32(log_scale, "log_scale")
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


def default_output(levels: int) -> GreyLevels:
    """The distribution that assumes least: Bernoulli for two levels, a categorical one for more."""
    levels = require_positive_integer(levels, "levels")
    return Bernoulli() if levels == 2 else Categorical(levels)


def normal_log_prob(x: Tensor, mean: Tensor | float = 0.0, logvar: Tensor | None = None) -> Tensor:
    """Log-density of a normal distribution at each number by itself.

    Args:
        x: where, any shape.
        mean: means, broadcastable to `x`.
        logvar: log σ² (not log σ), broadcastable to `x`; of a unit variance if none is given.

    Returns:
        Nats, in the broadcast shape, at least float32.

    Raises:
        TypeError: an argument is not a tensor of real numbers.
        ValueError: the shapes do not broadcast, or `mean` is not a number.
    """
    given = {"x": x} | ({"mean": mean} if isinstance(mean, Tensor) else {})
    given |= {} if logvar is None else {"logvar": logvar}
    require_broadcast(**given)
    given = {name: at_least_float32(value, name) for name, value in given.items()}
    x, logvar = given["x"], given.get("logvar")
    mean = (
        given["mean"] if "mean" in given else require_real(mean, "mean", "a tensor, or a number,")
    )
    squared = (x - mean) ** 2
    if logvar is not None:
        squared = squared / logvar.exp() + logvar
    return -0.5 * (squared + math.log(2 * math.pi))


def standard_normal_log_prob(z: Tensor) -> Tensor:
    """Log-density of the standard normal distribution of whole examples.

    Args:
        z: shape ``(N, ...)``.

    Returns:
        The sum over all entries of each example, in nats, shape ``(N,)``.
    """
    require_tensor(z, "z")
    z = at_least_float32(z, "z")
    if z.dim() == 0:
        raise ValueError("z has shape (); (N, ...) is expected.")
    z = z.flatten(1) if z.dim() > 1 else z.unsqueeze(1)
    return -0.5 * (z.square().sum(1) + z.shape[1] * math.log(2 * math.pi))
