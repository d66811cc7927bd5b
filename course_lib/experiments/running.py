"""Train one model by its recipe, and measure it once on the test split."""

import contextlib
import hashlib
import json
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

import torch
from torch import Tensor, nn

from course_lib.data import Dataset, binarize, intensities, load
from course_lib.evaluation import bits_per_dim, estimate
from course_lib.experiments.pictures import Stages, draw, write_pictures
from course_lib.experiments.recipes import find_recipe
from course_lib.experiments.records import Metric, Record
from course_lib.families import find_family
from course_lib.family import Recipe
from course_lib.precision import float32_products
from course_lib.randomness import seeded
from course_lib.training import History, cosine_decay, fit

# Every model of binary images is tested on this one binarization of the test set.
TEST_SEED = 2024


def run(
    model_name: str,
    data_name: str,
    *,
    budget: str | None = None,
    seed: int = 0,
    checkpoints: Path | None = None,
    pictures: Path | None = None,
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
        checkpoints: folder for checkpoints; a run that was stopped resumes from there, exactly.
        pictures: folder for pictures; see `course_lib.experiments.pictures`.
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
    checkpoint = None
    if checkpoints is not None:
        checkpoint = checkpoint_path(checkpoints, model_name, data_name, budget, seed, recipe)
    resumes = checkpoint is not None and checkpoint.exists()
    started = time.process_time()
    stages = Stages(data, recipe, checkpoint)
    model, history = train(
        model_name,
        data,
        recipe,
        callback=stages if recipe.stages and pictures is not None else None,
        seed=seed,
        checkpoint=checkpoint,
        progress=progress,
        devices=devices,
        num_nodes=num_nodes,
    )
    cpu_seconds = torch.tensor(time.process_time() - started)
    # `fit` has started other processes, or torchrun has.
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        cpu_seconds = cpu_seconds.to(next(model.parameters()).device)
        torch.distributed.all_reduce(cpu_seconds)
        if torch.distributed.get_rank() > 0:
            return None
    model.to(accelerator_or_cpu())  # training has brought the model back from there
    record = Record(
        model=model_name,
        data=data_name,
        budget=budget,
        protocol=recipe.protocol,
        metrics=measure(model, data, recipe, progress=progress),
        parameters=sum(p.numel() for p in model.parameters() if p.requires_grad),
        steps=recipe.steps,
        best_step=history.best_step,
        curves={split: _curve(history, split) for split in ("train", "validation")},
        seed=seed,
        seconds=history.train[-1]["seconds"],
        settings=asdict(recipe),
        command=command,
        cpu_seconds=None if resumes else round(cpu_seconds.item(), 1),
    )
    if pictures is None:
        return record
    test = images_of(data.test, data, recipe).to(next(model.parameters()).device)
    drawn = draw(model, data, recipe, test) | stages.pictures()
    return replace(record, pictures=write_pictures(drawn, pictures, record.name))


def _curve(history: History, split: str) -> list[list[float]]:
    """Pairs of step and loss."""
    return [
        [step, round(loss, 4)] for step, loss in zip(*history.curve("loss", split), strict=True)
    ]


def train(
    model_name: str,
    data: Dataset,
    recipe: Recipe,
    *,
    seed: int = 0,
    checkpoint: Path | None = None,
    callback: Callable[[int, nn.Module], None] | None = None,
    progress: bool = True,
    devices: int | str = 1,
    num_nodes: int = 1,
) -> tuple[nn.Module, History]:
    """The model of a recipe, trained, and how its training went; arguments as in `run`.

    Args:
        model_name: name of the model.
        data: the data set.
        recipe: how the model is built and trained.
        seed: of weights, order of the data and noise.
        checkpoint: file of the run; of a finished one nothing is trained.
        callback: as in `course_lib.training.fit`.
        progress: show a progress bar.
        devices: processes on this node.
        num_nodes: number of nodes.
    """
    torch.manual_seed(seed)
    model = build(model_name, data, recipe)
    history = fit(
        model,
        recipe.loss(),
        data.train,
        validation=data.validation[: recipe.validation_examples],
        steps=recipe.steps,
        batch_size=recipe.batch_size,
        learning_rate=recipe.learning_rate,
        schedule=cosine_decay,
        transform=transform_of(data, recipe),
        ema=recipe.ema,
        evaluate_every=recipe.evaluate_every,
        checkpoint=checkpoint,
        checkpoint_every=recipe.evaluate_every,
        callback=callback,
        seed=seed,
        precision=recipe.precision,
        devices=devices,
        num_nodes=num_nodes,
        progress=progress,
    )
    return model, history


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
    """The file of a run's checkpoint: other settings are another run, and must not resume from it."""
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
    """The untrained model of a recipe.

    Raises:
        ValueError: there is no such family, or it has no such model.
    """
    model = recipe.build(find_family(recipe.family).model(name), data)
    return model.to(memory_format=torch.channels_last) if recipe.channels_last else model


def transform_of(
    data: Dataset, recipe: Recipe
) -> Callable[[Tensor, torch.Generator], Tensor] | None:
    """What is done to each batch of a recipe, for `course_lib.training.fit`."""
    if not recipe.binary:
        return None

    def draw(batch: Tensor, generator: torch.Generator | None) -> Tensor:
        return binarize(intensities(batch, data.levels), generator=generator).to(
            recipe.binary_dtype
        )

    return draw


def images_of(images: Tensor, data: Dataset, recipe: Recipe) -> Tensor:
    """Test images as the recipe has them: binarized once and for all, or as they are."""
    transform = transform_of(data, recipe)
    if transform is None:
        return images
    return transform(images, torch.Generator().manual_seed(TEST_SEED))


@torch.no_grad()
def measure(
    model: nn.Module, data: Dataset, recipe: Recipe, *, progress: bool = False
) -> dict[str, Metric]:
    """The metrics of a trained model on the whole test split, in float32.

    Args:
        model: in evaluation mode.
        data: whose test split is read, once.
        recipe: says how, and which protocol.
        progress: show a progress bar.

    Returns:
        By name; the first is the model's score.
    """
    device = next(model.parameters()).device
    test, shape = images_of(data.test, data, recipe).to(device), data.event_shape
    with seeded(TEST_SEED, device), float32_products("ieee"):
        values = recipe.measure(model, test, progress=progress)
    unit = "nats" if recipe.binary else "bits/dim"
    metrics = {}
    for name, nats in values.items():
        result = estimate(nats if recipe.binary else bits_per_dim(-nats, shape))
        metrics[name] = Metric(
            round(result.mean, 4), round(result.standard_error, 4), unit, result.n
        )
    return metrics
