"""A training step of MADE and the gated PixelCNN against the same networks in plain PyTorch.

Both sides take the same batch and fused Adam; they take turns in one process, on one thread.

    python -m benchmarks.training_autoregressive
"""

import argparse
from statistics import median

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.common import interleave, training_step
from course_lib import autoregressive as ar
from course_lib.data import digits
from course_lib.memory import keep_freed_memory


class PlainMADE(nn.Module):
    """MADE as one would write it down: linear layers and a mask for each."""

    def __init__(self, made: ar.MADE) -> None:
        super().__init__()
        self.linears = nn.ModuleList(
            nn.Linear(linear.in_features, linear.out_features) for linear in made.linears
        )
        for index in range(len(made.linears)):
            self.register_buffer(f"mask_{index}", made.get_buffer(f"mask_{index}")[0].clone())

    def forward(self, x: Tensor) -> Tensor:
        """Mean negative log-likelihood of grey levels `x`."""
        h = x.flatten(1).float() / 8 - 1
        for index, linear in enumerate(self.linears):
            h = F.linear(h, linear.weight * self.get_buffer(f"mask_{index}"), linear.bias)
            if index + 1 < len(self.linears):
                h = F.relu(h)
        loss = F.cross_entropy(h.view(-1, 17), x.flatten().long(), reduction="sum")
        return loss / len(x)


class PlainGatedPixelCNN(nn.Module):
    """The gated PixelCNN without masks: kernels cut to size, results cropped."""

    def __init__(self, channels: int, n_layers: int) -> None:
        super().__init__()
        self.n_layers = n_layers
        for i in range(n_layers):
            n_in, r = (channels, 1) if i else (1, 3)
            rows, columns = (r + 1, r + 1) if i else (r, r)
            self.add_module(
                f"v{i}", nn.Conv2d(n_in, 2 * channels, (rows, 2 * r + 1), padding=(r, r))
            )
            self.add_module(f"h{i}", nn.Conv2d(n_in, 2 * channels, (1, columns), padding=(0, r)))
            self.add_module(f"link{i}", nn.Conv2d(2 * channels, 2 * channels, 1))
            self.add_module(f"skip{i}", nn.Conv2d(channels, channels, 1))
            if i < n_layers - 1:
                self.add_module(f"out{i}", nn.Conv2d(channels, channels, 1))
        self.head = nn.Sequential(
            nn.ReLU(), nn.Conv2d(channels, channels, 1), nn.ReLU(), nn.Conv2d(channels, 17, 1)
        )

    def forward(self, x: Tensor) -> Tensor:
        """Mean negative log-likelihood of grey levels `x`."""
        height, width = x.shape[2:]
        v = h = x.float() / 8 - 1
        skip = 0
        for i in range(self.n_layers):
            layer = {n: self.get_submodule(f"{n}{i}") for n in ("v", "h", "link", "skip")}
            v = layer["v"](v)[:, :, :height]
            pre = layer["h"](h)[:, :, :, :width] + layer["link"](v)
            a, b = pre.chunk(2, 1)
            gated = torch.tanh(a) * torch.sigmoid(b)
            skip = skip + layer["skip"](gated)
            if i < self.n_layers - 1:
                out = self.get_submodule(f"out{i}")(gated)
                h = out + h if i else out
                a, b = v.chunk(2, 1)
                v = torch.tanh(a) * torch.sigmoid(b)
        return F.cross_entropy(self.head(skip), x[:, 0].long(), reduction="sum") / len(x)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--batch-size", type=int, default=64)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    keep_freed_memory()  # as fit does; both sides gain by it
    torch.manual_seed(0)
    x = digits().train[: arguments.batch_size]
    made = ar.MADE((1, 8, 8), 17, hidden=(500, 500))
    gated = ar.GatedPixelCNN((1, 8, 8), 17, channels=32, n_layers=4)
    pairs = {
        "MADE": (made, PlainMADE(made)),
        "GatedPixelCNN": (gated, PlainGatedPixelCNN(32, 4)),
    }
    print(f"{'model':16}{'ours, ms':>10}{'plain, ms':>11}{'ours/plain':>12}")
    for name, (ours, plain) in pairs.items():
        calls = {
            "ours": training_step(ours, lambda ours=ours: ar.negative_log_likelihood(ours, x)),
            "plain": training_step(plain, lambda plain=plain: plain(x)),
        }
        seconds = interleave(calls, arguments.steps, 1)
        times = [1e3 * median(values) for values in seconds.values()]
        print(f"{name:16}{times[0]:10.2f}{times[1]:11.2f}{times[0] / times[1]:12.2f}")


if __name__ == "__main__":
    main()
