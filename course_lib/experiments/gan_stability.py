"""The recorded study of stability: every method with its authors' settings and with ours.

For every method and target: the divergences by histogram and by kernel density, and the errors of mean
and standard deviation, one number per seed; and the noise floor and the saturation value of both measures.
About half an hour of one core. Each method that is done is kept, so that a study that was stopped resumes.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path

import torch

from course_lib.experiments import line_study as study
from course_lib.experiments.parts import of_each, study_command
from course_lib.experiments.records import StudyRecord, commit

NAME = "gan_stability"
SEEDS, REPETITIONS = 6, 100
TARGETS = (study.gaussian(), study.beta())
SIDES, WEIGHTS, UPDATES = (False, True), (0.1, 1.0, 10.0), (1, 5)


def _ours() -> Iterator[study.Method]:
    """The same rate, decay, number of steps and average for every game; every one with 1 and 5 updates."""
    yield study.original(decay=False)
    for updates in UPDATES:
        yield study.original(updates=updates)
    yield study.gan_dp(0.1)
    for updates in UPDATES:
        yield study.gan_dp(1.0, updates=updates)
    for one_sided in SIDES:
        for weight in WEIGHTS:
            for updates in UPDATES:
                yield study.wgan_gp(weight, one_sided=one_sided, updates=updates)


def _with_momentum() -> Iterator[study.Method]:
    """The first of the two coefficients that WGAN-GP's published code gives Adam, for every game."""
    betas = (0.5, 0.9)
    yield study.original(betas=betas)
    yield study.gan_dp(1.0, betas=betas)
    yield study.wgan_gp(0.1, updates=5, betas=betas)


def _of_the_authors() -> Iterator[study.Method]:
    """Rate, momentum, updates, weight and average of the papers, none of which lets the rate fall."""
    yield study.original(
        by="radford2016unsupervised",
        learning_rate=2e-4, betas=(0.5, 0.999), decay=False, average=None, steps=8_000,
    )  # fmt: skip
    yield study.gan_dp(
        10.0, by="mescheder2018which",
        learning_rate=1e-4, betas=(0.0, 0.99), decay=False, average=0.999, steps=8_000,
    )  # fmt: skip
    # Algorithm 1 of the paper, and the published code for data in the plane.
    for weight, betas, steps in ((10.0, (0.0, 0.9), 4_000), (0.1, (0.5, 0.9), 20_000)):
        yield study.wgan_gp(
            weight, by="gulrajani2017improved",
            learning_rate=1e-4, betas=betas, decay=False, average=None, steps=steps, updates=5,
        )  # fmt: skip


def _slow() -> Iterator[study.Method]:
    """A hundredth of the rate and five times as many steps."""
    slow = {"learning_rate": 1e-5, "decay": False, "steps": 20_000}
    yield study.wgan_gp(10.0, **slow)
    yield study.wgan_gp(0.1, updates=5, **slow)


METHODS = (*_ours(), *_with_momentum(), *_of_the_authors(), *_slow())


def run(
    *,
    n_seeds: int = SEEDS,
    steps: int | None = None,
    checkpoints: Path | None = None,
    progress: bool = True,
) -> StudyRecord:
    """Train and measure all methods on both targets.

    Args:
        n_seeds: seeds per method and target.
        steps: instead of each method's own, for a trial.
        checkpoints: folder where each method that is done is kept until the study is; a study that
            was stopped resumes there, if it is of the same settings, commit and versions.
        progress: show progress bars, and a line for each method and target.

    Returns:
        The record, not yet written.
    """
    begun = commit()  # what is edited while the study runs is not in it
    methods = [m if steps is None else replace(m, steps=steps) for m in METHODS]
    found = of_each(
        NAME,
        methods,
        lambda method: _measure(method, n_seeds, progress=progress),
        settings=settings(methods, n_seeds),
        begun=begun,
        checkpoints=checkpoints,
        progress=progress,
    )
    return StudyRecord(
        study=NAME,
        noise_floor=_references(study.noise_floor),
        saturation=_references(study.saturation),
        rows=[row for rows in found for row in rows],
        seed=0,
        seconds=round(sum(rows[0]["seconds_all_targets"] for rows in found), 1),
        cpu_seconds=round(sum(rows[0]["cpu_seconds_all_targets"] for rows in found), 1),
        settings=settings(methods, n_seeds),
        command=study_command(NAME, n_seeds, SEEDS, steps),
        commit=begun,
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
        "by": method.by,
        "updates": method.updates,
        "learning_rate": method.learning_rate,
        "decay": method.decay,
        "betas": list(method.betas),
        "average": method.average,
        "steps": method.steps,
    }


def _references(of: Callable[..., study.Score]) -> dict[str, dict[str, float]]:
    return {t.name: asdict(of(t, repetitions=REPETITIONS)) for t in TARGETS}


def _measure(method: study.Method, n_seeds: int, *, progress: bool) -> list[dict]:
    """Train one method and return one row per target."""
    started, cpu_started = time.perf_counter(), time.process_time()
    trained = study.train(method, TARGETS, n_seeds=n_seeds, progress=progress)
    seconds, cpu_seconds = time.perf_counter() - started, time.process_time() - cpu_started
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
                "cpu_seconds_all_targets": round(cpu_seconds, 1),
            }
        )
        if progress:
            print(
                f"{method.name}, {method.updates} updates, rate {method.learning_rate:g}"
                f"{' decaying' if method.decay else ''}, {method.steps} steps, {target.name}: "
                f"KL {histogram[i].mean():.4f} (worst {histogram[i].max():.4f}), "
                f"by kernel {kernel[i].mean():.4f}, {cpu_seconds:.0f} CPU s",
                flush=True,
            )
    return rows
