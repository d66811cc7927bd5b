"""How long sampling takes: naive, cached, and one forward pass of the same batch.

All contenders of a row take turns in one process, on one thread; the table shows medians. Naive
sampling is D full passes. It is run in full where that takes less than --naive-seconds; beyond
that, its time is D times the median pass, and marked with a ~.

    python -m benchmarks.sampling
    python -m benchmarks.sampling --models RowLSTM --sizes 8 16 28 --n 64
"""

import argparse
import time
from collections.abc import Callable
from statistics import median

import numpy as np
import torch

from course_lib import autoregressive as ar

SETTINGS = {
    "GatedPixelCNN": {"channels": 64, "n_layers": 10},
    "RowLSTM": {"channels": 32, "n_layers": 2},
    "DiagonalBiLSTM": {"channels": 32, "n_layers": 2},
    # Keys and values that all heads share: others are too many to be read again at every step.
    "Transformer": {"width": 128, "heads": 8, "n_layers": 4, "key_value_heads": 1},
    "PixelCNN": {"channels": 64, "n_layers": 10},
}


def seconds(call: Callable[[], object]) -> float:
    """Wall-clock time of one call."""
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def measure(
    model: ar.Autoregressive, n: int, repeats: int, naive_seconds: float
) -> dict[str, float | bool]:
    """Time one forward pass, cached and naive sampling of `n` images, interleaved.

    Args:
        model: an image model.
        n: images per batch.
        repeats: turns of the forward pass and the cached sampler.
        naive_seconds: run naive sampling only if it is expected to take less.

    Returns:
        Medians in seconds: ``forward``, ``cached``, ``naive``; and ``measured``, whether the last
        one was run in full.
    """
    x = torch.randint(0, model.levels, (n, *model.event_shape))
    model.eval()
    times = {"forward": [], "cached": []}
    with torch.inference_mode():
        model(x[:1])  # whatever the first call sets up
        for _ in range(repeats):
            times["forward"].append(seconds(lambda: model(x)))
            times["cached"].append(seconds(lambda: model.sample(n)))
        forward = median(times["forward"])
        measured = model.n_dims * forward < naive_seconds
        naive = (
            seconds(lambda: model.sample(n, cached=False)) if measured else model.n_dims * forward
        )
    return {
        "forward": forward,
        "cached": median(times["cached"]),
        "naive": naive,
        "measured": measured,
    }


def slope(sizes: list[int], times: list[float]) -> float:
    """Exponent of the power law of the number of pixels that fits the times best."""
    return float(np.polyfit(np.log([size**2 for size in sizes]), np.log(times), 1)[0])


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--models", nargs="+", choices=SETTINGS, default=list(SETTINGS)[:4])
    parser.add_argument("--sizes", nargs="+", type=int, default=[8, 16, 28, 64])
    parser.add_argument("--n", nargs="+", type=int, default=[16], help="images per batch")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--naive-seconds", type=float, default=60.0)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    print("Seconds (medians), binary images, one thread.")
    print(
        f"{'model':16}{'n':>4}{'size':>8}{'naive':>11}{'cached':>10}{'forward':>10}"
        f"{'naive/cached':>14}{'cached/forward':>16}"
    )
    for name in arguments.models:
        for n in arguments.n:
            rows = []
            for size in arguments.sizes:
                model = getattr(ar, name)((1, size, size), 2, **SETTINGS[name])
                row = measure(model, n, arguments.repeats, arguments.naive_seconds)
                rows.append(row)
                mark = " " if row["measured"] else "~"
                print(
                    f"{name:16}{n:4}{f'{size}×{size}':>8}{mark}{row['naive']:10.2f}"
                    f"{row['cached']:10.3f}{row['forward']:10.4f}"
                    f"{row['naive'] / row['cached']:13.0f}×{row['cached'] / row['forward']:15.2f}×",
                    flush=True,
                )
            if len(rows) > 1:
                slopes = {
                    k: slope(arguments.sizes, [row[k] for row in rows])
                    for k in ("naive", "cached", "forward")
                }
                print(
                    f"{'  slope in pixels':28} {slopes['naive']:10.2f}{slopes['cached']:10.2f}"
                    f"{slopes['forward']:10.2f}"
                )


if __name__ == "__main__":
    main()
