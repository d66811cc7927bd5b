"""A latent-variable model that can be solved on paper: the yardstick for bounds."""

import torch
from torch import Tensor
from torch.distributions import MultivariateNormal

from course_lib.distributions import Conditional, Gaussian
from course_lib.inputs import (
    require_batch,
    require_finite,
    require_floating,
    require_generator,
    require_positive_integer,
    require_real,
    require_shapes,
)
from course_lib.precision import in_one_type
from course_lib.saved_settings import SavedSettings
from course_lib.vae.posterior import DiagonalGaussian


class LinearGaussian(SavedSettings):
    r"""x = W z + b + σ ε with standard normal z and ε: probabilistic PCA.

    Everything is Gaussian and known: :math:`p(x) = \mathcal{N}(b, WW^\top + \sigma^2 I)` and
    :math:`p(z|x) = \mathcal{N}(\Lambda^{-1} W^\top (x-b)/\sigma^2, \Lambda^{-1})` with
    :math:`\Lambda = I + W^\top W / \sigma^2`. Tipping and Bishop (1999).

    Its `encode` returns a Gaussian with the mean of the true posterior and `posterior_scale` times the
    diagonal of its covariance. With orthogonal columns of W and a scale of 1 that is the true
    posterior; otherwise it is wrong by a known amount.

    Args:
        weight: W, shape ``(D, d)``.
        bias: b, shape ``(D,)``.
        sigma: standard deviation of the noise, positive.
        posterior_scale: factor on the posterior's variances, positive.
    """

    def __init__(
        self, weight: Tensor, bias: Tensor, sigma: float, *, posterior_scale: float = 1.0
    ) -> None:
        super().__init__()
        posterior_scale = require_real(
            posterior_scale, "posterior_scale", "a positive factor", above=0
        )
        sigma = require_real(sigma, "sigma", "a positive standard deviation", above=0)
        require_floating(weight, "weight")
        require_floating(bias, "bias")
        require_shapes(weight=(weight, "D d"), bias=(bias, "D"))
        require_finite(weight=weight, bias=bias)
        self.register_buffer("weight", weight)
        self.register_buffer("bias", bias)
        self.event_shape, self.latent_dim = (weight.shape[0],), weight.shape[1]
        self.sigma = sigma
        self.posterior_scale = posterior_scale
        self.likelihood = Gaussian(sigma)

    def settings(self) -> dict[str, object]:
        """What the meaning of W and b depends on."""
        return {"sigma": self.sigma, "posterior_scale": self.posterior_scale}

    def posterior(self, x: Tensor) -> MultivariateNormal:
        """The true posterior p(z|x)."""
        require_batch(x, self.event_shape)
        x, weight, bias = in_one_type(x, self.weight, self.bias)
        identity = torch.eye(self.latent_dim, dtype=x.dtype, device=x.device)
        precision = identity + weight.mT @ weight / self.sigma**2
        covariance = torch.linalg.inv(precision)
        mean = (x - bias) @ weight @ covariance / self.sigma**2
        return MultivariateNormal(mean, covariance)

    def encode(self, x: Tensor) -> DiagonalGaussian:
        """The approximate posterior q(z|x) described above."""
        true = self.posterior(x)
        variance = self.posterior_scale * true.covariance_matrix.diagonal(dim1=-2, dim2=-1)
        return DiagonalGaussian(true.mean, variance.log())

    def decode(self, z: Tensor) -> Conditional:
        """p(x|z) for latents of shape ``(..., d)``."""
        require_floating(z, "z")
        require_shapes("W has as many columns.", z=(z, f"... {self.latent_dim}"))
        return self.likelihood.given(self._means(z), 1)

    def log_prob(self, x: Tensor) -> Tensor:
        """Exact log p(x) in nats, shape ``(N,)``."""
        require_batch(x, self.event_shape)
        x, weight, bias = in_one_type(x, self.weight, self.bias)
        noise = self.sigma**2 * torch.eye(len(bias), dtype=x.dtype, device=x.device)
        return MultivariateNormal(bias, weight @ weight.mT + noise).log_prob(x)

    @torch.no_grad()
    def sample(self, n: int, *, generator: torch.Generator | None = None) -> Tensor:
        """Draw n examples, shape ``(n, D)``."""
        n = require_positive_integer(n, "n")
        require_generator(generator, self.bias.device)
        z = torch.randn(
            n,
            self.latent_dim,
            dtype=self.bias.dtype,
            device=self.bias.device,
            generator=generator,
        )
        return self.likelihood.draw(self._means(z), generator).to(z.dtype)

    def _means(self, z: Tensor) -> Tensor:
        z, weight, bias = in_one_type(z, self.weight, self.bias)
        return (z @ weight.mT + bias).unsqueeze(-1)
