"""How exactly numbers are added and multiplied: half precision, TF32 on a GPU, bfloat16 under autocast."""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from functools import reduce
from typing import Literal

import torch
from torch import Tensor, nn


@contextmanager
def float32_products(kind: Literal["ieee", "tf32"]) -> Iterator[None]:
    """Let matrix products and convolutions of float32 be computed in it, or in TF32, for a while.

    Left to itself, PyTorch convolves on a GPU in TF32, whose numbers have 11 significant bits and not
    24: faster, and good enough to train by. A likelihood that is reported deserves all of them.

    Args:
        kind: ``"ieee"`` for float32 itself, or ``"tf32"``.
    """
    cudnn, cublas = torch.backends.cudnn, torch.backends.cuda.matmul
    if hasattr(cudnn, "conv"):
        setting, places, value = "fp32_precision", (cublas, cudnn.conv), kind
    else:  # before torch 2.9
        setting, places, value = "allow_tf32", (cublas, cudnn), kind == "tf32"
    before = [getattr(place, setting) for place in places]
    try:
        for place in places:
            setattr(place, setting, value)
        yield
    finally:
        for place, old in zip(places, before, strict=True):
            setattr(place, setting, old)


@contextmanager
def without_autocast(x: Tensor) -> Iterator[None]:
    """Let operations on `x` and its like compute in their own type for a block.

    Networks may round to bfloat16. What must not is a map whose determinant is counted: a rounded
    map is another one, and no bijection.

    Args:
        x: a tensor on the device in question.
    """
    kind = x.device.type
    on = torch.amp.is_autocast_available(kind) and torch.is_autocast_enabled(kind)
    with torch.autocast(kind, enabled=False) if on else nullcontext():
        yield


def at_least_float32(x: Tensor, name: str = "the argument") -> Tensor:
    """Numbers in a type that can be added up: float32 for half precision, float64 for integers.

    bfloat16 has 8 binary digits: between 8192 and 16384, where the log-likelihood of an image lies,
    its numbers are 64 apart. What is added up, inverted or compared is computed in more.

    Args:
        x: real numbers of any type.
        name: what to call `x` in a message.

    Returns:
        The same, converted; `x` itself where it is float32 or float64.

    Raises:
        TypeError: `x` is not a tensor, or one of complex numbers.
    """
    _require_real_tensor(x, name)
    if not x.is_floating_point():
        return x.double()
    return x.float() if x.dtype.itemsize < 4 else x


def in_one_type(*tensors: Tensor, **named: Tensor) -> tuple[Tensor, ...]:
    """Tensors in the least type that holds them all and can be added up.

    Args:
        tensors: of any types.
        named: more of them, by the names that a message calls them; at least one in all.

    Returns:
        The same in the type of the floating ones among them, at least float32; float64 if there are
        integers only. An integer type does not decide: it would cut the fractions off the others.

    Raises:
        TypeError: one is not a tensor, or one of complex numbers.
    """
    for tensor in tensors:
        _require_real_tensor(tensor, "an argument")
    for name, tensor in named.items():
        _require_real_tensor(tensor, name)
    tensors = (*tensors, *named.values())
    kinds = [tensor.dtype for tensor in tensors if tensor.is_floating_point()]
    dtype = reduce(torch.promote_types, kinds, torch.float32) if kinds else torch.float64
    return tuple(tensor.to(dtype) for tensor in tensors)


def _require_real_tensor(x: object, name: str) -> None:
    if not isinstance(x, Tensor):
        raise TypeError(
            f"{name} is a {type(x).__name__}; a torch.Tensor is expected. Convert it with "
            f"torch.as_tensor."
        )
    if x.is_complex():  # a conversion would drop the imaginary parts
        raise TypeError(
            f"{name} has dtype {x.dtype}; a tensor of real numbers is expected. Take .real or .abs()."
        )


def in_type_of(module: nn.Module, x: Tensor) -> Tensor:
    """`x` in the type of a module's parameters, the only one that its layers take."""
    return x.to(parameter_type(module) or x.dtype)


def applied_in_type(module: nn.Module, x: Tensor) -> Tensor:
    """``module(x)`` with the parameters in the type of `x`, where they are stored in another one.

    Unlike `in_type_of`, this does not round `x`: what is nearly equal stays so.
    """
    if parameter_type(module) in (None, x.dtype):
        return module(x)
    weights = {name: value.to(x.dtype) for name, value in module.named_parameters()}
    return torch.func.functional_call(module, weights, x)


def parameter_type(module: nn.Module) -> torch.dtype | None:
    """Type of a module's first parameter, or None if it has none.

    It is that of ``next(module.parameters())``, found without the walk that every layer of a flow would
    pay for.
    """
    for parameter in module._parameters.values():
        if parameter is not None:
            return parameter.dtype
    for child in module._modules.values():
        found = None if child is None else parameter_type(child)
        if found is not None:
            return found
    return None
