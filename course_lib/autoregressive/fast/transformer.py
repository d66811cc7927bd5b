"""The transformer's sampler: keys and values of the past are kept, one token passes through the layers."""

import torch
from torch import Tensor

from course_lib.autoregressive.base import Steps
from course_lib.autoregressive.fast.raster import PixelwiseConv
from course_lib.autoregressive.transformer import Transformer
from course_lib.fast import register
from course_lib.fast.attention import BlockCache


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
