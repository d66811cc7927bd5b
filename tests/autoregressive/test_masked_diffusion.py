"""Masked diffusion: every mask and every order of a few pixels, one by one."""

import itertools
import math

import numpy as np
import pytest
import torch

from course_lib.autoregressive import MaskedDiffusion, any_order_loss
from course_lib.distributions import DiscretizedLogisticMixture
from tests.autoregressive.properties import all_images, samples_follow_log_prob, sums_to_one

pytestmark = pytest.mark.usefixtures("float64")
NETWORKS = {"perceptron": {"hidden": (24, 24)}, "convolutions": {"channels": 6, "n_blocks": 1}}
ORDERS = list(itertools.permutations(range(4)))


def build(shape=(1, 2, 2), levels=3, *, network="perceptron", **arguments):
    """A model away from its initial state, where all distributions are alike."""
    model = MaskedDiffusion(shape, levels, **NETWORKS[network], **arguments).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.4 * torch.randn_like(parameter)
    return model


@torch.no_grad()
def conditionals(model, x):
    """log p(x_i | x_S) for every set S of known dimensions: from S to a tensor (N, D)."""
    table = {}
    for size in range(model.n_dims + 1):
        for known in itertools.combinations(range(model.n_dims), size):
            mask = torch.zeros(model.n_dims, dtype=torch.bool)
            mask[list(known)] = True
            parameters = model(x, mask.view(model.event_shape).expand(x.shape))
            table[frozenset(known)] = model.distribution.log_prob(parameters, x).flatten(1)
    return table


def in_order(table, order):
    """log p(x) in one order, by the chain rule."""
    return sum(table[frozenset(order[:place])][:, i] for place, i in enumerate(order))


@pytest.mark.parametrize("network", NETWORKS)
def test_every_order_sums_to_one_and_so_do_mixtures(network):
    model = build(network=network)
    images = all_images(model)
    table = conditionals(model, images)
    for order in ORDERS:
        log_p = in_order(table, order)
        torch.testing.assert_close(model.log_prob(images, order=torch.tensor(order)), log_p)
        assert abs(log_p.exp().sum() - 1) < 1e-9
    sums_to_one(model)
    sums_to_one(model, order=torch.tensor(ORDERS[5:9]))


@pytest.mark.parametrize("levels", [2, 3])
def test_other_distributions_sum_to_one(levels):
    sums_to_one(build((1, 1, 3), levels))
    mixture = DiscretizedLogisticMixture(levels, 2)
    sums_to_one(build((1, 1, 3), levels, distribution=mixture))
    sums_to_one(build((3, 1, 1), levels, network="convolutions", distribution=mixture))


def by_sets(model, x):
    """f(S) = 1/|S| Σ_{i in S} f(S without i) p(x_i | S without i), as the library computes it."""
    return model.log_prob(x)


def by_sets_changed(weight=lambda size: 1 / size, log=False, given=lambda s, i: s - {i}):
    """The recursion with one thing changed."""

    def recursion(model, x):
        table = conditionals(model, x)

        def f(chosen):
            if not chosen:
                return torch.zeros(len(x)) if log else torch.ones(len(x))
            terms = []
            for i in chosen:
                log_p = table[frozenset(given(chosen, i))][:, i]
                terms.append(f(chosen - {i}) + log_p if log else f(chosen - {i}) * log_p.exp())
            return weight(len(chosen)) * torch.stack(terms).sum(0)

        result = f(frozenset(range(model.n_dims)))
        return result if log else result.log()

    return recursion


@pytest.mark.equation(
    "eq-order-mixture",
    formula=by_sets,
    wrong={
        "summed, not averaged": by_sets_changed(weight=lambda size: 1.0),
        "logarithms averaged": by_sets_changed(log=True),
        "given all other pixels": by_sets_changed(given=lambda s, i: {0, 1, 2, 3} - {i}),
    },
    implemented_by="course_lib.autoregressive.masked_diffusion.MaskedDiffusion.log_prob",
)
def test_all_orders_by_their_sets(formula):
    model = build()
    x = all_images(model)[5::7]
    table = conditionals(model, x)
    each = torch.stack([in_order(table, order) for order in ORDERS])
    torch.testing.assert_close(formula(model, x), each.exp().mean(0).log())
    torch.testing.assert_close(by_sets_changed()(model, x), by_sets(model, x))


@pytest.mark.equation(
    "eq-any-order-bound",
    # The bound, from the log-likelihoods of all orders: log p(x) minus a divergence.
    formula=lambda each: (
        each.exp().mean(0).log() - (1 / len(each) * (1 / len(each) / each.softmax(0)).log()).sum(0)
    ),
    wrong={
        "no gap": lambda each: each.exp().mean(0).log(),
        "divergence the other way": lambda each: (
            each.exp().mean(0).log()
            - (each.softmax(0) * (len(each) * each.softmax(0)).log()).sum(0)
        ),
        "divergence added": lambda each: 2 * each.exp().mean(0).log() - each.mean(0),
    },
)
def test_the_bound_is_the_mean_over_orders(formula):
    model = build()
    x = all_images(model)[::5]
    table = conditionals(model, x)
    each = torch.stack([in_order(table, order) for order in ORDERS])
    # Walk through the orders as a sampler does, and add up what each step costs.
    costs = torch.zeros(len(x))
    for order in ORDERS:
        known = frozenset()
        for i in order:
            costs += table[known][:, i] / len(ORDERS)
            known |= {i}
    torch.testing.assert_close(formula(each), costs)
    assert (model.log_prob(x) - costs > 1e-3).all()


def over_masks(weight, *, masked_only=True):
    """Σ over all masks of weight(number masked) · Σ log p(x_i | known), i masked or all."""

    def bound(model, x):
        total = 0
        for known, log_p in conditionals(model, x).items():
            masked = set(range(model.n_dims)) - known
            summed = list(masked) if masked_only else list(range(model.n_dims))
            if masked:
                total = total + weight(len(masked), model.n_dims) * log_p[:, summed].sum(1)
        return total

    return bound


def uniform(m, D):
    """Probability of one mask of m pixels: first their number, then which."""
    return 1 / (D * math.comb(D, m))


@pytest.mark.equation(
    "eq-any-order-sets",
    formula=over_masks(lambda m, D: uniform(m, D) * D / m),
    wrong={
        "weight 1": over_masks(uniform),
        "all pixels instead of masked ones": over_masks(
            lambda m, D: uniform(m, D) * D / m, masked_only=False
        ),
        "m / D for D / m": over_masks(lambda m, D: uniform(m, D) * m / D),
        "number known for number masked": over_masks(lambda m, D: uniform(m, D) * D / (D - m + 1)),
    },
    implemented_by="course_lib.autoregressive.masked_diffusion.MaskedDiffusion.elbo",
)
def test_the_bound_by_masks_is_that_by_orders(formula):
    model = build()
    x = all_images(model)[3::8]
    table = conditionals(model, x)
    mean = torch.stack([in_order(table, order) for order in ORDERS]).mean(0)
    torch.testing.assert_close(formula(model, x), mean)


def over_time(weight, *, masked_only=True):
    """∫ weight(t) E Σ log p(x_i | known) dt, by Gauss–Legendre quadrature, exact for polynomials."""
    nodes, shares = np.polynomial.legendre.leggauss(6)

    def bound(model, x):
        D, total = model.n_dims, 0
        for node, share in zip((nodes + 1) / 2, shares / 2, strict=True):

            def chance(m, _, t=float(node)):
                return t**m * (1 - t) ** (D - m) * weight(t)

            total = total + share * over_masks(chance, masked_only=masked_only)(model, x)
        return total

    return bound


@pytest.mark.equation(
    "eq-masked-diffusion",
    formula=over_time(lambda t: 1 / t),
    wrong={
        "weight 1": over_time(lambda t: 1.0),
        "all pixels instead of masked ones": over_time(lambda t: 1 / t, masked_only=False),
        "t for 1/t": over_time(lambda t: t),
        "1/(1 − t): the share known": over_time(lambda t: 1 / (1 - t)),
    },
)
def test_masked_diffusion_is_the_mean_over_orders(formula):
    model = build()
    x = all_images(model)[2::9]
    table = conditionals(model, x)
    mean = torch.stack([in_order(table, order) for order in ORDERS]).mean(0)
    torch.testing.assert_close(formula(model, x), mean)


@pytest.mark.equation(
    "eq-mask-beta",
    formula=lambda m, D: 1 / (m * math.comb(D, m)),
    wrong={
        "m forgotten": lambda m, D: 1 / math.comb(D, m),
        "D for m": lambda m, D: 1 / (D * math.comb(D, m)),
        "known for masked": lambda m, D: 1 / ((D - m + 1) * math.comb(D, m)),
    },
)
def test_the_integral_over_time_counts_orders(formula):
    t = (torch.arange(200_000) + 0.5) / 200_000
    for m, D in ((1, 4), (3, 4), (2, 7), (6, 9)):
        integral = (t ** (m - 1) * (1 - t) ** (D - m)).mean().item()
        assert abs(formula(m, D) / integral - 1) < 1e-6
        # Orders in which a given one of m pixels comes first of them, right after the other D − m.
        orders = math.factorial(D - m) * math.factorial(m - 1) / math.factorial(D)
        assert abs(integral / orders - 1) < 1e-6


def step_divergence(log_p, s, t):
    """(t − s)/t times the sum of −log p(x_i | known) over masked pixels."""
    return (t - s) / t * -log_p.sum()


@pytest.mark.equation(
    "eq-unmasking-step",
    formula=step_divergence,
    wrong={
        "probability of unmasking forgotten": lambda log_p, s, t: -log_p.sum(),
        "t − s for (t − s)/t": lambda log_p, s, t: -(t - s) * log_p.sum(),
        "s/t: of staying masked": lambda log_p, s, t: -s / t * log_p.sum(),
        "mean over pixels": lambda log_p, s, t: step_divergence(log_p, s, t) / len(log_p),
    },
)
def test_a_step_of_unmasking(formula):
    # Two masked pixels of three levels; every state of the pair at time s, with 3 for the mask.
    s, t, x = 0.35, 0.8, (2, 0)
    p = torch.rand(2, 3)
    p /= p.sum(1, keepdim=True)
    divergence = 0.0
    for state in itertools.product(range(4), repeat=2):
        q = r = 1.0
        for i, value in enumerate(state):
            q *= s / t if value == 3 else (1 - s / t) * (value == x[i])
            r *= s / t if value == 3 else (1 - s / t) * p[i, value].item()
        divergence += q * math.log(q / r) if q else 0.0
    # What a step hides: of the pixels masked at time t the share s/t is masked at time s.
    assert abs((1 - s / t) * t - (t - s)) < 1e-12
    log_p = torch.stack([p[i, value] for i, value in enumerate(x)]).log()
    torch.testing.assert_close(formula(log_p, s, t), torch.tensor(divergence))


def entropy(p):
    return -(p * p.log()).sum()


def marginal(p, dims):
    """Of some dimensions, shaped to broadcast against the table; of none it is 1."""
    others = [d for d in range(p.dim()) if d not in dims]
    return p.sum(others, keepdim=True) if others else p


def entropy_of(p, dims):
    return entropy(marginal(p, dims))


def total_correlation(p, block, before):
    """Σ_{i in block} H(x_i | before) − H(block | before)."""
    base = entropy_of(p, before) if before else 0.0
    each = sum(entropy_of(p, [*before, i]) - base for i in block)
    return each - (entropy_of(p, [*before, *block]) - base)


def with_before(blocks):
    """Each block with the pixels of those before it."""
    return [(block, [i for b in blocks[:place] for i in b]) for place, block in enumerate(blocks)]


@pytest.mark.equation(
    "eq-parallel-cost",
    formula=lambda p, blocks: sum(total_correlation(p, *pair) for pair in with_before(blocks)),
    wrong={
        "unconditional": lambda p, blocks: sum(total_correlation(p, b, []) for b in blocks),
        "joint entropies not subtracted": lambda p, blocks: sum(
            entropy_of(p, [*before, i]) - (entropy_of(p, before) if before else 0)
            for block, before in with_before(blocks)
            for i in block
        ),
        "of the whole image": lambda p, blocks: total_correlation(p, list(range(4)), []),
    },
)
def test_what_several_pixels_at_once_cost(formula):
    p = torch.rand(2, 3, 2, 3).pow(2)
    p /= p.sum()
    for blocks in ([[2, 0], [1, 3]], [[1], [3, 0, 2]], [[0, 1], [2], [3]]):
        q, before = torch.ones(()), []
        for block in blocks:
            for i in block:
                q = q * marginal(p, [*before, i]) / marginal(p, before)
            before = before + block
        assert abs(q.sum() - 1) < 1e-12
        torch.testing.assert_close(formula(p, blocks), (p * (p / q).log()).sum())
    assert abs(formula(p, [[3], [1], [0], [2]])) < 1e-12


@pytest.mark.parametrize("network", NETWORKS)
def test_the_estimate_is_unbiased_with_any_number_of_draws(network):
    model = build((1, 2, 3), 4, network=network)
    x = torch.randint(4, (3, 1, 2, 3))
    exact = over_masks(lambda m, D: uniform(m, D) * D / m)(model, x)
    for n_samples in (1, 4):
        with torch.no_grad():
            drawn = torch.stack([model.elbo(x, n_samples) for _ in range(400)])
        error = drawn.std(0) / len(drawn) ** 0.5
        assert ((drawn.mean(0) - exact).abs() < 4.5 * error).all()
        assert (error > 0).all()


def test_draws_spread_over_the_numbers_of_masked_pixels():
    model, seen = build((1, 2, 3), 4), []

    def forward(x, known):
        seen.append((~known).flatten(1).sum(1))
        return torch.zeros(*x.shape, 4)

    model.forward = forward
    model.elbo(torch.randint(4, (5, 1, 2, 3)), 6)
    # Each of five images has had every number of masked pixels once.
    assert (seen[0].view(6, 5).sort(0).values == torch.arange(1, 7).unsqueeze(1)).all()
    # The loss of one draw, over a batch of six.
    model.elbo(torch.randint(4, (6, 1, 2, 3)))
    assert (seen[1].sort().values == torch.arange(1, 7)).all()


def test_what_is_masked_is_not_read():
    for network in NETWORKS:
        model = build((2, 2, 2), 3, network=network)
        x, known = torch.randint(3, (4, 2, 2, 2)), torch.rand(4, 2, 2, 2) < 0.5
        other = torch.where(known, x, 2 - x)
        assert torch.equal(model(x, known), model(other, known))
        # Every known entry is read, by every other one; the middle level is told apart from a mask.
        x = torch.ones_like(x)
        for i in range(8):
            less = torch.ones_like(known)
            less.view(4, -1)[:, i] = False
            changed = (model(x, torch.ones_like(known)) != model(x, less)).flatten(1, -2).any(-1)
            assert changed.all()


def test_samples_follow_the_mixture_of_all_orders_and_those_of_an_order_its_own():
    model = build((1, 1, 3), 3)
    samples_follow_log_prob(model)
    order = torch.tensor([2, 0, 1])
    images = all_images(model)
    expected = model.log_prob(images, order=order).exp().detach()
    samples = model.sample(4000, order=order, generator=torch.Generator().manual_seed(3))
    observed = torch.bincount(samples.flatten(1) @ torch.tensor([9, 3, 1]), minlength=27) / 4000
    assert ((observed - expected).abs() < 4.5 * (expected / 4000).sqrt() + 1e-3).all()
    assert (model.log_prob(images).exp() - expected).abs().max() > 0.01


def test_several_at_once_are_drawn_independently():
    model = build((1, 1, 2), 3)
    images = all_images(model)
    first = model(images, torch.zeros_like(images, dtype=torch.bool))[0].softmax(-1).view(2, 3)
    expected = (first[0, :, None] * first[1]).flatten()
    samples = model.sample(4000, at_once=2, generator=torch.Generator().manual_seed(0)).flatten(1)
    observed = torch.bincount(samples @ torch.tensor([3, 1]), minlength=9) / 4000
    assert ((observed - expected).abs() < 4.5 * (expected / 4000).sqrt()).all()
    assert (model.log_prob(images).exp() - expected).abs().max() > 0.01


def test_a_completion_is_conditioned_on_all_that_is_known():
    # The middle of three pixels, between both neighbours: p(x_2 | x_1, x_3) of the network itself.
    model = build((1, 1, 3), 3)
    known = torch.tensor([True, False, True]).view(1, 1, 3)
    x = torch.tensor([2, 9, 0]).view(1, 1, 1, 3).repeat(4000, 1, 1, 1)
    filled = model.complete(x, known, generator=torch.Generator().manual_seed(0))
    assert (filled[..., 0] == 2).all()
    assert (filled[..., 2] == 0).all()
    p = model(filled[:1] * known, known.unsqueeze(0))[0, 0, 0, 1].softmax(-1)
    share = torch.bincount(filled[..., 1].flatten(), minlength=3) / 4000
    assert ((share - p).abs() < 4.5 * (p / 4000).sqrt()).all()


def test_completions_keep_the_known_of_each_image_and_end_with_all_filled():
    model = build((1, 3, 3), 4, network="convolutions")
    x, known = torch.randint(4, (6, 1, 3, 3)), torch.rand(6, 1, 3, 3) < 0.5
    known[0], known[1] = True, False
    marked = torch.where(known, x, -1)
    for options in ({}, {"at_once": 3}, {"order": torch.randperm(9)}):
        filled = [
            model.complete(marked, known, generator=torch.Generator().manual_seed(1), **options)
            for _ in range(2)
        ]
        assert torch.equal(*filled)
        assert torch.equal(filled[0][known], x[known])
        assert filled[0].min() >= 0
    sampled = model.sample(6, generator=torch.Generator().manual_seed(1), order=torch.arange(9))
    same = model.complete(
        sampled,
        torch.arange(9).view(1, 3, 3) < 4,
        generator=torch.Generator().manual_seed(1),
        order=torch.arange(9),
    )
    assert torch.equal(same, sampled)


def test_the_loss_is_the_bound_and_trains_the_network():
    model = MaskedDiffusion((1, 2, 2), 3, hidden=(24, 24)).train()
    x = torch.tensor([[[[0, 2], [1, 1]]]]).repeat(8, 1, 1, 1)
    optimizer = torch.optim.Adam(model.parameters(), 0.02)
    for _ in range(60):
        optimizer.zero_grad()
        loss = any_order_loss(model, x, torch.tensor(0.0))
        loss.backward()
        optimizer.step()
    model.eval()
    assert any_order_loss(model, (x, None), torch.tensor(1.0)) < 0.5 < 4 * math.log(3)
    assert (model.sample(4) == x[:4]).all()


def test_the_bound_is_measured_without_dropout_and_trained_with_it():
    model = build(dropout=0.5).train()
    x = all_images(model)[:20]

    def source():
        return torch.Generator().manual_seed(0)

    measured = model.elbo(x, 4, generator=source())
    assert model.training
    torch.testing.assert_close(model.elbo(x, 4, generator=source()), measured)
    torch.testing.assert_close(model.eval().elbo(x, 4, generator=source()), measured)
    # On one pixel every mask is the same: what differs between two draws is what is dropped.
    model = build((1, 1, 1), dropout=0.5).train()
    first, second = (any_order_loss(model, x[:, :, :1, :1], torch.tensor(0.0)) for _ in range(2))
    assert (first - second).abs() > 1e-3


LAYOUTS = {
    "columns before rows": lambda x: x.mT.contiguous().mT,
    "channels last": lambda x: x.movedim(-3, -1).contiguous().movedim(-1, -3),
    "one for all": lambda x: x[:1].expand(x.shape),
}


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
def test_images_and_masks_may_be_views(layout):
    model, order = build((2, 3, 4), 3), torch.arange(24).flip(0)
    x = layout(torch.randint(3, (5, 2, 3, 4)))
    known = layout(torch.rand(5, 2, 3, 4) < 0.5)
    assert not x.is_contiguous()
    torch.testing.assert_close(
        model.log_prob(x, order=order), model.log_prob(x.contiguous(), order=order)
    )

    def completed(x, known):
        return model.complete(x, known, generator=torch.Generator().manual_seed(0))

    assert torch.equal(completed(x, known), completed(x.contiguous(), known.contiguous()))
    assert torch.equal(completed(x, known[0]), completed(x.contiguous(), known[0].contiguous()))


def test_there_are_no_passes_of_one_order():
    with pytest.raises(TypeError, match="at_once"):
        build().sample_by_passes(2)


def test_wrong_orders_are_named():
    model = build()
    x = all_images(model)[:2]
    for order in (torch.arange(3), torch.tensor([0, 1, 2, 2]), torch.zeros(0, 4).long()):
        with pytest.raises(ValueError, match="order has shape"):
            model.log_prob(x, order=order)
    with pytest.raises(TypeError, match="order has dtype"):
        model.sample(2, order=torch.rand(4))
    with pytest.raises(ValueError, match=r"or \(3, 4\)"):
        model.sample(3, order=torch.arange(4).repeat(2, 1))
    large = MaskedDiffusion((13,), 2, hidden=(4,))
    with pytest.raises(ValueError, match="13! orders"):
        large.log_prob(torch.zeros(1, 13, dtype=torch.int64))
