"""PixelCNN's sampler: each feature of each pixel once."""

import torch.nn.functional as F
from torch import Tensor

from course_lib.autoregressive.base import Steps
from course_lib.autoregressive.fast.raster import (
    PixelSampler,
    PixelwiseConv,
    PixelwiseHead,
    in_raster_order,
)
from course_lib.autoregressive.pixelcnn import PixelCNN
from course_lib.fast import register


class _Sampler(PixelSampler):
    def __init__(self, model: PixelCNN, n: int, labels: Tensor | None) -> None:
        _, height, width = model.event_shape
        self.first, *self.layers = (
            PixelwiseConv(layer, n, height, width) for layer in (model.first, *model.layers)
        )
        self.head = PixelwiseHead(model.head)

    def begin_row(self, row: int) -> None:
        for layer in (self.first, *self.layers):
            layer.begin_row(row)

    def pixel(self, column: int) -> Tensor:
        h = self.first.pixel(column)  # (n, channels)
        for layer in self.layers:
            layer.put(column, F.relu(h))
            h = h + layer.pixel(column)
        return self.head(h)

    def put(self, column: int, colour: int, value: Tensor) -> None:
        self.first.slots[column][:, colour] = value


@register(PixelCNN.forward)
def steps(model: PixelCNN, n: int, labels: Tensor | None) -> Steps:
    """Each feature of each pixel once."""
    return in_raster_order(_Sampler, model, n, labels)
