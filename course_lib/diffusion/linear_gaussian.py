"""A diffusion model that can be solved on paper: the yardstick for its bound."""

import math
from itertools import pairwise

import torch
from torch import Tensor

from course_lib.diffusion.diffusion import BoundTerms
from course_lib.diffusion.samplers import level, require_falling
from course_lib.diffusion.steps import Level, posterior, reverse_variances, step_variance
from course_lib.distributions import normal_log_prob
from course_lib.inputs import (
    require_batch,
    require_generator,
    require_kind,
    require_positive_integer,
)
from course_lib.schedules import Schedule, require_falling_snr, require_single


class LinearGaussianDiffusion:
    r"""A discrete-time model of N(0, diag c) whose denoiser is linear: every kernel is Gaussian.

    The denoiser is :math:`\hat x(z_t) = k_t z_t` with
    :math:`k_t = \alpha_t c/(\alpha_t^2 c + \sigma_t^2)`, the exact posterior mean
    of data of the variance c. Composing the reverse kernels and the decoder p(x|z_0) gives the density of the
    model, again a Gaussian, so log p(x) and the gap of the bound are known without drawing anything.

    Args:
        variance: c, the variance of each dimension that the denoiser believes in, shape ``(D,)``, positive.
        schedule: the noise, with σ > 0 at the last of the times.
        times: falling, shape ``(T + 1,)``.
        reverse: ``"posterior"`` for reverse kernels of the variance β̃, or ``"step"`` for β.

    Raises:
        ValueError: a variance is not positive, the times do not fall, or there is no noise at the last.
    """

    def __init__(
        self, variance: Tensor, schedule: Schedule, times: Tensor, *, reverse: str = "posterior"
    ) -> None:
        require_single(variance, "variance")
        if variance.dim() != 1 or len(variance) == 0 or not (variance > 0).all():
            raise ValueError(
                f"variance has shape {tuple(variance.shape)} and a least value of "
                f"{variance.min().item() if variance.numel() else math.nan:.4g}; positive numbers of shape "
                f"(D,) are expected."
            )
        require_kind(schedule, Schedule, "schedule")
        if not isinstance(reverse, str) or reverse not in ("posterior", "step"):
            raise ValueError(f"reverse is {reverse!r}; 'posterior' or 'step' is expected.")
        self.variance, self.reverse = variance, reverse
        self.event_shape = tuple(variance.shape)
        require_falling_snr(schedule, require_falling(times))
        self.levels = [level(schedule, t) for t in times]
        if not self.levels[-1].sigma > 0:
            raise ValueError(
                "there is no noise at the last of the times; z_0 would be x itself, so a level with noise "
                "is expected there."
            )

    def gain(self, at: Level) -> Tensor:
        """k, the denoiser's factor at a noise level, shape ``(D,)``."""
        return at.alpha * self.variance / (at.alpha**2 * self.variance + at.sigma**2)

    def reverse_kernel(self, s: Level, t: Level) -> tuple[Tensor, Tensor]:
        """p(z_s | z_t) = N(a z_t, v): a, shape ``(D,)``, and v, shape ``()``."""
        one = torch.ones_like(self.variance)
        mean, _ = posterior(one, self.gain(t), s, t)
        small, large = reverse_variances(s, t)
        return mean, small if self.reverse == "posterior" else large

    def decoder(self) -> tuple[Tensor, Tensor]:
        """p(x | z_0) = N(k z_0, v), the exact posterior: k and v, each of shape ``(D,)``."""
        last = self.levels[-1]
        exact = self.variance * last.sigma**2 / (last.alpha**2 * self.variance + last.sigma**2)
        return self.gain(last), exact

    def model_variance(self) -> Tensor:
        """The variance of x under the model: all reverse kernels and the decoder composed, shape ``(D,)``."""
        v = torch.ones_like(self.variance)
        for t, s in pairwise(self.levels):
            a, noise = self.reverse_kernel(s, t)
            v = a**2 * v + noise
        k, noise = self.decoder()
        return k**2 * v + noise

    def log_prob(self, x: Tensor) -> Tensor:
        """log p(x) of the model in nats, exact, shape ``(N,)``."""
        require_batch(x, self.event_shape)
        return normal_log_prob(x, 0.0, self.model_variance().log()).sum(-1)

    def bound_terms(self, x: Tensor) -> BoundTerms:
        """The three terms of minus the bound, all exact, each of shape ``(N,)``: ``eq-diffusion-elbo``."""
        require_batch(x, self.event_shape)
        first, last = self.levels[0], self.levels[-1]
        prior = first.sigma**2 + first.alpha**2 * x**2 - 1 - 2 * first.sigma.log()
        steps = torch.zeros_like(x)
        for t, s in pairwise(self.levels):
            steps = steps + self._step(x, s, t)
        k, v = self.decoder()
        # E (x − k z_0)², with z_0 = α x + σ ε.
        error = ((1 - k * last.alpha) * x) ** 2 + (k * last.sigma) ** 2
        reconstruction = 0.5 * (error / v + v.log() + math.log(2 * math.pi))
        return BoundTerms(0.5 * prior.sum(-1), steps.sum(-1), reconstruction.sum(-1))

    def _step(self, x: Tensor, s: Level, t: Level) -> Tensor:
        """E KL(q(z_s|z_t, x) ‖ p(z_s|z_t)) over z_t, for each dimension."""
        k = self.gain(t)
        error = ((1 - k * t.alpha) * x) ** 2 + (k * t.sigma) ** 2
        small, large = reverse_variances(s, t)
        v = small if self.reverse == "posterior" else large
        of_x = s.alpha * step_variance(s, t) / t.sigma**2
        return 0.5 * (small / v - 1 - (small / v).log() + of_x**2 * error / v)

    @torch.no_grad()
    def sample(self, n: int, *, generator: torch.Generator | None = None) -> Tensor:
        """Draw `n` examples through all kernels, shape ``(n, D)``."""
        n = require_positive_integer(n, "n")
        require_generator(generator, self.variance.device)

        def noise() -> Tensor:
            return torch.empty(n, *self.event_shape).to(self.variance).normal_(generator=generator)

        z = noise()
        for t, s in pairwise(self.levels):
            a, v = self.reverse_kernel(s, t)
            z = a * z + v.sqrt() * noise()
        k, v = self.decoder()
        return k * z + v.sqrt() * noise()
