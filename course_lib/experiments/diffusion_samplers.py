"""The recorded study of samplers: what samples of one diffusion model score, by sampler and number of steps.

The model is that of a recipe, and is not trained again where its checkpoint is. For every sampler several
draws of as many images as there are test images are compared with these, by the features of a classifier.
Beside them stand what equally many training images score, and what images of noise score. About ten minutes
of one core, and the training.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from course_lib.classifier import Classifier, train_classifier
from course_lib.data import Dataset, intensities, load
from course_lib.evaluation import frechet_distance, nearest_neighbours, precision_recall
from course_lib.experiments.parts import of_each, study_command
from course_lib.experiments.records import StudyRecord, commit
from course_lib.experiments.running import accelerator_or_cpu, checkpoint_path, plan, train
from course_lib.precision import float32_products

NAME = "diffusion_samplers"
MODEL, DATA, BUDGET, SEED = "Diffusion", "digits", "300s", 0
DRAWS = 6
REAL_DRAWS = 30
MEASURES = ("frechet", "precision", "coverage", "nearest")


@dataclass(frozen=True)
class Sampler:
    """How images are drawn.

    Attributes:
        method: its name in tables.
        steps: of the sampler.
        options: of `Diffusion.sample`, beside the number of steps.
    """

    method: str
    steps: int
    options: dict

    @property
    def evaluations(self) -> int:
        """Passes of the network for each image: those of the steps, and one that gives the grey levels."""
        return self.steps * (2 if self.method == "Heun" else 1) + 1


METHODS = (
    *(Sampler("ancestral", steps, {"eta": 1.0}) for steps in (3, 7, 19, 49, 99)),
    *(Sampler("DDIM", steps, {"eta": 0.0}) for steps in (3, 7, 19, 49)),
    *(Sampler("Heun", steps, {"method": "heun"}) for steps in (1, 3, 9, 24)),
)


class Judge:
    """What a set of images scores against the test images.

    Args:
        data: the data set.
    """

    def __init__(self, data: Dataset) -> None:
        self.data = data
        self.classifier: Classifier = train_classifier(data)
        self.train = intensities(data.train, data.levels)
        self.test = intensities(data.test, data.levels)
        self.features = self.classifier.features(self.test)

    def __call__(self, x: Tensor) -> dict[str, float]:
        """The `MEASURES` of grey levels, shape ``(N, *event_shape)``."""
        images = intensities(x.cpu(), self.data.levels)
        features = self.classifier.features(images)
        spread = precision_recall(self.features, features)
        return {
            "frechet": frechet_distance(features, self.features).item(),
            "precision": spread.precision,
            "coverage": spread.coverage,
            "nearest": nearest_neighbours(images, self.train)[0].mean().item(),
        }

    def of_samples(
        self,
        model: nn.Module,
        draws: int,
        levels: Callable[[Tensor], Tensor] = lambda x: x,
        **options: object,
    ) -> dict[str, list[float]]:
        """The `MEASURES` of several draws from a model, each as large as the test set: a list for each.

        Args:
            model: from which is drawn.
            draws: how many; the k-th from seed k.
            levels: makes grey levels of what ``model.sample`` returns.
            options: of ``model.sample``.
        """
        device = next(model.parameters()).device
        scores = []
        for seed in range(draws):
            generator = torch.Generator(device).manual_seed(seed)
            scores.append(
                self(levels(model.sample(len(self.test), generator=generator, **options)))
            )
        return {name: [score[name] for score in scores] for name in MEASURES}

    def of_training_images(self, draws: int) -> dict[str, float]:
        """Means over subsets of the training images, with spreads; "nearest" is of the test images."""
        generator = torch.Generator().manual_seed(0)
        scores = []
        for _ in range(draws):
            order = torch.randperm(len(self.data.train), generator=generator)
            scores.append(self(self.data.train[order[: len(self.test)]]))
        found = {}
        for name in MEASURES[:-1]:
            values = torch.tensor([score[name] for score in scores], dtype=torch.float64)
            found |= {name: values.mean().item(), f"{name}_spread": values.std().item()}
        nearest = nearest_neighbours(self.test, self.train)[0]
        return {**found, "nearest": nearest.mean().item()}

    def of_noise(self) -> dict[str, float]:
        """Of grey levels that are drawn uniformly."""
        generator = torch.Generator().manual_seed(0)
        return self(torch.randint(self.data.levels, self.data.test.shape, generator=generator))


def run(
    *,
    n_seeds: int = DRAWS,
    steps: int | None = None,
    checkpoints: Path | None = None,
    progress: bool = True,
) -> StudyRecord:
    """Train the model, unless it is trained, draw from it with every sampler, and measure.

    Args:
        n_seeds: draws for each sampler.
        steps: of the training, instead of the recipe's, for a trial.
        checkpoints: folder of the model's checkpoint, and of each sampler that is done.
        progress: show progress bars, and a line for each sampler.

    Returns:
        The record, not yet written. Its time is that of drawing and measuring; the time of the training is in
        the record of the recipe.
    """
    begun = commit()  # what is edited while the study runs is not in it
    budget, recipe = plan(MODEL, DATA, BUDGET, steps)
    checkpoint = None
    if checkpoints is not None:
        checkpoint = checkpoint_path(checkpoints, MODEL, DATA, budget, SEED, recipe)
    data = load(DATA)
    model, _ = train(MODEL, data, recipe, seed=SEED, checkpoint=checkpoint, progress=progress)
    model.to(accelerator_or_cpu())
    judge = Judge(data)
    with float32_products("ieee"):
        found = of_each(
            NAME,
            METHODS,
            lambda sampler: [_measure(sampler, model, judge, n_seeds, progress=progress)],
            settings=settings(METHODS, n_seeds, budget),
            begun=begun,
            checkpoints=checkpoints,
            progress=progress,
        )
    command = study_command(NAME, n_seeds, DRAWS, steps)
    return judged(NAME, found, judge, settings(METHODS, n_seeds, budget), command, begun)


def judged(
    name: str, found: Sequence, judge: Judge, settings: dict, command: str, begun: str
) -> StudyRecord:
    """The record of a study of samples: what was found, beside what real images and noise score.

    Args:
        name: of the study.
        found: for each method, what `of_each` returns: one row.
        judge: of the samples.
        settings: all that defines the study.
        command: what to type to repeat it.
        begun: the commit at which it began.
    """
    rows = [row for (row,) in found]
    return StudyRecord(
        study=name,
        noise_floor={DATA: judge.of_training_images(REAL_DRAWS)},
        saturation={DATA: judge.of_noise()},
        rows=rows,
        seed=SEED,
        seconds=round(sum(row["seconds_all_targets"] for row in rows), 1),
        cpu_seconds=round(sum(row["cpu_seconds_all_targets"] for row in rows), 1),
        settings=settings,
        command=command,
        commit=begun,
    )


def settings(
    methods: Sequence[Sampler] = METHODS, n_seeds: int = DRAWS, budget: str = BUDGET
) -> dict:
    """All that defines the study, as it is recorded."""
    return {
        "seeds": n_seeds,
        "targets": [DATA],
        "model": {"model": MODEL, "data": DATA, "budget": budget, "seed": SEED},
        "real_draws": REAL_DRAWS,
        "methods": [asdict(method) for method in methods],
    }


def _measure(
    sampler: Sampler, model: nn.Module, judge: Judge, n_seeds: int, *, progress: bool
) -> dict:
    """Draw with one sampler, and return its row."""
    started, cpu_started = time.perf_counter(), time.process_time()
    scores = judge.of_samples(model, n_seeds, steps=sampler.steps, **sampler.options)
    row = {
        **asdict(sampler),
        "target": DATA,
        "evaluations": sampler.evaluations,
        **scores,
        "seconds_all_targets": round(time.perf_counter() - started, 1),
        "cpu_seconds_all_targets": round(time.process_time() - cpu_started, 1),
    }
    if progress:
        mean = sum(row["frechet"]) / n_seeds
        print(f"{sampler.method}, {sampler.steps} steps: Fréchet distance {mean:.3f}", flush=True)
    return row
