"""Two estimators of the gradient of an expectation over a Gaussian whose parameters are learned."""

from collections.abc import Callable

import torch
from torch import Tensor

from course_lib.inputs import (
    require_broadcast,
    require_floating,
    require_function,
    require_positive_integer,
    require_real,
    require_shapes,
)


def reparameterize(mu: Tensor, logvar: Tensor, noise: Tensor) -> Tensor:
    r"""A Gaussian sample as a function of noise, equation ``eq-reparameterization``.

    .. math:: z = \mu + \sigma\epsilon, \qquad \sigma = e^{\frac12\log\sigma^2}

    Args:
        mu: means, shape ``(..., d)``.
        logvar: log σ², shape ``(..., d)``.
        noise: standard normal, any shape that broadcasts with them.

    Returns:
        A sample of N(μ, diag σ²), differentiable in `mu` and `logvar`.
    """
    for name, value in (("mu", mu), ("logvar", logvar), ("noise", noise)):
        require_floating(value, name)
    require_broadcast(mu=mu, logvar=logvar, noise=noise)
    return mu + (0.5 * logvar).exp() * noise


def pathwise_gradient(
    f: Callable[[Tensor], Tensor], mu: Tensor, logvar: Tensor, n_samples: int
) -> tuple[Tensor, Tensor]:
    r"""Samples of the pathwise gradient of E[f(z)], equation ``eq-pathwise-gradient``.

    .. math:: \nabla_\mu \to f'(z), \qquad \nabla_{\log\sigma^2} \to \tfrac12 f'(z)\,\sigma\epsilon

    Needs f to be differentiable.

    Args:
        f: maps ``(n_samples, d)`` to ``(n_samples,)``, row by row.
        mu: mean, shape ``(d,)``.
        logvar: log σ², shape ``(d,)``.
        n_samples: number of samples.

    Returns:
        One estimate per row for μ and for log σ², each ``(n_samples, d)``; average the rows.
    """
    noise = _noise(f, mu, logvar, n_samples)
    z = reparameterize(mu, logvar, noise).detach().requires_grad_()
    values = f(z)
    _require_values(values, n_samples)
    (slope,) = torch.autograd.grad(values.sum(), z)
    return slope, 0.5 * slope * (0.5 * logvar).exp() * noise


def score_function_gradient(
    f: Callable[[Tensor], Tensor],
    mu: Tensor,
    logvar: Tensor,
    n_samples: int,
    *,
    baseline: float = 0.0,
) -> tuple[Tensor, Tensor]:
    r"""Samples of the score-function gradient of E[f(z)], equation ``eq-score-function``.

    .. math:: (f(z) - b)\,\nabla \log q(z)

    Needs no derivative of f. Any constant baseline b leaves the mean as it is and changes the
    variance. Williams (1992).

    Args:
        f: maps ``(n_samples, d)`` to ``(n_samples,)``.
        mu: mean, shape ``(d,)``.
        logvar: log σ², shape ``(d,)``.
        n_samples: number of samples.
        baseline: b.

    Returns:
        One estimate per row for μ and for log σ², each ``(n_samples, d)``; average the rows.
    """
    noise = _noise(f, mu, logvar, n_samples)
    baseline = require_real(baseline, "baseline")
    with torch.no_grad():
        values = f(reparameterize(mu, logvar, noise))
        _require_values(values, n_samples)
        value = (values - baseline).unsqueeze(1)  # (n_samples, 1)
    # ∇_μ log q = (z − μ)/σ² = ε/σ and ∇_{log σ²} log q = ½(ε² − 1).
    return value * noise / (0.5 * logvar).exp(), value * 0.5 * (noise.square() - 1)


def _require_values(values: Tensor, n_samples: int) -> None:
    """One per sample: a function that sums over the samples, too, would be of another gradient."""
    if not isinstance(values, Tensor) or values.shape != (n_samples,):
        given = tuple(values.shape) if isinstance(values, Tensor) else type(values).__name__
        raise ValueError(
            f"f(z) is {given}; one number per sample, a tensor of shape ({n_samples},), is expected. "
            f"Sum over the last dimension only."
        )


def _noise(f: Callable[[Tensor], Tensor], mu: Tensor, logvar: Tensor, n_samples: int) -> Tensor:
    n_samples = require_positive_integer(n_samples, "n_samples")
    require_function(f, "f", "a function of samples")
    require_floating(mu, "mu")
    require_floating(logvar, "logvar")
    require_shapes(mu=(mu, "d"), logvar=(logvar, "d"))
    return torch.randn(n_samples, len(mu), dtype=mu.dtype, device=mu.device)
