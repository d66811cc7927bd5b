"""What an invertible transform is, and how transforms are put together."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from course_lib.inputs import require_event_shape, require_floating, require_kind, require_shape
from course_lib.precision import at_least_float32
from course_lib.saved_settings import SavedSettings


class Transform(SavedSettings):
    r"""A differentiable bijection that knows its log-determinant.

    ``forward`` maps data to latents and ``inverse`` latents to data. Each returns the
    log-determinant of the map it computes, so that the two values at a pair :math:`z = f(x)` sum to
    zero. A subclass writes ``_forward`` and ``_inverse``; shapes and types are checked here. Numbers in
    half precision, as parameters too, are brought to float32: a rounded map is not a bijection.

    Args:
        event_shape: shape of one x.
        latent_shape: shape of one z, of as many entries; that of x by default.
    """

    def __init__(
        self, event_shape: Sequence[int], latent_shape: Sequence[int] | None = None
    ) -> None:
        super().__init__()
        self.event_shape = require_event_shape(event_shape)
        self.latent_shape = self.event_shape
        if latent_shape is not None:
            self.latent_shape = require_event_shape(latent_shape, "latent_shape")

    def settings(self) -> dict[str, object]:
        """What the weights' meaning depends on."""
        return {"event_shape": self.event_shape, "latent_shape": self.latent_shape}

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        r"""Map data to latents.

        Args:
            x: shape ``(N, *event_shape)``.

        Returns:
            z = f(x), shape ``(N, *latent_shape)``, and :math:`\log|\det \partial z/\partial x|`,
            shape ``(N,)``, in nats.

        Raises:
            TypeError: `x` is not of a floating-point type.
            ValueError: `x` has another shape.
        """
        require_floating(x)
        require_shape(x, self.event_shape)
        return self._forward(at_least_float32(x))

    def inverse(self, z: Tensor) -> tuple[Tensor, Tensor]:
        r"""Map latents to data.

        Args:
            z: shape ``(N, *latent_shape)``.

        Returns:
            x = f⁻¹(z), shape ``(N, *event_shape)``, and
            :math:`\log|\det \partial x/\partial z|`, shape ``(N,)``, in nats.

        Raises:
            TypeError: `z` is not of a floating-point type.
            ValueError: `z` has another shape.
        """
        require_floating(z, "z")
        require_shape(z, self.latent_shape, "z")
        return self._inverse(at_least_float32(z))

    def is_coarse(self, x: Tensor) -> Tensor | None:
        """Which examples of data are where numbers are too coarse to tell neighbouring latents apart.

        Args:
            x: shape ``(N, *event_shape)``.

        Returns:
            Boolean, shape ``(N,)``; None where that happens to no example.
        """
        return None

    def initialize(self, x: Tensor) -> Tensor:
        """Set what is to be set from a first batch of data, and return z for it.

        Most transforms have nothing to set; `course_lib.flow.ActNorm` does. Call it on the whole
        flow, once, before training.
        """
        with torch.no_grad():
            return self(x)[0]

    def _forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        raise NotImplementedError

    def _inverse(self, z: Tensor) -> tuple[Tensor, Tensor]:
        raise NotImplementedError


class Composition(Transform):
    """Transforms one after another, equation ``eq-flow-composition``: log-determinants add.

    Args:
        transforms: in the order in which data passes them; at least one, and each takes what the
            one before it gives.

    Raises:
        ValueError: there is none, or the shapes of neighbours do not fit.
    """

    def __init__(self, transforms: Sequence[Transform]) -> None:
        require_kind(transforms, Sequence, "transforms")
        if len(transforms) == 0:
            raise ValueError("transforms is empty; at least one transform is expected.")
        for transform in transforms:
            require_kind(transform, Transform, "an entry of transforms")
        for index in range(1, len(transforms)):
            given, taken = transforms[index - 1].latent_shape, transforms[index].event_shape
            if given != taken:
                raise ValueError(
                    f"transform {index - 1} gives shape {given} and transform {index} takes "
                    f"{taken}; equal shapes are expected. Build the second with "
                    f"event_shape={given}."
                )
        super().__init__(transforms[0].event_shape, transforms[-1].latent_shape)
        self.transforms = nn.ModuleList(transforms)

    def _forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        log_det = x.new_zeros(len(x))
        for transform in self.transforms:
            x, term = transform(x)
            log_det = log_det + term
        return x, log_det

    def _inverse(self, z: Tensor) -> tuple[Tensor, Tensor]:
        log_det = z.new_zeros(len(z))
        for transform in reversed(self.transforms):
            z, term = transform.inverse(z)
            log_det = log_det + term
        return z, log_det

    def is_coarse(self, x: Tensor) -> Tensor | None:
        """Which examples are so for the first transform, which reads the data."""
        return self.transforms[0].is_coarse(x)

    def initialize(self, x: Tensor) -> Tensor:
        """Initialize each transform on what the ones before it make of `x`."""
        for transform in self.transforms:
            x = transform.initialize(x)
        return x


class Inverse(Transform):
    """A transform used backwards: its ``inverse`` becomes ``forward``.

    Args:
        transform: what to turn around.
    """

    def __init__(self, transform: Transform) -> None:
        require_kind(transform, Transform, "transform")
        super().__init__(transform.latent_shape, transform.event_shape)
        self.transform = transform

    def _forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self.transform.inverse(x)

    def _inverse(self, z: Tensor) -> tuple[Tensor, Tensor]:
        return self.transform(z)
