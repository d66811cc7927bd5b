"""The marginal, its estimates and its bounds: on distributions where log p(x) is known."""

import itertools
import math

import pytest
import torch
from numpy.polynomial.hermite_e import hermegauss
from torch import nn
from torch.distributions import Binomial, MultivariateNormal, Normal

from course_lib.distributions import Bernoulli
from course_lib.divergences import kl_discrete, kl_standard_normal
from course_lib.vae import (
    DiagonalGaussian,
    LinearGaussian,
    elbo,
    importance_log_weights,
    iwae_bound,
    log_likelihood_with_error,
    prior_log_likelihood,
    quadrature_log_likelihood,
)

pytestmark = pytest.mark.usefixtures("float64")


def solvable():
    """x = 1.4 z + 0.3 + 0.6 ε, with a posterior twice too wide: log p(x) is known."""
    return LinearGaussian(torch.tensor([[1.4]]), torch.tensor([0.3]), 0.6, posterior_scale=2.0)


class Curved(nn.Module):
    """Three binary pixels whose logits bend with a latent number: nothing is Gaussian here."""

    event_shape, latent_dim = (3,), 1

    def encode(self, x):
        mu = (x @ torch.tensor([0.5, -0.3, 0.8])).unsqueeze(-1)
        # Wide on purpose: with σ² ≤ ½ the weights would have no finite variance.
        return DiagonalGaussian(mu, torch.full_like(mu, -0.1))

    def decode(self, z):
        return Bernoulli().given(
            torch.stack([2 * z.sin(), z**2 - 1, 0.5 - 1.5 * z], -2).squeeze(-1), 1
        )


def hermite(points=40):
    """Nodes and weights of a standard normal expectation."""
    nodes, weights = map(torch.from_numpy, hermegauss(points))
    return nodes, weights / math.sqrt(2 * math.pi)


def line(limit=10.0, points=20_001):
    z = torch.linspace(-limit, limit, points)
    return z, z[1] - z[0]


def mean_and_error(draws):
    return draws.mean(), draws.std() / math.sqrt(len(draws))


# --- the marginal ---------------------------------------------------------------------------


@pytest.mark.equation(
    "eq-marginal",
    formula=quadrature_log_likelihood,
    wrong={
        "logarithm missing": lambda model, x: quadrature_log_likelihood(model, x).exp(),
        "logarithm moved inside": lambda model, x: (
            (
                model.decode(line(6.0, 2001)[0].reshape(-1, 1, 1)).log_prob(x)
                * Normal(0.0, 1.0).log_prob(line(6.0, 2001)[0]).exp().unsqueeze(1)
            ).sum(0)
            * line(6.0, 2001)[1]
        ),
        "prior dropped": lambda model, x: (
            model.decode(line(6.0, 2001)[0].reshape(-1, 1, 1)).log_prob(x).logsumexp(0)
            + line(6.0, 2001)[1].log()
        ),
    },
    implemented_by="course_lib.vae.quadrature_log_likelihood",
)
def test_marginal(formula):
    model, x = solvable(), torch.tensor([[0.7], [-2.1]])
    torch.testing.assert_close(formula(model, x), model.log_prob(x), atol=1e-6, rtol=0)


def linear_gaussian_distributions(w, sigma, x):
    total = w**2 + sigma**2
    return Normal(0.0, total.sqrt()), Normal(w * x / total, sigma / total.sqrt())


@pytest.mark.equation(
    "eq-linear-gaussian",
    formula=linear_gaussian_distributions,
    wrong={
        "standard deviations added": lambda w, s, x: (
            Normal(0.0, w + s),
            linear_gaussian_distributions(w, s, x)[1],
        ),
        "posterior variance taken for its root": lambda w, s, x: (
            linear_gaussian_distributions(w, s, x)[0],
            Normal(w * x / (w**2 + s**2), s**2 / (w**2 + s**2)),
        ),
        "posterior mean x/w": lambda w, s, x: (
            linear_gaussian_distributions(w, s, x)[0],
            Normal(x / w, s / (w**2 + s**2).sqrt()),
        ),
    },
)
def test_linear_gaussian(formula):
    w, sigma, x = torch.tensor(1.4), torch.tensor(0.6), torch.tensor(0.9)
    z, step = line()
    joint = (Normal(0.0, 1.0).log_prob(z) + Normal(w * z, sigma).log_prob(x)).exp()
    marginal, posterior = formula(w, sigma, x)
    torch.testing.assert_close(marginal.log_prob(x).exp(), joint.sum() * step)
    torch.testing.assert_close(posterior.log_prob(z).exp(), joint / (joint.sum() * step))


@pytest.mark.equation(
    "eq-mc-marginal",
    formula=prior_log_likelihood,
    wrong={
        "mean of logs": lambda model, x, k: model.decode(torch.randn(k, 1, 1)).log_prob(x).mean(0),
        "log of the sum": lambda model, x, k: prior_log_likelihood(model, x, k) + math.log(k),
        "twice too few in the mean": lambda model, x, k: (
            prior_log_likelihood(model, x, k) - math.log(2)
        ),
    },
    implemented_by="course_lib.vae.prior_log_likelihood",
)
def test_monte_carlo_from_the_prior(formula):
    model, x = solvable(), torch.tensor([[0.7]])
    draws = torch.cat([formula(model, x, 2) for _ in range(4000)])
    # Unbiased for p(x) …
    mean, error = mean_and_error(draws.exp())
    assert (mean - model.log_prob(x).exp()).abs() < 4 * error < 0.05
    # … and below log p(x), by as much as the integral over both samples says.
    nodes, weights = hermite(120)
    log_p = Normal(1.4 * nodes + 0.3, 0.6).log_prob(x.squeeze())
    pairs = torch.logaddexp(log_p.unsqueeze(0), log_p.unsqueeze(1)) - math.log(2)
    expected = weights @ pairs @ weights
    mean, error = mean_and_error(draws)
    assert (mean - expected).abs() < 4 * error
    assert expected < model.log_prob(x) - 0.1


def bias_to_first_order(p, variance, k):
    return -variance / (2 * k * p**2)


@pytest.mark.equation(
    "eq-mc-bias",
    formula=bias_to_first_order,
    wrong={
        "half dropped": lambda p, v, k: 2 * bias_to_first_order(p, v, k),
        "biased high": lambda p, v, k: -bias_to_first_order(p, v, k),
        "standard deviation for the variance": lambda p, v, k: bias_to_first_order(p, v**0.5, k),
        "variance not relative": lambda p, v, k: bias_to_first_order(1.0, v, k),
    },
)
def test_bias_of_the_log_of_a_mean(formula):
    # Weights of two values: the number of large ones is binomial, so the expectation is a sum.
    low, high, share = 0.5, 3.0, 0.3
    p, variance = low + share * (high - low), share * (1 - share) * (high - low) ** 2
    for k in (100, 1000):
        count = torch.arange(k + 1.0)
        probability = Binomial(k, torch.tensor(share)).log_prob(count).exp()
        expected = (probability * (low + (high - low) * count / k).log()).sum()
        remainder = expected - math.log(p) - formula(p, variance, k)
        assert abs(remainder) < 1.0 / k**2


def relative_second_moment(x, s):
    base = (1 + s**2) / (s * math.sqrt(2 + s**2))
    return base ** len(x) * (x.square().sum() / ((1 + s**2) * (2 + s**2))).exp()


@pytest.mark.equation(
    "eq-mc-variance",
    formula=relative_second_moment,
    wrong={
        "power d dropped": lambda x, s: (
            relative_second_moment(x, s) / ((1 + s**2) / (s * math.sqrt(2 + s**2)))
        ),
        "exponential dropped": lambda x, s: relative_second_moment(0 * x, s),
        "variance for standard deviation": lambda x, s: relative_second_moment(x, s**2),
        "sign of the exponent": lambda x, s: (
            relative_second_moment(0 * x, s) ** 2 / relative_second_moment(x, s)
        ),
    },
)
def test_relative_second_moment_of_prior_weights(formula):
    x, s = torch.tensor([0.5, -1.3]), 0.6
    side, step = line(8.0, 801)
    z = torch.cartesian_prod(side, side)
    prior = MultivariateNormal(torch.zeros(2), torch.eye(2)).log_prob(z).exp()
    w = MultivariateNormal(x, s**2 * torch.eye(2)).log_prob(z).exp()
    first, second = (prior * w).sum() * step**2, (prior * w**2).sum() * step**2
    torch.testing.assert_close(formula(x, s), second / first**2)


def counts(ratio, posterior):
    """Arithmetic and geometric mean of p(z|x)/p(z) under the posterior; finite sums."""
    return (posterior * ratio).sum(), (posterior * ratio.log()).sum().exp()


@pytest.mark.equation(
    "eq-two-sample-counts",
    formula=counts,
    wrong={
        "exchanged": lambda ratio, posterior: counts(ratio, posterior)[::-1],
        "ratio inverted": lambda ratio, posterior: counts(1 / ratio, posterior),
        "under the prior": lambda ratio, posterior: counts(ratio, posterior / ratio),
        "divergence not exponentiated": lambda ratio, posterior: (
            counts(ratio, posterior)[0],
            counts(ratio, posterior)[1].log(),
        ),
    },
)
def test_two_counts_of_prior_samples(formula):
    prior, likelihood = torch.tensor([0.5, 0.3, 0.15, 0.05]), torch.tensor([0.1, 0.4, 0.7, 2.5])
    evidence = (prior * likelihood).sum()
    posterior = prior * likelihood / evidence
    by_variance, by_divergence = formula(posterior / prior, posterior)
    second = (prior * likelihood**2).sum()
    torch.testing.assert_close(by_variance, second / evidence**2)
    torch.testing.assert_close(by_divergence, kl_discrete(posterior, prior).exp())
    assert by_divergence < by_variance


def test_the_two_counts_for_one_tenth():
    """What the page quotes: a factor per dimension by the variance, and one by the divergence."""
    s, d = 0.1, 5
    x = torch.full((d,), math.sqrt(1 + s**2))  # of typical length under the model
    by_variance = relative_second_moment(x, s) ** (1 / d)
    assert by_variance.item() == pytest.approx(11.7, abs=0.05)
    model = LinearGaussian(torch.eye(d), torch.zeros(d), s)
    prior = MultivariateNormal(torch.zeros(d), torch.eye(d))
    divergence = torch.distributions.kl_divergence(model.posterior(x.unsqueeze(0)), prior)
    assert divergence.item() == pytest.approx(d / 2 * math.log(1 + 1 / s**2))
    assert math.exp(divergence.item() / d) == pytest.approx(10.05, abs=0.005)


# --- the evidence lower bound -----------------------------------------------------------------

# A latent with four values and one example: every expectation is a sum of four terms.
JOINT = (0.06, 0.21, 0.02, 0.11)  # p(x, z): sums to p(x) = 0.4
POSTERIOR = (0.3, 0.3, 0.1, 0.3)  # q(z|x)


def finite_elbo(q, joint):
    return (q * (joint / q).log()).sum()


def finite_distributions():
    return torch.tensor(POSTERIOR), torch.tensor(JOINT)


@pytest.mark.equation(
    "eq-elbo-identity",
    formula=lambda q, joint: finite_elbo(q, joint) + kl_discrete(q, joint / joint.sum()),
    wrong={
        "gap subtracted": lambda q, joint: (
            finite_elbo(q, joint) - kl_discrete(q, joint / joint.sum())
        ),
        "gap reversed": lambda q, joint: (
            finite_elbo(q, joint) + kl_discrete(joint / joint.sum(), q)
        ),
        "gap dropped": finite_elbo,
    },
)
def test_elbo_identity(formula):
    q, joint = finite_distributions()
    torch.testing.assert_close(formula(q, joint), joint.sum().log())
    assert finite_elbo(q, joint) < joint.sum().log()
    exact = joint / joint.sum()
    torch.testing.assert_close(finite_elbo(exact, joint), joint.sum().log())


@pytest.mark.equation(
    "eq-elbo-entropy-form",
    formula=lambda q, joint: (q * joint.log()).sum() - (q * q.log()).sum(),
    wrong={
        "entropy subtracted": lambda q, joint: (q * joint.log()).sum() + (q * q.log()).sum(),
        "entropy dropped": lambda q, joint: (q * joint.log()).sum(),
        "entropy of the posterior": lambda q, joint: (
            (q * joint.log()).sum() - (joint * (joint / joint.sum()).log()).sum() / joint.sum()
        ),
    },
)
def test_elbo_entropy_form(formula):
    q, joint = finite_distributions()
    gap = kl_discrete(q, joint / joint.sum())
    torch.testing.assert_close(formula(q, joint), joint.sum().log() - gap)


def two_terms(model, x, sign=1.0, pixels=sum):
    """The bound put together from samples, in ways that can be wrong."""
    posterior = model.encode(x)
    given = model.decode(posterior.rsample())
    kl = 0.5 * (posterior.logvar.exp() + posterior.mu**2 - 1 - posterior.logvar).sum(-1)
    return pixels(given.output.log_prob(given.parameters, x).unbind(-1)) - sign * kl


@pytest.mark.equation(
    "eq-elbo-two-terms",
    formula=elbo,
    wrong={
        "divergence added": lambda model, x: two_terms(model, x, sign=-1.0),
        "divergence dropped": lambda model, x: two_terms(model, x, sign=0.0),
        "mean over pixels": lambda model, x: two_terms(model, x, pixels=lambda p: sum(p) / len(p)),
        "divergence doubled": lambda model, x: two_terms(model, x, sign=2.0),
    },
    implemented_by="course_lib.vae.elbo",
)
def test_elbo_two_terms(formula):
    model, x = Curved(), torch.tensor([[1.0, 0.0, 1.0]])
    z, step = line()
    joint = model.decode(z.unsqueeze(1)).log_prob(x) + Normal(0.0, 1.0).log_prob(z)
    q = model.encode(x).log_prob(z.unsqueeze(1))
    log_p = (joint.exp().sum() * step).log()
    gap = (q.exp() * (q - (joint - log_p))).sum() * step
    mean, error = mean_and_error(formula(model, x.expand(200_000, 3)))
    assert error < 0.01
    assert (mean - (log_p - gap)).abs() < 4 * error


# --- importance weights -----------------------------------------------------------------------


@pytest.mark.equation(
    "eq-importance-weight",
    formula=importance_log_weights,
    wrong={
        "proposal not divided out": lambda model, x, n: (
            model.decode(z := model.encode(x).rsample((n,))).log_prob(x)
            + Normal(0.0, 1.0).log_prob(z).sum(-1)
        ),
        "prior dropped": lambda model, x, n: (
            model.decode(z := model.encode(x).rsample((n,))).log_prob(x)
            - model.encode(x).log_prob(z)
        ),
        "prior and proposal exchanged": lambda model, x, n: (
            model.decode(z := model.encode(x).rsample((n,))).log_prob(x)
            - Normal(0.0, 1.0).log_prob(z).sum(-1)
            + model.encode(x).log_prob(z)
        ),
        "prior samples weighted as the posterior's": lambda model, x, n: (
            model.decode(z := torch.randn(n, len(x), 1)).log_prob(x)
            + Normal(0.0, 1.0).log_prob(z).sum(-1)
            - model.encode(x).log_prob(z)
        ),
    },
    implemented_by="course_lib.vae.importance_log_weights",
)
def test_weights_are_unbiased_for_the_marginal(formula):
    model, x = Curved(), torch.tensor([[1.0, 0.0, 1.0]])
    z, step = line()
    joint = model.decode(z.unsqueeze(1)).log_prob(x) + Normal(0.0, 1.0).log_prob(z)
    truth = joint.exp().sum() * step
    mean, error = mean_and_error(formula(model, x, 200_000).squeeze(1).exp())
    assert (mean - truth).abs() < 4 * error
    assert error < 0.01 * truth


@pytest.mark.equation(
    "eq-iwae",
    formula=iwae_bound,
    wrong={
        "mean of logs": lambda model, x, k: importance_log_weights(model, x, k).mean(0),
        "log k not subtracted": lambda model, x, k: iwae_bound(model, x, k) + math.log(k),
        "largest weight only": lambda model, x, k: (
            importance_log_weights(model, x, k).amax(0) - math.log(k)
        ),
    },
    implemented_by="course_lib.vae.iwae_bound",
)
def test_importance_weighted_bound(formula):
    model, x = solvable(), torch.tensor([[1.7]])
    nodes, weights = hermite()
    # The log weights as a function of the encoder's noise, written out for this model.
    precision = 1 + 1.4**2 / 0.6**2
    q = Normal((x.squeeze() - 0.3) * 1.4 / 0.6**2 / precision, math.sqrt(2 / precision))
    latent = q.loc + q.scale * nodes
    joint = Normal(0.0, 1.0).log_prob(latent) + Normal(1.4 * latent + 0.3, 0.6).log_prob(x)
    log_w = (joint - q.log_prob(latent)).squeeze(0)
    # k = 3: an integral over three noises.
    triples = torch.cartesian_prod(*[log_w] * 3)
    probability = torch.cartesian_prod(*[weights] * 3).prod(-1)
    expected = probability @ (triples.logsumexp(-1) - math.log(3))
    mean, error = mean_and_error(formula(model, x.expand(100_000, 1), 3))
    assert error < 0.01
    assert (mean - expected).abs() < 4 * error
    bound = weights @ log_w  # k = 1: the ELBO
    assert bound + 0.05 < expected < model.log_prob(x)


def finite_iwae(weights, q, k):
    """L_k for a finite latent: a sum over all k-tuples."""
    total = 0.0
    for indices in itertools.product(range(len(q)), repeat=k):
        index = torch.tensor(indices)
        total += q[index].prod() * weights[index].mean().log()
    return total


@pytest.mark.equation(
    "eq-iwae-monotone",
    formula=finite_iwae,
    wrong={
        "mean of logs": lambda w, q, k: finite_iwae(w, q, 1),
        "log k not subtracted": lambda w, q, k: finite_iwae(w, q, k) + math.log(k),
        "sum of logs": lambda w, q, k: k * finite_iwae(w, q, 1),
        "logarithm of the marginal at once": lambda w, q, k: (q * w).sum().log(),
    },
)
def test_importance_weighted_bound_rises_to_log_p(formula):
    q, joint = finite_distributions()
    log_p = joint.sum().log()
    bounds = torch.stack([formula(joint / q, q, k) for k in range(1, 8)])
    torch.testing.assert_close(bounds[0], finite_elbo(q, joint))
    assert (bounds.diff() > 1e-4).all()
    assert (bounds < log_p).all()
    # The gap closes at the rate of eq-mc-bias.
    relative_variance = (joint**2 / q).sum() / joint.sum() ** 2 - 1
    torch.testing.assert_close(log_p - bounds[-1], relative_variance / 14, rtol=0.15, atol=0)


def moment_exponent(r, variance):
    """Of w^r q, far out along one coordinate: the coefficient of z²/2. Finite if it is negative."""
    return -(1 - r * (1 - variance)) / variance


@pytest.mark.equation(
    "eq-weight-moments",
    formula=moment_exponent,
    wrong={
        "threshold at 1 for r = 2": lambda r, variance: (r - 1) * (1 / variance - 1),
        "power of q forgotten": lambda r, variance: r / variance - r,
        "prior forgotten": lambda r, variance: (r - 1) / variance,
        "standard deviation for variance": lambda r, variance: moment_exponent(r, variance**0.5),
    },
)
def test_moments_of_the_weights_of_a_relu_decoder(formula):
    decoder = nn.Sequential(nn.Linear(2, 20), nn.ReLU(), nn.Linear(20, 6))
    x, mu = torch.bernoulli(torch.full((6,), 0.5)), torch.tensor([0.8, -0.4])
    for variances in ((0.3, 0.9), (0.6, 0.45), (0.2, 0.05)):
        q = Normal(mu, torch.tensor(variances).sqrt())
        for r in (1.5, 2.0, 3.0):
            for j in (0, 1):
                # The logarithm of the integrand itself, at a point so far that z² is all that counts.
                z = torch.zeros(2)
                z[j] = 1e7
                with torch.no_grad():
                    likelihood = Bernoulli().log_prob(decoder(z).unsqueeze(-1), x).sum()
                log_q, log_prior = q.log_prob(z).sum(), Normal(0.0, 1.0).log_prob(z).sum()
                log_integrand = r * (likelihood + log_prior - log_q) + log_q
                measured = (2 * log_integrand / z[j] ** 2).item()
                assert formula(r, variances[j]) == pytest.approx(measured, rel=1e-4, abs=1e-4)


def test_weights_with_and_without_a_second_moment():
    """∫ w²q over [−R, R] settles for σ² = 0.6 and grows without limit for σ² = 0.4."""
    for variance, finite in ((0.6, True), (0.4, False)):
        q = Normal(0.3, math.sqrt(variance))
        totals = []
        for limit in (10.0, 20.0):
            z, step = line(limit)
            log_w = Normal(0.0, 1.0).log_prob(z) - q.log_prob(z) - 0.5 * z.abs()
            totals.append((2 * log_w + q.log_prob(z)).logsumexp(0) + step.log())
        assert (abs(totals[1] - totals[0]) < 1e-3) == finite
        # A tenth of the prior in the proposal bounds the weights by ten times the likelihood.
        z, _ = line()
        mixed = 0.9 * q.log_prob(z).exp() + 0.1 * Normal(0.0, 1.0).log_prob(z).exp()
        assert (Normal(0.0, 1.0).log_prob(z).exp() / mixed).max() <= 10
    # What the page says of the threshold: such a coordinate costs less than a tenth of a nat.
    assert kl_standard_normal(torch.zeros(1, 1), torch.tensor([[0.5]]).log()).item() < 0.1


@pytest.mark.equation(
    "eq-bias-standard-error",
    formula=lambda error: -0.5 * error**2,
    wrong={
        "half dropped": lambda error: -(error**2),
        "biased high": lambda error: 0.5 * error**2,
        "not squared": lambda error: -0.5 * error,
    },
)
def test_bias_is_half_of_the_squared_error(formula):
    # Weights of two values, as above: sums over the number of large ones, without Monte Carlo.
    low, high, share = 0.5, 3.0, 0.3
    p = low + share * (high - low)
    for k in (100, 1000):
        count = torch.arange(k + 1.0)
        probability = Binomial(k, torch.tensor(share)).log_prob(count).exp()
        mean = low + (high - low) * count / k
        square = low**2 + (high**2 - low**2) * count / k
        error = ((square / mean**2 - 1) / (k - 1)).sqrt()  # eq-log-likelihood-error
        bias = probability @ mean.log() - math.log(p)
        assert abs(bias - probability @ formula(error)) < 1.0 / k**2


@pytest.mark.equation(
    "eq-log-likelihood-error",
    formula=lambda model, x, k: log_likelihood_with_error(model, x, k)[1],
    wrong={
        "root dropped": lambda model, x, k: log_likelihood_with_error(model, x, k)[1] ** 2,
        "not divided by k": lambda model, x, k: (
            log_likelihood_with_error(model, x, k)[1] * math.sqrt(k - 1)
        ),
        "second moment for variance": lambda model, x, k: (
            log_likelihood_with_error(model, x, k)[1].square() + 1 / (k - 1)
        ).sqrt(),
        "spread of the log weights": lambda model, x, k: (
            importance_log_weights(model, x, k).std(0) / math.sqrt(k)
        ),
    },
    implemented_by="course_lib.vae.log_likelihood_with_error",
)
def test_standard_error_of_the_log_likelihood(formula):
    model, x = solvable(), torch.full((2000, 1), 1.0)
    estimates, _ = log_likelihood_with_error(model, x, 300)
    # 2000 repetitions know their spread to 1.6 %.
    torch.testing.assert_close(formula(model, x, 300).mean(), estimates.std(), rtol=0.07, atol=0)


# --- β-VAE ------------------------------------------------------------------------------------


@pytest.mark.equation(
    "eq-beta-bound",
    formula=lambda bound, kl, beta: bound - (beta - 1) * kl,
    wrong={
        "β for β − 1": lambda bound, kl, beta: bound - beta * kl,
        "sign flipped": lambda bound, kl, beta: bound + (beta - 1) * kl,
        "bound scaled": lambda bound, kl, beta: beta * bound,
    },
)
def test_beta_bound(formula):
    prior, likelihood = torch.tensor([0.4, 0.3, 0.2, 0.1]), torch.tensor([0.2, 0.7, 0.1, 0.6])
    joint = prior * likelihood
    log_p = joint.sum().log()
    for q in (torch.tensor(POSTERIOR), joint / joint.sum()):
        reconstruction, kl = (q * likelihood.log()).sum(), kl_discrete(q, prior)
        for beta in (0.5, 1.0, 3.0):
            objective = formula(finite_elbo(q, joint), kl, beta)
            torch.testing.assert_close(objective, reconstruction - beta * kl)
            if beta >= 1:
                assert objective <= log_p + 1e-12
    # With the exact posterior and β < 1 the objective is above log p(x), by (1 − β) KL.
    exact = joint / joint.sum()
    excess = formula(finite_elbo(exact, joint), kl_discrete(exact, prior), 0.5) - log_p
    torch.testing.assert_close(excess, 0.5 * kl_discrete(exact, prior))
    assert excess > 0.01
