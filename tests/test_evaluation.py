"""Means with their errors, bits per dimension, and nearest neighbours."""

import math

import pytest
import scipy.stats
import torch

from course_lib.evaluation import Estimate, bits_per_dim, estimate, nearest_neighbours


def test_estimate_is_mean_and_standard_error():
    values = torch.tensor([-3.0, 1.5, 2.0, 7.0])
    result = estimate(values)
    assert result.mean == pytest.approx(1.875)
    assert result.standard_error == pytest.approx(scipy.stats.sem(values.numpy()), rel=1e-6)
    assert result.n == 4


def test_the_standard_error_is_the_spread_of_repeated_means():
    repeated = [estimate(3 * torch.randn(50) + 2) for _ in range(2000)]
    spread = torch.tensor([r.mean for r in repeated]).std().item()
    average = sum(r.standard_error for r in repeated) / len(repeated)
    assert average == pytest.approx(spread, rel=0.06)


def test_estimate_adds_in_double_precision():
    # In float32 the ones would be lost beside 2^24.
    assert estimate(torch.tensor([2.0**24] + [1.0] * 1023)).mean == (2.0**24 + 1023) / 1024


def test_nan_is_not_skipped():
    assert math.isnan(estimate(torch.tensor([1.0, float("nan"), 2.0])).mean)


@pytest.mark.parametrize("shape", [(), (1,), (4, 2)])
def test_estimate_wants_one_value_per_example(shape):
    with pytest.raises(ValueError, match="Sum over the dimensions of each example"):
        estimate(torch.zeros(shape))


def test_estimate_wants_a_tensor():
    with pytest.raises(TypeError, match="values is a list"):
        estimate([1.0, 2.0])


@pytest.mark.parametrize(
    ("mean", "error", "text"),
    [
        (1.23456, 0.0123, "1.235 ± 0.012"),
        (-101.26, 0.94, "-101.26 ± 0.94"),
        (1234.5, 21.0, "1234 ± 21"),
        (0.5, 0.0, "0.50 ± 0.00"),
        (0.5, math.nan, "0.50 ± nan"),
    ],
)
def test_estimates_are_printed_with_two_digits_of_the_error(mean, error, text):
    assert str(Estimate(mean, error, 10)) == text


def test_bits_per_dim_of_uniform_pixels():
    for levels, shape in ((256, (3, 32, 32)), (17, (1, 8, 8)), (2, (28, 28))):
        log_prob = torch.full((5,), -math.prod(shape) * math.log(levels))
        expected = torch.full((5,), math.log2(levels))
        torch.testing.assert_close(bits_per_dim(log_prob, shape), expected)


def test_bits_per_dim_keeps_the_shape_and_the_gradient():
    log_prob = torch.tensor([[-3.0, -5.0, -8.0]], requires_grad=True)
    bits = bits_per_dim(log_prob, torch.Size([1, 2, 3]))
    assert bits.shape == (1, 3)
    bits.sum().backward()
    torch.testing.assert_close(log_prob.grad, torch.full((1, 3), -1 / (6 * math.log(2))))


@pytest.mark.parametrize("shape", [(), (1, 0, 8), (3, -2)])
def test_bits_per_dim_wants_a_shape(shape):
    with pytest.raises(ValueError, match="event_shape is"):
        bits_per_dim(torch.zeros(2), shape)


def test_nearest_neighbours_by_exhaustive_search():
    x, reference = torch.randn(30, 2, 3, 3), torch.randn(70, 2, 3, 3)
    distances, indices = nearest_neighbours(x, reference)
    for i in range(30):
        every = [(x[i] - other).square().sum().sqrt() for other in reference]
        assert int(torch.stack(every).argmin()) == indices[i]
        torch.testing.assert_close(distances[i], min(every))


def test_a_copy_is_at_distance_zero_also_among_grey_levels():
    reference = torch.randint(0, 256, (200, 1, 28, 28), dtype=torch.uint8)
    order = torch.randperm(200)
    distances, indices = nearest_neighbours(reference[order], reference)
    assert (distances == 0).all()
    assert torch.equal(indices, order)
    # One pixel from 0 to 255: a distance of 255, not the 1 that bytes would give.
    dark, bright = torch.zeros(1, 1, 28, 28, dtype=torch.uint8), reference[:1] * 0
    bright[0, 0, 3, 4] = 255
    assert nearest_neighbours(dark, bright)[0].item() == 255


def test_a_copy_is_found_beside_near_copies():
    images = torch.randint(0, 256, (300, 784), dtype=torch.uint8)
    images[:, 0] = 100
    near = images.repeat(3, 1)
    near[:, 0] += torch.tensor([1, 2, 3], dtype=torch.uint8).repeat_interleave(300)
    reference = torch.cat([near, images])
    distances, indices = nearest_neighbours(images, reference)
    assert (distances == 0).all()
    assert torch.equal(indices, 900 + torch.arange(300))
    x = images[:5].double()
    x[2, 3] = torch.nan
    assert nearest_neighbours(x, reference)[0].isnan().tolist() == [0, 0, 1, 0, 0]


def test_nearest_neighbours_over_several_blocks():
    x = torch.randn(2500, 4)
    distances, indices = nearest_neighbours(x + 1e-4, x)
    assert torch.equal(indices, torch.arange(2500))
    torch.testing.assert_close(distances, torch.full((2500,), 2e-4), rtol=0.01, atol=0)


def test_nearest_neighbours_of_other_shapes_are_refused():
    with pytest.raises(ValueError, match=r"x has shape \(2, 3\) and reference \(5, 4\)"):
        nearest_neighbours(torch.zeros(2, 3), torch.zeros(5, 4))
    with pytest.raises(ValueError, match="at least one to compare with"):
        nearest_neighbours(torch.zeros(2, 3), torch.zeros(0, 3))
    with pytest.raises(TypeError, match="reference is a list"):
        nearest_neighbours(torch.zeros(2, 3), [[0.0] * 3])
