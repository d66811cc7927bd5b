"""Discriminators and critics: one number per example, a multilayer perceptron or a convolutional one."""

import itertools
import math
from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn.utils import parametrizations

from course_lib.gan.generator import count_halvings, require_n_classes
from course_lib.inputs import (
    require_batch,
    require_event_shape,
    require_labels,
    require_positive_integer,
    require_widths,
)
from course_lib.saved_settings import SavedSettings


class _BaseDiscriminator(SavedSettings):
    """What every discriminator shares: features of an example, and one number from them."""

    event_shape: tuple[int, ...]
    n_classes: int | None

    def _set_up(
        self,
        event_shape: Sequence[int],
        body: nn.Module,
        n_features: int,
        n_classes: int | None,
        spectral_norm: bool,
    ) -> None:
        self.event_shape = require_event_shape(event_shape)
        n_classes = self.n_classes = require_n_classes(n_classes)
        self.body, self.head = body, nn.Linear(n_features, 1)
        self.embedding = nn.Embedding(n_classes, n_features) if n_classes is not None else None
        if spectral_norm:
            for layer in list(self.modules()):
                if isinstance(layer, nn.Linear | nn.Conv2d | nn.Embedding):
                    parametrizations.spectral_norm(layer)

    def settings(self) -> dict[str, object]:
        """What the weights' meaning depends on."""
        return {"event_shape": self.event_shape, "n_classes": self.n_classes}

    def forward(self, x: Tensor, labels: Tensor | None = None) -> Tensor:
        """Judge examples: high means real.

        Args:
            x: examples, shape ``(N, *event_shape)``.
            labels: class of each example, int64, shape ``(N,)``; only with `n_classes`.

        Returns:
            Logits (of a discriminator) or scores (of a critic), shape ``(N,)``.
        """
        require_batch(x, self.event_shape, model=self)
        labels = require_labels(labels, len(x), self.n_classes)
        features = self.body(x)  # (N, F)
        outputs = self.head(features).squeeze(1)  # (N,)
        if labels is not None:
            # The projection discriminator: how well the features fit the class.
            outputs = outputs + (self.embedding(labels) * features).sum(1)
        return outputs


class Discriminator(_BaseDiscriminator):
    """A multilayer perceptron D that tells real examples from generated ones.

    As a discriminator its output is a logit: D(x) = sigmoid(output). As a critic the output is
    the score itself. No batch normalization, so that gradient penalties are defined.

    Args:
        event_shape: shape of one example.
        hidden: width of each hidden layer.
        n_classes: number of classes, for a class-conditional discriminator by projection (Miyato
            and Koyama, 2018).
        spectral_norm: divide each weight matrix by its largest singular value, so that without
            classes the network is 1-Lipschitz (Miyato et al., 2018); with classes two such terms
            add up.

    Example:
        >>> Discriminator((1, 8, 8))(torch.rand(16, 1, 8, 8)).shape
        torch.Size([16])
    """

    def __init__(
        self,
        event_shape: Sequence[int],
        hidden: Sequence[int] = (256, 256),
        *,
        n_classes: int | None = None,
        spectral_norm: bool = False,
    ) -> None:
        super().__init__()
        widths = [math.prod(require_event_shape(event_shape)), *require_widths(hidden)]
        layers: list[nn.Module] = [nn.Flatten()]
        for width_in, width_out in itertools.pairwise(widths):
            layers += [nn.Linear(width_in, width_out), nn.LeakyReLU(0.2)]
        self._set_up(event_shape, nn.Sequential(*layers), widths[-1], n_classes, spectral_norm)


class ConvDiscriminator(_BaseDiscriminator):
    """A DCGAN-style discriminator: strided convolutions that halve the side of the image.

    The mirror of `ConvGenerator`, but without batch normalization: a gradient penalty
    needs outputs that do not depend on the rest of the batch. Source: Radford, Metz and Chintala (2016).

    Args:
        event_shape: shape ``(C, H, W)`` of one image.
        channels: channels of the first hidden layer; doubled for every layer after it.
        n_classes: number of classes, for a class-conditional discriminator.
        spectral_norm: divide each layer's weight by its largest singular value (as a matrix).
    """

    def __init__(
        self,
        event_shape: Sequence[int],
        channels: int = 32,
        *,
        n_classes: int | None = None,
        spectral_norm: bool = False,
    ) -> None:
        super().__init__()
        channels = require_positive_integer(channels, "channels")
        halvings = count_halvings(event_shape)
        width = channels
        layers: list[nn.Module] = [
            nn.Conv2d(event_shape[0], width, 3, padding=1),
            nn.LeakyReLU(0.2),
        ]
        for _ in range(halvings):
            layers += [nn.Conv2d(width, 2 * width, 4, stride=2, padding=1), nn.LeakyReLU(0.2)]
            width *= 2
        side = [size // 2**halvings for size in event_shape[1:]]
        self._set_up(
            event_shape,
            nn.Sequential(*layers, nn.Flatten()),
            width * math.prod(side),
            n_classes,
            spectral_norm,
        )
