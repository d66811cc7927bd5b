r"""One step between two noise levels: the Gaussians that noising and denoising consist of.

A time s lies before a time t, so at s there is less noise. Everything follows from the two pairs (α, σ);
the step itself has :math:`\alpha_{t|s} = \alpha_t/\alpha_s` and
:math:`\sigma^2_{t|s} = \sigma_t^2 - \alpha_{t|s}^2\sigma_s^2`.
"""

from dataclasses import dataclass

from torch import Tensor

from course_lib.inputs import require_kind, where_values_can_be_read
from course_lib.schedules import per_example, require_alike, require_single


@dataclass(frozen=True)
class Level:
    """A noise level: z = α x + σ ε.

    Attributes:
        alpha: factor of the signal, shape ``()`` or ``(N,)``.
        sigma: standard deviation of the noise, in the same shape.

    Raises:
        TypeError: one of them is not a tensor of float32 or float64.
        ValueError: their shapes differ.
    """

    alpha: Tensor
    sigma: Tensor

    def __post_init__(self) -> None:
        require_single(self.alpha, "alpha")
        require_single(self.sigma, "sigma")
        if self.alpha.shape != self.sigma.shape:
            raise ValueError(
                f"alpha has shape {tuple(self.alpha.shape)} and sigma {tuple(self.sigma.shape)}; the same "
                f"shape is expected, () or (N,)."
            )

    @property
    def snr(self) -> Tensor:
        """The signal-to-noise ratio α²/σ²."""
        return (self.alpha / self.sigma).square()


def require_order(s: Level, t: Level) -> None:
    """Require two levels of which the first has less noise, or the same.

    Raises:
        TypeError: one is not a `Level`.
        ValueError: the first has more noise.
    """
    require_kind(s, Level, "s")
    require_kind(t, Level, "t")
    with where_values_can_be_read():
        # α/σ, multiplied out since σ may be 0; with room for rounding.
        if (t.alpha * s.sigma > (1 + 1e-5) * s.alpha * t.sigma).any():
            raise ValueError(
                "s has more noise than t; s is the level with less, at the earlier time. Exchange them."
            )


def step_variance(s: Level, t: Level) -> Tensor:
    """σ²_{t|s}: the variance of the noise that one step adds; DDPM's β of a unit step.

    Raises:
        TypeError: s or t is not a `Level`.
        ValueError: s has more noise than t.
    """
    require_order(s, t)
    return t.sigma.square() - (t.alpha / s.alpha * s.sigma).square()


def reverse_variances(s: Level, t: Level) -> tuple[Tensor, Tensor]:
    r"""The two extreme variances of a denoising step, equation ``eq-reverse-variance``.

    Returns:
        :math:`\tilde\beta = \sigma^2_{t|s}\sigma_s^2/\sigma_t^2`, exact for data that are a single point, and
        :math:`\sigma^2_{t|s}` (DDPM's β), exact for standard normal data under α² + σ² = 1. The shape is
        that of the levels.
    """
    beta = step_variance(s, t)
    return beta * (s.sigma / t.sigma).square(), beta


def posterior(z: Tensor, x: Tensor, s: Level, t: Level) -> tuple[Tensor, Tensor]:
    r"""q(z_s | z_t = z, x), a Gaussian, equation ``eq-noising-posterior``.

    .. math:: \mu = \frac{\alpha_{t|s}\sigma_s^2}{\sigma_t^2} z + \frac{\alpha_s\sigma^2_{t|s}}{\sigma_t^2} x,
              \qquad \text{variance } \frac{\sigma^2_{t|s}\sigma_s^2}{\sigma_t^2}

    Args:
        z: noised examples at time t, shape ``(N, *event_shape)``.
        x: clean examples, or predictions of them, in the same shape.
        s: the level with less noise.
        t: the level of `z`.

    Returns:
        The mean, in the shape of `z`, and the variance, in the shape of the levels.
    """
    require_alike(z=z, x=x)
    variance, beta = reverse_variances(s, t)
    of_z = t.alpha / s.alpha * (s.sigma / t.sigma).square()
    of_x = s.alpha * beta / t.sigma.square()
    return per_example(of_z, z) * z + per_example(of_x, x) * x, variance


def step_kl(x: Tensor, predicted: Tensor, s: Level, t: Level) -> Tensor:
    """KL of a denoising step that takes a prediction for the clean example, equation ``eq-snr-kl``.

    Args:
        x: clean examples, shape ``(N, *event_shape)``.
        predicted: x̂ at time t, in the same shape.
        s: the level with less noise.
        t: the level with more.

    Returns:
        ½ (SNR_s − SNR_t) ‖x − x̂‖² in nats, shape ``(N,)``.

    Raises:
        TypeError: s or t is not a `Level`.
        ValueError: the shapes differ, or s has more noise than t.
    """
    require_alike(x=x, predicted=predicted)
    require_order(s, t)
    return 0.5 * (s.snr - t.snr) * (x - predicted).square().flatten(1).sum(1)
