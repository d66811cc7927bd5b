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
