"""The inverse of a TarFlow block, with the keys and values of the patches before kept."""

import torch
from torch import Tensor

from course_lib.fast import register
from course_lib.fast.attention import BlockCache
from course_lib.flow.coupling import bounded
from course_lib.flow.fast.autoregressive import nobody_can_tell
from course_lib.flow.tarflow import AttentionAutoregressive


@register(AttentionAutoregressive.conditionals)
def solve(layer: AttentionAutoregressive, z: Tensor) -> tuple[Tensor, Tensor]:
    """Invert patch by patch where nobody can tell, and by passes elsewhere.

    Args:
        layer: the layer.
        z: flattened, shape ``(N, D)``.

    Returns:
        x, shape ``(N, D)``, and the log-determinant of z → x, shape ``(N,)``.
    """
    dropping = layer.training and any(block.dropout.p > 0 for block in layer.network.blocks)
    same_type = layer.network.position.dtype == z.dtype
    if dropping or not same_type or not nobody_can_tell(layer, z):
        return layer.solve_by_passes(z)
    return solve_once(layer, z)


@torch.no_grad()
def solve_once(layer: AttentionAutoregressive, z: Tensor) -> tuple[Tensor, Tensor]:
    """Invert with one token through the layers for each patch.

    Args:
        layer: the layer.
        z: flattened, shape ``(N, D)``.

    Returns:
        x, shape ``(N, D)``, and the log-determinant of z → x, shape ``(N,)``. No gradients.
    """
    network, n = layer.network, len(z)
    patches = z.unflatten(1, (-1, layer.patch))
    caches = [BlockCache(block, n, patches.shape[1]) for block in network.blocks]
    found, log_det = [], z.new_zeros(n)
    before = torch.zeros_like(patches[:, 0])
    for place, patch in enumerate(patches.unbind(1)):
        h = network.read(before) + network.position[place]
        for cache in caches:
            h = cache.next(place, h)
        mean, raw = network.last(network.norm(h)).chunk(2, 1)
        log_scale = bounded(raw, layer.bound)
        before = patch * log_scale.exp() + mean
        found.append(before)
        log_det = log_det + log_scale.sum(1)
    return torch.cat(found, 1), log_det
