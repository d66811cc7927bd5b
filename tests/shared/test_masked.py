"""Masked layers: what may be seen is seen, and nothing else."""

import pytest
import torch
from torch import nn

from course_lib.masked import (
    MaskedLinear,
    made_masks,
    masked_linear,
    readable_blocks,
    spread_degrees,
)


def reach(masks):
    """Number of paths from each input to each output."""
    paths = masks[0].double()
    for mask in masks[1:]:
        paths = mask.double() @ paths
    return paths


@pytest.mark.parametrize("hidden", [(), (6,), (11, 7)])
def test_output_i_sees_the_inputs_before_it_and_all_of_them(hidden):
    inputs = torch.arange(1, 6)
    masks = made_masks(inputs, [spread_degrees(5, width) for width in hidden])
    assert [tuple(m.shape) for m in masks] == list(zip([*hidden, 5], [5, *hidden], strict=True))
    assert torch.equal(reach(masks) > 0, torch.ones(5, 5).tril(-1).bool())


def test_any_order_of_the_inputs():
    order = torch.tensor([3, 1, 4, 2])
    paths = reach(made_masks(order, [torch.tensor([1, 2, 3, 3, 1, 2])]))
    assert torch.equal(paths > 0, order[:, None] > order[None, :])


def test_several_outputs_for_each_input():
    inputs = torch.arange(1, 4)
    masks = made_masks(inputs, [spread_degrees(3, 5)], inputs.repeat_interleave(2))
    assert torch.equal(masks[-1][0::2], masks[-1][1::2])


def test_degrees_are_sorted_and_cover_the_range():
    for features, width in ((5, 4), (5, 13), (7, 3), (1, 3), (2, 2)):
        degrees = spread_degrees(features, width)
        assert torch.equal(degrees, degrees.sort().values)
        assert degrees.min() == 1
        assert degrees.max() <= max(features - 1, 1)
        if width >= features - 1:
            assert set(range(1, features)) <= set(degrees.tolist())


def test_a_masked_layer_ignores_what_is_masked_and_trains_the_rest():
    mask = torch.tensor([[1, 0, 1], [0, 0, 1]]).bool()
    layer = MaskedLinear(mask)
    x = torch.randn(4, 3)
    expected = nn.functional.linear(x, torch.where(mask, layer.weight, 0.0), layer.bias)
    torch.testing.assert_close(layer(x), expected)
    layer(x).square().sum().backward()
    assert torch.equal(layer.weight.grad != 0, mask)


@pytest.mark.parametrize("shape", [(7, 5), (400, 300), (301, 401)])
@pytest.mark.parametrize("kind", ["staircase", "any", "nothing"])
def test_products_in_blocks_are_those_with_the_whole_masked_matrix(shape, kind, float64):
    generator = torch.Generator().manual_seed(0)
    mask = torch.rand(shape, generator=generator) < 0.3
    if kind == "staircase":
        degrees = [torch.arange(n) * 50 // n for n in shape]
        mask = degrees[0][:, None] > degrees[1][None, :]  # its first rows read nothing
    elif kind == "nothing":
        mask = torch.zeros(shape, dtype=torch.bool)
    blocks = readable_blocks(mask)
    assert sum(rows for rows, _ in blocks) == len(mask)
    if kind == "staircase" and mask.numel() >= 100_000:
        share = sum(rows * end for rows, end in blocks) / mask.numel()
        assert 0.5 < share < 0.66  # of the work of a whole product
    weight, bias, x = (
        torch.randn(size, generator=generator, requires_grad=True)
        for size in (shape, shape[:1], (2, 3, shape[1]))
    )
    results = []
    for y in (
        masked_linear(x, weight, mask.double(), bias, blocks),
        nn.functional.linear(x, mask * weight, bias),
    ):
        results.append((y, *torch.autograd.grad(y.sin().sum(), (x, weight, bias))))
    for ours, expected in zip(*results, strict=True):
        torch.testing.assert_close(ours, expected)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: made_masks(torch.ones(3), []), TypeError, "integer degrees"),
        (lambda: made_masks(torch.ones(3, 1).long(), []), ValueError, "one degree per unit"),
        (lambda: MaskedLinear(torch.ones(3)), ValueError, "out_features, in_features"),
        (lambda: spread_degrees(0, 3), ValueError, "features is 0"),
    ],
)
def test_bad_input_is_named(call, error, message):
    with pytest.raises(error, match=message):
        call()
