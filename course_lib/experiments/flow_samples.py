"""The recorded study of flow matching's samples: what they score, by number of evaluations and by coupling.

The flow is that of a recipe. Beside it stand the same flow trained on noise that is paired with the examples
of each batch, the flow of one reflow, and average velocities (MeanFlow) with the settings of its authors. For
each way of sampling several draws of as many images as there are test images are compared with these, as in
`course_lib.experiments.diffusion_samplers`. About ten minutes of one core, most of them for training.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path

import torch
from torch import Tensor, nn

from course_lib.data import Dataset, load
from course_lib.experiments.diffusion_samplers import Judge, judged
from course_lib.experiments.parts import of_each, study_command
from course_lib.experiments.records import StudyRecord, commit
from course_lib.experiments.running import accelerator_or_cpu, plan
from course_lib.family import Recipe
from course_lib.flow_matching import (
    FlowMatching,
    MeanFlow,
    MeanFlowLoss,
    VelocityFlow,
    reflow_pairs,
)
from course_lib.precision import float32_products
from course_lib.training import Loss, cosine_decay, fit

NAME = "flow_samples"
DATA, BUDGET, SEED = "digits", "60s", 0
DRAWS = 6
PAIRS, PAIR_STEPS = 8000, 10  # of reflow; steps of the midpoint method for each pair
REFLOW_STEPS, MEAN_FLOW_STEPS = 2500, 2500
NETWORK = {"channels": 32, "n_blocks": 3}
# The share of intervals, mean and deviation of the logits of the times, and the weight's power: those of the
# authors for ImageNet and for CIFAR-10 (Geng et al., 2025).
MEAN_FLOWS = {
    "MeanFlow, as for ImageNet": {"share": 0.25, "mean": -0.4, "deviation": 1.0, "power": 1.0},
    "MeanFlow, as for CIFAR-10": {"share": 0.75, "mean": -2.0, "deviation": 2.0, "power": 0.75},
}


@dataclass(frozen=True)
class Sampling:
    """How images are drawn.

    Attributes:
        method: what was trained, as in tables.
        solver: ``"euler"`` or ``"midpoint"``; steps of average velocities count as Euler's.
        steps: of the solver.
    """

    method: str
    solver: str
    steps: int

    @property
    def evaluations(self) -> int:
        """Passes of the network for each image."""
        return self.steps * (2 if self.solver == "midpoint" else 1)


METHODS = (
    *(Sampling("independent pairs", "euler", n) for n in (1, 2, 4, 8, 16, 32)),
    *(Sampling("independent pairs", "midpoint", n) for n in (1, 2, 4, 8, 16)),
    *(Sampling("optimal pairs of batches", "euler", n) for n in (1, 2, 4, 8, 16, 32)),
    *(Sampling("optimal pairs of batches", "midpoint", n) for n in (1, 2, 4, 8, 16)),
    *(Sampling("reflow", "euler", n) for n in (1, 2, 4)),
    *(Sampling(name, "euler", n) for name in MEAN_FLOWS for n in (1, 2, 4)),
)


class Models:
    """The trained models, each trained when it is first asked for.

    Args:
        data: the data set.
        recipe: of the flow.
        steps: of every training, instead of its own, for a trial.
        checkpoints: folder of their checkpoints.
        progress: show progress bars.
    """

    def __init__(
        self,
        data: Dataset,
        recipe: Recipe,
        *,
        steps: int | None = None,
        checkpoints: Path | None = None,
        progress: bool = True,
    ) -> None:
        self.data, self.recipe, self.steps = data, recipe, steps
        self.checkpoints, self.progress = checkpoints, progress
        self.get = cache(self._get)

    def _get(self, method: str) -> nn.Module:
        """The model of that name, in evaluation mode."""
        if method == "reflow":
            return self._reflow()
        if method in MEAN_FLOWS:
            loss = MeanFlowLoss(**MEAN_FLOWS[method])
            return self._fit(method, self._model(MeanFlow), loss, MEAN_FLOW_STEPS)
        coupling = "independent" if method == "independent pairs" else "optimal"
        model = self._model(VelocityFlow, **self.recipe.arguments)
        loss = FlowMatching(power=self.recipe.power, coupling=coupling)
        return self._fit(method, model, loss, self.recipe.steps)

    def _model(self, kind: type[nn.Module], **arguments: object) -> nn.Module:
        torch.manual_seed(SEED)
        levels = self.recipe.levels(self.data)
        model = kind(self.data.event_shape, levels, **(arguments or NETWORK))
        model.initialize(self.data.train)
        return model

    def _reflow(self) -> nn.Module:
        teacher = self.get("independent pairs")
        generator = torch.Generator(next(teacher.parameters()).device).manual_seed(SEED)
        pairs = reflow_pairs(teacher, PAIRS, steps=PAIR_STEPS, generator=generator)
        x, noise = (part.cpu() for part in pairs)
        held_out = PAIRS // 10
        model = self._model(VelocityFlow)
        return self._fit(
            "reflow",
            model,
            FlowMatching(power=1.0, given_noise=True),
            REFLOW_STEPS,
            (x[held_out:], noise[held_out:]),
            (x[:held_out], noise[:held_out]),
        )

    def _fit(
        self,
        name: str,
        model: nn.Module,
        loss: Loss,
        steps: int,
        train: Tensor | tuple[Tensor, ...] | None = None,
        validation: Tensor | tuple[Tensor, ...] | None = None,
    ) -> nn.Module:
        steps = steps if self.steps is None else self.steps
        checkpoint = None
        if self.checkpoints is not None:
            trial = "" if self.steps is None else f"-{steps}steps"
            checkpoint = self.checkpoints / f"{NAME}-{name.replace(' ', '-')}{trial}.pt"
        evaluate_every = max(1, steps // self.recipe.evaluations)
        fit(
            model,
            loss,
            self.data.train if train is None else train,
            validation=self.data.validation if validation is None else validation,
            steps=steps,
            batch_size=self.recipe.batch_size,
            learning_rate=self.recipe.learning_rate,
            schedule=cosine_decay,
            ema=self.recipe.ema,
            evaluate_every=evaluate_every,
            checkpoint=checkpoint,
            checkpoint_every=evaluate_every,
            seed=SEED,
            progress=self.progress,
        )
        return model.to(accelerator_or_cpu()).eval()


def run(
    *,
    n_seeds: int = DRAWS,
    steps: int | None = None,
    checkpoints: Path | None = None,
    progress: bool = True,
) -> StudyRecord:
    """Train the models, unless they are trained, draw from each in every way, and measure.

    Args:
        n_seeds: draws for each way of sampling.
        steps: of every training, instead of its own, for a trial.
        checkpoints: folder of the models' checkpoints, and of each way that is done.
        progress: show progress bars, and a line for each way.

    Returns:
        The record, not yet written. The time of a row is that of drawing and measuring, and of the training
        that it was the first to need.
    """
    begun = commit()  # what is edited while the study runs is not in it
    budget, recipe = plan("VelocityFlow", DATA, BUDGET, steps)
    data = load(DATA)
    models = Models(data, recipe, steps=steps, checkpoints=checkpoints, progress=progress)
    judge = Judge(data)
    with float32_products("ieee"):
        found = of_each(
            NAME,
            METHODS,
            lambda sampling: [_measure(sampling, models.get, judge, n_seeds, progress=progress)],
            settings=settings(METHODS, n_seeds, budget),
            begun=begun,
            checkpoints=checkpoints,
            progress=progress,
        )
    command = study_command(NAME, n_seeds, DRAWS, steps)
    return judged(NAME, found, judge, settings(METHODS, n_seeds, budget), command, begun)


def settings(
    methods: Sequence[Sampling] = METHODS, n_seeds: int = DRAWS, budget: str = BUDGET
) -> dict:
    """All that defines the study, as it is recorded."""
    return {
        "seeds": n_seeds,
        "targets": [DATA],
        "model": {"model": "VelocityFlow", "data": DATA, "budget": budget, "seed": SEED},
        "network": NETWORK,
        "reflow": {"pairs": PAIRS, "pair_steps": PAIR_STEPS, "steps": REFLOW_STEPS},
        "mean_flow": {"steps": MEAN_FLOW_STEPS, "losses": MEAN_FLOWS},
        "methods": [asdict(method) for method in methods],
    }


def _measure(
    sampling: Sampling,
    model_of: Callable[[str], nn.Module],
    judge: Judge,
    n_seeds: int,
    *,
    progress: bool,
) -> dict:
    """Draw in one way, and return its row."""
    started, cpu_started = time.perf_counter(), time.process_time()
    model = model_of(sampling.method)
    options = {} if isinstance(model, MeanFlow) else {"method": sampling.solver}
    scores = judge.of_samples(model, n_seeds, steps=sampling.steps, **options)
    row = {
        **asdict(sampling),
        "target": DATA,
        "evaluations": sampling.evaluations,
        **scores,
        "seconds_all_targets": round(time.perf_counter() - started, 1),
        "cpu_seconds_all_targets": round(time.process_time() - cpu_started, 1),
    }
    if progress:
        mean = sum(row["frechet"]) / n_seeds
        print(
            f"{sampling.method}, {sampling.evaluations} evaluations by {sampling.solver}: "
            f"Fréchet distance {mean:.3f}",
            flush=True,
        )
    return row
