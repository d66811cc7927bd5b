"""The answers and slips of the chapter's questions once more, by the library, autograd or enumeration."""

import math

import torch
from torch import tensor
from torch.distributions import Binomial, Categorical, MultivariateNormal, Normal
from torch.distributions import kl_divergence as kl

from course_lib.divergences import (
    kl_discrete,
    kl_gaussian,
    kl_standard_normal,
    kl_univariate_gaussian,
)
from course_lib.evaluation import bits_per_dim
from course_lib.vae import log_mean_exp


def derivative(f, at):
    """Of a function of one number."""
    at = tensor(float(at), requires_grad=True)
    return torch.autograd.grad(f(at), at)[0]


def curvature(f, at):
    """Second derivative of a function of one number."""
    at = tensor(float(at), requires_grad=True)
    (slope,) = torch.autograd.grad(f(at), at, create_graph=True)
    return torch.autograd.grad(slope, at)[0]


def zero(f, low, high):
    """Where a rising function of one number crosses 0, by bisection."""
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (low, middle) if f(middle) > 0 else (middle, high)
    return (low + high) / 2


def error_of_a_linear_code(a, b, c):
    # Six points with this covariance, turned away from the axes; the best rank-one approximation.
    torch.manual_seed(0)
    turn = torch.linalg.qr(torch.randn(3, 3))[0]
    axes = torch.diag((3 * tensor([a, b, c])).sqrt()) @ turn
    x = torch.cat([axes, -axes])
    u, s, v = torch.linalg.svd(x, full_matrices=False)
    kept = s[:1] * u[:, :1] @ v[:1]
    error = (x - kept).square().sum(1).mean()
    last = (x - (s[:2] * u[:, :2]) @ v[:2]).square().sum(1).mean()
    total = x.square().sum(1).mean()
    return error, [kept.square().sum(1).mean(), last, (x - kept).square().mean(), error / total]


def log_of_a_mean(a, b, c):
    log_w = tensor([a, b, c]).log()
    return log_mean_exp(log_w), [log_w.mean(), log_w.logsumexp(0), log_w.exp().mean()]


def bias_of_a_log_mean(v, k):
    # The second-order term of the logarithm at any p.
    p = 0.3
    variance = v * p**2 / k
    bias = curvature(torch.log, p) * variance / 2
    return bias, [0, -bias, 2 * bias, -math.sqrt(variance) / p]


def bound_of_two_codes(u, v, r):
    likelihood, q = tensor([u, v]), tensor([1 - r, r])
    prior = torch.full((2,), 0.5)
    marginal = (prior * likelihood).sum()
    answer = marginal.log() - kl_discrete(q, prior * likelihood / marginal)
    reconstruction = (q * likelihood.log()).sum()
    cost = kl_discrete(q, prior)
    return answer, [
        marginal.log(),
        reconstruction,
        reconstruction + cost,
        answer - Categorical(q).entropy(),
    ]


def gap_of_the_family(a, b, c):
    precision = tensor([[a, b], [b, c]])
    covariance = precision.inverse()

    def gap(variances):
        return kl_gaussian(torch.zeros(2), torch.diag(variances), torch.zeros(2), covariance)

    answer = gap(1 / precision.diagonal())
    return answer, [2 * answer, gap(covariance.diagonal()), answer + precision.logdet() / 2]


def variance_of_the_score(m, s):
    # By quadrature over the noise.
    noise = torch.linspace(-12, 12, 200_001)
    density = Normal(0.0, 1.0).log_prob(noise).exp()

    def mean(values):
        return torch.trapezoid(density * values, noise)

    def moments(values):
        return mean(values), mean(values**2)

    score = noise / s
    first, second = moments((m + s * noise) * score)
    with_baseline, its_square = moments(s * noise * score)
    _, mean_alone = moments(m * score)
    return second - first**2, [0, second, its_square - with_baseline**2, mean_alone]


def hidden_variance(w, D):
    # The curvature of the loss in one pixel is 1/σ² in units in which the KL term has the weight 1.
    x, others = 0.3, torch.zeros(round(D) - 1)

    def summed(mean):
        return (torch.cat([mean.view(1), others]) - x).square().sum() / w

    def averaged(mean):
        return (torch.cat([mean.view(1), others]) - x).square().mean() / w

    def unit(mean):
        return -Normal(mean, 1.0).log_prob(tensor(x))

    variance = 1 / curvature(summed, 0.7)
    return variance.sqrt(), [
        variance,
        (2 * variance).sqrt(),
        curvature(averaged, 0.7) ** -0.5,
        curvature(unit, 0.7) ** -0.5,
    ]


def two_averages(D, d):
    def beta(loss):
        log_likelihood = torch.zeros(round(D), requires_grad=True)
        cost = torch.zeros(round(d), requires_grad=True)
        pixel, latent = torch.autograd.grad(loss(log_likelihood, cost), (log_likelihood, cost))
        # The quotient of two gradients is rounded, and the answer is a whole number.
        return -float(latent[0] / pixel[0])

    answer = round(beta(lambda x, kl: kl.mean() - x.mean()))
    return answer, [
        beta(lambda x, kl: kl.sum() - x.sum()),
        beta(lambda x, kl: kl.sum() - x.mean()),
        1 / answer,
        beta(lambda x, kl: kl.mean() - x.sum()),
    ]


def kl_on_the_line(m, s, t):
    q, p = Normal(m, s), Normal(0.0, t)
    # The divergence is linear in the second moment and in 1/t².
    log_ratio = math.log(t / s)
    answer = kl(q, p)
    quadratic = answer - log_ratio + 0.5
    swapped = kl_univariate_gaussian(tensor(0.0), tensor(t), tensor(m), tensor(s))
    return answer, [
        swapped,
        log_ratio + t * quadratic - 0.5,
        answer + Normal(0.0, t).log_prob(tensor(s)) - Normal(0.0, t).log_prob(tensor(0.0)),
        answer + 0.5,
    ]


def kl_of_a_correlated_gaussian(r):
    q = MultivariateNormal(torch.zeros(2), torch.eye(2))
    p = MultivariateNormal(torch.zeros(2), tensor([[1, r], [r, 1.0]]))
    answer, log_det = kl(q, p), p.covariance_matrix.logdet()
    not_inverted = answer + (p.covariance_matrix.trace() - p.precision_matrix.trace()) / 2
    return answer, [kl(p, q), answer - log_det, answer + 0.5, not_inverted]


def pull_of_the_kl(s):
    def cost(logvar):
        return kl_standard_normal(torch.zeros(1), logvar.view(1))

    answer = derivative(cost, 2 * math.log(s))
    return answer, [
        derivative(lambda sigma: cost(2 * sigma.log()), s),
        derivative(lambda log_sigma: cost(2 * log_sigma), math.log(s)),
        derivative(lambda variance: cost(variance.log()), s**2),
        -answer,
    ]


def half_the_width(s):
    p = Normal(0.0, 1.0)
    wide, narrow = kl(Normal(0.0, s), p), kl(Normal(0.0, s / 2), p)
    # What the entropy contributes, and the rest, the expected energy.
    entropy = Normal(0.0, s).entropy() - Normal(0.0, s / 2).entropy()
    answer = narrow - wide
    energy = answer - entropy
    return answer, [entropy, entropy / 2 + energy, 2 * answer, entropy - energy]


def least_variance_of_a_proposal(r):
    # The exponent of the integrand turns upwards below the threshold.
    def threshold(order):
        def exponent(variance):
            q, p = Normal(0.0, math.sqrt(variance)), Normal(0.0, 1.0)
            return lambda z: order * p.log_prob(z) + (1 - order) * q.log_prob(z)

        return zero(lambda variance: -curvature(exponent(variance), 0.4), 1e-3, 1.0)

    answer = threshold(r)
    return answer, [1 - answer, math.sqrt(answer), threshold(2)]


def bound_with_two_draws(a, b):
    log_w = tensor([a, b]).log()
    pairs = torch.cartesian_prod(log_w, log_w)  # (4, 2)
    answer = log_mean_exp(pairs, 1).mean()
    return answer, [pairs.mean(), log_mean_exp(log_w), pairs.logsumexp(1).mean()]


def weight_at_the_optimum(v, s, b):
    # With the best encoder the loss is that of the marginal, whose variance is w² and that of the noise.
    def loss(variance):
        marginal, point = Normal(0.0, variance.sqrt()), tensor(math.sqrt(v))
        return -(marginal.log_prob(point) + marginal.log_prob(-point)) / 2

    best = zero(lambda variance: derivative(loss, variance), 1e-3, 100.0)
    noises = (b * s**2, s**2, b * s, (b * s) ** 2, s**2 / b)
    answer, *slips = (best - noise for noise in noises)
    return max(0.0, answer), slips


def what_the_aggregate_pays(N, R):
    # Each example has a cell of its own, to which the prior gives the probability exp(−R).
    n, cell = round(N), math.exp(-R)
    prior = torch.cat([torch.full((n,), cell), tensor([1 - n * cell])])
    codes = torch.eye(n, n + 1)
    aggregate = codes.mean(0)
    answer = kl_discrete(aggregate, prior)
    rate = kl_discrete(codes, prior.expand(n, -1)).mean()
    information = kl_discrete(codes, aggregate.expand(n, -1)).mean()
    return answer, [rate, information, rate - information / math.log(2), 0]


def rate_for_an_error(s, e):
    # The encoder of the proposition that reaches this error; its rate is an average over ±s.
    def rate(variance, error):
        noise = error / variance
        mean = tensor([math.sqrt(1 - noise)])
        return kl_standard_normal(mean, tensor([math.log(noise)]))

    answer = rate(s**2, e)
    return answer, [2 * answer, answer / math.log(2), rate(s, e), 2 * rate(s, e)]


def what_was_reported(b, L, K):
    reconstruction = L + b * K
    return reconstruction - K, [L, 2 * L - (reconstruction - K), L - K, reconstruction]


def gain_of_a_fitted_prior(d, v):
    n = round(d)
    aggregate = MultivariateNormal(torch.zeros(n), v * torch.eye(n))
    prior = MultivariateNormal(torch.zeros(n), torch.eye(n))
    answer = kl(aggregate, prior)
    one = kl(Normal(0.0, math.sqrt(v)), Normal(0.0, 1.0))
    return answer, [kl(prior, aggregate), 2 * answer, one, 0]


def bias_of_mmd(n, m, c):
    # A distribution on two points, whose kernel is 1 and t; all possible counts of the first point.
    t = 2 * c - 1
    kernel = tensor([[1, t], [t, 1.0]])

    def shares(size):
        counts = torch.arange(size + 1.0)
        probability = Binomial(int(size), 0.5).log_prob(counts).exp()
        return torch.stack([counts, size - counts], 1) / size, probability

    def expected(size_x, size_y):
        (x, p), (y, q) = shares(size_x), shares(size_y)
        difference = x[:, None] - y[None]  # (n + 1, m + 1, 2)
        squared = torch.einsum("abi,ij,abj->ab", difference, kernel, difference)
        return torch.einsum("a,b,ab->", p, q, squared)

    answer = expected(n, m)
    # With one sample compared with the distribution itself, and with the two pooled.
    half, kernel_mean = tensor([0.5, 0.5]), kernel.mean()

    def alone(size):
        x, p = shares(size)
        return p @ torch.einsum("ai,ij,aj->a", x - half, kernel, x - half)

    return answer, [0, alone(n), alone(n + m), answer / (1 - kernel_mean)]


def bits_of_a_code(n, K, r):
    codes = Categorical(logits=torch.zeros(round(n), round(K)))
    code = -codes.log_prob(torch.zeros(round(n))).sum()
    total = bits_per_dim(-(code + r), (8, 8))
    wrong = bits_per_dim(-tensor(n * K + r), (8, 8))
    return total, [
        bits_per_dim(-tensor(r), (8, 8)),
        total * math.log(2),
        wrong,
        bits_per_dim(-(code / n + r), (8, 8)),
    ]


ROUTES = {
    "bits-of-a-code": bits_of_a_code,
    "error-of-a-linear-code": error_of_a_linear_code,
    "log-of-a-mean": log_of_a_mean,
    "bias-of-a-log-mean": bias_of_a_log_mean,
    "bound-of-two-codes": bound_of_two_codes,
    "gap-of-the-family": gap_of_the_family,
    "variance-of-the-score": variance_of_the_score,
    "hidden-variance": hidden_variance,
    "two-averages": two_averages,
    "kl-on-the-line": kl_on_the_line,
    "kl-of-a-correlated-gaussian": kl_of_a_correlated_gaussian,
    "pull-of-the-kl": pull_of_the_kl,
    "half-the-width": half_the_width,
    "least-variance-of-a-proposal": least_variance_of_a_proposal,
    "bound-with-two-draws": bound_with_two_draws,
    "weight-at-the-optimum": weight_at_the_optimum,
    "what-the-aggregate-pays": what_the_aggregate_pays,
    "rate-for-an-error": rate_for_an_error,
    "what-was-reported": what_was_reported,
    "gain-of-a-fitted-prior": gain_of_a_fitted_prior,
    "bias-of-mmd": bias_of_mmd,
}
