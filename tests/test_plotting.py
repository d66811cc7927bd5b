"""Figures show the data they are given."""

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch

from course_lib import plotting
from course_lib.training import History


@pytest.fixture(autouse=True)
def close():
    yield
    plt.close("all")


def test_image_grid_places_images_row_by_row():
    images = torch.stack([torch.full((1, 2, 3), value) for value in (0.0, 0.25, 0.75, 1.0)])
    canvas = plotting.image_grid(images, columns=2).images[0].get_array()
    assert canvas.shape == (2 * 3 + 1, 2 * 4 + 1)
    assert [canvas[1, 1], canvas[1, 5], canvas[4, 1], canvas[4, 5]] == [0.0, 0.25, 0.75, 1.0]
    assert canvas[0, 0] == 0.5


def test_image_grid_draws_colour_and_clips():
    images = torch.zeros(1, 3, 2, 2)
    images[:, 1] = 7.0
    canvas = plotting.image_grid(images).images[0].get_array()
    assert canvas[1, 1].tolist() == [0.0, 1.0, 0.0]


@pytest.mark.parametrize("shape", [(4, 8, 8), (4, 2, 8, 8), (0, 1, 8, 8)])
def test_image_grid_refuses_other_shapes(shape):
    with pytest.raises(ValueError, match=r"\(N, 1, H, W\)"):
        plotting.image_grid(torch.zeros(shape))


def test_curves_draw_training_and_validation():
    history = History(
        train=[{"step": 1, "seconds": 0.1, "loss": 3.0}, {"step": 2, "seconds": 0.2, "loss": 2.0}],
        validation=[{"step": 2, "seconds": 0.2, "loss": 2.5}],
    )
    lines = plotting.curves(history).lines
    assert lines[0].get_ydata().tolist() == [3.0, 2.0]
    assert lines[1].get_xdata().tolist() == [2]


def test_densities_are_drawn_at_their_place():
    normal = torch.distributions.Normal(1.0, 0.5)
    line = plotting.density_1d(normal.log_prob, -2, 4).lines[0]
    assert line.get_xdata()[np.argmax(line.get_ydata())] == pytest.approx(1.0, abs=0.02)
    off_centre = torch.distributions.MultivariateNormal(torch.tensor([2.0, -1.0]), torch.eye(2))
    image = plotting.density_2d(off_centre.log_prob, limit=3, n_points=61).images[0]
    row, column = np.unravel_index(image.get_array().argmax(), (61, 61))
    assert (column - 30) / 10 == pytest.approx(2.0, abs=0.06)
    assert (row - 30) / 10 == pytest.approx(-1.0, abs=0.06)
    assert image.origin == "lower"


def test_ellipses_have_the_posterior_as_half_axes():
    ax = plotting.posterior_ellipses(
        torch.tensor([[1.0, -2.0]]), torch.tensor([[0.5, 0.25]]), torch.tensor([3])
    )
    (ellipse,) = ax.patches
    assert (ellipse.center[0], ellipse.width, ellipse.height) == (1.0, 1.0, 0.5)
    with pytest.raises(ValueError, match=r"mean has shape \(1, 3\).*\(N, 2\).*choose two"):
        plotting.posterior_ellipses(torch.zeros(1, 3), torch.ones(1, 3), torch.zeros(1))
