"""Transformer: causal self-attention over the pixels of an image."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from course_lib.attention import AttentionBlock
from course_lib.autoregressive.base import Autoregressive
from course_lib.autoregressive.raster import MaskedConv2d, first_kernel_size
from course_lib.distributions import GreyLevels
from course_lib.inputs import (
    require_dropout,
    require_image_shape,
    require_positive_integer,
)


class Transformer(Autoregressive):
    """Causal self-attention over pixels: the mask of MADE between places, and not between units.

    Token i holds what is known of pixel i before it is drawn: its place, the value drawn just before it and
    its close neighbours in the past. A layer lets token i read the tokens up to i (``eq-causal-attention``),
    with weights that depend on the image. So every pixel of the past is one step away, however far it is.

    Source: Vaswani et al., "Attention is all you need" (2017); for images Parmar et al., "Image transformer"
    (2018), and Chen et al., "Generative pretraining from pixels" (2020).

    Args:
        event_shape: ``(C, H, W)``; colours are generated in the order of the channels.
        levels: number K of grey levels.
        width: number of features of a token.
        heads: number of heads, which divides `width`.
        n_layers: number of layers.
        key_value_heads: number of different keys and values, which several heads may share; as many as heads
            if not given. The sampler keeps them of all pixels, and reads them at every step.
        kernel_size: of the convolution that shows each token its close past; 5, or less for small images,
            if not given.
        dropout: share of features dropped in training.
        n_classes: number of classes for p(x|label); None for p(x).
        distribution: of one entry; if none is given, Bernoulli for two levels and categorical for
            more.

    Raises:
        ValueError: `event_shape` is not that of an image, `heads` does not divide `width`, or an argument is
            out of range.

    Example:
        >>> model = Transformer((1, 8, 8), 17, n_classes=10)
        >>> model.sample(2, labels=torch.tensor([3, 5])).shape
        torch.Size([2, 1, 8, 8])
    """

    def __init__(
        self,
        event_shape: Sequence[int],
        levels: int,
        *,
        width: int = 64,
        heads: int = 4,
        n_layers: int = 2,
        key_value_heads: int | None = None,
        kernel_size: int | None = None,
        dropout: float = 0.0,
        n_classes: int | None = None,
        distribution: GreyLevels | None = None,
    ) -> None:
        require_image_shape(event_shape, advice="For a grey image write (1, H, W).")
        super().__init__(event_shape, levels, distribution, n_classes)
        colours, height, columns = self.event_shape
        colours_last = self.order.view(self.event_shape).permute(1, 2, 0)
        self.order = colours_last.flatten().contiguous()
        width = require_positive_integer(width, "width")
        n_layers = require_positive_integer(n_layers, "n_layers")
        dropout = require_dropout(dropout)
        self.value = nn.Linear(1, width, bias=False)
        size = first_kernel_size(kernel_size, self.event_shape, default=5)
        self.near = MaskedConv2d("A", colours, colours * width, size, n_colours=colours)
        self.row = nn.Parameter(0.02 * torch.randn(height, 1, 1, width))
        self.column = nn.Parameter(0.02 * torch.randn(columns, 1, width))
        self.colour = nn.Parameter(0.02 * torch.randn(colours, width))
        self.label = None if n_classes is None else nn.Embedding(self.n_classes, width)
        self.dropout = nn.Dropout(dropout)
        self.blocks = nn.ModuleList(
            AttentionBlock(
                width, heads, causal=True, dropout=dropout, key_value_heads=key_value_heads
            )
            for _ in range(n_layers)
        )
        self.norm = nn.LayerNorm(width)
        self.output = nn.Linear(width, self.distribution.n_parameters)
        if self.label is not None:
            nn.init.normal_(self.label.weight, std=0.02)

    def forward(self, x: Tensor, labels: Tensor | None = None) -> Tensor:
        """Parameters of all conditionals, shape ``(N, C, H, W, P)``, for grey levels `x`."""
        h = self.dropout(self.tokens(x, labels))  # (N, D, width), in the order of generation
        for block in self.blocks:
            h = block(h)
        parameters = self.output(self.norm(h))
        colours, height, width = self.event_shape
        return parameters.unflatten(1, (height, width, colours)).movedim(3, 1)

    def tokens(self, x: Tensor, labels: Tensor | None) -> Tensor:
        """What each pixel is told of its past before the layers, shape ``(N, D, width)``."""
        encoded = self.encode(x)
        # Moved on by one place: pixel i is told the value before it, and the first one that of none.
        before = F.pad(encoded.flatten(1)[:, self.order[:-1]], (1, 0))
        told = self.value(before.unsqueeze(-1))
        near = self.near(encoded).unflatten(1, (self.event_shape[0], -1))  # (N, C, width, H, W)
        told = told + near.permute(0, 3, 4, 1, 2).flatten(1, 3)
        told = told + (self.row + self.column + self.colour).flatten(0, 2)
        return told if labels is None else told + self.label(labels).unsqueeze(1)
