"""Parts of the models that read an image row by row, pixel by pixel, colour by colour."""

from collections.abc import Sequence
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from course_lib.autoregressive.base import Autoregressive
from course_lib.autoregressive.masks import pixelcnn_mask
from course_lib.distributions import GreyLevels
from course_lib.inputs import (
    require_dropout,
    require_image_shape,
    require_positive_integer,
)
from course_lib.saved_settings import SavedSettings


class MaskedConv2d(SavedSettings, nn.Conv2d):
    """A convolution that sees the past of raster order only, at stride 1 and constant size.

    The weight is stored whole and masked when it is used; rows below the centre, which the mask
    leaves nothing of, are not computed.

    Args:
        kind: ``"A"`` or ``"B"``, see `course_lib.autoregressive.masks.pixelcnn_mask`.
        in_channels: features read.
        out_channels: features written.
        kernel_size: width of the kernel, odd.
        n_colours: number of channels of the image.
        n_gates: number of gates that `out_channels` is made of.
        rows_above: rows of the kernel above the centre; half of `kernel_size` if not given.
    """

    mask: Tensor

    def __init__(
        self,
        kind: str,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        *,
        n_colours: int = 1,
        n_gates: int = 1,
        rows_above: int | None = None,
    ) -> None:
        out_channels = require_positive_integer(out_channels, "the number of channels")
        self.radius = kernel_size // 2
        self.rows_above = self.radius if rows_above is None else rows_above
        super().__init__(in_channels, out_channels, (self.rows_above + 1, kernel_size))
        self.kind, self.n_colours, self.n_gates = kind, n_colours, n_gates
        mask = pixelcnn_mask(
            kind, kernel_size, in_channels, out_channels, n_colours=n_colours, n_gates=n_gates
        )
        first = self.radius - self.rows_above
        mask = mask[:, :, first : self.radius + 1].to(self.weight.dtype)
        self.register_buffer("mask", mask, persistent=False)
        self.is_masked = not mask.all()  # a 1×1 kernel of kind B on a grey image hides nothing
        with torch.no_grad():  # the usual width of initial weights, for the inputs that are left
            self.weight *= (mask[0].numel() / mask.flatten(1).sum(1).clamp(min=1)).sqrt().mean()

    def settings(self) -> dict[str, object]:
        """What the mask, which is not in the state dict, depends on."""
        return {"kind": self.kind, "n_colours": self.n_colours, "n_gates": self.n_gates}

    def masked_weight(self) -> Tensor:
        """The weight in use, shape ``(out, in, rows_above + 1, kernel_size)``."""
        return self.weight * self.mask if self.is_masked else self.weight

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(N, in, H, W)`` to ``(N, out, H, W)``."""
        weight = self.masked_weight()
        # Padded where the past is, so that nothing has to be cut off afterwards.
        if self.rows_above:
            x = F.pad(x, (0, 0, self.rows_above, 0))
            return F.conv2d(x, weight, self.bias, padding=(0, self.radius))
        if self.radius:  # without rows above, nothing right of the centre is left either
            x, weight = F.pad(x, (self.radius, 0)), weight[..., : self.radius + 1]
        return F.conv2d(x, weight, self.bias)


class Head(nn.Module):
    """From features to the distribution's parameters: two 1×1 convolutions, each after a ReLU.

    Args:
        channels: number of features.
        n_colours: number of channels C of the image.
        n_parameters: number P of parameters of the distribution.
    """

    def __init__(self, channels: int, n_colours: int, n_parameters: int) -> None:
        super().__init__()
        self.n_colours = n_colours
        self.hidden = MaskedConv2d("B", channels, channels, 1, n_colours=n_colours)
        self.output = MaskedConv2d("B", channels, n_colours * n_parameters, 1, n_colours=n_colours)

    def forward(self, features: Tensor) -> Tensor:
        """Map ``(N, channels, H, W)`` to ``(N, C, H, W, P)``."""
        parameters = self.output(F.relu(self.hidden(F.relu(features))))  # (N, C·P, H, W)
        return parameters.unflatten(1, (self.n_colours, -1)).movedim(2, -1)


class RasterModel(Autoregressive):
    """Base of the models of images in raster order: rows, then columns, then colours.

    A subclass writes ``forward`` and `_build`.

    Args:
        event_shape: ``(C, H, W)``; colours are generated in the order of the channels.
        levels: number K of grey levels.
        channels: number of features.
        n_layers: number of layers; what is usual for the model, if not given.
        kernel_size: of the first layer; 7, or less for small images, if not given.
        dropout: share of features dropped in training, each for a whole image.
        n_classes: number of classes, for a model that can be conditional.
        distribution: of one entry; if none is given, Bernoulli for two levels and categorical for
            more.

    Attributes:
        usual_layers: number of layers, if not given.
        can_be_conditional: whether there are models of p(x|label) of this kind.

    Raises:
        TypeError: `n_classes` is given to a model that cannot be conditional.
        ValueError: `event_shape` is not that of an image, the image is smaller than the reach of
            `kernel_size`, or an argument is out of range.
    """

    usual_layers: ClassVar[int]
    can_be_conditional: ClassVar[bool] = False

    def __init__(
        self,
        event_shape: Sequence[int],
        levels: int,
        *,
        channels: int = 32,
        n_layers: int | None = None,
        kernel_size: int | None = None,
        dropout: float = 0.0,
        n_classes: int | None = None,
        distribution: GreyLevels | None = None,
    ) -> None:
        require_image_shape(event_shape, advice="For a grey image write (1, H, W).")
        if n_classes is not None and not self.can_be_conditional:
            raise TypeError(
                f"n_classes is {n_classes}, and a {type(self).__name__} has no classes; leave it out, or "
                f"use GatedPixelCNN."
            )
        super().__init__(event_shape, levels, distribution, n_classes)
        colours_last = self.order.view(self.event_shape).permute(1, 2, 0)
        self.order = colours_last.flatten().contiguous()
        n_layers = self.usual_layers if n_layers is None else n_layers
        n_layers = require_positive_integer(n_layers, "n_layers")
        channels = require_positive_integer(channels, "the number of channels")
        size = first_kernel_size(kernel_size, self.event_shape)
        self._build(channels, n_layers, size, require_dropout(dropout))

    def _build(self, channels: int, n_layers: int, kernel_size: int, dropout: float) -> None:
        """Make the layers."""
        raise NotImplementedError


def first_kernel_size(kernel_size: int | None, event_shape: Sequence[int], default: int = 7) -> int:
    """The size of a first kernel: as given if it fits the image, else the default cut to fit.

    Args:
        kernel_size: what the caller asked for, or None.
        event_shape: ``(C, H, W)``.
        default: the size to take when none is given.

    Raises:
        ValueError: it is even or below 3, or reaches further than the image is large.
    """
    longest = max(event_shape[1:])
    if kernel_size is None:
        return max(3, min(default, 2 * longest - 1))
    kernel_size = require_positive_integer(kernel_size, "kernel_size")
    if kernel_size < 3 or kernel_size % 2 == 0:
        raise ValueError(
            f"kernel_size is {kernel_size}; an odd number of at least 3 is expected: the first "
            f"layer leaves its centre out, and would see nothing else."
        )
    if kernel_size // 2 >= longest:
        raise ValueError(
            f"kernel_size is {kernel_size}, and the image of {event_shape[1]}×{event_shape[2]} "
            f"pixels is smaller than its reach: the outer weights would never see a pixel. "
            f"Pass at most {max(3, 2 * longest - 1)}, leave it out, or use larger images."
        )
    return kernel_size
