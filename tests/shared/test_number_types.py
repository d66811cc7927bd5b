"""Numbers of every type: what takes them gives what float64 gives, or an error that says what to do."""

import inspect
import math

import numpy as np
import pytest
import torch

from course_lib import autoregressive as ar
from course_lib import (
    data,
    diffusion,
    distributions,
    divergences,
    evaluation,
    flow,
    flow_matching,
    gan,
    mmd,
    plotting,
    vae,
)
from course_lib.autoregressive import masks
from course_lib.distributions import Bernoulli, Gaussian
from course_lib.experiments.groups import GroupedDiscriminator, GroupedGenerator
from course_lib.families import FAMILIES
from course_lib.flow import checks
from course_lib.gan import dirac
from course_lib.precision import at_least_float32
from course_lib.schedules import Cosine, LinearPath
from tests.autoregressive import properties

HALF = (torch.bfloat16, torch.float16)
FLOATING = (*HALF, torch.float32, torch.float64)
INTEGERS = (
    torch.uint8,
    torch.int8,
    torch.int16,
    torch.int32,
    torch.int64,
    torch.uint16,
    torch.uint32,
    torch.uint64,
)


def source(seed=1):
    return torch.Generator().manual_seed(seed)


def exact(*values):
    """Numbers that every type holds, integers and half precision too."""
    return torch.tensor(values, dtype=torch.float64)


SAMPLE, OTHER = exact(3, 1, 4, 1, 5, 9, 2, 6), exact(2, 7, 1, 8, 2, 8)
ROWS = exact(3, 1, 4, 1, 5, 9, 2, 6, 5, 3, 5, 8).view(6, 2)
OTHERS = exact(2, 7, 1, 8, 2, 8, 1, 8, 2, 8, 4, 5).view(6, 2)
COV = exact(4, 1, 1, 3).view(2, 2)
DISTRIBUTION, ANOTHER = exact(0, 1), exact(1, 0)
SHAPE = (2,)


def linear(x):
    return x.flatten(1).sum(1)


# Functions of tensors: a call, and the tensors that take every type in turn.
FUNCTIONS = {
    "kl_univariate_gaussian": (
        divergences.kl_univariate_gaussian,
        SAMPLE,
        SAMPLE,
        SAMPLE,
        SAMPLE + 1,
    ),
    "kl_gaussian": (divergences.kl_gaussian, ROWS[0], COV, ROWS[1], 2 * COV),
    "kl_standard_normal": (divergences.kl_standard_normal, 10 * ROWS, ROWS),
    "kl_discrete": (divergences.kl_discrete, DISTRIBUTION, DISTRIBUTION),
    "js_discrete": (divergences.js_discrete, DISTRIBUTION, ANOTHER),
    "histogram_kl": (lambda x, y: divergences.histogram_kl(x, y, 5), SAMPLE, OTHER),
    "wasserstein_1d": (divergences.wasserstein_1d, SAMPLE, OTHER),
    "estimate": (lambda x: torch.tensor(evaluation.estimate(x).standard_error), SAMPLE),
    "bits_per_dim": (lambda x: evaluation.bits_per_dim(x, (3,)), SAMPLE),
    "nearest_neighbours": (lambda x, y: evaluation.nearest_neighbours(x, y)[0], ROWS, OTHERS),
    "frechet_gaussian": (evaluation.frechet_gaussian, ROWS[0], COV, ROWS[1], 2 * COV),
    "frechet_distance": (evaluation.frechet_distance, ROWS, OTHERS),
    "kernel_distance": (evaluation.kernel_distance, ROWS, OTHERS),
    "precision_recall": (
        lambda x, y: torch.tensor(evaluation.precision_recall(x, y, k=np.int64(2)).density),
        ROWS,
        OTHERS,
    ),
    "modes_covered": (lambda x, y: evaluation.modes_covered(x, y, 1.0).shares, ROWS, OTHERS),
    "gaussian_kernel": (mmd.gaussian_kernel, ROWS / 4, OTHERS / 4),
    "imq_kernel": (mmd.imq_kernel, ROWS, OTHERS),
    "mmd": (mmd.mmd, ROWS, OTHERS),
    "cubic_kernel": (mmd.cubic_kernel, ROWS, OTHERS),
    "kl_decomposition": (
        lambda *a: torch.stack(vae.kl_decomposition(*a)),
        ROWS,
        ROWS / 4,
        ROWS + 1,
    ),
    "log_mean_exp": (vae.log_mean_exp, 40 * ROWS),
    "interpolate": (lambda a, b: vae.interpolate(a, b, np.int64(5)), ROWS[0], ROWS[1]),
    "interpolate, on a circle": (
        lambda a, b: vae.interpolate(a, b, 5, spherical=True),
        ROWS[0],
        ROWS[1],
    ),
    "traversal": (lambda z, v: vae.traversal(z, np.int64(1), v), ROWS[0], SAMPLE),
    "reparameterize": (vae.reparameterize, ROWS, ROWS / 4, OTHERS),
    "optimal_discriminator": (gan.optimal_discriminator, SAMPLE, SAMPLE + 1),
    "jensen_shannon": (
        lambda x: gan.jensen_shannon(lambda t: -t, lambda t: -t / 2, x),
        exact(0, 1, 2, 3, 4),
    ),
    "game_value": (
        lambda x: gan.game_value(lambda t: t / 2, lambda t: -t, lambda t: -t / 2, x),
        exact(0, 1, 2),
    ),
    "discriminator_loss": (gan.discriminator_loss, SAMPLE, OTHER),
    "critic_loss": (gan.critic_loss, SAMPLE, OTHER),
    "hinge_loss": (gan.hinge_loss, SAMPLE, OTHER),
    "relativistic_loss": (gan.relativistic_loss, SAMPLE, SAMPLE.flip(0)),
    "relativistic_generator_loss": (gan.relativistic_generator_loss, SAMPLE, SAMPLE.flip(0)),
    **{
        name: (getattr(gan, name), 31 * SAMPLE)
        for name in ("minimax_loss", "non_saturating_loss", "wasserstein_loss")
    },
    "gradient_penalty": (
        lambda x, y: gan.gradient_penalty(linear, x, y, generator=source()),
        ROWS,
        OTHERS,
    ),
    "r1_penalty": (lambda x: gan.r1_penalty(lambda t: linear(t**2), x), ROWS),
    "roth_penalty": (lambda x, y: gan.roth_penalty(lambda t: linear(t / 8), x, y), ROWS, OTHERS),
    "normal_log_prob": (distributions.normal_log_prob, 9 * ROWS),
    "standard_normal_log_prob": (distributions.standard_normal_log_prob, 9 * ROWS),
    "discrete_log_prob": (lambda x: flow.discrete_log_prob(x, SHAPE, np.int64(4)), SAMPLE),
    "density_bits_per_dim": (lambda x: flow.density_bits_per_dim(x, SHAPE, np.int64(4)), SAMPLE),
    "to_levels": (
        lambda y: flow.DequantizedFlow(flow.NICE(SHAPE), 4).to_levels(y),
        exact(0.25, 0.5, 0.75),
    ),
    "binarize": (lambda x: data.binarize(x, generator=source()), exact(0, 1, 1)),
    "guided": (lambda a, b: diffusion.guided(a, b, 2.0), ROWS, OTHERS),
    "gaussian_optimal_map": (flow_matching.gaussian_optimal_map, COV, 2 * COV),
}


def half_of(z, _):
    """A denoiser, or a velocity."""
    return z / 2


def two_levels(a, b):
    """A level with less noise, and one with more."""
    return diffusion.Level(a, b), diffusion.Level(b, a)


LINEAR = LinearPath()
NOISY = exact(3, 1, -2, 1, 0.5, -1).view(3, 2)
CLEAN = exact(1, 0.5, -0.5, 1, 0.25, -1).view(3, 2)
ALPHA, SIGMA, TIMES = exact(0.75, 0.5, 0.25), exact(0.5, 0.75, 1), exact(0.5, 0.25, 0.75)
MOST, MIDDLE, LEAST = exact(0.75, 0.75, 0.75), exact(0.5, 0.5, 0.5), exact(0.25, 0.25, 0.25)
# Functions that refuse half precision: a signal-to-noise ratio, or a time, is too coarse in it.
OF_NOISE_LEVELS = {
    "clip_clean": (lambda *a: torch.stack(diffusion.clip_clean(*a)), CLEAN, NOISY, ALPHA, SIGMA),
    "from_clean": (lambda *a: diffusion.from_clean("noise", *a), CLEAN, NOISY, ALPHA, SIGMA),
    "to_clean": (lambda *a: diffusion.to_clean("noise", *a), CLEAN, NOISY, ALPHA, SIGMA),
    "noising_marginal": (
        lambda b: torch.stack(diffusion.noising_marginal(b)),
        exact(0.25, 0.5, 0.125),
    ),
    "posterior": (
        lambda z, x, a, b: torch.cat(
            [v.flatten() for v in diffusion.posterior(z, x, *two_levels(a, b))]
        ),
        NOISY,
        CLEAN,
        MOST,
        MIDDLE,
    ),
    "reverse_variances": (
        lambda a, b: torch.stack(diffusion.reverse_variances(*two_levels(a, b))),
        exact(0.75),
        exact(0.5),
    ),
    "step_variance": (
        lambda a, b: diffusion.step_variance(*two_levels(a, b)),
        exact(0.75),
        exact(0.5),
    ),
    "step_kl": (
        lambda x, p, a, b: diffusion.step_kl(x, p, *two_levels(a, b)),
        CLEAN,
        NOISY,
        MOST,
        MIDDLE,
    ),
    "replacement_moments": (
        lambda c: torch.stack(diffusion.replacement_moments(c)),
        exact(0.5, -0.25),
    ),
    "langevin": (
        lambda x: diffusion.langevin(lambda y: -y, x, 0.125, 3, generator=source()),
        NOISY,
    ),
    "ddim": (lambda z, t: diffusion.ddim(half_of, Cosine(), z, t), NOISY, exact(0.75, 0.5, 0.25)),
    "heun": (lambda z, t: diffusion.heun(half_of, Cosine(), z, t), NOISY, exact(0.75, 0.5, 0.25)),
    "ancestral": (
        lambda z, t: diffusion.ancestral(half_of, Cosine(), z, t, generator=source()),
        NOISY,
        exact(0.75, 0.5, 0.25),
    ),
    "inpaint": (
        lambda z, t: diffusion.inpaint(
            half_of,
            Cosine(),
            z,
            t,
            CLEAN.to(z.dtype),
            torch.tensor([True, False]).expand(3, 2),
            generator=source(),
        ),
        NOISY,
        exact(0.75, 0.5, 0.25),
    ),
    "alpha_from_ddim": (lambda a: torch.stack(flow_matching.alpha_from_ddim(a)), TIMES),
    "conditional_velocity": (
        lambda x, n, t: flow_matching.conditional_velocity(LINEAR, x, n, t),
        CLEAN,
        NOISY,
        TIMES,
    ),
    "consistency_weights": (
        lambda s: torch.stack(flow_matching.consistency_weights(s, 0.125)),
        exact(0.5, 1, 2),
    ),
    "edm_sigma": (lambda t: flow_matching.edm_sigma(LINEAR, t), TIMES),
    "time_of_edm_sigma": (lambda t: flow_matching.time_of_edm_sigma(LINEAR, t), exact(0.5, 1, 2)),
    "ends_from_velocity": (
        lambda v, z, t: torch.stack(flow_matching.ends_from_velocity(LINEAR, v, z, t)),
        CLEAN,
        NOISY,
        TIMES,
    ),
    "gaussian_average_velocity": (
        flow_matching.gaussian_average_velocity,
        NOISY,
        LEAST,
        MIDDLE,
        exact(1, 2),
        exact(2, 4),
    ),
    "gaussian_flow_map": (
        lambda *a: flow_matching.gaussian_flow_map(LINEAR, *a),
        NOISY,
        MIDDLE,
        LEAST,
        exact(1, 2),
        exact(2, 4),
    ),
    "gaussian_velocity": (
        lambda *a: flow_matching.gaussian_velocity(LINEAR, *a),
        NOISY,
        TIMES,
        exact(1, 2),
        exact(2, 4),
    ),
    "gaussian_loss_floor": (flow_matching.gaussian_loss_floor, exact(1, 4, 9)),
    "gaussian_pair_velocity": (
        flow_matching.gaussian_pair_velocity,
        NOISY,
        exact(0.5)[0],
        COV,
        2 * COV,
    ),
    "log_snr_from_ratio": (flow_matching.log_snr_from_ratio, exact(1, 2, 4)),
    "logit_normal_times": (flow_matching.logit_normal_times, TIMES),
    "noise_loss_weight": (lambda t: flow_matching.noise_loss_weight(LINEAR, t), TIMES),
    "optimal_pairing": (flow_matching.optimal_pairing, NOISY, CLEAN),
    "paired": (flow_matching.paired, NOISY, CLEAN),
    "transport_cost": (flow_matching.transport_cost, NOISY, CLEAN),
    "level_ends": (
        lambda *a: torch.stack(flow_matching.level_ends(*a)),
        exact(1, 2, 0, 1, 3, 1, 2, 2, 0, 1, 0, 1).view(2, 2, 3),
        NOISY[:2],
        exact(0.75, 0.5),
        exact(0.5, 0.75),
    ),
    "score_from_velocity": (
        lambda *a: flow_matching.score_from_velocity(LINEAR, *a),
        CLEAN,
        NOISY,
        TIMES,
    ),
    "velocity_from_score": (
        lambda *a: flow_matching.velocity_from_score(LINEAR, *a),
        CLEAN,
        NOISY,
        TIMES,
    ),
    "mean_flow_target": (
        lambda x, v, r, t: flow_matching.mean_flow_target(
            lambda x, r, t: x * (t - r)[:, None], x, v, r, t
        )[0],
        NOISY,
        CLEAN,
        LEAST,
        MIDDLE,
    ),
    "on_another_path": (
        lambda z, t: flow_matching.on_another_path(half_of, LINEAR, Cosine())(z, t),
        NOISY,
        MIDDLE,
    ),
}
FUNCTIONS |= OF_NOISE_LEVELS
# What takes no number of a type that matters, or is tried below.
ELSEWHERE = {
    "dequantize", "intensities", "load", "mnist", "digits", "data_folder", "fill_intervals",
    "elbo", "elbo_terms", "importance_log_weights", "iwae_bound", "log_likelihood",
    "log_likelihood_with_error", "prior_log_likelihood", "quadrature_log_likelihood",
    "discretized_logistic_log_mass", "default_output", "latent_grid",
    "pathwise_gradient", "score_function_gradient", "players", "weight_clipping",
    "wae_objective", "negative_dequantization_bound", "one_ordering_loss", "receptive_field_map",
    "alternating_mask", "channel_mask",
    "checkerboard_mask", "half_mask", "glow_step",
    "linear_betas", "langevin_variance", "guidance_scale", "guidance_weight",
    "flow_velocity", "reversed_time", "consistency_function", "reflow_pairs",
    "any_order_loss", "perplexity", "nearest_code", "straight_through",
}  # fmt: skip


def test_every_public_function_is_tried():
    public = {
        name
        for module in (family.package for family in FAMILIES.values())
        for name in module.__all__
        if inspect.isfunction(getattr(module, name))
    }
    for module in (data, distributions, divergences, evaluation, mmd):
        public |= {
            name
            for name, value in vars(module).items()
            if inspect.isfunction(value) and value.__module__ == module.__name__ and name[0] != "_"
        }
    assert public <= {name.split(",")[0] for name in FUNCTIONS} | ELSEWHERE, public


def attempt(call, arguments):
    """The result, or the error instead of it."""
    try:
        return call(*arguments), None
    except Exception as error:
        return None, error


def says_what_to_do(error):
    return isinstance(error, TypeError | ValueError) and "expected" in str(error)


@pytest.mark.parametrize("dtype", [*FLOATING, *INTEGERS, torch.bool], ids=str)
@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions_take_numbers_of_any_type_or_say_what_they_take(name, dtype):
    call, *given = FUNCTIONS[name]
    converted = [x.to(dtype) for x in given]
    result, error = attempt(call, converted)
    if error is not None:
        assert says_what_to_do(error), repr(error)
        half_is_refused = dtype in HALF and name in OF_NOISE_LEVELS
        assert half_is_refused or not dtype.is_floating_point, f"{dtype} is refused: {error}"
        return
    expected = call(*(x.double() for x in converted))
    error = (result.double() - expected.double()).abs().max().item()
    scale = max(1.0, expected.double().abs().max().item())
    # Paths and samples come back in the type of what is given; all that is summed, in float32.
    coarse = result.dtype in HALF
    assert not coarse or name.split(",")[0] in (
        "interpolate",
        "traversal",
        "reparameterize",
        "binarize",
        "guided",
    )
    assert error <= scale * (torch.finfo(result.dtype).eps if coarse else 1e-5)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_what_is_no_tensor_is_named(name):
    call, *given = FUNCTIONS[name]
    _, error = attempt(call, [x.numpy() for x in given])
    assert error is None or says_what_to_do(error), repr(error)


# Integers for tensors of levels. ------------------------------------------------------------------


@pytest.mark.parametrize("dtype", INTEGERS, ids=str)
def test_levels_of_every_integer_type(dtype):
    x = torch.tensor([[0, 3, 7, 1], [5, 2, 6, 4]])
    levels = x.max() + 1  # a tensor, as a student takes it from the data
    assert torch.equal(data.intensities(x.to(dtype), levels), data.intensities(x, 8))
    y = data.dequantize(x.to(dtype), levels, generator=source())
    assert torch.equal(y, data.dequantize(x, 8, generator=source()))
    for distribution in (
        distributions.Categorical(8),
        distributions.DiscretizedLogisticMixture(8, 2),
    ):
        torch.manual_seed(0)
        model = ar.PixelCNN((1, 2, 2), levels, channels=4, n_layers=1, distribution=distribution)
        images = x.view(2, 1, 2, 2)
        assert torch.equal(model.log_prob(images.to(dtype)), model.log_prob(images))
        known = torch.tensor([[[True, False], [True, False]]])
        filled = [
            model.complete(images.to(t), known, generator=source()) for t in (dtype, torch.int64)
        ]
        assert torch.equal(*filled)
    for noise in (None, flow.VariationalDequantizer((4,), hidden=(3,))):
        model = flow.DequantizedFlow(flow.NICE((4,), hidden=(3,)), levels, noise)
        a, b = (model.log_weight(v, source()) for v in (x.to(dtype), x))
        assert torch.equal(a, b)
    labels = torch.tensor([2, 0])
    model = ar.GatedPixelCNN((1, 2, 2), 8, channels=4, n_layers=1, n_classes=3)
    a, b = (model.log_prob(x.view(2, 1, 2, 2), t) for t in (labels.to(dtype), labels))
    assert torch.equal(a, b)
    generator = gan.Generator((4,), 2, (3,), n_classes=np.int64(3)).eval()
    a, b = (generator.sample(2, labels=t, generator=source()) for t in (labels.to(dtype), labels))
    assert torch.equal(a, b)


@pytest.mark.parametrize("dtype", INTEGERS, ids=str)
def test_levels_out_of_range_are_named_in_every_type(dtype):
    for call in (data.intensities, data.dequantize):
        with pytest.raises(ValueError, match="x has levels 1 … 9; 0 … 7 are expected"):
            call(torch.tensor([1, 9]).to(dtype), 8)


def test_truth_values_are_no_levels():
    with pytest.raises(TypeError, match=r"torch\.bool; .* Call \.to\(torch\.uint8\)"):
        data.intensities(torch.tensor([True]), 2)


def test_as_many_levels_as_a_type_holds():
    x = torch.tensor([0, 1, 40_000, 65_535]).to(torch.uint16)
    for dtype in FLOATING:
        grey = data.intensities(x, 65_536, dtype=dtype)
        assert grey.dtype == dtype
        error = (grey.double() - x.double() / 65_535).abs().max()
        assert error <= torch.finfo(dtype).eps / 2
    for dtype in (torch.int64, np.float32, "float32"):
        with pytest.raises(TypeError, match=r"dtype is .*; a floating-point type .* is expected"):
            data.intensities(x, 65_536, dtype=dtype)


@pytest.mark.parametrize("dtype", FLOATING, ids=str)
@pytest.mark.parametrize("levels", [2, 17, 255, 256])
def test_dequantized_levels_stay_in_their_intervals(dtype, levels):
    x = torch.arange(levels).repeat(50)
    y = data.dequantize(x, levels, generator=source(), dtype=dtype)
    assert y.dtype == dtype
    wide = y.double() * levels
    slack = levels * torch.finfo(torch.float32).eps
    assert (wide >= x - slack).all()
    assert (wide < x + 1).all()
    flat = flow.DequantizedFlow(flow.NICE((1,), layers=0), levels)
    assert torch.equal(flat.to_levels(y), x)


def test_a_type_too_coarse_for_the_levels_is_named():
    with pytest.raises(ValueError, match=r"bfloat16.*1024 grey levels.*at most 256.*float32"):
        data.dequantize(torch.tensor([3]), 1024, dtype=torch.bfloat16)


# Integers of other libraries. ---------------------------------------------------------------------

SIZES = {
    "VAE": lambda i: vae.VAE((i(1), i(4), i(4)), i(2), hidden=(i(5),)).sample(i(3)),
    "VAE of images": lambda i: vae.VAE((1, 4, 4), 2, channels=i(2)).sample(i(3)),
    "VQVAE": lambda i: vae.VQVAE(
        (1, i(4), i(4)), i(3), code_dim=i(2), channels=i(3), halvings=i(1)
    ).sample(i(2)),
    "WAE": lambda i: vae.WAE((i(4),), i(2), hidden=[i(3)]).sample(i(2)),
    "iwae_bound": lambda i: vae.iwae_bound(vae.VAE((4,), 2, hidden=(3,)), torch.rand(2, 4), i(3)),
    "log_likelihood": lambda i: vae.log_likelihood(vae.VAE((4,), 2), torch.ones(2, 4), i(3)),
    "quadrature": lambda i: vae.quadrature_log_likelihood(vae.VAE((4,), 1), torch.ones(2, 4), i(9)),
    "latent_grid": lambda i: vae.latent_grid(i(3)),
    "NegativeIWAEBound": lambda i: vae.NegativeIWAEBound(i(3)).k,
    "MADE": lambda i: ar.MADE((i(4),), i(3), hidden=(i(5),), n_orderings=i(2), seed=i(1)).sample(
        i(2)
    ),
    "NADE": lambda i: ar.NADE((i(4),), i(2), hidden=i(3)).sample(i(2)),
    "PixelCNN": lambda i: ar.PixelCNN(
        (1, 4, 4), i(3), channels=i(4), n_layers=i(2), kernel_size=i(3)
    ).sample(i(2)),
    "GatedPixelCNN": lambda i: ar.GatedPixelCNN(
        (1, 4, 4), 3, channels=i(4), n_layers=i(2), n_classes=i(3), kernel_size=i(3)
    ).sample(i(2), labels=torch.tensor([0, 1])),
    "RowLSTM": lambda i: ar.RowLSTM((1, 4, 4), 3, channels=i(4), n_layers=i(1)).sample(i(1)),
    "DiagonalBiLSTM": lambda i: ar.DiagonalBiLSTM((1, 4, 4), 3, channels=i(4), n_layers=i(1)),
    "Transformer": lambda i: ar.Transformer(
        (1, 4, 4),
        i(3),
        width=i(4),
        heads=i(2),
        n_layers=i(1),
        key_value_heads=i(1),
        kernel_size=i(3),
    ).sample_by_passes(i(2)),
    "WaveNet": lambda i: ar.WaveNet(
        (i(9),), i(3), channels=i(4), kernel_size=i(2), dilations=(i(1), i(2))
    ).sample(i(2)),
    "MaskedDiffusion": lambda i: ar.MaskedDiffusion(
        (1, i(4), i(4)), i(3), channels=i(4), n_blocks=i(1)
    ).sample(i(2), at_once=i(5)),
    "distributions": lambda i: (
        distributions.Categorical(i(4)),
        distributions.DiscretizedLogisticMixture(i(4), i(2)).n_parameters,
    ),
    "pixelcnn_mask": lambda i: masks.pixelcnn_mask("A", i(3)),
    "RealNVP": lambda i: flow.RealNVP((i(4),), layers=i(2), hidden=(i(3),)).sample(i(2)),
    "Glow": lambda i: flow.Glow((1, 4, 4), scales=i(1), steps=i(1), width=i(2)).sample(i(2)),
    "SplineFlow": lambda i: flow.SplineFlow((4,), layers=i(1), hidden=(3,), bins=i(4)).sample(i(2)),
    "MAF": lambda i: flow.MAF((i(4),), layers=i(1), hidden=(i(3),)).sample(i(2)),
    "TarFlow": lambda i: flow.TarFlow(
        (4,), layers=i(1), patch=i(2), width=i(4), heads=i(2), n_blocks=i(1)
    ).sample(i(2)),
    "Flow.interpolate": lambda i: flow.NICE((4,)).interpolate(
        torch.rand(1, 4), torch.rand(1, 4), i(3)
    ),
    "DequantizedFlow": lambda i: flow.DequantizedFlow(flow.NICE((4,)), i(3)).importance_bound(
        torch.ones(2, 4, dtype=torch.int64), i(2)
    ),
    "Generator": lambda i: gan.Generator((i(4),), i(2), (i(3),)).sample(i(2)),
    "ConvGenerator": lambda i: gan.ConvGenerator((1, 4, 4), i(2), i(3)).sample(i(2)),
    "Discriminator": lambda i: gan.Discriminator((i(4),), (i(3),), n_classes=i(2)),
    "ConvDiscriminator": lambda i: gan.ConvDiscriminator((1, 4, 4), i(2)),
    "groups": lambda i: (GroupedGenerator(i(2), i(1)).sample(i(3)), GroupedDiscriminator(i(2))),
    "players": lambda i: gan.players(discriminator_updates=i(2)),
    "histogram_kl": lambda i: divergences.histogram_kl(SAMPLE, OTHER, i(4)),
    "bits_per_dim": lambda i: evaluation.bits_per_dim(SAMPLE, (i(1), i(3))),
    "trajectory": lambda i: dirac.trajectory(dirac.minimax(), (1.0, 1.0), int(i(3)), 0.1),
    "image_grid": lambda i: plotting.image_grid(torch.rand(3, 1, 2, 2), columns=i(2)),
}


@pytest.mark.parametrize("name", SIZES)
def test_integers_of_any_library_are_integers(name):
    for kind in (np.int64, np.uint8, np.int32, torch.tensor, np.array):
        SIZES[name](kind)


@pytest.mark.parametrize(
    "value", [2.0, np.float64(2), np.True_, True, torch.tensor(2.0), "2", None]
)
def test_what_is_no_integer_is_named(value):
    calls = (
        lambda: vae.VAE((4,), value),
        lambda: ar.FVSBN((4,), value),
        lambda: flow.NICE((4,)).sample(value),
        lambda: divergences.histogram_kl(SAMPLE, OTHER, value),
        lambda: data.intensities(torch.tensor([1]), value),
        lambda: gan.Generator((value,)),
    )
    for call in calls:
        with pytest.raises(TypeError, match="integer"):
            call()


# Models. ------------------------------------------------------------------------------------------


def rounded(make, dtype):
    """A model in a coarse type, and the float64 model of the same numbers."""
    torch.manual_seed(0)
    model = make()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.2 * torch.randn_like(parameter)
    coarse = model.to(dtype).eval()
    fine = make().double().eval()
    fine.load_state_dict(coarse.state_dict())
    return coarse, fine


@pytest.mark.parametrize("dtype", HALF, ids=str)
@pytest.mark.parametrize("name", [*checks.MODELS, *checks.TRANSFORMS])
def test_flows_in_half_precision_map_in_float32(name, dtype):
    coarse, fine = rounded({**checks.MODELS, **checks.TRANSFORMS}[name], dtype)
    x = checks.probe(fine).to(dtype)
    z, log_det = coarse(x)
    assert z.dtype == log_det.dtype == torch.float32
    z_fine, log_det_fine = fine(x.double())
    # The same numbers give the same map: only the weights are rounded.
    assert (z - z_fine).abs().max() <= 1e-4 * (1 + z_fine.abs().max())
    assert (log_det - log_det_fine).abs().max() <= 1e-4 * (1 + log_det_fine.abs().max())
    back, log_det_back = coarse.inverse(z)
    assert (back - x.float()).abs().max() <= 1e-3
    assert (log_det + log_det_back).abs().max() <= 1e-3
    if isinstance(coarse, flow.Flow):
        samples = coarse.sample(5, generator=source())
        assert samples.dtype == torch.float32
        assert torch.isfinite(coarse.log_prob(samples)).all()
        coarse.initialize(x)
        coarse.interpolate(x[:2], x[2:4], 3)


@pytest.mark.parametrize("dtype", HALF, ids=str)
@pytest.mark.parametrize("name", properties.MODELS)
def test_autoregressive_models_in_half_precision_sum_in_float32(name, dtype):
    coarse, fine = rounded(lambda: properties.MODELS[name]((1, 4, 4), 5), dtype)
    x = torch.randint(5, (4, *fine.event_shape), generator=source())
    result, expected = coarse.log_prob(x), fine.log_prob(x)
    assert result.dtype == torch.float32
    assert (result - expected).abs().max() <= fine.n_dims * torch.finfo(dtype).eps
    for cached in (True, False):
        assert coarse.sample(2, generator=source(), cached=cached).dtype == torch.int64


@pytest.mark.parametrize("dtype", HALF, ids=str)
def test_a_running_sum_keeps_its_small_terms(dtype):
    coarse, fine = rounded(lambda: ar.NADE((1500,), 2, hidden=4), dtype)
    with torch.no_grad():
        for model in (coarse, fine):
            model.V.fill_(2**-9)
            model.c.fill_(0)
    x = torch.ones(2, 1500, dtype=torch.int64)
    parameters, expected = coarse(x), fine(x)
    assert (parameters - expected).abs().max() < 0.05


@pytest.mark.parametrize("dtype", HALF, ids=str)
@pytest.mark.parametrize("likelihood", [Bernoulli, lambda: Gaussian(0.1), Gaussian])
def test_likelihoods_of_a_vae_in_half_precision(likelihood, dtype):
    shape = (3, 32, 32)
    coarse, fine = rounded(lambda: vae.VAE(shape, 1, hidden=(16,), likelihood=likelihood()), dtype)
    x = torch.rand(3, *shape, generator=source()).round().to(dtype)
    expected = vae.quadrature_log_likelihood(fine, x.double(), 401)
    found = vae.quadrature_log_likelihood(coarse, x, 401)
    assert found.dtype == torch.float32
    # Relative to the sum, of thousands of nats, less than what its own type could tell apart.
    assert ((found - expected) / expected).abs().max() < torch.finfo(dtype).eps / 2
    assert found.unique().numel() == 3
    for estimate in (
        vae.log_likelihood(coarse, x, 50),
        vae.prior_log_likelihood(coarse, x, 50),
        vae.iwae_bound(coarse, x, 50),
        coarse.elbo(x, 20),
        *vae.elbo_terms(coarse, x),
        vae.importance_log_weights(coarse, x, 3),
        *vae.NegativeELBO(total_correlation=1.0)(coarse, x, torch.tensor(0.5)).values(),
    ):
        assert estimate.dtype == torch.float32
        assert torch.isfinite(estimate).all()
    assert coarse.sample(2).dtype == coarse(x).dtype == dtype


def test_a_vae_in_half_precision_tells_examples_apart_in_nats():
    """In bfloat16 itself all values would be multiples of 64."""
    torch.manual_seed(0)
    model = vae.VAE((3, 64, 64), 2, hidden=(8,)).bfloat16()
    x = torch.rand(20, 3, 64, 64, generator=source()).round().bfloat16()
    values = vae.log_likelihood(model, x, 5)
    assert values.unique().numel() == 20


@pytest.mark.parametrize("dtype", FLOATING, ids=str)
def test_latent_points_are_brought_to_the_model(dtype):
    grid = vae.latent_grid(3)
    model = vae.VAE((1, 4, 4), 2, hidden=(5,)).to(dtype)
    assert model.decode(grid).mean.shape == (9, 1, 4, 4)
    assert vae.WAE((1, 4, 4), 2, hidden=(5,)).to(dtype).reconstruct(grid).dtype == dtype
    weight = torch.tensor([[1.0, 0.5], [0.2, -1.0], [0.0, 0.3]], dtype=dtype)
    linear_model = vae.LinearGaussian(weight, torch.zeros(3, dtype=dtype), 0.5)
    assert linear_model.decode(grid).mean.shape == (9, 3)
    x = linear_model.sample(4)
    assert x.dtype == dtype
    exact_model = vae.LinearGaussian(weight.double(), torch.zeros(3).double(), 0.5)
    difference = linear_model.log_prob(x).double() - exact_model.log_prob(x.double())
    assert difference.abs().max() < 1e-4
    assert torch.isfinite(linear_model.encode(x).log_prob(torch.zeros(4, 2))).all()


@pytest.mark.parametrize("dtype", FLOATING, ids=str)
def test_adversarial_networks_of_every_type(dtype):
    x = torch.rand(4, 1, 8, 8, generator=source()).to(dtype)
    for generator, discriminator in (
        (gan.Generator((1, 8, 8), 3, (4,)), gan.Discriminator((1, 8, 8), (4,), spectral_norm=True)),
        (gan.ConvGenerator((1, 8, 8), 3, 2), gan.ConvDiscriminator((1, 8, 8), 2)),
    ):
        model = gan.GAN(generator, discriminator).to(dtype)
        assert model.sample(2).dtype == dtype
        for player in gan.players(penalty=lambda critic, real, fake: gan.r1_penalty(critic, real)):
            for term in player.loss(model, x, torch.tensor(0.0)).values():
                assert term.dtype == at_least_float32(x).dtype
    grouped = GroupedGenerator(2).to(dtype)
    assert grouped.sample(3).dtype == dtype


# Figures. -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", FLOATING, ids=str)
def test_densities_are_drawn_of_models_of_every_type(dtype):
    line, plane = flow.RealNVP((2,), hidden=(4,)).to(dtype), flow.NICE((2,), hidden=(4,)).to(dtype)
    plotting.density_2d(line.log_prob, n_points=np.int64(5))
    plotting.density_2d(lambda x: plane.log_prob(x), n_points=5)
    narrow = flow.ElementwiseAffine((1,)).to(dtype)
    one = flow.Flow(narrow)
    ax = plotting.density_1d(lambda x: one.log_prob(x.unsqueeze(1)), -2, 2, n_points=5)
    assert ax.lines[0].get_ydata()[2] == pytest.approx(1 / math.sqrt(2 * math.pi), rel=1e-6)
    plotting.plt.close("all")


def test_what_a_density_raises_is_raised():
    with pytest.raises(ValueError, match="3"), torch.no_grad():
        plotting.density_2d(flow.NICE((3,)).log_prob)
    with pytest.raises(TypeError, match="argument"):
        plotting.density_1d(lambda: 0, 0, 1)
    plotting.plt.close("all")


@pytest.mark.parametrize("dtype", [*FLOATING, torch.bool], ids=str)
def test_images_of_every_type_are_drawn(dtype):
    images = torch.tensor([0.0, 1.0]).view(2, 1, 1, 1).to(dtype)
    canvas = plotting.image_grid(images, columns=2).images[0].get_array()
    assert canvas[1].tolist() == [0.5, 0.0, 0.5, 1.0, 0.5]
    plotting.plt.close("all")


@pytest.mark.parametrize("dtype", INTEGERS, ids=str)
def test_grey_levels_are_not_drawn_as_white(dtype):
    with pytest.raises(TypeError, match=r"images has dtype .*course_lib\.data\.intensities"):
        plotting.image_grid(torch.tensor([0, 16]).view(2, 1, 1, 1).to(dtype))
