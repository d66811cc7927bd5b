"""The answers and slips of the chapter's questions once more, by the library or by counting."""

import math

import torch
from torch import tensor
from torch.distributions import Bernoulli, MultivariateNormal, Normal

from course_lib.divergences import js_discrete, kl_discrete
from course_lib.evaluation import bits_per_dim


def generative_classifier(a, u, v):
    joint = tensor([[a / (a + 1) * u, 1 / (a + 1) * v]])
    posterior = (joint / joint.sum()).flatten()
    flat = tensor([u, v]) / (u + v)
    return posterior[0], [flat[0], posterior[1], a / (a + 1)]


def thin_image_cover(L, n):
    side = L / n
    cubes = round(n)
    return cubes * side**3, [n**3 * side**3, cubes * L / n**3, cubes * side**2, side**3]


def floor_of_the_loss(p, q):
    data, model = Bernoulli(tensor(p)), Bernoulli(tensor(q))
    cross_entropy = -(p * model.log_prob(tensor(1.0)) + (1 - p) * model.log_prob(tensor(0.0)))
    excess = cross_entropy - data.entropy()
    swapped = kl_discrete(tensor([q, 1 - q]), tensor([p, 1 - p]))
    ones = p * (data.log_prob(tensor(1.0)) - model.log_prob(tensor(1.0)))
    return excess, [cross_entropy, swapped, ones, bits_per_dim(-excess, (1,))]


def kl_of_coins(a, b):
    p, q = tensor([a, 1 - a]), tensor([b, 1 - b])
    answer = kl_discrete(q, p)
    mean = (kl_discrete(p, q) + answer) / 2
    return answer, [kl_discrete(p, q), -answer, q.log()[0] - p.log()[0], mean]


def two_bumps_one_gaussian(a, s):
    # Moments of the mixture by quadrature on a fine grid.
    x = torch.linspace(-40, 40, 40_001)
    density = (Normal(-a, s).log_prob(x).exp() + Normal(a, s).log_prob(x).exp()) / 2
    variance = torch.trapezoid(density * x**2, x)
    wide = torch.trapezoid(Normal(2 * a, s).log_prob(x).exp() * x**2, x)
    return variance.sqrt(), [variance, s, s + a, wide.sqrt()]


def reverse_kl_is_too_narrow(r):
    precision = MultivariateNormal(torch.zeros(2), tensor([[1, r], [r, 1.0]])).precision_matrix
    answer = 1 / precision[0, 0]
    return answer, [1, precision[0, 0], answer.sqrt()]


def jsd_with_an_overlap(t):
    p, q = tensor([0.5, 0.5, 0.0]), tensor([t, 0.0, 1 - t])
    answer = js_discrete(p, q)
    forward = kl_discrete(p, (p + q) / 2)
    return answer, [2 * answer, forward, bits_per_dim(-answer, (1,)), math.log(2)]


def bits_per_dimension(d, n):
    answer = bits_per_dim(tensor(-n), (round(d),))
    return answer, [n / d, answer * math.log(2) ** 2, bits_per_dim(tensor(-n), (1,))]


def another_unit(d, n):
    # One Gaussian with this mean log-density: its scale is divided by 256.
    def mean_log_density(scale):
        return -round(d) * Normal(0, scale).entropy()

    scale = math.exp(-n / d - 0.5 * math.log(2 * math.pi * math.e))
    answer = mean_log_density(tensor(scale / 256))
    return answer, [n, mean_log_density(tensor(scale * 256)), n + (answer - n) / d]


def code_length(b):
    # The shortest words whose cells, all of them, are at most half as long as the interval.
    digits = next(length for length in range(100) if 2 * 2.0**-length <= 2.0**-b)
    return digits, [digits - 1, digits - 2, -math.log2(2.0**-b)]


ROUTES = {
    "generative-classifier": generative_classifier,
    "thin-image-cover": thin_image_cover,
    "floor-of-the-loss": floor_of_the_loss,
    "kl-of-coins": kl_of_coins,
    "two-bumps-one-gaussian": two_bumps_one_gaussian,
    "reverse-kl-is-too-narrow": reverse_kl_is_too_narrow,
    "jsd-with-an-overlap": jsd_with_an_overlap,
    "bits-per-dimension": bits_per_dimension,
    "another-unit": another_unit,
    "code-length": code_length,
}
