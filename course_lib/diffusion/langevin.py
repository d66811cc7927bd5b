"""Langevin dynamics: to sample a density by its score alone, with an error that the step sets."""

from collections.abc import Callable

import torch
from torch import Tensor

from course_lib.inputs import (
    require_exact_shape,
    require_function,
    require_generator,
    require_positive_integer,
    require_real,
)
from course_lib.schedules import require_alike


def langevin(
    score: Callable[[Tensor], Tensor],
    x: Tensor,
    step: float,
    n_steps: int,
    *,
    generator: torch.Generator | None = None,
) -> Tensor:
    r"""Iterate :math:`x \leftarrow x + h\,s(x) + \sqrt{2h}\,\xi` with standard normal ξ.

    For h → 0 its stationary distribution is the one whose score is s; for a finite h it is not
    (``eq-langevin-bias``), because no proposal is rejected.

    Args:
        score: ∇ log p, from and to shape ``(N, *event_shape)``.
        x: where to start, shape ``(N, *event_shape)``.
        step: h, positive; on N(0, 1) the iteration diverges from h = 2 on, and sooner on what is narrower.
        n_steps: how many steps.
        generator: source of the noise; the global one if none is given.

    Returns:
        In the shape of `x`.

    Raises:
        ValueError: `step` is not positive, `n_steps` below 1, or the score has another shape than `x`.
    """
    step = require_real(step, "step", "a positive number", above=0)
    require_function(score, "score")
    require_alike(x=x)
    require_generator(generator, x.device)
    for _ in range(require_positive_integer(n_steps, "n_steps")):
        noise = torch.empty_like(x).normal_(generator=generator)
        slope = require_exact_shape(score(x), x.shape, "the score")
        x = x + step * slope + (2 * step) ** 0.5 * noise
    return x


def langevin_variance(step: float) -> float:
    """The stationary variance of Langevin dynamics on N(0, 1): 1/(1 − h/2), ``eq-langevin-bias``.

    Args:
        step: h, in (0, 2); from 2 on the iteration diverges.
    """
    step = require_real(step, "step", "a number in (0, 2)", above=0, below=2)
    return 1 / (1 - step / 2)
