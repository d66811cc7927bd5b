"""Deliberate mistakes in the models: each must be noticed by the property that forbids it."""

from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F

from course_lib import distributions
from course_lib.autoregressive import (
    diagonal_bilstm,
    gated_pixelcnn,
    raster,
)
from course_lib.autoregressive.fast import gated_pixelcnn as fast_gated_pixelcnn
from tests.autoregressive.properties import (
    build,
    cached_is_naive,
    jacobian,
    nothing_leaks,
    sums_to_one,
)

pytestmark = pytest.mark.usefixtures("float64")


def noticed(check, model):
    with pytest.raises(AssertionError):
        check(model)


RASTER = ["PixelCNN", "GatedPixelCNN", "RowLSTM", "DiagonalBiLSTM"]


def always(kind, monkeypatch):
    right = raster.pixelcnn_mask
    monkeypatch.setattr(
        raster, "pixelcnn_mask", lambda _, *args, **kwargs: right(kind, *args, **kwargs)
    )


@pytest.mark.parametrize("name", RASTER)
def test_mask_b_in_the_first_layer(name, monkeypatch):
    always("B", monkeypatch)
    noticed(nothing_leaks, build(name, (1, 4, 4), 2))
    noticed(sums_to_one, build(name, (1, 2, 3), 2))


@pytest.mark.parametrize("name", RASTER)
def test_mask_a_in_later_layers(name, monkeypatch):
    def sees_its_left_neighbour(model):
        assert (jacobian(model).diagonal(-1)[:3] > 0).all()

    sees_its_left_neighbour(build(name, (1, 4, 4), 2))
    always("A", monkeypatch)
    noticed(sees_its_left_neighbour, build(name, (1, 4, 4), 2))


def test_vertical_stack_shifted_by_a_row(monkeypatch):
    def pad(x, sizes):
        left, right, above, below = sizes
        return F.pad(x, (left, right, above - 1, below + 1))

    monkeypatch.setattr(gated_pixelcnn, "F", SimpleNamespace(pad=pad))
    noticed(nothing_leaks, build("GatedPixelCNN", (1, 4, 4), 2))


def test_stale_row_in_the_cache(monkeypatch):
    right = fast_gated_pixelcnn._Sampler.begin_row

    def stale(self, row):
        before = list(self.last_rows)
        right(self, row)
        self.last_rows = before

    monkeypatch.setattr(fast_gated_pixelcnn._Sampler, "begin_row", stale)
    noticed(cached_is_naive, build("GatedPixelCNN", (1, 6, 6), 4))


def test_second_direction_not_moved_down(monkeypatch):
    def pad(x, sizes):
        return F.pad(x, (0, 0, 0, 0, 0, 1) if sizes == (0, 0, 0, 0, 1, 0) else sizes)

    monkeypatch.setattr(diagonal_bilstm, "F", SimpleNamespace(pad=pad))
    noticed(nothing_leaks, build("DiagonalBiLSTM", (1, 4, 4), 2))
    noticed(sums_to_one, build("DiagonalBiLSTM", (1, 2, 3), 2))


def test_edge_bins_without_their_tails(monkeypatch):
    right = distributions.discretized_logistic_log_mass

    def without_tails(x, mean, log_scale, levels):
        # Every level is read as an inner one of a wider range.
        step = 2 / (levels - 1)
        mean, log_scale = mean + step, log_scale.expand_as(mean)
        stretch = (levels - 1) / (levels + 1)
        return right(
            x + 1, stretch * (mean - step), log_scale + torch.log(torch.tensor(stretch)), levels + 2
        )

    monkeypatch.setattr(distributions, "discretized_logistic_log_mass", without_tails)
    mixture = distributions.DiscretizedLogisticMixture(3, 2)
    for name in ("FVSBN", "GatedPixelCNN"):
        noticed(sums_to_one, build(name, (1, 2, 2), 3, distribution=mixture))
