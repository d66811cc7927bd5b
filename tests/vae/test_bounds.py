"""ELBO ≤ importance-weighted bound ≤ log p(x), on models whose log p(x) is known."""

import math
import subprocess
import sys

import pytest
import torch
from torch import nn
from torch.distributions import MultivariateNormal

from course_lib.distributions import Bernoulli, Gaussian
from course_lib.vae import (
    VAE,
    DiagonalGaussian,
    LinearGaussian,
    elbo,
    elbo_terms,
    importance_log_weights,
    iwae_bound,
    log_likelihood,
    log_likelihood_with_error,
    log_mean_exp,
    prior_log_likelihood,
    quadrature_log_likelihood,
)

pytestmark = pytest.mark.usefixtures("float64")


WEIGHT = [[1.2, -0.4], [0.3, 0.9], [-0.7, 0.5]]


def linear_gaussian(posterior_scale=1.0, weight=WEIGHT):
    bias = torch.tensor([0.2, -0.1, 0.4])
    return LinearGaussian(torch.tensor(weight), bias, 0.6, posterior_scale=posterior_scale)


def test_the_yardstick_itself_obeys_bayes_rule():
    """p(x|z) p(z) = p(z|x) p(x) at arbitrary points."""
    model, x = linear_gaussian(), batch()
    z = torch.tensor([[0.3, -1.1], [0.8, 0.4]])
    prior = MultivariateNormal(torch.zeros(2), torch.eye(2))
    joint = model.decode(z).log_prob(x) + prior.log_prob(z)
    torch.testing.assert_close(joint, model.posterior(x).log_prob(z) + model.log_prob(x))
    samples = model.sample(200_000)
    torch.testing.assert_close(
        samples.T.cov(), model.weight @ model.weight.T + 0.36 * torch.eye(3), atol=0.02, rtol=0
    )


def batch():
    return torch.tensor([[0.5, -1.0, 2.0], [1.5, 0.3, -0.6]])


def test_the_bound_holds_also_for_very_little_noise():
    model = LinearGaussian(torch.tensor([[1.4], [0.3]]), torch.zeros(2), 1e-4)
    x = model.sample(5)
    log_weights = importance_log_weights(model, x, 3)  # constant, as the posterior is exact
    torch.testing.assert_close(log_weights, model.log_prob(x).expand(3, 5), rtol=1e-6, atol=1e-6)


def test_the_memory_of_quadrature_does_not_grow_with_the_grid():
    """Results kept between large tensors that are freed once took 12.5 MB for each of 110 pieces."""
    code = """
import resource, torch
from course_lib.vae import VAE, quadrature_log_likelihood
model, x = VAE((1, 28, 28), 2), torch.zeros(1000, 1, 28, 28)
quadrature_log_likelihood(model, x, n_points=3)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
quadrature_log_likelihood(model, x, n_points=21)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / before)
"""
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert float(ran.stdout) < 2


def test_the_yardstick_makes_nothing_beside_its_own_device():
    """Where new tensors would land on the device without data, results still have theirs."""
    model, x = linear_gaussian(), batch()
    with torch.device("meta"):
        results = (model.posterior(x).mean, model.log_prob(x), model.sample(3))
    assert all(result.device.type == "cpu" for result in results)


def test_elbo_is_log_prob_minus_the_posterior_gap():
    model, x = linear_gaussian(posterior_scale=1.7), batch()
    posterior, q = model.posterior(x), model.encode(x)
    gap = torch.distributions.kl_divergence(
        MultivariateNormal(q.mean, torch.diag_embed(q.variance)), posterior
    )
    draws = torch.stack([elbo(model, x, 1000) for _ in range(40)])
    error = draws.std(0) / math.sqrt(40)
    assert (draws.mean(0) - (model.log_prob(x) - gap)).abs().lt(4 * error).all()


def test_bounds_are_ordered_and_tend_to_log_prob():
    model, x = linear_gaussian(posterior_scale=1.7), batch()
    means = [
        torch.stack([iwae_bound(model, x, k) for _ in range(2000 // k + 20)]).mean(0)
        for k in (1, 5, 50)
    ]
    assert (means[0] + 0.02 < means[1]).all()
    assert (means[1] < means[2] + 0.01).all()
    torch.testing.assert_close(iwae_bound(model, x, 20_000), model.log_prob(x), atol=0.02, rtol=0)


def test_with_one_sample_the_importance_weighted_bound_is_the_elbo():
    model, x = linear_gaussian(posterior_scale=1.3), batch()
    bound = torch.stack([iwae_bound(model, x, 1) for _ in range(4000)])
    value = elbo(model, x, 20_000)
    assert (bound.mean(0) - value).abs().lt(4 * bound.std(0) / math.sqrt(4000) + 0.01).all()


def test_weights_are_constant_when_the_posterior_is_exact():
    # Orthogonal columns of W make the true posterior diagonal.
    model = linear_gaussian(weight=[[1.2, 0.0], [0.0, 0.9], [0.0, 0.0]])
    log_w = importance_log_weights(model, batch(), 7)
    torch.testing.assert_close(log_w, model.log_prob(batch()).expand(7, 2))


def test_standard_error_covers_the_truth():
    model, x = linear_gaussian(posterior_scale=2.0), batch()
    truth = model.log_prob(x)
    scores = []
    for _ in range(200):
        value, error = log_likelihood_with_error(model, x, 400)
        scores.append((value - truth) / error)
    scores = torch.stack(scores)
    assert 0.8 < scores.std() < 1.2
    assert scores.mean().abs() < 0.3
    assert log_likelihood_with_error(model, x, 1)[1].isinf().all()


def test_chunks_do_not_change_the_estimate(monkeypatch):
    model, x = linear_gaussian(posterior_scale=2.0), batch()
    whole = log_likelihood(model, x, 5000)
    monkeypatch.setattr("course_lib.vae.bounds.CHUNK", 700)
    torch.testing.assert_close(log_likelihood(model, x, 5000), whole, atol=0.05, rtol=0)


def test_prior_estimate_and_quadrature_reach_log_prob():
    model, x = linear_gaussian(), batch()
    torch.testing.assert_close(quadrature_log_likelihood(model, x), model.log_prob(x))
    torch.testing.assert_close(
        prior_log_likelihood(model, x, 200_000), model.log_prob(x), atol=0.05, rtol=0
    )


def test_quadrature_of_a_bernoulli_model_sums_to_one_over_all_images():
    torch.manual_seed(3)
    model = VAE((1, 2, 2), 2, hidden=(6,))
    nn.init.normal_(model.decoder[0].weight, std=2.0)
    images = torch.cartesian_prod(*[torch.tensor([0.0, 1.0])] * 4).reshape(16, 1, 2, 2)
    total = quadrature_log_likelihood(model, images, 241, 7.0).exp().sum()
    torch.testing.assert_close(total, torch.tensor(1.0), atol=1e-8, rtol=0)


def test_log_mean_exp_is_the_log_of_the_mean_and_does_not_overflow():
    weights = torch.tensor([[0.5, 2.0], [3.0, 1.0], [0.1, 4.0]])
    torch.testing.assert_close(log_mean_exp(weights.log()), weights.mean(0).log())
    assert log_mean_exp(torch.full((4,), -2000.0)).item() == -2000.0


def test_elbo_sums_over_pixels_and_over_latent_dimensions():
    # Two independent copies of a model side by side have twice its ELBO.
    class Twice(nn.Module):
        event_shape, latent_dim = (2,), 2

        def encode(self, x):
            return DiagonalGaussian(0.5 * x, torch.full_like(x, -0.7))

        def decode(self, z):
            return Bernoulli().given((1.3 * z - 0.2).unsqueeze(-1), 1)

    class Once(Twice):
        event_shape, latent_dim = (1,), 1

    x = torch.ones(1, 1)
    torch.manual_seed(0)
    both = elbo_terms(Twice(), torch.ones(1, 2), 200_000)
    torch.manual_seed(0)
    one = elbo_terms(Once(), x, 200_000)
    torch.testing.assert_close(both[0], 2 * one[0], atol=5e-3, rtol=0)
    torch.testing.assert_close(both[1], 2 * one[1])


@pytest.mark.parametrize("k", [0, -1, 2.5, True])
def test_number_of_samples_is_checked(k):
    for function in (iwae_bound, elbo, log_likelihood, prior_log_likelihood):
        with pytest.raises((TypeError, ValueError), match="at least 1"):
            function(linear_gaussian(), batch(), k)


def test_quadrature_refuses_many_dimensions():
    with pytest.raises(ValueError, match="3 latent dimensions"):
        quadrature_log_likelihood(VAE((1, 2, 2), 3, hidden=(4,)), torch.ones(1, 1, 2, 2))


def test_densities_under_autocast_have_the_digits_of_float32():
    # The networks run in bfloat16; log p(z) − log q(z|x), about 60 nats here, must not.
    torch.manual_seed(0)
    model = VAE((1, 4, 4), 40, hidden=(30,)).float()
    x = torch.rand(6, 1, 4, 4, dtype=torch.float32).round()
    with torch.autocast("cpu", torch.bfloat16):
        posterior = model.encode(x)
        z = posterior.rsample((50,))
        log_q = posterior.log_prob(z)
    exact = DiagonalGaussian(posterior.mu.double(), posterior.logvar.double()).log_prob(z.double())
    torch.testing.assert_close(log_q.double(), exact, rtol=0, atol=1e-4)
    assert exact.abs().mean() > 40


# --- what may be reported -------------------------------------------------------------------------


@pytest.mark.parametrize(
    "estimate",
    [
        log_likelihood,
        log_likelihood_with_error,
        prior_log_likelihood,
        lambda model, x, k: quadrature_log_likelihood(model, x, n_points=k),
    ],
)
def test_grey_pixels_have_no_bernoulli_likelihood(estimate):
    model = VAE((1, 2, 2), 2, hidden=(4,))
    binary = torch.tensor([0.0, 1.0, 1.0, 0.0]).view(1, 1, 2, 2)
    grey = binary.clone()
    grey[0, 0, 1, 1] = 0.4
    estimate(model, binary, 3)
    with pytest.raises(ValueError, match=r"25%.*cross-entropy.*binarize"):
        estimate(model, grey, 3)
    # As a loss the cross-entropy of grey pixels is allowed, and a Gaussian decoder has a density there.
    assert model.elbo(grey).isfinite().all()
    estimate(VAE((1, 2, 2), 2, hidden=(4,), likelihood=Gaussian(0.3)), grey, 3)
