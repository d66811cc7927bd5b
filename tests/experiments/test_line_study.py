"""The one-dimensional study: its targets, its methods, what is trained on what, and its two measures."""

import inspect
import math
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from scipy.stats import entropy, gaussian_kde
from torch import nn

from course_lib.experiments import line_study as study
from course_lib.experiments.groups import (
    GroupedDiscriminator,
    GroupedGenerator,
    GroupedLinear,
)
from course_lib.gan import NON_SATURATING, WASSERSTEIN
from course_lib.training import linear_decay


@pytest.mark.parametrize(
    ("target", "truth"),
    [
        (study.gaussian(4.0, 1.25), torch.distributions.Normal(4.0, 1.25)),
        (study.beta(2, 5), torch.distributions.Beta(2.0, 5.0)),
    ],
    ids=["Gaussian", "Beta"],
)
def test_targets_have_their_moments_and_distribution_function(target, truth):
    x = target.draw((50_000,), torch.Generator().manual_seed(0))
    assert target.mean == pytest.approx(truth.mean.item())
    assert target.std == pytest.approx(truth.stddev.item())
    grid = torch.linspace(target.low, target.high, 5001)[1:-1]
    cdf = torch.cumulative_trapezoid(truth.log_prob(grid).exp(), grid)
    at = torch.tensor([500, 1500, 2500, 3500])
    share = (x.unsqueeze(1) <= grid[1:][at]).float().mean(0)
    torch.testing.assert_close(share, cdf[at], atol=0.01, rtol=0)


def test_targets_are_those_of_the_book():
    gaussian, beta = study.gaussian(), study.beta()
    assert (gaussian.mean, gaussian.std) == (4.0, 1.25)
    assert (gaussian.low, gaussian.high) == (-1.0, 9.0)  # four standard deviations to each side
    assert (beta.name, beta.low, beta.high) == ("Beta(2, 5)", 0.0, 1.0)


class Affine(nn.Module):
    """Noise, scaled and shifted."""

    def __init__(self, shift, scale=1.0):
        super().__init__()
        self.shift = nn.Parameter(torch.as_tensor(shift))
        self.scale = scale

    def forward(self, z):
        return self.scale * z + self.shift


class Calls(list):
    """Stands for `fit`, and keeps what it was called with; `then` is done with the model."""

    def __init__(self, then=None):
        super().__init__()
        self.then = then

    def __call__(self, model, losses, data, **options):
        self.append((model, losses, data, options))
        if self.then is not None:
            self.then(model, options["callback"])


@pytest.fixture
def calls(monkeypatch):
    made = Calls()
    monkeypatch.setattr(study, "fit", made)
    made.then = lambda model, callback: callback(1, model)
    return made


def trained_to(targets, shift, scale=1.0):
    """A 'trained' model whose generators are known: standard normal noise, scaled and shifted."""
    fit = study.fit
    study.fit = Calls(lambda model, callback: callback(1, model))
    try:
        trained = study.train(study.original(), targets, n_seeds=2, n_data=8, latent_dim=1)
    finally:
        study.fit = fit
    trained.model.generator.network = Affine(shift, scale)
    return trained


# What is trained. --------------------------------------------------------------------------------


def test_each_generator_is_trained_on_its_own_standardized_draws(calls):
    study.train(study.original(), [study.gaussian(), study.beta()], n_seeds=3, n_data=20_000)
    ((model, _, data, _),) = calls
    assert model.generator.groups == model.discriminator.groups == 6
    assert data.shape == (20_000, 6)
    torch.testing.assert_close(data.mean(0), torch.zeros(6), atol=0.03, rtol=0)
    torch.testing.assert_close(data.std(0), torch.ones(6), atol=0.03, rtol=0)
    # The Gaussian comes first: it is symmetric, and Beta(2, 5) leans to the left by 0.596.
    skewness = data.pow(3).mean(0)
    expected = torch.tensor([0.0, 0.0, 0.0, 0.596, 0.596, 0.596])
    torch.testing.assert_close(skewness, expected, atol=0.1, rtol=0)
    torch.testing.assert_close(data.T.corrcoef(), torch.eye(6), atol=0.03, rtol=0)


def test_a_batch_is_sorted_by_generator(calls):
    study.train(study.original(), [study.beta()], n_seeds=3, n_data=8)
    batch = torch.arange(3.0).expand(4, 3)  # four draws of each of three generators
    examples = calls[0][3]["transform"](batch, None)
    assert examples.flatten().tolist() == [0.0] * 4 + [1.0] * 4 + [2.0] * 4
    assert examples.shape == (12, 1)


def test_the_settings_are_those_of_the_book(calls):
    study.train(study.original(), [study.beta()])
    ((model, _, data, options),) = calls
    assert data.shape == (50_000, 8)
    assert model.latent_dim == 8
    widths = [tuple(p.shape[1:]) for p in model.generator.parameters() if p.shape[1] > 1]
    assert widths == [(8, 16), (16, 16), (16, 1)]
    widths = [tuple(p.shape[1:]) for p in model.discriminator.parameters() if p.shape[1] > 1]
    assert widths == [(16, 16), (16, 1)]
    assert options["schedule"] is linear_decay
    wanted = {"steps": 4000, "batch_size": 128, "learning_rate": 1e-3, "ema": 0.998, "seed": 0}
    wanted["accelerator"] = "cpu"
    assert {name: options[name] for name in wanted} == wanted


def test_a_method_is_trained_by_its_own_settings(calls):
    method = study.wgan_gp(
        10.0, learning_rate=1e-5, decay=False, steps=7, updates=5, betas=(0.5, 0.9), average=None
    )
    study.train(method, [study.beta()], n_seeds=1, n_data=8)
    _, (discriminator, generator), _, options = calls[0]
    assert options["schedule"] is None
    assert options["ema"] is None
    assert (options["learning_rate"], options["steps"]) == (1e-5, 7)
    assert (discriminator.name, discriminator.updates) == ("discriminator", 5)
    assert (generator.name, generator.updates) == ("generator", 1)
    for player in (discriminator, generator):
        optimizer = player.optimizer([nn.Parameter(torch.zeros(1))], lr=1e-5)
        assert isinstance(optimizer, torch.optim.Adam)
        assert optimizer.defaults["betas"] == (0.5, 0.9)


def test_our_settings_are_the_same_for_every_game():
    """Nothing is given to one game only: the defaults are those of the method, not of its maker."""
    made = [study.original(), study.gan_dp(1.0), study.wgan_gp(1.0)]
    for method in made:
        assert (method.learning_rate, method.decay, method.steps) == (1e-3, True, 4000)
        assert (method.updates, method.betas, method.average) == (1, (0.0, 0.99), 0.998)
        assert method.by == "ours"


def slope(a, x):
    return a * x.squeeze(1)


@pytest.mark.parametrize(
    ("method", "objective", "values"),
    [
        (study.gan_dp(0.5), NON_SATURATING, {0.5: 0.0625, 3.0: 2.25}),  # γ/2 · a²
        (study.wgan_gp(10.0), WASSERSTEIN, {0.5: 2.5, 3.0: 40.0}),  # λ · (|a| − 1)²
        (study.wgan_gp(0.1, one_sided=True), WASSERSTEIN, {0.5: 0.0, 3.0: 0.4}),
    ],
    ids=["GAN-DP", "WGAN-GP", "WGAN-GP, one-sided"],
)
def test_penalties_have_their_weight_and_their_side(method, objective, values):
    """On a critic of slope a, where they are known."""
    real, fake = torch.randn(2, 5, 1, generator=torch.Generator().manual_seed(0))
    assert method.objective is objective
    for a, value in values.items():
        found = method.penalty(partial(slope, a), real.clone(), fake.clone())
        assert found.mean().item() == pytest.approx(value, abs=1e-5)


def test_the_original_game_has_no_penalty():
    assert study.original().penalty is None
    assert study.original().objective is NON_SATURATING


def test_the_penalty_of_a_method_is_that_of_its_game(calls, monkeypatch):
    made = []
    monkeypatch.setattr(study, "players", lambda *game, **options: made.append((game, options)))
    method = study.gan_dp(1.0)
    study.train(method, [study.beta()], n_seeds=1, n_data=8)
    ((game, options),) = made
    assert game == (NON_SATURATING,)
    assert options["penalty"] is method.penalty


def test_moments_along_the_way_are_those_of_each_generator(calls):
    shifts = torch.tensor([1.0, 2.0, 3.0, 4.0]).view(4, 1, 1)

    def then(model, callback):
        for step, scale in ((10, 1.0), (20, 2.0)):
            model.generator.network = Affine(shifts, scale)
            callback(step, model)

    calls.then = then
    trained = study.train(
        study.original(), [study.gaussian(), study.beta()], n_seeds=2, n_data=8, latent_dim=1
    )
    assert trained.steps == [10, 20]
    expected = torch.tensor([[1.0, 2.0], [3.0, 4.0]]).expand(2, 2, 2)
    torch.testing.assert_close(trained.means, expected, atol=0.15, rtol=0)
    spread = torch.tensor([1.0, 2.0]).view(2, 1, 1).expand(2, 2, 2)
    torch.testing.assert_close(trained.stds, spread, atol=0.1, rtol=0)


def test_samples_are_in_the_units_of_their_target():
    targets = [study.gaussian(), study.beta()]
    trained = trained_to(targets, torch.tensor([0.5, 0.0, 0.5, -1.0]).view(4, 1, 1))
    x = trained.sample(20_000, generator=torch.Generator().manual_seed(0))
    assert x.shape == (2, 2, 20_000)
    for samples, target, shifts in zip(x, targets, ((0.5, 0.0), (0.5, -1.0)), strict=True):
        for row, shift in zip(samples, shifts, strict=True):
            standardized = (row - target.mean) / target.std
            assert standardized.mean().item() == pytest.approx(shift, abs=0.04)
            assert standardized.std().item() == pytest.approx(1, abs=0.04)


# What is measured. -------------------------------------------------------------------------------


def test_the_divergence_is_that_from_the_truth_to_the_generator():
    """KL(N(0, 1) ‖ N(0, 4)) = log 2 − 3/8; the other way round it is 3/2 − log 2."""
    histogram, kernel = study.divergences(trained_to([study.gaussian()], 0.0, 2.0), repetitions=2)
    for found in (histogram, kernel):
        assert found.mean().item() == pytest.approx(math.log(2) - 3 / 8, abs=0.03)


def test_each_generator_is_measured_against_its_own_target():
    targets = [study.gaussian(), study.gaussian(0.0, 1.0)]
    trained = trained_to(targets, torch.tensor([0.0, 0.5, 0.5, 0.0]).view(4, 1, 1))
    for found in study.divergences(trained, repetitions=2, n_draws=4000):
        expected = torch.tensor([[0.0, 0.125], [0.125, 0.0]], dtype=torch.float64)
        torch.testing.assert_close(found, expected, atol=0.03, rtol=0)


def test_the_kernel_measure_is_that_of_two_kernel_densities():
    """Against kernel densities of SciPy, and where the added density matters."""
    target = study.gaussian(0.0, 2.0)
    x = target.draw((400,), torch.Generator().manual_seed(0))
    y = 0.25 * x - 3.0
    bandwidth = 0.9 * x.std().item() * 400**-0.2
    grid = np.linspace(-10, 10, 4001)

    def density(samples):
        kernel = gaussian_kde(samples.numpy(), bandwidth / samples.std().item())
        p = kernel(grid) + 1e-6 / target.std
        return p / p.sum()

    p, q = density(x), density(y)
    expected = (p * np.log(p / q)).sum()
    assert study._kernel_kl(target, x, y[None]).item() == pytest.approx(expected, rel=0.01)


def test_measures_are_averaged_over_as_many_draws_as_the_book_says():
    for measure in (study.divergences, study.noise_floor, study.saturation):
        defaults = {p.name: p.default for p in inspect.signature(measure).parameters.values()}
        assert (defaults["repetitions"], defaults["n_draws"]) == (100, 10_000)
    # Each repetition draws anew, and the result is the mean.
    target = study.beta()
    generator = torch.Generator().manual_seed(0)
    pairs = [target.draw((2, 500), generator) for _ in range(2)]
    scores = [study._histogram_kl(target, *pair).item() for pair in pairs]
    assert scores[0] != scores[1]
    found = study.noise_floor(target, repetitions=2, n_draws=500)
    assert found.histogram == pytest.approx(sum(scores) / 2)
    scores = [study._kernel_kl(target, x, y[None]).item() for x, y in pairs]
    assert found.kernel == pytest.approx(sum(scores) / 2)


def test_a_perfect_generator_scores_the_noise_floor():
    target = study.gaussian()
    histogram, kernel = study.divergences(trained_to([target], 0.0), repetitions=20)
    floor = study.noise_floor(target, repetitions=20)
    assert 0.003 < floor.histogram < 0.006
    assert histogram.tolist()[0] == pytest.approx([floor.histogram] * 2, rel=0.25)
    assert 0.001 < floor.kernel < 0.003
    assert kernel.tolist()[0] == pytest.approx([floor.kernel] * 2, rel=0.25)


def test_a_generator_that_misses_all_bins_scores_the_saturation_value_however_far_it_is():
    """All 10,000 draws in one overflow bin: ½ in each other one, so KL = log(10,026 / ½) − H(p), nearly."""
    target = study.gaussian()
    found = study.saturation(target, repetitions=20)
    # The entropy of the counts is that of the density less the logarithm of the bins' width.
    entropy_of_bins = 0.5 * math.log(2 * math.pi * math.e) - math.log(8 / 50)
    assert found.histogram == pytest.approx(math.log(10_026 / 0.5) - entropy_of_bins, abs=0.02)
    assert found.histogram == pytest.approx(6.65, abs=0.01)
    for shift in (6.0, 60.0, -60.0):
        histogram, kernel = study.divergences(trained_to([target], shift, 0.1), repetitions=20)
        assert histogram.tolist()[0] == pytest.approx([found.histogram] * 2, abs=0.01)
        assert kernel.tolist()[0] == pytest.approx([found.kernel] * 2, rel=0.02)


def test_critics_may_have_another_nonlinearity():
    for kind in (nn.ReLU, nn.Tanh):
        critic = GroupedDiscriminator(2, (4, 4), activation=kind)
        assert [type(layer) for layer in critic.network] == [
            GroupedLinear, kind, GroupedLinear, kind, GroupedLinear,
        ]  # fmt: skip
    slopes = {m.negative_slope for m in GroupedGenerator(2).network if isinstance(m, nn.LeakyReLU)}
    assert slopes == {0.2}


def test_a_shifted_generator_scores_the_closed_form():
    """KL(N(0, 1) ‖ N(s, 1)) = s²/2, coarsened a little by the bins."""
    target = study.gaussian()
    trained = trained_to([target], 0.5)
    histogram, kernel = study.divergences(trained, repetitions=3)
    assert histogram.mean().item() == pytest.approx(0.125, abs=0.02)
    assert kernel.mean().item() == pytest.approx(0.125, abs=0.02)


def test_the_histogram_is_the_one_defined():
    target = study.beta()
    generator = torch.Generator().manual_seed(0)
    x, y = target.draw((2, 1000), generator)
    y = y + 0.05
    edges = np.concatenate([[-np.inf], np.linspace(0, 1, 51), [np.inf]])
    p, q = (np.histogram(sample.numpy(), edges)[0] + 0.5 for sample in (x, y))
    assert study._histogram_kl(target, x, y).item() == pytest.approx(entropy(p, q), rel=1e-3)


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
