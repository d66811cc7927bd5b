"""Numbers that judge a model, each with its unit and its standard error."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from course_lib.inputs import (
    require_event_shape,
    require_finite,
    require_positive_integer,
    require_real,
    require_shapes,
    require_tensor,
)
from course_lib.mmd import cubic_kernel, mmd
from course_lib.precision import at_least_float32, in_one_type


@dataclass(frozen=True)
class Estimate:
    """A mean and its standard error.

    Attributes:
        mean: the estimate.
        standard_error: its standard deviation over repetitions, estimated from the sample.
        n: number of independent values behind it.
    """

    mean: float
    standard_error: float
    n: int

    def __str__(self) -> str:
        """Print as ``mean ± standard error`` with matching digits."""
        digits = 2
        if 0 < self.standard_error < math.inf:
            digits = max(0, 1 - math.floor(math.log10(self.standard_error)))
        return f"{self.mean:.{digits}f} ± {self.standard_error:.{digits}f}"


def estimate(values: Tensor) -> Estimate:
    """Mean of independent values with its standard error.

    NaN is not skipped: an example without a likelihood makes the average one without a value.

    Args:
        values: one value per example, shape ``(N,)``, N ≥ 2.

    Raises:
        ValueError: another shape, or fewer than two values.
    """
    advice = "Sum over the dimensions of each example first."
    require_shapes(advice, examples=2, values=(values, "N"))
    values = at_least_float32(values, "values").double()
    return Estimate(
        values.mean().item(), (values.std() / math.sqrt(len(values))).item(), len(values)
    )


def bits_per_dim(log_prob: Tensor, event_shape: Sequence[int]) -> Tensor:
    r"""Bits per dimension of a discrete image: :math:`-\log P(x) / (D \log 2)`.

    `log_prob` must be that of the grey levels themselves. A density q of x / K (a flow on
    dequantized data) becomes one by ``log q - D * log(K)`` first.

    Args:
        log_prob: log P(x) in nats, any shape.
        event_shape: shape of one image; D is the product of its entries.

    Returns:
        Bits per dimension, in the shape of `log_prob`.

    Raises:
        TypeError: `event_shape` is not a sequence of integers.
        ValueError: `event_shape` is empty or has an entry below 1.
    """
    if isinstance(log_prob, Tensor):
        require_tensor(log_prob, "log_prob")
        log_prob = at_least_float32(log_prob, "log_prob")
    else:  # a number is fine too
        log_prob = require_real(log_prob, "log_prob", "a tensor, or a number,")
    return -log_prob / (math.prod(require_event_shape(event_shape)) * math.log(2))


def nearest_neighbours(x: Tensor, reference: Tensor) -> tuple[Tensor, Tensor]:
    """For each example, its nearest one in `reference`: a check for memorization.

    Args:
        x: examples, shape ``(N, …)``.
        reference: where to look, shape ``(M, …)``, of the same event shape.

    Returns:
        Euclidean distances, shape ``(N,)``, and indices into `reference`, shape ``(N,)``.

    Raises:
        TypeError: an argument is not a tensor.
        ValueError: the event shapes differ, or `reference` is empty.
    """
    require_tensor(x)
    require_tensor(reference, "reference")
    if x.dim() == 0 or x.shape[1:] != reference.shape[1:] or 0 in (*x.shape, len(reference)):
        raise ValueError(
            f"x has shape {tuple(x.shape)} and reference {tuple(reference.shape)}; events of the "
            f"same shape, and at least one to compare with, are expected."
        )
    for name, value in (("x", x), ("reference", reference)):
        at_least_float32(value, name)
    # Grey levels are integers, whose differences would wrap around.
    dtype = torch.promote_types(torch.promote_types(x.dtype, reference.dtype), torch.float32)
    flat, pool = (value.reshape(len(value), -1).to(dtype) for value in (x, reference))
    index = torch.cat([_nearest(part, pool) for part in flat.split(1024)])
    return (flat - pool[index]).norm(dim=1), index


def _nearest(x: Tensor, pool: Tensor) -> Tensor:
    """Index of the row of `pool` that is nearest to each row of `x`."""
    # cdist subtracts large numbers, |x|² + |y|² − 2xᵀy. What its rounding cannot tell apart are
    # candidates, and the differences themselves, exactly 0 for a copy, choose among them.
    squared = torch.cdist(x, pool).square_()  # (N, M)
    terms = x.shape[1] + 8  # of which each may be rounded: the products, and what is done with them
    largest = x.norm(dim=1, keepdim=True) + pool.norm(dim=1).max()
    slack = terms * torch.finfo(x.dtype).eps * largest.square()
    near = squared <= squared.amin(1, keepdim=True) + slack
    index = squared.argmin(1)
    for row in (near.sum(1) > 1).nonzero().squeeze(1).tolist():
        candidates = near[row].nonzero().squeeze(1)
        exact = torch.cdist(
            x[row, None], pool[candidates], compute_mode="donot_use_mm_for_euclid_dist"
        )
        index[row] = candidates[exact.argmin()]
    return index


def frechet_gaussian(mu_p: Tensor, cov_p: Tensor, mu_q: Tensor, cov_q: Tensor) -> Tensor:
    r"""Squared Fréchet (Wasserstein-2) distance of two Gaussians, equation ``eq-frechet``.

    .. math:: \lVert\mu_p-\mu_q\rVert^2
              + \operatorname{tr}\left(\Sigma_p + \Sigma_q - 2(\Sigma_p\Sigma_q)^{1/2}\right)

    The trace of the root is that of the symmetric :math:`(\Sigma_p^{1/2}\Sigma_q\Sigma_p^{1/2})^{1/2}`,
    whose eigenvalues are real: no complex rounding errors, and singular covariances are fine.

    Args:
        mu_p: mean of p, shape ``(d,)``.
        cov_p: covariance of p, shape ``(d, d)``, symmetric positive semidefinite.
        mu_q: mean of q.
        cov_q: covariance of q.

    Returns:
        The squared distance, a scalar ≥ 0.

    Source: Dowson and Landau (1982).
    """
    require_shapes(mu_p=(mu_p, "d"), cov_p=(cov_p, "d d"), mu_q=(mu_q, "d"), cov_q=(cov_q, "d d"))
    require_finite(mu_p=mu_p, cov_p=cov_p, mu_q=mu_q, cov_q=cov_q)
    mu_p, cov_p, mu_q, cov_q = in_one_type(mu_p, cov_p, mu_q, cov_q)
    root = _matrix_root(cov_p)
    cross = torch.linalg.eigvalsh(root @ cov_q @ root).clamp(min=0).sqrt().sum()
    distance = (mu_p - mu_q).square().sum() + cov_p.trace() + cov_q.trace() - 2 * cross
    return distance.clamp(min=0)  # equal distributions give 0 up to rounding


def frechet_distance(x: Tensor, y: Tensor) -> Tensor:
    """Fréchet distance of two sets of features: `frechet_gaussian` of their means and covariances.

    Known as FID where the features are those of an ImageNet network (Heusel et al., 2017). It
    compares two moments only, and it is biased upwards by about a multiple of 1/N: compare sets of equal
    size, and give the distance of training to test images beside it.

    Args:
        x: features, shape ``(N, d)``, N ≥ 2.
        y: features, shape ``(M, d)``, M ≥ 2.

    Returns:
        The squared distance, a scalar ≥ 0, computed in float64.

    Raises:
        ValueError: shapes do not fit, fewer than two examples, or NaN.
    """
    x, y = _features(x=x, y=y)
    # torch.cov of a single variable is a number without dimensions.
    cov_x, cov_y = (torch.cov(features.T).reshape(x.shape[1], -1) for features in (x, y))
    return frechet_gaussian(x.mean(0), cov_x, y.mean(0), cov_y)


def kernel_distance(x: Tensor, y: Tensor) -> Tensor:
    r"""Squared maximum mean discrepancy of features with a cubic kernel, equation ``eq-kernel-distance``.

    .. math:: \frac{\sum_{i\ne j}k(x_i,x_j)}{N(N-1)} + \frac{\sum_{i\ne j}k(y_i,y_j)}{M(M-1)}
              - \frac{2\sum_{i,j}k(x_i,y_j)}{NM},\qquad k(a,b) = \left(\frac{a^\top b}{d}+1\right)^3

    Unbiased, unlike the Fréchet distance, and therefore sometimes below 0 for equal distributions. Known as
    KID (Bińkowski et al., 2018).

    Args:
        x: features, shape ``(N, d)``, N ≥ 2.
        y: features, shape ``(M, d)``, M ≥ 2.

    Returns:
        The estimate, a scalar, computed in float64.

    Raises:
        ValueError: shapes do not fit, fewer than two examples, or NaN.
    """
    return mmd(*_features(x=x, y=y), cubic_kernel)


@dataclass(frozen=True)
class PrecisionRecall:
    """Fidelity and diversity of a set of generated examples, apart from one another.

    Attributes:
        precision: share of generated examples inside the real manifold.
        recall: share of real examples inside the generated manifold.
        density: mean number of real balls around a generated example, over k; may exceed 1.
        coverage: share of real balls that hold a generated example.
    """

    precision: float
    recall: float
    density: float
    coverage: float


def precision_recall(real: Tensor, fake: Tensor, *, k: int = 5) -> PrecisionRecall:
    """Precision, recall, density and coverage from k-nearest-neighbour balls, ``eq-precision-recall``.

    A set's manifold is the union of balls around its examples, each reaching to the example's k-th
    nearest neighbour within the set. Recall uses the generated balls, which outliers blow up;
    coverage asks the same with the real balls.

    Args:
        real: features of real examples, shape ``(N, d)``, N > k.
        fake: features of generated examples, shape ``(M, d)``, M > k.
        k: number of neighbours.

    Returns:
        The four numbers.

    Raises:
        ValueError: shapes do not fit, k < 1, no more than k examples, or NaN.

    Source: Kynkäänniemi et al. (2019); Naeem et al. (2020).
    """
    k = require_positive_integer(k, "k")
    real, fake = _features(examples=k + 1, real=real, fake=fake)

    def distances(points: Tensor, others: Tensor) -> Iterator[Tensor]:
        # By matrix products the distance of two copies would not be 0, nor that of a neighbour
        # the radius that it defines.
        for part in _pieces(points, len(others)):
            yield torch.cdist(part, others, compute_mode="donot_use_mm_for_euclid_dist")

    def radii(points: Tensor) -> Tensor:
        # The nearest to each point is itself, at distance 0: hence k + 1.
        return torch.cat([near.kthvalue(k + 1).values for near in distances(points, points)])

    def in_balls(points: Tensor, centres: Tensor, radius: Tensor) -> tuple[Tensor, Tensor]:
        """For each point the number of balls that hold it, for each ball whether it holds a point."""
        counts, held = [], torch.zeros(len(centres), dtype=torch.bool, device=centres.device)
        for distance in distances(points, centres):
            inside = distance <= radius
            counts.append(inside.sum(1))
            held |= inside.any(0)
        return torch.cat(counts), held

    real_balls, held = in_balls(fake, real, radii(real))
    fake_balls, _ = in_balls(real, fake, radii(fake))
    return PrecisionRecall(
        precision=(real_balls > 0).double().mean().item(),
        recall=(fake_balls > 0).double().mean().item(),
        density=real_balls.double().mean().item() / k,
        coverage=held.double().mean().item(),
    )


@dataclass(frozen=True)
class ModeCount:
    """How samples lie about the modes of a known mixture.

    Attributes:
        modes: number of modes that are covered.
        high_quality: share of samples near any mode.
        shares: share of all samples near each mode, shape ``(K,)``.
    """

    modes: int
    high_quality: float
    shares: Tensor


def modes_covered(
    samples: Tensor, centres: Tensor, std: float, *, radius: float = 3.0, least: float = 0.01
) -> ModeCount:
    """Count the modes of a mixture of Gaussians that samples cover.

    A sample is of high quality if it lies within `radius` standard deviations of its nearest
    centre; a mode is covered if at least a share `least` of all samples are of high quality and its own. In
    the plane a true Gaussian has 98.9 % of its samples within three standard deviations.

    Args:
        samples: samples, shape ``(N, d)``.
        centres: centres of the modes, shape ``(K, d)``.
        std: standard deviation of each mode in each direction.
        radius: in standard deviations.
        least: smallest share of all samples for a mode to count.

    Returns:
        Number of modes covered, high-quality fraction, and the share of each mode.

    Raises:
        ValueError: shapes do not fit, or there are no samples, or NaN.
    """
    samples, centres = _features(examples=1, samples=samples, centres=centres)
    std = require_real(std, "std", "a positive standard deviation", above=0)
    radius = require_real(radius, "radius", "a positive number of standard deviations", above=0)
    least = require_real(least, "least", "a share in [0, 1]", at_least=0, at_most=1)
    distance, nearest = torch.cdist(samples, centres).min(1)
    good = distance <= radius * std
    counts = torch.bincount(nearest[good], minlength=len(centres))
    shares = counts.double() / len(samples)
    return ModeCount(int((shares >= least).sum()), good.double().mean().item(), shares)


def _pieces(x: Tensor, others: int) -> tuple[Tensor, ...]:
    """Rows of `x` in pieces whose distances to `others` examples take at most 128 MiB in float64."""
    return x.split(max(1, 2**24 // others))


def _matrix_root(cov: Tensor) -> Tensor:
    """Symmetric root of a symmetric positive semidefinite matrix."""
    values, vectors = torch.linalg.eigh(cov)
    return (vectors * values.clamp(min=0).sqrt()) @ vectors.mT


def _features(examples: int = 2, **features: Tensor) -> list[Tensor]:
    """Require two sets of vectors of one dimension with finite entries, and return them in float64."""
    advice = "Flatten images, or take a classifier's features of them."
    words = zip(features.items(), ("N d", "M d"), strict=True)
    require_shapes(advice, examples=examples, **{n: (x, shape) for (n, x), shape in words})
    require_finite(**features)
    return [x.double() for x in features.values()]
