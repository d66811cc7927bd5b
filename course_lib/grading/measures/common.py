"""What every measure shares: the data, the result, and how an answer is read."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from course_lib.data import Dataset, digits

Ask = Callable[..., dict[str, np.ndarray]]


class Invalid(ValueError):
    """The answers define no valid model; the message says why."""


@dataclass(frozen=True)
class Measurement:
    """A measured number, with its unit; lower is better.

    Attributes:
        value: the number.
        unit: what it counts, for instance ``"nats per image"``.
        suspicious: set when the number is better than an honest model of this size reaches, so
            that an instructor looks at it (trained on the test images, for instance).
    """

    value: float
    unit: str
    suspicious: bool = False


def binary_digits(split: str) -> Tensor:
    """Digits with every pixel set to 1 where its level is at least 8: float64, ``(N, 64)``."""
    return (images(split).flatten(1) >= 8).double()


def images(split: str) -> Tensor:
    """Grey levels 0 … 16 of a split of the digits, uint8, shape ``(N, 1, 8, 8)``."""
    data: Dataset = digits()
    return {"train": data.train, "validation": data.validation, "test": data.test}[split]


def one_array(arrays: dict[str, np.ndarray], shape: tuple[int, ...], what: str) -> Tensor:
    """The one array that was answered, as float64.

    Raises:
        Invalid: several results, another shape, or values that are not finite.
    """
    if set(arrays) != {""}:
        raise Invalid(f"{what} must return one tensor of shape {shape}")
    array: Any = arrays[""]
    if array.shape != shape:
        raise Invalid(f"{what} has shape {array.shape}; {shape} is expected")
    if array.dtype.kind not in "biuf" or not np.isfinite(array).all():
        raise Invalid(f"{what} holds values that are no finite real numbers")
    return torch.from_numpy(array.astype(np.float64))
