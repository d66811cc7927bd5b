"""A data set held as tensors: its size, its order, its batches."""

from collections.abc import Callable

import torch
from torch import Tensor

from course_lib.inputs import require_tensor

Batch = Tensor | tuple[Tensor, ...]
BatchTransform = Callable[[Batch, torch.Generator], Batch]


def count(data: Batch, name: str) -> int:
    """Number of examples; all tensors of a tuple must agree on it."""
    if not isinstance(data, Tensor | tuple):
        raise TypeError(
            f"{name} is a {type(data).__name__}; a tensor or a tuple of tensors is expected. "
            f"Convert arrays with torch.as_tensor; of a data set pass a split, such as data.train."
        )
    tensors = data if isinstance(data, tuple) else (data,)
    for tensor in tensors:
        require_tensor(tensor, name)
        if tensor.dim() == 0:
            raise ValueError(
                f"{name} holds a tensor of shape (); examples, (N, ...), are expected."
            )
    counts = {len(tensor) for tensor in tensors}
    if len(counts) != 1 or 0 in counts:
        raise ValueError(
            f"{name} holds tensors of {sorted(counts)} examples; the same number, at least one, "
            f"is expected of each."
        )
    return counts.pop()


def to_device(data: Batch, device: torch.device) -> Batch:
    """Move all of it at once: data of this size needs no worker processes."""
    if isinstance(data, tuple):
        return tuple(tensor.to(device) for tensor in data)
    return data.to(device)


def select(data: Batch, index: Tensor) -> Batch:
    """Pick examples by their indices, the same ones of every tensor."""
    return tuple(tensor[index] for tensor in data) if isinstance(data, tuple) else data[index]


def cast(batch: Batch, dtype: torch.dtype | None) -> Batch:
    """Numbers of one type; integers stay integers."""
    if isinstance(batch, tuple):
        return tuple(cast(tensor, dtype) for tensor in batch)
    return batch.to(dtype) if dtype is not None and batch.is_floating_point() else batch


class BatchIndices:
    """Batches of indices: a new permutation each epoch, its incomplete last batch dropped.

    A batch is a multiple of the number of processes, so that every process has an equal share.
    """

    def __init__(self, n: int, batch_size: int, seed: int, n_processes: int) -> None:
        self.n = n
        self.batch_size = min(batch_size, n - n % n_processes)
        self.generator = torch.Generator().manual_seed(seed)
        self.rest = torch.empty(0, dtype=torch.int64)

    def next(self) -> Tensor:
        """Return the indices of the next batch."""
        if len(self.rest) < self.batch_size:
            self.rest = torch.randperm(self.n, generator=self.generator)
        batch, self.rest = self.rest[: self.batch_size], self.rest[self.batch_size :]
        return batch

    def state_dict(self) -> dict[str, Tensor]:
        """Where it is."""
        return {"generator": self.generator.get_state(), "rest": self.rest}

    def load_state_dict(self, kept: dict[str, Tensor]) -> None:
        """Continue from there."""
        self.generator.set_state(kept["generator"])
        self.rest = kept["rest"]
