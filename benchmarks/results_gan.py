"""The stability study with more seeds than the notebook has, and the slow run it has no time for.

    python -m benchmarks.results_gan [--seeds 16] [--out results/gan_stability.json]

Writes one JSON file: for every method and law the divergences by histogram and by kernel density,
and the errors of mean and standard deviation, each as one number per seed; the noise floor;
and the settings. About ten minutes on one core.
"""

import argparse
import json
import platform
import time
from dataclasses import replace
from pathlib import Path

import torch

from course_lib.files import replace_text
from course_lib.gan import study

METHODS = (
    study.original(decay=False),
    study.original(),
    study.gan_dp(0.1),
    study.gan_dp(1.0),
    study.wgan_gp(10.0),
    study.wgan_gp(0.1),
    study.wgan_gp(10.0, one_sided=True),
    study.wgan_gp(10.0, learning_rate=1e-5, decay=False, steps=20_000),
    study.wgan_gp(10.0, one_sided=True, learning_rate=1e-5, decay=False, steps=20_000),
)


def measure(method: study.Method, laws: list[study.Law], n_seeds: int, repetitions: int) -> list:
    """Train one method and return one row per law."""
    started = time.perf_counter()
    trained = study.train(method, laws, n_seeds=n_seeds, progress=True)
    seconds = time.perf_counter() - started
    histogram, kernel = study.divergences(trained, repetitions=repetitions)
    sample = trained.sample(100_000, generator=torch.Generator().manual_seed(2))
    rows = []
    for i, law in enumerate(laws):
        rows.append(
            {
                "method": method.name,
                "learning_rate": method.learning_rate,
                "decay": method.decay,
                "steps": method.steps,
                "law": law.name,
                "kl_histogram": histogram[i].tolist(),
                "kl_kernel": kernel[i].tolist(),
                "mean_error": (sample[i].mean(1) - law.mean).tolist(),
                "sd_error": (sample[i].std(1) - law.std).tolist(),
                "seconds_all_laws": round(seconds, 1),
            }
        )
        print(
            f"{method.name}, rate {method.learning_rate:g}{' decaying' if method.decay else ''}, "
            f"{method.steps} steps, {law.name}: KL {histogram[i].mean():.4f} "
            f"(worst {histogram[i].max():.4f}), by kernel {kernel[i].mean():.4f}, {seconds:.0f} s",
            flush=True,
        )
    return rows


def main() -> None:
    """Read the arguments, measure, write the file."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=16, help="seeds per method and law")
    parser.add_argument("--repetitions", type=int, default=100, help="histograms per seed")
    parser.add_argument("--steps", type=int, help="instead of each method's own (for a quick look)")
    parser.add_argument("--out", type=Path, default=Path("results/gan_stability.json"))
    arguments = parser.parse_args()
    laws = [study.gaussian(), study.beta()]
    rows = []
    for method in METHODS:
        if arguments.steps:
            method = replace(method, steps=arguments.steps)
        rows += measure(method, laws, arguments.seeds, arguments.repetitions)
    content = {
        "seeds": arguments.seeds,
        "repetitions": arguments.repetitions,
        "noise_floor": {
            law.name: study.noise_floor(law, repetitions=arguments.repetitions) for law in laws
        },
        "torch": torch.__version__,
        "machine": platform.machine(),
        "rows": rows,
    }
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    replace_text(arguments.out, json.dumps(content, indent=1) + "\n")
    print(f"written: {arguments.out}")


if __name__ == "__main__":
    main()
