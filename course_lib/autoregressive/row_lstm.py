"""Row LSTM: a PixelRNN that runs down the image, a whole row at a time."""

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
    input_taps,
)
from course_lib.distributions import GreyLevels
from course_lib.inputs import require_positive_integer


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
        self.layers = nn.ModuleList(RowLSTMLayer(channels, colours) for _ in range(n_layers))
        self.dropout = nn.Dropout2d(dropout)
        self.head = Head(channels, colours, self.distribution.n_parameters)

    def forward(self, x: Tensor, labels: Tensor | None = None) -> Tensor:
        """Parameters of all conditionals, shape ``(N, C, H, W, P)``, for grey levels `x`."""
        h = self.first(self.encode(x))  # (N, channels, H, W)
        for layer in self.layers:
            h = h + self.dropout(layer(h))
        return self.head(h)

    def pixel_sampler(self, n: int, labels: Tensor | None) -> PixelSampler:
        """The model's fast sampler for `n` images."""
        return _Sampler(self, n)


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


class _Sampler(PixelSampler):
    """Per row the state-to-state products, per pixel the rest of each layer.

    At small batches the time goes into calls, not into arithmetic. So all results go into memory
    and through views prepared in advance, and one product per layer reads a pixel and its left
    neighbour, which lie side by side.
    """

    def __init__(self, model: RowLSTM, n: int) -> None:
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
        self.head = model.head.pixelwise()

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
