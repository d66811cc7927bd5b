"""How far the images of a generator are from held-out ones."""

from functools import cache

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
    walks,
)
from course_lib.evaluation import frechet_distance

# Distances between images of 64 pixels in [0, 1]. Two digits of different classes are about 3
# apart. Of unseen digits, one in ten has a training image nearer than 0.77.
LEAP = 1.0
REPLAY = 0.6


@cache
def image_features(split: str) -> Tensor:
    """Features of the images of a split, float64, ``(N, 32)``: see `_features`."""
    return _features(images(split).flatten(1).double() / 16)


def generator_distance(ask: Ask, *, split: str, seed: int) -> Measurement:
    """Fréchet distance of generated images to those of a split, on fixed features.

    Asks ``generate(z)`` for images in [0, 1], shape ``(N, 64)``, at 2,048 standard normal z of shape
    ``(N, 16)``, and takes the distance of the Gaussians with the means and covariances of `_features`.
    Before that it refuses what is not a generator: answers that are not a function of each z alone,
    that jump as z moves (a table of stored images), or that lie nearer to stored digits than unseen
    digits do.

    Raises:
        Invalid: the answer has another shape or range, or is not a generator in that sense.
    """
    draw = np.random.RandomState(seed)
    z = torch.from_numpy(draw.standard_normal((2048, 16))).float()
    # Walks from one z to another in small steps: a network moves little by little, a table leaps.
    path = walks(z[:32], z[32:64], steps=64)
    points = torch.cat([z, path.flatten(0, 1)])
    answers = ask_each(
        lambda some: _generated(ask, some),
        points,
        torch.Generator().manual_seed(seed),
        "generate(z)",
    )
    x, walked = answers[: len(z)], answers[len(z) :].view(*path.shape[:2], 64)
    steps = (walked[1:] - walked[:-1]).norm(dim=2)  # (64, walks)
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


def _generated(ask: Ask, z: Tensor) -> Tensor:
    x = one_array(ask("generate", z.contiguous().numpy()), (len(z), 64), "generate(z)")
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
    distribution than its mean and covariance: a Gaussian fitted to the pixels is far from the data here.
    """
    mean, weight, bias, centre, scaled = _projection()
    return (torch.relu((x - mean) / 0.3 @ weight + bias) - centre) @ scaled
