"""The decoder of a recorded VAE with two latent dimensions, small enough for a page.

The last affine map of the source's model, from 500 numbers to 784 logits, takes most of the room. Its inputs,
the hidden units at the points of the plane, form a surface, on which the logits lie close to a subspace of
fewer dimensions. So two maps take its place, one down to that subspace and one up to the logits. They are not
trained but computed, and all weights are stored in half precision. Before it is rounded, no pixel differs
from that of the recorded model by as much as one of 256 grey levels.
"""

import copy
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

RECORD = "mnist-VAE-source-2d-seed0"
RANK = 110
LIMIT = 3.0  # the plane is [−3, 3]²
POINTS = 400  # test images whose posterior means are shown


def decoder_path(folder: Path) -> Path:
    """Where the decoder lies, beside the record of its run."""
    return folder / f"{RECORD}-decoder.npz"


@dataclass(frozen=True)
class PageDecoder:
    """What a page needs of the model.

    Attributes:
        decoder: from points of the plane, shape ``(N, 2)``, to logits, shape ``(N, H·W)``; its weights are
            numbers of half precision.
        points: posterior means of test images, shape ``(N, 2)``.
        labels: their classes, shape ``(N,)``.
    """

    decoder: nn.Sequential
    points: Tensor
    labels: Tensor

    def write(self, path: Path) -> None:
        """Write all of it, weights in half precision."""
        values = {f"decoder.{name}": v.half() for name, v in self.decoder.state_dict().items()}
        values |= {"points": self.points.half(), "labels": self.labels.to(torch.uint8)}
        np.savez_compressed(path, **{name: value.numpy() for name, value in values.items()})


def read_decoder(path: Path) -> PageDecoder:
    """Read what `PageDecoder.write` has written."""
    with np.load(path) as stored:
        values = {name: torch.from_numpy(stored[name]) for name in stored.files}
    points, labels = values.pop("points").float(), values.pop("labels").long()
    weights = {name.removeprefix("decoder."): value.float() for name, value in values.items()}
    (hidden, latent), (rank, _) = weights["0.weight"].shape, weights["2.weight"].shape
    decoder = nn.Sequential(
        nn.Linear(latent, hidden),
        nn.Tanh(),
        nn.Linear(hidden, rank),
        nn.Linear(rank, len(weights["3.bias"])),
    )
    decoder.load_state_dict(weights)
    return PageDecoder(decoder, points, labels)


@torch.no_grad()
def factorized(decoder: nn.Sequential, rank: int = RANK, limit: float = LIMIT) -> nn.Sequential:
    """A decoder whose last affine map is two, through a subspace of that many dimensions.

    Of all subspaces it is the one that is closest to the logits on a grid of the plane (by a singular value
    decomposition). The point around which the subspace lies is their mean.

    Args:
        decoder: ``nn.Linear``, ``nn.Tanh``, ``nn.Linear``, from 2 numbers.
        rank: number of dimensions of the subspace.
        limit: the plane is [−limit, limit]².
    """
    first, function, last = copy.deepcopy(decoder).double()
    side = torch.linspace(-limit, limit, 61, dtype=torch.float64)
    hidden = function(first(torch.cartesian_prod(side, side)))  # (N, hidden)
    mean = hidden.mean(0)
    *_, directions = torch.linalg.svd((hidden - mean) @ last.weight.T, full_matrices=False)
    up = directions[:rank].T  # (pixels, rank)
    down = nn.Linear(last.in_features, rank, dtype=torch.float64)
    down.weight.copy_(up.T @ last.weight)
    down.bias.copy_(-down.weight @ mean)
    back = nn.Linear(rank, last.out_features, dtype=torch.float64)
    back.weight.copy_(up)
    back.bias.copy_(last.bias + last.weight @ mean)
    return nn.Sequential(first, function, down, back)
