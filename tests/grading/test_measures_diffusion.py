"""`denoiser_bits` equals likelihoods that are known otherwise, and no forged denoiser gains by it."""

import math

import numpy as np
import pytest
import torch

from course_lib.checking.measures import Invalid, denoiser_bits, images, velocity_bits
from course_lib.checking.measures import denoiser as measure
from course_lib.checking.measures.denoiser import LOG_SNR_MAX, LOG_SNR_MIN

PLACES = torch.linspace(-1, 1, 17, dtype=torch.float64)


def levels(split):
    return images(split).flatten(1).long()


TRAIN = PLACES[levels("train")]
COUNTS = torch.nn.functional.one_hot(levels("train"), 17).double().sum(0) + 1
SHARES = COUNTS / COUNTS.sum(1, keepdim=True)  # of each level at each pixel, (64, 17)


def noise(log_snr):
    return log_snr.sigmoid().sqrt().unsqueeze(-1), (-log_snr).sigmoid().sqrt().unsqueeze(-1)


def of_pixels(z, log_snr, log_share=None):
    """The posterior mean if the pixels are independent, with these shares of the levels."""
    alpha, sigma = noise(log_snr)
    apart = (z.unsqueeze(-1) - alpha.unsqueeze(-1) * PLACES) / sigma.unsqueeze(-1)
    share = SHARES.log() if log_share is None else log_share
    return (share - apart.square() / 2).softmax(-1) @ PLACES


def linear(z, log_snr):
    """A poor denoiser whose error is known."""
    return 0.5 * noise(log_snr)[0] * z


def memorizer(z, log_snr):
    """The average of the training images with their probabilities given z."""
    alpha, sigma = noise(log_snr)
    # −‖z − αx‖²/2σ² without the part that is the same for all x
    inner = z @ TRAIN.T - alpha / 2 * TRAIN.square().sum(1)
    return (alpha / sigma.square() * inner).softmax(-1) @ TRAIN


def measured(denoise, split="test", seed=3, record=None):
    def ask(name, z, log_snr):
        assert name == "denoise"
        assert z.dtype == log_snr.dtype == np.float32
        if record is not None:
            record.append((z, log_snr))
        answered = denoise(torch.from_numpy(z).double(), torch.from_numpy(log_snr).double())
        return {"": answered.numpy()}

    return denoiser_bits(ask, split=split, seed=seed)


@pytest.mark.parametrize("split", ["validation", "test"])
def test_of_a_product_of_pixels_the_bound_is_the_likelihood(split):
    """The exact denoiser of a distribution has no gap in continuous time, for any image."""
    x = levels(split)
    log_p = SHARES.log().expand(len(x), -1, -1).gather(2, x.unsqueeze(-1))
    found = np.mean([measured(of_pixels, split, seed).value for seed in range(4)])
    assert found == pytest.approx(-log_p.mean().item() / math.log(2), abs=0.02)


def test_equal_shares_need_the_bits_of_a_uniform_distribution():
    found = np.mean(
        [measured(lambda z, t: of_pixels(z, t, torch.zeros(17)), seed=s).value for s in range(4)]
    )
    assert found == pytest.approx(math.log2(17), abs=0.03)


def test_prior_and_reconstruction_count_where_they_are_not_small(monkeypatch):
    """For equal shares denoiser and decoder are exact, and what remains is the prior's gap, by quadrature."""
    monkeypatch.setattr(measure, "LOG_SNR_MAX", 2.5)
    monkeypatch.setattr(measure, "LOG_SNR_MIN", -1.0)
    alpha, sigma = noise(torch.tensor(-1.0, dtype=torch.float64))
    z = torch.linspace(-8, 8, 4001, dtype=torch.float64)
    each = torch.distributions.Normal(alpha * PLACES[:, None], sigma).log_prob(z)  # (17, Z)
    marginal = each.logsumexp(0) - math.log(17)
    prior = torch.distributions.Normal(0.0, 1.0).log_prob(z)
    gap = torch.trapezoid(each.exp() * (marginal - prior), z)  # of each level
    right = math.log2(17) + gap[levels("test")].mean().item() / math.log(2)
    equal = torch.zeros(17)
    found = np.mean([measured(lambda z, t: of_pixels(z, t, equal), seed=s).value for s in range(4)])
    assert found == pytest.approx(right, abs=0.02)


def test_the_error_of_a_linear_denoiser_is_integrated():
    """½ ∫ SNR [(1 − α²/2)² x² + α²σ²/4] dλ, and hardly anything of prior and reconstruction."""
    x = PLACES[levels("test")]
    log_snr = torch.linspace(LOG_SNR_MIN, LOG_SNR_MAX, 20_001, dtype=torch.float64)
    alpha2, sigma2 = log_snr.sigmoid(), (-log_snr).sigmoid()
    squared = (1 - alpha2 / 2) ** 2 * x.square().mean() + alpha2 * sigma2 / 4
    nats = torch.trapezoid(0.5 * log_snr.exp() * squared, log_snr)
    assert measured(linear).value == pytest.approx(nats.item() / math.log(2), rel=0.01)


def test_the_memorizer_needs_the_entropy_of_its_images_and_fails_on_others():
    own = measured(memorizer, "train", seed=1)
    assert own.value == pytest.approx(math.log2(1300) / 64, abs=0.03)
    assert own.suspicious
    assert measured(memorizer, "validation").value > 50


def test_an_honest_number_is_not_suspicious():
    found = measured(of_pixels)
    assert not found.suspicious
    assert found.unit == "bits/dim"


def test_the_latents_are_one_noising_process_asked_from_noise_to_data():
    record = []
    measured(of_pixels, record=record)
    rounds = [torch.from_numpy(np.concatenate([z, t[:, None]], 1)).double() for z, t in record[:64]]
    means = torch.stack([points[:, -1].mean() for points in rounds])
    assert (means.diff() > 0).all()
    part = (LOG_SNR_MAX - LOG_SNR_MIN) / 64
    for k, points in enumerate(rounds):
        low = LOG_SNR_MIN + k * part
        assert points[:, -1].min() >= low - 1e-5
        assert points[:, -1].max() <= low + part + 1e-5
    # Rows come in another order each round: sort them by their λ, whose offsets stay the same.
    first, last = (points[points[:, -1].argsort()] for points in (rounds[20], rounds[21]))
    (alpha_t, sigma_t), (alpha_s, sigma_s) = noise(first[:, -1]), noise(last[:, -1])
    ratio = alpha_t / alpha_s
    added = (sigma_t**2 - (ratio * sigma_s) ** 2).sqrt()
    fresh = (first[:, :64] - ratio * last[:, :64]) / added
    assert fresh.mean().item() == pytest.approx(0, abs=0.03)
    assert fresh.var().item() == pytest.approx(1, abs=0.05)
    assert np.corrcoef(fresh.flatten(), last[:, :64].flatten())[0, 1] == pytest.approx(0, abs=0.03)


class Remembering:
    """Averages its estimate with that for the nearest latent of earlier calls."""

    def __init__(self) -> None:
        self.latents = torch.zeros(0, 64).double()
        self.estimates = torch.zeros(0, 64).double()

    def __call__(self, z, log_snr):
        estimate = of_pixels(z, log_snr)
        if len(self.latents):
            nearest = torch.cdist(z, self.latents).argmin(1)
            estimate = (estimate + self.estimates[nearest]) / 2
        self.latents = torch.cat([self.latents, z])
        self.estimates = torch.cat([self.estimates, estimate])
        return estimate


@pytest.mark.parametrize(
    ("denoise", "message"),
    [
        (Remembering(), "random .* or remembers earlier calls"),
        (lambda z, t: of_pixels(z, t) + 0.1 * z.mean(0), "other points of its batch|other rows"),
        (lambda z, t: of_pixels(z, t) + 0.1 * torch.randn(64), r"call \.eval\(\)"),
        (
            lambda z, t: of_pixels(z, t) + torch.linspace(0, 1, len(z)).double()[:, None],
            "place in the batch",
        ),
        (lambda z, t: of_pixels(z, t)[:, :63], "shape"),
        (lambda z, t: of_pixels(z, t).view(-1, 1, 8, 8), "shape"),
        (lambda z, t: of_pixels(z, t) * math.nan, "finite"),
    ],
)
def test_what_is_no_denoiser_is_refused_with_a_reason(denoise, message):
    with pytest.raises(Invalid, match=message):
        measured(denoise, "validation")


def test_a_velocity_is_measured_as_the_denoiser_that_it_stands_for():
    """v = (z − x̂)/t on the linear path, whose latents are those of the other one divided by α + σ."""

    def velocity(name, z, t):
        assert name == "velocity"
        assert z.dtype == t.dtype == np.float32
        assert 0 < t.min() <= t.max() < 1
        z, t = torch.from_numpy(z).double(), torch.from_numpy(t).double()
        log_snr = 2 * torch.log((1 - t) / t)
        scale = sum(noise(log_snr))
        return {"": ((z - of_pixels(z * scale, log_snr)) / t[:, None]).numpy()}

    found = velocity_bits(velocity, split="validation", seed=3)
    assert found.value == pytest.approx(measured(of_pixels, "validation").value, abs=1e-3)


def test_it_gives_the_same_number_again():
    assert measured(linear) == measured(linear)
    assert measured(linear) != measured(linear, seed=4)
