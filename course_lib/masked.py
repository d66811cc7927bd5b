"""Masked linear layers: how one network computes all conditionals of an autoregressive law.

Shared by the autoregressive models and by the autoregressive flows. Every input, hidden unit and
output carries an integer, its degree: that of an input is its place in the order, from 0 to D−1,
and a hidden unit of degree d may see inputs of degree at most d. An output of degree i may see
hidden units of degree below i, hence only inputs that come before it.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import FunctionCtx

from course_lib.custom_gradient import wants_plain_operations
from course_lib.inputs import require_positive_integer
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
        if degrees.dim() != 1:
            raise ValueError(
                f"{name} has shape {tuple(degrees.shape)}; one degree per unit, shape (units,), is "
                f"expected. Flatten it."
            )
    layers = [inputs, *hidden]
    masks = [made_mask(below, above) for below, above in pairwise(layers)]
    # Strict here and only here: output i sees what comes before i, never i itself.
    return [*masks, made_mask(layers[-1], outputs, strict=True)]


# From this many weights on, products are taken in blocks: below, small operations cost more.
LARGE = 100_000
BLOCKS = 4


@dataclass(frozen=True)
class Block:
    """Some rows of a mask: first ones, then a part that must be looked at, then zeros.

    Attributes:
        rows: which rows.
        free: the first columns, which all of the rows may read.
        mixed: the next columns, which some of the rows may read.
        closed: the last columns, which none of the rows may read.
    """

    rows: slice
    free: slice
    mixed: slice
    closed: slice


def readable_blocks(mask: Tensor, staircases: int = 1) -> list[Block]:
    """Cut the rows of a mask into blocks.

    With sorted degrees a mask is a staircase. A product with the whole matrix spends half of its
    time on zeros, and half of what is masked is ones.

    Args:
        mask: true where a weight may act, shape ``(O, I)``.
        staircases: how many masks of equal height lie below one another in `mask`.

    Returns:
        The blocks, from the first row to the last; a single one for a small mask.
    """
    parts = mask.bool().chunk(staircases * BLOCKS if mask.numel() >= LARGE else 1)
    blocks, start = [], 0
    for part in parts:
        free = int(part.all(0).cumprod(0).sum())
        closed = part.shape[1] - int((~part.any(0)).flip(0).cumprod(0).sum())
        rows = slice(start, start + len(part))
        blocks.append(Block(rows, slice(free), slice(free, closed), slice(closed, None)))
        start += len(part)
    return blocks


def masked_linear(
    x: Tensor, weight: Tensor, mask: Tensor, bias: Tensor | None, blocks: Sequence[Block]
) -> Tensor:
    """An affine map with a masked weight: x (mask ⊙ W)ᵀ + b.

    Args:
        x: shape ``(..., I)``.
        weight: shape ``(O, I)``.
        mask: 1 where a weight acts and 0 elsewhere, of the type of `weight`, shape ``(O, I)``.
        bias: shape ``(O,)``, or None.
        blocks: what `readable_blocks` says of the mask.

    Returns:
        Shape ``(..., O)``.
    """
    # A compiler joins the mask to the product by itself.
    if len(blocks) == 1 or torch.compiler.is_compiling():
        return _whole_product(x, weight, mask, bias)
    if torch.is_autocast_enabled(x.device.type):
        x = x.to(torch.get_autocast_dtype(x.device.type))
    return _BlockProduct.apply(x, weight, mask, bias, blocks)


def _whole_product(x: Tensor, weight: Tensor, mask: Tensor, bias: Tensor | None) -> Tensor:
    return F.linear(x, mask * weight, bias)


class _BlockProduct(torch.autograd.Function):
    """`masked_linear` block by block.

    Large matrices cost as much to move as to multiply. So zeros are left out, ones are not
    multiplied, and the gradient of the weight is written once, to where it belongs.
    """

    @staticmethod
    def forward(
        x: Tensor, weight: Tensor, mask: Tensor, bias: Tensor | None, blocks: Sequence[Block]
    ) -> Tensor:
        y = x.new_zeros(*x.shape[:-1], len(weight))
        if bias is not None:
            y += bias
        inputs, outputs = x.reshape(-1, x.shape[-1]), y.view(-1, len(weight))
        for block in blocks:
            for columns, part in _parts(block, weight, mask):
                outputs[:, block.rows].addmm_(inputs[:, columns], part.to(x.dtype).T)
        return y

    @staticmethod
    def setup_context(ctx: FunctionCtx, inputs: tuple, output: Tensor) -> None:
        x, weight, mask, bias, ctx.blocks = inputs
        ctx.save_for_backward(x, weight, mask, bias)
        ctx.save_for_forward(x, weight, mask)

    @staticmethod
    def backward(ctx: FunctionCtx, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, mask, bias = ctx.saved_tensors
        inputs, grads = x.reshape(-1, x.shape[-1]), grad.reshape(-1, len(weight))
        if wants_plain_operations(grad):
            grad_inputs = grads @ (mask * weight).to(x.dtype)
            grad_weight = mask * (grads.T @ inputs)
        else:
            grad_inputs = torch.zeros_like(inputs) if ctx.needs_input_grad[0] else None
            grad_weight = (
                torch.empty_like(weight, dtype=x.dtype) if ctx.needs_input_grad[1] else None
            )
            for block in ctx.blocks:
                those = grads[:, block.rows]
                if grad_inputs is not None:
                    for columns, part in _parts(block, weight, mask):
                        grad_inputs[:, columns].addmm_(those, part.to(x.dtype))
                if grad_weight is not None:
                    rows, read = grad_weight[block.rows], slice(block.mixed.stop)
                    torch.mm(those.T, inputs[:, read], out=rows[:, read])
                    rows[:, block.mixed] *= mask[block.rows, block.mixed]
                    rows[:, block.closed] = 0
        return (
            None if grad_inputs is None else grad_inputs.view_as(x),
            None if grad_weight is None else grad_weight.to(weight.dtype),
            None,
            None if bias is None else grads.sum(0).to(bias.dtype),
            None,
        )

    @staticmethod
    def vmap(info: object, in_dims: tuple, *arguments: object) -> tuple[Tensor, int]:
        return torch.vmap(_whole_product, in_dims[:-1])(*arguments[:-1]), 0

    @staticmethod
    def jvp(
        ctx: FunctionCtx,
        x_tangent: Tensor | None,
        weight_tangent: Tensor | None,
        _mask: None,
        bias_tangent: Tensor | None,
        _blocks: None,
    ) -> Tensor:
        x, weight, mask = ctx.saved_tensors
        terms = []
        if x_tangent is not None:
            terms.append(_whole_product(x_tangent, weight, mask, None))
        if weight_tangent is not None:
            terms.append(_whole_product(x, weight_tangent, mask, None))
        if bias_tangent is not None:
            terms.append(bias_tangent.expand(*x.shape[:-1], -1))
        return sum(terms)


def _parts(block: Block, weight: Tensor, mask: Tensor) -> Iterator[tuple[slice, Tensor]]:
    """What the rows of a block read: the columns, and the weights on them."""
    if block.free.stop:
        yield block.free, weight[block.rows, block.free]
    if block.mixed.start < block.mixed.stop:
        yield (
            block.mixed,
            mask[block.rows, block.mixed] * weight[block.rows, block.mixed],
        )


class MaskedLinear(SavedSettings, nn.Linear):
    """An affine map whose weight is multiplied by a fixed mask whenever it is used.

    It computes in the type of its input: a weight in half precision is used as it is, but what it
    multiplies and adds up is not rounded to it.

    Args:
        mask: shape ``(out_features, in_features)``; true or 1 where a weight may act.
        bias: add a bias.
        staircases: as in `readable_blocks`.

    Raises:
        ValueError: the mask is not a matrix.
    """

    mask: Tensor

    def __init__(self, mask: Tensor, *, bias: bool = True, staircases: int = 1) -> None:
        if mask.dim() != 2:
            raise ValueError(
                f"mask has shape {tuple(mask.shape)}; (out_features, in_features) is expected."
            )
        out_features, in_features = mask.shape
        super().__init__(in_features, out_features, bias=bias)
        self.register_buffer("mask", mask.to(self.weight.dtype))
        self.staircases = staircases
        self.follow_buffers()

    def follow_buffers(self) -> None:
        """Cut the mask into blocks, also a mask that comes with a state dict."""
        self.blocks = readable_blocks(self.mask, self.staircases)

    def masked_weight(self) -> Tensor:
        """Return the weight as it acts, shape ``(out_features, in_features)``."""
        return self.mask * self.weight

    def forward(self, x: Tensor) -> Tensor:
        """Map `x` of shape ``(..., in_features)`` to ``(..., out_features)``."""
        weight, mask, bias = self.weight, self.mask, self.bias
        if x.dtype != weight.dtype and not torch.is_autocast_enabled(x.device.type):
            weight, mask = weight.to(x.dtype), mask.to(x.dtype)
            bias = None if bias is None else bias.to(x.dtype)
        return masked_linear(x, weight, mask, bias, self.blocks)
