"""Guidance: to follow a class more strongly than its own distribution would."""

import torch
from torch import Tensor

from course_lib.inputs import require_broadcast, require_real


def guided(conditional: Tensor, unconditional: Tensor, w: float) -> Tensor:
    """(1 + w) s_c − w s_u, equation ``eq-guidance``.

    For scores it is the score of p(z) p(c|z)^{1+w} at each noise level; for anything affine in the score
    (noise, clean example, velocity) it is the same in other terms. w = 0 is the conditional model. Other
    sources give the scale s = 1 + w. Source: Ho and Salimans (2022), "Classifier-free diffusion guidance".

    The densities p_t(z) p_t(c|z)^{1+w} at different times are not the noised versions of one another, so
    what an ODE or a chain of steps samples with a guided score is none of them at time 0.

    Args:
        conditional: prediction with the class.
        unconditional: prediction without it, in a shape that broadcasts to that of `conditional`.
        w: weight, at least 0.

    Raises:
        ValueError: `w` is negative, or a shape does not fit.
    """
    require_broadcast(conditional=conditional, unconditional=unconditional)
    if torch.broadcast_shapes(conditional.shape, unconditional.shape) != conditional.shape:
        raise ValueError(
            f"conditional has shape {tuple(conditional.shape)} and unconditional "
            f"{tuple(unconditional.shape)}; one that broadcasts to the former is expected of the latter."
        )
    w = require_guidance(w)
    return (1 + w) * conditional - w * unconditional


def require_guidance(w: float) -> float:
    """Require a weight of at least 0, and return it as Python's own.

    Raises:
        ValueError: it is negative, or not a number.
    """
    expected = "a weight of at least 0, where 0 is no guidance (a scale s is w + 1),"
    return require_real(w, "guidance", expected, at_least=0)
