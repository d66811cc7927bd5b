"""How often each sampler evaluates its network, as the comparison's table says."""

import pytest
import torch

from course_lib.diffusion import Diffusion
from course_lib.flow_matching import MeanFlow, VelocityFlow

SHAPE, K, N = (1, 4, 4), 3, 5  # an image, its levels, and steps


@pytest.mark.parametrize(
    ("model", "options", "evaluations"),
    [
        pytest.param(Diffusion, {"eta": 1.0}, N + 1, id="ancestral"),
        pytest.param(Diffusion, {"eta": 0.0}, N + 1, id="DDIM"),
        pytest.param(Diffusion, {"method": "heun"}, 2 * N + 1, id="diffusion by Heun"),
        pytest.param(VelocityFlow, {"method": "euler"}, N, id="Euler"),
        pytest.param(VelocityFlow, {"method": "midpoint"}, 2 * N, id="midpoint"),
        pytest.param(VelocityFlow, {"method": "heun"}, 2 * N, id="Heun"),
        pytest.param(VelocityFlow, {"method": "rk4"}, 4 * N, id="Runge-Kutta"),
    ],
)
def test_a_sampler_evaluates_its_network_as_often_as_the_table_says(model, options, evaluations):
    torch.manual_seed(0)
    assert calls(model(SHAPE, K, hidden=(8,)), steps=N, **options) == evaluations


def test_average_velocities_need_one_evaluation():
    torch.manual_seed(0)
    assert calls(MeanFlow(SHAPE, K, hidden=(8,)), steps=1) == 1


def calls(model, **options):
    """Evaluations of the network for a batch of samples."""
    seen = []
    model.network.register_forward_hook(lambda *_: seen.append(1))
    model.sample(2, **options)
    return len(seen)
