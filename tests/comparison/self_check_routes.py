"""The answers and slips of the chapter's questions once more, by the library, counting or quadrature."""

import itertools
import math

import torch
from torch import tensor
from torch.distributions import MultivariateNormal, Normal

from course_lib.diffusion import Diffusion
from course_lib.flow_matching import VelocityFlow


def evaluations_of_heun(n):
    def calls(model, **options):
        seen = []
        model.network.register_forward_hook(lambda *_: seen.append(1))
        model.sample(1, steps=round(n), **options)
        return len(seen)

    diffusion = [{"method": "heun"}, {"eta": 0.0}]
    heun, ddim = (calls(Diffusion((1, 2, 2), 3, hidden=(4,)), **options) for options in diffusion)
    ode_heun, rk4 = (
        calls(VelocityFlow((1, 2, 2), 3, hidden=(4,)), method=method) for method in ("heun", "rk4")
    )
    return heun, [ddim - 1, ode_heun, ddim, rk4]


def probes_inside_a_logarithm(s, k):
    def excess(deviation):
        # The log of the mean of e^η by quadrature.
        noise = torch.linspace(-60, 60, 120_001)
        return torch.trapezoid((Normal(0, deviation).log_prob(noise) + noise).exp(), noise).log()

    answer = excess(s / math.sqrt(k))
    return answer, [0.0, excess(s), 2 * answer, excess(s / k)]


def loss_at_one_image(e, r):
    model, noise = tensor(0.3), tensor(0.3 * r)
    weights = tensor([e, 1 - e]).log()
    parts = torch.stack([model.log(), noise.log()])
    mixed = (weights + parts).logsumexp(0)
    return model.log() - mixed, [
        -weights[0],
        model.log() - (weights.exp() * parts).sum(),
        -weights[1],
        model.log() - (weights + parts)[1],
    ]


def judge_of_one_image(m):
    # The last value is the missing part. A judge says for each value whether it is real.
    real = tensor([0.5 * (1 - m), 0.3 * (1 - m), 0.2 * (1 - m), m])
    made = torch.cat([real[:3] / real[:3].sum(), torch.zeros(1)])
    right = [
        sum(real[i] if says else made[i] for i, says in enumerate(judge)) / 2
        for judge in itertools.product([True, False], repeat=4)
    ]
    best = max(right)
    apart = (real - made).abs().sum()
    return best, [0.5, apart / 2, (1 + apart) / 2, 1.5 - best]


def difference_on_the_same_images(n, s, r):
    losses = MultivariateNormal(torch.zeros(2), s**2 * tensor([[1.0, r], [r, 1.0]]))
    apart = tensor([1.0, -1.0])
    one_image = (apart @ losses.covariance_matrix @ apart).sqrt()
    one_model = losses.variance[0].sqrt() / math.sqrt(n)
    answer = one_image / math.sqrt(n)
    independent = losses.variance.sum().sqrt() / math.sqrt(n)
    return answer, [independent, one_model, answer / math.sqrt(2), one_image]


def better_of_two_seeds(s):
    # The density of the smaller one of two draws, by its distribution function.
    x = torch.linspace(-12, 12, 24_001) * s
    losses = Normal(0, s)
    density = 2 * losses.log_prob(x).exp() * (1 - losses.cdf(x))
    smaller = -torch.trapezoid(density * x, x)
    size_of_one = torch.trapezoid(losses.log_prob(x).exp() * x.abs(), x)
    return smaller, [0.0, size_of_one / 2, 2 * smaller, losses.stddev]


ROUTES = {
    "evaluations-of-heun": evaluations_of_heun,
    "probes-inside-a-logarithm": probes_inside_a_logarithm,
    "loss-at-one-image": loss_at_one_image,
    "judge-of-one-image": judge_of_one_image,
    "difference-on-the-same-images": difference_on_the_same_images,
    "better-of-two-seeds": better_of_two_seeds,
}
