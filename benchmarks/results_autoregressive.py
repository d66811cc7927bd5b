"""Train the autoregressive models on digits, and record bits/dim on the test split.

Every choice (the weights of the best step among them) is made on the validation split; the test
split is read once, at the end. One JSON file is written for each run.

    python -m benchmarks.results_autoregressive --seconds 60 --seeds 0 1 2
"""

import argparse
import json
import platform
import statistics
import time
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import torch

from course_lib import autoregressive as ar
from course_lib.data import digits
from course_lib.evaluation import bits_per_dim, estimate
from course_lib.training import cosine_decay, fit


@dataclass(frozen=True)
class Recipe:
    """How one model is built and trained.

    Attributes:
        arguments: of the model.
        steps: optimizer steps, in batches of 32.
        learning_rate: at the start; it falls along half a cosine.
    """

    arguments: dict
    steps: int
    learning_rate: float


# Steps fit the budget on one core of about 60 GFLOP/s.
RECIPES = {
    60: {
        "GatedPixelCNN": Recipe({"n_layers": 4, "dropout": 0.2}, 1700, 4e-3),
        "RowLSTM": Recipe({"n_layers": 2, "dropout": 0.1}, 2000, 5e-3),
        "DiagonalBiLSTM": Recipe({"n_layers": 2, "dropout": 0.1}, 1000, 6e-3),
        "PixelCNN": Recipe({"n_layers": 5, "dropout": 0.1}, 1700, 4e-3),
        "MADE": Recipe({"hidden": (500,), "dropout": 0.3}, 3000, 1e-3),
        "NADE": Recipe({"hidden": 256}, 1200, 1e-3),
        "FVSBN": Recipe({}, 2000, 2e-3),
    },
    300: {
        "GatedPixelCNN": Recipe({"n_layers": 5, "dropout": 0.25}, 6000, 4e-3),
        "RowLSTM": Recipe({"n_layers": 3, "dropout": 0.15}, 6000, 5e-3),
        "DiagonalBiLSTM": Recipe({"n_layers": 2, "dropout": 0.2}, 5000, 6e-3),
    },
}


def run(name: str, budget: int, seed: int) -> dict[str, object]:
    """Train one model and measure it.

    Args:
        name: name of the model.
        budget: seconds that the recipe is made for.
        seed: seeds the weights, the order of the data and dropout.

    Returns:
        What is recorded.
    """
    data, recipe = digits(), RECIPES[budget][name]
    torch.manual_seed(seed)
    model = getattr(ar, name)(data.event_shape, data.levels, **recipe.arguments)
    start = time.perf_counter()
    history = fit(
        model,
        ar.negative_log_likelihood,
        data.train,
        validation=data.validation,
        steps=recipe.steps,
        batch_size=32,
        learning_rate=recipe.learning_rate,
        schedule=cosine_decay,
        ema=0.99,
        seed=seed,
        accelerator="cpu",
        progress=False,
    )
    seconds = time.perf_counter() - start
    with torch.no_grad():
        test = estimate(bits_per_dim(model.log_prob(data.test), data.event_shape))
        validation = bits_per_dim(model.log_prob(data.validation), data.event_shape).mean()
    return {
        "model": name,
        "data": "digits",
        "arguments": recipe.arguments,
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "steps": recipe.steps,
        "best_step": history.best_step,
        "seed": seed,
        "seconds": round(seconds, 1),
        "validation_bits_per_dim": round(validation.item(), 4),
        "test_bits_per_dim": round(test.mean, 4),
        "test_standard_error": round(test.standard_error, 4),
        "torch": torch.__version__,
        "machine": platform.machine(),
        "threads": torch.get_num_threads(),
        "date": date.today().isoformat(),
    }


def main() -> None:
    """Run what the command line asks for."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--models", nargs="+", help="names; all that have a recipe by default")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--seconds", type=int, choices=RECIPES, default=60, help="the budget")
    parser.add_argument("--folder", type=Path, default=Path("results"))
    arguments = parser.parse_args()
    names = arguments.models or list(RECIPES[arguments.seconds])
    unknown = set(names) - set(RECIPES[arguments.seconds])
    if unknown:
        parser.error(f"no recipe of {arguments.seconds} s for {', '.join(sorted(unknown))}")
    torch.set_num_threads(1)
    arguments.folder.mkdir(parents=True, exist_ok=True)
    print(f"{'model':16}{'parameters':>12}{'seconds':>9}  test bits/dim: mean ± spread of seeds")
    for name in names:
        runs = []
        for seed in arguments.seeds:
            runs.append(run(name, arguments.seconds, seed))
            path = arguments.folder / f"autoregressive-{name}-{arguments.seconds}s-seed{seed}.json"
            path.write_text(json.dumps(runs[-1], indent=1) + "\n", encoding="utf-8")
        values = [r["test_bits_per_dim"] for r in runs]
        spread = statistics.stdev(values) if len(values) > 1 else 0.0
        seconds = statistics.mean(r["seconds"] for r in runs)
        print(
            f"{name:16}{runs[0]['parameters']:12,}{seconds:9.0f}  "
            f"{statistics.mean(values):.4f} ± {spread:.4f}  {values}",
            flush=True,
        )


if __name__ == "__main__":
    main()
