"""Train one model by its recipe, and measure it once on the test split."""

import contextlib
import hashlib
import json
import math
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

import torch
from torch import Tensor, nn

from course_lib import autoregressive, flow, vae
from course_lib.data import Dataset, binarize, intensities, load
from course_lib.evaluation import bits_per_dim, estimate
from course_lib.experiments.recipes import Recipe, find_recipe
from course_lib.experiments.records import Metric, Record
from course_lib.precision import float32_products
from course_lib.progress import progress_bar
from course_lib.randomness import seeded
from course_lib.training import cosine_decay, fit, negative_log_likelihood

# Every model of binary images is tested on this one binarization of the test set.
TEST_SEED = 2024
IWAE_SAMPLES = 500


def run(
    model_name: str,
    data_name: str,
    *,
    budget: str | None = None,
    seed: int = 0,
    checkpoints: Path | None = None,
    progress: bool = True,
    devices: int | str = 1,
    num_nodes: int = 1,
    steps: int | None = None,
) -> Record | None:
    """Train and measure.

    Args:
        model_name: name of the model.
        data_name: ``"digits"`` or ``"mnist"``.
        budget: which recipe; the first if None.
        seed: of weights, order of the data and noise.
        checkpoints: folder for checkpoints; a run that was stopped goes on from there, exactly.
        progress: show progress bars.
        devices: processes on this node, as in `course_lib.training.fit`.
        num_nodes: number of nodes.
        steps: instead of the recipe's, for a trial; the budget's name then says so.

    Returns:
        The record, not yet written; None in all processes but the first, which measures for all.

    Raises:
        ValueError: there is no such recipe.
        course_lib.training.TrainingError: training failed; see there.
    """
    recorded, _ = find_recipe(data_name, model_name, budget)
    command = f"course-lib train {model_name} --data {data_name} --budget {recorded} --seed {seed}"
    if devices != 1:
        command += f" --devices {devices}"
    if steps is not None:
        command += f" --steps {steps}"
    budget, recipe = plan(model_name, data_name, budget, steps)
    data = load(data_name)
    torch.manual_seed(seed)
    model = build(model_name, data, recipe)
    checkpoint = None
    if checkpoints is not None:
        checkpoint = checkpoint_path(checkpoints, model_name, data_name, budget, seed, recipe)
    resumes = checkpoint is not None and checkpoint.exists()
    started = time.process_time()
    every = max(1, recipe.steps // recipe.evaluations)
    history = fit(
        model,
        loss_of(recipe),
        data.train,
        validation=data.validation[: recipe.validation_examples],
        steps=recipe.steps,
        batch_size=recipe.batch_size,
        learning_rate=recipe.learning_rate,
        schedule=cosine_decay,
        transform=transform_of(data, recipe),
        ema=recipe.ema,
        evaluate_every=every,
        checkpoint=checkpoint,
        checkpoint_every=every,
        seed=seed,
        precision=recipe.precision,
        devices=devices,
        num_nodes=num_nodes,
        progress=progress,
    )
    cpu_seconds = torch.tensor(time.process_time() - started)
    # `fit` has started other processes, or torchrun has.
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        cpu_seconds = cpu_seconds.to(next(model.parameters()).device)
        torch.distributed.all_reduce(cpu_seconds)
        if torch.distributed.get_rank() > 0:
            return None
    model.to(accelerator_or_cpu())  # training has brought the model back from there
    return Record(
        model=model_name,
        data=data_name,
        budget=budget,
        protocol=recipe.protocol,
        metrics=measure(model, data, recipe, progress=progress),
        parameters=sum(p.numel() for p in model.parameters() if p.requires_grad),
        steps=recipe.steps,
        best_step=history.best_step,
        seed=seed,
        seconds=history.train[-1]["seconds"],
        settings=asdict(recipe),
        command=command,
        cpu_seconds=None if resumes else round(cpu_seconds.item(), 1),
    )


def accelerator_or_cpu() -> torch.device:
    """Where there is a GPU, it. A PyTorch that was built for one names it on any machine."""
    if torch.accelerator.is_available():
        return torch.accelerator.current_accelerator()
    return torch.device("cpu")


def plan(
    model_name: str, data_name: str, budget: str | None, steps: int | None = None
) -> tuple[str, Recipe]:
    """The name of the budget and the recipe of a run; those of a trial if `steps` is given.

    Raises:
        ValueError: there is no such recipe.
    """
    budget, recipe = find_recipe(data_name, model_name, budget)
    if steps is None:
        return budget, recipe
    return f"{budget}-{steps}steps", replace(recipe, steps=steps)


def checkpoint_path(
    folder: Path, model_name: str, data_name: str, budget: str, seed: int, recipe: Recipe
) -> Path:
    """The file of a run's checkpoint: other settings are another run, and must not go on from it."""
    settings = json.dumps(asdict(recipe), sort_keys=True)
    digest = hashlib.sha256(settings.encode()).hexdigest()[:8]
    return folder / f"{data_name}-{model_name}-{budget}-seed{seed}-{digest}.pt"


def is_finished(checkpoint: Path, recipe: Recipe) -> bool:
    """Whether a checkpoint holds the last step; one that cannot be read is left to `fit` to name."""
    with contextlib.suppress(Exception):
        # Mapped: of a large file only what is asked for is read.
        return torch.load(checkpoint, map_location="cpu", mmap=True)["step"] == recipe.steps
    return False


def build(name: str, data: Dataset, recipe: Recipe) -> nn.Module:
    """The untrained model of a recipe."""
    levels = 2 if recipe.binary else data.levels
    shape = data.event_shape
    if recipe.family == "vae":
        model = getattr(vae, name)(shape, **recipe.arguments)
    elif recipe.family == "autoregressive":
        model = getattr(autoregressive, name)(shape, levels, **recipe.arguments)
    else:
        dequantizer = (
            flow.VariationalDequantizer(shape, dropout=recipe.arguments.get("dropout", 0.0))
            if recipe.variational_dequantization
            else None
        )
        model = flow.DequantizedFlow(
            getattr(flow, name)(shape, **recipe.arguments), levels, dequantizer
        )
        with torch.no_grad():  # activation normalization starts from data
            first = data.train[:2000]
            model.flow.initialize(model.dequantizer(first, levels)[0])
    return model.to(memory_format=torch.channels_last) if recipe.channels_last else model


def loss_of(recipe: Recipe) -> Callable:
    """The loss of a recipe, for `course_lib.training.fit`."""
    if recipe.family == "vae":
        if recipe.iwae_samples > 1:
            return vae.NegativeIWAEBound(recipe.iwae_samples)
        return vae.NegativeELBO(warm_up=recipe.warm_up)
    if recipe.arguments.get("n_orderings", 1) > 1:
        return autoregressive.one_ordering_loss
    if recipe.family == "autoregressive":
        return negative_log_likelihood
    return flow.negative_dequantization_bound


def transform_of(
    data: Dataset, recipe: Recipe
) -> Callable[[Tensor, torch.Generator], Tensor] | None:
    """What is done to each batch of a recipe, for `course_lib.training.fit`."""
    if not recipe.binary:
        return None
    dtype = torch.float32 if recipe.family == "vae" else torch.int64

    def draw(batch: Tensor, generator: torch.Generator | None) -> Tensor:
        return binarize(intensities(batch, data.levels), generator=generator).to(dtype)

    return draw


@torch.no_grad()
def measure(
    model: nn.Module, data: Dataset, recipe: Recipe, *, progress: bool = False
) -> dict[str, Metric]:
    """The metrics of a trained model on the whole test split, in float32.

    Args:
        model: in evaluation mode.
        data: whose test split is read, once.
        recipe: says the family and the protocol.
        progress: show a progress bar.

    Returns:
        By name; the first is the model's score.
    """
    test = data.test
    if recipe.binary:
        test = transform_of(data, recipe)(test, torch.Generator().manual_seed(TEST_SEED))
    device = next(model.parameters()).device
    test, shape = test.to(device), data.event_shape
    with seeded(TEST_SEED, device), float32_products("ieee"):
        if recipe.family == "vae":
            log_p = vae.log_likelihood(model, test, IWAE_SAMPLES, progress=progress)
            elbo = torch.cat([model.elbo(part, 10) for part in test.split(500)])
            values = {f"iwae_{IWAE_SAMPLES}": -log_p, "negative_elbo": -elbo}
        elif recipe.family == "autoregressive":
            parts = progress_bar(show=progress, iterable=test.split(500), desc="test images")
            log_p = torch.cat([model.log_prob(part) for part in parts])
            values = {"negative_log_likelihood": -log_p}
        else:
            k = recipe.dequantization_samples
            draws = progress_bar(show=progress, iterable=range(k), desc="draws of the noise")
            # Both bounds from the same draws: the mean of the log weights, the log of their mean.
            weights = torch.stack(
                [torch.cat([model.weight(part) for part in test.split(500)]) for _ in draws]
            )
            values = {
                "dequantization_bound": -weights.mean(0),
                f"importance_{k}": math.log(k) - weights.logsumexp(0),
            }
    unit = "nats" if recipe.binary else "bits/dim"
    metrics = {}
    for name, nats in values.items():
        result = estimate(nats if recipe.binary else bits_per_dim(-nats, shape))
        metrics[name] = Metric(
            round(result.mean, 4), round(result.standard_error, 4), unit, result.n
        )
    return metrics
