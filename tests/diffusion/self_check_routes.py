"""The answers and slips of the chapter's questions once more, by the library."""

import math

import torch
from torch import tensor

from course_lib.diffusion import Level, Memorizer, guided, langevin_variance, noising_marginal
from course_lib.diffusion.parametrizations import to_clean
from course_lib.diffusion.steps import posterior, step_kl
from course_lib.mixtures import GaussianMixture
from course_lib.solvers import flow_log_prob, time_grid


def preserving(alpha):
    return Level(tensor(alpha), tensor(math.sqrt(1 - alpha**2)))


def jump_to_any_step(b1, b2):
    alphas, sigmas = noising_marginal(tensor([b1, b2]))
    alpha, sigma = alphas[-1], sigmas[-1]
    return sigma, [sigma**2, math.hypot(math.sqrt(b1), math.sqrt(b2)), alpha, (1 - alpha).sqrt()]


def one_step_back(a, b):
    s, t = preserving(a), preserving(b)
    one, zero = torch.ones(1, 1), torch.zeros(1, 1)
    answer, variance = posterior(zero, one, s, t)
    of_latent, _ = posterior(one, zero, s, t)
    # The weight of x in the precision-weighted mean: variance · α_s / σ_s².
    assert torch.isclose(answer.squeeze(), variance * s.alpha / s.sigma**2)
    wrong_index = answer.squeeze() * t.alpha / s.alpha
    return answer, [wrong_index, of_latent, a * (1 - (b / a) ** 2) * s.sigma**2 / t.sigma**2, a]


def cost_of_a_step(u, v, e):
    s, t = (Level(tensor(snr).sqrt(), tensor(1.0)) for snr in (u, v))
    x, predicted = torch.zeros(1, 1), tensor([[e]]).sqrt()
    answer = step_kl(x, predicted, s, t)
    from_nothing = step_kl(x, predicted, s, Level(tensor(0.0), tensor(1.0)))
    lambdas = math.log(u) - math.log(v)
    return answer, [2 * answer, from_nothing, lambdas * e / 2, answer / math.sqrt(e)]


def tweedie_in_numbers(z, a, s):
    level = preserving(a)

    def clean(kind, prediction):
        return to_clean(kind, tensor([[prediction]]), tensor([[z]]), level.alpha, level.sigma)

    answer = clean("score", s)
    return answer, [clean("noise", -s), clean("score", -s), a * answer, clean("noise", 0.0)]


def floor_of_denoising(c, a):
    level = preserving(a)
    data = GaussianMixture(torch.ones(1), torch.zeros(1, 1), torch.full((1, 1, 1), c))
    clean = data.posterior_variance(torch.zeros(1, 1), level.alpha, level.sigma)
    noise = level.snr * clean
    return noise, [0, 1 - noise, clean, level.sigma**2]


def memorizer_weights(a, z):
    level = preserving(a)
    latent, examples = tensor([[z]]), tensor([[-1.0], [1.0]])
    answer = Memorizer(examples).denoise(latent, level.alpha, level.sigma)
    affine = GaussianMixture(torch.ones(1), torch.zeros(1, 1), torch.ones(1, 1, 1))
    weights = Memorizer(examples).log_weights(latent, level.alpha, level.sigma)
    halved = (weights / 2).softmax(-1) @ examples
    unscaled = Memorizer(examples).denoise(latent, tensor(1.0), level.sigma)
    return answer, [
        z / a,
        affine.posterior_mean(latent, level.alpha, level.sigma),
        halved,
        unscaled,
    ]


def ode_density_sign(d, k, n):
    def log_density(rate):
        return flow_log_prob(
            lambda x, t: rate * x,
            torch.ones(1, round(d)),
            time_grid(4, 0, 1),
            lambda z: torch.full((len(z),), n),
        )

    answer = log_density(k)
    return answer, [log_density(-k), n + (answer - n) / d, n, n + d * math.exp(k)]


def langevin_variance_of(h):
    def fixed_point(noise):
        variance = 1.0
        for _ in range(10_000):
            variance = (1 - h) ** 2 * variance + noise
        return variance

    wrong_square = 2 * h / (1 - (1 - 2 * h + 2 * h**2))
    slope = 1 + h * torch.func.jacrev(lambda s: 1 / (1 - s / 2))(tensor(0.0))
    return langevin_variance(h), [1, wrong_square, fixed_point(h), slope]


def guidance_scale(c, u, w):
    with_class, without = tensor([c]), tensor([u])
    answer = guided(with_class, without, w)
    lower = without + w * (with_class - without)
    exchanged = guided(without, with_class, w)
    return answer, [lower, exchanged, c + w * u, answer + 2 * w * u]


ROUTES = {
    "jump-to-any-step": jump_to_any_step,
    "one-step-back": one_step_back,
    "cost-of-a-step": cost_of_a_step,
    "tweedie-in-numbers": tweedie_in_numbers,
    "floor-of-denoising": floor_of_denoising,
    "memorizer-weights": memorizer_weights,
    "ode-density-sign": ode_density_sign,
    "langevin-variance": langevin_variance_of,
    "guidance-scale": guidance_scale,
}
