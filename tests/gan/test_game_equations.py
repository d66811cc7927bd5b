"""Equations of the first page beyond the game itself: equilibrium, f-divergences, hinge, classes."""

import math

import pytest
import torch

from course_lib.divergences import js_discrete, kl_discrete
from course_lib.gan import discriminator_loss, hinge_loss, minimax_loss, wasserstein_loss

DOUBLE = {"dtype": torch.float64}


def distributions(n, size=6, seed=0):
    """Some distributions on a few values, positive at each, without any symmetry."""
    g = torch.Generator().manual_seed(seed)
    weights = torch.rand(n, size, generator=g, **DOUBLE) + 0.1
    return weights / weights.sum(1, keepdim=True)


def direction(size=6, seed=7):
    r = torch.randn(size, generator=torch.Generator().manual_seed(seed), **DOUBLE)
    return 0.01 * (r - r.mean())


def slope(cost, q, r, eps=1e-4):
    """The derivative of a function of distributions along a direction, by central differences."""
    return (cost(q + eps * r) - cost(q - eps * r)) / (2 * eps)


def value(d, p, q):
    return (p * d.log()).sum(-1) + (q * (1 - d).log()).sum(-1)


@pytest.mark.equation(
    "eq-nash",
    formula=lambda: (0.5, -math.log(4)),
    wrong={
        "-log 2": lambda: (0.5, -math.log(2)),
        "-2": lambda: (0.5, -2.0),
        "the undecided discriminator of smoothed labels": lambda: (
            0.45,
            math.log(0.45) + math.log(0.55),
        ),
    },
)
def test_nash(formula):
    """Best answers by search over a grid of D at each value; many generators against one D."""
    d, claimed = formula()
    p, *others = distributions(20)
    grid = torch.linspace(0, 1, 2001, **DOUBLE)[1:-1, None]
    best = (p * (grid.log() + (1 - grid).log())).amax(0).sum()  # the best D against p itself
    torch.testing.assert_close(best, torch.tensor(claimed, **DOUBLE))
    constant = torch.full((6,), d, **DOUBLE)
    for q in (p, *others):
        assert value(constant, p, q).item() == pytest.approx(claimed)
        # Only the data's own distribution leaves the discriminator nothing to gain.
        gain = value(p / (p + q), p, q) - claimed
        assert gain.item() == pytest.approx(0, abs=1e-9) if q is p else gain > 1e-3


@pytest.mark.equation(
    "eq-softened-reverse-kl",
    formula=lambda p, q: 2 * kl_discrete((p + q) / 2, p),
    wrong={
        "factor 2 dropped": lambda p, q: kl_discrete((p + q) / 2, p),
        "of the other distribution": lambda p, q: 2 * kl_discrete((p + q) / 2, q),
        "arguments swapped": lambda p, q: 2 * kl_discrete(p, (p + q) / 2),
        "the reverse KL": lambda p, q: kl_discrete(q, p),
        "negative: a reward": lambda p, q: -2 * kl_discrete((p + q) / 2, p),
    },
)
def test_softened_reverse_kl(formula):
    """The left side with logarithms written out; and also where p_g is 0."""
    p, q, other = distributions(3)
    other = torch.where(torch.arange(6) < 2, 0, other)
    for generated in (q, other / other.sum()):
        middle = (p + generated) / 2
        left = torch.xlogy(generated, generated / p).sum() - (
            (p * (p / middle).log()).sum() + torch.xlogy(generated, generated / middle).sum()
        )
        torch.testing.assert_close(formula(p, generated), left)
    assert formula(p, p).abs() < 1e-12


# The generators of chapter 1, and the positive t with which suprema are searched.
F = {
    "kl": lambda t: t * t.log(),
    "reverse": lambda t: -t.log(),
    "jsd": lambda t: (t * (2 * t / (1 + t)).log() + (2 / (1 + t)).log()) / 2,
    "tv": lambda t: (t - 1).abs() / 2,
}
CONJUGATES = {
    "kl": lambda u: (u - 1).exp(),
    "reverse": lambda u: -1 - (-u).log(),
    "jsd": lambda u: -(2 - (2 * u).exp()).log() / 2,
    "tv": lambda u: u.clamp(min=-0.5),
}
WHERE = {"kl": (-2, 1.7), "reverse": (-3, -0.2), "jsd": (-2, 0.3), "tv": (-1.5, 0.5)}


@pytest.mark.equation(
    "eq-fgan-conjugates",
    formula=CONJUGATES,
    wrong={
        "e^u": {**CONJUGATES, "kl": torch.exp},
        "sign of the 1": {**CONJUGATES, "reverse": lambda u: 1 - (-u).log()},
        "half dropped": {**CONJUGATES, "jsd": lambda u: -(2 - (2 * u).exp()).log()},
        "of twice the divergence": {**CONJUGATES, "jsd": lambda u: -(2 - u.exp()).log()},
        "no corner": {**CONJUGATES, "tv": lambda u: u},
    },
)
def test_conjugates(formula):
    """The supremum, searched on a fine grid of t."""
    t = torch.cat(
        [torch.logspace(-9, 0, 40_001, **DOUBLE), torch.linspace(1, 40, 40_001, **DOUBLE)]
    )
    for name, (low, high) in WHERE.items():
        u = torch.linspace(low, high, 7, **DOUBLE)
        best = (t * u[:, None] - F[name](t)).amax(1)
        torch.testing.assert_close(formula[name](u), best, atol=1e-6, rtol=1e-5)


def fgan_bound(t, p, q, name, *, conjugate=CONJUGATES):
    return (p * t).sum() - (q * conjugate[name](t)).sum()


@pytest.mark.equation(
    "eq-fgan-bound",
    formula=fgan_bound,
    wrong={
        "f for its conjugate": lambda t, p, q, name: (p * t).sum() - (q * F[name](t.exp())).sum(),
        "distributions swapped": lambda t, p, q, name: fgan_bound(t, q, p, name),
        "sign flipped": lambda t, p, q, name: fgan_bound(t, p, q, name) + 2 * (q * t).sum(),
        "no conjugate": lambda t, p, q, name: (p * t).sum() - (q * t).sum(),
    },
)
def test_fgan_bound(formula):
    """No critic exceeds the divergence as defined, and gradient ascent on the bound reaches it."""
    p, q = distributions(2)
    domain = {
        "kl": lambda v: v,
        "reverse": lambda v: -torch.exp(-v),
        "jsd": lambda v: (2 * torch.sigmoid(v)).log() / 2,
    }
    for name, to_domain in domain.items():
        divergence = (q * F[name](p / q)).sum()
        for seed in range(20):
            free = torch.randn(6, generator=torch.Generator().manual_seed(seed), **DOUBLE)
            assert formula(to_domain(free), p, q, name) <= divergence + 1e-12
        free = torch.zeros(6, **DOUBLE, requires_grad=True)
        optimizer = torch.optim.LBFGS([free], max_iter=200, line_search_fn="strong_wolfe")

        def loss(free=free, name=name, to_domain=to_domain):
            minus = -formula(to_domain(free), p, q, name)
            (free.grad,) = torch.autograd.grad(minus, free)
            return minus

        optimizer.step(loss)
        torch.testing.assert_close(-loss().detach(), divergence, atol=1e-7, rtol=0)


BEST_CRITICS = {
    "kl": lambda p, q: 1 + (p / q).log(),
    "reverse": lambda p, q: -q / p,
    "jsd": lambda p, q: (2 * p / (p + q)).log() / 2,
}


@pytest.mark.equation(
    "eq-fgan-critic",
    formula=BEST_CRITICS,
    wrong={
        "ratio turned over": {k: lambda p, q, f=f: f(q, p) for k, f in BEST_CRITICS.items()},
        "f for its derivative": {**BEST_CRITICS, "reverse": lambda p, q: (q / p).log()},
        "the constant dropped": {**BEST_CRITICS, "kl": lambda p, q: (p / q).log()},
    },
)
def test_best_critic(formula):
    """The critic found by search, value by value, on a grid of its domain."""
    p, q = distributions(2)
    grids = {
        "kl": torch.linspace(-3, 5, 80_001, **DOUBLE),
        "reverse": torch.linspace(-20, -1e-3, 80_001, **DOUBLE),
        "jsd": torch.linspace(-4, math.log(2) / 2 - 1e-5, 80_001, **DOUBLE),
    }
    for name, u in grids.items():
        objective = p[:, None] * u - q[:, None] * CONJUGATES[name](u)
        best = u[objective.argmax(1)]
        torch.testing.assert_close(formula[name](p, q), best, atol=3e-4, rtol=0)


@pytest.mark.equation(
    "eq-fgan-gan",
    formula=lambda v: v / 2 + math.log(2),
    wrong={
        "half dropped": lambda v: v + math.log(2),
        "log 4": lambda v: v / 2 + math.log(4),
        "sign of the constant": lambda v: v / 2 - math.log(2),
    },
)
def test_the_game_is_one_of_them(formula):
    """The library's loss of some discriminator, against the bound with f* searched numerically."""
    real, fake = torch.randn(7, **DOUBLE), 0.5 + torch.randn(5, **DOUBLE)
    t = torch.logspace(-6, 5, 400_001, **DOUBLE)

    def conjugate(u):
        return (t * u - F["jsd"](t)).max()

    on_real, on_fake = ((2 * torch.sigmoid(a)).log() / 2 for a in (real, fake))
    bound = on_real.mean() - torch.stack([conjugate(u) for u in on_fake]).mean()
    torch.testing.assert_close(formula(-discriminator_loss(real, fake)), bound, atol=1e-7, rtol=0)


# The losses of one sample for the logit a = log p/q, as the table has them.
SAMPLE_LOSSES = {
    "kl": lambda a: -a.exp(),
    "reverse": lambda a: -a,
    "jsd": lambda a: (1 - torch.sigmoid(a)).log() / 2,
    "softened": lambda a: -torch.sigmoid(a).log(),
}


def generator_slope(r, p, q, name):
    """Minus the mean of f*(T*) in the direction r, by the conjugates of the text."""
    critic = {**BEST_CRITICS, "softened": None}[name]
    return -(r * CONJUGATES[name](critic(p, q))).sum()


@pytest.mark.equation(
    "eq-fgan-generator",
    formula=generator_slope,
    wrong={
        "sign flipped": lambda r, p, q, name: -generator_slope(r, p, q, name),
        "the critic itself": lambda r, p, q, name: -(r * BEST_CRITICS[name](p, q)).sum(),
        "f(t), as if the ratio stood still": lambda r, p, q, name: (r * F[name](p / q)).sum(),
    },
)
def test_what_the_generator_follows(formula):
    p, q = distributions(2)
    r = direction()
    for name in ("kl", "reverse", "jsd"):
        expected = slope(lambda q, name=name: (q * F[name](p / q)).sum(), q, r)
        torch.testing.assert_close(formula(r, p, q, name), expected)


@pytest.mark.parametrize(
    ("name", "divergence"),
    [
        ("kl", kl_discrete),
        ("reverse", lambda p, q: kl_discrete(q, p)),
        ("jsd", js_discrete),
        ("softened", lambda p, q: 2 * kl_discrete((p + q) / 2, p)),
    ],
)
def test_the_table_of_generator_losses_belongs_to_the_divergences(name, divergence):
    """Each loss as a function of the best logit, its derivative against that of the divergence."""
    p, q = distributions(2)
    r = direction()
    followed = (r * SAMPLE_LOSSES[name]((p / q).log())).sum()
    torch.testing.assert_close(followed, slope(lambda q: divergence(p, q / q.sum()), q, r))


def test_the_library_s_generator_losses_are_rows_of_the_table():
    a = torch.randn(9, **DOUBLE)
    torch.testing.assert_close(minimax_loss(a), 2 * SAMPLE_LOSSES["jsd"](a).mean())


@pytest.mark.equation(
    "eq-hinge",
    formula=lambda real, fake: (hinge_loss(real, fake), wasserstein_loss(fake)),
    wrong={
        "margin 0": lambda real, fake: (
            (-real).clamp(min=0).mean() + fake.clamp(min=0).mean(),
            wasserstein_loss(fake),
        ),
        "sides exchanged": lambda real, fake: (hinge_loss(-real, -fake), wasserstein_loss(fake)),
        "a hinge for the generator too": lambda real, fake: (
            hinge_loss(real, fake),
            (1 - fake).clamp(min=0).mean(),
        ),
        "sum over examples": lambda real, fake: (
            hinge_loss(real, fake) * len(real),
            wasserstein_loss(fake),
        ),
    },
    implemented_by="course_lib.gan.hinge_loss",
)
def test_hinge(formula):
    """Example by example, with a condition in place of the maximum."""
    real, fake = 2 * torch.randn(7, **DOUBLE), 2 * torch.randn(5, **DOUBLE)
    on_real = sum(1 - f if f < 1 else 0.0 for f in real.tolist()) / 7
    on_fake = sum(1 + f if f > -1 else 0.0 for f in fake.tolist()) / 5
    assert min(real.min(), fake.min()) < -1
    assert max(real.max(), fake.max()) > 1
    critic, generator = formula(real, fake)
    assert critic.item() == pytest.approx(on_real + on_fake)
    assert generator.item() == pytest.approx(-sum(fake.tolist()) / 5)


def total_variation(p, q):
    return (p - q).abs().sum() / 2


@pytest.mark.equation(
    "eq-hinge-optimal",
    formula=lambda p, q: (2 - 2 * total_variation(p, q), (p - q).sign()),
    wrong={
        "2 dropped": lambda p, q: (2 - total_variation(p, q), (p - q).sign()),
        "the variation itself": lambda p, q: (2 * total_variation(p, q), (p - q).sign()),
        "sign flipped": lambda p, q: (2 - 2 * total_variation(p, q), (q - p).sign()),
        "the ratio": lambda p, q: (2 - 2 * total_variation(p, q), (p - q) / (p + q)),
    },
)
def test_hinge_optimal(formula):
    """The best score of each value by search over a grid."""
    p, q = distributions(2)
    y = torch.linspace(-3, 3, 6001, **DOUBLE)
    losses = p[:, None] * (1 - y).clamp(min=0) + q[:, None] * (1 + y).clamp(min=0)
    least, best = formula(p, q)
    torch.testing.assert_close(least, losses.amin(1).sum())
    torch.testing.assert_close(best, y[losses.argmin(1)], atol=1e-6, rtol=0)


@pytest.mark.equation(
    "eq-hinge-generator",
    formula=lambda r, p, q: -(r * (p - q).sign()).sum(),
    wrong={
        "sign flipped": lambda r, p, q: (r * (p - q).sign()).sum(),
        "half of it": lambda r, p, q: -(r * (p - q).sign()).sum() / 2,
        "of the JSD": lambda r, p, q: (r * (q / (p + q)).log()).sum(),
    },
)
def test_hinge_generator(formula):
    p, q = distributions(2)
    r = direction()
    expected = slope(lambda q: 2 * total_variation(p, q), q, r)
    torch.testing.assert_close(formula(r, p, q), expected)


def labelled(seed=0):
    """Joint distributions of six values and three labels with the same labels' distribution."""
    weights = torch.tensor([0.2, 0.5, 0.3], **DOUBLE)
    return weights, distributions(3, seed=seed), distributions(3, seed=seed + 1)  # (y,), (y, x)


@pytest.mark.equation(
    "eq-conditional-optimal",
    formula=lambda px, qx, py, qy: (px / qx).log() + (py / qy).log(),
    wrong={
        "only whether x is real": lambda px, qx, py, qy: (px / qx).log() + 0 * py,
        "only whether the label fits": lambda px, qx, py, qy: (py / qy).log(),
        "a difference": lambda px, qx, py, qy: (px / qx).log() - (py / qy).log(),
    },
)
def test_conditional_optimal(formula):
    """The logit found by search for every pair, against the parts by Bayes' rule."""
    weights, p, q = labelled()
    p, q = weights[:, None] * p, weights[:, None] * q  # joint, (y, x)
    d = torch.linspace(0, 1, 200_001, **DOUBLE)[1:-1]
    best = torch.stack(
        [
            torch.stack(
                [torch.logit(d[(a * d.log() + b * (1 - d).log()).argmax()]) for a, b in row]
            )
            for row in torch.stack([p, q], -1)
        ]
    )
    claimed = formula(p.sum(0), q.sum(0), p / p.sum(0), q / q.sum(0))
    torch.testing.assert_close(claimed, best, atol=1e-4, rtol=0)


def conditional_value(weights, p, q):
    return -math.log(4) + 2 * sum(
        w * js_discrete(a, b) for w, a, b in zip(weights, p, q, strict=True)
    )


@pytest.mark.equation(
    "eq-conditional-value",
    formula=conditional_value,
    wrong={
        "of the marginals": lambda weights, p, q: (
            -math.log(4) + 2 * js_discrete(weights @ p, weights @ q)
        ),
        "classes weighted evenly": lambda weights, p, q: conditional_value(
            torch.full((3,), 1 / 3, **DOUBLE), p, q
        ),
        "factor 2 dropped": lambda weights, p, q: (
            (conditional_value(weights, p, q) - math.log(4)) / 2
        ),
    },
)
def test_conditional_value(formula):
    """The value for pairs at the best discriminator of the joint distributions."""
    weights, p, q = labelled()
    joint_p, joint_q = (weights[:, None] * part for part in (p, q))
    best = joint_p / (joint_p + joint_q)
    expected = (joint_p * best.log()).sum() + (joint_q * (1 - best).log()).sum()
    torch.testing.assert_close(formula(weights, p, q), expected)


@pytest.mark.equation(
    "eq-projection",
    formula=lambda v, w, phi, ratio, z, z_g: (v - w) @ phi.T + ratio - (z / z_g).log(),
    wrong={
        "sum of the vectors": lambda v, w, phi, ratio, z, z_g: (
            (v + w) @ phi.T + ratio - (z / z_g).log()
        ),
        "normalizers exchanged": lambda v, w, phi, ratio, z, z_g: (
            (v - w) @ phi.T + ratio + (z / z_g).log()
        ),
        "no part for x": lambda v, w, phi, ratio, z, z_g: (v - w) @ phi.T + 0 * ratio,
    },
    implemented_by="course_lib.gan.Discriminator",
)
def test_projection(formula):
    """The log ratio of joint probabilities that are multiplied out, for softmax classifiers."""
    phi = torch.randn(6, 4, **DOUBLE)  # features of six values
    v, w = torch.randn(2, 3, 4, **DOUBLE)  # a vector for each of three classes
    p, q = distributions(2)
    scores, scores_g = (v @ phi.T).exp(), (w @ phi.T).exp()  # (y, x)
    z, z_g = scores.sum(0), scores_g.sum(0)
    joint, joint_g = p * scores / z, q * scores_g / z_g
    claimed = formula(v, w, phi, (p / q).log(), z, z_g)
    torch.testing.assert_close(claimed, joint.log() - joint_g.log())
