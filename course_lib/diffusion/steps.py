r"""One step between two noise levels: the Gaussians that noising and denoising consist of.

A time s lies before a time t, so at s there is less noise. Everything follows from the two pairs (α, σ);
the step itself has :math:`\alpha_{t|s} = \alpha_t/\alpha_s` and
:math:`\sigma^2_{t|s} = \sigma_t^2 - \alpha_{t|s}^2\sigma_s^2`.
"""

from dataclasses import dataclass

from torch import Tensor

from course_lib.inputs import require_kind
from course_lib.schedules import per_example, require_alike


@dataclass(frozen=True)
class Level:
    """A noise level: z = α x + σ ε.

    Attributes:
        alpha: factor of the signal, shape ``()`` or ``(N,)``.
        sigma: standard deviation of the noise, in the same shape.
    """

    alpha: Tensor
    sigma: Tensor

    @property
    def snr(self) -> Tensor:
        """The signal-to-noise ratio α²/σ²."""
        return (self.alpha / self.sigma).square()


def step_variance(s: Level, t: Level) -> Tensor:
    """σ²_{t|s}: the variance of the noise that one step adds; DDPM's β of a unit step."""
    require_kind(s, Level, "s")
    require_kind(t, Level, "t")
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
    """
    require_alike(x=x, predicted=predicted)
    require_kind(s, Level, "s")
    require_kind(t, Level, "t")
    return 0.5 * (s.snr - t.snr) * (x - predicted).square().flatten(1).sum(1)
