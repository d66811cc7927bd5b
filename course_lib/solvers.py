r"""Solvers of ordinary differential equations, and of the divergence along their solutions.

A velocity is a function of an example and a time, ``velocity(x, t)``, with x of shape ``(N, *event_shape)``
and t of shape ``()``, in the type of the grid of times: write ``t.to(x)`` before the two are joined. Along
:math:`\dot x = v(x, t)` a density changes by :math:`\mathrm d\log p/\mathrm dt = -\operatorname{div} v`
(``eq-ode-likelihood``), so `integrate_with_divergence` returns what a log-density needs beside the end point.

Times may run either way: from 1 to 0 a solver makes negative steps, and nothing else changes.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from course_lib.inputs import (
    require_exact_shape,
    require_generator,
    require_positive_integer,
    require_real,
    require_tensor,
)
from course_lib.schedules import require_single, require_single_type, require_times

Velocity = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Method:
    """An explicit Runge–Kutta method, by its table.

    Attributes:
        nodes: at which shares of a step the velocity is looked at.
        stages: how each of these points is made of the velocities before it.
        weights: how the step is made of all velocities.
        order: halving the step divides the error by 2 to this power.
    """

    nodes: tuple[float, ...]
    stages: tuple[tuple[float, ...], ...]
    weights: tuple[float, ...]
    order: int

    @property
    def evaluations(self) -> int:
        """How often the velocity is computed in each step."""
        return len(self.weights)


METHODS: dict[str, Method] = {
    "euler": Method((0,), ((),), (1,), 1),
    "midpoint": Method((0, 1 / 2), ((), (1 / 2,)), (0, 1), 2),
    "heun": Method((0, 1), ((), (1,)), (1 / 2, 1 / 2), 2),
    "rk4": Method(
        (0, 1 / 2, 1 / 2, 1),
        ((), (1 / 2,), (0, 1 / 2), (0, 0, 1)),
        (1 / 6, 1 / 3, 1 / 3, 1 / 6),
        4,
    ),
}


def find_method(name: str) -> Method:
    """The method of that name.

    Raises:
        ValueError: there is none; the message lists those that there are.
    """
    if not isinstance(name, str) or name not in METHODS:
        raise ValueError(
            f"the method is {name!r}; one of {', '.join(map(repr, METHODS))} is expected."
        )
    return METHODS[name]


def time_grid(
    steps: int,
    start: float = 1.0,
    end: float = 0.0,
    *,
    dtype: torch.dtype = torch.float64,
    device: torch.device | str | None = None,
) -> Tensor:
    """Equally spaced times from `start` to `end`, both included, shape ``(steps + 1,)``.

    Args:
        steps: number of steps, at least 1.
        start: first time, in [0, 1].
        end: last time, in [0, 1].
        dtype: float32 or float64; by default the latter, so that sums of many small steps lose nothing.
        device: of the result.

    Raises:
        ValueError: `steps` is below 1, or a time is outside [0, 1].
    """
    steps = require_positive_integer(steps, "steps")
    require_single_type(dtype)
    start, end = (
        require_real(time, name, "a time, a number in [0, 1],", at_least=0, at_most=1)
        for time, name in ((start, "start"), (end, "end"))
    )
    return torch.linspace(start, end, steps + 1, dtype=dtype, device=device)


def require_grid(times: Tensor) -> Tensor:
    """Require two times or more in [0, 1] that rise strictly, or fall strictly.

    Raises:
        TypeError: `times` is not a tensor of float32 or float64.
        ValueError: they are too few, outside [0, 1], or turn round.
    """
    require_tensor(times, "times")
    require_times(times, "times")
    steps = times.diff() if times.dim() == 1 else times.new_empty(0)
    if len(steps) == 0 or not ((steps > 0).all() or (steps < 0).all()):
        raise ValueError(
            f"times has shape {tuple(times.shape)} and does not run one way; at least two times, shape "
            f"(steps + 1,), that rise strictly or fall strictly are expected, as from time_grid(steps)."
        )
    return times


def integrate(velocity: Velocity, x: Tensor, times: Tensor, method: str = "heun") -> Tensor:
    """Follow a velocity from the first time to the last.

    Args:
        velocity: called as ``velocity(x, t)``, t of shape ``()``; returns the shape of x.
        x: where to start, shape ``(N, *event_shape)``.
        times: strictly rising or falling, shape ``(steps + 1,)``.
        method: ``"euler"``, ``"midpoint"``, ``"heun"`` or ``"rk4"``.

    Returns:
        Where the solutions are at the last time, in the shape of x.

    Raises:
        ValueError: there is no such method, the times do not run one way, or the velocity has another shape
            than x.
    """
    return _solve(lambda state, t: (_velocity_at(velocity, state[0], t),), (x,), times, method)[0]


def integrate_with_divergence(
    velocity: Velocity,
    x: Tensor,
    times: Tensor,
    method: str = "heun",
    probes: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Follow a velocity, and integrate its divergence along the way.

    With probes the divergence is Hutchinson's estimate, ``eq-probe-moments``. The same probes serve every
    evaluation of one solve, so that what is integrated is a smooth function of time. With probes drawn anew
    at every evaluation it is not: a method would lose its order, and could not tell its error from noise.

    Args:
        velocity: as in `integrate`, differentiable in x.
        x: where to start, shape ``(N, *event_shape)``.
        times: strictly rising or falling, shape ``(steps + 1,)``.
        method: as in `integrate`.
        probes: from `draw_probes`, shape ``(P, N, *event_shape)``; the exact divergence if None.

    Returns:
        Where the solutions are at the last time, and ∫ div v dt, shape ``(N,)``. Neither has a gradient.

    Raises:
        RuntimeError: it is called under ``torch.inference_mode()``, where nothing can be differentiated.
        ValueError: as `integrate`, or the velocity depends on x and cannot be differentiated.
    """

    def rates(state: tuple[Tensor, ...], t: Tensor) -> tuple[Tensor, ...]:
        if probes is None:
            return exact_divergence(velocity, state[0], t)
        return probed_divergence(velocity, state[0], t, probes)

    end, integral = _solve(rates, (x, x.new_zeros(len(x))), times, method)
    return end, integral


def _solve(
    rates: Callable[[tuple[Tensor, ...], Tensor], tuple[Tensor, ...]],
    state: tuple[Tensor, ...],
    times: Tensor,
    method: str,
) -> tuple[Tensor, ...]:
    """Runge–Kutta steps of a state of several tensors."""
    require_single(state[0], "x")
    table, times = find_method(method), require_grid(times)
    for start, step in zip(times[:-1], times.diff(), strict=True):
        slopes: list[tuple[Tensor, ...]] = []
        for node, stage in zip(table.nodes, table.stages, strict=True):
            # A sum of rounded steps may pass the end by a rounding error.
            t = (start + node * step).clamp(0, 1)
            slopes.append(rates(_moved(state, slopes, stage, step), t))
        state = _moved(state, slopes, table.weights, step)
    return state


def _moved(
    state: tuple[Tensor, ...],
    slopes: Sequence[tuple[Tensor, ...]],
    weights: Sequence[float],
    step: Tensor,
) -> tuple[Tensor, ...]:
    for slope, weight in zip(slopes, weights, strict=True):
        if weight:
            state = tuple(
                value + (weight * step).to(value) * rate
                for value, rate in zip(state, slope, strict=True)
            )
    return state


def _velocity_at(velocity: Velocity, x: Tensor, t: Tensor) -> Tensor:
    return require_exact_shape(velocity(x, t), x.shape, "the velocity")


# --- divergence -----------------------------------------------------------------------------------


def _differentiable(
    velocity: Velocity, x: Tensor, t: Tensor
) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
    """The velocity, and the function that differentiates a number made of it with respect to x."""
    require_single(x, "x")
    if torch.is_inference_mode_enabled():
        raise RuntimeError(
            "the divergence differentiates the velocity, which torch.inference_mode() rules out; call under "
            "torch.no_grad(), or no such context: the result has no gradient anyway."
        )
    x = x.detach().requires_grad_()
    v = _velocity_at(velocity, x, t)

    def gradient(number: Tensor) -> Tensor:
        found = None
        if number.requires_grad:
            (found,) = torch.autograd.grad(number, x, retain_graph=True, allow_unused=True)
        if found is None:
            _require_constant(velocity, x.detach(), t, v)
            found = torch.zeros_like(x)
        return found

    return v, gradient


def _require_constant(velocity: Velocity, x: Tensor, t: Tensor, v: Tensor) -> None:
    """Require a velocity that differentiation says does not depend on x to be the same elsewhere."""
    if not torch.equal(velocity(1.3 * x + 0.7, t), v):
        raise ValueError(
            "the velocity depends on x and has no gradient with respect to it; one that can be "
            "differentiated is expected. Leave out torch.no_grad() and .detach() in it."
        )


def exact_divergence(velocity: Velocity, x: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
    """The velocity and its divergence: the trace of the Jacobian, by one backward pass for each entry.

    Each example's velocity must depend on that example alone.

    Args:
        velocity: as in `integrate`.
        x: shape ``(N, *event_shape)``, images as well as vectors.
        t: time, shape ``()``.

    Returns:
        v, in the shape of x, and div v, shape ``(N,)``; without gradients.
    """
    with torch.enable_grad():
        v, gradient = _differentiable(velocity, x, t)
        flat = v.flatten(1)
        # Examples do not mix, so the gradient of the batch's sum holds every example's own.
        trace = sum(gradient(flat[:, i].sum()).flatten(1)[:, i] for i in range(flat.shape[1]))
    return v.detach(), trace


def draw_probes(
    x: Tensor,
    n_probes: int = 1,
    kind: str = "rademacher",
    *,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Random vectors z with E[z zᵀ] = I, for `probed_divergence`.

    Signs have the smaller variance: for a symmetric Jacobian A it is 2 Σ_{i≠j} a_ij² against the 2 ‖A‖² of
    normal numbers (``eq-probe-moments``).

    Args:
        x: whose shape, type and device they have, ``(N, *event_shape)``.
        n_probes: P, probes for each example.
        kind: ``"rademacher"`` for signs, or ``"gaussian"``.
        generator: source of the noise; the global one if none is given.

    Returns:
        Shape ``(P, N, *event_shape)``.

    Raises:
        ValueError: `n_probes` is below 1, or there is no such kind.
    """
    shape = (require_positive_integer(n_probes, "n_probes"), *x.shape)
    require_generator(generator, x.device)
    options = {"generator": generator, "device": x.device}
    if kind == "gaussian":
        return torch.randn(shape, dtype=x.dtype, **options)
    if kind != "rademacher":
        raise ValueError(f"kind is {kind!r}; 'rademacher' or 'gaussian' is expected.")
    return (2 * torch.randint(2, shape, **options) - 1).to(x.dtype)


def probed_divergence(
    velocity: Velocity, x: Tensor, t: Tensor, probes: Tensor
) -> tuple[Tensor, Tensor]:
    """The velocity and Hutchinson's estimate of its divergence: the mean of zᵀ J z over the probes.

    Args:
        velocity: as in `integrate`.
        x: shape ``(N, *event_shape)``.
        t: time, shape ``()``.
        probes: shape ``(P, N, *event_shape)``.

    Returns:
        v, in the shape of x, and the estimate, shape ``(N,)``; without gradients.
    """
    if probes.shape[1:] != x.shape:
        raise ValueError(
            f"probes has shape {tuple(probes.shape)} and x {tuple(x.shape)}; (P, *x.shape) is expected, "
            f"as from draw_probes(x, P)."
        )
    with torch.enable_grad():
        v, gradient = _differentiable(velocity, x, t)
        products = [(gradient((v * z).sum()) * z).flatten(1).sum(1) for z in probes]
    return v.detach(), torch.stack(products).mean(0)


def flow_log_prob(
    velocity: Velocity,
    x: Tensor,
    times: Tensor,
    log_prior: Callable[[Tensor], Tensor],
    method: str = "heun",
    probes: Tensor | None = None,
) -> Tensor:
    r"""Log-density of data by the flow that carries them to noise, equation ``eq-ode-likelihood``.

    .. math:: \log p_0(x_0) = \log p_1(x_1) + \int_0^1 \operatorname{div} v(x_t, t)\,\mathrm dt

    It is exact for the map that the exact solution is. A solver's map is another one: with too few steps the
    number is off in either direction, so double the steps to see the error. Of grey levels it is the
    density of dequantized ones.

    Args:
        velocity: as in `integrate`, differentiable in x.
        x: data, shape ``(N, *event_shape)``.
        times: rising, from data to noise, shape ``(steps + 1,)``.
        log_prior: log-density at the last time, from ``(N, *event_shape)`` to ``(N,)``.
        method: as in `integrate`.
        probes: from `draw_probes`; the exact divergence if None.

    Returns:
        Nats, shape ``(N,)``, without gradients.

    Raises:
        ValueError: the times fall, or `log_prior` returns another shape than ``(N,)``.
    """
    if require_grid(times)[0] > times[-1]:
        raise ValueError(
            "times fall; rising ones, from data to noise, are expected. Reverse them with times.flip(0)."
        )
    end, integral = integrate_with_divergence(velocity, x, times, method, probes)
    return require_exact_shape(log_prior(end), integral.shape, "log_prior(x)") + integral
