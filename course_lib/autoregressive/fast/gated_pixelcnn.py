"""The gated PixelCNN's sampler: one stack row by row, the other pixel by pixel."""

import torch
from torch import Tensor

from course_lib.autoregressive.base import Steps
from course_lib.autoregressive.fast.raster import (
    PixelSampler,
    PixelwiseHead,
    in_raster_order,
    input_taps,
)
from course_lib.autoregressive.gated_pixelcnn import GatedLayer, GatedPixelCNN, gated_unit
from course_lib.fast import register


class _Sampler(PixelSampler):
    """Ancestral sampling at about the arithmetic of one forward pass.

    The vertical stack is computed once per row, as convolutions over the whole row. Per pixel
    there remain small matrix products of n rows, where the time goes into calls more than into
    arithmetic. So there are four calls per layer, all into memory and through views prepared in
    advance: pre-activation, tanh, gate, output. Residual stream and skip sum are one tensor that
    runs through the layers, so that one product adds to both; and what a pixel contributes to
    its right neighbour is computed for all layers in one batched product.
    """

    def __init__(self, model: GatedPixelCNN, n: int, labels: Tensor | None) -> None:
        colours, height, width = model.event_shape
        first, *later = model.layers
        self.model, self.n, self.labels, self.width = model, n, labels, width
        channels, depth = first.skip.out_channels, len(later)
        new = first.vertical.weight.new_zeros

        # Vertical stack: padded pixels, and for each layer the features of the last two rows.
        self.image = new(n, colours, first.radius + height, width)
        self.radius = first.radius
        self.last_rows = [new(n, channels, 1, width) for _ in later]
        # Horizontal stack: for each layer and pixel of the row, all that is known at its start.
        self.row_terms = new(depth + 1, width, n, 2 * channels)
        self.row_terms_first, self.row_terms_later = self.row_terms[0], self.row_terms[1:]
        self.pixels = new(n, width + first.radius, colours)  # the current row, padded on the left
        self.first_taps = input_taps(first.horizontal).flatten(0, 1)
        # Running state [residual, skip] after each layer at the current pixel: its residual half
        # is what the right neighbour reads.
        self.state = new(depth + 2, n, 2 * channels)
        self.to_right = self.state[1:-1, :, :channels]  # (depth, n, channels)
        self.column = -1
        self.left_terms = new(depth, n, 2 * channels)
        self.pre = new(n, 2 * channels)
        self.half = self.pre[:, :channels]
        if later:
            taps = torch.stack([input_taps(layer.horizontal) for layer in later])
            self.left_taps = taps[:, 0].contiguous()  # (depth, channels, 2·channels)
        # One more feature that is always 1 carries the bias of the outputs.
        gated = new(n, channels + 1)
        gated[:, -1] = 1
        self.gated, self.gate_out = gated, gated[:, :-1]
        weights = [_output_weight(layer) for layer in model.layers]
        self.first_step = (weights[0], self.state[1])
        self.later_steps = [
            (
                self.left_terms[index],
                self.state[index + 1, :, :channels],
                taps[index, 1].contiguous(),
                self.state[index + 1],
                weights[index + 1],
                self.state[index + 2],
            )
            for index in range(depth)
        ]
        self.skip = self.state[-1, :, channels:]
        self.head = PixelwiseHead(model.head)

    def begin_row(self, row: int) -> None:
        self.row, self.column = row, -1
        self.pixels.zero_()
        self.state.zero_()  # left of the image there is nothing
        rows = self.image[:, :, row : row + self.radius]
        for index, layer in enumerate(self.model.layers):
            v, term = _vertical_row(layer, rows, self.labels)
            self.row_terms[index] = term.squeeze(2).permute(2, 0, 1)  # (W, n, 2·channels)
            if index < len(self.last_rows):
                rows = torch.cat([self.last_rows[index], v], 2)
                self.last_rows[index] = v

    def pixel(self, column: int) -> Tensor:
        if column != self.column and self.later_steps:  # not again for a further colour
            self.column = column
            torch.baddbmm(
                self.row_terms_later[:, column],
                self.to_right,
                self.left_taps,
                out=self.left_terms,
            )
        window = self.pixels[:, column : column + self.radius + 1].reshape(self.n, -1)
        torch.addmm(self.row_terms_first[column], window, self.first_taps, out=self.pre)
        weight, next_state = self.first_step
        self._gate()
        torch.mm(self.gated, weight, out=next_state)
        for left_term, residual, tap, state, weight, next_state in self.later_steps:
            torch.addmm(left_term, residual, tap, out=self.pre)
            self._gate()
            torch.addmm(state, self.gated, weight, out=next_state)
        return self.head(self.skip)

    def _gate(self) -> None:
        self.half.tanh_()
        torch.ops.aten.glu.out(self.pre, 1, out=self.gate_out)

    def put(self, column: int, colour: int, value: Tensor) -> None:
        self.pixels[:, column + self.radius, colour] = value
        self.image[:, colour, self.radius + self.row, column] = value


def _vertical_row(layer: GatedLayer, rows: Tensor, labels: Tensor | None) -> tuple[Tensor, Tensor]:
    """One row of the vertical stack, and all it contributes to the horizontal one.

    Args:
        layer: of both stacks.
        rows: the rows that the kernel covers, shape ``(N, in, rows, W)``.
        labels: classes, or None.

    Returns:
        The vertical features ``(N, channels, 1, W)``, and the term ``(N, 2·channels, 1, W)``
        of the horizontal pre-activation: link, bias and class.
    """
    v = layer.vertical(rows)
    h = layer.horizontal.bias[:, None, None]
    v, h = layer.add_condition(v, h, labels)
    return gated_unit(v), layer.link(v) + h


def _output_weight(layer: GatedLayer) -> Tensor:
    """Residual and skip products side by side, with their biases as the last row."""
    parts = [layer.skip if layer.is_last else layer.residual, layer.skip]
    weights = [torch.cat([p.masked_weight()[:, :, 0, 0], p.bias.unsqueeze(1)], 1) for p in parts]
    if layer.is_last:
        weights[0] = torch.zeros_like(weights[0])  # nothing reads its residual stream
    return torch.cat(weights).T.contiguous()  # (channels + 1, 2·channels)


@register(GatedPixelCNN.forward)
def steps(model: GatedPixelCNN, n: int, labels: Tensor | None) -> Steps:
    """The vertical stack row by row, the horizontal one pixel by pixel."""
    return in_raster_order(_Sampler, model, n, labels)
