r"""From noise to data: samplers as plain functions of a denoiser.

A denoiser is called as ``denoise(z, t)`` with t of shape ``()`` and returns x̂, the estimate of
E[x | z_t = z]. It may be
a trained network, the exact posterior mean of a mixture, or the memorizer of a data set: a sampler cannot
tell.

Each sampler starts from `z` at the first of the `times`, which fall, and returns z at the last one. At a
level with σ > 0 that is a noised example still; a model of grey levels draws P(x|z_0) after it.
"""

from collections.abc import Callable
from itertools import pairwise

import torch
from torch import Tensor

from course_lib.diffusion.parametrizations import from_clean
from course_lib.diffusion.steps import Level, posterior, reverse_variances
from course_lib.inputs import (
    require_broadcast,
    require_finite,
    require_function,
    require_generator,
    require_kind,
    require_positive_integer,
    require_real,
    require_tensor,
)
from course_lib.schedules import Schedule, per_example, require_alike, require_falling_snr
from course_lib.solvers import require_grid

Denoiser = Callable[[Tensor, Tensor], Tensor]


def level(schedule: Schedule, t: Tensor) -> Level:
    """The noise level at a time."""
    return Level(schedule.alpha(t), schedule.sigma(t))


def require_known(known: Tensor, x: Tensor) -> None:
    """Require a mask of type bool that broadcasts to the shape of `x`.

    Raises:
        TypeError: `known` is not a tensor of type bool.
        ValueError: it does not broadcast to `x`.
    """
    require_tensor(known, "known")
    if known.dtype != torch.bool:
        raise TypeError(
            f"known has dtype {known.dtype}; a mask of type bool is expected. Call .bool() on it."
        )
    require_broadcast(x=x, known=known)
    if torch.broadcast_shapes(x.shape, known.shape) != x.shape:
        raise ValueError(
            f"known has shape {tuple(known.shape)}; one that broadcasts to {tuple(x.shape)} is expected."
        )


def require_falling(times: Tensor) -> Tensor:
    """Require a grid of times from noise to data; raise `ValueError` otherwise."""
    require_grid(times)
    if times[1] > times[0]:
        raise ValueError(
            "times rise; a sampler goes from noise to data, so falling ones are expected. Reverse them "
            "with times.flip(0)."
        )
    return times


def _like(*levels: Level, z: Tensor) -> tuple[Level, ...]:
    """Levels, computed in the type of the times, in that of the examples."""
    return tuple(Level(a.alpha.to(z), a.sigma.to(z)) for a in levels)


def _checked(
    denoise: Denoiser,
    schedule: Schedule,
    z: Tensor,
    times: Tensor,
    generator: torch.Generator | None = None,
) -> Tensor:
    """The times, after a look at what every sampler takes."""
    require_function(denoise, "denoise", "a function of latents and a time")
    require_kind(schedule, Schedule, "schedule")
    require_alike(z=z)
    require_finite(z=z)
    require_generator(generator, z.device)
    require_falling_snr(schedule, require_falling(times))
    return times


def _noise(z: Tensor, generator: torch.Generator | None) -> Tensor:
    return torch.empty_like(z).normal_(generator=generator)


def ancestral(
    denoise: Denoiser,
    schedule: Schedule,
    z: Tensor,
    times: Tensor,
    *,
    variance: str = "posterior",
    generator: torch.Generator | None = None,
) -> Tensor:
    """Draw each latent from p(z_s | z_t): the posterior q(z_s | z_t, x) with x̂ for x.

    Ho, Jain and Abbeel (2020), "Denoising Diffusion Probabilistic Models", algorithm 2.

    Args:
        denoise: see the module.
        schedule: the noise.
        z: latents at ``times[0]``, shape ``(N, *event_shape)``.
        times: falling, shape ``(steps + 1,)``.
        variance: ``"posterior"`` for β̃, or ``"step"`` for DDPM's β, ``eq-reverse-variance``. A step to a
            level without noise adds none, whichever it is.
        generator: source of the noise; the global one if none is given.

    Returns:
        Latents at ``times[-1]``.

    Raises:
        ValueError: there is no such variance, or the times do not fall.
    """
    if not isinstance(variance, str) or variance not in ("posterior", "step"):
        raise ValueError(f"variance is {variance!r}; 'posterior' or 'step' is expected.")
    times = _checked(denoise, schedule, z, times, generator)
    for start, end in pairwise(times):
        t, s = _like(level(schedule, start), level(schedule, end), z=z)
        small, large = reverse_variances(s, t)
        mean, _ = posterior(z, denoise(z, start), s, t)
        z = mean
        if s.sigma > 0:
            z = z + (small if variance == "posterior" else large).sqrt() * _noise(z, generator)
    return z


def ddim(
    denoise: Denoiser,
    schedule: Schedule,
    z: Tensor,
    times: Tensor,
    *,
    eta: float = 0.0,
    generator: torch.Generator | None = None,
) -> Tensor:
    r"""A family of steps with equal marginals and more or less noise, equation ``eq-ddim``.

    .. math:: z_s = \alpha_s\hat x + \sqrt{\sigma_s^2 - \eta^2\tilde\beta}\;\hat\varepsilon
              + \eta\sqrt{\tilde\beta}\,\xi

    η = 0 adds no noise and follows the ODE; η = 1 is `ancestral`. Song, Meng and Ermon (2021), "Denoising
    Diffusion Implicit Models".

    Args:
        denoise: see the module.
        schedule: the noise.
        z: latents at ``times[0]``, shape ``(N, *event_shape)``.
        times: falling, shape ``(steps + 1,)``; the end of one step is the beginning of the next.
        eta: η in [0, 1].
        generator: source of the noise; the global one if none is given.

    Returns:
        Latents at ``times[-1]``.

    Raises:
        ValueError: `eta` is not in [0, 1], or the times do not fall.
    """
    eta = require_real(eta, "eta", "a number in [0, 1]", at_least=0, at_most=1)
    times = _checked(denoise, schedule, z, times, generator)
    for start, end in pairwise(times):
        t, s = _like(level(schedule, start), level(schedule, end), z=z)
        clean = denoise(z, start)
        noise = from_clean("noise", clean, z, t.alpha, t.sigma)
        added = eta**2 * reverse_variances(s, t)[0]
        z = s.alpha * clean + (s.sigma.square() - added).clamp(min=0).sqrt() * noise
        if eta > 0 and s.sigma > 0:
            z = z + added.sqrt() * _noise(z, generator)
    return z


def flow_velocity(denoise: Denoiser, schedule: Schedule) -> Callable[[Tensor, Tensor], Tensor]:
    """The velocity of the probability-flow ODE: α̇ x̂ + σ̇ ε̂.

    Args:
        denoise: see the module.
        schedule: the noise, with σ > 0 wherever the velocity is asked for.

    Returns:
        A function of latents and a time, as `course_lib.solvers` takes it.
    """
    require_function(denoise, "denoise", "a function of latents and a time")
    require_kind(schedule, Schedule, "schedule")

    def velocity(z: Tensor, t: Tensor) -> Tensor:
        (now,) = _like(level(schedule, t), z=z)
        clean = denoise(z, t)
        noise = from_clean("noise", clean, z, now.alpha, now.sigma)
        return (
            per_example(schedule.alpha_rate(t).to(z), z) * clean
            + per_example(schedule.sigma_rate(t).to(z), z) * noise
        )

    return velocity


def heun(denoise: Denoiser, schedule: Schedule, z: Tensor, times: Tensor) -> Tensor:
    """Heun's method in the coordinates z/α and σ/α, in which the ODE is d(z/α)/d(σ/α) = ε̂.

    In them a DDIM step is Euler's, and a straight line is a point mass's whole solution. The corrector
    averages the noise at both ends of a step. A step to a level without noise is Euler's alone, since ε̂ is
    not defined there. Karras, Aittala, Aila and Laine (2022), "Elucidating the Design Space of
    Diffusion-Based Generative Models".

    Args:
        denoise: see the module; it is called twice in each step.
        schedule: the noise, with α > 0 at all times.
        z: latents at ``times[0]``, shape ``(N, *event_shape)``.
        times: falling, shape ``(steps + 1,)``.

    Returns:
        Latents at ``times[-1]``.

    Raises:
        ValueError: there is no signal at a time, or the times do not fall.
    """
    times = _checked(denoise, schedule, z, times)
    if not (schedule.alpha(times) > 0).all():
        raise ValueError(
            "there is no signal, α = 0, at one of the times, and Heun's method is in the coordinate z/α; "
            "times with α > 0 are expected. Begin a little below time 1, or call "
            "course_lib.solvers.integrate with flow_velocity(denoise, schedule)."
        )
    for start, end in pairwise(times):
        t, s = _like(level(schedule, start), level(schedule, end), z=z)
        slope = from_clean("noise", denoise(z, start), z, t.alpha, t.sigma)
        change = s.sigma / s.alpha - t.sigma / t.alpha
        guess = s.alpha * (z / t.alpha + change * slope)
        if s.sigma > 0:
            other = from_clean("noise", denoise(guess, end), guess, s.alpha, s.sigma)
            guess = s.alpha * (z / t.alpha + change * (slope + other) / 2)
        z = guess
    return z


def inpaint(
    denoise: Denoiser,
    schedule: Schedule,
    z: Tensor,
    times: Tensor,
    clean: Tensor,
    known: Tensor,
    *,
    repeats: int = 1,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Ancestral sampling in which the known entries are replaced by their own noised versions at every level.

    **What it samples.** Not the conditional distribution of the unknown entries, except in special cases:
    while noise is high the unknown entries are drawn given *noised* known ones, and what is decided then is
    not taken back (Song et al., 2021, section 5, use it as an approximation). Going back a step and
    repeating it mixes the two parts better (Lugmayr et al., 2022, "RePaint"). For two Gaussian entries
    `replacement_moments` says by how much, equation ``eq-replacement``. The error disappears only if the
    chain mixes at levels with next to no noise. Methods with an exact limit weigh and resample many chains
    (Trippe et al., 2023; Wu et al., 2023). Where known and unknown entries are independent it is exact.

    Args:
        denoise: see the module.
        schedule: the noise.
        z: latents at ``times[0]``, shape ``(N, *event_shape)``.
        times: falling, shape ``(steps + 1,)``.
        clean: examples whose known entries count, in the shape of `z`.
        known: True where an entry is known, a shape that broadcasts to `z`.
        repeats: how often each step is made; before each repetition noise is added again.
        generator: source of the noise; the global one if none is given.

    Returns:
        Latents at ``times[-1]``; the known entries are noised to its level.

    Raises:
        TypeError: `known` is not of type bool.
        ValueError: shapes do not fit, a known entry is NaN or infinite, `repeats` is below 1, or the times do
            not fall.
    """
    times = _checked(denoise, schedule, z, times, generator)
    repeats = require_positive_integer(repeats, "repeats")
    require_alike(z=z, clean=clean)
    require_known(known, z)
    require_finite(clean=clean.masked_select(known))  # the others do not matter

    def put_in(z: Tensor, at: Level) -> Tensor:
        given = at.alpha * clean + at.sigma * _noise(z, generator)
        return torch.where(known, given, z)

    (first,) = _like(level(schedule, times[0]), z=z)
    z = put_in(z, first)
    for start, end in pairwise(times):
        t, s = _like(level(schedule, start), level(schedule, end), z=z)
        variance, beta = reverse_variances(s, t)
        for repeat in range(repeats):
            if repeat:  # back to the noisier level
                z = t.alpha / s.alpha * z + beta.sqrt() * _noise(z, generator)
            mean, _ = posterior(z, denoise(z, start), s, t)
            z = put_in(mean + variance.sqrt() * _noise(z, generator), s)
    return z
