"""Networks, and the mode they are in, that several families share."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise

from torch import nn

from course_lib.inputs import require_dropout, require_positive_integer, require_widths


def mlp(
    in_features: int,
    hidden: Sequence[int],
    out_features: int,
    *,
    activation: type[nn.Module] = nn.ReLU,
    dropout: float = 0.0,
) -> nn.Sequential:
    """A multilayer perceptron: affine maps with `activation` between them, none at the end.

    Args:
        in_features: number of inputs.
        hidden: width of each hidden layer; empty for a single affine map.
        out_features: number of outputs.
        activation: class of the non-linearity.
        dropout: probability of dropping a hidden unit while training.

    Returns:
        A module from ``(..., in_features)`` to ``(..., out_features)``.

    Raises:
        TypeError: `hidden` is not a sequence of integers.
        ValueError: a width is below 1, or `dropout` is not in [0, 1].
    """
    in_features = require_positive_integer(in_features, "in_features")
    out_features = require_positive_integer(out_features, "out_features")
    dropout = require_dropout(dropout)
    widths = [in_features, *require_widths(hidden)]
    layers: list[nn.Module] = []
    for width_in, width_out in pairwise(widths):
        # What an affine map returns is needed by nobody else: a rectifier may overwrite it.
        function = nn.ReLU(inplace=True) if activation is nn.ReLU else activation()
        layers += [nn.Linear(width_in, width_out), function]
        if dropout:
            layers.append(nn.Dropout(dropout))
    return nn.Sequential(*layers, nn.Linear(widths[-1], out_features))


@contextmanager
def evaluation_mode(model: nn.Module) -> Iterator[None]:
    """Put a module into evaluation mode for a block, also if the block raises.

    Every part of it returns to its own mode: a part that was frozen by ``eval`` stays so.

    Args:
        model: the module; nothing is dropped, and no running statistics change, within the block.
    """
    # Only what is in training is touched: a small model's sample would feel a walk through all parts.
    in_training = [module for module in model.modules() if module.training]
    for module in in_training:
        module.training = False
    try:
        yield
    finally:
        for module in in_training:
            module.training = True
