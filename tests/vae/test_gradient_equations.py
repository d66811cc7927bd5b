"""Gradients of expectations: against derivatives of expectations that are known in closed form."""

import math

import pytest
import scipy.stats
import torch
from numpy.polynomial.hermite_e import hermegauss

from course_lib.vae import pathwise_gradient, reparameterize, score_function_gradient

pytestmark = pytest.mark.usefixtures("float64")

MU, LOGVAR = (0.6, -0.9), (-0.8, 0.4)
N_SAMPLES = 200_000


def integrand(z):
    return z.sin().sum(-1) + z[:, 0] ** 2 * z[:, 1]


def expectation(mu, logvar):
    """E[integrand(z)] for independent Gaussians: E sin z = sin μ e^{−σ²/2}, E z² = μ² + σ²."""
    waves = (mu.sin() * (-0.5 * logvar.exp()).exp()).sum()
    return waves + (mu[0] ** 2 + logvar[0].exp()) * mu[1]


def exact_gradients():
    mu, logvar = (torch.tensor(v, requires_grad=True) for v in (MU, LOGVAR))
    return torch.autograd.grad(expectation(mu, logvar), (mu, logvar))


def check_unbiased(estimates):
    for estimate, exact in zip(estimates, exact_gradients(), strict=True):
        error = estimate.std(0) / math.sqrt(len(estimate))
        assert (error < 0.02).all()
        assert ((estimate.mean(0) - exact).abs() < 4 * error).all()


@pytest.mark.equation(
    "eq-reparameterization",
    formula=reparameterize,
    wrong={
        "exp(logvar) for the standard deviation": lambda mu, logvar, noise: (
            mu + logvar.exp() * noise
        ),
        "logvar itself": lambda mu, logvar, noise: mu + logvar * noise,
        "mean scaled too": lambda mu, logvar, noise: (mu + noise) * (0.5 * logvar).exp(),
    },
    implemented_by="course_lib.vae.reparameterize",
)
def test_reparameterization(formula):
    mu, logvar = torch.tensor(MU), torch.tensor(LOGVAR)
    u = (torch.arange(200.0) + 0.5) / 200
    # Quantiles of the noise must become the same quantiles of N(μ, σ²).
    noise = torch.from_numpy(scipy.stats.norm.ppf(u)).unsqueeze(1)
    quantiles = scipy.stats.norm.ppf(u.unsqueeze(1), loc=mu, scale=logvar.exp().sqrt())
    torch.testing.assert_close(formula(mu, logvar, noise), torch.from_numpy(quantiles))


def pathwise(mu, logvar):
    return pathwise_gradient(integrand, mu, logvar, N_SAMPLES)


@pytest.mark.equation(
    "eq-pathwise-gradient",
    formula=pathwise,
    wrong={
        "half of the log-variance dropped": lambda mu, logvar: (
            pathwise(mu, logvar)[0],
            2 * pathwise(mu, logvar)[1],
        ),
        "σ dropped": lambda mu, logvar: (
            pathwise(mu, logvar)[0],
            pathwise(mu, logvar)[1] / (0.5 * logvar).exp(),
        ),
        "slope at the mean": lambda mu, logvar: pathwise_gradient(
            integrand, mu, torch.full_like(logvar, -20.0), N_SAMPLES
        ),
    },
    implemented_by="course_lib.vae.pathwise_gradient",
)
def test_pathwise_gradient(formula):
    check_unbiased(formula(torch.tensor(MU), torch.tensor(LOGVAR)))


def score(mu, logvar, baseline=0.7):
    return score_function_gradient(integrand, mu, logvar, N_SAMPLES, baseline=baseline)


@pytest.mark.equation(
    "eq-score-function",
    formula=score,
    wrong={
        "score of log σ": lambda mu, logvar: (score(mu, logvar)[0], 2 * score(mu, logvar)[1]),
        "σ for σ² in the score": lambda mu, logvar: (
            score(mu, logvar)[0] * (0.5 * logvar).exp(),
            score(mu, logvar)[1],
        ),
        "sign flipped": lambda mu, logvar: tuple(-g for g in score(mu, logvar)),
        "baseline subtracted after the product": lambda mu, logvar: tuple(
            g - 0.7 for g in score(mu, logvar, baseline=0.0)
        ),
    },
    implemented_by="course_lib.vae.score_function_gradient",
)
def test_score_function(formula):
    check_unbiased(formula(torch.tensor(MU), torch.tensor(LOGVAR)))


def variances_of_the_square(mu, sigma):
    return (
        4 * sigma**2,
        mu**4 / sigma**2 + 14 * mu**2 + 15 * sigma**2,
        8 * mu**2 + 10 * sigma**2,
    )


@pytest.mark.equation(
    "eq-gradient-variances",
    formula=variances_of_the_square,
    wrong={
        "second moments, mean not subtracted": lambda mu, sigma: tuple(
            v + 4 * mu**2 for v in variances_of_the_square(mu, sigma)
        ),
        "pathwise with standard deviation": lambda mu, sigma: (
            2 * sigma,
            *variances_of_the_square(mu, sigma)[1:],
        ),
        "exploding term dropped": lambda mu, sigma: (
            4 * sigma**2,
            14 * mu**2 + 15 * sigma**2,
            8 * mu**2 + 10 * sigma**2,
        ),
        "baselines exchanged": lambda mu, sigma: (
            variances_of_the_square(mu, sigma)[0],
            variances_of_the_square(mu, sigma)[2],
            variances_of_the_square(mu, sigma)[1],
        ),
    },
)
def test_gradient_variances(formula):
    nodes, weights = map(torch.from_numpy, hermegauss(20))  # exact for these polynomials
    weights = weights / weights.sum()

    def variance(estimates):
        return weights @ estimates**2 - (weights @ estimates) ** 2

    for mu, sigma in ((1.3, 0.4), (-0.5, 1.7)):
        z = mu + sigma * nodes
        log_density_slope = (z - mu) / sigma**2
        integral = [
            variance(2 * z),
            variance(z**2 * log_density_slope),
            variance((z**2 - (mu**2 + sigma**2)) * log_density_slope),
        ]
        torch.testing.assert_close(
            torch.tensor(formula(mu, sigma)), torch.stack(integral), rtol=1e-9, atol=0
        )


def test_the_estimators_of_the_library_have_these_variances():
    mu, sigma = 1.3, 0.4
    arguments = (
        lambda z: z.square().sum(-1),
        torch.tensor([mu]),
        torch.tensor([2 * math.log(sigma)]),
        400_000,
    )
    measured = [
        pathwise_gradient(*arguments)[0].var(),
        score_function_gradient(*arguments)[0].var(),
        score_function_gradient(*arguments, baseline=mu**2 + sigma**2)[0].var(),
    ]
    expected = torch.tensor(variances_of_the_square(mu, sigma))
    torch.testing.assert_close(torch.stack(measured), expected, rtol=0.03, atol=0)


def test_solution_of_the_exercise_on_the_best_baseline():
    mu, sigma = 1.3, 0.4
    nodes, weights = map(torch.from_numpy, hermegauss(20))
    weights = weights / weights.sum()
    z, slope = mu + sigma * nodes, nodes / sigma
    best = (weights @ (z**2 * slope**2)) / (weights @ slope**2)
    assert best.item() == pytest.approx(mu**2 + 3 * sigma**2)
    second_moment = weights @ ((z**2 - best) * slope) ** 2
    assert second_moment.item() - 4 * mu**2 == pytest.approx(8 * mu**2 + 6 * sigma**2)


def test_pathwise_is_wrong_for_a_step_and_the_score_function_is_not():
    mu, logvar = torch.tensor([0.4]), torch.zeros(1)

    def step(z):
        # A step with a path for autograd: its slope is 0 wherever it exists.
        return (z > 0).to(z).sum(-1) + 0 * z.sum(-1)

    density = math.exp(-0.5 * 0.4**2) / math.sqrt(2 * math.pi)
    assert (pathwise_gradient(step, mu, logvar, 1000)[0] == 0).all()
    estimate, _ = score_function_gradient(step, mu, logvar, N_SAMPLES)
    error = estimate.std() / math.sqrt(N_SAMPLES)
    assert (estimate.mean() - density).abs() < 4 * error < 0.02


def test_pathwise_loses_on_a_rapidly_oscillating_integrand():
    arguments = (lambda z: (9 * z).sin().sum(-1), torch.zeros(1), torch.zeros(1), 50_000)
    path, value = pathwise_gradient(*arguments)[0], score_function_gradient(*arguments)[0]
    assert path.var().item() == pytest.approx(81 / 2, rel=0.05)
    assert value.var().item() == pytest.approx(1 / 2, rel=0.05)
