"""The generator's distance equals an independent computation, and no forgery passes it."""

import numpy as np
import pytest
import scipy.linalg
import torch

from course_lib.checking import measures
from course_lib.checking.measures import Invalid, generator, generator_distance
from course_lib.evaluation import frechet_distance

TRAIN = measures.images("train").flatten(1).double() / 16
CODES = torch.from_numpy(np.random.RandomState(9).standard_normal((len(TRAIN), 16)))


def asked(generate):
    """Answer as a notebook does: float32 in, an array out."""
    return lambda name, z: {"": generate(torch.from_numpy(z).double()).float().numpy()}


def gaussian(z):
    """A Gaussian with the digits' mean and main covariances: an honest, lazy, continuous generator."""
    size, directions = torch.linalg.eigh(torch.cov(TRAIN.T))
    return (TRAIN.mean(0) + z @ (directions[:, -16:] * size[-16:].sqrt()).T).clamp(0, 1)


def table(z):
    return TRAIN[torch.cdist(z, CODES).argmin(1)]


def blurred_table(z):
    """Stored digits again, faded into one another so that nothing leaps."""
    return torch.softmax(-(torch.cdist(z, CODES) ** 2) / 0.5, 1) @ TRAIN


@pytest.mark.parametrize("split", ["validation", "test"])
def test_distance_equals_an_independent_computation(split):
    found = generator_distance(asked(gaussian), split=split, seed=3)
    z = np.random.RandomState(3).standard_normal((2048, 16)).astype(np.float32)
    pictures = gaussian(torch.from_numpy(z).double()).float().double().numpy()

    def features(x):
        draw = np.random.RandomState(0)
        weight, bias = draw.standard_normal((64, 256)) / 8, draw.standard_normal(256) / 2
        hidden = lambda y: np.maximum((y - TRAIN.numpy().mean(0)) / 0.3 @ weight + bias, 0)  # noqa: E731
        stored = hidden(TRAIN.numpy())
        values, vectors = np.linalg.eigh(np.cov(stored.T, bias=True))
        whiten = vectors[:, -32:] / np.sqrt(values[-32:])
        return (hidden(x) - stored.mean(0)) @ whiten

    a = features(pictures)
    b = features(measures.images(split).flatten(1).numpy() / 16)
    cov_a, cov_b = np.cov(a.T), np.cov(b.T)
    root = scipy.linalg.sqrtm(cov_a @ cov_b).real
    expected = ((a.mean(0) - b.mean(0)) ** 2).sum() + np.trace(cov_a + cov_b - 2 * root)
    assert found.value == pytest.approx(expected, rel=1e-6)


def test_lazy_distributions_are_far_and_the_data_near():
    """The scale on which the limit stands: data about 1, a Gaussian about 7, noise far off."""
    features, held_out = generator._features, measures.image_features("test")
    draw = np.random.RandomState(0)
    noise = torch.from_numpy(draw.random_sample((2048, 64)))
    columns = torch.stack([c[torch.from_numpy(draw.permutation(len(c)))] for c in TRAIN.T], 1)
    few = TRAIN[:20].repeat(50, 1)
    assert frechet_distance(features(TRAIN), held_out) < 1.2
    assert frechet_distance(held_out, held_out) < 1e-6
    for lazy in (noise, columns, few, TRAIN.flip(1), 1 - TRAIN):
        assert frechet_distance(features(lazy), held_out) > 6.5
    assert generator_distance(asked(gaussian), split="test", seed=0).value > 6.5


def test_every_image_of_a_rotated_feature_space_counts_the_same():
    """Signs and order of the principal directions, which may differ by machine, do not matter."""
    a, b = measures.image_features("train"), measures.image_features("validation")
    rotation = torch.linalg.qr(torch.randn(32, 32, dtype=torch.float64)).Q
    assert frechet_distance(a @ rotation, b @ rotation) == pytest.approx(
        frechet_distance(a, b).item()
    )


FORGERIES = {
    "table of stored digits": (table, "leap"),
    "table with noise": (lambda z: (table(z) + 0.1 * z.sin()[:, :1]).clamp(0, 1), "leap"),
    "faded table": (blurred_table, "copies"),
    "drawn anew at each call": (lambda z: TRAIN[torch.randint(1300, (len(z),))], "random"),
    "by position in the batch": (
        lambda z: TRAIN[torch.arange(len(z)) % 1300],
        "place in the batch",
    ),
    "batch statistics": (lambda z: gaussian((z - z.mean(0)) / z.std(0)), "other points"),
    "one image": (lambda z: TRAIN[:1].expand(len(z), -1), "hardly change"),
    "one coordinate": (
        lambda z: TRAIN.mean(0) + 0.01 * z[:, :1].tanh() * TRAIN[:1],
        "hardly change",
    ),
    "out of range": (lambda z: gaussian(z) * 16, "in \\[0, 1\\]"),
    "logits": (lambda z: torch.logit(gaussian(z), 1e-4), "in \\[0, 1\\]"),
    "images": (lambda z: gaussian(z).reshape(-1, 1, 8, 8), "shape"),
    "NaN": (lambda z: gaussian(z) * float("nan"), "finite"),
    "too few": (lambda z: gaussian(z)[1:], "shape"),
}


@pytest.mark.parametrize("name", FORGERIES)
def test_forgeries_are_refused_with_a_reason(name):
    generate, reason = FORGERIES[name]
    with pytest.raises(Invalid, match=reason):
        generator_distance(asked(generate), split="test", seed=1)


def test_what_is_not_one_array_is_refused():
    with pytest.raises(Invalid, match="one tensor"):
        generator_distance(lambda name, z: {"a": z, "b": z}, split="test", seed=0)
    with pytest.raises(Invalid, match="finite"):
        generator_distance(lambda name, z: {"": np.full((len(z), 64), "0.5")}, split="test", seed=0)
