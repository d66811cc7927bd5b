"""Gated PixelCNN: two stacks of convolutions that together leave no blind spot."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from course_lib.autoregressive.raster import Head, MaskedConv2d, RasterModel


class GatedPixelCNN(RasterModel):
    """The gated PixelCNN, optionally conditional on a class.

    The vertical stack sees the rows above, unmasked, because it never sees the current one; the
    horizontal stack sees the current row to the left, and reads the vertical stack at its own
    pixel. Each layer ends in the gated unit tanh(a) · σ(b) (``eq-gated-unit``).

    Source: van den Oord et al., "Conditional image generation with PixelCNN decoders" (2016).

    Args:
        event_shape: ``(C, H, W)``; colours are generated in the order of the channels.
        levels: number K of grey levels.
        channels: number of features of each stack.
        n_layers: number L of gated layers; the first has the large kernel, the others 3×3. They see
            ``kernel_size // 2 + L − 1`` pixels far (``eq-gated-reach``).
        kernel_size: of the first layer; 7, or less for small images, if not given.
        dropout: share of features dropped in training, each for a whole image.
        n_classes: number of classes for p(x|label); None for p(x).
        distribution: of one entry; if none is given, Bernoulli for two levels and categorical for
            more.

    Raises:
        ValueError: the image is smaller than the reach of `kernel_size`, or an argument is out of
            range.

    Example:
        >>> model = GatedPixelCNN((1, 8, 8), 17, n_classes=10)
        >>> model.sample(2, labels=torch.tensor([3, 5])).shape
        torch.Size([2, 1, 8, 8])
    """

    usual_layers = 4
    can_be_conditional = True

    def _build(self, channels: int, n_layers: int, kernel_size: int, dropout: float) -> None:
        colours = self.event_shape[0]
        self.layers = nn.ModuleList(
            GatedLayer(
                "B" if index else "A",
                channels if index else colours,
                channels,
                3 if index else kernel_size,
                n_colours=colours,
                dropout=dropout,
                n_classes=self.n_classes,
                is_last=index == n_layers - 1,
            )
            for index in range(n_layers)
        )
        self.head = Head(channels, colours, self.distribution.n_parameters)
        # Its convolutions are faster where the channels are last in memory.
        self.to(memory_format=torch.channels_last)

    def forward(self, x: Tensor, labels: Tensor | None = None) -> Tensor:
        """Parameters of all conditionals, shape ``(N, C, H, W, P)``, for grey levels `x`."""
        vertical = horizontal = self.encode(x)
        skip = 0
        for layer in self.layers:
            vertical, horizontal, to_skip = layer(vertical, horizontal, labels)
            skip = skip + to_skip  # (N, channels, H, W)
        return self.head(skip)


def gated_unit(features: Tensor) -> Tensor:
    """tanh(a) · σ(b), with a the first half of the channels and b the second.

    Source: equation ``eq-gated-unit``; van den Oord et al. (2016).

    Args:
        features: shape ``(N, 2 · channels, …)``.

    Returns:
        Shape ``(N, channels, …)``.
    """
    a, b = features.chunk(2, 1)
    # tanh(a) is written as 2σ(2a) − 1: on a CPU torch.sigmoid is faster than torch.tanh.
    return (2 * torch.sigmoid(2 * a)).sub_(1) * torch.sigmoid(b)


class GatedLayer(nn.Module):
    """One layer of both stacks.

    Args:
        kind: ``"A"`` for the first layer, which reads pixels; ``"B"`` for the others.
        in_channels: features read: colours in the first layer.
        channels: features written, by each stack.
        kernel_size: width of the kernels.
        n_colours: number of channels of the image.
        dropout: share of features dropped in training, each for a whole image.
        n_classes: number of classes, or None.
        is_last: whether no layer follows that would read the two stacks.
    """

    def __init__(
        self,
        kind: str,
        in_channels: int,
        channels: int,
        kernel_size: int,
        *,
        n_colours: int,
        dropout: float,
        n_classes: int | None,
        is_last: bool,
    ) -> None:
        super().__init__()
        self.is_first, self.is_last = kind == "A", is_last
        self.radius = kernel_size // 2
        # The first layer turns pixels into "the rows above", and so leaves the pixel's own row
        # out; later layers read features that are about the rows above already.
        self.rows = self.radius if self.is_first else self.radius + 1
        self.vertical = nn.Conv2d(
            in_channels, 2 * channels, (self.rows, kernel_size), padding=(0, self.radius)
        )
        self.horizontal = MaskedConv2d(
            kind,
            in_channels,
            2 * channels,
            kernel_size,
            n_colours=n_colours,
            n_gates=2,
            rows_above=0,
        )
        self.link = nn.Conv2d(2 * channels, 2 * channels, 1)
        if not is_last:
            self.residual = MaskedConv2d("B", channels, channels, 1, n_colours=n_colours)
        self.skip = MaskedConv2d("B", channels, channels, 1, n_colours=n_colours)
        self.dropout = nn.Dropout2d(dropout)
        self.condition = None if n_classes is None else nn.Embedding(n_classes, 4 * channels)

    def forward(
        self, vertical: Tensor, horizontal: Tensor, labels: Tensor | None
    ) -> tuple[Tensor | None, Tensor | None, Tensor]:
        """Map both stacks, each ``(N, in, H, W)``, to themselves and a term of the skip sum."""
        # Padded above; the first layer's last row is read by nobody, and left out.
        v = self.vertical(F.pad(vertical, (0, 0, self.radius, self.rows - 1 - self.radius)))
        v, h = self.add_condition(v, self.horizontal(horizontal), labels)
        h = self.dropout(gated_unit(h + self.link(v)))
        if self.is_last:
            return None, None, self.skip(h)
        residual = self.residual(h)
        if not self.is_first:  # the first input holds the pixel itself
            residual = residual + horizontal
        return self.dropout(gated_unit(v)), residual, self.skip(h)

    def add_condition(self, v: Tensor, h: Tensor, labels: Tensor | None) -> tuple[Tensor, Tensor]:
        """Add the class to the pre-activations of both stacks, at every pixel alike."""
        if self.condition is None:
            return v, h
        to_v, to_h = self.condition(labels)[:, :, None, None].chunk(2, 1)
        return v + to_v, h + to_h
