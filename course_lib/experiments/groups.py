"""Several small networks trained at once: the same architecture, one independent copy per group.

A study over seeds trains many tiny networks, whose cost is that of calling many small operations. Here the
copies stand side by side in one batched matrix product. To every loss and penalty the result is an
ordinary network on a batch of G·N examples, group by group; its gradient keeps the groups apart,
because no weight is shared. A mean over the batch is the mean over groups of each group's mean,
so each copy's gradient is 1/G of what it would be alone, which Adam does not notice.
"""

import math
from collections.abc import Callable, Sequence
from functools import partial
from itertools import pairwise

import torch
from torch import Tensor, nn

from course_lib.inputs import require_positive_integer

Activation = Callable[[], nn.Module]
LEAKY_RELU: Activation = partial(nn.LeakyReLU, 0.2)


class GroupedLinear(nn.Module):
    """One affine map per group, initialized like ``torch.nn.Linear``.

    Args:
        groups: number G of groups.
        in_features: number of inputs of each map.
        out_features: number of outputs of each map.
    """

    def __init__(self, groups: int, in_features: int, out_features: int) -> None:
        super().__init__()
        bound = 1 / math.sqrt(in_features)
        self.weight = nn.Parameter(
            torch.empty(groups, in_features, out_features).uniform_(-bound, bound)
        )
        self.bias = nn.Parameter(torch.empty(groups, 1, out_features).uniform_(-bound, bound))

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(G, N, in_features)`` to ``(G, N, out_features)``."""
        return torch.baddbmm(self.bias, x, self.weight)


class _GroupedMLP(nn.Module):
    """G perceptrons on batches of G·N examples that are sorted by group."""

    def __init__(self, groups: int, widths: Sequence[int], activation: Activation) -> None:
        super().__init__()
        groups = self.groups = require_positive_integer(groups, "groups")
        self.n_classes = None
        layers: list[nn.Module] = []
        for width_in, width_out in pairwise(widths):
            layers += [GroupedLinear(groups, width_in, width_out), activation()]
        self.network = nn.Sequential(*layers[:-1])

    def _run(self, x: Tensor) -> Tensor:
        # Only what is cheap is checked: these networks are called a hundred thousand times.
        if x.dim() != 2 or len(x) % self.groups:
            raise ValueError(
                f"the batch has shape {tuple(x.shape)} for {self.groups} groups; (N, dim) "
                f"with an equal number for each group, one group after the other, is expected."
            )
        return self.network(x.unflatten(0, (self.groups, -1))).flatten(0, 1)


class GroupedGenerator(_GroupedMLP):
    """G independent generators of vectors.

    Args:
        groups: number G of generators.
        latent_dim: number of dimensions of z.
        hidden: width of each hidden layer.
        dim: number of dimensions of an example.
        activation: called for each hidden layer's nonlinearity.
    """

    bounded = False

    def __init__(
        self,
        groups: int,
        latent_dim: int = 1,
        hidden: Sequence[int] = (32, 32),
        dim: int = 1,
        activation: Activation = LEAKY_RELU,
    ) -> None:
        super().__init__(groups, [latent_dim, *hidden, dim], activation)
        self.latent_dim, self.event_shape = latent_dim, (dim,)

    def forward(self, z: Tensor, labels: None = None) -> Tensor:
        """Map noise, shape ``(G·N, latent_dim)``, to examples, shape ``(G·N, dim)``."""
        return self._run(z)

    @torch.no_grad()
    def sample(
        self, n: int, *, labels: None = None, generator: torch.Generator | None = None
    ) -> Tensor:
        """Draw `n` samples of every group, shape ``(G, n, dim)``, without gradients."""
        n = require_positive_integer(n, "n")
        weight = next(self.parameters())
        z = torch.randn(
            self.groups * n,
            self.latent_dim,
            generator=generator,
            dtype=weight.dtype,
            device=weight.device,
        )
        return self(z).unflatten(0, (self.groups, n))


class GroupedDiscriminator(_GroupedMLP):
    """G independent discriminators of vectors.

    Args:
        groups: number G of discriminators.
        hidden: width of each hidden layer.
        dim: number of dimensions of an example.
        activation: called for each hidden layer's nonlinearity.
    """

    def __init__(
        self,
        groups: int,
        hidden: Sequence[int] = (32, 32),
        dim: int = 1,
        activation: Activation = LEAKY_RELU,
    ) -> None:
        super().__init__(groups, [dim, *hidden, 1], activation)
        self.event_shape = (dim,)

    def forward(self, x: Tensor, labels: None = None) -> Tensor:
        """Map examples, shape ``(G·N, dim)``, to logits or scores, shape ``(G·N,)``."""
        return self._run(x).squeeze(1)
