"""The answers and slips of the chapter's questions once more, by the library, autograd or counting."""

import itertools
import math

import torch
from torch import tensor
from torch.distributions import Exponential, Laplace, MultivariateNormal, Normal, Weibull

from course_lib.divergences import kl_univariate_gaussian
from course_lib.flow import MaskedAutoregressive, Planar
from course_lib.flow.dequantization import discrete_log_prob

STANDARD = Normal(0.0, 1.0)


def slope(function, at):
    """The derivative of a function of one number, by autograd."""
    return torch.autograd.functional.jacobian(function, tensor(at))


def density_of_a_power(a, x):
    def density(at):
        return Exponential(tensor(1.0)).log_prob(tensor(at)).exp()

    def f(at):
        return at**a

    z = x**a
    return Weibull(1.0, a).log_prob(tensor(x)).exp(), [
        density(z),
        density(z) * slope(lambda at: at ** (1 / a), z),
        density(x) * slope(f, x),
        density(z) * slope(f, z),
    ]


def two_layers_at_their_own_inputs(a, x):
    def cube(at):
        return at**3

    first, second = slope(lambda at: a * at, x), slope(cube, a * x)
    whole = slope(lambda at: cube(a * at), x)
    return whole.log(), [
        (first * slope(cube, x)).log(),
        second.log(),
        first.log() * second.log(),
        (first + second).log(),
    ]


def planar_determinant(c, h):
    # The library's layer with these numbers, and its parts by autograd.
    layer = Planar((2,))
    layer.weight.data = tensor([0.6, -0.8])
    layer.free_direction.data = math.log(math.expm1(c + 1)) * layer.weight.data
    layer.bias.data = tensor(math.atanh(h) - 0.3)
    x = 0.3 * layer.weight.data + tensor([0.8, 0.6])
    along = (layer.weight @ layer.direction()).item()
    answer = layer(x[None])[1].detach()
    jacobian = torch.autograd.functional.jacobian(lambda p: layer(p[None])[0][0], x)
    part = jacobian - torch.eye(2)  # of rank one
    return answer, [
        math.log1p(along * h),
        math.log1p(along * (1 - h)),
        part.trace().abs().log(),
        torch.linalg.det(jacobian),
    ]


def russian_roulette_draw(d, c, q, n):
    jacobian = c * torch.eye(round(d))
    traces = [torch.linalg.matrix_power(jacobian, k).trace() for k in range(1, round(n) + 1)]
    terms = torch.stack([(-1) ** k * trace / (k + 1) for k, trace in enumerate(traces)])
    reached = tensor([q**k for k in range(round(n))])
    return (terms / reached).sum(), [
        terms.sum(),
        (terms * reached).sum(),
        terms.sum() / reached[-1],
        (terms.abs() / reached).sum(),
        torch.linalg.slogdet(torch.eye(round(d)) + jacobian).logabsdet,
    ]


def maf_conditional(x1, x2):
    layer = MaskedAutoregressive((2,), (4,))
    mean, log_scale = 2 * x1, x1 / 2
    layer.conditionals = lambda x: (tensor([[0, mean]]), tensor([[0, log_scale]]))
    z, log_det = layer(tensor([[x1, x2]]))
    latent = STANDARD.log_prob(z[0, 1]).detach()
    wider = Normal(mean, math.exp(log_scale) ** 0.5).log_prob(tensor(x2))
    order = STANDARD.log_prob(tensor(x2 * math.exp(-log_scale) - mean))
    answer = Normal(mean, math.exp(log_scale)).log_prob(tensor(x2))
    torch.testing.assert_close(answer, latent + log_det[0].detach())
    return answer, [latent + log_scale, latent, wider, order - log_scale]


def slope_at_the_median(b):
    conditional = Laplace(0.7, b)
    median = tensor(0.7)
    density = conditional.log_prob(median).exp()
    noise = STANDARD.log_prob(STANDARD.icdf(conditional.cdf(median))).exp()
    return density / noise, [density, noise / density, density * noise]


def steepness_from_quantiles(delta, a, b):
    # On the line, half-lines of noise with these probabilities: the map crosses the gap between them.
    left = STANDARD.icdf(STANDARD.cdf(tensor(a)))
    right = STANDARD.icdf(1 - STANDARD.cdf(tensor(b)))
    steepness = delta / (right - left)
    return steepness, [
        delta / 2 / (right - left),
        delta / (left + right),
        delta / right,
        1 / steepness,
    ]


def reverse_kl_of_a_gaussian(s, m):
    z = torch.linspace(-12, 12, 24_001)
    noise = STANDARD.log_prob(z).exp()

    def mean(values):
        return torch.trapezoid(noise * values, z)

    normalizer = torch.trapezoid((-(z**2) / 2).exp(), z).log()
    divergence = kl_univariate_gaussian(tensor(m), tensor(s), tensor(0.0), tensor(1.0))
    target = -((s * z + m) ** 2) / 2
    log_s = math.log(s)
    return divergence - normalizer, [
        mean(STANDARD.log_prob(z) + log_s - target),
        mean(STANDARD.log_prob(z) - target),
        divergence,
        mean(-log_s - target),
    ]


def hutchinson_with_signs(a11, a12, a21, a22):
    matrix = tensor([[a11, a12], [a21, a22]])
    signs = torch.tensor(list(itertools.product([-1.0, 1.0], repeat=2)))
    estimates = torch.einsum("ni,ij,nj->n", signs, matrix, signs)
    answer = estimates.var(correction=0)
    # For normal entries: the moments of a polynomial, by quadrature on a grid.
    side = torch.linspace(-10, 10, 801)
    grid = torch.cartesian_prod(side, side)
    weights = MultivariateNormal(torch.zeros(2), torch.eye(2)).log_prob(grid).exp() * 0.025**2
    values = torch.einsum("ni,ij,nj->n", grid, matrix, grid)
    mean = (weights * values).sum()
    normal = (weights * (values - mean) ** 2).sum()
    off_diagonal = matrix - matrix.diag().diag()
    return answer, [2 * off_diagonal.square().sum(), normal, answer / 2, answer.sqrt()]


def a_colder_density(d, r, t):
    z = torch.ones(round(d)) * math.sqrt(r / d)

    def log_prob(scale):
        return Normal(0, scale).log_prob(z).sum()

    answer = log_prob(t) - log_prob(1.0)
    log_t = math.log(t)
    variance = log_prob(math.sqrt(t)) - log_prob(1.0)
    return answer, [
        answer + d * log_t,
        log_prob(1 / t) - log_prob(1.0),
        answer + (d - 1) * log_t,
        variance,
    ]


def gap_of_a_box(k, h, g):
    density = torch.cat([torch.full((500,), h), torch.full((500,), g)])
    probability = discrete_log_prob(density.mean().log(), (1,), round(k))
    bound = discrete_log_prob(density.log(), (1,), round(k)).mean()
    geometric = density.log().mean().exp()
    return probability - bound, [
        density.mean().log() - bound,
        density.mean() - geometric,
        bound,
        density.log().max() - density.log().mean(),
    ]


def area_of_a_cell(d, t):
    origin = torch.zeros(round(d))
    sampled, claimed = Normal(0, t).log_prob(origin).sum(), STANDARD.log_prob(origin).sum()
    one = Normal(0, t).log_prob(origin)[0] - STANDARD.log_prob(origin)[0]
    return (sampled - claimed).exp(), [
        (claimed - sampled).exp(),
        (sampled - sampled).exp(),
        one.exp(),
        sampled - claimed,
    ]


ROUTES = {
    "density-of-a-power": density_of_a_power,
    "two-layers-at-their-own-inputs": two_layers_at_their_own_inputs,
    "planar-determinant": planar_determinant,
    "russian-roulette-draw": russian_roulette_draw,
    "maf-conditional": maf_conditional,
    "slope-at-the-median": slope_at_the_median,
    "steepness-from-quantiles": steepness_from_quantiles,
    "reverse-kl-of-a-gaussian": reverse_kl_of_a_gaussian,
    "hutchinson-with-signs": hutchinson_with_signs,
    "a-colder-density": a_colder_density,
    "gap-of-a-box": gap_of_a_box,
    "area-of-a-cell": area_of_a_cell,
}
