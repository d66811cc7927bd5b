"""Equations of the second page beyond distances and the Dirac-GAN's eigenvalues: noise, pairs, hinge."""

import math

import numpy as np
import pytest
import torch
from scipy.optimize import linprog
from torch.distributions import Normal
from torch.nn.functional import softplus

from course_lib.divergences import js_discrete
from course_lib.gan import (
    critic_loss,
    dirac,
    gradient_penalty,
    jensen_shannon,
    r1_penalty,
    relativistic_generator_loss,
    relativistic_loss,
)

DOUBLE = {"dtype": torch.float64}
POINTS = torch.linspace(-20, 20, 40_001, **DOUBLE)


def normal(mean, std):
    return Normal(torch.tensor(mean, **DOUBLE), torch.tensor(std, **DOUBLE))


@pytest.mark.equation(
    "eq-fixed-discriminator",
    formula=lambda losses: losses.min(),
    wrong={
        "the mean": lambda losses: losses.mean(),
        "the largest": lambda losses: losses.max(),
        "the median": lambda losses: losses.median(),
    },
)
def test_best_answer_to_a_fixed_discriminator(formula):
    """A linear programme over all distributions on nine values."""
    losses = -torch.rand(9, **DOUBLE).log()
    best = linprog(losses.numpy(), A_eq=np.ones((1, 9)), b_eq=[1.0], method="highs")
    assert formula(losses).item() == pytest.approx(best.fun)
    assert (best.x > 1e-9).sum() == 1  # all of the mass on a single value


def distances(x):
    return np.linalg.norm(x[:, None] - x[None], axis=-1)


def cheapest(p, q, cost):
    """Least cost of a coupling, as a linear programme."""
    n = len(p)
    marginals = np.vstack([np.kron(np.eye(n), np.ones(n)), np.kron(np.ones(n), np.eye(n))])
    return linprog(cost.ravel(), A_eq=marginals, b_eq=np.concatenate([p, q]), method="highs").fun


def best_hinge_critic(p, q, cost):
    """Least hinge loss of a 1-Lipschitz critic: scores, and a slack variable for each term."""
    n = len(p)
    rows, bounds = [], []
    for i in range(n):
        for j in range(n):
            if i != j:
                row = np.zeros(3 * n)
                row[i], row[j] = 1, -1
                rows.append(row)
                bounds.append(cost[i, j])
        for sign, slack in ((-1, n), (1, 2 * n)):  # 1 ∓ f ≤ slack
            row = np.zeros(3 * n)
            row[i], row[slack + i] = sign, -1
            rows.append(row)
            bounds.append(-1.0)
    result = linprog(
        np.concatenate([np.zeros(n), p, q]),
        A_ub=np.array(rows),
        b_ub=np.array(bounds),
        bounds=[(None, None)] * n + [(0, None)] * (2 * n),
        method="highs",
    )
    return result.fun


@pytest.mark.equation(
    "eq-hinge-lipschitz",
    formula=lambda p, q, cost: 2 - cheapest(p, q, np.minimum(cost, 2)),
    wrong={
        "the whole distance": lambda p, q, cost: 2 - cheapest(p, q, cost),
        "truncated at 1": lambda p, q, cost: 2 - cheapest(p, q, np.minimum(cost, 1)),
        "half of the cost": lambda p, q, cost: 2 - cheapest(p, q, np.minimum(cost, 2)) / 2,
        "total variation": lambda p, q, cost: 2 - np.abs(p - q).sum(),
    },
)
def test_hinge_under_a_lipschitz_bound(formula):
    """Two linear programmes: of critics with the hinge loss, and of couplings."""
    random = np.random.default_rng(3)
    points = np.vstack(
        [random.normal(size=(5, 2)), random.normal(size=(5, 2)) + np.array([1.5, 0.5])]
    )
    cost = distances(points)
    assert (cost > 2).any()
    p, q = random.dirichlet(np.ones(10), 2)
    assert formula(p, q, cost) == pytest.approx(best_hinge_critic(p, q, cost))


@pytest.mark.equation(
    "eq-dirac-wgan-gp",
    formula=lambda theta, psi, weight: (psi, -theta - 2 * weight * (abs(psi) - 1) * np.sign(psi)),
    wrong={
        "factor 2 dropped": lambda theta, psi, weight: (
            psi,
            -theta - weight * (abs(psi) - 1) * np.sign(psi),
        ),
        "no sign": lambda theta, psi, weight: (psi, -theta - 2 * weight * (abs(psi) - 1)),
        "penalty at slope 0": lambda theta, psi, weight: (psi, -theta - 2 * weight * psi),
        "signs of the game": lambda theta, psi, weight: (
            -psi,
            theta - 2 * weight * (abs(psi) - 1) * np.sign(psi),
        ),
    },
    implemented_by="course_lib.gan.dirac.wasserstein_gp",
)
def test_dirac_wgan_gp(formula):
    """Minus the derivatives of the library's losses and penalty, by automatic differentiation."""
    zero = torch.zeros(3, 1, **DOUBLE)
    for theta, psi, weight in ((0.8, -1.3, 0.7), (-0.5, 2.0, 1.4), (1.1, 0.6, 3.0)):
        t, s = (torch.tensor(v, **DOUBLE, requires_grad=True) for v in (theta, psi))
        generated = t.detach().expand(3, 1)
        loss = critic_loss(s * zero[:, 0], s * generated[:, 0])
        loss = loss + gradient_penalty(lambda x, s=s: s * x[:, 0], zero, generated, weight=weight)
        (to_psi,) = torch.autograd.grad(loss, s)
        (to_theta,) = torch.autograd.grad(-(s.detach() * t), t)
        expected = (-to_theta.item(), -to_psi.item())
        assert formula(theta, psi, weight) == pytest.approx(expected)


@pytest.mark.equation(
    "eq-instance-noise",
    formula=lambda x, theta, s: (theta**2 - 2 * theta * x) / (2 * s),
    wrong={
        "half dropped": lambda x, theta, s: (theta**2 - 2 * theta * x) / s,
        "deviation for variance": lambda x, theta, s: (theta**2 - 2 * theta * x) / (2 * s**0.5),
        "points exchanged": lambda x, theta, s: -(theta**2 - 2 * theta * x) / (2 * s),
    },
)
def test_instance_noise(formula):
    """The log ratio of the densities of two points, blurred with noise of variance s."""
    x = torch.linspace(-2, 3, 9, **DOUBLE)
    for theta, s in ((1.3, 0.36), (-0.7, 2.89)):
        ratio = normal(0.0, s**0.5).log_prob(x) - normal(theta, s**0.5).log_prob(x)
        torch.testing.assert_close(formula(x, theta, s), ratio)


def noise_effect(p, q, d, slope, bend, *, half=0.5, second=1.0):
    on_slopes = (p + q) * d * (1 - d) * slope**2
    return half * torch.trapezoid(on_slopes + second * (q * d - p * (1 - d)) * bend, POINTS)


def roth(p, q, d, slope):
    return torch.trapezoid((p * (1 - d) ** 2 + q * d**2) * slope**2, POINTS) / 2


@pytest.mark.equation(
    "eq-noise-expansion",
    formula=noise_effect,
    wrong={
        "half dropped": lambda *a: noise_effect(*a, half=1.0),
        "Roth's penalty away from the optimum": lambda p, q, d, slope, bend: roth(p, q, d, slope),
        "no second derivatives": lambda *a: noise_effect(*a, second=0.0),
        "sign of the second derivatives": lambda *a: noise_effect(*a, second=-1.0),
    },
)
def test_noise_expansion(formula):
    """Noise of variance s turns N(μ, σ²) into N(μ, σ² + s): central differences in s of the loss."""
    means, variances = (-0.5, 1.0), (0.7, 1.9)

    def densities(s):
        return [
            normal(m, (v + s) ** 0.5).log_prob(POINTS).exp()
            for m, v in zip(means, variances, strict=True)
        ]

    def loss(s, a):
        p, q = densities(s)
        return torch.trapezoid(p * softplus(-a) + q * softplus(a), POINTS)

    p, q = densities(0.0)
    some = (
        0.4 + 0.9 * POINTS + 0.35 * POINTS**2,
        0.9 + 0.7 * POINTS,
        torch.full_like(POINTS, 0.7),
    )
    best = (
        normal(means[0], variances[0] ** 0.5).log_prob(POINTS)
        - normal(means[1], variances[1] ** 0.5).log_prob(POINTS),
        -(POINTS - means[0]) / variances[0] + (POINTS - means[1]) / variances[1],
        torch.full_like(POINTS, 1 / variances[1] - 1 / variances[0]),
    )
    eps = 1e-4
    for a, slope, bend in (some, best):
        difference = (loss(eps, a) - loss(-eps, a)) / (2 * eps)
        claimed = formula(p, q, torch.sigmoid(a), slope, bend)
        torch.testing.assert_close(claimed, difference, atol=1e-6, rtol=1e-6)
    # At the optimal discriminator, and not at the other one, it is Roth's penalty with γ = 1.
    d = torch.sigmoid(best[0])
    torch.testing.assert_close(formula(p, q, d, *best[1:]), roth(p, q, d, best[1]))
    d = torch.sigmoid(some[0])
    assert (formula(p, q, d, *some[1:]) - roth(p, q, d, some[1])).abs() > 0.01


@pytest.mark.equation(
    "eq-relativistic",
    formula=lambda real, fake: (
        relativistic_loss(real, fake),
        relativistic_generator_loss(fake, real),
    ),
    wrong={
        "roles exchanged": lambda real, fake: (
            relativistic_loss(fake, real),
            relativistic_loss(real, fake),
        ),
        "each against the mean": lambda real, fake: (
            softplus(fake.mean() - real).mean(),
            softplus(real.mean() - fake).mean(),
        ),
        "zero-sum": lambda real, fake: (
            relativistic_loss(real, fake),
            -relativistic_loss(real, fake),
        ),
    },
    implemented_by="course_lib.gan.relativistic_loss",
)
def test_relativistic(formula):
    """Pair by pair, by the logarithm of a probability."""
    real, fake = torch.randn(6, **DOUBLE), 0.3 + torch.randn(6, **DOUBLE)
    right = [1 / (1 + math.exp(f - r)) for r, f in zip(real.tolist(), fake.tolist(), strict=True)]
    on_d, on_g = formula(real, fake)
    assert on_d.item() == pytest.approx(-np.mean(np.log(right)))
    assert on_g.item() == pytest.approx(-np.mean(np.log(1 - np.array(right))))


def pairs(p, q):
    return torch.outer(p, q).flatten(), torch.outer(q, p).flatten()


@pytest.mark.equation(
    "eq-relativistic-optimal",
    formula=lambda p, q: math.log(2) - js_discrete(*pairs(p, q)),
    wrong={
        "factor 2": lambda p, q: math.log(2) - 2 * js_discrete(*pairs(p, q)),
        "of single examples": lambda p, q: math.log(2) - js_discrete(p, q),
        "log 4": lambda p, q: math.log(4) - js_discrete(*pairs(p, q)),
        "sign flipped": lambda p, q: math.log(2) + js_discrete(*pairs(p, q)),
    },
)
def test_relativistic_optimal(formula):
    """The least loss by minimization over the logits of six values; at log p/q up to a constant."""
    p, q = torch.rand(2, 6, **DOUBLE) + 0.1
    p, q = p / p.sum(), q / q.sum()

    def loss(a):
        return (torch.outer(p, q) * softplus(a[None] - a[:, None])).sum()

    a = torch.zeros(6, **DOUBLE, requires_grad=True)
    optimizer = torch.optim.LBFGS([a], max_iter=200, line_search_fn="strong_wolfe")

    def closure():
        value = loss(a)
        (a.grad,) = torch.autograd.grad(value, a)
        return value

    optimizer.step(closure)
    torch.testing.assert_close(formula(p, q), loss(a).detach(), atol=1e-8, rtol=0)
    best = (p / q).log()
    torch.testing.assert_close((a - a.mean()).detach(), best - best.mean(), atol=1e-3, rtol=0)


def quadratic(x):
    return x[:, 0] ** 2 + x[:, 1] ** 2 / 2 + x[:, 0]


@pytest.mark.equation(
    "eq-r3gan",
    formula=lambda real, fake, gamma: (
        relativistic_loss(quadratic(real), quadratic(fake))
        + r1_penalty(quadratic, real, gamma=gamma)
        + r1_penalty(quadratic, fake, gamma=gamma)
    ),
    wrong={
        "R1 only": lambda real, fake, gamma: (
            relativistic_loss(quadratic(real), quadratic(fake))
            + r1_penalty(quadratic, real, gamma=gamma)
        ),
        "halves dropped": lambda real, fake, gamma: (
            relativistic_loss(quadratic(real), quadratic(fake))
            + r1_penalty(quadratic, real, gamma=2 * gamma)
            + r1_penalty(quadratic, fake, gamma=2 * gamma)
        ),
        "penalty between the points": lambda real, fake, gamma: (
            relativistic_loss(quadratic(real), quadratic(fake))
            + 2 * r1_penalty(quadratic, (real + fake) / 2, gamma=gamma)
        ),
        "roles exchanged": lambda real, fake, gamma: (
            relativistic_loss(quadratic(fake), quadratic(real))
            + r1_penalty(quadratic, real, gamma=gamma)
            + r1_penalty(quadratic, fake, gamma=gamma)
        ),
    },
)
def test_r3gan(formula):
    """Central differences for the slopes, logarithms for the pairs."""
    real, fake = torch.randn(5, 2, **DOUBLE), 0.7 + torch.randn(5, 2, **DOUBLE)
    eps, squares = 1e-5, 0.0
    for x in (real, fake):
        for step in torch.eye(2, **DOUBLE) * eps:
            slope = (quadratic(x + step) - quadratic(x - step)) / (2 * eps)
            squares += slope.square().mean()
    on_pairs = -torch.sigmoid(quadratic(real) - quadratic(fake)).log().mean()
    torch.testing.assert_close(formula(real, fake, 0.6), on_pairs + 0.3 * squares)


def test_the_relativistic_dirac_gan_is_the_dirac_gan():
    """Both players' gradients of the minimax loss of pairs, against those of the usual game."""
    theta, psi = (torch.tensor(v, **DOUBLE, requires_grad=True) for v in (0.8, -1.3))
    zero = torch.zeros(1, **DOUBLE)
    pair = relativistic_loss(psi * zero, (psi * theta).unsqueeze(0))
    usual = softplus(-psi * zero).mean() + softplus(psi * theta)
    for variable in (theta, psi):
        (a,) = torch.autograd.grad(pair, variable, retain_graph=True)
        (b,) = torch.autograd.grad(usual, variable, retain_graph=True)
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("width", [0.6, 1.0, 1.5])
def test_the_width_of_the_data_is_friction(width):
    """The Jacobian of the game with two numbers is that of the Dirac-GAN with γ = s²/2."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(40)
    x = width * torch.as_tensor(nodes, **DOUBLE)
    w = torch.as_tensor(weights / math.sqrt(2 * math.pi), **DOUBLE)

    def value(state):
        theta, psi = state
        return (w * (-softplus(-psi * x) - softplus(psi * (theta + x)))).sum()

    second = torch.autograd.functional.hessian(value, torch.zeros(2, **DOUBLE))
    expected = torch.tensor(dirac.minimax(gamma=width**2 / 2).jacobian, **DOUBLE)
    torch.testing.assert_close(torch.stack([-second[0], second[1]]), expected)


def test_pairs_of_gaussians_are_examples_at_a_larger_distance():
    for m in (0.6, 1.7):
        line = torch.linspace(-9, 11, 801, **DOUBLE)
        x, y = torch.meshgrid(line, line, indexing="ij")
        p, q = normal(0.0, 1.0), normal(m, 1.0)
        a, b = p.log_prob(x) + q.log_prob(y), q.log_prob(x) + p.log_prob(y)
        middle = torch.logaddexp(a, b) - math.log(2)
        area = (line[1] - line[0]) ** 2
        pairs_jsd = (a.exp() * (a - middle) + b.exp() * (b - middle)).sum() * area / 2
        far = normal(math.sqrt(2) * m, 1.0)
        single = jensen_shannon(p.log_prob, far.log_prob, POINTS)
        torch.testing.assert_close(pairs_jsd, single, atol=1e-6, rtol=0)


def test_pearson_s_game_has_the_conjugate_of_the_exercise():
    t = torch.linspace(1e-6, 30, 600_001, **DOUBLE)
    u = torch.tensor([-3.0, -1.2, 0.4, 5.0], **DOUBLE)
    best = (t * u[:, None] - (t - 1) ** 2).amax(1)
    claimed = torch.where(u > -2, u + u**2 / 4, -1.0)
    torch.testing.assert_close(best, claimed, atol=1e-4, rtol=0)
