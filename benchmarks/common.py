"""What all benchmarks share: contests in which everyone runs in turn."""

import argparse
import importlib.util
import statistics
import time
from collections.abc import Callable, Iterable, Mapping
from typing import TypeVar

import torch
from torch import Tensor, nn

from course_lib.memory import keep_freed_memory

OURS = "ours"
EVALUATIONS = (16, 32, 64, 128)  # at which solvers are compared
Solver = TypeVar("Solver")


def training_step(
    module: nn.Module, loss: Callable[[], Tensor], *, fused: bool = True
) -> Callable[[], None]:
    """Return one optimizer step, with Adam in its fused form or as PyTorch makes it by default."""
    optimizer = torch.optim.Adam(module.parameters(), lr=1e-4, fused=fused)

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        loss().backward()
        optimizer.step()

    return step


def interleave(
    calls: dict[str, Callable[[], object]], rounds: int, repeat: int
) -> dict[str, list[float]]:
    """Seconds per call: `rounds` times, each contender in turn, `repeat` calls at a time.

    One call before them is not timed: it brings back to the processor's cache what the others have
    displaced, as in a training loop, which has the processor to itself.
    """
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(rounds):
        for name, call in calls.items():
            call()
            start = time.perf_counter()
            for _ in range(repeat):
                call()
            seconds[name].append((time.perf_counter() - start) / repeat)
    return seconds


def ratios(seconds: dict[str, list[float]], name: str, to: str) -> tuple[float, float, float]:
    """How many times longer `name` takes than `to`: lower quartile, median, upper quartile."""
    each = [a / b for a, b in zip(seconds[name], seconds[to], strict=True)]
    low, middle, high = statistics.quantiles(each, n=4)
    return low, middle, high


def importable(peers: Iterable[str]) -> list[str]:
    """This course and the libraries that can be imported; says which can not, and how to get them."""
    peers = sorted(peers)
    missing = [name for name in peers if not importlib.util.find_spec(name)]
    if missing:
        print(f"not compared, because they cannot be imported: {', '.join(missing)} (make bench)")
    return [OURS, *(name for name in peers if name not in missing)]


def solver_options(description: str | None) -> argparse.Namespace:
    """What the command line of a benchmark of solvers asks for."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=21)
    parser.add_argument("--points", type=int, default=1_000, help="end points of the solvers")
    return parser.parse_args()


def show_errors(
    solvers: Mapping[str, tuple[int, Mapping[str, Solver]]],
    end: Callable[[Solver, int], Tensor],
    truth: Tensor,
    names: list[str],
) -> None:
    """A line for each solver: mean distances of its end points from the true ones, by evaluations.

    A mean of distances and not of their squares: a few points near the border between two components end
    in the other one, and would be all that a mean of squares shows.

    Args:
        solvers: for each method its evaluations in a step, and the solver of each library.
        end: the end points of a solver in a number of steps.
        truth: those of the exact ODE.
        names: the libraries that take part.
    """
    print(f"{'':30}" + "".join(f"{e:11}" for e in EVALUATIONS))
    for title, (per_step, each) in solvers.items():
        for name in (name for name in each if name in names):
            ends = [end(each[name], evaluations // per_step) for evaluations in EVALUATIONS]
            errors = [(points - truth).norm(dim=1).mean().item() for points in ends]
            print(f"  {title:12}{name:16}" + "".join(f"{e:11.2e}" for e in errors), flush=True)


def prepare() -> None:
    """One thread, seeded, and memory kept as `fit` keeps it."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    keep_freed_memory()


def print_head() -> None:
    """Above the lines that `show` prints."""
    print(f"{'':42}{'ours, ms':>10}  peer/ours, median (quartiles)")


def show(what: str, seconds: dict[str, list[float]], note: str = "") -> None:
    """One line per contest: our time, and each peer's ratio to it with quartiles over the rounds."""
    parts = []
    for name in seconds:
        if name != OURS:
            low, middle, high = ratios(seconds, name, OURS)
            parts.append(f"{name} {middle:.2f} ({low:.2f}-{high:.2f})")
    print(
        f"{what:42}{1e3 * statistics.median(seconds[OURS]):10.2f}  {', '.join(parts)}{note}",
        flush=True,
    )
