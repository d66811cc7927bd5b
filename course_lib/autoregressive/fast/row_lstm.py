"""The Row LSTM's sampler: state to state for a whole row, the rest pixel by pixel."""

import torch
from torch import Tensor

from course_lib.autoregressive.base import Steps
from course_lib.autoregressive.fast.raster import (
    PixelSampler,
    PixelwiseConv,
    PixelwiseHead,
    in_raster_order,
    input_taps,
)
from course_lib.autoregressive.raster import MaskedConv2d
from course_lib.autoregressive.row_lstm import RowLSTM
from course_lib.fast import register


class _Sampler(PixelSampler):
    """Per row the state-to-state products, per pixel the rest of each layer.

    At small batches the time goes into calls, not into arithmetic. So all results go into memory
    and through views prepared in advance, and one product per layer reads a pixel and its left
    neighbour, which lie side by side.
    """

    def __init__(self, model: RowLSTM, n: int, labels: Tensor | None) -> None:
        _, height, width = model.event_shape
        channels, depth = model.first.out_channels, len(model.layers)
        new = model.first.weight.new_zeros
        self.layers = model.layers
        self.first = PixelwiseConv(model.first, n, height, width)
        # What each layer reads in the current row, and last the head; left of the image there is
        # nothing.
        features = [new(n, 1 + width, channels) for _ in range(depth + 1)]
        self.first_features = features[0][:, 1:].unbind(1)
        self.last_features = features[-1][:, 1:].unbind(1)
        # States of the current row, which replace those of the row above.
        self.hidden = new(depth, width, n, channels)
        self.cell = new(depth, width, n, channels)
        self.cell_above = new(depth, width, n, channels)
        self.row_terms = new(depth, width, n, 4 * channels)  # the gates, as far as known
        self.gates = new(n, 4 * channels)
        self.squashed = self.gates[:, : 3 * channels]
        self.o, self.f, self.i, self.g = self.gates.chunk(4, 1)
        self.tanh_cell = new(n, channels)
        taps = [_left_and_centre(layer.input_to_state) for layer in model.layers]
        self.steps = [
            [
                (
                    self.row_terms[layer, column],
                    features[layer][:, column : column + 2].view(n, -1),
                    taps[layer],
                    self.cell_above[layer, column],
                    self.cell[layer, column],
                    self.hidden[layer, column],
                    features[layer][:, column + 1],
                    features[layer + 1][:, column + 1],
                )
                for layer in range(depth)
            ]
            for column in range(width)
        ]
        self.head = PixelwiseHead(model.head)

    def begin_row(self, row: int) -> None:
        self.first.begin_row(row)
        self.cell_above.copy_(self.cell)
        for index, layer in enumerate(self.layers):
            terms = layer.from_above(self.hidden[index].transpose(0, 1))  # (n, W, 4·channels)
            torch.add(terms.transpose(0, 1), layer.input_to_state.bias, out=self.row_terms[index])

    def pixel(self, column: int) -> Tensor:
        self.first.pixel(column, out=self.first_features[column])
        for terms, window, taps, cell_above, cell, hidden, read, written in self.steps[column]:
            torch.addmm(terms, window, taps, out=self.gates)
            # `lstm_cell`, in place.
            self.squashed.sigmoid_()
            self.g.tanh_()
            torch.mul(self.f, cell_above, out=cell).addcmul_(self.i, self.g)
            torch.mul(self.o, torch.tanh(cell, out=self.tanh_cell), out=hidden)
            torch.add(read, hidden, out=written)
        return self.head(self.last_features[column])

    def put(self, column: int, colour: int, value: Tensor) -> None:
        self.first.slots[column][:, colour] = value


def _left_and_centre(convolution: MaskedConv2d) -> Tensor:
    """Weights of the left neighbour above those of the pixel itself, ``(2·channels, 4·channels)``."""
    return input_taps(convolution).flatten(0, 1).contiguous()


@register(RowLSTM.forward)
def steps(model: RowLSTM, n: int, labels: Tensor | None) -> Steps:
    """Per row the state-to-state products, per pixel the rest."""
    return in_raster_order(_Sampler, model, n, labels)
