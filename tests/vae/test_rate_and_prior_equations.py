"""Rate and distortion, learned priors, and hierarchies of codes."""

import math

import numpy as np
import pytest
import scipy.optimize
import torch
from torch.distributions import Normal

from course_lib.divergences import kl_discrete

pytestmark = pytest.mark.usefixtures("float64")


def random_distribution(seed, *shape):
    """Rows that sum to 1, none of them special."""
    generator = torch.Generator().manual_seed(seed)
    rows = torch.rand(shape, generator=generator, dtype=torch.float64) + 0.05
    return rows / rows.sum(-1, keepdim=True)


# --- rate and distortion --------------------------------------------------------------------------


def information_bounds(data, encoder, prior, decoder):
    """H − D and R, for finitely many examples and codes."""
    entropy = -(data * data.log()).sum()
    distortion = -(data.unsqueeze(1) * encoder * decoder.log()).sum()
    rate = (data * (encoder * (encoder / prior).log()).sum(1)).sum()
    return entropy - distortion, rate


@pytest.mark.equation(
    "eq-rate-bounds",
    formula=information_bounds,
    wrong={
        "entropy dropped": lambda data, *rest: (
            information_bounds(data, *rest)[0] + (data * data.log()).sum(),
            information_bounds(data, *rest)[1],
        ),
        "distortion added": lambda data, *rest: (
            -2 * (data * data.log()).sum() - information_bounds(data, *rest)[0],
            information_bounds(data, *rest)[1],
        ),
        "rate halved": lambda *model: (
            information_bounds(*model)[0],
            0.5 * information_bounds(*model)[1],
        ),
        "bounds exchanged": lambda *model: information_bounds(*model)[::-1],
    },
)
def test_information_lies_between_distortion_and_rate(formula):
    data, prior = random_distribution(1, 4), random_distribution(3, 3)
    encoder, decoder = random_distribution(2, 4, 3), random_distribution(5, 3, 4).T
    joint = data.unsqueeze(1) * encoder
    aggregate = joint.sum(0)
    information = kl_discrete(joint.flatten(), torch.outer(data, aggregate).flatten())
    lower, upper = formula(data, encoder, prior, decoder)
    assert lower < information < upper
    # The slack is what the derivation says.
    torch.testing.assert_close(upper - information, kl_discrete(aggregate, prior))
    inverse = joint / aggregate
    fits = torch.stack([kl_discrete(a, b) for a, b in zip(inverse.T, decoder.T, strict=True)])
    torch.testing.assert_close(information - lower, (aggregate * fits).sum())


def least_error(s, rate):
    return s**2 * math.exp(-2 * rate)


@pytest.mark.equation(
    "eq-gaussian-rate-distortion",
    formula=least_error,
    wrong={
        "2 dropped": lambda s, rate: s**2 * math.exp(-rate),
        "standard deviation for variance": lambda s, rate: s * math.exp(-2 * rate),
        "sign flipped": lambda s, rate: s**2 * math.exp(2 * rate),
        "in bits": lambda s, rate: s**2 * 2 ** (-2 * rate),
    },
)
def test_least_squared_error_at_a_rate(formula):
    for s, rate in ((1.6, 0.4), (0.7, 1.1)):
        # Encoders N(ax, τ²) and the prior N(0, 1): minimize with the rate as constraint.
        def error(parameters, s=s):
            a, log_tau, w = parameters
            return s**2 * (1 - w * a) ** 2 + w**2 * math.exp(2 * log_tau)

        def rate_left(parameters, s=s, rate=rate):
            a, log_tau, _ = parameters
            return rate - 0.5 * (math.exp(2 * log_tau) + a**2 * s**2 - 1 - 2 * log_tau)

        best = min(
            scipy.optimize.minimize(
                error,
                start,
                method="SLSQP",
                constraints={"type": "ineq", "fun": rate_left},
                options={"ftol": 1e-14, "maxiter": 500},
            ).fun
            for start in ((0.3, -0.2, 0.5), (0.6, -0.5, 1.0))
        )
        assert formula(s, rate) == pytest.approx(best, rel=1e-5)
    # No other encoder does better: one of two codes, by the sign of x, says log 2 nats at most.
    s = 1.6
    mean = s * math.sqrt(2 / math.pi)
    assert s**2 - mean**2 > formula(s, math.log(2))


def test_water_level_of_a_weighted_objective():
    """The optimum of error/2σ² + βR leaves the error min(s², βσ²)."""
    for s, sigma, beta in ((1.5, 0.6, 2.5), (0.7, 0.6, 2.0)):
        found = scipy.optimize.minimize_scalar(
            lambda rate, s=s, sigma=sigma, beta=beta: (
                least_error(s, rate) / (2 * sigma**2) + beta * rate
            ),
            bounds=(0, 10),
            method="bounded",
            options={"xatol": 1e-10},
        )
        assert least_error(s, found.x) == pytest.approx(min(s**2, beta * sigma**2), rel=1e-4)


# --- priors ---------------------------------------------------------------------------------------


def best_bound(encoder, log_likelihood):
    """The right side: reconstruction minus mutual information, codes and examples being finite."""
    aggregate = encoder.mean(0)
    information = (encoder * (encoder / aggregate).log()).sum(1).mean()
    return (encoder * log_likelihood).sum(1).mean() - information


@pytest.mark.equation(
    "eq-best-prior",
    formula=best_bound,
    wrong={
        "information added": lambda q, log_p: 2 * (q * log_p).sum(1).mean() - best_bound(q, log_p),
        "information dropped": lambda q, log_p: (q * log_p).sum(1).mean(),
        "entropy of the codes for the information": lambda q, log_p: (
            (q * log_p).sum(1).mean() + (q.mean(0) * q.mean(0).log()).sum()
        ),
        "uniform prior": lambda q, log_p: (
            (q * log_p).sum(1).mean() - (q * (q * q.shape[1]).log()).sum(1).mean()
        ),
    },
)
def test_best_prior_is_the_aggregate(formula):
    encoder = random_distribution(6, 5, 4)
    log_likelihood = random_distribution(7, 5, 4).log()

    def negative_bound(logits):
        log_prior = torch.from_numpy(logits).log_softmax(0)
        return -(encoder * (log_likelihood + log_prior - encoder.log())).sum(1).mean().item()

    found = scipy.optimize.minimize(negative_bound, np.zeros(4), method="BFGS", tol=1e-12)
    assert formula(encoder, log_likelihood).item() == pytest.approx(-found.fun, abs=1e-9)
    prior = torch.from_numpy(found.x).softmax(0)
    torch.testing.assert_close(prior, encoder.mean(0), atol=1e-4, rtol=0)


def warp(u):
    """An invertible map T with its derivative: neither affine nor odd."""
    return u + 0.6 * u.tanh() + 0.3, 1 + 0.6 * (1 - u.tanh() ** 2)


def divergence_in_u(q, u, step, jacobian=1.0, unwarped=False):
    """KL(f_#q‖N(0, 1)) on a grid of u: f_#q has the density q(T(u)) T′(u)."""
    z, slope = warp(u)
    density = (q.log_prob(u) if unwarped else q.log_prob(z)) + jacobian * slope.log()
    return (density.exp() * (density - Normal(0.0, 1.0).log_prob(u))).sum() * step


@pytest.mark.equation(
    "eq-flow-prior",
    formula=divergence_in_u,
    wrong={
        "Jacobian dropped": lambda q, u, step: divergence_in_u(q, u, step, jacobian=0.0),
        "Jacobian inverted": lambda q, u, step: divergence_in_u(q, u, step, jacobian=-1.0),
        "posterior not mapped": lambda q, u, step: divergence_in_u(
            q, u, step, jacobian=0.0, unwarped=True
        ),
    },
)
def test_flow_prior_is_a_richer_posterior(formula):
    u = torch.linspace(-12, 12, 40_001)
    q = Normal(0.9, 0.5)
    z, slope = warp(u)
    # KL(q‖p_T) by the trapezoidal rule on the uneven grid z = T(u), with p_T(z) = N(u) / T′(u).
    log_prior = Normal(0.0, 1.0).log_prob(u) - slope.log()
    integrand = q.log_prob(z).exp() * (q.log_prob(z) - log_prior)
    expected = torch.trapezoid(integrand, z)
    assert expected > 0.3
    torch.testing.assert_close(formula(q, u, u[1] - u[0]), expected, rtol=1e-6, atol=0)


# --- hierarchies ----------------------------------------------------------------------------------


def level_by_level(q1, q2, q3, p1, p2, p3, likelihood, top=1.0, sign=1.0, conditional=True):
    """The bound of one example from top-down conditionals, for the bottom-up chain q1 q2 q3.

    q1: (a,), q2: (a, b) and q3: (b, c) are q(z1|x), q(z2|z1), q(z3|z2); p3: (c,), p2: (c, b) and
    p1: (b, a) are p(z3), p(z2|z3), p(z1|z2); likelihood: (a,), p(x|z1).
    """
    pair12 = q1.unsqueeze(1) * q2  # q(z1, z2|x)
    at2 = pair12.sum(0)
    pair23 = at2.unsqueeze(1) * q3
    at3 = pair23.sum(0)
    down1 = (pair12 / at2).T  # q(z1|z2, x), (b, a)
    down2 = (pair23 / at3).T  # q(z2|z3, x), (c, b)
    if not conditional:  # the divergences of the marginals instead
        down1, down2 = q1.expand_as(down1), at2.expand_as(down2)
    each1 = (down1 * (down1 / p1).log()).sum(1)
    each2 = (down2 * (down2 / p2).log()).sum(1)
    divergences = (at2 * each1).sum() + (at3 * each2).sum() + top * kl_discrete(at3, p3)
    return (q1 * likelihood.log()).sum() - sign * divergences


@pytest.mark.equation(
    "eq-hierarchical-elbo",
    formula=level_by_level,
    wrong={
        "top level dropped": lambda *model: level_by_level(*model, top=0.0),
        "divergences added": lambda *model: level_by_level(*model, sign=-1.0),
        "posteriors that do not know the level above": lambda *model: level_by_level(
            *model, conditional=False
        ),
    },
)
def test_bound_of_a_hierarchy(formula):
    q1, q2, q3 = (random_distribution(i, *s) for i, s in ((11, (2,)), (12, (2, 3)), (13, (3, 4))))
    p3, p2, p1 = (random_distribution(i, *s) for i, s in ((14, (4,)), (15, (4, 3)), (16, (3, 2))))
    likelihood = torch.tensor([0.7, 0.2])
    # The definition: a sum over all codes of all levels.
    expected = 0.0
    for a in range(2):
        for b in range(3):
            for c in range(4):
                q = q1[a] * q2[a, b] * q3[b, c]
                p = p3[c] * p2[c, b] * p1[b, a] * likelihood[a]
                expected += q * (p / q).log()
    torch.testing.assert_close(formula(q1, q2, q3, p1, p2, p3, likelihood), expected)
