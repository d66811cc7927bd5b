"""NADE's running sum is the plain formula, in values and in derivatives of every kind."""

import pytest
import torch

from course_lib.autoregressive.fast.nade import products_in_turn
from course_lib.autoregressive.nade import products


@pytest.fixture
def inputs():
    """x, V, c and U of 3 examples, 5 dimensions, 4 hidden units and 2 parameters."""
    generator = torch.Generator().manual_seed(0)
    return tuple(
        torch.randn(shape, generator=generator, dtype=torch.float64, requires_grad=True)
        for shape in ((3, 5), (5, 4), (4,), (5, 4, 2))
    )


def by_definition(x, V, c, U):
    """Each hidden layer from its own sum over all dimensions before it."""
    rows = [torch.sigmoid(c + x[:, :i] @ V[:i]) @ U[i] for i in range(len(V))]
    return torch.stack(rows, 1)


@pytest.mark.parametrize("compute", [products, products_in_turn])
def test_values_and_gradients_are_those_of_the_definition(inputs, compute):
    def results(function):
        y = function(*inputs)
        return y, *torch.autograd.grad(y.sin().sum(), inputs)

    for given, expected in zip(results(compute), results(by_definition), strict=True):
        torch.testing.assert_close(given, expected)


@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated")  # by torch.func.jvp itself
def test_the_running_sum_can_be_differentiated_in_every_way(inputs):
    assert torch.autograd.gradcheck(
        products_in_turn, inputs, check_forward_ad=True, check_batched_grad=True
    )
    assert torch.autograd.gradgradcheck(products_in_turn, inputs)


def test_the_running_sum_maps_over_batches(inputs):
    x, *weights = inputs
    mapped = torch.vmap(lambda one: products_in_turn(one[None], *weights)[0])(x)
    torch.testing.assert_close(mapped, by_definition(*inputs))


def test_the_gradient_of_a_part_is_that_of_the_part(inputs):
    x, V, c, U = inputs
    y = products_in_turn(x.detach(), V.detach(), c, U.detach())
    (given,) = torch.autograd.grad(y.sum(), c, create_graph=True)
    (expected,) = torch.autograd.grad(by_definition(*inputs).sum(), c)
    torch.testing.assert_close(given, expected)


def test_nothing_of_the_size_of_all_hidden_layers_is_kept(inputs):
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(
        lambda t: kept.append(t.numel()) or t, lambda t: t
    ):
        products_in_turn(*inputs)
    assert sum(kept) == sum(t.numel() for t in inputs)
