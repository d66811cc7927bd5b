"""A state dict is the whole of a model: loaded elsewhere it is the same model, or it is refused."""

import copy
import importlib
import inspect
import io
import itertools
import pickle
import pkgutil

import pytest
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from course_lib import autoregressive as ar
from course_lib import diffusion, experiments, flow, flow_matching, gan, vae
from course_lib.autoregressive import raster, wavenet
from course_lib.classifier import Classifier
from course_lib.distributions import (
    Bernoulli,
    Categorical,
    DiscretizedLogisticMixture,
    Gaussian,
    OutputDistribution,
)
from course_lib.experiments.gan_source import TanhGenerator
from course_lib.experiments.groups import GroupedDiscriminator, GroupedGenerator
from course_lib.families import FAMILIES
from course_lib.flow import checks
from course_lib.masked import MaskedLinear, made_mask
from course_lib.saved_settings import SavedSettings
from course_lib.schedules import Cosine, LinearLogSNR, LinearPath, Schedule
from tests.autoregressive import properties

WEIGHT, BIAS = torch.tensor([[1.0, 0.5], [0.2, -1.0], [0.0, 0.3]]), torch.zeros(3)

# Masks of one shape: two of blocks, and one of neither.
MASKS = [flow.half_mask((4,)), flow.half_mask((4,), flip=True), flow.alternating_mask((4,))]


def coupling(kind, mask, n_parameters, *options):
    return kind(mask, flow.VectorConditioner(mask, n_parameters, (5,)), *options)


def image_coupling(mask):
    return flow.AffineCoupling(mask, flow.ImageConditioner(mask, 2, 3))


def staircase(degrees, width=400):
    """A mask large enough to be read in blocks."""
    hidden = torch.arange(width) % 300
    return MaskedLinear(made_mask(degrees, hidden))


# Of each kind: constructors whose weights have the same shapes, or nearly so.
KINDS = {
    "Autoencoder": [lambda s=s: vae.Autoencoder(s, 2) for s in ((1, 4, 4), (1, 2, 8))],
    "WAE": [lambda s=s: vae.WAE(s, 2, hidden=(5,)) for s in ((1, 4, 4), (16,))],
    "VAE": [
        lambda s=s, d=d: vae.VAE(s, 2, hidden=(5,), likelihood=d and d())
        for s in ((1, 4, 4), (1, 2, 8))
        for d in (None, lambda: Gaussian(0.1), lambda: Gaussian(0.2), Gaussian)
    ],
    "VAE of grey levels": [
        lambda d=d: vae.VAE((1, 2, 4), 2, hidden=(5,), likelihood=d())
        for d in (
            lambda: Categorical(6),
            lambda: DiscretizedLogisticMixture(6, 2),
            lambda: DiscretizedLogisticMixture(5, 2),
            lambda: Categorical(5),
        )
    ],
    "VAE with convolutions": [
        lambda s=s: vae.VAE(s, 2, channels=2) for s in ((1, 4, 16), (1, 8, 8), (1, 16, 4))
    ],
    "VQVAE": [
        lambda s=s, h=h, d=d: vae.VQVAE(s, 4, channels=4, halvings=h, likelihood=d and d())
        for s, h, d in (
            ((1, 4, 16), 1, None),
            ((1, 8, 8), 1, None),
            ((1, 8, 8), 1, lambda: Categorical(6)),
            ((1, 8, 8), 1, lambda: DiscretizedLogisticMixture(6, 2)),
            ((1, 8, 8), 1, lambda: DiscretizedLogisticMixture(5, 2)),
        )
    ],
    "Gaussian": [lambda s=s: Gaussian(s) for s in (0.1, 0.2, None)],
    "Bernoulli": [Bernoulli],
    "LinearGaussian": [
        lambda s=s, p=p: vae.LinearGaussian(torch.rand_like(WEIGHT), BIAS, s, posterior_scale=p)
        for s, p in ((0.5, 1.0), (0.4, 1.0), (0.5, 2.0))
    ],
    **{
        name: [
            lambda name=name, a=a: properties.build(name, *a[0], **a[1])
            for a in (
                (((1, 2, 4), 6), {}),
                (((1, 2, 4), 6), {"distribution": DiscretizedLogisticMixture(6, 2)}),
                (((1, 4, 2), 6), {}),
                (((1, 2, 4), 5), {"distribution": DiscretizedLogisticMixture(5, 2)}),
                (((2, 2, 2), 6), {}),
            )
        ]
        for name in properties.MODELS
    },
    "MADE, orders": [
        lambda n=n, s=s, h=h: ar.MADE((6,), 2, hidden=h, n_orderings=n, seed=s)
        for n, s, h in ((2, 0, (8,)), (2, 1, (8,)), (3, 0, (8,)), (2, 5, (8, 8)))
    ],
    "MADE, in blocks": [
        lambda s=s: ar.MADE((100,), 2, hidden=(1100,), n_orderings=2, seed=s) for s in (0, 1)
    ],
    "WaveNet, dilations": [
        lambda d=d: ar.WaveNet((12,), 3, channels=4, dilations=d)
        for d in ((1, 2, 4), (4, 2, 1), (1, 1, 1), (3, 2, 1))
    ],
    "MaskedDiffusion": [
        lambda s=s, k=k, c=c: ar.MaskedDiffusion(s, k, hidden=(8, 8), channels=c)
        for s, k, c in (
            ((1, 2, 4), 3, None),
            ((1, 4, 2), 3, None),
            ((1, 2, 4), 3, 4),
            ((1, 4, 2), 3, 4),
            ((2, 2, 2), 3, 4),
        )
    ],
    "GatedPixelCNN, classes": [
        lambda n=n: ar.GatedPixelCNN((1, 3, 3), 3, channels=4, n_layers=2, n_classes=n)
        for n in (3, 4)
    ],
    "Transformer, heads": [
        lambda h=h, k=k: ar.Transformer((1, 3, 3), 3, width=8, heads=h, key_value_heads=k)
        for h, k in ((2, 2), (4, 4), (4, 1), (2, 1))
    ],
    "MaskedConv2d": [
        lambda k=k, c=c, g=g: raster.MaskedConv2d(k, 4, 8, 3, n_colours=c, n_gates=g)
        for k, c, g in (("A", 1, 1), ("B", 1, 1), ("A", 2, 1), ("B", 2, 1), ("B", 2, 2))
    ],
    "Head": [lambda c=c, p=p: raster.Head(4, c, p) for c, p in ((1, 4), (2, 2), (4, 1))],
    "WaveNetLayer": [lambda d=d: wavenet.WaveNetLayer(4, d, 2, 0.0) for d in (1, 2)],
    "MaskedLinear": [
        lambda s=s: staircase(torch.randperm(300, generator=torch.Generator().manual_seed(s)))
        for s in (0, 1)
    ]
    + [lambda: staircase(torch.arange(300)), lambda: staircase(torch.arange(300).flip(0))],
    **{name: [make] for name, make in checks.TRANSFORMS.items()},
    **{name: [make] for name, make in checks.MODELS.items()},
    "couplings that shift": [lambda m=m: coupling(flow.AdditiveCoupling, m, 1) for m in MASKS],
    "couplings that scale": [
        lambda m=m, b=b: coupling(flow.AffineCoupling, m, 2, b) for m in MASKS for b in (2.0, 3.0)
    ],
    "couplings by splines": [
        lambda m=m, o=o: coupling(flow.SplineCoupling, m, 3 * o[0] - 1, *o)
        for m in MASKS
        for o in ((4, 4.0), (4, 3.0), (3, 4.0))
    ],
    "couplings of images": [
        lambda m=m, f=f: image_coupling(m((2, 4, 4), flip=f))
        for m in (flow.checkerboard_mask, flow.channel_mask)
        for f in (False, True)
    ],
    "VectorConditioner": [
        lambda n=n, p=p: flow.VectorConditioner(torch.arange(n) < 3, p, (5,))
        for n, p in ((9, 2), (7, 3), (6, 4))
    ],
    "ImageConditioner": [
        lambda f=f, s=s, p=p: flow.ImageConditioner(flow.channel_mask(s, flip=f), p, 3)
        for f, s, p in (
            (False, (2, 4, 4), 2),
            (True, (2, 4, 4), 2),
            (False, (2, 2, 8), 2),
            (False, (4, 4, 4), 1),
        )
    ],
    "orders": [
        lambda o=o: flow.Permutation((4,), o and torch.tensor(o))
        for o in (None, [0, 2, 1, 3], [3, 2, 1, 0], [1, 0, 3, 2])
    ],
    "logits": [lambda a=a: flow.Logit((4,), a) for a in (0.05, 0.1)],
    "norms": [lambda s=s: flow.ActNorm(s) for s in ((2, 2, 2), (2, 4, 4), (2, 2, 8))],
    "squeezes": [lambda s=s: flow.Squeeze(s) for s in ((1, 4, 4), (1, 2, 8))],
    "mixed channels": [
        lambda s=s: flow.Invertible1x1Convolution((3, *s)) for s in ((2, 2), (4, 4), (2, 8))
    ],
    "MAF, bounds": [
        lambda b=b, a=a: flow.MAF((4,), hidden=(8,), layers=2, bound=b, logit_margin=a)
        for b, a in ((3.0, None), (2.0, None), (3.0, 0.05), (3.0, 0.1))
    ],
    "TarFlow, settings": [
        lambda b=b, h=h, p=p: flow.TarFlow(
            (4,), patch=p, width=8, heads=h, layers=1, n_blocks=1, bound=b
        )
        for b, h, p in ((3.0, 2, 2), (2.0, 2, 2), (3.0, 4, 2), (3.0, 2, 1))
    ],
    "IAF, bounds": [lambda b=b: flow.IAF((4,), hidden=(8,), layers=2, bound=b) for b in (3.0, 2.0)],
    "RealNVP, shapes": [
        lambda s=s, b=b: flow.RealNVP(s, hidden=(8,), layers=2, bound=b)
        for s, b in (((1, 4, 4), 2.0), ((1, 4, 4), 1.0), ((1, 2, 8), 2.0), ((16,), 2.0))
    ],
    "Glow, shapes": [
        lambda s=s, b=b: flow.Glow(s, width=4, steps=2, scales=1, bound=b)
        for s, b in (((1, 4, 4), 2.0), ((1, 8, 2), 2.0), ((1, 4, 4), 1.0))
    ],
    "DequantizedFlow": [
        lambda k=k, d=d: flow.DequantizedFlow(
            flow.RealNVP((1, 2, 2), hidden=(5,), layers=2), k, d and d()
        )
        for k in (4, 5)
        for d in (None, lambda: flow.VariationalDequantizer((1, 2, 2), hidden=(5,)))
    ],
    "UniformDequantizer": [flow.UniformDequantizer],
    "Diffusion": [
        lambda s=s, k=k, o=o: diffusion.Diffusion(s, k, hidden=(5,), **o)
        for s, k, o in (
            ((1, 2, 4), 4, {}),
            ((1, 4, 2), 4, {}),
            ((1, 2, 4), 4, {"prediction": "noise"}),
            ((1, 2, 4), 4, {"prediction": "velocity"}),
            ((1, 2, 4), 5, {"prediction": "velocity"}),
            ((1, 2, 4), 4, {"schedule": LinearLogSNR(6.0, -6.0)}),
            ((1, 2, 4), 4, {"schedule": LinearLogSNR(5.0, -6.0)}),
            ((1, 2, 4), 4, {"schedule": Cosine(6.0, -6.0)}),
        )
    ],
    "Diffusion with convolutions": [
        lambda s=s: diffusion.Diffusion(s, 4, channels=3, n_blocks=1, n_classes=3)
        for s in ((1, 4, 4), (1, 2, 8), (1, 16, 16))
    ],
    "VelocityFlow": [
        lambda s=s, k=k, p=p: flow_matching.VelocityFlow(s, k, hidden=(5,), schedule=p)
        for s, k, p in (
            ((1, 2, 4), None, None),
            ((1, 4, 2), None, None),
            ((1, 2, 4), 4, None),
            ((1, 2, 4), 5, LinearPath()),
            ((1, 2, 4), 4, Cosine(6.0, -6.0)),
            ((1, 2, 4), 4, LinearLogSNR(6.0, -6.0)),
        )
    ],
    "VelocityFlow with convolutions": [
        lambda s=s: flow_matching.VelocityFlow(s, 4, channels=3, n_blocks=1, n_classes=3)
        for s in ((1, 4, 4), (1, 2, 8))
    ],
    "MeanFlow": [
        lambda s=s, k=k: flow_matching.MeanFlow(s, k, hidden=(5,))
        for s, k in (((1, 2, 4), None), ((1, 4, 2), None), ((1, 2, 4), 4), ((1, 2, 4), 5))
    ],
    "DDPMSchedule": [
        lambda n=n, last=last: diffusion.DDPMSchedule(diffusion.linear_betas(n, 0.01, last))
        for n, last in ((5, 0.2), (5, 0.3), (6, 0.2))
    ],
    "VariationalDequantizer": [
        lambda s=s: flow.VariationalDequantizer(s, hidden=(5,))
        for s in ((1, 2, 4), (1, 4, 2), (8,))
    ],
    "Generator": [
        lambda s=s, b=b, n=n: gan.Generator(s, 4, (5,), bounded=b, n_classes=n)
        for s in ((1, 4, 4), (1, 2, 8))
        for b, n in ((True, None), (False, None), (True, 3))
    ],
    "ConvGenerator": [
        lambda s=s, n=n: gan.ConvGenerator(s, 4, 2, n_classes=n)
        for s, n in (((1, 4, 9), None), ((1, 9, 4), None), ((1, 4, 9), 3))
    ],
    "Discriminator": [
        lambda s=s, n=n: gan.Discriminator(s, (5,), spectral_norm=n)
        for s in ((1, 4, 4), (1, 2, 8))
        for n in (False, True)
    ],
    "ConvDiscriminator": [
        lambda s=s: gan.ConvDiscriminator(s, 2) for s in ((1, 4, 9), (1, 9, 4), (1, 6, 6))
    ],
    "GAN": [
        lambda s=s: gan.GAN(gan.Generator(s, 4, (5,)), gan.Discriminator(s, (5,)))
        for s in ((1, 4, 4), (1, 2, 8))
    ],
    "GroupedGenerator": [lambda d=d: GroupedGenerator(3, d, (5,), 2) for d in (1, 2)],
    "TanhGenerator": [lambda s=s: TanhGenerator(s, 4, (5, 6)) for s in ((1, 2, 2), (4,))],
    "GroupedDiscriminator": [lambda: GroupedDiscriminator(3, (5,), 2)],
    "Classifier": [lambda s=s: Classifier(s, 3, 4, 2) for s in ((1, 4, 4), (1, 2, 8))],
}


def source():
    return torch.Generator().manual_seed(3)


def grey(model, levels):
    return torch.randint(levels, (3, *model.event_shape), generator=source())


def real(shape):
    return torch.rand(3, *shape, generator=source())


@torch.no_grad()
def outputs(module, like):
    """What a module gives for inputs that suit `like`: outputs, samples, log-probabilities."""
    torch.manual_seed(5)
    classes = getattr(like, "n_classes", None)
    labels = {} if classes is None else {"labels": torch.tensor([0, 2, 1])}
    if isinstance(module, ar.Autoregressive):
        x = grey(like, like.levels)
        ways = (True, False) if module.n_dims < 50 else (True,)
        samples = [module.sample(3, generator=source(), cached=c, **labels) for c in ways]
        return [module.log_prob(x, **labels), *samples]
    if isinstance(module, flow.Flow):
        x = real(like.event_shape)
        return [
            module.log_prob(x),
            *module.inverse(module(x)[0]),
            module.sample(3, generator=source()),
        ]
    if isinstance(module, flow.Transform):
        x = real(like.event_shape)
        z, log_det = module(x)
        return [z, log_det, *module.inverse(z)]
    if isinstance(module, flow.DequantizedFlow):
        x = grey(like, like.levels)
        return [module.log_weight(x, source()), module.sample(3, generator=source())]
    if isinstance(module, diffusion.Diffusion):
        x = grey(like, like.levels)
        return [
            module.elbo(x, **labels, generator=source()),
            module.sample(3, steps=2, **labels, generator=source()),
        ]
    if isinstance(module, flow_matching.VelocityFlow):
        x = real(like.event_shape)
        return [
            module.log_prob(x, *labels.values(), steps=1),
            module.sample(3, steps=2, **labels, generator=source()),
        ]
    if isinstance(module, flow_matching.MeanFlow):
        times = (torch.zeros(3), torch.tensor([0.0, 0.5, 1.0]))
        return [module(real(like.event_shape), *times), module.sample(3, generator=source())]
    if isinstance(module, Schedule):
        times = module.grid(3)
        return [module.alpha(times), module.sigma(times)]
    if isinstance(module, flow.UniformDequantizer | flow.VariationalDequantizer):
        shape = getattr(like, "event_shape", (4,))
        return module(torch.randint(4, (3, *shape), generator=source()), 4, source())
    if isinstance(module, vae.VAE | vae.LinearGaussian):
        x = real(like.event_shape).round()  # black and white are grey levels too
        z = module.encode(x).rsample()
        return [z, module.decode(z).log_prob(x), module.sample(3, generator=source())]
    if isinstance(module, vae.VQVAE):
        x = real(like.event_shape).round()
        return [module.codes(x), module.elbo(x), module.sample(3, generator=source())]
    if isinstance(module, vae.Autoencoder):
        x = real(like.event_shape)
        return [module(x), *([module.sample(3)] if hasattr(module, "sample") else [])]
    if isinstance(module, OutputDistribution):
        parameters = real((4, module.n_parameters))
        x = module.draw(parameters, source())
        return [module.log_prob(parameters, x), x]
    if isinstance(module, gan.GAN):
        return [module.sample(3, generator=source()), module.discriminator(real(like.event_shape))]
    if hasattr(module, "latent_dim"):
        return [module.sample(3, generator=source(), **labels)]
    if isinstance(module, wavenet.WaveNetLayer):
        return list(module(real((4, 7))))
    if isinstance(module, raster.MaskedConv2d | raster.Head):
        return [module(real((4, 5, 5)))]
    if isinstance(module, MaskedLinear):
        return [module(real((module.in_features,)))]
    if isinstance(module, flow.VectorConditioner):
        return [module(real((3,)))]
    if isinstance(module, flow.ImageConditioner):
        return [module(real((len(like.kept),)))]
    return [module(real(like.event_shape), **labels)]


def built(make, seed):
    torch.manual_seed(seed)
    module = make()
    with torch.no_grad():  # away from the identity, with which flows start
        for parameter in module.parameters():
            parameter += 0.2 * torch.randn_like(parameter)
    return module.eval()


def same(xs, ys):
    return len(xs) == len(ys) and all(torch.equal(x, y) for x, y in zip(xs, ys, strict=True))


@pytest.mark.parametrize("name", KINDS)
def test_a_loaded_state_is_the_same_model_or_is_refused(name):
    for index, (a, b) in enumerate(itertools.product(KINDS[name], repeat=2)):
        saved, other = built(a, 2 * index), built(b, 2 * index + 1)
        try:
            other.load_state_dict(saved.state_dict())
        except (ValueError, RuntimeError):
            assert a is not b, "a model of the same kind was refused"
            continue
        assert same(outputs(other, saved), outputs(saved, saved))


@pytest.mark.parametrize("name", KINDS)
def test_a_state_survives_what_programs_do_with_it(name):
    saved = built(KINDS[name][0], 0)
    expected = outputs(saved, saved)
    file = io.BytesIO()
    torch.save(saved.state_dict(), file)
    file.seek(0)
    states = {
        "stored": torch.load(file, weights_only=True),
        "cloned": {name: value.clone() for name, value in saved.state_dict().items()},
        "averaged": {n: (v + v) / 2 if v.dim() else v for n, v in saved.state_dict().items()},
    }
    for state in states.values():
        other = built(KINDS[name][0], 1)
        other.load_state_dict(state)
        assert same(outputs(other, saved), expected)
    for copied in (copy.deepcopy(saved), pickle.loads(pickle.dumps(saved))):
        assert same(outputs(copied, saved), expected)
        copied.load_state_dict(saved.state_dict())
        assert same(outputs(copied, saved), expected)


def test_every_module_of_the_library_is_tried():
    tried = {type(module) for makes in KINDS.values() for module in makes[0]().modules()}
    every = set()
    for package in (*(family.package for family in FAMILIES.values()), experiments):
        for info in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            module = importlib.import_module(info.name)
            every |= {c for _, c in inspect.getmembers(module, inspect.isclass)}
    every = {
        c for c in every if issubclass(c, nn.Module) and c.__module__.startswith("course_lib.")
    }
    bases = {c for c in every for d in every if d is not c and issubclass(d, c)}
    assert every - bases - tried <= {SavedSettings}, every - bases - tried


def test_the_difference_is_named():
    saved = flow.RealNVP((4,), layers=2, bound=2.0)
    with pytest.raises(
        ValueError, match=r"another AffineCoupling: bound is 2\.0 there and 3\.0 here"
    ):
        flow.RealNVP((4,), layers=2, bound=3.0).load_state_dict(saved.state_dict())
    # Whatever else is missing or left over.
    with pytest.raises(ValueError, match="levels is 6 there and 5 here"):
        properties.build("PixelCNN", (1, 2, 2), 5).load_state_dict(
            properties.build("PixelCNN", (1, 2, 2), 6).state_dict(), strict=False
        )
    state = saved.state_dict()
    state["_extra_state"] = torch.tensor([3, 4])
    with pytest.raises(ValueError, match="saved settings cannot be read"):
        flow.RealNVP((4,), layers=2).load_state_dict(state)


def test_numbers_of_other_libraries_are_settings_too():
    import numpy as np

    made = flow.RealNVP((4,), layers=2, bound=np.float32(2))
    flow.RealNVP((4,), layers=2, bound=2).load_state_dict(made.state_dict())
    made = flow.RealNVP((4,), layers=2, bound=torch.tensor(2.0))
    flow.RealNVP((4,), layers=2, bound=2).load_state_dict(made.state_dict())


@pytest.mark.parametrize("wrap", [nn.DataParallel, torch.compile, lambda m: AveragedModel(m)])
def test_wrapped_models_load(wrap):
    a, b = (ar.MADE((6,), 2, hidden=(8,), n_orderings=2, seed=seed) for seed in (0, 1))
    wrap(b).load_state_dict(wrap(a).state_dict())
    if wrap not in (nn.DataParallel, torch.compile):
        return  # the average is a copy of b
    assert same(outputs(b, a), outputs(a, a))


def test_averages_keep_orders():
    model = ar.MADE((40,), 2, hidden=(8,), n_orderings=3)
    average = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.9), use_buffers=False)
    for _ in range(5):
        average.update_parameters(model)
    other = ar.MADE((40,), 2, hidden=(8,), n_orderings=3, seed=9)
    other.load_state_dict(average.module.state_dict())
    assert torch.equal(other.orderings, model.orderings)


def test_a_state_dict_can_stand_for_the_parameters():
    model = flow.RealNVP((4,), layers=2)
    x = real((4,))
    called = torch.func.functional_call(model, model.state_dict(), x)
    assert same(called, model(x))


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_a_state_of_another_type_is_loaded(dtype):
    a, b = (ar.MADE((6,), 2, hidden=(8,), n_orderings=2, seed=seed) for seed in (0, 1))
    b.load_state_dict(a.to(dtype).state_dict())
    a.float()
    assert same(outputs(b, a), outputs(a, a))


def test_samplers_follow_weights_that_change():
    model = properties.build("GatedPixelCNN", (1, 4, 4), 3)
    model.sample(2)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(-1.5)
    properties.cached_is_naive(model)
    properties.cached_is_naive(model.double())
