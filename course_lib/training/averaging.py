"""The moving average of the weights, and the weights that are evaluated."""

import contextlib
import copy
import itertools
from collections.abc import Iterator

import torch
from torch import Tensor, nn


class WeightAverage:
    """Exponential moving average of a model's weights and buffers.

    Args:
        model: whose weights are averaged.
        decay: of the average.
        half: the weights have 16 bits. Their average is kept in float32: a thousandth of a
            difference would be lost in rounding, and the average never move.

    Attributes:
        module: a copy of the model, with the averaged weights.
    """

    def __init__(self, model: nn.Module, decay: float, *, half: bool = False) -> None:
        self.model, self.decay = model, decay
        self.module = copy.deepcopy(model).requires_grad_(False)
        if half:
            self.module.float()

    @torch.no_grad()
    def update(self, *, first: bool) -> None:
        """Take the weights after one more step into the average; the `first` ones are the average."""
        averaged, current = [], []
        for (name, old), (_, new) in zip(_named(self.module), _named(self.model), strict=True):
            if first or not old.is_floating_point() or _is_direction(name):
                old.copy_(new)  # indices and masks have no mean
            else:
                averaged.append(old)
                current.append(new.to(old.dtype))
        if averaged:
            torch._foreach_lerp_(averaged, current, 1 - self.decay)


def _named(module: nn.Module) -> Iterator[tuple[str, Tensor]]:
    return itertools.chain(module.named_parameters(), module.named_buffers())


def _is_direction(name: str) -> bool:
    """Whether it is one of spectral normalization: they have length one, and a mean of them is shorter."""
    return ".parametrizations." in f".{name}" and name.endswith(("._u", "._v"))


@contextlib.contextmanager
def evaluated_weights(model: nn.Module, average: WeightAverage | None) -> Iterator[None]:
    """While entered: the model holds its averaged weights, in evaluation mode, without gradients."""
    model.eval()
    if average is None:
        with torch.no_grad():
            yield
        return
    kept = copy.deepcopy(model.state_dict())
    model.load_state_dict(average.module.state_dict())
    try:
        with torch.no_grad():
            yield
    finally:
        model.load_state_dict(kept)
