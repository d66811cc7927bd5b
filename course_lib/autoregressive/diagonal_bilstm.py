"""Diagonal BiLSTM: a PixelRNN that runs along the diagonals, and sees the whole past."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from course_lib.autoregressive.raster import (
    Head,
    MaskedConv2d,
    PixelSampler,
    PixelwiseConv,
    RasterModel,
    first_kernel_size,
)
from course_lib.autoregressive.row_lstm import lstm_cell
from course_lib.distributions import GreyLevels
from course_lib.inputs import require_positive_integer


class DiagonalBiLSTM(RasterModel):
    """PixelRNN with Diagonal BiLSTM layers.

    Each layer holds two LSTMs. One comes from the upper left: the state at (r, c) follows from
    those at (r, c−1) and (r−1, c). The other, its mirror image, comes from the upper right; at (r, c)
    it has seen pixels right of c in row r itself, so its result is moved down by one row before it
    is added: pixel (r, c) reads what the second LSTM knew at (r−1, c). Together they see every
    pixel of the past. (That takes one addition to the published layer: the second LSTM also
    reads the pixel itself, or the last pixel of the row above would be lost.)

    Source: van den Oord, Kalchbrenner and Kavukcuoglu, "Pixel recurrent neural networks" (2016).

    Args:
        event_shape: ``(C, H, W)``; colours are generated in the order of the channels.
        levels: number K of grey levels.
        channels: number of features and of LSTM units per pixel and direction.
        n_layers: number of layers.
        kernel_size: of the first, masked convolution; 7, or less for small images, if not given.
        dropout: share of features dropped in training, each for a whole image, after each layer.
        distribution: of one entry; if none is given, Bernoulli for two levels and categorical for
            more.

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
        distribution: GreyLevels | None = None,
    ) -> None:
        super().__init__(event_shape, levels, distribution)
        n_layers = require_positive_integer(n_layers, "n_layers")
        channels = require_positive_integer(channels, "the number of channels")
        colours = self.event_shape[0]
        size = first_kernel_size(kernel_size, self.event_shape)
        self.first = MaskedConv2d("A", colours, channels, size, n_colours=colours)
        # The masked features of a row's last pixel leave that pixel out, and no feature to the right
        # of it makes up for that. The second direction, moved down, may see every pixel whole.
        self.own = nn.Conv2d(colours, 4 * channels, 1, bias=False)
        self.layers = nn.ModuleList(DiagonalBiLSTMLayer(channels, colours) for _ in range(n_layers))
        self.dropout = nn.Dropout2d(dropout)
        self.head = Head(channels, colours, self.distribution.n_parameters)

    def forward(self, x: Tensor, labels: Tensor | None = None) -> Tensor:
        """Parameters of all conditionals, shape ``(N, C, H, W, P)``, for grey levels `x`."""
        x = self.encode(x)
        h, own = self.first(x), self.own(x)  # (N, channels, H, W), (N, 4·channels, H, W)
        for layer in self.layers:
            h = h + self.dropout(layer(h, own))
            own = 0  # the first layer has read it
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

    def forward(self, x: Tensor, to_second: Tensor | float) -> Tensor:
        """Map features ``(N, channels, H, W)`` to the sum of both directions, of the same shape.

        Args:
            x: the features.
            to_second: added to the gates of the second direction alone, shape
                ``(N, 4 · channels, H, W)``; or 0.
        """
        height, width = x.shape[2:]
        one, two = self.input_to_state(x).chunk(2, 1)  # (N, 4·channels, H, W) each
        # The second direction sees the image in a mirror, and is then the first.
        inputs = torch.stack([one, (two + to_second).flip(3)]).permute(0, 1, 3, 4, 2)
        inputs = skew(inputs)  # (2, N, H, H + W − 1, 4·channels)
        one, two = unskew(self._along_diagonals(inputs, width))  # (N, H, W, channels) each
        # Moved down by one row: at (r, c) the second direction has seen the future of its row.
        two = F.pad(two.flip(2), (0, 0, 0, 0, 1, 0))[:, :height]
        return (one + two).permute(0, 3, 1, 2)

    def _along_diagonals(self, inputs: Tensor, width: int) -> Tensor:
        """Run both LSTMs over skewed inputs ``(2, N, H, H + W − 1, 4·channels)``.

        Returns:
            Skewed hidden states, shape ``(2, N, H, H + W − 1, channels)``.
        """
        directions, n, height, _, gates = inputs.shape
        channels = gates // 4
        from_beside, from_above = self.state_to_state.chunk(2, 1)  # (2, channels, 4·channels)
        # Diagonal d crosses the rows max(0, d − W + 1) … min(H − 1, d). Only these are computed; the
        # states of the diagonal before are kept with one empty row at either end.
        hidden = cell = inputs.new_zeros(directions, 2, n, channels)
        first = 0
        columns = []
        for d, column in enumerate(inputs.permute(3, 0, 2, 1, 4).contiguous()):  # (2, H, N, gates)
            top, bottom = max(0, d - width + 1), min(height - 1, d)
            rows = bottom - top + 1
            above = top - first  # where the states above begin; those in the row, one later
            beside = slice(above + 1, above + 1 + rows)
            pre = torch.baddbmm(
                column[:, top : bottom + 1].flatten(1, 2),
                hidden[:, beside].flatten(1, 2),
                from_beside,
            )
            pre = torch.baddbmm(pre, hidden[:, above : above + rows].flatten(1, 2), from_above)
            # The memory of a pixel comes from its neighbour in the row.
            h, c = lstm_cell(pre, cell[:, beside].flatten(1, 2))
            h, c = (state.view(directions, rows, n, channels) for state in (h, c))
            columns.append(F.pad(h, (0, 0, 0, 0, top, height - 1 - bottom)))
            hidden, cell = (F.pad(state, (0, 0, 0, 0, 1, 1)) for state in (h, c))
            first = top
        return torch.stack(columns, 3).transpose(1, 2)


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
        self.head = model.head.pixelwise()

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
