"""Masked diffusion: one network for the conditionals of all orders."""

import math
from collections.abc import Sequence
from itertools import combinations

import torch
from torch import Tensor

from course_lib.autoregressive.base import Autoregressive
from course_lib.distributions import GreyLevels
from course_lib.inputs import (
    require_generator,
    require_labels,
    require_positive_integer,
    require_tensor,
)
from course_lib.networks import evaluation_mode
from course_lib.precision import at_least_float32, parameter_type, without_autocast
from course_lib.schedules import low_discrepancy_times
from course_lib.timed_networks import timed_network
from course_lib.training.batches import Batch

# With more dimensions the probability under all orders, 2^D passes, is out of reach.
MOST_DIMENSIONS = 12
# Draws of the bound for each example in evaluation, so that the best weights are not chosen by luck.
EVALUATIONS = 8


class MaskedDiffusion(Autoregressive):
    r"""An autoregressive model in any order: p(x_i | known dimensions) for every set of known ones.

    The network reads an example in which some dimensions are masked, and gives the distribution of each of
    these. Dimensions that it generates one after another, in a random order, are a sample of the uniform
    mixture of the models of all D! orders, whose likelihood has the bound

    .. math:: \log p(x) \ge \int_0^1 \frac1t\,\mathbb{E}\sum_{i \text{ masked at } t}
              \log p(x_i \mid x_{\text{known}})\,\mathrm dt

    (``eq-masked-diffusion``), where at time t each dimension is masked with probability t, independently.

    Sources: Uria, Murray and Larochelle, "A deep and tractable density estimator" (2014); Hoogeboom et al.,
    "Autoregressive diffusion models" (2022).

    Args:
        event_shape: shape of one example.
        levels: number K of grey levels.
        hidden: widths of the perceptron's layers, all alike.
        channels: if given, a convolutional network of images with that many channels replaces the perceptron.
        n_blocks: its number of blocks.
        dropout: share of hidden units dropped in training.
        distribution: of one entry; if none is given, Bernoulli for two levels and categorical for more.

    Example:
        >>> model = MaskedDiffusion((1, 4, 4), 3, hidden=(32,))
        >>> model.elbo(model.sample(2)).shape
        torch.Size([2])
    """

    def __init__(
        self,
        event_shape: Sequence[int],
        levels: int,
        *,
        hidden: Sequence[int] = (512, 512, 512),
        channels: int | None = None,
        n_blocks: int = 3,
        dropout: float = 0.0,
        distribution: GreyLevels | None = None,
    ) -> None:
        super().__init__(event_shape, levels, distribution)
        n_outputs = self.distribution.n_parameters
        self.network = timed_network(
            self.event_shape, hidden, channels, n_blocks, n_outputs, dropout=dropout, n_inputs=2
        )

    def forward(self, x: Tensor, known: Tensor, labels: Tensor | None = None) -> Tensor:
        """Parameters of every dimension's distribution given the known ones.

        Those of a known dimension are of no use: the network has read its value.

        Args:
            x: grey levels, shape ``(N, *event_shape)``; those of masked dimensions are not read.
            known: False where a dimension is masked, bool, of the shape of `x`.
            labels: not used; the model has no classes.

        Returns:
            Shape ``(N, *event_shape, P)``.
        """
        masked = (~known).to(parameter_type(self.network))
        # A masked value is 0, and so is the middle grey: the mask tells them apart.
        inputs = torch.stack([self.encode(x) * (1 - masked), masked], -1)
        share = masked.flatten(1).mean(1)
        parameters = self.network(inputs, 8 * share - 4)
        # A network with one output has no axis for it.
        return parameters.view(*x.shape, self.distribution.n_parameters)

    # --- likelihood and bound -------------------------------------------------------------------

    def log_prob(
        self, x: Tensor, labels: Tensor | None = None, *, order: Tensor | None = None
    ) -> Tensor:
        """Exact log-probability: in one order, of the mixture of several, or of that of all D!.

        Args:
            x: integer grey levels, shape ``(N, *event_shape)``.
            labels: not used; the model has no classes.
            order: dimensions of the flattened example in the order in which they are generated, shape
                ``(D,)``, in D passes; several orders, shape ``(R, D)``, for the uniform mixture of their
                models, in R·D passes. None for the mixture of all orders, in 2^D passes, for at most
                12 dimensions.

        Returns:
            Nats, shape ``(N,)``.

        Raises:
            ValueError: `order` holds no orders; or there is none, and there are too many dimensions.
        """
        x = self._require_images(x)
        require_labels(labels, len(x), None)
        if order is None:
            return self._log_prob_of_all_orders(x)
        orders = self._require_orders(order)
        each = [self._log_prob_in_order(x, one) for one in orders.view(-1, self.n_dims)]
        return torch.logsumexp(torch.stack(each), 0) - math.log(len(each))

    def elbo(
        self, x: Tensor, n_samples: int = 1, *, generator: torch.Generator | None = None
    ) -> Tensor:
        """An unbiased estimate of the lower bound of log p(x), the mean over all orders.

        Each draw masks a random number of dimensions, 1 … D, then which ones, and weights the sum over
        these by D over their number. The numbers of a batch and of the draws of an example are spread
        evenly. Dropout is switched off, whatever mode the model is in; `any_order_loss` is for training.

        Source: equation ``eq-any-order-sets``.

        Args:
            x: integer grey levels, shape ``(N, *event_shape)``.
            n_samples: draws for each example.
            generator: source of the masks; the global one if none is given.

        Returns:
            Nats, shape ``(N,)``.
        """
        with evaluation_mode(self):
            return self._bound(x, n_samples, generator)

    def _bound(self, x: Tensor, n_samples: int, generator: torch.Generator | None = None) -> Tensor:
        """See `elbo`; in the mode that the model is in, in training with dropout."""
        x = self._require_images(x)
        n_samples = require_positive_integer(n_samples, "n_samples")
        require_generator(generator, x.device)
        n, D = len(x), self.n_dims
        offset = low_discrepancy_times(n, shuffled=True, generator=generator, device=x.device)
        draws = torch.arange(n_samples, device=x.device).unsqueeze(1)
        times = ((draws + offset) / n_samples).clamp(max=1 - 2**-20).flatten()  # draws × N
        number = (times * D).long() + 1
        place = (
            torch.rand(len(times), D, generator=generator, device=x.device).argsort(1).argsort(1)
        )
        known = (place >= number.unsqueeze(1)).view(-1, *self.event_shape)
        repeated = x.repeat(n_samples, *[1] * len(self.event_shape))
        sums = self._log_prob_of_masked(repeated, known)
        return (sums * (D / number)).view(n_samples, n).mean(0)

    def _log_prob_of_masked(self, x: Tensor, known: Tensor) -> Tensor:
        """Σ log p(x_i | known dimensions) over the masked ones, shape ``(N,)``."""
        each = self.distribution.log_prob(at_least_float32(self(x, known)), x)
        return torch.where(known, 0, each).flatten(1).sum(1)

    def _log_prob_in_order(self, x: Tensor, order: Tensor) -> Tensor:
        known = torch.zeros(x.shape, dtype=torch.bool, device=x.device)
        total = 0
        for index in order.tolist():
            parameters = at_least_float32(self(x, known).flatten(1, -2)[:, index])
            total = total + self.distribution.log_prob(parameters, x.flatten(1)[:, index])
            known = known.clone()
            known.view(len(x), -1)[:, index] = True
        return total

    def _log_prob_of_all_orders(self, x: Tensor) -> Tensor:
        """By the sets of known dimensions: f(S) = mean over i in S of f(S without i) p(x_i | S without i)."""
        D = self.n_dims
        if D > MOST_DIMENSIONS:
            raise ValueError(
                f"an example has {D} dimensions, and {D}! orders cannot be summed over; an order is expected "
                f"with more than {MOST_DIMENSIONS}. Pass order=, or bound the likelihood by elbo(x)."
            )
        log_f = {frozenset(): x.new_zeros(len(x), dtype=torch.float32)}
        terms: dict[frozenset, list[Tensor]] = {}
        for size in range(D):
            for chosen in map(frozenset, combinations(range(D), size)):
                known = torch.zeros(D, dtype=torch.bool, device=x.device)
                known[list(chosen)] = True
                parameters = at_least_float32(self(x, known.view(self.event_shape).expand(x.shape)))
                each = self.distribution.log_prob(parameters, x).flatten(1)  # (N, D)
                for i in set(range(D)) - chosen:
                    terms.setdefault(chosen | {i}, []).append(log_f[chosen] + each[:, i])
            log_f |= {
                chosen: torch.logsumexp(torch.stack(values), 0) - math.log(len(values))
                for chosen, values in terms.items()
            }
            terms.clear()
        return log_f[frozenset(range(D))]

    # --- sampling -------------------------------------------------------------------------------

    def sample(self, n: int, **options: object) -> Tensor:
        """Draw examples: as `complete` with nothing known.

        Args:
            n: number of examples.
            options: those of `complete`.

        Returns:
            Integer grey levels, int64, shape ``(n, *event_shape)``.
        """
        n = require_positive_integer(n, "n")
        x = torch.zeros(n, *self.event_shape, dtype=torch.int64, device=self.order.device)
        return self.complete(x, torch.zeros_like(x, dtype=torch.bool), **options)

    def sample_by_passes(
        self,
        n: int,
        *,
        generator: torch.Generator | None = None,
        labels: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Not for this model, of which no single pass gives the conditionals of one order.

        Args:
            n: not used.
            generator: not used.
            labels: not used.

        Raises:
            TypeError: always.
        """
        raise TypeError(
            "a MaskedDiffusion gives in a pass the conditionals of one set of known dimensions, not those "
            "of an order; a model with an order is expected. Call sample(n, at_once=…), which draws several "
            "dimensions in each pass."
        )

    def complete(
        self,
        x: Tensor,
        known: Tensor,
        *,
        generator: torch.Generator | None = None,
        cached: bool = True,
        labels: Tensor | None = None,
        order: Tensor | None = None,
        at_once: int = 1,
    ) -> Tensor:
        """As `Autoregressive.complete`, but each dimension given all known ones, wherever they lie.

        What is drawn changes every activation, so that `cached` is not used; nor is `labels`, since the model
        has no classes.

        Args:
            x: as there.
            known: as there.
            generator: as there.
            cached: not used.
            labels: not used.
            order: dimensions in the order in which they are generated, shape ``(D,)``, or ``(N, D)`` for
                each example its own; a random one for each example if None. Known ones are passed over.
            at_once: how many dimensions are drawn in one pass, independently of each other given those
                before. With more than 1, samples are not those of `log_prob` (``eq-parallel-cost``).

        Returns:
            Integer grey levels, int64, shape ``(N, *event_shape)``.
        """
        x, known = self._require_completion(x, known)
        require_generator(generator, self.order.device)
        n, D = len(x), self.n_dims
        require_labels(labels, n, None)
        at_once = require_positive_integer(at_once, "at_once")
        noise = self._noise(n, generator)
        if order is None:
            order = torch.rand(n, D, generator=generator, device=x.device).argsort(1)
        else:
            order = self._require_orders(order, n).expand(n, D)
        # For each example its unknown dimensions first, in the order in which they are drawn.
        given = known.flatten(1).gather(1, order)
        order = order.gather(1, given.long().argsort(dim=1, stable=True))
        # Rows of numbers, also where the images are views of others, or their channels come last.
        x, known = (part.clone(memory_format=torch.contiguous_format) for part in (x.long(), known))
        values, is_known = x.view(n, D), known.view(n, D)
        with evaluation_mode(self), torch.inference_mode(), without_autocast(noise):
            for start in range(0, int((~is_known).sum(1).max()), at_once):
                index = order[:, start : start + at_once]
                parameters = self(x, known).flatten(1, -2)  # (n, D, P)
                at = index.unsqueeze(-1).expand(-1, -1, parameters.shape[-1])
                parameters = parameters.gather(1, at).to(noise.dtype)
                drawn = self.distribution.quantile(parameters, noise.gather(1, index))
                # Where fewer are missing than in another example, some are known already.
                drawn = torch.where(is_known.gather(1, index), values.gather(1, index), drawn)
                values.scatter_(1, index, drawn)
                is_known.scatter_(1, index, True)
        return x

    def _require_orders(self, order: Tensor, n: int | None = None) -> Tensor:
        """Require orders of the dimensions, shape ``(D,)``, or ``(R, D)``, R = n if it is given."""
        require_tensor(order, "order")
        D, rows = self.n_dims, "R" if n is None else n
        if order.is_floating_point() or order.is_complex() or order.dtype == torch.bool:
            raise TypeError(
                f"order has dtype {order.dtype}; integers are expected, the dimensions 0 … {D - 1} in the "
                f"order in which they are generated."
            )
        order = order.to(self.order.device, torch.int64)
        several = order.dim() == 2 and order.shape[1] == D and 0 < len(order) == (n or len(order))
        fits = several or order.shape == (D,)
        if not fits or not (order.sort(-1).values == self.order.sort().values).all():
            raise ValueError(
                f"order has shape {tuple(order.shape)}; every dimension 0 … {D - 1} once is expected, shape "
                f"({D},) or ({rows}, {D}). Call torch.randperm({D})."
            )
        return order


def any_order_loss(model: MaskedDiffusion, batch: Batch, progress: Tensor) -> Tensor:
    """Minus the bound of a `MaskedDiffusion`, as `course_lib.training.fit` calls its losses.

    In training one mask for each example; in evaluation the mean of several.

    Source: equation ``eq-masked-diffusion``.

    Args:
        model: the model.
        batch: images, integer grey levels, shape ``(N, *event_shape)``; labels beside them are not used.
        progress: not used.

    Returns:
        Nats per image, 0-d.
    """
    x = batch[0] if isinstance(batch, tuple) else batch
    return -model._bound(x, 1 if model.training else EVALUATIONS).mean()
