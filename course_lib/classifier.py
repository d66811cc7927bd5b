"""A small classifier, trained here, whose features measure the quality of generated images.

Distances between sets of images are taken between features, not pixels: two images of the same
digit are close, two different digits are not. The usual choice is a network trained on ImageNet,
which is neither small nor about digits.
"""

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from course_lib.data import Dataset, intensities
from course_lib.inputs import (
    require_batch,
    require_image_shape,
    require_positive_integer,
    require_shapes,
)
from course_lib.randomness import seeded
from course_lib.saved_settings import SavedSettings
from course_lib.training import fit, linear_decay

PART = 1000  # images whose features are computed at once


class Classifier(SavedSettings):
    """Two convolutions, an affine map to the features, and an affine map from them to the classes.

    Args:
        event_shape: shape ``(C, H, W)`` of one image, with even sides.
        n_classes: number of classes.
        n_features: number of features.
        channels: channels of the first convolution.
    """

    def __init__(
        self,
        event_shape: tuple[int, int, int],
        n_classes: int,
        n_features: int = 32,
        channels: int = 16,
    ) -> None:
        super().__init__()
        self.event_shape = require_image_shape(event_shape)
        colours, height, width = self.event_shape
        n_classes = require_positive_integer(n_classes, "n_classes")
        n_features = require_positive_integer(n_features, "n_features")
        channels = require_positive_integer(channels, "channels")
        self.body = nn.Sequential(
            nn.Conv2d(colours, channels, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(channels, 2 * channels, 3, stride=2, padding=1),
            nn.ReLU(),
            nn.Flatten(),
            nn.Dropout(0.5),
            nn.Linear(2 * channels * -(-height // 2) * -(-width // 2), n_features),
        )
        self.head = nn.Sequential(nn.ReLU(), nn.Linear(n_features, n_classes))
        self.register_buffer("scale", torch.ones(n_features))

    def settings(self) -> dict[str, object]:
        """What the weights' meaning depends on."""
        return {"event_shape": self.event_shape}

    def forward(self, x: Tensor) -> Tensor:
        """Return logits of the classes, shape ``(N, n_classes)``, for images in [0, 1]."""
        require_batch(x, self.event_shape, model=self)
        return self.head(self.body(x))

    @torch.no_grad()
    def features(self, x: Tensor) -> Tensor:
        """Return features, shape ``(N, n_features)``, without gradients.

        They are taken before the last ReLU and divided by their standard deviations on the
        training images: what the network's own scale is does not enter a distance.

        Args:
            x: images in [0, 1], shape ``(N, *event_shape)``.
        """
        require_batch(x, self.event_shape, model=self)
        # In parts: the first convolution of MNIST's training split would take gigabytes.
        return torch.cat([self.body(part) for part in x.split(PART)]) / self.scale

    @torch.no_grad()
    def accuracy(self, x: Tensor, labels: Tensor) -> float:
        """Return the share of images whose most likely class is the right one.

        Args:
            x: images in [0, 1], shape ``(N, *event_shape)``.
            labels: their classes, shape ``(N,)``.
        """
        predicted = self(x).argmax(1)
        require_shapes("Each image has one class.", labels=(labels, f"{len(x)}"))
        return (predicted == labels).double().mean().item()


def train_classifier(data: Dataset, *, steps: int = 600, seed: int = 0) -> Classifier:
    """Train the classifier whose features the distances use.

    The same seed gives the same features on the same machine. Distances are comparable only
    where they were measured with the same classifier.

    Args:
        data: the data set; its validation split chooses the weights.
        steps: number of optimizer steps, on batches of 128 images.
        seed: seeds the initial weights and the order of the data.

    Returns:
        The classifier, in evaluation mode.
    """
    images = intensities(data.train, data.levels)
    held_out = intensities(data.validation, data.levels)
    with seeded(seed):
        classifier = Classifier(data.event_shape, int(data.train_labels.max()) + 1)

    def loss(model: Classifier, batch: tuple[Tensor, Tensor], progress: Tensor) -> Tensor:
        x, labels = batch
        return cross_entropy(model(x), labels, label_smoothing=0.1)

    fit(
        classifier,
        loss,
        (images, data.train_labels),
        validation=(held_out, data.validation_labels),
        steps=steps,
        batch_size=128,
        learning_rate=2e-3,
        schedule=linear_decay,
        ema=0.99,
        seed=seed,
        progress=False,
    )
    classifier.scale.copy_(classifier.features(images).std(0))
    return classifier
