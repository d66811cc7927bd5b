"""Checks of what a caller passes in.

Every message says what was given, what was expected and how to fix it. Nothing here is an
`assert`: asserts vanish under ``python -O`` and say nothing to the person who reads them.
"""

import math
import operator
import os
import reprlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor, nn

from course_lib.precision import parameter_type


@contextmanager
def where_values_can_be_read() -> Iterator[None]:
    """Leave out the block where a tensor has no values: under ``torch.func.vmap``, and on the device meta."""
    try:
        yield
    except RuntimeError as error:
        if not str(error).startswith(("vmap", "Tensor.item() cannot be called on meta")):
            raise


def require_batch(
    x: Tensor, event_shape: Sequence[int], name: str = "x", *, model: nn.Module | None = None
) -> None:
    """Require a non-empty floating-point batch of shape ``(N, *event_shape)``, free of NaN.

    Args:
        x: what was given.
        event_shape: the shape of one example.
        name: what to call `x` in the message.
        model: whose parameters must have the type of `x`; not asked if None, or under autocast.

    Raises:
        TypeError: `x` is not a tensor, not of a floating-point type, or of another than `model`.
        ValueError: the shape is another one, the batch is empty, or it holds NaN or infinity.
    """
    require_floating(x, name)
    own = x.dtype if model is None else parameter_type(model)
    if own not in (None, x.dtype) and not torch.is_autocast_enabled(x.device.type):
        raise TypeError(
            f"{name} has dtype {x.dtype} and the model's parameters {own}; the same is "
            f"expected. Call .to({own}) on {name}, or .to({x.dtype}) on the model."
        )
    require_shape(x, event_shape, name)
    with where_values_can_be_read():
        # A finite sum has finite terms, and is much cheaper to look at; a sum may overflow, though.
        if not math.isfinite(x.sum().item()) and not torch.isfinite(x).all():
            bad = (~torch.isfinite(x)).flatten(1).any(1).nonzero()[0].item()
            raise ValueError(
                f"{name} holds NaN or infinity (first in example {bad}); finite values are expected. "
                f"Clean the data before it reaches the model."
            )


def require_tensor(x: object, name: str = "x") -> None:
    """Require a dense `torch.Tensor`; raise `TypeError` otherwise."""
    if not isinstance(x, Tensor):
        raise TypeError(
            f"{name} is a {type(x).__name__}; a torch.Tensor is expected. "
            f"Convert it with torch.as_tensor({name})."
        )
    if x.layout is not torch.strided:
        raise TypeError(
            f"{name} has the layout {x.layout}; a dense tensor is expected. Call .to_dense() on it."
        )


def require_floating(x: Tensor, name: str = "x") -> None:
    """Require a tensor of a floating-point type; raise `TypeError` otherwise."""
    require_tensor(x, name)
    if not x.is_floating_point():
        raise TypeError(
            f"{name} has dtype {x.dtype}; a floating-point tensor is expected. Convert grey levels "
            f"with course_lib.data.intensities(x, levels), or call .float() on it."
        )


def require_floating_type(dtype: torch.dtype, name: str = "dtype") -> None:
    """Require a type of floating-point numbers; raise `TypeError` otherwise."""
    if not isinstance(dtype, torch.dtype) or not dtype.is_floating_point:
        raise TypeError(
            f"{name} is {dtype!r}; a floating-point type such as torch.float32 is expected."
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
            f"Reshape it, or build the model for examples of shape {tuple(x.shape[1:])}."
        )
    if x.shape[0] == 0:
        raise ValueError(
            f"{name} is an empty batch of shape {tuple(x.shape)}; at least one example is "
            f"expected. Check the slice or filter that produced it."
        )


def require_exact_shape(x: Tensor, shape: Sequence[int], name: str = "x") -> Tensor:
    """Require a tensor of one shape and no other, so that nothing broadcasts by accident; return it.

    It is for what a caller's function returned.

    Raises:
        TypeError: `x` is not a tensor.
        ValueError: the shape is another one.
    """
    require_tensor(x, name)
    if x.shape != torch.Size(shape):
        raise ValueError(
            f"{name} has shape {tuple(x.shape)}; {tuple(shape)} is expected, no other that broadcasts."
        )
    return x


def require_unit_interval(x: Tensor, name: str = "x") -> None:
    """Require a non-empty tensor of values in [0, 1], none of them NaN; raise `ValueError` otherwise."""
    if x.numel() == 0:
        raise ValueError(f"{name} is empty, of shape {tuple(x.shape)}; values are expected.")
    with where_values_can_be_read():
        low, high = (value.item() for value in x.aminmax())
        if not (low >= 0 and high <= 1):  # written so that NaN is caught too
            raise ValueError(
                f"{name} has values in [{low:.4g}, {high:.4g}]; values in [0, 1] are expected. "
                f"Divide grey levels by their largest with course_lib.data.intensities(x, levels); "
                f"if it says NaN, clean the data first."
            )


# Types that PyTorch can hold and index, but neither compare nor add.
BARE_INTEGERS = (torch.uint16, torch.uint32, torch.uint64)


def require_levels(x: Tensor, levels: int, name: str = "x") -> Tensor:
    """Require integer grey levels 0 … levels−1.

    Returns:
        The levels in a type that every operation takes, which is int64 where PyTorch has few for
        the given one.

    Raises:
        TypeError: the tensor is not of an integer type.
        ValueError: `levels` is below 1, or a value lies outside 0 … levels−1.
    """
    levels = require_positive_integer(levels, "levels")
    require_tensor(x, name)
    if x.dtype == torch.bool:
        raise TypeError(
            f"{name} has dtype {x.dtype}; integer grey levels 0 … {levels - 1} are expected. "
            f"Call .to(torch.uint8) on it."
        )
    if x.is_floating_point() or x.is_complex():
        raise TypeError(
            f"{name} has dtype {x.dtype}; integer grey levels 0 … {levels - 1} are expected. "
            f"Pass the data set as it is loaded, before intensities() or dequantize()."
        )
    if x.dtype in BARE_INTEGERS:
        x = x.to(torch.int64)
    if x.numel() == 0:
        return x
    with where_values_can_be_read():
        low, high = (value.item() for value in x.aminmax())
        if low < 0 or high > levels - 1:
            raise ValueError(
                f"{name} has levels {low} … {high}; 0 … {levels - 1} are expected. "
                f"Use the number of levels of the data set (dataset.levels)."
            )
    return x


def require_labels(labels: Tensor | None, n: int, n_classes: int | None) -> Tensor | None:
    """Require labels exactly where a model has classes: one for each of n examples.

    Returns:
        The labels as int64, the type that an embedding reads; None without classes.

    Raises:
        TypeError: the labels are not a tensor of an integer type.
        ValueError: labels are missing, unwanted, of another shape, or outside 0 … n_classes−1.
    """
    if n_classes is None:
        if labels is not None:
            raise ValueError(
                "labels were given to a model without classes; leave them out, or build the "
                "model with n_classes."
            )
        return None
    if labels is None:
        raise ValueError(
            f"the model is conditional and no labels were given; classes "
            f"0 … {n_classes - 1} of shape ({n},) are expected."
        )
    labels = require_levels(labels, n_classes, "labels")
    require_shape(labels, (), "labels")
    if len(labels) != n:
        raise ValueError(f"labels has {len(labels)} entries for {n} examples; {n} are expected.")
    return labels.long()


def require_integer(value: int, name: str, expected: str = "an integer") -> int:
    """Require an integer of any library, and return it as Python's own.

    NumPy's integers and a tensor with one integer are as good as Python's: ``x.max() + 1`` is one.

    Args:
        value: what was given.
        name: what to call it in the message.
        expected: what to call what is expected.

    Raises:
        TypeError: `value` is not an integer. True and False are not.
    """
    try:
        if isinstance(value, bool) or getattr(value, "dtype", None) == torch.bool:
            raise TypeError
        return operator.index(value)
    except TypeError:
        given = reprlib.repr(value)  # of a whole data set, its beginning
        raise TypeError(f"{name} is {given}; {expected} is expected.") from None


def require_count(value: int, name: str, *, at_least: int = 0) -> int:
    """Require a number of things, an integer of at least `at_least`, and return it as Python's own.

    Raises:
        TypeError: `value` is not an integer.
        ValueError: `value` is smaller.
    """
    expected = f"an integer of at least {at_least}"
    number = require_integer(value, name, expected)
    if number < at_least:
        raise ValueError(f"{name} is {number}; {expected} is expected.")
    return number


def require_positive_integer(value: int, name: str) -> int:
    """Require an integer of at least 1, and return it as Python's own; see `require_count`."""
    return require_count(value, name, at_least=1)


def require_event_shape(event_shape: Sequence[int], name: str = "event_shape") -> tuple[int, ...]:
    """Require the shape of one example, a sequence of positive sizes, and return it as a tuple.

    Raises:
        TypeError: it is not a sequence, or an entry is not an integer.
        ValueError: it is empty, or an entry is below 1.
    """
    expected = (
        "a sequence of sizes is expected, such as (1, 8, 8) for grey images, or (64,) for vectors"
    )
    event_shape = _require_sizes(event_shape, name, expected)
    if not event_shape:
        raise ValueError(f"{name} is empty; the shape of one example is expected.")
    return event_shape


def require_image_shape(
    event_shape: Sequence[int], *, multiple: int = 1, at_least: int = 1, advice: str = ""
) -> tuple[int, int, int]:
    """Require the shape ``(C, H, W)`` of one image, and return it.

    Args:
        event_shape: what was given.
        multiple: what divides H and W.
        at_least: the least H and W.
        advice: what to do otherwise, a sentence for the message.

    Raises:
        TypeError: it is not a sequence, or an entry is not an integer.
        ValueError: it has other than three entries, or H and W are not as expected.
    """
    event_shape = require_event_shape(event_shape)
    sides = event_shape[1:]
    if len(event_shape) != 3 or any(side % multiple or side < at_least for side in sides):
        kinds = {1: "", 2: " with even H and W"}
        kind = kinds.get(multiple, f" with H and W multiples of {multiple}")
        kind += f" with sides of at least {at_least}" if at_least > 1 else ""
        message = f"event_shape is {event_shape}; (C, H, W){kind} is expected. {advice}"
        raise ValueError(message.rstrip())
    return event_shape


def require_widths(hidden: Sequence[int], name: str = "hidden") -> tuple[int, ...]:
    """Require the widths of hidden layers, positive integers and maybe none; return them as a tuple.

    Raises:
        TypeError: it is not a sequence, or an entry is not an integer.
        ValueError: an entry is below 1.
    """
    expected = "a sequence of integers is expected, such as (500,) for one layer"
    return _require_sizes(hidden, name, expected)


def _require_sizes(sizes: Sequence[int], name: str, expected: str) -> tuple[int, ...]:
    if not isinstance(sizes, Sequence) or isinstance(sizes, str):
        raise TypeError(f"{name} is {reprlib.repr(sizes)}; {expected}.")
    return tuple(require_positive_integer(size, f"an entry of {name}") for size in sizes)


def require_writable(folder: Path, name: str) -> None:
    """Require that files can be written to `folder`, which is made if need be.

    Raises:
        ValueError: it cannot be made, or not be written to; `name` says what was to lie there.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        reason = "" if os.access(folder, os.W_OK | os.X_OK) else "no permission"
    except OSError as error:
        reason = error.strerror
    if reason:
        raise ValueError(
            f"{name} cannot be written to {folder} ({reason}); a folder with the permission to "
            f"write is expected. Name another one."
        )


def require_real(
    value: float,
    name: str,
    expected: str = "a number",
    *,
    above: float = -math.inf,
    below: float = math.inf,
    at_least: float = -math.inf,
    at_most: float = math.inf,
) -> float:
    """Require a finite number of any library, and return it as Python's own.

    Args:
        value: what was given: a number, NumPy's too, or a tensor that holds a single one.
        name: what to call it in the message.
        expected: what to call what is expected.
        above: what it must be greater than.
        below: what it must be less than.
        at_least: the least number that is allowed.
        at_most: the largest number that is allowed.

    Raises:
        ValueError: `value` is not such a number. NaN and infinity are not, nor True, False and text.
    """
    try:
        if isinstance(value, bool | str | bytes) or "bool" in str(getattr(value, "dtype", "")):
            raise TypeError
        number = float(value)
        if not (above < number < below and at_least <= number <= at_most):  # NaN is caught too
            raise ValueError
    except (TypeError, ValueError, RuntimeError, OverflowError):
        shown = value if isinstance(value, str) else reprlib.repr(value)
        raise ValueError(f"{name} is {shown}; {expected} is expected.") from None
    return number


def require_dropout(dropout: float) -> float:
    """Require the probability of dropping a unit, a number in [0, 1]; return it as Python's own.

    Raises:
        ValueError: `dropout` is not such a number.
    """
    expected = "a probability in [0, 1]"
    return require_real(dropout, "dropout", expected, at_least=0, at_most=1)


def require_function(value: Callable, name: str, expected: str = "a function") -> None:
    """Require something that can be called; raise `TypeError` otherwise."""
    if not callable(value):
        raise TypeError(f"{name} is {reprlib.repr(value)}; {expected} is expected.")


def require_kind(value: object, kind: type, name: str) -> None:
    """Require an object of a class; raise `TypeError` otherwise."""
    if not isinstance(value, kind):
        given = f"the class {value.__name__}" if isinstance(value, type) else reprlib.repr(value)
        raise TypeError(f"{name} is {given}; an object of the class {kind.__name__} is expected.")


def require_generator(generator: torch.Generator | None, device: torch.device) -> None:
    """Require a source of noise on a device, or none.

    Raises:
        TypeError: `generator` is not a `torch.Generator`.
        ValueError: it is on another device.
    """
    if generator is None:
        return
    if not isinstance(generator, torch.Generator):
        raise TypeError(
            f"generator is a {type(generator).__name__}; a torch.Generator is expected, such as "
            f"torch.Generator().manual_seed(0)."
        )
    if generator.device.type != device.type:
        raise ValueError(
            f"generator is on the device {str(generator.device)!r}, and the noise is drawn on "
            f"{str(device)!r}; the same is expected. Build it with torch.Generator({str(device)!r})."
        )


def require_weight(value: float, name: str) -> float:
    """Require a weight of a term, a number of at least 0, and return it as Python's own.

    Raises:
        ValueError: `value` is not such a number.
    """
    return require_real(value, name, "a number ≥ 0", at_least=0)


def require_shapes(advice: str = "", /, *, examples: int = 1, **given: tuple[Tensor, str]) -> None:
    """Require tensors whose shapes fit one another.

    ``require_shapes(x=(x, "N d"), y=(y, "M d"))`` takes two sets of vectors of one dimension.

    Args:
        advice: what to do otherwise, a sentence for the message.
        examples: the least size that a capital letter, a number of examples, stands for.
        given: by name, each tensor and its shape in words. A letter is one size of at least 1,
            wherever it stands; a number is that size; "..." at the beginning is any number of sizes.

    Raises:
        TypeError: one is not a tensor.
        ValueError: the shapes are others.
    """
    sizes: dict[str, int] = {}
    fit = True
    for name, (tensor, words) in given.items():
        require_tensor(tensor, name)
        letters, shape = words.split(), tuple(tensor.shape)
        if letters[0] == "...":
            letters = letters[1:]
            shape = shape[max(0, len(shape) - len(letters)) :]
        fit &= len(letters) == len(shape)
        for letter, size in zip(letters, shape, strict=False):
            known = int(letter) if letter.isdigit() else sizes.setdefault(letter, size)
            fit &= size == known and size >= (examples if letter.isupper() else 1)
    if not fit:
        shapes = [f"{name} {tuple(tensor.shape)}" for name, (tensor, _) in given.items()]
        shapes[0] = shapes[0].replace(" ", " has shape ", 1)
        words = [words.replace(" ", ", ") for _, words in given.values()]
        expected = [f"({w})" if ", " in w else f"({w},)" for w in words]
        capital = any(map(str.isupper, sizes))
        least = f" with at least {examples} examples" if capital and examples > 1 else ""
        verb = "is" if len(given) == 1 else "are"
        raise ValueError(
            f"{_listed(shapes)}; {_listed(expected)}{least} {verb} expected. {advice}".rstrip()
        )


def require_finite(**tensors: Tensor) -> None:
    """Require real numbers, none of them NaN or infinite; raise `ValueError` otherwise."""
    for name, tensor in tensors.items():
        with where_values_can_be_read():
            if tensor.is_complex() or not torch.isfinite(tensor).all():
                raise ValueError(
                    f"{name} has dtype {tensor.dtype} and {int((~torch.isfinite(tensor)).sum())} values that "
                    f"are NaN or infinite; finite real numbers are expected. Find what made them diverge."
                )


def require_broadcast(**tensors: Tensor) -> None:
    """Require tensors whose shapes broadcast; raise `TypeError` or `ValueError` otherwise."""
    for name, tensor in tensors.items():
        require_tensor(tensor, name)
    if len({tensor.shape for tensor in tensors.values()}) == 1:  # a tenth of a millisecond less
        return
    try:
        torch.broadcast_shapes(*(tensor.shape for tensor in tensors.values()))
    except RuntimeError:
        shapes = ", ".join(f"{name} {tuple(tensor.shape)}" for name, tensor in tensors.items())
        raise ValueError(
            f"the shapes are {shapes}; shapes that broadcast are expected, such as equal ones."
        ) from None


def _listed(words: Sequence[str]) -> str:
    """Words with commas between them, and "and" before the last."""
    return " and ".join(filter(None, (", ".join(words[:-1]), words[-1])))
