"""What all benchmarks share: contests in which everyone runs in turn."""

import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor, nn


def training_step(module: nn.Module, loss: Callable[[], Tensor]) -> Callable[[], None]:
    """Return one optimizer step, with the same fused Adam for everyone."""
    optimizer = torch.optim.Adam(module.parameters(), lr=1e-4, fused=True)

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        loss().backward()
        optimizer.step()

    return step


def interleave(
    calls: dict[str, Callable[[], object]], rounds: int, repeat: int
) -> dict[str, list[float]]:
    """Seconds per call: `rounds` times, each contender in turn, `repeat` calls at a time."""
    for call in calls.values():
        call()
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(rounds):
        for name, call in calls.items():
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
