"""What every autoregressive model must satisfy, as functions that raise AssertionError."""

import itertools
import math

import torch
from scipy.stats import chisquare
from torch import Tensor

from course_lib import autoregressive as ar

GREY = {
    "FVSBN": ar.FVSBN,
    "NADE": lambda shape, levels, **k: ar.NADE(shape, levels, hidden=5, **k),
    "MADE": lambda shape, levels, **k: ar.MADE(shape, levels, hidden=(40, 50), **k),
    "MADE, 3 orderings": lambda shape, levels, **k: ar.MADE(
        shape, levels, hidden=(7, 9), n_orderings=3, **k
    ),
    "PixelCNN": lambda shape, levels, **k: ar.PixelCNN(shape, levels, channels=6, n_layers=3, **k),
    "GatedPixelCNN": lambda shape, levels, **k: ar.GatedPixelCNN(
        shape, levels, channels=6, n_layers=3, **k
    ),
    "GatedPixelCNN, one layer": lambda shape, levels, **k: ar.GatedPixelCNN(
        shape, levels, channels=6, n_layers=1, **k
    ),
    "RowLSTM": lambda shape, levels, **k: ar.RowLSTM(shape, levels, channels=6, **k),
    "Transformer": lambda shape, levels, **k: ar.Transformer(
        shape, levels, **{"width": 12, "heads": 3, **k}
    ),
    "DiagonalBiLSTM": lambda shape, levels, **k: ar.DiagonalBiLSTM(shape, levels, channels=6, **k),
}


def wavenet(shape, levels, **k):
    return ar.WaveNet((math.prod(shape),), levels, channels=6, **k)


MODELS = {**GREY, "WaveNet": wavenet}


def build(name, shape, levels, **arguments):
    """A model away from its initial state, where biases are zero and conditionals flat."""
    model = MODELS[name](shape, levels, **arguments)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.4 * torch.randn_like(parameter)
    return model


def all_images(model) -> Tensor:
    values = itertools.product(range(model.levels), repeat=model.n_dims)
    return torch.tensor(list(values)).view(-1, *model.event_shape)


def sums_to_one(model, **labels):
    total = model.log_prob(all_images(model), **labels).exp().sum().item()
    assert abs(total - 1) < 1e-9, total


def cached_is_naive(model, n=5, **labels):
    images = [
        model.sample(n, generator=torch.Generator().manual_seed(1), cached=cached, **labels)
        for cached in (True, False)
    ]
    assert torch.equal(*images)
    # A degenerate probe would be equal for any cache.
    assert model.n_dims * n < 8 or images[0].unique().numel() > 1


def samples_follow_log_prob(model, n=3000):
    images = all_images(model)
    expected = model.log_prob(images).exp().detach()
    samples = model.sample(n, generator=torch.Generator().manual_seed(2)).flatten(1)
    weights = model.levels ** torch.arange(model.n_dims - 1, -1, -1)
    observed = torch.bincount((samples * weights).sum(1), minlength=len(images)).double()
    # Rare images together, so that the approximation of the statistic holds.
    rare = expected * n < 5
    cells = [torch.cat([v[~rare], v[rare].sum().view(1)]) for v in (observed, n * expected)]
    if cells[1][-1] < 1:
        cells = [v[:-1] for v in cells]
        cells[1] *= cells[0].sum() / cells[1].sum()
    p_value = chisquare(*cells, sum_check=False).pvalue
    assert p_value > 1e-3, p_value


def jacobian(model, **arguments) -> Tensor:
    """Where parameters of dimension i move with the input j: largest |∂|, shape ``(D, D)``.

    Inputs are real numbers here: the network is differentiated in front of its encoding.
    """
    model.encode = lambda x: x
    largest = torch.zeros(model.n_dims, model.n_dims)
    for _ in range(4):  # several points: a ReLU may be off at one of them
        x = torch.randn(1, *model.event_shape)

        def parameters(x):
            return model(x, **arguments).flatten(1, -2)[0]  # (D, P)

        rows = torch.autograd.functional.jacobian(parameters, x)  # (D, P, 1, *event_shape)
        largest = torch.maximum(largest, rows.flatten(2).abs().amax(1))
    del model.encode
    return largest


def nothing_leaks(model, order=None, **arguments):
    order = model.order if order is None else order
    seen = jacobian(model, **arguments)[order][:, order]
    assert (seen.triu() == 0).all(), seen


def all_before_is_seen(model, order=None, **arguments):
    order = model.order if order is None else order
    seen = jacobian(model, **arguments)[order][:, order] > 0
    assert seen[torch.ones_like(seen).tril(-1)].all(), seen
