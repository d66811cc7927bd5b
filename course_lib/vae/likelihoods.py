"""Laws p(x|z) that a decoder's output can be the parameters of.

Each gives the distribution for a tensor of parameters, checks that data can come from it, and
samples from a generator (which `torch.distributions` cannot). Parameters in half precision are brought
to float32: their densities are summed over thousands of pixels.
"""

import math

import torch
from torch import Tensor, nn
from torch.distributions import Bernoulli as BernoulliLaw
from torch.distributions import Distribution, Independent, Normal

from course_lib.inputs import require_real, require_unit_interval
from course_lib.precision import at_least_float32
from course_lib.saved_settings import SavedSettings


class _Pixels(Independent):
    """Independent pixels, whose log-probabilities are added in at least float32 whatever the data are."""

    def log_prob(self, value: Tensor) -> Tensor:
        return super().log_prob(at_least_float32(value))


class Bernoulli(nn.Module):
    r"""Independent Bernoulli pixels; the decoder gives the logits.

    Made for binary data. Intensities in [0, 1] are accepted, because the expression
    :math:`x\log\pi + (1-x)\log(1-\pi)` is defined for them, but then it is a cross-entropy and
    not a likelihood: do not report it as one.
    """

    def law(self, parameters: Tensor, event_dims: int) -> Distribution:
        """Return p(x|z) for logits of shape ``(..., *event_shape)``."""
        # Intensities are let through on purpose; values outside [0, 1] are stopped by `check`.
        logits = at_least_float32(parameters)
        return _Pixels(BernoulliLaw(logits=logits, validate_args=False), event_dims)

    def draw(self, parameters: Tensor, generator: torch.Generator | None) -> Tensor:
        """Sample pixels in {0, 1}, in the shape of the logits."""
        probabilities = at_least_float32(parameters).sigmoid()
        return torch.bernoulli(probabilities, generator=generator).to(parameters.dtype)

    def check(self, x: Tensor) -> None:
        """Require values in [0, 1]; raise `ValueError` otherwise."""
        require_unit_interval(x)


class Gaussian(SavedSettings):
    r"""Independent Gaussian pixels of one common standard deviation; the decoder gives the means.

    With a fixed σ, :math:`-\log p(x|z) = \frac{1}{2\sigma^2}\lVert x-\hat x\rVert^2
    + \frac D2\log 2\pi\sigma^2`: the squared error of an autoencoder, whose weight against the
    KL term σ sets. σ = 1 on data in [0, 1] is a very large weight on the KL term.

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
        """What the state's meaning depends on: a given σ is no parameter."""
        return {"sigma": self.given_sigma}

    @property
    def sigma(self) -> Tensor:
        """The standard deviation, a scalar; in float64 if it was given."""
        if self.log_sigma is None:
            return torch.tensor(self.given_sigma, dtype=torch.float64)
        # Smaller than any image noise: a bound, so that a perfect fit cannot reach an infinite density.
        return at_least_float32(self.log_sigma).clamp(min=-7).exp()

    def law(self, parameters: Tensor, event_dims: int) -> Distribution:
        """Return p(x|z) for means of shape ``(..., *event_shape)``."""
        means = at_least_float32(parameters)
        sigma = self._sigma_for(means)
        return _Pixels(Normal(means, sigma, validate_args=False), event_dims)

    def draw(self, parameters: Tensor, generator: torch.Generator | None) -> Tensor:
        """Sample pixels, in the shape of the means."""
        means = at_least_float32(parameters)
        noise = torch.randn(
            means.shape, dtype=means.dtype, device=means.device, generator=generator
        )
        return (means + self._sigma_for(means) * noise).to(parameters.dtype)

    def check(self, x: Tensor) -> None:
        """Accept any finite value."""

    def _sigma_for(self, means: Tensor) -> Tensor:
        if self.log_sigma is None:
            return torch.full((), self.given_sigma, dtype=means.dtype, device=means.device)
        return self.sigma.to(means.dtype)
