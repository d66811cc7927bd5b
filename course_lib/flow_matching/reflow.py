"""Reflow: a flow trained anew on its own pairs of noise and data, whose trajectories are straighter."""

import torch
from torch import Tensor

from course_lib.flow_matching.velocity_flow import VelocityFlow
from course_lib.inputs import require_kind, require_labels, require_positive_integer
from course_lib.schedules import require_alike


@torch.no_grad()
def reflow_pairs(
    model: VelocityFlow,
    n: int,
    *,
    steps: int = 20,
    method: str = "midpoint",
    labels: Tensor | None = None,
    batch_size: int = 1000,
    generator: torch.Generator | None = None,
) -> tuple[Tensor, ...]:
    """Noise and what the flow makes of it, for `FlowMatching` with ``given_noise=True``.

    Each example is stored with the very noise from which it came. That coupling has the marginals of the
    flow, and a flow trained on it costs no more transport, for any convex cost of x_0 − x_1, ``eq-reflow``.
    With new noise for the same examples it would be the independent coupling again, and nothing would be
    gained.
    Liu, Gong and Liu (2023), "Flow straight and fast".

    Args:
        model: a trained flow.
        n: number of pairs.
        steps: of the solver.
        method: of the solver.
        labels: class of each, int64, shape ``(n,)``, of a conditional model; None for none at all.
        batch_size: examples that are carried at once.
        generator: source of the noise; the global one if none is given.

    Returns:
        Continuous data and noise, each of shape ``(n, *event_shape)``, and the labels if there are any.
    """
    require_kind(model, VelocityFlow, "model")
    batch_size = require_positive_integer(batch_size, "batch_size")
    noise = model.prior(n, generator=generator)
    if labels is not None:
        labels = require_labels(labels, len(noise), model.n_classes)
    classes = [None] * -(-n // batch_size) if labels is None else labels.split(batch_size)
    made = [
        model.from_noise(part, own, steps=steps, method=method)
        for part, own in zip(noise.split(batch_size), classes, strict=True)
    ]
    return (torch.cat(made), noise) if labels is None else (torch.cat(made), noise, labels)


@torch.no_grad()
def transport_cost(x: Tensor, noise: Tensor) -> Tensor:
    """The mean squared distance of pairs, ``E‖x − ε‖²``, shape ``()``.

    Args:
        x: examples, shape ``(N, *event_shape)``.
        noise: what each is paired with, in the same shape.
    """
    require_alike(x=x, noise=noise)
    return (x - noise).square().flatten(1).sum(1).mean()
