"""The Diagonal BiLSTM's sampler: one direction pixel by pixel, the other row by row."""

import torch
from torch import Tensor

from course_lib.autoregressive.base import Steps
from course_lib.autoregressive.diagonal_bilstm import DiagonalBiLSTM
from course_lib.autoregressive.fast.raster import (
    PixelSampler,
    PixelwiseConv,
    PixelwiseHead,
    in_raster_order,
)
from course_lib.autoregressive.row_lstm import lstm_cell
from course_lib.fast import register


class _Sampler(PixelSampler):
    """Direction one pixel by pixel; direction two for a whole row, once that row is complete.

    What the rows above contribute is one matrix product per row. The second direction runs from
    right to left through a row whose features are complete in all layers, and so all layers
    run together.
    """

    def __init__(self, model: DiagonalBiLSTM, n: int, labels: Tensor | None) -> None:
        _, height, width = model.event_shape
        channels = model.first.out_channels
        layers = model.layers
        self.n, self.width, self.channels, self.depth = n, width, channels, len(layers)
        self.first = PixelwiseConv(model.first, n, height, width)
        weight = torch.stack([la.input_to_state.masked_weight()[:, :, 0, 0].T for la in layers])
        bias = torch.stack([la.input_to_state.bias for la in layers]).unsqueeze(1)
        states = torch.stack([layer.state_to_state for layer in layers], 1)
        # For each direction and layer: (2, depth, channels or 1, 4·channels).
        self.from_input = torch.stack(weight.chunk(2, -1)).contiguous()
        self.bias = torch.stack(bias.chunk(2, -1)).contiguous()
        self.from_beside, self.from_above = (
            part.contiguous() for part in states.split(channels, 2)
        )
        self.own = model.own.weight.flatten(1).T.contiguous()  # (C, 4·channels)
        self.from_input_one = self.from_input[0].unbind(0)
        self.from_beside_one = self.from_beside[0].unbind(0)
        # For each layer: features read and states reached in the current row, by column. States
        # have one more entry, for the empty neighbour outside the image.
        self.outside = weight.new_zeros(n, channels)
        self.inputs = [[self.outside] * width for _ in layers]
        self.hidden = [[self.outside] * (width + 1) for _ in layers]
        self.cell = [[self.outside] * (width + 1) for _ in layers]
        # Hidden states of the second direction in the row above.
        self.two = weight.new_zeros(self.depth, width, n, channels)
        self.head = PixelwiseHead(model.head)

    def begin_row(self, row: int) -> None:
        if row:
            self._finish_second_direction()
        self.first.begin_row(row)
        above = torch.stack([torch.stack(hidden[1:]) for hidden in self.hidden])
        terms = self._from_above(0, above)
        # Per layer and column, what is added to h and to its gates.
        self.two_at = [two.unbind(0) for two in self.two.unbind(0)]
        self.terms_at = [term.unbind(0) for term in terms.unbind(0)]

    def _from_above(self, direction: int, hidden: Tensor) -> Tensor:
        """Bias and contribution of the row above: (depth, W, n, channels) to (…, 4·channels)."""
        terms = torch.baddbmm(
            self.bias[direction], hidden.flatten(1, 2), self.from_above[direction]
        )
        return terms.view(self.depth, self.width, self.n, -1)

    def _finish_second_direction(self) -> None:
        """Run the second direction through the row that is now complete."""
        terms = self._from_above(1, self.two).flatten(1, 2)
        inputs = torch.stack([torch.cat(columns) for columns in self.inputs])
        pixels = self.first.row[:, self.first.radius :][:, : self.width].transpose(
            0, 1
        )  # (W, n, C)
        terms = torch.baddbmm(terms, inputs, self.from_input[1])
        terms = terms.view(self.depth, self.width, self.n, -1)
        terms[0] += pixels @ self.own
        hidden = cell = self.two.new_zeros(self.depth, self.n, self.channels)
        states = []
        for gates in reversed(terms.unbind(1)):
            gates = torch.baddbmm(gates, hidden, self.from_beside[1])
            hidden, cell = lstm_cell(gates, cell)
            states.append(hidden)
        self.two = torch.stack(states[::-1], 1)

    def pixel(self, column: int) -> Tensor:
        h = self.first.pixel(column)  # (n, channels)
        for index, (inputs, hidden, cell) in enumerate(
            zip(self.inputs, self.hidden, self.cell, strict=True)
        ):
            inputs[column] = h
            gates = torch.addmm(self.terms_at[index][column], h, self.from_input_one[index])
            gates.addmm_(hidden[column], self.from_beside_one[index])
            hidden[column + 1], cell[column + 1] = lstm_cell(gates, cell[column])
            h = h + hidden[column + 1] + self.two_at[index][column]
        return self.head(h)

    def put(self, column: int, colour: int, value: Tensor) -> None:
        self.first.slots[column][:, colour] = value


@register(DiagonalBiLSTM.forward)
def steps(model: DiagonalBiLSTM, n: int, labels: Tensor | None) -> Steps:
    """One direction pixel by pixel, the other row by row."""
    return in_raster_order(_Sampler, model, n, labels)
