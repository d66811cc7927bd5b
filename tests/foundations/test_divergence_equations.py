"""The identities of entropy, KL and Jensen-Shannon, by finite sums and by quadrature."""

import itertools
import math

import pytest
import scipy.optimize
import scipy.special
import scipy.stats
import torch
from torch.distributions import Categorical, MixtureSameFamily, Normal

from course_lib.divergences import js_discrete, kl_discrete

pytestmark = pytest.mark.usefixtures("float64")

GRID = torch.linspace(-14.0, 14.0, 20_001, dtype=torch.float64)


def distribution(*size: int) -> torch.Tensor:
    """Random distributions, far from uniform."""
    return torch.distributions.Dirichlet(torch.full(size, 0.7)).sample()


def integral(values: torch.Tensor) -> torch.Tensor:
    return torch.trapezoid(values, GRID)


def kl_integral(p: torch.distributions.Distribution, q: torch.distributions.Distribution):
    log_p, log_q = p.log_prob(GRID), q.log_prob(GRID)
    return integral(log_p.exp() * (log_p - log_q))


def two_modes() -> MixtureSameFamily:
    """A lopsided distribution: unequal weights, unequal widths, mean not 0."""
    return MixtureSameFamily(
        Categorical(torch.tensor([0.6, 0.4])),
        Normal(torch.tensor([-1.5, 2.0]), torch.tensor([0.6, 0.9])),
    )


def entropy(p):
    return -torch.xlogy(p, p).sum(-1)


@pytest.mark.equation(
    "eq-kl-definition",
    formula=kl_discrete,
    wrong={
        "arguments swapped": lambda p, q: kl_discrete(q, p),
        "averaged over the second distribution": lambda p, q: (q * (p / q).log()).sum(-1),
        "averaged over the outcomes": lambda p, q: kl_discrete(p, q) / p.shape[-1],
        "bits": lambda p, q: kl_discrete(p, q) / math.log(2),
    },
    implemented_by="course_lib.divergences.kl_discrete",
)
def test_kl_definition(formula):
    p, q = distribution(4, 6), distribution(4, 6)
    expected = torch.as_tensor(scipy.special.rel_entr(p.numpy(), q.numpy()).sum(-1))
    torch.testing.assert_close(formula(p, q), expected)
    # And as a mean over draws, to five standard errors.
    draws = Categorical(p[0]).sample((200_000,))
    ratios = (p[0] / q[0]).log()[draws]
    assert abs(formula(p[0], q[0]) - ratios.mean()) < 5 * ratios.std() / len(draws) ** 0.5


@pytest.mark.equation(
    "eq-cross-entropy",
    formula=lambda p, q: entropy(p) + kl_discrete(p, q),
    wrong={
        "divergence subtracted": lambda p, q: entropy(p) - kl_discrete(p, q),
        "entropy of the other distribution": lambda p, q: entropy(q) + kl_discrete(p, q),
        "arguments swapped": lambda p, q: entropy(p) + kl_discrete(q, p),
        "entropy dropped": kl_discrete,
    },
)
def test_cross_entropy(formula):
    p, q = distribution(4, 6), distribution(4, 6)
    paid = torch.nn.functional.cross_entropy(q.log(), p, reduction="none")
    torch.testing.assert_close(formula(p, q), paid)


@pytest.mark.equation(
    "eq-gibbs",
    formula=lambda p, q: (p * (p / q).log()).sum(-1),
    wrong={
        "quotient turned over": lambda p, q: (p * (q / p).log()).sum(-1),
        "averaged over the second distribution": lambda p, q: (q * (p / q).log()).sum(-1),
        "not normalized": lambda p, q: (p * (p / (2 * q)).log()).sum(-1),
    },
)
def test_gibbs(formula):
    p, q = distribution(500, 5), distribution(500, 5)
    assert (formula(p, q) > 0).all()
    # The equality case from both sides: zero at p = q, and positive a little way off.
    torch.testing.assert_close(formula(p, p), torch.zeros(500))
    near = 0.99 * p + 0.01 * q
    assert (formula(p, near) > 0).all()
    # A sum of terms none of which is negative: Σ q φ(p/q) with φ(t) = t log t − t + 1 ≥ 0.
    t = p / q
    terms = q * (t * t.log() - t + 1)
    assert (terms >= -1e-15).all()
    torch.testing.assert_close(formula(p, q), terms.sum(-1))


@pytest.mark.equation(
    "eq-gibbs-jensen",
    formula=lambda p, q: q[p > 0].sum().log(),
    wrong={
        "mass outside of the support kept": lambda p, q: q.sum().log(),
        "mean of the logarithms": lambda p, q: -kl_discrete(p, q),
        "sign": lambda p, q: -q[p > 0].sum().log(),
    },
)
def test_gibbs_jensen(formula):
    for _ in range(20):
        p = torch.cat([distribution(4), torch.zeros(2)])
        q = distribution(6)
        support = p > 0
        log_of_mean = (p[support] * (q[support] / p[support])).sum().log()
        torch.testing.assert_close(formula(p, q), log_of_mean)
        assert -kl_discrete(p, q) <= formula(p, q) <= 0
    # Equal exactly where q / p is constant on the support of p.
    p = torch.cat([distribution(4), torch.zeros(2)])
    q = 0.7 * p + 0.3 * torch.cat([torch.zeros(4), distribution(2)])
    torch.testing.assert_close(formula(p, q), -kl_discrete(p, q))


def best_likelihood(p: torch.Tensor, models: torch.Tensor) -> int:
    return int((p * models.log()).sum(-1).argmax())


@pytest.mark.equation(
    "eq-mle-kl",
    formula=best_likelihood,
    wrong={
        "the worst likelihood": lambda p, models: int((p * models.log()).sum(-1).argmin()),
        "likelihood of the data under the data": lambda p, models: int(
            (models * p.log()).sum(-1).argmax()
        ),
        "probabilities averaged, not logarithms": lambda p, models: int(
            (p * models).sum(-1).argmax()
        ),
    },
)
def test_mle_is_least_kl(formula):
    # Models that do not contain the truth, as in practice.
    for _ in range(20):
        p, models = distribution(5), distribution(300, 5)
        assert formula(p, models) == int(kl_discrete(p.expand_as(models), models).argmin())
    # The same choice from samples, where one model is clearly the closest.
    p = torch.tensor([0.45, 0.05, 0.3, 0.2])
    models = torch.tensor([[0.4, 0.1, 0.3, 0.2], [0.9, 0.04, 0.03, 0.03], [0.25] * 4])
    counts = Categorical(p).sample((20_000,)).bincount(minlength=4) / 20_000
    assert formula(counts, models) == 0


@pytest.mark.equation(
    "eq-likelihood-gap",
    formula=lambda kl_one, kl_other: kl_other - kl_one,
    wrong={
        "sign": lambda kl_one, kl_other: kl_one - kl_other,
        "sum": lambda kl_one, kl_other: kl_one + kl_other,
        "second divergence dropped": lambda kl_one, kl_other: kl_other,
    },
)
def test_likelihood_gap(formula):
    p, one, other = two_modes(), Normal(-0.2, 1.8), Normal(1.0, 2.5)
    density = p.log_prob(GRID).exp()
    gap = integral(density * (one.log_prob(GRID) - other.log_prob(GRID)))
    torch.testing.assert_close(formula(kl_integral(p, one), kl_integral(p, other)), gap)
    x = p.sample((200_000,))
    gaps = one.log_prob(x) - other.log_prob(x)
    error = 5 * gaps.std() / len(x) ** 0.5
    assert abs(formula(kl_integral(p, one), kl_integral(p, other)) - gaps.mean()) < error


@pytest.mark.equation(
    "eq-kl-asymmetry",
    formula=lambda: (0.5 * math.log(4 / 3), 0.75 * math.log(3) - math.log(2)),
    wrong={
        "directions exchanged": lambda: (0.75 * math.log(3) - math.log(2), 0.5 * math.log(4 / 3)),
        "half dropped": lambda: (math.log(4 / 3), 0.75 * math.log(3) - math.log(2)),
        "sign": lambda: (0.5 * math.log(4 / 3), 0.75 * math.log(3) + math.log(2)),
    },
)
def test_kl_is_not_symmetric(formula):
    fair, biased = [0.5, 0.5], [0.25, 0.75]
    one = scipy.stats.entropy(fair, biased)
    other = scipy.stats.entropy(biased, fair)
    assert formula() == pytest.approx((one, other), abs=1e-12)
    assert abs(one - other) > 0.01
    sure = [1.0, 0.0]
    assert scipy.stats.entropy(sure, fair) == pytest.approx(math.log(2))
    assert scipy.stats.entropy(fair, sure) == math.inf


@pytest.mark.equation(
    "eq-kl-triangle",
    formula=lambda: (2.0, 0.5, 0.5),
    wrong={
        "half dropped": lambda: (4.0, 1.0, 1.0),
        "distance, not its square": lambda: (1.0, 0.5, 0.5),
    },
)
def test_kl_breaks_the_triangle_inequality(formula):
    distributions = [Normal(float(mean), 1.0) for mean in range(3)]
    direct, first, second = formula()
    values = [
        kl_integral(distributions[i], distributions[j]).item() for i, j in ((0, 2), (0, 1), (1, 2))
    ]
    assert values == pytest.approx([direct, first, second], abs=1e-8)
    assert direct > first + second


def coarse(p_of_a, q_of_a):
    return p_of_a * (p_of_a / q_of_a).log() + (1 - p_of_a) * ((1 - p_of_a) / (1 - q_of_a)).log()


@pytest.mark.equation(
    "eq-coarse-kl",
    formula=coarse,
    wrong={
        "complement dropped": lambda a, b: a * (a / b).log(),
        "arguments swapped": lambda a, b: coarse(b, a),
        "sign of the second term": lambda a, b: 2 * a * (a / b).log() - coarse(a, b),
        "twice": lambda a, b: 2 * coarse(a, b),
    },
)
def test_coarse_graining(formula):
    for _ in range(50):
        p, q = distribution(6), distribution(6)
        event = torch.tensor([True, False, True, True, False, False])
        assert formula(p[event].sum(), q[event].sum()) <= kl_discrete(p, q)
        # Equal where the quotient is constant on the event and on its complement.
        q[event] = p[event] * (q[event].sum() / p[event].sum())
        q[~event] = p[~event] * (q[~event].sum() / p[~event].sum())
        torch.testing.assert_close(formula(p[event].sum(), q[event].sum()), kl_discrete(p, q))
    # Missing a region costs without bound.
    assert formula(torch.tensor(0.4), torch.tensor(1e-300)) > 200


def gaussian_cross_entropy(mean, variance, m, s):
    return 0.5 * math.log(2 * math.pi * s**2) + (variance + (mean - m) ** 2) / (2 * s**2)


@pytest.mark.equation(
    "eq-cross-entropy-to-gaussian",
    formula=gaussian_cross_entropy,
    wrong={
        "variance of the data dropped": lambda mean, variance, m, s: gaussian_cross_entropy(
            mean, 0.0, m, s
        ),
        "shift of the mean dropped": lambda mean, variance, m, s: gaussian_cross_entropy(
            mean, variance, mean, s
        ),
        "half dropped": lambda mean, variance, m, s: (
            2 * gaussian_cross_entropy(mean, variance, m, s)
        ),
        "log(2 pi s)": lambda mean, variance, m, s: (
            gaussian_cross_entropy(mean, variance, m, s) - 0.5 * math.log(s)
        ),
    },
)
def test_gaussian_cross_entropy(formula):
    p, m, s = two_modes(), 0.7, 1.6
    density = p.log_prob(GRID).exp()
    expected = -integral(density * Normal(m, s).log_prob(GRID)).item()
    assert formula(p.mean.item(), p.variance.item(), m, s) == pytest.approx(expected, abs=1e-8)


@pytest.mark.equation(
    "eq-moment-matching",
    formula=lambda p: (p.mean, p.variance),
    wrong={
        "mean of the modes": lambda p: (p.component_distribution.mean.mean(), p.variance),
        "average variance of the modes": lambda p: (
            p.mean,
            (p.mixture_distribution.probs * p.component_distribution.variance).sum(),
        ),
        "second moment": lambda p: (p.mean, p.variance + p.mean**2),
    },
)
def test_forward_kl_matches_moments(formula):
    p = two_modes()
    parameters = torch.zeros(2, requires_grad=True)
    optimizer = torch.optim.LBFGS(
        [parameters], max_iter=200, tolerance_change=1e-15, line_search_fn="strong_wolfe"
    )

    def loss():
        optimizer.zero_grad()
        value = kl_integral(p, Normal(parameters[0], parameters[1].exp()))
        value.backward()
        return value

    optimizer.step(loss)
    mean, variance = formula(p)
    m, s = parameters[0].detach(), parameters[1].detach().exp()
    torch.testing.assert_close(m, mean, atol=1e-5, rtol=0)
    torch.testing.assert_close(s**2, variance, atol=1e-5, rtol=0)


@pytest.mark.equation(
    "eq-mode-price",
    formula=lambda weights: -weights.log(),
    wrong={
        "the lost weight instead of the kept one": lambda weights: -(1 - weights).log(),
        "sign": lambda weights: weights.log(),
        "entropy of the weights": lambda weights: -weights * weights.log(),
        "twice": lambda weights: -2 * weights.log(),
    },
)
def test_price_of_forgetting(formula):
    weights = torch.tensor([0.5, 0.3, 0.2])
    for _ in range(20):
        components = distribution(3, 7)
        mixture = (weights @ components).expand_as(components)
        assert (kl_discrete(components, mixture) <= formula(weights)).all()
    apart = torch.block_diag(*(distribution(1, k) for k in (2, 3, 4)))
    reached = kl_discrete(apart, (weights @ apart).expand_as(apart))
    torch.testing.assert_close(reached, formula(weights))


@pytest.mark.equation(
    "eq-jsd",
    formula=js_discrete,
    wrong={
        "halves dropped": lambda p, q: 2 * js_discrete(p, q),
        "average of both directions": lambda p, q: 0.5 * (kl_discrete(p, q) + kl_discrete(q, p)),
        "one half only": lambda p, q: 0.5 * kl_discrete(p, 0.5 * (p + q)),
        "directions towards the mixture turned round": lambda p, q: (
            0.5 * (kl_discrete(0.5 * (p + q), p) + kl_discrete(0.5 * (p + q), q))
        ),
        "average of the logarithms": lambda p, q: 0.25 * (kl_discrete(p, q) + kl_discrete(q, p)),
    },
    implemented_by="course_lib.divergences.js_discrete",
)
def test_jsd(formula):
    p, q = distribution(5, 6), distribution(5, 6)
    by_entropies = [
        scipy.stats.entropy((a + b) / 2) - scipy.stats.entropy(a) / 2 - scipy.stats.entropy(b) / 2
        for a, b in zip(p.numpy(), q.numpy(), strict=True)
    ]
    torch.testing.assert_close(formula(p, q), torch.tensor(by_entropies))


@pytest.mark.equation(
    "eq-jsd-bound",
    formula=lambda: (0.0, math.log(2)),
    wrong={
        "bits": lambda: (0.0, 1.0),
        "without the halves": lambda: (0.0, 2 * math.log(2)),
        "half of it": lambda: (0.0, 0.5 * math.log(2)),
        "may be negative": lambda: (-math.log(2), math.log(2)),
    },
)
def test_jsd_bounds(formula):
    low, high = formula()
    p, q = distribution(500, 5), distribution(500, 5)
    inside = js_discrete(p, q)
    assert (inside > low).all()
    assert (inside < high).all()
    torch.testing.assert_close(js_discrete(p, p), torch.full((500,), low))
    zeros = torch.zeros(500, 5)
    disjoint = js_discrete(torch.cat([p, zeros], -1), torch.cat([zeros, q], -1))
    torch.testing.assert_close(disjoint, torch.full((500,), high))
    # Any overlap keeps it below the bound, any difference above zero.
    touching = js_discrete(torch.tensor([0.999, 0.001, 0.0]), torch.tensor([0.0, 0.001, 0.999]))
    assert low < touching < high - 1e-4


def coin(u):
    return -torch.xlogy(u, u) - torch.xlogy(1 - u, 1 - u)


@pytest.mark.equation(
    "eq-jsd-information",
    formula=lambda p, q: math.log(2) - (0.5 * (p + q) * coin(p / (p + q))).sum(-1),
    wrong={
        "averaged over one distribution": lambda p, q: (
            math.log(2) - (p * coin(p / (p + q))).sum(-1)
        ),
        "log 2 dropped": lambda p, q: -(0.5 * (p + q) * coin(p / (p + q))).sum(-1),
        "bias p / q": lambda p, q: (
            math.log(2) - (0.5 * (p + q) * coin((p / q).clamp(max=1))).sum(-1)
        ),
        "half of the entropy": lambda p, q: (
            math.log(2) - 0.5 * (0.5 * (p + q) * coin(p / (p + q))).sum(-1)
        ),
    },
)
def test_jsd_is_what_the_sample_tells_about_the_coin(formula):
    p, q = distribution(6), distribution(6)
    joint = 0.5 * torch.stack([p, q])
    independent = joint.sum(0, keepdim=True) * joint.sum(1, keepdim=True)
    information = kl_discrete(joint.flatten(), independent.flatten())
    torch.testing.assert_close(formula(p, q), information)
    torch.testing.assert_close(formula(p, q), js_discrete(p, q))


GENERATORS = {
    "kl": lambda t: t * t.log(),
    "reverse kl": lambda t: -t.log(),
    "jsd": lambda t: 0.5 * (t * (2 * t / (1 + t)).log() + (2 / (1 + t)).log()),
    "tv": lambda t: 0.5 * (t - 1).abs(),
}


@pytest.mark.equation(
    "eq-f-divergence",
    formula=lambda f, p, q: (q * f(p / q)).sum(-1),
    wrong={
        "averaged over the first distribution": lambda f, p, q: (p * f(p / q)).sum(-1),
        "quotient turned over": lambda f, p, q: (q * f(q / p)).sum(-1),
        "function of the mean": lambda f, p, q: f((q * (p / q)).sum(-1)),
    },
)
def test_f_divergence(formula):
    # χ², which the generators below do not hold: E_q (p/q − 1)² = Σ p²/q − 1.
    p, q = distribution(6), distribution(6)
    torch.testing.assert_close(formula(lambda t: (t - 1) ** 2, p, q), (p**2 / q).sum() - 1)
    for f in (lambda t: (t - 1) ** 2, lambda t: t**3 - 1, lambda t: -t.sqrt() + 1):
        assert formula(f, p, q) > 0
        assert formula(f, p, p).abs() < 1e-12


def test_mass_outside_is_charged_at_the_rate_of_the_limit():
    p, q = (
        torch.cat([0.7 * distribution(4), torch.tensor([0.3])]),
        torch.cat([distribution(4), torch.zeros(1)]),
    )
    expected = {"jsd": js_discrete(p, q), "tv": (p - q).clamp(min=0).sum()}
    far = torch.tensor(1e9)
    for name, value in expected.items():
        f = GENERATORS[name]
        inside = (q[:4] * f(p[:4] / q[:4])).sum()
        rate = f(far) / far
        torch.testing.assert_close(inside + 0.3 * rate, value, atol=1e-7, rtol=0)
        assert inside >= f(torch.tensor(0.7))  # Jensen: the mean of the ratio is 0.7
        assert f(torch.tensor(0.7)) + 0.3 * rate > 0


@pytest.mark.equation(
    "eq-f-generators",
    formula=GENERATORS,
    wrong={
        "KL and reverse KL exchanged": GENERATORS
        | {"kl": GENERATORS["reverse kl"], "reverse kl": GENERATORS["kl"]},
        "Jensen-Shannon without the half": GENERATORS | {"jsd": lambda t: 2 * GENERATORS["jsd"](t)},
        "total variation without the half": GENERATORS | {"tv": lambda t: (t - 1).abs()},
        "Jensen-Shannon without the twos": GENERATORS
        | {"jsd": lambda t: 0.5 * (t * (t / (1 + t)).log() + (1 / (1 + t)).log())},
    },
)
def test_f_generators(formula):
    p, q = distribution(8), distribution(8)
    expected = {
        "kl": kl_discrete(p, q),
        "reverse kl": kl_discrete(q, p),
        "jsd": js_discrete(p, q),
        "tv": (p - q).clamp(min=0).sum(),
    }
    t = torch.linspace(0.05, 4, 200)
    for name, f in formula.items():
        torch.testing.assert_close((q * f(p / q)).sum(), expected[name])
        assert f(torch.ones(())).abs() < 1e-15
        assert (f(t).diff(n=2) > -1e-12).all(), f"{name} is not convex"


def ipm(functions, p, q):
    """The largest difference of averages over the rows of `functions`, shape (F, K)."""
    return (functions @ (p - q)).abs().max()


@pytest.mark.equation(
    "eq-ipm",
    formula=ipm,
    wrong={
        "absolute value dropped": lambda functions, p, q: (functions @ (p - q)).max(),
        "mean instead of supremum": lambda functions, p, q: (functions @ (p - q)).abs().mean(),
        "squared": lambda functions, p, q: ipm(functions, p, q) ** 2,
    },
)
def test_ipm(formula):
    # Half-lines: the Kolmogorov-Smirnov statistic of two samples, computed by scipy.
    x, y = torch.randint(0, 6, (300,)), torch.randint(0, 5, (200,))
    p, q = (s.bincount(minlength=6) / len(s) for s in (x, y))
    half_lines = torch.ones(6, 6).tril()
    statistic = scipy.stats.ks_2samp(x.numpy(), y.numpy()).statistic
    assert formula(half_lines, p, q).item() == pytest.approx(statistic)
    for _ in range(50):
        functions, (p, q, r) = torch.randn(10, 6), distribution(3, 6)
        torch.testing.assert_close(formula(functions, p, q), formula(functions, q, p))
        gap = formula(functions, p, q) + formula(functions, q, r) - formula(functions, p, r)
        assert gap > -1e-12
    # Straight on from p to r by way of the middle: nothing is gained or lost.
    middle = 0.5 * (p + r)
    torch.testing.assert_close(
        formula(functions, p, middle) + formula(functions, middle, r), formula(functions, p, r)
    )


@pytest.mark.equation(
    "eq-tv-both",
    formula=lambda p, q: 0.5 * (p - q).abs().sum(),
    wrong={
        "half dropped": lambda p, q: (p - q).abs().sum(),
        "largest single outcome": lambda p, q: (p - q).abs().max(),
        "squares": lambda p, q: 0.5 * (p - q).square().sum(),
        "absolute value of the sum": lambda p, q: 0.5 * (p - q).sum().abs(),
    },
)
def test_total_variation_is_in_both_families(formula):
    p, q = distribution(6), distribution(6)
    events = torch.tensor(list(itertools.product([0.0, 1.0], repeat=6)))
    torch.testing.assert_close(formula(p, q), (events @ (p - q)).abs().max())
    programme = scipy.optimize.linprog(-(p - q).numpy(), bounds=[(0, 1)] * 6)
    assert formula(p, q).item() == pytest.approx(-programme.fun)


def pick_price(w):
    return math.log(2) + 0.5 * (w * w.log() - (1 + w) * (1 + w).log())


@pytest.mark.equation(
    "eq-jsd-mode-price",
    formula=pick_price,
    wrong={
        "half dropped": lambda w: math.log(2) + w * w.log() - (1 + w) * (1 + w).log(),
        "log 2 dropped": lambda w: pick_price(w) - math.log(2),
        "the lost weight instead of the kept one": lambda w: pick_price(1 - w),
        "sign of the second term": lambda w: pick_price(w) + (1 + w) * (1 + w).log(),
        "price of reverse KL": lambda w: -w.log(),
    },
)
def test_jsd_price_of_a_lost_mode(formula):
    one, other = torch.zeros(7), torch.zeros(7)
    one[:3], other[3:] = distribution(3), distribution(4)
    for w in torch.tensor([0.15, 0.5, 0.8]):
        value = js_discrete(w * one + (1 - w) * other, one)
        torch.testing.assert_close(formula(w), value)
    assert (formula(torch.linspace(0.01, 0.99, 50)).diff() < 0).all()


@pytest.mark.equation(
    "eq-f-local",
    formula=lambda f2, p, g: 0.5 * f2 * (g**2 / p).sum(),
    wrong={
        "half dropped": lambda f2, p, g: f2 * (g**2 / p).sum(),
        "squares without weights": lambda f2, p, g: 0.5 * f2 * (g**2).sum(),
        "the same factor for all": lambda f2, p, g: 0.5 * (g**2 / p).sum(),
        "first order": lambda f2, p, g: 0.5 * f2 * (g / p).sum(),
    },
)
def test_smooth_f_divergences_agree_near_equality(formula):
    p = 0.9 * distribution(6) + 0.1 / 6
    g = torch.randn(6)
    g = 0.1 * (g - g.mean())
    divergences = {
        "kl": (kl_discrete, 1.0),
        "reverse kl": (lambda p, q: kl_discrete(q, p), 1.0),
        "jsd": (js_discrete, 0.25),
    }
    for divergence, curvature in divergences.values():
        # Half of the second derivative at t = 0, by central differences.
        t = 1e-3
        second = (divergence(p, p + t * g) + divergence(p, p - t * g)) / (2 * t**2)
        torch.testing.assert_close(formula(curvature, p, g), second, rtol=1e-4, atol=0)
    # The curvatures are those of the generators.
    for name, (_, curvature) in divergences.items():
        f, t = GENERATORS[name], torch.tensor([0.999, 1.0, 1.001])
        assert f(t).diff(n=2).item() / 1e-6 == pytest.approx(curvature, rel=1e-5)


BOUNDED = {
    "jsd": (0.5 * math.log(2), 0.5 * math.log(2)),
    "tv": (0.5, 0.5),
    "squared Hellinger": (1.0, 0.0),
}


def f_divergence(name, p, q):
    """The divergence with the mass outside charged at the rate of the limit; pairs with zeros."""
    f = GENERATORS.get(name, lambda t: 1 - t.sqrt())
    inside = q > 0
    tiny = torch.tensor(1e-300)  # in place of a ratio of 0, where log 0 would be multiplied by 0
    ratio = torch.maximum(p[inside] / q[inside], tiny)
    return (q[inside] * f(ratio)).sum() + BOUNDED[name][1] * p[~inside].sum()


@pytest.mark.equation(
    "eq-f-bound",
    formula=lambda at_zero, rate: at_zero + rate,
    wrong={
        "rate dropped": lambda at_zero, rate: at_zero,
        "value at zero dropped": lambda at_zero, rate: rate,
        "largest of the two": lambda at_zero, rate: max(at_zero, rate),
        "twice": lambda at_zero, rate: 2 * (at_zero + rate),
    },
)
def test_a_bounded_f_divergence_saturates_on_disjoint_supports(formula):
    expected = {"jsd": js_discrete, "tv": lambda p, q: (p - q).clamp(min=0).sum()}
    for name, ends in BOUNDED.items():
        bound = formula(*ends)
        for _ in range(100):
            p, q = distribution(5), distribution(5)
            p[0], q[1] = 0, 0  # each has mass where the other has none
            p, q = p / p.sum(), q / q.sum()
            value = f_divergence(name, p, q)
            assert value <= bound + 1e-12
            if name in expected:
                torch.testing.assert_close(value, expected[name](p, q))
        zeros = torch.zeros(5)
        for _ in range(3):
            p = torch.cat([distribution(5), zeros])
            q = torch.cat([zeros, distribution(5)])
            assert f_divergence(name, p, q).item() == pytest.approx(bound, abs=1e-12)


def test_kl_of_shifted_gaussians_does_not_saturate():
    for shift in (1.0, 2.0, 4.0):
        value = torch.distributions.kl_divergence(Normal(0.0, 0.5), Normal(shift, 0.5))
        torch.testing.assert_close(value, kl_integral(Normal(0.0, 0.5), Normal(shift, 0.5)))
        assert value.item() == pytest.approx(shift**2 / (2 * 0.5**2))
