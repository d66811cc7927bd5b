"""A continuous normalizing flow whose velocity is a network, trained by flow matching."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from course_lib.distributions import standard_normal_log_prob
from course_lib.flow_matching.base import FromNoise
from course_lib.flow_matching.levels import level_ends
from course_lib.flow_matching.paths import gaussian_velocity
from course_lib.guidance import guided, require_classes, require_weight
from course_lib.inputs import (
    require_batch,
    require_count,
    require_kind,
    require_positive_integer,
)
from course_lib.networks import evaluation_mode
from course_lib.precision import at_least_float32, parameter_type
from course_lib.schedules import LinearPath, Schedule, per_example, require_times
from course_lib.solvers import (
    Velocity,
    draw_probes,
    find_method,
    flow_log_prob,
    integrate,
    time_grid,
)
from course_lib.timed_networks import timed_network

PREDICTIONS = ("velocity", "levels")
NEARLY_NO_NOISE = 1e-3  # keeps the log SNR that the network is told finite at both ends
LEAST_TIME = 1e-4  # where the velocity of grey levels at time 0, which is a limit, is computed


class LogProbWithError(NamedTuple):
    """A log-density by an ODE solver, and how far the solver is from the exact solution.

    Attributes:
        log_prob: nats, shape ``(N,)``.
        error: an estimate of the solver's absolute error, nats, shape ``(N,)``.
    """

    log_prob: Tensor
    error: Tensor


class VelocityFlow(FromNoise):
    r"""A flow that moves each example with a learned velocity from data, at time 0, to noise, at time 1.

    .. math:: \dot x = v(x, t), \qquad
              \log p(x_0) = \log \mathcal N(x_1; 0, I) + \int_0^1 \operatorname{div} v(x_t, t)\,\mathrm dt

    Equation ``eq-instantaneous-change``; Chen, Rubanova, Bettencourt and Duvenaud (2018). It is trained
    without solving the ODE, by `FlowMatching`; Lipman, Chen, Ben-Hamu, Nickel and Le (2023).

    The network does not start from nothing; `initialize` looks at data for it. With the prediction
    ``"velocity"`` its output is added to the velocity that a Gaussian with the data's means and variances
    would have, entry by entry, so that it only has to learn what is not Gaussian. Its input has the mean
    square 1 and its target, for Gaussian data, the variance 1 at all times; Karras, Aittala, Aila and Laine
    (2022) call that preconditioning.

    Dequantized grey levels have a density with steps at the levels' edges. With the prediction ``"levels"``
    the network gives K logits for each entry, of what the other entries say of it, added to those of the
    levels' frequencies; what the noised entry itself says is Bayes' rule, in closed form (`level_ends`). The
    velocity is α̇ E[y|x_t] + σ̇ E[ε|x_t] of it.

    Args:
        event_shape: shape of one example.
        levels: number K of grey levels, if the data are dequantized grey levels; None for continuous data.
        hidden: widths of the perceptron's layers, all alike.
        channels: if given, a convolutional network with that many channels replaces the perceptron.
        n_blocks: its number of blocks.
        prediction: ``"velocity"``, or ``"levels"`` for a model with levels.
        schedule: the path; the linear one if None.
        n_classes: number of classes, for a conditional model; none if None.
        dropout: probability of dropping a hidden unit while training.

    Raises:
        TypeError: `schedule` is not one.
        ValueError: a size is below 1, there is one grey level only, no such prediction, or `schedule` is
            learned or discrete.

    Example:
        >>> model = VelocityFlow((2,), hidden=(16,))
        >>> model.log_prob(torch.randn(5, 2), steps=10).shape
        torch.Size([5])
    """

    def __init__(
        self,
        event_shape: Sequence[int],
        levels: int | None = None,
        *,
        hidden: Sequence[int] = (256, 256, 256),
        channels: int | None = None,
        n_blocks: int = 3,
        prediction: str = "velocity",
        schedule: Schedule | None = None,
        n_classes: int | None = None,
        dropout: float = 0.0,
    ) -> None:
        super().__init__(event_shape, levels)
        self.schedule = _require_path(LinearPath() if schedule is None else schedule)
        self.prediction = self._require_prediction(prediction)
        n_outputs = self.levels if prediction == "levels" else 1
        self.network = timed_network(
            self.event_shape, hidden, channels, n_blocks, n_outputs, n_classes, dropout
        )
        self.n_classes = self.network.n_classes
        if prediction == "levels":
            self.register_buffer("log_frequencies", torch.zeros(*self.event_shape, self.levels))

    def settings(self) -> dict[str, object]:
        """What the weights' meaning depends on."""
        return {**super().settings(), "prediction": self.prediction}

    def _require_prediction(self, prediction: str) -> str:
        if not isinstance(prediction, str) or prediction not in PREDICTIONS:
            raise ValueError(
                f"prediction is {prediction!r}; one of {', '.join(map(repr, PREDICTIONS))} is expected."
            )
        if prediction == "levels" and self.levels is None:
            raise ValueError(
                "prediction is 'levels' for continuous data; 'velocity' is expected there. Pass levels=K."
            )
        return prediction

    @torch.no_grad()
    def initialize(self, x: Tensor) -> None:
        """Take the mean and the variance of every entry from data, and the frequencies of its levels.

        Args:
            x: grey levels if the model has levels, else continuous data, shape ``(N, *event_shape)``, N ≥ 2.
        """
        super().initialize(x)
        if self.prediction == "levels":
            counts = torch.stack([(x == level).sum(0) for level in range(self.levels)], -1)
            # As if each level had been seen a little more often: none is impossible.
            self.log_frequencies.copy_(((counts + 0.1) / (len(x) + 0.1 * self.levels)).log())

    # --- the velocity ---------------------------------------------------------------------------

    def forward(self, x: Tensor, t: Tensor | float, labels: Tensor | None = None) -> Tensor:
        """Return the velocity v(x, t).

        Args:
            x: examples on their way, shape ``(N, *event_shape)``.
            t: a time in [0, 1], or one for each example, shape ``(N,)``.
            labels: classes, shape ``(N,)``, ``n_classes`` for none; None for none at all.

        Returns:
            Shape ``(N, *event_shape)``, at least float32.
        """
        require_batch(x, self.event_shape)
        x = at_least_float32(x)
        t = require_times(t).to(x)
        per_example(t, x, "t")
        t = t.expand(len(x))
        if self.prediction == "levels":
            return self._velocity_of_levels(x, t.clamp(min=LEAST_TIME), labels)
        learned = self._network_output(x, t, labels)
        # The standard deviation of the conditional velocity given x_t, for Gaussian data.
        mean, variance = self.mean.to(x), self.variance.to(x)
        alpha, sigma, alpha_rate, sigma_rate = (per_example(a, x) for a in self._path(t))
        spread = alpha**2 * variance + sigma**2
        scale = (alpha_rate * sigma - sigma_rate * alpha).abs() * (variance / spread).sqrt()
        return gaussian_velocity(self.schedule, x, t, mean, variance) + scale * learned

    def _velocity_of_levels(self, x: Tensor, t: Tensor, labels: Tensor | None) -> Tensor:
        alpha, sigma, alpha_rate, sigma_rate = self._path(t)
        logits = self._network_output(x, t, labels) + self.log_frequencies.to(x)
        clean, noise = level_ends(logits, x, alpha, sigma)
        return per_example(alpha_rate, x) * clean + per_example(sigma_rate, x) * noise

    def _network_output(self, x: Tensor, t: Tensor, labels: Tensor | None) -> Tensor:
        """What the network says, in the type of `x`. It sees all entries on one scale, of mean square 1."""
        alpha, sigma = (per_example(a, x) for a in self._path(t)[:2])
        square = (self.mean**2 + self.variance).mean().to(x)
        own = parameter_type(self.network)
        seen = (x / (alpha**2 * square + sigma**2).sqrt()).to(own)
        return at_least_float32(self.network(seen, self.clock(t), labels)).to(x)

    def _path(self, t: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """α, σ and their derivatives at times of shape ``(N,)``."""
        path = self.schedule
        return path.alpha(t), path.sigma(t), path.alpha_rate(t), path.sigma_rate(t)

    def clock(self, t: Tensor) -> Tensor:
        """What the network is told of the time: the log SNR, kept finite where α or σ is 0."""
        alpha, sigma = self.schedule.alpha(t), self.schedule.sigma(t)
        return torch.log((alpha**2 + NEARLY_NO_NOISE**2) / (sigma**2 + NEARLY_NO_NOISE**2))

    def velocity(self, labels: Tensor | None = None, *, guidance: float = 0.0) -> Velocity:
        """The velocity as a function of an example and a time, as `course_lib.solvers` takes it.

        Args:
            labels: classes, shape ``(N,)``, of a conditional model; None for none at all.
            guidance: w ≥ 0 of classifier-free guidance, equation ``eq-guidance``; 0 for none. With it the
                network is evaluated twice. A velocity is affine in the score, with the same factors with and
                without a class, so that guiding one guides the other.

        Raises:
            ValueError: `guidance` is negative, or asked for without labels.
        """
        w = require_weight(guidance, labels, self.n_classes)
        if w == 0:
            return lambda x, t: self(x, t, labels)
        return lambda x, t: guided(self(x, t, labels), self(x, t), w)

    # --- likelihood -----------------------------------------------------------------------------

    @torch.no_grad()
    def log_prob(
        self,
        x: Tensor,
        labels: Tensor | None = None,
        *,
        guidance: float = 0.0,
        steps: int = 40,
        method: str = "midpoint",
        n_probes: int | None = None,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """Log-density of continuous data.

        It is exact for the exact solution of the ODE and the exact divergence. A solver's error shrinks by
        2, 4 or 16 when steps of a method of order 1, 2 or 4 are halved; too few steps may flatter or
        disfavour the model, so look at `log_prob_with_error` before a number is reported. The steps are
        those of equal steps of √t: short near the data, whose density has the finest structure.

        Args:
            x: data, shape ``(N, *event_shape)``; of grey levels, what `fill` returns.
            labels: classes, shape ``(N,)``, of a conditional model; None for none at all.
            guidance: w ≥ 0, for the density of guided samples; see `velocity`.
            steps: of the solver.
            method: ``"euler"``, ``"midpoint"``, ``"heun"`` or ``"rk4"``.
            n_probes: random vectors from which the divergence is estimated, the same at all times of one
                call: unbiased for the log-density. None for the exact divergence, which takes a backward
                pass for each entry of an example.
            generator: source of the probes; the global one if none is given.

        Returns:
            Nats, shape ``(N,)``, without gradients.

        Raises:
            ValueError: `x` has another shape, `steps` is below 1, or there is no such method.
        """
        x, probes = self._start(x, n_probes, generator)
        velocity = self._guided_velocity(labels, len(x), guidance)
        return self._log_prob(x, velocity, steps, method, probes)

    @torch.no_grad()
    def log_prob_with_error(
        self,
        x: Tensor,
        labels: Tensor | None = None,
        *,
        guidance: float = 0.0,
        steps: int = 40,
        method: str = "midpoint",
        n_probes: int | None = None,
        generator: torch.Generator | None = None,
    ) -> LogProbWithError:
        """Log-density with an estimate of the solver's error, from half as many steps.

        If a method of order q has the error E with n steps, it has about 2^q E with n/2, so the difference of
        the two is about (2^q − 1) E, ``eq-richardson``. That holds once the steps are small enough. Probes
        are the same in both.

        Args:
            x: as in `log_prob`.
            labels: as in `log_prob`.
            guidance: as in `log_prob`.
            steps: of the finer solution, even.
            method: as in `log_prob`.
            n_probes: as in `log_prob`.
            generator: as in `log_prob`.

        Raises:
            ValueError: `steps` is odd; else as `log_prob`.
        """
        steps = require_count(steps, "steps", at_least=2)
        if steps % 2:
            raise ValueError(
                f"steps is {steps}; an even number is expected, because half as many tell the error."
            )
        x, probes = self._start(x, n_probes, generator)
        velocity = self._guided_velocity(labels, len(x), guidance)
        fine, coarse = (self._log_prob(x, velocity, n, method, probes) for n in (steps, steps // 2))
        return LogProbWithError(fine, (fine - coarse).abs() / (2 ** find_method(method).order - 1))

    def _start(
        self, x: Tensor, n_probes: int | None, generator: torch.Generator | None
    ) -> tuple[Tensor, Tensor | None]:
        require_batch(x, self.event_shape)
        x = at_least_float32(x)
        if n_probes is None:
            return x, None
        return x, draw_probes(x, n_probes, generator=generator)

    def _guided_velocity(self, labels: Tensor | None, n: int, guidance: float) -> Velocity:
        return self.velocity(require_classes(labels, n, self.n_classes), guidance=guidance)

    def _log_prob(
        self, x: Tensor, velocity: Velocity, steps: int, method: str, probes: Tensor | None
    ) -> Tensor:
        def log_prior(end: Tensor) -> Tensor:
            return standard_normal_log_prob(end.flatten(1))

        times = self.times(steps).flip(0).square()
        with evaluation_mode(self):
            return flow_log_prob(velocity, x, times, log_prior, method, probes)

    def elbo(
        self,
        x: Tensor,
        n_samples: int = 1,
        labels: Tensor | None = None,
        *,
        guidance: float = 0.0,
        steps: int = 40,
        method: str = "midpoint",
        n_probes: int | None = None,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """Estimate of the dequantization bound of grey levels, equation ``eq-dequantization-bound``.

        The density of (2(x + u)/K − 1) for uniform u, times the volume (2/K)^D of the levels' box; its mean
        log is at most log P(x) of the exact solution. With too few steps it is no bound: see `log_prob`.

        Args:
            x: integer grey levels, shape ``(N, *event_shape)``.
            n_samples: draws of u that are averaged.
            labels: as in `log_prob`.
            guidance: as in `log_prob`.
            steps: as in `log_prob`.
            method: as in `log_prob`.
            n_probes: as in `log_prob`.
            generator: source of u and of the probes.

        Returns:
            Nats, shape ``(N,)``, without gradients.

        Raises:
            TypeError: `x` is not of an integer type.
            ValueError: the model has no levels; else as `log_prob`.
        """
        n_samples = require_positive_integer(n_samples, "n_samples")
        options = {"steps": steps, "method": method, "n_probes": n_probes, "generator": generator}
        options["guidance"] = guidance
        draws = [
            self.log_prob(self.fill(x, generator=generator), labels, **options)
            for _ in range(n_samples)
        ]
        return torch.stack(draws).mean(0) + self.log_volume()

    # --- sampling -------------------------------------------------------------------------------

    @torch.no_grad()
    def sample(
        self,
        n: int,
        *,
        steps: int = 40,
        method: str = "midpoint",
        labels: Tensor | None = None,
        guidance: float = 0.0,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """Draw noise and carry it to data.

        Args:
            n: how many.
            steps: of the solver; the network is evaluated once in each of Euler's, twice in each of the
                midpoint method's and Heun's, four times in each of RK4's.
            method: ``"euler"``, ``"midpoint"``, ``"heun"`` or ``"rk4"``.
            labels: class of each, int64, shape ``(n,)``; of a conditional model, None for none at all.
            guidance: weight w ≥ 0 of classifier-free guidance, as in `velocity`; 0 for none.
            generator: source of the noise, on the model's device; the global one if none is given.

        Returns:
            Grey levels, int64, if the model has levels; else continuous. Shape ``(n, *event_shape)``.

        Raises:
            ValueError: `n` or `steps` is below 1, a class is out of range, `guidance` is negative or asked
                for without labels, or there is no such method.
        """
        noise = self.prior(n, generator=generator)
        x = self.from_noise(noise, labels, guidance=guidance, steps=steps, method=method)
        return x if self.levels is None else self.to_levels(x)

    @torch.no_grad()
    def from_noise(
        self,
        noise: Tensor,
        labels: Tensor | None = None,
        *,
        guidance: float = 0.0,
        steps: int = 40,
        method: str = "midpoint",
    ) -> Tensor:
        """Carry given noise to continuous data: the solution of the ODE from time 1 to time 0.

        Args:
            noise: shape ``(N, *event_shape)``.
            labels: as in `sample`.
            guidance: as in `sample`.
            steps: as in `sample`.
            method: as in `sample`.

        Returns:
            Continuous data, in the shape of `noise`, without gradients.
        """
        return self._carried(noise, "noise", labels, guidance, self.times(steps), method)

    @torch.no_grad()
    def to_noise(
        self,
        x: Tensor,
        labels: Tensor | None = None,
        *,
        guidance: float = 0.0,
        steps: int = 40,
        method: str = "midpoint",
    ) -> Tensor:
        """Carry continuous data to noise: the solution from time 0 to time 1, the inverse of `from_noise`."""
        return self._carried(x, "x", labels, guidance, self.times(steps).flip(0), method)

    def _carried(
        self,
        x: Tensor,
        name: str,
        labels: Tensor | None,
        guidance: float,
        times: Tensor,
        method: str,
    ) -> Tensor:
        require_batch(x, self.event_shape, name)
        velocity = self._guided_velocity(labels, len(x), guidance)
        with evaluation_mode(self):
            return integrate(velocity, at_least_float32(x), times, method)

    def times(self, steps: int) -> Tensor:
        """Equally spaced times from noise to data, in float64, shape ``(steps + 1,)``."""
        device = self.mean.device
        wide = torch.float32 if device.type == "mps" else torch.float64
        return time_grid(steps, dtype=wide, device=device)


def _require_path(schedule: Schedule) -> Schedule:
    """Require a path that has derivatives, and that training leaves alone.

    The target α̇x + σ̇ε depends on the path: if the path could move, the least loss would be that of one
    that stands still. The bound of `course_lib.diffusion.Diffusion`, in contrast, may choose its ends.
    """
    require_kind(schedule, Schedule, "schedule")
    if next(schedule.parameters(), None) is not None:
        raise ValueError(
            f"schedule is a {type(schedule).__name__} with parameters, which the flow-matching loss would "
            f"train until nothing moves; a path without parameters is expected. Build it with learned=False."
        )
    schedule.alpha_rate(torch.zeros(()))  # a discrete one says that it has none
    return schedule
