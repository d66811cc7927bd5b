"""The VAE assignment: references, probes, known mistakes and other right forms.

Not given to students: what they get is in ``student/``.
"""

import math
from functools import partial

import torch
from torch import Tensor

from course_lib.grading import Measure, Mistake, Question, Written
from course_lib.grading.draws import integer, normal, number, signed, uniform

TITLE = "Variational autoencoders"


# 1. KL between two Gaussians, as an expression. -------------------------------------------------


def draw_gaussians(g: torch.Generator) -> tuple[Tensor, ...]:
    # q narrower than p and wider; means on both sides of 0, both above it, both below.
    ratio = torch.cat([uniform(g, 1.4, 2.5, 3), uniform(g, 0.4, 0.7, 3)])
    sign_q, sign_p = torch.tensor([[1.0, 1, -1, -1, 1, -1], [-1, 1, -1, 1, 1, -1]]).double()
    sigma_q = uniform(g, 0.5, 1.2, 6)
    return sign_q * uniform(g, 1.2, 2, 6), sigma_q, sign_p * uniform(g, 0.2, 1, 6), sigma_q * ratio


KL_GAUSSIANS = Question(
    name="kl_gaussians",
    points=2,
    kind="expression",
    symbols=("mu_q", "sigma_q", "mu_p", "sigma_p"),
    reference="log(sigma_p / sigma_q) + (sigma_q**2 + (mu_q - mu_p)**2) / (2 * sigma_p**2) - 1/2",
    draw=draw_gaussians,
    mistakes=(
        Mistake(
            "arguments swapped",
            "This is KL(p‖q): the expectation must be taken under q, so σ_p² belongs in the denominator",
            "log(sigma_q / sigma_p) + (sigma_p**2 + (mu_q - mu_p)**2) / (2 * sigma_q**2) - 1/2",
        ),
        Mistake(
            "divided by 2σ instead of 2σ²",
            "The quadratic term is divided by 2σ_p where the Gaussian's exponent has 2σ_p²",
            "log(sigma_p / sigma_q) + (sigma_q**2 + (mu_q - mu_p)**2) / (2 * sigma_p) - 1/2",
        ),
        Mistake(
            "constant dropped",
            "The −½ is missing: for q = p the expression must be 0, and yours is ½ there",
            "log(sigma_p / sigma_q) + (sigma_q**2 + (mu_q - mu_p)**2) / (2 * sigma_p**2)",
        ),
        Mistake(
            "half dropped",
            "This equals the KL without the ½: it is twice as large everywhere",
            "2*log(sigma_p / sigma_q) + (sigma_q**2 + (mu_q - mu_p)**2) / sigma_p**2 - 1",
        ),
        Mistake(
            "log of variances",
            "The logarithm takes the ratio of the variances here; with that ratio it needs a ½ in front",
            "log(sigma_p**2 / sigma_q**2) + (sigma_q**2 + (mu_q - mu_p)**2) / (2 * sigma_p**2) - 1/2",
        ),
        Mistake(
            "variance of q forgotten",
            "E_q[(x − μ_p)²] is not (μ_q − μ_p)² alone: the variance of x under q is missing",
            "log(sigma_p / sigma_q) + (mu_q - mu_p)**2 / (2 * sigma_p**2) - 1/2",
        ),
    ),
    equivalents=(
        "(sigma_q**2/sigma_p**2 + ((mu_p - mu_q)/sigma_p)**2 - 1 - log(sigma_q**2/sigma_p**2))/2",
        "log(sigma_p) - log(sigma_q) - (sigma_p**2 - sigma_q**2 - (mu_q-mu_p)**2)/(2*sigma_p**2)",
        "log(sigma_p/sigma_q) + (mu_q**2 - 2*mu_q*mu_p + mu_p**2 + sigma_q**2 - sigma_p**2)/2/sigma_p**2",
    ),
)


# 2. KL between two diagonal Gaussians. ----------------------------------------------------------


def kl_diagonal(mu, logvar, prior_mu, prior_logvar):
    ratio = (logvar - prior_logvar).exp()
    distance = (mu - prior_mu) ** 2 / prior_logvar.exp()
    return 0.5 * (ratio + distance - 1 - logvar + prior_logvar).sum(1)


def kl_diagonal_by_distributions(mu, logvar, prior_mu, prior_logvar):
    q = torch.distributions.Normal(mu, (0.5 * logvar).exp())
    p = torch.distributions.Normal(prior_mu, (0.5 * prior_logvar).exp())
    return torch.distributions.kl_divergence(q, p).sum(-1)


def kl_diagonal_by_cross_entropy(mu, logvar, prior_mu, prior_logvar):
    log_2pi = math.log(2 * math.pi)
    entropy = 0.5 * (log_2pi + 1 + logvar)
    cross = 0.5 * (
        log_2pi + prior_logvar + (logvar.exp() + (mu - prior_mu) ** 2) / prior_logvar.exp()
    )
    return (cross - entropy).sum(1)


def draw_diagonal(g: torch.Generator, n: tuple[int, int], d: tuple[int, int]) -> tuple[Tensor, ...]:
    n, d = integer(g, *n), integer(g, *d)
    # Narrower than the prior and wider, and variances below 1 and above.
    prior_logvar = signed(g, 0.3, 1.2, d)
    logvar = prior_logvar + signed(g, 0.3, 1.5, n, d)
    return normal(g, n, d), logvar, normal(g, d), prior_logvar


KL_DIAGONAL = Question(
    name="kl_diagonal",
    points=2,
    reference=kl_diagonal,
    draw=(partial(draw_diagonal, n=(3, 5), d=(5, 7)), partial(draw_diagonal, n=(5, 8), d=(3, 5))),
    mistakes=(
        Mistake(
            "log σ for log σ²",
            "logvar is log σ², and it is used as if it were log σ: σ² is exp(logvar), not exp(2·logvar)",
            lambda m, v, pm, pv: kl_diagonal(m, 2 * v, pm, 2 * pv),
        ),
        Mistake(
            "half dropped",
            "This equals the KL without the ½: it is twice as large everywhere",
            lambda *x: 2 * kl_diagonal(*x),
        ),
        Mistake(
            "arguments swapped",
            "This is KL(prior‖q): the arguments are exchanged",
            lambda m, v, pm, pv: kl_diagonal(pm, pv, m, v),
        ),
        Mistake(
            "mean over dimensions",
            "The latent dimensions are averaged; the KL of a product of distributions is the sum over them",
            lambda *x: kl_diagonal(*x) / x[0].shape[1],
        ),
        Mistake(
            "batch reduced",
            "The batch is summed up as well: the result must keep one value per example, shape (N,)",
            lambda *x: kl_diagonal(*x).sum(),
        ),
        Mistake(
            "standard normal prior",
            "The prior's parameters are not used: this is the KL to a standard normal",
            lambda m, v, pm, pv: kl_diagonal(m, v, 0 * pm, 0 * pv),
        ),
        Mistake(
            "−1 counted once",
            "The −1 stands inside the sum, once for each latent dimension; here it is counted once",
            lambda *x: kl_diagonal(*x) + (x[0].shape[1] - 1) / 2,
        ),
        Mistake(
            "sign",
            "The sign is flipped: a KL divergence is never negative",
            lambda *x: -kl_diagonal(*x),
        ),
    ),
    equivalents=(kl_diagonal_by_distributions, kl_diagonal_by_cross_entropy),
)


# 3. A gap that can be computed by hand. ---------------------------------------------------------


def gap_table(
    *,
    marginal_variance: float = 5.0,
    constant: float = math.log(2 * math.pi),
    reverse: bool = False,
) -> dict[str, float]:
    """x = 2z + ε with z, ε ~ N(0, 1), at x = 1.5 and q = N(0.4, 0.5²)."""
    x, m, s = 1.5, 0.4, 0.5
    log_marginal = -0.5 * (constant + math.log(marginal_variance) + x**2 / marginal_variance)
    reconstruction = -0.5 * (constant + (x - 2 * m) ** 2 + 4 * s**2)
    kl_prior = 0.5 * (s**2 + m**2 - 1 - math.log(s**2))
    posterior_mean, posterior_variance = 2 * x / 5, 1 / 5
    a, b = (s**2, posterior_variance) if not reverse else (posterior_variance, s**2)
    kl_posterior = 0.5 * (a / b + (m - posterior_mean) ** 2 / b - 1 - math.log(a / b))
    return {
        "log_marginal": log_marginal,
        "elbo": reconstruction - kl_prior,
        "kl_to_posterior": kl_posterior,
    }


def by_subtraction(table: dict[str, float]) -> dict[str, float]:
    return table | {"kl_to_posterior": table["log_marginal"] - table["elbo"]}


KL_TO_PRIOR = 0.5 * (0.5**2 + 0.4**2 - 1 - math.log(0.5**2))
GAP = Question(
    name="gap",
    points=2,
    kind="value",
    reference=gap_table(),
    mistakes=(
        Mistake(
            "noise forgotten in the marginal",
            "The variance of x is that of 2z plus that of the noise: 5, not 4",
            gap_table(marginal_variance=4.0),
        ),
        Mistake(
            "log 2π dropped",
            "The ½ log 2π of the normal density is missing from log p(x) and from the ELBO",
            gap_table(constant=0.0),
        ),
        Mistake(
            "KL to the posterior swapped",
            "kl_to_posterior is KL(p(z|x)‖q) here; the gap of the bound is KL(q‖p(z|x))",
            gap_table(reverse=True),
        ),
        Mistake(
            "KL to the prior added",
            "The KL to the prior is added in the ELBO; it is subtracted",
            gap_table() | {"elbo": gap_table()["elbo"] + 2 * KL_TO_PRIOR},
        ),
        Mistake(
            "decoder's variance under q forgotten",
            "E_q[(x − 2z)²] is not (x − 2m)²: the variance 4s² of 2z under q is missing",
            gap_table() | {"elbo": gap_table()["elbo"] + 0.5},
        ),
        # The same slips by those who take the gap from the other two numbers.
        Mistake(
            "noise forgotten in the marginal, gap by subtraction",
            "The variance of x is that of 2z plus that of the noise: 5, not 4; the gap, taken from it, is "
            "wrong with it",
            by_subtraction(gap_table(marginal_variance=4.0)),
        ),
        Mistake(
            "KL to the prior added, gap by subtraction",
            "The KL to the prior is added in the ELBO; it is subtracted. The gap, taken from it, is wrong "
            "with it",
            by_subtraction(gap_table() | {"elbo": gap_table()["elbo"] + 2 * KL_TO_PRIOR}),
        ),
        Mistake(
            "decoder's variance under q forgotten, gap by subtraction",
            "E_q[(x − 2z)²] is not (x − 2m)²: the variance 4s² of 2z under q is missing. The gap, taken "
            "from it, is wrong with it",
            by_subtraction(gap_table() | {"elbo": gap_table()["elbo"] + 0.5}),
        ),
    ),
    equivalents=(
        {name: torch.tensor(value) for name, value in gap_table().items()},
        {name: round(value, 5) for name, value in gap_table().items()},
        {name: float(f"{value:.5g}") for name, value in gap_table().items()},
    ),
)


# 4. A Gaussian decoder with one variance per image. ---------------------------------------------


def gaussian_nll(x, mean, logvar):
    squared = ((x - mean) ** 2).flatten(1).sum(1)
    d = x[0].numel()
    return 0.5 * (squared / logvar.exp() + d * (logvar + math.log(2 * math.pi)))


def gaussian_nll_by_distribution(x, mean, logvar):
    distribution = torch.distributions.Normal(mean, (logvar / 2).exp()[:, None, None, None])
    return -distribution.log_prob(x).sum((1, 2, 3))


def draw_decoder(
    g: torch.Generator, n: tuple[int, int], shape: tuple[int, int, int]
) -> tuple[Tensor, ...]:
    # More than one channel: all of them count as pixels.
    n = integer(g, *n)
    return normal(g, n, *shape), normal(g, n, *shape), signed(g, 0.4, 2, n)


GAUSSIAN_NLL = Question(
    name="gaussian_nll",
    points=1.5,
    reference=gaussian_nll,
    draw=(
        partial(draw_decoder, n=(3, 5), shape=(2, 5, 3)),
        partial(draw_decoder, n=(5, 7), shape=(3, 2, 4)),
    ),
    mistakes=(
        Mistake(
            "constant dropped",
            "The (D/2)·log 2π is missing: the value is no likelihood and cannot be compared with others",
            lambda x, m, v: gaussian_nll(x, m, v) - x[0].numel() / 2 * math.log(2 * math.pi),
        ),
        Mistake(
            "mean over pixels",
            "The pixels are averaged; a log-likelihood of an image is the sum over its pixels",
            lambda x, m, v: gaussian_nll(x, m, v) / x[0].numel(),
        ),
        Mistake(
            "log σ for log σ²",
            "logvar is log σ², and it is used as if it were log σ",
            lambda x, m, v: gaussian_nll(x, m, 2 * v),
        ),
        Mistake(
            "log-determinant counted once",
            "½ logvar is counted once per image; it belongs to every one of its D pixels",
            lambda x, m, v: gaussian_nll(x, m, v) - (x[0].numel() - 1) / 2 * v,
        ),
        Mistake(
            "channels not counted",
            "D counts the pixels of one channel; the distribution is one of all C·H·W numbers of an image",
            lambda x, m, v: (
                gaussian_nll(x, m, v)
                - (x[0].numel() - x[0, 0].numel()) / 2 * (v + math.log(2 * math.pi))
            ),
        ),
        Mistake(
            "squared error only",
            "This is the squared error: the variance and the normalizing constant are missing",
            lambda x, m, v: ((x - m) ** 2).flatten(1).sum(1),
        ),
        Mistake(
            "sign",
            "This is the log-likelihood; its negative is asked for",
            lambda *x: -gaussian_nll(*x),
        ),
    ),
    equivalents=(gaussian_nll_by_distribution,),
)


# 5. Reparameterization of a log-normal latent. --------------------------------------------------


def lognormal_sample(mu, logvar, noise):
    return (mu + (0.5 * logvar).exp() * noise).exp()


def draw_lognormal(
    g: torch.Generator, k: tuple[int, int], n: tuple[int, int], d: tuple[int, int]
) -> tuple[Tensor, ...]:
    k, n, d = integer(g, *k), integer(g, *n), integer(g, *d)
    return normal(g, n, d), signed(g, 0.4, 1.8, n, d), normal(g, k, n, d)


LOGNORMAL = Question(
    name="lognormal_sample",
    points=1,
    reference=lognormal_sample,
    draw=(
        partial(draw_lognormal, k=(5, 7), n=(3, 5), d=(1, 3)),
        partial(draw_lognormal, k=(2, 4), n=(4, 6), d=(6, 8)),
    ),
    mistakes=(
        Mistake(
            "exp(logvar) as σ",
            "The noise is multiplied by σ² = exp(logvar); its scale is σ = exp(½·logvar)",
            lambda m, v, e: (m + v.exp() * e).exp(),
        ),
        Mistake(
            "logvar as σ",
            "The noise is multiplied by logvar itself; its scale is σ = exp(½·logvar)",
            lambda m, v, e: (m + v * e).exp(),
        ),
        Mistake(
            "Gaussian sample",
            "This is the Gaussian sample; the log-normal one is its exponential",
            lambda m, v, e: m + (0.5 * v).exp() * e,
        ),
        Mistake(
            "mean outside the exponential",
            "The mean is added after the exponential; it belongs to the Gaussian inside",
            lambda m, v, e: m + ((0.5 * v).exp() * e).exp(),
        ),
    ),
    equivalents=(
        lambda m, v, e: m.exp() * (v.exp().sqrt() * e).exp(),
        lambda m, v, e: torch.exp(torch.addcmul(m.expand_as(e), (v / 2).exp().expand_as(e), e)),
    ),
)


# 6. The Rényi bound. ----------------------------------------------------------------------------


def renyi_bound(log_w, alpha):
    k = log_w.shape[0]
    return (torch.logsumexp((1 - alpha) * log_w, 0) - math.log(k)) / (1 - alpha)


def draw_weights(
    g: torch.Generator, k: tuple[int, int], n: tuple[int, int], alpha: tuple[float, float]
) -> tuple[Tensor, float]:
    # Not even the power 1 − α of such weights is a number of float32, and the examples are so far
    # apart that each has to be scaled by its own largest weight.
    k, n = integer(g, *k), integer(g, *n)
    level = torch.tensor([-900.0, -100, 0, 700, -400, 5]).double()[:n]
    return level[torch.randperm(n, generator=g)] + 3 * normal(g, k, n), number(g, *alpha)


RENYI = Question(
    name="renyi_bound",
    points=2,
    reference=renyi_bound,
    draw=(
        partial(draw_weights, k=(6, 9), n=(4, 6), alpha=(0.15, 0.4)),
        partial(draw_weights, k=(4, 6), n=(6, 7), alpha=(0.6, 0.8)),
    ),
    mistakes=(
        Mistake(
            "mean of logs",
            "This is the mean of the log-weights, the ELBO: the average is to be taken before the logarithm",
            lambda w, a: w.mean(0),
        ),
        Mistake(
            "−log k missing",
            "The sum is not divided by k: log k is to be subtracted before the division by 1 − α",
            lambda w, a: torch.logsumexp((1 - a) * w, 0) / (1 - a),
        ),
        Mistake(
            "1/(1−α) missing",
            "The factor 1/(1 − α) in front of the logarithm is missing",
            lambda w, a: (1 - a) * renyi_bound(w, a),
        ),
        Mistake(
            "α ignored",
            "This is the IWAE bound, the case α = 0: the weights are to be raised to the power 1 − α",
            lambda w, a: torch.logsumexp(w, 0) - math.log(w.shape[0]),
        ),
        Mistake(
            "α for 1−α",
            "The weights are raised to the power α; the power is 1 − α",
            lambda w, a: renyi_bound(w, 1 - a),
        ),
        Mistake(
            "averaged over the batch",
            "The average is taken over the examples; the weights of one example stand along the first axis",
            lambda w, a: (torch.logsumexp((1 - a) * w, 1) - math.log(w.shape[1])) / (1 - a),
        ),
    ),
    equivalents=(
        lambda w, a: (
            w.max(0).values + (((1 - a) * (w - w.max(0).values)).exp().mean(0)).log() / (1 - a)
        ),
        lambda w, a: torch.logsumexp((1 - a) * w - math.log(w.shape[0]), dim=0).div(1 - a),
    ),
)


# 7. From terms to the loss. ---------------------------------------------------------------------


def negative_elbo(log_likelihood, kl):
    return kl.sum(1).mean() - log_likelihood.flatten(1).sum(1).mean()


def draw_terms(
    g: torch.Generator, n: tuple[int, int], shape: tuple[int, int, int], top: float, d: int
) -> tuple[Tensor, Tensor]:
    # Log-likelihoods of continuous pixels have either sign.
    n = integer(g, *n)
    return uniform(g, top - 2.5, top, n, *shape), uniform(g, 0.05, 0.8, n, d)


LOSS = Question(
    name="negative_elbo",
    points=1,
    reference=negative_elbo,
    draw=(
        partial(draw_terms, n=(3, 5), shape=(2, 5, 3), top=0.4, d=4),
        partial(draw_terms, n=(5, 8), shape=(3, 3, 4), top=2.1, d=2),
    ),
    mistakes=(
        Mistake(
            "mean over pixels",
            "The pixels are averaged while the latents are summed: the KL weighs D times too much",
            lambda x, kl: kl.sum(1).mean() - x.mean(),
        ),
        Mistake(
            "everything averaged",
            "Pixels and latent dimensions are averaged; a loss is the mean over examples of sums",
            lambda x, kl: kl.mean() - x.mean(),
        ),
        Mistake(
            "latents averaged",
            "The latent dimensions are averaged while the pixels are summed: β is 1/d without saying so",
            lambda x, kl: kl.mean() - x.flatten(1).sum(1).mean(),
        ),
        Mistake(
            "channels averaged",
            "The channels are averaged; the log-likelihood of an image is the sum over all of its numbers",
            lambda x, kl: kl.sum(1).mean() - x.mean(1).sum((1, 2)).mean(),
        ),
        Mistake(
            "sum over the batch",
            "The examples are summed up; the loss is their mean, so that it does not depend on the batch",
            lambda x, kl: len(x) * negative_elbo(x, kl),
        ),
        Mistake(
            "sign of the KL",
            "The KL is subtracted from the loss, which rewards it; in the negative ELBO it is added",
            lambda x, kl: -kl.sum(1).mean() - x.flatten(1).sum(1).mean(),
        ),
        Mistake(
            "sign of the loss",
            "This is the ELBO, which is to be maximized; the loss is its negative",
            lambda x, kl: -negative_elbo(x, kl),
        ),
    ),
    equivalents=(
        lambda x, kl: (kl.sum() - x.sum()) / len(x),
        lambda x, kl: torch.stack([k.sum() - y.sum() for y, k in zip(x, kl, strict=True)]).mean(),
    ),
)


# 8. The score-function estimator, for the log-variance. -----------------------------------------


def score_gradient(values, z, mu, logvar):
    score = 0.5 * ((z - mu) ** 2 / logvar.exp() - 1)
    return (values[:, None] * score).mean(0)


def score_gradient_by_autograd(values, z, mu, logvar):
    logvar = logvar.clone().requires_grad_()
    log_q = torch.distributions.Normal(mu, (0.5 * logvar).exp()).log_prob(z).sum(1)
    return torch.autograd.grad((values * log_q).mean(), logvar)[0]


def draw_score(
    g: torch.Generator, k: tuple[int, int], d: tuple[int, int], mean: float
) -> tuple[Tensor, ...]:
    k, d = integer(g, *k), integer(g, *d)
    mu, logvar = normal(g, d), signed(g, 0.4, 1.5, d)
    z = mu + (0.5 * logvar).exp() * normal(g, k, d)
    values = normal(g, k)
    # Values of both signs; their mean is not 0, so that the score's own mean matters.
    return mean + values - values.mean(), z, mu, logvar


SCORE = Question(
    name="score_gradient",
    points=2,
    reference=score_gradient,
    draw=(
        partial(draw_score, k=(7, 10), d=(2, 5), mean=0.7),
        partial(draw_score, k=(3, 5), d=(5, 7), mean=-0.5),
    ),
    mistakes=(
        Mistake(
            "gradient for the mean",
            "This is the gradient with respect to μ; the one with respect to log σ² is asked for",
            lambda f, z, m, v: (f[:, None] * (z - m) / v.exp()).mean(0),
        ),
        Mistake(
            "derivative for log σ",
            "This is the derivative with respect to log σ, twice the one with respect to log σ²",
            lambda *x: 2 * score_gradient(*x),
        ),
        Mistake(
            "normalizer forgotten",
            "The −½ logvar of log q depends on logvar too: the −½ in the score is missing",
            lambda f, z, m, v: (f[:, None] * 0.5 * (z - m) ** 2 / v.exp()).mean(0),
        ),
        Mistake(
            "sum over samples",
            "The samples are summed up; an expectation is estimated by their mean",
            lambda *x: len(x[0]) * score_gradient(*x),
        ),
        Mistake(
            "sign",
            "The sign is flipped: this is the gradient of −E[f]",
            lambda *x: -score_gradient(*x),
        ),
        Mistake(
            "f and score averaged apart",
            "f and the score are averaged apart; it is their product whose mean is taken",
            lambda f, z, m, v: f.mean() * (0.5 * ((z - m) ** 2 / v.exp() - 1)).mean(0),
        ),
    ),
    equivalents=(
        score_gradient_by_autograd,
        lambda f, z, m, v: f @ (((z - m) / (v / 2).exp()) ** 2 - 1) / (2 * len(f)),
    ),
)


# 9. The unbiased MMD from kernel matrices. ------------------------------------------------------


def mmd_unbiased(k_xx, k_yy, k_xy):
    n, m = len(k_xx), len(k_yy)
    xx = (k_xx.sum() - k_xx.trace()) / (n * (n - 1))
    yy = (k_yy.sum() - k_yy.trace()) / (m * (m - 1))
    return xx + yy - 2 * k_xy.mean()


def draw_kernels(g: torch.Generator, sign: int) -> tuple[Tensor, ...]:
    def kernel(a: Tensor, b: Tensor) -> Tensor:
        # Neither 1 on the diagonal nor positive, so that no constant stands for an entry.
        return (1 + a)[:, None] * (1 + b) * (-((a[:, None] - b) ** 2) / 2).exp()

    while True:
        # The estimate of alike samples is often negative, as no square is.
        if sign > 0:
            x, y = 2 * normal(g, integer(g, 5, 8)), 1 + 0.7 * normal(g, integer(g, 3, 5))
        else:
            x = 2 * normal(g, integer(g, 3, 5))
            y = torch.cat([x, 2 * normal(g, integer(g, 1, 3))]) + 0.1 * normal(g, 1)
        k_xx, k_yy, k_xy = kernel(x, x), kernel(y, y), kernel(x, y)
        size = sign * mmd_unbiased(k_xx, k_yy, k_xy)
        smallest = min(k.min() for k in (k_xx, k_yy, k_xy))
        # Not where the root of the size is the size, and not where the cross term is 0.
        if size > 0.1 and abs(size - 1) > 0.1 and smallest < -0.02 and k_xy.mean().abs() > 0.1:
            return k_xx, k_yy, k_xy


MMD = Question(
    name="mmd_unbiased",
    points=1.5,
    reference=mmd_unbiased,
    draw=(partial(draw_kernels, sign=1), partial(draw_kernels, sign=-1)),
    mistakes=(
        Mistake(
            "diagonal kept",
            "This is the biased estimate: the diagonals compare points with themselves and are left out",
            lambda a, b, c: a.mean() + b.mean() - 2 * c.mean(),
        ),
        Mistake(
            "diagonal dropped, divided by n²",
            "The diagonals are left out but still counted: divide by n(n−1), not by n²",
            lambda a, b, c: (
                (a.sum() - a.trace()) / a.numel() + (b.sum() - b.trace()) / b.numel() - 2 * c.mean()
            ),
        ),
        Mistake(
            "cross term once",
            "The cross term is subtracted once; expanding the square gives it twice",
            lambda a, b, c: mmd_unbiased(a, b, c) + c.mean(),
        ),
        Mistake(
            "cross term added",
            "The cross term is added; expanding ‖a − b‖² subtracts it",
            lambda a, b, c: mmd_unbiased(a, b, c) + 4 * c.mean(),
        ),
        Mistake(
            "clipped at 0",
            "The result is cut off at 0: an unbiased estimate of MMD² is negative at times",
            lambda a, b, c: mmd_unbiased(a, b, c).clamp(min=0),
        ),
        Mistake(
            "root taken",
            "This is the square root: MMD² is asked for, whose unbiased estimate may be negative",
            lambda a, b, c: mmd_unbiased(a, b, c).abs().sqrt(),
        ),
    ),
    equivalents=(
        lambda a, b, c: (
            a[~torch.eye(len(a), dtype=bool)].mean()
            + b[~torch.eye(len(b), dtype=bool)].mean()
            - 2 * c.sum() / c.numel()
        ),
        lambda a, b, c: (
            (a - torch.diag(a.diag())).sum() / (len(a) ** 2 - len(a))
            + (b - torch.diag(b.diag())).sum() / (len(b) ** 2 - len(b))
            - c.mean()
            - c.T.mean()
        ),
    ),
)

QUESTIONS = (
    KL_GAUSSIANS,
    KL_DIAGONAL,
    GAP,
    GAUSSIAN_NLL,
    LOGNORMAL,
    RENYI,
    LOSS,
    SCORE,
    MMD,
    Measure(
        name="trained_decoder",
        points=4,
        measure="decoder_nats",
        functions=("decode",),
        limit=19.5,
    ),
    Written(
        name="interpretation",
        points=3,
        rubric=(
            "1 point: says that with growing β the KL term falls and the reconstruction gets worse, "
            "with the numbers of the experiment. 1 point: names what happens at the largest β (the "
            "posterior collapses to the prior) and how the numbers show it. 1 point: says why "
            "the β-loss at β ≠ 1 must not be reported or compared as an ELBO."
        ),
    ),
)
