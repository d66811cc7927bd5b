r"""Paths from data to noise, and the velocities along them.

A path is a `course_lib.schedules.Schedule`: :math:`x_t = \alpha x + \sigma\varepsilon`, data at time 0 and
noise at time 1. One pair (x, ε) moves with the *conditional* velocity
:math:`\dot\alpha x + \dot\sigma\varepsilon`; on the linear path that is ε − x at every time. The velocity
that carries the densities is its mean given x_t, ``eq-marginal-velocity``: what a network is fitted to.
"""

import torch
from torch import Tensor

from course_lib.inputs import require_kind
from course_lib.schedules import (
    Schedule,
    per_example,
    require_alike,
    require_single,
    require_times,
)


def conditional_velocity(schedule: Schedule, x: Tensor, noise: Tensor, t: Tensor) -> Tensor:
    """α̇ x + σ̇ ε: how fast x_t moves if its two ends are known.

    Args:
        schedule: the path.
        x: examples, shape ``(N, *event_shape)``.
        noise: ε, in the shape of `x`.
        t: a time, shape ``()``, or one for each example, shape ``(N,)``.

    Returns:
        The velocity, in the shape of `x`.
    """
    require_kind(schedule, Schedule, "schedule")
    require_alike(x=x, noise=noise)
    alpha_rate, sigma_rate = _rates(schedule, t, x)
    return alpha_rate * x + sigma_rate * noise


def ends_from_velocity(
    schedule: Schedule, velocity: Tensor, z: Tensor, t: Tensor
) -> tuple[Tensor, Tensor]:
    r"""The clean example and the noise that a velocity at x_t stands for.

    Two linear equations, :math:`x_t = \alpha x + \sigma\varepsilon` and
    :math:`v = \dot\alpha x + \dot\sigma\varepsilon`, in two unknowns. Of the marginal velocity they give
    E[x|x_t] and E[ε|x_t].

    Args:
        schedule: the path.
        velocity: v, shape ``(N, *event_shape)``.
        z: noised examples x_t, in the same shape.
        t: a time, shape ``()``, or one for each example, shape ``(N,)``.

    Returns:
        x̂ and ε̂, each in the shape of `z`.
    """
    require_kind(schedule, Schedule, "schedule")
    require_alike(z=z, velocity=velocity)
    alpha, sigma = _factors(schedule, t, z)
    alpha_rate, sigma_rate = _rates(schedule, t, z)
    determinant = alpha * sigma_rate - sigma * alpha_rate
    clean = (sigma_rate * z - sigma * velocity) / determinant
    noise = (alpha * velocity - alpha_rate * z) / determinant
    return clean, noise


def velocity_from_score(schedule: Schedule, score: Tensor, z: Tensor, t: Tensor) -> Tensor:
    r"""v = (α̇/α) x_t + (α̇σ²/α − σσ̇) s, equation ``eq-velocity-score``.

    Args:
        schedule: the path, with α > 0 at `t`.
        score: s = ∇ log p_t(x_t), shape ``(N, *event_shape)``.
        z: noised examples x_t, in the same shape.
        t: a time, shape ``()``, or one for each example, shape ``(N,)``.

    Returns:
        The velocity, in the shape of `z`.

    Raises:
        ValueError: α is 0 at a time.
    """
    require_kind(schedule, Schedule, "schedule")
    require_alike(z=z, score=score)
    alpha, sigma = _factors(schedule, t, z)
    if not (alpha > 0).all():
        raise ValueError("t has a time at which α is 0; times with some signal are expected.")
    alpha_rate, sigma_rate = _rates(schedule, t, z)
    return alpha_rate / alpha * z + (alpha_rate * sigma**2 / alpha - sigma * sigma_rate) * score


def score_from_velocity(schedule: Schedule, velocity: Tensor, z: Tensor, t: Tensor) -> Tensor:
    """s = −E[ε|x_t]/σ, the inverse of `velocity_from_score`; for σ > 0.

    Args:
        schedule: the path.
        velocity: v, shape ``(N, *event_shape)``.
        z: noised examples x_t, in the same shape.
        t: a time, shape ``()``, or one for each example, shape ``(N,)``.

    Returns:
        The score, in the shape of `z`.

    Raises:
        ValueError: σ is 0 at a time.
    """
    noise = ends_from_velocity(schedule, velocity, z, t)[1]
    sigma = _factors(schedule, t, z)[1]
    if not (sigma > 0).all():
        raise ValueError("t has a time at which σ is 0; times with some noise are expected.")
    return -noise / sigma


def gaussian_velocity(
    schedule: Schedule, z: Tensor, t: Tensor, mean: Tensor, variance: Tensor
) -> Tensor:
    r"""The marginal velocity of data N(m, diag c).

    .. math:: v = \dot\alpha m + \frac{\dot\alpha\alpha c + \dot\sigma\sigma}{\alpha^2 c + \sigma^2}
              (x_t - \alpha m)

    Args:
        schedule: the path.
        z: noised examples x_t, shape ``(N, *event_shape)``.
        t: a time, shape ``()``, or one for each example, shape ``(N,)``.
        mean: m, a shape that broadcasts to one example.
        variance: c, positive, a shape that broadcasts to one example.

    Returns:
        The velocity, in the shape of `z`.
    """
    require_kind(schedule, Schedule, "schedule")
    mean, variance = require_moments(z, mean, variance)
    alpha, sigma = _factors(schedule, t, z)
    alpha_rate, sigma_rate = _rates(schedule, t, z)
    slope = (alpha_rate * alpha * variance + sigma_rate * sigma) / (alpha**2 * variance + sigma**2)
    return alpha_rate * mean + slope * (z - alpha * mean)


def noise_loss_weight(schedule: Schedule, t: Tensor) -> Tensor:
    r"""The weight of ‖ε − ε̂‖² dλ in the flow-matching loss, equation ``eq-weighting``.

    .. math:: \int \lVert v - \hat v\rVert^2\,\mathrm dt
              = \int \tfrac14\sigma^2|\dot\lambda|\,
                \lVert\varepsilon-\hat\varepsilon\rVert^2\,\mathrm d\lambda

    On the linear path it is ½ e^{−λ/2}. The variational bound has the weight ½ at every λ.

    Args:
        schedule: the path.
        t: times, any shape.

    Returns:
        The weight at each time, in the shape of `t`.
    """
    require_kind(schedule, Schedule, "schedule")
    t = require_times(t)
    alpha, sigma = schedule.alpha(t), schedule.sigma(t)
    # σ² |λ̇|/4, with λ̇ = 2 (α̇/α − σ̇/σ), multiplied out: at σ = 0 it is 0.
    turned = schedule.alpha_rate(t) * sigma - alpha * schedule.sigma_rate(t)
    return sigma * turned.abs() / (2 * alpha)


def require_moments(z: Tensor, mean: Tensor, variance: Tensor) -> tuple[Tensor, Tensor]:
    """Require a mean and a variance of every entry of examples, and return them in the type of these.

    Raises:
        TypeError: one is not a tensor of float32 or float64.
        ValueError: the shapes do not broadcast to one example.
    """
    require_alike(z=z)
    for name, moment in (("mean", mean), ("variance", variance)):
        require_single(moment, name)
        shape = tuple(z.shape[1:])
        try:
            fits = torch.broadcast_shapes(moment.shape, shape) == shape
        except RuntimeError:
            fits = False
        if not fits:
            raise ValueError(
                f"{name} has shape {tuple(moment.shape)} for z of shape {tuple(z.shape)}; a shape that "
                f"broadcasts to one example, {shape}, is expected."
            )
    return mean.to(z), variance.to(z)


def _factors(schedule: Schedule, t: Tensor, z: Tensor) -> tuple[Tensor, Tensor]:
    """α and σ in the type of the examples, with their axes."""
    t = require_times(t)
    return (
        per_example(schedule.alpha(t).to(z), z, "t"),
        per_example(schedule.sigma(t).to(z), z, "t"),
    )


def _rates(schedule: Schedule, t: Tensor, z: Tensor) -> tuple[Tensor, Tensor]:
    """The derivatives of α and σ, likewise."""
    t = require_times(t)
    return (
        per_example(schedule.alpha_rate(t).to(z), z, "t"),
        per_example(schedule.sigma_rate(t).to(z), z, "t"),
    )
