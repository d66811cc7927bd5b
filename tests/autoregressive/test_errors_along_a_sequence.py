"""What teacher-forced errors say of whole sequences; continuous conditionals; smooth levels."""

import itertools

import numpy as np
import pytest
import torch
from scipy.stats import norm
from torch import nn

from course_lib.distributions import DiscretizedLogisticMixture, discretized_logistic_log_mass
from course_lib.masked import MaskedLinear, made_masks

pytestmark = pytest.mark.usefixtures("float64")


def random_table(*sizes):
    p = torch.rand(*sizes) ** 2 + 0.02
    return p / p.sum()


def prefix(p, i):
    """The joint distribution of the first i values, with one axis for each."""
    return p.sum(tuple(range(i, p.dim()))) if i < p.dim() else p


def conditional(p, i):
    """p(x_i | x_<i), for i from 0: shape (K_0, …, K_i)."""
    return prefix(p, i + 1) / prefix(p, i).unsqueeze(-1)


def kl_terms(p, q, average=None):
    """The mean over prefixes of the divergence of each conditional."""
    average = p if average is None else average
    return [
        (
            prefix(average, i)
            * (conditional(p, i) * (conditional(p, i) / conditional(q, i)).log()).sum(-1)
        ).sum()
        for i in range(p.dim())
    ]


@pytest.mark.equation(
    "eq-kl-chain",
    formula=lambda p, q: sum(kl_terms(p, q)),
    wrong={
        "averaged over the model's own prefixes": lambda p, q: sum(kl_terms(p, q, average=q)),
        "arguments exchanged": lambda p, q: sum(kl_terms(q, p)),
        "the first factor left out": lambda p, q: sum(kl_terms(p, q)[1:]),
        "divergences of the marginals": lambda p, q: sum(
            (p_i * (p_i / q_i).log()).sum()
            for p_i, q_i in (
                (t.sum([j for j in range(t.dim()) if j != i]) for t in (p, q)) for i in range(3)
            )
        ),
    },
)
def test_kl_chain(formula):
    p, q = random_table(3, 2, 4), random_table(3, 2, 4)
    torch.testing.assert_close(formula(p, q), (p * (p / q).log()).sum())


def tv_terms(p, q):
    """δ_i: the mean over the data's prefixes of the total variation of each conditional."""
    return torch.stack(
        [
            (prefix(p, i) * (conditional(p, i) - conditional(q, i)).abs().sum(-1) / 2).sum()
            for i in range(p.dim())
        ]
    )


def leaving(n, leave, come_back):
    """Data that are always 0, nearly, and a model that leaves them; tables over n binary values."""
    tiny = 1e-12
    tables = torch.zeros(2, *[2] * n)
    for x in itertools.product((0, 1), repeat=n):
        for which, (out, back) in enumerate(((tiny, 0.5), (leave, come_back))):
            chance, state = 1.0, 0
            for value in x:
                up = 1 - back if state else out
                chance *= up if value else 1 - up
                state = value
            tables[(which, *x)] = chance
    return tables


@pytest.mark.equation(
    "eq-tv-chain",
    formula=lambda p, q: (tv_terms(p, q).sum(), (sum(kl_terms(p, q)) / 2).sqrt()),
    wrong={
        "half of the sum": lambda p, q: (tv_terms(p, q).sum() / 2, 1e9),
        "the largest term": lambda p, q: (tv_terms(p, q).max(), 1e9),
        "the mean of the divergences": lambda p, q: (1e9, (sum(kl_terms(p, q)) / 6).sqrt()),
        "a quarter of the divergence": lambda p, q: (1e9, (sum(kl_terms(p, q)) / 4).sqrt()),
    },
)
def test_tv_chain(formula):
    # The largest difference of probability that any event has, found among all events of 8 outcomes.
    events = torch.tensor(list(itertools.product((0.0, 1.0), repeat=8)))
    near = random_table(2, 2, 2)
    pairs = [(random_table(2, 2, 2), random_table(2, 2, 2)) for _ in range(20)]
    # Tight: a model that leaves the data rarely, and small differences of nearly uniform tables.
    pairs += [tuple(leaving(3, 0.01, 0.3)), (near, near + 1e-3 * (near - near.mean()))]
    uniform = torch.full((2, 2, 2), 1 / 8)
    pairs += [(uniform, uniform * torch.tensor([0.99, 1.01]).view(2, 1, 1))]
    for p, q in pairs:
        q = q / q.sum()
        total_variation = (events @ (p - q).flatten()).abs().max()
        for bound in formula(p, q):
            assert total_variation <= bound + 1e-9


def expected_cost(p, cost):
    return sum((prefix(p, t) * cost[t - 1]).sum() for t in range(1, p.dim() + 1))


def cost_bound(p, q):
    """Σ_t Σ_{i≤t} δ_i."""
    return tv_terms(p, q).cumsum(0).sum()


@pytest.mark.equation(
    "eq-free-running-cost",
    formula=cost_bound,
    wrong={
        "each error counted once": lambda p, q: tv_terms(p, q).sum(),
        "the errors of the step itself and the next": lambda p, q: 2 * tv_terms(p, q).sum(),
        "half of it": lambda p, q: cost_bound(p, q) / 2,
    },
)
def test_free_running_cost(formula):
    def worst(p, q):
        """The largest difference over all costs of each step in [0, 1], found step by step."""
        n = p.dim()
        return sum(
            (prefix(q, t) - prefix(p, t)).clamp(min=0).sum() for t in range(1, n + 1)
        )  # the cost 1 where the model is more probable

    for _ in range(20):
        p, q = random_table(2, 3, 2, 2), random_table(2, 3, 2, 2)
        assert worst(p, q) <= formula(p, q)
        cost = [torch.rand(p.shape[:t]) for t in range(1, 5)]
        assert abs(expected_cost(q, cost) - expected_cost(p, cost)) <= worst(p, q) + 1e-12
    # It is attained, in the limit of rare errors, by a model that leaves the data for good.
    p, q = leaving(6, 1e-4, 1e-6)
    assert 0.999 * formula(p, q) < worst(p, q) <= formula(p, q)


def two_states(t, leave, come_back):
    """The chance to be off the data at step t, and the teacher-forced divergence up to it."""
    share = leave / (leave + come_back) * (1 - (1 - leave - come_back) ** t)
    return share, -t * np.log(1 - leave)


@pytest.mark.equation(
    "eq-exposure-bias",
    formula=two_states,
    wrong={
        "the return forgotten": lambda t, a, b: (1 - (1 - a) ** t, -t * np.log(1 - a)),
        "the return in the divergence": lambda t, a, b: (
            two_states(t, a, b)[0],
            -t * np.log(1 - a) - t * np.log(1 - b),
        ),
        "one step late": lambda t, a, b: (two_states(t - 1, a, b)[0], -t * np.log(1 - a)),
        "stationary from the start": lambda t, a, b: (a / (a + b), -t * np.log(1 - a)),
    },
)
def test_exposure_bias(formula):
    for leave, come_back in ((0.03, 0.2), (0.1, 0.05)):
        for n in (3, 7):
            _, q = leaving(n, leave, come_back)
            off = q.movedim(-1, 0)[1].sum()
            share, divergence = formula(n, leave, come_back)
            assert abs(off - share) < 1e-9
            # All data are one sequence, so that the divergence is minus its log-probability.
            assert abs(divergence + q[(0,) * n].log()) < 1e-9


class Conditionals(nn.Module):
    """Means and log-scales of Gaussian conditionals, from a masked network."""

    def __init__(self, D):
        super().__init__()
        degrees = torch.arange(D)
        first, second = made_masks(degrees, [torch.arange(20) % (D - 1)], degrees.repeat(2))
        self.net = nn.Sequential(MaskedLinear(first), nn.Tanh(), MaskedLinear(second))

    def forward(self, x):
        mean, log_scale = self.net(x).chunk(2, -1)
        return mean, 0.7 * log_scale.tanh()


def log_density(model, x):
    """Σ_i log p(x_i | x_<i)."""
    mean, log_scale = model(x)
    scale = log_scale.exp()
    return torch.distributions.Normal(mean, scale).log_prob(x).sum(-1)


@pytest.mark.equation(
    "eq-autoregressive-flow",
    formula=log_density,
    wrong={
        "scales dropped": lambda m, x: log_density(m, x) + m(x)[1].sum(-1),
        "scales with the wrong sign": lambda m, x: log_density(m, x) + 2 * m(x)[1].sum(-1),
        "given the other values too": lambda m, x: log_density(lambda _: m(x.flip(-1)), x),
        "the last conditional alone": lambda m, x: log_density(
            lambda _: tuple(v[..., -1:] for v in m(x)), x[..., -1:]
        ),
    },
)
def test_autoregressive_flow(formula):
    D = 4
    model = Conditionals(D)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.5 * torch.randn_like(parameter)

    def to_uniform(x):
        """u_i = P(X_i ≤ x_i | x_<i): the conditional distribution functions."""
        mean, log_scale = model(x)
        return torch.special.ndtr((x - mean) / log_scale.exp())

    for _ in range(5):
        u = torch.rand(D) * 0.9 + 0.05
        x = torch.zeros(D)
        for i in range(D):  # ancestral sampling: the quantile of each conditional in turn
            mean, log_scale = model(x)
            quantile = torch.as_tensor(norm.ppf(u[i]))
            x[i] = (mean + log_scale.exp() * quantile)[i].detach()
        torch.testing.assert_close(to_uniform(x), u)
        jacobian = torch.autograd.functional.jacobian(to_uniform, x)
        assert (jacobian.triu(1) == 0).all()
        torch.testing.assert_close(formula(model, x), torch.linalg.slogdet(jacobian)[1])


def log_ratio_bound(levels, smallest_scale):
    """Largest |log P(k+1) − log P(k)| of neighbouring inner levels."""
    return 2 / ((levels - 1) * smallest_scale)


@pytest.mark.equation(
    "eq-logistic-neighbours",
    formula=log_ratio_bound,
    wrong={
        "half of it": lambda K, s: log_ratio_bound(K, s) / 2,
        "twice as much": lambda K, s: log_ratio_bound(K, s) * 2,
        "K for K − 1": lambda K, s: 2 / (K * s),
        "the square of the scale": lambda K, s: log_ratio_bound(K, s**2),
    },
)
def test_logistic_neighbours(formula):
    K = 17
    for scale in (0.02, 0.1, 0.8):
        # Far from the location the density falls exponentially, and the bound is attained.
        for mean in (-9.0, 9.0):
            logs = discretized_logistic_log_mass(
                torch.arange(1, K - 1), torch.tensor(mean), torch.tensor(scale).log(), K
            )
            largest = logs.diff().abs().max().item()
            assert 0.99 * formula(K, scale) < largest <= formula(K, scale) + 1e-9
        # Mixtures keep the bound of their narrowest component.
        mixture = DiscretizedLogisticMixture(K, 4)
        log_scales = torch.tensor([scale, 2 * scale, 0.5, 1.5]).clamp(min=scale).log()
        for _ in range(50):
            parameters = torch.cat([torch.randn(4), 2 * torch.rand(4) - 1, log_scales])
            logs = mixture.probabilities(parameters).log()[1:-1]
            assert logs.diff().abs().max() <= formula(K, scale) + 1e-9
