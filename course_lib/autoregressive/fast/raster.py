"""What the samplers of images share: raster order, and masked convolutions one pixel at a time."""

from abc import ABC, abstractmethod

import torch
import torch.nn.functional as F
from torch import Tensor

from course_lib.autoregressive.base import Steps
from course_lib.autoregressive.raster import Head, MaskedConv2d, RasterModel


class PixelSampler(ABC):
    """What a model keeps while it generates images pixel by pixel.

    Args:
        model: whose images are generated.
        n: number of images.
        labels: classes, shape ``(n,)``, or None.
    """

    @abstractmethod
    def __init__(self, model: RasterModel, n: int, labels: Tensor | None) -> None: ...

    @abstractmethod
    def begin_row(self, row: int) -> None:
        """Compute all that depends on the rows above only."""

    @abstractmethod
    def pixel(self, column: int) -> Tensor:
        """Parameters of a pixel of the current row, shape ``(n, C, P)``."""

    @abstractmethod
    def put(self, column: int, colour: int, value: Tensor) -> None:
        """Take in one colour of a pixel, encoded, shape ``(n,)``."""


def in_raster_order(
    kind: type[PixelSampler], model: RasterModel, n: int, labels: Tensor | None
) -> Steps:
    """Drive a sampler through the rows, columns and colours of `n` images.

    Args:
        kind: the class of the sampler.
        model: whose images are generated.
        n: number of images.
        labels: classes, shape ``(n,)``, or None.
    """
    sampler = kind(model, n, labels)
    colours, height, width = model.event_shape
    encoded = model.encode(torch.arange(model.levels, device=model.order.device))
    for row in range(height):
        sampler.begin_row(row)
        for column in range(width):
            for colour in range(colours):
                # For each further colour the pixel is computed again: its features of that
                # colour now see the one just drawn.
                parameters = sampler.pixel(column)[:, colour]
                value = yield (colour * height + row) * width + column, parameters
                sampler.put(column, colour, encoded.index_select(0, value))


class PixelwiseConv:
    """A `MaskedConv2d` evaluated one pixel at a time, each product computed once.

    What the rows above contribute is computed for a whole row at its beginning, as one
    convolution; what the left neighbours contribute, at each pixel, as one matrix product.

    Args:
        convolution: the layer.
        n: number of images.
        height: H.
        width: W.
    """

    def __init__(self, convolution: MaskedConv2d, n: int, height: int, width: int) -> None:
        weight, bias = convolution.masked_weight(), convolution.bias
        above, radius = convolution.rows_above, convolution.radius
        self.n, self.width, self.above, self.radius = n, width, above, radius
        self.weight_above, self.bias = weight[:, :, :above], bias
        # The last row of the kernel, up to its centre: (taps · in, out).
        self.taps = weight[:, :, above, : radius + 1].permute(2, 1, 0).flatten(0, 1).contiguous()
        # Without rows above, one row is enough: a window never reaches to the right, where the
        # row before has left its values.
        rows = above + height if above else 1
        self.inputs = weight.new_zeros(n, rows, width + 2 * radius, weight.shape[1])
        self.terms = [bias] * width
        self._take_row(above)

    def _take_row(self, row: int) -> None:
        """Prepare the views of a row of the inputs: calls on views are cheap, making them is not."""
        self.row = self.inputs[:, row]  # (n, W + 2·radius, in)
        self.slots = self.row[:, self.radius : self.radius + self.width].unbind(1)
        taps = self.radius + 1
        self.windows = [
            self.row[:, c : c + taps].view(len(self.inputs), -1) for c in range(self.width)
        ]

    def begin_row(self, row: int) -> None:
        """Compute what the rows above contribute to all pixels of `row`."""
        if self.above:
            self._take_row(self.above + row)
            rows = self.inputs[:, row : row + self.above].permute(0, 3, 1, 2)
            terms = F.conv2d(rows, self.weight_above, self.bias)  # (n, out, 1, W)
            self.terms = terms.squeeze(2).permute(2, 0, 1).contiguous().unbind(0)  # (n, out) each

    def put(self, column: int, value: Tensor) -> None:
        """Write the input at a pixel of the current row, shape ``(n, in)``."""
        self.slots[column].copy_(value)

    def pixel(self, column: int, out: Tensor | None = None) -> Tensor:
        """The output at a pixel of the current row, shape ``(n, out)``; written to `out` if given."""
        return torch.addmm(self.terms[column], self.windows[column], self.taps, out=out)


def input_taps(convolution: MaskedConv2d) -> Tensor:
    """Weights of a 1×k kernel from the left end to its centre, shape ``(k//2 + 1, in, out)``."""
    return convolution.masked_weight()[:, :, 0, : convolution.radius + 1].permute(2, 1, 0)


class PixelwiseHead:
    """A `Head` for one pixel at a time, as two matrix products."""

    def __init__(self, head: Head) -> None:
        self.n_colours = head.n_colours
        self.weights = [
            layer.masked_weight().flatten(1).T.contiguous() for layer in (head.hidden, head.output)
        ]
        self.biases = [head.hidden.bias, head.output.bias]

    def __call__(self, features: Tensor) -> Tensor:
        """Map ``(n, channels)`` to ``(n, C, P)``."""
        hidden = torch.addmm(self.biases[0], F.relu(features), self.weights[0]).relu_()
        parameters = torch.addmm(self.biases[1], hidden, self.weights[1])
        return parameters.view(len(parameters), self.n_colours, -1)
