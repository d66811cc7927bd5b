"""Right arguments of everything public, and what may be passed in their place."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from course_lib import (
    autoregressive,
    classifier,
    data,
    diffusion,
    distributions,
    divergences,
    evaluation,
    flow,
    flow_matching,
    gan,
    interpolation,
    mmd,
    networks,
    plotting,
    schedules,
    solvers,
    training,
    vae,
)

SHAPE = (1, 4, 4)
X = torch.rand(3, *SHAPE)
VECTORS = torch.randn(6, 2)
LEVELS = torch.randint(0, 5, (3, *SHAPE))
KNOWN = torch.rand(SHAPE) < 0.5
LABELS = torch.tensor([0, 1, 2])
GENERATOR = torch.Generator()
MASK = flow.alternating_mask((4,))
DONE = torch.ones(())  # the share of training that is over, which losses are told


@dataclass
class Case:
    """Something public, and its right arguments.

    Attributes:
        call: what is public.
        arguments: right ones.
        free: arguments of which any value will do.
        inner: how a message may call an argument where what it is passed on to refuses it.
        overflows: whether squares of huge numbers are computed, which no float32 holds.
    """

    call: Callable
    arguments: dict[str, object]
    free: tuple[str, ...] = ()
    inner: str | None = None
    overflows: bool = False


def _cases() -> Iterator[tuple[str, Case]]:
    yield from _vae()
    yield from _autoregressive()
    yield from _flow()
    yield from _gan()
    yield from _diffusion()
    yield from _flow_matching()
    yield from _distributions()
    yield from _shared()


def _vae() -> Iterator[tuple[str, Case]]:
    model = vae.VAE(SHAPE, 2, hidden=(4,))
    given = {"event_shape": SHAPE, "latent_dim": 2, "hidden": (4,), "dropout": 0.1}
    yield "vae.VAE", Case(vae.VAE, given | {"likelihood": distributions.Bernoulli()})
    yield (
        "vae.VAE (convolutional)",
        Case(vae.VAE, {"event_shape": SHAPE, "latent_dim": 2, "channels": 2}),
    )
    yield "vae.WAE", Case(vae.WAE, given | {"penalty": 1.0})
    yield "vae.Autoencoder", Case(vae.Autoencoder, given)
    moments = {"mu": VECTORS, "logvar": VECTORS}
    yield "vae.DiagonalGaussian", Case(vae.DiagonalGaussian, moments)
    yield (
        "vae.NegativeELBO",
        Case(
            vae.NegativeELBO,
            {"beta": 1.0, "warm_up": 0.5, "free_nats": 0.1, "total_correlation": 1.0},
        ),
    )
    yield "vae.NegativeIWAEBound", Case(vae.NegativeIWAEBound, {"k": 3})
    linear = {"weight": torch.randn(3, 2), "bias": torch.randn(3), "sigma": 0.5}
    yield "vae.LinearGaussian", Case(vae.LinearGaussian, linear | {"posterior_scale": 1.0})
    solved = vae.LinearGaussian(**linear)
    for method in ("posterior", "encode", "log_prob"):
        yield (
            f"vae.LinearGaussian.{method}",
            Case(getattr(solved, method), {"x": torch.randn(4, 3)}),
        )
    yield "vae.LinearGaussian.decode", Case(solved.decode, {"z": VECTORS})
    yield "vae.LinearGaussian.sample", Case(solved.sample, {"n": 3, "generator": GENERATOR})
    for name, more in {
        "elbo": {"n_samples": 2},
        "elbo_terms": {"n_samples": 2},
        "importance_log_weights": {"n_samples": 2},
        "iwae_bound": {"k": 2},
        "log_likelihood": {"k": 3},
        "log_likelihood_with_error": {"k": 3},
        "prior_log_likelihood": {"k": 3},
        "quadrature_log_likelihood": {"n_points": 5, "limit": 3.0},
    }.items():
        # Estimates of log p(x) take zeros and ones only, with a Bernoulli decoder.
        x = X.round() if "likelihood" in name else X
        yield f"vae.{name}", Case(getattr(vae, name), {"model": model, "x": x} | more)
    for kind in (model, vae.WAE(SHAPE, 2, hidden=(4,)), vae.Autoencoder(SHAPE, 2)):
        name = f"vae.{type(kind).__name__}"
        yield f"{name}.forward", Case(kind, {"x": X})
        if kind is not model:
            yield f"{name}.code", Case(kind.code, {"x": X})
            yield f"{name}.reconstruct", Case(kind.reconstruct, {"z": VECTORS})
            yield f"{name}.squared_error", Case(kind.squared_error, {"x": X})
    yield (
        "vae.wae_objective",
        Case(
            lambda x: vae.wae_objective(vae.WAE(SHAPE, 2), x, DONE),
            {"x": X},
        ),
    )
    yield "vae.VAE.encode", Case(model.encode, {"x": X})
    yield "vae.VAE.decode", Case(model.decode, {"z": VECTORS})
    yield "vae.VAE.elbo", Case(model.elbo, {"x": X, "n_samples": 2})
    for kind in (model, vae.WAE(SHAPE, 2, hidden=(4,))):
        yield (
            f"vae.{type(kind).__name__}.sample",
            Case(kind.sample, {"n": 3, "generator": GENERATOR}),
        )
    yield (
        "vae.kl_decomposition",
        Case(vae.kl_decomposition, moments | {"z": VECTORS}, overflows=True),
    )
    ends = {"start": torch.randn(3), "end": torch.randn(3), "n": 4}
    yield "vae.interpolate", Case(vae.interpolate, ends)
    yield (
        "vae.interpolate (spherical)",
        Case(lambda **ends: vae.interpolate(**ends, spherical=True), ends),
    )
    yield "interpolation.straight_path", Case(interpolation.straight_path, ends)
    yield "interpolation.spherical_path", Case(interpolation.spherical_path, ends)
    yield from _vq()
    yield "vae.latent_grid", Case(vae.latent_grid, {"n": 3})
    yield (
        "vae.traversal",
        Case(vae.traversal, {"z": torch.randn(3), "dim": 1, "values": torch.randn(4)}),
    )
    yield "vae.log_mean_exp", Case(vae.log_mean_exp, {"log_weights": VECTORS, "dim": 1})
    yield "vae.reparameterize", Case(vae.reparameterize, moments | {"noise": VECTORS})
    gradient = {
        "f": lambda z: z.square().sum(1),
        "mu": torch.randn(2),
        "logvar": torch.randn(2),
        "n_samples": 3,
    }
    yield "vae.pathwise_gradient", Case(vae.pathwise_gradient, gradient)
    yield (
        "vae.score_function_gradient",
        Case(vae.score_function_gradient, gradient | {"baseline": 0.5}, overflows=True),
    )


def _vq() -> Iterator[tuple[str, Case]]:
    sizes = {"n_codes": 5, "code_dim": 2, "channels": 3, "halvings": 1}
    given = {"event_shape": (1, 4, 4), "likelihood": distributions.Categorical(3)}
    yield "vae.VQVAE", Case(vae.VQVAE, given | sizes)
    model = vae.VQVAE((1, 4, 4), 5, channels=3)
    x, codes = torch.rand(3, 1, 4, 4), torch.randint(5, (3, 2, 2))
    for method in ("forward", "vectors", "codes"):
        yield f"vae.VQVAE.{method}", Case(getattr(model, method), {"x": x})
    yield "vae.VQVAE.elbo", Case(model.elbo, {"x": x, "n_samples": 2})
    yield "vae.VQVAE.decode", Case(model.decode, {"codes": codes})
    yield "vae.VQVAE.sample", Case(model.sample, {"n": 3, "generator": GENERATOR})
    yield "vae.VQVAE.restart_unused", Case(model.restart_unused, {"x": x, "generator": GENERATOR})
    yield "vae.VQObjective", Case(vae.VQObjective, {"commitment": 0.5})
    yield (
        "vae.VQObjective.__call__",
        Case(lambda x: vae.VQObjective()(model, x, DONE), {"x": x}, overflows=True),
    )
    pair = {"z": torch.randn(4, 2), "codebook": torch.randn(3, 2)}
    yield "vae.nearest_code", Case(vae.nearest_code, pair, overflows=True)
    pair = {"z": torch.randn(4, 2), "quantized": torch.randn(4, 2)}
    yield "vae.straight_through", Case(vae.straight_through, pair, overflows=True)
    yield "vae.perplexity", Case(vae.perplexity, {"codes": codes, "n_codes": 5})


def _autoregressive() -> Iterator[tuple[str, Case]]:
    given = {"event_shape": SHAPE, "levels": 5}
    distribution = distributions.Categorical(5)
    small = {"channels": 2, "n_layers": 2, "kernel_size": 3, "dropout": 0.1}
    for name, more in {
        "FVSBN": {},
        "NADE": {"hidden": 4},
        "MADE": {"hidden": (4,), "n_orderings": 2, "dropout": 0.1, "seed": 1},
        "PixelCNN": small,
        "GatedPixelCNN": small | {"n_classes": 3},
        "RowLSTM": small,
        "Transformer": {
            "width": 4,
            "heads": 2,
            "n_layers": 1,
            "key_value_heads": 1,
            "kernel_size": 3,
            "dropout": 0.1,
            "n_classes": 3,
        },
        "DiagonalBiLSTM": small,
        "WaveNet": {
            "event_shape": (5,),
            "channels": 2,
            "dilations": (1, 2),
            "kernel_size": 2,
            "dropout": 0.1,
        },
    }.items():
        kind, arguments = getattr(autoregressive, name), given | more
        yield f"autoregressive.{name}", Case(kind, arguments | {"distribution": distribution})
        model = kind(**arguments)
        x = torch.randint(0, 5, (3, *model.event_shape))
        labels = {"labels": LABELS} if model.n_classes else {}
        yield f"autoregressive.{name}.log_prob", Case(model.log_prob, {"x": x} | labels)
        yield (
            f"autoregressive.{name}.sample",
            Case(model.sample, {"n": 3, "generator": GENERATOR} | labels),
        )
        yield (
            f"autoregressive.{name}.sample_by_passes",
            Case(model.sample_by_passes, {"n": 3, "generator": GENERATOR} | labels),
        )
        known = torch.rand(model.event_shape) < 0.5
        yield (
            f"autoregressive.{name}.complete",
            Case(model.complete, {"x": x, "known": known, "generator": GENERATOR} | labels),
        )
    yield (
        "autoregressive.Autoregressive",
        Case(autoregressive.Autoregressive, given | {"distribution": distribution, "n_classes": 3}),
    )
    sizes = {"channels": 2, "n_blocks": 1, "dropout": 0.1, "distribution": distribution}
    yield "autoregressive.MaskedDiffusion", Case(autoregressive.MaskedDiffusion, given | sizes)
    yield (
        "autoregressive.MaskedDiffusion of vectors",
        Case(autoregressive.MaskedDiffusion, {"event_shape": (4,), "levels": 5, "hidden": (4, 4)}),
    )
    any_order = autoregressive.MaskedDiffusion(SHAPE, 5, hidden=(4,))
    order = torch.randperm(any_order.n_dims)
    drawn = {"generator": GENERATOR, "order": order, "at_once": 3}
    yield (
        "autoregressive.MaskedDiffusion.log_prob",
        Case(any_order.log_prob, {"x": LEVELS, "order": order}),
    )
    yield (
        "autoregressive.MaskedDiffusion.elbo",
        Case(any_order.elbo, {"x": LEVELS, "n_samples": 2, "generator": GENERATOR}),
    )
    yield "autoregressive.MaskedDiffusion.sample", Case(any_order.sample, {"n": 3} | drawn)
    known = torch.rand(SHAPE) < 0.5
    yield (
        "autoregressive.MaskedDiffusion.complete",
        Case(any_order.complete, {"x": LEVELS, "known": known} | drawn),
    )
    yield (
        "autoregressive.any_order_loss",
        Case(lambda x: autoregressive.any_order_loss(any_order, x, DONE), {"x": LEVELS}),
    )
    made = autoregressive.MADE(SHAPE, 5, hidden=(4,))
    yield (
        "autoregressive.one_ordering_loss",
        Case(lambda x: autoregressive.one_ordering_loss(made, x, DONE), {"x": LEVELS}),
    )
    yield (
        "training.negative_log_likelihood",
        Case(lambda x: training.negative_log_likelihood(made, x, DONE), {"x": LEVELS}),
    )
    yield (
        "autoregressive.receptive_field_map",
        Case(
            autoregressive.receptive_field_map,
            {
                "model": autoregressive.PixelCNN(SHAPE, 2, channels=2, n_layers=1),
                "at": (0, 1, 1),
                "n_points": 2,
                "seed": 0,
            },
        ),
    )


def _flow() -> Iterator[tuple[str, Case]]:
    dense = {"layers": 2, "hidden": (4,), "dropout": 0.1}
    image = {
        "event_shape": (2, 4, 4),
        "scales": 2,
        "width": 2,
        "dropout": 0.1,
        "logit_margin": 0.05,
    }
    for name, arguments in {
        "NICE": {"event_shape": (4,)} | dense | {"logit_margin": 0.05},
        "RealNVP": {"event_shape": (4,)} | dense | {"logit_margin": 0.05, "bound": 2.0},
        "MAF": {"event_shape": (4,)} | dense | {"logit_margin": 0.05, "bound": 2.0},
        "IAF": {"event_shape": (4,)} | dense | {"logit_margin": 0.05, "bound": 2.0},
        "TarFlow": {
            "event_shape": (4,),
            "layers": 2,
            "patch": 2,
            "width": 4,
            "heads": 2,
            "n_blocks": 1,
            "dropout": 0.1,
            "logit_margin": 0.05,
            "bound": 2.0,
        },
        "PlanarFlow": {"event_shape": (4,), "layers": 2},
        "SplineFlow": {"event_shape": (4,)} | dense | {"bins": 4, "limit": 3.0},
        "Glow": image | {"steps": 1, "bound": 2.0},
        "MultiScaleRealNVP": image | {"couplings": 1, "bound": 2.0},
    }.items():
        kind = getattr(flow, name)
        yield f"flow.{name}", Case(kind, arguments)
        model = kind(**arguments)
        x = torch.rand(3, *model.event_shape)
        for method in ("forward", "log_prob", "initialize"):
            yield f"flow.{name}.{method}", Case(getattr(model, method), {"x": x})
        z = torch.randn(3, *model.latent_shape)
        yield f"flow.{name}.inverse", Case(model.inverse, {"z": z})
        yield (
            f"flow.{name}.sample",
            Case(model.sample, {"n": 3, "generator": GENERATOR, "temperature": 0.7}),
        )
        yield (
            f"flow.{name}.interpolate",
            Case(model.interpolate, {"start": x[:2], "end": x[1:], "steps": 3}, inner="x"),
        )
    for name, arguments in {
        "ActNorm": {"event_shape": (2, 4, 4)},
        "ElementwiseAffine": {"event_shape": (4,)},
        "Invertible1x1Convolution": {"event_shape": (2, 4, 4)},
        "Logit": {"event_shape": (4,), "alpha": 0.1},
        "MaskedAutoregressive": {
            "event_shape": (4,),
            "hidden": (4,),
            "bound": 2.0,
            "dropout": 0.1,
        },
        "AttentionAutoregressive": {
            "event_shape": (4,),
            "patch": 2,
            "width": 4,
            "heads": 2,
            "n_blocks": 1,
            "bound": 2.0,
            "dropout": 0.1,
        },
        "Permutation": {"event_shape": (4, 1, 1), "order": torch.tensor([1, 0, 3, 2])},
        "Planar": {"event_shape": (4,)},
        "Squeeze": {"event_shape": (1, 4, 4)},
        "AdditiveCoupling": {
            "mask": MASK,
            "conditioner": flow.VectorConditioner(MASK, 1, (4,)),
        },
        "AffineCoupling": {
            "mask": MASK,
            "conditioner": flow.VectorConditioner(MASK, 2, (4,)),
            "bound": 2.0,
        },
        "SplineCoupling": {
            "mask": MASK,
            "conditioner": flow.VectorConditioner(MASK, 11, (4,)),
            "bins": 4,
            "limit": 3.0,
        },
        "Composition": {"transforms": [flow.ElementwiseAffine((4,)), flow.Planar((4,))]},
        "MultiScale": {"stages": [flow.Squeeze((1, 4, 4)), flow.ActNorm((2, 2, 2))]},
        "Inverse": {"transform": flow.ElementwiseAffine((4,))},
    }.items():
        kind = getattr(flow, name)
        yield f"flow.{name}", Case(kind, arguments)
        model = kind(**arguments)
        x = torch.rand(3, *model.event_shape)
        for method in ("forward", "initialize"):
            yield f"flow.{name}.{method}", Case(getattr(model, method), {"x": x})
        z = torch.randn(3, *model.latent_shape)
        yield f"flow.{name}.inverse", Case(model.inverse, {"z": z})
    yield "flow.Transform", Case(flow.Transform, {"event_shape": (4,), "latent_shape": (4,)})
    yield "flow.Flow", Case(flow.Flow, {"transform": flow.Planar((4,))})
    yield (
        "flow.Coupling",
        Case(flow.Coupling, {"mask": MASK, "conditioner": flow.VectorConditioner(MASK, 1, (4,))}),
    )
    yield (
        "flow.VectorConditioner",
        Case(
            flow.VectorConditioner,
            {"mask": MASK, "n_parameters": 2, "hidden": (4,), "dropout": 0.1},
        ),
    )
    yield (
        "flow.ImageConditioner",
        Case(
            flow.ImageConditioner,
            {
                "mask": flow.checkerboard_mask(SHAPE),
                "n_parameters": 2,
                "width": 2,
                "dropout": 0.1,
            },
        ),
    )
    for name in ("alternating", "channel", "checkerboard", "half"):
        yield f"flow.{name}_mask", Case(getattr(flow, f"{name}_mask"), {"event_shape": (2, 4, 4)})
    yield (
        "flow.glow_step",
        Case(flow.glow_step, {"event_shape": (2, 4, 4), "width": 2, "dropout": 0.1, "bound": 2.0}),
    )
    density = {"log_density": torch.randn(3), "event_shape": SHAPE, "levels": 5}
    yield "flow.density_bits_per_dim", Case(flow.density_bits_per_dim, density)
    yield "flow.discrete_log_prob", Case(flow.discrete_log_prob, density)
    yield "flow.UniformDequantizer", Case(flow.UniformDequantizer, {})
    variational = {"event_shape": SHAPE, "layers": 2, "hidden": (4,), "dropout": 0.1}
    yield "flow.VariationalDequantizer", Case(flow.VariationalDequantizer, variational)
    noise = {"x": LEVELS, "levels": 5, "generator": GENERATOR, "dtype": torch.float32}
    for dequantizer in (flow.UniformDequantizer(), flow.VariationalDequantizer(**variational)):
        yield f"flow.{type(dequantizer).__name__}.forward", Case(dequantizer, noise)
        inner = flow.RealNVP(SHAPE, layers=2, hidden=(4,))
        model = flow.DequantizedFlow(inner, 5, dequantizer)
        name = f"flow.DequantizedFlow ({type(dequantizer).__name__})"
        yield f"{name}.log_weight", Case(model.log_weight, {"x": LEVELS, "generator": GENERATOR})
        yield (
            f"{name}.elbo",
            Case(model.elbo, {"x": LEVELS, "n_samples": 2, "generator": GENERATOR}),
        )
        yield (
            f"{name}.importance_bound",
            Case(model.importance_bound, {"x": LEVELS, "k": 2, "generator": GENERATOR}),
        )
        yield (
            f"{name}.sample",
            Case(model.sample, {"n": 2, "generator": GENERATOR, "temperature": 1.0}),
        )
        yield f"{name}.to_levels", Case(model.to_levels, {"y": X})
    yield (
        "flow.negative_dequantization_bound",
        Case(lambda x: flow.negative_dequantization_bound(model, x, DONE), {"x": LEVELS}),
    )
    yield (
        "flow.DequantizedFlow",
        Case(flow.DequantizedFlow, {"flow": inner, "levels": 5, "dequantizer": dequantizer}),
    )


def _gan() -> Iterator[tuple[str, Case]]:
    generator = {"event_shape": (1, 8, 8), "latent_dim": 2, "n_classes": 3}
    judge = {"event_shape": (1, 8, 8), "n_classes": 3}
    z = torch.randn(3, 2)
    x = torch.rand(3, 1, 8, 8)
    for name, more in {"Generator": {"hidden": (4,)}, "ConvGenerator": {"channels": 2}}.items():
        kind = getattr(gan, name)
        yield f"gan.{name}", Case(kind, generator | more)
        model = kind(**generator | more)
        yield f"gan.{name}.forward", Case(model, {"z": z, "labels": LABELS})
        yield (
            f"gan.{name}.sample",
            Case(model.sample, {"n": 3, "labels": LABELS, "generator": GENERATOR}),
        )
    for name, more in {
        "Discriminator": {"hidden": (4,)},
        "ConvDiscriminator": {"channels": 2},
    }.items():
        kind = getattr(gan, name)
        yield f"gan.{name}", Case(kind, judge | more)
        yield f"gan.{name}.forward", Case(kind(**judge | more), {"x": x, "labels": LABELS})
    generator, critic = gan.Generator(SHAPE, 2, (4,)), gan.Discriminator(SHAPE, (4,))
    both = {"generator": generator, "discriminator": critic}
    yield "gan.GAN", Case(gan.GAN, both)
    yield "gan.GAN.forward", Case(gan.GAN(**both), {"z": z})
    yield "gan.GAN.sample", Case(gan.GAN(**both).sample, {"n": 3, "generator": GENERATOR})
    yield (
        "gan.Objective",
        Case(
            gan.Objective,
            {
                "name": "mine",
                "discriminator": gan.discriminator_loss,
                "generator": gan.minimax_loss,
                "output": torch.sigmoid,
            },
            ("name", "discriminator", "generator", "output"),
        ),
    )
    outputs, others = torch.randn(3), torch.randn(4)
    yield "gan.critic_loss", Case(gan.critic_loss, {"real_scores": outputs, "fake_scores": others})
    yield (
        "gan.discriminator_loss",
        Case(
            gan.discriminator_loss,
            {"real_logits": outputs, "fake_logits": others, "real_label": 0.9},
        ),
    )
    yield "gan.minimax_loss", Case(gan.minimax_loss, {"fake_logits": outputs})
    yield "gan.non_saturating_loss", Case(gan.non_saturating_loss, {"fake_logits": outputs})
    yield "gan.wasserstein_loss", Case(gan.wasserstein_loss, {"fake_scores": outputs})
    yield "gan.hinge_loss", Case(gan.hinge_loss, {"real_scores": outputs, "fake_scores": others})
    pairs = {"real_logits": outputs, "fake_logits": outputs - 1}
    yield "gan.relativistic_loss", Case(gan.relativistic_loss, pairs)
    yield "gan.relativistic_generator_loss", Case(gan.relativistic_generator_loss, pairs)
    samples = {"real": X, "fake": torch.rand(3, *SHAPE)}
    yield (
        "gan.gradient_penalty",
        Case(
            gan.gradient_penalty,
            {"critic": critic} | samples | {"weight": 1.0, "generator": GENERATOR},
            inner="x",
        ),
    )
    yield (
        "gan.r1_penalty",
        Case(gan.r1_penalty, {"discriminator": critic, "real": X, "gamma": 1.0}, inner="x"),
    )
    yield (
        "gan.roth_penalty",
        Case(gan.roth_penalty, {"discriminator": critic} | samples | {"gamma": 1.0}, inner="x"),
    )
    yield (
        "gan.weight_clipping",
        Case(gan.weight_clipping, {"bound": 0.01, "optimizer": torch.optim.RMSprop}),
    )
    yield (
        "gan.players",
        Case(
            gan.players,
            {
                "objective": gan.MINIMAX,
                "discriminator_updates": 2,
                "penalty": gan.r1_penalty,
                "real_label": 0.9,
                "optimizer": torch.optim.Adam,
                "discriminator_optimizer": torch.optim.Adam,
            },
        ),
    )

    def log_density(points: Tensor) -> Tensor:
        return -points.square()

    points = torch.linspace(-3, 3, 20)
    distributions = {"log_p": log_density, "log_q": log_density, "points": points}
    yield "gan.game_value", Case(gan.game_value, {"logit": log_density} | distributions)
    yield "gan.jensen_shannon", Case(gan.jensen_shannon, distributions)
    yield (
        "gan.optimal_discriminator",
        Case(gan.optimal_discriminator, {"log_p": outputs, "log_q": torch.randn(3)}),
    )
    dirac = gan.dirac
    for name in ("minimax", "non_saturating", "roth"):
        yield f"gan.dirac.{name}", Case(getattr(dirac, name), {"gamma": 0.5})
    yield "gan.dirac.wasserstein", Case(dirac.wasserstein, {"clip": 0.5})
    yield "gan.dirac.wasserstein_gp", Case(dirac.wasserstein_gp, {"weight": 0.5})
    method = {"method": dirac.minimax(0.5)}
    yield (
        "gan.dirac.update_eigenvalues",
        Case(dirac.update_eigenvalues, method | {"step_size": 0.1}),
    )
    yield (
        "gan.dirac.predicted_radius",
        Case(dirac.predicted_radius, method | {"start": 1.0, "steps": 3, "step_size": 0.1}),
    )
    yield (
        "gan.dirac.trajectory",
        Case(dirac.trajectory, method | {"start": (1.0, 0.5), "steps": 3, "step_size": 0.1}),
    )


def _diffusion() -> Iterator[tuple[str, Case]]:
    path = schedules.LinearLogSNR(4.0, -4.0)
    dense = {"event_shape": SHAPE, "levels": 5, "hidden": (4,), "dropout": 0.1, "n_classes": 3}
    yield "diffusion.Diffusion", Case(diffusion.Diffusion, dense | {"prediction": "levels"})
    image = {"event_shape": SHAPE, "levels": 5, "channels": 2, "n_blocks": 1}
    yield "diffusion.Diffusion (convolutional)", Case(diffusion.Diffusion, image)
    for prediction in ("levels", "noise"):
        model = diffusion.Diffusion(SHAPE, 5, hidden=(4,), prediction=prediction)
        name = f"diffusion.Diffusion ({prediction})"
        drawn = {"generator": GENERATOR, "steps": 2}
        yield f"{name}.elbo", Case(model.elbo, {"x": LEVELS, "n_samples": 2} | drawn)
        yield f"{name}.bound_terms", Case(model.bound_terms, {"x": LEVELS, "share": 2} | drawn)
        yield f"{name}.sample", Case(model.sample, {"n": 3, "eta": 0.5, "method": "ddim"} | drawn)
        yield (
            f"{name}.complete",
            Case(model.complete, {"x": LEVELS, "known": KNOWN, "repeats": 1} | drawn),
        )
        z, t = torch.randn(3, *SHAPE), torch.tensor([0.1, 0.5, 0.9])
        yield f"{name}.to_levels", Case(model.to_levels, {"z": z, "generator": GENERATOR})
        yield f"{name}.denoise", Case(model.denoise, {"z": z, "t": t}, overflows=True)
        yield f"{name}.forward", Case(model, {"z": z, "log_snr": 4 * t}, inner="x", overflows=True)
    model = diffusion.Diffusion(SHAPE, 5, hidden=(4,), n_classes=3)
    name, classes = "diffusion.Diffusion (classes)", {"labels": torch.tensor([0, 2, 1])}
    drawn = classes | {"steps": 2, "generator": GENERATOR}
    tilted = drawn | {"guidance": 0.5}
    yield f"{name}.elbo", Case(model.elbo, {"x": LEVELS} | drawn)
    yield (
        f"{name}.bound_terms",
        Case(model.bound_terms, {"x": LEVELS, "unlabelled": 0.5} | drawn),
    )
    yield f"{name}.sample", Case(model.sample, {"n": 3} | tilted)
    yield f"{name}.complete", Case(model.complete, {"x": LEVELS, "known": KNOWN} | tilted)
    guided = classes | {"z": torch.randn(3, *SHAPE), "t": 0.5, "guidance": 0.5}
    yield f"{name}.denoise", Case(model.denoise, guided, overflows=True)
    three = torch.ones(3)
    terms = {"prior": three, "diffusion": three, "reconstruction": three}
    yield "diffusion.BoundTerms", Case(diffusion.BoundTerms, terms, tuple(terms))
    factors = {"alpha": torch.tensor(0.6), "sigma": torch.tensor(0.8)}
    yield "diffusion.Level", Case(diffusion.Level, factors)
    levels = {
        "s": diffusion.Level(three * 0.8, three * 0.6),
        "t": diffusion.Level(three * 0.6, three),
    }
    z, x = torch.randn(3, 2), torch.randn(3, 2)
    for name, more in {
        "step_variance": {},
        "reverse_variances": {},
        "posterior": {"z": z, "x": x},
        "step_kl": {"x": x, "predicted": z},
    }.items():
        yield f"diffusion.{name}", Case(getattr(diffusion, name), more | levels)
    kind = {"kind": "noise"}
    yield (
        "diffusion.to_clean",
        Case(diffusion.to_clean, kind | {"prediction": x, "z": z} | factors, overflows=True),
    )
    for name, more in {"from_clean": kind, "clip_clean": {}}.items():
        arguments = more | {"clean": x, "z": z} | factors
        yield f"diffusion.{name}", Case(getattr(diffusion, name), arguments, overflows=True)
    yield (
        "diffusion.guided",
        Case(diffusion.guided, {"conditional": x, "unconditional": z, "w": 1.0}, inner="guidance"),
    )
    given = {
        "denoise": lambda z, t: 0.5 * z,
        "schedule": path,
        "z": z,
        "times": torch.tensor([1.0, 0.5, 0]),
    }
    for name, more in {
        "ancestral": {"variance": "posterior", "generator": GENERATOR},
        "ddim": {"eta": 0.5, "generator": GENERATOR},
        "heun": {},
        "inpaint": {
            "clean": x,
            "known": torch.tensor([True, False]),
            "repeats": 2,
            "generator": GENERATOR,
        },
    }.items():
        yield f"diffusion.{name}", Case(getattr(diffusion, name), given | more, overflows=True)
    velocity = {"denoise": given["denoise"], "schedule": path}
    yield "diffusion.flow_velocity", Case(diffusion.flow_velocity, velocity)
    yield (
        "diffusion.langevin",
        Case(
            diffusion.langevin,
            {"score": lambda x: -x, "x": x, "step": 0.1, "n_steps": 2, "generator": GENERATOR},
            overflows=True,
        ),
    )
    pair = {"correlation": torch.tensor([0.5, -0.8]), "repeats": 2}
    yield "diffusion.replacement_moments", Case(diffusion.replacement_moments, pair)
    yield "diffusion.langevin_variance", Case(diffusion.langevin_variance, {"step": 0.1})
    betas = {"betas": torch.tensor([0.1, 0.2])}
    yield "diffusion.noising_marginal", Case(diffusion.noising_marginal, betas)
    yield "diffusion.DDPMSchedule", Case(diffusion.DDPMSchedule, betas)
    yield "diffusion.DDPMSchedule.grid", Case(diffusion.DDPMSchedule(**betas).grid, {"steps": 2})
    yield (
        "diffusion.linear_betas",
        Case(diffusion.linear_betas, {"steps": 3, "first": 0.1, "last": 0.2}),
    )
    exact = {"variance": torch.tensor([0.5, 2.0]), "schedule": path, "times": solvers.time_grid(2)}
    yield (
        "diffusion.LinearGaussianDiffusion",
        Case(diffusion.LinearGaussianDiffusion, exact | {"reverse": "posterior"}),
    )
    yield "diffusion.Memorizer", Case(diffusion.Memorizer, {"data": X})
    loss = {"share": 2, "evaluations": 2, "unlabelled": 0.1}
    yield "diffusion.NegativeBound", Case(diffusion.NegativeBound, loss)


def _flow_matching() -> Iterator[tuple[str, Case]]:
    dense = {"event_shape": SHAPE, "levels": 5, "hidden": (4,), "dropout": 0.1}
    image = {"event_shape": SHAPE, "levels": 5, "channels": 2, "n_blocks": 1}
    classes, path = {"n_classes": 3}, schedules.LinearPath()
    own = classes | {"schedule": path, "prediction": "levels"}
    for name, more in {"VelocityFlow": own, "MeanFlow": {}}.items():
        kind = getattr(flow_matching, name)
        yield f"flow_matching.{name}", Case(kind, dense | more)
        yield f"flow_matching.{name} (convolutional)", Case(kind, image)
    model = flow_matching.VelocityFlow(**dense, **classes)
    grey = flow_matching.VelocityFlow(SHAPE, 5, hidden=(4,))
    solved = {"steps": 2, "method": "heun"}
    name, t = "flow_matching.VelocityFlow", torch.tensor([0.1, 0.5, 0.9])
    yield f"{name}.forward", Case(model, {"x": X, "t": t, "labels": LABELS}, overflows=True)
    for method in ("log_prob", "log_prob_with_error"):
        arguments = {"x": X, "labels": LABELS, "n_probes": 1, "generator": GENERATOR} | solved
        yield f"{name}.{method}", Case(getattr(model, method), arguments, overflows=True)
    bound = {"x": LEVELS, "n_samples": 1, "n_probes": 1, "generator": GENERATOR}
    yield f"{name}.elbo", Case(grey.elbo, bound | solved)
    drawn = {"n": 3, "labels": LABELS, "generator": GENERATOR}
    yield f"{name}.sample", Case(model.sample, drawn | solved | {"guidance": 0.5})
    guided = {"labels": LABELS, "guidance": 0.5}
    # How many labels belong to it, the examples say, to which it is applied.
    yield f"{name}.velocity", Case(model.velocity, guided, ("labels",))
    yield f"{name}.from_noise (guided)", Case(model.from_noise, {"noise": X} | guided | solved)
    yield f"{name}.from_noise", Case(model.from_noise, {"noise": X} | solved, overflows=True)
    yield f"{name}.to_noise", Case(model.to_noise, {"x": X} | solved, overflows=True)
    yield f"{name}.initialize", Case(grey.initialize, {"x": LEVELS})
    yield f"{name}.fill", Case(grey.fill, {"x": LEVELS, "generator": GENERATOR})
    yield f"{name}.to_levels", Case(grey.to_levels, {"x": X})
    levels = {"logits": torch.randn(3, 2, 5), "z": torch.randn(3, 2)}
    factors = {"alpha": torch.tensor([0.1, 0.5, 0.9]), "sigma": torch.tensor([0.9, 0.5, 0.1])}
    yield (
        "flow_matching.level_ends",
        Case(flow_matching.level_ends, levels | factors, overflows=True),
    )
    mean_flow, r = flow_matching.MeanFlow(**dense), torch.tensor([0.0, 0.2, 0.9])
    name = "flow_matching.MeanFlow"
    yield f"{name}.forward", Case(mean_flow, {"x": X, "r": r, "t": t}, overflows=True)
    yield f"{name}.sample", Case(mean_flow.sample, {"n": 3, "steps": 2, "generator": GENERATOR})
    yield f"{name}.from_noise", Case(mean_flow.from_noise, {"noise": X, "steps": 2}, overflows=True)
    yield (
        "flow_matching.mean_flow_target",
        Case(
            flow_matching.mean_flow_target,
            {"average": mean_flow, "x": X, "velocity": X, "r": r, "t": t},
            overflows=True,
        ),
    )
    three = torch.ones(3)
    terms = {"log_prob": three, "error": three}
    yield (
        "flow_matching.LogProbWithError",
        Case(flow_matching.LogProbWithError, terms, tuple(terms)),
    )
    loss = {
        "power": 1.5,
        "quantiles": flow_matching.logit_normal_times,
        "weight": lambda t: t,
        "coupling": "optimal",
        "evaluations": 2,
        "unlabelled": 0.1,
    }
    yield "flow_matching.FlowMatching", Case(flow_matching.FlowMatching, loss)
    loss = {"share": 0.5, "mean": 0.1, "deviation": 0.5, "power": 1.0, "evaluations": 2}
    yield "flow_matching.MeanFlowLoss", Case(flow_matching.MeanFlowLoss, loss)
    times = {"u": torch.rand(4), "mean": 0.1, "deviation": 0.5}
    yield "flow_matching.logit_normal_times", Case(flow_matching.logit_normal_times, times)
    pairs = {"x": X, "noise": torch.randn(3, *SHAPE)}
    yield "flow_matching.optimal_pairing", Case(flow_matching.optimal_pairing, pairs)
    yield "flow_matching.transport_cost", Case(flow_matching.transport_cost, pairs, overflows=True)
    yield (
        "flow_matching.paired",
        Case(flow_matching.paired, pairs | {"labels": LABELS, "n_classes": 3}, inner="labels"),
    )
    yield (
        "flow_matching.reflow_pairs",
        Case(
            flow_matching.reflow_pairs,
            {"model": model, "batch_size": 2} | drawn | solved,
        ),
    )
    z, x = torch.randn(3, 2), torch.randn(3, 2)
    given = {"schedule": path, "t": t}
    for name, more in {
        "conditional_velocity": {"x": x, "noise": z},
        "ends_from_velocity": {"velocity": x, "z": z},
        "velocity_from_score": {"score": x, "z": z},
        "score_from_velocity": {"velocity": x, "z": z},
        "noise_loss_weight": {},
        "edm_sigma": {},
    }.items():
        function = getattr(flow_matching, name)
        yield f"flow_matching.{name}", Case(function, given | more, overflows=True)
    moments = {"mean": torch.tensor([0.3, -1.0]), "variance": torch.tensor([0.5, 2.0])}
    for name, more in {
        "gaussian_velocity": given,
        "gaussian_flow_map": given | {"r": r},
        "gaussian_average_velocity": {"r": r, "t": t},
    }.items():
        function, inner = getattr(flow_matching, name), "r" if "average" in name else "t"
        arguments = {"z": z} | more | moments
        yield f"flow_matching.{name}", Case(function, arguments, inner=inner, overflows=True)
    variance = {"variance": moments["variance"]}
    yield "flow_matching.gaussian_loss_floor", Case(flow_matching.gaussian_loss_floor, variance)
    matrices = {
        "covariance": torch.tensor([[1.0, 0.6], [0.6, 0.8]]),
        "source_covariance": torch.tensor([[2.0, -0.9], [-0.9, 0.7]]),
    }
    for name, more in {
        "gaussian_pair_velocity": {"z": z, "t": torch.tensor(0.3)},
        "gaussian_optimal_map": {},
    }.items():
        function = getattr(flow_matching, name)
        yield f"flow_matching.{name}", Case(function, matrices | more, overflows=True)
    plain = flow_matching.VelocityFlow((2,), hidden=(4,))
    yield (
        "flow_matching.consistency_function",
        Case(
            flow_matching.consistency_function,
            {"model": plain, "x": x, "t": 0.5} | solved,
            overflows=True,
        ),
    )
    levels = {"sigma": torch.tensor([0.1, 2.0]), "least": 0.01, "deviation": 0.5}
    yield (
        "flow_matching.consistency_weights",
        Case(flow_matching.consistency_weights, levels, overflows=True),
    )
    velocity = {"velocity": lambda x, t: x}
    yield "flow_matching.reversed_time", Case(flow_matching.reversed_time, velocity)
    paths = {"old": path, "new": schedules.Cosine(4.0, -4.0)}
    yield "flow_matching.on_another_path", Case(flow_matching.on_another_path, velocity | paths)
    for name, more in {
        "guidance_scale": {"w": 0.5},
        "guidance_weight": {"scale": 1.5},
        "log_snr_from_ratio": {"ratio": torch.tensor([0.1, 2.0])},
        "alpha_from_ddim": {"alpha_bar": torch.tensor([0.1, 0.9])},
        "time_of_edm_sigma": {"schedule": path, "sigma": torch.tensor([0.1, 2.0])},
    }.items():
        yield f"flow_matching.{name}", Case(getattr(flow_matching, name), more)


def _distributions() -> Iterator[tuple[str, Case]]:
    yield "distributions.Bernoulli", Case(distributions.Bernoulli, {})
    yield "distributions.Categorical", Case(distributions.Categorical, {"levels": 5})
    mixture = {"levels": 5, "n_components": 2}
    yield (
        "distributions.DiscretizedLogisticMixture",
        Case(distributions.DiscretizedLogisticMixture, mixture),
    )
    yield "distributions.Gaussian", Case(distributions.Gaussian, {"sigma": 0.5})
    yield (
        "distributions.standard_normal_log_prob",
        Case(distributions.standard_normal_log_prob, {"z": VECTORS}),
    )
    yield (
        "distributions.normal_log_prob",
        Case(
            distributions.normal_log_prob,
            {"x": VECTORS, "mean": torch.randn(2), "logvar": torch.randn(2)},
            overflows=True,
        ),
    )
    yield (
        "distributions.discretized_logistic_log_mass",
        Case(
            distributions.discretized_logistic_log_mass,
            {"x": LEVELS, "mean": X, "log_scale": X, "levels": 5},
        ),
    )
    yield "distributions.default_output", Case(distributions.default_output, {"levels": 5})
    pair = {"x": VECTORS, "y": torch.randn(5, 2)}
    yield "mmd.gaussian_kernel", Case(mmd.gaussian_kernel, pair | {"bandwidth": 1.0})
    yield "mmd.imq_kernel", Case(mmd.imq_kernel, pair)
    yield "mmd.cubic_kernel", Case(mmd.cubic_kernel, pair)
    yield "mmd.mmd", Case(mmd.mmd, pair | {"kernel": mmd.imq_kernel})


def _shared() -> Iterator[tuple[str, Case]]:
    yield "data.load", Case(data.load, {"name": "digits"})
    yield "data.digits", Case(data.digits, {})
    given = {"x": LEVELS, "levels": 5}
    yield "data.intensities", Case(data.intensities, given | {"dtype": torch.float32})
    yield "data.binarize", Case(data.binarize, {"x": X, "generator": GENERATOR})
    yield (
        "data.dequantize",
        Case(data.dequantize, given | {"generator": GENERATOR, "dtype": torch.float32}),
    )
    yield "data.fill_intervals", Case(data.fill_intervals, given | {"u": X, "dtype": torch.float32})
    yield "data.to_levels", Case(data.to_levels, {"y": X, "levels": 4})
    covariance = torch.tensor([[2.0, 0.3], [0.3, 1.0]])
    gaussians = {
        "mu_q": torch.randn(2),
        "cov_q": covariance,
        "mu_p": torch.randn(2),
        "cov_p": covariance,
    }
    yield "divergences.kl_gaussian", Case(divergences.kl_gaussian, gaussians)
    yield (
        "divergences.kl_univariate_gaussian",
        Case(
            divergences.kl_univariate_gaussian,
            {"mu_q": torch.randn(3), "sigma_q": 1.0, "mu_p": 0.5, "sigma_p": torch.rand(3) + 0.1},
        ),
    )
    yield (
        "divergences.kl_standard_normal",
        Case(divergences.kl_standard_normal, {"mu": VECTORS, "logvar": VECTORS}),
    )
    distributions = {"p": torch.tensor([0.2, 0.8]), "q": torch.tensor([0.5, 0.5])}
    yield "divergences.kl_discrete", Case(divergences.kl_discrete, distributions)
    yield "divergences.js_discrete", Case(divergences.js_discrete, distributions)
    samples = {"x": torch.randn(9), "y": torch.randn(8)}
    yield (
        "divergences.histogram_kl",
        Case(divergences.histogram_kl, samples | {"bins": 4, "pseudo_count": 0.5}),
    )
    yield (
        "divergences.histogram_kl (edges)",
        Case(divergences.histogram_kl, samples | {"bins": torch.tensor([-1.0, 0.0, 1.0])}),
    )
    yield "divergences.wasserstein_1d", Case(divergences.wasserstein_1d, samples)
    yield "evaluation.estimate", Case(evaluation.estimate, {"values": torch.randn(5)})
    yield (
        "evaluation.bits_per_dim",
        Case(evaluation.bits_per_dim, {"log_prob": torch.randn(3), "event_shape": SHAPE}),
    )
    yield (
        "evaluation.nearest_neighbours",
        Case(evaluation.nearest_neighbours, {"x": X, "reference": torch.rand(4, *SHAPE)}),
    )
    yield (
        "evaluation.frechet_gaussian",
        Case(
            lambda mu_p, cov_p, mu_q, cov_q: evaluation.frechet_gaussian(mu_p, cov_p, mu_q, cov_q),
            gaussians,
        ),
    )
    features = {"x": VECTORS, "y": torch.randn(7, 2)}
    yield "evaluation.frechet_distance", Case(evaluation.frechet_distance, features)
    yield "evaluation.kernel_distance", Case(evaluation.kernel_distance, features)
    yield (
        "evaluation.precision_recall",
        Case(evaluation.precision_recall, {"real": VECTORS, "fake": torch.randn(7, 2), "k": 2}),
    )
    yield (
        "evaluation.modes_covered",
        Case(
            evaluation.modes_covered,
            {
                "samples": VECTORS,
                "centres": torch.randn(2, 2),
                "std": 0.5,
                "radius": 3.0,
                "least": 0.1,
            },
        ),
    )
    yield (
        "classifier.Classifier",
        Case(
            classifier.Classifier,
            {"event_shape": SHAPE, "n_classes": 3, "n_features": 4, "channels": 2},
        ),
    )
    judge = classifier.Classifier(SHAPE, 3, 4, 2)
    yield "classifier.Classifier.forward", Case(judge, {"x": X})
    yield "classifier.Classifier.features", Case(judge.features, {"x": X})
    yield "classifier.Classifier.accuracy", Case(judge.accuracy, {"x": X, "labels": LABELS})
    yield (
        "networks.mlp",
        Case(
            networks.mlp,
            {"in_features": 3, "hidden": (4,), "out_features": 2, "dropout": 0.1},
        ),
    )
    yield "training.cosine_decay", Case(training.cosine_decay, {"progress": 0.5}, ("progress",))
    yield "training.linear_decay", Case(training.linear_decay, {"progress": 0.5}, ("progress",))
    history = training.History(train=[{"step": 1, "seconds": 0.1, "loss": 2.0}])
    yield "training.History.curve", Case(history.curve, {"term": "loss", "split": "train"})

    def loss(model: nn.Module, x: Tensor, progress: Tensor) -> Tensor:
        # Takes anything: what is asked here is what `fit` says, not a model.
        return model.weight.square().sum() * (1 + x.to(torch.float32).mean().abs())

    yield (
        "training.fit",
        Case(
            lambda **given: training.fit(nn.Linear(2, 1), **given, progress=False),
            {
                "loss": loss,
                "train": VECTORS,
                "validation": VECTORS,
                "steps": 1,
                "batch_size": 2,
                "learning_rate": 0.1,
                "schedule": training.linear_decay,
                "optimizer": torch.optim.SGD,
                "transform": lambda batch, noise: batch,
                "gradient_clip": 1.0,
                "ema": 0.9,
                "evaluate_every": 1,
                "callback": lambda step, model: None,
                "seed": 0,
            },
        ),
    )
    yield "plotting.image_grid", Case(plotting.image_grid, {"images": X, "columns": 2})
    yield "plotting.curves", Case(plotting.curves, {"history": history, "terms": ("loss",)})
    yield (
        "plotting.density_1d",
        Case(
            plotting.density_1d,
            {"log_prob": lambda x: -x.square(), "low": -1.0, "high": 1.0, "n_points": 4},
        ),
    )
    yield (
        "plotting.density_2d",
        Case(
            plotting.density_2d,
            {"log_prob": lambda x: -x.square().sum(1), "limit": 2.0, "n_points": 4},
        ),
    )
    yield (
        "plotting.posterior_ellipses",
        Case(
            plotting.posterior_ellipses,
            {"mean": VECTORS, "std": VECTORS.exp(), "labels": torch.arange(6)},
        ),
    )


CASES: dict[str, Case] = dict(_cases())


def wrong(right: object) -> Iterator[tuple[str, object]]:
    """What may be passed in the place of a right value: some of it wrong, some of it unusual."""
    kinds = (
        (Tensor, _tensors),
        (bool, lambda _: iter(())),
        ((int, float), _numbers),
        (str, _texts),
        (torch.Generator, _generators),
        (torch.dtype, _types),
        (nn.Module, _objects),
        ((tuple, list), _sequences),
    )
    for kind, values in kinds:
        if isinstance(right, kind):
            return values(right)
    return _objects(right)


def _objects(right: object) -> Iterator[tuple[str, object]]:
    yield from (("None", None), ("3", 3), ("text", "text"), ("a list", [1.0]))
    yield "a tensor", torch.ones(3)
    yield "an array", np.ones(3)


def _tensors(x: Tensor) -> Iterator[tuple[str, object]]:
    yield from (("None", None), ("text", "text"), ("a list", x.tolist()), ("an array", x.numpy()))
    yield "a number", 3
    yield "NumPy's number", np.float64(3)
    if x.dim():
        yield "empty", x[:0]
        yield "an example", x[0]
        yield "without entries", x[..., :0]
    yield "a dimension more", x[None]
    yield "a dimension at the end", x[..., None]
    yield "a number in a tensor", torch.tensor(1.0)
    yield "zero", torch.zeros_like(x)
    yield "bool", x.bool()
    yield "complex", x.to(torch.complex64)
    yield "int64", x.to(torch.int64)
    yield "uint8", x.clamp(min=0).to(torch.uint8)
    yield "float16", x.to(torch.float16)
    yield "bfloat16", x.to(torch.bfloat16)
    yield "float64", x.to(torch.float64)
    yield "sparse", x.to_sparse()
    if x.is_floating_point():
        for name, value in (("NaN", math.nan), ("infinity", math.inf), ("huge", 1e30)):
            changed = x.clone()
            changed.view(-1)[-1] = value
            yield name, changed
        yield "negative", -x.abs() - 1
    elif x.dtype != torch.bool:
        yield "negative levels", x - 10
        yield "large levels", x + 1000


def _numbers(right: float) -> Iterator[tuple[str, object]]:
    for value in (0, 1, -1, 2.5, -0.5, math.nan, math.inf, -math.inf, 1e30, 10**30, 1e-30):
        if isinstance(right, float) or value not in (10**30,):
            yield str(value), value
    yield from (("None", None), ("text", "3"), ("True", True), ("a list", [1]), ("complex", 1j))
    yield "a tensor of three", torch.ones(3)
    yield "an array of three", np.ones(3)


def _texts(right: str) -> Iterator[tuple[str, object]]:
    yield from (("None", None), ("3", 3), ("another", "another"), ("empty", ""), ("a list", []))


def _generators(right: torch.Generator) -> Iterator[tuple[str, object]]:
    yield from (("0", 0), ("text", "cpu"), ("NumPy's", np.random.default_rng(0)))


def _types(right: torch.dtype) -> Iterator[tuple[str, object]]:
    yield from (("text", "float32"), ("float", float), ("int64", torch.int64), ("3", 3))


def _sequences(right: object) -> Iterator[tuple[str, object]]:
    yield from (("None", None), ("a number", 3), ("text", "text"), ("empty", ()))
    yield from ((str(value), (value,)) for value in (0, -1, 2.5, "a", None, True, math.nan))
    yield "nested", (right,)
    yield "one less", right[:-1]
    yield "one more", (*right, right[-1])
    yield "a tensor of numbers", torch.ones(3)
    yield "an array of numbers", np.ones(3)
