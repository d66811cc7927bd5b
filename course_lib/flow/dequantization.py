"""From grey levels to densities and back: dequantization, its bounds, and bits per dimension.

A grey level k owns the interval [k/K, (k + 1)/K). The probability that a density p of y = x/K
gives to an image is the integral of p over a box of volume K^(−D); noise u in [0, 1)^D picks the
point (x + u)/K of the box. Every change of variables on the way is accounted for in `log_weight`.
"""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from course_lib.data import dequantize, fill_intervals, intensities, to_levels
from course_lib.distributions import standard_normal_log_prob
from course_lib.flow.conditioners import VectorConditioner
from course_lib.flow.coupling import AffineCoupling
from course_lib.flow.flow import Flow
from course_lib.flow.transform import Composition
from course_lib.inputs import (
    require_event_shape,
    require_floating_type,
    require_function,
    require_generator,
    require_kind,
    require_levels,
    require_positive_integer,
    require_shape,
    require_tensor,
)
from course_lib.precision import at_least_float32, parameter_type
from course_lib.protocols import Bound
from course_lib.saved_settings import SavedSettings


def discrete_log_prob(log_density: Tensor, event_shape: Sequence[int], levels: int) -> Tensor:
    r"""From a log density of y = (x + u)/K to a log probability: subtract D log K.

    Args:
        log_density: log p(y) in nats, any shape.
        event_shape: shape of one image; D is the product of its entries.
        levels: number K of grey levels.

    Returns:
        The log density of x + u in nats, in the shape of `log_density`. Its mean over uniform u is at
        most log P(x), equation ``eq-dequantization-bound``.

    Raises:
        ValueError: `levels` is not positive.
    """
    levels = require_positive_integer(levels, "levels")
    require_tensor(log_density, "log_density")
    log_density = at_least_float32(log_density, "log_density")
    event_shape = require_event_shape(event_shape)
    return log_density - math.prod(event_shape) * math.log(levels)


def density_bits_per_dim(log_density: Tensor, event_shape: Sequence[int], levels: int) -> Tensor:
    r"""Bits per dimension from a log density of y = (x + u)/K, equation ``eq-bits-per-dim``.

    .. math:: \log_2 K - \frac{\log p(y)}{D \log 2}

    Args:
        log_density: log p(y) in nats, any shape; for variational dequantization less log q(u|x).
        event_shape: shape of one image; D is the product of its entries.
        levels: number K of grey levels.

    Returns:
        Bits per dimension, in the shape of `log_density`; in the mean over u an upper bound of the
        discrete model's.
    """
    levels = require_positive_integer(levels, "levels")
    require_tensor(log_density, "log_density")
    log_density = at_least_float32(log_density, "log_density")
    event_shape = require_event_shape(event_shape)
    return math.log2(levels) - log_density / (math.prod(event_shape) * math.log(2))


class UniformDequantizer(nn.Module):
    """Noise that is uniform whatever the image: log q(u|x) = 0."""

    def forward(
        self,
        x: Tensor,
        levels: int,
        generator: torch.Generator | None = None,
        dtype: torch.dtype | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Fill the levels' intervals.

        Args:
            x: integer grey levels, shape ``(N, *event_shape)``.
            levels: number K of grey levels.
            generator: source of the noise; the global one if none is given.
            dtype: floating-point type of the result; the default one if none is given.

        Returns:
            y = (x + u)/K and log q(u|x), shape ``(N,)``.
        """
        y = dequantize(x, levels, generator=generator, dtype=dtype)
        return y, y.new_zeros(len(y))


class VariationalDequantizer(SavedSettings):
    r"""Noise from a learned distribution q(u|x) on the unit cube: a flow that sees the image.

    Standard normal noise ε passes affine couplings whose networks also see x, then a sigmoid. The
    couplings act on the pair (ε, x) and always keep x: conditioning needs no machinery of its own.
    Source: Ho, Chen, Srinivas, Duan and Abbeel (2019), "Flow++", section 3.1.

    Args:
        event_shape: shape of one image.
        layers: number of couplings; the first transforms every entry given the image alone.
        hidden: width of each hidden layer of a coupling's network.
        dropout: probability of dropping a hidden unit while training.

    Raises:
        ValueError: there is only one entry, and more than one coupling.
    """

    def __init__(
        self,
        event_shape: Sequence[int],
        *,
        layers: int = 3,
        hidden: Sequence[int] = (128,),
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.event_shape = require_event_shape(event_shape)
        size = math.prod(self.event_shape)
        layers = require_positive_integer(layers, "layers")
        if size == 1 and layers > 1:
            raise ValueError(
                f"event_shape is {self.event_shape} and layers is {layers}; with one entry there is "
                f"nothing that a second coupling could keep. Call it with layers=1."
            )
        keep_image = torch.ones(size, dtype=torch.bool)
        couplings = []
        for index in range(layers):
            keep_noise = (
                torch.zeros(size, dtype=torch.bool)
                if index == 0
                else torch.arange(size) % 2 == index % 2
            )
            mask = torch.cat([keep_noise, keep_image])
            network = VectorConditioner(mask, AffineCoupling.n_parameters, hidden, dropout)
            couplings.append(AffineCoupling(mask, network))
        self.couplings = Composition(couplings)

    def settings(self) -> dict[str, object]:
        """What the weights' meaning depends on."""
        return {"event_shape": self.event_shape}

    def forward(
        self,
        x: Tensor,
        levels: int,
        generator: torch.Generator | None = None,
        dtype: torch.dtype | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Fill the levels' intervals.

        Args:
            x: integer grey levels, shape ``(N, *event_shape)``.
            levels: number K of grey levels.
            generator: source of the noise; the global one if none is given.
            dtype: floating-point type of y; that of the parameters, at least float32, if none is given.

        Returns:
            y = (x + u)/K and log q(u|x) in nats, shape ``(N,)``, at least float32; both differentiable.
        """
        require_tensor(x)
        require_shape(x, self.event_shape)
        own = torch.promote_types(next(self.parameters()).dtype, torch.float32)
        if dtype is not None:
            require_floating_type(dtype)
        context = 2 * intensities(x, levels, dtype=own).flatten(1) - 1
        require_generator(generator, context.device)
        noise = torch.empty_like(context).normal_(generator=generator)
        pair, log_det = self.couplings(torch.cat([noise, context], 1))
        v = pair[:, : noise.shape[1]]
        # u = σ(v): each entry's derivative is σ(v) σ(−v).
        log_slope = -(F.softplus(v) + F.softplus(-v)).sum(1)
        log_q = standard_normal_log_prob(noise) - log_det - log_slope
        u = v.sigmoid().unflatten(1, self.event_shape)
        y = fill_intervals(x, u, levels, dtype or own)
        return y, log_q.to(torch.promote_types(dtype or own, torch.float32))


class DequantizedFlow(SavedSettings):
    """A flow on [0, 1]^D as a model of grey levels, with bounds of its exact log probability.

    Args:
        flow: a density of y = (x + u)/K, for instance with a `course_lib.flow.Logit` first.
        levels: number K of grey levels.
        dequantizer: uniform if none is given; see `VariationalDequantizer`.
    """

    def __init__(self, flow: Flow, levels: int, dequantizer: nn.Module | None = None) -> None:
        super().__init__()
        density = "a density with log_prob, such as course_lib.flow.RealNVP,"
        require_function(getattr(flow, "log_prob", None), "flow's log_prob", density)
        if dequantizer is not None:
            require_kind(dequantizer, nn.Module, "dequantizer")
        self.flow, self.levels = flow, require_positive_integer(levels, "levels")
        self.dequantizer = UniformDequantizer() if dequantizer is None else dequantizer
        self.event_shape = flow.event_shape

    def settings(self) -> dict[str, object]:
        """What the weights' meaning depends on."""
        return {"levels": self.levels, "dequantizer": type(self.dequantizer).__name__}

    def log_weight(self, x: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Log importance weight of one draw of u: log p(y) − D log K − log q(u|x).

        Its exponential has mean P(x), the probability of the grey levels, over u ~ q(u|x).

        Args:
            x: integer grey levels, shape ``(N, *event_shape)``.
            generator: source of the noise; the global one if none is given.

        Returns:
            Nats, shape ``(N,)``.

        Raises:
            TypeError: `x` is not of an integer type.
            ValueError: `x` has another shape, or levels outside 0 … K−1.
        """
        require_tensor(x)
        require_shape(x, self.event_shape)
        x = require_levels(x, self.levels)
        # The levels are integers and carry no precision: that of the flow's map decides.
        dtype = parameter_type(self.flow)
        dtype = None if dtype is None else torch.promote_types(dtype, torch.float32)
        y, log_q = self.dequantizer(x, self.levels, generator, dtype)
        return discrete_log_prob(self.flow.log_prob(y), self.event_shape, self.levels) - log_q

    def elbo(
        self, x: Tensor, n_samples: int = 1, *, generator: torch.Generator | None = None
    ) -> Tensor:
        """Unbiased estimate of the dequantization bound, equation ``eq-dequantization-bound``.

        Args:
            x: integer grey levels, shape ``(N, *event_shape)``.
            n_samples: draws of the noise that are averaged.
            generator: source of the noise; the global one if none is given.

        Returns:
            Nats, shape ``(N,)``; in the mean at most log P(x).
        """
        n_samples = require_positive_integer(n_samples, "n_samples")
        return self._log_weights(x, n_samples, generator).mean(0)

    def importance_bound(
        self, x: Tensor, k: int, *, generator: torch.Generator | None = None
    ) -> Tensor:
        """Tighter bound from k draws: the log of the mean weight, ``eq-dequantization-importance``.

        Args:
            x: integer grey levels, shape ``(N, *event_shape)``.
            k: number of draws; the bound rises with k and tends to log P(x).
            generator: source of the noise; the global one if none is given.

        Returns:
            Nats, shape ``(N,)``; in the mean at most log P(x).
        """
        k = require_positive_integer(k, "k")
        return self._log_weights(x, k, generator).logsumexp(0) - math.log(k)

    def _log_weights(self, x: Tensor, k: int, generator: torch.Generator | None) -> Tensor:
        return torch.stack([self.log_weight(x, generator) for _ in range(k)])  # (k, N)

    @torch.no_grad()
    def sample(
        self, n: int, *, generator: torch.Generator | None = None, temperature: float = 1.0
    ) -> Tensor:
        """Draw images: the grey levels whose intervals the flow's samples fall into.

        A sample outside [0, 1) falls to a level at the ends, as in `to_levels`, so that each image
        is drawn with at least the probability that `log_weight` estimates.

        Args:
            n: how many.
            generator: source of the noise; the global one if none is given.
            temperature: standard deviation of the latent.

        Returns:
            Grey levels, int64, shape ``(n, *event_shape)``.
        """
        return self.to_levels(self.flow.sample(n, generator=generator, temperature=temperature))

    def to_levels(self, y: Tensor) -> Tensor:
        """Return the grey level of each value, the ends for values outside [0, 1)."""
        return to_levels(y, self.levels)


def negative_dequantization_bound(model: Bound, x: Tensor, progress: Tensor) -> Tensor:
    """Minus the bound of ``eq-dequantization-bound``, as `course_lib.training.fit` calls its losses.

    Args:
        model: a flow and its dequantizer, which are trained together.
        x: integer grey levels, shape ``(N, *event_shape)``.
        progress: not used.

    Returns:
        Nats per image, 0-d, from one draw of the noise.
    """
    return -model.elbo(x).mean()
