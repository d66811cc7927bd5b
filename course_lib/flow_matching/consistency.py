"""Consistency functions: from anywhere on a trajectory to its end at the data, in one evaluation."""

import torch
from torch import Tensor

from course_lib.flow_matching.velocity_flow import VelocityFlow
from course_lib.inputs import require_batch, require_kind, require_real
from course_lib.networks import evaluation_mode
from course_lib.precision import at_least_float32
from course_lib.schedules import require_single
from course_lib.solvers import integrate, time_grid


@torch.no_grad()
def consistency_function(
    model: VelocityFlow, x: Tensor, t: float, *, steps: int = 40, method: str = "midpoint"
) -> Tensor:
    """f(x, t): where the trajectory through x at time t ends at time 0, by solving the ODE.

    All points of one trajectory have the same value, and f(x, 0) = x. A consistency model is a network that
    is trained to give it at once; Song, Dhariwal, Chen and Sutskever (2023), "Consistency models".

    Args:
        model: a flow.
        x: examples at time t, shape ``(N, *event_shape)``.
        t: a time in [0, 1].
        steps: of the solver.
        method: of the solver.

    Returns:
        Continuous data, in the shape of `x`, at least float32.
    """
    require_kind(model, VelocityFlow, "model")
    require_batch(x, model.event_shape)
    start = require_real(t, "t", "a time, a number in [0, 1],", at_least=0, at_most=1)
    x = at_least_float32(x)
    if start == 0:
        return x
    times = time_grid(steps, start, 0.0, dtype=model.times(1).dtype, device=x.device)
    with evaluation_mode(model):
        return integrate(model.velocity(), x, times, method)


def consistency_weights(
    sigma: Tensor, least: float, deviation: float = 0.5
) -> tuple[Tensor, Tensor]:
    r"""The weights of x and of the network in a consistency model, ``eq-consistency-boundary``.

    .. math:: f(x, \sigma) = \frac{s^2}{(\sigma-\epsilon)^2 + s^2}\,x
              + \frac{s(\sigma-\epsilon)}{\sqrt{\sigma^2 + s^2}}\,F(x, \sigma)

    In EDM's coordinates x + σε. At the least level ε the network has the weight 0 and x the weight 1,
    whatever the network is; with σ for σ − ε it would not be so.

    Args:
        sigma: noise levels, at least `least`, any shape.
        least: ε > 0, the level at which f(x, ε) = x.
        deviation: s, standard deviation of the data.

    Returns:
        Both weights, in the shape of `sigma`.

    Raises:
        ValueError: a level is below the least one.
    """
    require_single(sigma, "sigma")
    least = require_real(least, "least", "a positive noise level", above=0)
    deviation = require_real(deviation, "deviation", "a positive number", above=0)
    if not (sigma >= least).all():
        raise ValueError(f"sigma has a value below least, {least:.4g}; none is expected there.")
    apart = sigma - least
    of_x = 1 / ((apart / deviation) ** 2 + 1)
    return of_x, apart / ((sigma / deviation) ** 2 + 1).sqrt()
