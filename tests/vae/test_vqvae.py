"""VQ-VAE: the code, its gradient, and every bit of it counted."""

import copy
import itertools
import math

import pytest
import torch

from course_lib.autoregressive import GatedPixelCNN
from course_lib.distributions import Categorical
from course_lib.vae import VQVAE, VQObjective, nearest_code, perplexity, straight_through

pytestmark = pytest.mark.usefixtures("float64")


def build(shape=(1, 2, 4), n_codes=3, levels=2, **arguments):
    model = VQVAE(
        shape, n_codes, code_dim=2, channels=6, likelihood=Categorical(levels), **arguments
    ).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.4 * torch.randn_like(parameter)
    return model


def every(n_values, shape):
    """All tensors of integers below `n_values`, shape ``(n_values^…, *shape)``."""
    values = itertools.product(range(n_values), repeat=math.prod(shape))
    return torch.tensor(list(values)).view(-1, *shape)


def test_the_nearest_vector_is_found():
    z, codebook = torch.randn(3, 4, 5), torch.randn(7, 5) * 2
    assert torch.equal(nearest_code(z, codebook), torch.cdist(z, codebook[None]).argmin(-1))
    # Two vectors at the same direction: the length counts as well.
    assert nearest_code(torch.ones(1, 2), torch.tensor([[9.0, 9], [0.5, 0.5]])).item() == 1


@pytest.mark.parametrize("centre", [0.0, 100.0])
@pytest.mark.parametrize("mixed", [False, True], ids=["float32", "autocast"])
def test_the_nearest_vector_is_found_in_few_digits(mixed, centre):
    z, codebook = (centre + torch.randn(n, 8).float() / 64 for n in (500, 300))
    exact = torch.cdist(z.double(), codebook.double(), compute_mode="donot_use_mm_for_euclid_dist")
    with torch.autocast("cpu", torch.bfloat16, enabled=mixed):
        found = nearest_code(z, codebook)
    # Of two that are nearly as far, either may be taken.
    farther = exact.gather(1, found[:, None])[:, 0] / exact.amin(1)
    assert farther.max() < 1.0001


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_a_model_in_half_precision_decodes_what_it_was_trained_on(dtype):
    model = build((1, 4, 4), 5).to(dtype)
    x = torch.randint(2, (6, 1, 4, 4)).to(dtype)
    given = model.likelihood.given(model(x), 3)
    decoded = model.decode(model.codes(x)).log_prob(x)
    torch.testing.assert_close(given.log_prob(x), decoded, rtol=torch.finfo(dtype).eps, atol=0)
    terms = VQObjective()(model, x, torch.tensor(0.0))
    assert terms["loss"].dtype == torch.float32
    terms["loss"].backward()
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters())


@pytest.mark.equation(
    "eq-vq-straight-through",
    formula=straight_through,
    wrong={
        "gradient cut": lambda z, e: e.detach(),
        "gradient to the codebook": lambda z, e: e,
        "not quantized": lambda z, e: z,
        "difference not detached": lambda z, e: z + (e - z),
        "halfway": lambda z, e: (z + e).detach() / 2 + (z - z.detach()),
    },
    implemented_by="course_lib.vae.straight_through",
)
def test_straight_through(formula):
    codebook = torch.randn(4, 3).requires_grad_()
    z = (codebook[[2, 0, 3]] + 0.1 * torch.randn(3, 3)).detach().requires_grad_()

    def f(e):
        return (e.sin() * torch.arange(1.0, 10).view(3, 3)).sum() + (e[0] * e[1]).sum()

    e = codebook[nearest_code(z, codebook)]
    assert not torch.allclose(e, z)
    value = formula(z, e)
    torch.testing.assert_close(value, e)
    assert value.requires_grad
    gradient, none = torch.autograd.grad(f(value), (z, codebook), allow_unused=True)
    # The derivative of f at the quantized vectors, by central differences.
    h, expected = 1e-6, torch.zeros(3, 3)
    for i, j in itertools.product(range(3), repeat=2):
        step = torch.zeros(3, 3)
        step[i, j] = h
        expected[i, j] = (f(e.detach() + step) - f(e.detach() - step)) / (2 * h)
    assert gradient is not None
    torch.testing.assert_close(gradient, expected, rtol=1e-6, atol=1e-7)
    assert none is None


def minus_log_joint(prior, model, x):
    """Nats of the code under the prior plus nats of the image given the code."""
    codes = model.codes(x)
    return -prior.log_prob(codes[:, None]) - model.decode(codes).log_prob(x)


@pytest.mark.equation(
    "eq-vq-bits",
    # The bound as log p(x) and a gap: log p(x) + log p(c(x)|x).
    formula=lambda prior, model, x, log_p, log_posterior: -(log_p + log_posterior),
    wrong={
        "no gap": lambda prior, model, x, log_p, log_posterior: -log_p,
        "gap the other way": lambda prior, model, x, log_p, log_posterior: -log_p + log_posterior,
        "uniform prior": lambda prior, model, x, log_p, log_posterior: -model.elbo(x),
        "pixels alone": lambda prior, model, x, *_: -model.decode(model.codes(x)).log_prob(x),
        "code alone": lambda prior, model, x, *_: -prior.log_prob(model.codes(x)[:, None]),
    },
)
@torch.no_grad()
def test_bits_of_the_code_and_of_the_pixels(formula):
    model = build()
    prior = GatedPixelCNN((1, *model.code_shape), 3, channels=4, n_layers=2)
    for parameter in prior.parameters():
        parameter += 0.5 * torch.randn_like(parameter)
    x = every(2, (1, 2, 4))[::9].double()
    codes = every(3, model.code_shape)
    # log p(x) = log Σ_c p(c) p(x|c), over every code.
    joint = prior.log_prob(codes[:, None])[:, None] + torch.stack(
        [model.decode(c.expand(len(x), -1, -1)).log_prob(x) for c in codes]
    )
    log_p = joint.logsumexp(0)
    place = (codes == model.codes(x)[:, None]).flatten(2).all(-1).int().argmax(1)
    log_posterior = (joint - log_p).gather(0, place[None])[0]
    bits = minus_log_joint(prior, model, x)
    torch.testing.assert_close(formula(prior, model, x, log_p, log_posterior), bits)
    assert (bits > -log_p + 1e-3).all()


@torch.no_grad()
def test_prior_and_decoder_are_normalized_together():
    model = build()
    prior = GatedPixelCNN((1, *model.code_shape), 3, channels=4, n_layers=2)
    x, codes = every(2, (1, 2, 4)).double(), every(3, model.code_shape)
    total = sum(
        (prior.log_prob(c[None, None]) + model.decode(c.expand(len(x), -1, -1)).log_prob(x))
        .exp()
        .sum()
        for c in codes
    )
    assert abs(total - 1) < 1e-9
    # What is claimed of each image, its own code alone, sums to less.
    assert minus_log_joint(prior, model, x).neg().exp().sum() < 1


@torch.no_grad()
def test_the_bound_of_the_uniform_prior():
    model = build(n_codes=5)
    x = every(2, (1, 2, 4))[:7].double()
    codes = model.codes(x)
    expected = model.decode(codes).log_prob(x) - 2 * math.log(5)
    torch.testing.assert_close(model.elbo(x), expected)
    assert torch.equal(model.elbo(x, 3), model.elbo(x))
    # The decoder reads vectors of the codebook, the same ones as in training.
    parameters = model(x)
    torch.testing.assert_close(
        model.likelihood.given(parameters, 3).log_prob(x), model.decode(codes).log_prob(x)
    )


@pytest.mark.equation(
    "eq-vq-perplexity",
    formula=lambda share: torch.special.entr(share).sum().exp(),
    wrong={
        "bits for nats": lambda share: (torch.special.entr(share).sum() / math.log(2)).exp(),
        "number in use": lambda share: (share > 0).double().sum(),
        "not exponentiated": lambda share: torch.special.entr(share).sum(),
        "inverse of the largest share": lambda share: 1 / share.max(),
    },
    implemented_by="course_lib.vae.perplexity",
)
def test_perplexity_counts_equally_used_codes(formula):
    # A sequence of codes with these frequencies has about perplexity^n typical members: count them.
    counts = torch.tensor([600, 300, 0, 100])
    codes = torch.repeat_interleave(torch.arange(4), counts)
    arrangements = math.lgamma(1001) - sum(math.lgamma(c + 1) for c in counts.tolist())
    value = formula(counts / 1000).item()
    assert abs(value - math.exp(arrangements / 1000)) < 0.02 * value
    torch.testing.assert_close(perplexity(codes, 4).item(), formula(counts / 1000).item())
    assert abs(formula(torch.full((6,), 1 / 6)).item() - 6) < 1e-9


@torch.no_grad()
def test_a_vector_is_the_encoders_at_one_place_of_the_grid():
    model, x = build((1, 8, 12), 7, 4), torch.randint(4, (5, 1, 8, 12)) / 3
    height, width = model.code_shape
    assert (
        len({5, height, width, 2}) == 4
    )  # examples and entries of a vector, too: no two are exchanged
    maps, z = model.encoder(x), model.vectors(x)
    assert z.shape == (5, height, width, 2)
    for row, column in itertools.product(range(height), range(width)):
        assert torch.equal(z[:, row, column], maps[:, :, row, column])


def test_the_terms_of_the_loss_move_what_they_are_for():
    model, x = build((1, 4, 4), 3, 4), torch.randint(4, (5, 1, 4, 4)) / 3
    terms = VQObjective(0.5)(model, x, torch.tensor(0.0))
    torch.testing.assert_close(
        terms["loss"], terms["reconstruction"] + terms["codebook"] + 0.5 * terms["commitment"]
    )
    torch.testing.assert_close(terms["codebook"], terms["commitment"])
    z = model.vectors(x)
    squared = (z - model.codebook[model.codes(x)]).square().sum() / 5
    torch.testing.assert_close(terms["codebook"], squared)
    log_prob = model.decode(model.codes(x)).log_prob(x)
    torch.testing.assert_close(terms["reconstruction"], -log_prob.sum() / 5)
    encoder, decoder = next(model.encoder.parameters()), next(model.decoder.parameters())
    for name, moved in {
        "codebook": (False, True, False),
        "commitment": (True, False, False),
        "reconstruction": (True, False, True),
    }.items():
        gradients = torch.autograd.grad(
            terms[name], (encoder, model.codebook, decoder), retain_graph=True, allow_unused=True
        )
        assert tuple(g is not None and g.abs().sum() > 0 for g in gradients) == moved, name


def test_dead_codes_are_moved_onto_the_encoder_and_live_ones_stay():
    model, x = build((1, 4, 4), 6, 4), torch.randint(4, (8, 1, 4, 4)) / 3
    with torch.no_grad():
        model.codebook[:4] += 1000
    before, used = model.codebook.clone(), set(model.codes(x).flatten().tolist())
    moved = model.restart_unused(x, generator=torch.Generator().manual_seed(0))
    assert moved == 6 - len(used) >= 4
    for k in used:
        assert torch.equal(model.codebook[k], before[k])
    vectors = model.vectors(x).flatten(0, 2)
    for k in set(range(6)) - used:
        assert (vectors == model.codebook[k]).all(1).any()


def test_dead_codes_become_different_ones_and_all_of_them_live():
    # Draws with replacement would take a vector twice, and one of the two would be dead at once.
    model, x = build((1, 4, 4), 20), torch.randint(2, (8, 1, 4, 4)).double()
    with torch.no_grad():
        model.codebook += 1000
        model.codebook[0] = 0
    for seed in range(5):
        again = copy.deepcopy(model)
        source = torch.Generator().manual_seed(seed)
        assert again.restart_unused(x, generator=source) == 19
        assert len(again.codebook.unique(dim=0)) == 20
        assert set(range(1, 20)) <= set(again.codes(x).flatten().tolist())
    # Of one image, repeated, there are four vectors, and not 19.
    assert model.restart_unused(x[:1].expand(8, -1, -1, -1)) == 4


def test_samples_have_uniform_codes_and_follow_the_decoder():
    model = build((1, 2, 2), 2)
    samples = model.sample(4000, generator=torch.Generator().manual_seed(0)).flatten(1)
    x = every(2, (1, 2, 2)).double()
    with torch.no_grad():
        p = sum(model.decode(torch.full((16, 1, 1), k)).log_prob(x).exp() / 2 for k in range(2))
    observed = torch.bincount(samples.long() @ torch.tensor([8, 4, 2, 1]), minlength=16) / 4000
    assert ((observed - p).abs() < 4.5 * (p / 4000).sqrt() + 1e-3).all()


def test_wrong_codes_and_images_are_named():
    model = build()
    with pytest.raises(ValueError, match="codes has levels"):
        model.decode(torch.full((2, 1, 2), 3))
    with pytest.raises(ValueError, match="codes has shape"):
        model.decode(torch.zeros(2, 2, 2, dtype=torch.int64))
    with pytest.raises(ValueError, match="multiples of 4"):
        VQVAE((1, 6, 8), halvings=2)
    with pytest.raises(ValueError, match="code_dim is 1 and the grid of codes has one place"):
        VQVAE((1, 4, 4), halvings=2, code_dim=1)
