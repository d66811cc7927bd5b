"""Masks of coupling layers: which entries pass unchanged (true) and which are transformed."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from course_lib.inputs import require_event_shape, require_image_shape, require_tensor


def half_mask(event_shape: Sequence[int], flip: bool = False) -> Tensor:
    """The first half of the entries, in the order of the flattened event.

    Args:
        event_shape: shape of one x.
        flip: exchange true and false; successive layers must alternate.

    Returns:
        A boolean mask of shape `event_shape`.

    Raises:
        ValueError: there is only one entry, so that nothing is left to condition on.
    """
    size = _size(event_shape)
    return ((torch.arange(size) < size // 2) != flip).reshape(*event_shape)


def alternating_mask(event_shape: Sequence[int], flip: bool = False) -> Tensor:
    """Every other entry, in the order of the flattened event.

    Args:
        event_shape: shape of one x.
        flip: exchange true and false; successive layers must alternate.

    Returns:
        A boolean mask of shape `event_shape`.

    Raises:
        ValueError: there is only one entry, so that nothing is left to condition on.
    """
    size = _size(event_shape)
    return (torch.arange(size) % 2 == int(flip)).reshape(*event_shape)


def checkerboard_mask(event_shape: Sequence[int], flip: bool = False) -> Tensor:
    """The squares of one colour: neighbours of a transformed pixel are known.

    Args:
        event_shape: shape ``(C, H, W)`` of one x, with H and W even.
        flip: exchange true and false; successive layers must alternate.

    Returns:
        A boolean mask of shape `event_shape`.

    Raises:
        ValueError: not an image, or a side is odd.
    """
    # Even sides: both colours of the checkerboard have equally many squares.
    advice = "Pad or crop the images by one pixel; for vectors there is alternating_mask."
    channels, height, width = require_image_shape(event_shape, multiple=2, advice=advice)
    row, column = torch.arange(height)[:, None], torch.arange(width)[None, :]
    return ((row + column) % 2 == int(flip)).expand(channels, height, width).clone()


def channel_mask(event_shape: Sequence[int], flip: bool = False) -> Tensor:
    """The first half of the channels.

    Args:
        event_shape: shape ``(C, H, W)`` of one x, with C even.
        flip: exchange true and false; successive layers must alternate.

    Returns:
        A boolean mask of shape `event_shape`.

    Raises:
        ValueError: not an image, or the number of channels is odd.
    """
    channels, height, width = require_image_shape(event_shape)
    if channels % 2:
        raise ValueError(
            f"event_shape is {tuple(event_shape)}, with {channels} channels; an even number is "
            f"expected. Put a Squeeze before it, which turns C channels into 4C."
        )
    first = torch.arange(channels) < channels // 2
    return (first != flip)[:, None, None].expand(channels, height, width).clone()


def require_mask(mask: Tensor) -> None:
    """Require a boolean mask with both values; raise `TypeError` or `ValueError` otherwise."""
    require_tensor(mask, "mask")
    if mask.dtype != torch.bool:
        raise TypeError(f"mask has dtype {mask.dtype}; a boolean mask is expected. Call .bool().")
    if mask.all() or not mask.any():
        value = "true" if mask.all() else "false"
        raise ValueError(
            f"mask is {value} everywhere; both values are expected: true for entries that pass "
            f"unchanged, false for those transformed given them. Use alternating_mask, "
            f"checkerboard_mask or channel_mask."
        )


def _size(event_shape: Sequence[int]) -> int:
    size = math.prod(require_event_shape(event_shape))
    if size < 2:
        raise ValueError(
            f"event_shape is {tuple(event_shape)}; at least two entries are expected, since a "
            f"coupling transforms some entries given the others. Use ElementwiseAffine for one."
        )
    return size
