"""All that `make bench` measures, in one table; a few minutes on one core.

    python -m benchmarks

Peers are used if they can be imported: ``make bench`` installs them into ``_build/peers``, without
their dependencies, so that no other torch comes with them. In every round each contender of a row runs
once, in turn: a busy machine slows all of them, and ratios stay comparable. ``peer/ours`` above 1
means that the course's code is faster. The share is that of the best matrix product of this machine,
in the same type and on the same thread.
"""

import argparse
import importlib.util
import statistics
import time
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.common import interleave, ratios, training_step
from benchmarks.flows import MAFS, OURS, PEERS, REALNVP
from benchmarks.sampling import SETTINGS, measure
from benchmarks.training_autoregressive import PlainGatedPixelCNN, PlainMADE
from course_lib import autoregressive as ar
from course_lib.memory import keep_freed_memory
from course_lib.vae import VAE, NegativeELBO

PLAIN = "plain PyTorch"
COMPILED = "ours compiled"


class PlainVAE(nn.Module):
    """The VAE of the MNIST table as one would write it down."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Sequential(
            nn.Flatten(), nn.Linear(784, 500), nn.ReLU(), nn.Linear(500, 500), nn.ReLU(),
            nn.Linear(500, 80),
        )  # fmt: skip
        self.decoder = nn.Sequential(
            nn.Linear(40, 500), nn.ReLU(), nn.Linear(500, 500), nn.ReLU(), nn.Linear(500, 784)
        )

    def forward(self, x: Tensor) -> Tensor:
        """Minus the ELBO, a mean over images."""
        mu, logvar = self.encoder(x).chunk(2, 1)
        z = mu + (0.5 * logvar).exp() * torch.randn_like(mu)
        kl = 0.5 * (logvar.exp() + mu.square() - 1 - logvar).sum()
        logits = self.decoder(z)
        nll = F.binary_cross_entropy_with_logits(logits, x.flatten(1), reduction="sum")
        return (nll + kl) / len(x)


def peak(size: int = 1024, repeats: int = 15) -> float:
    """The best FLOP/s of a square float32 matrix product."""
    a, b = torch.randn(size, size), torch.randn(size, size)
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        a @ b
        times.append(time.perf_counter() - start)
    return 2 * size**3 / min(times)


def flops(loss: Callable[[], Tensor]) -> int:
    """Floating-point operations of products and convolutions, forward and backward."""
    with FlopCounterMode(display=False) as counter:
        loss().backward()
    return counter.get_total_flops()


def saved_bytes(loss: Callable[[], Tensor]) -> int:
    """Bytes that the forward pass keeps for the backward pass, shared storages counted once."""
    storages = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        storages[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        loss()
    return sum(storages.values())


def show(what: str, seconds: dict[str, list[float]], note: str = "") -> None:
    """One line per contest: our time, and each peer's ratio to it with quartiles over the rounds."""
    parts = []
    for name in seconds:
        if name != OURS:
            low, middle, high = ratios(seconds, name, OURS)
            parts.append(f"{name} {middle:.2f} ({low:.2f}-{high:.2f})")
    print(
        f"{what:40}{1e3 * statistics.median(seconds[OURS]):10.2f}  {', '.join(parts)}{note}",
        flush=True,
    )


def flow_contests(rounds: int, compiled: bool) -> None:
    """RealNVP and MAF against the peers: same layers, widths, batch, optimizer.

    Our own step compiled, where that is asked for, takes part as one more contender: it shows what
    ``fit(…, compile=True)`` brings. The peers' steps are as they come.
    """
    names = [OURS, *(name for name in PEERS if importlib.util.find_spec(name))]
    sizes = ((64, (128, 128)), (784, (512, 512)))
    cases = (
        (size, *case) for size in sizes for case in (("RealNVP", REALNVP, 8), ("MAF", MAFS, 5))
    )
    for (features, hidden), title, makers, layers in cases:
        contenders = {n: makers[n](features, layers, hidden) for n in names if n in makers}
        x = torch.randn(128, features)
        steps = {
            n: training_step(c.model, lambda c=c, x=x: -c.log_prob(x).mean())
            for n, c in contenders.items()
        }
        if compiled:
            model = makers[OURS](features, layers, hidden).model
            loss = torch.compile(lambda x, model=model: -model.log_prob(x).mean())
            steps[COMPILED] = training_step(model, lambda loss=loss, x=x: loss(x))
        repeat = 5 if features == 64 else 1
        show(f"{title} {features}-d, training step", interleave(steps, rounds, repeat))
        for contender in contenders.values():
            contender.model.eval()
        with torch.no_grad():
            calls = {n: lambda c=c, x=x: c.log_prob(x) for n, c in contenders.items()}
            show(f"{title} {features}-d, log_prob", interleave(calls, rounds, repeat))
            calls = {n: lambda c=c: c.sample(128) for n, c in contenders.items()}
            if title == "RealNVP" or features == 64:  # peers' MAF takes minutes at 784
                show(f"{title} {features}-d, 128 samples", interleave(calls, rounds, 1))


def plain_contests(rounds: int) -> None:
    """Training steps against plain PyTorch, with the share of the peak and the memory."""
    levels = torch.randint(0, 17, (64, 1, 8, 8))
    binary = torch.randint(0, 2, (32, 1, 28, 28))
    floats = torch.randint(0, 2, (128, 1, 28, 28)).float()
    done = torch.ones(())
    made = ar.MADE((1, 8, 8), 17, hidden=(500, 500))
    small = ar.GatedPixelCNN((1, 8, 8), 17, channels=32, n_layers=4)
    large = ar.GatedPixelCNN((1, 28, 28), 2, channels=32, n_layers=6)
    vae = VAE((1, 28, 28), 40, hidden=(500, 500))
    elbo = NegativeELBO()
    plain_made, plain_small, plain_vae = PlainMADE(made), PlainGatedPixelCNN(32, 4), PlainVAE()
    contests = {
        "VAE 784-500-500-40, batch 128": (
            (vae, lambda: elbo(vae, floats, done)["loss"]),
            (plain_vae, lambda: plain_vae(floats)),
        ),
        "MADE 8×8, 17 levels, batch 64": (
            (made, lambda: ar.negative_log_likelihood(made, levels)),
            (plain_made, lambda: plain_made(levels)),
        ),
        "gated PixelCNN 8×8, 17 levels, batch 64": (
            (small, lambda: ar.negative_log_likelihood(small, levels)),
            (plain_small, lambda: plain_small(levels)),
        ),
        "gated PixelCNN 28×28, binary, batch 32": (
            (large, lambda: ar.negative_log_likelihood(large, binary)),
        ),
    }
    for title, ((ours, loss), *others) in contests.items():
        calls = {OURS: training_step(ours, loss)}
        for other in others:
            calls[PLAIN] = training_step(*other)
        few = rounds if others else max(3, rounds // 4)
        seconds = interleave(calls, few, 2)
        # The peak is measured beside each row: machines change their clock.
        share = flops(loss) / statistics.median(seconds[OURS]) / peak()
        memory = [f"{saved_bytes(f) / 2**20:.1f}" for _, f in ((ours, loss), *others)]
        show(
            title,
            seconds,
            f"  [{share:.0%} of the peak; kept for backward: {' / '.join(memory)} MiB]",
        )


def precision_contests(rounds: int) -> None:
    """A training step in bf16 against float32, and what bf16 changes in a log-likelihood."""
    binary = torch.randint(0, 2, (32, 1, 28, 28))
    for layout in ("contiguous", "channels last"):
        model = ar.GatedPixelCNN((1, 28, 28), 2, channels=32, n_layers=6)
        if layout == "channels last":
            model = model.to(memory_format=torch.channels_last)

        def low(model: ar.GatedPixelCNN = model) -> Tensor:
            with torch.autocast("cpu", torch.bfloat16):
                return ar.negative_log_likelihood(model, binary)

        calls = {
            OURS: training_step(model, low),
            "float32": training_step(model, lambda m=model: ar.negative_log_likelihood(m, binary)),
        }
        seconds = interleave(calls, max(3, rounds // 4), 1)
        with torch.no_grad():
            exact = model.log_prob(binary)
            with torch.autocast("cpu", torch.bfloat16):
                error = (model.log_prob(binary) - exact).abs().max()
        show(
            f"gated PixelCNN 28×28, bf16, {layout}",
            seconds,
            f"  [log p is off by at most {error:.2f} of {-exact.mean():.0f} nats]",
        )


def sampling_contests() -> None:
    """Cached samplers in forward passes of the same batch, and against naive sampling."""
    for name in ("GatedPixelCNN", "RowLSTM", "DiagonalBiLSTM"):
        model = getattr(ar, name)((1, 28, 28), 2, **SETTINGS[name])
        row = measure(model, 16, 3, 0)
        print(
            f"{f'{name} 28×28, 16 samples':40}{1e3 * row['cached']:10.2f}  "
            f"{row['cached'] / row['forward']:.2f} forward passes, naive "
            f"{row['naive'] / row['cached']:.0f} times slower",
            flush=True,
        )


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=21)
    parser.add_argument(
        "--compile",
        action="store_true",
        help="also time our flows' training steps under torch.compile (minutes; needs a compiler)",
    )
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    keep_freed_memory()
    missing = [name for name in PEERS if not importlib.util.find_spec(name)]
    if missing:
        print(f"not compared, because they cannot be imported: {', '.join(missing)} (make bench)")
    print(f"float32 matrix products reach {peak() / 1e9:.0f} GFLOP/s on one thread")
    print(f"{'':40}{'ours, ms':>10}  peer/ours, median (quartiles)")
    flow_contests(arguments.rounds, arguments.compile)
    plain_contests(arguments.rounds)
    precision_contests(arguments.rounds)
    sampling_contests()


if __name__ == "__main__":
    main()
