"""MADE: an autoencoder whose masks make it autoregressive, in one or several orderings."""

import math
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from course_lib.autoregressive.base import Autoregressive, Steps
from course_lib.distributions import GreyLevels
from course_lib.fast import prepared
from course_lib.inputs import (
    require_dropout,
    require_generator,
    require_integer,
    require_labels,
    require_positive_integer,
    require_widths,
)
from course_lib.masked import made_mask, masked_linear, spread_degrees


class MADE(Autoregressive):
    """A multilayer perceptron with masked weights.

    Every unit carries a degree, and may read units of degrees not above its own; the output for a
    dimension reads strictly smaller degrees than that of the dimension (``eq-made-mask``). Any
    path from input j to output i then climbs from the degree of j to below that of i: the
    Jacobian is triangular in the order of the degrees.

    With several orderings the same weights are read through several sets of masks, and the model
    is the uniform mixture of them: p(x) = (1/R) Σ_r p_r(x), exact and normalized.

    Source: Germain et al., "MADE: masked autoencoder for distribution estimation" (2015).

    Args:
        event_shape: shape of one example.
        levels: number K of grey levels.
        hidden: width of each hidden layer. A layer narrower than D − 1 leaves some degrees
            out, and then some outputs cannot see the dimension just before them.
        n_orderings: number R of orderings. The first is that of the flattened tensor, the others
            are random.
        dropout: share of hidden units dropped in training.
        seed: draws the random orderings.
        distribution: of one entry; if none is given, Bernoulli for two levels and categorical for
            more.

    Attributes:
        orderings: the dimensions in the order in which they are generated, shape ``(R, D)``.

    Example:
        >>> model = MADE((1, 4, 4), 2, hidden=(64,), n_orderings=2)
        >>> model.log_prob(model.sample(3)).shape
        torch.Size([3])
    """

    orderings: Tensor

    def __init__(
        self,
        event_shape: Sequence[int],
        levels: int,
        *,
        hidden: Sequence[int] = (256, 256),
        n_orderings: int = 1,
        dropout: float = 0.0,
        seed: int = 0,
        distribution: GreyLevels | None = None,
    ) -> None:
        super().__init__(event_shape, levels, distribution)
        hidden = require_widths(hidden)
        if not hidden:
            raise ValueError(
                "hidden is empty; at least one hidden layer is expected, or use FVSBN."
            )
        n_orderings = require_positive_integer(n_orderings, "n_orderings")
        D, P = self.n_dims, self.distribution.n_parameters
        generator = torch.Generator().manual_seed(require_integer(seed, "seed"))
        orderings = [torch.arange(D)]
        orderings += [torch.randperm(D, generator=generator) for _ in range(n_orderings - 1)]
        self.register_buffer("orderings", torch.stack(orderings))
        widths = [D, *hidden, D * P]
        self.linears = nn.ModuleList(nn.Linear(n_in, n_out) for n_in, n_out in pairwise(widths))
        self.dropout = nn.Dropout(require_dropout(dropout))
        # Units that become computable together lie side by side; the cached sampler lives on it.
        self.hidden_degrees = [spread_degrees(D, width) for width in hidden]
        for index, linear in enumerate(self.linears):
            # Between hidden layers all orderings share one mask.
            count = 1 if 0 < index < len(hidden) else n_orderings
            masks = torch.empty(count, *linear.weight.shape)
            self.register_buffer(f"mask_{index}", masks, persistent=False)
        self.follow_buffers()

    def follow_buffers(self) -> None:
        """Derive the masks from the orderings, also from those that come with a state dict."""
        self.known = []  # of each layer's masks
        for index in range(len(self.linears)):
            stored = self.get_buffer(f"mask_{index}")
            places = self._input_degrees()[: len(stored)].cpu()
            masks = torch.stack([self._mask(index, degrees) for degrees in places])
            stored.copy_(masks)
            self.known.append([prepared(masked_linear, mask) for mask in masks])

    def _input_degrees(self) -> Tensor:
        """Place of each dimension in each ordering, shape ``(R, D)``."""
        return self.orderings.argsort(1)

    def _mask(self, index: int, degrees: Tensor) -> Tensor:
        last = len(self.hidden_degrees)
        read = self.hidden_degrees[index - 1] if index else degrees
        if index == last:
            readers = degrees.repeat_interleave(self.distribution.n_parameters)
            return made_mask(read, readers, strict=True)
        return made_mask(read, self.hidden_degrees[index])

    def masks_in_use(self, ordering: int) -> Iterator[tuple[Tensor, Any]]:
        """The mask of each layer in one of the orderings, and what a fast path knows of it."""
        for index, known in enumerate(self.known):
            which = ordering if len(known) > 1 else 0  # shared by all orderings, or its own
            yield self.get_buffer(f"mask_{index}")[which], known[which]

    def masked_weights(self, ordering: int = 0) -> Iterator[Tensor]:
        """The weight in use of each layer, shape ``(out, in)``, in one of the orderings."""
        for linear, (mask, _) in zip(self.linears, self.masks_in_use(ordering), strict=True):
            yield mask * linear.weight

    def forward(self, x: Tensor, labels: Tensor | None = None, ordering: int = 0) -> Tensor:
        """Parameters of all conditionals in one ordering, shape ``(N, *event_shape, P)``."""
        h = self.encode(x).flatten(1)  # (N, D)
        for linear, (mask, known) in zip(self.linears, self.masks_in_use(ordering), strict=True):
            h = masked_linear(h, linear.weight, mask, linear.bias, known)
            if linear is not self.linears[-1]:
                h = self.dropout(h.relu_())
        return h.view(len(x), *self.event_shape, self.distribution.n_parameters)

    def log_prob(
        self, x: Tensor, labels: Tensor | None = None, ordering: int | None = None
    ) -> Tensor:
        """Exact log-probability: of the mixture of all orderings, or of one of them.

        Args:
            x: integer grey levels, shape ``(N, *event_shape)``.
            labels: not used; the model has no classes.
            ordering: one ordering; None for the mixture.

        Returns:
            Nats, shape ``(N,)``.
        """
        x = self._require_images(x)
        require_labels(labels, len(x), None)
        if len(self.orderings) == 1:
            ordering = 0
        if ordering is not None:
            return self._nats(self(x, ordering=ordering), x)
        each = [self.log_prob(x, ordering=r) for r in range(len(self.orderings))]
        return torch.logsumexp(torch.stack(each), 0) - math.log(len(each))

    def _generate(
        self,
        n: int,
        generator: torch.Generator | None,
        cached: bool,
        labels: Tensor | None,
        x: Tensor | None = None,
        known: Tensor | None = None,
    ) -> Tensor:
        """Draw an ordering for each example, then each example in its ordering."""
        noise = self._noise(n, generator)
        choice = self._choose(n, generator)
        result = torch.empty(n, *self.event_shape, dtype=torch.int64, device=noise.device)
        steps = self._steps(cached)
        for ordering in choice.unique().tolist():
            rows = (choice == ordering).nonzero().squeeze(1)
            result[rows] = self._run(
                steps(len(rows), None, ordering),
                noise[rows],
                None if x is None else x[rows],
                None if known is None else known[rows],
            )
        return result

    def sample_by_passes(
        self,
        n: int,
        *,
        generator: torch.Generator | None = None,
        labels: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """As `Autoregressive.sample_by_passes`, each example in the ordering that is drawn for it."""
        n = require_positive_integer(n, "n")
        require_generator(generator, self.order.device)
        require_labels(labels, n, None)
        noise = self._noise(n, generator)
        choice = self._choose(n, generator)
        images = torch.empty(n, *self.event_shape, dtype=torch.int64, device=noise.device)
        passes = torch.empty(n, dtype=torch.int64, device=noise.device)
        for ordering in choice.unique().tolist():
            rows = (choice == ordering).nonzero().squeeze(1)
            images[rows], passes[rows] = self._fixed_point(noise[rows], None, ordering=ordering)
        return images, passes

    def _choose(self, n: int, generator: torch.Generator | None) -> Tensor:
        """An ordering for each of n examples."""
        device = self.orderings.device
        return torch.randint(len(self.orderings), (n,), generator=generator, device=device)

    def _naive(self, n: int, labels: Tensor | None, ordering: int = 0) -> Steps:
        x = torch.zeros(n, *self.event_shape, dtype=torch.int64, device=self.order.device)
        for index in self.orderings[ordering].tolist():
            parameters = self(x, ordering=ordering).flatten(1, -2)  # (n, D, P)
            x.view(n, -1)[:, index] = yield index, parameters[:, index]


def one_ordering_loss(model: MADE, batch: Tensor, progress: Tensor) -> Tensor:
    """The loss that trains all orderings at the price of one, as `course_lib.training.fit` calls it.

    Each call draws one ordering r. The mean over the draws of −log p_r(x) is, by Jensen's
    inequality, at least −log of the mixture: what is minimized bounds what is measured. The
    mixture's own likelihood takes a pass for each ordering.

    Source: Germain et al. (2015), section 4.2, who change the masks from batch to batch.

    Args:
        model: with one ordering or several.
        batch: images, integer grey levels, shape ``(N, *event_shape)``.
        progress: not used.

    Returns:
        Nats per image in the ordering that was drawn, 0-d.
    """
    ordering = int(torch.randint(len(model.orderings), ()))
    return -model.log_prob(batch, ordering=ordering).mean()
