"""Networks of an example and a time: what a diffusion model or a velocity is made of.

Each reads noised examples, one number of time for each (log SNR, or the time itself), and maybe classes.
A class may be left out: the network then has learned what holds without it, if it was trained so.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from course_lib.inputs import (
    require_batch,
    require_dropout,
    require_event_shape,
    require_labels,
    require_positive_integer,
    require_shape,
    require_widths,
)
from course_lib.precision import at_least_float32, in_type_of
from course_lib.saved_settings import SavedSettings

N_FREQUENCIES = 16
MOST_PLACES = 64 * 64  # that a block mixes, by a matrix with as many rows and columns


def fourier_features(value: Tensor, n_frequencies: int = N_FREQUENCIES) -> Tensor:
    """Sines and cosines of a number at frequencies from 1/8 to 8, in a geometric series.

    A perceptron hears a single number only dimly; from its waves it can tell close values apart.

    Args:
        value: numbers of a few units' size, such as log SNR, shape ``(N,)``.
        n_frequencies: how many.

    Returns:
        Features, shape ``(N, 2 · n_frequencies)``, at least float32: in half precision the phases would be
        another time's.
    """
    value = at_least_float32(value, "value")
    exponents = torch.linspace(-3, 3, n_frequencies, dtype=value.dtype, device=value.device)
    phase = value.unsqueeze(-1) * 2**exponents
    return torch.cat([phase.sin(), phase.cos()], -1)


class Conditioning(nn.Module):
    """The vector that a network is told of the time, or of several times, and of the class.

    Args:
        width: its size.
        n_classes: number of classes; none if None.
        n_times: numbers of time for each example.
    """

    def __init__(self, width: int, n_classes: int | None, n_times: int = 1) -> None:
        super().__init__()
        self.n_times = require_positive_integer(n_times, "n_times")
        self.n_classes = (
            None if n_classes is None else require_positive_integer(n_classes, "n_classes")
        )
        self.time = nn.Sequential(
            nn.Linear(2 * N_FREQUENCIES * self.n_times, width),
            nn.SiLU(),
            nn.Linear(width, width),
            nn.SiLU(),
        )
        if n_classes is not None:
            # One row more than classes: for examples without one.
            self.label = nn.Embedding(self.n_classes + 1, width)

    def forward(self, time: Tensor, labels: Tensor | None) -> Tensor:
        """Shape ``(N, width)``, from times and labels of shape ``(N,)``, or no labels.

        Several times for each example have the shape ``(N, n_times)``. The label ``n_classes`` stands for
        an example without a class.
        """
        features = fourier_features(time)
        features = features if self.n_times == 1 else features.flatten(1)
        told = self.time(in_type_of(self.time, features))
        if self.n_classes is None:
            require_labels(labels, len(time), None)
            return told
        if labels is None:
            labels = torch.full((len(time),), self.n_classes, device=time.device)
        return told + self.label(require_labels(labels, len(time), self.n_classes + 1))


class TimedNetwork(SavedSettings):
    """What the networks of this module share: their input, and what is checked of it.

    Args:
        event_shape: shape of one example.
        n_outputs: numbers for each entry of an example.
        n_classes: number of classes; none if None.
        width: size of the vector that tells of time and class.
        n_times: numbers of time for each example.
        n_inputs: numbers that are read for each entry; with more than one, examples have one more axis.
    """

    def __init__(
        self,
        event_shape: Sequence[int],
        n_outputs: int,
        n_classes: int | None,
        width: int,
        n_times: int = 1,
        n_inputs: int = 1,
    ) -> None:
        super().__init__()
        self.event_shape = require_event_shape(event_shape)
        self.n_inputs = require_positive_integer(n_inputs, "n_inputs")
        self.input_shape = self.event_shape if n_inputs == 1 else (*self.event_shape, n_inputs)
        self.n_outputs = require_positive_integer(n_outputs, "n_outputs")
        self.conditioning = Conditioning(width, n_classes, n_times)
        self.n_classes = self.conditioning.n_classes

    def settings(self) -> dict[str, object]:
        """What the weights' meaning depends on."""
        several = {} if self.n_inputs == 1 else {"n_inputs": self.n_inputs}
        return {"event_shape": self.event_shape, "n_outputs": self.n_outputs} | several

    def _told(self, x: Tensor, time: Tensor, labels: Tensor | None) -> Tensor:
        require_batch(x, self.input_shape)
        n_times = self.conditioning.n_times
        require_shape(time, () if n_times == 1 else (n_times,), "time")
        if len(time) != len(x):
            raise ValueError(
                f"time has {len(time)} entries for {len(x)} examples; {len(x)} are expected."
            )
        return self.conditioning(time, labels)


class TimedMLP(TimedNetwork):
    """A residual perceptron: each layer sees the flattened example, the time and the class.

    Args:
        event_shape: shape of one example.
        hidden: width of each hidden layer; all alike.
        n_outputs: numbers for each entry of an example.
        n_classes: number of classes; none if None.
        dropout: probability of dropping a hidden unit while training.
        n_times: numbers of time for each example, such as both ends of an interval.
        n_inputs: numbers that are read for each entry.

    Raises:
        ValueError: there is no hidden layer, or their widths differ.
    """

    def __init__(
        self,
        event_shape: Sequence[int],
        hidden: Sequence[int] = (256, 256, 256),
        *,
        n_outputs: int = 1,
        n_classes: int | None = None,
        dropout: float = 0.0,
        n_times: int = 1,
        n_inputs: int = 1,
    ) -> None:
        hidden = require_widths(hidden)
        if len(set(hidden)) != 1:
            raise ValueError(
                f"hidden is {hidden}; at least one width, all alike, is expected, because each layer adds "
                f"to the one before."
            )
        width = hidden[0]
        super().__init__(event_shape, n_outputs, n_classes, width, n_times, n_inputs)
        size = math.prod(self.event_shape)
        self.first = nn.Linear(size * self.n_inputs, width)
        self.layers = nn.ModuleList(nn.Linear(width, width) for _ in hidden)
        self.told = nn.ModuleList(nn.Linear(width, width) for _ in hidden)
        self.last = nn.Linear(width, size * self.n_outputs)
        self.dropout = nn.Dropout(require_dropout(dropout))
        nn.init.zeros_(self.last.weight)
        nn.init.zeros_(self.last.bias)

    def forward(self, x: Tensor, time: Tensor, labels: Tensor | None = None) -> Tensor:
        """Numbers for each entry.

        Args:
            x: noised examples, shape ``(N, *event_shape)``; ``(N, *event_shape, n_inputs)`` if several
                numbers are read for each entry.
            time: a number of time for each, shape ``(N,)``; several, shape ``(N, n_times)``.
            labels: classes, shape ``(N,)``, ``n_classes`` for none; None for none at all.

        Returns:
            Shape ``(N, *event_shape, n_outputs)``; without the last axis if there is one output.
        """
        told = self._told(x, time, labels)
        h = self.first(x.flatten(1))
        for layer, condition in zip(self.layers, self.told, strict=True):
            h = h + layer(self.dropout(nn.functional.silu(h + condition(told))))
        out = self.last(nn.functional.silu(h))
        shape = self.event_shape if self.n_outputs == 1 else (*self.event_shape, self.n_outputs)
        return out.unflatten(1, shape)


class MixedBlock(nn.Module):
    """A residual block: two 3×3 convolutions, and a linear map between all places.

    Convolutions see neighbours; the map sees the whole image at once, for each channel by itself, which on
    8×8 places costs less than attention and does as well.

    Args:
        channels: of input and output.
        places: number of places H·W that are mixed; none if None.
        width: size of the vector that tells of time and class.
        dropout: probability of dropping a unit while training.
    """

    def __init__(self, channels: int, places: int | None, width: int, dropout: float) -> None:
        super().__init__()
        self.scale = nn.Linear(width, 2 * channels)
        self.norm = nn.GroupNorm(1, channels)
        self.first = nn.Conv2d(channels, channels, 3, padding=1)
        self.last = nn.Conv2d(channels, channels, 3, padding=1)
        self.mix = None if places is None else nn.Linear(places, places)
        self.dropout = nn.Dropout(dropout)
        nn.init.zeros_(self.last.weight)
        nn.init.zeros_(self.last.bias)
        if self.mix is not None:
            nn.init.zeros_(self.mix.weight)
            nn.init.zeros_(self.mix.bias)

    def forward(self, h: Tensor, told: Tensor) -> Tensor:
        """From and to shape ``(N, channels, H, W)``."""
        scale, shift = self.scale(told)[:, :, None, None].chunk(2, 1)
        inner = self.norm(h) * (1 + scale) + shift
        if self.mix is not None:
            inner = inner + self.mix(inner.flatten(2)).view_as(inner)
        inner = self.first(nn.functional.silu(inner))
        return h + self.last(self.dropout(nn.functional.silu(inner)))


class TimedConvNet(TimedNetwork):
    """A small convolutional network of images: residual blocks with a map between all places.

    Sides above 8 are halved by convolutions of stride 2 until they are at most 8, or odd: 28 becomes 14,
    then 7. The blocks that mix places stand there; on the way back each side meets again what it was on the
    way down.

    Args:
        event_shape: shape ``(C, H, W)`` of one image.
        channels: of every hidden layer.
        n_blocks: blocks that mix places.
        n_outputs: numbers for each entry of an image.
        n_classes: number of classes; none if None.
        dropout: probability of dropping a unit while training.
        n_times: numbers of time for each example, such as both ends of an interval.
        n_inputs: numbers that are read for each entry.

    Raises:
        ValueError: the shape is not one of images, or of images with large odd sides.
    """

    def __init__(
        self,
        event_shape: Sequence[int],
        channels: int = 32,
        n_blocks: int = 3,
        *,
        n_outputs: int = 1,
        n_classes: int | None = None,
        dropout: float = 0.0,
        n_times: int = 1,
        n_inputs: int = 1,
    ) -> None:
        channels = require_positive_integer(channels, "channels")
        width = 4 * channels
        super().__init__(event_shape, n_outputs, n_classes, width, n_times, n_inputs)
        if len(self.event_shape) != 3:
            raise ValueError(
                f"event_shape is {self.event_shape}; (C, H, W) is expected. Use TimedMLP for vectors."
            )
        dropout = require_dropout(dropout)
        n_blocks = require_positive_integer(n_blocks, "n_blocks")
        colours, height, side = self.event_shape
        halvings = 0
        while height % 2 == 0 and side % 2 == 0 and max(height, side) > 8:
            height, side, halvings = height // 2, side // 2, halvings + 1
        if height * side > MOST_PLACES:
            raise ValueError(
                f"event_shape is {self.event_shape}, and a block would mix {height * side} places, since odd "
                f"sides are not halved; at most {MOST_PLACES} are expected. Pad the images to even sides."
            )
        self.first = nn.Conv2d(colours * self.n_inputs, channels, 3, padding=1)
        self.place = nn.Parameter(torch.zeros(channels, *self.event_shape[1:]))
        plain = [MixedBlock(channels, None, width, dropout) for _ in range(2 * halvings)]
        self.down, self.up = nn.ModuleList(plain[:halvings]), nn.ModuleList(plain[halvings:])
        self.shrink = nn.ModuleList(
            nn.Conv2d(channels, channels, 4, stride=2, padding=1) for _ in range(halvings)
        )
        self.enlarge = nn.ModuleList(
            nn.ConvTranspose2d(channels, channels, 4, stride=2, padding=1) for _ in range(halvings)
        )
        self.blocks = nn.ModuleList(
            MixedBlock(channels, height * side, width, dropout) for _ in range(n_blocks)
        )
        self.norm = nn.GroupNorm(1, channels)
        self.last = nn.Conv2d(channels, colours * self.n_outputs, 1)
        nn.init.zeros_(self.last.weight)
        nn.init.zeros_(self.last.bias)

    def forward(self, x: Tensor, time: Tensor, labels: Tensor | None = None) -> Tensor:
        """Numbers for each entry; see `TimedMLP.forward`."""
        told = self._told(x, time, labels)
        if self.n_inputs > 1:  # (N, C, H, W, I) → (N, C·I, H, W)
            x = x.movedim(-1, 2).flatten(1, 2)
        h = self.first(x) + self.place
        passed = []
        for block, shrink in zip(self.down, self.shrink, strict=True):
            h = block(h, told)
            passed.append(h)
            h = shrink(h)
        for block in self.blocks:
            h = block(h, told)
        for block, enlarge in zip(self.up, self.enlarge, strict=True):
            h = block(enlarge(h) + passed.pop(), told)
        out = self.last(nn.functional.silu(self.norm(h)))
        if self.n_outputs == 1:
            return out
        # (N, C·P, H, W) → (N, C, H, W, P)
        return out.unflatten(1, (self.event_shape[0], self.n_outputs)).movedim(2, -1)


def timed_network(
    event_shape: Sequence[int],
    hidden: Sequence[int],
    channels: int | None,
    n_blocks: int,
    n_outputs: int = 1,
    n_classes: int | None = None,
    dropout: float = 0.0,
    **sizes: int,
) -> TimedMLP | TimedConvNet:
    """The network that a model's arguments ask for: convolutional if `channels` are given, else a perceptron.

    Args:
        event_shape: shape of one example.
        hidden: widths of the perceptron's layers.
        channels: of the convolutional network; None for the perceptron.
        n_blocks: of the convolutional network.
        n_outputs: numbers for each entry of an example.
        n_classes: number of classes; none if None.
        dropout: probability of dropping a hidden unit while training.
        sizes: ``n_times`` and ``n_inputs``, if they are not 1.
    """
    options = {"n_outputs": n_outputs, "n_classes": n_classes, "dropout": dropout, **sizes}
    if channels is None:
        return TimedMLP(event_shape, hidden, **options)
    return TimedConvNet(event_shape, channels, n_blocks, **options)
