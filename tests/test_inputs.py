"""What is passed in by mistake, in every family: the message names it and what is expected."""

import pytest
import torch

from course_lib import (
    autoregressive,
    data,
    distributions,
    divergences,
    evaluation,
    flow,
    gan,
    inputs,
    vae,
)

X = torch.rand(3, 1, 4, 4)
SHAPE = (1, 4, 4)
PIXELCNN = autoregressive.PixelCNN(SHAPE, 5, channels=2, n_layers=1)
MODELS = {
    "VAE": (vae.VAE(SHAPE, 2, hidden=(4,)), lambda model, x: model.elbo(x)),
    "Autoencoder": (vae.Autoencoder(SHAPE, 2), lambda model, x: model(x)),
    "RealNVP": (flow.RealNVP(SHAPE, layers=2, hidden=(4,)), lambda model, x: model.log_prob(x)),
    "Glow": (flow.Glow(SHAPE, scales=1, steps=1, width=2), lambda model, x: model.initialize(x)),
    "Discriminator": (gan.Discriminator(SHAPE, hidden=(4,)), lambda model, x: model(x)),
}


@pytest.mark.parametrize("name", MODELS)
def test_data_of_another_precision_are_named(name):
    model, call = MODELS[name]
    call(model, X)
    with pytest.raises(
        TypeError, match=r"x has dtype torch\.float64 and the model's parameters"
    ) as e:
        call(model, X.double())
    assert "Call .to(torch.float32) on x" in str(e.value)


def test_autocast_may_mix_types():
    model, call = MODELS["Discriminator"]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        call(model, X.bfloat16())
    inputs.require_batch(X.double(), SHAPE)  # no model, nothing to compare with
    inputs.require_batch(X.double(), SHAPE, model=torch.nn.Identity())


def test_values_are_not_asked_for_under_vmap():
    model, call = MODELS["VAE"]
    each = torch.func.vmap(lambda x: call(model, x[None])[0], randomness="same")
    assert torch.isfinite(each(X)).all()
    # Other errors are no such thing.
    with pytest.raises(RuntimeError, match="match"), inputs.where_values_can_be_read():
        torch.ones(2) + torch.ones(3)


SHAPED = {
    "VAE": lambda shape: vae.VAE(shape, 2),
    "Autoencoder": lambda shape: vae.Autoencoder(shape, 2),
    "Generator": gan.Generator,
    "ConvGenerator": gan.ConvGenerator,
    "Discriminator": gan.Discriminator,
    "ConvDiscriminator": gan.ConvDiscriminator,
    "FVSBN": lambda shape: autoregressive.FVSBN(shape, 2),
    "PixelCNN": lambda shape: autoregressive.PixelCNN(shape, 2),
    **{name: getattr(flow, name) for name in ("NICE", "RealNVP", "MAF", "Glow", "SplineFlow")},
}


@pytest.mark.parametrize("name", SHAPED)
def test_what_is_no_shape_is_named(name):
    with pytest.raises(TypeError, match=r"event_shape is 64; a sequence .* or \(64,\) for vectors"):
        SHAPED[name](64)
    with pytest.raises(ValueError, match="event_shape is empty"):
        SHAPED[name](())
    with pytest.raises(ValueError, match="an entry of event_shape is 0"):
        SHAPED[name]((1, 0, 8))


LAYERED = {
    "VAE": lambda hidden: vae.VAE(SHAPE, 2, hidden=hidden),
    "Generator": lambda hidden: gan.Generator(SHAPE, hidden=hidden),
    "Discriminator": lambda hidden: gan.Discriminator(SHAPE, hidden=hidden),
    "MADE": lambda hidden: autoregressive.MADE(SHAPE, 2, hidden=hidden),
    "RealNVP": lambda hidden: flow.RealNVP(SHAPE, hidden=hidden),
    "MAF": lambda hidden: flow.MAF(SHAPE, hidden=hidden),
}


@pytest.mark.parametrize("name", LAYERED)
def test_what_are_no_widths_is_named(name):
    with pytest.raises(TypeError, match=r"hidden is 500; .* such as \(500,\) for one layer"):
        LAYERED[name](500)
    with pytest.raises(ValueError, match="an entry of hidden is 0"):
        LAYERED[name]((4, 0))


BAD = {
    "a distribution by its name": (
        lambda: vae.VAE(SHAPE, 2, likelihood="gaussian"),
        TypeError,
        r"likelihood is 'gaussian'; .* Gaussian\(\)",
    ),
    "a distribution's class": (
        lambda: vae.VAE(SHAPE, 2, likelihood=distributions.Gaussian),
        TypeError,
        r"an output distribution is expected, such as Bernoulli\(\)",
    ),
    "no channels": (lambda: vae.VAE(SHAPE, 2, channels=0), ValueError, "channels is 0"),
    "no features": (
        lambda: autoregressive.PixelCNN(SHAPE, 2, channels=0),
        ValueError,
        "the number of channels is 0",
    ),
    "no channels in time": (
        lambda: autoregressive.WaveNet((8,), 2, channels=0),
        ValueError,
        "channels is 0",
    ),
    "a list of latents": (
        lambda: MODELS["VAE"][0].decode([0.0, 1.0]),
        TypeError,
        "z is a list; a torch.Tensor is expected",
    ),
    "a latent without dimensions": (
        lambda: MODELS["VAE"][0].decode(torch.tensor(0.0)),
        ValueError,
        r"z has shape \(\); \(\.\.\., 2\) is expected",
    ),
    "no importance samples": (
        lambda: vae.iwae_bound(MODELS["VAE"][0], X, 0),
        ValueError,
        "k is 0",
    ),
    "NaN for a weight": (lambda: vae.NegativeELBO(beta=float("nan")), ValueError, "beta is nan"),
    "steps for a share": (
        lambda: vae.NegativeELBO(warm_up=500),
        ValueError,
        "warm_up is 500; a number of at least 0 and at most 1 is expected",
    ),
    "latents of another size": (
        lambda: gan.Generator(SHAPE, 3)(torch.zeros(2, 5)),
        ValueError,
        r"z has shape \(2, 5\); \(N, 3\) is expected. Reshape it, or build the model",
    ),
    "a pixel outside": (
        lambda: autoregressive.receptive_field_map(PIXELCNN, (0, 4, 0)),
        ValueError,
        r"at is \(0, 4, 0\); the index of one dimension of an example of shape \(1, 4, 4\)",
    ),
    "a pixel without its channel": (
        lambda: autoregressive.receptive_field_map(PIXELCNN, (1, 1)),
        ValueError,
        r"at is \(1, 1\)",
    ),
    "one grey level": (
        lambda: data.intensities(torch.zeros(2, dtype=torch.uint8), 1),
        ValueError,
        "levels is 1; an integer of at least 2",
    ),
    "no grey level": (
        lambda: data.dequantize(torch.zeros(2, dtype=torch.uint8), 0),
        ValueError,
        "levels is 0",
    ),
}


@pytest.mark.parametrize(("call", "error", "message"), BAD.values(), ids=BAD)
def test_bad_input_is_named(call, error, message):
    with pytest.raises(error, match=message):
        call()


def test_a_folder_that_takes_no_files_is_named(tmp_path):
    inputs.require_writable(tmp_path / "new" / "folder", "the record")
    assert (tmp_path / "new" / "folder").is_dir()
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match=r"the record cannot be written to .*file.* Name another"):
        inputs.require_writable(tmp_path / "file", "the record")


VAE = MODELS["VAE"][0]
ONE, EYE = torch.ones(2), torch.eye(2)
CALLS = {
    "shapes of a univariate KL": (
        lambda: divergences.kl_univariate_gaussian(ONE, torch.ones(3), ONE, ONE),
        ValueError,
        r"the shapes are mu_q \(2,\), sigma_q \(3,\), .* shapes that broadcast",
    ),
    "shapes of a KL to the standard normal": (
        lambda: divergences.kl_standard_normal(torch.ones(3, 2), torch.ones(2, 3)),
        ValueError,
        r"the shapes are mu \(3, 2\), logvar \(2, 3\)",
    ),
    "numbers for tensors": (
        lambda: divergences.kl_standard_normal(0.0, 0.0),
        TypeError,
        r"mu is a float; a torch\.Tensor",
    ),
    "numbers for vectors": (
        lambda: divergences.kl_gaussian(torch.tensor(0.0), torch.tensor(1.0), ONE, EYE),
        ValueError,
        r"mu_q has shape \(\), cov_q \(\), .*; \(\.\.\., d\), \(\.\.\., d, d\), .* are expected",
    ),
    "bins that are neither a number nor edges": (
        lambda: divergences.histogram_kl(ONE, ONE, 2.5),
        TypeError,
        "bins is 2.5; a number of bins, an integer, or a tensor of edges",
    ),
    "a number for a shape": (
        lambda: evaluation.bits_per_dim(-ONE, 64),
        TypeError,
        "event_shape is 64; a sequence of sizes",
    ),
    "examples before the model": (
        lambda: vae.elbo(X, VAE),
        TypeError,
        "the first argument, model, is a Tensor; a model that encodes and decodes is expected",
    ),
    "a flow for a VAE": (
        lambda: vae.iwae_bound(MODELS["RealNVP"][0], X, 5),
        TypeError,
        "the first argument, model, is a RealNVP",
    ),
    "levels before the images": (
        lambda: data.dequantize(17, torch.zeros(9, 1, 8, 8, dtype=torch.int64)),
        TypeError,
        r"^levels is tensor\(.{1,40}; an integer of at least 1 is expected",
    ),
    "grey levels for a gradient": (
        lambda: gan.r1_penalty(MODELS["Discriminator"][0], (9 * X).long()),
        TypeError,
        r"real has dtype torch\.int64; .* course_lib\.data\.intensities",
    ),
}


@pytest.mark.parametrize(("call", "error", "message"), CALLS.values(), ids=CALLS)
def test_a_wrong_call_is_named(call, error, message):
    with pytest.raises(error, match=message):
        call()


def test_integers_are_numbers_to_a_divergence():
    expected = divergences.kl_gaussian(0 * ONE, 2 * EYE, ONE, EYE).double()
    found = divergences.kl_gaussian(*(t.long() for t in (0 * ONE, 2 * EYE, ONE, EYE)))
    torch.testing.assert_close(found, expected)
