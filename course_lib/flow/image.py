"""Transforms of images: squeeze, permutation, invertible 1×1 convolution, multi-scale factoring out."""

import math
from collections.abc import Callable, Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from course_lib.flow.elementwise import preprocessing
from course_lib.flow.transform import Composition, Transform
from course_lib.inputs import (
    require_image_shape,
    require_kind,
    require_levels,
    require_positive_integer,
)
from course_lib.precision import at_least_float32, without_autocast


class Squeeze(Transform):
    """Trade space for channels: each 2×2 square of pixels becomes 4 channels of one pixel.

    Entries only move: the log-determinant is 0.

    Args:
        event_shape: shape ``(C, H, W)`` of one x, with H and W even.

    Raises:
        ValueError: not an image, or a side is odd.
    """

    def __init__(self, event_shape: Sequence[int]) -> None:
        advice = "Pad or crop the images, or use fewer scales."
        channels, height, width = require_image_shape(event_shape, multiple=2, advice=advice)
        super().__init__(event_shape, (4 * channels, height // 2, width // 2))

    def _forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return F.pixel_unshuffle(x, 2), x.new_zeros(len(x))

    def _inverse(self, z: Tensor) -> tuple[Tensor, Tensor]:
        return F.pixel_shuffle(z, 2), z.new_zeros(len(z))


class Permutation(Transform):
    """Reorder the entries, in the order of the flattened event; the log-determinant is 0.

    Args:
        event_shape: shape of one x.
        order: entry i of z is entry ``order[i]`` of x; reversed by default.

    Raises:
        ValueError: `order` is not a permutation of the entries.
    """

    def __init__(self, event_shape: Sequence[int], order: Tensor | None = None) -> None:
        super().__init__(event_shape)
        size = math.prod(self.event_shape)
        order = torch.arange(size - 1, -1, -1) if order is None else order
        require_levels(order, size, "order")
        if order.shape != (size,) or not torch.equal(order.sort().values, torch.arange(size)):
            raise ValueError(
                f"order has shape {tuple(order.shape)}; each of 0 … {size - 1} once is expected. "
                f"Draw one with torch.randperm({size})."
            )
        self.register_buffer("order", order)
        self.register_buffer("back", order.argsort())
        self.follow_buffers()

    def follow_buffers(self) -> None:
        """See whether the order is reversed, for which there is a faster way."""
        self.reverses = bool((self.order.diff() == -1).all())

    def _forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self._reorder(x, self.order)

    def _inverse(self, z: Tensor) -> tuple[Tensor, Tensor]:
        return self._reorder(z, self.back)

    def _reorder(self, x: Tensor, order: Tensor) -> tuple[Tensor, Tensor]:
        flat = x.flatten(1)
        # The gradient of a reversal is one; that of a selection is a sum over indices.
        y = flat.flip(1) if self.reverses else flat.index_select(1, order)
        return y.unflatten(1, self.event_shape), x.new_zeros(len(x))


class Invertible1x1Convolution(Transform):
    r"""Mix the channels of every pixel by one matrix W: a learned permutation.

    W = P L (U + diag(±exp(s))) with a fixed permutation P, L unit lower and U strictly upper
    triangular, so :math:`\log|\det| = H W \sum_i s_i`, equation ``eq-glow-logdet``, costs O(C), and
    no inverse matrix is formed. W starts as a random rotation. Source: Kingma and Dhariwal (2018),
    "Glow", section 3.2.

    Args:
        event_shape: shape ``(C, H, W)`` of one x.
    """

    def __init__(self, event_shape: Sequence[int]) -> None:
        super().__init__(event_shape)
        channels = event_shape[0]
        rotation = torch.linalg.qr(torch.randn(channels, channels))[0]
        permutation, lower, upper = torch.linalg.lu(rotation)
        diagonal = upper.diagonal()
        self.lower = nn.Parameter(lower.tril(-1))
        self.upper = nn.Parameter(upper.triu(1))
        self.log_diagonal = nn.Parameter(diagonal.abs().log())
        self.register_buffer("permutation", permutation)
        self.register_buffer("sign", diagonal.sign())

    def factors(self) -> tuple[Tensor, Tensor]:
        """Return L, unit lower triangular, and U with its diagonal, both ``(C, C)``."""
        lower, upper, log_diagonal = map(
            at_least_float32, (self.lower, self.upper, self.log_diagonal)
        )
        identity = torch.eye(len(lower), dtype=lower.dtype, device=lower.device)
        diagonal = torch.diag(self.sign * log_diagonal.exp())
        return lower.tril(-1) + identity, upper.triu(1) + diagonal

    def weight(self) -> Tensor:
        """Return the matrix W, shape ``(C, C)``."""
        lower, upper = self.factors()
        return self.permutation.to(lower.dtype) @ lower @ upper

    def _forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        with without_autocast(x):
            z = self.weight().to(x.dtype) @ x.flatten(2)  # (C, C) @ (N, C, H·W)
        return z.reshape(x.shape), self._log_det(x)

    def _inverse(self, z: Tensor) -> tuple[Tensor, Tensor]:
        lower, upper = (factor.to(z.dtype) for factor in self.factors())
        with without_autocast(z):
            x = self.permutation.T.to(z.dtype) @ z.flatten(2)
        x = torch.linalg.solve_triangular(lower, x, upper=False, unitriangular=True)
        x = torch.linalg.solve_triangular(upper, x, upper=True)
        return x.reshape(z.shape), -self._log_det(z)

    def _log_det(self, x: Tensor) -> Tensor:
        _, height, width = self.event_shape
        return (height * width * at_least_float32(self.log_diagonal).sum()).expand(len(x))


class MultiScale(Transform):
    """Stages between which half of the channels leave for the latent vector.

    What leaves early is not transformed further: coarse structure goes through all stages, fine
    detail through few. Source: Dinh, Sohl-Dickstein and Bengio (2017), section 3.6.

    Args:
        stages: each takes the shape that the one before it leaves: its latent shape with half
            the channels.

    Raises:
        ValueError: there is no stage, a stage leaves an odd number of channels, or neighbours do
            not fit.
    """

    def __init__(self, stages: Sequence[Transform]) -> None:
        require_kind(stages, Sequence, "stages")
        if len(stages) == 0:
            raise ValueError("stages is empty; at least one transform is expected.")
        for stage in stages:
            require_kind(stage, Transform, "an entry of stages")
        for index, (stage, following) in enumerate(pairwise(stages)):
            left = _passed_on(stage)
            if stage.latent_shape[0] % 2 or following.event_shape != left:
                raise ValueError(
                    f"of stages, {index} gives shape {stage.latent_shape} and {index + 1} takes "
                    f"{following.event_shape}; half of an even number of channels is expected next, "
                    f"{left}. Build the next stage with that event_shape."
                )
        size = math.prod(stages[0].event_shape)
        super().__init__(stages[0].event_shape, (size,))
        self.stages = nn.ModuleList(stages)

    def _forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        latents, log_det = [], x.new_zeros(len(x))
        for stage in self.stages[:-1]:
            x, term = stage(x)
            x, leaving = x.chunk(2, 1)
            latents.append(leaving.flatten(1))
            log_det = log_det + term
        x, term = self.stages[-1](x)
        return torch.cat([*latents, x.flatten(1)], 1), log_det + term

    def _inverse(self, z: Tensor) -> tuple[Tensor, Tensor]:
        shapes = [*map(_passed_on, self.stages[:-1]), self.stages[-1].latent_shape]
        parts = z.split([math.prod(shape) for shape in shapes], 1)
        *latents, last = [p.unflatten(1, s) for p, s in zip(parts, shapes, strict=True)]
        x, log_det = self.stages[-1].inverse(last)
        for stage, leaving in zip(reversed(self.stages[:-1]), reversed(latents), strict=True):
            x, term = stage.inverse(torch.cat([x, leaving], 1))
            log_det = log_det + term
        return x, log_det

    def is_coarse(self, x: Tensor) -> Tensor | None:
        """Which examples are so for the first stage, which reads the data."""
        return self.stages[0].is_coarse(x)

    def initialize(self, x: Tensor) -> Tensor:
        """Initialize each stage on what the ones before it leave of `x`."""
        left = x
        for stage in self.stages[:-1]:
            left = stage.initialize(left).chunk(2, 1)[0]
        self.stages[-1].initialize(left)
        return super().initialize(x)


def scale_by_scale(
    event_shape: Sequence[int],
    scales: int,
    layers_at: Callable[[tuple[int, ...]], Sequence[Transform]],
    logit_margin: float | None = None,
) -> MultiScale:
    """Build the stages of a multi-scale flow, each for the shape that the one before it leaves.

    Args:
        event_shape: shape ``(C, H, W)`` of one image.
        scales: number of stages.
        layers_at: makes the layers of one stage, for the shape of what arrives there.
        logit_margin: margin of a `course_lib.flow.Logit` before all, or None.

    Raises:
        TypeError: `scales` is not an integer.
        ValueError: `scales` is below 1, or a stage cannot be made for the shape that arrives.
    """
    scales = require_positive_integer(scales, "scales")
    before, shape = preprocessing(event_shape, logit_margin), tuple(event_shape)
    stages = []
    for _ in range(scales):
        stages.append(Composition([*before, *layers_at(shape)]))
        shape, before = _passed_on(stages[-1]), []
    return MultiScale(stages)


def _passed_on(stage: Transform) -> tuple[int, ...]:
    """The shape of the half of the channels that the next stage gets."""
    channels, *sides = stage.latent_shape
    return (channels // 2, *sides)
