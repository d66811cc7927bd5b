"""Every transform and every model, held to the same properties."""

import math

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import course_lib.flow as flow
from course_lib.flow.checks import (
    MODELS,
    PLANE_MODELS,
    TRANSFORMS,
    build,
    integral_2d,
    jacobian_error,
    probe,
    round_trip_error,
)

pytestmark = pytest.mark.usefixtures("float64")
ALL = TRANSFORMS | MODELS
# What moves entries, or shifts them, preserves volume: there the log-determinant is to be 0.
VOLUME_PRESERVING = {"AdditiveCoupling", "Permutation", "Squeeze"}


@pytest.fixture(params=ALL, name="case")
def _case(request):
    transform = build(ALL[request.param])
    return request.param, transform, probe(transform)


def test_registry_is_complete():
    exported = {getattr(flow, name) for name in flow.__all__}
    classes = {c for c in exported if isinstance(c, type) and issubclass(c, flow.Transform)}
    abstract = {flow.Transform, flow.Coupling, flow.Flow, flow.AutoregressiveTransform}
    assert {type(make()) for make in ALL.values()} == classes - abstract


def test_log_determinant_is_that_of_the_autograd_jacobian(case):
    name, transform, x = case
    forward, inverse = jacobian_error(transform, x)
    assert forward < 1e-8
    assert inverse < 1e-8
    size = transform(x)[1].abs().max()  # the probe is not degenerate
    assert size == 0 if name in VOLUME_PRESERVING else size > 0.05


def test_round_trip(case):
    _, transform, x = case
    assert round_trip_error(transform, x) < 1e-9
    # Latents that a logit's sigmoid does not round to 1.
    z = 0.3 * torch.randn(6, *transform.latent_shape)
    assert round_trip_error(flow.Inverse(transform), z) < 1e-9


def test_checks_do_not_forget_an_error_that_is_no_number():
    class Broken(flow.Transform):
        def _forward(self, x):
            return 2 * x, x.new_full((len(x),), math.nan)

        def _inverse(self, z):
            return z / 2, z.new_full((len(z),), math.nan)

    x = torch.randn(3, 2)
    assert math.isnan(round_trip_error(Broken((2,)), x))
    assert all(math.isnan(error) for error in jacobian_error(Broken((2,)), x))


def test_examples_do_not_see_one_another(case):
    _, transform, x = case
    together = transform(x)
    apart = [torch.cat(parts) for parts in zip(*(transform(p[None]) for p in x), strict=True)]
    torch.testing.assert_close(list(together), apart, rtol=0, atol=1e-12)


def test_float64_parameters_reach_the_result(case):
    _, transform, x = case
    for result in (*transform(x), *transform.inverse(transform(x)[0])):
        assert result.dtype == torch.float64


def test_gradients_reach_every_parameter_in_both_directions(case):
    _, transform, x = case
    parameters = [p for p in transform.parameters() if p.requires_grad]
    if not parameters:
        return
    z = transform(x)[0].detach()
    for function, point in ((transform, x), (transform.inverse, z)):
        y, log_det = function(point)
        gradients = torch.autograd.grad((y.square().sum() + log_det.sum()), parameters)
        assert all(g.isfinite().all() for g in gradients)
        assert all(g.abs().max() > 0 for g in gradients)


# Compositions of transforms that are checked one by one are left out, and what has no parameters.
WITH_PARAMETERS = [n for n in TRANSFORMS if n not in ("Logit", "Permutation", "Squeeze")]


@pytest.mark.parametrize("name", [*WITH_PARAMETERS, "PlanarFlow", "IAF"])
def test_gradient_of_the_inverse_is_that_of_finite_differences(name):
    transform = build(ALL[name])
    parameters = list(transform.parameters())
    z = transform(probe(transform, 3))[0].detach()

    def value():
        x, log_det = transform.inverse(z)
        return x.square().sum() + (log_det * torch.arange(1.0, 4.0)).sum()

    gradient = torch.autograd.grad(value(), parameters)
    step = 1e-6
    for parameter, slope in zip(parameters, gradient, strict=True):
        direction = torch.randn_like(parameter)
        with torch.no_grad():
            parameter += step * direction
            above = value()
            parameter -= 2 * step * direction
            below = value()
            parameter += step * direction
        torch.testing.assert_close(
            (slope * direction).sum(), (above - below) / (2 * step), rtol=1e-5, atol=1e-6
        )


class _Devices(TorchDispatchMode):
    """Collects the devices of all tensors that are made."""

    def __init__(self):
        super().__init__()
        self.found = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        self.found |= {r.device.type for r in tree_leaves(result) if isinstance(r, torch.Tensor)}
        return result


def test_nothing_is_made_on_another_device():
    # The logit looks at values, of which this device has none.
    for name in [n for n in TRANSFORMS if n != "Logit"]:
        transform = build(TRANSFORMS[name]).to("meta")
        z = probe(transform).to("meta")
        with _Devices() as devices:
            transform(z)
        assert devices.found <= {"meta"}, name


def test_second_derivatives_of_the_planar_inverse():
    transform = build(TRANSFORMS["Planar"])
    z = transform(probe(transform, 3))[0].detach().requires_grad_()
    assert torch.autograd.gradgradcheck(transform.inverse, z)


@pytest.mark.parametrize("name", ALL)
def test_no_overflow_fifty_standard_deviations_out(name):
    torch.set_default_dtype(torch.float32)  # the fixture sets it back
    transform = build(ALL[name], spread=0.5).float()
    x = probe(transform, 64).float()
    if not any(isinstance(module, flow.Logit) for module in transform.modules()):
        x = 50 * torch.randn(64, *transform.event_shape).sign()
    z = 50 * torch.randn(64, *transform.latent_shape).sign()
    for result in (*transform(x), *transform.inverse(z)):
        assert result.isfinite().all()
    if isinstance(transform, flow.Flow):
        assert transform.log_prob(x).isfinite().all()


@pytest.mark.parametrize("name", PLANE_MODELS)
def test_density_of_the_plane_integrates_to_one(name):
    model = build(PLANE_MODELS[name], spread=0.2)
    assert integral_2d(model.log_prob, limit=16, n_points=601) == pytest.approx(1, abs=1e-3)


@pytest.mark.parametrize("name", PLANE_MODELS)
def test_samples_agree_with_the_density(name):
    # Counts in cells against the density's integrals over them: Pearson's statistic.
    model = build(PLANE_MODELS[name], spread=0.2)
    limit, cells, inner = 8.0, 16, 24
    step = 2 * limit / (cells * inner)
    side = -limit + step * (torch.arange(cells * inner) + 0.5)
    with torch.no_grad():
        mass = model.log_prob(torch.cartesian_prod(side, side)).exp() * step**2
    mass = mass.reshape(cells, inner, cells, inner).sum((1, 3)).flatten()
    n = 20_000
    x = model.sample(n, generator=torch.Generator().manual_seed(1))
    index = ((x + limit) / (2 * limit) * cells).floor().long()
    inside = ((index >= 0) & (index < cells)).all(1)
    counts = torch.bincount(index[inside] @ torch.tensor([cells, 1]), minlength=cells**2)
    usual = n * mass > 8
    expected = torch.cat([n * mass[usual], n - (n * mass[usual]).sum()[None]])
    observed = torch.cat([counts[usual], n - counts[usual].sum()[None]])
    statistic = ((observed - expected).square() / expected).sum()
    freedom = usual.sum()
    assert freedom > 15
    assert abs(statistic - freedom) < 4.5 * math.sqrt(2 * freedom)


@pytest.mark.parametrize("name", ["RealNVP, images", "MultiScaleRealNVP", "Glow"])
def test_density_of_images_integrates_to_one(name):
    # Too many dimensions for a grid: importance sampling in the space of logits, from a distribution with
    # heavier tails than the model's. The mean weight is the integral.
    shapes = {
        "RealNVP, images": lambda: flow.RealNVP((1, 2, 2), hidden=(16,), layers=4),
        "MultiScaleRealNVP": lambda: flow.MultiScaleRealNVP(
            (1, 2, 2), scales=1, width=8, couplings=2
        ),
        "Glow": lambda: flow.Glow((1, 2, 2), scales=1, width=8, steps=3),
    }
    model = build(shapes[name], spread=0.1)
    model.initialize(torch.randn(100, 1, 2, 2))
    proposal = torch.distributions.StudentT(4.0, 0.0, 1.5)
    x = proposal.sample((40_000, 1, 2, 2))
    with torch.no_grad():
        weight = (model.log_prob(x) - proposal.log_prob(x).sum((1, 2, 3))).exp()
    error = weight.std() / math.sqrt(len(x))
    assert error < 0.02
    assert abs(weight.mean() - 1) < 4 * error
