"""The exact part of a velocity of dequantized grey levels: Bayes' rule for one entry."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from course_lib.inputs import where_values_can_be_read
from course_lib.schedules import per_example, require_single

NARROW = 0.1  # below this ratio of an interval's width to the noise a series is more exact


def level_ends(logits: Tensor, z: Tensor, alpha: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor]:
    r"""E[y | z] and E[ε | z] of every entry of z = αy + σε, if y is a dequantized grey level.

    Given its level k, an entry y is uniform on the interval of width 2/K from 2k/K − 1 on. Given z as well,
    −ε is a normal variable that is cut off at the ends :math:`l_k` and :math:`h_k`, the values of
    :math:`(\alpha y - z)/\sigma` at the interval's ends. Its mass, :math:`\Phi(h_k) - \Phi(l_k)`, is the
    evidence for the level, and its mean is
    :math:`(\varphi(l_k) - \varphi(h_k))/(\Phi(h_k) - \Phi(l_k))`.

    Args:
        logits: unnormalized log-probabilities of the K levels of each entry, given the other entries, shape
            ``(N, *event_shape, K)``.
        z: noised examples, shape ``(N, *event_shape)``.
        alpha: factor of the signal, shape ``()`` or ``(N,)``.
        sigma: standard deviation of the noise, positive, shape ``()`` or ``(N,)``.

    Returns:
        The means of y and of ε, each in the shape of `z`.

    Raises:
        TypeError: an argument is not a tensor of float32 or float64.
        ValueError: the shapes do not fit, or there is no noise.
    """
    for name, tensor in {"z": z, "logits": logits, "alpha": alpha, "sigma": sigma}.items():
        require_single(tensor, name)
    if logits.shape[:-1] != z.shape or logits.shape[-1] < 2:
        raise ValueError(
            f"logits has shape {tuple(logits.shape)} and z {tuple(z.shape)}; the shape of z with an axis of "
            f"at least 2 levels more is expected."
        )
    with where_values_can_be_read():
        if not (sigma > 0).all():
            raise ValueError(
                "sigma has a value that is not positive; a positive standard deviation of the noise is "
                "expected. Without noise the entry itself is known."
            )
    alpha, sigma = (
        per_example(value, z, name).unsqueeze(-1)
        for value, name in ((alpha, "alpha"), (sigma, "sigma"))
    )
    n_levels, z = logits.shape[-1], z.unsqueeze(-1)
    width = 2 / n_levels
    start = torch.arange(n_levels, device=z.device, dtype=z.dtype) * width - 1
    low, high = (alpha * start - z) / sigma, (alpha * (start + width) - z) / sigma
    ratio = alpha * width / sigma  # how wide the interval is, in standard deviations of the noise
    middle, wide = (low + high) / 2, ratio < NARROW
    # Where the noise is much wider, the density hardly changes over the interval. The other formula is then
    # computed of some other interval, so that neither it nor its gradient is infinite.
    evidence, mean = _cut_off(low, torch.where(wide, low + 1, high))
    evidence = torch.where(wide, ratio**2 * (middle**2 - 1) / 24 - middle**2 / 2, evidence)
    beside = torch.where(wide, -middle * ratio / 12, (mean - middle) / ratio.clamp(min=NARROW))
    weight = F.softmax(logits + evidence, -1)
    clean = (weight * (start + width / 2 + width * beside)).sum(-1)
    return clean, -(weight * (middle + ratio * beside)).sum(-1)


def _cut_off(low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
    """log(Φ(high) − Φ(low)), and the mean of what is normal on [low, high]."""
    # Both in the lower tail, or about 0: there logarithms of Φ are exact.
    upper = low + high > 0
    a, b = torch.where(upper, -high, low), torch.where(upper, -low, high)
    log_a, log_b = torch.special.log_ndtr(a), torch.special.log_ndtr(b)
    log_mass = log_b + torch.log(-torch.expm1((log_a - log_b).clamp(max=-1e-7)))
    at_a, at_b = (torch.exp(-0.5 * end**2 - log_mass) / math.sqrt(2 * math.pi) for end in (a, b))
    mean = torch.where(upper, at_b - at_a, at_a - at_b)
    # Far from 0 rounding errors are large; the mean is inside, and such an interval has no weight.
    return log_mass, torch.maximum(torch.minimum(mean, high), low)
