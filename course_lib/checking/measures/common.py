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


def ask_each(
    query: Callable[[Tensor], Tensor],
    points: Tensor,
    generator: torch.Generator,
    what: str,
    *,
    tolerance: float = 1e-3,
    share: float = 1.0,
) -> Tensor:
    """Ask a function at points, and require that it answers each point for itself.

    First at a few of them, then at all, each time in a random order: an answer that comes from the
    place in the batch, from the other points or from chance is another one the second time.

    Args:
        query: answers a batch of points, row by row.
        points: the points, shape ``(N, ...)``.
        generator: draws the orders.
        what: names the function in a message, for instance ``"decode(z)"``.
        tolerance: the largest difference of two answers, relative to 1 + their size.
        share: of the points, how many must agree.

    Returns:
        The answers in the order of `points`.

    Raises:
        Invalid: it does not; the message says what the answer depends on besides its point.
    """

    def agree(given: Tensor, right: Tensor) -> bool:
        error = ((given - right).abs() / (1 + right.abs())).flatten(1).amax(1)
        return (error <= tolerance).double().mean().item() >= share

    n = len(points)
    few = torch.randperm(n, generator=generator)[: max(2, n // 7)]
    order = torch.randperm(n, generator=generator)
    alone = query(points[few])
    shuffled = query(points[order])
    answers = shuffled[order.argsort()]
    if agree(alone, answers[few]):
        return answers
    if not agree(query(points[order]), shuffled):
        raise Invalid(
            f"{what} gives other answers when it is asked the same again: something in it is random "
            "(dropout in training mode? call .eval() on the trained model) or remembers earlier calls"
        )
    if agree(query(points[order.flip(0)]).flip(0), shuffled):
        raise Invalid(
            f"{what} depends on the other points of its batch, as batch normalization does in "
            "training mode: call .eval() on the trained model"
        )
    raise Invalid(
        f"{what} depends on the place in the batch: each row must be computed from its own input alone"
    )


def walks(starts: Tensor, ends: Tensor, steps: int) -> Tensor:
    """Points on the segments from `starts` to `ends`, both ``(W, d)``: shape ``(steps + 1, W, d)``."""
    t = torch.linspace(0, 1, steps + 1, dtype=starts.dtype)[:, None, None]
    return starts + t * (ends - starts)
