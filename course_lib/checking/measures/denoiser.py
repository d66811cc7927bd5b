"""The bound on the likelihood of a diffusion model, from its denoiser alone."""

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from course_lib.checking.measures.common import (
    Ask,
    Invalid,
    Measurement,
    ask_each,
    images,
    one_array,
)

LEVELS = 17
# λ at the two ends. At the first a level is read off its noised value, at the last hardly anything is left.
LOG_SNR_MAX, LOG_SNR_MIN = 9.0, -6.0
ROUNDS = 64


def denoiser_bits(ask: Ask, *, split: str, seed: int) -> Measurement:
    """The continuous-time bound on −log₂ P per dimension of a diffusion model of the digits, in bits/dim.

    Asks ``denoise(z, log_snr)`` for the estimate x̂ of the clean images of the split: z of shape ``(N, 64)``
    and the λ of each, shape ``(N,)``, float32, in 64 rounds. The levels 0 … 16 lie evenly in [−1, 1], and
    the noise preserves the variance. Prior and reconstruction are computed here, the latter with equal
    logits. The diffusion term is the integral of ``eq-continuous-bound`` between λ = 9 and λ = −6,
    estimated with one λ in each of 64 equal parts. It is a bound whatever the function is.

    The latents of an image are one path of the noising process, and they are asked from the last one to
    the first. Given a latent, those with more noise say nothing more of the image. So a function that
    remembers what it was asked before gains nothing.

    Raises:
        Invalid: an answer depends on other rows, on its place, on earlier calls or on chance; or it has
            another shape, or is not finite.
    """

    def query(points: Tensor) -> Tensor:
        z, log_snr = points[:, :-1].contiguous(), points[:, -1].contiguous()
        arrays = ask("denoise", z.numpy(), log_snr.numpy())
        return one_array(arrays, tuple(z.shape), "denoise(z, log_snr)")

    return _bits(query, "denoise", split, seed)


def velocity_bits(ask: Ask, *, split: str, seed: int) -> Measurement:
    """As `denoiser_bits`, of the denoiser that a velocity on the linear path stands for.

    Asks ``velocity(z, t)`` for v at z = (1 − t) x + t ε, shape ``(N, 64)``, with a time for each, ``(N,)``,
    float32. The estimate of the clean image is z − t v. The bound depends on a path only through the
    signal-to-noise ratios at its ends, so the latents are those of `denoiser_bits` on another scale.

    Raises:
        Invalid: as `denoiser_bits`.
    """

    def query(points: Tensor) -> Tensor:
        alpha, sigma = (a.unsqueeze(-1) for a in _noise_level(points[:, -1].double()))
        z, t = (points[:, :-1] / (alpha + sigma)).float(), (sigma / (alpha + sigma)).float()
        arrays = ask("velocity", z.contiguous().numpy(), t.flatten().contiguous().numpy())
        return z - t.double() * one_array(arrays, tuple(z.shape), "velocity(z, t)")

    return _bits(query, "velocity", split, seed)


def _bits(query: Callable[[Tensor], Tensor], name: str, split: str, seed: int) -> Measurement:
    """The bound of a denoiser, of points ``(N, D + 1)`` that hold z and λ."""
    generator = torch.Generator().manual_seed(seed)
    levels = images(split).flatten(1).long()
    x = 2 * levels.double() / (LEVELS - 1) - 1
    n, d = x.shape

    log_snr, latents = _path(x, generator)
    width = LOG_SNR_MAX - LOG_SNR_MIN
    # What is sent is what is measured: both in float32.
    points = torch.cat([latents, log_snr.unsqueeze(-1)], -1).float()  # (rounds, n, d + 1)
    kept = torch.zeros(ROUNDS, n, d, dtype=torch.float64)
    for k in reversed(range(ROUNDS)):
        order = torch.randperm(n, generator=generator)
        kept[k, order] = query(points[k, order])
    _require_same(query, name, points.flatten(0, 1), kept.flatten(0, 1), generator)

    squared = (x - kept).square().sum(-1)  # (rounds, n)
    diffusion = 0.5 * width * (log_snr.exp() * squared).mean(0)
    total = _prior(x) + diffusion + _reconstruction(x, levels, generator)
    value = total.mean().item() / (d * math.log(2))
    return Measurement(value, "bits/dim", suspicious=value < 1.7)


def _noise_level(log_snr: Tensor) -> tuple[Tensor, Tensor]:
    """α and σ, with α² + σ² = 1."""
    return (0.5 * logsigmoid(log_snr)).exp(), (0.5 * logsigmoid(-log_snr)).exp()


def _path(x: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """λ of shape ``(rounds, N)``, falling, and latents of one noising process, ``(rounds, N, D)``."""
    offset = torch.rand(len(x), generator=generator, dtype=x.dtype)
    part = torch.arange(ROUNDS, dtype=x.dtype).unsqueeze(-1)
    log_snr = LOG_SNR_MAX + (LOG_SNR_MIN - LOG_SNR_MAX) * (part + offset) / ROUNDS
    alpha, sigma = (value.unsqueeze(-1) for value in _noise_level(log_snr))
    z, before = x, (torch.ones_like(alpha[0]), torch.zeros_like(sigma[0]))
    latents = []
    for a, s in zip(alpha, sigma, strict=True):
        shrunk = a / before[0]
        added = (s.square() - (shrunk * before[1]).square()).sqrt()
        z = shrunk * z + added * torch.randn(x.shape, generator=generator, dtype=x.dtype)
        latents.append(z)
        before = a, s
    return log_snr, torch.stack(latents)


def _prior(x: Tensor) -> Tensor:
    """KL(q(z | x) ‖ N(0, I)) at the last noise level, in nats, shape ``(N,)``."""
    alpha, sigma = _noise_level(torch.tensor(LOG_SNR_MIN, dtype=x.dtype))
    return 0.5 * ((alpha * x).square() + sigma.square() - 1 - sigma.square().log()).sum(1)


def _reconstruction(x: Tensor, levels: Tensor, generator: torch.Generator) -> Tensor:
    """−log P(x | z) at the first noise level, for one z, in nats, shape ``(N,)``."""
    alpha, sigma = _noise_level(torch.tensor(LOG_SNR_MAX, dtype=x.dtype))
    z = alpha * x + sigma * torch.randn(x.shape, generator=generator, dtype=x.dtype)
    places = torch.linspace(-1, 1, LEVELS, dtype=x.dtype)
    logits = -((z.unsqueeze(-1) - alpha * places) / sigma).square() / 2
    return -logits.log_softmax(-1).gather(-1, levels.unsqueeze(-1)).sum((1, 2))


def _require_same(
    query: Callable[[Tensor], Tensor],
    name: str,
    points: Tensor,
    kept: Tensor,
    generator: torch.Generator,
) -> None:
    """Ask some points of all rounds again, mixed, and require the same answers."""
    few = torch.randperm(len(points), generator=generator)[:500]
    what = f"{name} of a point"
    again = ask_each(query, points[few], generator, what, tolerance=1e-2)
    if ((again - kept[few]).abs() > 1e-2 * (1 + kept[few].abs())).any():
        raise Invalid(
            f"{what} gives other answers among other points: it depends on the other rows of its batch, or "
            "remembers earlier calls"
        )
