"""What to hold a flow to: its Jacobian, its inverse, and the integral of its density.

Each number is found without the formula it checks. They serve the tests, the notebooks, and
whoever writes a transform of their own.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from course_lib.flow.autoregressive import MaskedAutoregressive
from course_lib.flow.conditioners import ImageConditioner, VectorConditioner
from course_lib.flow.coupling import AdditiveCoupling, AffineCoupling
from course_lib.flow.elementwise import ActNorm, ElementwiseAffine, Logit
from course_lib.flow.flow import Flow
from course_lib.flow.glow import Glow
from course_lib.flow.iaf import IAF
from course_lib.flow.image import Invertible1x1Convolution, MultiScale, Permutation, Squeeze
from course_lib.flow.maf import MAF
from course_lib.flow.masks import alternating_mask, channel_mask, checkerboard_mask, half_mask
from course_lib.flow.nice import NICE
from course_lib.flow.planar import Planar
from course_lib.flow.planar_flow import PlanarFlow
from course_lib.flow.realnvp import MultiScaleRealNVP, RealNVP
from course_lib.flow.spline import SplineCoupling
from course_lib.flow.spline_flow import SplineFlow
from course_lib.flow.tarflow import AttentionAutoregressive, TarFlow
from course_lib.flow.transform import Composition, Inverse, Transform
from course_lib.protocols import Bijection
from course_lib.randomness import seeded


def jacobian_error(transform: Bijection, x: Tensor) -> tuple[float, float]:
    """Compare log-determinants with those of the Jacobian matrices that autograd finds.

    Args:
        transform: what to check.
        x: points of data, shape ``(N, *event_shape)``, in float64.

    Returns:
        The largest relative error over the points of ``forward``, and that of ``inverse``; errors
        are relative to the larger of 1 and the size of the log-determinant.
    """
    z, log_det = transform.forward(x)
    log_det_inverse = transform.inverse(z.detach())[1]
    forward = _worst(log_det, [_log_det(transform.forward, p) for p in x])
    inverse = _worst(log_det_inverse, [_log_det(transform.inverse, p) for p in z.detach()])
    return forward, inverse


def _log_det(function: Callable[[Tensor], tuple[Tensor, Tensor]], point: Tensor) -> Tensor:
    jacobian = torch.autograd.functional.jacobian(
        lambda p: function(p.unsqueeze(0))[0].flatten(), point.detach()
    )
    return torch.linalg.slogdet(jacobian.reshape(point.numel(), point.numel())).logabsdet


def _worst(given: Tensor, expected: list[Tensor]) -> float:
    expected = torch.stack(expected)
    return ((given - expected).abs() / expected.abs().clamp(min=1)).max().item()


@torch.no_grad()
def round_trip_error(transform: Bijection, x: Tensor) -> float:
    """Return the largest error of x − f⁻¹(f(x)) over all entries, and of the log-determinants' sum.

    Args:
        transform: what to check.
        x: points of data, shape ``(N, *event_shape)``.
    """
    z, log_det = transform.forward(x)
    back, log_det_inverse = transform.inverse(z)
    # Not Python's maximum: it may forget a NaN.
    return (
        torch.stack([(back - x).abs().max(), (log_det + log_det_inverse).abs().max()]).max().item()
    )


@torch.no_grad()
def integral_2d(
    log_prob: Callable[[Tensor], Tensor], *, limit: float = 8.0, n_points: int = 801
) -> float:
    """Integrate a density of the plane over a square, by the trapezoidal rule.

    Args:
        log_prob: maps points, shape ``(P, 2)``, to log densities, shape ``(P,)``.
        limit: the square is [−limit, limit]².
        n_points: points per side.
    """
    side = torch.linspace(-limit, limit, n_points)
    step = 2 * limit / (n_points - 1)
    total = 0.0
    for points in torch.cartesian_prod(side, side).split(100_000):
        total += log_prob(points).exp().sum().item()
    return total * step**2  # the density at the border is taken to be negligible


@torch.no_grad()
def sampling_error_2d(
    log_prob: Callable[[Tensor], Tensor],
    samples: Tensor,
    *,
    limit: float = 8.0,
    cells: int = 12,
    fine: int = 40,
) -> float:
    """Compare how often samples of the plane fall into cells with what their density says.

    The cells divide the rectangle that holds the middle 96 % of each coordinate's samples; what lies
    outside, or in cells that should hold fewer than five samples, is one cell more. This is the check that
    ties a density to the map which draws.

    Args:
        log_prob: maps points, shape ``(P, 2)``, to log densities, shape ``(P,)``.
        samples: draws, shape ``(N, 2)``; some thousands.
        limit: samples beyond [−limit, limit]² count as outside.
        cells: cells per side.
        fine: points per side of a cell, for the integral of the density.

    Returns:
        Pearson's statistic divided by the number of cells. It is near 1 if the density is that of the
        samples; otherwise it grows with N.
    """
    points = samples.double().clamp(-limit, limit)
    low, high = points.quantile(0.02, dim=0), points.quantile(0.98, dim=0)
    width = (high - low) / cells
    index = ((points - low) / width).floor().long()
    inside = ((index >= 0) & (index < cells)).all(1)
    flat = index[inside] @ torch.tensor([cells, 1], device=index.device)
    counts = torch.bincount(flat, minlength=cells**2).double()
    # The density at the midpoints of a fine grid, cell by cell.
    steps = (torch.arange(cells * fine, dtype=torch.float64, device=points.device) + 0.5) / fine
    grid = low + torch.cartesian_prod(steps, steps) * width
    mass = torch.cat(
        [log_prob(part.to(samples.dtype)).double().exp() for part in grid.split(100_000)]
    )
    mass = mass.reshape(cells, fine, cells, fine).mean((1, 3)).flatten() * width.prod()
    # What is not in the square, and the cells that hope for fewer than five samples, are one cell more.
    expected = len(points) * mass
    counted = expected >= 5
    rest = len(points) - expected[counted].sum().clamp(max=len(points))
    expected = torch.cat([expected[counted], rest[None]])
    counts = torch.cat([counts[counted], (len(points) - counts[counted].sum())[None]])
    return ((counts - expected).square() / expected.clamp(min=1)).mean().item()


def _vector_coupling(kind: type, mask: Tensor, **options: object) -> Transform:
    n_parameters = 3 * options["bins"] - 1 if "bins" in options else kind.n_parameters
    return kind(mask, VectorConditioner(mask, n_parameters, (16,)), **options)


def _image_coupling(mask: Tensor) -> Transform:
    return AffineCoupling(mask, ImageConditioner(mask, AffineCoupling.n_parameters, 8))


# One small instance of every transform and every model, by name; a test holds the list complete.
TRANSFORMS: dict[str, Callable[[], Transform]] = {
    "ElementwiseAffine": lambda: ElementwiseAffine((5,)),
    "ActNorm": lambda: ActNorm((3, 2, 2)),
    "Logit": lambda: Logit((5,)),
    "Planar": lambda: Planar((5,)),
    "AdditiveCoupling": lambda: _vector_coupling(AdditiveCoupling, alternating_mask((5,))),
    "AffineCoupling": lambda: _vector_coupling(AffineCoupling, alternating_mask((5,))),
    "AffineCoupling, halves": lambda: _vector_coupling(AffineCoupling, half_mask((5,), flip=True)),
    "AffineCoupling, any mask": lambda: _vector_coupling(
        AffineCoupling, torch.tensor([True, True, False, True, False])
    ),
    "AffineCoupling, checkerboard": lambda: _image_coupling(checkerboard_mask((2, 4, 4))),
    "AffineCoupling, channels": lambda: _image_coupling(channel_mask((4, 2, 2), flip=True)),
    "SplineCoupling": lambda: _vector_coupling(SplineCoupling, alternating_mask((5,)), bins=6),
    "MaskedAutoregressive": lambda: MaskedAutoregressive((5,), (16, 16)),
    "AttentionAutoregressive": lambda: AttentionAutoregressive((5,), width=8, heads=2),
    "AttentionAutoregressive, patches": lambda: AttentionAutoregressive(
        (2, 3), patch=2, width=8, heads=2, n_blocks=1
    ),
    "Inverse": lambda: Inverse(MaskedAutoregressive((5,), (16,))),
    "Permutation": lambda: Permutation((5,), torch.tensor([2, 0, 4, 1, 3])),
    "Squeeze": lambda: Squeeze((1, 4, 4)),
    "Invertible1x1Convolution": lambda: Invertible1x1Convolution((3, 2, 2)),
    "Composition": lambda: Composition([ElementwiseAffine((4,)), Permutation((4,)), Planar((4,))]),
    "MultiScale": lambda: MultiScale(
        [Composition([Squeeze((1, 4, 4)), ActNorm((4, 2, 2))]), ActNorm((2, 2, 2))]
    ),
}

MODELS: dict[str, Callable[[], Flow]] = {
    "NICE": lambda: NICE((4,), hidden=(16,), layers=4),
    "RealNVP": lambda: RealNVP((4,), hidden=(16,), layers=4),
    "RealNVP, images": lambda: RealNVP((1, 4, 4), hidden=(16,), layers=2, logit_margin=0.05),
    "MultiScaleRealNVP": lambda: MultiScaleRealNVP((1, 4, 4), width=8, couplings=2),
    "Glow": lambda: Glow((1, 4, 4), width=8, steps=2),
    "MAF": lambda: MAF((4,), hidden=(16, 16), layers=3),
    "IAF": lambda: IAF((4,), hidden=(16, 16), layers=3),
    "TarFlow": lambda: TarFlow((4,), patch=2, layers=3, width=8, heads=2, n_blocks=1),
    "PlanarFlow": lambda: PlanarFlow((4,), layers=6),
    "SplineFlow": lambda: SplineFlow((4,), hidden=(16,), layers=3),
}

# The same on the plane, where a density can be integrated.
PLANE_MODELS: dict[str, Callable[[], Flow]] = {
    "NICE": lambda: NICE((2,), hidden=(16,), layers=4),
    "RealNVP": lambda: RealNVP((2,), hidden=(16,), layers=4),
    "MAF": lambda: MAF((2,), hidden=(16,), layers=3),
    "IAF": lambda: IAF((2,), hidden=(16,), layers=3),
    "TarFlow": lambda: TarFlow((2,), layers=3, width=8, heads=2, n_blocks=1),
    "PlanarFlow": lambda: PlanarFlow((2,), layers=6),
    "SplineFlow": lambda: SplineFlow((2,), hidden=(16,), layers=3),
}


def build(make: Callable[[], Transform], *, seed: int = 0, spread: float = 0.2) -> Transform:
    """Build an instance in float64 with random parameters.

    New flows are close to the identity, where a wrong formula can look right. With random parameters
    the log-determinant is not 0, but for transforms that preserve volume whatever they are.

    Args:
        make: constructor, for instance from `TRANSFORMS`.
        seed: seeds the parameters.
        spread: standard deviation of what is added to each parameter.
    """
    generator = torch.Generator().manual_seed(seed)
    with seeded(seed):
        transform = make().double().eval()
    with torch.no_grad():
        for parameter in transform.parameters():
            parameter += spread * torch.randn(
                parameter.shape, generator=generator, dtype=parameter.dtype
            )
    return transform


def probe(transform: Transform, n: int = 6, *, seed: int = 0) -> Tensor:
    """Points of data for `transform`, in float64: normal, or uniform before a `Logit`.

    Args:
        transform: what to probe.
        n: number of points.
        seed: seeds the points.
    """
    generator = torch.Generator().manual_seed(seed)
    shape = (n, *transform.event_shape)
    if any(isinstance(module, Logit) for module in transform.modules()):
        return torch.rand(shape, generator=generator, dtype=torch.float64)
    return 1.5 * torch.randn(shape, generator=generator, dtype=torch.float64)
