"""How a training step grows with the batch, the width and the size of the image.

Each sweep changes one number and keeps the others. The exponent is the slope in the logarithms of
the two largest sizes: 1 where twice as much takes twice as long, 2 where it takes four times.

    python -m benchmarks.growth
"""

import math
import statistics
from collections.abc import Callable

import torch
from torch import nn

from benchmarks.common import interleave, prepare, training_step
from course_lib import autoregressive as ar
from course_lib.flow import MAF, RealNVP
from course_lib.training import negative_log_likelihood
from course_lib.vae import VAE, NegativeELBO

BATCHES = (32, 64, 128, 256)
WIDTHS = (128, 256, 512, 1024)
CHANNELS = (16, 32, 64)
SIDES = (8, 16, 32)
DONE = torch.ones(())  # the share of training that is over, which losses are told


def vae_step(batch: int, width: int) -> Callable[[], None]:
    """A step of an MLP VAE of 28×28 images."""
    model, loss = VAE((1, 28, 28), 40, hidden=(width, width)), NegativeELBO()
    x = torch.randint(0, 2, (batch, 1, 28, 28)).float()
    return training_step(model, lambda: loss(model, x, DONE)["loss"])


def pixelcnn_step(batch: int, channels: int, side: int) -> Callable[[], None]:
    """A step of a gated PixelCNN of binary images."""
    model = ar.GatedPixelCNN((1, side, side), 2, channels=channels, n_layers=4)
    x = torch.randint(0, 2, (batch, 1, side, side))
    return training_step(model, lambda: negative_log_likelihood(model, x, DONE))


def flow_step(flow: type[nn.Module], batch: int, width: int) -> Callable[[], None]:
    """A step of a flow of 64 numbers."""
    model, x = flow((64,), hidden=(width, width)), torch.randn(batch, 64)
    return training_step(model, lambda: negative_log_likelihood(model, x, DONE))


SWEEPS: dict[str, tuple[tuple[int, ...], Callable[[int], Callable[[], None]]]] = {
    "VAE, batch": (BATCHES, lambda n: vae_step(n, 500)),
    "VAE, width": (WIDTHS, lambda width: vae_step(128, width)),
    "RealNVP, batch": (BATCHES, lambda n: flow_step(RealNVP, n, 128)),
    "RealNVP, width": (WIDTHS, lambda width: flow_step(RealNVP, 128, width)),
    "MAF, width": (WIDTHS, lambda width: flow_step(MAF, 128, width)),
    "gated PixelCNN, batch": (BATCHES[:3], lambda n: pixelcnn_step(n, 32, 8)),
    "gated PixelCNN, channels": (CHANNELS, lambda channels: pixelcnn_step(32, channels, 8)),
    "gated PixelCNN, pixels": (SIDES, lambda side: pixelcnn_step(16, 32, side)),
}


def growth_table(rounds: int) -> None:
    """Print one line per sweep: milliseconds of a step at each size, and the exponent."""
    for title, (sizes, make) in SWEEPS.items():
        seconds = interleave({str(n): make(n) for n in sizes}, rounds, 1)
        times = [statistics.median(seconds[str(n)]) for n in sizes]
        quantities = [n * n if title.endswith("pixels") else n for n in sizes]
        exponent = math.log(times[-1] / times[-2]) / math.log(quantities[-1] / quantities[-2])
        cells = "  ".join(f"{n}: {1e3 * t:.1f}" for n, t in zip(quantities, times, strict=True))
        print(f"{title:26}{cells}   exponent {exponent:.2f}", flush=True)


def main() -> None:
    """Print the table."""
    prepare()
    print("Milliseconds of a training step, medians, one thread")
    growth_table(rounds=7)


if __name__ == "__main__":
    main()
