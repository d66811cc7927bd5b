"""Masked layers: what may be seen is seen, and nothing else."""

import pytest
import torch
from torch import nn

from course_lib.fast.masked import LARGE, block_product, readable_blocks
from course_lib.masked import MaskedLinear, made_masks, spread_degrees


def reach(masks):
    """Number of paths from each input to each output."""
    paths = masks[0].double()
    for mask in masks[1:]:
        paths = mask.double() @ paths
    return paths


@pytest.mark.parametrize("hidden", [(), (6,), (11, 7)])
def test_output_i_sees_the_inputs_before_it_and_all_of_them(hidden):
    inputs = torch.arange(5)
    masks = made_masks(inputs, [spread_degrees(5, width) for width in hidden])
    assert [tuple(m.shape) for m in masks] == list(zip([*hidden, 5], [5, *hidden], strict=True))
    assert torch.equal(reach(masks) > 0, torch.ones(5, 5).tril(-1).bool())


def test_any_order_of_the_inputs():
    order = torch.tensor([2, 0, 3, 1])
    paths = reach(made_masks(order, [torch.tensor([0, 1, 2, 2, 0, 1])]))
    assert torch.equal(paths > 0, order[:, None] > order[None, :])


def test_several_outputs_for_each_input():
    inputs = torch.arange(3)
    masks = made_masks(inputs, [spread_degrees(3, 5)], inputs.repeat_interleave(2))
    assert torch.equal(masks[-1][0::2], masks[-1][1::2])


def test_degrees_are_sorted_and_cover_the_range():
    for features, width in ((5, 4), (5, 13), (7, 3), (1, 3), (2, 2)):
        degrees = spread_degrees(features, width)
        assert torch.equal(degrees, degrees.sort().values)
        assert degrees.min() == 0
        assert degrees.max() <= max(features - 2, 0)
        if width >= features - 1:
            assert set(range(features - 1)) <= set(degrees.tolist())


def test_a_masked_layer_ignores_what_is_masked_and_trains_the_rest():
    mask = torch.tensor([[1, 0, 1], [0, 0, 1]]).bool()
    layer = MaskedLinear(mask)
    x = torch.randn(4, 3)
    expected = nn.functional.linear(x, torch.where(mask, layer.weight, 0.0), layer.bias)
    torch.testing.assert_close(layer(x), expected)
    layer(x).square().sum().backward()
    assert torch.equal(layer.weight.grad != 0, mask)


def test_a_small_mask_is_not_cut():
    assert readable_blocks(torch.ones(7, 5)) is None
    assert readable_blocks(torch.ones(1, LARGE)) is None  # a single row cannot be


def share_of_a_whole_product(blocks, mask):
    work = sum((b.rows.stop - b.rows.start) * b.mixed.stop for b in blocks)
    return work / mask.numel()


def test_staircases_below_one_another_are_cut_alike():
    # The means of all entries, then their log-scales.
    stairs = made_masks(torch.arange(300), [spread_degrees(300, 400)], torch.arange(300).repeat(2))[
        -1
    ]
    blocks = readable_blocks(stairs)
    assert len(blocks) == 8
    assert 0.5 < share_of_a_whole_product(blocks, stairs) < 0.66


@pytest.mark.parametrize("shape", [(400, 300), (301, 401)])
@pytest.mark.parametrize("kind", ["staircase", "any", "nothing"])
def test_products_in_blocks_are_those_with_the_whole_masked_matrix(shape, kind):
    generator = torch.Generator().manual_seed(0)
    mask = torch.rand(shape, generator=generator) < 0.3
    if kind == "staircase":
        degrees = [torch.arange(n) * 50 // n for n in shape]
        mask = degrees[0][:, None] > degrees[1][None, :]  # its first rows read nothing
    elif kind == "nothing":
        mask = torch.zeros(shape, dtype=torch.bool)
    blocks = readable_blocks(mask)
    for block in blocks:
        part = mask[block.rows]
        assert part[:, block.free].all()
        assert not part[:, block.closed].any()
        assert block.free.stop <= block.mixed.stop == block.closed.start
    rows = [row for block in blocks for row in range(block.rows.start, block.rows.stop)]
    assert rows == list(range(len(mask)))
    if kind == "staircase":
        assert 0.5 < share_of_a_whole_product(blocks, mask) < 0.66
    for given, expected in zip(*both_ways(mask, sin_gradients), strict=True):
        torch.testing.assert_close(given, expected)


def both_ways(mask, what):
    """What a function returns of a product in blocks, and of one with the whole masked matrix."""
    generator = torch.Generator().manual_seed(1)
    weight, bias, x = (
        torch.randn(size, generator=generator, dtype=torch.float64, requires_grad=True)
        for size in (mask.shape, mask.shape[:1], (2, 3, mask.shape[1]))
    )
    blocks = readable_blocks(mask)
    return (
        what(lambda x, w, b: block_product(x, w, mask.double(), b, blocks), x, weight, bias),
        what(lambda x, w, b: nn.functional.linear(x, mask * w, b), x, weight, bias),
    )


def sin_gradients(product, *arguments):
    y = product(*arguments)
    return y, *torch.autograd.grad(y.sin().sum(), arguments)


def second_derivatives(product, *arguments):
    first = torch.autograd.grad(product(*arguments).sin().sum(), arguments, create_graph=True)
    return torch.autograd.grad(sum(g.square().sum() for g in first), arguments)


def gradients_of_each_example(product, x, weight, bias):
    def loss(x, weight, bias):
        return product(x, weight, bias).sin().sum()

    return torch.func.vmap(torch.func.grad(loss, (0, 1, 2)), (0, None, None))(x, weight, bias)


def jacobian_in_one_pass(product, *arguments):
    """A batch of gradients, one for each entry of the result, goes backwards together."""

    def reduced(*arguments):
        return product(*arguments).sin().sum(-1)

    return torch.autograd.functional.jacobian(reduced, arguments, vectorize=True)


def directional_derivative(product, *arguments):
    generator = torch.Generator().manual_seed(2)
    tangents = tuple(torch.randn(a.shape, generator=generator, dtype=a.dtype) for a in arguments)
    return torch.func.jvp(product, arguments, tangents)


STAIRCASE = torch.arange(400)[:, None] * 300 > torch.arange(300)[None, :] * 400


@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated")  # by torch.func.jvp itself
@pytest.mark.parametrize(
    "what",
    [
        second_derivatives,
        gradients_of_each_example,
        jacobian_in_one_pass,
        directional_derivative,
    ],
)
def test_products_in_blocks_can_be_differentiated_in_every_way(what):
    assert STAIRCASE.numel() >= LARGE
    for given, expected in zip(*both_ways(STAIRCASE, what), strict=True):
        torch.testing.assert_close(given, expected)


def test_gradients_of_a_part_are_those_of_the_part():
    # In float64: how far sums of 400 terms are off in float32 depends on the processor.
    shapes = (3, 300), (400, 300), (400,)
    x, weight, shift = (torch.randn(*shape, dtype=torch.float64) for shape in shapes)
    mask = STAIRCASE.double()
    of_input, of_weight = (mask * weight).sum(0).expand(3, -1), mask * x.sum(0)
    blocks = readable_blocks(mask)
    for bias in (None, shift):
        for part, expected in ((x, of_input), (weight, of_weight)):
            part.requires_grad_()
            (given,) = torch.autograd.grad(block_product(x, weight, mask, bias, blocks).sum(), part)
            torch.testing.assert_close(given, expected)
            part.requires_grad_(False)  # frozen while the other one learns


def test_products_in_blocks_follow_autocast():
    x, weight = torch.randn(3, 300), torch.randn(400, 300, requires_grad=True)
    mask = STAIRCASE.float()
    with torch.autocast("cpu", torch.bfloat16):
        y = block_product(x, weight, mask, torch.zeros(400), readable_blocks(mask))
    assert y.dtype == torch.bfloat16
    (gradient,) = torch.autograd.grad(y.float().sum(), weight)
    assert gradient.dtype == torch.float32
    torch.testing.assert_close(y.float(), x @ (mask * weight).T, rtol=0.05, atol=0.3)
    torch.testing.assert_close(gradient, mask * x.sum(0), rtol=0.02, atol=0.02)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: made_masks(torch.ones(3), []), TypeError, "integer degrees"),
        (lambda: made_masks(torch.ones(3, 1).long(), []), ValueError, "Each unit has one degree"),
        (lambda: MaskedLinear(torch.ones(3)), ValueError, "out_features, in_features"),
        (lambda: spread_degrees(0, 3), ValueError, "features is 0"),
    ],
)
def test_bad_input_is_named(call, error, message):
    with pytest.raises(error, match=message):
        call()
