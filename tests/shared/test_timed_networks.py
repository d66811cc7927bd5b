"""Networks of an example and a time: what they depend on, and what they refuse."""

import copy

import pytest
import torch

from course_lib.diffusion import Diffusion
from course_lib.flow_matching import MeanFlow, VelocityFlow
from course_lib.timed_networks import TimedConvNet, TimedMLP, fourier_features

NETWORKS = {
    "TimedMLP": lambda **o: TimedMLP((1, 8, 8), (16, 16), **o),
    "TimedConvNet": lambda **o: TimedConvNet((1, 8, 8), 4, 1, **o),
    "TimedConvNet, 28": lambda **o: TimedConvNet((1, 28, 28), 4, 1, **o),
}


def moved(network):
    """With random parameters: a new one returns zeros."""
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return network.eval()


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("n_outputs", [1, 3])
def test_the_output_has_the_shape_of_the_example(name, n_outputs):
    network = NETWORKS[name](n_outputs=n_outputs)
    x = torch.randn(2, *network.event_shape)
    expected = network.event_shape if n_outputs == 1 else (*network.event_shape, n_outputs)
    out = network(x, torch.tensor([0.1, 3.0]))
    assert out.shape == (2, *expected)
    assert (out == 0).all()


@pytest.mark.parametrize("name", NETWORKS)
def test_every_output_sees_every_entry_the_time_and_the_class(name):
    network = moved(NETWORKS[name](n_classes=3))
    x = torch.randn(1, *network.event_shape, requires_grad=True)
    time = torch.tensor([0.4], requires_grad=True)
    out = network(x, time, torch.tensor([1]))
    of_x, of_time = torch.autograd.grad(out[0, 0, 0, 0], (x, time))
    assert (of_x != 0).all()
    assert of_time != 0
    other = network(x, time, torch.tensor([2]))
    assert (out - other).abs().max() > 1e-4
    # No label is a label of its own.
    assert torch.equal(network(x, time), network(x, time, torch.tensor([3])))


@pytest.mark.parametrize("name", NETWORKS)
def test_examples_do_not_mix(name):
    network = moved(NETWORKS[name]())
    x, time = torch.randn(3, *network.event_shape), torch.tensor([0.1, -2.0, 4.0])
    together = network(x, time)
    alone = torch.cat([network(x[i : i + 1], time[i : i + 1]) for i in range(3)])
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: TimedMLP((2,), (4, 5)), "all alike"),
        (lambda: TimedMLP((2,), ()), "at least one width"),
        (lambda: TimedConvNet((1, 127, 127), 1, 1), "16129 places"),
        (lambda: TimedConvNet((64,)), r"\(C, H, W\) is expected"),
        (lambda: TimedMLP((2,), (4,))(torch.ones(2, 2), torch.ones(3)), "time has 3 entries"),
        (
            lambda: TimedMLP((2,), (4,))(torch.ones(2, 2), torch.ones(2), torch.ones(2).long()),
            "classes",
        ),
        (
            lambda: TimedMLP((2,), (4,), n_classes=2)(
                torch.ones(1, 2), torch.ones(1), torch.tensor([3])
            ),
            "labels has levels 3",
        ),
    ],
)
def test_bad_values_are_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.parametrize("name", NETWORKS)
def test_several_times_are_told_apart(name):
    network = moved(NETWORKS[name](n_times=2))
    x, times = torch.randn(2, *network.event_shape), torch.tensor([[0.1, 0.7], [0.5, 0.2]])
    out = network(x, times)
    assert (out - network(x, times.flip(1))).abs().max() > 1e-4
    for index in (0, 1):
        other = times.clone()
        other[0, index] += 0.1
        changed = (network(x, other) - out).flatten(1).abs().amax(1)
        assert changed[0] > 1e-5
        assert changed[1] == 0
    with pytest.raises(ValueError, match=r"time has shape \(2,\).*\(N, 2\) is expected"):
        network(x, times[:, 0])


def test_half_precision_does_not_change_the_time():
    time = torch.linspace(12, 13.3, 100)
    for dtype in (torch.bfloat16, torch.float16):
        stored = time.to(dtype)
        assert torch.equal(fourier_features(stored), fourier_features(stored.float()))


TOLD = {  # models, and calls of them whose times half precision would round
    "Diffusion": (
        lambda: Diffusion((4,), 5, hidden=(32,)),
        lambda m: m(torch.ones(3, 4), torch.tensor([12.31, 12.62, 12.93])),
    ),
    "VelocityFlow": (
        lambda: VelocityFlow((4,), hidden=(32,)),
        lambda m: m(torch.ones(3, 4), torch.tensor([0.00123, 0.00234, 0.00345])),
    ),
    "MeanFlow": (
        lambda: MeanFlow((4,), hidden=(32,)),
        lambda m: m(torch.ones(3, 4), 0.123, torch.tensor([0.923, 0.934, 0.945])),
    ),
}


@pytest.mark.parametrize("name", TOLD)
def test_a_model_in_half_precision_is_told_the_time_of_one_in_float32(name):
    torch.manual_seed(0)
    make, call = TOLD[name]
    rounded, seen = make().bfloat16(), []
    wide = copy.deepcopy(rounded).float()
    for model in (rounded, wide):
        model.network.conditioning.register_forward_hook(
            lambda module, arguments, told: seen.append((arguments[0], told))
        )
        call(model)
    (time, told), (expected_time, expected) = seen
    assert torch.equal(time, expected_time)
    # What is left is the rounding of two layers; another time is another vector.
    assert (told.float() - expected).norm() < 0.03 * expected.norm()


@pytest.mark.parametrize("name", NETWORKS)
def test_a_network_tells_its_shapes_without_values(name):
    network = NETWORKS[name](n_outputs=2).to("meta")
    x = torch.zeros(2, *network.event_shape, device="meta")
    assert network(x, torch.zeros(2, device="meta")).shape == (*x.shape, 2)
