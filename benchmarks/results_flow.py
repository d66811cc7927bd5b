"""Bits per dimension of the flows on the digits, with uniform and with learned noise.

    python -m benchmarks.results_flow                         all rows, one seed
    python -m benchmarks.results_flow --models RealNVP --seeds 0 1 2
    python -m benchmarks.results_flow --noise uniform

Training, validation and test split are those of course_lib.data.digits. Every run stops at its best
validation value, from averaged weights; the test split is looked at once, at the end.
"""

import argparse
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch

from course_lib.data import digits
from course_lib.evaluation import bits_per_dim
from course_lib.flow import (
    MAF,
    NICE,
    DequantizedFlow,
    Flow,
    Glow,
    MultiScaleRealNVP,
    RealNVP,
    VariationalDequantizer,
)
from course_lib.training import cosine_decay, fit

SHAPE = (1, 8, 8)


@dataclass
class Recipe:
    """How one model is built and for how many steps it is trained."""

    build: Callable[[], Flow]
    steps: int
    learning_rate: float = 1e-3


RECIPES = {
    "NICE": Recipe(lambda: NICE(SHAPE, layers=6, hidden=(256, 256), dropout=0.2, logit=0.05), 2500),
    "RealNVP": Recipe(lambda: RealNVP(SHAPE, dropout=0.2, logit=0.05), 2800),
    "MultiScaleRealNVP": Recipe(
        lambda: MultiScaleRealNVP(SHAPE, dropout=0.1, logit=0.05), 1000, 2e-3
    ),
    "Glow": Recipe(lambda: Glow(SHAPE, width=32, dropout=0.1, logit=0.05), 1200, 2e-3),
    "MAF": Recipe(lambda: MAF(SHAPE, dropout=0.2, logit=0.05), 2500, 2e-3),
}


def run(recipe: Recipe, noise: str, seed: int) -> tuple[int, float, float, float]:
    """Train once; return parameters, seconds, test bits/dim, and its importance-weighted bound."""
    data = digits()
    torch.manual_seed(seed)
    dequantizer = VariationalDequantizer(SHAPE, dropout=0.2) if noise == "variational" else None
    model = DequantizedFlow(recipe.build(), data.levels, dequantizer)
    with torch.no_grad():
        model.flow.initialize(model.dequantizer(data.train, data.levels)[0])
    start = time.perf_counter()
    fit(
        model,
        lambda model, x, progress: -model.elbo(x).mean(),
        data.train,
        validation=data.validation,
        steps=recipe.steps,
        batch_size=128,
        learning_rate=recipe.learning_rate,
        schedule=cosine_decay,
        ema=0.998,
        evaluate_every=max(1, recipe.steps // 40),
        seed=seed,
        progress=False,
    )
    seconds = time.perf_counter() - start
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        bound = bits_per_dim(model.elbo(data.test, 20, generator=generator), SHAPE).mean().item()
        tighter = model.importance_bound(data.test, 100, generator=generator)
    parameters = sum(p.numel() for p in model.flow.parameters())
    return parameters, seconds, bound, bits_per_dim(tighter, SHAPE).mean().item()


def main() -> None:
    """Run the parts that were asked for."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--models", nargs="+", choices=RECIPES, default=list(RECIPES))
    parser.add_argument("--noise", nargs="+", choices=("uniform", "variational"))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    print(
        "model              noise        seed  parameters  seconds  test bits/dim  importance-100"
    )
    for name in arguments.models:
        for noise in arguments.noise or ("uniform", "variational"):
            for seed in arguments.seeds:
                parameters, seconds, bound, tighter = run(RECIPES[name], noise, seed)
                print(
                    f"{name:<19}{noise:<13}{seed:4d}{parameters:12d}{seconds:9.1f}{bound:15.3f}"
                    f"{tighter:16.3f}",
                    flush=True,
                )


if __name__ == "__main__":
    main()
