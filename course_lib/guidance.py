"""Classifier-free guidance: to follow a class more strongly than its own distribution would.

One network learns what holds with a class and what holds without one, since some classes are left out in
training (`leave_out`); `guided` combines both when it is asked for a sample.
"""

import torch
from torch import Tensor

from course_lib.inputs import require_broadcast, require_labels, require_real


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


def leave_out(
    labels: Tensor | None,
    probability: float,
    n_classes: int | None,
    generator: torch.Generator | None = None,
) -> Tensor | None:
    """Labels of which each is replaced by `n_classes`, "no class", with a probability.

    Args:
        labels: classes, shape ``(N,)``; None without classes, which stays as it is.
        probability: of leaving out a class; nothing is drawn if it is 0.
        n_classes: number of classes; None without classes.
        generator: source of the choice; the global one if none is given.

    Returns:
        In the shape of `labels`.
    """
    if labels is None or probability == 0:
        return labels
    chance = torch.rand(len(labels), device=labels.device, generator=generator)
    return torch.where(chance < probability, n_classes, labels)


def require_unlabelled(probability: float) -> float:
    """Require a probability of leaving out a class, and return it as Python's own."""
    expected = "a probability in [0, 1]"
    return require_real(probability, "unlabelled", expected, at_least=0, at_most=1)


def require_classes(labels: Tensor | None, n: int, n_classes: int | None) -> Tensor | None:
    """Require classes of n examples, or none at all; of a model without classes, none."""
    if labels is None and n_classes is not None:
        return None
    return require_labels(labels, n, n_classes)


def require_weight(guidance: float, labels: Tensor | None, n_classes: int | None) -> float:
    """Require a weight of guidance, and classes to guide to where it is not 0."""
    w = require_guidance(guidance)
    if w > 0 and labels is None:
        advice = (
            "the model has no classes; one that was trained with n_classes is expected. Leave it out."
            if n_classes is None
            else "no labels were given; labels of the classes to guide to are expected, or guidance=0."
        )
        raise ValueError(f"guidance is {w:.4g} and {advice}")
    return w


def require_guidance(w: float) -> float:
    """Require a weight of at least 0, and return it as Python's own.

    Raises:
        ValueError: it is negative, or not a number.
    """
    expected = "a weight of at least 0, where 0 is no guidance (a scale s is w + 1),"
    return require_real(w, "guidance", expected, at_least=0)
