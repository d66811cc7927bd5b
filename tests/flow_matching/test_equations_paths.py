"""The equations on paths, weights, other sources' symbols and solvers, by independent routes."""

from functools import cache
from itertools import pairwise

import pytest
import torch

from course_lib.mixtures import GaussianMixture
from course_lib.schedules import Cosine, LinearPath
from course_lib.solvers import flow_log_prob, integrate, time_grid
from tests.diffusion.exact import axis, legendre, line, normal, plane

pytestmark = pytest.mark.usefixtures("float64")

CLOSE = {"atol": 1e-8, "rtol": 1e-8}
PATH = LinearPath()


def probes():
    return torch.tensor([[0.3, 0.8], [-1.1, 0.2], [0.9, -0.5]])


def exact(t, z, path=PATH, mixture=None):
    return (mixture or plane()).velocity(z, torch.as_tensor(t), path)


# --- velocity and score ---------------------------------------------------------------------------


def from_score(z, score, path, t):
    a, s = path.alpha(t), path.sigma(t)
    a_rate, s_rate = path.alpha_rate(t), path.sigma_rate(t)
    return a_rate / a * z + (a_rate * s**2 / a - s * s_rate) * score


def changed(z, score, path, t, clean=1.0, first=1.0, second=1.0, power=2):
    a, s = path.alpha(t), path.sigma(t)
    a_rate, s_rate = path.alpha_rate(t), path.sigma_rate(t)
    factor = first * a_rate * s**power / a - second * s * s_rate
    return clean * a_rate / a * z + factor * score


@pytest.mark.equation(
    "eq-velocity-score",
    formula=from_score,
    wrong={
        "sign of the score": lambda *a: changed(*a, first=-1.0, second=-1.0),
        "sign of the second term": lambda *a: changed(*a, second=-1.0),
        "σ for σ²": lambda *a: changed(*a, power=1),
        "z dropped": lambda *a: changed(*a, clean=0.0),
    },
    implemented_by="course_lib.flow_matching.velocity_from_score",
)
@pytest.mark.parametrize("path", [PATH, Cosine(6.0, -6.0)], ids=["linear", "cosine"])
def test_velocity_score(formula, path):
    t, z = torch.tensor(0.45), probes().requires_grad_()
    log_p = plane().log_prob(z, path.alpha(t), path.sigma(t))
    (score,) = torch.autograd.grad(log_p.sum(), z)
    z = z.detach()
    mean = plane().posterior_mean(z, path.alpha(t), path.sigma(t))
    noise = (z - path.alpha(t) * mean) / path.sigma(t)
    expected = path.alpha_rate(t) * mean + path.sigma_rate(t) * noise
    torch.testing.assert_close(formula(z, score, path, t), expected, **CLOSE)


# --- one path for another -------------------------------------------------------------------------


def clock_and_scale(path, other, tau):
    """The time of `path` with the log SNR of `other` at τ, the factor, and their derivatives."""

    def both(tau):
        t = path.time(other.log_snr(tau))
        return torch.stack([t, other.sigma(tau) / path.sigma(t)])

    value, rate = both(tau), torch.func.jacfwd(both)(tau)
    return value, rate


def other_path(z, tau, path, other, rescaled=True, clocked=True, moving=True):
    (t, k), (t_rate, k_rate) = clock_and_scale(path, other, tau)
    inner = z / k if rescaled else z
    v = plane().velocity(inner, t, path) * (t_rate if clocked else 1.0)
    return (k_rate / k * z if moving else 0.0) + k * v


@pytest.mark.equation(
    "eq-path-change",
    formula=other_path,
    wrong={
        "argument not rescaled": lambda *a: other_path(*a, rescaled=False),
        "rate of the clock dropped": lambda *a: other_path(*a, clocked=False),
        "rate of the scale dropped": lambda *a: other_path(*a, moving=False),
        "the same field at the same time": lambda z, tau, path, other: plane().velocity(
            z, tau, path
        ),
    },
    implemented_by="course_lib.flow_matching.on_another_path",
)
@pytest.mark.parametrize("tau", [0.3, 0.6])
def test_path_change(formula, tau):
    tau, other = torch.tensor(tau), Cosine(5.0, -5.0)
    expected = plane().velocity(probes(), tau, other)
    torch.testing.assert_close(formula(probes(), tau, PATH, other), expected, **CLOSE)


# --- weights --------------------------------------------------------------------------------------


def biased_noise(z, mixture, alpha, sigma):
    """An estimate of the noise that is wrong by a known function."""
    return -sigma * mixture.score(z, alpha, sigma) + 0.3 * (1.5 * z).sin()


def errors(t, mixture):
    """E‖v − v̂‖² and E‖ε − ε̂‖² at one time of the linear path, over pairs on the line."""
    x, dx = axis(6.0, 161)
    noise, de = axis(7.0, 181)
    weight = mixture.log_prob(x[:, None]).exp()[:, None] * normal(noise, 0.0, torch.tensor(1.0))
    weight = weight * dx * de
    z = (1 - t) * x[:, None] + t * noise
    guess = biased_noise(z.reshape(-1, 1), mixture, 1 - t, t).view_as(z)
    clean = (z - t * guess) / (1 - t)
    velocity = (noise - x[:, None] - (guess - clean)) ** 2
    return (weight * velocity).sum(), (weight * (noise - guess) ** 2).sum()


@cache  # asked again for each wrong version
def errors_on_the_line(t):
    return errors(torch.tensor(t), line())


def weighted(first, last, density, weight):
    """∫ weight(λ) density(t) E‖ε − ε̂‖² dλ over the noise levels between two times."""
    high, low = PATH.log_snr(first), PATH.log_snr(last)
    total = torch.tensor(0.0)
    for level, w in zip(*legendre(low, high, 40), strict=True):
        t = PATH.time(level)
        total = total + w * weight(level) * density(t) * errors_on_the_line(t.item())[1]
    return total


@pytest.mark.equation(
    "eq-weighting",
    formula=lambda *a: weighted(*a, lambda level: 0.5 * (-level / 2).exp()),
    wrong={
        "the weighting is cosmetic": lambda *a: weighted(*a, lambda level: 0.5),
        "half dropped": lambda *a: weighted(*a, lambda level: (-level / 2).exp()),
        "sign of the exponent": lambda *a: weighted(*a, lambda level: 0.5 * (level / 2).exp()),
        "SNR for its root": lambda *a: weighted(*a, lambda level: 0.5 * (-level).exp()),
    },
    implemented_by="course_lib.flow_matching.noise_loss_weight",
)
@pytest.mark.parametrize("density", [torch.ones_like, lambda t: 6 * t * (1 - t)])
def test_weighting(formula, density):
    """The left side is an integral over time of the velocity's error; nothing is substituted."""
    first, last = torch.tensor(0.2), torch.tensor(0.9)
    expected = sum(
        w * density(t) * errors_on_the_line(t.item())[0]
        for t, w in zip(*legendre(first, last, 40), strict=True)
    )
    torch.testing.assert_close(formula(first, last, density), expected, atol=1e-7, rtol=1e-7)


def nested_bounds(error, weight, slope, low, high):
    """Bounds of data with noise up to each level, averaged with the slope of the weight."""

    def bound(level):
        inner, w = legendre(low, level, 60)
        return (w * 0.5 * error(inner)).sum()

    levels, w = legendre(low, high, 60)
    return weight(high) * bound(high) + sum(
        share * -slope(level) * bound(level) for level, share in zip(levels, w, strict=True)
    )


@pytest.mark.equation(
    "eq-weight-augmentation",
    formula=nested_bounds,
    wrong={
        "sign of the slope": lambda e, w, s, *ends: nested_bounds(e, w, lambda x: -s(x), *ends),
        "bound of the data dropped": lambda e, w, s, low, high: (
            nested_bounds(e, w, s, low, high)
            - nested_bounds(e, w, lambda x: torch.tensor(0.0), low, high)
        ),
        "bound of the data only": lambda e, w, s, *ends: nested_bounds(
            e, w, lambda x: torch.tensor(0.0), *ends
        ),
        "weight for its slope": lambda e, w, s, *ends: nested_bounds(e, w, lambda x: -w(x), *ends),
    },
)
def test_weight_augmentation(formula):
    low, high, c = -4.0, 3.0, 0.7

    def error(level):  # of the noise, for N(0, c)
        return level.exp() * c / (1 + c * level.exp())

    def weight(level):
        return torch.as_tensor(-level / 2).exp()

    levels, w = legendre(low, high, 200)
    expected = (w * weight(levels) * 0.5 * error(levels)).sum()
    found = formula(error, weight, lambda x: -0.5 * weight(x), low, high)
    torch.testing.assert_close(found, expected, **CLOSE)


# --- other sources --------------------------------------------------------------------------------


def ours(kind, there, z, t):
    """A prediction of another source as the velocity of the linear path."""
    a, s = 1 - t, t
    if kind == "time from noise to data":
        return -there
    if kind == "noise":
        return (there - z) / a
    if kind == "clean":
        return (z - there) / s
    if kind == "score":
        return -(z + s * there) / a
    if kind == "circle":
        square = a**2 + s**2
        return (2 * t - 1) / square * z + there / square.sqrt()
    # The denoiser of y = x + ςn, at ς = σ/α and y = z/α.
    return (z - there) / s


def mutated(kind, change):
    def formula(k, there, z, t):
        return change(there, z, t) if k == kind else ours(k, there, z, t)

    return formula


@pytest.mark.equation(
    "eq-dictionary",
    formula=ours,
    wrong={
        "reversed time without the minus sign": mutated(
            "time from noise to data", lambda v, z, t: v
        ),
        "sign of the noise": mutated("noise", lambda e, z, t: (z - e) / (1 - t)),
        "clean example divided by α": mutated("clean", lambda x, z, t: (z - x) / (1 - t)),
        "σ² for σ at the score": mutated("score", lambda s, z, t: -(z + t**2 * s) / (1 - t)),
        "velocities of the circle and the line taken for one": mutated("circle", lambda v, z, t: v),
        "the circle's scale forgotten": mutated(
            "circle", lambda v, z, t: ((2 * t - 1) * z + v) / (t**2 + (1 - t) ** 2)
        ),
        "another denoiser's scale": mutated("denoiser", lambda x, z, t: (z / (1 - t) - x) / t),
    },
    implemented_by="course_lib.flow_matching.reversed_time",
)
@pytest.mark.parametrize("t", [0.35, 0.8])
def test_dictionary(formula, t):
    """Each source's own quantity, computed by its own definition, on the mixture of the plane."""
    t, z, mixture = torch.tensor(t), probes(), plane()
    expected = exact(t, z)
    a, s = 1 - t, t
    # Time from noise to data: finite differences of their own marginal flow, x_u = u x + (1 − u) ε.
    small = 1e-5
    back = integrate(lambda z, r: exact(r, z), z, torch.stack([t, t - small]), "rk4")
    forth = integrate(lambda z, r: exact(r, z), z, torch.stack([t, t + small]), "rk4")
    torch.testing.assert_close(
        formula("time from noise to data", (back - forth) / (2 * small), z, t),
        expected,
        atol=1e-7,
        rtol=1e-7,
    )
    mean = mixture.posterior_mean(z, a, s)
    noise = (z - a * mean) / s
    leaf = z.clone().requires_grad_()
    (score,) = torch.autograd.grad(mixture.log_prob(leaf, a, s).sum(), leaf)
    # On the circle: α' = cos φ, σ' = sin φ with the same ratio, at the rescaled latent.
    length = (a**2 + s**2).sqrt()
    circle = GaussianMixture(mixture.weights, mixture.means, mixture.covariances)
    clean = circle.posterior_mean(z / length, a / length, s / length)
    turned = (z / length - a / length * clean) / (s / length)
    velocity = a / length * turned - s / length * clean
    # y = x + ςn: the denoiser by its own formula, D(y) = y + ς² ∇ log p(y; ς).
    y, level = z / a, s / a
    denoiser = y + level**2 * mixture.score(y, 1.0, level)
    for kind, there in (
        ("noise", noise),
        ("clean", mean),
        ("score", score),
        ("circle", velocity),
        ("denoiser", denoiser),
    ):
        torch.testing.assert_close(formula(kind, there, z, t), expected, **CLOSE)


# --- solvers --------------------------------------------------------------------------------------


def one_step(z, t):
    return z - t * exact(t, z)


@pytest.mark.equation(
    "eq-one-step",
    formula=one_step,
    wrong={
        "straight conditional paths give straight trajectories": lambda z, t: integrate(
            lambda z, t: exact(t, z), z, time_grid(40, t.item(), 0.0), "rk4"
        ),
        "time reversed without the minus sign": lambda z, t: z + t * exact(t, z),
        "a sharp example": lambda z, t: plane().means[
            plane().responsibilities(z, 1 - t, t).argmax(1)
        ],
        "step not scaled by the time": lambda z, t: z - 0.5 * exact(t, z),
    },
)
@pytest.mark.parametrize("t", [0.6, 1.0])
def test_one_step(formula, t):
    t = torch.tensor(t)
    found = formula(probes(), t)
    # The posterior mean by a sum over a grid of clean points.
    side = torch.linspace(-7, 7, 301)
    x = torch.cartesian_prod(side, side)
    joint = plane().log_prob(x) - 0.5 * ((probes()[:, None] - (1 - t) * x) / t).square().sum(-1)
    torch.testing.assert_close(found, joint.softmax(1) @ x, **CLOSE)
    if t == 1:
        torch.testing.assert_close(found, plane().mean.expand_as(found), **CLOSE)


ORDERS = {"euler": 1, "midpoint": 2, "heun": 2, "rk4": 4}


def two_modes(t, z, m=0.9, c=0.3):
    """The velocity of two Gaussians of variance c at ±m. One Gaussian would be special: on the linear
    path the midpoint method's leading error vanishes for it."""
    spread = (1 - t) ** 2 * c + t**2
    side = m * ((1 - t) * m * z / spread).tanh()
    mean = side + (1 - t) * c / spread * (z - (1 - t) * side)
    return (z - mean) / t


def by_solver(z, steps, method):
    return integrate(lambda z, t: two_modes(t, z), z, time_grid(steps, 1.0, 0.15), method)


def reversed_without_sign(z, steps, method):
    """From noise to data in a time of its own, with the field of the other direction."""
    return integrate(lambda z, u: two_modes(1 - u, z), z, time_grid(steps, 0.0, 0.85), method)


@pytest.mark.equation(
    "eq-solver-order",
    formula=lambda method: (2 ** ORDERS[method], by_solver),
    wrong={
        "reversed time without the minus sign": lambda method: (
            2 ** ORDERS[method],
            reversed_without_sign,
        ),
        "order one for all": lambda method: (2, by_solver),
        "order for the factor": lambda method: (ORDERS[method], by_solver),
        "the local order": lambda method: (2 ** (ORDERS[method] + 1), by_solver),
    },
    implemented_by="course_lib.solvers.integrate",
)
def test_solver_order(formula):
    z = torch.tensor([[0.6], [-1.1], [1.3]])
    truth = by_solver(z, 400, "rk4")
    for method, steps in (("euler", 320), ("midpoint", 80), ("heun", 80), ("rk4", 40)):
        factor, solver = formula(method)
        coarse, fine = ((solver(z, n, method) - truth).norm().item() for n in (steps, 2 * steps))
        assert abs(coarse / fine / factor - 1) < 0.05, (method, coarse / fine)


def richardson(coarse, fine, order):
    return fine + (fine - coarse) / (2**order - 1)


@cache  # asked again for each wrong version
def by_steps(steps, method):
    """The log-densities of the probes by the ODE of the exact velocity."""
    return flow_log_prob(
        lambda z, t: exact(t, z),
        probes(),
        time_grid(steps, 0.0, 1.0),
        lambda z: normal(z, 0.0, torch.tensor(1.0)).log().sum(1),
        method,
    )


@pytest.mark.equation(
    "eq-richardson",
    formula=richardson,
    wrong={
        "the finer solution": lambda coarse, fine, order: fine,
        "sign": lambda coarse, fine, order: fine - (fine - coarse) / (2**order - 1),
        "2 to the order not lowered by one": lambda coarse, fine, order: (
            fine + (fine - coarse) / 2**order
        ),
        "order for its power": lambda coarse, fine, order: fine + (fine - coarse) / (order + 1),
    },
    implemented_by="course_lib.flow_matching.VelocityFlow.log_prob_with_error",
)
def test_richardson(formula):
    """Of log-densities by the ODE: the mixture's own value is the truth."""
    truth = plane().log_prob(probes())
    for method, steps in (("euler", 32), ("midpoint", 16)):
        values = [by_steps(n, method) for n in (steps, 2 * steps, 4 * steps)]
        order = ORDERS[method]
        errors = [(formula(a, b, order) - truth).norm().item() for a, b in pairwise(values)]
        # What is left is of the next order: halving divides it by 2^(order + 1), or by more.
        assert errors[0] / errors[1] > 2 ** (order + 0.75), (method, errors)


# --- the likelihood of few steps ------------------------------------------------------------------


def euler_pass(mixture, x, n):
    """End points, the sum of h tr A and the sum of log det(I + hA) of n Euler steps."""
    traces, volumes = torch.zeros(len(x)), torch.zeros(len(x))
    for k in range(n):
        t = torch.tensor(k / n)
        with torch.enable_grad():
            leaf = x.detach().requires_grad_()
            v = mixture.velocity(leaf, t, PATH)
            rows = [torch.autograd.grad(e.sum(), leaf, retain_graph=True)[0] for e in v.T]
        jacobian = torch.stack(rows, 1)
        traces = traces + jacobian.diagonal(dim1=1, dim2=2).sum(1) / n
        eigenvalues = torch.linalg.eigvalsh(torch.eye(x.shape[1]) + jacobian / n)
        assert (eigenvalues > 0).all(), "the map of the solver is one-to-one"
        volumes = volumes + eigenvalues.log().sum(1)
        x = x + v.detach() / n
    return x, traces, volumes


def flattery(mixture, x, n):
    _, traces, volumes = euler_pass(mixture, x, n)
    return traces - volumes


@pytest.mark.equation(
    "eq-euler-flattery",
    formula=flattery,
    wrong={
        "the solver's number is a log-density": lambda m, x, n: torch.zeros(len(x)),
        "sign": lambda m, x, n: -flattery(m, x, n),
        "half of it": lambda m, x, n: flattery(m, x, n) / 2,
        "trace only": lambda m, x, n: euler_pass(m, x, n)[1],
    },
)
@pytest.mark.parametrize("n", [5, 12])
def test_euler_flattery(formula, n):
    """Without the excess the numbers integrate to 1; with it to more."""
    mixture = GaussianMixture(
        torch.tensor([0.35, 0.65]),
        torch.tensor([[-0.9], [0.7]]),
        torch.tensor([[[0.25]], [[0.4]]]),
    )
    x, step = axis(9.0, 4001)
    number = flow_log_prob(
        lambda z, t: mixture.velocity(z, t, PATH),
        x[:, None],
        time_grid(n, 0.0, 1.0),
        lambda z: normal(z[:, 0], 0.0, torch.tensor(1.0)).log(),
        "euler",
    )
    excess = formula(mixture, x[:, None], n)
    mass = (number - excess).exp().sum() * step
    torch.testing.assert_close(mass, torch.tensor(1.0), atol=1e-6, rtol=0)
    assert (excess >= 0).all()
    assert number.exp().sum() * step > 1 + 0.1 / n


def test_the_flattery_of_euler_steps_falls_as_one_over_their_number():
    """h/2 times the integral of the squared Jacobian, to leading order."""
    one = GaussianMixture(torch.ones(1), torch.zeros(1, 1), torch.full((1, 1, 1), 0.3))
    values = [n * flattery(one, torch.tensor([[0.6]]), n).item() for n in (50, 100, 200)]
    times, weights = legendre(0.0, 1.0, 60)
    slope = (times - (1 - times) * 0.3) / ((1 - times) ** 2 * 0.3 + times**2)
    expected = (weights * 0.5 * slope**2).sum().item()
    assert abs(2 * values[2] - values[1] - expected) < 1e-3 * expected
