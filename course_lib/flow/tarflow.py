"""TarFlow: an autoregressive flow whose network is a transformer (Zhai et al., 2024)."""

from collections.abc import Iterator, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from course_lib.attention import AttentionBlock
from course_lib.flow.autoregressive import AutoregressiveTransform
from course_lib.flow.coupling import bounded
from course_lib.flow.elementwise import preprocessing
from course_lib.flow.flow import Flow
from course_lib.flow.image import Permutation
from course_lib.flow.transform import Composition, Transform
from course_lib.inputs import require_count, require_dropout, require_positive_integer
from course_lib.precision import applied_in_type

# What the network reads at most, in absolute value: its norms compute squares, which must not overflow.
LARGEST = 1e6


class CausalNetwork(nn.Module):
    """A causal transformer over patches: each output is a function of the patches before it.

    Args:
        n_patches: number T of patches.
        patch: number of entries of each.
        width: number of features of a token.
        heads: number of heads, which divides `width`.
        n_blocks: number of layers.
        dropout: share of features dropped in training.
    """

    def __init__(
        self, n_patches: int, patch: int, width: int, heads: int, n_blocks: int, dropout: float
    ) -> None:
        super().__init__()
        self.first = nn.Linear(patch, width)
        self.position = nn.Parameter(0.02 * torch.randn(n_patches, width))
        self.blocks = nn.ModuleList(
            AttentionBlock(width, heads, causal=True, dropout=dropout) for _ in range(n_blocks)
        )
        self.norm = nn.LayerNorm(width)
        self.last = nn.Linear(width, 2 * patch)
        nn.init.zeros_(self.last.weight)  # starts as the identity
        nn.init.zeros_(self.last.bias)

    def read(self, patches: Tensor) -> Tensor:
        """Features of patches, which are cut off where no norm could be computed of them."""
        return self.first(patches.clamp(-LARGEST, LARGEST))

    def forward(self, patches: Tensor) -> Tensor:
        """Map ``(N, T, patch)`` to means and raw log-scales, ``(N, T, 2 · patch)``."""
        before = F.pad(patches, (0, 0, 1, 0))[
            :, :-1
        ]  # token t is told patch t − 1, the first zeros
        h = self.read(before) + self.position
        for block in self.blocks:
            h = block(h)
        return self.last(self.norm(h))


class AttentionAutoregressive(AutoregressiveTransform):
    """An autoregressive layer whose network is a causal transformer, a block of TarFlow (``eq-tarflow``).

    The entries are cut into patches. The means and log-scales of a patch depend on the patches before it, and
    within a patch on nothing else. So the inverse takes as many steps as there are patches.

    Source: Zhai et al., "Normalizing flows are capable generative models" (2024).

    Args:
        event_shape: shape of one x.
        patch: number of neighbouring entries of the flattened event that make a patch.
        width: number of features of a token.
        heads: number of heads, which divides `width`.
        n_blocks: number of the transformer's layers.
        bound: largest absolute value of a log-scale.
        dropout: share of features dropped in training.

    Raises:
        ValueError: `patch` does not divide the number of entries, or `bound` is not positive.
    """

    def __init__(
        self,
        event_shape: Sequence[int],
        *,
        patch: int = 1,
        width: int = 64,
        heads: int = 4,
        n_blocks: int = 2,
        bound: float = 3.0,
        dropout: float = 0.0,
    ) -> None:
        super().__init__(event_shape, bound=bound)
        self.patch = require_positive_integer(patch, "patch")
        if self.features % self.patch:
            raise ValueError(
                f"patch is {self.patch}, and an example has {self.features} entries; a number that divides "
                f"them is expected."
            )
        width = require_positive_integer(width, "width")
        n_blocks = require_positive_integer(n_blocks, "n_blocks")
        self.network = CausalNetwork(
            self.features // self.patch,
            self.patch,
            width,
            heads,
            n_blocks,
            require_dropout(dropout),
        )

    def conditionals(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """See `AutoregressiveTransform.conditionals`; a patch depends on the patches before it only."""
        patches = x.unflatten(1, (-1, self.patch))
        # Under autocast the network has rounded; the map and its determinant must not.
        mean, raw = applied_in_type(self.network, patches).to(x.dtype).chunk(2, 2)
        return mean.flatten(1), bounded(raw.flatten(1), self.bound)


class TarFlow(Flow):
    """Autoregressive layers made of transformers, with the order of the entries reversed in between.

    The density takes one pass; sampling goes patch by patch, with the keys and values of the past kept.

    Source: Zhai et al., "Normalizing flows are capable generative models" (2024).

    Args:
        event_shape: shape of one x.
        layers: number of autoregressive layers.
        patch: number of neighbouring entries that make a patch.
        width: number of features of a token.
        heads: number of heads, which divides `width`.
        n_blocks: number of layers of each transformer.
        dropout: share of features dropped in training.
        logit_margin: margin of a `course_lib.flow.Logit` before all, for data in [0, 1]; None for data
            on the line.
        bound: largest absolute value of a log-scale.
    """

    def __init__(
        self,
        event_shape: Sequence[int],
        *,
        layers: int = 4,
        patch: int = 1,
        width: int = 64,
        heads: int = 4,
        n_blocks: int = 2,
        dropout: float = 0.0,
        logit_margin: float | None = None,
        bound: float = 3.0,
    ) -> None:
        def parts() -> Iterator[Transform]:
            for index in range(require_count(layers, "layers")):
                if index:
                    yield Permutation(event_shape)
                yield AttentionAutoregressive(
                    event_shape,
                    patch=patch,
                    width=width,
                    heads=heads,
                    n_blocks=n_blocks,
                    bound=bound,
                    dropout=dropout,
                )

        super().__init__(Composition([*preprocessing(event_shape, logit_margin), *parts()]))
