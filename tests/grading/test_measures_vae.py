"""The distribution that a decoder defines, against distributions known in closed form; and forgeries."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import log_expit

from course_lib.checking.measures import Invalid, binary_digits, decoder_nats


def measured(decode, split="test", seed=3):
    return decoder_nats(lambda name, z: {"": decode(z)}, split=split, seed=seed).value


def nats(logits, split="test"):
    x = binary_digits(split).numpy()
    return -(x * log_expit(logits) + (1 - x) * log_expit(-logits)).sum(1)  # (N,)


@pytest.mark.parametrize("split", ["validation", "test"])
def test_a_decoder_that_ignores_z_is_a_product_of_bernoullis(split):
    logits = np.linspace(-3, 2, 64)
    right = nats(logits, split).mean()
    assert measured(lambda z: np.tile(logits, (len(z), 1)), split) == pytest.approx(right)


def test_a_decoder_with_two_cases_is_their_mixture():
    """z₁ > 1.5 has the prior mass 1 − Φ(1.5) = 0.0668…"""
    a, b = np.linspace(-3, 2, 64), np.linspace(1, -2, 64)
    weight = 0.5 - 0.5 * torch.erf(torch.tensor(1.5 / 2**0.5)).item()
    mixture = np.logaddexp(np.log(weight) - nats(a), np.log(1 - weight) - nats(b))
    found = measured(lambda z: np.where(z[:, :1] > 1.5, a, b))
    assert found == pytest.approx(-mixture.mean(), abs=1e-3)


def test_no_answer_beats_the_distribution_it_defines():
    """By Gibbs, the best that one product distribution can reach on the images is their entropy bound."""
    x = binary_digits("test").mean(0).clamp(0.001, 0.999)
    best = nats(torch.logit(x).numpy()).mean()
    assert measured(lambda z: np.full((len(z), 64), 50.0)) > best
    assert measured(lambda z: np.zeros((len(z), 64))) == pytest.approx(64 * np.log(2))


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (lambda z: np.zeros((len(z), 63)), "shape"),
        (lambda z: np.zeros((len(z) - 1, 64)), "shape"),
        (lambda z: np.full((len(z), 64), np.nan), "finite"),
        (lambda z: np.full((len(z), 64), np.inf), "finite"),
        (lambda z: np.zeros((len(z), 64), dtype=complex), "finite real"),
    ],
)
def test_what_is_no_distribution_is_refused(answer, message):
    with pytest.raises(Invalid, match=message):
        measured(answer)


TRAIN = binary_digits("train").numpy()
SMOOTHED = np.log(0.7 * TRAIN + 0.3 * TRAIN.mean(0) + 0.01) - np.log(
    1.01 - 0.7 * TRAIN - 0.3 * TRAIN.mean(0)
)
CODES = np.random.RandomState(9).standard_normal((len(TRAIN), 2))


def weights(z, width):
    """How much each code counts at z, shape ``(N, codes)``."""
    distance = ((z[:, None].astype(np.float64) - CODES) ** 2).sum(2)
    grown = np.exp(-(distance - distance.min(1, keepdims=True)) / width)
    return grown / grown.sum(1, keepdims=True)


class Remembered:
    """A row of the table for each point that is new; the same row when the point comes again."""

    def __init__(self):
        self.known = {}

    def __call__(self, z):
        rows = [self.known.setdefault(p.tobytes(), len(self.known)) for p in z]
        return SMOOTHED[np.array(rows) % len(SMOOTHED)]


TABLES = {
    "by row": lambda z: SMOOTHED[np.arange(len(z)) % len(SMOOTHED)],
    "at random": lambda z: SMOOTHED[np.random.randint(len(SMOOTHED), size=len(z))],  # noqa: NPY002
    "by row of each new point": Remembered(),
    "by rank": lambda z: SMOOTHED[z[:, 0].argsort().argsort() % len(SMOOTHED)],
    "by digits of z": lambda z: SMOOTHED[(np.abs(z) @ [1e4, 7e4]).astype(int) % len(SMOOTHED)],
    "nearest code": lambda z: SMOOTHED[weights(z, 1e-9).argmax(1)],
    "faded": lambda z: weights(z, 0.0005) @ SMOOTHED,
}


@pytest.mark.parametrize("name", TABLES)
def test_a_table_of_stored_images_is_no_decoder(name):
    """As a mixture, each is good enough for the points: 18.4 nats, and 19.5 are asked."""
    with pytest.raises(Invalid, match=r"place in the batch|random|other points|leap"):
        measured(TABLES[name])


@settings(max_examples=8, deadline=None)
@given(
    width=st.integers(8, 128),
    gain=st.floats(0.3, 2.0),
    seed=st.integers(0, 2**16),
)
def test_a_network_is_measured_whatever_its_shape(width, gain, seed):
    draw = np.random.RandomState(seed)
    first = draw.standard_normal((2, width)) * gain
    second = draw.standard_normal((width, 64)) * gain / width**0.5
    assert measured(lambda z: np.maximum(z @ first + 0.3, 0) @ second) > 10


def network(*layers):
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(2, 32), *layers, torch.nn.Linear(32, 64))
    return model, lambda z: model(torch.from_numpy(z)).detach().numpy()


@pytest.mark.parametrize(
    ("layer", "said"),
    [
        (torch.nn.Dropout(0.2), r"random \(dropout in training mode\? call \.eval\(\)"),
        (torch.nn.BatchNorm1d(32), r"other points .* call \.eval\(\)"),
    ],
)
def test_training_mode_is_named_and_evaluation_mode_accepted(layer, said):
    model, decode = network(layer)
    with pytest.raises(Invalid, match=said):
        measured(decode)
    model.eval()
    assert measured(decode) > 10
