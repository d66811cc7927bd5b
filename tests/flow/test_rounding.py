"""Where rounding could change a map, its determinant or a bin without a word."""

import pytest
import torch
from torch.func import jacrev

import course_lib.flow as flow
from course_lib.flow.checks import MODELS, TRANSFORMS, build

ALL = TRANSFORMS | MODELS


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("logit", [0.05, 1e-4])
@pytest.mark.parametrize("model", ["Logit", "RealNVP", "NICE", "MAF"])
def test_both_log_determinants_are_of_the_same_point(model, logit, dtype):
    """However far a latent lies: the two ways sum to zero where an x has to stand for it."""
    torch.manual_seed(0)
    if model == "Logit":
        transform = flow.Logit((6,), logit)
    else:
        transform = getattr(flow, model)((6,), logit_margin=logit)
        for parameter in transform.parameters():
            parameter.data += 0.1 * torch.randn_like(parameter)
    transform = transform.to(dtype).eval()
    direction = torch.randn(40, 6, dtype=dtype)
    for scale in (1.0, 10.0, 30.0, 1e3, 1e6):
        x, backward = transform.inverse(scale * direction)
        _, forward = transform(x)
        # Half of the digits are left where the inverse's own determinant still counts.
        assert (forward + backward).abs().max() < 30 * torch.finfo(dtype).eps ** 0.5


@pytest.mark.parametrize("name", ALL)
def test_float32_agrees_with_float64_far_from_the_centre(name):
    """Nothing in the determinants cancels: float32's is float64's at the same point."""
    torch.manual_seed(0)
    exact = build(ALL[name]).double()
    rounded = build(ALL[name]).float()
    rounded.load_state_dict(
        {k: v.float() if v.is_floating_point() else v for k, v in exact.state_dict().items()}
    )
    exact.load_state_dict(
        {k: v.double() if v.is_floating_point() else v for k, v in rounded.state_dict().items()}
    )
    z = torch.randn(16, *exact.latent_shape)
    with torch.no_grad():
        x = exact.inverse(z.double())[0].float()
        _, expected = exact(x.double())
        _, found = rounded(x)
    torch.testing.assert_close(found.double(), expected, rtol=1e-4, atol=2e-3)


@pytest.mark.parametrize("inner", [-3.0, -12.0, -14.0, -30.0, -80.0, 20.0])
def test_a_planar_flow_near_its_limit(inner):
    """The determinant is that of the same map in float64, however near 0 its least value is."""
    torch.manual_seed(0)
    exact = flow.Planar((5,)).double()
    with torch.no_grad():
        # Numbers that float32 holds, with wᵀû near `inner`.
        exact.weight.copy_(exact.weight.float())
        free = exact.free_direction
        norm = exact.weight.square().sum()
        exact.free_direction.copy_(
            (free + (inner - exact.weight @ free) * exact.weight / norm).float()
        )
        x = 0.1 * torch.randn(200, 5, dtype=torch.float64).float().double()
        x[0] = 0  # where the tanh is steepest
        rounded = flow.Planar((5,))
        rounded.load_state_dict(exact.state_dict())
        expected = exact(x)[1]
        found = rounded(x.float())[1].double()
    assert found.isfinite().all()
    assert (found - expected).abs().max() < 1e-4 * max(1, abs(inner))
    jacobians = torch.stack([jacrev(lambda one: exact(one[None])[0][0])(one) for one in x[:5]])
    if inner > -25:  # beyond, the autograd Jacobian itself cancels in float64
        torch.testing.assert_close(expected[:5], jacobians.logdet(), rtol=0, atol=1e-4)


def test_a_planar_flow_without_a_weight_is_a_shift():
    transform = flow.Planar((3,))
    transform.weight.data.zero_()
    transform.bias.data.fill_(0.7)
    x = torch.randn(4, 3)
    z, log_det = transform(x)
    assert torch.equal(log_det, torch.zeros(4))
    torch.testing.assert_close(transform.inverse(z)[0], x)


@pytest.mark.parametrize("name", ALL)
def test_autocast_rounds_both_ways_alike(name):
    torch.manual_seed(0)
    transform = build(ALL[name]).float()
    z = 0.3 * torch.randn(8, *transform.latent_shape)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        x, backward = transform.inverse(z)
        again, forward = transform(x)
    torch.testing.assert_close(again, z, rtol=0, atol=2e-4)
    torch.testing.assert_close(forward, -backward, rtol=0, atol=2e-3)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("levels", [2, 17, 256, 65536])
def test_learned_noise_stays_in_its_bin(levels, dtype):
    """However far the noise is pushed, its image's own levels are read off again."""
    torch.manual_seed(0)
    dequantizer = flow.VariationalDequantizer((8,))
    for coupling in dequantizer.couplings.transforms:
        for parameter in coupling.parameters():
            parameter.data += 2 * torch.randn_like(parameter)
    x = torch.randint(levels, (500, 8))
    for result in (dtype, None):
        y, log_q = dequantizer(x, levels, dtype=result)
        assert torch.equal((y * levels).floor().long(), x)
        assert log_q.isfinite().all()
