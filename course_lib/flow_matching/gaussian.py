r"""Flow matching between Gaussians, where the flow map, its averages and the least loss are known.

For data :math:`\mathcal N(m, \operatorname{diag} c)` every :math:`x_t` is normal with mean
:math:`\alpha_t m` and variance :math:`S_t = \alpha_t^2 c + \sigma_t^2`, and the flow only moves and
stretches: it keeps :math:`(x_t - \alpha_t m)/\sqrt{S_t}`.
"""

import math

import torch
from torch import Tensor

from course_lib.flow_matching.paths import require_moments
from course_lib.inputs import require_kind, require_shapes
from course_lib.precision import in_one_type
from course_lib.schedules import Schedule, per_example, require_single, require_times


def gaussian_flow_map(
    schedule: Schedule, z: Tensor, t: Tensor, r: Tensor, mean: Tensor, variance: Tensor
) -> Tensor:
    r"""Where the flow carries x_t at another time: :math:`\alpha_r m + \sqrt{S_r/S_t}\,(x_t-\alpha_t m)`.

    At r = 0 it is the consistency function of the data, ``eq-consistency``.

    Args:
        schedule: the path.
        z: examples at time `t`, shape ``(N, *event_shape)``.
        t: a time, shape ``()``, or one for each example, shape ``(N,)``.
        r: the time to go to, likewise.
        mean: m, a shape that broadcasts to one example.
        variance: c ≥ 0, a shape that broadcasts to one example.

    Returns:
        x_r, in the shape of `z`.
    """
    require_kind(schedule, Schedule, "schedule")
    mean, variance = require_moments(z, mean, variance)
    (alpha_t, spread_t), (alpha_r, spread_r) = (
        _moments(schedule, time, z, variance, name) for time, name in ((t, "t"), (r, "r"))
    )
    return alpha_r * mean + (spread_r / spread_t).sqrt() * (z - alpha_t * mean)


def gaussian_average_velocity(
    z: Tensor, r: Tensor, t: Tensor, mean: Tensor, variance: Tensor
) -> Tensor:
    r"""The average velocity between r and t on the linear path, :math:`(x_t - x_r)/(t - r)`.

    Since :math:`S_t - S_r = (t-r)\,[(t+r) - (2-t-r)c]`, the factor t − r is divided out beforehand: at r = t
    it is the velocity itself, and nothing cancels near it.

    Args:
        z: examples at time `t`, shape ``(N, *event_shape)``.
        r: the earlier time, shape ``()`` or ``(N,)``.
        t: the later time, likewise.
        mean: m, a shape that broadcasts to one example.
        variance: c ≥ 0, a shape that broadcasts to one example.

    Returns:
        u(x_t, r, t), in the shape of `z`.
    """
    mean, variance = require_moments(z, mean, variance)
    r, t = (
        per_example(require_times(time, name).to(z), z, name) for time, name in ((r, "r"), (t, "t"))
    )
    spread_r, spread_t = ((1 - time) ** 2 * variance + time**2 for time in (r, t))
    slope = ((t + r) - (2 - t - r) * variance) / (spread_t + (spread_t * spread_r).sqrt())
    return slope * (z - (1 - t) * mean) - mean


def gaussian_loss_floor(variance: Tensor) -> Tensor:
    r"""The least flow-matching loss of N(m, diag c) on the linear path at uniform times: Σ √c π/2.

    Given x_t the conditional velocity ε − x still has the variance c/S_t, whose integral over time is
    √c π/2. No network gets below it, ``eq-cfm-floor``.

    Args:
        variance: c ≥ 0, any shape.

    Returns:
        The sum over entries, shape ``()``.
    """
    require_single(variance, "variance")
    if not (variance >= 0).all():
        raise ValueError("variance has a negative value, or NaN; none below 0 is expected.")
    return math.pi / 2 * variance.sqrt().sum()


def gaussian_pair_velocity(
    z: Tensor, t: Tensor, covariance: Tensor, source_covariance: Tensor
) -> Tensor:
    r"""The velocity of the linear path between N(0, C) data and an independent Gaussian source N(0, Q).

    .. math:: v = \bigl(tQ - (1-t)C\bigr)\bigl((1-t)^2C + t^2Q\bigr)^{-1} x_t

    Its flow map is the optimal transport exactly if C and Q commute, ``eq-gaussian-transport``; noise, Q = I,
    commutes with every C.

    Args:
        z: shape ``(N, D)``.
        t: a time, shape ``()``.
        covariance: C, shape ``(D, D)``.
        source_covariance: Q, shape ``(D, D)``, not singular.

    Returns:
        The velocity, shape ``(N, D)``.
    """
    matrices = {"covariance": (covariance, "d d"), "source_covariance": (source_covariance, "d d")}
    require_shapes(z=(z, "N d"), **matrices)
    given = {"z": z} | {name: matrix for name, (matrix, _) in matrices.items()}
    z, covariance, source_covariance = in_one_type(**given)
    t = require_times(t).to(z)
    drift = t * source_covariance - (1 - t) * covariance
    spread = (1 - t) ** 2 * covariance + t**2 * source_covariance
    # z Aᵀ with A = drift · spread⁻¹, both symmetric factors: Aᵀ = spread⁻¹ · drift.
    return torch.linalg.solve(spread, z.mT).mT @ drift


def gaussian_optimal_map(covariance: Tensor, source_covariance: Tensor) -> Tensor:
    r"""The matrix of the optimal transport from N(0, Q) to N(0, C), symmetric, shape ``(D, D)``.

    .. math:: A = Q^{-1/2}\bigl(Q^{1/2} C Q^{1/2}\bigr)^{1/2} Q^{-1/2}

    Args:
        covariance: C, shape ``(D, D)``, symmetric, no eigenvalue negative.
        source_covariance: Q, shape ``(D, D)``, symmetric positive definite.

    Source: Dowson and Landau (1982).
    """
    matrices = {"covariance": (covariance, "d d"), "source_covariance": (source_covariance, "d d")}
    require_shapes(**matrices)
    covariance, source_covariance = in_one_type(**{n: m for n, (m, _) in matrices.items()})
    if not (torch.linalg.eigvalsh(source_covariance) > 0).all():
        raise ValueError("source_covariance is singular; positive eigenvalues are expected.")
    root = _root(source_covariance)
    inverse = torch.linalg.inv(root)
    return inverse @ _root(root @ covariance @ root) @ inverse


def _root(matrix: Tensor) -> Tensor:
    values, vectors = torch.linalg.eigh(matrix)
    return (vectors * values.clamp(min=0).sqrt()) @ vectors.mT


def _moments(
    schedule: Schedule, t: Tensor, z: Tensor, variance: Tensor, name: str
) -> tuple[Tensor, Tensor]:
    """α and S at a time, with the axes of the examples."""
    t = require_times(t, name)
    alpha, sigma = (per_example(f(t).to(z), z, name) for f in (schedule.alpha, schedule.sigma))
    return alpha, alpha**2 * variance + sigma**2
