"""The likelihood of a flow, from its map alone."""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from course_lib.checking.measures.common import (
    Ask,
    Invalid,
    Measurement,
    ask_each,
    images,
    one_array,
)


def flow_bits(ask: Ask, *, split: str, seed: int) -> Measurement:
    """−log₂ p per dimension of a flow on dequantized digits, in bits/dim; no log-determinant is asked.

    Asks ``forward(y)`` and ``inverse(z)``, float64 of shape ``(N, 64)``, at 128 images with uniform
    noise, y = (x + u)/17. The Jacobian of ``forward`` is assembled from central differences; its
    determinant and the standard normal density of z give log p(y), and the bound of
    ``eq-dequantization-bound``. That is a likelihood only if ``forward`` is injective: where it is,
    ``∫ p_Z(f(y)) |det ∂f/∂y| dy ≤ 1``, whatever the functions are. So what is required as well:

    - the same answer to the same point in other batches, and secants that agree with the Jacobian, so
      that neither rounding nor tiny teeth pass for derivatives;
    - ``inverse(forward(y)) = y``, and ``forward(inverse(z)) = z`` at fresh, mixed points;
    - one sign of the determinant, and continuous images of the segment between two images and, back
      through ``inverse``, of the segment between their latents: a map that covers latents several times
      tears one of the two.

    Raises:
        Invalid: one of these does not hold, or an answer has another shape or type.
    """
    generator = torch.Generator().manual_seed(seed)

    def uniform(*shape: int) -> Tensor:
        return torch.rand(shape, generator=generator, dtype=torch.float64)

    def query(name: str, points: Tensor) -> Tensor:
        arrays = ask(name, points.contiguous().numpy())
        what = f"{name} of {len(points)} points"
        answered = one_array(arrays, tuple(points.shape), what)
        if arrays[""].dtype != np.float64:
            raise Invalid(
                f"{what} is {arrays[''].dtype}; float64 is expected, since derivatives are taken "
                "by differences. Convert the trained model with .double()"
            )
        return answered

    def each(name: str, points: Tensor, tolerance: float) -> Tensor:
        # Of 95 %: single points may lie where a logit saturates.
        return ask_each(
            lambda some: query(name, some),
            points,
            generator,
            f"{name} of a point",
            tolerance=tolerance,
            share=0.95,
        )

    n, d, levels = 128, 64, 17
    x = images(split).flatten(1).double()
    x = x[torch.randperm(len(x), generator=generator)[:n]]
    y = (x + 0.001 + 0.998 * uniform(n, d)) / levels  # the differences stay within [0, 1]

    # The Jacobian is found column by column.
    step = 1e-6
    shifts = step * torch.cat([torch.zeros(1, d), torch.eye(d), -torch.eye(d)]).double()
    answered = each("forward", (y[:, None] + shifts).flatten(0, 1), 1e-6).view(n, 1 + 2 * d, d)
    z, plus, minus = answered[:, 0], answered[:, 1 : d + 1], answered[:, d + 1 :]
    jacobian = ((plus - minus) / (2 * step)).transpose(1, 2)
    sign, log_det = torch.linalg.slogdet(jacobian)
    if not bool(torch.isfinite(log_det).all()):
        raise Invalid("the Jacobian of forward is singular at an image")
    if bool((sign != sign[0]).any()):
        raise Invalid("the determinant of forward changes its sign, so forward is not invertible")

    # Of a smooth function in double precision, hardly anything is left of the second differences;
    # rounding leaves much, and would count as derivative.
    bend = (plus + minus - 2 * z[:, None]).norm(dim=2) / (plus - minus).norm(dim=2)
    if bend.quantile(0.9) > 1e-3:
        raise Invalid("forward is rounded: it must compute in float64 throughout; call .double()")

    # These differences are a hundred times as long.
    far = 100 * step * torch.nn.functional.normalize(y.roll(1, 0) - y, dim=1)
    ahead, behind = query("forward", torch.cat([y + far, y - far])).split(n)
    secant, tangent = (ahead - behind) / 2, (jacobian @ far[:, :, None])[:, :, 0]
    error = (secant - tangent).norm(dim=1) / tangent.norm(dim=1)
    if error.median() > 0.02:
        raise Invalid(
            "forward is not smooth: differences over 1e-4 and 1e-6 give other derivatives"
        )

    # Both round trips, at images, between them and at fresh latents.
    fresh = 0.7 * torch.randn(n, d, generator=generator, dtype=torch.float64)
    other = z.roll(1, 0)
    latents = torch.cat([z, (z + other) / 2, fresh])
    back, between, drawn = each("inverse", latents, 1e-5).split(n)
    _require_close(back, y, 1e-5, "inverse(forward(y)) is not y")
    there = query("forward", torch.cat([between, drawn, back]))
    _require_close(
        there, torch.cat([(z + other) / 2, fresh, z]), 1e-4, "forward(inverse(z)) is not z"
    )
    pairs = slice(0, 16)
    _require_continuous(lambda p: query("forward", p), y[pairs], y.roll(1, 0)[pairs], "forward")
    ends = z[pairs], other[pairs]
    points, reached = _require_continuous(lambda p: query("inverse", p), *ends, "inverse")
    _require_close(query("forward", reached), points, 1e-4, "forward(inverse(z)) is not z")

    log_prob = -0.5 * (z**2 + np.log(2 * np.pi)).sum(1) + log_det
    value = float(np.log2(levels) - log_prob.mean().item() / (d * np.log(2)))
    return Measurement(value, "bits/dim", suspicious=value < 1.8)


def _require_close(given: Tensor, right: Tensor, tolerance: float, fault: str) -> None:
    """Require it of 95 % of the points: single ones may lie where a logit saturates."""
    error = ((given - right).abs() / (1 + right.abs())).amax(1)
    if error.quantile(0.95) > tolerance:
        raise Invalid(f"{fault} (off by up to {error.max().item():.2g})")


def _require_continuous(
    function: Callable[[Tensor], Tensor], start: Tensor, end: Tensor, name: str
) -> tuple[Tensor, Tensor]:
    """Follow the largest step on each segment by bisection: where there is a jump, it stays.

    Returns:
        The points next to which the steps are largest, and the function's values there.
    """
    n, parts = len(start), 16
    t = torch.linspace(0, 1, parts + 1, dtype=start.dtype)

    def at(t: Tensor) -> Tensor:
        return start + t[:, None] * (end - start)

    grid = torch.stack([at(s.expand(n)) for s in t])  # (parts + 1, n, d)
    values = function(grid.flatten(0, 1)).view(grid.shape)
    largest = (values[1:] - values[:-1]).norm(dim=2).argmax(0)  # (n,)
    row = torch.arange(n)
    low, high = t[largest], t[largest + 1]
    at_low, at_high = values[largest, row], values[largest + 1, row]
    for _ in range(28):
        middle = (low + high) / 2
        value = function(at(middle))
        first = (value - at_low).norm(dim=1) > (at_high - value).norm(dim=1)
        low, high = torch.where(first, low, middle), torch.where(first, middle, high)
        at_low = torch.where(first[:, None], at_low, value)
        at_high = torch.where(first[:, None], value, at_high)
    jump = (at_high - at_low).norm(dim=1).max().item()
    if jump > 1e-3:
        raise Invalid(f"{name} jumps (by {jump:.2g}) on a segment: a flow is continuous both ways")
    return at(low), at_low
