"""Networks of coupling layers: from the entries that are kept to the parameters of the others."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from course_lib.flow.masks import require_mask
from course_lib.inputs import require_dropout, require_positive_integer
from course_lib.networks import mlp
from course_lib.saved_settings import SavedSettings


def _start_as_identity(last: nn.Module) -> None:
    """Zero the last layer, so that a new coupling changes nothing and deep stacks train."""
    nn.init.zeros_(last.weight)
    nn.init.zeros_(last.bias)


class VectorConditioner(SavedSettings):
    """A multilayer perceptron on the kept entries.

    Args:
        mask: boolean, true where an entry is kept; any shape.
        n_parameters: parameters P for each transformed entry.
        hidden: width of each hidden layer.
        dropout: probability of dropping a hidden unit while training.
    """

    def __init__(
        self, mask: Tensor, n_parameters: int, hidden: Sequence[int], dropout: float = 0.0
    ) -> None:
        super().__init__()
        require_mask(mask)
        n_parameters = require_positive_integer(n_parameters, "n_parameters")
        self.shape = (n_parameters, int((~mask).sum()))
        self.network = mlp(int(mask.sum()), hidden, n_parameters * self.shape[1], dropout=dropout)
        _start_as_identity(self.network[-1])

    def settings(self) -> dict[str, object]:
        """What the weights' meaning depends on: how outputs are laid out."""
        return {"shape of the parameters": self.shape}

    def forward(self, kept: Tensor) -> Tensor:
        """Map kept entries ``(N, D_kept)`` to parameters ``(N, P, D_transformed)``."""
        return self.network(kept).unflatten(1, self.shape)


class ImageConditioner(SavedSettings):
    """A small convolutional network on the image of kept entries, zero where nothing is kept.

    Channels without a kept entry are not read, and channels without a transformed one are not
    written: with a channel mask no weight is idle.

    Args:
        mask: boolean, true where an entry is kept; shape ``(C, H, W)``.
        n_parameters: parameters P for each transformed entry.
        width: hidden channels.
        dropout: probability of dropping a hidden channel while training.
    """

    def __init__(self, mask: Tensor, n_parameters: int, width: int, dropout: float = 0.0) -> None:
        super().__init__()
        require_mask(mask)
        if mask.dim() != 3:
            raise ValueError(
                f"mask has shape {tuple(mask.shape)}; the mask of an image, (C, H, W), is expected. "
                f"For vectors there is VectorConditioner."
            )
        n_parameters = require_positive_integer(n_parameters, "n_parameters")
        width = require_positive_integer(width, "width")
        dropout = require_dropout(dropout)
        read, written = mask.flatten(1).any(1), (~mask).flatten(1).any(1)
        self.read_shape = (int(read.sum()), *mask.shape[1:])
        self.n_parameters = n_parameters
        # Where the kept and the transformed entries lie among the read and the written channels.
        self.register_buffer("kept", mask[read].flatten().nonzero().squeeze(1))
        self.register_buffer("transformed", (~mask[written]).flatten().nonzero().squeeze(1))
        self.network = nn.Sequential(
            nn.Conv2d(self.read_shape[0], width, 3, padding=1),
            nn.ReLU(),
            nn.Dropout2d(dropout),
            nn.Conv2d(width, width, 3, padding=1),
            nn.ReLU(),
            nn.Dropout2d(dropout),
            nn.Conv2d(width, n_parameters * int(written.sum()), 3, padding=1),
        )
        _start_as_identity(self.network[-1])
        # Convolutions are faster where the channels are last in memory.
        self.to(memory_format=torch.channels_last)

    def settings(self) -> dict[str, object]:
        """What the weights' meaning depends on: how inputs and outputs are laid out."""
        return {"shape of the image": self.read_shape, "n_parameters": self.n_parameters}

    def forward(self, kept: Tensor) -> Tensor:
        """Map kept entries ``(N, D_kept)`` to parameters ``(N, P, D_transformed)``."""
        image = kept.new_zeros(
            len(kept), self.read_shape[0] * self.read_shape[1] * self.read_shape[2]
        )
        image = image.index_copy(1, self.kept, kept).unflatten(1, self.read_shape)
        parameters = self.network(image).unflatten(1, (self.n_parameters, -1)).flatten(2)
        return parameters.index_select(2, self.transformed)
