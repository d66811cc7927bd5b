"""RealNVP and MAF against the flows of other libraries.

    python -m benchmarks.flows
    python -m benchmarks.flows --compile --slow

Same layers, widths, number of parameters, batch and fused Adam for all. The row "as documented"
trains everyone as its own documentation does: the others with PyTorch's default Adam, the course
with the fused one of `course_lib.training.fit`. In every round the contenders run in turn: a busy
machine slows all of them, and ratios stay comparable.
``peer/ours`` above 1 means that the course's code is faster.
"""

import argparse
from collections.abc import Callable

import torch
from torch import Tensor

from benchmarks.common import OURS, interleave, prepare, print_head, show, training_step
from benchmarks.peers import MAFS, REALNVP, Contender, importable

BATCH = 128
SIZES = ((64, (128, 128)), (784, (512, 512)))
# Couplings, and layers of the masked autoregressive flow.
MAKERS = {"RealNVP": (REALNVP, 8), "MAF": (MAFS, 5)}


def steps(
    contenders: dict[str, Contender],
    x: Tensor,
    wrap: Callable = lambda loss: loss,
    *,
    fused_peers: bool = True,
) -> dict[str, Callable[[], None]]:
    """Each contender's training step on one batch; `wrap` may compile its loss."""
    losses = {
        name: wrap(lambda x, log_prob=c.log_prob: -log_prob(x).mean())
        for name, c in contenders.items()
    }
    return {
        name: training_step(
            c.model, lambda loss=losses[name]: loss(x), fused=fused_peers or name == OURS
        )
        for name, c in contenders.items()
    }


def compiled_steps(contenders: dict[str, Contender], x: Tensor) -> dict[str, Callable[[], None]]:
    """The same under ``torch.compile``, for those that it can compile; says which it cannot."""
    compiled = {}
    for name, step in steps(contenders, x, torch.compile).items():
        try:
            step()
        except Exception as error:  # whatever a compiler may raise about foreign code
            print(f"{name} is not compiled: {type(error).__name__}")
        else:
            compiled[name] = step
    return compiled


def contest(
    title: str,
    features: int,
    hidden: tuple[int, ...],
    names: list[str],
    rounds: int,
    *,
    compile: bool,
    slow: bool,
) -> None:
    """Training step, log_prob and samples of one flow in one size, for the libraries named."""
    makers, layers = MAKERS[title]
    contenders = {name: makers[name](features, layers, hidden) for name in names if name in makers}
    x = torch.randn(BATCH, features)
    repeat = 5 if features == SIZES[0][0] else 1
    what = f"{title} {features}-d"
    for which, fused_peers in (("", True), (", as documented", False)):
        calls = steps(contenders, x, fused_peers=fused_peers)
        show(f"{what}, training step{which}", interleave(calls, rounds, repeat))
    if compile:
        compiled = compiled_steps(contenders, x)
        if OURS in compiled:
            show(f"{what}, training step, compiled", interleave(compiled, rounds, repeat))
    for contender in contenders.values():
        contender.model.eval()
    with torch.no_grad():
        calls = {n: lambda c=c: c.log_prob(x) for n, c in contenders.items()}
        show(f"{what}, log_prob", interleave(calls, rounds, repeat))
        # The others' MAF takes a pass for each dimension, half a minute in the larger size.
        minutes = title == "MAF" and features == SIZES[1][0]
        if slow or not minutes:
            calls = {n: lambda c=c: c.sample(BATCH) for n, c in contenders.items()}
            show(f"{what}, {BATCH} samples", interleave(calls, 3 if minutes else rounds, 1))


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=21)
    parser.add_argument(
        "--compile",
        action="store_true",
        help="also everybody's training step under torch.compile (minutes; needs a C++ compiler)",
    )
    parser.add_argument(
        "--slow", action="store_true", help="also sample everybody's MAF in 784 dimensions"
    )
    arguments = parser.parse_args()
    prepare()
    names = importable()
    print_head()
    for features, hidden in SIZES:
        for title in MAKERS:
            contest(
                title,
                features,
                hidden,
                names,
                arguments.rounds,
                compile=arguments.compile,
                slow=arguments.slow,
            )


if __name__ == "__main__":
    main()
