r"""The Dirac-GAN: the smallest game that shows which training methods converge.

The data are one point, 0. The generator is one number θ, the point it generates; the discriminator
is one number ψ, the slope of its logit (or score) a(x) = ψx. The only equilibrium is θ = ψ = 0.
Each method is a vector field (θ̇, ψ̇): minus the gradient of each player's own loss by its own
number. Training follows it in steps of size h, both players at once (simultaneous) or one after the
other (alternating). Near the equilibrium the eigenvalues of the update's Jacobian decide: moduli
below 1 shrink the distance, above 1 they grow it.

Source: Mescheder, Geiger and Nowozin (2018).
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from course_lib.inputs import (
    require_count,
    require_kind,
    require_real,
    require_weight,
)


@dataclass(frozen=True)
class DiracMethod:
    """One training method on the Dirac-GAN.

    Attributes:
        name: what to call it.
        field: maps states (θ, ψ), shape ``(..., 2)``, to velocities, same shape.
        jacobian: of `field` at the equilibrium, rows (θ̇, ψ̇); None where it does not exist.
        clip: bound on the size of ψ after each step, or None.
    """

    name: str
    field: Callable[[Tensor], Tensor]
    jacobian: tuple[tuple[float, float], tuple[float, float]] | None
    clip: float | None = None


def minimax(gamma: float = 0.0) -> DiracMethod:
    r"""The minimax game, with a gradient penalty on data (GAN-DP, R1) of weight γ if it is not 0.

    .. math:: \dot\theta = \sigma(\psi\theta)\,\psi,\qquad
              \dot\psi = -\sigma(\psi\theta)\,\theta - \gamma\psi

    Args:
        gamma: γ ≥ 0, with the convention γ/2 of ``eq-r1``.

    Returns:
        The method; its eigenvalues are those of ``eq-dirac-eigenvalues``.
    """
    gamma = require_weight(gamma, "gamma (γ)")

    def field(state: Tensor) -> Tensor:
        theta, psi = state.unbind(-1)
        slope = torch.sigmoid(psi * theta)
        return torch.stack([slope * psi, -slope * theta - gamma * psi], -1)

    name = f"GAN-DP, γ = {gamma:g}" if gamma else "minimax GAN"
    return DiracMethod(name, field, ((0.0, 0.5), (-0.5, -gamma)))


def non_saturating(gamma: float = 0.0) -> DiracMethod:
    r"""The non-saturating game, with a gradient penalty on data of weight γ if it is not 0.

    .. math:: \dot\theta = \sigma(-\psi\theta)\,\psi,\qquad
              \dot\psi = -\sigma(\psi\theta)\,\theta - \gamma\psi

    It has the linearization of the minimax game.

    Args:
        gamma: γ ≥ 0, with the convention γ/2 of ``eq-r1``.
    """
    gamma = require_weight(gamma, "gamma (γ)")

    def field(state: Tensor) -> Tensor:
        theta, psi = state.unbind(-1)
        t = psi * theta
        return torch.stack([torch.sigmoid(-t) * psi, -torch.sigmoid(t) * theta - gamma * psi], -1)

    name = f"non-saturating GAN-DP, γ = {gamma:g}" if gamma else "non-saturating GAN"
    return DiracMethod(name, field, ((0.0, 0.5), (-0.5, -gamma)))


def roth(gamma: float) -> DiracMethod:
    r"""The minimax game with Roth's weighted penalty, ``eq-roth``.

    On this game it is :math:`\frac\gamma2\psi^2(\frac14 + \sigma(\psi\theta)^2)`: at the equilibrium
    :math:`\frac\gamma4\psi^2`, half of what `minimax` with the same γ adds.

    Args:
        gamma: γ ≥ 0.
    """
    gamma = require_weight(gamma, "gamma (γ)")

    def field(state: Tensor) -> Tensor:
        theta, psi = state.unbind(-1)
        s = torch.sigmoid(psi * theta)
        # The discriminator differentiates the weight D² too, by ψ.
        penalty = psi * (0.25 + s**2) + psi**2 * s * s * (1 - s) * theta
        return torch.stack([s * psi, -s * theta - gamma * penalty], -1)

    return DiracMethod(f"Roth, γ = {gamma:g}", field, ((0.0, 0.5), (-0.5, -gamma / 2)))


def wasserstein(clip: float | None = None) -> DiracMethod:
    r"""The Wasserstein game: θ̇ = ψ, ψ̇ = −θ, with ψ clipped to [−c, c] after each step.

    Args:
        clip: the bound c > 0; None for no clipping.

    Raises:
        ValueError: c is not positive.
    """
    if clip is not None:
        expected = "a positive bound, or None for no clipping,"
        clip = require_real(clip, "clip", expected, above=0)

    def field(state: Tensor) -> Tensor:
        theta, psi = state.unbind(-1)
        return torch.stack([psi, -theta], -1)

    name = "WGAN" if clip is None else f"WGAN, clipped at {clip:g}"
    # Inside the box, clipping changes nothing: the linearization is that without it.
    return DiracMethod(name, field, ((0.0, 1.0), (-1.0, 0.0)), clip)


def wasserstein_gp(weight: float) -> DiracMethod:
    r"""WGAN-GP: θ̇ = ψ and :math:`\dot\psi = -\theta - 2\lambda(|\psi| - 1)\,\mathrm{sign}\,\psi`.

    The gradient of a(x) = ψx is ψ at every point, interpolates included. The penalty pushes
    its size to 1 although the equilibrium needs ψ = 0, where the field jumps: it has no Jacobian there, and
    training does not end at the equilibrium: for 0 < λ < 1 it ends on a cycle around it, and for λ ≥ 1
    and small steps at θ = ±2λ, ψ = 0.

    Args:
        weight: λ ≥ 0, as in ``eq-wgan-gp``.
    """
    weight = require_weight(weight, "weight (λ)")

    def field(state: Tensor) -> Tensor:
        theta, psi = state.unbind(-1)
        return torch.stack([psi, -theta - 2 * weight * (psi.abs() - 1) * psi.sign()], -1)

    return DiracMethod(f"WGAN-GP, λ = {weight:g}", field, None)


def update_eigenvalues(
    method: DiracMethod, step_size: float, *, alternating: bool = False
) -> Tensor | None:
    r"""Eigenvalues of the Jacobian of one update at the equilibrium.

    Simultaneous: those of I + hJ, which are 1 + hλ for the eigenvalues λ of J, equation
    ``eq-dirac-eigenvalues``. Alternating, discriminator first: those of the product of the two
    players' own updates.

    Args:
        method: the method.
        step_size: h > 0.
        alternating: whether the generator sees the discriminator's new number.

    Returns:
        Two complex numbers; None if the field has no Jacobian at the equilibrium.
    """
    require_kind(method, DiracMethod, "method")
    step_size = require_real(step_size, "step_size", "a positive number", above=0)
    if method.jacobian is None:
        return None
    jacobian = torch.tensor(method.jacobian, dtype=torch.float64)
    eye = torch.eye(2, dtype=torch.float64)
    if not alternating:
        return torch.linalg.eigvals(eye + step_size * jacobian)
    generator, discriminator = eye.clone(), eye.clone()
    generator[0] += step_size * jacobian[0]
    discriminator[1] += step_size * jacobian[1]
    return torch.linalg.eigvals(generator @ discriminator)


def predicted_radius(
    method: DiracMethod, start: float, steps: int, step_size: float, *, alternating: bool = False
) -> float | None:
    """Distance from the equilibrium that the largest eigenvalue predicts, start · modulusⁿ.

    It describes the linearized update, so it holds near the equilibrium and up to a factor: a
    constant one, or for a double eigenvalue one that grows with n. It
    is exact if the update's Jacobian is a multiple of a rotation.

    Args:
        method: the method.
        start: the distance at the start.
        steps: number n of updates.
        step_size: h.
        alternating: whether updates alternate.

    Returns:
        The distance; None if the method has no linearization at the equilibrium.
    """
    start = require_real(start, "start", "a distance, a number ≥ 0,", at_least=0)
    steps = require_count(steps, "steps")
    eigenvalues = update_eigenvalues(method, step_size, alternating=alternating)
    if eigenvalues is None:
        return None
    return start * math.exp(steps * math.log(eigenvalues.abs().max().item()))


def trajectory(
    method: DiracMethod,
    start: tuple[float, float],
    steps: int,
    step_size: float,
    *,
    alternating: bool = False,
) -> Tensor:
    """Follow a method from a start.

    Args:
        method: the method.
        start: (θ, ψ) at the start.
        steps: number of updates.
        step_size: h > 0, the same for both players.
        alternating: update ψ first, then θ with the new ψ; otherwise both at once.

    Returns:
        The states, shape ``(steps + 1, 2)``, float64.
    """
    require_kind(method, DiracMethod, "method")
    step_size = require_real(step_size, "step_size", "a positive number", above=0)
    steps = require_count(steps, "steps")
    expected = "a point (θ, ψ), two numbers,"
    if isinstance(start, str) or not isinstance(start, Sequence) or len(start) != 2:
        raise TypeError(f"start is {start!r}; {expected} is expected.")
    start = [require_real(value, "an entry of start", expected) for value in start]
    state = torch.tensor(start, dtype=torch.float64)
    states = [state]
    for _ in range(steps):
        velocity = method.field(state)
        new = state + step_size * velocity
        if method.clip is not None:
            new[1] = new[1].clamp(-method.clip, method.clip)
        if alternating:
            between = torch.stack([state[0], new[1]])
            new = torch.stack([state[0] + step_size * method.field(between)[0], new[1]])
        state = new
        states.append(state)
    return torch.stack(states)
