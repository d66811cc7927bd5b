"""Metrics of implicit models, on closed forms."""

import math

import pytest
import torch
from scipy.linalg import sqrtm

from course_lib.classifier import Classifier, train_classifier
from course_lib.data import digits, intensities
from course_lib.evaluation import (
    frechet_distance,
    frechet_gaussian,
    kernel_distance,
    modes_covered,
    precision_recall,
)


def covariance(d, seed):
    a = torch.randn(d, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return a @ a.T + 0.1 * torch.eye(d, dtype=torch.float64)


def test_frechet_against_the_matrix_root():
    mu_p, mu_q = torch.randn(2, 4, dtype=torch.float64)
    cov_p, cov_q = covariance(4, 1), covariance(4, 2)
    root = torch.as_tensor(sqrtm((cov_p @ cov_q).numpy()).real)
    expected = ((mu_p - mu_q) ** 2).sum() + (cov_p + cov_q - 2 * root).trace()
    torch.testing.assert_close(frechet_gaussian(mu_p, cov_p, mu_q, cov_q), expected)


def test_frechet_in_one_dimension_and_of_a_shift():
    one = torch.ones(1, dtype=torch.float64)
    value = frechet_gaussian(3 * one, 4 * one[None], one, 9 * one[None])
    assert value.item() == pytest.approx(4 + 1)
    x = torch.randn(50, 5)
    assert frechet_distance(x, x + 2).item() == pytest.approx(20, rel=1e-5)
    column = x[:, :1].double()
    expected = 4 + (2 * column.std() - column.std()) ** 2
    value = frechet_distance(column, 2 * column - column.mean() + 2)
    assert value.item() == pytest.approx(expected.item())


def test_distances_of_equal_and_degenerate_sets():
    x = torch.randn(40, 6)
    assert frechet_distance(x, x).item() == pytest.approx(0, abs=1e-6)
    constant = torch.ones(10, 6)
    assert frechet_distance(constant, constant).item() == 0
    assert frechet_distance(constant, 3 * constant).item() == pytest.approx(24)
    assert math.isfinite(kernel_distance(constant, constant).item())
    assert precision_recall(constant, constant).precision == 1


def test_kernel_distance_is_unbiased_and_has_its_closed_form():
    """With one dimension and moments m: E k(x, y) is a polynomial of moments."""
    generator = torch.Generator().manual_seed(0)
    x, y = torch.randn(2, 3000, 1, generator=generator, dtype=torch.float64)
    y = 0.5 + y

    def expected_kernel(shift_a, shift_b):
        # E(ab + 1)³ with a, b independent: Σ C(3, r) E aʳ E bʳ.
        moments = [[1, s, 1 + s * s, s**3 + 3 * s] for s in (shift_a, shift_b)]  # of N(s, 1)
        return sum(math.comb(3, r) * moments[0][r] * moments[1][r] for r in range(4))

    expected = expected_kernel(0, 0) + expected_kernel(0.5, 0.5) - 2 * expected_kernel(0, 0.5)
    # Standard error from ten parts of the samples.
    parts = torch.stack(
        [kernel_distance(a, b) for a, b in zip(x.chunk(10), y.chunk(10), strict=True)]
    )
    error = (parts.mean() - expected).abs() / (parts.std() / math.sqrt(10))
    assert error < 3
    same = torch.stack([kernel_distance(*torch.randn(2, 8, 2)) for _ in range(400)])
    assert same.mean().abs() < 3 * same.std() / 20
    assert same.min() < 0


def test_precision_and_recall_tell_fidelity_from_diversity():
    generator = torch.Generator().manual_seed(0)
    two_modes = torch.cat([torch.randn(200, 2, generator=generator) + s for s in (-10.0, 10.0)])
    one_mode = torch.randn(400, 2, generator=generator) - 10
    collapsed = precision_recall(two_modes, one_mode)
    assert collapsed.precision > 0.9
    assert collapsed.recall < 0.6
    assert collapsed.coverage < 0.6
    blurred = precision_recall(one_mode, two_modes)
    assert blurred.precision < 0.6
    assert blurred.recall > 0.9
    assert blurred.density < 0.75
    same = precision_recall(two_modes, two_modes)
    assert (same.precision, same.recall, same.coverage) == (1, 1, 1)


def test_precision_and_recall_by_hand():
    """On the line with k = 1: real balls around 0, 1, 3 reach 1, 1, 2."""
    real = torch.tensor([[0.0], [1.0], [3.0]])
    fake = torch.tensor([[-0.5], [4.5], [20.0]])
    value = precision_recall(real, fake, k=1)
    # −0.5 lies in the ball of 0; 4.5 in that of 3; 20 in none. Fake balls reach 5, 5, 15.5.
    assert value.precision == pytest.approx(2 / 3)
    assert value.recall == pytest.approx(1)
    assert value.density == pytest.approx(2 / 3)
    assert value.coverage == pytest.approx(2 / 3)


def test_modes_by_hand():
    centres = torch.tensor([[0.0, 0.0], [5.0, 0.0], [0.0, 5.0]])
    samples = torch.tensor([[0.1, 0.0], [0.0, 0.2], [5.0, 0.29], [5.0, 0.31], [9.0, 9.0]])
    value = modes_covered(samples, centres, std=0.1, least=0.1)
    assert value.modes == 2
    assert value.high_quality == pytest.approx(3 / 5)
    assert value.shares.tolist() == pytest.approx([0.4, 0.2, 0.0])
    assert modes_covered(samples, centres, std=0.1, least=0.3).modes == 1


def test_a_true_gaussian_has_its_share_of_high_quality():
    samples = 0.2 * torch.randn(20_000, 2, generator=torch.Generator().manual_seed(0))
    value = modes_covered(samples, torch.zeros(1, 2), std=0.2)
    assert value.high_quality == pytest.approx(1 - math.exp(-4.5), abs=0.003)


@pytest.mark.parametrize(
    "metric", [frechet_distance, kernel_distance, precision_recall], ids=lambda m: m.__name__
)
def test_bad_features_are_named(metric):
    x = torch.randn(10, 3)
    with pytest.raises(ValueError, match="at least"):
        metric(x, x[:1])
    with pytest.raises(ValueError, match=r"\(N, d\) and \(M, d\)"):
        metric(x, x[:, :2])
    with pytest.raises(ValueError, match="NaN"):
        metric(x, x * math.nan)
    with pytest.raises(TypeError, match="list"):
        metric([[1.0]], x)


def test_features_are_computed_in_parts():
    classifier, sizes = Classifier((1, 8, 8), 10).eval(), []
    classifier.scale += torch.rand(32)
    classifier.body.register_forward_hook(lambda *call: sizes.append(len(call[2])))
    x = torch.rand(2300, 1, 8, 8)
    features = classifier.features(x)
    assert sizes == [1000, 1000, 300]
    torch.testing.assert_close(features, classifier.body(x) / classifier.scale)


def test_the_classifier_is_reproducible_and_its_features_are_standardized():
    data = digits()
    a, b = (train_classifier(data, steps=200) for _ in range(2))
    images = intensities(data.train, data.levels)
    torch.testing.assert_close(a.features(images), b.features(images))
    torch.testing.assert_close(a.features(images).std(0), torch.ones(32))
    assert a.accuracy(intensities(data.test, data.levels), data.test_labels) > 0.8
    with pytest.raises(ValueError, match=r"\(N, 1, 8, 8\)"):
        Classifier((1, 8, 8), 10)(torch.rand(2, 1, 8, 9))


def by_definition(real, fake, k):
    """The four numbers by their definition, from differences one pair at a time."""

    def distances(a, b):
        return (a[:, None] - b).square().sum(-1).sqrt()

    def radius(a):
        return distances(a, a).sort(1).values[:, k]

    d = distances(real, fake)
    in_real, in_fake = d <= radius(real)[:, None], d <= radius(fake)
    return (
        in_real.any(0).double().mean().item(),
        in_fake.any(1).double().mean().item(),
        in_real.double().sum(0).mean().item() / k,
        in_real.any(1).double().mean().item(),
    )


@pytest.mark.parametrize("shift", [0.0, 1e3, 1e6])
@pytest.mark.parametrize("copies", [1, 3, 8])
def test_precision_recall_of_repeated_examples(copies, shift):
    """Copies are at distance 0 from one another and exactly at the radius that they define."""
    torch.manual_seed(0)
    real = torch.randn(60, 8, dtype=torch.float64).repeat(copies, 1) + shift
    fake = torch.cat([real[::2], torch.randn(40, 8, dtype=torch.float64) + shift])
    found = precision_recall(real, fake, k=5)
    expected = by_definition(real, fake, 5)
    assert (found.precision, found.recall, found.density, found.coverage) == pytest.approx(expected)


def test_distances_in_pieces_are_those_of_the_whole(monkeypatch):
    torch.manual_seed(0)
    x, y = torch.randn(70, 6), torch.randn(50, 6) + 0.3
    whole = precision_recall(x, y), kernel_distance(x, y)
    monkeypatch.setattr("course_lib.evaluation._pieces", lambda points, others: points.split(7))
    assert precision_recall(x, y) == whole[0]
    torch.testing.assert_close(kernel_distance(x, y), whole[1])


def test_neither_recall_nor_coverage_bounds_the_other():
    """Scattered outliers have huge balls; tight pairs near every real example have tiny ones."""
    real = torch.randn(30, 2, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    scattered = 40 * torch.tensor([[1.0, 1], [-1, 1], [1, -1], [-1, -1]], dtype=torch.float64)
    found = precision_recall(real, scattered, k=1)
    assert (found.recall, found.coverage) == (1, 0)
    gaps = torch.cdist(real, real).fill_diagonal_(math.inf).amin(1)
    near = real + torch.stack([gaps / 2, torch.zeros_like(gaps)], 1)
    step = torch.tensor([1e-3 * gaps.min().item(), 0.0], dtype=torch.float64)
    found = precision_recall(real, torch.cat([near, near + step]), k=1)
    assert (found.recall, found.coverage) == (0, 1)
