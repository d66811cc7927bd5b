"""The chapter's equations beyond the layers: surfaces, contractions, what a flow can represent, reverse KL,
continuous time, and the check that ties a density to its sampler."""

import math
from pathlib import Path

import pytest
import torch
from scipy.integrate import solve_ivp
from scipy.special import ndtr, ndtri
from torch.distributions import Categorical, MixtureSameFamily, MultivariateNormal, Normal

from course_lib.divergences import kl_gaussian
from course_lib.experiments import read_records
from course_lib.flow.checks import (
    PLANE_MODELS,
    TRANSFORMS,
    build,
    integral_2d,
    sampling_error_2d,
)

pytestmark = pytest.mark.usefixtures("float64")
assert_close = torch.testing.assert_close
LOG_2PI = math.log(2 * math.pi)


def autograd_log_det(function, x):
    """log|det| of the Jacobian matrix at each row of x."""
    jacobians = [torch.autograd.functional.jacobian(function, p) for p in x]
    return torch.stack([torch.linalg.slogdet(j).logabsdet for j in jacobians])


def gram(jacobian):
    return jacobian.transpose(-1, -2) @ jacobian


@pytest.mark.equation(
    "eq-injective-density",
    formula=lambda p_z, jacobian: p_z / torch.linalg.det(gram(jacobian)).sqrt(),
    wrong={
        "no square root": lambda p_z, jacobian: p_z / torch.linalg.det(gram(jacobian)),
        "multiplied": lambda p_z, jacobian: p_z * torch.linalg.det(gram(jacobian)).sqrt(),
        "the first rows only": lambda p_z, jacobian: p_z / torch.linalg.det(jacobian[:, :2]).abs(),
        "product of the columns' lengths": lambda p_z, jacobian: p_z / jacobian.norm(dim=1).prod(1),
    },
)
def test_injective_density(formula):
    # A surface in R³: areas of small triangles, by cross products, against the mass of their squares.
    def surface(z):
        a, b = z.unbind(-1)
        return torch.stack([a + 0.3 * b**2, torch.sin(a) * b, 0.7 * b - a * b**2], -1)

    z = torch.tensor([[0.4, -0.9], [1.3, 0.5], [-0.7, 1.1]])
    jacobian = torch.func.vmap(torch.func.jacfwd(surface))(z)
    p_z = Normal(0.0, 1.0).log_prob(z).sum(1).exp()
    half = 1e-4
    corners = [
        surface(z + half * torch.tensor(s)) for s in ([-1.0, -1], [1.0, -1], [1.0, 1], [-1.0, 1])
    ]
    area = 0.5 * (
        torch.linalg.cross(corners[1] - corners[0], corners[2] - corners[0]).norm(dim=1)
        + torch.linalg.cross(corners[2] - corners[0], corners[3] - corners[0]).norm(dim=1)
    )
    mass = torch.tensor(ndtr((z + half).numpy()) - ndtr((z - half).numpy())).prod(
        1
    )  # of the square in z
    assert_close(formula(p_z, jacobian), mass / area, rtol=1e-6, atol=0)


def contraction(d, lipschitz, seed=0):
    g = torch.Generator().manual_seed(seed)
    matrix = torch.randn(d, d, generator=g)
    return lipschitz * matrix / torch.linalg.matrix_norm(matrix, 2)


def series(matrix, terms, sign=-1, divide=True, trace=torch.trace):
    power, total = torch.eye(len(matrix)), 0.0
    for k in range(1, terms + 1):
        power = power @ matrix
        total = total + sign ** (k + 1) * trace(power) / (k if divide else 1)
    return total


@pytest.mark.equation(
    "eq-residual-logdet",
    formula=series,
    wrong={
        "signs do not alternate": lambda a, n: series(a, n, sign=1),
        "not divided by k": lambda a, n: series(a, n, divide=False),
        "first term only": lambda a, n: series(a, 1),
        "sum of all entries": lambda a, n: series(a, n, trace=torch.sum),
    },
)
def test_residual_series(formula):
    # A curved contraction: its Jacobian by autograd at a point, its determinant by elimination.
    weight = contraction(6, 0.7)
    x = torch.randn(6)
    jacobian = torch.autograd.functional.jacobian(lambda p: torch.sin(weight @ p), x)
    expected = autograd_log_det(lambda p: p + torch.sin(weight @ p), x[None])[0]
    assert_close(formula(jacobian, 80), expected)
    assert torch.det(torch.eye(6) + jacobian) > 0
    # And the block is inverted by its fixed-point iteration.
    z, found = x + torch.sin(weight @ x), torch.zeros(6)
    for _ in range(120):
        found = z - torch.sin(weight @ found)
    assert_close(found, x)


@pytest.mark.equation(
    "eq-residual-remainder",
    formula=lambda d, lipschitz, n: d * lipschitz ** (n + 1) / ((n + 1) * (1 - lipschitz)),
    wrong={
        "one power too many": lambda d, lipschitz, n: (
            d * lipschitz ** (n + 2) / ((n + 1) * (1 - lipschitz))
        ),
        "dimension dropped": lambda d, lipschitz, n: (
            lipschitz ** (n + 1) / ((n + 1) * (1 - lipschitz))
        ),
        "n for n + 1": lambda d, lipschitz, n: d * lipschitz ** (n + 1) / (n * (1 - lipschitz)),
    },
)
def test_residual_remainder(formula):
    d, lipschitz = 5, 0.3
    for n in (1, 2, 5):
        for seed in range(20):
            matrix = contraction(d, lipschitz, seed)
            error = abs(series(matrix, n) - torch.linalg.slogdet(torch.eye(d) + matrix).logabsdet)
            assert error <= formula(d, lipschitz, n)
        # The worst case, −L times the identity: all of its terms have one sign, and the bound only
        # loses by 1/(n + 1) for 1/k.
        worst = abs(series(-lipschitz * torch.eye(d), n).item() - d * math.log1p(-lipschitz))
        assert (
            worst <= formula(d, lipschitz, n) < worst * (1 + lipschitz / (n + 2) / (1 - lipschitz))
        )


@pytest.mark.equation(
    "eq-russian-roulette",
    formula=lambda terms, reached: (terms / reached).cumsum(0),
    wrong={
        "not divided": lambda terms, reached: terms.cumsum(0),
        "multiplied": lambda terms, reached: (terms * reached).cumsum(0),
        "divided by the last one's probability": lambda terms, reached: terms.cumsum(0) / reached,
    },
)
def test_russian_roulette(formula):
    # A geometric number of terms; the expectation as a finite sum, the rest below rounding.
    stay, count = 0.6, 200
    reached = stay ** torch.arange(count)  # P(n ≥ k) for k = 1, 2, …
    probability = reached * (1 - stay)
    k = torch.arange(1, count + 1)
    terms = (-1.0) ** (k + 1) * 0.4**k / k  # of log 1.4
    expected = (probability * formula(terms, reached)).sum()
    assert_close(expected, torch.tensor(math.log(1.4)))


class Bent:
    """x₁ from a mixture, x₂ from a mixture that depends on it: two conditional distributions known."""

    def first(self):
        return MixtureSameFamily(
            Categorical(torch.tensor([0.3, 0.7])),
            Normal(torch.tensor([-1.2, 0.8]), torch.tensor([0.5, 0.7])),
        )

    def second(self, x):
        means = torch.stack([x.square() - 1, 0.5 - x], -1)
        weights = torch.tensor([0.6, 0.4]).expand_as(means)
        return MixtureSameFamily(Categorical(weights), Normal(means, torch.tensor([0.6, 0.9])))

    def log_prob(self, x):
        return self.first().log_prob(x[:, 0]) + self.second(x[:, 0]).log_prob(x[:, 1])


@pytest.mark.equation(
    "eq-knothe-rosenblatt",
    formula=lambda u, p, density: (Normal(0.0, 1.0).icdf(u), lambda z: p / density(z)),
    wrong={
        "not mapped to the normal": lambda u, p, density: (u, lambda z: p / density(z)),
        "slope of the distribution function only": lambda u, p, density: (
            Normal(0.0, 1.0).icdf(u),
            lambda z: p,
        ),
        "slope inverted": lambda u, p, density: (
            Normal(0.0, 1.0).icdf(u),
            lambda z: density(z) / p,
        ),
    },
)
def test_knothe_rosenblatt(formula):
    bent = Bent()
    normal_density = lambda z: Normal(0.0, 1.0).log_prob(z).exp()  # noqa: E731
    n = 40_000
    x1 = bent.first().sample((n,))
    x = torch.stack([x1, bent.second(x1).sample()], 1)

    def rearranged(x):
        parts = [(bent.first(), x[:, 0]), (bent.second(x[:, 0]), x[:, 1])]
        done = [formula(d.cdf(v), d.log_prob(v).exp(), normal_density) for d, v in parts]
        z = torch.stack([z for z, _ in done], 1)
        return z, torch.stack(
            [slope(column) for (_, slope), column in zip(done, z.T, strict=True)], 1
        )

    z, slopes = rearranged(x)
    # Standard normal: moments up to the fourth, within each quarter of z₁ and over all.
    for part in (z, *(z[z[:, 0].argsort()].reshape(4, -1, 2)[:, :, 1:])):
        tolerance = 5 / math.sqrt(len(part))
        for power, moment, scale in ((1, 0, 1), (2, 1, 1.5), (3, 0, 4), (4, 3, 10)):
            assert ((part**power).mean(0) - moment).abs().max() < tolerance * scale
    assert abs((z[:, 0] * z[:, 1]).mean()) < 5 / math.sqrt(n)
    # Its derivatives are those of autograd, the Jacobian is triangular, and the density comes back.
    points = x[:5]
    jacobian = torch.stack(
        [torch.autograd.functional.jacobian(lambda p: rearranged(p[None])[0][0], p) for p in points]
    )
    assert_close(slopes[:5], jacobian.diagonal(dim1=1, dim2=2))
    assert (jacobian[:, 0, 1] == 0).all()
    returned = -0.5 * (z[:5].square() + LOG_2PI).sum(1) + slopes[:5].log().sum(1)
    assert_close(returned, bent.log_prob(points))


@pytest.mark.equation(
    "eq-gap-isoperimetry",
    formula=lambda a, b, ratio: (ndtri(a) + ndtri(b), -ratio),
    wrong={
        "probabilities for quantiles": lambda a, b, ratio: (a + b - 1, -ratio),
        "half the distance": lambda a, b, ratio: (ndtri(a) + ndtri(b), -ratio / 2),
        "difference of the quantiles": lambda a, b, ratio: (ndtri(a) - ndtri(b), -ratio),
        "twice the distance": lambda a, b, ratio: (ndtri(a) + ndtri(b), -2 * ratio),
    },
)
def test_gap_isoperimetry(formula):
    # Equality for half-spaces and a linear map …
    for offset, lipschitz, delta in ((0.3, 2.0, 1.0), (-0.8, 0.7, 0.4)):
        # g(z) = L z₁ + offset with A = (−∞, 0], B = [δ, ∞).
        a, b = ndtr(-offset / lipschitz), ndtr((offset - delta) / lipschitz)
        left, right = formula(a, b, delta / lipschitz)
        assert abs(left - right) < 1e-12
    # … and an inequality for other sets: a disc and what lies outside of a larger one, in the plane.
    for inner, delta in ((0.8, 0.5), (1.5, 0.2)):
        a, b = 1 - math.exp(-(inner**2) / 2), math.exp(-((inner + delta) ** 2) / 2)
        left, right = formula(a, b, delta)
        assert left < right - 0.05


@pytest.mark.equation(
    "eq-gap-mass",
    formula=lambda delta, lipschitz: 2 * ndtr(delta / (2 * lipschitz)) - 1,
    wrong={
        "the whole distance": lambda delta, lipschitz: 2 * ndtr(delta / lipschitz) - 1,
        "half-space": lambda delta, lipschitz: ndtr(delta / (2 * lipschitz)) - 0.5,
        "Lipschitz constant inverted": lambda delta, lipschitz: 2 * ndtr(delta * lipschitz / 2) - 1,
        "first order": lambda delta, lipschitz: delta / (lipschitz * math.sqrt(2 * math.pi)),
    },
)
def test_gap_mass(formula):
    z = torch.linspace(-9, 9, 2_000_001)
    weight = Normal(0.0, 1.0).log_prob(z).exp() * (z[1] - z[0])

    def lost(x):
        return (weight * ((x > -1) & (x < 1))).sum().item()

    for slope in (1.0, 3.0, 20.0):
        bound = formula(2.0, slope)
        # The best map, by quadrature, reaches it; maps of the same constant that are symmetric do not.
        best = torch.where(z.abs() < 1 / slope, slope * z, z.sign() * (1 + z.abs() - 1 / slope))
        assert abs(lost(best) - bound) < 1e-5
        assert lost(slope * torch.tanh(z)) > bound
        assert lost(slope * z / (1 + z.abs())) > bound


@pytest.mark.equation(
    "eq-reverse-kl-flow",
    formula=lambda log_p_z, log_det, log_target: (log_p_z - log_det - log_target).mean(),
    wrong={
        "log-determinant of the other direction": lambda log_p_z, log_det, log_target: (
            log_p_z + log_det - log_target
        ).mean(),
        "no determinant": lambda log_p_z, log_det, log_target: (log_p_z - log_target).mean(),
        "entropy of the noise dropped": lambda log_p_z, log_det, log_target: (
            -log_det - log_target
        ).mean(),
        "forward KL's sign": lambda log_p_z, log_det, log_target: (
            log_target - log_p_z + log_det
        ).mean(),
    },
)
def test_reverse_kl(formula):
    # A linear flow and a Gaussian target: the divergence is in closed form.
    matrix, shift = torch.tensor([[1.3, 0.4], [-0.2, 0.7]]), torch.tensor([0.5, -0.3])
    covariance = torch.tensor([[1.5, -0.4], [-0.4, 0.8]])
    target = MultivariateNormal(torch.tensor([0.2, 0.1]), covariance)
    log_constant = 1.7  # log Z
    # Gauss–Hermite points: exact for these quadratic functions.
    nodes = math.sqrt(1.5) * torch.tensor([-math.sqrt(2.0), 0.0, math.sqrt(2.0)])
    weights = torch.tensor([1 / 6, 2 / 3, 1 / 6])
    z = torch.cartesian_prod(nodes, nodes)
    repeats = (36 * torch.cartesian_prod(weights, weights).prod(1)).round().long()
    z = z.repeat_interleave(repeats, 0)  # so that a plain mean is the quadrature
    log_p_z = -0.5 * (z.square() + LOG_2PI).sum(1)
    log_det = torch.linalg.slogdet(matrix).logabsdet.expand(len(z))
    loss = formula(log_p_z, log_det, target.log_prob(z @ matrix.T + shift) + log_constant)
    kl = kl_gaussian(shift, matrix @ matrix.T, target.mean, covariance)
    assert_close(loss, kl - log_constant)


def trace_of(function, x):
    return torch.autograd.functional.jacobian(function, x).trace()


def field(x, t):
    """A curved field of the plane that depends on time."""
    a, b = x.unbind(-1)
    return torch.stack([torch.sin(b + t) + 0.4 * a, a * torch.cos(a - t) - 0.3 * b * t], -1)


def solved(x, rate):
    """Solve for (x, its logarithm of density's change) by an adaptive method of high order."""

    def both(t, state):
        point = torch.as_tensor(state[:2])
        return [
            *field(point, t).tolist(),
            float(rate(trace_of(lambda p: field(p, t), point), point, t)),
        ]

    result = solve_ivp(both, (0, 1), [*x.tolist(), 0.0], method="DOP853", rtol=1e-10, atol=1e-10)
    return torch.as_tensor(result.y[:2, -1]), result.y[2, -1]


@pytest.mark.equation(
    "eq-instantaneous-change",
    formula=lambda trace, point, t: -trace,
    wrong={
        "sign flipped": lambda trace, point, t: trace,
        "determinant for trace": lambda trace, point, t: (
            -torch.linalg.det(torch.autograd.functional.jacobian(lambda p: field(p, t), point))
        ),
        "sum of the field": lambda trace, point, t: -field(point, t).sum(),
        "half of it": lambda trace, point, t: -trace / 2,
    },
)
def test_instantaneous_change(formula):
    # The Jacobian of the whole solution by central differences: no trace in it.
    for start in ([0.3, -0.8], [-1.1, 0.6]):
        x, h = torch.tensor(start), 1e-4
        _, change = solved(x, formula)
        columns = []
        for k in range(2):
            step = h * torch.eye(2)[k]
            ahead, behind = solved(x + step, formula)[0], solved(x - step, formula)[0]
            columns.append((ahead - behind) / (2 * h))
        log_det = torch.linalg.slogdet(torch.stack(columns, 1)).logabsdet.item()
        assert abs(log_det) > 0.05
        assert abs(change + log_det) < 1e-5


@pytest.mark.equation(
    "eq-linear-field",
    formula=lambda a: (torch.trace(a), torch.matrix_exp(a) @ torch.matrix_exp(a).T),
    wrong={
        "log-determinant of A": lambda a: (
            torch.linalg.slogdet(a).logabsdet,
            torch.matrix_exp(a) @ torch.matrix_exp(a).T,
        ),
        "exponential of the sum": lambda a: (torch.trace(a), torch.matrix_exp(a + a.T)),
        "transposed first": lambda a: (
            torch.trace(a),
            torch.matrix_exp(a).T @ torch.matrix_exp(a),
        ),
        "sign of the trace": lambda a: (
            -torch.trace(a),
            torch.matrix_exp(a) @ torch.matrix_exp(a).T,
        ),
    },
)
def test_linear_field(formula):
    a = torch.tensor([[0.4, 1.1, -0.2], [-0.6, -0.9, 0.3], [0.1, 0.5, 0.8]])
    trace, covariance = formula(a)
    x = torch.randn(4, 3)
    # The equation solved step by step (Runge–Kutta), and the covariance by its own equation.
    end, moved, n = x, torch.eye(3), 400

    def step(v, h):
        k1 = v @ a.T
        k2 = (v + h / 2 * k1) @ a.T
        k3 = (v + h / 2 * k2) @ a.T
        k4 = (v + h * k3) @ a.T
        return v + h / 6 * (k1 + 2 * k2 + 2 * k3 + k4)

    for _ in range(n):
        end, moved = step(end, 1 / n), step(moved, 1 / n)
    log_p = -0.5 * (x.square() + LOG_2PI).sum(1) - trace
    assert_close(covariance, moved.T @ moved, rtol=1e-7, atol=1e-9)
    gaussian = MultivariateNormal(torch.zeros(3), moved.T @ moved)
    assert_close(log_p, gaussian.log_prob(end), rtol=1e-7, atol=1e-7)


SIGNS = torch.cartesian_prod(*[torch.tensor([-1.0, 1.0]).double()] * 5)


@pytest.mark.equation(
    "eq-hutchinson",
    formula=lambda a, e: torch.einsum("ni,ij,nj->n", e, a, e),
    wrong={
        "divided by the dimension": lambda a, e: torch.einsum("ni,ij,nj->n", e, a, e) / a.shape[0],
        "two different vectors": lambda a, e: torch.einsum("ni,ij,nj->n", e, a, e.flip(0)),
        "image squared": lambda a, e: (e @ a.T).square().sum(1),
    },
)
def test_hutchinson(formula):
    # The mean over all vectors of signs is the expectation, without sampling.
    a = torch.randn(5, 5) + torch.diag(torch.linspace(-1, 2, 5))
    values = formula(a, SIGNS)
    assert_close(values.mean(), a.trace())
    # As a vector–Jacobian product of a network.
    network = torch.nn.Sequential(torch.nn.Linear(5, 8), torch.nn.Tanh(), torch.nn.Linear(8, 5))
    x = torch.randn(5)
    jacobian = torch.autograd.functional.jacobian(network, x)
    product = torch.autograd.functional.vjp(network, x, SIGNS[7])[1]
    assert_close(product @ SIGNS[7], formula(jacobian, SIGNS[7:8])[0])


def off_diagonal(s):
    return s.square().sum() - s.diagonal().square().sum()


@pytest.mark.equation(
    "eq-hutchinson-variance",
    formula=lambda a: (2 * off_diagonal((a + a.T) / 2), 2 * ((a + a.T) / 2).square().sum()),
    wrong={
        "not symmetrized": lambda a: (2 * off_diagonal(a), 2 * a.square().sum()),
        "exchanged": lambda a: (
            2 * ((a + a.T) / 2).square().sum(),
            2 * off_diagonal((a + a.T) / 2),
        ),
        "factor 2 dropped": lambda a: (off_diagonal((a + a.T) / 2), ((a + a.T) / 2).square().sum()),
        "each pair once": lambda a: (
            off_diagonal((a + a.T) / 2),
            2 * ((a + a.T) / 2).square().sum(),
        ),
    },
)
def test_hutchinson_variance(formula):
    a = torch.randn(5, 5) + torch.diag(torch.linspace(-1, 2, 5))
    signs, normal = formula(a)
    values = torch.einsum("ni,ij,nj->n", SIGNS, a, SIGNS)
    assert_close(signs, values.var(correction=0))
    # Gauss–Hermite points of three nodes have the fourth moments of the normal distribution.
    nodes = torch.cartesian_prod(*[torch.tensor([-math.sqrt(3.0), 0.0, math.sqrt(3.0)])] * 5)
    weights = torch.cartesian_prod(*[torch.tensor([1 / 6, 2 / 3, 1 / 6])] * 5).prod(1)
    values = torch.einsum("ni,ij,nj->n", nodes, a, nodes)
    mean = (weights * values).sum()
    assert_close(mean, a.trace())
    assert_close(normal, (weights * (values - mean).square()).sum())
    assert signs < normal


@pytest.mark.equation(
    "eq-flow-continuity",
    formula=lambda p, v, h: -((p * v)[2:] - (p * v)[:-2]) / (2 * h),
    wrong={
        "sign flipped": lambda p, v, h: ((p * v)[2:] - (p * v)[:-2]) / (2 * h),
        "field outside of the derivative": lambda p, v, h: -v[1:-1] * (p[2:] - p[:-2]) / (2 * h),
        "density outside of the derivative": lambda p, v, h: -p[1:-1] * (v[2:] - v[:-2]) / (2 * h),
    },
)
def test_continuity(formula):
    # x_t is a sinh-arcsinh map of a normal x₀: its density is known, and so is each particle's path.
    def bent(x0, t):
        return torch.sinh(torch.asinh(x0) * (1 + 0.5 * t) + 0.3 * t)

    def back(x, t):
        return torch.sinh((torch.asinh(x) - 0.3 * t) / (1 + 0.5 * t))

    def density(x, t):
        slope = (1 + x.square()).rsqrt() / (1 + 0.5 * t)
        x0 = back(x, t)
        return Normal(0.0, 1.0).log_prob(x0).exp() * slope * (1 + x0.square()).sqrt()

    t, h, dt = 0.6, 1e-4, 1e-5
    for centre in (-1.3, 0.4, 2.1):
        x = centre + h * torch.tensor([-1.0, 0.0, 1.0])
        # The velocity of the particle that is at x at time t.
        v = (bent(back(x, t), t + dt) - bent(back(x, t), t - dt)) / (2 * dt)
        change = (density(x, t + dt) - density(x, t - dt))[1:-1] / (2 * dt)
        assert_close(formula(density(x, t), v, h), change, rtol=1e-5, atol=1e-7)


@pytest.mark.equation(
    "eq-cell-area",
    formula=lambda p, inside: inside / p,
    wrong={
        "density multiplied": lambda p, inside: inside * p,
        "frequency of the cell": lambda p, inside: inside * 1.0,
        "logarithm": lambda p, inside: inside * -p.log(),
    },
)
def test_cell_area(formula):
    # The library's flow draws; another density of equal integral must be told apart.
    flow = build(PLANE_MODELS["RealNVP"], seed=2)
    n = 60_000
    with torch.no_grad():
        x = flow.sample(n, generator=torch.Generator().manual_seed(0))
        p = flow.log_prob(x).exp()
        other = flow.log_prob(x - 0.3).exp()  # of a shifted sampler: its integral is 1 as well
    low, high = x.quantile(0.15, 0), x.quantile(0.85, 0)
    wrong_somewhere = False
    for i in range(3):
        for j in range(3):
            corner = low + (high - low) / 3 * torch.tensor([float(i), float(j)])
            inside = ((x >= corner) & (x < corner + (high - low) / 3)).all(1)
            area = ((high - low) / 3).prod()
            values = formula(p, inside.double())
            assert abs(values.mean() - area) < 4.5 * values.std() / math.sqrt(n)
            values = formula(other, inside.double())
            wrong_somewhere |= bool(abs(values.mean() - area) > 8 * values.std() / math.sqrt(n))
    assert wrong_somewhere


def test_an_integral_of_one_proves_little():
    # The chapter's example: the density of x·e^s + t, and a sampler that computes z·e^(−s) − t.
    s, t = 0.4, 0.9

    def log_prob(x):
        return -0.5 * ((x * math.exp(s) + t).square() + LOG_2PI).sum(1) + 2 * s

    z = torch.randn(4000, 2)
    right, wrong = (z - t) * math.exp(-s), z * math.exp(-s) - t
    assert abs(integral_2d(log_prob) - 1) < 1e-6
    assert sampling_error_2d(log_prob, right) < 1.6
    assert sampling_error_2d(log_prob, wrong) > 3


@pytest.mark.parametrize("name", PLANE_MODELS)
def test_samples_of_every_model_pass_the_check_of_cells(name):
    flow = build(PLANE_MODELS[name], seed=2, spread=0.15)
    with torch.no_grad():
        x = flow.sample(6000, generator=torch.Generator().manual_seed(0))
        cold = flow.sample(6000, generator=torch.Generator().manual_seed(0), temperature=0.85)
        assert sampling_error_2d(flow.log_prob, x, fine=16) < 1.6
        assert sampling_error_2d(flow.log_prob, cold, fine=16) > 2


def test_a_doubled_log_determinant_fails_two_checks_and_passes_the_round_trip():
    # Exercise: an affine coupling, doubled in both directions.
    layer = build(TRANSFORMS["AffineCoupling"])
    x = torch.randn(6, 5)
    z, log_det = layer(x)
    back, inverse = layer.inverse(z)
    assert_close(back, x)
    assert_close(2 * log_det + 2 * inverse, torch.zeros(6))
    expected = autograd_log_det(lambda p: layer(p[None])[0][0], x)
    assert (2 * log_det - expected).abs().max() > 0.05
    additive = build(TRANSFORMS["AdditiveCoupling"])
    assert_close(2 * additive(x)[1], autograd_log_det(lambda p: additive(p[None])[0][0], x))
    assert (
        abs(integral_2d(lambda p: -0.5 * (9 * p.square() + LOG_2PI).sum(1) + 4 * math.log(3)) - 9)
        < 1e-6
    )


def test_numbers_of_the_exercises():
    u = (torch.arange(100_000) + 0.5) / 100_000
    one = 1 - (1 + u).log2()  # bits of level 1 under p(y) = 2y, draw by draw
    truth = -math.log2(3 / 4)
    assert abs(one.mean().item() - (1 / math.log(2) - 1)) < 1e-8
    assert round(one.mean().item(), 3) == 0.443
    assert round(truth, 3) == 0.415
    assert abs((one < truth).double().mean() - 0.5) < 1e-4
    slope = 1 / ndtri(0.5 + 0.0005)
    assert round(slope, -1) == 800
    # Euler: the trace misses the log-determinant by half of h² tr A², to leading order.
    a, h = torch.randn(4, 4), 1e-4
    missed = h * a.trace() - torch.linalg.slogdet(torch.eye(4) + h * a).logabsdet
    assert_close(missed / h**2, (a @ a).trace() / 2, rtol=1e-3, atol=1e-3)


def test_the_table_has_realnvp_ahead_of_a_maf_of_its_size():
    records = read_records(Path(__file__).parents[2] / "results")
    found = {"RealNVP": [], "MAF": []}
    for record in records:
        if record.data == "digits" and record.model in found:
            found[record.model].append(record)
    for metric in ("dequantization_bound", "importance_100"):
        bits = [
            sum(r.metrics[metric].value for r in records) / len(records)
            for records in found.values()
        ]
        assert bits[0] < bits[1]
    sizes = [records[0].parameters for records in found.values()]
    assert abs(math.log(sizes[0] / sizes[1])) < 0.15
