"""Attention without the matrix of weights, and one place at a time with the keys and values of the past."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import FunctionCtx

from course_lib.attention import AttentionBlock, attend, attention_weights
from course_lib.fast import register
from course_lib.fast.custom_gradient import backward_is_transformed

_cpu = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
_cpu_backward = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward


@register(attend)
def fused(queries: Tensor, keys: Tensor, values: Tensor, *, causal: bool = False) -> Tensor:
    """`course_lib.attention.attend` as one operation.

    Args:
        queries: shape ``(..., T, d)``.
        keys: shape ``(..., S, d)``.
        values: shape ``(..., S, e)``.
        causal: leave out what comes after each query.

    Returns:
        Shape ``(..., T, e)``.
    """
    parts = (queries, keys, values)
    if queries.device.type == "cpu" and not _fits(*parts, causal=causal):
        return attention_weights(queries, keys, causal=causal) @ values
    if queries.device.type == "cpu":
        return _Attend.apply(*parts, causal)[0]
    return F.scaled_dot_product_attention(*parts, is_causal=causal)


def _fits(queries: Tensor, keys: Tensor, values: Tensor, *, causal: bool) -> bool:
    """Whether the operation takes them, which trusts its caller in what it does not look at.

    They must be batches of heads, all of one type and size, none empty, and the features side by side in
    memory: it reads no strides of the last axis, and as many values as there are keys.
    """
    parts = (queries, keys, values)
    same = queries.dtype == keys.dtype == values.dtype and queries.shape[-1] == values.shape[-1]
    batched = queries.dim() == 4 and queries.shape[:2] == keys.shape[:2]
    square = queries.shape[-2] == keys.shape[-2] or not causal
    plain = all(part.numel() and part.stride(-1) == 1 for part in parts)
    return same and batched and square and keys.shape[:3] == values.shape[:3] and plain


class _Attend(torch.autograd.Function):
    """PyTorch's operation for the CPU, with derivatives that can be differentiated again."""

    @staticmethod
    def forward(
        queries: Tensor, keys: Tensor, values: Tensor, causal: bool
    ) -> tuple[Tensor, Tensor]:
        return _cpu(queries, keys, values, 0.0, causal)

    @staticmethod
    def setup_context(ctx: FunctionCtx, inputs: tuple, output: tuple[Tensor, Tensor]) -> None:
        queries, keys, values, ctx.causal = inputs
        ctx.save_for_backward(queries, keys, values, *output)
        ctx.save_for_forward(queries, keys, values)
        ctx.mark_non_differentiable(output[1])
        ctx.set_materialize_grads(False)

    @staticmethod
    def backward(ctx: FunctionCtx, grad: Tensor | None, _: None) -> tuple[Tensor | None, ...]:
        if grad is None:
            return None, None, None, None
        queries, keys, values, read, normalizer = ctx.saved_tensors
        if not backward_is_transformed(grad):
            return *_cpu_backward(
                grad, queries, keys, values, read, normalizer, 0.0, ctx.causal
            ), None
        weights = attention_weights(queries, keys, causal=ctx.causal)
        scores = _through_softmax(weights, grad @ values.mT) / math.sqrt(queries.shape[-1])
        return scores @ keys, scores.mT @ queries, weights.mT @ grad, None

    @staticmethod
    def vmap(
        info: object,
        in_dims: tuple[int | None, ...],
        queries: Tensor,
        keys: Tensor,
        values: Tensor,
        causal: bool,
    ) -> tuple[tuple[Tensor, Tensor], tuple[int, int]]:
        def plain(queries: Tensor, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
            read = attention_weights(queries, keys, causal=causal) @ values
            return read, read[..., 0]

        return torch.vmap(plain, in_dims[:-1])(queries, keys, values), (0, 0)

    @staticmethod
    def jvp(
        ctx: FunctionCtx,
        queries_tangent: Tensor | None,
        keys_tangent: Tensor | None,
        values_tangent: Tensor | None,
        _: None,
    ) -> tuple[Tensor, None]:
        queries, keys, values = ctx.saved_tensors[:3]
        weights = attention_weights(queries, keys, causal=ctx.causal)
        scores, read = 0, 0
        if queries_tangent is not None:
            scores = scores + queries_tangent @ keys.mT
        if keys_tangent is not None:
            scores = scores + queries @ keys_tangent.mT
        if isinstance(scores, Tensor):
            read = _through_softmax(weights, scores) @ values / math.sqrt(queries.shape[-1])
        if values_tangent is not None:
            read = read + weights @ values_tangent
        return read, None


def _through_softmax(weights: Tensor, change: Tensor) -> Tensor:
    """The derivative of a softmax in a direction; its matrix is symmetric, and so serves both ways."""
    return weights * (change - (weights * change).sum(-1, keepdim=True))


class BlockCache:
    """One layer for one new token at a time, with the keys and values of all tokens before it.

    No later token changes an earlier one, because no earlier one reads it: so what a layer has computed of a
    token stays right. Keys are kept as columns, so that a query's products with all of them run along memory.

    Args:
        block: the layer.
        n: number of sequences.
        length: number D of tokens of each.
    """

    def __init__(self, block: AttentionBlock, n: int, length: int) -> None:
        attention = block.attention
        projection, output = attention.queries_keys_values, attention.output
        kept, size = attention.key_value_heads, attention.size
        width = output.in_features
        self.block, self.shape = block, (n, width)
        new = projection.weight.new_zeros
        self.keys, self.values = new(n * kept, size, length), new(n * kept, length, size)
        # The queries' rows carry the factor 1 / √d.
        scale = torch.ones_like(projection.bias)
        scale[:width] = size**-0.5
        self.projection = (projection.weight * scale[:, None]).T.contiguous()
        self.projection_bias = projection.bias * scale
        self.output, self.output_bias = output.weight.T.contiguous(), output.bias
        self.parts = (width, kept * size, kept * size)
        self.queries = (n * kept, attention.heads // kept, size)
        self.row = (n * kept, size)
        self.normed = (block.before_attention, block.before_perceptron)

    def next(self, place: int, token: Tensor) -> Tensor:
        """The layer's output for the token at `place`, shape ``(n, width)``, from its input."""
        first, second = self.normed
        normed = F.layer_norm(token, first.normalized_shape, first.weight, first.bias, first.eps)
        parts = torch.addmm(self.projection_bias, normed, self.projection)
        query, key, value = parts.split(self.parts, 1)
        self.keys[:, :, place] = key.reshape(self.row)
        self.values[:, place] = value.reshape(self.row)
        scores = torch.bmm(query.reshape(self.queries), self.keys[:, :, : place + 1])
        read = torch.bmm(scores.softmax(-1), self.values[:, : place + 1]).view(self.shape)
        token = token + torch.addmm(self.output_bias, read, self.output)
        normed = F.layer_norm(
            token, second.normalized_shape, second.weight, second.bias, second.eps
        )
        return token + self.block.perceptron(normed)
