"""Checks of what a caller passes in.

Every message says what was given, what was expected and how to fix it. Nothing here is an
`assert`: asserts vanish under ``python -O`` and say nothing to the person who reads them.
"""

from collections.abc import Sequence

import torch
from torch import Tensor


def require_batch(x: Tensor, event_shape: Sequence[int], name: str = "x") -> None:
    """Require a non-empty floating-point batch of shape ``(N, *event_shape)``, free of NaN.

    Args:
        x: what was given.
        event_shape: the shape of one example.
        name: what to call `x` in the message.

    Raises:
        TypeError: `x` is no tensor, or not of a floating-point type.
        ValueError: the shape is another one, the batch is empty, or it holds NaN or infinity.
    """
    require_tensor(x, name)
    if not x.is_floating_point():
        raise TypeError(
            f"{name} has dtype {x.dtype}; a floating-point tensor is expected. Convert grey levels "
            f"with course_lib.data.intensities(x, levels), or call {name}.float()."
        )
    require_shape(x, event_shape, name)
    # A finite sum has finite terms, and is much cheaper to look at; a sum may overflow, though.
    if not torch.isfinite(x.sum()) and not torch.isfinite(x).all():
        bad = (~torch.isfinite(x)).flatten(1).any(1).nonzero()[0].item()
        raise ValueError(
            f"{name} holds NaN or infinity (first in example {bad}); finite values are expected. "
            f"Clean the data before it reaches the model."
        )


def require_tensor(x: object, name: str = "x") -> None:
    """Require a `torch.Tensor`; raise `TypeError` otherwise."""
    if not isinstance(x, Tensor):
        raise TypeError(
            f"{name} is a {type(x).__name__}; a torch.Tensor is expected. "
            f"Convert it with torch.as_tensor({name})."
        )


def require_shape(x: Tensor, event_shape: Sequence[int], name: str = "x") -> None:
    """Require shape ``(N, *event_shape)`` with N ≥ 1; raise `ValueError` otherwise."""
    event_shape = tuple(event_shape)
    expected = "(N, " + ", ".join(map(str, event_shape)) + ")"
    if tuple(x.shape) == event_shape:
        raise ValueError(
            f"{name} has shape {tuple(x.shape)}, one example without its batch dimension; "
            f"{expected} is expected. Add it with {name}.unsqueeze(0)."
        )
    if x.dim() != 1 + len(event_shape) or tuple(x.shape[1:]) != event_shape:
        raise ValueError(
            f"{name} has shape {tuple(x.shape)}; {expected} is expected. "
            f"Reshape the data, or build the model with event_shape={tuple(x.shape[1:])}."
        )
    if x.shape[0] == 0:
        raise ValueError(
            f"{name} is an empty batch of shape {tuple(x.shape)}; at least one example is "
            f"expected. Check the slice or filter that produced it."
        )


def require_unit_interval(x: Tensor, name: str = "x") -> None:
    """Require a non-empty tensor of values in [0, 1], none of them NaN; raise `ValueError` otherwise."""
    if x.numel() == 0:
        raise ValueError(f"{name} is empty, of shape {tuple(x.shape)}; values are expected.")
    low, high = (value.item() for value in x.aminmax())
    if not (low >= 0 and high <= 1):  # written so that NaN is caught too
        raise ValueError(
            f"{name} has values in [{low:.4g}, {high:.4g}]; values in [0, 1] are expected. Divide "
            f"grey levels by their largest with course_lib.data.intensities(x, levels); if it says "
            f"NaN, clean the data first."
        )


def require_levels(x: Tensor, levels: int, name: str = "x") -> None:
    """Require integer grey levels 0 … levels−1.

    Raises:
        TypeError: the tensor is not of an integer type.
        ValueError: a value lies outside 0 … levels−1.
    """
    require_tensor(x, name)
    if x.is_floating_point() or x.is_complex() or x.dtype == torch.bool:
        raise TypeError(
            f"{name} has dtype {x.dtype}; integer grey levels 0 … {levels - 1} are expected. "
            f"Pass the data set as it is loaded, before intensities() or dequantize()."
        )
    if x.numel() == 0:
        return
    low, high = (value.item() for value in x.aminmax())
    if low < 0 or high > levels - 1:
        raise ValueError(
            f"{name} has levels {low} … {high}; 0 … {levels - 1} are expected. "
            f"Use the number of levels of the data set (dataset.levels)."
        )


def require_positive_integer(value: int, name: str) -> None:
    """Require an integer of at least 1.

    Raises:
        TypeError: `value` is not an integer.
        ValueError: `value` is smaller than 1.
    """
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name} is {value!r}; an integer of at least 1 is expected.")
    if value < 1:
        raise ValueError(f"{name} is {value}; an integer of at least 1 is expected.")
