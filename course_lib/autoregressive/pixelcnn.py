"""PixelCNN: masked convolutions in raster order."""

import torch.nn.functional as F
from torch import Tensor, nn

from course_lib.autoregressive.raster import Head, MaskedConv2d, RasterModel


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

    usual_layers = 4

    def _build(self, channels: int, n_layers: int, kernel_size: int, dropout: float) -> None:
        colours = self.event_shape[0]
        self.first = MaskedConv2d("A", colours, channels, kernel_size, n_colours=colours)
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
