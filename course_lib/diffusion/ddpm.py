"""The discrete-time form: T given variances β_1 … β_T, as in the paper that made diffusion practical.

Ho, Jain and Abbeel (2020), "Denoising Diffusion Probabilistic Models". Step i adds noise of the variance
β_i and shrinks the signal by the root of 1 − β_i. What they call α_i is 1 − β_i, and ᾱ_i, the product of
all up to i, is α² here.
"""

import torch
from torch import Tensor

from course_lib.inputs import (
    require_positive_integer,
    require_real,
    where_values_can_be_read,
)
from course_lib.schedules import Schedule, require_single, require_times


def linear_betas(steps: int = 1000, first: float = 1e-4, last: float = 0.02) -> Tensor:
    """Variances that rise along a straight line, those of the paper by default.

    Args:
        steps: number T of steps.
        first: β_1, in (0, 1).
        last: β_T, in (0, 1).

    Returns:
        Shape ``(steps,)``, float64.
    """
    expected = "a variance in (0, 1)"
    steps = require_positive_integer(steps, "steps")
    first, last = (
        require_real(value, name, expected, above=0, below=1)
        for name, value in (("first", first), ("last", last))
    )
    return torch.linspace(first, last, steps, dtype=torch.float64)


def noising_marginal(betas: Tensor) -> tuple[Tensor, Tensor]:
    r"""α and σ after each step, equation ``eq-noising-marginal``.

    .. math:: \alpha_i = \prod_{j\le i}\sqrt{1 - \beta_j}, \qquad \sigma_i = \sqrt{1 - \alpha_i^2}

    Args:
        betas: β_1 … β_T, each in (0, 1), shape ``(T,)``.

    Returns:
        α_0 … α_T and σ_0 … σ_T, each of shape ``(T + 1,)``; index 0 is the data, with α = 1 and σ = 0.

    Raises:
        ValueError: a variance is not in (0, 1).
    """
    require_single(betas, "betas")
    if betas.dim() != 1 or len(betas) == 0 or not ((betas > 0) & (betas < 1)).all():
        raise ValueError(
            f"betas has shape {tuple(betas.shape)} and values in [{betas.min().item():.4g}, "
            f"{betas.max().item():.4g}]; variances in (0, 1), shape (T,), are expected."
            if betas.numel()
            else "betas is empty; at least one variance is expected."
        )
    log_alpha_bar = torch.cat([betas.new_zeros(1), torch.log1p(-betas).cumsum(0)])
    return (0.5 * log_alpha_bar).exp(), (-torch.expm1(log_alpha_bar)).sqrt()


class DDPMSchedule(Schedule):
    """The noise levels of T given variances, at the times 0, 1/T, …, 1, and at no others.

    Args:
        betas: β_1 … β_T, each in (0, 1), shape ``(T,)``.

    Raises:
        ValueError: a variance is not in (0, 1).
    """

    def __init__(self, betas: Tensor) -> None:
        super().__init__()
        alphas, sigmas = noising_marginal(betas)
        self.register_buffer("alphas", alphas)
        self.register_buffer("sigmas", sigmas)
        self.steps = len(betas)

    def index(self, t: Tensor) -> Tensor:
        """The number of steps that have been made at a time.

        Raises:
            ValueError: the time lies between two steps.
        """
        t = require_times(t)
        place = t * self.steps
        index = place.round()
        # A time in t's own type is off by its rounding, which many steps make a larger part of one.
        slack = 1e-3 + self.steps * torch.finfo(t.dtype).eps
        with where_values_can_be_read():
            if ((place - index).abs() > min(slack, 0.25)).any():
                raise ValueError(
                    f"there is no noise level between two of the {self.steps} steps; times i/{self.steps} "
                    f"are expected, as from grid(steps)."
                )
        return index.long()

    def grid(self, steps: int) -> Tensor:
        """Falling times from 1 to 0 that leave out steps evenly, shape ``(steps + 1,)``, float64.

        Raises:
            ValueError: more steps are asked for than there are.
        """
        steps = require_positive_integer(steps, "steps")
        if steps > self.steps:
            raise ValueError(
                f"steps is {steps}, and the discrete model has {self.steps}; at most so many are "
                f"expected. Take a schedule of continuous time for more."
            )
        even = torch.linspace(self.steps, 0, steps + 1, dtype=torch.float64)
        return even.round() / self.steps

    def alpha(self, t: Tensor) -> Tensor:
        """Factor of the signal."""
        return self.alphas[self.index(t)]

    def sigma(self, t: Tensor) -> Tensor:
        """Standard deviation of the noise."""
        return self.sigmas[self.index(t)]

    def log_snr(self, t: Tensor) -> Tensor:
        """log(α²/σ²), +∞ at time 0."""
        return 2 * (self.alpha(t).log() - self.sigma(t).log())

    def time(self, log_snr: Tensor) -> Tensor:
        """The time of the step whose log SNR is nearest."""
        require_single(log_snr, "log_snr")
        with where_values_can_be_read():
            if log_snr.isnan().any():
                raise ValueError(
                    "log_snr holds NaN; numbers are expected, or infinity for the data."
                )
        own = 2 * (self.alphas.log() - self.sigmas.log()).to(log_snr)
        own[0] = torch.finfo(own.dtype).max
        return (log_snr.unsqueeze(-1) - own).abs().argmin(-1).to(log_snr) / self.steps

    def alpha_rate(self, t: Tensor) -> Tensor:
        """Not defined: time is discrete."""
        raise self._discrete()

    def sigma_rate(self, t: Tensor) -> Tensor:
        """Not defined: time is discrete."""
        raise self._discrete()

    def log_snr_rate(self, t: Tensor) -> Tensor:
        """Not defined: time is discrete."""
        raise self._discrete()

    def _discrete(self) -> ValueError:
        return ValueError(
            "a discrete schedule has no derivatives; a schedule of continuous time is expected, such as "
            "course_lib.schedules.Cosine()."
        )
