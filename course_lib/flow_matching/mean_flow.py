"""MeanFlow: a network of the average velocity over an interval, which needs one evaluation for a sample."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from course_lib.flow_matching.base import FromNoise
from course_lib.flow_matching.gaussian import gaussian_average_velocity
from course_lib.flow_matching.objectives import logit_normal_times
from course_lib.inputs import (
    require_batch,
    require_function,
    require_kind,
    require_positive_integer,
    require_real,
    require_tensor,
    where_values_can_be_read,
)
from course_lib.networks import evaluation_mode
from course_lib.precision import at_least_float32, in_one_type, parameter_type
from course_lib.schedules import (
    low_discrepancy_times,
    per_example,
    require_alike,
    require_times,
)
from course_lib.timed_networks import timed_network


class MeanFlow(FromNoise):
    r"""The average velocity :math:`u(x_t, r, t) = \frac{1}{t-r}\int_r^t v(x_\tau, \tau)\,\mathrm d\tau`.

    A step x_r = x_t − (t − r) u(x_t, r, t) of any length is exact for the true u, so one step from noise is
    enough. Differentiating (t − r) u along a trajectory gives what u has to satisfy, ``eq-mean-flow``:

    .. math:: u = v - (t-r)\,\bigl(v\cdot\nabla u + \partial_t u\bigr)

    The path is the linear one. As in `VelocityFlow`, the network adds to what is exact for a Gaussian.
    Geng, Deng, Bai, Kolter and He (2025), "Mean flows for one-step generative modeling".

    Args:
        event_shape: shape of one example.
        levels: number K of grey levels, if the data are dequantized grey levels; None for continuous data.
        hidden: widths of the perceptron's layers, all alike.
        channels: if given, a convolutional network with that many channels replaces the perceptron.
        n_blocks: its number of blocks.
        dropout: probability of dropping a hidden unit while training.

    Raises:
        ValueError: a size is below 1, or there is one grey level only.
    """

    def __init__(
        self,
        event_shape: Sequence[int],
        levels: int | None = None,
        *,
        hidden: Sequence[int] = (256, 256, 256),
        channels: int | None = None,
        n_blocks: int = 3,
        dropout: float = 0.0,
    ) -> None:
        super().__init__(event_shape, levels)
        self.network = timed_network(
            self.event_shape, hidden, channels, n_blocks, dropout=dropout, n_times=2
        )
        self.n_classes = None

    def forward(self, x: Tensor, r: Tensor | float, t: Tensor | float) -> Tensor:
        """Return the average velocity u(x, r, t).

        Args:
            x: examples at time t, shape ``(N, *event_shape)``.
            r: the earlier time, in [0, 1], or one for each example, shape ``(N,)``.
            t: the later time, likewise.

        Returns:
            Shape ``(N, *event_shape)``, at least float32.

        Raises:
            ValueError: a time is outside [0, 1], or `r` is later than `t`.
        """
        require_batch(x, self.event_shape)
        x = at_least_float32(x)
        r, t = (require_times(time, name).to(x) for time, name in ((r, "r"), (t, "t")))
        for time, name in ((r, "r"), (t, "t")):
            per_example(time, x, name)
        r, t = r.expand(len(x)), t.expand(len(x))
        with where_values_can_be_read():
            if (r > t).any():
                raise ValueError(
                    "r is later than t in an example; the earlier time, nearer to the data, is "
                    "expected first."
                )
        mean, variance = self.mean.to(x), self.variance.to(x)
        at = per_example(t, x)
        size = ((1 - at) ** 2 * (mean**2 + variance).mean() + at**2).sqrt()
        own = parameter_type(self.network)
        times = torch.stack([t, t - r], -1)
        learned = at_least_float32(self.network((x / size).to(own), times)).to(x)
        scale = (variance / ((1 - at) ** 2 * variance + at**2)).sqrt()
        return gaussian_average_velocity(x, r, t, mean, variance) + scale * learned

    @torch.no_grad()
    def sample(self, n: int, *, steps: int = 1, generator: torch.Generator | None = None) -> Tensor:
        """Draw noise and carry it to data in `steps` equal steps, each one evaluation of the network.

        Args:
            n: how many.
            steps: at least 1.
            generator: source of the noise, on the model's device; the global one if none is given.

        Returns:
            Grey levels, int64, if the model has levels; else continuous. Shape ``(n, *event_shape)``.
        """
        x = self.from_noise(self.prior(n, generator=generator), steps=steps)
        return x if self.levels is None else self.to_levels(x)

    @torch.no_grad()
    def from_noise(self, noise: Tensor, *, steps: int = 1) -> Tensor:
        """Carry given noise to continuous data, in the shape of `noise`."""
        require_batch(noise, self.event_shape, "noise")
        steps = require_positive_integer(steps, "steps")
        x = at_least_float32(noise)
        with evaluation_mode(self):
            for step in range(steps, 0, -1):
                x = x - self(x, (step - 1) / steps, step / steps) / steps
        return x


def mean_flow_target(
    average: Callable[[Tensor, Tensor, Tensor], Tensor],
    x: Tensor,
    velocity: Tensor,
    r: Tensor,
    t: Tensor,
) -> tuple[Tensor, Tensor]:
    """u(x, r, t), and what ``eq-mean-flow`` says that it has to be: v − (t − r)(v·∇u + ∂_t u).

    The bracket is the derivative of u along the trajectory: one product of a Jacobian and the direction
    (v, 0, 1) of (x, r, t), computed forwards together with u.

    Args:
        average: u, called as ``average(x, r, t)``.
        x: examples at time t, shape ``(N, *event_shape)``.
        velocity: v at (x, t), or the conditional one, in the shape of `x`.
        r: the earlier time of each, shape ``(N,)``.
        t: the later time of each, shape ``(N,)``.

    Returns:
        u, differentiable, and its target, without gradients; each in the shape of `x`.
    """
    require_function(average, "average", "a function of examples and two times")
    require_alike(x=x, velocity=velocity)
    for name, time in (("r", r), ("t", t)):
        require_tensor(time, name)
        per_example(require_times(time, name), x, name)
    x, velocity, r, t = in_one_type(x, velocity, r, t)
    direction = (velocity, torch.zeros_like(r), torch.ones_like(t))
    u, change = torch.func.jvp(average, (x, r, t), direction)
    return u, (velocity - per_example(t - r, x) * change).detach()


@dataclass(kw_only=True)
class MeanFlowLoss:
    r"""‖u − target‖² of `mean_flow_target`, with the conditional velocity ε − x for the marginal one.

    The target is linear in the velocity, so its mean given x_t is that of the marginal velocity, as in
    ``eq-cfm-gradient``. Of most examples both times are equal, which is flow matching; the others carry what
    was learned there over intervals. An example's weight is (‖u − target‖² + 10⁻³)^(−p), without a gradient,
    so that few large errors do not rule.

    Args:
        share: of the examples whose two times differ: the first ones of each batch, their number rounded.
        mean: of the logits of the times.
        deviation: standard deviation of the logits.
        power: p of the weight; 0 for none.
        evaluations: draws of each example in evaluation.

    Raises:
        ValueError: a number is out of range.
    """

    share: float = 0.25
    mean: float = -0.4
    deviation: float = 1.0
    power: float = 1.0
    evaluations: int = 8

    def __post_init__(self) -> None:
        self.share = require_real(self.share, "share", "a share in [0, 1]", at_least=0, at_most=1)
        self.mean = require_real(self.mean, "mean")
        self.deviation = require_real(self.deviation, "deviation", "a positive number", above=0)
        self.power = require_real(self.power, "power", "a number ≥ 0", at_least=0)
        self.evaluations = require_positive_integer(self.evaluations, "evaluations")

    def __call__(self, model: MeanFlow, batch: Tensor, progress: Tensor) -> dict[str, Tensor]:
        """Return the weighted loss, and the squared error itself, means over the batch."""
        require_kind(model, MeanFlow, "model")
        require_tensor(batch, "the batch")
        draws = 1 if model.training else self.evaluations
        error = torch.cat([self.errors(model, batch) for _ in range(draws)])
        weight = (error.detach() + 1e-3) ** -self.power
        return {"loss": (weight * error).mean(), "squared error": error.mean()}

    def errors(self, model: MeanFlow, x: Tensor) -> Tensor:
        """The squared error of each example over an interval of its own, shape ``(N,)``."""
        x = at_least_float32(x) if model.levels is None else model.fill(x)
        noise = torch.randn_like(x)
        r, t = self.intervals(x)
        z = per_example(1 - t, x) * x + per_example(t, x) * noise
        u, target = mean_flow_target(model, z, noise - x, r, t)
        return (u - target).square().flatten(1).sum(1)

    def intervals(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Both ends of an interval for each example, r ≤ t, each of shape ``(N,)``."""
        first, second = (
            logit_normal_times(
                low_discrepancy_times(len(x), shuffled=True, dtype=x.dtype, device=x.device),
                self.mean,
                self.deviation,
            )
            for _ in range(2)
        )
        t = torch.maximum(first, second)
        apart = torch.arange(len(x), device=x.device) < round(self.share * len(x))
        # Where they are equal, either of the two: the larger one would not have their distribution.
        return torch.where(apart, torch.minimum(first, second), first), torch.where(apart, t, first)
