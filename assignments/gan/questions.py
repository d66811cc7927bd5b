"""The GAN assignment: references, probes, known mistakes and other right forms.

Not given to students: what they get is in ``student/``.
"""

import math
from functools import partial

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import (
    binary_cross_entropy,
    binary_cross_entropy_with_logits,
    logsigmoid,
    softplus,
)

from course_lib.grading import Measure, Mistake, Question, Written
from course_lib.grading.draws import integer, normal, number, signed, uniform

TITLE = "Generative adversarial networks"


# 1. The best discriminator of a game with unequal batches, as an expression. --------------------


def draw_densities(g: torch.Generator) -> tuple[Tensor, ...]:
    # Either density the larger one, either weight the larger one; densities may exceed 1.
    ratio = torch.cat([uniform(g, 2, 3, 2), uniform(g, 0.3, 0.5, 2)])
    w = 0.5 + torch.tensor([1.0, -1, 1, -1]) * uniform(g, 0.2, 0.35, 4)
    p = uniform(g, 0.2, 3, 4)
    return p, p * ratio, w


OPTIMAL = Question(
    name="optimal_output",
    points=2,
    kind="expression",
    symbols=("p", "q", "w"),
    reference="w*p / (w*p + (1 - w)*q)",
    draw=draw_densities,
    mistakes=(
        Mistake(
            "probability of generated",
            "This is the probability that x is generated, 1 − D*: the numerator belongs to real examples",
            "(1 - w)*q / (w*p + (1 - w)*q)",
        ),
        Mistake(
            "weights ignored",
            "This is the optimum for w = ½: the weights of the two terms shift it",
            "p / (p + q)",
        ),
        Mistake(
            "weights exchanged",
            "The weights are exchanged: w goes with the real distribution",
            "(1 - w)*p / ((1 - w)*p + w*q)",
        ),
        Mistake(
            "weight in the numerator only",
            "The weights stand in the numerator but not in the denominator: is this ½ for wp = (1 − w)q?",
            "w*p / (p + q)",
        ),
        Mistake(
            "ratio",
            "This is D*/(1 − D*), the odds: it may exceed 1, a probability may not",
            "w*p / ((1 - w)*q)",
        ),
        Mistake(
            "logit",
            "This is the logit of D*; D* itself is asked for",
            "log(w*p) - log((1 - w)*q)",
        ),
        Mistake(
            "square root",
            "These are square roots of the terms; the zero of the derivative holds the terms themselves",
            "sqrt(w*p) / (sqrt(w*p) + sqrt((1 - w)*q))",
        ),
    ),
    equivalents=(
        "1 / (1 + (1 - w)/w * q/p)",
        "1 - (1 - w)*q / (w*p + (1 - w)*q)",
        "1 / (1 + exp(log(1 - w) + log(q) - log(w) - log(p)))",
        "p*w / (q + w*(p - q))",
    ),
)


# 2. Both labels smoothed, from log densities. ---------------------------------------------------


def smoothed_discriminator(log_p, log_q, real_label, fake_label):
    share = torch.sigmoid(log_p - log_q)
    return real_label * share + fake_label * (1 - share)


def smoothed_by_logaddexp(log_p, log_q, real_label, fake_label):
    top = torch.logaddexp(log_p + math.log(real_label), log_q + math.log(fake_label))
    return (top - torch.logaddexp(log_p, log_q)).exp()


def smoothed_by_softmax(log_p, log_q, real_label, fake_label):
    share = torch.softmax(torch.stack([log_p, log_q]), 0)
    return real_label * share[0] + fake_label * share[1]


def draw_log_densities(
    g: torch.Generator, n: tuple[int, int], real: tuple[float, float], fake: tuple[float, float]
) -> tuple[Tensor, Tensor, float, float]:
    n = integer(g, *n)
    # Either distribution the likelier one, by a little and by more than float32 can hold as a ratio.
    difference = torch.cat([signed(g, 0.5, 1.5, n), torch.tensor([-95.0, 95.0]).double()])
    log_p = torch.cat([uniform(g, -118, -105, n), torch.tensor([-20.0, -115.0]).double()])
    return log_p, log_p + difference, number(g, *real), number(g, *fake)


SMOOTHED = Question(
    name="smoothed_discriminator",
    points=1,
    reference=smoothed_discriminator,
    # The two labels sum to more than 1, and to less.
    draw=(
        partial(draw_log_densities, n=(2, 4), real=(0.8, 0.9), fake=(0.25, 0.35)),
        partial(draw_log_densities, n=(4, 7), real=(0.55, 0.65), fake=(0.05, 0.15)),
    ),
    mistakes=(
        Mistake(
            "label of generated ignored",
            "This is one-sided smoothing, αp/(p + q): the label β of generated examples is not used",
            lambda p, q, a, b: smoothed_discriminator(p, q, a, 0),
        ),
        Mistake(
            "label of real ignored",
            "The real label α is not used: this is the optimum for the labels 1 and β",
            lambda p, q, a, b: smoothed_discriminator(p, q, 1, b),
        ),
        Mistake(
            "no smoothing",
            "This is the optimum without smoothing, p/(p + q)",
            lambda p, q, a, b: torch.sigmoid(p - q),
        ),
        Mistake(
            "one label for both",
            "α softens both labels here (α and 1 − α); generated examples have a label of their own, β",
            lambda p, q, a, b: smoothed_discriminator(p, q, a, 1 - a),
        ),
        Mistake(
            "1 − β for β",
            "β is taken as the amount of 1 that is left: the target at generated examples is β, not 1 − β",
            lambda p, q, a, b: smoothed_discriminator(p, q, a, 1 - b),
        ),
        Mistake(
            "distributions exchanged",
            "The two distributions are exchanged: α belongs to p, β to q",
            lambda p, q, a, b: smoothed_discriminator(q, p, a, b),
        ),
        Mistake(
            "normalized by the labels",
            "The denominator is weighted by the labels; the targets of each kind sum to 1, so it is p + q",
            lambda p, q, a, b: torch.sigmoid(p - q + math.log(a / b)),
        ),
    ),
    equivalents=(smoothed_by_logaddexp, smoothed_by_softmax),
)


# 3. A game on three outcomes, in numbers. -------------------------------------------------------


def game_table(
    *, halves: float = 0.5, factor: float = 2.0, log_two: float = math.log(2)
) -> dict[str, float]:
    """p = (0.6, 0.3, 0.1) and q = (0.2, 0.2, 0.6)."""
    p, q = (0.6, 0.3, 0.1), (0.2, 0.2, 0.6)
    m = [(a + b) / 2 for a, b in zip(p, q, strict=True)]
    to_middle = [
        sum(a * math.log(a / c) for a, c in zip(distribution, m, strict=True))
        for distribution in (p, q)
    ]
    jsd = halves * sum(to_middle)
    return {
        "first": p[0] / (p[0] + q[0]),
        "jsd": jsd,
        "best": factor * jsd - 2 * log_two,
        "undecided": -2 * log_two,
    }


def divergence_of_log_mixture() -> float:
    p, q = (0.6, 0.3, 0.1), (0.2, 0.2, 0.6)
    jeffreys = sum((a - b) * (math.log(a) - math.log(b)) for a, b in zip(p, q, strict=True))
    return jeffreys / 4


GAME = Question(
    name="game",
    points=2,
    kind="value",
    reference=game_table(),
    mistakes=(
        Mistake(
            "halves of the JSD forgotten",
            "jsd lacks the two factors ½ of its definition: the JSD never exceeds log 2 = 0.693",
            game_table() | {"jsd": 2 * game_table()["jsd"]},
        ),
        Mistake(
            "halves forgotten throughout",
            "jsd lacks the two factors ½ of its definition, and the value is computed from it",
            game_table(halves=1.0),
        ),
        Mistake(
            "factor 2 dropped",
            "The value is taken for JSD − log 4; inserting D* gives the JSD twice",
            game_table(factor=1.0),
        ),
        Mistake(
            "mixture of logarithms",
            "The logarithms are averaged; the mixture in the JSD averages the densities, m = ½(p + q)",
            game_table()
            | {
                "jsd": divergence_of_log_mixture(),
                "best": 2 * divergence_of_log_mixture() - 2 * math.log(2),
            },
        ),
        Mistake(
            "−log 2 for the undecided",
            "The value of D ≡ ½ has two terms, one for each distribution, and one log 2 is counted here",
            game_table() | {"undecided": -math.log(2)},
        ),
        Mistake(
            "bits",
            "These are bits (−log 4 is −2 there): the course counts in nats, with the natural logarithm",
            {
                name: value / (1 if name == "first" else math.log(2))
                for name, value in game_table().items()
            },
        ),
        Mistake(
            "−2 for −log 4",
            "log 4 is taken for 2: that holds for bits, while the JSD here is in nats",
            game_table(log_two=1.0),
        ),
        Mistake(
            "losses",
            "These are the discriminator's losses −V; the values V are asked for, which are negative",
            {
                name: value if name in ("first", "jsd") else -value
                for name, value in game_table().items()
            },
        ),
        Mistake(
            "D for generated",
            "first is 1 − D*: the discriminator's output is the probability of being real",
            game_table() | {"first": 0.25},
        ),
    ),
    equivalents=(
        {name: torch.tensor(value) for name, value in game_table().items()},
        {name: torch.tensor([value]).sum() for name, value in reversed(game_table().items())},
        {name: round(value, 5) for name, value in game_table().items()},
        {name: float(f"{value:.5g}") for name, value in game_table().items()},
    ),
)


# 4. The gradient of a blended generator loss. ---------------------------------------------------


def generator_gradient(logits, mix):
    d = torch.sigmoid(logits)
    return -(mix * d + (1 - mix) * torch.sigmoid(-logits)) / len(logits)


def generator_gradient_by_autograd(logits, mix):
    logits = logits.clone().requires_grad_()
    loss = mix * logsigmoid(-logits) - (1 - mix) * logsigmoid(logits)
    return torch.autograd.grad(loss.mean(), logits)[0]


def generator_gradient_by_tanh(logits, mix):
    return -(1 + (2 * mix - 1) * torch.tanh(logits / 2)) / 2 / logits.numel()


def generator_gradient_with_epsilon(logits, mix):
    logits = logits.clone().requires_grad_()
    d = torch.sigmoid(logits)
    loss = mix * (1 - d + 1e-8).log() - (1 - mix) * (d + 1e-8).log()
    return torch.autograd.grad(loss.mean(), logits)[0]


def draw_fake_logits(
    g: torch.Generator, n: tuple[int, int], mix: tuple[float, float]
) -> tuple[Tensor, float]:
    logits = torch.cat([signed(g, 0.3, 4, integer(g, *n)), -uniform(g, 100, 120, 1)])
    return logits[torch.randperm(len(logits), generator=g)], number(g, *mix)


GENERATOR_GRADIENT = Question(
    name="generator_gradient",
    points=1,
    reference=generator_gradient,
    draw=(
        partial(draw_fake_logits, n=(3, 6), mix=(0.6, 0.8)),
        partial(draw_fake_logits, n=(6, 9), mix=(0.2, 0.4)),
    ),
    mistakes=(
        Mistake(
            "losses exchanged",
            "The two losses are exchanged: log(1 − D) is the saturating one, flat where D is near 0",
            lambda a, m: generator_gradient(a, 1 - m),
        ),
        Mistake(
            "saturating only",
            "This is the gradient of the saturating loss alone",
            lambda a, m: generator_gradient(a, 1),
        ),
        Mistake(
            "non-saturating only",
            "This is the gradient of the non-saturating loss alone",
            lambda a, m: generator_gradient(a, 0),
        ),
        Mistake(
            "sum over the batch",
            "The factor 1/N is missing: the loss is the mean over the generated examples",
            lambda a, m: len(a) * generator_gradient(a, m),
        ),
        Mistake(
            "sign",
            "The sign is flipped: both losses fall as a logit rises, so the gradient is negative",
            lambda a, m: -generator_gradient(a, m),
        ),
        Mistake(
            "saturating term ascended",
            "The saturating term has the wrong sign: log(1 − D) falls as the logit rises",
            lambda a, m: (m * torch.sigmoid(a) - (1 - m) * torch.sigmoid(-a)) / len(a),
        ),
        Mistake(
            "non-saturating term ascended",
            "The non-saturating term has the wrong sign: −log D falls as the logit rises",
            lambda a, m: (-m * torch.sigmoid(a) + (1 - m) * torch.sigmoid(-a)) / len(a),
        ),
        Mistake(
            "ε in the logarithm",
            "An ε inside the logarithm, or a bound on it, takes the gradient away where D is nearly 0, and "
            "there it is needed most; stay with the logits",
            generator_gradient_with_epsilon,
        ),
        Mistake(
            "gradient for the probability",
            "This is the gradient with respect to D; with respect to the logit the sigmoid's slope D(1 − D) "
            "comes in",
            lambda a, m: -(m / torch.sigmoid(-a) + (1 - m) / torch.sigmoid(a)) / len(a),
        ),
    ),
    equivalents=(generator_gradient_by_autograd, generator_gradient_by_tanh),
)


# 5. The discriminator's loss from logits. -------------------------------------------------------


def discriminator_loss(real_logits, fake_logits, real_label, fake_label):
    real = real_label * softplus(-real_logits) + (1 - real_label) * softplus(real_logits)
    fake = fake_label * softplus(-fake_logits) + (1 - fake_label) * softplus(fake_logits)
    return real.mean() + fake.mean()


def discriminator_loss_by_cross_entropy(real_logits, fake_logits, real_label, fake_label):
    return sum(
        binary_cross_entropy_with_logits(logits, torch.full_like(logits, label))
        for logits, label in ((real_logits, real_label), (fake_logits, fake_label))
    )


def discriminator_loss_by_loop(real_logits, fake_logits, real_label, fake_label):
    total = 0
    for logits, label in ((real_logits, real_label), (fake_logits, fake_label)):
        for a in logits:
            # −y log σ(a) − (1 − y) log(1 − σ(a)), with the larger exponent taken out
            total += (a.clamp(min=0) - label * a + (1 + (-a.abs()).exp()).log()) / len(logits)
    return total


def draw_logits(
    g: torch.Generator, n: int, m: int, real: tuple[float, float], fake: tuple[float, float]
) -> tuple[Tensor, Tensor, float, float]:
    # Both kinds are found out and mistaken, by little and by much; mostly they are found out.
    sign = torch.tensor([1.0, 1, -1]).double()
    a = torch.cat([signed(g, 0.5, 3, n), sign * uniform(g, 120, 150, 3)])
    b = torch.cat([signed(g, 0.5, 3, m), -sign * uniform(g, 120, 150, 3)])
    return a, b, number(g, *real), number(g, *fake)


def clamped_cross_entropy(real_logits, fake_logits, real_label, fake_label):
    return sum(
        binary_cross_entropy(torch.sigmoid(logits), torch.full_like(logits, label))
        for logits, label in ((real_logits, real_label), (fake_logits, fake_label))
    )


def epsilon_cross_entropy(real_logits, fake_logits, real_label, fake_label):
    total = 0
    for logits, label in ((real_logits, real_label), (fake_logits, fake_label)):
        d = torch.sigmoid(logits)
        total -= (label * (d + 1e-8).log() + (1 - label) * (1 - d + 1e-8).log()).mean()
    return total


LOSS = Question(
    name="discriminator_loss",
    points=1.5,
    reference=discriminator_loss,
    draw=(
        partial(draw_logits, n=5, m=2, real=(0.85, 0.95), fake=(0.2, 0.3)),
        partial(draw_logits, n=3, m=4, real=(0.6, 0.7), fake=(0.05, 0.15)),
    ),
    mistakes=(
        Mistake(
            "sigmoid twice",
            "A sigmoid is applied to the logits before a loss that applies it again: the loss of a perfect "
            "discriminator then has a floor near 1",
            lambda r, f, a, b: discriminator_loss(torch.sigmoid(r), torch.sigmoid(f), a, b),
        ),
        Mistake(
            "clamped logarithm",
            "Sigmoid and logarithm apart: σ(a) rounds to 0 or 1, and the logarithm is then cut off (at −100 "
            "by PyTorch's binary_cross_entropy); stay with the logits",
            clamped_cross_entropy,
        ),
        Mistake(
            "ε in the logarithm",
            "An ε inside the logarithm hides what a confident discriminator gets wrong; stay with the logits",
            epsilon_cross_entropy,
        ),
        Mistake(
            "labels not smoothed",
            "The labels are taken as 1 and 0; α and β are given",
            lambda r, f, a, b: discriminator_loss(r, f, 1, 0),
        ),
        Mistake(
            "generated examples labelled real",
            "Generated examples get the real label: that is the generator's wish, not the discriminator's "
            "target",
            lambda r, f, a, b: discriminator_loss(r, f, a, a),
        ),
        Mistake(
            "labels exchanged",
            "The labels are exchanged: a high logit means real",
            lambda r, f, a, b: discriminator_loss(r, f, b, a),
        ),
        Mistake(
            "one label for both",
            "Generated examples get the label 1 − α; they have one of their own, β",
            lambda r, f, a, b: discriminator_loss(r, f, a, 1 - a),
        ),
        Mistake(
            "one-sided",
            "Only the real label is smoothed: the label β of generated examples is taken as 0",
            lambda r, f, a, b: discriminator_loss(r, f, a, 0),
        ),
        Mistake(
            "pooled mean",
            "The examples of both batches are averaged together: each expectation is a mean of its own batch",
            lambda r, f, a, b: (
                (
                    len(r) * discriminator_loss(r, f * 0 - 1e4, a, 0)
                    + len(f) * discriminator_loss(r * 0 + 1e4, f, 1, b)
                )
                / (len(r) + len(f))
            ),
        ),
        Mistake(
            "sum over the batch",
            "The examples are summed up; each of the two expectations is a mean over its own batch",
            lambda r, f, a, b: (
                len(r) * discriminator_loss(r, f * 0 - 1e4, a, 0)
                + len(f) * discriminator_loss(r * 0 + 1e4, f, 1, b)
            ),
        ),
        Mistake(
            "half",
            "This has the factor ½ of the textbook's J; here the loss is −V, without it",
            lambda *x: discriminator_loss(*x) / 2,
        ),
        Mistake(
            "sign",
            "This is V, which the discriminator maximizes; its loss is −V",
            lambda *x: -discriminator_loss(*x),
        ),
    ),
    equivalents=(discriminator_loss_by_cross_entropy, discriminator_loss_by_loop),
)


# 6. A one-sided gradient penalty with its gradient. ---------------------------------------------


def penalty_of(real, fake, mix, weight, target, norm=None, power=2, one_sided=True, reduce=None):
    """The penalty of f(x) = ½‖xW‖², whose gradient in x is x W Wᵀ, and its gradient in W."""
    weight = weight.clone().requires_grad_()
    mix = mix.reshape(-1, 1, 1, 1)
    x = mix * real + (1 - mix) * fake
    gradient = (x.flatten(1) @ weight @ weight.T).reshape(x.shape)
    norm = norm or (lambda g: g.flatten(1).norm(dim=1))
    excess = norm(gradient) - target
    if one_sided:
        excess = excess.clamp(min=0)
    penalty = (reduce or torch.mean)(excess**power)
    return penalty, torch.autograd.grad(penalty, weight)[0]


def penalty_gradient(real, fake, mix, weight, target):
    return penalty_of(real, fake, mix, weight, target)


def penalty_by_double_autograd(real, fake, mix, weight, target):
    weight = weight.clone().requires_grad_()
    x = torch.lerp(fake, real, mix[:, None, None, None]).requires_grad_()
    score = 0.5 * (x.flatten(1) @ weight).square().sum(1)
    (gradient,) = torch.autograd.grad(score.sum(), x, create_graph=True)
    norm = torch.linalg.vector_norm(gradient.flatten(1), dim=1)
    penalty = torch.relu(norm - target).square().mean()
    penalty.backward()
    return penalty.detach(), weight.grad


def penalty_by_loop(real, fake, mix, weight, target):
    weight = weight.clone().requires_grad_()
    total = 0
    for a, b, u in zip(real, fake, mix, strict=True):
        x = (u * a + (1 - u) * b).flatten().requires_grad_()
        (gradient,) = torch.autograd.grad(0.5 * (x @ weight).square().sum(), x, create_graph=True)
        squared = gradient.square().sum()
        if squared > target**2:
            total = total + (squared.sqrt() - target) ** 2 / len(real)
    return total.detach(), torch.autograd.grad(total, weight)[0]


def draw_penalty(
    g: torch.Generator, n: int, shape: tuple[int, int, int], k: int, target: tuple[float, float]
) -> tuple[Tensor, Tensor, Tensor, Tensor, float]:
    real, fake = normal(g, n, *shape), 1 + 0.5 * normal(g, n, *shape)
    weight, c = 0.5 * normal(g, math.prod(shape), k), number(g, *target)
    # The critic's gradient at the first pair is below the target wherever the weight puts its point.
    first = torch.stack([real[0], fake[0]])
    norms = (first.flatten(1) @ weight @ weight.T).norm(dim=1)
    real[0], fake[0] = first * uniform(g, 0.3, 0.5, 1) * c / norms.max()
    # Every pair stands twice, with u and 1 − u: which of the two is multiplied by u does not matter.
    # The last pair meets at 0, where the critic's gradient is 0.
    u = uniform(g, 0.1, 0.3, n)
    last = normal(g, 1, *shape)
    return (
        torch.cat([real, real, last]),
        torch.cat([fake, fake, -last]),
        torch.cat([u, 1 - u, torch.full((1,), 0.5, dtype=u.dtype)]),
        weight,
        c,
    )


PENALTY = Question(
    name="penalty_gradient",
    points=2.5,
    reference=penalty_gradient,
    draw=(
        partial(draw_penalty, n=3, shape=(2, 2, 3), k=3, target=(0.5, 0.8)),
        partial(draw_penalty, n=5, shape=(3, 3, 2), k=2, target=(1.3, 2)),
    ),
    mistakes=(
        Mistake(
            "two-sided",
            "This penalizes norms below the target as well; one-sided means max(0, ‖∇‖ − c)",
            lambda *x: penalty_of(*x, one_sided=False),
        ),
        Mistake(
            "norm over the batch",
            "One norm is taken over the whole batch; each example has its own",
            lambda *x: penalty_of(*x, norm=lambda g: g.norm().reshape(1)),
        ),
        Mistake(
            "norm over one axis",
            "The norm is taken over the channels alone; it belongs to all dimensions of an example",
            lambda *x: penalty_of(*x, norm=lambda g: g.norm(dim=1)),
        ),
        Mistake(
            "target 1",
            "The target norm is taken as 1, as in the paper; here it is given",
            lambda r, f, u, w, c: penalty_of(r, f, u, w, 1.0),
        ),
        Mistake(
            "at real examples",
            "The penalty is taken at the real examples; its points lie between real and generated ones",
            lambda r, f, u, w, c: penalty_of(r, f, torch.ones_like(u), w, c),
        ),
        Mistake(
            "at generated examples",
            "The penalty is taken at the generated examples; its points lie between real and generated ones",
            lambda r, f, u, w, c: penalty_of(r, f, torch.zeros_like(u), w, c),
        ),
        Mistake(
            "one mixing weight",
            "One mixing weight serves the whole batch; each pair has its own",
            lambda r, f, u, w, c: penalty_of(r, f, u[:1].expand(len(u)), w, c),
        ),
        Mistake(
            "square missing",
            "The square on (‖∇‖ − c) is missing",
            lambda *x: penalty_of(*x, power=1),
        ),
        Mistake(
            "squared norm",
            "The squared norm is compared with c; the penalty compares the norm itself",
            lambda *x: penalty_of(*x, norm=lambda g: g.flatten(1).square().sum(1)),
        ),
        Mistake(
            "sum over the batch",
            "The examples are summed up; the penalty is their mean",
            lambda *x: penalty_of(*x, reduce=torch.sum),
        ),
        Mistake(
            "factor ½",
            "There is a factor ½ here; that is R1's convention, the gradient penalty of WGAN-GP has none",
            lambda *x: tuple(y / 2 for y in penalty_of(*x)),
        ),
    ),
    equivalents=(
        penalty_by_double_autograd,
        penalty_by_loop,
        # Real and generated exchanged in the interpolation: the same segments.
        lambda r, f, u, w, c: penalty_of(f, r, u, w, c),
    ),
)


# 7. Two rounds of a Wasserstein game. -----------------------------------------------------------


def rounds(
    real,
    fake,
    step,
    bound,
    *,
    clip=True,
    real_term=True,
    direction=1.0,
    attached=False,
    shared=False,
    simultaneous=False,
    summed=False,
    by_norm=False,
):
    """Two rounds with the critic f(x) = x·w, from w = 0, and the generated points as parameters."""
    w = torch.zeros_like(real[0])
    for _ in range(2):
        before = w
        gradient = fake.mean(0) - (real.mean(0) if real_term else 0)  # of the critic's loss
        if attached:
            fake = fake - step * w / len(fake)
        w = w - step * gradient
        if clip:
            w = w * min(1.0, bound / w.norm().item()) if by_norm else w.clamp(-bound, bound)
        used = before if simultaneous else w
        scale = 1 if summed else len(fake)
        if shared:
            w = w + step * fake.mean(0)  # the generator's loss is −mean f
        fake = fake + direction * step * used / scale
    return fake


def wgan_rounds(real, fake, step, bound):
    return rounds(real, fake, step, bound)


def wgan_rounds_by_autograd(real, fake, step, bound):
    fake = fake.clone().requires_grad_()
    w = torch.zeros(real.shape[1], dtype=real.dtype, requires_grad=True)
    critic, generator = torch.optim.SGD([w], lr=step), torch.optim.SGD([fake], lr=step)
    for _ in range(2):
        critic.zero_grad()
        ((fake.detach() @ w).mean() - (real @ w).mean()).backward()
        critic.step()
        with torch.no_grad():
            w.clamp_(-bound, bound)
        generator.zero_grad()
        (-(fake @ w).mean()).backward()
        generator.step()
    return fake.detach()


def wgan_rounds_low_for_real(real, fake, step, bound):
    """The sign of both losses flipped: a critic that is low at real examples."""
    w = torch.zeros_like(real[0])
    for _ in range(2):
        w = (w - step * (real.mean(0) - fake.mean(0))).clamp(-bound, bound)
        fake = fake - step * w / len(fake)
    return fake


def draw_rounds(
    g: torch.Generator, n: int, m: int, sign: int
) -> tuple[Tensor, Tensor, float, float]:
    step, bound = number(g, 0.4, 0.6), number(g, 0.5, 0.7)
    # Weights that are clipped above and below, in both rounds; in the second alone; in none.
    distance = torch.tensor([2.5, -2.5, 0.7 * bound / step, 0.25, -0.3]).double()
    distance = sign * distance[: 4 if sign > 0 else 5]
    distance = distance[torch.randperm(len(distance), generator=g)]
    real, fake = 0.3 * normal(g, n, len(distance)), 0.5 * normal(g, m, len(distance))
    where = signed(g, 0.5, 1, len(distance))
    return where + distance + real - real.mean(0), where + fake - fake.mean(0), step, bound


ROUNDS = Question(
    name="wgan_rounds",
    points=2,
    reference=wgan_rounds,
    draw=(partial(draw_rounds, n=6, m=4, sign=1), partial(draw_rounds, n=3, m=5, sign=-1)),
    mistakes=(
        Mistake(
            "points move away",
            "The generated points move away from the real ones: the sign of one of the two losses is wrong",
            lambda *x: rounds(*x, direction=-1.0),
        ),
        Mistake(
            "not clipped",
            "The critic's weights are not clipped, or only before its step: they leave [−c, c]",
            lambda *x: rounds(*x, clip=False),
        ),
        Mistake(
            "clipped by norm",
            "The weight vector is scaled to the norm c; clipping bounds each of its entries",
            lambda *x: rounds(*x, by_norm=True),
        ),
        Mistake(
            "both expectations over the same distribution",
            "The critic's loss lacks the real examples: it compares two distributions",
            lambda *x: rounds(*x, real_term=False),
        ),
        Mistake(
            "detach forgotten",
            "The generated points move in the critic's step too: their gradient has to end there (detach)",
            lambda *x: rounds(*x, attached=True),
        ),
        Mistake(
            "critic moves in the generator's step",
            "The critic's weights move in the generator's step too: they belong to the other optimizer",
            lambda *x: rounds(*x, shared=True),
        ),
        Mistake(
            "simultaneous",
            "The points move by the critic of before its step (or once only); in each of the two rounds the "
            "generator's step comes second and sees the new critic",
            lambda *x: rounds(*x, simultaneous=True),
        ),
        Mistake(
            "sum over generated points",
            "The generator's loss is the mean over its points; here they move as if it were the sum",
            lambda *x: rounds(*x, summed=True),
        ),
    ),
    equivalents=(wgan_rounds_by_autograd, wgan_rounds_low_for_real),
)


# 8. A penalty on both distributions, weighted by the discriminator's doubt. ------------------------------


def both_sided_penalty(
    real_logits, real_gradients, fake_logits, fake_gradients, gamma_p, gamma_q, power=2, factor=0.5
):
    real = torch.sigmoid(-real_logits) ** power * real_gradients.flatten(1).square().sum(1)
    fake = torch.sigmoid(fake_logits) ** power * fake_gradients.flatten(1).square().sum(1)
    return factor * (gamma_p * real.mean() + gamma_q * fake.mean())


def both_sided_by_einsum(r, gr, f, gf, gamma_p, gamma_q):
    doubt = 1 / (1 + r.exp())
    belief = 1 - 1 / (1 + f.exp())
    real = torch.einsum("n,nchw,nchw->", doubt**2, gr, gr) / len(r)
    fake = torch.einsum("n,nchw,nchw->", belief**2, gf, gf) / len(f)
    return gamma_p / 2 * real + gamma_q / 2 * fake


def both_sided_by_norms(r, gr, f, gf, gamma_p, gamma_q):
    real = ((1 - torch.sigmoid(r)) * gr.flatten(1).norm(dim=1)) ** 2
    fake = (torch.sigmoid(f) * gf.flatten(1).norm(dim=1)) ** 2
    return gamma_p * real.mean() / 2 + gamma_q * fake.mean() / 2


def draw_both(
    g: torch.Generator, n: int, m: int, shape: tuple[int, int, int], *gamma: tuple[float, float]
) -> tuple[Tensor, Tensor, Tensor, Tensor, float, float]:
    # Mostly right about the real examples and about the generated ones, and wrong at some of both.
    return (
        torch.cat([uniform(g, 0.3, 1.5, n - 1), uniform(g, -0.6, -0.2, 1)]),
        normal(g, n, *shape),
        torch.cat([uniform(g, -1.8, -0.6, m - 1), uniform(g, 0.2, 0.4, 1)]),
        1.5 * normal(g, m, *shape),
        number(g, *gamma[0]),
        number(g, *gamma[1]),
    )


BOTH = Question(
    name="noise_penalty",
    points=1,
    reference=both_sided_penalty,
    draw=(
        lambda g: draw_both(g, integer(g, 4, 7), 3, (2, 3, 2), (0.5, 0.9), (1.5, 2.5)),
        lambda g: draw_both(g, 3, integer(g, 4, 7), (1, 2, 4), (1.5, 2.5), (0.5, 0.9)),
    ),
    mistakes=(
        Mistake(
            "γ for γ/2",
            "This has γ where the statement has γ/2: it is exactly twice as strong",
            lambda *x: both_sided_penalty(*x, factor=1.0),
        ),
        Mistake(
            "weights not squared",
            "1 − D and D weigh the terms without their squares",
            lambda *x: both_sided_penalty(*x, power=1),
        ),
        Mistake(
            "weights ignored",
            "The weights (1 − D)² and D² are missing: this is R1 on the data plus the same on generated ones",
            lambda *x: both_sided_penalty(*x, power=0),
        ),
        Mistake(
            "D and 1 − D exchanged",
            "D and 1 − D are exchanged: the penalty is to be strong where the discriminator is wrong",
            lambda r, gr, f, gf, a, b: both_sided_penalty(-r, gr, -f, gf, a, b),
        ),
        Mistake(
            "γ exchanged",
            "The two weights γ are exchanged",
            lambda r, gr, f, gf, a, b: both_sided_penalty(r, gr, f, gf, b, a),
        ),
        Mistake(
            "mean over pixels",
            "The squared gradient is averaged over the pixels; the squared norm is their sum",
            lambda *x: both_sided_penalty(*x) / x[1][0].numel(),
        ),
        Mistake(
            "sum over the batch",
            "The examples are summed up; an expectation is their mean",
            lambda r, gr, f, gf, a, b: both_sided_penalty(r, gr, f, gf, len(r) * a, len(f) * b),
        ),
        Mistake(
            "generated term forgotten",
            "The term of the generated examples is missing",
            lambda r, gr, f, gf, a, b: both_sided_penalty(r, gr, f, gf, a, 0),
        ),
    ),
    equivalents=(both_sided_by_einsum, both_sided_by_norms),
)


# 9. The Wasserstein distance of weighted points on a line. --------------------------------------


def cdf_difference(x, a, y, b):
    """F − G on the intervals between neighbouring points, and the lengths of these."""
    points = torch.cat([x, y]).sort().values
    left = points[:-1, None]
    difference = (a * (x <= left)).sum(1) - (b * (y <= left)).sum(1)
    return difference, points.diff()


def w1_weighted(x, a, y, b):
    difference, length = cdf_difference(x, a, y, b)
    return (difference.abs() * length).sum()


def w1_by_transport(x, a, y, b):
    """Move mass from left to right: the monotone plan is optimal on a line."""
    x, a, y, b = ([v[k].item() for k in s.argsort()] for s, v in ((x, x), (x, a), (y, y), (y, b)))
    i = j = 0
    cost = 0.0
    while i < len(x) and j < len(y):
        mass = min(a[i], b[j])
        cost += mass * abs(x[i] - y[j])
        a[i] -= mass
        b[j] -= mass
        i, j = (i + 1, j) if a[i] <= b[j] else (i, j + 1)
    return cost


def w1_by_quantiles(x, a, y, b):
    order_x, order_y = x.argsort(), y.argsort()
    cdf_x, cdf_y = a[order_x].cumsum(0), b[order_y].cumsum(0)
    levels = torch.cat([cdf_x, cdf_y]).sort().values
    levels = torch.cat([levels.new_zeros(1), levels])
    middle = (levels[1:] + levels[:-1]) / 2
    qx = x[order_x][torch.searchsorted(cdf_x, middle).clamp(max=len(x) - 1)]
    qy = y[order_y][torch.searchsorted(cdf_y, middle).clamp(max=len(y) - 1)]
    return ((qx - qy).abs() * levels.diff()).sum()


def w1_by_sign(x, a, y, b):
    difference, length = cdf_difference(x, a, y, b)
    return (difference * length * difference.sign()).sum()


def draw_weighted(g: torch.Generator, exchanged: bool) -> tuple[Tensor, ...]:
    # Crossing cumulative functions: the difference of the means is not the distance. Not sorted, and
    # with weights that grow, so that losing their order shows. One point belongs to both distributions.
    x = torch.tensor([2.0, 0.4, -0.4, 1.2], dtype=torch.float64) + uniform(g, -0.2, 0.2, 4)
    y = torch.tensor([3.4, -2.0, 0.1, 0.9, -1.2], dtype=torch.float64) + uniform(g, -0.2, 0.2, 5)
    y = torch.cat([y, x[:1], uniform(g, -1, 2, integer(g, 0, 3))])
    a = uniform(g, 0.5, 2, 4) * torch.tensor([1.0, 4, 2, 1])
    b = uniform(g, 0.5, 2, len(y)) * torch.tensor([3.0, 1, 1, 2, 4, 1, 1, 1])[: len(y)]
    a, b = a / a.sum(), b / b.sum()
    # Either distribution has the outermost points, and more of them; the second time all are far from 0.
    return (y + 17, b, x + 17, a) if exchanged else (x, a, y, b)


W1 = Question(
    name="w1_weighted",
    points=1.5,
    reference=w1_weighted,
    draw=(partial(draw_weighted, exchanged=False), partial(draw_weighted, exchanged=True)),
    mistakes=(
        Mistake(
            "difference of the means",
            "This is the difference of the two means, where mass that is missing on the left cancels mass "
            "that is missing on the right",
            lambda x, a, y, b: ((a * x).sum() - (b * y).sum()).abs(),
        ),
        Mistake(
            "sign of the loss",
            "The sign is flipped: a distance is not negative (the critic's loss is minus its estimate)",
            lambda *x: -w1_weighted(*x),
        ),
        Mistake(
            "weights ignored",
            "The weights are not used: every point counts the same here",
            lambda x, a, y, b: w1_weighted(
                x, torch.full_like(a, 1 / len(a)), y, torch.full_like(b, 1 / len(b))
            ),
        ),
        Mistake(
            "weights left behind in sorting",
            "The points are sorted and their weights are not: each weight belongs to its point",
            lambda x, a, y, b: w1_weighted(x.sort().values, a, y.sort().values, b),
        ),
        Mistake(
            "largest difference",
            "This is the largest difference of the cumulative functions (Kolmogorov–Smirnov), not the area "
            "between them",
            lambda *x: cdf_difference(*x)[0].abs().max(),
        ),
        Mistake(
            "squared difference",
            "The difference of the cumulative functions is squared (Cramér's distance); the area takes its "
            "absolute value",
            lambda *x: (cdf_difference(*x)[0] ** 2 * cdf_difference(*x)[1]).sum(),
        ),
        Mistake(
            "lengths forgotten",
            "The differences of the cumulative functions are added without the lengths of the intervals",
            lambda *x: cdf_difference(*x)[0].abs().sum(),
        ),
        Mistake(
            "every pair",
            "This is the mean distance over all pairs, a plan that moves mass at random; the best is cheaper",
            lambda x, a, y, b: a @ (x[:, None] - y).abs() @ b,
        ),
    ),
    equivalents=(w1_by_transport, w1_by_quantiles, w1_by_sign),
)


# 10. Two ways to step on the Dirac-GAN. ---------------------------------------------------------


def step_matrices(slope, gamma, step, *, friction=1.0, generator_friction=0.0):
    """Those of the simultaneous and of the alternating step."""
    eye = torch.eye(2, dtype=torch.float64)
    field = torch.tensor(
        [[-generator_friction * gamma, slope], [-slope, -friction * gamma]], dtype=torch.float64
    )
    first, second = eye.clone(), eye.clone()
    second[1] += step * field[1]  # the discriminator
    first[0] += step * field[0]  # then the generator
    return eye + step * field, first @ second


def step_radii(slope, gamma, step, **wrong):
    """Largest moduli of the eigenvalues of the simultaneous and of the alternating step."""
    return torch.stack(
        [torch.linalg.eigvals(m).abs().max() for m in step_matrices(slope, gamma, step, **wrong)]
    )


def step_radii_in_closed_form(slope, gamma, step):
    radii = []
    for trace, det in traces_and_determinants(slope, gamma, step):
        root = trace**2 - 4 * det
        # A complex pair has the product of its members, its squared modulus, as determinant.
        radii.append(math.sqrt(det) if root < 0 else (abs(trace) + math.sqrt(root)) / 2)
    return np.array(radii)


def traces_and_determinants(slope, gamma, step):
    """Of the simultaneous and of the alternating step's matrix."""
    damped, turned = 1 - step * gamma, (step * slope) ** 2
    return (1 + damped, damped + turned), (1 + damped - turned, damped)


def step_radii_by_roots(slope, gamma, step):
    return [
        max(abs((t + sign * (t * t - 4 * d + 0j) ** 0.5) / 2) for sign in (1, -1))
        for t, d in traces_and_determinants(slope, gamma, step)
    ]


def step_radii_by_numpy(slope, gamma, step):
    simultaneous = np.array([[1, step * slope], [-step * slope, 1 - step * gamma]])
    in_turn = simultaneous.copy()
    in_turn[0] = [1 - (step * slope) ** 2, step * slope * (1 - step * gamma)]
    return [np.abs(np.linalg.eigvals(m)).max() for m in (simultaneous, in_turn)]


def radii_from(change):
    """A mistake of `step_radii`: `change` gives a number from trace and determinant."""

    def answer(slope, gamma, step):
        pairs = traces_and_determinants(slope, gamma, step)
        return torch.tensor([change(t, d) for t, d in pairs], dtype=torch.float64)

    return answer


def larger_root(trace: float, det: float) -> complex:
    """The eigenvalue with + in front of the root."""
    return (trace + (trace**2 - 4 * det + 0j) ** 0.5) / 2


def field_radius(slope: float, gamma: float) -> float:
    return max(abs((-gamma + sign * (gamma**2 - 4 * slope**2 + 0j) ** 0.5) / 2) for sign in (1, -1))


# Whether the eigenvalues are real depends on γ: those of the simultaneous step from γ = 2 f′ on, those
# of the alternating one from γ = f′ (2 − h f′) on. With a large hγ the largest modulus is that of a
# negative one.


def draw_complex(g: torch.Generator) -> tuple[float, float, float]:
    return number(g, 0.6, 0.9), number(g, 0.3, 0.6), number(g, 0.2, 0.4)


def draw_one_real(g: torch.Generator) -> tuple[float, float, float]:
    slope, step = number(g, 0.8, 1), number(g, 0.55, 0.7)
    return slope, round(slope * (2 - step * slope / 2), 3), step


def draw_positive(g: torch.Generator) -> tuple[float, float, float]:
    return number(g, 0.3, 0.4), number(g, 1.1, 1.4), number(g, 0.5, 0.7)


def draw_negative(g: torch.Generator) -> tuple[float, float, float]:
    return number(g, 0.55, 0.7), number(g, 2.5, 3.5), number(g, 0.9, 1.1)


DIRAC = Question(
    name="step_radii",
    points=1.5,
    reference=step_radii,
    draw=(draw_complex, draw_one_real, draw_positive, draw_negative),
    draws=8,
    mistakes=(
        Mistake(
            "exchanged",
            "The two are exchanged: the simultaneous step comes first",
            lambda *x: step_radii(*x).flip(0),
        ),
        Mistake(
            "both simultaneous",
            "Both are those of the simultaneous step; in the alternating one the generator sees the new ψ",
            lambda *x: step_radii(*x)[:1].expand(2),
        ),
        Mistake(
            "γ/2 in the field",
            "The friction is γ/2 here; the derivative of (γ/2)ψ² is γψ",
            lambda *x: step_radii(*x, friction=0.5),
        ),
        Mistake(
            "2γ in the field",
            "The friction is 2γ here: the penalty is (γ/2)ψ², with the ½",
            lambda *x: step_radii(*x, friction=2.0),
        ),
        Mistake(
            "penalty forgotten",
            "The penalty is missing: this is the game without friction",
            lambda s, c, h: step_radii(s, 0.0, h),
        ),
        Mistake(
            "sign of the penalty",
            "The penalty pushes ψ away from 0 here: the discriminator minimizes it",
            lambda s, c, h: step_radii(s, -c, h),
        ),
        Mistake(
            "penalty on both players",
            "The penalty damps the generator as well; only the discriminator's loss holds it",
            lambda *x: step_radii(*x, generator_friction=1.0),
        ),
        Mistake(
            "slope ½",
            "f′(0) is taken as ½, the logistic game's; here it is given",
            lambda s, c, h: step_radii(0.5, c, h),
        ),
        Mistake(
            "squares of the moduli",
            "These are the squares of the moduli",
            lambda *x: step_radii(*x) ** 2,
        ),
        Mistake(
            "determinants",
            "These are determinants: products of two eigenvalues, and the squares of their moduli only where "
            "the two are a complex pair",
            radii_from(lambda t, d: d),
        ),
        Mistake(
            "roots of the determinants",
            "These are roots of the determinants: the modulus of both eigenvalues where they are a complex "
            "pair, and not where they are two real numbers (γ large beside f′)",
            radii_from(lambda t, d: abs(d) ** 0.5),
        ),
        Mistake(
            "real parts",
            "Where the eigenvalues are complex, these are their real parts; the modulus is asked for",
            radii_from(
                lambda t, d: max(abs((t + s * max(t * t - 4 * d, 0) ** 0.5) / 2) for s in (1, -1))
            ),
        ),
        Mistake(
            "one sign of the root",
            "Of the two eigenvalues this is always the one with + before the root; where the trace is "
            "negative, the modulus of the other one is larger",
            radii_from(lambda t, d: abs(larger_root(t, d))),
        ),
        Mistake(
            "norms of the matrices",
            "These are norms of the matrices, the most that one step can stretch; the modulus of the "
            "eigenvalues is what many steps in a row multiply by",
            lambda s, c, h: torch.stack(
                [torch.linalg.matrix_norm(m, 2) for m in step_matrices(s, c, h)]
            ),
        ),
        Mistake(
            "field instead of step",
            "This is the modulus of the field's eigenvalues λ; those of a step are 1 + hλ",
            lambda s, c, h: torch.tensor([field_radius(s, c)] * 2, dtype=torch.float64),
        ),
    ),
    equivalents=(
        step_radii_in_closed_form,
        lambda *x: torch.tensor(step_radii_by_roots(*x), dtype=torch.float64),
        step_radii_by_numpy,
    ),
)

QUESTIONS = (
    OPTIMAL,
    SMOOTHED,
    GAME,
    GENERATOR_GRADIENT,
    LOSS,
    PENALTY,
    ROUNDS,
    BOTH,
    W1,
    DIRAC,
    Measure(
        name="trained_generator",
        points=4,
        measure="generator_distance",
        functions=("generate",),
        limit=5,
    ),
    Written(
        name="interpretation",
        points=3,
        rubric=(
            "1 point: says that without a penalty the discriminator separates the two kinds of images (D "
            "higher at real ones) and that a penalty brings both means to ½, with numbers. "
            "1 point: says what the heavy penalty does: the logit is nearly constant, so the generator gets "
            "hardly any gradient although D = ½ and no loss saturates. 1 point: says that D near ½ (or the "
            "loss near 2 log 2) does not tell how good the images are, from the two rows where D is ½."
        ),
    ),
)
