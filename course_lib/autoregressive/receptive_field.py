"""Receptive fields, measured: which pixels move the prediction of another."""

from collections.abc import Sequence

import torch
from torch import Tensor

from course_lib.autoregressive.base import Autoregressive
from course_lib.inputs import require_integer, require_kind, require_positive_integer
from course_lib.networks import evaluation_mode


def receptive_field_map(
    model: Autoregressive, at: Sequence[int], *, n_points: int = 8, seed: int = 0
) -> Tensor:
    """Where the gradient of one dimension's parameters with respect to the input is not zero.

    The network is differentiated in front of its encoding, at random real inputs. One input might sit
    where a ReLU is off; several do not.

    Args:
        model: any unconditional autoregressive model.
        at: index of the dimension, for images ``(channel, row, column)``.
        n_points: number of random inputs.
        seed: draws them.

    Returns:
        Boolean, of the model's `event_shape`: True where the prediction depends on the input.

    Raises:
        ValueError: the model has no such dimension.
    """
    require_kind(model, Autoregressive, "model")
    n_points = require_positive_integer(n_points, "n_points")
    seed = require_integer(seed, "seed")
    if isinstance(at, str) or not isinstance(at, Sequence):
        raise TypeError(
            f"at is {at!r}; a sequence of integers is expected, the index of a dimension."
        )
    at = tuple(require_integer(index, "an entry of at") for index in at)
    sizes = model.event_shape
    if len(at) != len(sizes) or not all(0 <= i < size for i, size in zip(at, sizes, strict=True)):
        raise ValueError(
            f"at is {tuple(at)}; the index of one dimension of an example of shape {sizes} is "
            f"expected, each entry from 0."
        )
    generator = torch.Generator().manual_seed(seed)
    parameter = next(model.parameters())
    x = torch.randn(n_points, *model.event_shape, generator=generator).to(parameter)
    x.requires_grad_()
    model.encode = lambda x: x  # hides the method: the gradient starts at its output
    try:
        with evaluation_mode(model):
            parameters = model(x)[(slice(None), *at)]  # (n_points, P)
        direction = torch.randn(parameters.shape, generator=generator).to(parameter)
        (gradient,) = torch.autograd.grad((parameters * direction).sum(), x)
    finally:
        del model.encode
    return (gradient != 0).any(0)
