"""Diagonal BiLSTM: a PixelRNN that runs along the diagonals, and sees the whole past."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from course_lib.autoregressive.raster import Head, MaskedConv2d, RasterModel
from course_lib.autoregressive.row_lstm import lstm_cell


class DiagonalBiLSTM(RasterModel):
    """PixelRNN with Diagonal BiLSTM layers.

    Each layer holds two LSTMs. One comes from the upper left: the state at (r, c) follows from
    those at (r, c−1) and (r−1, c). The other, its mirror image, comes from the upper right; at (r, c)
    it has seen pixels right of c in row r itself, so its result is moved down by one row before it
    is added: pixel (r, c) reads what the second LSTM knew at (r−1, c). Together they see every
    pixel of the past. (That takes one addition to the published layer: the second LSTM also
    reads the pixel itself, or the last pixel of the row above would be lost where the first kernel does
    not reach it.)

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

    usual_layers = 2

    def _build(self, channels: int, n_layers: int, kernel_size: int, dropout: float) -> None:
        colours = self.event_shape[0]
        self.first = MaskedConv2d("A", colours, channels, kernel_size, n_colours=colours)
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
        # The gates of both directions lie side by side: there are eight.
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
