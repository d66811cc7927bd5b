"""The inverse of an autoregressive layer, with every hidden unit computed once."""

from functools import lru_cache

import torch
from torch import Tensor, nn

from course_lib.fast import register
from course_lib.flow.autoregressive import MaskedAutoregressive
from course_lib.masked import spread_degrees


@register(MaskedAutoregressive.conditionals)
def solve(layer: MaskedAutoregressive, z: Tensor) -> tuple[Tensor, Tensor]:
    """Invert by `solve_once` where nobody can tell, and by passes elsewhere.

    Args:
        layer: the layer.
        z: flattened, shape ``(N, D)``.

    Returns:
        x, shape ``(N, D)``, and the log-determinant of z → x, shape ``(N,)``.
    """
    dropping = layer.training and layer.dropout.p > 0
    if dropping or not nobody_can_tell(layer, z):
        return layer.solve_by_passes(z)
    return solve_once(layer, z)


def nobody_can_tell(layer: nn.Module, z: Tensor) -> bool:
    """Whether only values are asked for: no gradients, no further axis by `vmap`, no rounding by autocast."""
    if torch._C._functorch.is_batchedtensor(z):  # what follows writes into memory
        return False
    needs_gradient = torch.is_grad_enabled() and (
        z.requires_grad or any(p.requires_grad for p in layer.parameters())
    )
    # What the network rounds under autocast depends on the products it makes: on the very same.
    kind = z.device.type
    rounding = torch.amp.is_autocast_available(kind) and torch.is_autocast_enabled(kind)
    return not (needs_gradient or rounding)


@torch.no_grad()
def solve_once(layer: MaskedAutoregressive, z: Tensor) -> tuple[Tensor, Tensor]:
    """Invert computing every hidden unit once, when the entries it sees are known.

    Degrees are sorted: what is known after i entries is a prefix of every hidden layer. Units of equal
    degree are computed together, and so are the entries between two degrees, which depend on the same
    units. All together that costs about one pass, instead of D.

    Args:
        layer: the layer.
        z: flattened, shape ``(N, D)``.

    Returns:
        x, shape ``(N, D)``, and the log-determinant of z → x, shape ``(N,)``. No gradients.
    """
    with torch.inference_mode():  # views are made faster in it
        x, log_det = _solve_once(layer, z)
    return x.clone(), log_det.clone()  # ordinary tensors again


def _solve_once(layer: MaskedAutoregressive, z: Tensor) -> tuple[Tensor, Tensor]:
    weights = [part.masked_weight().to(z.dtype) for part in layer.layers]
    biases = [part.bias.to(z.dtype) for part in layer.layers]
    # The outputs of entry i, its mean and its log-scale, become neighbours: rows 2i and 2i + 1.
    neighbours = torch.arange(2 * layer.features, device=z.device).view(2, -1).T.flatten()
    weights[-1], biases[-1] = weights[-1][neighbours], biases[-1][neighbours]
    # Units are rows here, so that a prefix of a layer is a contiguous block. Each starts at
    # its bias; the matrix products are added to it.
    units = [bias[:, None].repeat(1, len(z)) for bias in biases]
    *hidden, outputs = units
    z = z.T.contiguous()
    x = torch.empty_like(z)  # (D, N)
    # All views that a step needs, made at once: what is known before it, and its own rows.
    steps, (sizes, *widths) = _steps(
        layer.features, tuple(part.out_features for part in layer.layers[:-1])
    )
    means, log_scales = (outputs[part::2].split(sizes) for part in (0, 1))
    rows = outputs.split([2 * size for size in sizes])
    row_weights = weights[-1].split([2 * size for size in sizes])
    blocks = [h.split(width) for h, width in zip(hidden, widths, strict=True)]
    block_weights = [w.split(width) for w, width in zip(weights, widths, strict=False)]
    z_parts, x_parts = z.split(sizes), x.split(sizes)
    filled = 0  # units of the last hidden layer computed so far
    for step, (stop, counts) in enumerate(steps):
        # The step's entries see exactly the units computed so far.
        rows[step].addmm_(row_weights[step].narrow(1, 0, filled), hidden[-1].narrow(0, 0, filled))
        raw = log_scales[step]
        log_scale = raw.div_(layer.bound).tanh_().mul_(layer.bound)  # `bounded`, in place
        torch.addcmul(means[step], z_parts[step], log_scale.exp(), out=x_parts[step])
        # Now the units that see these entries, but none after them.
        below, seen = x, stop
        for level, count in enumerate(counts):
            block_weight = block_weights[level][step].narrow(1, 0, seen)
            blocks[level][step].addmm_(block_weight, below.narrow(0, 0, seen)).relu_()
            below, seen = hidden[level], count
        filled = counts[-1]
    return x.T.contiguous(), outputs[1::2].sum(0)


@lru_cache
def _steps(
    features: int, widths: tuple[int, ...]
) -> tuple[list[tuple[int, list[int]]], list[list[int]]]:
    """In which steps the entries and units of a network become known.

    Args:
        features: number D of entries.
        widths: of the hidden layers.

    Returns:
        After each step, how many entries are known, and how many units of every layer. And how many
        entries, and how many units of every layer, each step computes.
    """
    degrees = [spread_degrees(features, width) for width in widths]
    # Units of degree d see entries 0 … d and are computed with entry d; the last one has none.
    lasts = torch.cat(degrees).unique()
    counts = [torch.searchsorted(d, lasts, right=True).tolist() for d in degrees]
    stops = (lasts + 1).tolist()
    steps = [(stop, list(row)) for stop, *row in zip(stops, *counts, strict=True)]
    if stops[-1] < features:
        steps.append((features, list(widths)))
    known = torch.tensor([[stop, *units] for stop, units in steps])
    return steps, known.diff(dim=0, prepend=torch.zeros_like(known[:1])).T.tolist()
