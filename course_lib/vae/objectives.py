"""Losses for `course_lib.training.fit`: means over examples of sums over dimensions, in nats."""

import math
from dataclasses import dataclass

from torch import Tensor

from course_lib.divergences import kl_standard_normal
from course_lib.inputs import require_positive_integer, require_real
from course_lib.vae.bounds import iwae_bound, sample_posterior
from course_lib.vae.disentanglement import kl_decomposition
from course_lib.vae.posterior import DiagonalGaussian
from course_lib.vae.vae import VAE


@dataclass(kw_only=True)
class NegativeELBO:
    r"""−ELBO, and the usual ways to change the weight of its KL term.

    .. math:: -\mathbb{E}_q[\log p(x|z)] + \beta \sum_j \max(\mathrm{KL}_j, \lambda) + \gamma\,\mathrm{TC}

    Anything but the defaults minimizes something else than −ELBO, so the true −ELBO is always
    recorded beside the loss as ``negative_elbo``.

    Args:
        beta: weight of the KL term; above 1 this is β-VAE (Higgins et al., 2017).
        warm_up: share of training, in [0, 1], over which the weight grows from 0 to `beta`
            (Sønderby et al., 2016).
        free_nats: λ, nats per latent dimension (mean over the batch) that are not penalized
            ("free bits", Kingma et al., 2016).
        total_correlation: γ, extra weight of the total correlation (Chen et al., 2018). It is that
            of the batch's aggregate posterior; their estimator reweights the batch to stand for
            the data set.

    Raises:
        ValueError: an argument is negative, or `warm_up` exceeds 1.
    """

    beta: float = 1.0
    warm_up: float = 0.0
    free_nats: float = 0.0
    total_correlation: float = 0.0

    def __post_init__(self) -> None:
        for name, value, largest in (
            ("beta", self.beta, math.inf),
            ("warm_up", self.warm_up, 1),
            ("free_nats", self.free_nats, math.inf),
            ("total_correlation", self.total_correlation, math.inf),
        ):
            bound = f" and at most {largest}" if largest < math.inf else ""
            expected = f"a number of at least 0{bound}"
            setattr(self, name, require_real(value, name, expected, at_least=0, at_most=largest))

    def __call__(self, model: VAE, x: Tensor, progress: Tensor) -> dict[str, Tensor]:
        """Return the loss and its terms, each a mean over the batch in nats per example."""
        posterior, z, log_likelihoods = sample_posterior(model, x, 1)
        reconstruction = -log_likelihoods.mean()
        kl = kl_standard_normal(posterior.mu, posterior.logvar).mean()
        terms = {
            "negative_elbo": reconstruction + kl,
            "reconstruction": reconstruction,
            "kl": kl,
        }
        weight = self.beta
        if self.warm_up:
            weight = weight * (progress / self.warm_up).clamp(max=1)
        penalty = self._free_bits(posterior) if self.free_nats else kl
        loss = reconstruction + weight * penalty
        if self.total_correlation:
            _, terms["total_correlation"], _ = kl_decomposition(
                posterior.mu, posterior.logvar, z[0]
            )
            loss = loss + self.total_correlation * terms["total_correlation"]
        return {"loss": loss, **terms}

    def _free_bits(self, posterior: DiagonalGaussian) -> Tensor:
        """The KL term whose dimensions count with λ at least, each a mean over the batch."""
        # The divergence of each dimension by itself: (N, d, 1) is summed over its last, alone.
        mu, logvar = posterior.mu.unsqueeze(-1), posterior.logvar.unsqueeze(-1)
        return kl_standard_normal(mu, logvar).mean(0).clamp(min=self.free_nats).sum()


@dataclass
class NegativeIWAEBound:
    """Minus the importance-weighted bound with k samples, as a loss.

    Burda, Grosse and Salakhutdinov (2016).

    Args:
        k: number of importance samples per example.
    """

    k: int

    def __post_init__(self) -> None:
        self.k = require_positive_integer(self.k, "k")

    def __call__(self, model: VAE, x: Tensor, progress: Tensor) -> dict[str, Tensor]:
        """Return the loss in nats per example."""
        return {"loss": -iwae_bound(model, x, self.k).mean()}
