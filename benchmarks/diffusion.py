"""Diffusion: errors of solvers, the variance of the bound's estimate, evaluations, and a training step.

    python -m benchmarks.diffusion

Solvers run with the exact denoiser of a mixture, from the same latents over the same noise levels, so
that all that differs is the error of their steps. What a training step takes is a contest like the others.
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
from benchmarks.diffusion_peers import (
    ACCELERATED,
    FIRST,
    SECOND,
    smalldiffusion,
)
from course_lib.diffusion import Diffusion, NegativeBound, heun
from course_lib.mixtures import GaussianMixture
from course_lib.schedules import LinearLogSNR, low_discrepancy_times
from course_lib.solvers import time_grid

REFERENCE_STEPS = 4_096
DONE = torch.ones(())  # the share of training that is over, which losses are told


def mixture() -> GaussianMixture:
    """Three components of different widths and directions in the plane, in float64."""
    weights = torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64)
    means = torch.tensor([[-1.0, 0.3], [0.9, 0.8], [0.4, -1.1]], dtype=torch.float64)
    factors = torch.tensor(
        [[[0.3, 0.0], [0.1, 0.2]], [[0.15, 0.0], [-0.1, 0.25]], [[0.4, 0.0], [0.2, 0.1]]],
        dtype=torch.float64,
    )
    return GaussianMixture(weights, means, factors @ factors.mT)


def solver_errors(names: list[str], n: int) -> None:
    """Mean distance from the exact ODE's end points, at equal evaluations of the denoiser."""
    data, schedule = mixture(), LinearLogSNR(8.0, -8.0)
    denoise = data.denoiser(schedule)
    z = torch.randn(n, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    truth = heun(denoise, schedule, z, time_grid(REFERENCE_STEPS))
    print(
        f"error of {n} end points against {REFERENCE_STEPS} steps of Heun's method, by evaluations"
    )
    show_errors(
        {"Euler": (1, FIRST), "Heun": (2, SECOND), "accelerated": (1, ACCELERATED)},
        lambda sampler, steps: sampler(denoise, schedule, z, time_grid(steps)),
        truth,
        names,
    )


def times_contest(batch: int, repeats: int) -> None:
    """The spread of a batch's estimate of the diffusion term, with spread times and independent ones."""
    data, schedule = mixture(), LinearLogSNR(8.0, -8.0)
    denoise = data.denoiser(schedule)
    generator = torch.Generator().manual_seed(0)
    draws = {
        "spread": lambda: low_discrepancy_times(batch, generator=generator, dtype=torch.float64),
        "independent": lambda: torch.rand(batch, generator=generator, dtype=torch.float64),
    }
    deviations = {}
    for name, draw in draws.items():
        estimates = []
        for _ in range(repeats):
            x, t = data.sample(batch, generator=generator), draw()
            noise = torch.empty_like(x).normal_(generator=generator)
            error = (x - denoise(schedule.noised(x, noise, t), t)).square().sum(1)
            rate = -schedule.log_snr_rate(t) * schedule.snr(t)
            estimates.append((0.5 * rate * error).mean())
        all_estimates = torch.stack(estimates)
        deviations[name] = all_estimates.std().item()
        print(
            f"diffusion term of the bound, {batch} {name} times: {all_estimates.mean():.3f} nats, standard "
            f"deviation {deviations[name]:.3f}",
            flush=True,
        )
    ratio = (deviations["independent"] / deviations["spread"]) ** 2
    print(f"independent times have {ratio:.2f} times the variance")


def count_calls() -> None:
    """How often the network is called for a batch of samples."""
    model = Diffusion((1, 8, 8), 17, channels=8, n_blocks=1)
    calls = []
    model.network.register_forward_hook(lambda *_: calls.append(1))
    for label, options in (
        ("ancestral, 100 steps", {"steps": 100}),
        ("DDIM, 20 steps", {"steps": 20, "eta": 0.0}),
        ("Heun, 10 steps", {"steps": 10, "method": "heun"}),
    ):
        calls.clear()
        model.sample(4, **options)
        print(f"{label}: {len(calls)} calls of the network, the last for the grey levels")


class Plain(nn.Module):
    """The network of a model that predicts noise, and the loss as one would write it down."""

    def __init__(self, model: Diffusion) -> None:
        super().__init__()
        self.network = copy.deepcopy(model.network)

    def forward(self, x: Tensor) -> Tensor:
        """The bound's diffusion term under a linear log SNR from 6 to −6, a mean over images."""
        x = x.float() / 8 - 1
        log_snr = 6 - 12 * torch.rand(len(x))
        snr = log_snr.exp()
        alpha = torch.sigmoid(log_snr).sqrt().view(-1, 1, 1, 1)
        sigma = torch.sigmoid(-log_snr).sqrt().view(-1, 1, 1, 1)
        z = alpha * x + sigma * torch.randn_like(x)
        noise = self.network(z, log_snr, None)
        clean = (z - sigma * noise) / alpha
        return (6 * snr * (x - clean).square().flatten(1).sum(1)).mean()


class PlainBound(Plain):
    """The same, with the other two terms of the bound, as one would write them down."""

    def forward(self, x: Tensor) -> Tensor:
        """Minus the bound under a linear log SNR from 6 to −6, a mean over images."""
        diffusion = super().forward(x)
        scaled = x.float() / 8 - 1
        ends = torch.tensor([6.0, -6.0])
        alpha, sigma = torch.sigmoid(ends).sqrt(), torch.sigmoid(-ends).sqrt()
        prior = alpha[1] ** 2 * scaled.square() + sigma[1] ** 2 - 1 - 2 * sigma[1].log()
        z = alpha[0] * scaled + sigma[0] * torch.randn_like(scaled)
        places = torch.arange(17) / 8 - 1
        logits = -0.5 * ((z.unsqueeze(-1) - alpha[0] * places) / sigma[0]).square()
        reconstruction = nn.functional.cross_entropy(logits.flatten(0, -2), x.flatten().long())
        per_image = scaled[0].numel()
        return 0.5 * prior.mean() * per_image + diffusion + reconstruction * per_image


class OfSmalldiffusion(nn.Module):
    """The same network in the interface of smalldiffusion's loop."""

    def __init__(self, model: Diffusion) -> None:
        super().__init__()
        self.network = copy.deepcopy(model.network)

    def get_loss(self, x: Tensor, sigma: Tensor, noise: Tensor, cond: None = None) -> Tensor:
        """The mean squared error of the noise."""
        noisy = (x + sigma * noise) / (1 + sigma.square()).sqrt()
        return nn.functional.mse_loss(self.network(noisy, -2 * sigma.flatten().log(), cond), noise)


def loop_of_smalldiffusion(model: Diffusion, x: Tensor) -> Callable[[], object]:
    """One step of its loop at each call; its loop stops in the middle of a step to be looked at."""
    library = smalldiffusion()
    library.tqdm = lambda steps: steps  # without a bar
    loader = torch.utils.data.DataLoader(x.float() / 8 - 1, batch_size=len(x))
    schedule = library.ScheduleLogLinear(1000, 0.05, 20.0)
    loop = library.training_loop(loader, OfSmalldiffusion(model), schedule, epochs=10**9)
    return lambda: next(loop)


def training_contest(names: list[str], rounds: int) -> None:
    """A training step of one network on the digits' shape: the course, plain PyTorch, a library's loop.

    The course and the first plain loop compute all three terms of the bound, the others a regression.
    """
    levels = torch.randint(0, 17, (64, 1, 8, 8))
    options = {"prediction": "noise", "schedule": LinearLogSNR(6.0, -6.0)}
    ours = Diffusion((1, 8, 8), 17, channels=32, n_blocks=3, **options)
    plain, bound, loss = Plain(ours), PlainBound(ours), NegativeBound()
    calls = {
        OURS: training_step(ours, lambda: loss(ours, levels, DONE)["loss"]),
        "plain PyTorch": training_step(bound, lambda: bound(levels)),
        "plain, diffusion term only": training_step(plain, lambda: plain(levels)),
    }
    if "smalldiffusion" in names:
        calls["smalldiffusion's loop"] = loop_of_smalldiffusion(ours, levels)
    show("diffusion 8×8, 3 blocks of 32, batch 64", interleave(calls, rounds, 2))


def main() -> None:
    """Print the tables."""
    arguments = solver_options(__doc__)
    prepare()
    names = importable(FIRST.keys() - {OURS})
    solver_errors(names, arguments.points)
    times_contest(64, 2_000)
    count_calls()
    print_head()
    training_contest(names, arguments.rounds)


if __name__ == "__main__":
    main()
