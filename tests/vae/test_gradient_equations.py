"""Gradients of expectations: against derivatives of expectations that are known in closed form."""

import math

import pytest
import scipy.integrate
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


def edges(f, phi):
    return f(phi + 1) - f(phi)


@pytest.mark.equation(
    "eq-moving-edge",
    formula=edges,
    wrong={
        "zero, as the score says": lambda f, phi: 0.0,
        "right edge only": lambda f, phi: f(phi + 1),
        "sum of the edges": lambda f, phi: f(phi + 1) + f(phi),
    },
)
def test_edges_that_jump_contribute_to_the_gradient(formula):
    for phi in (0.3, -1.1):
        low, high = (
            scipy.integrate.quad(math.exp, phi + h, phi + h + 1, epsabs=1e-13)[0]
            for h in (-1e-4, 1e-4)
        )
        assert formula(math.exp, phi) == pytest.approx((high - low) / 2e-4, rel=1e-6)


def test_a_support_that_moves_smoothly_suits_the_score_function():
    """(15/16)(1 − (z − φ)²)² on |z − φ| ≤ 1: the mean of f times the score is the gradient."""

    def density(z, phi):
        return 15 / 16 * (1 - (z - phi) ** 2) ** 2

    def mean(phi):
        return scipy.integrate.quad(lambda z: math.exp(z) * density(z, phi), phi - 1, phi + 1)[0]

    def times_score(z, phi):
        return math.exp(z) * density(z, phi) * 4 * (z - phi) / (1 - (z - phi) ** 2)

    phi = 0.4
    by_score = scipy.integrate.quad(times_score, phi - 1, phi + 1, args=(phi,))[0]
    assert by_score == pytest.approx((mean(phi + 1e-4) - mean(phi - 1e-4)) / 2e-4, rel=1e-6)


# --- gradients of the importance-weighted bound -----------------------------------------------

# p(z|x) = N(0, 1) and log p(x) = 0; the proposal is N(m, s²), and m is the encoder's parameter.


def log_weight(z, m, s):
    return -0.5 * z**2 + 0.5 * ((z - m) / s) ** 2 + math.log(s)


def second_moment(m, s):
    """E w² = ∫ N(z; 0, 1)² / N(z; m, s²) dz, on a grid."""
    z = torch.linspace(-14, 14, 28_001)
    log_q = -0.5 * ((z - m) / s) ** 2 - math.log(s) - 0.5 * math.log(2 * math.pi)
    return (2 * log_weight(z, m, s) + log_q).exp().sum() * (z[1] - z[0])


def signal_and_noise(m, s, k, signal=0.5, power=0.5):
    """Mean and standard deviation of the encoder's gradient to leading order; p(x) = 1."""
    slope = (second_moment(m + 1e-4, s) - second_moment(m - 1e-4, s)) / 2e-4
    nodes, weights = map(torch.from_numpy, hermegauss(100))
    weights = weights / weights.sum()
    z = m + s * nodes
    derivative = -z * log_weight(z, m, s).exp()  # ∂w/∂m at fixed noise, with mean 0
    spread = (weights @ derivative**2).sqrt()
    return -signal * slope / k, spread / k**power


@pytest.mark.equation(
    "eq-encoder-signal",
    formula=signal_and_noise,
    wrong={
        "half dropped": lambda m, s, k: signal_and_noise(m, s, k, signal=1.0),
        "signal rises": lambda m, s, k: signal_and_noise(m, s, k, signal=-0.5),
        "signal like 1/√k": lambda m, s, k: signal_and_noise(m, s, k, signal=0.5 * math.sqrt(k)),
        "noise like 1/k": lambda m, s, k: signal_and_noise(m, s, k, power=1.0),
    },
)
def test_signal_and_noise_of_the_encoders_gradient(formula):
    m, s, k, repeats = 0.5, 1.1, 50, 200_000
    signal, noise = formula(m, s, k)
    draws = []
    for _ in range(4):
        z = m + s * torch.randn(repeats // 4, k)
        weights = log_weight(z, m, s).softmax(1)
        draws.append((weights * -z).sum(1))  # ∂ log w̄ = Σ w̃ ∂ log w at fixed noise
    draws = torch.cat(draws)
    error = draws.std() / math.sqrt(repeats)
    assert error < 0.05 * abs(signal)
    torch.testing.assert_close(draws.mean(), signal, rtol=0.1, atol=4 * error.item())
    torch.testing.assert_close(draws.std(), noise, rtol=0.05, atol=0)


def doubly_reparameterized(weights, log_slope, path):
    """Σ w̃² ∂log w/∂z ∂z/∂φ for samples along the last axis."""
    return (weights**2 * log_slope * path).sum(-1)


@pytest.mark.equation(
    "eq-dreg",
    formula=doubly_reparameterized,
    wrong={
        "weights not squared": lambda w, slope, path: (w * slope * path).sum(-1),
        "w̃(1 − w̃) for w̃²": lambda w, slope, path: (w * (1 - w) * slope * path).sum(-1),
        "path dropped": lambda w, slope, path: (w**2 * slope).sum(-1),
        "sign flipped": lambda w, slope, path: -doubly_reparameterized(w, slope, path),
    },
)
def test_doubly_reparameterized_gradient(formula):
    nodes, weights = map(torch.from_numpy, hermegauss(80))
    weights = weights / weights.sum()
    noise = torch.cartesian_prod(nodes, nodes)  # k = 2
    probability = torch.outer(weights, weights).flatten()

    def bound(m, log_s):
        log_w = log_weight(m + math.exp(log_s) * noise, m, math.exp(log_s))
        return probability @ (log_w.logsumexp(1) - math.log(2))

    m, log_s, h = 0.6, math.log(1.2), 1e-5
    s = math.exp(log_s)
    z = m + s * noise
    slope = -z + (z - m) / s**2  # ∂log w/∂z with the proposal's parameters held fixed
    normalized = log_weight(z, m, s).softmax(1)
    by_m = (bound(m + h, log_s) - bound(m - h, log_s)) / (2 * h)
    by_log_s = (bound(m, log_s + h) - bound(m, log_s - h)) / (2 * h)
    value = probability @ formula(normalized, slope, torch.ones_like(z))
    torch.testing.assert_close(value, by_m, rtol=1e-5, atol=1e-8)
    value = probability @ formula(normalized, slope, s * noise)
    torch.testing.assert_close(value, by_log_s, rtol=1e-5, atol=1e-8)


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
