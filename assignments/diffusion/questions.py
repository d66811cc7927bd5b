"""The diffusion assignment: references, probes, known mistakes and other right forms.

Not given to students: what they get is in ``student/``.
"""

import math
from functools import partial
from itertools import pairwise

import torch
from torch import Tensor

from course_lib.grading import Measure, Mistake, Question, Written
from course_lib.grading.draws import integer, normal, number, signed, uniform

TITLE = "Diffusion and score-based models"
LOG_2PI = math.log(2 * math.pi)


# 1. Signal and noise after each step. -----------------------------------------------------------


def noising_marginal(betas):
    product = torch.cat([torch.ones_like(betas[:1]), (1 - betas).cumprod(0)])
    return product.sqrt(), (1 - product).sqrt()


def noising_marginal_by_steps(betas):
    alphas, variances = [1.0], [0.0]
    for beta in betas.tolist():
        alphas.append(alphas[-1] * math.sqrt(1 - beta))
        variances.append((1 - beta) * variances[-1] + beta)
    return torch.tensor(alphas), torch.tensor([math.sqrt(v) for v in variances])


def noising_marginal_by_logs(betas):
    log_product = torch.cat([torch.zeros_like(betas[:1]), torch.log1p(-betas).cumsum(0)])
    return (log_product / 2).exp(), (-torch.expm1(log_product)).sqrt()


def after_data(first, rest):
    """A sequence that begins with a given value for the data."""
    return torch.cat([torch.full_like(rest[:1], first), rest])


def draw_betas(
    g: torch.Generator, steps: tuple[int, int], low: float, high: float
) -> tuple[Tensor]:
    return (uniform(g, low, high, integer(g, *steps)),)


NOISING_MARGINAL = Question(
    name="noising_marginal",
    points=1,
    reference=noising_marginal,
    draw=(
        partial(draw_betas, steps=(4, 6), low=0.05, high=0.3),
        partial(draw_betas, steps=(7, 10), low=0.1, high=0.6),
    ),
    mistakes=(
        Mistake(
            "ᾱ for α",
            "σ is right, but the first result is the product of the 1 − β, which is α² and not α: each step "
            "shrinks the signal by a root",
            lambda b: (noising_marginal(b)[0] ** 2, noising_marginal(b)[1]),
        ),
        Mistake(
            "no root in the shrinking",
            "The signal is shrunk by 1 − β in each step, and not by its root; σ follows from this wrong α",
            lambda b: (noising_marginal(b)[0] ** 2, (1 - noising_marginal(b)[0] ** 4).sqrt()),
        ),
        Mistake(
            "variance for σ",
            "α is right, but the second result is the variance 1 − α² of the noise; σ is its root",
            lambda b: (noising_marginal(b)[0], noising_marginal(b)[1] ** 2),
        ),
        Mistake(
            "product off by one",
            "The product ends one step too early: after step i it holds the factors of all j ≤ i, β_i too",
            lambda b: noising_marginal(after_data(0.0, b[:-1])),
        ),
        Mistake(
            "data left out",
            "The results begin with the first step; index 0 is the data, with α = 1 and σ = 0",
            lambda b: tuple(values[1:] for values in noising_marginal(b)),
        ),
        Mistake(
            "product of the β",
            "σ² is taken for the product of the β; it is 1 minus the product of the 1 − β",
            lambda b: (noising_marginal(b)[0], after_data(0.0, b.cumprod(0).sqrt())),
        ),
        Mistake(
            "noise never shrunk",
            "The variances β are added up; but a later step shrinks the noise of the earlier ones",
            lambda b: (noising_marginal(b)[0], after_data(0.0, b.cumsum(0).sqrt())),
        ),
        Mistake(
            "one step alone",
            "These are the numbers of each step by itself, q(z_i|z_{i−1}); after i steps the "
            "factors multiply",
            lambda b: (after_data(1.0, (1 - b).sqrt()), after_data(0.0, b.sqrt())),
        ),
        Mistake(
            "σ = 1 − α",
            "α and σ add up to 1 here; it is their squares that do, since the variance is preserved",
            lambda b: (noising_marginal(b)[0], 1 - noising_marginal(b)[0]),
        ),
    ),
    equivalents=(noising_marginal_by_steps, noising_marginal_by_logs),
)


# 2. One step back, if the example is known. -----------------------------------------------------


def posterior_step(z, x, step, betas):
    alphas, sigmas = noising_marginal(betas)
    beta = betas[step - 1]
    of_z = (1 - beta).sqrt() * sigmas[step - 1] ** 2 / sigmas[step] ** 2
    of_x = alphas[step - 1] * beta / sigmas[step] ** 2
    mean = of_z[:, None] * z + of_x[:, None] * x
    return mean, beta * sigmas[step - 1] ** 2 / sigmas[step] ** 2


def posterior_step_by_conditioning(z, x, step, betas):
    """Of the joint Gaussian of z_{i−1} and z_i given x."""
    means, variances = [], []
    for k in range(len(z)):
        kept = torch.ones((), dtype=betas.dtype)
        variance = torch.zeros((), dtype=betas.dtype)
        for beta in betas[: step[k] - 1]:
            kept, variance = kept * (1 - beta).sqrt(), (1 - beta) * variance + beta
        shrink, beta = (1 - betas[step[k] - 1]).sqrt(), betas[step[k] - 1]
        gain = shrink * variance / (shrink**2 * variance + beta)
        means.append(kept * x[k] + gain * (z[k] - shrink * kept * x[k]))
        variances.append(variance - gain * shrink * variance)
    return torch.stack(means), torch.stack(variances)


def posterior_step_by_noise(z, x, step, betas):
    """As DDPM writes the mean: z minus a share of the noise."""
    product = torch.cat([betas.new_ones(1), torch.cumprod(1 - betas, 0)])
    now, before, beta = product[step], product[step - 1], betas[step - 1]
    noise = (z - now.sqrt()[:, None] * x) / (1 - now).sqrt()[:, None]
    mean = (z - (beta / (1 - now).sqrt())[:, None] * noise) / (1 - beta).sqrt()[:, None]
    return mean, beta * (1 - before) / (1 - now)


def posterior_of(z, x, *, of_z, of_x, variance):
    return of_z[:, None] * z + of_x[:, None] * x, variance


def posterior_pieces(step, betas, *, now=None, before=None):
    """ᾱ after the step and before it, and β of the step; other ᾱ on request."""
    product = torch.cat([torch.ones_like(betas[:1]), (1 - betas).cumprod(0)])
    now = product[step] if now is None else now(product, step)
    before = product[step - 1] if before is None else before(product, step)
    return now, before, betas[step - 1]


def posterior_from(z, x, now, before, beta):
    """The posterior of given ᾱ and β."""
    return posterior_of(
        z,
        x,
        of_z=(1 - beta).sqrt() * (1 - before) / (1 - now),
        of_x=before.sqrt() * beta / (1 - now),
        variance=beta * (1 - before) / (1 - now),
    )


def posterior_end_of_step(z, x, step, betas):
    """α_t for α_s in the factor of x."""
    now, before, beta = posterior_pieces(step, betas)
    return posterior_of(
        z,
        x,
        of_z=(1 - beta).sqrt() * (1 - before) / (1 - now),
        of_x=now.sqrt() * beta / (1 - now),
        variance=beta * (1 - before) / (1 - now),
    )


def posterior_without_roots(z, x, step, betas):
    now, before, beta = posterior_pieces(step, betas)
    return posterior_of(
        z,
        x,
        of_z=(1 - beta) * (1 - before) / (1 - now),
        of_x=before * beta / (1 - now),
        variance=beta * (1 - before) / (1 - now),
    )


def posterior_exchanged(z, x, step, betas):
    return posterior_step(x, z, step, betas)


def posterior_not_divided(z, x, step, betas):
    _, before, beta = posterior_pieces(step, betas)
    return posterior_of(
        z,
        x,
        of_z=(1 - beta).sqrt() * (1 - before),
        of_x=before.sqrt() * beta,
        variance=beta * (1 - before),
    )


def posterior_without_start(z, x, step, betas):
    """Products that begin with 1 − β_1, so that the index of the data leads to the other end."""
    now, before, beta = posterior_pieces(step, betas, before=lambda p, i: p[1:][i - 2])
    return posterior_from(z, x, now, before, beta)


def draw_posterior(g: torch.Generator, n: int, d: int, steps: int) -> tuple[Tensor, ...]:
    # The first step is among them, where the end of the step back has no noise, the last one, and others.
    betas = uniform(g, 0.1, 0.5, steps)
    step = torch.cat([torch.tensor([1, steps]), torch.randint(2, steps, (n - 2,), generator=g)])
    step = step[torch.randperm(n, generator=g)]
    x = signed(g, 0.4, 1.5, n, d)
    return normal(g, n, d) + 0.5, x, step, betas


POSTERIOR_STEP = Question(
    name="posterior_step",
    points=2,
    reference=posterior_step,
    draw=(
        lambda g: draw_posterior(g, integer(g, 4, 6), 3, 5),
        lambda g: draw_posterior(g, integer(g, 6, 8), 2, 8),
    ),
    mistakes=(
        Mistake(
            "β for β̃",
            "The mean is right; the variance is β, that of the step forward. Given x it is smaller: β̃",
            lambda z, x, i, b: (posterior_step(z, x, i, b)[0], b[i - 1]),
        ),
        Mistake(
            "standard deviation",
            "The mean is right; the second result is the standard deviation, and the variance is asked for",
            lambda z, x, i, b: (
                posterior_step(z, x, i, b)[0],
                posterior_step(z, x, i, b)[1].sqrt(),
            ),
        ),
        Mistake(
            "α of the wrong end",
            "The factor of x has the α of z_i, where the step begins; it needs α at the end of the step back",
            posterior_end_of_step,
        ),
        Mistake(
            "no roots",
            "The variance is right; in the mean the products 1 − β and ᾱ stand without their roots",
            posterior_without_roots,
        ),
        Mistake(
            "factors exchanged",
            "The variance is right; in the mean the factor of z multiplies x, and that of x multiplies z",
            posterior_exchanged,
        ),
        Mistake(
            "not divided",
            "The division by σ² of z_i is missing: the weights are precisions, which are to be normalized",
            posterior_not_divided,
        ),
        Mistake(
            "no ᾱ of the data",
            "Step 1 is wrong: the product before it is 1, that of the data. An index of −1 reads "
            "the last one",
            posterior_without_start,
        ),
        Mistake(
            "last step left out",
            "Step T is wrong: betas has T entries, and β_T is the last one, betas[T − 1]",
            lambda z, x, i, b: posterior_step(z, x, i.clamp(max=len(b) - 1), b),
        ),
    ),
    equivalents=(posterior_step_by_conditioning, posterior_step_by_noise),
)


# 3. A chain whose bound is known, by hand. ------------------------------------------------------


def chain_table(
    *,
    end: int = 1,
    half: float = 0.5,
    power: float = 1,
    continuous: bool = False,
    prior: str = "average",
    decoder: str = "posterior",
    share: float = 1,
) -> dict[str, float]:
    """x ~ N(0, 2), the levels α² = 0.9, 0.5, 0.1, a perfect denoiser and decoder."""
    c, alpha2 = 2.0, (0.9, 0.5, 0.1)
    snr = [(a / (1 - a)) ** power for a in alpha2]
    if continuous:
        diffusion = 0.5 * math.log((1 + c * snr[0]) / (1 + c * snr[2]))
    else:
        diffusion = half * sum((p[0] - p[1]) * c / (1 + c * p[end]) for p in pairwise(snr))
    signal, noise = share * alpha2[2] * c, 1 - alpha2[2]
    total = signal + noise
    kl = 0.5 * (total - 1 - math.log(noise if prior == "average" else total))
    variance = {"posterior": c / (1 + c * snr[0]), "likelihood": 1 / snr[0]}[decoder]
    reconstruction = 0.5 * (LOG_2PI + 1 + math.log(variance))
    return with_gap({"prior": kl, "diffusion": diffusion, "reconstruction": reconstruction})


ENTROPY = 0.5 * (LOG_2PI + 1 + math.log(2))


def with_gap(terms: dict[str, float]) -> dict[str, float]:
    """The gap that follows from the terms, right or wrong."""
    terms = {k: v for k, v in terms.items() if k != "gap"}
    return terms | {"gap": sum(terms.values()) - ENTROPY}


CHAIN = chain_table()
CHAIN_BOUND = Question(
    name="chain_bound",
    points=2,
    kind="value",
    reference=CHAIN,
    mistakes=(
        Mistake(
            "error at the wrong end",
            "The error of a step is taken at its end with less noise; the denoiser sees the latent with more",
            chain_table(end=0),
        ),
        Mistake(
            "infinitely many steps",
            "diffusion is the integral, which is the limit of infinitely many steps; there are two here",
            chain_table(continuous=True),
        ),
        Mistake(
            "half dropped",
            "The ½ in front of the difference of the signal-to-noise ratios is missing in diffusion",
            chain_table(half=1),
        ),
        Mistake(
            "ratio without square",
            "The ratio is taken as α/σ; the signal-to-noise ratio is α²/σ²",
            chain_table(power=0.5),
        ),
        Mistake(
            "prior of the average",
            "prior is the divergence of the averaged distribution of z_2; the bound averages divergences, "
            "each given x",
            chain_table(prior="marginal"),
        ),
        Mistake(
            "mean forgotten in the prior",
            "In prior the mean αx of z_2 is missing: its square counts, which is α²c in the average",
            chain_table(share=0),
        ),
        Mistake(
            "decoder without the data's distribution",
            "The decoder's variance is σ²/α² here, as if all x were equally likely beforehand; its precision "
            "also has 1/c",
            chain_table(decoder="likelihood"),
        ),
        Mistake(
            "quadratic term dropped",
            "reconstruction lacks ½: the squared error over the variance is 1 in the average",
            with_gap(CHAIN | {"reconstruction": CHAIN["reconstruction"] - 0.5}),
        ),
        Mistake(
            "log 2π dropped",
            "reconstruction lacks the ½ log 2π of the normal density",
            with_gap(CHAIN | {"reconstruction": CHAIN["reconstruction"] - 0.5 * LOG_2PI}),
        ),
        Mistake(
            "gap without the prior",
            "The three terms are right; the gap was computed without the prior's term, which is part of the "
            "bound",
            CHAIN | {"gap": CHAIN["gap"] - CHAIN["prior"]},
        ),
        Mistake(
            "sign of the gap",
            "The sign of the gap is flipped: the bound lies above the entropy",
            CHAIN | {"gap": -CHAIN["gap"]},
        ),
        Mistake(
            "bound for the gap",
            "The three terms are right; gap is their sum, the bound itself, from which the entropy "
            "of x is to "
            "be subtracted",
            CHAIN | {"gap": CHAIN["gap"] + ENTROPY},
        ),
    ),
    equivalents=(
        {name: torch.tensor(value) for name, value in CHAIN.items()},
        {name: round(value, 5) for name, value in CHAIN.items()},
        {name: float(f"{value:.5g}") for name, value in CHAIN.items()},
    ),
)


# 4. The bound of grey levels, from one draw. ----------------------------------------------------


def bound_terms(x, z0, predicted, alpha, sigma, levels, *, gaps=None):
    """Prior, diffusion and reconstruction in nats, shape ``(N,)`` each."""
    gaps = levels - 1 if gaps is None else gaps
    places = 2 * torch.arange(levels, dtype=z0.dtype) / gaps - 1
    clean = places[x]
    prior = 0.5 * ((alpha[-1] * clean) ** 2 + sigma[-1] ** 2 - 1 - 2 * sigma[-1].log()).sum(1)
    snr = (alpha / sigma) ** 2
    squared = ((clean - predicted) ** 2).sum(2)  # (T, N)
    diffusion = 0.5 * ((snr[:-1] - snr[1:])[:, None] * squared).sum(0)
    logits = -0.5 * ((z0[:, :, None] - alpha[0] * places) / sigma[0]) ** 2
    reconstruction = -logits.log_softmax(-1).gather(2, x[:, :, None])[:, :, 0].sum(1)
    return prior, diffusion, reconstruction


def bound_bits(x, z0, predicted, alpha, sigma, levels):
    return sum(bound_terms(x, z0, predicted, alpha, sigma, levels)) / (x.shape[1] * math.log(2))


def bound_bits_by_loops(x, z0, predicted, alpha, sigma, levels):
    normal_at = torch.distributions.Normal
    bits = []
    for n in range(len(x)):
        clean = 2 * x[n].to(z0) / (levels - 1) - 1
        last = normal_at(alpha[-1] * clean, sigma[-1])
        nats = torch.distributions.kl_divergence(last, normal_at(0.0, 1.0)).sum()
        for i in range(1, len(alpha)):
            gained = alpha[i - 1] ** 2 / sigma[i - 1] ** 2 - alpha[i] ** 2 / sigma[i] ** 2
            nats = nats + 0.5 * gained * ((clean - predicted[i - 1, n]) ** 2).sum()
        for d in range(x.shape[1]):
            density = [
                normal_at(alpha[0] * (2 * k / (levels - 1) - 1), sigma[0]).log_prob(z0[n, d])
                for k in range(levels)
            ]
            density = torch.stack(density)
            nats = nats - (density[x[n, d]] - density.logsumexp(0))
        bits.append(nats / x.shape[1] / math.log(2))
    return torch.stack(bits)


def bits_of(change):
    """A mistake of `bound_bits` that concerns how the terms are put together."""

    def answer(x, z0, predicted, alpha, sigma, levels):
        terms = bound_terms(x, z0, predicted, alpha, sigma, levels)
        return change(*terms, x.shape[1], len(predicted)) / (x.shape[1] * math.log(2))

    return answer


def bits_with_density(x, z0, predicted, alpha, sigma, levels):
    """The density of z_0 for the probability of the level."""
    prior, diffusion, _ = bound_terms(x, z0, predicted, alpha, sigma, levels)
    clean = 2 * x.to(z0) / (levels - 1) - 1
    squared = ((z0 - alpha[0] * clean) / sigma[0]) ** 2
    density = 0.5 * (squared + LOG_2PI + 2 * sigma[0].log()).sum(1)
    return (prior + diffusion + density) / (x.shape[1] * math.log(2))


def bits_with_ratio(x, z0, predicted, alpha, sigma, levels):
    """α/σ for the signal-to-noise ratio."""
    prior, _, reconstruction = bound_terms(x, z0, predicted, alpha, sigma, levels)
    root = (alpha.sqrt(), sigma.sqrt())
    diffusion = bound_terms(x, z0, predicted, *root, levels)[1]
    return (prior + diffusion + reconstruction) / (x.shape[1] * math.log(2))


def bits_on_other_places(x, z0, predicted, alpha, sigma, levels):
    """Level k at 2k/K − 1."""
    terms = bound_terms(x, z0, predicted, alpha, sigma, levels, gaps=levels)
    return sum(terms) / (x.shape[1] * math.log(2))


def draw_bound(
    g: torch.Generator, n: int, d: int, steps: int, levels: tuple[int, int]
) -> tuple[Tensor | int, ...]:
    levels = integer(g, *levels)
    # As much noise at the beginning as between two neighbouring levels, so that no term is negligible.
    log_snr = 2 * math.log(levels - 1) + uniform(g, -1.4, -0.6, 1)
    last = uniform(g, -1.5, -0.5, 1)
    parts = torch.cat([torch.zeros(1), uniform(g, 0.6, 1.4, steps).cumsum(0)])
    log_snr = log_snr + (last - log_snr) * parts / parts[-1]
    alpha, sigma = log_snr.sigmoid().sqrt(), (-log_snr).sigmoid().sqrt()
    x = torch.randint(levels, (n, d), generator=g)
    x[:, 0] = torch.arange(n) % 2 * (levels - 1)  # black and white are among them
    clean = 2 * x / (levels - 1) - 1
    z0 = alpha[0] * clean + sigma[0] * normal(g, n, d)
    error = 0.5 / (1 + (alpha / sigma)[1:, None, None]) * normal(g, steps, n, d)
    return x, z0, clean + error, alpha, sigma, levels


BOUND_BITS = Question(
    name="bound_bits",
    points=2,
    reference=bound_bits,
    draw=(
        lambda g: draw_bound(g, integer(g, 3, 5), 5, 3, (4, 7)),
        lambda g: draw_bound(g, integer(g, 5, 7), 3, 5, (9, 14)),
    ),
    mistakes=(
        Mistake(
            "prior dropped",
            "The prior's term is missing: without it the number is no bound on a likelihood",
            bits_of(lambda prior, steps, decoder, d, t: steps + decoder),
        ),
        Mistake(
            "reconstruction dropped",
            "The reconstruction term is missing: what z_0 leaves open of the levels has to be paid for, too",
            bits_of(lambda prior, steps, decoder, d, t: prior + steps),
        ),
        Mistake(
            "diffusion alone",
            "This is the diffusion term alone; prior and reconstruction are parts of the bound",
            bits_of(lambda prior, steps, decoder, d, t: steps),
        ),
        Mistake(
            "mean over dimensions",
            "The squared error is averaged over the dimensions while the other terms are summed",
            bits_of(lambda prior, steps, decoder, d, t: prior + steps / d + decoder),
        ),
        Mistake(
            "mean over steps",
            "The steps are averaged; the bound is the sum over all of them",
            bits_of(lambda prior, steps, decoder, d, t: prior + steps / t + decoder),
        ),
        Mistake(
            "half dropped",
            "The ½ in the divergence of a step is missing",
            bits_of(lambda prior, steps, decoder, d, t: prior + 2 * steps + decoder),
        ),
        Mistake(
            "SNR in the wrong order",
            "The diffusion term is negative: a step counts SNR at its end with less noise minus "
            "SNR at the other",
            bits_of(lambda prior, steps, decoder, d, t: prior - steps + decoder),
        ),
        Mistake(
            "ratio without square",
            "The ratio is taken as α/σ; the signal-to-noise ratio is α²/σ²",
            bits_with_ratio,
        ),
        Mistake(
            "K for K − 1",
            "Level k is put at 2k/K − 1; K levels have K − 1 gaps, so that the last one lies at 1",
            bits_on_other_places,
        ),
        Mistake(
            "density for probability",
            "The decoder's term is the density of z_0; it is to be the probability of the level, "
            "normalized over "
            "all K levels",
            bits_with_density,
        ),
        Mistake(
            "nats/dim",
            "This is in nats per dimension: divide by log 2",
            lambda *x: math.log(2) * bound_bits(*x),
        ),
        Mistake(
            "bits per image",
            "This is in bits for the whole image: divide by the number of dimensions",
            lambda *x: x[0].shape[1] * bound_bits(*x),
        ),
        Mistake(
            "sign",
            "This is the bound on log P(x); bits count −log₂ P(x), so they are not negative",
            lambda *x: -bound_bits(*x),
        ),
    ),
    equivalents=(bound_bits_by_loops,),
)


# 5. The score of a mixture under noise. ---------------------------------------------------------


def mixture_parts(z, weights, means, covariances, alpha, sigma):
    """Log-densities of the components with their weights, (N, K), and S⁻¹(z − αm), (N, K, D)."""
    noised = alpha**2 * covariances + sigma**2 * torch.eye(z.shape[1], dtype=z.dtype)
    apart = z[:, None] - alpha * means
    solved = torch.linalg.solve(noised, apart[..., None])[..., 0]
    log_det = torch.linalg.slogdet(noised)[1]
    log_joint = weights.log() - 0.5 * ((apart * solved).sum(-1) + log_det)
    return log_joint, solved


def mixture_score(z, weights, means, covariances, alpha, sigma):
    log_joint, solved = mixture_parts(z, weights, means, covariances, alpha, sigma)
    return -(log_joint.softmax(1)[..., None] * solved).sum(1)


def mixture_log_density(z, weights, means, covariances, alpha, sigma):
    noised = alpha**2 * covariances + sigma**2 * torch.eye(z.shape[1]).to(z)
    components = torch.distributions.MultivariateNormal(alpha * means, noised)
    return (components.log_prob(z[:, None]) + weights.log()).logsumexp(1)


def mixture_score_by_autograd(z, *mixture):
    z = z.clone().requires_grad_()
    return torch.autograd.grad(mixture_log_density(z, *mixture).sum(), z)[0]


def mixture_score_by_tweedie(z, weights, means, covariances, alpha, sigma):
    """From the posterior mean of x, as the best denoiser."""
    log_joint, solved = mixture_parts(z, weights, means, covariances, alpha, sigma)
    each = means + alpha * torch.einsum("kde,nke->nkd", covariances, solved)
    clean = (log_joint.softmax(1)[..., None] * each).sum(1)
    return (alpha * clean - z) / sigma**2


def weighted(shares):
    """A mistake of `mixture_score` that concerns the responsibilities."""

    def answer(*mixture):
        _, solved = mixture_parts(*mixture)
        return -(shares(*mixture)[..., None] * solved).sum(1)

    return answer


def responsibilities(*mixture):
    return mixture_parts(*mixture)[0].softmax(1)


def unnoised(z, weights, means, covariances, alpha, sigma):
    return responsibilities(z, weights, means, covariances, 1.0, 0.0)


def without_weights(z, weights, *others):
    return responsibilities(z, torch.ones_like(weights), *others)


def without_determinants(z, weights, means, covariances, alpha, sigma):
    apart = z[:, None] - alpha * means
    _, solved = mixture_parts(z, weights, means, covariances, alpha, sigma)
    return (weights.log() - 0.5 * (apart * solved).sum(-1)).softmax(1)


def mixture_posterior_mean(z, weights, means, covariances, alpha, sigma):
    score = mixture_score(z, weights, means, covariances, alpha, sigma)
    return (z + sigma**2 * score) / alpha


def mixture_without_inverse(z, weights, means, covariances, alpha, sigma):
    log_joint, _ = mixture_parts(z, weights, means, covariances, alpha, sigma)
    apart = z[:, None] - alpha * means
    return -(log_joint.softmax(1)[..., None] * apart).sum(1)


def draw_mixture(
    g: torch.Generator, n: int, k: int, d: int, nats: float
) -> tuple[Tensor | float, ...]:
    """Overlapping components, and points whose densities a last dimension lowers by so many nats.

    In that dimension all components agree; then the space is turned.
    """
    while True:
        means, turn = 1.2 * normal(g, k, d), torch.linalg.qr(normal(g, d + 1, d + 1))[0]
        spread = normal(g, k, d, d)
        blocks = torch.zeros(k, d + 1, d + 1, dtype=means.dtype)
        blocks[:, :d, :d] = 0.3 * spread @ spread.mT + 0.1 * torch.eye(d)
        blocks[:, d, d] = 0.3
        alpha, sigma = number(g, 0.4, 0.8), number(g, 0.4, 0.8)
        weights = uniform(g, 0.3, 2, k)
        weights = weights / weights.sum()
        means = torch.cat([means, torch.zeros(k, 1)], 1) @ turn.T
        covariances = turn @ blocks @ turn.T
        away = math.sqrt(2 * nats * (0.3 * alpha**2 + sigma**2)) + uniform(g, 0.1, 1, n, 1)
        z = torch.cat([1.2 * normal(g, n, d), away], 1) @ turn.T
        mixture = z, weights, means, covariances, alpha, sigma
        # Several components count, and each thing that makes up their shares.
        r = responsibilities(*mixture)
        others = unnoised(*mixture), without_weights(*mixture), without_determinants(*mixture)
        differ = min((r - other).abs().max().item() for other in others)
        if r.amax(1).median() < 0.9 and differ > 0.1:
            return mixture


MIXTURE_SCORE = Question(
    name="mixture_score",
    points=2,
    reference=mixture_score,
    # Near the components, and so far from them that no density there is a number of float32.
    draw=(
        lambda g: draw_mixture(g, integer(g, 4, 6), 3, 1, 0),
        lambda g: draw_mixture(g, integer(g, 6, 8), 4, 2, 120),
    ),
    mistakes=(
        Mistake(
            "responsibilities without noise",
            "The responsibilities are those of the mixture without noise; z is noised, so they belong to the "
            "components αm and S",
            weighted(unnoised),
        ),
        Mistake(
            "α dropped",
            "The means are not shrunk: noise moves the mean of a component from m to αm",
            lambda z, w, m, c, a, s: mixture_score(z, w, m / a, c, a, s),
        ),
        Mistake(
            "α² dropped",
            "The covariances are not shrunk: the noised ones are α²C + σ²I",
            lambda z, w, m, c, a, s: mixture_score(z, w, m, c / a**2, a, s),
        ),
        Mistake(
            "α for α²",
            "The covariances are shrunk by α; a covariance is quadratic, so it is multiplied by α²",
            lambda z, w, m, c, a, s: mixture_score(z, w, m, c / a, a, s),
        ),
        Mistake(
            "σ for σ²",
            "The noise adds σ²I to the covariances; σI was added",
            lambda z, w, m, c, a, s: mixture_score(z, w, m, c, a, s**0.5),
        ),
        Mistake(
            "weights dropped",
            "The weights of the mixture are missing in the responsibilities",
            weighted(without_weights),
        ),
        Mistake(
            "weights for responsibilities",
            "The components' scores are averaged with the mixture's weights; what counts is the "
            "probability of "
            "a component given z",
            weighted(lambda z, w, m, c, a, s: w.expand(len(z), -1)),
        ),
        Mistake(
            "determinants dropped",
            "The determinants of the covariances are missing in the responsibilities: the components' "
            "densities have different constants",
            weighted(without_determinants),
        ),
        Mistake(
            "covariance not inverted",
            "The distances from the means are not multiplied by the inverse of S",
            mixture_without_inverse,
        ),
        Mistake(
            "posterior mean",
            "This is the posterior mean of x, the best denoiser; the score is asked for",
            mixture_posterior_mean,
        ),
        Mistake(
            "sign",
            "The sign is flipped: the score points to where the density rises",
            lambda *x: -mixture_score(*x),
        ),
    ),
    equivalents=(mixture_score_by_autograd, mixture_score_by_tweedie),
)


# 6. From the score to the clean example and its noise. ------------------------------------------


def per_image(value):
    return value[:, None, None, None]


def predict_clean(z, score, alpha, sigma):
    alpha, sigma = per_image(alpha), per_image(sigma)
    clean = ((z + sigma**2 * score) / alpha).clamp(-1, 1)
    return clean, (z - alpha * clean) / sigma


def predict_clean_by_noise(z, score, alpha, sigma):
    clean, noise = torch.empty_like(z), torch.empty_like(z)
    for n in range(len(z)):
        predicted = -sigma[n] * score[n]
        clean[n] = ((z[n] - sigma[n] * predicted) / alpha[n]).clip(-1, 1)
        noise[n] = (z[n] - alpha[n] * clean[n]) / sigma[n]
    return clean, noise


def predict_clean_by_change(z, score, alpha, sigma):
    """The noise takes up what clipping has taken away."""
    alpha, sigma = alpha[:, None, None, None], sigma[:, None, None, None]
    free = z / alpha + sigma.square() / alpha * score
    clean = torch.minimum(torch.maximum(free, torch.tensor(-1.0)), torch.tensor(1.0))
    return clean, -sigma * score + alpha / sigma * (free - clean)


def clean_by(estimate, clip=lambda x: x.clamp(-1, 1)):
    """Another estimate, clipped, with the noise that belongs to it."""

    def answer(z, score, alpha, sigma):
        alpha, sigma = per_image(alpha), per_image(sigma)
        clean = clip(estimate(z, score, alpha, sigma))
        return clean, (z - alpha * clean) / sigma

    return answer


def unclipped(z, s, a, b):
    return (z + b**2 * s) / a


def noise_by(noise):
    """The right clean example with another noise; `noise` gets z, the score, x̂, α, σ."""

    def answer(z, score, alpha, sigma):
        clean, _ = predict_clean(z, score, alpha, sigma)
        return clean, noise(z, score, clean, per_image(alpha), per_image(sigma))

    return answer


def draw_scored(g: torch.Generator, n: int, *shape: int) -> tuple[Tensor, ...]:
    # A third of the estimates lie below −1, a third above 1, and a third between.
    count = n * math.prod(shape)
    inside = signed(g, 0.1, 0.9, count - 2 * (count // 3))
    outside = uniform(g, 1.1, 1.9, count // 3), -uniform(g, 1.1, 1.9, count // 3)
    clean = torch.cat([inside, *outside])[torch.randperm(count, generator=g)].view(n, *shape)
    # α² + σ² is not 1.
    alpha, sigma = uniform(g, 0.3, 0.9, n), uniform(g, 0.2, 0.7, n)
    noise = signed(g, 0.3, 1.5, n, *shape)
    z = per_image(alpha) * clean + per_image(sigma) * noise
    return z, -noise / per_image(sigma), alpha, sigma


PREDICT_CLEAN = Question(
    name="predict_clean",
    points=1.5,
    reference=predict_clean,
    draw=(
        lambda g: draw_scored(g, integer(g, 4, 6), 1, 3, 2),
        lambda g: draw_scored(g, integer(g, 2, 4), 2, 2, 4),
    ),
    mistakes=(
        Mistake(
            "σ for σ²",
            "The score is multiplied by σ; Tweedie's formula has σ², because the score is −ε/σ",
            clean_by(lambda z, s, a, b: (z + b * s) / a),
        ),
        Mistake(
            "sign of the score",
            "The score is subtracted; Tweedie's formula adds it, since it points to where the density rises",
            clean_by(lambda z, s, a, b: (z - b**2 * s) / a),
        ),
        Mistake(
            "α dropped",
            "The division by α is missing: z + σ² times the score estimates αx",
            clean_by(lambda z, s, a, b: z + b**2 * s),
        ),
        Mistake(
            "ᾱ for α",
            "The division is by α², which is ᾱ elsewhere; α itself is the factor of the signal",
            clean_by(lambda z, s, a, b: (z + b**2 * s) / a**2),
        ),
        Mistake(
            "not clipped",
            "The clean example is not clipped to [−1, 1]",
            clean_by(unclipped, clip=lambda x: x),
        ),
        Mistake(
            "clipped to [0, 1]",
            "The clean example is clipped to [0, 1]; the data lie in [−1, 1]",
            clean_by(unclipped, clip=lambda x: x.clamp(0, 1)),
        ),
        Mistake(
            "z clipped",
            "z is clipped, and not the estimate of x",
            clean_by(lambda z, s, a, b: (z.clamp(-1, 1) + b**2 * s) / a, clip=lambda x: x),
        ),
        Mistake(
            "old noise kept",
            "The clean example is right, but the noise is that from before clipping: z = αx̂ + σε̂ "
            "no longer holds",
            noise_by(lambda z, s, x, a, b: -b * s),
        ),
        Mistake(
            "noise not divided",
            "The clean example is right; z − αx̂ is σε̂, and the noise ε̂ has unit variance",
            noise_by(lambda z, s, x, a, b: z - a * x),
        ),
        Mistake(
            "noise divided by σ²",
            "The clean example is right; (z − αx̂)/σ² is minus a score, and the noise is divided by σ alone",
            noise_by(lambda z, s, x, a, b: (z - a * x) / b**2),
        ),
        Mistake(
            "α dropped in the noise",
            "The clean example is right, but α is missing in the noise: x̂ is shrunk before it is subtracted",
            noise_by(lambda z, s, x, a, b: (z - x) / b),
        ),
        Mistake(
            "sign of the noise",
            "The clean example is right, and the sign of the noise is flipped",
            noise_by(lambda z, s, x, a, b: (a * x - z) / b),
        ),
    ),
    equivalents=(predict_clean_by_noise, predict_clean_by_change),
)


# 7. One step of a reverse process. --------------------------------------------------------------


def reverse_step(z, score, noise, beta, g, h):
    return z + h / 2 * (beta * z + (beta + g**2) * score) + g * math.sqrt(h) * noise


def reverse_step_by_velocity(z, score, noise, beta, g, h):
    velocity = -0.5 * beta * z - 0.5 * beta * score
    return z - h * (velocity - 0.5 * g**2 * score) + math.sqrt(h * g**2) * noise


def reverse_step_by_langevin(z, score, noise, beta, g, h):
    """A step of the ODE and one of Langevin dynamics of the size hg²/2."""
    step = h * g**2 / 2
    return z + h * beta * (z + score) / 2 + step * score + (2 * step) ** 0.5 * noise


def draw_reverse(
    g: torch.Generator, n: int, d: int, strength: tuple[float, float], share: tuple[float, float]
) -> tuple[Tensor | float, ...]:
    strength = number(g, *strength)  # not near 1, where it is its own square
    beta = round(strength**2 / number(g, *share), 3)
    z, score = signed(g, 0.4, 1.5, n, d), signed(g, 0.5, 2, n, d)
    return z, score, normal(g, n, d), beta, strength, number(g, 0.02, 0.2)


REVERSE_STEP = Question(
    name="reverse_step",
    points=1,
    reference=reverse_step,
    # Less noise than the forward process has, and more.
    draw=(
        lambda g: draw_reverse(g, integer(g, 4, 6), 3, (0.5, 0.8), (0.15, 0.4)),
        lambda g: draw_reverse(g, integer(g, 2, 4), 5, (1.3, 2), (1.6, 3)),
    ),
    mistakes=(
        Mistake(
            "always Anderson's drift",
            "The drift is that of g² = β, Anderson's time reversal; for another g the score's "
            "factor is ½(β + g²)",
            lambda z, s, e, b, g, h: z + h / 2 * (b * z + 2 * b * s) + g * math.sqrt(h) * e,
        ),
        Mistake(
            "drift of the ODE",
            "The drift is that of the probability-flow ODE; noise of strength g needs ½g² times "
            "the score besides",
            lambda z, s, e, b, g, h: z + h / 2 * b * (z + s) + g * math.sqrt(h) * e,
        ),
        Mistake(
            "g for g²",
            "The score is multiplied by ½g where the drift has ½g²",
            lambda z, s, e, b, g, h: z + h / 2 * (b * z + (b + g) * s) + g * math.sqrt(h) * e,
        ),
        Mistake(
            "half dropped",
            "The score is multiplied by g² where the drift has ½g²",
            lambda z, s, e, b, g, h: (
                z + h / 2 * (b * z + (b + 2 * g**2) * s) + g * math.sqrt(h) * e
            ),
        ),
        Mistake(
            "flow's score dropped",
            "The velocity is taken for −½βz alone; it is f − ½β times the score, with f = −½βz",
            lambda z, s, e, b, g, h: z + h / 2 * (b * z + g**2 * s) + g * math.sqrt(h) * e,
        ),
        Mistake(
            "direction of time",
            "The drift is added as for a step forward in time; from t to t − h its sign is reversed",
            lambda z, s, e, b, g, h: z - h / 2 * (b * z + (b + g**2) * s) + g * math.sqrt(h) * e,
        ),
        Mistake(
            "sign of the linear drift",
            "z is pulled to 0 as in the forward process; going back, the factor of z is 1 + ½βh",
            lambda z, s, e, b, g, h: z + h / 2 * (-b * z + (b + g**2) * s) + g * math.sqrt(h) * e,
        ),
        Mistake(
            "sign of the score's noise term",
            "½g² times the score is taken away, so that the noise is not made up for: it belongs beside ½β",
            lambda z, s, e, b, g, h: z + h / 2 * (b * z + (b - g**2) * s) + g * math.sqrt(h) * e,
        ),
        Mistake(
            "h for √h",
            "The noise is multiplied by gh; its variance grows like g²h, so its factor is g√h",
            lambda z, s, e, b, g, h: reverse_step(z, s, 0 * e, b, g, h) + g * h * e,
        ),
        Mistake(
            "g² for g in the noise",
            "The noise is multiplied by g²√h; its variance is g²h, so its factor is g√h",
            lambda z, s, e, b, g, h: reverse_step(z, s, 0 * e, b, g, h) + g**2 * math.sqrt(h) * e,
        ),
        Mistake(
            "noise of the forward process",
            "The noise has the strength √β of the forward process; g is the strength that is asked for",
            lambda z, s, e, b, g, h: reverse_step(z, s, 0 * e, b, g, h) + math.sqrt(b * h) * e,
        ),
    ),
    equivalents=(reverse_step_by_velocity, reverse_step_by_langevin),
)


# 8. DDIM that leaves out levels. ----------------------------------------------------------------


def predicted_noise(z, i, weight, bias):
    return torch.tanh(z @ weight + bias[i])


def ddim_sample(z, alpha, sigma, stride, weight, bias):
    for t in range(len(alpha) - 1, 0, -stride):
        noise = predicted_noise(z, t, weight, bias)
        clean = (z - sigma[t] * noise) / alpha[t]
        z = alpha[t - stride] * clean + sigma[t - stride] * noise
    return z


def ddim_by_euler(z, alpha, sigma, stride, weight, bias):
    """Euler's method in z/α and σ/α."""
    kept = torch.arange(len(alpha) - 1, -1, -stride)
    ratio = sigma[kept] / alpha[kept]
    y = z / alpha[-1]
    for k in range(len(kept) - 1):
        noise = torch.tanh(alpha[kept[k]] * y @ weight + bias[kept[k]])
        y = y + (ratio[k + 1] - ratio[k]) * noise
    return alpha[0] * y


def ddim_wrong(
    z,
    alpha,
    sigma,
    stride,
    weight,
    bias,
    *,
    pace=None,
    asked=lambda t, s: t,
    to=lambda t, s: s,
    until=0,
    update=None,
):
    """`ddim_sample` with one thing wrong."""
    pace = stride if pace is None else pace
    for t in range(len(alpha) - 1, until, -pace):
        s = t - pace
        noise = predicted_noise(z, asked(t, s), weight, bias)
        s = to(t, s)
        if update is not None:
            z = update(z, noise, alpha[t], sigma[t], alpha[s], sigma[s])
            continue
        clean = (z - sigma[t] * noise) / alpha[t]
        z = alpha[s] * clean + sigma[s] * noise
    return z


def ddim_with(**change):
    return lambda *inputs: ddim_wrong(*inputs, **change)


def ancestral_mean(z, noise, alpha_t, sigma_t, alpha_s, sigma_s):
    """The mean of the posterior, which is η = 1 without its noise."""
    ratio = alpha_t / alpha_s
    step = sigma_t**2 - (ratio * sigma_s) ** 2
    clean = (z - sigma_t * noise) / alpha_t
    return ratio * sigma_s**2 / sigma_t**2 * z + alpha_s * step / sigma_t**2 * clean


def squared_noise(z, noise, alpha_t, sigma_t, alpha_s, sigma_s):
    clean = (z - sigma_t**2 * noise) / alpha_t
    return alpha_s * clean + sigma_s**2 * noise


def squared_signal(z, noise, alpha_t, sigma_t, alpha_s, sigma_s):
    clean = (z - sigma_t * noise) / alpha_t**2
    return alpha_s**2 * clean + sigma_s * noise


def noise_of_start(z, noise, alpha_t, sigma_t, alpha_s, sigma_s):
    clean = (z - sigma_t * noise) / alpha_t
    return alpha_s * clean + sigma_t * noise


def no_noise_again(z, noise, alpha_t, sigma_t, alpha_s, sigma_s):
    return alpha_s * (z - sigma_t * noise) / alpha_t


def draw_ddim(
    g: torch.Generator, n: int, d: int, steps: int, stride: int
) -> tuple[Tensor | int, ...]:
    # The first level is far from the data, so that it shows whether the last step leads to the data.
    log_snr = 2.5 - torch.cat([torch.zeros(1), uniform(g, 0.5, 0.8, steps - 1).cumsum(0)])
    alpha, sigma = (after_data(v, x) for v, x in ((1.0, log_snr), (0.0, -log_snr)))
    alpha[1:], sigma[1:] = log_snr.sigmoid().sqrt(), (-log_snr).sigmoid().sqrt()
    weight, bias = 0.8 * normal(g, d, d), 0.7 * normal(g, steps + 1, d)
    return normal(g, n, d), alpha, sigma, stride, weight, bias


DDIM_SAMPLE = Question(
    name="ddim_sample",
    points=1.5,
    reference=ddim_sample,
    draw=(
        # Four steps, then three: their number is to be computed.
        lambda g: draw_ddim(g, integer(g, 4, 6), 3, 8, 2),
        lambda g: draw_ddim(g, integer(g, 2, 4), 4, 9, 3),
    ),
    mistakes=(
        Mistake(
            "stride ignored within the step",
            "Every step leads to the level below, t − 1, although the next one begins at t − stride",
            ddim_with(to=lambda t, s: t - 1),
        ),
        Mistake(
            "all levels visited",
            "All levels are visited; the stride leaves out those between",
            ddim_with(pace=1),
        ),
        Mistake(
            "last step not to the data",
            "The last step ends at level 1, which has noise; level 0 has α = 1 and σ = 0",
            ddim_with(to=lambda t, s: max(s, 1)),
        ),
        Mistake(
            "last step missing",
            "The last step is missing: the result is still noised; the data are level 0",
            lambda z, a, s, k, w, b: ddim_wrong(z, a, s, k, w, b, until=k),
        ),
        Mistake(
            "three steps",
            "The result is right where three steps are to be made; their number depends on T and the stride",
            lambda z, a, s, k, w, b: ddim_wrong(z, a, s, k, w, b, until=len(a) - 1 - 3 * k),
        ),
        Mistake(
            "network asked at the wrong level",
            "The noise is predicted for the level at the end of the step; z belongs to the level t "
            "where it begins",
            ddim_with(asked=lambda t, s: s),
        ),
        Mistake(
            "σ² for σ",
            "The noise is multiplied by σ²; in z = αx + σε its factor is σ",
            ddim_with(update=squared_noise),
        ),
        Mistake(
            "ᾱ for α",
            "The signal is multiplied by α², which is ᾱ elsewhere; in z = αx + σε its factor is α",
            ddim_with(update=squared_signal),
        ),
        Mistake(
            "σ of the start kept",
            "The noise keeps its σ from the beginning of the step; at its end there is less noise",
            ddim_with(update=noise_of_start),
        ),
        Mistake(
            "noise not put back",
            "x̂ is shrunk to the next level without its noise ε̂: z = αx̂ + σε̂",
            ddim_with(update=no_noise_again),
        ),
        Mistake(
            "ancestral mean",
            "This is the mean of the ancestral step, η = 1, without its noise; with η = 0 all of "
            "σ_s goes to ε̂",
            ddim_with(update=ancestral_mean),
        ),
        Mistake(
            "one step",
            "This is the first estimate of the clean example: all of the way in one step",
            lambda z, a, s, k, w, b: ddim_wrong(z, a, s, k, w, b, pace=len(a) - 1),
        ),
    ),
    equivalents=(ddim_by_euler,),
)


# 9. The variance of the exact reverse kernel, as an expression. ---------------------------------


def draw_levels(g: torch.Generator) -> tuple[Tensor, ...]:
    # Data narrower than 1 and wider; the variance is not preserved.
    c = torch.cat([uniform(g, 0.2, 0.6, 3), uniform(g, 1.6, 3, 3)])
    sigma_t = torch.cat([uniform(g, 0.6, 0.8, 2), uniform(g, 1.1, 1.4, 2), uniform(g, 0.6, 0.8, 2)])
    return uniform(g, 0.7, 1.1, 6), uniform(g, 0.3, 0.5, 6), uniform(g, 0.3, 0.6, 6), sigma_t, c


BETA = "(sigma_t**2 - (alpha_t/alpha_s)**2*sigma_s**2)"
TILDE = f"({BETA}*sigma_s**2/sigma_t**2)"
FACTOR = f"(alpha_s*{BETA}/sigma_t**2)"
GIVEN = "(c*sigma_t**2/(alpha_t**2*c + sigma_t**2))"
REVERSE_VARIANCE = Question(
    name="reverse_variance",
    points=2,
    kind="expression",
    symbols=("alpha_s", "sigma_s", "alpha_t", "sigma_t", "c"),
    reference=f"{TILDE} + {FACTOR}**2*{GIVEN}",
    draw=draw_levels,
    mistakes=(
        Mistake(
            "β̃",
            "This is β̃, the variance given x as well: exact for data that are one point. The "
            "share of x's own "
            "variance is missing",
            TILDE,
        ),
        Mistake(
            "β",
            "This is σ²_{t|s}, which DDPM calls β: exact for standard normal data if the variance "
            "is preserved",
            BETA,
        ),
        Mistake(
            "variance of x not given z_t",
            "The share of x is taken with its variance c; z_t is known, so it is the variance of x given z_t",
            f"{TILDE} + {FACTOR}**2*c",
        ),
        Mistake(
            "factor not squared",
            "The factor of x in the posterior's mean counts once; in a variance it is squared",
            f"{TILDE} + {FACTOR}*{GIVEN}",
        ),
        Mistake(
            "β̃ missing",
            "This is the variance of the posterior's mean alone; the law of total variance adds β̃",
            f"{FACTOR}**2*{GIVEN}",
        ),
        Mistake(
            "noises taken for independent",
            "The covariance of z_s and z_t is taken as α_s α_t c, as if their noises were independent; z_t "
            "contains the noise of z_s",
            "alpha_s**2*c + sigma_s**2 - (alpha_s*alpha_t*c)**2/(alpha_t**2*c + sigma_t**2)",
        ),
        Mistake(
            "variance of z_s",
            "This is the variance of z_s by itself; that given z_t is smaller",
            "alpha_s**2*c + sigma_s**2",
        ),
        Mistake(
            "standard deviation",
            "This is the standard deviation; the variance is asked for",
            f"sqrt({TILDE} + {FACTOR}**2*{GIVEN})",
        ),
    ),
    equivalents=(
        (
            "alpha_s**2*c + sigma_s**2 - "
            "(alpha_t/alpha_s*(alpha_s**2*c + sigma_s**2))**2/(alpha_t**2*c + sigma_t**2)"
        ),
        f"1/(1/(alpha_s**2*c + sigma_s**2) + (alpha_t/alpha_s)**2/{BETA})",
        f"(alpha_s**2*c + sigma_s**2)*{BETA}/(alpha_t**2*c + sigma_t**2)",
    ),
)


# 10. Guidance. ----------------------------------------------------------------------------------


def guided_score(noise_class, noise_free, sigma, w):
    return -((1 + w) * noise_class - w * noise_free) / sigma[:, None]


def guided_score_by_difference(noise_class, noise_free, sigma, w):
    with_class, free = -noise_class / sigma[:, None], -noise_free / sigma[:, None]
    return free + (1 + w) * (with_class - free)


def guided_by(combine, divide=lambda noise, sigma: -noise / sigma[:, None]):
    return lambda c, u, sigma, w: divide(combine(c, u, w), sigma)


def draw_guided(
    g: torch.Generator, n: int, d: int, w: tuple[float, float]
) -> tuple[Tensor | float, ...]:
    noise = signed(g, 0.5, 1.5, n, d)
    return noise, noise + signed(g, 0.2, 0.8, n, d), uniform(g, 0.2, 0.8, n), number(g, *w)


GUIDED_SCORE = Question(
    name="guided_score",
    points=1,
    reference=guided_score,
    draw=(
        lambda g: draw_guided(g, integer(g, 4, 6), 3, (0.3, 0.8)),
        lambda g: draw_guided(g, integer(g, 2, 4), 5, (1.5, 4)),
    ),
    mistakes=(
        Mistake(
            "weight taken for the scale",
            "w is used as the scale of other sources, where s = 1 + w: with w = 0 this is the "
            "model without a class",
            guided_by(lambda c, u, w: u + w * (c - u)),
        ),
        Mistake(
            "roles exchanged",
            "The class is guided away from: 1 + w belongs to the model with the class, −w to the one without",
            guided_by(lambda c, u, w: (1 + w) * u - w * c),
        ),
        Mistake(
            "added",
            "The model without the class is added; it is subtracted, w times",
            guided_by(lambda c, u, w: (1 + w) * c + w * u),
        ),
        Mistake(
            "difference alone",
            "This is the gradient of the class posterior alone, w times; the model with the class is missing",
            guided_by(lambda c, u, w: w * (c - u)),
        ),
        Mistake(
            "interpolated",
            "This is a mean of the two models; guidance goes beyond the one with the class",
            guided_by(lambda c, u, w: (c + w * u) / (1 + w)),
        ),
        Mistake(
            "noise for the score",
            "This is the guided noise; the score is −ε/σ",
            guided_by(lambda c, u, w: (1 + w) * c - w * u, lambda noise, sigma: noise),
        ),
        Mistake(
            "sign of the score",
            "The sign is flipped: the score points against the noise, −ε/σ",
            guided_by(lambda c, u, w: -((1 + w) * c - w * u)),
        ),
        Mistake(
            "σ²",
            "The noise is divided by σ²; the score is −ε/σ",
            guided_by(
                lambda c, u, w: (1 + w) * c - w * u,
                lambda noise, sigma: -noise / sigma[:, None] ** 2,
            ),
        ),
    ),
    equivalents=(
        guided_score_by_difference,
        lambda c, u, sigma, w: (w * (u - c) - c) / sigma.unsqueeze(-1),
    ),
)

QUESTIONS = (
    NOISING_MARGINAL,
    POSTERIOR_STEP,
    CHAIN_BOUND,
    BOUND_BITS,
    MIXTURE_SCORE,
    PREDICT_CLEAN,
    REVERSE_STEP,
    DDIM_SAMPLE,
    REVERSE_VARIANCE,
    GUIDED_SCORE,
    Measure(
        name="trained_denoiser",
        points=4,
        measure="denoiser_bits",
        functions=("denoise",),
        limit=2.2,
    ),
    Written(
        name="memorizing",
        points=3,
        rubric=(
            "1 point: reports the errors of both denoisers on both sets of images. The minimizer's are the "
            "smaller ones on the training images, down to 0; on validation images they stay at the squared "
            "distance from the nearest training image, while the network's keep falling and are about the "
            "same on both sets. "
            "1 point: says why the perfect minimizer memorizes: over all functions the best guess is the "
            "posterior mean under the empirical distribution, an average of training images of which one "
            "alone remains at little noise; so its samples are copies, and on a new image the error stays "
            "while the weight SNR grows, so that its bound diverges. "
            "1 point: says why the network does something else: architecture, size, optimizer and the end of "
            "training keep it among smoother functions, so it does not minimize the loss over all functions; "
            "and that a large network trained long on few images comes near the minimizer, which held-out "
            "images show and the training loss does not."
        ),
    ),
)
