"""The optimal discriminator beats others, the trained one approaches it, and edge cases."""

import math

import pytest
import torch
from torch.distributions import Normal, Uniform

from course_lib.gan import (
    Discriminator,
    discriminator_loss,
    game_value,
    jensen_shannon,
    optimal_discriminator,
)
from course_lib.training import cosine_decay, fit

P, Q = (Normal(*torch.tensor(pair, dtype=torch.float64)) for pair in ((-0.5, 0.8), (0.9, 1.4)))
POINTS = torch.linspace(-14, 14, 20_001, dtype=torch.float64)


def logit(x):
    return P.log_prob(x) - Q.log_prob(x)


def test_no_other_discriminator_attains_more(float64):
    best = game_value(logit, P.log_prob, Q.log_prob, POINTS)
    for other in (
        lambda x: logit(x) + 0.1,
        lambda x: 0.9 * logit(x),
        lambda x: logit(x) + 0.1 * torch.sin(3 * x),
        lambda x: -logit(x),
        torch.zeros_like,
    ):
        assert game_value(other, P.log_prob, Q.log_prob, POINTS) < best - 1e-4


def test_value_of_an_undecided_discriminator_is_minus_log_four(float64):
    value = game_value(torch.zeros_like, P.log_prob, Q.log_prob, POINTS)
    assert value.item() == pytest.approx(-math.log(4), abs=1e-9)


def test_jensen_shannon_of_disjoint_and_equal_distributions(float64):
    def log_uniform(low, high):
        distribution = Uniform(low, high, validate_args=False)
        return lambda x: distribution.log_prob(x)

    points = torch.linspace(-1, 5, 60_001)
    far = jensen_shannon(log_uniform(0.0, 1.0), log_uniform(3.0, 4.0), points)
    assert far.item() == pytest.approx(math.log(2), abs=1e-3)
    assert jensen_shannon(P.log_prob, P.log_prob, POINTS).item() == pytest.approx(0, abs=1e-12)


def test_optimal_discriminator_where_densities_vanish():
    minus_inf = -math.inf
    log_p = torch.tensor([0.0, minus_inf, minus_inf, -800.0])
    log_q = torch.tensor([minus_inf, 0.0, minus_inf, -801.0])
    torch.testing.assert_close(
        optimal_discriminator(log_p, log_q), torch.tensor([1, 0, 0.5, 1 / (1 + math.exp(-1))])
    )
    with pytest.raises(ValueError, match="log_p holds NaN"):
        optimal_discriminator(torch.tensor([math.nan]), torch.zeros(1))
    with pytest.raises(ValueError, match="same points"):
        optimal_discriminator(torch.zeros(2), torch.zeros(3))
    with pytest.raises(TypeError, match="float"):
        optimal_discriminator(0.5, 0.5)


def test_a_trained_discriminator_approaches_the_optimal_one():
    """Trained on draws alone; stated error: at most 0.03 on average over the mixture of the distributions."""
    torch.manual_seed(0)
    real, fake = P.sample((20_000, 1)).float(), Q.sample((20_000, 1)).float()
    model = Discriminator((1,), (32, 32))

    def loss(model, batch, progress):
        x, y = batch
        return discriminator_loss(model(x), model(y))

    fit(
        model, loss, (real, fake), steps=600, batch_size=512, learning_rate=5e-3,
        schedule=cosine_decay, progress=False,
    )  # fmt: skip
    x = torch.cat([P.sample((5000,)), Q.sample((5000,))])
    with torch.no_grad():
        error = torch.sigmoid(model(x.float().unsqueeze(1))) - optimal_discriminator(
            P.log_prob(x), Q.log_prob(x)
        )
    assert error.abs().mean() < 0.03


def test_a_point_without_mass_does_not_enter_the_value():
    """0 log 0 = 0: the optimal discriminator of distributions apart is sure, and attains 0."""
    points = torch.linspace(-200, 200, 4001, dtype=torch.float64)

    def uniform(low: float):
        return lambda x: torch.where((x > low) & (x < low + 1), 0.0, -torch.inf)

    log_p, log_q = uniform(-3), uniform(2)
    value = game_value(lambda x: torch.where(x < 0, torch.inf, -torch.inf), log_p, log_q, points)
    torch.testing.assert_close(value, torch.zeros((), dtype=torch.float64))
