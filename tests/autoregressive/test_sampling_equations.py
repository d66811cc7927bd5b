"""Samples as fixed points, the passes that find them, and the arithmetic of a sampler."""

import itertools

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from course_lib.autoregressive import FVSBN, MADE, PixelCNN
from tests.autoregressive.properties import MODELS, all_images, build, jacobian

pytestmark = pytest.mark.usefixtures("float64")


def one_pass(model, x, u):
    """F(x): every dimension drawn at once, each given those before it in `x`."""
    return model.distribution.quantile(model(x), u.view(x.shape))


@pytest.mark.equation(
    "eq-fixed-point",
    formula=one_pass,
    wrong={
        "given the pixels after": lambda model, x, u: one_pass(model, x.flip(-1), u),
        "one minus u": lambda model, x, u: one_pass(model, x, 1 - u),
        "the noise of the next pixel": lambda model, x, u: one_pass(model, x, u.roll(1, 1)),
    },
)
def test_fixed_point(formula):
    # Of all 243 images exactly one is a fixed point: the one that ancestral sampling draws.
    model = build("PixelCNN", (1, 1, 5), 3)
    images = all_images(model)
    drawn = set()
    for seed in range(8):
        u = torch.rand(1, 5, generator=torch.Generator().manual_seed(seed))
        fixed = (formula(model, images, u.expand(len(images), -1)) == images).flatten(1).all(1)
        sample = model.sample(1, generator=torch.Generator().manual_seed(seed), cached=False)
        assert fixed.sum() == 1
        assert torch.equal(images[fixed], sample)
        drawn.add(tuple(sample.flatten().tolist()))
    assert len(drawn) > 4


def passes_of(model, start, u):
    """x⁽⁰⁾, x⁽¹⁾, … of the iteration, up to the first that does not change any more."""
    iterates = [start]
    while len(iterates) < 2 or not torch.equal(iterates[-1], iterates[-2]):
        iterates.append(one_pass(model, iterates[-1], u))
    return iterates


@pytest.mark.equation(
    "eq-jacobi",
    formula=lambda t: t,
    wrong={
        "one more": lambda t: t + 1,
        "one less": lambda t: max(t - 1, 0),
        "twice as many": lambda t: 2 * t,
    },
)
def test_jacobi(formula):
    # A chain that copies the pixel before: from the opposite of the sample, t passes mend t pixels.
    D = 7
    model = FVSBN((D,), 2)
    with torch.no_grad():
        model.weight.copy_(torch.diag(torch.full((D - 1,), 60.0), -1))
        model.bias.zero_()
    u = torch.rand(1, D, generator=torch.Generator().manual_seed(0))
    sample = model.sample(1, generator=torch.Generator().manual_seed(0), cached=False)
    iterates = passes_of(model, 1 - sample, u)
    for t in range(D + 1):
        right = (iterates[t] == sample)[0].tolist()
        # As many as the claim says, and in the worst case not one more.
        assert right[: formula(t)] == [True] * min(formula(t), D)
        assert formula(t) >= D or not right[formula(t)]


@pytest.mark.parametrize("name", [name for name in MODELS if name != "MADE, 3 orderings"])
def test_parallel_passes_end_at_the_sample_after_at_most_as_many_as_dimensions(name):
    model = build(name, (1, 3, 4), 3)
    D = model.n_dims
    u = torch.rand(6, D, generator=torch.Generator().manual_seed(3))
    sample = model.sample(6, generator=torch.Generator().manual_seed(3))
    for start in (torch.zeros_like(sample), (sample + 1) % 3):
        iterates = passes_of(model, start, u)
        assert torch.equal(iterates[-1], sample)
        assert len(iterates) - 1 <= D + 1  # the last one only finds that nothing changes
        for t, x in enumerate(iterates):
            assert torch.equal(x.flatten(1)[:, :t], sample.flatten(1)[:, :t])


@pytest.mark.parametrize("shape", [(1, 3, 4), (1, 1, 1)])
@pytest.mark.parametrize("name", MODELS)
def test_sampling_by_passes_draws_what_sampling_draws_and_counts_the_passes(name, shape):
    model = build(name, shape, 3)
    images, passes = model.sample_by_passes(6, generator=torch.Generator().manual_seed(3))
    sample = model.sample(6, generator=torch.Generator().manual_seed(3))
    assert torch.equal(images, sample)
    assert (passes <= model.n_dims).all()
    if len(getattr(model, "orderings", [0])) > 1:
        return
    u = torch.rand(6, model.n_dims, generator=torch.Generator().manual_seed(3))
    iterates = torch.stack(passes_of(model, torch.zeros_like(sample), u))
    wrong = (iterates != sample).flatten(2).any(2)  # (passes, n)
    assert torch.equal(passes, wrong.sum(0))
    assert passes.max() > 1 or model.n_dims == 1


def test_sampling_by_passes_uses_classes_ignores_dropout_and_leaves_the_mode():
    model = build("Transformer", (1, 3, 4), 3, n_classes=2, dropout=0.5).train()
    labels = torch.arange(8) % 2
    images, passes = model.sample_by_passes(
        8, generator=torch.Generator().manual_seed(0), labels=labels
    )
    given = {"generator": torch.Generator().manual_seed(0), "labels": labels}
    assert torch.equal(images, model.sample(8, **given))
    assert model.training
    assert passes.unique().numel() > 1  # images leave the batch at different times


@pytest.mark.equation(
    "eq-wavefront",
    formula=lambda r, c, width: 1 + c + 2 * r,
    wrong={
        "raster order": lambda r, c, width: 1 + c + width * r,
        "the diagonals of the BiLSTM": lambda r, c, width: 1 + c + r,
        "three for each row": lambda r, c, width: 1 + c + 3 * r,
    },
)
def test_wavefront(formula):
    # The longest chain of dependences that ends at each pixel, from the Jacobian of a deep stack.
    height, width = 4, 5
    model = PixelCNN((1, height, width), 2, channels=8, n_layers=7, kernel_size=3)
    seen = jacobian(model) > 0
    longest = []
    for place in range(height * width):
        before = [longest[j] for j in range(place) if seen[place, j]]
        longest.append(1 + max(before, default=0))
    for r, c in itertools.product(range(height), range(width)):
        assert longest[r * width + c] == formula(r, c, width)


@pytest.mark.parametrize("seed", range(3))
def test_a_chain_of_dependences_bounds_the_passes(seed):
    torch.manual_seed(seed)
    height, width = 5, 6
    model = PixelCNN((1, height, width), 3, channels=8, n_layers=5, kernel_size=3)
    with torch.no_grad():
        for name, parameter in model.named_parameters():  # without biases, which would decide alone
            parameter *= 0 if name.endswith("bias") else 3
    u = torch.rand(20, height * width, generator=torch.Generator().manual_seed(seed))
    sample = model.sample(20, generator=torch.Generator().manual_seed(seed))
    wave = 1 + torch.arange(width) + 2 * torch.arange(height).unsqueeze(1)
    iterates = passes_of(model, (sample + 1) % 3, u)
    for t, x in enumerate(iterates):
        assert torch.equal(x[:, 0, wave <= t], sample[:, 0, wave <= t])
    assert len(iterates) > 6  # not a model in which all pixels are independent


def multiplications(call):
    with torch.inference_mode(), FlopCounterMode(display=False) as counter:
        call()
    return counter.get_total_flops() // 2  # an addition goes with each


def work(D, P):
    """Multiplications for an image: of a dense pass, of naive and of cached sampling."""
    return P * D**2, P * D**3, P * D * (D - 1) // 2


@pytest.mark.equation(
    "eq-sampling-work",
    formula=work,
    wrong={
        "a cache that costs a dense pass": lambda D, P: (P * D**2, P * D**3, P * D**2),
        "naive passes of growing size": lambda D, P: (P * D**2, P * D**2 * (D - 1) // 2, 0),
        "the diagonal not masked": lambda D, P: (P * D**2, P * D**3, P * D * (D + 1) // 2),
    },
)
def test_sampling_work(formula):
    n = 3
    for D, K in ((7, 5), (12, 3)):
        model = FVSBN((D,), K)
        x = torch.zeros(n, D, dtype=torch.int64)
        calls = (
            lambda model=model, x=x: model(x),
            lambda model=model: model.sample(n, cached=False),
            lambda model=model: model.sample(n),
        )
        counted = tuple(multiplications(call) for call in calls)
        assert counted == tuple(n * number for number in formula(D, K))


def test_a_cached_made_multiplies_unmasked_weights_only():
    """What is left of a dense pass by its masks, once each: no sampler repeats or adds a product."""
    model = MADE((1, 4, 5), 3, hidden=(30, 40))
    model.sample(1)
    unmasked = sum(int(mask.sum()) for mask, _ in model.masks_in_use(0))
    dense = sum(linear.weight.numel() for linear in model.linears)
    # Weights to hidden units that no output reads are left out as well.
    counted = multiplications(lambda: model.sample(1))
    assert unmasked * 0.85 < counted <= unmasked < 0.6 * dense
