"""`flow_bits` equals an independent computation, and no forged flow gets a better number."""

import math

import numpy as np
import pytest
import torch

from course_lib.checking.measures import Invalid, flow_bits

ALPHA = 0.05


class GaussianFlow:
    """An honest flow that is known in closed form: the logit, then a triangular affine map."""

    def __init__(self) -> None:
        generator = torch.Generator().manual_seed(0)
        mix = 0.05 * torch.randn(64, 64, generator=generator, dtype=torch.float64)
        self.matrix = mix.tril(-1) + torch.diag(0.3 + torch.rand(64, generator=generator).double())

    def forward(self, y):
        return (ALPHA + (1 - 2 * ALPHA) * y).logit() @ self.matrix.T + 0.1

    def inverse(self, z):
        x = torch.linalg.solve_triangular(self.matrix, (z - 0.1).T, upper=False).T
        return (x.sigmoid() - ALPHA) / (1 - 2 * ALPHA)

    def bits(self, y):
        s = ALPHA + (1 - 2 * ALPHA) * y
        log_det = self.matrix.diag().log().sum() - (s * (1 - s) / (1 - 2 * ALPHA)).log().sum(1)
        log_p = torch.distributions.Normal(0.0, 1.0).log_prob(self.forward(y)).sum(1) + log_det
        return (math.log2(17) - log_p / (64 * math.log(2))).mean().item()


def measured(flow, seed=3, record=None):
    def ask(name, points):
        if record is not None:
            record.append((name, points))
        return {"": np.asarray(getattr(flow, name)(torch.from_numpy(points)))}

    return flow_bits(ask, split="test", seed=seed)


def test_it_equals_the_closed_form():
    flow, record = GaussianFlow(), []
    found = measured(flow, record=record)
    # After all points in two orders come the longer differences, and the images are their middles.
    ahead, behind = torch.from_numpy(record[2][1]).chunk(2)
    y = (ahead + behind) / 2
    assert y.shape == (128, 64)
    assert y.min() >= 0
    assert y.max() <= 1
    assert found.value == pytest.approx(flow.bits(y), abs=1e-6)
    assert found.unit == "bits/dim"


class Forged(GaussianFlow):
    """Remembers what it was asked, and answers `inverse` from memory where it can."""

    def __init__(self) -> None:
        super().__init__()
        self.points, self.latents = torch.zeros(0, 64).double(), torch.zeros(0, 64).double()

    def cover(self, z):
        raise NotImplementedError

    def uncover(self, z):
        raise NotImplementedError

    def forward(self, y):
        z = self.cover(super().forward(y))
        self.points, self.latents = torch.cat([self.points, y]), torch.cat([self.latents, z])
        return z

    def inverse(self, z):
        y = super().inverse(self.uncover(z))
        if len(self.latents):
            distance, nearest = torch.cdist(z, self.latents).min(1)
            known = distance < 1e-9
            y[known] = self.points[nearest[known]]
        return y


class DoubleCover(Forged):
    """The two halves of every latent's line are both stretched over the whole line."""

    def cover(self, z):
        u = torch.special.ndtr(z)
        return torch.special.ndtri((2 * u % 1).clamp(1e-12, 1 - 1e-12))

    def uncover(self, z):
        return torch.special.ndtri((torch.special.ndtr(z) / 2).clamp(1e-12, 1 - 1e-12))


class Squared(Forged):
    """Pairs of latents are squared as complex numbers: continuous, positive determinant, two to one."""

    def cover(self, z):
        pair = torch.view_as_complex(z.unflatten(1, (32, 2)).contiguous())
        return torch.view_as_real(pair**2 / pair.abs().sqrt()).flatten(1)

    def uncover(self, z):
        pair = torch.view_as_complex(z.unflatten(1, (32, 2)).contiguous())
        root = (pair / pair.abs().clamp_min(1e-12)).sqrt() * pair.abs() ** (2 / 3)
        return torch.view_as_real(root).flatten(1)


class Folded(Forged):
    """The absolute value of a latent: continuous, but folded."""

    def cover(self, z):
        return z.abs()

    def uncover(self, z):
        return z.abs()


class Sawtooth(Forged):
    """Steep teeth, too narrow to be seen from afar: a large derivative that leads nowhere."""

    def cover(self, z):
        return z + (50 * z) % 1e-3

    def uncover(self, z):
        return z


class FineSawtooth(Sawtooth):
    """Teeth so narrow that a longer difference spans several."""

    def cover(self, z):
        return z + 1e-5 * torch.asin(torch.sin(5e5 * z))


@pytest.mark.parametrize("forged", [DoubleCover, Squared, Folded, Sawtooth, FineSawtooth])
def test_a_map_that_covers_latents_several_times_is_rejected(forged):
    with pytest.raises(Invalid):
        measured(forged())


class WrongInverse(GaussianFlow):
    def inverse(self, z):
        return super().inverse(z - 0.2)


class Clamped(GaussianFlow):
    def inverse(self, z):
        return super().inverse(z).clamp(0.2, 0.8)


class Batched(GaussianFlow):
    def forward(self, y):
        z = super().forward(y)
        return (z - z.mean(0)) / z.std(0)


class BatchedBack(GaussianFlow):
    def inverse(self, z):
        return super().inverse(z) + 0.01 * z.mean()


class Dropped(GaussianFlow):
    """Dropout is still on."""

    def forward(self, y):
        z = super().forward(y)
        return z + torch.nn.functional.dropout(z, 0.2)


class ByPlace(GaussianFlow):
    """Another shift for each row of the batch."""

    def forward(self, y):
        return super().forward(y) + torch.linspace(0, 1, len(y)).double()[:, None]


class Single(GaussianFlow):
    def forward(self, y):
        return super().forward(y).float()


class SingleInside(GaussianFlow):
    def forward(self, y):
        return super().forward(y).float().double()


class Constant(GaussianFlow):
    def forward(self, y):
        return 0 * y


class Short(GaussianFlow):
    def forward(self, y):
        return super().forward(y)[:, :63]


class Undefined(GaussianFlow):
    def forward(self, y):
        return super().forward(y) * math.nan


@pytest.mark.parametrize(
    ("flow", "message"),
    [
        (WrongInverse, "inverse"),
        (Clamped, "inverse"),
        (Batched, r"forward of a point depends on the other points of its batch"),
        (BatchedBack, r"inverse of a point depends on the other points of its batch"),
        (Dropped, r"forward of a point .* random \(dropout in training mode\? call \.eval"),
        (ByPlace, "place in the batch"),
        (Single, "float64"),
        (SingleInside, "rounded"),
        (Constant, "singular"),
        (Short, "shape"),
        (Undefined, "finite"),
    ],
)
def test_what_is_no_flow_is_rejected_with_a_reason(flow, message):
    with pytest.raises(Invalid, match=message):
        measured(flow())


def test_it_gives_the_same_number_again():
    assert measured(GaussianFlow()) == measured(GaussianFlow())
