"""Row LSTM: a PixelRNN that runs down the image, a whole row at a time."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from course_lib.autoregressive.raster import Head, MaskedConv2d, RasterModel


class RowLSTM(RasterModel):
    """PixelRNN with Row LSTM layers.

    Each layer is an LSTM over rows. Its gates read the current row to the left through a masked
    1×3 convolution (input to state), and the hidden state of the row above through an unmasked
    one (state to state). State is thus carried down a triangle that widens by one pixel on each
    side per row: unbounded in height, but blind to what lies outside the triangle.

    Source: van den Oord, Kalchbrenner and Kavukcuoglu, "Pixel recurrent neural networks" (2016).

    Args:
        event_shape: ``(C, H, W)``; colours are generated in the order of the channels.
        levels: number K of grey levels.
        channels: number of features and of LSTM units per pixel.
        n_layers: number of LSTM layers.
        kernel_size: of the first, masked convolution; 7, or less for small images, if not given.
        dropout: share of features dropped in training, each for a whole image, after each layer.
        distribution: of one entry; if none is given, Bernoulli for two levels and categorical for
            more.

    Raises:
        ValueError: the image is smaller than the reach of `kernel_size`, or an argument is out of
            range.

    Example:
        >>> model = RowLSTM((1, 8, 8), 17)
        >>> model.sample(2).shape
        torch.Size([2, 1, 8, 8])
    """

    usual_layers = 2

    def _build(self, channels: int, n_layers: int, kernel_size: int, dropout: float) -> None:
        colours = self.event_shape[0]
        self.first = MaskedConv2d("A", colours, channels, kernel_size, n_colours=colours)
        self.layers = nn.ModuleList(RowLSTMLayer(channels, colours) for _ in range(n_layers))
        self.dropout = nn.Dropout2d(dropout)
        self.head = Head(channels, colours, self.distribution.n_parameters)

    def forward(self, x: Tensor, labels: Tensor | None = None) -> Tensor:
        """Parameters of all conditionals, shape ``(N, C, H, W, P)``, for grey levels `x`."""
        h = self.first(self.encode(x))  # (N, channels, H, W)
        for layer in self.layers:
            h = h + self.dropout(layer(h))
        return self.head(h)


def lstm_cell(gates: Tensor, cell: Tensor) -> tuple[Tensor, Tensor]:
    """One step of an LSTM from its pre-activations.

    c' = σ(f) · c + σ(i) · tanh(g) and h' = σ(o) · tanh(c'), with the pre-activations
    (o, f, i, g) side by side in the last axis.

    Args:
        gates: shape ``(…, 4 · channels)``.
        cell: c, shape ``(…, channels)``.

    Returns:
        h' and c', each of the shape of `cell`.
    """
    channels = cell.shape[-1]
    squashed, g = gates.split([3 * channels, channels], -1)
    o, f, i = torch.sigmoid(squashed).chunk(3, -1)
    cell = torch.addcmul(f * cell, i, torch.tanh(g))
    return o * torch.tanh(cell), cell


class RowLSTMLayer(nn.Module):
    """An LSTM over the rows of an image.

    Args:
        channels: number of features read and of units.
        n_colours: number of channels of the image.
    """

    def __init__(self, channels: int, n_colours: int) -> None:
        super().__init__()
        self.input_to_state = MaskedConv2d(
            "B", channels, 4 * channels, 3, n_colours=n_colours, n_gates=4, rows_above=0
        )
        self.state_to_state = nn.Linear(3 * channels, 4 * channels, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Map features ``(N, channels, H, W)`` to hidden states of the same shape."""
        inputs = self.input_to_state(x).permute(2, 0, 3, 1).contiguous()  # (H, N, W, 4·channels)
        hidden = cell = inputs.new_zeros(*inputs.shape[1:3], inputs.shape[3] // 4)
        rows = []
        for row in inputs.unbind(0):
            hidden, cell = lstm_cell(row + self.from_above(hidden), cell)
            rows.append(hidden)
        return torch.stack(rows, 2).permute(
            0, 3, 2, 1
        )  # (N, W, H, channels) to (N, channels, H, W)

    def from_above(self, hidden: Tensor) -> Tensor:
        """What a row of hidden states ``(N, W, channels)`` contributes to the gates below it."""
        left, right = F.pad(hidden, (0, 0, 1, 1))[:, :-2], F.pad(hidden, (0, 0, 0, 1))[:, 1:]
        return self.state_to_state(torch.cat([left, hidden, right], -1))  # (N, W, 4·channels)
