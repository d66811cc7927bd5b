"""Divergences between probability distributions, in nats.

Closed forms for Gaussians and finite distributions, and plain estimators from samples. The derivations
are in the chapters on foundations and on variational autoencoders.
"""

import math

import torch
from torch import Tensor

from course_lib.inputs import (
    require_broadcast,
    require_finite,
    require_integer,
    require_positive_integer,
    require_real,
    require_shapes,
    require_tensor,
    require_weight,
)
from course_lib.precision import at_least_float32, in_one_type


def kl_univariate_gaussian(
    mu_q: Tensor | float, sigma_q: Tensor | float, mu_p: Tensor | float, sigma_p: Tensor | float
) -> Tensor:
    r"""KL(q‖p) between two univariate Gaussians, equation ``eq-kl-univariate``.

    .. math:: \log\frac{\sigma_p}{\sigma_q} + \frac{\sigma_q^2 + (\mu_q-\mu_p)^2}{2\sigma_p^2} - \frac12

    Args:
        mu_q: mean of q; any shape that broadcasts with the others.
        sigma_q: standard deviation of q (not its variance), positive.
        mu_p: mean of p.
        sigma_p: standard deviation of p, positive.

    Returns:
        The divergence in nats, element by element, in the broadcast shape.

    Raises:
        ValueError: a standard deviation is not positive, or the shapes do not broadcast.
    """
    mu_q, sigma_q, mu_p, sigma_p = _as_tensors(
        mu_q=mu_q, sigma_q=sigma_q, mu_p=mu_p, sigma_p=sigma_p
    )
    require_broadcast(mu_q=mu_q, sigma_q=sigma_q, mu_p=mu_p, sigma_p=sigma_p)
    for name, sigma in (("sigma_q", sigma_q), ("sigma_p", sigma_p)):
        if not (sigma > 0).all():  # NaN is caught too
            raise ValueError(
                f"{name} has the value {sigma.min().item():.4g}; a positive standard deviation is expected. "
                f"If you hold log-variances, pass torch.exp(0.5 * logvar)."
            )
    ratio = sigma_q / sigma_p
    # The logarithm of the ratio, not of its square, which has twice its exponent and underflows.
    return 0.5 * (ratio**2 + ((mu_q - mu_p) / sigma_p) ** 2 - 1) - ratio.log()


def kl_gaussian(mu_q: Tensor, cov_q: Tensor, mu_p: Tensor, cov_p: Tensor) -> Tensor:
    r"""KL(q‖p) between two multivariate Gaussians, equation ``eq-kl-multivariate``.

    .. math:: \tfrac12\left(\log\frac{\det\Sigma_p}{\det\Sigma_q} - d
              + \operatorname{tr}(\Sigma_p^{-1}\Sigma_q)
              + (\mu_p-\mu_q)^\top\Sigma_p^{-1}(\mu_p-\mu_q)\right)

    Computed with Cholesky factors: no matrix is inverted and no determinant over- or underflows.

    Args:
        mu_q: mean of q, shape ``(..., d)``.
        cov_q: covariance of q, shape ``(..., d, d)``, symmetric positive definite.
        mu_p: mean of p, shape ``(..., d)``.
        cov_p: covariance of p, shape ``(..., d, d)``.

    Returns:
        The divergence in nats, shape ``(...)``.

    Raises:
        ValueError: shapes do not fit, or a covariance is not symmetric positive definite.
    """
    mu_q, cov_q, mu_p, cov_p = _as_tensors(mu_q=mu_q, cov_q=cov_q, mu_p=mu_p, cov_p=cov_p)
    q = {"mu_q": (mu_q, "... d"), "cov_q": (cov_q, "... d d")}
    require_shapes(**q, mu_p=(mu_p, "... d"), cov_p=(cov_p, "... d d"))
    factor_q, factor_p = _cholesky(cov_q, "cov_q"), _cholesky(cov_p, "cov_p")
    # tr(Σp⁻¹ Σq) = ‖Lp⁻¹ Lq‖²_F and the Mahalanobis term is ‖Lp⁻¹ (μp − μq)‖².
    whitened = torch.linalg.solve_triangular(factor_p, factor_q, upper=False)
    shift = torch.linalg.solve_triangular(factor_p, (mu_p - mu_q).unsqueeze(-1), upper=False)
    log_det_ratio = 2 * (_log_diagonal(factor_p) - _log_diagonal(factor_q))
    return 0.5 * (
        log_det_ratio
        - mu_q.shape[-1]
        + whitened.square().sum((-2, -1))
        + shift.square().sum((-2, -1))
    )


def kl_standard_normal(mu: Tensor, logvar: Tensor) -> Tensor:
    r"""KL(N(μ, diag σ²) ‖ N(0, I)), equation ``eq-kl-diag-standard``.

    .. math:: \tfrac12 \sum_j \left(\sigma_j^2 + \mu_j^2 - 1 - \log\sigma_j^2\right)

    Args:
        mu: means, shape ``(..., d)``.
        logvar: log σ² (not log σ), shape ``(..., d)``.

    Returns:
        The divergence in nats, summed over the d dimensions, shape ``(...)``.

    Raises:
        TypeError: an argument is not a tensor.
        ValueError: the shapes do not broadcast.
    """
    require_broadcast(mu=mu, logvar=logvar)
    mu, logvar = at_least_float32(mu, "mu"), at_least_float32(logvar, "logvar")
    if max(mu.dim(), logvar.dim()) == 0:
        raise ValueError("mu and logvar have shape (); (..., d) is expected.")
    return 0.5 * (logvar.exp() + mu.square() - 1 - logvar).sum(-1)


def kl_discrete(p: Tensor, q: Tensor) -> Tensor:
    r"""KL(p‖q) between finite distributions, equation ``eq-kl-definition``.

    .. math:: \sum_k p_k \log(p_k/q_k) \quad\text{with } 0\log 0 = 0

    Args:
        p: probabilities, shape ``(..., K)``; each row sums to 1.
        q: probabilities, shape ``(..., K)``.

    Returns:
        The divergence in nats, shape ``(...)``; infinite where q is 0 and p is not. A probability that is too
        small for its type is 0, too: where that can happen, compute with logarithms of probabilities.

    Raises:
        TypeError: an argument is not a tensor.
        ValueError: a probability is negative or NaN, a row does not sum to 1, or the distributions have
            different numbers of outcomes.
    """
    p, q = _require_distributions(p, q)
    return (torch.xlogy(p, p) - torch.xlogy(p, q)).sum(-1)


def js_discrete(p: Tensor, q: Tensor) -> Tensor:
    """Jensen-Shannon divergence between finite distributions, equation ``eq-jsd``; in [0, log 2] nats.

    Args:
        p: probabilities, shape ``(..., K)``.
        q: probabilities, shape ``(..., K)``.

    Returns:
        The divergence in nats, shape ``(...)``.

    Raises:
        TypeError: an argument is not a tensor.
        ValueError: a probability is negative or NaN, a row does not sum to 1, or the distributions have
            different numbers of outcomes.
    """
    p, q = _require_distributions(p, q)
    # Not by way of the mixture: half of the smallest number is 0, and the divergence from it infinite.
    total = (p + q).where(p + q > 0, 1)
    return 0.5 * (torch.xlogy(p, 2 * p / total) + torch.xlogy(q, 2 * q / total)).sum(-1)


def histogram_kl(
    x: Tensor, y: Tensor, bins: int | Tensor = 50, pseudo_count: float = 0.5
) -> Tensor:
    """KL between the histograms of two samples on the line.

    Both samples are counted in the same bins, and no point is lost: the first and the last bin
    are unbounded. A pseudo-count in every bin keeps the value finite. The value depends on
    the bins and on the pseudo-count: state them with every number.

    Args:
        x: sample of the first distribution, shape ``(N,)``.
        y: sample of the second distribution, shape ``(M,)``.
        bins: the E increasing edges between the E + 1 bins, or the number of equal bins over the
            joint range of the samples.
        pseudo_count: added to the count of every bin, not negative.

    Returns:
        KL(histogram of x ‖ histogram of y) in nats, a scalar in float64.

    Raises:
        TypeError: a sample is not a tensor, or `bins` neither an integer nor a tensor.
        ValueError: a sample is empty or holds NaN or infinity, the edges do not increase, or
            `pseudo_count` is negative.
    """
    x, y = _require_sample(x, "x"), _require_sample(y, "y")
    pseudo_count = require_weight(pseudo_count, "pseudo_count")
    if not isinstance(bins, Tensor) or bins.dim() == 0:
        expected = "a number of bins, an integer, or a tensor of edges"
        bins = require_positive_integer(require_integer(bins, "bins", expected), "bins")
        low, high = torch.cat([x, y]).aminmax()
        # Only the edges between the bins: the outermost points then count in the outermost bins.
        bins = torch.linspace(low.item(), high.item(), bins + 1, dtype=torch.float64)[1:-1]
    else:
        require_tensor(bins, "bins")
        bins = at_least_float32(bins, "bins")
        if bins.dim() != 1 or not (bins.diff() > 0).all():
            raise ValueError(
                f"the edges given as bins, of shape {tuple(bins.shape)}, do not increase; distinct edges "
                f"in increasing order, shape (E,), are expected. Sort them with bins.unique()."
            )

    def distribution(sample: Tensor) -> Tensor:
        bin_of = torch.bucketize(sample.double(), bins.to(sample.device, torch.float64))
        counts = torch.bincount(bin_of, minlength=len(bins) + 1).double() + pseudo_count
        return counts / counts.sum()

    return kl_discrete(distribution(x), distribution(y))


def wasserstein_1d(x: Tensor, y: Tensor) -> Tensor:
    r"""Wasserstein-1 distance between two samples on the line, equation ``eq-w1-quantile``.

    .. math:: W_1 = \int_0^1 |F_x^{-1}(u) - F_y^{-1}(u)|\,du = \int |F_x(t) - F_y(t)|\,dt

    Args:
        x: first sample, shape ``(N,)``.
        y: second sample, shape ``(M,)``; N and M may differ.

    Returns:
        The distance, in the units of the samples, a scalar.

    Raises:
        TypeError: an argument is not a tensor.
        ValueError: a sample is not one-dimensional, is empty, or holds NaN or infinity.
    """
    x, y = _require_sample(x, "x"), _require_sample(y, "y")
    points = torch.cat([x, y]).sort().values

    def cdf(sample: Tensor) -> Tensor:
        ordered = sample.to(points.dtype).sort().values
        return torch.searchsorted(ordered, points[:-1], right=True) / sample.numel()

    return ((cdf(x) - cdf(y)).abs() * points.diff()).sum()


def _require_distributions(p: Tensor, q: Tensor) -> tuple[Tensor, Tensor]:
    """Require two finite distributions, and return them in a type that can be added up."""
    distributions = []
    for name, given in (("p", p), ("q", q)):
        require_tensor(given, name)
        distribution = at_least_float32(given, name)
        if distribution.dim() == 0 or distribution.numel() == 0:
            raise ValueError(
                f"{name} has shape {tuple(distribution.shape)}; probabilities, (..., K), are expected."
            )
        distributions.append(distribution)
        total = distribution.sum(-1)
        # Rows that were normalized and then rounded to half precision are off by its rounding.
        eps = torch.finfo(given.dtype).eps if given.is_floating_point() else 0
        slack = max(1e-4, eps)
        if (distribution < 0).any() or not torch.allclose(
            total, torch.ones_like(total), atol=slack
        ):
            raise ValueError(
                f"{name} has a least value of {distribution.min().item():.4g} and rows that sum to "
                f"{total.min().item():.6g} … {total.max().item():.6g}; non-negative rows that "
                f"sum to 1 are expected. Normalize with {name} / {name}.sum(-1, keepdim=True)."
            )
    if p.shape[-1] != q.shape[-1]:
        raise ValueError(
            f"p has {p.shape[-1]} outcomes and q has {q.shape[-1]}; distributions over the same outcomes "
            f"are expected. Give outcomes that one of them lacks the probability 0."
        )
    return distributions[0], distributions[1]


def _require_sample(sample: Tensor, name: str) -> Tensor:
    """Require a sample on the line, and return it in a type that can be sorted and added up."""
    require_shapes(f"Flatten it with {name}.flatten().", **{name: (sample, "N")})
    sample = at_least_float32(sample, name)
    require_finite(**{name: sample})
    return sample


def _as_tensors(**values: Tensor | float) -> list[Tensor]:
    """Numbers and tensors as tensors of one type: that of the floating tensors, else float64.

    Half precision becomes float32, in which determinants can be computed.
    """
    tensors = {name: value for name, value in values.items() if isinstance(value, Tensor)}
    for name, tensor in tensors.items():
        require_tensor(tensor, name)
    dtype = in_one_type(**tensors)[0].dtype if tensors else torch.float64
    numbers = {
        name: torch.tensor(_number(value, name), dtype=dtype)
        for name, value in values.items()
        if name not in tensors
    }
    return [numbers[n] if n in numbers else tensors[n].to(dtype) for n in values]


def _log_diagonal(factor: Tensor) -> Tensor:
    return factor.diagonal(dim1=-2, dim2=-1).log().sum(-1)


def _cholesky(cov: Tensor, name: str) -> Tensor:
    require_finite(**{name: cov})
    # Rounding errs in proportion to the largest terms of a sum, also where the sum is nearly 0.
    largest = cov.abs().amax((-2, -1))
    asymmetry = (cov - cov.mT).abs().amax((-2, -1))
    if (asymmetry > 1e-5 * largest).any():
        raise ValueError(
            f"{name} is not symmetric: an entry and its mirror image differ by "
            f"{asymmetry.max().item():.4g}; a covariance matrix is expected. If it should be "
            f"symmetric, pass 0.5 * ({name} + {name}.mT)."
        )
    factor, info = torch.linalg.cholesky_ex(cov)
    if info.any():
        least = torch.linalg.eigvalsh(cov).min().item()
        raise ValueError(
            f"{name} has the eigenvalue {least:.4g}; a positive definite matrix is expected. "
            f"Add a small multiple of the identity if it is singular by rounding."
        )
    return factor


def _number(value: object, name: str) -> float:
    """A number, as it is: NaN makes the result NaN, as in a tensor."""
    if isinstance(value, float) and math.isnan(value):
        return value
    return require_real(value, name, "a tensor, or a number,")
