"""The law that a decoder defines, against laws known in closed form; and forgeries."""

import numpy as np
import pytest
import torch
from scipy.special import log_expit

from course_lib.grading.measures import Invalid, binary_digits, decoder_nats


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
    """z₁ > ½ has the prior mass 1 − Φ(½) = 0.3085…"""
    a, b = np.linspace(-3, 2, 64), np.linspace(1, -2, 64)
    weight = 0.5 - 0.5 * torch.erf(torch.tensor(0.5 / 2**0.5)).item()
    mixture = np.logaddexp(np.log(weight) - nats(a), np.log(1 - weight) - nats(b))
    found = measured(lambda z: np.where(z[:, :1] > 0.5, a, b))
    assert found == pytest.approx(-mixture.mean(), abs=1e-3)


def test_no_answer_beats_the_law_it_defines():
    """By Gibbs, the best that one product law can reach on the images is their entropy bound."""
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
def test_what_is_no_law_is_refused(answer, message):
    with pytest.raises(Invalid, match=message):
        measured(answer)
