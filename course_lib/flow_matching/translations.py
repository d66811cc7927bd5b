r"""What other sources call things, in the terms of this course, and back.

Here time 0 is data and time 1 noise, :math:`x_t = \alpha x + \sigma\varepsilon`, and
:math:`\mathrm{SNR} = \alpha^2/\sigma^2`. Many papers on flow matching run time from noise to data; some write
SNR for :math:`\alpha/\sigma`; DDIM's :math:`\alpha` is :math:`\alpha^2` here; EDM writes
:math:`x + \sigma\varepsilon`; and the guidance scale is 1 + w.
"""

from collections.abc import Callable

from torch import Tensor

from course_lib.inputs import require_function, require_kind, require_real
from course_lib.schedules import Schedule, per_example, require_single, require_times

Velocity = Callable[[Tensor, Tensor], Tensor]


def reversed_time(velocity: Velocity) -> Velocity:
    """The velocity in a source whose time 0 is noise and 1 is data: −v(x, 1 − t).

    Both the time and the sign change: with the time alone the ODE runs away from the data. Twice reversed is
    the velocity itself.

    Args:
        velocity: called as ``velocity(x, t)``, with t of shape ``()`` or ``(N,)``.
    """
    require_function(velocity, "velocity", "a function of examples and a time")
    return lambda x, t: -velocity(x, 1 - t)


def guidance_scale(w: float) -> float:
    """The scale s = 1 + w that most libraries take for the weight w ≥ 0; 1 is no guidance."""
    return 1 + require_real(w, "w", "a weight of at least 0", at_least=0)


def guidance_weight(scale: float) -> float:
    """The weight w = s − 1 of a guidance scale s ≥ 1."""
    return require_real(scale, "scale", "a scale of at least 1", at_least=1) - 1


def log_snr_from_ratio(ratio: Tensor) -> Tensor:
    """λ = log(α²/σ²) where a source gives α/σ and calls it the SNR: twice its logarithm."""
    require_single(ratio, "ratio")
    if not (ratio > 0).all():
        raise ValueError(
            "ratio has a value that is not positive; positive ones, α/σ, are expected."
        )
    return 2 * ratio.log()


def alpha_from_ddim(alpha_bar: Tensor) -> tuple[Tensor, Tensor]:
    """The signal α and the noise σ from DDIM's α, which is DDPM's ᾱ: its root, and that of the rest."""
    require_single(alpha_bar, "alpha_bar")
    if not ((alpha_bar >= 0) & (alpha_bar <= 1)).all():
        raise ValueError("alpha_bar has a value outside [0, 1]; values in [0, 1] are expected.")
    return alpha_bar.sqrt(), (1 - alpha_bar).sqrt()


def edm_sigma(schedule: Schedule, t: Tensor) -> Tensor:
    """EDM's noise level σ/α: the standard deviation of the noise in x_t/α; Karras et al. (2022).

    Args:
        schedule: the path.
        t: times with α > 0, any shape.
    """
    require_kind(schedule, Schedule, "schedule")
    return (-0.5 * schedule.log_snr(t)).exp()


def time_of_edm_sigma(schedule: Schedule, sigma: Tensor) -> Tensor:
    """The time at which a path has EDM's noise level σ > 0: the inverse of `edm_sigma`."""
    require_kind(schedule, Schedule, "schedule")
    require_single(sigma, "sigma")
    if not (sigma > 0).all():
        raise ValueError("sigma has a value that is not positive; positive ones are expected.")
    return schedule.time(-2 * sigma.log())


def on_another_path(velocity: Velocity, old: Schedule, new: Schedule) -> Velocity:
    r"""The velocity of the same model on another path, without training, equation ``eq-path-change``.

    Two paths at the same log SNR hold the same example up to a factor k: :math:`x'_{t'} = k\,x_t` with
    :math:`k = \alpha'/\alpha`, where t is the time at which the old path has the noise level of the new one
    at t'. Differentiating gives :math:`v' = \dot k\,x + k\,\dot t\,v(x, t)` at :math:`x = x'/k`.

    Args:
        velocity: of the old path, called as ``velocity(x, t)`` with t of shape ``()``.
        old: the path that the velocity was trained on.
        new: the other path.

    Returns:
        A velocity of the new path, for times at which both log SNR are finite.
    """
    require_function(velocity, "velocity", "a function of examples and a time")
    for name, schedule in (("old", old), ("new", new)):
        require_kind(schedule, Schedule, name)

    def moved(x: Tensor, t: Tensor) -> Tensor:
        now = require_times(t)
        then = old.time(new.log_snr(now)).clamp(0, 1)
        factor = new.alpha(now) / old.alpha(then)
        speed = new.log_snr_rate(now) / old.log_snr_rate(then)
        growth = new.alpha_rate(now) / new.alpha(now) - speed * old.alpha_rate(then) / old.alpha(
            then
        )
        factor, speed, growth = (per_example(a.to(x), x) for a in (factor, speed, growth))
        return growth * x + factor * speed * velocity(x / factor, then)

    return moved
