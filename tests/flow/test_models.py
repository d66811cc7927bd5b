"""What models do beyond being bijections: sampling, interpolation, initialization, bad input."""

import math
from itertools import pairwise

import pytest
import torch

import course_lib.flow as flow
from course_lib.flow.checks import MODELS, build, round_trip_error
from course_lib.protocols import Bijection, Density, Sampler
from course_lib.training import fit, negative_log_likelihood


def moons(n: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    angle = math.pi * torch.rand(n, generator=generator)
    upper = torch.rand(n, generator=generator) < 0.5
    x = torch.where(upper, angle.cos(), 1 - angle.cos())
    y = torch.where(upper, angle.sin(), 0.5 - angle.sin())
    return torch.stack([x, y], 1) + 0.1 * torch.randn(n, 2, generator=generator)


@pytest.mark.parametrize(
    "make",
    [
        lambda: flow.NICE((2,), hidden=(32,)),
        lambda: flow.RealNVP((2,), layers=4, hidden=(32,)),
        lambda: flow.MAF((2,), layers=3, hidden=(32,)),
        lambda: flow.IAF((2,), layers=3, hidden=(32,)),
        lambda: flow.TarFlow((2,), layers=3, width=16, heads=2),
        lambda: flow.PlanarFlow((2,), layers=6),
        lambda: flow.SplineFlow((2,), layers=3, hidden=(32,)),
    ],
    ids=["NICE", "RealNVP", "MAF", "IAF", "TarFlow", "PlanarFlow", "SplineFlow"],
)
def test_training_helps_and_leaves_an_invertible_map(make):
    torch.manual_seed(0)
    data, model = moons(500), make()
    before = model.log_prob(data).mean().item()
    fit(
        model,
        negative_log_likelihood,
        data,
        steps=60,
        batch_size=250,
        learning_rate=1e-2,
        accelerator="cpu",
        progress=False,
    )
    assert model.log_prob(data).mean().item() > before + 0.15
    assert round_trip_error(model, data) < 1e-4  # single precision


@pytest.mark.parametrize("name", MODELS)
def test_models_keep_the_contracts(name):
    model = build(MODELS[name]).float()
    for protocol in (Density, Sampler, Bijection):
        assert isinstance(model, protocol)
    first, second = (model.sample(3, generator=torch.Generator().manual_seed(5)) for _ in "ab")
    assert torch.equal(first, second)
    assert not first.requires_grad
    assert first.shape == (3, *model.event_shape)
    assert model.log_prob(first.clamp(0.01, 0.99)).shape == (3,)


def networks_that_do_not_round(model: torch.nn.Module) -> None:
    """Let the networks return numbers that bfloat16 holds exactly, whatever they read."""
    for module in model.modules():
        if isinstance(module, flow.VectorConditioner | flow.ImageConditioner):
            last = module.network[-1]
        elif isinstance(module, flow.MaskedAutoregressive):
            last = module.layers[-1]
        elif isinstance(module, flow.AttentionAutoregressive):
            last = module.network.last
        else:
            continue
        torch.nn.init.zeros_(last.weight)
        last.bias.data = torch.randint(-64, 65, last.bias.shape) / 64


@pytest.mark.parametrize("name", MODELS)
def test_autocast_rounds_networks_and_nothing_else(name):
    # A rounded map is no bijection, and its log-determinant that of another one.
    model = build(MODELS[name]).float()
    torch.manual_seed(0)
    networks_that_do_not_round(model)
    x = model.sample(50, generator=torch.Generator().manual_seed(0)).clamp(0.01, 0.99)
    expected, z = model.log_prob(x), model(x)[0]
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(model.log_prob(x), expected)
        torch.testing.assert_close(model(x)[0], z)
        torch.testing.assert_close(model.inverse(z)[0], x)
        assert model.log_prob(x.bfloat16()).dtype == torch.float32


@pytest.mark.parametrize("name", MODELS)
def test_one_example_at_a_time_under_vmap_gives_what_the_batch_gives(name, float64):
    model = build(MODELS[name])
    x = model.sample(3, generator=torch.Generator().manual_seed(0)).clamp(0.01, 0.99)
    each = torch.func.vmap(lambda example: model.log_prob(example[None])[0])
    torch.testing.assert_close(each(x), model.log_prob(x))


def test_sampling_drops_no_unit():
    model = build(lambda: flow.RealNVP((2,), layers=2, hidden=(16,), dropout=0.5)).train()
    first, second = (model.sample(5, generator=torch.Generator().manual_seed(5)) for _ in "ab")
    assert torch.equal(first, second)
    assert all(module.training for module in model.modules())


def test_temperature_scales_the_latent(float64):
    model = build(MODELS["RealNVP"])
    hot, cold = (
        model(model.sample(5, generator=torch.Generator().manual_seed(1), temperature=t))[0]
        for t in (1.0, 0.5)
    )
    torch.testing.assert_close(cold, 0.5 * hot)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("logit", [1e-6, 0.05, 0.3])
def test_samples_through_a_logit_have_a_density(logit, dtype):
    model = flow.RealNVP((4,), layers=2, hidden=(8,), logit_margin=logit).to(dtype)
    for temperature in (1.0, 6.0, 1000.0):
        generator = torch.Generator().manual_seed(0)
        x = model.sample(2000, generator=generator, temperature=temperature)
        assert model.log_prob(x).isfinite().all()
    # Nearer latents are not moved; the logit's slope at their ends is 22,000.
    z = torch.linspace(-10, 10, 801, dtype=dtype)[:, None].expand(-1, 4)
    logit_alone = model.transform.transforms[0]
    back, _ = logit_alone(logit_alone.inverse(z)[0])
    torch.testing.assert_close(back, z, rtol=0, atol=4 * 22_000 * torch.finfo(dtype).eps)


def test_interpolation_keeps_its_ends_and_the_length_of_the_latents(float64):
    model = build(MODELS["RealNVP"])
    start, end = model.sample(4), model.sample(4)
    path = model.interpolate(start, end, 7)
    torch.testing.assert_close(path[:, 0], start)
    torch.testing.assert_close(path[:, -1], end)
    a, b, middle = (model(x)[0] for x in (start, end, path[:, 3]))
    # On an arc between latents of the same direction or length, lengths stay between the ends'.
    assert (middle.norm(dim=1) > 0.5 * torch.minimum(a.norm(dim=1), b.norm(dim=1))).all()
    still = model.interpolate(start, start, 3)
    torch.testing.assert_close(still, start[:, None].expand(-1, 3, -1))


def test_interpolated_latents_follow_the_prior(float64):
    # Identity flow in many dimensions: an arc between draws keeps the length of a draw.
    model = flow.Flow(flow.ElementwiseAffine((400,)).double())
    start, end = torch.randn(2, 30, 400)
    middle = model.interpolate(start, end, 3)[:, 1]
    assert abs(middle.norm(dim=1).mean() / 20 - 1) < 0.02  # the chord's middle: 0.707


def test_masks_of_successive_couplings_alternate():
    # Otherwise some latents are entries of x, untouched: the identity in every direction of x.
    for model in (
        flow.NICE((6,)),
        flow.RealNVP((6,)),
        flow.RealNVP((1, 4, 4)),
        flow.SplineFlow((6,)),
    ):
        couplings = [m for m in model.modules() if isinstance(m, flow.Coupling)]
        for one, following in pairwise(couplings):
            assert torch.equal(one.kept, following.transformed)
    model = build(lambda: flow.MultiScaleRealNVP((1, 4, 4), width=4, couplings=2))
    by_shape: dict[tuple, list] = {}
    for module in model.modules():
        if isinstance(module, flow.Coupling):
            by_shape.setdefault(module.event_shape, []).append(module)
    for couplings in by_shape.values():
        assert torch.equal(couplings[0].kept, couplings[1].transformed)


@pytest.mark.parametrize("name", [n for n in MODELS if n != "PlanarFlow"])
def test_every_entry_is_transformed_given_others(name, float64):
    # Every latent but those of affine layers depends on more than one entry, and none is a copy.
    model = build(MODELS[name])
    x = torch.rand(3, *model.event_shape)
    size = x[0].numel()
    reached = torch.zeros(size, size, dtype=torch.bool)
    for point in x:
        jacobian = torch.autograd.functional.jacobian(
            lambda p: model(p.unsqueeze(0))[0].flatten(), point
        ).reshape(size, size)
        reached |= jacobian.abs() > 1e-9
    assert (reached.sum(0) > 1).all()  # each entry of x moves several latents
    assert (reached.sum(1) > 1).all()  # each latent sees several entries


def test_actnorm_and_glow_start_from_the_data(float64):
    x = 3 + 2 * torch.randn(200, 3, 4, 4)
    z = flow.ActNorm((3, 4, 4)).initialize(x)
    torch.testing.assert_close(z.mean((0, 2, 3)), torch.zeros(3), atol=1e-9, rtol=0)
    torch.testing.assert_close(z.var((0, 2, 3), correction=0), torch.ones(3))
    glow = flow.Glow((3, 4, 4), steps=2, width=8)
    latent = glow.initialize(x)
    torch.testing.assert_close(latent, glow(x)[0])
    assert abs(latent.std() - 1) < 0.05  # couplings start as the identity
    torch.testing.assert_close(
        flow.ElementwiseAffine((3, 4, 4)).initialize(x).std(0, correction=0), torch.ones(3, 4, 4)
    )


@pytest.mark.parametrize("spread", [0.01, 100.0])
def test_an_affine_map_starts_from_data_of_any_spread(spread, float64):
    x = spread * torch.randn(50, 4)
    z = flow.ElementwiseAffine((4,)).initialize(x)
    torch.testing.assert_close(z.std(0, correction=0), torch.ones(4))


def test_each_scale_starts_from_what_the_one_before_it_leaves(float64):
    x = torch.randn(200, 1, 2, 2) * torch.tensor([[1.0, 2.0], [3.0, 4.0]])
    z = flow.MultiScale([flow.Squeeze((1, 2, 2)), flow.ActNorm((2, 1, 1))]).initialize(x)
    # Two of four channels leave as they are; the second stage standardizes the others.
    torch.testing.assert_close(z[:, 2:].std(0, correction=0), torch.ones(2))
    torch.testing.assert_close(z[:, :2], x[:, 0, 1])


def test_a_squeeze_puts_each_square_into_the_channels_of_one_pixel():
    x = torch.arange(16.0).reshape(1, 1, 4, 4)
    z = flow.Squeeze((1, 4, 4))(x)[0]
    assert z[0, :, 0, 1].tolist() == [2, 3, 6, 7]


def test_averaged_weights_leave_indices_alone():
    # A moving average of integer buffers would round some of them down.
    torch.manual_seed(0)
    model = flow.RealNVP((1, 8, 8), layers=2, hidden=(8,))
    kept = [m.kept.clone() for m in model.modules() if isinstance(m, flow.Coupling)]
    data = torch.randn(64, 1, 8, 8)
    fit(
        model,
        negative_log_likelihood,
        data,
        validation=data,
        steps=6,
        batch_size=32,
        ema=0.9,
        accelerator="cpu",
        progress=False,
    )
    after = [m.kept for m in model.modules() if isinstance(m, flow.Coupling)]
    assert all(torch.equal(a, b) for a, b in zip(kept, after, strict=True))


BAD = {
    "odd squeeze": (lambda: flow.Squeeze((1, 5, 4)), ValueError, "even H and W"),
    "odd checkerboard": (
        lambda: flow.checkerboard_mask((1, 4, 7)),
        ValueError,
        "even H and W",
    ),
    "odd channels": (lambda: flow.channel_mask((3, 4, 4)), ValueError, "Squeeze"),
    "checkerboard of a vector": (
        lambda: flow.checkerboard_mask((6,)),
        ValueError,
        "alternating_mask",
    ),
    "coupling of one entry": (lambda: flow.RealNVP((1,)), ValueError, "at least two"),
    "Glow of odd images": (lambda: flow.Glow((1, 7, 7)), ValueError, "even H and W"),
    "too many scales": (lambda: flow.Glow((1, 4, 4), scales=3), ValueError, "even H and W"),
    "mask of all ones": (
        lambda: flow.AffineCoupling(torch.ones(4, dtype=torch.bool), torch.nn.Identity()),
        ValueError,
        "true everywhere",
    ),
    "mask of all zeros": (
        lambda: flow.AdditiveCoupling(torch.zeros(4, dtype=torch.bool), torch.nn.Identity()),
        ValueError,
        "false everywhere",
    ),
    "mask of floats": (
        lambda: flow.AffineCoupling(torch.tensor([1.0, 0.0]), torch.nn.Identity()),
        TypeError,
        r"\.bool\(\)",
    ),
    "wrong dimension": (
        lambda: flow.RealNVP((4,)).log_prob(torch.zeros(3, 5)),
        ValueError,
        r"\(N, 4\) is expected",
    ),
    "wrong dimension of a transform": (
        lambda: flow.Planar((4,))(torch.zeros(3, 5)),
        ValueError,
        r"\(N, 4\) is expected",
    ),
    "wrong latent": (
        lambda: flow.Glow((1, 4, 4)).inverse(torch.zeros(2, 1, 4, 4)),
        ValueError,
        "z has shape",
    ),
    "one example": (lambda: flow.MAF((4,)).log_prob(torch.zeros(4)), ValueError, "unsqueeze"),
    "integers": (
        lambda: flow.MAF((4,)).log_prob(torch.zeros(2, 4, dtype=torch.int64)),
        TypeError,
        "floating-point",
    ),
    "NaN": (
        lambda: flow.NICE((2,)).log_prob(torch.tensor([[0.0, math.nan]])),
        ValueError,
        "NaN or infinity",
    ),
    "levels to a logit": (
        lambda: flow.RealNVP((4,), logit_margin=0.05).log_prob(torch.full((2, 4), 7.0)),
        ValueError,
        "dequantize",
    ),
    "no margin": (lambda: flow.Logit((2,), alpha=0.0), ValueError, "margin between 0 and 0.5"),
    "planar flow of images": (
        lambda: flow.PlanarFlow((1, 2, 2)),
        ValueError,
        r"event_shape is \(1, 2, 2\); \(D,\) is expected.*\(4,\)",
    ),
    "couplings without scales": (
        lambda: flow.RealNVP((4,), bound=0.0),
        ValueError,
        "bound is 0.0; a positive number",
    ),
    "negative log-scales": (lambda: flow.Glow((1, 4, 4), bound=-1.0), ValueError, "positive"),
    "no bound": (lambda: flow.MAF((4,), bound=math.nan), ValueError, "bound is nan"),
    "shapes that do not fit": (
        lambda: flow.Composition([flow.Planar((4,)), flow.Planar((5,))]),
        ValueError,
        "equal shapes",
    ),
    "no transforms": (lambda: flow.Composition([]), ValueError, "at least one"),
    "no stages": (lambda: flow.MultiScale([]), ValueError, "at least one"),
    "stages that do not fit": (
        lambda: flow.MultiScale([flow.ActNorm((4, 2, 2)), flow.ActNorm((4, 2, 2))]),
        ValueError,
        r"\(2, 2, 2\)",
    ),
    "not a permutation": (
        lambda: flow.Permutation((3,), torch.tensor([0, 0, 2])),
        ValueError,
        "each of 0 … 2 once",
    ),
    "no hidden layer": (
        lambda: flow.MaskedAutoregressive((3,), ()),
        ValueError,
        "at least one hidden layer",
    ),
    "temperature zero": (
        lambda: flow.NICE((2,)).sample(3, temperature=0.0),
        ValueError,
        "positive",
    ),
    "no bins": (lambda: flow.SplineFlow((2,), bins=0), ValueError, "bins is 0"),
    "bins that fill the interval": (
        lambda: flow.SplineFlow((2,), bins=100),
        ValueError,
        "bins is 100; fewer than 100.*couplings",
    ),
    "no samples": (lambda: flow.NICE((2,)).sample(0), ValueError, "at least 1"),
    "one step": (
        lambda: flow.NICE((2,)).interpolate(torch.zeros(1, 2), torch.ones(1, 2), 1),
        ValueError,
        "steps is 1; an integer of at least 2",
    ),
    "dequantizing intensities": (
        lambda: flow.DequantizedFlow(flow.RealNVP((4,), logit_margin=0.05), 17).elbo(
            torch.rand(2, 4)
        ),
        TypeError,
        "integer grey levels",
    ),
    "255 levels for 256": (
        lambda: flow.DequantizedFlow(flow.RealNVP((2,), logit_margin=0.05), 255).elbo(
            torch.tensor([[0, 255]])
        ),
        ValueError,
        "0 … 254 are expected",
    ),
    "images of another size": (
        lambda: flow.DequantizedFlow(flow.RealNVP((4,), logit_margin=0.05), 17).elbo(
            torch.zeros(2, 5, dtype=torch.uint8)
        ),
        ValueError,
        r"\(N, 4\) is expected",
    ),
    "no levels": (
        lambda: flow.DequantizedFlow(flow.RealNVP((4,), logit_margin=0.05), 0),
        ValueError,
        "levels is 0",
    ),
    "no scales": (
        lambda: flow.Glow((1, 8, 8), scales=0),
        ValueError,
        "scales is 0; an integer of at least 1",
    ),
    "no levels for bits": (
        lambda: flow.density_bits_per_dim(torch.zeros(2), (4,), 0),
        ValueError,
        "levels is 0",
    ),
}


@pytest.mark.parametrize(("call", "error", "message"), BAD.values(), ids=BAD)
def test_bad_input_is_named(call, error, message):
    with pytest.raises(error, match=message):
        call()
