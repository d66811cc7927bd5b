"""The gated PixelCNN, written again from the chapter's equations, and what its depth lets it see."""

from functools import partial

import pytest
import torch
import torch.nn.functional as F

from course_lib.autoregressive import GatedPixelCNN, gated_pixelcnn, receptive_field_map

pytestmark = pytest.mark.usefixtures("float64")


def moved(x, i, j):
    """The features of the pixel (r + i, c + j) at (r, c), and 0 outside of the image."""
    result = torch.zeros_like(x)
    height, width = x.shape[2:]
    for r in range(height):
        for c in range(width):
            if 0 <= r + i < height and 0 <= c + j < width:
                result[:, :, r, c] = x[:, :, r + i, c + j]
    return result


def product(weight, x):
    """A matrix times the features of every pixel."""
    return torch.einsum("oi,nihw->nohw", weight, x)


def pre_activations(layer, v, h, labels, own_row=None, link_from=(0, 0), to_left=-1):
    """a_v and a_h of one layer, from the features below it, as sums over the pixels that are read.

    Args:
        layer: whose weights are used.
        v: vertical features below.
        h: horizontal features below.
        labels: classes.
        own_row: the last row that the vertical stack reads; by the claim −1 in the first layer and 0 later.
        link_from: the place at which the horizontal stack reads the vertical one.
        to_left: the direction of the horizontal stack.
    """
    radius = layer.radius
    if own_row is None:
        own_row = -1 if layer.is_first else 0
    A, B, C = layer.vertical.weight, layer.horizontal.weight, layer.link.weight[:, :, 0, 0]
    in_v, in_h = layer.condition.weight[labels][:, :, None, None].chunk(2, 1)
    a_v = layer.vertical.bias[:, None, None] + in_v
    for place, i in enumerate(range(own_row - len(A[0, 0]) + 1, own_row + 1)):
        for j in range(-radius, radius + 1):
            a_v = a_v + product(A[:, :, place, j + radius], moved(v, i, j))
    a_h = (layer.horizontal.bias + layer.link.bias)[:, None, None] + in_h
    a_h = a_h + product(C, moved(a_v, *link_from))
    for j in range(-radius, 0 if layer.is_first else 1):
        a_h = a_h + product(B[:, :, 0, j + radius], moved(h, 0, -to_left * j))
    return a_v, a_h


def build():
    model = GatedPixelCNN((1, 5, 6), 3, channels=3, n_layers=3, kernel_size=5, n_classes=2)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.3 * torch.randn_like(parameter)
    return model, torch.randint(3, (2, 1, 5, 6)), torch.tensor([1, 0])


@pytest.mark.equation(
    "eq-gated-stacks",
    formula=pre_activations,
    wrong={
        "the first vertical layer reads its own row": lambda layer, *rest: pre_activations(
            layer, *rest, own_row=0
        ),
        "later vertical layers leave their own row out": lambda layer, *rest: pre_activations(
            layer, *rest, own_row=-1
        ),
        "the link reads the row above": partial(pre_activations, link_from=(-1, 0)),
        "the horizontal stack reads to the right": partial(pre_activations, to_left=1),
    },
    implemented_by="course_lib.autoregressive.gated_pixelcnn.GatedLayer.forward",
)
def test_gated_stacks(formula, monkeypatch):
    model, x, labels = build()
    below, gated = [], []
    for layer in model.layers:
        layer.register_forward_pre_hook(lambda _, inputs: below.append(inputs[:2]))
    unit = gated_pixelcnn.gated_unit
    monkeypatch.setattr(gated_pixelcnn, "gated_unit", lambda a: (gated.append(a), unit(a))[1])
    model(x, labels)
    for index, (layer, (v, h)) in enumerate(zip(model.layers, below, strict=True)):
        a_v, a_h = formula(layer, v, h, labels)
        torch.testing.assert_close(a_h, gated[2 * index])  # the library gates the horizontal first
        if not layer.is_last:
            torch.testing.assert_close(a_v, gated[2 * index + 1])


def gate(a):
    first, second = a.chunk(2, 1)
    return torch.tanh(first) / (1 + torch.exp(-second))


def update(layer, a_v, a_h, h, keeps_pixels=False, skips=True, ungated=False):
    """Features of both stacks above a layer, and its term of the sum that the head reads."""
    v, g = gate(a_v), gate(a_h)
    term = product(layer.skip.weight[:, :, 0, 0], g) + layer.skip.bias[:, None, None]
    if layer.is_last:
        return v, None, term
    above = product(layer.residual.weight[:, :, 0, 0], g) + layer.residual.bias[:, None, None]
    if ungated:
        v = a_v[:, : v.shape[1]]
    if not layer.is_first or keeps_pixels:
        above = above + h
    return v, above, term if skips else 0 * term


@pytest.mark.equation(
    "eq-gated-update",
    formula=update,
    wrong={
        "the first layer keeps the pixels": partial(update, keeps_pixels=True),
        "the head reads the last layer alone": partial(update, skips=False),
        "the vertical stack without its gate": partial(update, ungated=True),
    },
    implemented_by="course_lib.autoregressive.gated_pixelcnn.GatedPixelCNN.forward",
)
def test_gated_update(formula):
    """The whole network from the chapter's equations: the same parameters of all conditionals."""
    model, x, labels = build()
    v = h = model.encode(x)
    total = 0
    for layer in model.layers:
        a_v, a_h = pre_activations(layer, v, h, labels)
        v, h, term = formula(layer, a_v, a_h, h)
        total = total + term
    hidden, output = (
        (part.weight[:, :, 0, 0], part.bias) for part in (model.head.hidden, model.head.output)
    )
    total = F.relu(product(hidden[0], F.relu(total)) + hidden[1][:, None, None])
    parameters = product(output[0], total) + output[1][:, None, None]
    torch.testing.assert_close(parameters.movedim(1, -1).unsqueeze(1), model(x, labels))


def reach(n_layers, radius):
    """How many pixels up, left and right a gated PixelCNN sees."""
    return radius + n_layers - 1


@pytest.mark.equation(
    "eq-gated-reach",
    formula=reach,
    wrong={
        "one pixel more": lambda n_layers, radius: radius + n_layers,
        "every layer as wide as the first": lambda n_layers, radius: radius * n_layers,
        "the first kernel forgotten": lambda n_layers, radius: n_layers,
    },
)
def test_gated_reach(formula):
    size, at = 13, (7, 6)
    rows, columns = torch.meshgrid(torch.arange(size), torch.arange(size), indexing="ij")
    up, right = at[0] - rows, columns - at[1]
    for n_layers, radius in ((1, 1), (3, 1), (2, 2), (4, 2), (2, 3)):
        model = GatedPixelCNN(
            (1, size, size), 2, channels=8, n_layers=n_layers, kernel_size=2 * radius + 1
        )
        R = formula(n_layers, radius)
        expected = (up >= 1) & (up <= R) & (right.abs() <= R)
        expected |= (up == 0) & (right < 0) & (right >= -R)
        assert torch.equal(receptive_field_map(model, (0, *at))[0], expected)
        assert expected.sum() == R * (2 * R + 1) + R  # none of it lies outside of the image


@pytest.mark.parametrize(("height", "width", "radius"), [(5, 4, 1), (4, 6, 2)])
def test_the_whole_past_needs_as_many_layers_as_the_image_is_large(height, width, radius):
    """L = max(H, W) − ρ layers see all of every pixel's past, and one layer less does not."""
    enough = max(height, width) - radius
    for n_layers, whole in ((enough, True), (enough - 1, False)):
        model = GatedPixelCNN(
            (1, height, width), 2, channels=8, n_layers=n_layers, kernel_size=2 * radius + 1
        )
        missed = 0
        for place in range(height * width):
            seen = receptive_field_map(model, (0, place // width, place % width)).flatten()
            missed += (~seen[:place]).sum().item()
        assert (missed == 0) == whole
