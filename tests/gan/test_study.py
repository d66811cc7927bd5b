"""The one-dimensional study: its laws, its measure, and that equal laws score the floor."""

from dataclasses import replace

import numpy as np
import pytest
import scipy.stats
import torch
from torch import nn

from course_lib.gan import study


@pytest.mark.parametrize(
    ("law", "truth"),
    [
        (study.gaussian(4.0, 1.25), torch.distributions.Normal(4.0, 1.25)),
        (study.beta(2, 5), torch.distributions.Beta(2.0, 5.0)),
    ],
    ids=["Gaussian", "Beta"],
)
def test_laws_have_their_moments_and_distribution_function(law, truth):
    x = law.draw((50_000,), torch.Generator().manual_seed(0))
    assert law.mean == pytest.approx(truth.mean.item())
    assert law.std == pytest.approx(truth.stddev.item())
    grid = torch.linspace(law.low, law.high, 5001)[1:-1]
    cdf = torch.cumulative_trapezoid(truth.log_prob(grid).exp(), grid)
    at = torch.tensor([500, 1500, 2500, 3500])
    share = (x.unsqueeze(1) <= grid[1:][at]).float().mean(0)
    torch.testing.assert_close(share, cdf[at], atol=0.01, rtol=0)


class Shift(nn.Module):
    def __init__(self, by):
        super().__init__()
        self.by = nn.Parameter(torch.tensor(by))

    def forward(self, z):
        return z + self.by


def trained_to(law, shift):
    """A 'trained' model whose generators are known: standard normal noise, shifted."""
    trained = study.train(
        replace(study.original(), steps=1), [law], n_seeds=2, n_data=64, batch_size=8, latent_dim=1
    )
    trained.model.generator.network = Shift(shift)
    return trained


def test_a_perfect_generator_scores_the_noise_floor():
    law = study.gaussian()
    histogram, kernel = study.divergences(trained_to(law, 0.0), repetitions=20)
    floor = study.noise_floor(law, repetitions=20)
    assert 0.003 < floor < 0.006
    assert histogram.tolist()[0] == pytest.approx([floor] * 2, rel=0.25)
    assert kernel.max() < 0.004


def test_a_shifted_generator_scores_the_closed_form():
    """KL(N(0, 1) ‖ N(s, 1)) = s²/2, coarsened a little by the bins."""
    law = study.gaussian()
    trained = trained_to(law, 0.5)
    histogram, kernel = study.divergences(trained, repetitions=3)
    assert histogram.mean().item() == pytest.approx(0.125, abs=0.02)
    assert kernel.mean().item() == pytest.approx(0.125, abs=0.02)


def test_the_histogram_is_the_one_defined():
    law = study.beta()
    generator = torch.Generator().manual_seed(0)
    x, y = law.draw((2, 1000), generator)
    y = y + 0.05
    edges = np.concatenate([[-np.inf], np.linspace(0, 1, 51), [np.inf]])
    p, q = (np.histogram(sample.numpy(), edges)[0] + 0.5 for sample in (x, y))
    expected = scipy.stats.entropy(p, q)
    assert study._histogram_kl(law, x, y).item() == pytest.approx(expected, rel=1e-3)


def test_training_is_reproducible_and_its_groups_are_independent():
    method = replace(study.gan_dp(1.0), steps=60)
    runs = [
        study.train(method, [study.gaussian(), study.beta()], n_seeds=2, n_data=512, seed=s)
        for s in (0, 0, 1)
    ]
    a, b, c = (r.sample(4, generator=torch.Generator().manual_seed(0)) for r in runs)
    assert a.shape == (2, 2, 4)
    assert torch.equal(a, b)
    assert not torch.equal(a, c)
    assert runs[0].means.shape == (len(runs[0].steps), 2, 2)


@pytest.mark.parametrize(
    "method", [study.wgan_gp(10.0), study.wgan_gp(1.0, one_sided=True)], ids=lambda m: m.name
)
def test_other_methods_run(method):
    trained = study.train(replace(method, steps=5), [study.beta()], n_seeds=2, n_data=512)
    assert torch.isfinite(trained.stds).all()
    assert ("one-sided" in method.name) != ("two-sided" in method.name)
