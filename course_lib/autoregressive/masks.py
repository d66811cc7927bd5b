"""Masks: which input each weight may see.

A mask is a constant of zeros and ones that multiplies a weight whenever it is used. The weight
itself is never overwritten, so that optimizers, averages and checkpoints see ordinary parameters.
"""

import torch
from torch import Tensor

from course_lib.inputs import require_positive_integer
from course_lib.masked import made_mask


def channel_groups(n: int, n_groups: int) -> Tensor:
    """The colour that each of `n` features belongs to, in equal runs and ascending order.

    Args:
        n: number of features.
        n_groups: number of colours.

    Returns:
        Groups 0 … n_groups−1 in ascending order, int64, shape ``(n,)``.
    """
    return torch.arange(n) * n_groups // n


def pixelcnn_mask(
    kind: str,
    kernel_size: int,
    in_channels: int = 1,
    out_channels: int = 1,
    *,
    n_colours: int = 1,
    n_gates: int = 1,
) -> Tensor:
    """Mask of a convolution that reads an image in raster order (``eq-pixelcnn-mask``).

    Above the centre row everything is read; in the centre row what lies to the left; right of
    it and below, nothing. At the centre itself colours come in order, red before green before blue:
    a feature of colour g reads features of colours before g (kind A, for the first layer, which
    reads the pixel itself) or up to g (kind B, for all later ones).

    Source: van den Oord, Kalchbrenner and Kavukcuoglu (2016).

    Args:
        kind: ``"A"`` or ``"B"``.
        kernel_size: height and width of the kernel, odd.
        in_channels: number of features that are read, in equal runs of colours.
        out_channels: number of features that read, for each gate in equal runs of colours.
        n_colours: number of channels of the image.
        n_gates: number of gates that `out_channels` is made of.

    Returns:
        Zeros and ones, shape ``(out_channels, in_channels, kernel_size, kernel_size)``.

    Raises:
        ValueError: `kind` is another one, or `kernel_size` is even.
    """
    if kind not in ("A", "B"):
        raise ValueError(f"kind is {kind!r}; 'A' (first layer) or 'B' (later layers) is expected.")
    kernel_size = require_positive_integer(kernel_size, "kernel_size")
    if kernel_size % 2 == 0:
        raise ValueError(f"kernel_size is {kernel_size}; an odd number is expected.")
    radius = kernel_size // 2
    read = channel_groups(in_channels, n_colours)
    readers = channel_groups(out_channels // n_gates, n_colours).repeat(n_gates)
    mask = torch.zeros(out_channels, in_channels, kernel_size, kernel_size)
    mask[:, :, :radius] = 1
    mask[:, :, radius, :radius] = 1
    mask[:, :, radius, radius] = made_mask(read, readers, strict=kind == "A")
    return mask
