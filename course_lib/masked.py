"""Masked linear layers: how one network computes all conditionals of an autoregressive distribution.

Shared by the autoregressive models and by the autoregressive flows. Every input, hidden unit and
output carries an integer, its degree: that of an input is its place in the order, from 0 to D−1,
and a hidden unit of degree d may see inputs of degree at most d. An output of degree i may see
hidden units of degree below i, hence only inputs that come before it.
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from course_lib.fast import fast_path, prepared
from course_lib.inputs import require_positive_integer, require_shapes
from course_lib.saved_settings import SavedSettings


def spread_degrees(features: int, width: int) -> Tensor:
    """Degrees of a hidden layer: 0 … D−2 spread evenly over its units, in increasing order.

    Sorted degrees make the units that are known after i inputs a prefix of the layer, which is
    what lets a sampler compute each unit once.

    Args:
        features: number D of inputs.
        width: number of units.

    Returns:
        Integers, shape ``(width,)``.
    """
    features = require_positive_integer(features, "features")
    width = require_positive_integer(width, "width")
    # With one input nothing may be seen; degree 0 then exists but no output looks at it.
    return torch.arange(width) * max(features - 1, 1) // width


def made_mask(in_degrees: Tensor, out_degrees: Tensor, *, strict: bool = False) -> Tensor:
    """Mask of a fully connected layer from the degrees of its units (``eq-made-mask``).

    A unit of degree m may depend on the inputs of degree at most m. It therefore may read a unit
    whose degree is not larger; an output of degree d is the conditional of input d and must
    read strictly smaller degrees.

    Source: Germain et al. (2015).

    Args:
        in_degrees: degree of each unit that is read, shape ``(I,)``.
        out_degrees: degree of each unit that reads, shape ``(O,)``.
        strict: whether the reading units are outputs.

    Returns:
        True where the weight may differ from zero, shape ``(O, I)``, as `torch.nn.Linear` lays out
        its weight.
    """
    readers, read = out_degrees.unsqueeze(1), in_degrees.unsqueeze(0)
    return readers > read if strict else readers >= read


def made_masks(
    inputs: Tensor, hidden: Sequence[Tensor], outputs: Tensor | None = None
) -> list[Tensor]:
    """Masks of a network whose output i depends on the inputs of smaller degree only.

    Source: Germain, Gregor, Murray and Larochelle (2015), "MADE".

    Args:
        inputs: degree of each input, integers, shape ``(D,)``.
        hidden: degrees of each hidden layer, integers, shapes ``(H_1,)``, ``(H_2,)``, …
        outputs: degree of each output, shape ``(D_out,)``; those of the inputs by default.

    Returns:
        One boolean mask for each layer of weights, of shape ``(units, units below)``: true where
        the weight may differ from zero. Also without hidden layers.

    Raises:
        TypeError: degrees that are not integers.
        ValueError: degrees that are not one-dimensional.
    """
    outputs = inputs if outputs is None else outputs
    for name, degrees in (
        ("inputs", inputs),
        ("outputs", outputs),
        *(("hidden", h) for h in hidden),
    ):
        if degrees.is_floating_point() or degrees.dtype == torch.bool:
            raise TypeError(
                f"{name} has dtype {degrees.dtype}; integer degrees are expected. Call .long()."
            )
        require_shapes("Each unit has one degree.", **{name: (degrees, "units")})
    layers = [inputs, *hidden]
    masks = [made_mask(below, above) for below, above in pairwise(layers)]
    # Strict here and only here: output i sees what comes before i, never i itself.
    return [*masks, made_mask(layers[-1], outputs, strict=True)]


def masked_linear(
    x: Tensor, weight: Tensor, mask: Tensor, bias: Tensor | None, known: Any = None
) -> Tensor:
    """An affine map with a masked weight: x (mask ⊙ W)ᵀ + b.

    Args:
        x: shape ``(..., I)``.
        weight: shape ``(O, I)``.
        mask: 1 where a weight acts and 0 elsewhere, of the type of `weight`, shape ``(O, I)``.
        bias: shape ``(O,)``, or None.
        known: ``prepared(masked_linear, mask)``, with which a fast path is taken; or None.

    Returns:
        Shape ``(..., O)``.
    """
    fast = fast_path(masked_linear)
    if fast is not None and known is not None:
        return fast(x, weight, mask, bias, known)
    return F.linear(x, mask * weight, bias)


class MaskedLinear(SavedSettings, nn.Linear):
    """An affine map whose weight is multiplied by a fixed mask whenever it is used.

    It computes in the type of its input: a weight in half precision is used as it is, but what it
    multiplies and adds up is not rounded to it.

    Args:
        mask: shape ``(out_features, in_features)``; true or 1 where a weight may act.
        bias: add a bias.

    Raises:
        ValueError: the mask is not a matrix.
    """

    mask: Tensor

    def __init__(self, mask: Tensor, *, bias: bool = True) -> None:
        require_shapes(mask=(mask, "out_features in_features"))
        out_features, in_features = mask.shape
        super().__init__(in_features, out_features, bias=bias)
        self.register_buffer("mask", mask.to(self.weight.dtype))
        self.follow_buffers()

    def follow_buffers(self) -> None:
        """Study the mask, also one that comes with a state dict."""
        self.known = prepared(masked_linear, self.mask)

    def masked_weight(self) -> Tensor:
        """Return the weight as it acts, shape ``(out_features, in_features)``."""
        return self.mask * self.weight

    def forward(self, x: Tensor) -> Tensor:
        """Map `x` of shape ``(..., in_features)`` to ``(..., out_features)``."""
        weight, mask, bias = self.weight, self.mask, self.bias
        if x.dtype != weight.dtype and not torch.is_autocast_enabled(x.device.type):
            weight, mask = weight.to(x.dtype), mask.to(x.dtype)
            bias = None if bias is None else bias.to(x.dtype)
        return masked_linear(x, weight, mask, bias, self.known)
