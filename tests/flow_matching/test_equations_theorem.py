"""The equations of flow matching up to its theorem, each by a route that does not use it."""

import math
from itertools import pairwise

import pytest
import torch

from course_lib.mixtures import GaussianMixture
from course_lib.schedules import Cosine, LinearPath
from course_lib.solvers import exact_divergence, integrate, time_grid
from tests.diffusion.exact import axis, grid, legendre, line, normal, plane

pytestmark = pytest.mark.usefixtures("float64")

CLOSE = {"atol": 1e-8, "rtol": 1e-8}
PATH = LinearPath()


def velocity_of(mixture, path=PATH):
    return lambda z, t: mixture.velocity(z, t, path)


# --- layers and their limit -----------------------------------------------------------------------


def with_jacobian(velocity, x, t):
    """The velocity and its Jacobian, row by row."""
    with torch.enable_grad():
        x = x.detach().requires_grad_()
        v = velocity(x, t)
        rows = [torch.autograd.grad(e.sum(), x, retain_graph=True)[0] for e in v.T]
    return v.detach(), torch.stack(rows, 1)


def sum_of_log_determinants(velocity, x, n):
    """What a flow of n residual blocks adds to the log-density, block by block."""
    total = torch.zeros(len(x))
    for k in range(n):
        v, jacobian = with_jacobian(velocity, x, torch.tensor(k / n))
        total = total + (torch.eye(x.shape[1]) + jacobian / n).det().abs().log()
        x = x + v / n
    return total


def limit(sums):
    """Of a sequence at n, 2n, 4n … with an error in powers of 1/n."""
    factor = 2
    while len(sums) > 1:
        sums = [(factor * b - a) / (factor - 1) for a, b in pairwise(sums)]
        factor *= 2
    return sums[0]


SIZES = (8, 16, 32, 64, 128)


@pytest.mark.equation(
    "eq-residual-limit",
    formula=lambda velocity, x: limit([sum_of_log_determinants(velocity, x, n) for n in SIZES]),
    wrong={
        "sign": lambda velocity, x: (
            -limit([sum_of_log_determinants(velocity, x, n) for n in SIZES])
        ),
        "the last block only": lambda velocity, x: exact_divergence(velocity, x, torch.tensor(1.0))[
            1
        ],
        "Jacobians at the example": lambda velocity, x: sum(
            exact_divergence(velocity, x, torch.tensor((k + 0.5) / 50))[1] / 50 for k in range(50)
        ),
        "steps of length one": lambda velocity, x: sum_of_log_determinants(velocity, x, 1),
    },
)
def test_residual_limit(formula):
    """The densities at both ends are known, so the integral of the divergence is their difference."""
    mixture, x = plane(), torch.tensor([[0.3, 0.8], [-1.1, 0.2], [0.9, -0.5]])
    end = integrate(velocity_of(mixture), x, time_grid(100, 0.0, 1.0), "rk4")
    expected = mixture.log_prob(x) - mixture.log_prob(end, 0.0, 1.0)
    torch.testing.assert_close(formula(velocity_of(mixture), x), expected, atol=3e-4, rtol=0)


# --- the mean velocity ----------------------------------------------------------------------------

# Data that are a list: there is no density at time 0.
POINTS = torch.tensor([-1.3, 0.1, 0.9], dtype=torch.float64)
SHARES = torch.tensor([0.3, 0.5, 0.2], dtype=torch.float64)


def mean_velocity(z, t):
    """E[ε − x | z_t = z] for the list of points, by Bayes' rule."""
    joint = SHARES * normal(z[:, None], (1 - t) * POINTS, torch.as_tensor(t**2))
    noise = (z[:, None] - (1 - t) * POINTS) / t
    return (joint * (noise - POINTS)).sum(1) / joint.sum(1)


def expected_rate(slope, t, velocity):
    """E[φ'(z_t) v(z_t, t)] under the density of z_t."""
    z, step = axis(9.0, 9001)
    density = (SHARES * normal(z[:, None], (1 - t) * POINTS, torch.as_tensor(t**2))).sum(1)
    return (density * slope(z) * velocity(z, t)).sum() * step


@pytest.mark.equation(
    "eq-continuity",
    formula=lambda slope, t: expected_rate(slope, t, mean_velocity),
    wrong={
        "sign": lambda slope, t: -expected_rate(slope, t, mean_velocity),
        "velocity of the mean pair": lambda slope, t: expected_rate(
            slope, t, lambda z, t: torch.full_like(z, -(SHARES @ POINTS).item())
        ),
        "velocity towards the nearest point": lambda slope, t: expected_rate(
            slope,
            t,
            lambda z, t: (z - POINTS[(z[:, None] - (1 - t) * POINTS).abs().argmin(1)]) / t,
        ),
        "velocity at another time": lambda slope, t: expected_rate(
            slope, t, lambda z, t: mean_velocity(z, t + 0.1)
        ),
    },
)
@pytest.mark.parametrize("t", [0.35, 0.8])
def test_continuity(formula, t):
    """The left side differentiates E[φ(z_t)] as an integral over pairs, without any velocity."""
    noise, step = axis(9.0, 9001)

    def mean(f, t):
        z = (1 - t) * POINTS[:, None] + t * noise
        return (SHARES[:, None] * normal(noise, 0.0, torch.tensor(1.0)) * f(z)).sum() * step

    for f in (lambda z: (-((z - 0.4) ** 2)).exp(), lambda z: (2 * z).sin()):
        time = torch.tensor(t, requires_grad=True)
        (expected,) = torch.autograd.grad(mean(f, time), time)
        slope = torch.func.vmap(torch.func.grad(f))
        torch.testing.assert_close(formula(slope, t), expected, **CLOSE)


def by_pairs(z, t, path):
    """∫ q(x) N(z; αx, σ²I) u(z, t | x) dx / p_t(z), on a grid of clean points."""
    x, area = grid(7.0, 401)
    alpha, sigma = path.alpha(t), path.sigma(t)
    joint = plane().log_prob(x).exp() * area
    joint = joint * torch.exp(-0.5 * ((z[:, None] - alpha * x) / sigma).square().sum(-1))
    each = path.alpha_rate(t) * x + path.sigma_rate(t) / sigma * (z[:, None] - alpha * x)
    return (joint.unsqueeze(-1) * each).sum(1) / joint.sum(1, keepdim=True)


def with_end_point(z, t, path):
    """The conditional velocity towards the mean of the data."""
    mean = plane().mean.expand_as(z)
    return path.alpha_rate(t) * mean + path.sigma_rate(t) / path.sigma(t) * (
        z - path.alpha(t) * mean
    )


@pytest.mark.equation(
    "eq-marginal-velocity",
    formula=by_pairs,
    wrong={
        "mean example in every pair": with_end_point,
        # It learns E[α̇x + σ̇ε | x] = α̇x, and is given z in the place of x.
        "network fed the end point": lambda z, t, path: path.alpha_rate(t) * z,
        "sign": lambda z, t, path: -by_pairs(z, t, path),
        "rate of the noise dropped": lambda z, t, path: (
            by_pairs(z, t, path)
            - path.sigma_rate(t) / path.sigma(t) * (z - path.alpha(t) * plane().mean)
        ),
        "the example for the velocity": lambda z, t, path: plane().posterior_mean(
            z, path.alpha(t), path.sigma(t)
        ),
    },
    implemented_by="course_lib.mixtures.GaussianMixture.velocity",
)
@pytest.mark.parametrize("path", [PATH, Cosine(6.0, -6.0)], ids=["linear", "cosine"])
def test_marginal_velocity(formula, path):
    """The continuity equation, ∂p + div(p v) = 0, with the known densities of the mixture."""
    mixture, t = plane(), torch.tensor(0.45)
    z = torch.tensor([[0.3, 0.8], [-1.1, 0.2], [0.9, -0.5]])

    def density(z, t):
        return mixture.log_prob(z, path.alpha(t), path.sigma(t)).exp()

    change = torch.func.jacfwd(lambda t: density(z, t))(t)
    flux = exact_divergence(lambda z, t: density(z, t).unsqueeze(1) * formula(z, t, path), z, t)[1]
    torch.testing.assert_close(change + flux, torch.zeros(3), atol=1e-8, rtol=0)
    # Among the fields that satisfy it, the mean velocity: E[ε − x | z] from the posterior mean.
    mean = mixture.posterior_mean(z, path.alpha(t), path.sigma(t))
    noise = (z - path.alpha(t) * mean) / path.sigma(t)
    expected = path.alpha_rate(t) * mean + path.sigma_rate(t) * noise
    torch.testing.assert_close(formula(z, t, path), expected, **CLOSE)


def posterior_covariance(z, alpha, sigma):
    """Cov(x | z_t = z) by a sum over a grid of clean points, shape ``(N, 2, 2)``."""
    x, _ = grid(7.0, 401)
    joint = plane().log_prob(x) - 0.5 * ((z[:, None] - alpha * x) / sigma).square().sum(-1)
    weight = joint.softmax(1)
    mean = weight @ x
    apart = x - mean[:, None]
    return torch.einsum("np,npd,npe->nde", weight, apart, apart)


def jacobian_by_covariance(z, t):
    cov = posterior_covariance(z, 1 - t, t)
    return (torch.eye(2) - (1 - t) / t**2 * cov) / t


@pytest.mark.equation(
    "eq-velocity-jacobian",
    formula=jacobian_by_covariance,
    wrong={
        "sign of the covariance": lambda z, t: 2 * torch.eye(2) / t - jacobian_by_covariance(z, t),
        "t for t²": lambda z, t: (
            (torch.eye(2) - (1 - t) / t * posterior_covariance(z, 1 - t, t)) / t
        ),
        "1 − t dropped": lambda z, t: (torch.eye(2) - posterior_covariance(z, 1 - t, t) / t**2) / t,
        "covariance of the data": lambda z, t: (
            (torch.eye(2) - (1 - t) / t**2 * plane().covariance) / t
        ).expand(len(z), 2, 2),
    },
)
@pytest.mark.parametrize("t", [0.4, 0.85])
def test_velocity_jacobian(formula, t):
    t = torch.tensor(t)
    z = torch.tensor([[0.3, 0.8], [-1.1, 0.2], [0.9, -0.5]])
    field = torch.func.jacrev(lambda z: plane().velocity(z[None], t, PATH)[0])
    torch.testing.assert_close(formula(z, t), torch.func.vmap(field)(z), **CLOSE)


# --- the loss -------------------------------------------------------------------------------------


def conditional_loss(field, t):
    """E‖field(z_t) − (ε − x)‖² for the mixture of the line: a double integral over pairs."""
    x, dx = axis(7.0, 561)
    noise, de = axis(8.0, 641)
    weight = line().log_prob(x[:, None]).exp()[:, None] * dx * normal(noise, 0.0, torch.tensor(1.0))
    z = (1 - t) * x[:, None] + t * noise
    return (weight * de * (field(z) - (noise - x[:, None])) ** 2).sum()


def marginal_loss(field, t):
    """E‖field(z_t) − v(z_t, t)‖²: an integral over z_t."""
    z, step = axis(9.0, 3001)
    density = line().log_prob(z[:, None], 1 - t, t).exp()
    truth = line().velocity(z[:, None], torch.tensor(t), PATH)[:, 0]
    return (density * (field(z) - truth) ** 2).sum() * step


def conditional_variance(t):
    """E‖v(z_t, t) − (ε − x)‖²."""
    return conditional_loss(
        lambda z: line().velocity(z.reshape(-1, 1), torch.tensor(t), PATH)[:, 0].view_as(z), t
    )


@pytest.mark.equation(
    "eq-cfm-gradient",
    formula=lambda field, t: marginal_loss(field, t) + conditional_variance(t),
    wrong={
        "the loss should reach zero": lambda field, t: marginal_loss(field, t),
        "floor of the variance of x": lambda field, t: (
            marginal_loss(field, t) + line().covariance.squeeze()
        ),
        "floor subtracted": lambda field, t: marginal_loss(field, t) - conditional_variance(t),
        "half of the marginal loss": lambda field, t: (
            0.5 * marginal_loss(field, t) + conditional_variance(t)
        ),
    },
    implemented_by="course_lib.flow_matching.FlowMatching",
)
@pytest.mark.parametrize("t", [0.3, 0.75])
def test_cfm_gradient(formula, t):
    weights = torch.tensor([0.4, -0.7, 0.3], requires_grad=True)

    def field(z):
        return weights[0] + weights[1] * z + weights[2] * z.sin()

    left, right = conditional_loss(field, t), formula(field, t)
    torch.testing.assert_close(right, left, **CLOSE)
    gradients = [torch.autograd.grad(loss, weights, retain_graph=True)[0] for loss in (left, right)]
    torch.testing.assert_close(*gradients, **CLOSE)


def root_of(matrix):
    values, axes = torch.linalg.eigh(matrix)
    return axes @ values.sqrt().diag() @ axes.mT


@pytest.mark.equation(
    "eq-cfm-floor",
    formula=lambda cov: math.pi / 2 * root_of(cov).trace(),
    wrong={
        "the loss should reach zero": lambda cov: torch.tensor(0.0),
        "covariance for its root": lambda cov: math.pi / 2 * cov.trace(),
        "half of it": lambda cov: math.pi / 4 * root_of(cov).trace(),
        "sum of the two variances": lambda cov: cov.trace() + len(cov),
    },
    implemented_by="course_lib.flow_matching.gaussian_loss_floor",
)
def test_cfm_floor(formula):
    """The residual of the best affine prediction of ε − x, by the normal equations at each time."""
    mixture = plane()
    cov = mixture.covariance
    eye = torch.eye(2)
    total = torch.tensor(0.0)
    for t, weight in zip(*legendre(0.0, 1.0, 80), strict=True):
        # Of z = (1 − t) x + tε and the target y = ε − x: any data with this covariance.
        zz = (1 - t) ** 2 * cov + t**2 * eye
        zy = t * eye - (1 - t) * cov
        yy = cov + eye
        total = total + weight * (yy - zy.mT @ torch.linalg.solve(zz, zy)).trace()
    torch.testing.assert_close(formula(cov), total, **CLOSE)
    # For Gaussian data the residual is the conditional variance itself: one probe by quadrature.
    c, t = 0.7, 0.35
    x, dx = axis(9.0, 1001)
    noise, de = axis(9.0, 1001)
    weight = normal(x[:, None], 0.0, torch.tensor(c)) * normal(noise, 0.0, torch.tensor(1.0))
    z = (1 - t) * x[:, None] + t * noise
    one = GaussianMixture(torch.ones(1), torch.zeros(1, 1), torch.full((1, 1, 1), c))
    field = one.velocity(z.reshape(-1, 1), torch.tensor(t), PATH).view_as(z)
    spread = (weight * (noise - x[:, None] - field) ** 2).sum() * dx * de
    # d/dt of arctan: the share of the floor that belongs to this time.
    share = c / ((1 - t) ** 2 * c + t**2)
    torch.testing.assert_close(spread, torch.tensor(share), **CLOSE)
    whole = sum(w * c / ((1 - s) ** 2 * c + s**2) for s, w in zip(*legendre(0, 1, 80), strict=True))
    torch.testing.assert_close(formula(torch.full((1, 1), c)), whole, **CLOSE)


def wasserstein_bound(lipschitz, loss):
    return math.expm1(2 * lipschitz) / (2 * lipschitz) * loss


@pytest.mark.equation(
    "eq-loss-wasserstein",
    formula=wasserstein_bound,
    wrong={
        "no amplification": lambda lipschitz, loss: loss,
        "L for 2L in the exponent": lambda lipschitz, loss: (
            math.expm1(lipschitz) / (2 * lipschitz) * loss
        ),
        "Grönwall without the square": lambda lipschitz, loss: math.exp(lipschitz) * loss / 2,
        "root of the loss forgotten": lambda lipschitz, loss: wasserstein_bound(lipschitz, loss**2),
    },
)
def test_loss_wasserstein(formula):
    """A source of one point that stays where it is, and the worst error of the field: equality."""
    lipschitz, size = 1.3, 0.4
    times, weights = legendre(0.0, 1.0, 60)
    # v = 0 keeps the source; the model's field is −L z + e(t), with the worst e.
    worst = size * (lipschitz * times).exp()
    loss = (weights * worst**2).sum()
    end = integrate(
        lambda z, t: -lipschitz * z + size * (lipschitz * t).exp(),
        torch.zeros(1, 1),
        time_grid(400),
        "rk4",
    )
    moved = end.square().item()
    bound = formula(lipschitz, loss).item()
    assert moved <= bound * (1 + 1e-9)
    # It cannot be improved: here it is an equality.
    assert abs(moved - bound) <= 1e-8
