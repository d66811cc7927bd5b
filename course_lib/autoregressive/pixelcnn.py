"""PixelCNN: masked convolutions in raster order."""

from collections.abc import Sequence

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
from course_lib.distributions import GreyLevels
from course_lib.inputs import require_positive_integer


class PixelCNN(RasterModel):
    """The plain PixelCNN, with the blind spot that its square masks leave.

    h₀ = conv_A(x); h_l = h_{l−1} + conv_B(relu(h_{l−1})); parameters = head(h_L).

    A stack of masked 3×3 kernels never sees a wedge to the upper right of each pixel, however
    deep it is: compare `course_lib.autoregressive.GatedPixelCNN`.

    Source: van den Oord, Kalchbrenner and Kavukcuoglu, "Pixel recurrent neural networks" (2016).

    Args:
        event_shape: ``(C, H, W)``; colours are generated in the order of the channels.
        levels: number K of grey levels.
        channels: number of features.
        n_layers: number of residual layers with 3×3 kernels.
        kernel_size: of the first layer; 7, or less for small images, if not given.
        dropout: share of features dropped in training, each for a whole image.
        distribution: of one entry; if none is given, Bernoulli for two levels and categorical for
            more.

    Raises:
        ValueError: the image is smaller than the reach of `kernel_size`, or an argument is out of
            range.

    Example:
        >>> model = PixelCNN((1, 8, 8), 17)
        >>> model.sample(2).shape
        torch.Size([2, 1, 8, 8])
    """

    def __init__(
        self,
        event_shape: Sequence[int],
        levels: int,
        *,
        channels: int = 32,
        n_layers: int = 4,
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
        self.layers = nn.ModuleList(
            MaskedConv2d("B", channels, channels, 3, n_colours=colours) for _ in range(n_layers)
        )
        self.dropout = nn.Dropout2d(dropout)
        self.head = Head(channels, colours, self.distribution.n_parameters)

    def forward(self, x: Tensor, labels: Tensor | None = None) -> Tensor:
        """Parameters of all conditionals, shape ``(N, C, H, W, P)``, for grey levels `x`."""
        h = self.first(self.encode(x))  # (N, channels, H, W)
        for layer in self.layers:
            h = h + layer(self.dropout(F.relu(h)))
        return self.head(h)

    def pixel_sampler(self, n: int, labels: Tensor | None) -> PixelSampler:
        """The model's fast sampler for `n` images."""
        return _Sampler(self, n)


class _Sampler(PixelSampler):
    def __init__(self, model: PixelCNN, n: int) -> None:
        _, height, width = model.event_shape
        self.first, *self.layers = (
            PixelwiseConv(layer, n, height, width) for layer in (model.first, *model.layers)
        )
        self.head = model.head.pixelwise()

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
