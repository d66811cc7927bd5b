"""Flow matching: errors of solvers on an exact field, and a training step.

    python -m benchmarks.flow_matching

Solvers follow the exact velocity of a mixture on the linear path, from the same noise over the same times.
A training step is one of the same network and the same optimizer in the course, in plain PyTorch, and in
the loops of two libraries.
"""

import copy
from collections.abc import Callable

import torch
from torch import Tensor, nn

from benchmarks.common import (
    OURS,
    importable,
    interleave,
    prepare,
    print_head,
    show,
    show_errors,
    solver_options,
    training_step,
)
from benchmarks.diffusion import DONE, REFERENCE_STEPS, mixture
from benchmarks.diffusion_peers import azula_sampler
from course_lib.flow_matching import FlowMatching, VelocityFlow
from course_lib.mixtures import GaussianMixture
from course_lib.schedules import LinearPath
from course_lib.solvers import integrate, time_grid

PEERS = ("flow_matching", "torchcfm", "azula")
Solve = Callable[[GaussianMixture, Tensor, int], Tensor]


def course_solver(method: str) -> Solve:
    """This course's solver."""

    def solve(data: GaussianMixture, noise: Tensor, steps: int) -> Tensor:
        return integrate(
            lambda x, t: data.velocity(x, t, LinearPath()), noise, time_grid(steps), method
        )

    return solve


def library_solver(method: str) -> Solve:
    """The solver of flow_matching, whose time runs from noise to data."""

    def solve(data: GaussianMixture, noise: Tensor, steps: int) -> Tensor:
        from flow_matching.solver import ODESolver

        solver = ODESolver(lambda x, t: -data.velocity(x, 1 - t, LinearPath()))
        times = torch.tensor([0.0, 1.0], dtype=torch.float64)
        return solver.sample(noise, step_size=1 / steps, method=method, time_grid=times)

    return solve


def azula_ddim(data: GaussianMixture, noise: Tensor, steps: int) -> Tensor:
    """DDIM of azula, which is Euler's method on the linear path."""
    path = LinearPath()
    return azula_sampler("DDIMSampler")(data.denoiser(path), path, noise, time_grid(steps))


SOLVERS: dict[str, tuple[int, dict[str, Solve]]] = {
    "Euler": (
        1,
        {
            OURS: course_solver("euler"),
            "flow_matching": library_solver("euler"),
            "azula": azula_ddim,
        },
    ),
    "midpoint": (
        2,
        {OURS: course_solver("midpoint"), "flow_matching": library_solver("midpoint")},
    ),
}


def solver_errors(names: list[str], n: int) -> None:
    """Mean distance from the exact ODE's end points, at equal evaluations of the velocity."""
    data = mixture()
    noise = torch.randn(n, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    truth = course_solver("rk4")(data, noise, REFERENCE_STEPS // 4)
    print(f"error of {n} end points on the linear path, by evaluations")
    show_errors(SOLVERS, lambda solve, steps: solve(data, noise, steps), truth, names)


class Plain(nn.Module):
    """The network of a flow, and the loss as one would write it down.

    Args:
        model: whose network is copied.
        preconditioned: add the velocity of a Gaussian with unit variances and scale the network's input and
            output, as the course does.
    """

    def __init__(self, model: VelocityFlow, *, preconditioned: bool = False) -> None:
        super().__init__()
        self.network = copy.deepcopy(model.network)
        self.preconditioned = preconditioned

    def velocity(self, z: Tensor, t: Tensor) -> Tensor:
        """The velocity that the network stands for; its time is the log SNR."""
        clock = torch.log(((1 - t).square() + 1e-6) / (t.square() + 1e-6))
        if not self.preconditioned:
            return self.network(z, clock, None)
        at = t.view(-1, 1, 1, 1)
        size = (1 - at).square() + at.square()
        return (2 * at - 1) / size * z + self.network(z / size.sqrt(), clock, None) / size.sqrt()

    def forward(self, x: Tensor) -> Tensor:
        """The flow-matching loss, a mean over images of a sum over pixels."""
        t, noise = torch.rand(len(x)), torch.randn_like(x)
        at = t.view(-1, 1, 1, 1)
        error = self.velocity((1 - at) * x + at * noise, t) - (noise - x)
        return error.square().flatten(1).sum(1).mean()


class OfTorchcfm(Plain):
    """The same network in the loop of torchcfm."""

    def __init__(self, model: VelocityFlow) -> None:
        super().__init__(model)
        from torchcfm.conditional_flow_matching import ConditionalFlowMatcher

        self.matcher = ConditionalFlowMatcher(sigma=0.0)

    def forward(self, x: Tensor) -> Tensor:
        """The mean squared error of the velocity; its time runs from noise to data."""
        t, z, target = self.matcher.sample_location_and_conditional_flow(torch.randn_like(x), x)
        return (self.velocity(z, 1 - t) - target).square().mean()


class OfLibrary(Plain):
    """The same network in the loop of flow_matching."""

    def __init__(self, model: VelocityFlow) -> None:
        super().__init__(model)
        from flow_matching.path import CondOTProbPath

        self.path = CondOTProbPath()

    def forward(self, x: Tensor) -> Tensor:
        """The mean squared error of the velocity; its time runs from noise to data."""
        sample = self.path.sample(t=torch.rand(len(x)), x_0=torch.randn_like(x), x_1=x)
        return (self.velocity(sample.x_t, 1 - sample.t) - sample.dx_t).square().mean()


def training_contest(names: list[str], rounds: int) -> None:
    """A training step of one network on the digits' shape."""
    x = torch.randn(64, 1, 8, 8)
    ours = VelocityFlow((1, 8, 8), channels=32, n_blocks=3)
    loss = FlowMatching()
    same, plain = Plain(ours, preconditioned=True), Plain(ours)
    calls = {
        OURS: training_step(ours, lambda: loss(ours, x, DONE)),
        "plain PyTorch": training_step(same, lambda: same(x)),
        "plain, not preconditioned": training_step(plain, lambda: plain(x)),
    }
    for name, kind in {"torchcfm": OfTorchcfm, "flow_matching": OfLibrary}.items():
        if name in names:
            peer = kind(ours)
            calls[f"{name}'s loop"] = training_step(peer, lambda peer=peer: peer(x))
    show("flow matching 8×8, 3 blocks of 32, batch 64", interleave(calls, rounds, 2))


def main() -> None:
    """Print the tables."""
    arguments = solver_options(__doc__)
    prepare()
    names = importable(PEERS)
    solver_errors(names, arguments.points)
    print_head()
    training_contest(names, arguments.rounds)


if __name__ == "__main__":
    main()
