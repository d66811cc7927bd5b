"""Pictures of a recorded run: what its number looks like.

Each is one file, white on black, drawn from a fixed seed: the first samples of that seed, the first
test images. Nothing is chosen by hand. The record holds the digest of each, so that number and picture stay
together.
"""

import hashlib
import io
from dataclasses import dataclass, field
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor, nn

from course_lib.data import Dataset, intensities
from course_lib.evaluation import nearest_neighbours
from course_lib.family import PICTURED, Recipe
from course_lib.files import replace_bytes

# Of the noise of every picture.
PICTURE_SEED = 2025
ROWS = 4
LINE = 90  # grey level of the lines between the images of a sheet
SHADES = 64  # of grey: what the eye can tell, at two thirds of the size


def picture_path(folder: Path, record: str, picture: str) -> Path:
    """Where a picture of the record of that name is written."""
    return folder / f"{record}-{picture}.png"


def sheet(images: Tensor) -> bytes:
    """A PNG of images in rows and columns.

    Args:
        images: intensities in [0, 1], shape ``(rows, columns, 1, H, W)``.
    """
    shades = (images.detach().float().cpu().squeeze(2) * (SHADES - 1)).round()
    levels = (shades * (255 / (SHADES - 1))).round().to(torch.uint8)
    lined = nn.functional.pad(levels, (1, 0, 1, 0), value=LINE)
    rows, columns, height, width = lined.shape
    whole = lined.transpose(1, 2).reshape(rows * height, columns * width)
    whole = nn.functional.pad(whole, (0, 1, 0, 1), value=LINE)
    file = io.BytesIO()
    Image.fromarray(whole.numpy()).save(file, format="png", optimize=True)
    return file.getvalue()


@torch.no_grad()
def draw(model: nn.Module, data: Dataset, recipe: Recipe, test: Tensor) -> dict[str, bytes]:
    """All pictures of a trained model.

    Args:
        model: in evaluation mode.
        data: whose training images are searched for the nearest ones.
        recipe: of the model, or what says of another run how it is drawn.
        test: test images, as the recipe has them, on the model's device.

    Returns:
        The bytes of PNG files by their names. Every family has ``samples``, and ``nearest``, which shows
        samples above their nearest training images; some add others.
    """
    generator = torch.Generator(test.device).manual_seed(PICTURE_SEED)
    samples = _samples(model, data, recipe, generator)
    first = samples[0].cpu()
    # The training images are grey in any case: a binarization is another one at each step.
    train = intensities(data.train, data.levels)
    _, index = nearest_neighbours(first, train)
    drawn = {"samples": samples, "nearest": torch.stack([first, train[index]])}
    for name, images in recipe.pictures(model, test, generator).items():
        drawn[name] = recipe.intensities(images, data)
    return {name: sheet(images) for name, images in drawn.items()}


def _samples(model: nn.Module, data: Dataset, recipe: Recipe, generator: torch.Generator) -> Tensor:
    drawn = recipe.samples(model, ROWS * PICTURED, generator)
    return recipe.intensities(drawn, data).unflatten(0, (ROWS, PICTURED))


@dataclass
class Stages:
    """Samples at the stages of a training run, for the callback of `course_lib.training.fit`.

    They are kept beside the checkpoint, so that a run that was stopped and resumed has them too.

    Attributes:
        data: the data set.
        recipe: says at which shares of training samples are drawn.
        checkpoint: the run's checkpoint; None if it writes none.
    """

    data: Dataset
    recipe: Recipe
    checkpoint: Path | None
    drawn: dict[str, bytes] = field(default_factory=dict)

    def __call__(self, step: int, model: nn.Module) -> None:
        """Draw, if a stage begins at this step."""
        for name, begins in self._steps().items():
            if step == begins:
                device = next(model.parameters()).device
                generator = torch.Generator(device).manual_seed(PICTURE_SEED)
                self.drawn[name] = sheet(_samples(model, self.data, self.recipe, generator))
                if self.checkpoint is not None:
                    replace_bytes(self._file(name), self.drawn[name])

    def pictures(self) -> dict[str, bytes]:
        """PNG files by name, such as ``samples-50`` after half of the steps."""
        for name in self._steps():
            if name not in self.drawn and self.checkpoint is not None and self._file(name).exists():
                self.drawn[name] = self._file(name).read_bytes()
        return {name: self.drawn[name] for name in self._steps() if name in self.drawn}

    def _steps(self) -> dict[str, int]:
        """The step of each stage: the evaluation at its share of training, or the last one before it."""
        every = self.recipe.evaluate_every
        return {
            f"samples-{share:.0%}".rstrip("%"): int(share * self.recipe.steps) // every * every
            for share in self.recipe.stages
        }

    def _file(self, name: str) -> Path:
        return self.checkpoint.with_name(f"{self.checkpoint.stem}-{name}.png")


def write_pictures(pictures: dict[str, bytes], folder: Path, record: str) -> dict[str, str]:
    """Write the pictures of a record, each atomically.

    Returns:
        The SHA-256 digest of each, by its name, as hexadecimal digits.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in pictures.items():
        replace_bytes(picture_path(folder, record, name), content)
    return {name: hashlib.sha256(content).hexdigest() for name, content in pictures.items()}
