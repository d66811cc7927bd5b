"""The best denoiser of finitely many examples: the perfect minimizer of the loss, which memorizes them."""

import math

import torch
from torch import Tensor

from course_lib.inputs import require_batch, require_floating
from course_lib.mixtures import require_noise_level, require_same_type
from course_lib.schedules import Schedule, require_single


class Memorizer:
    r"""E[x | x_t] where x is one of N given examples, each as likely as the others, ``eq-memorizer``.

    .. math:: \hat x(x_t) = \sum_i r_i\, x_i, \qquad r = \operatorname{softmax}_i\,
              \frac{-\lVert x_t - \alpha x_i\rVert^2}{2\sigma^2}

    It has the least squared error that is possible on these examples, at every noise level. What it
    generates are the examples; its bound is log N nats for each of them, and diverges for any other.

    Args:
        data: shape ``(N, *event_shape)``, float32 or float64.

    Raises:
        TypeError: `data` is of another type.
        ValueError: there is no example, or one holds NaN.
    """

    def __init__(self, data: Tensor) -> None:
        require_floating(data, "data")
        require_single(data, "data")
        if data.dim() == 0:
            raise ValueError("data has shape (); examples, (N, *event_shape), are expected.")
        self.event_shape = tuple(data.shape[1:])
        require_batch(data, self.event_shape, "data")
        self.data = data

    def log_weights(self, z: Tensor, alpha: Tensor | float, sigma: Tensor | float) -> Tensor:
        """Log-probability of each example given noised ones, shape ``(M, N)``.

        Args:
            z: noised examples, shape ``(M, *event_shape)``.
            alpha: factor of the signal, shape ``()`` or ``(M,)``.
            sigma: standard deviation of the noise, positive, shape ``()`` or ``(M,)``.

        Raises:
            TypeError: `z` is not of the type of the data.
            ValueError: its shape does not fit, or there is no noise.
        """
        require_batch(z, self.event_shape, "z")
        require_same_type(self.data, z=z)
        # With little noise the terms are huge and differ little: float32 would lose what decides.
        wide = torch.float32 if z.device.type == "mps" else torch.float64
        alpha, sigma = (
            value.to(wide).unsqueeze(1)
            for value in require_noise_level(alpha, sigma, z, above=True)
        )
        flat, data = (x.flatten(1).to(wide) for x in (z, self.data))
        # ‖z − αx‖² = ‖z‖² − 2α z·x + α²‖x‖², of which the first is the same for all.
        squared = alpha.square() * data.square().sum(1) - 2 * alpha * (flat @ data.mT)
        return torch.log_softmax(-squared / (2 * sigma.square()), -1).to(z)

    def denoise(self, z: Tensor, alpha: Tensor | float, sigma: Tensor | float) -> Tensor:
        """E[x | x_t = z], in the shape of `z`; arguments as for `log_weights`."""
        weights = self.log_weights(z, alpha, sigma).exp()
        return (weights @ self.data.flatten(1)).view(len(z), *self.event_shape)

    def denoiser(self, schedule: Schedule) -> object:
        """As a function of latents and a time, as the samplers take it."""

        def denoise(z: Tensor, t: Tensor) -> Tensor:
            return self.denoise(z, schedule.alpha(t).to(z), schedule.sigma(t).to(z))

        return denoise

    @property
    def bound(self) -> float:
        """Minus the bound of an example of the data, log N nats in the limit of no noise at time 0."""
        return math.log(len(self.data))
