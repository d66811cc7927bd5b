"""Masks both ways: nothing of the future is seen, and of the past all that is promised."""

import pytest
import torch
import torch.nn.functional as F

from course_lib.autoregressive import (
    MADE,
    DiagonalBiLSTM,
    GatedPixelCNN,
    PixelCNN,
    RowLSTM,
    WaveNet,
    receptive_field_map,
)
from course_lib.autoregressive.diagonal_bilstm import skew, unskew
from course_lib.autoregressive.raster import MaskedConv2d
from tests.autoregressive.properties import (
    GREY,
    MODELS,
    all_before_is_seen,
    build,
    jacobian,
    nothing_leaks,
)

pytestmark = pytest.mark.usefixtures("float64")
SEES_ALL = ["FVSBN", "NADE", "MADE", "DiagonalBiLSTM", "Transformer"]


@pytest.mark.parametrize("name", MODELS)
def test_nothing_leaks(name):
    nothing_leaks(build(name, (1, 5, 4), 2))


@pytest.mark.parametrize("name", GREY)
def test_nothing_leaks_between_colours(name):
    nothing_leaks(build(name, (3, 3, 3), 3))


@pytest.mark.parametrize("name", SEES_ALL)
def test_all_before_is_seen(name):
    all_before_is_seen(build(name, (1, 5, 4), 2))
    all_before_is_seen(build(name, (3, 2, 2), 3))


def test_two_stacks_leave_no_blind_spot():
    all_before_is_seen(GatedPixelCNN((1, 5, 5), 2, channels=8, n_layers=6, kernel_size=3))
    all_before_is_seen(GatedPixelCNN((3, 3, 3), 2, channels=24, n_layers=4, kernel_size=3))
    all_before_is_seen(
        GatedPixelCNN((1, 3, 4), 2, channels=8, n_layers=5, kernel_size=3, n_classes=2),
        labels=torch.tensor([1]),
    )


def test_every_ordering_of_made_sees_its_own_past():
    model = MADE((1, 3, 3), 2, hidden=(40, 40), n_orderings=3)
    for r, order in enumerate(model.orderings):
        nothing_leaks(model, order, ordering=r)
        all_before_is_seen(model, order, ordering=r)


def offsets(model, size):
    """Offsets (rows up, columns right) that the pixels of a square image see."""
    seen = jacobian(model).view(size, size, size, size) > 0
    found, possible = set(), set()
    for r in range(size):
        for c in range(size):
            for i in range(size):
                for j in range(size):
                    possible.add((r - i, j - c))
                    if seen[r, c, i, j]:
                        found.add((r - i, j - c))
    return found, possible


def test_the_blind_spot_of_plain_pixelcnn_is_a_wedge():
    found, possible = offsets(PixelCNN((1, 6, 6), 2, channels=12, n_layers=7, kernel_size=3), 6)
    promised = {(up, right) for up, right in possible if (up > 0 and right <= up)}
    promised |= {(0, right) for up, right in possible if right < 0}
    assert found == promised
    assert (1, 2) not in found


@pytest.mark.parametrize("skip", [False, True])
def test_mask_a_in_every_layer_hides_neighbours_unless_connections_skip_the_layers(skip):
    # The slip as the chapter describes it, and the notebook's exercise.
    class AllKindA(PixelCNN):
        def forward(self, x, labels=None):
            h = self.first(self.encode(x))
            for layer in self.layers:
                h = (h if skip else 0) + layer(F.relu(h))
            return self.head(h)

    for n_layers in (1, 2):
        model = AllKindA((1, 7, 7), 2, channels=16, n_layers=n_layers, kernel_size=3)
        model.layers = torch.nn.ModuleList(MaskedConv2d("A", 16, 16, 3) for _ in range(n_layers))
        seen = receptive_field_map(model, (0, 4, 4))[0, 4]
        reach = n_layers + 1  # convolutions in all, each of which moves at least one pixel
        hidden = 0 if skip else reach - 1
        assert seen.nonzero().squeeze(1).tolist() == list(range(4 - reach, 4 - hidden))


def test_row_lstm_sees_a_triangle():
    layers = 2
    model = RowLSTM((1, 6, 6), 2, channels=8, n_layers=layers, kernel_size=3)
    found, possible = offsets(model, 6)
    promised = {(u, r) for u, r in possible if u > 0 and -(u + layers + 1) <= r <= u}
    promised |= {(0, -left) for left in range(1, layers + 2)}
    assert found == promised


def test_diagonal_bilstm_sees_far_with_one_layer():
    model = DiagonalBiLSTM((1, 6, 6), 2, channels=8, n_layers=1, kernel_size=3)
    all_before_is_seen(model)


@pytest.mark.parametrize("kernel_size", [3, 5])
def test_without_whole_pixels_the_bilstm_loses_the_end_of_the_row_above_beyond_its_kernel(
    kernel_size,
):
    """One pixel is missing, (r − 1, W − 1), and only where it is out of reach of the first kernel."""
    height, width = 4, 6
    for n_layers in (1, 3):
        model = DiagonalBiLSTM(
            (1, height, width), 2, channels=8, n_layers=n_layers, kernel_size=kernel_size
        )
        with torch.no_grad():
            model.own.weight.zero_()
        seen = jacobian(model) > 0
        for place in range(height * width):
            r, c = divmod(place, width)
            missing = (~seen[place, :place]).nonzero().flatten().tolist()
            is_lost = r > 0 and width - 1 - c > kernel_size // 2
            assert missing == ([r * width - 1] if is_lost else [])


def test_wavenet_sees_its_receptive_field_and_no_more():
    model = WaveNet((30,), 4, channels=8, dilations=(1, 2, 4), kernel_size=3)
    assert model.receptive_field == 15
    seen = jacobian(model) > 0
    assert seen[25].nonzero().flatten().tolist() == list(range(10, 25))
    assert seen[3].nonzero().flatten().tolist() == [0, 1, 2]


def test_masks_leave_parameters_alone():
    model = PixelCNN((1, 4, 4), 2, channels=4)
    before = model.first.weight.clone()
    model.log_prob(model.sample(2)).sum().backward()
    assert torch.equal(before, model.first.weight)
    assert (model.first.weight.grad[model.first.mask.expand_as(before) == 0] == 0).all()


def test_skew_puts_diagonals_in_columns_and_unskew_undoes_it():
    x = torch.randn(2, 3, 4, 5)  # (N, H, W, F)
    skewed = skew(x)
    for d in range(6):
        for r in range(3):
            inside = 0 <= d - r < 4
            torch.testing.assert_close(
                skewed[:, r, d], x[:, r, d - r] if inside else torch.zeros(2, 5)
            )
    assert torch.equal(unskew(skewed), x)


def test_seen_by_agrees_with_the_jacobian():
    model = RowLSTM((1, 4, 4), 2, channels=6, kernel_size=3)
    expected = jacobian(model)[9].view(1, 4, 4) > 0
    assert torch.equal(receptive_field_map(model, (0, 2, 1)), expected)
    assert expected.any()
    assert not expected.all()
    assert torch.equal(model.encode(torch.tensor([0, 1])), torch.tensor([-1.0, 1.0]))
