"""What the library does on the CPU it does on another device, with the same result and nothing mixed.

    python -m tests.second_device.checks

Prints one JSON line for each check: its name, and what went wrong or null. See `simulated`.
"""

import contextlib
import copy
import gc
import json
import tempfile
import traceback
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

from tests.second_device.simulated import SECOND, MixedDevicesError, second_fabric  # isort: skip

import torch
from torch import Tensor, nn

from course_lib import autoregressive as ar
from course_lib import (
    distributions,
    divergences,
    evaluation,
    flow,
    flow_matching,
    gan,
    mmd,
    training,
    vae,
)
from course_lib.data import Dataset, binarize, digits, intensities
from course_lib.experiments import RECIPES, running
from course_lib.families import FAMILIES
from course_lib.flow import checks as flow_checks
from course_lib.training import loop
from tests.autoregressive import properties

loop.Fabric = second_fabric

Place = Callable[[object], object]
Check = Callable[[Place], Iterator[Tensor]]
CHECKS: dict[str, Check] = {}
MOVED: set[type[nn.Module]] = set()  # the kinds of modules that a check has run on the second place


def check(function: Check) -> Check:
    """Enter a check under the name of its function."""
    CHECKS[function.__name__.replace("_", " ")] = function
    return function


def stay(x):
    """The first place: the CPU."""
    return x


def move(x):
    """The second place."""
    if isinstance(x, nn.Module):
        MOVED.update(map(type, x.modules()))
        return copy.deepcopy(x).to(SECOND)
    return (
        torch.Generator(SECOND).manual_seed(1) if isinstance(x, torch.Generator) else x.to(SECOND)
    )


def source() -> torch.Generator:
    return torch.Generator().manual_seed(1)


def with_gradients(model: nn.Module, log_prob: Tensor) -> Iterator[Tensor]:
    yield log_prob
    log_prob.sum().backward()
    yield from (p.grad for p in model.parameters() if p.grad is not None)


# Autoregressive models. --------------------------------------------------------------------------


def autoregressive(name: str) -> Check:
    def run(place: Place) -> Iterator[Tensor]:
        conditional = {"n_classes": 3} if name == "GatedPixelCNN" else {}
        torch.manual_seed(0)
        model = place(properties.build(name, (1, 3, 3), 4, **conditional))
        labels = {"labels": place(torch.tensor([2, 0, 1]))} if conditional else {}
        x = place(torch.randint(4, (3, *model.event_shape), generator=source()))
        yield from with_gradients(model, model.log_prob(x, **labels))
        known = place(torch.arange(9).view(model.event_shape) < 4)
        for cached in (True, False):
            yield model.sample(3, generator=place(source()), cached=cached, **labels)
            yield model.complete(x, known, generator=place(source()), cached=cached, **labels)

    return run


CHECKS |= {name: autoregressive(name) for name in properties.MODELS}


@check
def vector_quantization(place):
    torch.manual_seed(0)
    model = place(vae.VQVAE((1, 4, 4), 6, channels=4, likelihood=distributions.Categorical(4)))
    x = place(torch.randint(4, (3, 1, 4, 4), generator=source()) / 3)
    yield from with_gradients(model, vae.VQObjective()(model, x, None)["loss"])
    yield from (model.codes(x), model.elbo(x), vae.perplexity(model.codes(x), 6))
    yield model.sample(2, generator=place(source()))
    model.restart_unused(x, generator=place(source()))
    yield model.codebook


@check
def masked_diffusion(place):
    for network in ({"hidden": (6,)}, {"channels": 4, "n_blocks": 1}):
        torch.manual_seed(0)
        model = place(ar.MaskedDiffusion((1, 3, 3), 4, **network))
        x = place(torch.randint(4, (3, *model.event_shape), generator=source()))
        order = place(torch.randperm(9, generator=source()))
        yield from with_gradients(model, model.log_prob(x, order=order))
        known = place(torch.arange(9).view(model.event_shape) < 4)
        yield model.sample(3, order=order, generator=place(source()))
        yield model.complete(x, known, order=order, at_once=2, generator=place(source()))


@check
def mixture_of_logistics(place):
    torch.manual_seed(0)
    model = place(
        ar.PixelCNN(
            (1, 3, 3), 8, channels=6, distribution=distributions.DiscretizedLogisticMixture(8, 2)
        )
    )
    x = place(torch.randint(8, (3, 1, 3, 3), generator=source()))
    yield model.log_prob(x)
    yield model.sample(2, generator=place(source()))


# Flows. -----------------------------------------------------------------------------------------


def normalizing_flow(name: str) -> Check:
    def run(place: Place) -> Iterator[Tensor]:
        model = flow_checks.build(flow_checks.MODELS[name])
        x, model = place(flow_checks.probe(model)), place(model)
        yield from with_gradients(model, model.log_prob(x))
        yield from model.inverse(model(x)[0])
        yield model.sample(4, generator=place(source()))
        yield model.interpolate(x[:2], x[2:4], 3)

    return run


CHECKS |= {name: normalizing_flow(name) for name in flow_checks.MODELS}


def transform(name: str) -> Check:
    def run(place: Place) -> Iterator[Tensor]:
        module = flow_checks.build(flow_checks.TRANSFORMS[name])
        x, module = place(flow_checks.probe(module)), place(module)
        z, log_det = module(x)
        yield from (z, log_det, *module.inverse(z))

    return run


CHECKS |= {f"transform {name}": transform(name) for name in flow_checks.TRANSFORMS}


@check
def activations_are_normalized(place):
    model = flow.Glow((1, 4, 4), width=8, steps=2)
    model = place(model)
    model.initialize(place(torch.rand(20, 1, 4, 4, generator=source())))
    yield model.log_prob(place(torch.rand(3, 1, 4, 4, generator=source())))


@check
def dequantization(place):
    for variational in (False, True):
        torch.manual_seed(0)
        noise = flow.VariationalDequantizer((1, 4, 4)) if variational else None
        model = flow.DequantizedFlow(flow.RealNVP((1, 4, 4), logit_margin=0.05), 8, noise)
        model, x = place(model), place(torch.randint(8, (3, 1, 4, 4), generator=source()))
        yield model.elbo(x)
        yield model.importance_bound(x, 3)
        yield model.sample(2, generator=place(source()))


# Variational autoencoders. ------------------------------------------------------------------------


@check
def variational_autoencoders(place):
    torch.manual_seed(0)
    model = place(vae.VAE((1, 4, 4), 2, hidden=(8,)))
    x = place(torch.rand(3, 1, 4, 4, generator=source()).round())
    yield from vae.elbo_terms(model, x, 4)
    yield vae.iwae_bound(model, x, 4)
    yield from vae.log_likelihood_with_error(model, x, 5)
    yield vae.prior_log_likelihood(model, x, 5)
    yield vae.quadrature_log_likelihood(model, x, n_points=5)
    yield model.sample(3, generator=place(source()))
    mean = model.encode(x).mean
    yield vae.interpolate(mean[0], mean[1], 3)
    yield vae.interpolate(mean[0], mean[1], 3, spherical=True)
    yield vae.traversal(mean[0], 1, place(torch.linspace(-1, 1, 3)))
    yield from vae.kl_decomposition(mean, torch.zeros_like(mean), mean + 0.1)
    yield mmd.mmd(mean, mean + 1)
    for loss in (vae.NegativeELBO(warm_up=0.5), vae.NegativeIWAEBound(3)):
        yield loss(model, x, place(torch.tensor(0.2)))["loss"]


@check
def other_autoencoders(place):
    torch.manual_seed(0)
    x = place(torch.rand(4, 1, 4, 4, generator=source()))
    wae = place(vae.WAE((1, 4, 4), 2))
    yield wae.sample(3, generator=place(source()))
    for model in (wae, place(vae.Autoencoder((1, 4, 4), 2))):
        yield model(x)
    weight = torch.tensor([[1.0, 0.5], [0.2, -1.0], [0.0, 0.3]])
    linear = place(vae.LinearGaussian(weight, torch.zeros(3), 0.5))
    points = place(torch.randn(3, 3, generator=source()))
    yield linear.log_prob(points)
    yield vae.elbo(linear, points, 3)
    yield linear.sample(3, generator=place(source()))


# Adversarial networks. ------------------------------------------------------------------------------


@check
def adversarial_networks(place):
    pairs = (
        (gan.Generator((1, 8, 8), n_classes=3), gan.Discriminator((1, 8, 8), n_classes=3)),
        (gan.ConvGenerator((1, 8, 8), n_classes=3), gan.ConvDiscriminator((1, 8, 8), n_classes=3)),
    )
    labels = place(torch.tensor([0, 2, 1, 0]))
    real = place(torch.rand(4, 1, 8, 8, generator=source()))
    for generator, discriminator in pairs:
        with torch.no_grad():
            for seed, p in enumerate([*generator.parameters(), *discriminator.parameters()]):
                p.normal_(0, 0.1, generator=torch.Generator().manual_seed(seed))
        generator, discriminator = place(generator), place(discriminator)
        fake = generator.sample(4, labels=labels, generator=place(source()))
        yield fake
        yield discriminator(fake, labels)

        def judge(x, critic=discriminator):
            return critic(x, labels)

        yield gan.gradient_penalty(judge, real, fake)
        yield gan.r1_penalty(judge, real)
        yield gan.roth_penalty(judge, real, fake)


# Flow matching. -----------------------------------------------------------------------------------


@check
def flow_matching_models(place):
    torch.manual_seed(0)
    grey = torch.randint(5, (4, 1, 4, 4), generator=source())
    model = flow_matching.VelocityFlow((1, 4, 4), 5, channels=2, n_blocks=1, n_classes=3)
    model.initialize(grey)
    model, x, labels = place(model), place(grey), place(torch.tensor([2, 0, 1, 0]))
    y = model.fill(x, generator=place(source()))
    yield from model.log_prob_with_error(y, labels, steps=2)
    yield model.log_prob(y, labels, steps=1, n_probes=2, generator=place(source()))
    yield model.elbo(x, labels=labels, steps=1, generator=place(source()))
    yield model.sample(4, labels=labels, steps=2, generator=place(source()))
    pairs = flow_matching.reflow_pairs(model, 4, steps=1, labels=labels, generator=place(source()))
    yield from pairs
    for loss, batch in (
        (flow_matching.FlowMatching(coupling="optimal"), (x, labels)),
        (flow_matching.FlowMatching(given_noise=True), pairs),
    ):
        loss(model, batch, place(torch.tensor(0.2))).backward()  # the noise is the global one's
    other = flow_matching.MeanFlow((1, 4, 4), 5, hidden=(8,))
    other.initialize(grey)
    other = place(other)
    yield other.sample(3, steps=2, generator=place(source()))
    # The simulated device knows no derivatives forwards, which the loss takes: its parts without them.
    r, t = flow_matching.MeanFlowLoss().intervals(other.prior(4))
    yield from with_gradients(
        other, other(other.fill(x, generator=place(source())), 0 * r, 0 * t + 1)
    )


# What is measured. --------------------------------------------------------------------------------


@check
def measures(place):
    x, y = (place(torch.randn(40, 3, generator=source()) + shift) for shift in (0, 1))
    yield from evaluation.nearest_neighbours(x, y)
    yield evaluation.frechet_distance(x, y)
    yield evaluation.kernel_distance(x, y)
    covered = evaluation.precision_recall(x, y)
    yield from (torch.as_tensor(v, device=x.device) for v in (covered.precision, covered.recall))
    yield divergences.wasserstein_1d(x[:, 0], y[:, 0])
    yield divergences.kl_standard_normal(x, y)
    cov = x.T.cov() + 0.1 * torch.eye(3, device=x.device)
    yield divergences.kl_gaussian(x[0], cov, y[0], 2 * cov)
    yield divergences.js_discrete(x[0].softmax(0), y[0].softmax(0))


# Training. ---------------------------------------------------------------------------------------


def train(place: Place, checkpoint: Path | None = None, stop: int | None = None) -> Tensor:
    """A short training with all that it offers; returns the trained weights."""
    data = digits()
    grey, here = intensities(data.train, data.levels), "cpu" if place is stay else SECOND.type

    def callback(step: int, model: nn.Module) -> None:
        assert next(model.parameters()).device.type == here
        if step == stop:
            raise KeyboardInterrupt

    torch.manual_seed(0)
    model = vae.VAE(data.event_shape, 2, hidden=(16,))
    training.fit(
        model,
        vae.NegativeELBO(),
        grey,
        validation=grey[:50],
        steps=12,
        batch_size=16,
        transform=lambda x, generator: binarize(x, generator=generator),
        callback=callback,
        ema=0.9,
        gradient_clip=1.0,
        evaluate_every=3,
        checkpoint=checkpoint,
        checkpoint_every=3,
        progress=False,
        accelerator="cpu" if place is stay else "auto",
    )
    assert all(p.device.type == "cpu" for p in model.parameters())
    return nn.utils.parameters_to_vector(model.parameters()).detach()


@check
def training_goes_on_after_a_stop(place):
    whole = train(place)
    with tempfile.TemporaryDirectory() as folder:
        checkpoint = Path(folder) / "run.pt"
        with contextlib.suppress(KeyboardInterrupt):
            train(place, checkpoint, stop=6)
        assert checkpoint.exists()
        assert torch.equal(train(place, checkpoint), whole)
    yield place(whole)


@check
def a_game_of_two_players(place):
    torch.manual_seed(0)
    model = gan.GAN(gan.Generator((1, 8, 8)), gan.Discriminator((1, 8, 8)))
    training.fit(
        model,
        gan.players(penalty=gan.gradient_penalty, discriminator_updates=2),
        intensities(digits().train, 17),
        steps=4,
        batch_size=16,
        ema=0.9,
        progress=False,
        accelerator="cpu" if place is stay else "auto",
    )
    MOVED.add(gan.GAN)
    yield place(nn.utils.parameters_to_vector(model.parameters()).detach())


def recipe(key: tuple[str, str, str]) -> Check:
    """Two steps of a recorded run, with few examples."""
    data, model, budget = key

    def run(place: Place) -> Iterator[Tensor]:
        if place is stay:
            return  # `running.run` takes the accelerator: there is nothing to compare it with
        record = running.run(model, data, budget=budget, steps=2, progress=False)
        MOVED.add(FAMILIES[RECIPES[key].family].model(model))
        yield place(torch.tensor([metric.value for metric in record.metrics.values()]))

    return run


def few_digits(name: str) -> Dataset:
    data = digits()
    return replace(data, validation=data.validation[:10], test=data.test[:10])


running.load = few_digits
for key, settings in RECIPES.items():
    if key[0] == "digits":
        changes = {
            "batch_size": 4,
            "dequantization_samples": 2,
            "evaluations": 1,
            "solver_steps": 2,
        }
        own = {name: value for name, value in changes.items() if hasattr(settings, name)}
        RECIPES[key] = replace(settings, **own)
        CHECKS["recipe " + " ".join(key)] = recipe(key)


# The device itself. ------------------------------------------------------------------------------


@check
def what_is_mixed_is_noticed(place):
    if place is stay:
        return ()
    x, layer = torch.randn(3, 2), nn.Linear(2, 1)
    mixtures = (
        lambda: move(layer)(x),
        lambda: move(x) + x,
        lambda: torch.cat([move(x), x]),
        lambda: torch.where(move(x) > 0, x, move(x)),
        lambda: x[move(torch.tensor([0]))],
        lambda: move(x).index_put((torch.tensor([0]),), x[:1]),
        lambda: torch.rand(2, device=SECOND, generator=source()),
        lambda: torch.rand(2, generator=move(source())),
        lambda: move(x).normal_(generator=source()),
    )
    for mixture in mixtures:
        try:
            mixture()
        except MixedDevicesError:
            continue
        raise AssertionError("a mixture of two devices was not noticed")
    return ()


def problem(run: Check) -> str | None:
    """What is wrong with a check, if anything."""
    try:
        torch.manual_seed(1)
        expected = [x.detach() for x in run(stay)]
        torch.manual_seed(1)
        found = [x.detach() for x in run(move)]
        for index, x in enumerate(found):
            assert x.device.type == SECOND.type, f"result {index} is on the CPU"
        for index, (x, y) in enumerate(zip(found, expected, strict=bool(expected))):
            torch.testing.assert_close(
                x.cpu(), y, equal_nan=True, msg=lambda m, i=index: f"result {i}: {m}"
            )
    except Exception as error:
        where = traceback.extract_tb(error.__traceback__)
        lines = [
            f"{Path(f.filename).name}:{f.lineno}"
            for f in where
            if "site-packages" not in f.filename
        ]
        return f"{type(error).__name__} ({', '.join(lines)}): {error}"
    return None


def unmoved() -> list[str]:
    """Models of the families that no check has moved."""
    return sorted(
        f"{family.name}.{model.__name__}"
        for family in FAMILIES.values()
        for model in family.models
        if model not in MOVED
    )


if __name__ == "__main__":
    # Each module that is moved collects garbage first (see `simulated`). What was imported is none: looking
    # through all of it each time would take nine tenths of the whole time.
    gc.freeze()
    for name, run in CHECKS.items():
        print(json.dumps([name, problem(run)]), flush=True)
    left = ", ".join(unmoved())
    print(json.dumps(["every model of a family", f"no check moves {left}" if left else None]))
