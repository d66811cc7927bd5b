"""Joint divergences, and what the family of posteriors and amortization cost."""

import math

import numpy as np
import pytest
import scipy.optimize
import scipy.stats
import torch
from torch.distributions import MultivariateNormal, kl_divergence

from course_lib.divergences import kl_discrete, kl_gaussian
from course_lib.vae import LinearGaussian, elbo

pytestmark = pytest.mark.usefixtures("float64")


# --- two joint distributions ----------------------------------------------------------------------

# Four examples and three codes: every expectation is a finite sum.


def finite_model():
    """p_data(x), q(z|x), p(z) and p(x|z), none of them special."""
    generator = torch.Generator().manual_seed(4)
    data, encoder, prior, decoder = (
        torch.rand(shape, generator=generator, dtype=torch.float64) + 0.1
        for shape in ((4,), (4, 3), (3,), (4, 3))
    )
    return (
        data / data.sum(),
        encoder / encoder.sum(1, keepdim=True),
        prior / prior.sum(),
        decoder / decoder.sum(0),
    )


def joint_divergence(data, encoder, prior, decoder):
    """KL(q(x, z)‖p(x, z)), summed over all pairs."""
    return kl_discrete((data.unsqueeze(1) * encoder).flatten(), (prior * decoder).flatten())


def by_the_bound(data, encoder, prior, decoder, entropy=1.0):
    bounds = (encoder * (prior * decoder / encoder).log()).sum(1)  # (4,)
    return -(data * bounds).sum() + entropy * (data * data.log()).sum()


def by_the_marginal(data, encoder, prior, decoder, gap=1.0, swap=False):
    marginal = decoder @ prior
    posterior = prior * decoder / marginal.unsqueeze(1)
    first, second = (posterior, encoder) if swap else (encoder, posterior)
    gaps = (first * (first / second).log()).sum(1)
    return kl_discrete(data, marginal) + gap * (data * gaps).sum()


@pytest.mark.equation(
    "eq-joint-kl",
    formula=lambda *model: (by_the_bound(*model), by_the_marginal(*model)),
    wrong={
        "entropy dropped": lambda *model: (
            by_the_bound(*model, entropy=0.0),
            by_the_marginal(*model),
        ),
        "entropy added": lambda *model: (
            by_the_bound(*model, entropy=-1.0),
            by_the_marginal(*model),
        ),
        "gap dropped": lambda *model: (by_the_bound(*model), by_the_marginal(*model, gap=0.0)),
        "gap reversed": lambda *model: (by_the_bound(*model), by_the_marginal(*model, swap=True)),
    },
)
def test_mean_bound_is_a_divergence_of_joints(formula):
    model = finite_model()
    expected = joint_divergence(*model)
    for value in formula(*model):
        torch.testing.assert_close(value, expected)


def by_the_aggregate(data, encoder, prior, decoder, swap=False, under_prior=False):
    aggregate = data @ encoder
    inverse = data.unsqueeze(1) * encoder / aggregate  # q(x|z), (4, 3)
    first, second = (decoder, inverse) if swap else (inverse, decoder)
    fits = (first * (first / second).log()).sum(0)
    weights = prior if under_prior else aggregate
    return kl_discrete(aggregate, prior) + (weights * fits).sum()


@pytest.mark.equation(
    "eq-joint-kl-decoder",
    formula=by_the_aggregate,
    wrong={
        "decoder's divergence reversed": lambda *model: by_the_aggregate(*model, swap=True),
        "expectation under the prior": lambda *model: by_the_aggregate(*model, under_prior=True),
        "aggregate's divergence dropped": lambda *model: (
            by_the_aggregate(*model) - kl_discrete(model[0] @ model[1], model[2])
        ),
    },
)
def test_joint_divergence_by_the_codes(formula):
    model = finite_model()
    torch.testing.assert_close(formula(*model), joint_divergence(*model))


# --- the family and amortization ------------------------------------------------------------------


def best_diagonal(precision):
    """The least divergence, and the variances that give it."""
    diagonal = precision.diagonal()
    return 0.5 * (diagonal.log().sum() - torch.logdet(precision)), 1 / diagonal


@pytest.mark.equation(
    "eq-mean-field-gap",
    formula=best_diagonal,
    wrong={
        "half dropped": lambda precision: (
            2 * best_diagonal(precision)[0],
            best_diagonal(precision)[1],
        ),
        "sign flipped": lambda precision: (
            -best_diagonal(precision)[0],
            best_diagonal(precision)[1],
        ),
        "marginal variances": lambda precision: (
            best_diagonal(precision)[0],
            torch.linalg.inv(precision).diagonal(),
        ),
        "gap of the forward direction": lambda precision: (
            best_diagonal(torch.linalg.inv(precision))[0],
            best_diagonal(precision)[1],
        ),
    },
)
def test_best_diagonal_gaussian(formula):
    root = torch.tensor([[1.2, 0.0, 0.0], [0.7, 0.9, 0.0], [-0.4, 0.5, 1.4]])
    precision, mean = root @ root.T, torch.tensor([0.3, -1.0, 2.0])
    covariance = torch.linalg.inv(precision)

    def loss(parameters):
        mu, log_variance = torch.from_numpy(parameters).split(3)
        return kl_gaussian(mu, log_variance.exp().diag(), mean, covariance).item()

    found = scipy.optimize.minimize(loss, np.zeros(6), method="BFGS", options={"gtol": 1e-9})
    gap, variances = formula(precision)
    assert gap.item() == pytest.approx(found.fun, abs=1e-7)
    torch.testing.assert_close(variances, torch.from_numpy(found.x[3:]).exp(), rtol=1e-4, atol=0)
    torch.testing.assert_close(mean, torch.from_numpy(found.x[:3]), rtol=1e-4, atol=1e-4)
    # Never wider than the marginals.
    assert (variances < covariance.diagonal()).all()


def test_solution_of_the_exercise_on_correlation():
    rho = math.sqrt(1 - math.exp(-2))
    covariance = torch.tensor([[1.0, rho], [rho, 1.0]])
    gap, variances = best_diagonal(torch.linalg.inv(covariance))
    assert gap.item() == pytest.approx(1.0)
    torch.testing.assert_close(variances, torch.full((2,), 1 - rho**2))
    assert rho == pytest.approx(0.93, abs=0.005)


def two_gaps(model, x, best, best_bound):
    """Approximation and amortization gap of the model's own encoder, their sum."""
    truth = model.posterior(x)
    approximation = kl_divergence(best, truth)
    amortization = best_bound - _bound_of(model, x, model.encode(x))
    return approximation + amortization


def _bound_of(model, x, q):
    """The ELBO of a diagonal Gaussian q, exact for a linear Gaussian model: by eq-elbo-two-terms."""
    mean, variance = q.mean, q.variance
    residual = x - mean @ model.weight.T - model.bias
    spread = variance @ model.weight.square().sum(0)
    size = x.shape[1] * math.log(2 * math.pi * model.sigma**2)
    reconstruction = -0.5 * ((residual.square().sum(1) + spread) / model.sigma**2 + size)
    return reconstruction - 0.5 * (variance + mean**2 - 1 - variance.log()).sum(1)


@pytest.mark.equation(
    "eq-amortization-gap",
    formula=two_gaps,
    wrong={
        "approximation gap dropped": lambda model, x, best, bound: (
            bound - _bound_of(model, x, model.encode(x))
        ),
        "amortization gap dropped": lambda model, x, best, bound: kl_divergence(
            best, model.posterior(x)
        ),
        "parts subtracted": lambda model, x, best, bound: (
            2 * kl_divergence(best, model.posterior(x)) - two_gaps(model, x, best, bound)
        ),
        "approximation gap reversed": lambda model, x, best, bound: (
            two_gaps(model, x, best, bound)
            - kl_divergence(best, model.posterior(x))
            + kl_divergence(model.posterior(x), best)
        ),
    },
)
def test_gap_of_an_amortized_posterior(formula):
    # Columns that are not orthogonal give a correlated posterior; the scale stands for a poor encoder.
    weight = torch.tensor([[1.2, 0.9], [0.3, 0.8], [-0.7, 0.5]])
    model = LinearGaussian(weight, torch.tensor([0.2, -0.1, 0.4]), 0.6, posterior_scale=1.7)
    x = torch.tensor([[0.5, -1.0, 2.0], [1.5, 0.3, -0.6]])
    # The encoder's bound is the library's …
    sampled = torch.stack([elbo(model, x, 4000) for _ in range(5)]).mean(0)
    torch.testing.assert_close(_bound_of(model, x, model.encode(x)), sampled, atol=0.05, rtol=0)
    # … and the best of the family is found by optimization, for each example by itself.
    best_mean, best_variance, best_bound = [], [], []
    for row in x.split(1):

        def loss(parameters, row=row):
            mean, log_std = torch.from_numpy(parameters).view(2, 1, 2)
            q = torch.distributions.Independent(torch.distributions.Normal(mean, log_std.exp()), 1)
            return -_bound_of(model, row, q).item()

        found = scipy.optimize.minimize(loss, np.zeros(4), method="BFGS", options={"gtol": 1e-8})
        best_mean.append(torch.from_numpy(found.x[:2]))
        best_variance.append(torch.from_numpy(found.x[2:]).mul(2).exp())
        best_bound.append(-found.fun)
    best = MultivariateNormal(torch.stack(best_mean), torch.diag_embed(torch.stack(best_variance)))
    gap = model.log_prob(x) - _bound_of(model, x, model.encode(x))
    value = formula(model, x, best, torch.tensor(best_bound))
    torch.testing.assert_close(value, gap, atol=1e-5, rtol=0)
    assert (kl_divergence(best, model.posterior(x)) > 0.05).all()
