"""The recorded study of stability: more seeds than the notebook has, and the slow runs it has no time for.

For every method and target: the divergences by histogram and by kernel density, and the errors of mean
and standard deviation, one number per seed; and the noise floor. About ten minutes on one core.
"""

import time
from collections.abc import Sequence
from dataclasses import replace

import torch

from course_lib.experiments import line_study as study
from course_lib.experiments.records import StudyRecord

NAME = "gan_stability"
SEEDS, REPETITIONS = 16, 100
TARGETS = (study.gaussian(), study.beta())
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


def run(*, n_seeds: int = SEEDS, steps: int | None = None, progress: bool = True) -> StudyRecord:
    """Train and measure all methods on both targets.

    Args:
        n_seeds: seeds per method and target.
        steps: instead of each method's own, for a trial.
        progress: show progress bars, and a line for each method and target.

    Returns:
        The record, not yet written.
    """
    methods = [m if steps is None else replace(m, steps=steps) for m in METHODS]
    found = [_measure(method, n_seeds, progress=progress) for method in methods]
    command = f"course-lib study {NAME}"
    command += f" --seeds {n_seeds}" if n_seeds != SEEDS else ""
    command += f" --steps {steps}" if steps is not None else ""
    return StudyRecord(
        study=NAME,
        noise_floor={t.name: study.noise_floor(t, repetitions=REPETITIONS) for t in TARGETS},
        rows=[row for rows in found for row in rows],
        seed=0,
        seconds=round(sum(rows[0]["seconds_all_targets"] for rows in found), 1),
        settings=settings(methods, n_seeds),
        command=command,
    )


def settings(methods: Sequence[study.Method] = METHODS, n_seeds: int = SEEDS) -> dict:
    """All that defines the study, as it is recorded."""
    return {
        "seeds": n_seeds,
        "repetitions": REPETITIONS,
        "targets": [target.name for target in TARGETS],
        "methods": [_described(method) for method in methods],
    }


def _described(method: study.Method) -> dict:
    """A method without its functions, which its name stands for."""
    return {
        "method": method.name,
        "learning_rate": method.learning_rate,
        "decay": method.decay,
        "steps": method.steps,
    }


def _measure(method: study.Method, n_seeds: int, *, progress: bool) -> list[dict]:
    """Train one method and return one row per target."""
    started = time.perf_counter()
    trained = study.train(method, TARGETS, n_seeds=n_seeds, progress=progress)
    seconds = time.perf_counter() - started
    histogram, kernel = study.divergences(trained, repetitions=REPETITIONS)
    sample = trained.sample(100_000, generator=torch.Generator().manual_seed(2))
    rows = []
    for i, target in enumerate(TARGETS):
        rows.append(
            {
                **_described(method),
                "target": target.name,
                "kl_histogram": histogram[i].tolist(),
                "kl_kernel": kernel[i].tolist(),
                "mean_error": (sample[i].mean(1) - target.mean).tolist(),
                "sd_error": (sample[i].std(1) - target.std).tolist(),
                "seconds_all_targets": round(seconds, 1),
            }
        )
        if progress:
            print(
                f"{method.name}, rate {method.learning_rate:g}"
                f"{' decaying' if method.decay else ''}, {method.steps} steps, {target.name}: "
                f"KL {histogram[i].mean():.4f} (worst {histogram[i].max():.4f}), "
                f"by kernel {kernel[i].mean():.4f}, {seconds:.0f} s",
                flush=True,
            )
    return rows
