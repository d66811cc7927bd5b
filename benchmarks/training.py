"""Training steps against plain PyTorch and against plain paths, their share of the peak, and bf16.

    python -m benchmarks.training

The plain networks are those of `benchmarks.plain`. The share is that of the best matrix product of
this machine, in the same type and on the same thread.
"""

import argparse
import copy
import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.common import OURS, interleave, prepare, print_head, show, training_step
from benchmarks.plain import (
    PlainGatedPixelCNN,
    PlainMADE,
    PlainNADE,
    PlainTransformer,
    PlainVAE,
)
from course_lib import autoregressive as ar
from course_lib.fast import plain_paths
from course_lib.flow import MAF
from course_lib.training import negative_log_likelihood
from course_lib.vae import VAE, NegativeELBO

PLAIN = "plain PyTorch"
PLAIN_PATH = "plain path"
CPU = torch.device("cpu")
DONE = torch.ones(())  # the share of training that is over, which losses are told


def wait(device: torch.device) -> None:
    """Until an accelerator has done all that it was told; a CPU has."""
    if device.type != "cpu":
        torch.accelerator.synchronize(device)


def peak(
    size: int = 1024, *, device: torch.device = CPU, dtype: torch.dtype = torch.float32
) -> float:
    """The best FLOP/s of a square matrix product."""
    a, b = (torch.randn(size, size, device=device, dtype=dtype) for _ in range(2))
    times = []
    for _ in range(15):
        wait(device)
        start = time.perf_counter()
        a @ b
        wait(device)
        times.append(time.perf_counter() - start)
    return 2 * size**3 / min(times)


def flops(loss: Callable[[], Tensor]) -> int:
    """Floating-point operations of products and convolutions, forward and backward."""
    # Products that are added in place, as those of masked blocks are, are not known to it.
    in_place = {torch.ops.aten.addmm_: lambda to, a, b, **_: 2 * a[0] * a[1] * b[1]}
    with FlopCounterMode(display=False, custom_mapping=in_place) as counter:
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


def plain_contests(rounds: int) -> None:
    """Training steps against plain PyTorch, with the share of the peak and the memory."""
    levels = torch.randint(0, 17, (64, 1, 8, 8))
    binary = torch.randint(0, 2, (32, 1, 28, 28))
    floats = torch.randint(0, 2, (128, 1, 28, 28)).float()
    made = ar.MADE((1, 8, 8), 17, hidden=(500, 500))
    small = ar.GatedPixelCNN((1, 8, 8), 17, channels=32, n_layers=4)
    large = ar.GatedPixelCNN((1, 28, 28), 2, channels=32, n_layers=6)
    transformer = ar.Transformer((1, 8, 8), 17)
    plain_transformer = PlainTransformer(64, 4, 2)
    vae = VAE((1, 28, 28), 40, hidden=(500, 500))
    elbo = NegativeELBO()
    plain_made, plain_small, plain_vae = PlainMADE(made), PlainGatedPixelCNN(32, 4), PlainVAE()
    contests = {
        "VAE 784-500-500-40, batch 128": (
            (vae, lambda: elbo(vae, floats, DONE)["loss"]),
            (plain_vae, lambda: plain_vae(floats)),
        ),
        "MADE 8×8, 17 levels, batch 64": (
            (made, lambda: negative_log_likelihood(made, levels, DONE)),
            (plain_made, lambda: plain_made(levels)),
        ),
        "gated PixelCNN 8×8, 17 levels, batch 64": (
            (small, lambda: negative_log_likelihood(small, levels, DONE)),
            (plain_small, lambda: plain_small(levels)),
        ),
        "transformer 8×8, 17 levels, batch 64": (
            (transformer, lambda: negative_log_likelihood(transformer, levels, DONE)),
            (plain_transformer, lambda: plain_transformer(levels)),
        ),
        "gated PixelCNN 28×28, binary, batch 32": (
            (large, lambda: negative_log_likelihood(large, binary, DONE)),
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


def nade_contest(rounds: int) -> None:
    """NADE's running sum against all of its hidden layers at once: time and memory."""
    binary = torch.randint(0, 2, (64, 1, 28, 28))
    ours = ar.NADE((1, 28, 28), 2, hidden=500)
    plain = PlainNADE(ours)

    def loss() -> Tensor:
        return negative_log_likelihood(ours, binary, DONE)

    calls = {
        OURS: training_step(ours, loss),
        PLAIN: training_step(plain, lambda: plain(binary)),
    }
    seconds = interleave(calls, max(3, rounds // 4), 1)
    memory = [f"{saved_bytes(f) / 2**20:.1f}" for f in (loss, lambda: plain(binary))]
    show(
        "NADE 28×28, binary, hidden 500, batch 64",
        seconds,
        f"  [kept for backward: {' / '.join(memory)} MiB]",
    )


def by_plain_paths(call: Callable[[], object]) -> Callable[[], None]:
    """The same call without any fast path."""

    def plain() -> None:
        with plain_paths():
            call()

    return plain


def fast_path_contests(rounds: int) -> None:
    """The fast paths of training, and of inverting a flow, against the plain paths of the same model."""
    levels = torch.randint(0, 17, (64, 1, 8, 8))
    binary = torch.randint(0, 2, (64, 1, 28, 28))
    made = ar.MADE((1, 8, 8), 17, hidden=(500, 500))
    nade = ar.NADE((1, 28, 28), 2, hidden=500)
    maf = MAF((1, 8, 8), hidden=(500, 500))
    contests = {
        "MADE 8×8, 17 levels, batch 64": training_step(
            made, lambda: negative_log_likelihood(made, levels, DONE)
        ),
        "NADE 28×28, binary, hidden 500, batch 64": training_step(
            nade, lambda: negative_log_likelihood(nade, binary, DONE)
        ),
        "MAF 8×8, hidden 500, 500, sample of 64": lambda: maf.sample(64),
    }
    for title, call in contests.items():
        calls = {OURS: call, PLAIN_PATH: by_plain_paths(call)}
        show(title, interleave(calls, max(3, rounds // 4), 1))


def precision_contests(rounds: int) -> None:
    """A training step in bf16 and in float32, with channels last and first; bf16's error."""
    binary = torch.randint(0, 2, (32, 1, 28, 28))
    last = ar.GatedPixelCNN((1, 28, 28), 2, channels=32, n_layers=6)
    first = copy.deepcopy(last).to(memory_format=torch.contiguous_format)

    def step(model: ar.GatedPixelCNN, low: bool) -> Callable[[], None]:
        def loss() -> Tensor:
            with torch.autocast("cpu", torch.bfloat16, enabled=low):
                return negative_log_likelihood(model, binary, DONE)

        return training_step(model, loss)

    # The error first: the steps change the weights.
    with torch.no_grad():
        exact = last.log_prob(binary)
        with torch.autocast("cpu", torch.bfloat16):
            error = (last.log_prob(binary) - exact).abs().max()
    calls = {
        OURS: step(last, low=True),
        "channels first": step(first, low=True),
        "float32": step(last, low=False),
        "both": step(first, low=False),
    }
    show(
        "gated PixelCNN 28×28, bf16, batch 32",
        interleave(calls, max(3, rounds // 4), 1),
        f"  [log p is off by at most {error:.2f} of {-exact.mean():.0f} nats]",
    )


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=21)
    arguments = parser.parse_args()
    prepare()
    print(f"float32 matrix products reach {peak() / 1e9:.0f} GFLOP/s on one thread")
    print_head()
    plain_contests(arguments.rounds)
    nade_contest(arguments.rounds)
    fast_path_contests(arguments.rounds)
    precision_contests(arguments.rounds)


if __name__ == "__main__":
    main()
