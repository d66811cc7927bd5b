"""Numbers of a trained model that are computed from what it answers, not from what it claims.

A student's model is asked for plain arrays only, and the likelihood or distance is computed
here, outside of it: a model can be as wrong as it likes, but it cannot report a better number
than the law that it defines. Each measure takes ``ask(function, *arrays) -> arrays``, which the
student's check answers by calling the functions, and the grading by asking the isolated process.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from course_lib.data import Dataset, digits
from course_lib.evaluation import frechet_distance

Ask = Callable[..., dict[str, np.ndarray]]

# Distances between images of 64 pixels in [0, 1]. Two digits of different classes are about 3
# apart. Of unseen digits, one in ten has a training image nearer than 0.77.
LEAP = 1.0
REPLAY = 0.6


class Invalid(ValueError):
    """The answers define no valid model; the message says why."""


@dataclass(frozen=True)
class Measurement:
    """A measured number, with its unit; lower is better.

    Attributes:
        value: the number.
        unit: what it counts, for instance ``"nats per image"``.
        suspicious: set when the number is better than an honest model of this size reaches, so
            that an instructor looks at it (trained on the test images, for instance).
    """

    value: float
    unit: str
    suspicious: bool = False


def binary_digits(split: str) -> Tensor:
    """Digits with every pixel set to 1 where its level is at least 8: float64, ``(N, 64)``."""
    return (images(split).flatten(1) >= 8).double()


def images(split: str) -> Tensor:
    """Grey levels 0 … 16 of a split of the digits, uint8, shape ``(N, 1, 8, 8)``."""
    data: Dataset = digits()
    return {"train": data.train, "validation": data.validation, "test": data.test}[split]


def decoder_nats(ask: Ask, *, split: str, seed: int) -> Measurement:
    """−log p(x) of a Bernoulli decoder with two latent variables, by quadrature, in nats per image.

    Asks ``decode(z)`` for the logits, shape ``(N, 64)``, at 4,096 points z that follow the
    standard normal prior evenly (a scrambled Sobol sequence), and averages the likelihoods:
    log p(x) = log (1/M) Σ_m p(x | z_m), the exact log-likelihood of the mixture that those answers
    define. The images are never shown to the decoder.

    Raises:
        Invalid: the answer has another shape, or is not finite.
    """
    sobol = torch.quasirandom.SobolEngine(2, scramble=True, seed=seed)
    uniform = sobol.draw(4096, dtype=torch.float64).clamp(1e-9, 1 - 1e-9)
    z = torch.special.ndtri(uniform)
    logits = one_array(ask("decode", z.float().numpy()), (len(z), 64), "decode(z)")
    x = binary_digits(split)
    log_one, log_zero = (
        torch.nn.functional.logsigmoid(logits),
        torch.nn.functional.logsigmoid(-logits),
    )
    log_likelihood = x @ log_one.T + (1 - x) @ log_zero.T  # (N, M)
    log_prob = torch.logsumexp(log_likelihood, 1) - np.log(len(z))
    value = -log_prob.mean().item()
    return Measurement(value, "nats per image", suspicious=value < 14)


@cache
def image_features(split: str) -> Tensor:
    """Features of the images of a split, float64, ``(N, 32)``: see `_features`."""
    return _features(images(split).flatten(1).double() / 16)


def generator_distance(ask: Ask, *, split: str, seed: int) -> Measurement:
    """Fréchet distance of generated images to those of a split, on fixed features.

    Asks ``generate(z)`` for images in [0, 1], shape ``(N, 64)``, at 2,048 standard normal z of shape
    ``(N, 16)``, and takes the distance of the Gaussians with the means and covariances of `_features`.
    Before that it refuses what is no generator: answers that are not a function of each z alone,
    that jump as z moves (a table of stored images), or that lie nearer to stored digits than unseen
    digits do.

    Raises:
        Invalid: the answer has another shape or range, or is no generator in that sense.
    """
    draw = np.random.RandomState(seed)
    z = draw.standard_normal((2048, 16)).astype(np.float32)
    x = _generated(ask, z)
    some = draw.permutation(len(z))[:300]
    if (_generated(ask, z[some]) - x[some]).abs().max() > 1e-3:
        raise Invalid(
            "generate(z) gives other images for the same z in another batch: each image must depend "
            "on its own z alone (no random numbers inside; evaluation mode, if there is batch "
            "normalization or dropout)"
        )
    # Walks from one z to the next in small steps: a network moves little by little, a table leaps.
    walks = np.linspace(z[:32], z[32:64], 65).astype(np.float32)  # (steps, walks, 16)
    path = _generated(ask, walks.reshape(-1, 16)).reshape(65, 32, 64)
    steps = (path[1:] - path[:-1]).norm(dim=2)  # (64, walks)
    if steps.amax(0).median() > LEAP:
        raise Invalid(
            "the images leap while z moves in small steps: a generator is a continuous function of z"
        )
    if steps.sum(0).median() < 0.5:
        raise Invalid("the images hardly change with z: the generator has to use its noise")
    stored = (
        torch.cat([images(s).flatten(1) for s in ("train", "validation", "test")]).double() / 16
    )
    nearest = torch.cdist(x, stored).amin(1)
    if nearest.quantile(0.1) < REPLAY:
        raise Invalid(
            "the images are copies of digits of the data set, or nearly: the nearest one is closer "
            "than it is for digits that were never seen"
        )
    value = frechet_distance(_features(x), image_features(split)).item()
    return Measurement(value, "(Fréchet distance)", suspicious=value < 1.0)


def _generated(ask: Ask, z: np.ndarray) -> Tensor:
    x = one_array(ask("generate", z), (len(z), 64), "generate(z)")
    if x.min() < 0 or x.max() > 1:
        raise Invalid(
            f"generate(z) has values from {x.min():.3g} to {x.max():.3g}; pixels in [0, 1] are expected"
        )
    return x


@cache
def _projection() -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Random weights, and the principal directions of what they give on the training images."""
    x = images("train").flatten(1).double() / 16
    draw = np.random.RandomState(0)  # the same numbers in every version of NumPy
    weight = torch.from_numpy(draw.standard_normal((64, 256))) / 8
    bias = torch.from_numpy(draw.standard_normal(256)) / 2
    hidden = torch.relu((x - x.mean(0)) / 0.3 @ weight + bias)
    _, size, directions = torch.linalg.svd(hidden - hidden.mean(0), full_matrices=False)
    scaled = directions[:32].T / (size[:32] / len(x) ** 0.5)
    return x.mean(0), weight, bias, hidden.mean(0), scaled


def _features(x: Tensor) -> Tensor:
    """32 features of images ``(N, 64)``: whitened principal components of 256 random ReLU units.

    They need no training and are the same on every machine, and unlike pixels they see more of a
    law than its mean and covariance: a Gaussian fitted to the pixels is far from the data here.
    """
    mean, weight, bias, centre, scaled = _projection()
    return (torch.relu((x - mean) / 0.3 @ weight + bias) - centre) @ scaled


def flow_bits(ask: Ask, *, split: str, seed: int) -> Measurement:
    """−log₂ p per dimension of a flow on dequantized digits, in bits/dim; no log-determinant is asked.

    Asks ``forward(y)`` and ``inverse(z)``, float64 of shape ``(N, 64)``, at 128 images with uniform
    noise, y = (x + u)/17. The Jacobian of ``forward`` is assembled from central differences; its
    determinant and the standard normal density of z give log p(y), and the bound of
    ``eq-dequantization-bound``. That is a likelihood only if ``forward`` is injective: where it is,
    ∫ p_Z(f(y)) |det ∂f/∂y| dy ≤ 1, whatever the functions are. So what is required as well:

    - the same answer to the same point in another batch, and secants that agree with the Jacobian, so
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
        """Ask in a random order, and restore it."""
        order = torch.randperm(len(points), generator=generator)
        arrays = ask(name, points[order].contiguous().numpy())
        what = f"{name} of {len(points)} points"
        answered = one_array(arrays, tuple(points.shape), what)
        if arrays[""].dtype != np.float64:
            raise Invalid(
                f"{what} is {arrays[''].dtype}; float64 is expected, since derivatives are taken "
                "by differences. Convert the trained model with .double()"
            )
        return answered[order.argsort()]

    n, d, levels = 128, 64, 17
    x = images(split).flatten(1).double()
    x = x[torch.randperm(len(x), generator=generator)[:n]]
    y = (x + 0.001 + 0.998 * uniform(n, d)) / levels  # the differences stay within [0, 1]

    # The Jacobian, column by column.
    step = 1e-6
    shifts = step * torch.cat([torch.zeros(1, d), torch.eye(d), -torch.eye(d)]).double()
    answered = query("forward", (y[:, None] + shifts).flatten(0, 1)).view(n, 1 + 2 * d, d)
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

    # The same points in other company, and differences a hundred times as long.
    far = 100 * step * torch.nn.functional.normalize(y.roll(1, 0) - y, dim=1)
    again, ahead, behind = query("forward", torch.cat([y, y + far, y - far])).split(n)
    _require_close(
        again, z, 1e-6, "forward(y) depends on the other points of its batch, or is random"
    )
    secant, tangent = (ahead - behind) / 2, (jacobian @ far[:, :, None])[:, :, 0]
    error = (secant - tangent).norm(dim=1) / tangent.norm(dim=1)
    if error.median() > 0.02:
        raise Invalid(
            "forward is not smooth: differences over 1e-4 and 1e-6 give other derivatives"
        )

    # Both round trips, at images, between them and at fresh latents.
    fresh = 0.7 * torch.randn(n, d, generator=generator, dtype=torch.float64)
    other = z.roll(1, 0)
    back, between, drawn = query("inverse", torch.cat([z, (z + other) / 2, fresh])).split(n)
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


def causal_bits(ask: Ask, *, split: str, seed: int) -> Measurement:
    """−log₂ P per dimension of an autoregressive model of the digits, in bits/dim.

    Asks ``logits(x)`` for levels x, int64 of shape ``(96, 1, 8, 8)``, in 64 rounds: in round i the pixels
    from the i-th on (in raster order) are replaced by random levels, and of the answer, shape
    ``(96, 64, 17)``, only the logits of pixel i are used. They are normalized here. So what
    earns a likelihood is a conditional law given the pixels before, whatever the model is, and
    whatever it remembers of earlier rounds: no round shows a pixel that is still to be predicted.

    At the end the whole images are asked, to tell a model that sees the future (or that is random)
    from one that is merely bad.

    Raises:
        Invalid: it does; or an answer has another shape, or is not finite.
    """
    generator = torch.Generator().manual_seed(seed)
    levels = 17
    x = images(split).flatten(1).long()
    x = x[torch.randperm(len(x), generator=generator)[:96]]
    n, d = x.shape
    row = torch.arange(n)

    def query(shown: Tensor) -> Tensor:
        arrays = ask("logits", shown.view(n, 1, 8, 8).contiguous().numpy())
        return one_array(arrays, (n, d, levels), "logits(x)")

    log_prob = torch.zeros(n, d, dtype=torch.float64)
    kept = torch.zeros(n, d, levels, dtype=torch.float64)
    for i in range(d):
        noise = torch.randint(levels, (n, d - i), generator=generator)
        kept[:, i] = query(torch.cat([x[:, :i], noise], 1))[:, i].log_softmax(-1)
        log_prob[:, i] = kept[row, i, x[:, i]]
    whole = query(x).log_softmax(-1)
    change = (whole - kept).exp().sub(1).abs().amax((0, 2))  # (64,)
    changed = (change > 0.01).nonzero().flatten().tolist()
    if changed:
        raise Invalid(
            f"the law of pixel {changed[0]} (counted from 0 in raster order; {len(changed)} pixels in "
            "all) changes with pixels that are not before it, or from call to call: it sees "
            "the future, or something random such as dropout is still on"
        )
    value = float(-log_prob.sum(1).mean().item() / (d * np.log(2)))
    return Measurement(value, "bits/dim", suspicious=value < 1.6)


def one_array(arrays: dict[str, np.ndarray], shape: tuple[int, ...], what: str) -> Tensor:
    """The one array that was answered, as float64.

    Raises:
        Invalid: several results, another shape, or values that are not finite.
    """
    if set(arrays) != {""}:
        raise Invalid(f"{what} must return one tensor of shape {shape}")
    array: Any = arrays[""]
    if array.shape != shape:
        raise Invalid(f"{what} has shape {array.shape}; {shape} is expected")
    if array.dtype.kind not in "biuf" or not np.isfinite(array).all():
        raise Invalid(f"{what} holds values that are no finite real numbers")
    return torch.from_numpy(array.astype(np.float64))
