"""The displayed equations of the chapter, each by a route independent of its formula."""

import itertools

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from course_lib.autoregressive import MADE
from course_lib.autoregressive.diagonal_bilstm import skew
from course_lib.autoregressive.gated_pixelcnn import gated_unit
from course_lib.autoregressive.masks import pixelcnn_mask
from course_lib.autoregressive.row_lstm import lstm_cell
from course_lib.autoregressive.wavenet import receptive_field
from course_lib.distributions import (
    Categorical,
    DiscretizedLogisticMixture,
    GreyLevels,
    discretized_logistic_log_mass,
)
from course_lib.masked import made_mask

pytestmark = pytest.mark.usefixtures("float64")


def conditional(p, i, given):
    """p(x_i | x_given) of a joint table, shaped to broadcast against it."""
    others = [j for j in range(p.dim()) if j != i and j not in given]
    both = p.sum(others, keepdim=True) if others else p
    return both / both.sum(i, keepdim=True)


@pytest.mark.equation(
    "eq-chain-rule",
    formula=lambda p, order: torch.stack(
        [conditional(p, i, order[:place]).expand_as(p) for place, i in enumerate(order)]
    ).prod(0),
    wrong={
        "only the dimension just before as context": lambda p, order: torch.stack(
            [
                conditional(p, i, order[max(0, place - 1) : place]).expand_as(p)
                for place, i in enumerate(order)
            ]
        ).prod(0),
        "marginals instead of conditionals": lambda p, order: torch.stack(
            [conditional(p, i, []).expand_as(p) for i in order]
        ).prod(0),
        "last factor dropped": lambda p, order: torch.stack(
            [conditional(p, i, order[:place]).expand_as(p) for place, i in enumerate(order[:-1])]
        ).prod(0),
    },
)
def test_chain_rule(formula):
    p = torch.rand(2, 3, 2, 4)
    p /= p.sum()
    for order in itertools.permutations(range(4)):
        torch.testing.assert_close(formula(p, list(order)), p)


@pytest.mark.equation(
    "eq-made-mask",
    formula=made_mask,
    wrong={
        "outputs not strict": lambda read, readers, strict=False: made_mask(read, readers),
        "hidden layers strict": lambda read, readers, strict=False: made_mask(
            read, readers, strict=True
        ),
        "degrees swapped": lambda read, readers, strict=False: (
            made_mask(readers, read, strict=strict).T
        ),
    },
    implemented_by="course_lib.masked.made_mask",
)
def test_made_mask(formula):
    D, inputs = 5, torch.randperm(5)
    first, second = torch.randint(0, D - 1, (7,)), torch.randint(0, D - 1, (6,))
    masks = formula(second, inputs, strict=True), formula(first, second), formula(inputs, first)
    product = torch.linalg.multi_dot([mask.double() for mask in masks])
    # Number of paths from input j to output i, counted one by one.
    for i, j in itertools.product(range(D), repeat=2):
        paths = sum(inputs[j] <= a <= b < inputs[i] for a, b in itertools.product(first, second))
        assert product[i, j] == paths
    assert (product[inputs.argsort()][:, inputs.argsort()].triu() == 0).all()


@pytest.mark.equation(
    "eq-pixelcnn-mask",
    formula=pixelcnn_mask,
    wrong={
        "kinds exchanged": lambda kind, *a, **k: pixelcnn_mask("BA"["AB".index(kind)], *a, **k),
        "rows and columns exchanged": lambda *a, **k: pixelcnn_mask(*a, **k).transpose(2, 3),
        "colours in reverse": lambda *a, **k: pixelcnn_mask(*a, **k).flip(1),
    },
    implemented_by="course_lib.autoregressive.masks.pixelcnn_mask",
)
def test_pixelcnn_mask(formula):
    size, colours = 5, 3
    for kind in "AB":
        mask = formula(kind, size, 6, 3, n_colours=colours)
        for o, i, u, v in itertools.product(range(3), range(6), range(size), range(size)):
            # The place of (row, column, colour) in the order of generation of a wide image.
            read = ((u * 100) + v) * colours + i // 2
            reader = ((2 * 100) + 2) * colours + o
            assert mask[o, i, u, v] == (read < reader if kind == "A" else read <= reader)


@pytest.mark.equation(
    "eq-gated-unit",
    formula=gated_unit,
    wrong={
        "halves exchanged": lambda x: gated_unit(torch.cat(x.chunk(2, 1)[::-1], 1)),
        "sigmoid twice": lambda x: (
            torch.sigmoid(x.chunk(2, 1)[0]) * torch.sigmoid(x.chunk(2, 1)[1])
        ),
        "added": lambda x: torch.tanh(x.chunk(2, 1)[0]) + torch.sigmoid(x.chunk(2, 1)[1]),
    },
    implemented_by="course_lib.autoregressive.gated_pixelcnn.gated_unit",
)
def test_gated_unit(formula):
    x = torch.randn(3, 8, 2, 2) * 2
    a, b = np.exp(x[:, :4].numpy()), np.exp(x[:, 4:].numpy())
    expected = (a**2 - 1) / (a**2 + 1) * b / (1 + b)
    torch.testing.assert_close(formula(x), torch.as_tensor(expected))


@pytest.mark.equation(
    "eq-lstm-cell",
    formula=lstm_cell,
    wrong={
        "input and forget gate exchanged": lambda g, c: lstm_cell(
            torch.cat([g[:, :4], g[:, 8:12], g[:, 4:8], g[:, 12:]], 1), c
        ),
        "no tanh of the cell": lambda g, c: (
            torch.sigmoid(g[:, :4]) * lstm_cell(g, c)[1],
            lstm_cell(g, c)[1],
        ),
    },
    implemented_by="course_lib.autoregressive.row_lstm.lstm_cell",
)
def test_lstm_cell(formula):
    cell = torch.nn.LSTMCell(3, 4)
    x, h, c = torch.randn(5, 3), torch.randn(5, 4), torch.randn(5, 4)
    gates = F.linear(x, cell.weight_ih, cell.bias_ih) + F.linear(h, cell.weight_hh, cell.bias_hh)
    i, f, g, o = gates.chunk(4, 1)  # torch's order
    for ours, theirs in zip(formula(torch.cat([o, f, i, g], 1), c), cell(x, (h, c)), strict=True):
        torch.testing.assert_close(ours, theirs)


@pytest.mark.equation(
    "eq-skew",
    formula=skew,
    wrong={
        "the other way": lambda x: skew(x.flip(-2)).flip(-2),
        "not moved": lambda x: F.pad(x, (0, 0, 0, x.shape[-3] - 1)),
    },
    implemented_by="course_lib.autoregressive.diagonal_bilstm.skew",
)
def test_skew(formula):
    x = torch.arange(1.0, 13).view(3, 4, 1)
    skewed = formula(x)
    # Both neighbours of the recurrence, left and above, lie in the column before.
    for r, c in itertools.product(range(1, 3), range(1, 4)):
        d = (skewed[r] == x[r, c]).nonzero()[0, 0]
        assert skewed[r, d - 1] == x[r, c - 1]
        assert skewed[r - 1, d - 1] == x[r - 1, c]
    assert skewed.sum() == x.sum()


def no_tails(x, mean, log_scale, levels):
    scale = log_scale.exp()
    centre = 2 * x / (levels - 1) - 1
    upper, lower = centre + 1 / (levels - 1), centre - 1 / (levels - 1)
    return torch.log(torch.sigmoid((upper - mean) / scale) - torch.sigmoid((lower - mean) / scale))


@pytest.mark.equation(
    "eq-discretized-logistic",
    formula=discretized_logistic_log_mass,
    wrong={
        "edge bins without their tails": no_tails,
        "scale not exponentiated": lambda x, m, s, K: discretized_logistic_log_mass(
            x, m, s.abs().log(), K
        ),
        "one level more": lambda x, m, s, K: discretized_logistic_log_mass(x, m, s, K + 1),
    },
    implemented_by="course_lib.distributions.discretized_logistic_log_mass",
)
def test_discretized_logistic(formula):
    K, mean, scale = 5, 0.37, 0.21
    grid = torch.linspace(-30, 30, 1_200_001)
    e = torch.exp(-(grid - mean).abs() / scale)
    density = e / (scale * (1 + e) ** 2)
    nearest = (((grid + 1) * (K - 1) / 2).round().clamp(0, K - 1)).long()
    mass = torch.zeros(K).index_add_(0, nearest, density * 60 / 1_200_000)
    log_mass = formula(torch.arange(K), torch.tensor(mean), torch.tensor(scale).log(), K)
    torch.testing.assert_close(log_mass.exp(), mass, atol=2e-4, rtol=0)
    torch.testing.assert_close(log_mass.exp().sum(), torch.tensor(1.0))


@pytest.mark.parametrize("scale", [1e-4, 1.0, 1e3])
def test_discretized_logistic_is_exact_at_every_scale(scale):
    # In float64, far out and for narrow bins, where a difference of sigmoids is 0.
    K = 256
    mean, log_scale = torch.tensor([-3.0, -0.2, 0.9]), torch.full((3,), scale).log()
    mean.requires_grad_()
    x = torch.arange(K).unsqueeze(1)
    log_mass = discretized_logistic_log_mass(x, mean, log_scale, K)
    assert torch.isfinite(log_mass).all()
    torch.testing.assert_close(log_mass.exp().sum(0), torch.ones(3), atol=1e-9, rtol=0)
    (gradient,) = torch.autograd.grad(log_mass.sum(), mean)
    assert torch.isfinite(gradient).all()


@pytest.mark.equation(
    "eq-quantile-draw",
    formula=GreyLevels.quantile,
    wrong={
        "one level too high": lambda d, p, u: d.quantile(p, u) + 1,
        "one minus u of the density": lambda d, p, u: (d.probabilities(p) <= u[:, None]).sum(-1),
        "levels counted from above": lambda d, p, u: d.levels - 1 - d.quantile(p, u),
    },
    implemented_by="course_lib.distributions.GreyLevels.quantile",
)
def test_quantile_draw(formula):
    for distribution in (Categorical(6), DiscretizedLogisticMixture(6, 3)):
        parameters = torch.randn(distribution.n_parameters)
        u = (torch.arange(100_000) + 0.5) / 100_000
        drawn = formula(distribution, parameters.expand(len(u), -1), u)
        share = torch.bincount(drawn, minlength=6) / len(u)
        x = torch.arange(6)
        mass = distribution.log_prob(parameters.expand(6, -1), x).exp()
        torch.testing.assert_close(share, mass, atol=2e-5, rtol=0)


@pytest.mark.equation(
    "eq-orderings",
    formula=MADE.log_prob,
    wrong={
        "mean of the logarithms": lambda model, x: torch.stack(
            [model.log_prob(x, ordering=r) for r in range(3)]
        ).mean(0),
        "not divided by their number": lambda model, x: model.log_prob(x) + np.log(3),
    },
    implemented_by="course_lib.autoregressive.made.MADE.log_prob",
)
def test_orderings(formula):
    # Two stages, simulated: an ordering, then an image in it.
    model = MADE((1, 1, 3), 2, hidden=(12,), n_orderings=3)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += torch.randn_like(parameter)
    images = torch.tensor(list(itertools.product((0, 1), repeat=3))).view(8, 1, 1, 3)
    samples = model.sample(40_000, generator=torch.Generator().manual_seed(0)).flatten(1)
    share = torch.bincount(samples @ torch.tensor([4, 2, 1]), minlength=8) / 40_000
    p = formula(model, images).exp().detach()
    assert abs(p.sum() - 1) < 1e-9
    assert ((p - share).abs() < 4.5 * (share * (1 - share) / 40_000).sqrt() + 1e-4).all()


@pytest.mark.equation(
    "eq-wavenet-receptive-field",
    formula=receptive_field,
    wrong={
        "own value forgotten": lambda dilations, k: (k - 1) * sum(dilations),
        "k for k − 1": lambda dilations, k: 1 + k * sum(dilations),
        "layers counted, not dilations": lambda dilations, k: 1 + (k - 1) * len(dilations),
    },
    implemented_by="course_lib.autoregressive.wavenet.receptive_field",
)
def test_wavenet_receptive_field(formula):
    for dilations, k in (((1, 2, 4), 2), ((1, 3), 3), ((1, 2, 1, 2), 4)):
        x = torch.randn(1, 1, 60, requires_grad=True)
        h = x
        for dilation in dilations:
            h = F.conv1d(F.pad(h, ((k - 1) * dilation, 0)), torch.rand(1, 1, k), dilation=dilation)
        (gradient,) = torch.autograd.grad(h[0, 0, -1], x)
        first = gradient[0, 0].nonzero()[0].item()
        assert 60 - first == formula(dilations, k)
