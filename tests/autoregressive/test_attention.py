"""Attention: its weights, its cost and its cache, each by a route independent of its formula."""

import itertools
import math

import numpy as np
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from course_lib.attention import (
    AttentionBlock,
    SelfAttention,
    attend,
    attention_weights,
    causal_mask,
)
from course_lib.autoregressive import Transformer
from course_lib.fast import plain_paths
from course_lib.fast.attention import BlockCache
from tests.autoregressive.properties import (
    all_before_is_seen,
    all_images,
    build,
    cached_is_naive,
    jacobian,
    nothing_leaks,
    sums_to_one,
)

pytestmark = pytest.mark.usefixtures("float64")


def causal(queries, keys, values):
    return attend(queries, keys, values, causal=True)


def with_scores(scores, keep, values):
    return scores.masked_fill(~keep, -math.inf).softmax(-1) @ values


def scaled(queries, keys):
    return queries @ keys.mT / math.sqrt(queries.shape[-1])


@pytest.mark.equation(
    "eq-causal-attention",
    formula=causal,
    wrong={
        "the mask moved on: one place of the future is read": lambda q, k, v: with_scores(
            scaled(q, k), torch.ones(len(q), len(k)).tril(1).bool(), v
        ),
        "the own place left out": lambda q, k, v: with_scores(
            scaled(q, k), torch.ones(len(q), len(k)).tril(-1).bool(), v
        ).nan_to_num(),
        "no division by the root of d": lambda q, k, v: with_scores(
            q @ k.mT, causal_mask(len(q)), v
        ),
        "normalized over the future, too": lambda q, k, v: (
            (scaled(q, k).softmax(-1) * causal_mask(len(q))) @ v
        ),
        "scores of the future set to zero": lambda q, k, v: (
            (scaled(q, k) * causal_mask(len(q))).softmax(-1) @ v
        ),
    },
    implemented_by="course_lib.attention.attend",
)
def test_causal_attention(formula):
    T, d = 6, 5
    queries, keys, values = torch.randn(T, d), torch.randn(T, d), torch.randn(T, d)
    q, k, v = (part.numpy() for part in (queries, keys, values))
    expected = np.zeros((T, d))
    for i in range(T):
        weights = [math.exp(sum(q[i] * k[j]) * d**-0.5) for j in range(i + 1)]
        for j, weight in enumerate(weights):
            expected[i] += weight / sum(weights) * v[j]
    torch.testing.assert_close(formula(queries, keys, values), torch.as_tensor(expected))


@pytest.mark.equation(
    "eq-attention-scale",
    formula=lambda d, a, b: d * a * b,
    wrong={
        "the root of d": lambda d, a, b: math.sqrt(d) * a * b,
        "d squared": lambda d, a, b: d**2 * a * b,
        "one variance only": lambda d, a, b: d * a,
    },
)
def test_attention_scale(formula):
    # All vectors of a distribution on three values, with their probabilities: no draw, no error.
    for d, scale in ((1, 1.0), (2, 0.7), (3, 1.3)):
        q_values, k_values = scale * torch.tensor([-2.0, 0.0, 1.0]), torch.tensor([-1.0, 0.5, 1.0])
        p = torch.tensor([0.2, 0.4, 0.4])  # the means are zero
        r = torch.tensor([0.5, 0.2, 0.3])
        k_values = k_values - (r * k_values).sum()
        mean, square = 0.0, 0.0
        for i, j in itertools.product(itertools.product(range(3), repeat=d), repeat=2):
            weight = math.prod(p[a] * r[b] for a, b in zip(i, j, strict=True))
            score = (q_values[list(i)] * k_values[list(j)]).sum()
            mean, square = mean + weight * score, square + weight * score**2
        variances = [(w * v**2).sum().item() for w, v in ((p, q_values), (r, k_values))]
        assert abs(mean) < 1e-12
        assert abs(square.item() - formula(d, *variances)) < 1e-12


def permuted_reading(attention, tokens, order):
    return attention(tokens)[order]


@pytest.mark.equation(
    "eq-attention-permutation",
    formula=permuted_reading,
    wrong={
        "what is read does not change at all": lambda attention, tokens, order: attention(tokens),
        "the inverse order": lambda attention, tokens, order: permuted_reading(
            attention, tokens, order.argsort()
        ),
    },
)
def test_attention_knows_no_positions(formula):
    attention, tokens = SelfAttention(6, 2), torch.randn(5, 6)
    order = torch.tensor([2, 0, 4, 1, 3])
    torch.testing.assert_close(attention(tokens[order]), formula(attention, tokens, order))
    # A mask breaks the symmetry: the claim is one about attention without one.
    masked = SelfAttention(6, 2, causal=True)
    difference = masked(tokens[order]) - permuted_reading(masked, tokens, order)
    assert difference.abs().max() > 1e-3


def block_multiplications(T, w):
    """Of one layer: a full pass, and all steps of a cached sampler."""
    return 12 * T * w**2 + 2 * T**2 * w, 12 * T * w**2 + T * (T + 1) * w


def multiplications(call):
    with torch.inference_mode(), FlopCounterMode(display=False) as counter, plain_paths():
        call()
    return counter.get_total_flops() // 2


@pytest.mark.equation(
    "eq-attention-cost",
    formula=block_multiplications,
    wrong={
        "the perceptron forgotten": lambda T, w: (
            4 * T * w**2 + 2 * T**2 * w,
            4 * T * w**2 + T * (T + 1) * w,
        ),
        "in proportion to the length": lambda T, w: (12 * T * w**2, 12 * T * w**2),
        "a cache that reads all places": lambda T, w: (block_multiplications(T, w)[0],) * 2,
    },
)
def test_attention_cost(formula):
    for T, w, heads in ((7, 6, 2), (12, 8, 4)):
        block, n = AttentionBlock(w, heads, causal=True), 3
        tokens = torch.randn(n, T, w)

        def step_by_step(block=block, tokens=tokens, T=T):
            cache = BlockCache(block, len(tokens), T)
            for place in range(T):
                cache.next(place, tokens[:, place])

        counted = multiplications(lambda block=block, tokens=tokens: block(tokens))
        assert counted == n * formula(T, w)[0]
        assert multiplications(step_by_step) == n * formula(T, w)[1]


def cached_reading(queries, keys, values, spoil=lambda keys, values, t: None):
    """One query after another, each against the rows that have been stored so far."""
    stored_keys, stored_values = torch.zeros_like(keys), torch.zeros_like(values)
    read = []
    for t in range(len(queries)):
        stored_keys[t], stored_values[t] = keys[t], values[t]
        spoil(stored_keys, stored_values, t)
        rows = slice(t + 1)
        read.append(attend(queries[t : t + 1], stored_keys[rows], stored_values[rows]))
    return torch.cat(read)


def stale(keys, values, t):
    """The newest row is still that of the place before."""
    if t:
        values[t] = values[t - 1]


def late(keys, values, t):
    """The newest key has not been stored."""
    keys[t] = 0


@pytest.mark.equation(
    "eq-key-value-cache",
    formula=cached_reading,
    wrong={
        "a stale row of values": lambda q, k, v: cached_reading(q, k, v, stale),
        "a key that is not stored": lambda q, k, v: cached_reading(q, k, v, late),
        "keys and values exchanged": lambda q, k, v: cached_reading(q, v, k),
    },
)
def test_key_value_cache(formula):
    queries, keys, values = (torch.randn(7, 4) for _ in range(3))
    # The whole matrix of weights at once, the future cut off.
    weights = (queries @ keys.T / 2).exp().tril()
    expected = weights @ values / weights.sum(1, keepdim=True)
    torch.testing.assert_close(formula(queries, keys, values), expected)


def test_the_cache_of_a_layer_gives_what_the_layer_gives_pixel_by_pixel():
    block, tokens = AttentionBlock(12, 3, causal=True), torch.randn(4, 9, 12)
    with torch.no_grad():
        cache = BlockCache(block, 4, 9)
        steps = torch.stack([cache.next(place, tokens[:, place]) for place in range(9)], 1)
        torch.testing.assert_close(steps, block(tokens))
        # Recomputed at every place from the past alone, as a naive sampler does.
        for place in range(9):
            torch.testing.assert_close(
                block(tokens[:, : place + 1])[:, -1], steps[:, place], msg=str(place)
            )


def test_weights_are_distributions_over_the_past():
    queries, keys = torch.randn(2, 3, 5, 4) * 30, torch.randn(2, 3, 5, 4) * 30
    weights = attention_weights(queries, keys, causal=True)
    torch.testing.assert_close(weights.sum(-1), torch.ones(2, 3, 5))
    assert (weights.triu(1) == 0).all()
    assert (weights >= 0).all()
    assert (attention_weights(queries, keys)[..., 0, 1:] > 0).any()


def test_a_transformer_sees_all_of_its_past_with_one_layer_and_no_future():
    for shape in ((1, 5, 4), (3, 2, 3)):
        model = Transformer(shape, 3, width=12, heads=2, n_layers=1, kernel_size=3)
        nothing_leaks(model)
        all_before_is_seen(model)


@pytest.mark.parametrize("broken", ["the future", "not moved on"])
def test_a_mask_that_leaks_is_found_by_the_jacobian(broken):
    model = build("Transformer", (1, 3, 4), 2)
    if broken == "the future":
        for block in model.blocks:
            block.attention.causal = False
    else:
        model.tokens = lambda x, labels: (
            Transformer.tokens(model, x, labels)
            + model.value(model.encode(x).flatten(1)[:, model.order].unsqueeze(-1))
        )
    with pytest.raises(AssertionError):
        nothing_leaks(model)
    with pytest.raises(AssertionError):
        sums_to_one(model)


@pytest.mark.parametrize("shape", [(1, 2, 3), (3, 2, 1)])
def test_a_conditional_transformer_is_normalized_cached_and_uses_its_class(shape):
    model = build("Transformer", shape, 2, n_classes=3)
    log_probs = []
    for label in range(3):
        labels = torch.full((2**model.n_dims,), label)
        sums_to_one(model, labels=labels)
        log_probs.append(model.log_prob(all_images(model), labels))
    assert (log_probs[0] - log_probs[2]).abs().max() > 0.01
    cached_is_naive(model, 4, labels=torch.tensor([2, 0, 0, 1]))


def test_a_stale_row_of_the_cache_is_noticed(monkeypatch):
    right = BlockCache.next

    def stale(cache, place, token):
        read = right(cache, place, token)
        if place == 2:
            cache.values[:, place] = 0
        return read

    model = build("Transformer", (1, 3, 4), 3)
    cached_is_naive(model, 20)
    monkeypatch.setattr(BlockCache, "next", stale)
    with pytest.raises(AssertionError):
        cached_is_naive(model, 20)


def test_heads_that_share_keys_are_cached_causal_and_normalized():
    model = build("Transformer", (1, 2, 3), 2, key_value_heads=1)
    nothing_leaks(model)
    sums_to_one(model)
    cached_is_naive(model, 8)
    block, tokens = AttentionBlock(12, 4, causal=True, key_value_heads=2), torch.randn(3, 7, 12)
    with torch.no_grad():
        cache = BlockCache(block, 3, 7)
        steps = torch.stack([cache.next(place, tokens[:, place]) for place in range(7)], 1)
        torch.testing.assert_close(steps, block(tokens))


def along(model, x, labels=None):
    """Parameters of all conditionals from the sampler with a cache, sent the values of given images."""
    found, value = {}, None
    steps = model._steps(cached=True)(len(x), labels)
    with torch.inference_mode():
        while True:
            try:
                index, parameters = steps.send(value)
            except StopIteration:
                return torch.stack([found[i] for i in range(model.n_dims)], 1)
            found[index], value = parameters.clone(), x.flatten(1)[:, index]


HEADS = {"width": 16, "heads": 4}
KEYS = pytest.mark.parametrize("keys", [4, 2, 1])  # of four heads


@pytest.mark.parametrize(
    ("dtype", "tolerance"),
    [
        (torch.float64, 1e-13),
        (torch.float32, 1e-5),
        (torch.bfloat16, 0.05),
        (torch.float16, 0.01),
    ],
    ids=str,
)
@KEYS
@pytest.mark.parametrize("n", [1, 4])
def test_the_cache_gives_what_a_pass_gives_in_every_type(dtype, tolerance, keys, n):
    """Along images that are given, so that no draw near a border hides or makes a difference."""
    for shape in ((1, 4, 3), (3, 2, 3)):
        model = build("Transformer", shape, 3, n_classes=3, **HEADS, key_value_heads=keys)
        model = model.to(dtype).eval()
        x, labels = torch.randint(3, (n, *shape)), torch.arange(n) % 3
        with torch.inference_mode():
            expected = model(x, labels).flatten(1, -2)
        size = expected.double().abs().max()
        difference = (along(model, x, labels) - expected).double().abs().max()
        assert difference <= tolerance * size
        # And each class has its own.
        other = along(model, x, (labels + 1) % 3)
        assert (other - expected).double().abs().max() > 3 * tolerance * size


@KEYS
@pytest.mark.parametrize(("shape", "n"), [((1, 3, 4), 1), ((1, 3, 4), 5), ((3, 2, 2), 3)])
def test_every_way_to_sample_and_to_complete_draws_the_same(keys, shape, n):
    model = build("Transformer", shape, 3, n_classes=2, **HEADS, key_value_heads=keys, dropout=0.4)
    labels = torch.arange(n) % 2

    def noise():
        return {"generator": torch.Generator().manual_seed(7), "labels": labels}

    cached, naive = (model.sample(n, cached=c, **noise()) for c in (True, False))
    assert torch.equal(cached, naive)
    assert torch.equal(model.sample_by_passes(n, **noise())[0], naive)
    # What is known differs from image to image: the first pixel, the last one, a few, all, none.
    known = torch.rand(n, *shape) < torch.linspace(0, 1, n).view(-1, 1, 1, 1)
    known.view(n, -1)[::2, 0], known.view(n, -1)[::2, -1] = True, True
    x = torch.randint(3, (n, *shape))
    for given in (known, known[0], torch.ones_like(known), torch.zeros_like(known)):
        filled, again = (model.complete(x, given, cached=c, **noise()) for c in (True, False))
        assert torch.equal(filled, again)
        assert torch.equal(filled[given.expand_as(x)], x[given.expand_as(x)])
    assert torch.equal(filled, cached)  # nothing known: a sample
    # Nothing is kept from one call to the next, which has other images.
    model.sample(n + 2, labels=torch.ones(n + 2, dtype=torch.int64))
    assert torch.equal(model.sample(n, **noise()), cached)


def test_positions_tell_places_apart():
    """Without them a far pixel of the past would do the same wherever it is."""
    model = build("Transformer", (1, 4, 4), 2)
    x = torch.zeros(1, 1, 4, 4, dtype=torch.int64)
    first, second = x.clone(), x.clone()
    first[0, 0, 0, 0] = second[0, 0, 0, 1] = 1
    with torch.no_grad():
        there, elsewhere = (model(image)[0, 0, 3, 3] for image in (first, second))
    assert (there - elsewhere).abs().max() > 1e-3
    assert jacobian(model)[15, 0] > 0


def test_refused():
    with pytest.raises(ValueError, match="divides the width"):
        SelfAttention(10, 3)
    with pytest.raises(ValueError, match="as many keys as queries"):
        attention_weights(torch.randn(2, 4), torch.randn(3, 4), causal=True)
    with pytest.raises(ValueError, match=r"\(C, H, W\) is expected"):
        Transformer((4, 4), 2)
    with pytest.raises(ValueError, match="smaller than its reach"):
        Transformer((1, 3, 3), 2, kernel_size=7)
    with pytest.raises(ValueError, match="width is 0"):
        AttentionBlock(0, 1)


LAYOUTS = {
    "columns side by side": lambda x: x.mT.contiguous().mT,
    "every second feature": lambda x: torch.cat([x, x], -1)[..., ::2],
    "one feature for all": lambda x: x[..., :1].expand(x.shape),
    "one token for all": lambda x: x[:, :, :1].expand(x.shape),
    "heads before batches": lambda x: x.transpose(0, 1).contiguous().transpose(0, 1),
}


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
def test_attention_does_not_depend_on_how_numbers_lie_in_memory(layout):
    parts = [layout(torch.randn(2, 3, 5, 4)).requires_grad_() for _ in range(3)]
    read = attend(*parts, causal=True)
    gradients = torch.autograd.grad(read.square().sum(), parts)
    with plain_paths():
        expected = attend(*parts, causal=True)
        torch.testing.assert_close(read, expected)
        torch.testing.assert_close(gradients, torch.autograd.grad(expected.square().sum(), parts))


def test_attention_never_reads_beyond_its_values():
    queries = torch.randn(2, 3, 5, 4)
    with pytest.raises(ValueError, match=r"values \(2, 3, 3, 4\)"):
        attend(queries, queries, queries[:, :, :3])
    with pytest.raises(ValueError, match=r"keys \(2, 3, 5, 2\)"):
        attend(queries, queries[..., :2], queries)
    one = torch.randn(1, 1, 5, 4)  # the same values for all batches and heads
    with plain_paths():
        expected = attend(queries, queries, one)
    torch.testing.assert_close(attend(queries, queries, one), expected)


def test_attention_to_nothing_is_refused_and_of_nobody_is_empty():
    # PyTorch's operation for the CPU would divide by the number of tokens, and end the process.
    queries = torch.randn(2, 3, 5, 4)
    with pytest.raises(ValueError, match=r"queries has shape \(2, 3, 0, 4\)"):
        attend(queries[:, :, :0], queries, queries)
    with pytest.raises(ValueError, match=r"keys \(2, 3, 0, 4\)"):
        attend(queries, queries[:, :, :0], queries[:, :, :0])
    assert attend(queries[:0], queries[:0], queries[:0]).shape == (0, 3, 5, 4)


@pytest.mark.parametrize("device", ["cpu", "meta"])  # the second takes the path of other devices
def test_causal_attention_is_square_on_every_device(device):
    queries = torch.randn(2, 3, 5, 4, device=device)
    with pytest.raises(ValueError, match="5 queries and 3 keys"):
        attend(queries, queries[:, :, :3], queries[:, :, :3], causal=True)
