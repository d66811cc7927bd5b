"""Grey levels: bounds in their order on a distribution that is known, and every Jacobian counted."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from course_lib.evaluation import bits_per_dim
from course_lib.flow import (
    DequantizedFlow,
    ElementwiseAffine,
    Flow,
    Logit,
    RealNVP,
    UniformDequantizer,
    VariationalDequantizer,
    density_bits_per_dim,
)
from course_lib.flow.checks import build
from course_lib.flow.dequantization import negative_dequantization_bound
from course_lib.flow.transform import Composition
from course_lib.protocols import Bound, Sampler
from course_lib.training import fit

pytestmark = pytest.mark.usefixtures("float64")
LEVELS = 5


def all_images(pixels: int, levels: int) -> torch.Tensor:
    return torch.cartesian_prod(*[torch.arange(levels)] * pixels).reshape(-1, pixels)


def exact_log_prob(flow: Flow, x: torch.Tensor, levels: int) -> torch.Tensor:
    """log P(x) of two pixels, by Gaussian quadrature over each image's box."""
    nodes, weights = (torch.as_tensor(v) for v in np.polynomial.legendre.leggauss(80))
    u = torch.cartesian_prod(*[(nodes + 1) / 2] * 2)
    log_weight = torch.cartesian_prod(*[(weights / 2).log()] * 2).sum(1)
    y = (x[:, None] + u) / levels
    log_p = flow.log_prob(y.flatten(0, 1)).reshape(len(x), -1)
    return (log_p + log_weight).logsumexp(1) - 2 * math.log(levels)


@pytest.fixture(scope="module", name="toy")
def _toy():
    """A flow on two pixels that is trained a little, with a learned distribution of the noise."""
    torch.set_default_dtype(torch.float64)
    torch.manual_seed(0)
    # Sharp enough within the boxes that the noise matters; a sharper one gives weights whose variance a
    # few thousand draws do not show.
    flow = build(lambda: RealNVP((2,), layers=4, hidden=(16,), logit_margin=0.05), spread=0.15)
    model = DequantizedFlow(flow, LEVELS, VariationalDequantizer((2,), hidden=(32,)).double())
    for parameter in flow.parameters():
        parameter.requires_grad_(False)  # only the noise is learned: the truth stays what it is
    images = all_images(2, LEVELS)
    with torch.no_grad():
        log_mass = exact_log_prob(flow, images, LEVELS)
    fit(
        model,
        negative_dequantization_bound,
        images.repeat(16, 1),
        steps=500,
        batch_size=200,
        learning_rate=5e-3,
        accelerator="cpu",
        precision="64-true",
        progress=False,
    )
    yield model, images, log_mass
    torch.set_default_dtype(torch.float32)


def test_uniform_is_below_variational_is_below_the_truth(toy):
    model, images, log_mass = toy
    many = images.repeat_interleave(1000, 0)
    bounds = {}
    with torch.no_grad():
        for name, dequantizer in (("uniform", None), ("variational", model.dequantizer)):
            bound = DequantizedFlow(model.flow, LEVELS, dequantizer).elbo(many)
            bounds[name] = bound.reshape(len(images), -1)
    error = {n: (b.std(1) / math.sqrt(1000)).square().mean().sqrt() for n, b in bounds.items()}
    mean = {name: bound.mean() for name, bound in bounds.items()}
    slack = 4 / math.sqrt(len(images))
    assert mean["uniform"] < mean["variational"] - slack * (error["uniform"] + error["variational"])
    assert mean["variational"] < log_mass.mean() - slack * error["variational"]
    # In bits per dimension the order is turned around: uniform ≥ variational ≥ the truth.
    bits = [bits_per_dim(v, (2,)) for v in (mean["uniform"], mean["variational"], log_mass.mean())]
    assert bits[0] > bits[1] > bits[2]


@pytest.mark.parametrize("kind", ["uniform", "variational"])
def test_the_mean_weight_is_the_probability(toy, kind):
    # Unbiasedness holds only if every Jacobian is counted: D log K, the logit's, the sigmoid's.
    model, images, log_mass = toy
    dequantizer = None if kind == "uniform" else model.dequantizer
    model = DequantizedFlow(model.flow, LEVELS, dequantizer)
    n = 4000
    with torch.no_grad():
        weight = model.log_weight(images.repeat_interleave(n, 0)).exp().reshape(len(images), n)
    error = weight.std(1) / math.sqrt(n)
    deviation = (weight.mean(1) - log_mass.exp()) / error
    assert deviation.abs().max() < 4.5
    assert deviation.square().mean() < 2.5  # all of them together


def test_importance_bound_tends_to_the_truth_from_below(toy):
    model, images, log_mass = toy
    uniform = DequantizedFlow(model.flow, LEVELS)
    with torch.no_grad():
        bounds = [uniform.importance_bound(images.repeat(300, 1), k).mean() for k in (1, 4, 32)]
        # One draw is the bound itself.
        torch.manual_seed(1)
        one = uniform.importance_bound(images, 1)
        torch.manual_seed(1)
        torch.testing.assert_close(one, uniform.elbo(images))
    assert bounds[0] < bounds[1] < bounds[2] < log_mass.mean() + 0.01
    assert bounds[2] > log_mass.mean() - 0.5 * (log_mass.mean() - bounds[0])


def test_density_of_the_noise_is_that_of_its_samples():
    # q(u|x) on the unit square: counts in cells against cells' masses found by inversion.
    dequantizer = build(lambda: VariationalDequantizer((2,), hidden=(16,)), spread=0.5)
    image = torch.tensor([[1, 3]])
    n, cells = 40_000, 6
    with torch.no_grad():
        y, log_q = dequantizer(image.expand(n, 2), LEVELS)
    u = y * LEVELS - image
    assert u.min() >= 0
    assert u.max() <= 1
    # E[1/q] over draws that fall into a cell is the cell's area.
    index = (u * cells).long().clamp(max=cells - 1) @ torch.tensor([cells, 1])
    inverse = (-log_q).exp()
    for cell in range(cells**2):
        values = torch.where(index == cell, inverse, 0.0)
        if (values > 0).sum() > 200:
            error = values.std() / math.sqrt(n)
            assert abs(values.mean() - 1 / cells**2) < 4.5 * error


def test_a_flat_flow_needs_log2_of_the_levels():
    class Sigmoid(nn.Module):  # a flow whose density is 1 on the unit cube, without a margin
        event_shape = (1, 2, 3)

        def log_prob(self, y):
            return y.new_zeros(len(y))

    images = torch.randint(0, 256, (7, 1, 2, 3))
    value = DequantizedFlow(Sigmoid(), 256).elbo(images)
    torch.testing.assert_close(bits_per_dim(value, (1, 2, 3)), torch.full((7,), 8.0))


def test_bits_from_a_density_and_from_a_probability_agree():
    flow = build(lambda: RealNVP((1, 4, 4), layers=2, hidden=(8,), logit_margin=0.05))
    model = DequantizedFlow(flow, LEVELS)
    images = torch.randint(0, LEVELS, (3, 1, 4, 4))
    noise = torch.Generator().manual_seed(0)
    value = bits_per_dim(model.elbo(images, generator=noise), (1, 4, 4))
    y = UniformDequantizer()(images, LEVELS, torch.Generator().manual_seed(0))[0]
    torch.testing.assert_close(value, density_bits_per_dim(flow.log_prob(y), (1, 4, 4), LEVELS))


def test_levels_survive_dequantization():
    flow = Flow(Composition([Logit((1, 2, 2)), ElementwiseAffine((1, 2, 2))])).double()
    images = torch.randint(0, LEVELS, (50, 1, 2, 2))
    for dequantizer in (UniformDequantizer(), VariationalDequantizer((1, 2, 2)).double()):
        model = DequantizedFlow(flow, LEVELS, dequantizer)
        y, _ = model.dequantizer(images, LEVELS)
        assert torch.equal(model.to_levels(y), images)


@pytest.mark.parametrize("kind", ["uniform", "variational"])
def test_levels_take_the_precision_of_the_flow(kind):
    """Integers carry none: a model can be moved to another precision than the default."""
    dequantizer = VariationalDequantizer((1, 2, 2)) if kind == "variational" else None
    images = torch.randint(0, LEVELS, (3, 1, 2, 2))
    for dtype in (torch.float32, torch.float64):  # the default is float64 here
        flow = build(lambda: RealNVP((1, 2, 2), layers=2, logit_margin=0.05))
        model = DequantizedFlow(flow, LEVELS, dequantizer).to(dtype)
        value = model.elbo(images)
        assert value.dtype == dtype
        assert value.isfinite().all()
    # A dequantizer of another precision than the flow's does not decide either.
    value = DequantizedFlow(flow.float(), LEVELS, dequantizer).elbo(images)
    assert value.dtype == torch.float32


def test_samples_are_grey_levels_and_reproducible():
    model = DequantizedFlow(build(lambda: RealNVP((1, 2, 2), layers=2, logit_margin=0.05)), LEVELS)
    first, second = (model.sample(20, generator=torch.Generator().manual_seed(3)) for _ in "ab")
    assert isinstance(model, Bound)
    assert isinstance(model, Sampler)
    assert torch.equal(first, second)
    assert first.dtype == torch.int64
    assert first.min() >= 0
    assert first.max() < LEVELS


def test_one_entry_needs_one_coupling():
    with pytest.raises(ValueError, match="layers=1"):
        VariationalDequantizer((1,))
    y, log_q = VariationalDequantizer((1,), layers=1)(torch.tensor([[0], [3]]), 4)
    assert ((y * 4).floor().flatten() == torch.tensor([0, 3])).all()
    assert log_q.isfinite().all()
