"""Masked products in blocks: zeros are left out, and ones are not multiplied."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.autograd.function import FunctionCtx

from course_lib.fast import register
from course_lib.fast.custom_gradient import backward_is_transformed
from course_lib.masked import masked_linear

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


def readable_blocks(mask: Tensor) -> list[Block] | None:
    """Cut the rows of a mask into blocks.

    With sorted degrees a mask is lower triangular, or several triangles below one another. A product with
    the whole matrix spends half of its time on zeros, and half of what is masked is ones.

    Args:
        mask: true where a weight may act, shape ``(O, I)``.

    Returns:
        The blocks, from the first row to the last; None for a small mask.
    """
    if mask.numel() < LARGE or len(mask) == 1:
        return None
    mask = mask.bool()
    # Where a row reads less than the one before it, the next triangle begins; unsorted rows have none.
    triangles = 1 + int((mask.sum(1).diff() < 0).sum())
    blocks, start = [], 0
    for part in mask.chunk(BLOCKS * (triangles if triangles < BLOCKS else 1)):
        free = int(part.all(0).cumprod(0).sum())
        closed = part.shape[1] - int((~part.any(0)).flip(0).cumprod(0).sum())
        rows = slice(start, start + len(part))
        blocks.append(Block(rows, slice(free), slice(free, closed), slice(closed, None)))
        start += len(part)
    return blocks


@register(masked_linear, prepare=readable_blocks)
def block_product(
    x: Tensor, weight: Tensor, mask: Tensor, bias: Tensor | None, blocks: Sequence[Block]
) -> Tensor:
    """`course_lib.masked.masked_linear`, block by block.

    Args:
        x: shape ``(..., I)``.
        weight: shape ``(O, I)``.
        mask: of the type of `weight`, shape ``(O, I)``.
        bias: shape ``(O,)``, or None.
        blocks: what `readable_blocks` says of the mask.

    Returns:
        Shape ``(..., O)``.
    """
    if torch.is_autocast_enabled(x.device.type):
        x = x.to(torch.get_autocast_dtype(x.device.type))
    return _BlockProduct.apply(x, weight, mask, bias, blocks)


class _BlockProduct(torch.autograd.Function):
    """The product, with a gradient written by hand.

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
        if backward_is_transformed(grad):
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
        return torch.vmap(masked_linear, in_dims[:-1])(*arguments[:-1]), 0

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
            terms.append(masked_linear(x_tangent, weight, mask, None))
        if weight_tangent is not None:
            terms.append(masked_linear(x, weight_tangent, mask, None))
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
