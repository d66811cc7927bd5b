"""The recorded study of the source's GAN on MNIST: its recipe as it stands, and with the penalty on data.

The recipe is that of the notes that this course grew from: two multilayer perceptrons, batch normalization in
the generator, one-sided label smoothing. Both games differ in the penalty alone. Each is trained once. Of its
last weights several draws of as many images as there are test images are compared with these, by the
features of a classifier; beside them stand what equally many training images score, and what images of noise
score. About forty minutes of one core. Training writes checkpoints, and resumes from them.
"""

import hashlib
import json
import math
import shutil
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from itertools import pairwise
from pathlib import Path

import torch
from torch import Tensor, nn

from course_lib.data import Dataset, intensities, load
from course_lib.experiments.diffusion_samplers import Judge
from course_lib.experiments.parts import of_each, study_command
from course_lib.experiments.pictures import Stages, draw, write_pictures
from course_lib.experiments.records import StudyRecord, commit, versions
from course_lib.family import PICTURED
from course_lib.gan import GAN, Discriminator, Generator, players, r1_penalty
from course_lib.interpolation import spherical_path
from course_lib.precision import float32_products
from course_lib.training import History, fit

NAME = "gan_source"
DATA, SEED = "mnist", 0
DRAWS, REAL_DRAWS = 3, 3
TERMS = (
    "discriminator/loss",
    "discriminator/real",
    "discriminator/fake",
    "generator/loss",
)


@dataclass(frozen=True)
class Method:
    """One of the games, with all that defines it; it is drawn as a recipe is.

    Attributes:
        method: its name in tables.
        key: its name in those of files.
        gamma: weight γ of the penalty on data, ``eq-r1``; None without one.
        steps: each of one update of either player.
        batch_size: examples per update.
        learning_rate: of both players' Adam; it does not fall.
        betas: of both players' Adam: its own defaults.
        real_label: the discriminator's target for real images.
        latent_dim: number of dimensions of the noise.
        generator: widths of the generator's hidden layers.
        discriminator: widths of the discriminator's hidden layers.
        evaluations: how often losses are recorded and checkpoints written.
    """

    method: str
    key: str
    gamma: float | None
    steps: int = 25_000
    batch_size: int = 64
    learning_rate: float = 2e-4
    betas: tuple[float, float] = (0.9, 0.999)
    real_label: float = 0.9
    latent_dim: int = 100
    generator: tuple[int, ...] = (128, 256, 512, 1024)
    discriminator: tuple[int, ...] = (512, 256)
    evaluations: int = 40

    # Shares of training at which samples are drawn beside those of the end.
    stages = (0.0, 0.5)

    @property
    def evaluate_every(self) -> int:
        """Steps between two evaluations."""
        return max(1, self.steps // self.evaluations)

    def build(self, data: Dataset) -> GAN:
        """The untrained networks."""
        generator = TanhGenerator(data.event_shape, self.latent_dim, self.generator)
        return GAN(generator, Discriminator(data.event_shape, self.discriminator))

    def samples(self, model: GAN, n: int, generator: torch.Generator) -> Tensor:
        """Samples to look at, in [−1, 1]."""
        return model.sample(n, generator=generator)

    def intensities(self, x: Tensor, data: Dataset) -> Tensor:
        """Images in [−1, 1] as intensities in [0, 1]."""
        return (x + 1) / 2

    def pictures(self, model: GAN, test: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
        """Paths from one draw of the noise to another, along great circles."""
        rows = 4
        noise = torch.randn(2 * rows, self.latent_dim, device=test.device, generator=generator)
        path = spherical_path(*noise.split(rows), PICTURED).flatten(0, 1)
        return {"interpolations": model(path).unflatten(0, (rows, PICTURED))}


class TanhGenerator(Generator):
    """The source's generator of images in [−1, 1].

    Between its affine maps stand leaky rectifiers, and batch normalization before all of them but the
    first. In training each image depends on the rest of its batch; in evaluation, as in `sample`, on running
    averages of means and variances.

    Args:
        event_shape: shape of one image.
        latent_dim: number of dimensions of the noise.
        hidden: width of each hidden layer.
    """

    def __init__(self, event_shape: Sequence[int], latent_dim: int, hidden: Sequence[int]) -> None:
        super().__init__(event_shape, latent_dim, hidden, bounded=False)
        layers: list[nn.Module] = []
        for i, (width_in, width_out) in enumerate(pairwise((latent_dim, *hidden))):
            layers.append(nn.Linear(width_in, width_out))
            if i > 0:
                layers.append(nn.BatchNorm1d(width_out))
            layers.append(nn.LeakyReLU(0.2))
        outputs = nn.Linear(hidden[-1], math.prod(self.event_shape))
        self.network = nn.Sequential(*layers, outputs, nn.Tanh())


METHODS = (
    Method("as in the source", "plain", None),
    Method("with the penalty on data, γ = 10", "penalty", 10.0),
)


def run(
    *,
    n_seeds: int = DRAWS,
    steps: int | None = None,
    checkpoints: Path | None = None,
    pictures: Path | None = None,
    progress: bool = True,
) -> StudyRecord:
    """Train both games, draw from them, and measure.

    Args:
        n_seeds: draws of each generator.
        steps: instead of the recipe's, for a trial.
        checkpoints: folder of the checkpoints of what is not done, and of the rows of what is.
        pictures: folder for pictures; see `course_lib.experiments.pictures`. None for none.
        progress: show progress bars.

    Returns:
        The record, not yet written. Its time is that of training.
    """
    begun = commit()  # what is edited while the study runs is not in it
    methods = [m if steps is None else replace(m, steps=steps) for m in METHODS]
    described = settings(methods, n_seeds)
    folder = None
    if checkpoints is not None:
        same = json.dumps([described, begun, versions()], sort_keys=True)
        digest = hashlib.sha256(same.encode()).hexdigest()[:8]
        folder = checkpoints / f"{NAME}-training-{digest}"
        folder.mkdir(parents=True, exist_ok=True)
    data = load(DATA)
    judge = Judge(data)
    found = of_each(
        NAME,
        methods,
        lambda method: [_measure(method, data, judge, n_seeds, folder, pictures, progress)],
        settings=described,
        begun=begun,
        checkpoints=checkpoints,
        progress=progress,
    )
    if folder is not None:
        shutil.rmtree(folder)
    rows = [row for (row,) in found]
    resumed = any(row["cpu_seconds_all_targets"] is None for row in rows)
    return StudyRecord(
        study=NAME,
        noise_floor={DATA: judge.of_training_images(REAL_DRAWS)},
        saturation={DATA: judge.of_noise()},
        rows=rows,
        seed=SEED,
        seconds=round(sum(row["seconds_all_targets"] for row in rows), 1),
        cpu_seconds=None
        if resumed
        else round(sum(row["cpu_seconds_all_targets"] for row in rows), 1),
        settings=described,
        command=study_command(NAME, n_seeds, DRAWS, steps),
        commit=begun,
        pictures={name: digest for row in rows for name, digest in row["pictures"].items()},
    )


def settings(methods: Sequence[Method] = METHODS, n_seeds: int = DRAWS) -> dict:
    """All that defines the study, as it is recorded."""
    return {
        "seeds": n_seeds,
        "targets": [DATA],
        "real_draws": REAL_DRAWS,
        "methods": [asdict(method) for method in methods],
    }


def train(
    method: Method,
    data: Dataset,
    *,
    checkpoint: Path | None = None,
    stages: Stages | None = None,
    progress: bool = False,
) -> tuple[GAN, History]:
    """The networks of one game, trained, and how their training went.

    Args:
        method: the game.
        data: the data set, of grey levels.
        checkpoint: file of the run.
        stages: draws samples on the way.
        progress: show a progress bar.
    """
    torch.manual_seed(SEED)
    model = method.build(data)

    def penalty(discriminator: nn.Module, real: Tensor, fake: Tensor) -> Tensor:
        return r1_penalty(discriminator, real, gamma=method.gamma)

    history = fit(
        model,
        players(
            penalty=None if method.gamma is None else penalty,
            real_label=method.real_label,
            optimizer=partial(torch.optim.Adam, betas=method.betas, fused=True),
        ),
        2 * intensities(data.train, data.levels) - 1,
        steps=method.steps,
        batch_size=method.batch_size,
        learning_rate=method.learning_rate,
        evaluate_every=method.evaluate_every,
        checkpoint=checkpoint,
        checkpoint_every=method.evaluate_every,
        callback=stages,
        seed=SEED,
        progress=progress,
    )
    return model.eval(), history


def _measure(
    method: Method,
    data: Dataset,
    judge: Judge,
    n_seeds: int,
    folder: Path | None,
    pictures: Path | None,
    progress: bool,
) -> dict:
    """Train one game, draw from its generator, and return its row."""
    checkpoint = None if folder is None else folder / f"{method.key}.pt"
    resumes = checkpoint is not None and checkpoint.exists()
    stages = Stages(data, method, checkpoint)
    cpu_started = time.process_time()
    model, history = train(
        method,
        data,
        checkpoint=checkpoint,
        stages=stages if pictures is not None else None,
        progress=progress,
    )
    cpu_seconds = None if resumes else round(time.process_time() - cpu_started, 1)

    def levels(x: Tensor) -> Tensor:
        """As 8-bit images, which the real ones are."""
        return (method.intensities(x, data) * (data.levels - 1)).round().long()

    with float32_products("ieee"):
        scores = judge.of_samples(model, n_seeds, levels)
    row = {
        **asdict(method),
        "target": DATA,
        **scores,
        "parameters": sum(p.numel() for p in model.parameters()),
        "curves": {term: _curve(history, term) for term in TERMS},
        "pictures": {},
        "seconds_all_targets": round(history.train[-1]["seconds"], 1),
        "cpu_seconds_all_targets": cpu_seconds,
    }
    if pictures is not None:
        test = data.test.to(next(model.parameters()).device)
        drawn = draw(model, data, method, test) | stages.pictures()
        named = {f"{method.key}-{name}": content for name, content in drawn.items()}
        row["pictures"] = write_pictures(named, pictures, NAME)
    return row


def _curve(history: History, term: str) -> list[list[float]]:
    """Pairs of step and value, each value the mean since the pair before."""
    return [[step, round(value, 4)] for step, value in zip(*history.curve(term), strict=True)]
