"""Maximum likelihood: the empirical distribution, maximizers, and what an exponential family matches."""

import math

import pytest
import scipy.optimize
import torch
from torch.autograd.functional import hessian, jacobian
from torch.distributions import MultivariateNormal

from course_lib.divergences import kl_discrete, kl_gaussian

pytestmark = pytest.mark.usefixtures("float64")

# An exponential family on nine values, with a function h that is not constant and two statistics.
VALUES = torch.arange(9.0, dtype=torch.float64)
BASE = 1 / (1 + VALUES)
STATISTICS = torch.stack([VALUES, torch.sin(VALUES)], 1)


def distribution(*size: int) -> torch.Tensor:
    return torch.distributions.Dirichlet(torch.full(size, 0.7)).sample()


def entropy(p):
    return -torch.xlogy(p, p).sum(-1)


def log_partition(eta, base=BASE, statistics=STATISTICS):
    return (base * (statistics @ eta).exp()).sum().log()


def member(eta, base=BASE, statistics=STATISTICS):
    return base * (statistics @ eta - log_partition(eta, base, statistics)).exp()


def matching_member(p, base=BASE, statistics=STATISTICS):
    """Solve for equal averages of the statistics; no likelihood is used."""
    found = scipy.optimize.root(
        lambda eta: statistics.mT @ (member(torch.tensor(eta), base, statistics) - p),
        torch.zeros(statistics.shape[1]),
        tol=1e-13,
    )
    assert found.success
    return torch.tensor(found.x)


@pytest.mark.equation(
    "eq-mle-empirical",
    formula=lambda empirical, q: -entropy(empirical) - kl_discrete(empirical, q),
    wrong={
        "entropy dropped": lambda empirical, q: -kl_discrete(empirical, q),
        "sign of the entropy": lambda empirical, q: entropy(empirical) - kl_discrete(empirical, q),
        "arguments swapped": lambda empirical, q: -entropy(empirical) - kl_discrete(q, empirical),
        "entropy of the model": lambda empirical, q: -entropy(q) - kl_discrete(empirical, q),
    },
)
def test_likelihood_of_a_sample_is_a_divergence_from_it(formula):
    for size in (1, 7, 60):  # not only large samples
        sample = torch.multinomial(distribution(5), size, replacement=True)
        empirical = sample.bincount(minlength=5) / size
        q = distribution(5)
        torch.testing.assert_close(formula(empirical, q), q.log()[sample].mean())


def largest_difference(estimate, truth):
    return 2 * (estimate - truth).abs().max(-1).values


@pytest.mark.equation(
    "eq-uniform-argmax",
    formula=largest_difference,
    wrong={
        "once, not twice": lambda estimate, truth: 0.5 * largest_difference(estimate, truth),
        "only at the true maximizer": lambda estimate, truth: (
            2 * (estimate - truth).gather(-1, truth.argmax(-1, keepdim=True)).abs().squeeze(-1)
        ),
        "difference of the maxima": lambda estimate, truth: (
            2 * (estimate.max(-1).values - truth.max(-1).values).abs()
        ),
        "mean over the parameters": lambda estimate, truth: 2 * (estimate - truth).abs().mean(-1),
    },
)
def test_a_uniformly_good_estimate_has_a_good_maximizer(formula):
    truth = torch.randn(2000, 6)
    estimate = truth + torch.randn(2000, 1) * torch.rand(2000, 6)
    chosen = estimate.argmax(-1, keepdim=True)
    lost = truth.max(-1).values - truth.gather(-1, chosen).squeeze(-1)
    assert (lost >= 0).all()
    assert (lost <= formula(estimate, truth) + 1e-12).all()
    # The bound is reached: the best is estimated too low, another too high, by the same amount.
    truth, estimate = torch.tensor([[0.7, 0.1]]), torch.tensor([[0.4, 0.4 + 1e-9]])
    torch.testing.assert_close(formula(estimate, truth), torch.tensor([0.6]), atol=1e-8, rtol=0)


def moments(eta):
    p = member(eta)
    mean = STATISTICS.mT @ p
    centred = STATISTICS - mean
    return mean, centred.mT @ (p[:, None] * centred)


@pytest.mark.equation(
    "eq-log-partition",
    formula=moments,
    wrong={
        "second moment for the covariance": lambda eta: (
            moments(eta)[0],
            STATISTICS.mT @ (member(eta)[:, None] * STATISTICS),
        ),
        "weights without h": lambda eta: (
            STATISTICS.mT @ (STATISTICS @ eta).softmax(0),
            moments(eta)[1],
        ),
        "sign of the gradient": lambda eta: (-moments(eta)[0], moments(eta)[1]),
        "variances only": lambda eta: (moments(eta)[0], moments(eta)[1].diagonal().diag()),
    },
)
def test_the_log_partition_function_knows_the_moments(formula):
    for eta in (torch.tensor([0.3, -0.8]), torch.tensor([-0.5, 1.2])):
        mean, covariance = formula(eta)
        torch.testing.assert_close(mean, jacobian(log_partition, eta))
        torch.testing.assert_close(covariance, hessian(log_partition, eta))


@pytest.mark.equation(
    "eq-exponential-gradient",
    formula=lambda p, eta: STATISTICS.mT @ (p - member(eta)),
    wrong={
        "sign": lambda p, eta: STATISTICS.mT @ (member(eta) - p),
        "the model's average dropped": lambda p, eta: STATISTICS.mT @ p,
        "the data's average dropped": lambda p, eta: -STATISTICS.mT @ member(eta),
    },
)
def test_the_gradient_compares_averages(formula):
    p, eta = distribution(9), torch.tensor([0.3, -0.8])
    gradient = jacobian(lambda eta: (p * member(eta).log()).sum(), eta)
    torch.testing.assert_close(formula(p, eta), gradient)


@pytest.mark.equation(
    "eq-moment-pythagoras",
    formula=lambda p, best, q: kl_discrete(p, best) + kl_discrete(best, q),
    wrong={
        "second divergence swapped": lambda p, best, q: kl_discrete(p, best) + kl_discrete(q, best),
        "first divergence swapped": lambda p, best, q: kl_discrete(best, p) + kl_discrete(best, q),
        "only the way along the family": lambda p, best, q: kl_discrete(best, q),
        "difference": lambda p, best, q: kl_discrete(p, best) - kl_discrete(best, q),
    },
)
def test_moment_matching_obeys_pythagoras(formula):
    for _ in range(5):
        p = distribution(9)
        best = member(matching_member(p))
        for _ in range(5):
            q = member(torch.randn(2))
            torch.testing.assert_close(formula(p, best, q), kl_discrete(p, q), atol=1e-9, rtol=1e-8)


@pytest.mark.equation(
    "eq-maximum-entropy",
    formula=lambda p, best: entropy(best) - kl_discrete(p, best),
    wrong={
        "sign": lambda p, best: entropy(best) + kl_discrete(p, best),
        "arguments swapped": lambda p, best: entropy(best) - kl_discrete(best, p),
        "divergence dropped": lambda p, best: entropy(best),
    },
)
def test_the_matching_member_has_the_largest_entropy(formula):
    constant = torch.ones(9)
    p = distribution(9)
    best = member(matching_member(p, constant), constant)
    torch.testing.assert_close(formula(p, best), entropy(p), atol=1e-9, rtol=1e-8)
    # Move from the best member in a direction that keeps sum and averages: the entropy falls.
    kept = torch.cat([constant[:, None], STATISTICS], 1)
    free = torch.eye(9) - kept @ torch.linalg.pinv(kept)
    for direction in (torch.randn(20, 9) @ free).unbind():
        other = best + 0.3 * best.min() * direction / direction.abs().max()
        assert entropy(other) < entropy(best)


def mixture_in_the_plane():
    """Weights, means and covariances of two components, whose coordinates depend on one another."""
    factors = torch.tensor([[[1.0, 0.0], [0.7, 0.5]], [[0.6, 0.0], [-0.4, 0.9]]])
    means = torch.tensor([[-1.2, 0.5], [1.5, -0.3]])
    return torch.tensor([0.35, 0.65]), means, factors @ factors.mT


def matched():
    weights, means, covariances = mixture_in_the_plane()
    mean = weights @ means
    shifts = means - mean
    spread = covariances + shifts[:, :, None] * shifts[:, None, :]
    return mean, (weights[:, None, None] * spread).sum(0)


def gap(m, s, at):
    return kl_gaussian(*at, m, s)


@pytest.mark.equation(
    "eq-moment-matching-multivariate",
    formula=lambda m, s: (*matched(), gap(m, s, matched())),
    wrong={
        "correlation dropped": lambda m, s: (
            matched()[0],
            matched()[1].diagonal().diag(),
            gap(m, s, matched()),
        ),
        "covariance within the components": lambda m, s: (
            matched()[0],
            torch.einsum("k,kij->ij", mixture_in_the_plane()[0], mixture_in_the_plane()[2]),
            gap(m, s, matched()),
        ),
        "gap turned round": lambda m, s: (*matched(), kl_gaussian(m, s, *matched())),
        "unweighted mean": lambda m, s: (
            mixture_in_the_plane()[1].mean(0),
            matched()[1],
            gap(m, s, matched()),
        ),
    },
)
def test_a_gaussian_matches_mean_and_covariance(formula):
    weights, means, covariances = mixture_in_the_plane()
    axis = torch.linspace(-8, 8, 161)
    points = torch.cartesian_prod(axis, axis)
    components = MultivariateNormal(means, covariances).log_prob(points[:, None]).exp()
    mass = components @ weights * (axis[1] - axis[0]) ** 2

    def cross_entropy(m, s):
        return -(mass * MultivariateNormal(m, s).log_prob(points)).sum()

    mean, covariance, lost = formula(
        torch.tensor([0.4, -0.6]), torch.tensor([[2.0, 0.5], [0.5, 1.0]])
    )
    # The minimum, from a descent on the mean and a factor of the covariance.
    found = torch.zeros(5, requires_grad=True)
    optimizer = torch.optim.LBFGS([found], max_iter=200, line_search_fn="strong_wolfe")

    def unpacked(v):
        factor = torch.stack(
            [torch.stack([v[2].exp(), torch.zeros(())]), torch.stack([v[3], v[4].exp()])]
        )
        return v[:2], factor @ factor.mT

    def loss():
        optimizer.zero_grad()
        value = cross_entropy(*unpacked(found))
        value.backward()
        return value

    optimizer.step(loss)
    best = [part.detach() for part in unpacked(found)]
    torch.testing.assert_close(best[0], mean, atol=1e-4, rtol=0)
    torch.testing.assert_close(best[1], covariance, atol=1e-4, rtol=0)
    other = torch.tensor([0.4, -0.6]), torch.tensor([[2.0, 0.5], [0.5, 1.0]])
    difference = cross_entropy(*other) - cross_entropy(*best)
    torch.testing.assert_close(lost, difference, atol=1e-6, rtol=0)


def both_directions(covariance):
    return covariance.diagonal(), 1 / torch.linalg.inv(covariance).diagonal()


@pytest.mark.equation(
    "eq-diagonal-gaussian",
    formula=both_directions,
    wrong={
        "directions exchanged": lambda covariance: both_directions(covariance)[::-1],
        "standard deviations": lambda covariance: tuple(
            v.sqrt() for v in both_directions(covariance)
        ),
        "the same for both": lambda covariance: (covariance.diagonal(),) * 2,
        "precision instead of its inverse": lambda covariance: (
            covariance.diagonal(),
            torch.linalg.inv(covariance).diagonal(),
        ),
    },
)
def test_a_diagonal_gaussian_in_both_directions(formula):
    factor = torch.randn(3, 3).tril() + torch.eye(3)
    mean, covariance = torch.randn(3), factor @ factor.mT
    forward, reverse = formula(covariance)
    assert (reverse <= forward).all()

    def value(m, log_s, is_forward):
        q, p = (m, (2 * log_s).exp().diag()), (mean, covariance)
        return kl_gaussian(*p, *q) if is_forward else kl_gaussian(*q, *p)

    for variances, is_forward in ((forward, True), (reverse, False)):
        at = mean, variances.log() / 2
        gradients = jacobian(lambda m, s, f=is_forward: value(m, s, f), at)
        for gradient in gradients:
            torch.testing.assert_close(gradient, torch.zeros(3), atol=1e-9, rtol=0)
        for _ in range(10):  # and every step away from it costs
            away = [part + 0.1 * torch.randn(3) for part in at]
            assert value(*away, is_forward) > value(*at, is_forward)
    # The variance of a coordinate when the others are known, by Schur's complement.
    known = covariance[0, 0] - covariance[0, 1:] @ torch.linalg.solve(
        covariance[1:, 1:], covariance[1:, 0]
    )
    torch.testing.assert_close(reverse[0], known)


def test_the_listed_families_have_the_stated_log_partition_functions():
    """Bernoulli: A = log(1 + e^η). Poisson: A = e^η."""
    bits, counts = torch.arange(2.0), torch.arange(60.0)
    eta = torch.tensor([0.7])
    bernoulli = log_partition(eta, torch.ones(2), bits[:, None])
    assert bernoulli.item() == pytest.approx(math.log(1 + math.exp(0.7)))
    poisson = log_partition(eta, (-torch.lgamma(counts + 1)).exp(), counts[:, None])
    assert poisson.item() == pytest.approx(math.exp(0.7))
