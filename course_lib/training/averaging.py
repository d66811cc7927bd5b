"""The moving average of the weights, and the weights that are evaluated."""

import copy
from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn


class WeightAverage(AveragedModel):
    """Exponential moving average of a model's weights and buffers.

    Args:
        model: whose weights are averaged.
        decay: of the average.
        half: the weights have 16 bits. Their average is kept in float32: a thousandth of a
            difference would be lost in rounding, and the average never move.
    """

    def __init__(self, model: nn.Module, decay: float, *, half: bool = False) -> None:
        super().__init__(model, multi_avg_fn=_moving_average(decay), use_buffers=True)
        self.half = half
        if half:
            self.module.float()
        # What is copied and not averaged: found once, because every step needs it.
        self.copied = list(zip(_directions(self.module), _directions(model), strict=True))

    def update_parameters(self, model: nn.Module) -> None:
        """Take the weights after one more step into the average."""
        super().update_parameters(_InFloat32(model) if self.half else model)
        for averaged, current in self.copied:
            averaged.copy_(current)


class _InFloat32:
    """The weights and buffers of a model of 16 bits, for an average of 32."""

    def __init__(self, model: nn.Module) -> None:
        self.model = model

    def parameters(self) -> Iterator[Tensor]:
        return map(_widened, self.model.parameters())

    def buffers(self) -> Iterator[Tensor]:
        return map(_widened, self.model.buffers())


def _widened(tensor: Tensor) -> Tensor:
    return tensor.float() if tensor.is_floating_point() else tensor


class EvaluatedWeights:
    """While entered: the model holds its averaged weights, in evaluation mode, without gradients."""

    def __init__(self, model: nn.Module, average: WeightAverage | None) -> None:
        self.model, self.average = model, average
        self.no_grad = torch.no_grad()

    def __enter__(self) -> None:
        self.model.eval()
        if self.average is not None:
            self.kept = copy.deepcopy(self.model.state_dict())
            self.model.load_state_dict(self.average.module.state_dict())
        self.no_grad.__enter__()

    def __exit__(self, *error: object) -> None:
        self.no_grad.__exit__(*error)
        if self.average is not None:
            self.model.load_state_dict(self.kept)


def _moving_average(decay: float) -> Callable[[list[Tensor], list[Tensor], object], None]:
    """Average floating-point tensors; copy others, since a mean of indices or masks is none."""
    average = get_ema_multi_avg_fn(decay)

    def update(averaged: list[Tensor], current: list[Tensor], count: object) -> None:
        if averaged[0].is_floating_point():  # the lists hold tensors of one type
            average(averaged, current, count)
        else:
            torch._foreach_copy_(averaged, current)

    return update


def _directions(module: nn.Module) -> list[Tensor]:
    """Those of spectral normalization; they have length one, and a mean of them is shorter."""
    return [
        buffer
        for name, buffer in module.named_buffers()
        if ".parametrizations." in f".{name}" and name.endswith(("._u", "._v"))
    ]
