"""The approximate posterior of the chapter: a Gaussian with a diagonal covariance."""

from torch import Tensor
from torch.distributions import Independent, Normal

from course_lib.inputs import require_floating


class DiagonalGaussian(Independent):
    r"""N(μ, diag σ²) over the last dimension, given by μ and log σ².

    A `torch.distributions.Independent` that remembers log σ², so that the closed form of its
    divergence needs no logarithm of an exponential.

    Args:
        mu: means, shape ``(..., d)``.
        logvar: log σ² (not log σ), shape ``(..., d)``.
    """

    def __init__(self, mu: Tensor, logvar: Tensor) -> None:
        require_floating(mu, "mu")
        require_floating(logvar, "logvar")
        if mu.shape != logvar.shape or mu.dim() == 0:
            raise ValueError(
                f"mu has shape {tuple(mu.shape)} and logvar {tuple(logvar.shape)}; the same, (..., d), "
                f"is expected."
            )
        self.mu, self.logvar = mu, logvar
        normal = Normal(mu, (0.5 * logvar).exp(), validate_args=False)
        super().__init__(normal, 1, validate_args=False)
