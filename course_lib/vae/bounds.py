"""Lower bounds on log p(x), and estimates of it: all in nats, one value per example.

Every function takes any model with ``encode`` and ``decode`` (`course_lib.protocols.Latent`)
whose posterior is a `DiagonalGaussian` and whose prior is standard normal.
"""

import math

import torch
from torch import Tensor

from course_lib.distributions import OutputDistribution, normal_log_prob
from course_lib.divergences import kl_standard_normal
from course_lib.inputs import (
    require_batch,
    require_count,
    require_integer,
    require_positive_integer,
    require_real,
    require_tensor,
)
from course_lib.precision import at_least_float32
from course_lib.progress import progress_bar
from course_lib.protocols import Latent
from course_lib.vae.posterior import DiagonalGaussian

# Latent points that are decoded at once. It bounds the memory of every estimate below.
CHUNK = 4_000


def _require_latent(model: object) -> None:
    if not (hasattr(model, "encode") and hasattr(model, "decode")) or isinstance(model, str):
        raise TypeError(
            f"the first argument, model, is a {type(model).__name__}; a model that encodes and decodes is "
            f"expected, such as a VAE, and the examples behind it."
        )


def _require_reportable(model: Latent, x: Tensor) -> None:
    """Require examples that a value of log p(x) can be stated for: no grey ones of a Bernoulli decoder."""
    require_batch(x, model.event_shape)
    likelihood = getattr(model, "likelihood", None)
    if isinstance(likelihood, OutputDistribution):
        likelihood.check_reported(x)


def sample_posterior(
    model: Latent, x: Tensor, n_samples: int
) -> tuple[DiagonalGaussian, Tensor, Tensor]:
    """Sample q(z|x), and score the examples given the samples: what every bound below starts from.

    Args:
        model: encoder and decoder.
        x: examples, shape ``(N, *event_shape)``.
        n_samples: number of latent samples per example.

    Returns:
        q(z|x); z, shape ``(n_samples, N, latent_dim)``, reparameterized; and log p(x|z) in nats, shape
        ``(n_samples, N)``.
    """
    n_samples = require_positive_integer(n_samples, "n_samples")
    _require_latent(model)
    posterior = model.encode(x)
    z = posterior.rsample((n_samples,))
    return posterior, z, model.decode(z).log_prob(x)


def elbo_terms(model: Latent, x: Tensor, n_samples: int = 1) -> tuple[Tensor, Tensor]:
    """The two terms of the ELBO, equation ``eq-elbo-two-terms``.

    Args:
        model: encoder and decoder.
        x: examples, shape ``(N, *event_shape)``.
        n_samples: number of latent samples per example.

    Returns:
        E_q[log p(x|z)], estimated from the samples, and KL(q(z|x)‖p(z)), exact; each ``(N,)`` nats.
    """
    posterior, _, log_likelihoods = sample_posterior(model, x, n_samples)
    return log_likelihoods.mean(0), kl_standard_normal(posterior.mu, posterior.logvar)


def elbo(model: Latent, x: Tensor, n_samples: int = 1) -> Tensor:
    """Unbiased estimate of the evidence lower bound, equation ``eq-elbo-two-terms``.

    With a Bernoulli decoder grey values are accepted, as a loss; it is then a bound of no log-likelihood.

    Args:
        model: encoder and decoder.
        x: examples, shape ``(N, *event_shape)``.
        n_samples: number of latent samples per example.

    Returns:
        The estimate in nats, shape ``(N,)``, differentiable by reparameterization.
    """
    reconstruction, kl = elbo_terms(model, x, n_samples)
    return reconstruction - kl


def importance_log_weights(model: Latent, x: Tensor, n_samples: int) -> Tensor:
    """log w = log p(x|z) + log p(z) − log q(z|x) for z sampled from q(z|x).

    The mean of w is an unbiased estimate of p(x).

    Args:
        model: encoder and decoder.
        x: examples, shape ``(N, *event_shape)``.
        n_samples: number of latent samples per example.

    Returns:
        Log weights in nats, shape ``(n_samples, N)``, differentiable.
    """
    posterior, z, log_likelihoods = sample_posterior(model, x, n_samples)
    return log_likelihoods + normal_log_prob(z).sum(-1) - posterior.log_prob(z)


def iwae_bound(model: Latent, x: Tensor, k: int) -> Tensor:
    r"""Importance-weighted bound, equation ``eq-iwae``: log of the average of k weights.

    .. math:: \log \frac1k \sum_{i=1}^k \frac{p(x, z_i)}{q(z_i|x)}, \qquad z_i \sim q(z|x)

    For k = 1 its expectation is the ELBO; it does not decrease in k and tends to log p(x).
    Burda, Grosse and Salakhutdinov (2016), *Importance Weighted Autoencoders*.

    Args:
        model: encoder and decoder.
        x: examples, shape ``(N, *event_shape)``.
        k: number of weights that are averaged.

    Returns:
        One draw of the bound in nats, shape ``(N,)``, differentiable.
    """
    k = require_positive_integer(k, "k")
    return log_mean_exp(importance_log_weights(model, x, k))


def log_mean_exp(log_weights: Tensor, dim: int = 0) -> Tensor:
    """Log of the mean of exponentials along a dimension: not the mean of the logs."""
    require_tensor(log_weights, "log_weights")
    log_weights = at_least_float32(log_weights, "log_weights")
    dim = require_integer(dim, "dim")
    rank = log_weights.dim()
    if not -rank <= dim < rank or log_weights.shape[dim] == 0:
        raise ValueError(
            f"dim is {dim} and log_weights has shape {tuple(log_weights.shape)}; a dimension with at "
            f"least one entry is expected."
        )
    return log_weights.logsumexp(dim) - math.log(log_weights.shape[dim])


def log_likelihood(model: Latent, x: Tensor, k: int = 500, *, progress: bool = False) -> Tensor:
    """Estimate of log p(x) by importance sampling with k samples: `iwae_bound` in little memory.

    It is a lower bound in expectation; the gap shrinks as k grows.

    Args:
        model: encoder and decoder.
        x: examples, shape ``(N, *event_shape)``.
        k: number of importance samples per example.
        progress: show a progress bar.

    Returns:
        Estimates in nats, shape ``(N,)``, without gradients.

    Raises:
        ValueError: `x` cannot come from the decoder's distribution: grey values, and a Bernoulli decoder.
    """
    return log_likelihood_with_error(model, x, k, progress=progress)[0]


@torch.no_grad()
def log_likelihood_with_error(
    model: Latent, x: Tensor, k: int = 500, *, progress: bool = False
) -> tuple[Tensor, Tensor]:
    r"""`log_likelihood` with the Monte-Carlo standard error of each estimate.

    By the delta method the standard error of :math:`\log \bar w` is
    :math:`\sqrt{(\overline{w^2} / \bar w^2 - 1) / (k - 1)}`.

    Args:
        model: encoder and decoder.
        x: examples, shape ``(N, *event_shape)``.
        k: number of importance samples per example.
        progress: show a progress bar.

    Returns:
        Estimates and their standard errors in nats, each of shape ``(N,)``. With k = 1 the
        standard error is infinite: one sample does not tell its spread.

    Raises:
        ValueError: as `log_likelihood`.
    """
    k = require_positive_integer(k, "k")
    _require_latent(model)
    _require_reportable(model, x)
    values, errors = [], []
    # A few examples are taken at a time with all their samples, or one with its samples in pieces.
    examples = max(1, CHUNK // k)
    parts = x.split(examples)
    for part in progress_bar(show=progress, iterable=parts, desc="importance sampling"):
        log_w = torch.cat(
            [
                importance_log_weights(model, part, min(CHUNK, k - start))
                for start in range(0, k, CHUNK)
            ]
        )
        log_mean = log_mean_exp(log_w)
        # w²/w̄² − 1 is the relative variance of the weights.
        relative_variance = (log_mean_exp(2 * (log_w - log_mean)).exp() - 1).clamp(min=0)
        values.append(log_mean)
        errors.append(
            (relative_variance / (k - 1)).sqrt() if k > 1 else torch.full_like(log_mean, math.inf)
        )
    return torch.cat(values), torch.cat(errors)


@torch.no_grad()
def prior_log_likelihood(model: Latent, x: Tensor, k: int) -> Tensor:
    """Estimate of log p(x) from k samples of the prior, equation ``eq-mc-marginal``.

    Unbiased for p(x) and so biased low for log p(x); the number of samples that it needs grows
    exponentially with the latent dimension. The same k samples serve every example.

    Args:
        model: encoder and decoder.
        x: examples, shape ``(N, *event_shape)``.
        k: number of samples.

    Returns:
        Estimates in nats, shape ``(N,)``.

    Raises:
        ValueError: as `log_likelihood`.
    """
    k = require_positive_integer(k, "k")
    _require_latent(model)
    _require_reportable(model, x)
    z = torch.randn(k, model.latent_dim, dtype=_wide(x), device=x.device)
    return log_mean_exp(_log_prob_given(model, x, z))


@torch.no_grad()
def quadrature_log_likelihood(
    model: Latent, x: Tensor, n_points: int = 161, limit: float = 6.0
) -> Tensor:
    """log p(x) = log ∫ p(x|z) p(z) dz by the trapezoidal rule, equation ``eq-marginal``.

    Exact up to the grid: double `n_points` to see its error. Only for one or two latent
    dimensions; the cost is ``n_points ** latent_dim`` decodings.

    Args:
        model: encoder and decoder.
        x: examples, shape ``(N, *event_shape)``.
        n_points: grid points per latent dimension.
        limit: the grid covers [−limit, limit] in each dimension.

    Returns:
        log p(x) in nats, shape ``(N,)``.

    Raises:
        ValueError: the model has more than two latent dimensions, or as `log_likelihood`.
    """
    n_points = require_count(n_points, "n_points", at_least=2)
    limit = require_real(limit, "limit", "a positive number, such as 6.0,", above=0)
    _require_latent(model)
    _require_reportable(model, x)
    if model.latent_dim > 2:
        raise ValueError(
            f"the model has {model.latent_dim} latent dimensions; quadrature expects 1 or 2 (a "
            f"grid grows exponentially). Use log_likelihood(model, x, k) instead."
        )
    side = torch.linspace(-limit, limit, n_points, dtype=_wide(x), device=x.device)
    z = torch.cartesian_prod(*[side] * model.latent_dim).reshape(-1, model.latent_dim)
    # The trapezoid's half weights at the ends are left out: the prior is below 1e-7 there.
    log_volume = model.latent_dim * math.log(2 * limit / (n_points - 1))
    log_joint = _log_prob_given(model, x, z) + normal_log_prob(z).sum(-1).unsqueeze(1)
    return log_joint.logsumexp(0) + log_volume


def _log_prob_given(model: Latent, x: Tensor, z: Tensor) -> Tensor:
    """log p(x_n|z_k) for all pairs, shape ``(K, N)``, decoded in pieces."""
    size = max(1, CHUNK // len(x))
    # One tensor for all results: small ones, kept between large ones that are freed, would break
    # up the memory of the CPU, so that it grows with every piece.
    result = z.new_empty(len(z), len(x))
    for part, z_part in zip(result.split(size), z.split(size), strict=True):
        part.copy_(model.decode(z_part.unsqueeze(1)).log_prob(x))
    return result


def _wide(x: Tensor) -> torch.dtype:
    """The type for latents and sums over them: that of `x`, at least float32."""
    return torch.promote_types(x.dtype, torch.float32)
