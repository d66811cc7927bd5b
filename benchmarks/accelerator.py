"""Every recorded MNIST model of the budget ``gpu`` on this machine's accelerator.

    python -m benchmarks.accelerator [--only RowLSTM] [--out accelerator.json]

For each model, in float32, TF32 and bfloat16, as it is and compiled: training steps per second of
`course_lib.training.fit`, after as many steps of warm-up, and the share of the best matrix product
in the same type. Then samples per second in float32, and how far TF32 and bfloat16 are from
float32's log-likelihood under random weights. Images are random grey levels: nothing is downloaded, and
no number here says anything about a model's quality. Without an accelerator it runs on the CPU, for a trial.
"""

import argparse
import json
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor, nn

from benchmarks.training import flops, peak, wait
from course_lib.data import Dataset
from course_lib.experiments import RECIPES, Recipe
from course_lib.experiments.records import hardware, versions
from course_lib.experiments.running import accelerator_or_cpu, build, transform_of
from course_lib.files import replace_text
from course_lib.precision import float32_products
from course_lib.training import fit

PRECISIONS = {"float32": "32-true", "TF32": "32-true", "bfloat16": "bf16-mixed"}


def products_in(precision: str) -> AbstractContextManager[None]:
    """Let float32's matrix products and convolutions be what `precision` says."""
    return float32_products("tf32" if precision == "TF32" else "ieee")


def random_images(n: int) -> Dataset:
    """As large and as many-valued as MNIST's."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randint(256, (n, 1, 28, 28), dtype=torch.uint8, generator=generator)
    labels = torch.zeros(n, dtype=torch.int64)
    return Dataset("random", 256, x, x, x, labels, labels, labels)


def steps_per_second(
    model: nn.Module, data: Dataset, recipe: Recipe, precision: str, steps: int, *, compiled: bool
) -> float:
    """Of the second half of a short training; in the first the accelerator is warmed up."""
    with products_in(precision):
        history = fit(
            model,
            recipe.loss(),
            data.train,
            steps=2 * steps,
            batch_size=recipe.batch_size,
            learning_rate=1e-6,  # random images teach nothing: stay where the model is
            transform=transform_of(data, recipe),
            ema=recipe.ema,
            evaluate_every=steps,
            precision=PRECISIONS[precision],
            compile=compiled,
            progress=False,
        )
    halfway, end = (row["seconds"] for row in history.train[-2:])
    return steps / (end - halfway)


def score(model: nn.Module, recipe: Recipe, x: Tensor, precision: str) -> Tensor:
    """What is reported of each image: the log-likelihood or its bound, with the same noise."""
    torch.manual_seed(0)
    autocast = torch.autocast(x.device.type, torch.bfloat16, enabled=precision == "bfloat16")
    with torch.no_grad(), products_in(precision), autocast:
        return recipe.log_likelihood(model, x).float()


def one_model(key: tuple[str, str, str], options: argparse.Namespace, best: dict) -> dict:
    """All measurements of one model; what cannot run says why in its place."""
    recipe = RECIPES[key]
    if options.batch:
        recipe = replace(recipe, batch_size=options.batch)
    data = random_images(4 * recipe.batch_size)
    device = accelerator_or_cpu()

    def made() -> nn.Module:
        torch.manual_seed(0)
        return build(key[1], data, recipe)

    def tried(call: Callable[[], float]) -> float | str:
        try:
            return call()
        except RuntimeError as error:  # no kernel, no memory, no compiler
            return f"{type(error).__name__}: {str(error).splitlines()[0]}"

    model = made().to(device)
    x = data.train[: recipe.batch_size].to(device)
    draw = transform_of(data, recipe)
    batch = x if draw is None else draw(x, torch.Generator(device).manual_seed(0))
    loss = recipe.loss()

    def objective() -> Tensor:
        terms = loss(model, batch, torch.ones((), device=device))
        return terms["loss"] if isinstance(terms, dict) else terms

    operations = flops(objective)
    rows = {}
    for precision in PRECISIONS:
        for compiled in (False,) if options.eager else (False, True):
            rate = tried(
                lambda p=precision, c=compiled: steps_per_second(
                    made(), data, recipe, p, options.steps, compiled=c
                )
            )
            share = operations * rate / best[precision] if isinstance(rate, float) else None
            name = f"{precision}{', compiled' if compiled else ''}"
            rows[name] = {"steps per second": rate, "share of the peak": share}
            text = f"{rate:8.2f} steps/s, {share:5.1%} of the peak" if share is not None else rate
            print(f"  {name:20} {text}", flush=True)
    model = model.eval()
    with (
        torch.no_grad()
    ):  # away from its initial state, where many distributions are flat and nothing is rounded
        for parameter in model.parameters():
            parameter += 0.03 * torch.randn_like(parameter)
    with products_in("float32"):
        wait(device)
        start = time.perf_counter()
        drawn = tried(lambda: len(model.sample(options.samples)))
        wait(device)
        seconds = time.perf_counter() - start
    samples = options.samples / seconds if isinstance(drawn, int) else drawn
    exact = score(model, recipe, batch, "float32")
    errors = {
        p: (score(model, recipe, batch, p) - exact).abs().max().item() for p in list(PRECISIONS)[1:]
    }
    print(f"  samples per second: {samples if isinstance(samples, str) else round(samples, 2)}")
    for precision, error in errors.items():
        print(f"  log-likelihood in {precision}: off by at most {error:.2g} nats of an image")
    return {
        "batch": recipe.batch_size,
        "operations per step": operations,
        "training": rows,
        "samples per second": samples,
        "largest error of a log-likelihood, nats": errors,
    }


def main() -> None:
    """Print the table, and write it where it is told to."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", help="one model, such as RowLSTM")
    parser.add_argument(
        "--eager", action="store_true", help="compile nothing, which takes longer than all the rest"
    )
    parser.add_argument("--steps", type=int, default=100, help="steps that are timed")
    parser.add_argument("--samples", type=int, default=64, help="images that are drawn at once")
    parser.add_argument("--batch", type=int, help="instead of the recipe's (for a trial)")
    parser.add_argument("--size", type=int, default=8192, help="of the matrices of the peak")
    parser.add_argument("--out", type=Path, help="a JSON file for all numbers")
    options = parser.parse_args()
    device = accelerator_or_cpu()
    best = {}
    for precision in PRECISIONS:
        dtype = torch.bfloat16 if precision == "bfloat16" else torch.float32
        with products_in(precision):
            best[precision] = peak(options.size, device=device, dtype=dtype)
    for precision, value in best.items():
        print(f"matrix products in {precision} reach {value / 1e12:.3g} TFLOP/s")
    content = {"hardware": hardware(), "versions": versions(), "peak, FLOP/s": best, "models": {}}
    for key in RECIPES:
        data, model, budget = key
        if data != "mnist" or not budget.startswith("gpu") or options.only not in (None, model):
            continue
        print(f"{model}, {budget}", flush=True)
        content["models"][f"{model}, {budget}"] = one_model(key, options, best)
        if options.out:  # after each: nothing is lost if the next is stopped
            replace_text(options.out, json.dumps(content, indent=1) + "\n")


if __name__ == "__main__":
    main()
