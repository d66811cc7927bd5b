"""The transformer's sampler: keys and values of the past are kept, one token passes through the layers."""

import torch
import torch.nn.functional as F
from torch import Tensor

from course_lib.attention import AttentionBlock
from course_lib.autoregressive.base import Steps
from course_lib.autoregressive.fast.raster import PixelwiseConv
from course_lib.autoregressive.transformer import Transformer
from course_lib.fast import register


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


@register(Transformer.forward)
def steps(model: Transformer, n: int, labels: Tensor | None) -> Steps:
    """One token through all layers for each dimension."""
    colours, height, columns = model.event_shape
    every = torch.arange(model.levels, device=model.order.device)
    encoded = model.encode(every)
    near = PixelwiseConv(model.near, n, height, columns)
    places = (model.row + model.column + model.colour).flatten(0, 2).unsqueeze(1)  # (D, 1, width)
    if labels is not None:
        places = places + model.label(labels)
    told = model.value(encoded.unsqueeze(1))  # what each level tells the next place
    before = torch.zeros_like(told[:1])  # the first place is told of none
    caches = [BlockCache(block, n, model.n_dims) for block in model.blocks]
    norm, output = model.norm, model.output
    for place, index in enumerate(model.order.tolist()):
        column, colour = place // colours % columns, place % colours
        if place % (columns * colours) == 0:
            near.begin_row(place // (columns * colours))
        # Computed again for a further colour, whose features see the one just drawn.
        close = near.pixel(column).view(n, colours, -1)[:, colour]
        token = close + before + places[place]
        for cache in caches:
            token = cache.next(place, token)
        value = yield index, output(norm(token))
        before = told[value]
        near.slots[column][:, colour] = encoded[value]
