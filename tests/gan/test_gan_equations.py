"""The chapter's displayed equations, each against a route that does not use it."""

import itertools
import math

import numpy as np
import pytest
import torch
from scipy.linalg import sqrtm
from scipy.optimize import linprog
from torch.distributions import Normal
from torch.nn.functional import softplus

from course_lib.divergences import js_discrete, wasserstein_1d
from course_lib.evaluation import (
    PrecisionRecall,
    frechet_gaussian,
    kernel_distance,
    precision_recall,
)
from course_lib.gan import (
    critic_loss,
    discriminator_loss,
    game_value,
    gradient_penalty,
    jensen_shannon,
    optimal_discriminator,
    r1_penalty,
    roth_penalty,
)

DOUBLE = {"dtype": torch.float64}
P = Normal(torch.tensor(-0.5, **DOUBLE), torch.tensor(0.8, **DOUBLE))
Q = Normal(torch.tensor(1.0, **DOUBLE), torch.tensor(2.0, **DOUBLE))
POINTS = torch.linspace(-20, 20, 20_001, **DOUBLE)


def a_logit(x):
    return 0.7 - 1.1 * x + 0.2 * x**2


@pytest.mark.equation(
    "eq-gan-value",
    formula=lambda real, fake: -discriminator_loss(real, fake),
    wrong={
        "a factor one half": lambda real, fake: -discriminator_loss(real, fake) / 2,
        "distributions swapped": lambda real, fake: -discriminator_loss(fake, real),
        "sign flipped": discriminator_loss,
        "log D at generated examples": lambda real, fake: (
            -softplus(-real).mean() - softplus(-fake).mean()
        ),
    },
    implemented_by="course_lib.gan.discriminator_loss",
)
def test_value(formula):
    """Draws of x and of z, against the integral over x with the density of G(z) = 1 + 2z."""
    n = 200_000
    real, fake = P.sample((n,)), 1 + 2 * torch.randn(n, **DOUBLE)
    integral = game_value(a_logit, P.log_prob, Q.log_prob, POINTS)
    # The integrand's standard deviation is below 2: this is more than five standard errors.
    assert (formula(a_logit(real), a_logit(fake)) - integral).abs() < 5 * 2 * math.sqrt(2 / n)


def best_pointwise(objective):
    """Maximize over a fine grid of y in (0, 1)."""
    y = torch.linspace(0, 1, 100_001, **DOUBLE)[1:-1]
    return y[objective(y).argmax()]


@pytest.mark.equation(
    "eq-optimal-discriminator",
    formula=optimal_discriminator,
    wrong={
        "distributions swapped": lambda p, q: optimal_discriminator(q, p),
        "ratio of densities": lambda p, q: (p - q).exp(),
        "one half of it": lambda p, q: optimal_discriminator(p, q) / 2,
    },
    implemented_by="course_lib.gan.optimal_discriminator",
)
def test_optimal_discriminator(formula):
    for a, b in ((0.3, 1.7), (2.0, 0.4), (0.05, 0.06)):
        best = best_pointwise(lambda y, a=a, b=b: a * y.log() + b * (1 - y).log())
        value = formula(torch.tensor(a, **DOUBLE).log(), torch.tensor(b, **DOUBLE).log())
        torch.testing.assert_close(value, best, atol=2e-5, rtol=0)


@pytest.mark.equation(
    "eq-gan-jsd",
    formula=lambda jsd: -math.log(4) + 2 * jsd,
    wrong={
        "factor 2 dropped": lambda jsd: -math.log(4) + jsd,
        "-2 for -log 4": lambda jsd: -2 + 2 * jsd,
        "-log 2 for -log 4": lambda jsd: -math.log(2) + 2 * jsd,
    },
)
def test_value_at_the_optimum(formula):
    """The value at D*, and the divergence by its own definition, are integrated separately."""

    def logit(x):
        return torch.logit(optimal_discriminator(P.log_prob(x), Q.log_prob(x)), eps=1e-300)

    points = torch.linspace(-6, 9, 20_001, **DOUBLE)  # where D* is not 0 or 1 by rounding
    value = game_value(logit, P.log_prob, Q.log_prob, points)
    jsd = jensen_shannon(P.log_prob, Q.log_prob, POINTS)
    torch.testing.assert_close(formula(jsd), value, atol=1e-4, rtol=0)


@pytest.mark.equation(
    "eq-gan-envelope",
    formula=lambda r, d: (r * (1 - d).log()).sum(),
    wrong={
        "log D": lambda r, d: (r * d.log()).sum(),
        "sign flipped": lambda r, d: -(r * (1 - d).log()).sum(),
        "factor 2": lambda r, d: 2 * (r * (1 - d).log()).sum(),
    },
)
def test_envelope(formula):
    """Finite distributions: C along r by central differences, D* found anew each time."""
    p, q = torch.rand(2, 6, **DOUBLE) + 0.1
    p, q = p / p.sum(), q / q.sum()
    r = torch.randn(6, **DOUBLE)
    r = 0.01 * (r - r.mean())

    def cost(q):
        best = p / (p + q)
        return (p * best.log() + q * (1 - best).log()).sum()

    eps = 1e-4
    difference = (cost(q + eps * r) - cost(q - eps * r)) / (2 * eps)
    torch.testing.assert_close(formula(r, p / (p + q)), difference)


@pytest.mark.equation(
    "eq-nonsaturating-gradient",
    formula=lambda d: (-d, -(1 - d)),
    wrong={
        "swapped": lambda d: (-(1 - d), -d),
        "sign flipped": lambda d: (d, 1 - d),
        "by D instead of by the logit": lambda d: (-1 / (1 - d), -1 / d),
    },
)
def test_nonsaturating_gradient(formula):
    logit = torch.linspace(-9, 5, 8, **DOUBLE, requires_grad=True)
    d = torch.sigmoid(logit)
    (saturating,) = torch.autograd.grad((1 - d).log().sum(), logit, retain_graph=True)
    (other,) = torch.autograd.grad(-d.log().sum(), logit)
    for claimed, exact in zip(formula(d.detach()), (saturating, other), strict=True):
        torch.testing.assert_close(claimed, exact)


@pytest.mark.equation(
    "eq-nonsaturating-divergence",
    formula=lambda r, d: -(r * d.log()).sum(),
    wrong={
        "of the minimax loss": lambda r, d: (r * (1 - d).log()).sum(),
        "sign flipped": lambda r, d: (r * d.log()).sum(),
        "half of it": lambda r, d: -(r * d.log()).sum() / 2,
        "of KL alone": lambda r, d: (r * ((1 - d) / d).log()).sum(),
    },
)
def test_divergence_of_the_non_saturating_loss(formula):
    """Finite distributions: both divergences as defined, their derivative by central differences."""
    p, q = torch.rand(2, 6, **DOUBLE) + 0.1
    p, q = p / p.sum(), q / q.sum()
    r = torch.randn(6, **DOUBLE)
    r = 0.01 * (r - r.mean())

    def divergence(q):
        return (q * (q / p).log()).sum() - 2 * js_discrete(p, q)

    eps = 1e-4
    difference = (divergence(q + eps * r) - divergence(q - eps * r)) / (2 * eps)
    torch.testing.assert_close(formula(r, p / (p + q)), difference)


@pytest.mark.equation(
    "eq-label-smoothing",
    formula=lambda p, q, alpha: alpha * p / (p + q),
    wrong={
        "both labels smoothed": lambda p, q, alpha: (alpha * p + (1 - alpha) * q) / (p + q),
        "alpha in the denominator too": lambda p, q, alpha: alpha * p / (alpha * p + q),
        "no smoothing": lambda p, q, alpha: p / (p + q),
    },
)
def test_label_smoothing(formula):
    """The pointwise optimum of the library's own loss, found by search."""
    for p, q, alpha in ((0.3, 1.7, 0.9), (2.0, 0.4, 0.8)):

        def minus_loss(y, p=p, q=q, alpha=alpha):
            a = torch.logit(y).unsqueeze(1)
            nothing = torch.full((1,), -1e3, **DOUBLE)
            real = torch.stack([discriminator_loss(v, nothing, real_label=alpha) for v in a])
            return -(p * real + q * softplus(a).squeeze(1))

        y = torch.linspace(0.01, 0.99, 981, **DOUBLE)
        best = y[minus_loss(y).argmax()].item()
        assert formula(p, q, alpha) == pytest.approx(best, abs=6e-4)


@pytest.mark.equation(
    "eq-jsd-disjoint",
    formula=lambda theta: 0.0 if theta == 0 else math.log(2),
    wrong={
        "log 4": lambda theta: 0.0 if theta == 0 else math.log(4),
        "the distance": abs,
        "log 2 everywhere": lambda theta: math.log(2),
    },
)
def test_jsd_of_points(formula):
    for theta in (-2, 0, 1, 3):
        p, q = torch.zeros(2, 9, **DOUBLE)
        p[4], q[4 + theta] = 1, 1
        assert js_discrete(p, q).item() == pytest.approx(formula(theta), abs=1e-12)


def cheapest_coupling(p, q, cost):
    """The linear programme of couplings: marginals p and q, non-negative, least cost."""
    n, m = cost.shape
    rows = np.kron(np.eye(n), np.ones(m))
    columns = np.kron(np.ones(n), np.eye(m))
    result = linprog(
        cost.ravel(), A_eq=np.vstack([rows, columns]), b_eq=np.concatenate([p, q]), method="highs"
    )
    return result.fun


def best_critic(p, q, cost, bound=1.0, sense=-1):
    """The dual programme: one number per point, Lipschitz in every pair."""
    n = len(p)
    constraints = []
    for i, j in itertools.permutations(range(n), 2):
        row = np.zeros(n)
        row[i], row[j] = 1, -1
        constraints.append((row, bound * cost[i, j]))
    result = linprog(
        sense * (p - q),
        A_ub=np.array([row for row, _ in constraints]),
        b_ub=np.array([value for _, value in constraints]),
        bounds=[(0, 0)] + [(None, None)] * (n - 1),
        method="highs",
    )
    return sense * result.fun


def distances(x, y):
    return np.linalg.norm(x[:, None] - y[None], axis=-1)


RANDOM = np.random.default_rng(0)
X, Y = RANDOM.normal(size=(5, 2)), RANDOM.normal(size=(5, 2)) + np.array([2, 0.5])
FIFTH = np.full(5, 0.2)


@pytest.mark.equation(
    "eq-w1-primal",
    formula=lambda: cheapest_coupling(FIFTH, FIFTH, distances(X, Y)),
    wrong={
        "squared cost": lambda: cheapest_coupling(FIFTH, FIFTH, distances(X, Y) ** 2),
        "supremum": lambda: -cheapest_coupling(FIFTH, FIFTH, -distances(X, Y)),
        "independent coupling": lambda: distances(X, Y).mean(),
    },
)
def test_w1_primal(formula):
    """Five points each, of equal mass: the cheapest of all 120 assignments."""
    cost = distances(X, Y)
    cheapest = min(cost[range(5), order].mean() for order in itertools.permutations(range(5)))
    assert formula() == pytest.approx(cheapest)


@pytest.mark.equation(
    "eq-w1-dual",
    formula=best_critic,
    wrong={
        "Lipschitz constant 2": lambda p, q, cost: best_critic(p, q, cost, bound=2.0),
        "half": lambda p, q, cost: best_critic(p, q, cost) / 2,
        "infimum": lambda p, q, cost: best_critic(p, q, cost, sense=1),
    },
)
def test_w1_dual(formula):
    points = np.vstack([X, Y])
    cost = distances(points, points)
    p, q = RANDOM.dirichlet(np.ones(10), 2)
    assert formula(p, q, cost) == pytest.approx(cheapest_coupling(p, q, cost))


@pytest.mark.equation(
    "eq-w1-quantile",
    formula=wasserstein_1d,
    wrong={
        "difference of means": lambda x, y: (x.mean() - y.mean()).abs(),
        "half": lambda x, y: wasserstein_1d(x, y) / 2,
        "pairs in the order given": lambda x, y: (
            (x.repeat_interleave(3) - y.repeat(2)).abs().mean()
        ),
    },
    implemented_by="course_lib.divergences.wasserstein_1d",
)
def test_w1_quantile(formula):
    x, y = torch.randn(4, **DOUBLE), 0.7 * torch.randn(6, **DOUBLE).exp()
    cost = distances(x.numpy()[:, None], y.numpy()[:, None])
    expected = cheapest_coupling(np.full(4, 1 / 4), np.full(6, 1 / 6), cost)
    assert formula(x, y).item() == pytest.approx(expected)


def quadratic(x):
    """A critic whose gradient (2x₁, x₂) is known, and differs from place to place."""
    return x[:, 0] ** 2 + x[:, 1] ** 2 / 2


def quadratic_gradient(x):
    return x * torch.tensor([2.0, 1.0], **DOUBLE)


def wgan_gp_loss(critic, real, fake):
    penalty = gradient_penalty(critic, real, fake, weight=3.0)
    return critic_loss(critic(real), critic(fake)) + penalty


def wrong_wgan_gp(norm_power=2, at=None, batch_norm=False, sign=1, weights_per_pair=True):
    def loss(critic, real, fake):
        u = torch.rand(len(real) if weights_per_pair else 1, 1, **DOUBLE)
        points = u * real + (1 - u) * fake if at is None else (real if at == "real" else fake)
        gradient = quadratic_gradient(points)
        norm = gradient.norm(dim=0) if batch_norm else gradient.norm(dim=1)
        penalty = 3 * ((norm - 1) ** norm_power).mean()
        return sign * critic_loss(critic(real), critic(fake)) + penalty

    return loss


@pytest.mark.equation(
    "eq-wgan-gp",
    formula=wgan_gp_loss,
    wrong={
        "square dropped": wrong_wgan_gp(norm_power=1),
        "penalty at real points": wrong_wgan_gp(at="real"),
        "penalty at generated points": wrong_wgan_gp(at="fake"),
        "norm over the batch": wrong_wgan_gp(batch_norm=True),
        "critic's sign flipped": wrong_wgan_gp(sign=-1),
        "one mixing weight for the batch": wrong_wgan_gp(weights_per_pair=False),
    },
    implemented_by="course_lib.gan.gradient_penalty",
)
def test_wgan_gp(formula):
    """Many copies of three pairs, against the integral over u in [0, 1]."""
    copies = 40_000
    real = torch.tensor([[1.4, 0.1], [2.5, -0.3], [0.8, 0.8]], **DOUBLE)
    fake = torch.tensor([[-1.0, 0.7], [0.2, 1.1], [0.9, -0.4]], **DOUBLE)
    u = torch.linspace(0, 1, 20_001, **DOUBLE)[:, None, None]
    norm = quadratic_gradient(u * real + (1 - u) * fake).norm(dim=2)
    penalty = 3 * torch.trapezoid((norm - 1) ** 2, u.flatten(), dim=0).mean()
    expected = quadratic(fake).mean() - quadratic(real).mean() + penalty
    value = formula(quadratic, real.repeat(copies, 1), fake.repeat(copies, 1))
    assert value.item() == pytest.approx(expected.item(), rel=0.01)


@pytest.mark.equation(
    "eq-two-wells",
    formula=lambda m, weight: (
        ([-1 + m / (2 * weight)] if m < 2 * weight else []) + [1 + m / (2 * weight)]
    ),
    wrong={
        "factor 2 dropped": lambda m, weight: (
            ([-1 + m / weight] if m < weight else []) + [1 + m / weight]
        ),
        "always two": lambda m, weight: [-1 + m / (2 * weight), 1 + m / (2 * weight)],
        "shifted apart": lambda m, weight: (
            ([-1 - m / (2 * weight)] if m < 2 * weight else []) + [1 + m / (2 * weight)]
        ),
    },
)
def test_two_wells(formula):
    """Local minima of the library's loss of linear critics, on a grid of slopes."""
    real, fake = torch.tensor([[2.5], [0.5]], **DOUBLE), torch.tensor([[-1.0], [0.4]], **DOUBLE)
    m = (real.mean() - fake.mean()).item()  # 1.8
    slopes = torch.arange(-3.0, 6.0, 0.005, **DOUBLE)
    for weight in (10.0, 2.0, 0.6):
        values = torch.stack(
            [
                critic_loss(s * real[:, 0], s * fake[:, 0])
                + gradient_penalty(lambda x, s=s: s * x[:, 0], real, fake, weight=weight)
                for s in slopes
            ]
        )
        low = (values[1:-1] < values[:-2]) & (values[1:-1] < values[2:])
        assert slopes[1:-1][low].tolist() == pytest.approx(formula(m, weight), abs=0.006)


@pytest.mark.equation(
    "eq-dirac-field",
    formula=lambda theta, psi: (
        torch.sigmoid(psi * theta) * psi,
        -torch.sigmoid(psi * theta) * theta,
    ),
    wrong={
        "signs swapped": lambda theta, psi: (
            -torch.sigmoid(psi * theta) * psi,
            torch.sigmoid(psi * theta) * theta,
        ),
        "non-saturating": lambda theta, psi: (
            torch.sigmoid(-psi * theta) * psi,
            -torch.sigmoid(psi * theta) * theta,
        ),
        "no sigmoid": lambda theta, psi: (psi, -theta),
    },
)
def test_dirac_field(formula):
    """Minus the derivative of each player's loss, by central differences of V itself."""

    def value(theta, psi):
        return math.log(0.5) + torch.log(1 - torch.sigmoid(psi * theta))

    eps = 1e-6
    for theta, psi in ((0.8, -1.3), (-0.5, 2.0), (1.1, 0.7)):
        t, s = torch.tensor(theta, **DOUBLE), torch.tensor(psi, **DOUBLE)
        down = -(value(t + eps, s) - value(t - eps, s)) / (2 * eps)  # the generator minimizes V
        up = (value(t, s + eps) - value(t, s - eps)) / (2 * eps)  # the discriminator maximizes it
        velocity = formula(t, s)
        torch.testing.assert_close(velocity[0], down, atol=1e-8, rtol=0)
        torch.testing.assert_close(velocity[1], up, atol=1e-8, rtol=0)


@pytest.mark.equation(
    "eq-r1",
    formula=lambda d, real, fake, gamma: r1_penalty(d, real, gamma=gamma),
    wrong={
        "half dropped": lambda d, real, fake, gamma: r1_penalty(d, real, gamma=2 * gamma),
        "at generated points": lambda d, real, fake, gamma: r1_penalty(d, fake, gamma=gamma),
        "norm not squared": lambda d, real, fake, gamma: (
            gamma / 2 * quadratic_gradient(real).norm(dim=1).mean()
        ),
    },
    implemented_by="course_lib.gan.r1_penalty",
)
def test_r1(formula):
    """Gradients by central differences in each coordinate."""
    real, fake = torch.randn(6, 2, **DOUBLE), 2 + torch.randn(6, 2, **DOUBLE)
    eps, total = 1e-5, 0.0
    for step in torch.eye(2, **DOUBLE) * eps:
        total += ((quadratic(real + step) - quadratic(real - step)) / (2 * eps)) ** 2
    expected = 0.7 / 2 * total.mean()
    torch.testing.assert_close(formula(quadratic, real, fake, 0.7), expected)


@pytest.mark.equation(
    "eq-roth",
    formula=lambda real, fake: roth_penalty(quadratic, real, fake, gamma=0.7),
    wrong={
        "distributions swapped": lambda real, fake: roth_penalty(quadratic, fake, real, gamma=0.7),
        "half dropped": lambda real, fake: roth_penalty(quadratic, real, fake, gamma=1.4),
        "no weights": lambda real, fake: (
            r1_penalty(quadratic, real, gamma=0.7) + r1_penalty(quadratic, fake, gamma=0.7)
        ),
    },
    implemented_by="course_lib.gan.roth_penalty",
)
def test_roth(formula):
    """Each weight times slope is the slope of a cross-entropy: (1−D)‖∇a‖ = ‖∇ log D‖."""
    real, fake = torch.randn(6, 2, **DOUBLE), 0.5 + torch.randn(5, 2, **DOUBLE)
    eps, on_real, on_fake = 1e-5, 0.0, 0.0
    for step in torch.eye(2, **DOUBLE) * eps:
        a, b = (torch.sigmoid(quadratic(real + s * step)).log() for s in (1, -1))
        on_real += ((a - b) / (2 * eps)) ** 2
        a, b = ((1 - torch.sigmoid(quadratic(fake + s * step))).log() for s in (1, -1))
        on_fake += ((a - b) / (2 * eps)) ** 2
    torch.testing.assert_close(formula(real, fake), 0.35 * (on_real.mean() + on_fake.mean()))


def claimed_eigenvalues(gamma, slope, h, *, damping=0.5, plus=1.0):
    root = complex(gamma**2 / 4 - slope**2) ** 0.5
    return sorted((plus + h * (-damping * gamma + s * root) for s in (1, -1)), key=_by_parts)


def _by_parts(value):
    return (round(value.real, 9), round(value.imag, 9))


@pytest.mark.equation(
    "eq-dirac-eigenvalues",
    formula=claimed_eigenvalues,
    wrong={
        "γ for γ/2": lambda gamma, slope, h: claimed_eigenvalues(gamma, slope, h, damping=1.0),
        "identity dropped": lambda gamma, slope, h: claimed_eigenvalues(gamma, slope, h, plus=0.0),
        "slopes of the two games swapped": lambda gamma, slope, h: claimed_eigenvalues(
            gamma, 1.5 - slope, h
        ),
        "no friction": lambda gamma, slope, h: claimed_eigenvalues(0.0, slope, h),
    },
    implemented_by="course_lib.gan.dirac.update_eigenvalues",
)
def test_dirac_eigenvalues(formula, float64):
    """The Jacobian of one update made of the library's losses, by automatic differentiation."""
    h, zero = 0.2, torch.zeros(3, 1)

    def logistic(theta, psi):
        loss_d = discriminator_loss(psi * zero[:, 0], psi * theta.detach().expand(3))
        return loss_d, -softplus(psi.detach() * theta)

    def critic(theta, psi):
        loss_d = critic_loss(psi * zero[:, 0], psi * theta.detach().expand(3))
        return loss_d, -psi.detach() * theta

    for game, slope in ((logistic, 0.5), (critic, 1.0)):
        for gamma in (0.0, 0.3, 2.5):

            def update(theta, psi, game=game, gamma=gamma):
                theta, psi = (torch.tensor(v, requires_grad=True) for v in (theta, psi))
                loss_d, loss_g = game(theta, psi)
                loss_d = loss_d + r1_penalty(lambda x: psi * x[:, 0], zero, gamma=gamma)
                (to_theta,) = torch.autograd.grad(loss_g, theta)
                (to_psi,) = torch.autograd.grad(loss_d, psi)
                return torch.stack([theta - h * to_theta, psi - h * to_psi]).detach()

            eps = 1e-5
            jacobian = torch.stack(
                [
                    (update(eps, 0.0) - update(-eps, 0.0)) / (2 * eps),
                    (update(0.0, eps) - update(0.0, -eps)) / (2 * eps),
                ],
                1,
            )
            exact = sorted(torch.linalg.eigvals(jacobian).tolist(), key=_by_parts)
            assert formula(gamma, slope, h) == pytest.approx(exact, abs=1e-7)


def covariance(seed, d=3):
    a = torch.randn(d, d, generator=torch.Generator().manual_seed(seed), **DOUBLE)
    return a @ a.T + 0.2 * torch.eye(d, **DOUBLE)


@pytest.mark.equation(
    "eq-frechet",
    formula=frechet_gaussian,
    wrong={
        "factor 2 dropped": lambda m, s, n, t: (
            frechet_gaussian(m, s, n, t) + torch.as_tensor(sqrtm((s @ t).numpy()).real).trace()
        ),
        "means not squared": lambda m, s, n, t: (m - n).norm() + frechet_gaussian(m, s, m, t),
        "root of each": lambda m, s, n, t: (
            (m - n).square().sum()
            + (s + t - 2 * torch.as_tensor((sqrtm(s.numpy()) @ sqrtm(t.numpy())).real)).trace()
        ),
    },
    implemented_by="course_lib.evaluation.frechet_gaussian",
)
def test_frechet(formula):
    """The cost of the optimal map T(x) = ν + A(x − μ), with A symmetric and AΣA = Τ."""
    mu, nu = torch.randn(2, 3, **DOUBLE)
    cov_p, cov_q = covariance(1), covariance(2)
    root = sqrtm(cov_p.numpy()).real
    inverse = np.linalg.inv(root)
    a = torch.as_tensor(inverse @ sqrtm(root @ cov_q.numpy() @ root).real @ inverse)
    torch.testing.assert_close(a @ cov_p @ a, cov_q)
    excess = torch.eye(3, **DOUBLE) - a
    expected = (mu - nu).square().sum() + (excess @ cov_p @ excess.T).trace()
    torch.testing.assert_close(formula(mu, cov_p, nu, cov_q), expected)


@pytest.mark.equation(
    "eq-kernel-distance",
    formula=kernel_distance,
    wrong={
        "diagonal included": lambda x, y: (
            kernel_distance(x, y) + ((x.square().sum(1) / 3 + 1) ** 3).mean() / len(x)
        ),
        "sign flipped": lambda x, y: -kernel_distance(x, y),
        "kernel without d": lambda x, y: kernel_distance(math.sqrt(3) * x, math.sqrt(3) * y),
    },
    implemented_by="course_lib.evaluation.kernel_distance",
)
def test_kernel_distance(formula):
    """The double sums, pair by pair."""
    x, y = torch.randn(5, 3, **DOUBLE), 1 + torch.randn(4, 3, **DOUBLE)

    def k(a, b):
        return (sum(u * v for u, v in zip(a.tolist(), b.tolist(), strict=True)) / 3 + 1) ** 3

    within_x = sum(k(a, b) for a, b in itertools.permutations(x, 2)) / 20
    within_y = sum(k(a, b) for a, b in itertools.permutations(y, 2)) / 12
    between = sum(k(a, b) for a in x for b in y) / 20
    assert formula(x, y).item() == pytest.approx(within_x + within_y - 2 * between)


def swapped(real, fake, k):
    value = precision_recall(real, fake, k=k)
    return PrecisionRecall(value.recall, value.precision, value.density, value.coverage)


@pytest.mark.equation(
    "eq-precision-recall",
    formula=lambda real, fake, k: precision_recall(real, fake, k=k),
    wrong={
        "precision and recall swapped": swapped,
        "distributions swapped": lambda real, fake, k: precision_recall(fake, real, k=k),
        "one neighbour more": lambda real, fake, k: precision_recall(real, fake, k=k + 1),
    },
    implemented_by="course_lib.evaluation.precision_recall",
)
def test_precision_recall(formula):
    """Loops over points and sorted distances."""
    real, fake, k = torch.randn(12, 2, **DOUBLE), 1.5 * torch.randn(9, 2, **DOUBLE) + 0.8, 2

    def radius(points, i):
        return sorted((points[i] - other).norm().item() for other in points)[k]

    in_real = [[(f - r).norm() <= radius(real, i) for i, r in enumerate(real)] for f in fake]
    in_fake = [[(f - r).norm() <= radius(fake, j) for j, f in enumerate(fake)] for r in real]
    value = formula(real, fake, k)
    assert value.precision == pytest.approx(np.mean([any(row) for row in in_real]))
    assert value.recall == pytest.approx(np.mean([any(row) for row in in_fake]))
    assert value.density == pytest.approx(sum(map(sum, in_real)).item() / (k * 9))
    assert value.coverage == pytest.approx(
        np.mean([any(col) for col in zip(*in_real, strict=True)])
    )
