"""Diagonal BiLSTM: a PixelRNN that runs along the diagonals, and sees the whole past."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from course_lib.autoregressive.laws import Law
from course_lib.autoregressive.raster import (
    Head,
    MaskedConv2d,
    PixelSampler,
    PixelwiseConv,
    RasterModel,
    first_kernel_size,
)
from course_lib.autoregressive.row_lstm import lstm_cell
from course_lib.inputs import require_positive_integer


class DiagonalBiLSTM(RasterModel):
    """PixelRNN with Diagonal BiLSTM layers.

    Each layer holds two LSTMs. One comes from the upper left: the state at (r, c) follows from
    those at (r, c−1) and (r−1, c). The other, its mirror image, comes from the upper right; at (r, c)
    it has seen pixels right of c in row r itself, so its result is moved down by one row before it
    is added: pixel (r, c) reads what the second LSTM knew at (r−1, c). Together they see every
    pixel of the past.

    Source: van den Oord, Kalchbrenner and Kavukcuoglu, "Pixel recurrent neural networks" (2016).

    Args:
        event_shape: ``(C, H, W)``; colours are generated in the order of the channels.
        levels: number K of grey levels.
        channels: number of features and of LSTM units per pixel and direction.
        n_layers: number of layers.
        kernel_size: of the first, masked convolution; 7, or less for small images, if not given.
        dropout: share of features dropped in training, after each layer.
        law: the output law; Bernoulli for two levels and a softmax for more, if none is given.

    Raises:
        ValueError: the image is smaller than the reach of `kernel_size`, or an argument is out of
            range.

    Example:
        >>> model = DiagonalBiLSTM((1, 8, 8), 17)
        >>> model.sample(2).shape
        torch.Size([2, 1, 8, 8])
    """

    def __init__(
        self,
        event_shape: Sequence[int],
        levels: int,
        *,
        channels: int = 32,
        n_layers: int = 2,
        kernel_size: int | None = None,
        dropout: float = 0.0,
        law: Law | None = None,
    ) -> None:
        super().__init__(event_shape, levels, law)
        require_positive_integer(n_layers, "n_layers")
        colours = self.event_shape[0]
        size = first_kernel_size(kernel_size, self.event_shape)
        self.first = MaskedConv2d("A", colours, channels, size, n_colours=colours)
        self.layers = nn.ModuleList(DiagonalBiLSTMLayer(channels, colours) for _ in range(n_layers))
        self.dropout = nn.Dropout(dropout)
        self.head = Head(channels, colours, self.law.n_parameters)

    def forward(self, x: Tensor, labels: Tensor | None = None) -> Tensor:
        """Parameters of all conditionals, shape ``(N, C, H, W, P)``, for grey levels `x`."""
        h = self.first(self.encode(x))  # (N, channels, H, W)
        for layer in self.layers:
            h = h + self.dropout(layer(h))
        return self.head(h)

    def pixel_sampler(self, n: int, labels: Tensor | None) -> PixelSampler:
        """The model's fast sampler for `n` images."""
        return _Sampler(self, n)


def skew(x: Tensor) -> Tensor:
    """Move row r to the right by r places, so that diagonals become columns.

    Args:
        x: shape ``(…, H, W, F)``.

    Returns:
        Shape ``(…, H, H + W − 1, F)``: entry (r, d) is entry (r, d − r) of `x`, or 0 outside.
    """
    *batch, height, width, features = x.shape
    # Append H zeros to each row and read the same numbers in rows that are one shorter.
    x = F.pad(x, (0, 0, 0, height)).flatten(-3, -2)[..., : height * (height + width - 1), :]
    return x.view(*batch, height, height + width - 1, features)


def unskew(x: Tensor) -> Tensor:
    """Undo `skew`.

    Args:
        x: shape ``(…, H, H + W − 1, F)``.

    Returns:
        Shape ``(…, H, W, F)``.
    """
    *batch, height, diagonals, features = x.shape
    x = F.pad(x.flatten(-3, -2), (0, 0, 0, height))
    return x.view(*batch, height, diagonals + 1, features)[..., : diagonals - height + 1, :]


class DiagonalBiLSTMLayer(nn.Module):
    """Two LSTMs along the diagonals of an image, from the upper left and the upper right.

    Args:
        channels: number of features read and of units per direction.
        n_colours: number of channels of the image.
    """

    def __init__(self, channels: int, n_colours: int) -> None:
        super().__init__()
        # Both directions side by side: eight gates.
        self.input_to_state = MaskedConv2d(
            "B", channels, 8 * channels, 1, n_colours=n_colours, n_gates=8
        )
        # Reads the state of the neighbour in the row, then of the one above.
        self.state_to_state = nn.Parameter(
            torch.randn(2, 2 * channels, 4 * channels) * (2 * channels) ** -0.5
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map features ``(N, channels, H, W)`` to the sum of both directions, of the same shape."""
        n, channels, height, width = x.shape
        inputs = self.input_to_state(x).permute(0, 2, 3, 1)  # (N, H, W, 8·channels)
        one, two = inputs.chunk(2, -1)
        # The second direction sees the image in a mirror, and is then the first.
        inputs = skew(torch.stack([one, two.flip(2)]))  # (2, N, H, H + W − 1, 4·channels)
        one, two = unskew(self._along_diagonals(inputs, width))  # (N, H, W, channels) each
        # Moved down by one row: at (r, c) the second direction has seen the future of its row.
        two = F.pad(two.flip(2), (0, 0, 0, 0, 1, 0))[:, :height]
        return (one + two).permute(0, 3, 1, 2)

    def _along_diagonals(self, inputs: Tensor, width: int) -> Tensor:
        """Run both LSTMs over skewed inputs; returns skewed hidden states."""
        directions, n, height, diagonals, gates = inputs.shape
        channels = gates // 4
        weight = self.state_to_state
        # Diagonal d crosses the rows max(0, d − W + 1) … min(H − 1, d). Only these are computed; the
        # states of the diagonal before are kept with one empty row at either end.
        hidden = cell = inputs.new_zeros(directions, n, 2, channels)
        first = 0
        columns = []
        for d in range(diagonals):
            top, bottom = max(0, d - width + 1), min(height - 1, d)
            rows = bottom - top + 1
            left, above = top - first + 1, top - first  # where they start in the padded states
            states = torch.cat(
                [hidden[:, :, left : left + rows], hidden[:, :, above : above + rows]], -1
            )
            gates_here = torch.baddbmm(
                inputs[:, :, top : bottom + 1, d].flatten(1, 2), states.flatten(1, 2), weight
            ).view(directions, n, rows, -1)
            # The cell's own neighbour in time is the one in the row.
            h, c = lstm_cell(gates_here, cell[:, :, left : left + rows])
            columns.append(F.pad(h, (0, 0, top, height - 1 - bottom)))
            hidden, cell, first = F.pad(h, (0, 0, 1, 1)), F.pad(c, (0, 0, 1, 1)), top
        return torch.stack(columns, 3)  # (2, N, H, H + W − 1, channels)


class _Sampler(PixelSampler):
    """Direction one pixel by pixel; direction two for a whole row, once that row is complete.

    What the rows above contribute is one matrix product per row. The second direction runs from
    right to left through a row whose features are complete in all layers, and so all layers
    run together.
    """

    def __init__(self, model: DiagonalBiLSTM, n: int) -> None:
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
        # For each layer and column of the current row: features read, and hidden states of both
        # directions (the second one's are those of the row above).
        zeros = weight.new_zeros
        self.inputs, self.one, self.two = zeros(3, self.depth, width, n, channels).unbind(0)
        self.outside = zeros(n, channels)
        self.head = model.head.pixelwise()

    def begin_row(self, row: int) -> None:
        self.first.begin_row(row)
        if row:
            self._finish_second_direction()
        self.terms = self._from_above(0, self.one)
        self.hidden = [[self.outside] * (self.width + 1) for _ in range(self.depth)]
        self.cell = [[self.outside] * (self.width + 1) for _ in range(self.depth)]

    def _from_above(self, direction: int, hidden: Tensor) -> Tensor:
        """Bias and contribution of the row above: (depth, W, n, channels) to (…, 4·channels)."""
        terms = torch.baddbmm(
            self.bias[direction], hidden.flatten(1, 2), self.from_above[direction]
        )
        return terms.view(self.depth, self.width, self.n, -1)

    def _finish_second_direction(self) -> None:
        """Run the second direction through the row that is now complete."""
        terms = self._from_above(1, self.two).flatten(1, 2)
        terms = torch.baddbmm(terms, self.inputs.flatten(1, 2), self.from_input[1])
        terms = terms.view(self.depth, self.width, self.n, -1)
        hidden = cell = self.two.new_zeros(self.depth, self.n, self.channels)
        for column in reversed(range(self.width)):
            gates = torch.baddbmm(terms[:, column], hidden, self.from_beside[1])
            hidden, cell = lstm_cell(gates, cell)
            self.two[:, column] = hidden

    def pixel(self, column: int) -> Tensor:
        h = self.first.pixel(column)  # (n, channels)
        for index in range(self.depth):
            self.inputs[index, column] = h
            hidden, cell = self.hidden[index], self.cell[index]
            gates = torch.addmm(self.terms[index, column], h, self.from_input[0, index])
            gates.addmm_(hidden[column], self.from_beside[0, index])
            hidden[column + 1], cell[column + 1] = lstm_cell(gates, cell[column])
            self.one[index, column] = hidden[column + 1]
            h = h + hidden[column + 1] + self.two[index, column]
        return self.head(h)

    def put(self, column: int, colour: int, value: Tensor) -> None:
        self.first.row[:, column + self.first.radius, colour] = value
