"""The answers and slips of the chapter's questions once more, by the library, autograd or a search."""

import itertools
import math

import torch
from torch import tensor
from torch.distributions import Normal
from torch.nn.functional import binary_cross_entropy_with_logits

from course_lib.divergences import js_discrete, kl_discrete, wasserstein_1d
from course_lib.evaluation import frechet_gaussian
from course_lib.gan import discriminator_loss, hinge_loss, optimal_discriminator
from course_lib.gan.dirac import minimax, update_eigenvalues


def root(function, low, high):
    """Where an increasing function changes its sign, by bisection."""
    for _ in range(100):
        middle = (low + high) / 2
        low, high = (middle, high) if function(middle) < 0 else (low, middle)
    return (low + high) / 2


def value_of_two_answers(u, v):
    real, fake = tensor([u]).logit(), tensor([v]).logit()
    loss = discriminator_loss(real, fake)
    wish = discriminator_loss(real, -fake)  # the generated example is to be real
    return -loss, [-loss / 2, -wish, -discriminator_loss(fake, real), loss]


def density_from_an_answer(u, d):
    def generated(answer):
        def excess(log_q):
            return answer - optimal_discriminator(tensor(math.log(u)), tensor(log_q)).item()

        return math.exp(root(excess, -20.0, 20.0))

    return generated(d), [generated(1 - d), u - u * d, u + generated(d)]


def divergence_from_the_value(v):
    # Two distributions with the share of their mass in common for which the game has this value.
    common = -v / (2 * math.log(2))
    p, q = tensor([common, 1 - common, 0.0]), tensor([common, 0.0, 1 - common])
    answer = js_discrete(p, q)
    return answer, [
        2 * answer,
        answer + 1 - math.log(2),
        answer - math.log(2) / 2,
        math.log(2) - answer,
    ]


def price_of_a_lost_mode(c):
    data, made = tensor([c, 1 - c]), tensor([1.0, 0.0])
    mixture = (data + made) / 2
    reverse, twice_jsd = kl_discrete(made, data), 2 * js_discrete(data, made)
    return reverse - twice_jsd, [
        kl_discrete(mixture, data),
        reverse,
        2 * kl_discrete(data, mixture),
        twice_jsd,
    ]


def ratio_after_smoothing(a, d):
    def ratio(real_label, fake_label):
        # At the optimum the two slopes, weighted by the densities, cancel.
        logit = tensor(d).logit().requires_grad_()
        slopes = [
            torch.autograd.grad(binary_cross_entropy_with_logits(logit, tensor(label)), logit)[0]
            for label in (real_label, fake_label)
        ]
        return -slopes[1] / slopes[0]

    answer = ratio(a, 0.0)
    return answer, [ratio(1.0, 0.0), ratio(1.0, 0.0) / a, ratio(a, 1 - a), answer / (answer + 1)]


def hellinger_loss(t):
    def f(at):
        return (at.sqrt() - 1).square()

    def slope(at):
        return torch.autograd.functional.jacobian(f, tensor(at)).item()

    critic = slope(t)
    highest = root(lambda at: slope(at) - critic, 1e-3, 100.0)  # where tu − f(t) is largest
    conjugate = highest * critic - f(tensor(highest))
    return -conjugate, [f(tensor(t)), critic, -critic, conjugate]


def hinge_optimum(a, b):
    # The loss is piecewise linear: its least value is at a corner.
    def loss(scores):
        zero, one = tensor(scores)[:, None]
        near = torch.zeros(1) - 1e9, torch.zeros(1) + 1e9  # no loss from the other kind
        real = (1 - a) * hinge_loss(zero, near[0]) + a * hinge_loss(one, near[0])
        fake = (1 - b) * hinge_loss(near[1], zero) + b * hinge_loss(near[1], one)
        return (real + fake).item()

    least = min(loss(scores) for scores in itertools.product([-1.0, 0.0, 1.0], repeat=2))
    sizes = sum(abs(x - y) for x, y in ((a, b), (1 - a, 1 - b)))
    return least, [2 - sizes / 2, 2 - 2 * sizes, sizes, least / 2]


def conditional_logit(r, c, g):
    def logit(real, generated):
        return optimal_discriminator(tensor(real).log(), tensor(generated).log()).logit()

    answer = logit(r * c, g)
    return answer, [logit(r, 1.0), logit(c, g), logit(r * g, c), answer.sigmoid()]


def w1_of_two_widths(c):
    share = (torch.arange(40_000) + 0.5) / 40_000
    p, q = 2 * share - 1, c * (2 * share - 1)
    t = torch.linspace(-c, c, 2 * 60_000 + 1)
    below_p, below_q = ((t + 1) / 2).clamp(0, 1), (t / c + 1) / 2
    apart = torch.trapezoid(below_p * (1 - below_q) + below_q * (1 - below_p), t)
    return wasserstein_1d(p, q), [
        (p.mean() - q.mean()).abs().round(decimals=9),
        c - 1,
        (p - q).square().mean().sqrt(),
        apart,
    ]


def estimate_of_a_penalized_critic(m, w):
    def lowest(start):
        # One Newton step: on either side of 0 the loss is a parabola.
        slope = tensor(start).requires_grad_()
        loss = -m * slope + w * (slope.abs() - 1) ** 2
        (first,) = torch.autograd.grad(loss, slope, create_graph=True)
        (second,) = torch.autograd.grad(first, slope)
        return (slope - first / second).detach()

    right = lowest(0.5)
    return right * m, [m, (2 * right - 1) * m, right, lowest(-0.5) * m]


def largest_step(g):
    method = minimax(g)
    nu = torch.linalg.eigvals(tensor(method.jacobian))[0]
    away, size = -nu.real, nu.abs().square()
    answer = root(lambda h: update_eigenvalues(method, h).abs().max().item() - 1, 1e-6, 50.0)
    return answer, [2 * away, 4 * away / size, 2 / away, away / size]


def logit_under_noise(th, s, x):
    def logit(scale, at=x):
        return Normal(0, scale).log_prob(tensor(at)) - Normal(th, scale).log_prob(tensor(at))

    answer = logit(s**0.5)
    return answer, [2 * answer, logit(s**0.25), logit(s**0.5, th - x), answer.sigmoid()]


def frechet_on_the_line(m, v, w):
    def squared(mean, one, other):
        return frechet_gaussian(
            tensor([0.0]), tensor([[one]]), tensor([mean]), tensor([[other]])
        ).item()

    answer = squared(m, v, w)
    return answer, [
        answer + math.sqrt(v * w),
        squared(m**0.5, v, w),
        squared(m, v**2, w**2),
        math.sqrt(answer),
    ]


ROUTES = {
    "value-of-two-answers": value_of_two_answers,
    "density-from-an-answer": density_from_an_answer,
    "divergence-from-the-value": divergence_from_the_value,
    "price-of-a-lost-mode": price_of_a_lost_mode,
    "ratio-after-smoothing": ratio_after_smoothing,
    "hellinger-loss": hellinger_loss,
    "hinge-optimum": hinge_optimum,
    "conditional-logit": conditional_logit,
    "w1-of-two-widths": w1_of_two_widths,
    "estimate-of-a-penalized-critic": estimate_of_a_penalized_critic,
    "largest-step": largest_step,
    "logit-under-noise": logit_under_noise,
    "frechet-on-the-line": frechet_on_the_line,
}
