"""What is known in closed form about the game: the optimal discriminator and the value it attains."""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from course_lib.inputs import require_function, require_tensor
from course_lib.precision import at_least_float32, in_one_type

LogDensity = Callable[[Tensor], Tensor]


def optimal_discriminator(log_p: Tensor, log_q: Tensor) -> Tensor:
    r"""The best discriminator of two known distributions, equation ``eq-optimal-discriminator``.

    .. math:: D^*(x) = \frac{p(x)}{p(x)+q(x)} = \operatorname{sigmoid}(\log p(x) - \log q(x))

    Its logit is the log ratio of the densities. Where both are 0 every value is optimal; ½ is
    returned there.

    Args:
        log_p: log density of the real distribution at some points, any shape; −inf where it is 0.
        log_q: log density of the generated distribution at the same points, same shape.

    Returns:
        D* in [0, 1], in the shape of `log_p`.

    Raises:
        ValueError: the shapes differ, or a value is NaN or +inf.

    Source: Goodfellow et al. (2014), proposition 1.
    """
    log_p, log_q = _real(log_p, "log_p"), _real(log_q, "log_q")
    for name, value in (("log_p", log_p), ("log_q", log_q)):
        if (value.isnan() | value.isposinf()).any():
            raise ValueError(
                f"{name} holds NaN or +inf; log densities, finite or −inf, are expected."
            )
    if log_p.shape != log_q.shape:
        raise ValueError(
            f"log_p has shape {tuple(log_p.shape)} and log_q {tuple(log_q.shape)}; both densities at "
            f"the same points are expected."
        )
    log_p, log_q = in_one_type(log_p, log_q)
    both_zero = log_p.isneginf() & log_q.isneginf()
    logits = torch.where(both_zero, torch.zeros_like(log_p), log_p) - torch.where(
        both_zero, torch.zeros_like(log_q), log_q
    )
    return torch.sigmoid(logits)


def game_value(logit: LogDensity, log_p: LogDensity, log_q: LogDensity, points: Tensor) -> Tensor:
    r"""The value V(D, G) of equation ``eq-gan-value`` for known densities on the line.

    .. math:: V = \int p(x)\log D(x) + q(x)\log(1 - D(x))\,dx

    Args:
        logit: the discriminator's logit as a function of points, shape ``(P,)``.
        log_p: log density of the real distribution.
        log_q: log density of the generated distribution.
        points: where to evaluate, increasing, shape ``(P,)``; the trapezoidal rule is used.

    Returns:
        V in nats, a scalar. It is at most 2·JSD − log 4, which D* attains; −log 4 if p = q.
    """
    points, a, log_p_at, log_q_at = _at(points, logit=logit, log_p=log_p, log_q=log_q)
    terms = [(log_p_at.exp(), logsigmoid(a)), (log_q_at.exp(), logsigmoid(-a))]
    # 0 log 0 = 0: where a density is 0, nothing is lost by being sure that a point comes from the other.
    integrand = sum(torch.where(p == 0, 0, p * log_d) for p, log_d in terms)
    return torch.trapezoid(integrand, points)


def jensen_shannon(log_p: LogDensity, log_q: LogDensity, points: Tensor) -> Tensor:
    r"""JSD(p‖q) of two known densities on the line, by the trapezoidal rule.

    .. math:: \tfrac12\mathrm{KL}(p\,\|\,m) + \tfrac12\mathrm{KL}(q\,\|\,m),\qquad m = \tfrac12(p+q)

    Args:
        log_p: log density of the first distribution.
        log_q: log density of the second.
        points: where to evaluate, increasing, shape ``(P,)``.

    Returns:
        The divergence in nats, a scalar between 0 and log 2.
    """
    points, *logs = _at(points, log_p=log_p, log_q=log_q)
    p, q = (log.exp() for log in logs)
    m = (p + q) / 2
    m = torch.where(m == 0, torch.ones_like(m), m)  # there p = q = 0, and 0 log 0 = 0
    return torch.trapezoid(torch.xlogy(p, p / m) + torch.xlogy(q, q / m), points) / 2


def _at(points: Tensor, **functions: LogDensity) -> list[Tensor]:
    """Points, and the values of functions there, in types that can be added up."""
    points = _real(points, "points")
    if points.dim() != 1 or len(points) < 2 or not (points.diff() > 0).all():
        raise ValueError(
            f"points has shape {tuple(points.shape)}; at least two points on the line, in increasing "
            f"order, are expected, such as torch.linspace(-8, 8, 1001)."
        )
    values = []
    for name, function in functions.items():
        require_function(function, name, "a function of points")
        values.append(_real(function(points), f"{name}(points)"))
        if values[-1].shape != points.shape:
            raise ValueError(
                f"{name}(points) has shape {tuple(values[-1].shape)}; one number per point, "
                f"{tuple(points.shape)}, is expected."
            )
    return [points, *values]


def _real(x: Tensor, name: str) -> Tensor:
    require_tensor(x, name)
    return at_least_float32(x, name)
