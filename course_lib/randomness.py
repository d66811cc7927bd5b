"""Global noise that is seeded for a while, and left as it was found."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def seeded(seed: int, device: torch.device | str = "cpu") -> Iterator[None]:
    """Seed the global generators of the CPU and of one device; restore them at the end.

    ``torch.manual_seed`` would seed those of all devices, also of devices that other programs'
    parts draw from, and nobody could restore them.

    Args:
        seed: of the noise drawn in the block.
        device: the other device that is drawn on.
    """
    device = torch.device(device)
    cuda = device.type == "cuda"
    with torch.random.fork_rng(devices=[device] if cuda else []):
        torch.default_generator.manual_seed(seed)
        if cuda:
            with torch.cuda.device(device):
                torch.cuda.manual_seed(seed)
        elif device.type == "mps":
            torch.mps.manual_seed(seed)
        yield
