"""The equations of the diffusion chapter, each by a route that does not use it."""

import itertools
import math
from dataclasses import replace
from functools import cache
from itertools import pairwise

import pytest
import torch
from torch.distributions import Categorical, MixtureSameFamily, MultivariateNormal

from course_lib.diffusion import (
    Diffusion,
    Level,
    LinearGaussianDiffusion,
    Memorizer,
    clip_clean,
    ddim,
    from_clean,
    guided,
    langevin_variance,
    linear_betas,
    noising_marginal,
    posterior,
    replacement_moments,
    reverse_variances,
    step_kl,
    to_clean,
)
from course_lib.diffusion.ddpm import DDPMSchedule
from course_lib.distributions import standard_normal_log_prob
from course_lib.divergences import kl_gaussian
from course_lib.mixtures import GaussianMixture
from course_lib.schedules import Cosine, LinearLogSNR, LinearPath
from course_lib.solvers import (
    exact_divergence,
    flow_log_prob,
    integrate,
    integrate_with_divergence,
    time_grid,
)
from tests.diffusion.exact import axis, conditioned, grid, legendre, line, normal, plane

pytestmark = pytest.mark.usefixtures("float64")

# Two noise levels that preserve no variance and are in no special ratio.
S = Level(torch.tensor(0.9, dtype=torch.float64), torch.tensor(0.3, dtype=torch.float64))
T = Level(torch.tensor(0.6, dtype=torch.float64), torch.tensor(0.7, dtype=torch.float64))
CLOSE = {"atol": 1e-8, "rtol": 1e-8}


# --- the hierarchy and its bound ------------------------------------------------------------------


@pytest.mark.equation(
    "eq-noising-marginal",
    formula=noising_marginal,
    wrong={
        "product of all steps": lambda b: tuple(v[-1].expand(len(v)) for v in noising_marginal(b)),
        "noise without the root": lambda b: (noising_marginal(b)[0], noising_marginal(b)[1] ** 2),
        "product of β for 1 − ᾱ": lambda b: (
            noising_marginal(b)[0],
            torch.cat([torch.zeros(1), b.cumprod(0).sqrt()]),
        ),
        "ᾱ for its root": lambda b: (noising_marginal(b)[0] ** 2, noising_marginal(b)[1]),
    },
    implemented_by="course_lib.diffusion.noising_marginal",
)
def test_noising_marginal(formula):
    betas = torch.tensor([0.1, 0.05, 0.4, 0.3])
    alphas, sigmas = formula(betas)
    factor, variance = torch.tensor(1.0), torch.tensor(0.0)
    for i, beta in enumerate([torch.tensor(0.0), *betas]):
        # One kernel: z ← √(1 − β) z + √β ε.
        factor, variance = (1 - beta).sqrt() * factor, (1 - beta) * variance + beta
        torch.testing.assert_close(alphas[i], factor, **CLOSE)
        torch.testing.assert_close(sigmas[i], variance.sqrt(), **CLOSE)


@pytest.mark.equation(
    "eq-noising-posterior",
    formula=posterior,
    wrong={
        "ᾱ shifted by one step": lambda z, x, s, t: posterior(z, x, replace(s, alpha=t.alpha), t),
        "denominator missing": lambda z, x, s, t: (
            posterior(z, x, s, t)[0] * t.sigma**2,
            posterior(z, x, s, t)[1] * t.sigma**2,
        ),
        "β for its posterior version": lambda z, x, s, t: (
            posterior(z, x, s, t)[0],
            reverse_variances(s, t)[1],
        ),
        "roles of z and x exchanged": lambda z, x, s, t: posterior(x, z, s, t),
    },
    implemented_by="course_lib.diffusion.posterior",
)
def test_noising_posterior(formula):
    x, z = torch.tensor([[0.7, -1.2]]), torch.tensor([[0.4, 0.9]])
    a = T.alpha / S.alpha
    mean, variance = formula(z, x, S, T)
    for d in range(2):
        joint = torch.stack([S.alpha * x[0, d], T.alpha * x[0, d]])
        cov = torch.stack(
            [
                torch.stack([S.sigma**2, a * S.sigma**2]),
                torch.stack([a * S.sigma**2, T.sigma**2]),
            ]
        )
        expected = conditioned(joint, cov, [1], z[0, d : d + 1])
        torch.testing.assert_close(mean[0, d], expected[0][0], **CLOSE)
        torch.testing.assert_close(variance, expected[1][0, 0], **CLOSE)


def joint_of_the_model(model, d):
    """Covariance of (x, z_0, …, z_T) under the model, in dimension d: all means are 0."""
    n = len(model.levels)
    maps, noises = torch.zeros(n + 1, n + 1), torch.zeros(n + 1)
    noises[n] = 1.0  # z_T, the last entry
    for i, (t, s) in enumerate(pairwise(model.levels)):
        a, v = model.reverse_kernel(s, t)
        maps[n - 1 - i, n - i], noises[n - 1 - i] = a[d], v
    k, v = model.decoder()
    maps[0, 1], noises[0] = k[d], v[d]
    # u = maps u + noise, so u = (1 − maps)⁻¹ noise.
    spread = torch.linalg.inv(torch.eye(n + 1) - maps)
    return spread @ noises.diag() @ spread.mT


def noising_of(x, levels):
    """Mean and covariance of (z_0, …, z_T) given one number x."""
    levels = levels[::-1]
    mean = torch.stack([at.alpha * x for at in levels])
    cov = torch.empty(len(levels), len(levels))
    for i, s in enumerate(levels):
        for j, t in enumerate(levels[i:], i):
            cov[i, j] = cov[j, i] = t.alpha / s.alpha * s.sigma**2
    return mean, cov


@pytest.mark.equation(
    "eq-diffusion-elbo",
    formula=lambda model, x: model.bound_terms(x).total(),
    wrong={
        "prior dropped": lambda model, x: sum(model.bound_terms(x)[1:]),
        "mean over dimensions": lambda model, x: model.bound_terms(x).total() / x.shape[1],
        "last entropy dropped": lambda model, x: (
            model.bound_terms(x).total()
            - 0.5 * (model.decoder()[1].log() + math.log(2 * math.pi)).sum()
        ),
        "steps averaged": lambda model, x: (
            model.bound_terms(x)
            ._replace(diffusion=model.bound_terms(x).diffusion / (len(model.levels) - 1))
            .total()
        ),
    },
    implemented_by="course_lib.diffusion.LinearGaussianDiffusion.bound_terms",
)
@pytest.mark.parametrize("reverse", ["posterior", "step"])
def test_diffusion_elbo(formula, reverse):
    schedule = LinearLogSNR(3.0, -2.0)
    model = LinearGaussianDiffusion(
        torch.tensor([0.4, 2.5]), schedule, time_grid(4), reverse=reverse
    )
    x = torch.tensor([[0.7, -1.1], [1.9, 0.3]])
    bound = formula(model, x)
    for row, value in zip(x, bound, strict=True):
        expected = torch.tensor(0.0)
        for d, entry in enumerate(row):
            cov = joint_of_the_model(model, d)
            expected = expected + 0.5 * (
                entry**2 / cov[0, 0] + cov[0, 0].log() + math.log(2 * math.pi)
            )
            true = conditioned(torch.zeros(len(cov)), cov, [0], entry[None])
            expected = expected + kl_gaussian(*noising_of(entry, model.levels), *true)
        torch.testing.assert_close(value, expected, **CLOSE)


@pytest.mark.equation(
    "eq-snr-kl",
    formula=step_kl,
    wrong={
        "half dropped": lambda x, p, s, t: 2 * step_kl(x, p, s, t),
        "order of the levels": lambda x, p, s, t: -step_kl(x, p, s, t),
        "root of the SNR": lambda x, p, s, t: (
            0.5 * (s.alpha / s.sigma - t.alpha / t.sigma) * (x - p).square().sum(1)
        ),
        "mean over dimensions": lambda x, p, s, t: step_kl(x, p, s, t) / x.shape[1],
    },
    implemented_by="course_lib.diffusion.step_kl",
)
def test_snr_kl(formula):
    x, predicted = torch.tensor([[0.7, -1.2, 0.1]]), torch.tensor([[0.2, -0.5, 0.6]])
    z = torch.tensor([[0.4, 0.9, -2.0]])  # any z: it drops out
    (true, v), (guess, _) = posterior(z, x, S, T), posterior(z, predicted, S, T)
    expected = kl_gaussian(true, v * torch.eye(3), guess, v * torch.eye(3))
    torch.testing.assert_close(formula(x, predicted, S, T), expected, **CLOSE)


def bound_integral(mmse, schedule):
    """½ ∫ −(dSNR/dt) mmse(SNR(t)) dt."""
    t, weight = legendre(0.0, 1.0)
    snr = schedule.snr(t)
    return 0.5 * (weight * -schedule.log_snr_rate(t) * snr * mmse(snr)).sum()


def weighted_integral(mmse, schedule, factor):
    t, weight = legendre(0.0, 1.0)
    return 0.5 * (weight * factor(schedule, t) * mmse(schedule.snr(t))).sum()


def mmse_of_points(points, snr):
    """Least squared error of a number that is one of some points, by an integral over what is seen."""
    z, step = axis(80.0, 8001)
    values = []
    for ratio in snr.sqrt():  # z = ratio · x + ε
        density = normal(z, ratio * points[:, None], torch.tensor(1.0))
        total = density.sum(0).clamp(min=1e-300)
        mean = (points[:, None] * density).sum(0) / total
        variance = (points.square()[:, None] * density).sum(0) / total - mean**2
        values.append((variance * total).sum() * step / len(points))
    return torch.stack(values)


@pytest.mark.equation(
    "eq-continuous-bound",
    formula=bound_integral,
    wrong={
        "half dropped": lambda mmse, s: 2 * bound_integral(mmse, s),
        "uniform in t": lambda mmse, s: weighted_integral(mmse, s, lambda s, t: torch.ones_like(t)),
        "weight of the log SNR": lambda mmse, s: weighted_integral(
            mmse, s, lambda s, t: -s.log_snr_rate(t)
        ),
        "error of the noise": lambda mmse, s: bound_integral(lambda snr: snr * mmse(snr), s),
    },
)
def test_continuous_bound(formula):
    # N(0, c) by the logarithm, whatever the path between the same ends.
    c, high, low = 0.7, 4.0, -5.0
    expected = 0.5 * math.log((1 + c * math.exp(high)) / (1 + c * math.exp(low)))
    for schedule in (LinearLogSNR(high, low), Cosine(high, low)):
        value = formula(lambda snr: c / (1 + c * snr), schedule)
        torch.testing.assert_close(value, torch.tensor(expected), **CLOSE)
    # Finite data: log N in the limit.
    points = torch.tensor([-1.2, -0.3, 0.5, 1.3, 2.1])
    wide = LinearLogSNR(7.0, -20.0)
    value = formula(lambda snr: mmse_of_points(points, snr), wide)
    torch.testing.assert_close(value, torch.tensor(math.log(5)), atol=1e-8, rtol=0)


def level_posterior(z, log_snr, outputs, levels=5):
    model = Diffusion((2,), levels, hidden=(4,)).double()
    return model.level_logits(z, log_snr, outputs).softmax(-1)


@pytest.mark.equation(
    "eq-level-posterior",
    formula=level_posterior,
    wrong={
        "likelihood dropped": lambda z, log_snr, outputs: outputs.softmax(-1),
        "network's logits dropped": lambda z, log_snr, outputs: level_posterior(
            z, log_snr, 0 * outputs
        ),
        "root of the SNR": lambda z, log_snr, outputs: level_posterior(z, log_snr / 2, outputs),
        "16 for 17 levels": lambda z, log_snr, outputs: torch.cat(
            [level_posterior(z, log_snr, outputs[..., :-1], 4), torch.zeros(2, 2, 1)], -1
        ),
    },
    implemented_by="course_lib.diffusion.Diffusion.level_logits",
)
def test_level_posterior(formula):
    log_snr, outputs = torch.tensor([1.3, -0.4]), torch.randn(2, 2, 5)
    alpha, sigma = log_snr.sigmoid().sqrt(), (-log_snr).sigmoid().sqrt()
    z = torch.tensor([[0.4, -0.9], [1.2, 0.1]])
    found = formula(z, log_snr, outputs)
    for n, i in itertools.product(range(2), range(2)):
        places = torch.linspace(-1, 1, 5)
        joint = outputs[n, i].exp() * normal(z[n, i], alpha[n] * places, sigma[n] ** 2)
        torch.testing.assert_close(found[n, i], joint / joint.sum(), **CLOSE)


# --- scores ---------------------------------------------------------------------------------------


def by_quadrature(x_t, alpha, sigma):
    """log p_t(x_t) and E[x | x_t] of the mixture of the plane, as sums over a grid of clean points."""
    points, area = grid()
    clean = MixtureSameFamily(
        Categorical(plane().weights), MultivariateNormal(plane().means, plane().covariances)
    )
    prior = clean.log_prob(points).exp() * area
    given = -0.5 * ((x_t[:, None] - alpha * points) / sigma).square().sum(-1)
    joint = prior * given.exp() / (2 * math.pi * sigma**2)
    density = joint.sum(1)
    return density.log(), (joint.unsqueeze(-1) * points).sum(1) / density.unsqueeze(-1)


@pytest.mark.equation(
    "eq-tweedie",
    formula=lambda x_t, score, alpha, sigma: to_clean("score", score, x_t, alpha, sigma),
    wrong={
        "σ for σ²": lambda x_t, s, alpha, sigma: (x_t + sigma * s) / alpha,
        "sign": lambda x_t, s, alpha, sigma: (x_t - sigma**2 * s) / alpha,
        "not divided by α": lambda x_t, s, alpha, sigma: x_t + sigma**2 * s,
    },
    implemented_by="course_lib.diffusion.to_clean",
)
def test_tweedie(formula):
    alpha, sigma = T.alpha, T.sigma
    x_t = torch.tensor([[0.3, 0.8], [-1.1, 0.2]], requires_grad=True)
    log_p, mean = by_quadrature(x_t, alpha, sigma)
    (score,) = torch.autograd.grad(log_p.sum(), x_t)
    torch.testing.assert_close(formula(x_t, score, alpha, sigma), mean, **CLOSE)


def mixture_score_and_mean(mixture, x, alpha, sigma):
    return mixture.score(x, alpha, sigma), mixture.posterior_mean(x, alpha, sigma)


def mixture_by_hand(
    mixture, x, alpha, sigma, unnoised=False, scaled=True, inverse=torch.linalg.inv
):
    """The formulas of the page, in ways that can be wrong."""
    means = alpha * mixture.means if scaled else mixture.means
    cov = alpha**2 * mixture.covariances + sigma**2 * torch.eye(2)
    parts = MultivariateNormal(mixture.means, mixture.covariances)
    parts = parts if unnoised else MultivariateNormal(means, cov)
    r = (parts.log_prob(x[:, None]) + mixture.weights.log()).softmax(-1)
    pull = torch.einsum("kde,nke->nkd", inverse(cov), x[:, None] - means)
    score = -torch.einsum("nk,nkd->nd", r, pull)
    inner = mixture.means + alpha * torch.einsum("kde,nke->nkd", mixture.covariances, pull)
    return score, torch.einsum("nk,nkd->nd", r, inner)


@pytest.mark.equation(
    "eq-mixture-score",
    formula=mixture_score_and_mean,
    wrong={
        "responsibilities of the unnoised mixture": lambda *a: mixture_by_hand(*a, unnoised=True),
        "α dropped": lambda *a: mixture_by_hand(*a, scaled=False),
        "covariance for its inverse": lambda *a: mixture_by_hand(*a, inverse=lambda c: c),
    },
    implemented_by="course_lib.mixtures.GaussianMixture.score",
)
def test_mixture_score(formula):
    alpha, sigma = T.alpha, T.sigma
    x_t = torch.tensor([[0.3, 0.8], [-1.1, 0.2]], requires_grad=True)
    log_p, mean = by_quadrature(x_t, alpha, sigma)
    (expected,) = torch.autograd.grad(log_p.sum(), x_t)
    score, found = formula(plane(), x_t.detach(), alpha, sigma)
    torch.testing.assert_close(score, expected, **CLOSE)
    torch.testing.assert_close(found, mean, **CLOSE)


def memorize(data, z, alpha, sigma):
    return Memorizer(data).denoise(z, alpha, sigma)


@pytest.mark.equation(
    "eq-memorizer",
    formula=memorize,
    wrong={
        "σ² for 2σ²": lambda data, z, alpha, sigma: memorize(data, z, alpha, sigma / 2**0.5),
        "α dropped": lambda data, z, alpha, sigma: memorize(data, z, torch.tensor(1.0), sigma),
        "nearest example": lambda data, z, alpha, sigma: memorize(data, z, alpha, sigma / 100),
        "distance for its square": lambda data, z, alpha, sigma: (
            (-torch.cdist(z, alpha * data) / (2 * sigma**2)).softmax(-1) @ data
        ),
    },
    implemented_by="course_lib.diffusion.Memorizer.denoise",
)
def test_memorizer(formula):
    data = torch.tensor([[0.5, 1.0], [-0.8, 0.2], [0.1, -1.4], [1.1, 0.9]])
    z = torch.tensor([[0.2, 0.5], [-0.3, -0.2]])
    given = MultivariateNormal(T.alpha * data, T.sigma**2 * torch.eye(2)).log_prob(z[:, None]).exp()
    expected = (given / given.sum(1, keepdim=True)) @ data
    torch.testing.assert_close(formula(data, z, T.alpha, T.sigma), expected, **CLOSE)


SCORES = {
    "far off": lambda x: -x,
    "bent": lambda x: torch.sin(x) - 0.4 * x,
    "nearly right": lambda x: line().score(x[:, None], T.alpha, T.sigma)[:, 0] + 0.1 * x**2,
}


@pytest.mark.equation(
    "eq-denoising-score",
    formula=lambda noise, sigma: -noise / sigma,
    wrong={
        "the noise itself": lambda noise, sigma: noise,
        "sign": lambda noise, sigma: noise / sigma,
        "σ² for σ": lambda noise, sigma: -noise / sigma**2,
    },
)
def test_denoising_score(formula):
    # Of x on the line and of ε: a double integral.
    x, step = axis(8.0, 401)
    noise, other = axis(8.0, 401)
    weight = line().log_prob(x[:, None]).exp()[:, None] * step
    weight = weight * normal(noise, 0.0, torch.tensor(1.0)) * other
    x_t = (T.alpha * x[:, None] + T.sigma * noise).flatten()
    target = formula(noise, T.sigma).expand(len(x), -1)
    truth = line().score(x_t[:, None], T.alpha, T.sigma)[:, 0].view_as(weight)
    constants = []
    for score in SCORES.values():
        s = score(x_t).view_as(weight)
        conditional = (weight * (s - target) ** 2).sum()
        marginal = (weight * (s - truth) ** 2).sum()
        constants.append(conditional - marginal)
    constant = (weight * noise**2).sum() / T.sigma**2 - (weight * truth**2).sum()
    for found in constants:
        torch.testing.assert_close(found, constant, **CLOSE)


@pytest.mark.equation(
    "eq-hyvarinen",
    formula=lambda s, divergence: 0.5 * s**2 + divergence,
    wrong={
        "half dropped": lambda s, divergence: s**2 + divergence,
        "divergence doubled": lambda s, divergence: 0.5 * s**2 + 2 * divergence,
        "sign of the divergence": lambda s, divergence: 0.5 * s**2 - divergence,
    },
)
def test_hyvarinen(formula):
    x, step = axis()
    weight = line().log_prob(x[:, None], T.alpha, T.sigma).exp() * step
    truth = line().score(x[:, None], T.alpha, T.sigma)[:, 0]
    for score in SCORES.values():
        points = x.clone().requires_grad_()
        s = score(points)
        (slope,) = torch.autograd.grad(s.sum(), points)
        found = (weight * formula(s.detach(), slope)).sum()
        explicit = 0.5 * (weight * ((s.detach() - truth) ** 2 - truth**2)).sum()
        torch.testing.assert_close(found, explicit, **CLOSE)


def both(kind, prediction, z, alpha, sigma, clip):
    clean = to_clean(kind, prediction, z, alpha, sigma)
    if clip:
        return clip_clean(clean, z, alpha, sigma)
    return clean, from_clean("noise", clean, z, alpha, sigma)


def sign_of_velocity(kind, prediction, *rest):
    return both(kind, -prediction if kind == "velocity" else prediction, *rest)


def sigma_of_score(kind, prediction, z, alpha, sigma, clip):
    scale = 1 / sigma if kind == "score" else 1
    return both(kind, scale * prediction, z, alpha, sigma, clip)


@pytest.mark.equation(
    "eq-parametrizations",
    formula=both,
    wrong={
        "clipped clean example with the old noise": lambda kind, p, z, a, s, clip: (
            both(kind, p, z, a, s, clip)[0],
            both(kind, p, z, a, s, False)[1],
        ),
        "sign of the velocity": sign_of_velocity,
        "σ for σ²": sigma_of_score,
        "the noise not divided by α": lambda kind, p, z, a, s, clip: (
            a * both(kind, p, z, a, s, clip)[0],
            both(kind, p, z, a, s, clip)[1],
        ),
    },
    implemented_by="course_lib.diffusion.to_clean",
)
def test_parametrizations(formula):
    angle = torch.tensor(0.7, requires_grad=True)
    x, noise = torch.tensor([[0.7, -0.4]]), torch.tensor([[-0.9, 1.6]])
    z = angle.cos() * x + angle.sin() * noise
    alpha, sigma = angle.cos().detach(), angle.sin().detach()
    # The velocity along the circle, and the score, both by autograd.
    v = torch.stack([torch.autograd.grad(e, angle, retain_graph=True)[0] for e in z[0]])[None]
    z = z.detach().requires_grad_()
    log_q = -0.5 * ((z - alpha * x) / sigma).square().sum()
    (score,) = torch.autograd.grad(log_q, z)
    z = z.detach()
    predictions = {"clean": x, "noise": noise, "velocity": v, "score": score}
    for kind, prediction in predictions.items():
        clean, found = formula(kind, prediction, z, alpha, sigma, False)
        torch.testing.assert_close(clean, x, **CLOSE)
        torch.testing.assert_close(found, noise, **CLOSE)
        # Clipped or not, the two belong to z.
        clean, found = formula(kind, prediction + 2.5, z, alpha, sigma, True)
        assert clean.abs().max() <= 1
        torch.testing.assert_close(alpha * clean + sigma * found, z, **CLOSE)


# --- SDE, ODE, likelihood -------------------------------------------------------------------------


@pytest.mark.equation(
    "eq-reverse-sde",
    formula=lambda v, score, g: v - 0.5 * g**2 * score,
    wrong={
        "g for g²": lambda v, score, g: v - 0.5 * g * score,
        "half dropped": lambda v, score, g: v - g**2 * score,
        "sign of the score": lambda v, score, g: v + 0.5 * g**2 * score,
        "score dropped": lambda v, score, g: v,
    },
)
@pytest.mark.parametrize("g", [0.6, 1.7])
def test_reverse_sde(formula, g):
    """Run backwards, dx = drift dt + g dw has the densities p_t: Fokker–Planck holds."""
    schedule, mixture, t = Cosine(6.0, -6.0), plane(), torch.tensor(0.4)

    def density(x, t):
        return mixture.log_prob(x, schedule.alpha(t), schedule.sigma(t)).exp()

    def pushed(x):
        score = mixture.score(x, schedule.alpha(t), schedule.sigma(t))
        drift = formula(mixture.velocity(x, t, schedule), score, g)
        return density(x, t).unsqueeze(1) * drift

    def slope(x):
        return torch.func.grad(lambda x: density(x, t).sum())(x)

    x = torch.tensor([[0.3, 0.8], [-1.1, 0.2], [0.9, -0.5]])
    change = torch.func.jacfwd(lambda t: density(x, t))(t)
    divergence = exact_divergence(lambda x, _: pushed(x), x, t)[1]
    laplacian = exact_divergence(lambda x, _: slope(x), x, t)[1]
    # In the time that runs backwards, −∂p/∂t = ∇·(p drift) + ½ g² Δp.
    residual = change + divergence + 0.5 * g**2 * laplacian
    torch.testing.assert_close(residual, torch.zeros(3), atol=1e-8, rtol=0)


def last_divergence_only(velocity, x, times, log_prior, method):
    end = integrate(velocity, x, times, method)
    return log_prior(end) + exact_divergence(velocity, end, times[-1])[1]


@pytest.mark.equation(
    "eq-ode-likelihood",
    formula=flow_log_prob,
    wrong={
        "sign": lambda v, x, times, log_prior, method: (
            log_prior(integrate(v, x, times, method))
            - integrate_with_divergence(v, x, times, method)[1]
        ),
        "last divergence only": last_divergence_only,
        "divergence dropped": lambda v, x, times, log_prior, method: log_prior(
            integrate(v, x, times, method)
        ),
        "scale of the data forgotten": lambda *a: flow_log_prob(*a) - 2 * math.log(2),
    },
    implemented_by="course_lib.solvers.flow_log_prob",
)
def test_ode_likelihood(formula):
    mixture, path = plane(), LinearPath()
    x = torch.tensor([[0.3, 0.8], [-1.1, 0.2], [0.9, -0.5]])
    times = time_grid(160, 0.0, 1.0)
    found = formula(
        lambda x, t: mixture.velocity(x, t, path), x, times, standard_normal_log_prob, "rk4"
    )
    torch.testing.assert_close(found, mixture.log_prob(x), **CLOSE)


def trace_moments(a, kind, n_probes, evaluations=1):
    """Mean and variance of Hutchinson's estimate from several probes, for a symmetric matrix."""
    off = a.square().sum() - a.diagonal().square().sum()
    variance = 2 * off if kind == "rademacher" else 2 * a.square().sum()
    return a.trace(), variance / n_probes / evaluations


@pytest.mark.equation(
    "eq-probe-moments",
    formula=trace_moments,
    wrong={
        "sum for mean": lambda a, kind, n: (n * a.trace(), n**2 * trace_moments(a, kind, n)[1]),
        "noise redrawn within one solve": lambda a, kind, n: trace_moments(a, kind, n, 3),
        "diagonal counted for signs": lambda a, kind, n: trace_moments(a, "gaussian", n),
        "half dropped": lambda a, kind, n: (a.trace(), trace_moments(a, kind, n)[1] / 2),
    },
    implemented_by="course_lib.solvers.probed_divergence",
)
def test_hutchinson(formula):
    a = torch.tensor([[0.7, 0.3, -0.4], [0.3, -0.2, 0.9], [-0.4, 0.9, 0.5]])
    signs = torch.tensor(list(itertools.product([-1.0, 1.0], repeat=3)))
    nodes, weights = (
        torch.from_numpy(v) for v in __import__("numpy").polynomial.hermite_e.hermegauss(6)
    )
    weights = weights / weights.sum()
    for kind, vectors, probability in (
        ("rademacher", signs, torch.full((8,), 1 / 8)),
        (
            "gaussian",
            torch.cartesian_prod(*[nodes] * 3),
            torch.cartesian_prod(*[weights] * 3).prod(1),
        ),
    ):
        # Every pair of probes at once, each an example of its own, in a solve of three steps.
        first, second = torch.cartesian_prod(*[torch.arange(len(vectors))] * 2).T
        probes = torch.stack([vectors[first], vectors[second]])
        chance = probability[first] * probability[second]
        x = torch.zeros(len(first), 3)
        times = time_grid(3, 0.0, 1.0)
        estimate = integrate_with_divergence(lambda x, t: x @ a, x, times, "euler", probes)[1]
        mean, variance = formula(a, kind, 2)
        found = chance @ estimate
        torch.testing.assert_close(found, mean, **CLOSE)
        torch.testing.assert_close(chance @ (estimate - found) ** 2, variance, **CLOSE)


# --- sampling -------------------------------------------------------------------------------------


@pytest.mark.equation(
    "eq-ddim",
    formula=ddim,
    wrong={
        "final ᾱ not 1": lambda d, s, z, times: ddim(
            d, s, z, torch.cat([times[:-1], torch.tensor([1 / s.steps])])
        ),
        "stride ignored": lambda d, s, z, times: ddim(
            d, s, z, (times[0] - torch.arange(len(times)) / s.steps)
        ),
        "denoiser told the end of the step": lambda d, s, z, times: ddim(
            lambda z, t: d(z, times[1:][times[:-1] == t][0].clamp(min=1 / s.steps)), s, z, times
        ),
        "noise dropped": lambda d, s, z, times: d(z, times[0]),
    },
    implemented_by="course_lib.diffusion.ddim",
)
def test_ddim(formula):
    """In the coordinates z/α a step is Euler's, of dx̄/dρ = ε̂ with ρ = σ/α."""
    schedule, mixture = DDPMSchedule(linear_betas(60, 0.01, 0.2)), plane()
    times = schedule.grid(7)
    z = torch.tensor([[0.3, 0.8], [-1.1, 0.2]])
    found = formula(mixture.denoiser(schedule), schedule, z, times)
    straight, rho = z / schedule.alpha(times[0]), schedule.sigma(times) / schedule.alpha(times)
    for i, t in enumerate(times[:-1]):
        alpha, sigma = schedule.alpha(t), schedule.sigma(t)
        noise = -sigma * mixture.score(alpha * straight, alpha, sigma)
        straight = straight + (rho[i + 1] - rho[i]) * noise
    torch.testing.assert_close(found, straight, **CLOSE)


@pytest.mark.equation(
    "eq-reverse-variance",
    formula=reverse_variances,
    wrong={
        "exchanged": lambda s, t: reverse_variances(s, t)[::-1],
        "the posterior's twice": lambda s, t: (reverse_variances(s, t)[0],) * 2,
        "standard deviations": lambda s, t: tuple(v.sqrt() for v in reverse_variances(s, t)),
    },
    implemented_by="course_lib.diffusion.reverse_variances",
)
def test_reverse_variance(formula):
    schedule = LinearLogSNR(4.0, -3.0)
    s, t = (
        Level(schedule.alpha(time), schedule.sigma(time))
        for time in (torch.tensor(0.4), torch.tensor(0.6))
    )
    point, standard = formula(s, t)
    a = t.alpha / s.alpha
    for c, expected in ((0.0, point), (1.0, standard)):
        # Cov of (z_s, z_t) for data of variance c.
        first = s.alpha**2 * c + s.sigma**2
        cov = torch.stack(
            [
                torch.stack([first, a * first]),
                torch.stack([a * first, t.alpha**2 * c + t.sigma**2]),
            ]
        )
        _, variance = conditioned(torch.zeros(2), cov, [1], torch.zeros(1))
        torch.testing.assert_close(variance[0, 0], expected, **CLOSE)


@pytest.mark.equation(
    "eq-guidance",
    formula=guided,
    wrong={
        "scale off by one": lambda c, u, w: w * c - (w - 1) * u,
        "sign": lambda c, u, w: (1 + w) * c + w * u,
        "exchanged": lambda c, u, w: (1 + w) * u - w * c,
    },
    implemented_by="course_lib.diffusion.guided",
)
def test_guidance(formula):
    """The gradient of log p(z) + (1 + w) log p(c|z), by autograd."""
    mixture, w = plane(), 1.5
    z = torch.tensor([[0.3, 0.8], [-1.1, 0.2]], requires_grad=True)
    one = GaussianMixture(torch.ones(1), mixture.means[1:2], mixture.covariances[1:2])
    log_class = (
        mixture.weights[1].log()
        + one.log_prob(z, T.alpha, T.sigma)
        - mixture.log_prob(z, T.alpha, T.sigma)
    )
    tilted = mixture.log_prob(z, T.alpha, T.sigma) + (1 + w) * log_class
    (expected,) = torch.autograd.grad(tilted.sum(), z)
    z = z.detach()
    found = formula(one.score(z, T.alpha, T.sigma), mixture.score(z, T.alpha, T.sigma), w)
    torch.testing.assert_close(found, expected, **CLOSE)


@pytest.mark.equation(
    "eq-guidance-price",
    formula=lambda w, entropy, forward, backward: entropy + w**2 * forward,
    wrong={
        "weight not squared": lambda w, entropy, forward, backward: entropy + w * forward,
        "scale 1 + w": lambda w, entropy, forward, backward: entropy + (1 + w) ** 2 * forward,
        "half": lambda w, entropy, forward, backward: entropy + w**2 * forward / 2,
        "other direction": lambda w, entropy, forward, backward: entropy + w**2 * backward,
        "without the entropy": lambda w, entropy, forward, backward: w**2 * forward,
    },
)
def test_price_of_guidance(formula):
    """One Gaussian of a mixture as the class: the guided denoiser's errors over all levels."""
    every, w = line(), 1.7
    mean, variance = every.means[1, 0], every.covariances[1, 0, 0]
    x, step = axis()
    log_class = normal(x, mean, variance).log()
    log_every = every.log_prob(x[:, None])
    p, ratio = log_class.exp(), log_class - log_every
    forward = (p * ratio).sum() * step
    backward = -(log_every.exp() * ratio).sum() * step
    entropy = -(p * log_class).sum() * step
    # With its own denoiser a Gaussian's bound is its entropy. What the guided one errs more is added.
    levels, weights = legendre(-22.0, 22.0, 120)
    excess = torch.tensor(0.0)
    for log_snr, weight in zip(levels, weights, strict=True):
        alpha, sigma = log_snr.sigmoid().sqrt(), (-log_snr).sigmoid().sqrt()
        spread = alpha**2 * variance + sigma**2
        own = mean + alpha * variance / spread * (x - alpha * mean)
        without = (x + sigma**2 * every.score(x[:, None], alpha, sigma)[:, 0]) / alpha
        tilted = (1 + w) * own - w * without
        # E(x − tilted)² − E(x − own)², where E x given z is `own`.
        worse = tilted**2 - 2 * own * tilted + own**2
        density = normal(x, alpha * mean, spread)
        excess = excess + 0.5 * weight * log_snr.exp() * (density * worse).sum() * step
    expected = formula(w, entropy, forward, backward)
    torch.testing.assert_close(entropy + excess, expected, atol=1e-6, rtol=1e-6)


@cache  # asked again for each wrong version
def replaced(correlation, repeats, steps):
    """The chain itself: mean and variance of the unknown entry after all steps, by Gaussian algebra."""
    schedule = LinearLogSNR(11.0, -11.0)
    cov = torch.tensor([[1.0, correlation], [correlation, 1.0]])
    levels = [Level(schedule.alpha(t), schedule.sigma(t)) for t in time_grid(steps)]
    mean, variance = torch.tensor(0.0), torch.tensor(1.0)
    for t, s in pairwise(levels):
        joint = t.alpha**2 * cov + t.sigma**2 * torch.eye(2)
        # q(z_s | z_t, x) with x̂ for x, whose factors of the unknown and the known entry are:
        clean = t.alpha * torch.linalg.solve(joint, cov)[:, 0]
        of_unknown, noise = posterior(torch.ones(1), clean[:1], s, t)
        of_known = s.alpha * clean[1] * (1 - (t.alpha * s.sigma / (s.alpha * t.sigma)) ** 2)
        back = t.alpha / s.alpha
        for repeat in range(repeats):
            if repeat:
                mean, variance = back * mean, 1 - back**2 + back**2 * variance
            mean = of_unknown[0] * mean + of_known * t.alpha
            variance = of_unknown[0] ** 2 * variance + (of_known * t.sigma) ** 2 + noise
    return torch.stack([mean, variance])


@pytest.mark.equation(
    "eq-replacement",
    formula=replacement_moments,
    wrong={
        "the conditional distribution": lambda rho, r: (rho, 1 - rho**2),
        "repeats without effect": lambda rho, r: replacement_moments(rho, 1),
        "one repeat too few": lambda rho, r: replacement_moments(rho, max(1, r - 1)),
        "only the mean too small": lambda rho, r: (replacement_moments(rho, r)[0], 1 - rho**2),
        "half the correlation": lambda rho, r: (rho * r / (1 + r), 1 - (rho * r / (1 + r)) ** 2),
    },
    implemented_by="course_lib.diffusion.replacement_moments",
)
def test_replacement(formula):
    """The chain with n and 2n steps, extrapolated to infinitely many, for a known value of 1."""
    for correlation, repeats in ((0.8, 1), (0.8, 3), (-0.5, 2)):
        few, many = (replaced(correlation, repeats, steps) for steps in (400, 800))
        found = torch.stack(formula(torch.tensor(correlation), repeats))
        torch.testing.assert_close(found, 2 * many - few, atol=3e-4, rtol=0)
    # In one repeat both integrals are elementary.
    rho = torch.tensor(0.7)
    mean, variance = formula(rho, 1)
    torch.testing.assert_close(mean, (1 - (1 - rho**2).sqrt()) / rho, **CLOSE)
    torch.testing.assert_close(variance, (1 - rho**2) * rho.atanh() / rho, **CLOSE)


@pytest.mark.equation(
    "eq-langevin-bias",
    formula=langevin_variance,
    wrong={
        "√h for √2h": lambda h: langevin_variance(h) / 2,
        "sign": lambda h: 1 / (1 + h / 2),
        "no bias": lambda h: 1.0,
        "half dropped": lambda h: 1 / (1 - h),
    },
    implemented_by="course_lib.diffusion.langevin_variance",
)
def test_langevin_bias(formula):
    h, variance = 0.3, 5.0
    for _ in range(400):
        variance = (1 - h) ** 2 * variance + 2 * h
    assert abs(formula(h) - variance) < 1e-12
