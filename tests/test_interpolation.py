"""A path between two latents: bounded, without jumps, and from the one to the other exactly."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from course_lib.flow.checks import MODELS, build
from course_lib.interpolation import spherical_path, straight_path
from course_lib.vae import interpolate

KINDS = ("any", "equal", "opposite", "nearly opposite", "nearly equal", "from zero", "both zero")


def ends(kind, d, scale, seed, dtype):
    generator = torch.Generator().manual_seed(seed)
    a, b = scale * torch.randn(2, d, generator=generator, dtype=dtype)
    tiny = 10 ** -(1 + 7 * torch.rand((), generator=generator).item())
    return {
        "any": (a, b),
        "equal": (a, a),
        "opposite": (a, -2 * a),
        "nearly opposite": (a, -a + tiny * b),
        "nearly equal": (a, a + tiny * b),
        "from zero": (0 * a, b),
        "both zero": (0 * a, 0 * b),
    }[kind]


@given(
    kind=st.sampled_from(KINDS),
    d=st.sampled_from([1, 2, 3, 10, 784]),
    scale=st.sampled_from([1e-12, 1.0, 1e12]),
    n=st.integers(2, 30),
    seed=st.integers(0, 10_000),
    dtype=st.sampled_from([torch.float32, torch.float64]),
)
def test_paths_keep_their_ends_stay_bounded_and_do_not_jump(kind, d, scale, n, seed, dtype):
    start, end = ends(kind, d, scale, seed, dtype)
    longest = torch.maximum(start.norm(), end.norm()).double()
    for path in (spherical_path(start, end, n), straight_path(start, end, n)):
        assert torch.equal(path[0], start)
        assert torch.equal(path[-1], end)
        assert (path.double().norm(dim=-1) <= longest * (1 + 1e-5)).all()
        steps = path.double().diff(dim=0).norm(dim=-1)
        assert (
            steps <= 4.2 * longest / (n - 1) * (1 + 1e-5) + 1e-5 * longest
        ).all()  # (π + 1)/(n − 1)


@pytest.mark.parametrize("kind", ["any", "opposite", "nearly opposite", "nearly equal"])
def test_a_spherical_path_turns_evenly_at_an_even_norm(kind):
    start, end = ends(kind, 5, 1.0, 3, torch.float64)
    path = spherical_path(start, end, 9)
    norms = torch.linspace(start.norm(), end.norm(), 9, dtype=torch.float64)
    torch.testing.assert_close(path.norm(dim=1), norms)
    unit = path / path.norm(dim=1, keepdim=True)
    turns = 2 * torch.atan2((unit[1:] - unit[:-1]).norm(dim=1), (unit[1:] + unit[:-1]).norm(dim=1))
    torch.testing.assert_close(turns, turns[:1].expand(8), atol=1e-7, rtol=0)
    if kind == "opposite":
        assert turns.sum().item() == pytest.approx(torch.pi)


def test_many_paths_at_once_are_the_single_ones():
    pairs = [ends(kind, 4, 1.0, 1, torch.float64) for kind in KINDS]
    together = spherical_path(*map(torch.stack, zip(*pairs, strict=True)), 5)
    for path, pair in zip(together, pairs, strict=True):
        torch.testing.assert_close(path, interpolate(*pair, 5, spherical=True), rtol=0, atol=1e-15)


def test_ends_of_different_shapes_are_refused():
    for path in (spherical_path, straight_path):
        with pytest.raises(ValueError, match="the same is expected"):
            path(torch.zeros(2), torch.zeros(3), 4)


def test_a_flow_in_training_mode_interpolates_between_the_given_examples(float64):
    for name in ("RealNVP", "MAF", "Glow"):
        model = build(MODELS[name]).train()
        for module in model.modules():
            if isinstance(module, torch.nn.Dropout):
                module.p = 0.5
        start, end = model.sample(3), model.sample(3)
        path = model.interpolate(start, end, 4)
        torch.testing.assert_close(path[:, 0], start)
        torch.testing.assert_close(path[:, -1], end)
        assert model.training


@pytest.mark.parametrize("scale", [1e-30, 1e-20, 1e20, 1e30])
def test_a_spherical_path_does_not_depend_on_the_unit(scale):
    start, end = torch.randn(2, 5, 3)
    path = spherical_path(scale * start, scale * end, 6)
    torch.testing.assert_close(path / scale, spherical_path(start, end, 6), rtol=1e-4, atol=1e-5)
