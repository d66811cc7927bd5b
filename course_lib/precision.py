"""How exactly numbers are multiplied: TF32 on a GPU, bfloat16 under autocast."""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Literal

import torch
from torch import Tensor


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
