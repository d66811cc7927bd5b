"""The masked network sees what it may, and the sampler that repeats no work changes nothing."""

import pytest
import torch

from course_lib.flow import MAF, MaskedAutoregressive, TarFlow
from course_lib.flow.checks import build
from course_lib.flow.fast.autoregressive import solve_once

pytestmark = pytest.mark.usefixtures("float64")
# Fewer, as many and more units than entries, one layer and several, a single entry, an image.
SHAPES = [((7,), (4, 9)), ((6,), (5,)), ((5,), (16, 3, 8)), ((1,), (4,)), ((1, 3, 4), (48, 48))]


@pytest.mark.parametrize(("event_shape", "hidden"), SHAPES)
def test_each_entry_depends_on_those_before_it_and_on_all_of_them(event_shape, hidden):
    layer = build(lambda: MaskedAutoregressive(event_shape, hidden), spread=1.0)
    features = layer.features
    reached = torch.zeros(features, features, dtype=torch.bool)
    for x in torch.randn(40, features):  # a single point can sit where units are off
        for part in (0, 1):
            jacobian = torch.autograd.functional.jacobian(
                lambda p, part=part: layer.conditionals(p[None])[part][0], x
            )
            assert torch.equal(jacobian.triu(), torch.zeros(features, features))
            reached |= jacobian != 0
    if min(hidden) >= features - 1:  # narrower layers cannot tell all entries apart
        assert reached[torch.ones(features, features).tril(-1).bool()].all()


@pytest.mark.parametrize(("event_shape", "hidden"), SHAPES)
def test_solving_once_equals_solving_by_passes(event_shape, hidden):
    layer = build(lambda: MaskedAutoregressive(event_shape, hidden), spread=0.5)
    z = torch.randn(9, layer.features)
    for fast, plain in zip(solve_once(layer, z), layer.solve_by_passes(z), strict=True):
        torch.testing.assert_close(fast, plain, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("bound", [0.5, 3.0, 10.0])
def test_solving_once_keeps_the_bound_of_the_log_scales(bound):
    layer = build(lambda: MaskedAutoregressive((6,), (16,), bound=bound), spread=1.0)
    z = torch.randn(9, 6)
    x, log_det = solve_once(layer, z)
    torch.testing.assert_close(layer(x)[0], z)
    torch.testing.assert_close(layer(x)[1], -log_det)


def test_solving_once_agrees_in_single_precision():
    layer = build(lambda: MaskedAutoregressive((64,), (96, 96)), spread=0.1).float()
    z = torch.randn(32, 64).float()
    fast, plain = solve_once(layer, z)[0], layer.solve_by_passes(z)[0]
    assert ((fast - plain).abs() / plain.abs().clamp(min=1)).max() < 1e-5


def test_samples_are_ordinary_tensors():
    x = build(lambda: MAF((3,), hidden=(8,))).sample(4)
    weight = torch.ones(3, requires_grad=True)
    (x * weight).sum().backward()  # a tensor of inference mode would refuse
    assert not x.requires_grad
    torch.testing.assert_close(weight.grad, x.sum(0))


@pytest.mark.parametrize(
    "model", [lambda: MAF((4,), hidden=(8,)), lambda: TarFlow((4,), width=4, heads=2, patch=2)]
)
@torch.no_grad()
def test_an_inverse_is_mapped_over_a_further_axis(model):
    flow, z = build(model), torch.randn(3, 5, 4)
    x, log_det = torch.vmap(flow.inverse)(z)
    for row, expected in enumerate(map(flow.inverse, z)):
        torch.testing.assert_close((x[row], log_det[row]), expected)
