"""What every autoregressive model shares: a likelihood in parallel, a sample in sequence.

By the chain rule (``eq-chain-rule``) an image's probability is a product of one conditional for
each dimension. A model of this package is a network that maps an image to the parameters of all
those conditionals at once, built so that the parameters of dimension i depend on the dimensions
before i alone. From that one property everything here follows:

* `Autoregressive.log_prob` needs one pass, because the whole image is known;
* `Autoregressive.sample` draws the dimensions one after another, because each is fed back;
* `Autoregressive.sample_by_passes` finds the same sample by passes over all dimensions at once.
"""

from collections.abc import Callable, Generator, Sequence
from functools import partial

import torch
from torch import Tensor

from course_lib.distributions import GreyLevels, default_output
from course_lib.fast import fast_path
from course_lib.inputs import (
    require_count,
    require_event_shape,
    require_generator,
    require_kind,
    require_labels,
    require_levels,
    require_positive_integer,
    require_shape,
    require_tensor,
)
from course_lib.networks import evaluation_mode
from course_lib.precision import at_least_float32, without_autocast
from course_lib.saved_settings import SavedSettings

# Ancestral sampling as a coroutine: yields (dimension, its parameters), is sent its values.
Steps = Generator[tuple[int, Tensor], Tensor, None]


class Autoregressive(SavedSettings):
    """Base of all autoregressive models.

    A subclass writes ``forward(x, labels)``, which returns the parameters of the distribution of
    every dimension, shape ``(N, *event_shape, P)``. For this method a fast sampler may be registered, see
    `course_lib.autoregressive.fast`.

    Args:
        event_shape: shape of one example, for images ``(C, H, W)``.
        levels: number K of grey levels; data are the integers 0 … K−1.
        distribution: of one entry; if none is given, Bernoulli for two levels and categorical for
            more.
        n_classes: number of classes, for a model of p(x|label); None for a model of p(x).

    Raises:
        ValueError: `event_shape` has no entries or one below 1; `levels` is below 2;
            `distribution` is one of another number of levels.
    """

    order: Tensor

    def __init__(
        self,
        event_shape: Sequence[int],
        levels: int,
        distribution: GreyLevels | None = None,
        n_classes: int | None = None,
    ) -> None:
        super().__init__()
        self.event_shape = require_event_shape(event_shape)
        levels = require_count(levels, "levels", at_least=2)
        distribution = default_output(levels) if distribution is None else distribution
        require_kind(distribution, GreyLevels, "distribution")
        if distribution.levels != levels:
            raise ValueError(
                f"distribution has {distribution.levels} levels and the model {levels}; the same number "
                f"is expected. Build the distribution with levels={levels}."
            )
        if n_classes is not None:
            n_classes = require_positive_integer(n_classes, "n_classes")
        self.levels = levels
        self.distribution = distribution
        self.n_classes = n_classes
        self.n_dims = int(torch.tensor(self.event_shape).prod())
        # Dimensions of the flattened example, in the order in which they are generated.
        self.register_buffer("order", torch.arange(self.n_dims), persistent=False)

    def settings(self) -> dict[str, object]:
        """What the weights' meaning depends on."""
        return {
            "event_shape": self.event_shape,
            "levels": self.levels,
            "distribution": self.distribution.label(),
            "n_classes": self.n_classes,
        }

    def log_prob(self, x: Tensor, labels: Tensor | None = None) -> Tensor:
        """Exact log-probability, in one pass of the network.

        Args:
            x: integer grey levels, shape ``(N, *event_shape)``.
            labels: classes, integers of shape ``(N,)``, if the model is conditional.

        Returns:
            log p(x), or log p(x|label), in nats, shape ``(N,)``.

        Raises:
            TypeError: `x` is not a tensor of an integer type.
            ValueError: `x` has another shape or levels outside 0 … K−1; or `labels` do not fit.
        """
        x = self._require_images(x)
        labels = require_labels(labels, len(x), self.n_classes)
        return self._nats(self(x, labels), x)

    def sample(
        self,
        n: int,
        *,
        generator: torch.Generator | None = None,
        cached: bool = True,
        labels: Tensor | None = None,
    ) -> Tensor:
        """Draw examples by ancestral sampling: each dimension given those drawn before it.

        Dropout is switched off while sampling, whatever mode the model is in.

        Args:
            n: number of examples.
            generator: source of the noise; the global one if none is given.
            cached: compute every activation once, if the model has such a sampler. False runs one
                full pass for every dimension: the reference, with the same result for the same noise.
            labels: classes, integers of shape ``(n,)``, if the model is conditional.

        Returns:
            Integer grey levels, int64, shape ``(n, *event_shape)``.

        Raises:
            ValueError: `n` is below 1, or `labels` do not fit.
        """
        n = require_positive_integer(n, "n")
        require_generator(generator, self.order.device)
        labels = require_labels(labels, n, self.n_classes)
        return self._generate(n, generator, cached, labels)

    def sample_by_passes(
        self,
        n: int,
        *,
        generator: torch.Generator | None = None,
        labels: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Draw the examples that `sample` draws from the same noise, all dimensions at once in each pass.

        For given noise the sample is the fixed point of drawing every dimension anew (``eq-fixed-point``).
        From black images on, pass t makes dimension t right (``eq-jacobi``), and usually many more. An
        image that a pass has not changed is the sample, and takes part in no further pass. There are fewer
        steps that wait for one another than in `sample`, and more arithmetic: each is a full pass.

        Source: Song et al., "Accelerating feedforward computation via parallel nonlinear equation solving"
        (2021).

        Args:
            n: number of examples.
            generator: source of the noise; the global one if none is given.
            labels: classes, integers of shape ``(n,)``, if the model is conditional.

        Returns:
            The examples, int64, shape ``(n, *event_shape)``; and how many passes each has taken until it
            was right, at most D, int64, shape ``(n,)``. One more pass finds that nothing changes.

        Raises:
            ValueError: `n` is below 1, or `labels` do not fit.
        """
        n = require_positive_integer(n, "n")
        require_generator(generator, self.order.device)
        labels = require_labels(labels, n, self.n_classes)
        return self._fixed_point(self._noise(n, generator), labels)

    def complete(
        self,
        x: Tensor,
        known: Tensor,
        *,
        generator: torch.Generator | None = None,
        cached: bool = True,
        labels: Tensor | None = None,
    ) -> Tensor:
        """Fill the unknown dimensions by ancestral sampling, and leave the known ones untouched.

        Each unknown dimension is drawn given all those before it, known or filled. What is known
        only *after* it in the order does not inform it: that would need p(x_i | all known
        dimensions), which no single pass of the model gives.

        Args:
            x: integer grey levels, shape ``(N, *event_shape)``; unknown entries are not read.
            known: True where `x` is given, bool of shape ``event_shape`` or
                ``(N, *event_shape)``.
            generator: source of the noise; the global one if none is given.
            cached: as in `sample`.
            labels: classes, integers of shape ``(N,)``, if the model is conditional.

        Returns:
            Integer grey levels, int64, shape ``(N, *event_shape)``.

        Raises:
            TypeError: `known` is not boolean, or `x` not of an integer type.
            ValueError: `known` has another shape, or `x` or `labels` do not fit.
        """
        x, known = self._require_completion(x, known)
        require_generator(generator, self.order.device)
        labels = require_labels(labels, len(x), self.n_classes)
        return self._generate(len(x), generator, cached, labels, x, known)

    def encode(self, x: Tensor) -> Tensor:
        """Grey levels as numbers for the network: 2x/(K−1) − 1, in [−1, 1].

        Zero, with which convolutions pad, then is not a grey level of a black or white pixel:
        the network can tell the outside of the image from a dark inside.
        """
        dtype = next(self.parameters()).dtype
        wide = torch.promote_types(dtype, torch.float32)  # bfloat16 does not hold the level 257
        return (x.to(wide) * (2 / (self.levels - 1)) - 1).to(dtype)

    def _generate(
        self,
        n: int,
        generator: torch.Generator | None,
        cached: bool,
        labels: Tensor | None,
        x: Tensor | None = None,
        known: Tensor | None = None,
    ) -> Tensor:
        noise = self._noise(n, generator)
        return self._run(self._steps(cached)(n, labels), noise, x, known)

    def _steps(self, cached: bool) -> Callable[..., Steps]:
        """What generates: the fast sampler of this ``forward`` if it is wanted and there, or full passes."""
        fast = fast_path(type(self).forward) if cached else None
        return self._naive if fast is None else partial(fast, self)

    def _noise(self, n: int, generator: torch.Generator | None) -> Tensor:
        """One uniform number for each dimension of each example, drawn before anything else."""
        parameter = next(self.parameters())
        # At 8 binary digits no level less probable than 1/256 would be drawn as often as it should.
        dtype = torch.promote_types(parameter.dtype, torch.float32)
        return torch.rand(n, self.n_dims, generator=generator, dtype=dtype, device=parameter.device)

    def _run(
        self, steps: Steps, noise: Tensor, x: Tensor | None = None, known: Tensor | None = None
    ) -> Tensor:
        """Drive a coroutine of steps: draw what it asks for, and send it back.

        Args:
            steps: the coroutine.
            noise: uniform numbers, shape ``(n, D)``.
            x: given values, shape ``(n, *event_shape)``, or None.
            known: where they hold, of the same shape, or None.
        """
        n = len(noise)
        prepared = self.distribution.prepare(noise).T.contiguous().unbind(0)  # D rows of n numbers
        given = None if x is None else x.flatten(1).T.to(torch.int64).contiguous()
        is_given = None if known is None else known.flatten(1).T.contiguous()
        drawn: list[Tensor | None] = [None] * self.n_dims
        # Samplers write into memory of the parameters' type, which autocast would not give.
        with evaluation_mode(self), torch.inference_mode(), without_autocast(noise):
            value = None
            while True:
                try:
                    index, parameters = steps.send(value)
                except StopIteration:
                    break
                parameters = parameters.to(noise.dtype)  # finer than that of a bf16 model
                value = self.distribution.quantile_prepared(parameters, prepared[index])
                if is_given is not None:
                    value = torch.where(is_given[index], given[index], value)
                drawn[index] = value
        # Stacked outside inference mode: the result may be trained on.
        return torch.stack(drawn, 1).view(n, *self.event_shape)

    def _fixed_point(
        self, noise: Tensor, labels: Tensor | None, **arguments: object
    ) -> tuple[Tensor, Tensor]:
        """The sample of some noise, shape ``(n, D)``, by parallel passes, and the number of them for each.

        Args:
            noise: uniform numbers.
            labels: classes, or None.
            arguments: further ones of ``forward``.
        """
        n = len(noise)
        prepared = self.distribution.prepare(noise).view(n, *self.event_shape)
        passes = torch.zeros(n, dtype=torch.int64, device=noise.device)
        x = torch.zeros(prepared.shape, dtype=torch.int64, device=noise.device)
        changing = torch.arange(n, device=noise.device)
        with evaluation_mode(self), torch.no_grad(), without_autocast(noise):
            for count in range(1, self.n_dims + 1):
                told = None if labels is None else labels[changing]
                parameters = self(x[changing], told, **arguments).to(noise.dtype)
                drawn = self.distribution.quantile_prepared(parameters, prepared[changing])
                changed = (drawn != x[changing]).flatten(1).any(1)
                changing, drawn = changing[changed], drawn[changed]
                if not len(changing):
                    break
                x[changing], passes[changing] = drawn, count
        return x, passes

    def _naive(self, n: int, labels: Tensor | None) -> Steps:
        """The reference: a full pass of the network for every dimension."""
        x = torch.zeros(n, *self.event_shape, dtype=torch.int64, device=self.order.device)
        for index in self.order.tolist():
            parameters = self(x, labels).flatten(1, -2)  # (n, D, P)
            x.view(n, -1)[:, index] = yield index, parameters[:, index]

    def _nats(self, parameters: Tensor, x: Tensor) -> Tensor:
        """Log-probability of each image, shape ``(N,)``, from the parameters of all conditionals."""
        # A sum of hundreds of terms needs more digits than the network does.
        return self.distribution.log_prob(at_least_float32(parameters), x).flatten(1).sum(1)

    def _require_images(self, x: Tensor) -> Tensor:
        x = require_levels(x, self.levels)
        require_shape(x, self.event_shape)
        return x

    def _require_completion(self, x: Tensor, known: Tensor) -> tuple[Tensor, Tensor]:
        """Images with zeros for what is not known, and where it is, of their shape."""
        require_tensor(known, "known")
        if known.dtype != torch.bool:
            raise TypeError(
                f"known has dtype {known.dtype}; a boolean mask is expected, True where x is given."
            )
        require_tensor(x)
        require_shape(x, self.event_shape)
        if tuple(known.shape) not in (self.event_shape, tuple(x.shape)):
            raise ValueError(
                f"known has shape {tuple(known.shape)}; {self.event_shape} or {tuple(x.shape)} is "
                f"expected, one entry for every dimension of an example."
            )
        known = known.expand(x.shape)
        return self._require_images(torch.where(known, x, torch.zeros_like(x))), known
