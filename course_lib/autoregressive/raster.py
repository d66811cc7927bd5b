"""Parts of the models that read an image row by row, pixel by pixel, colour by colour."""

from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from course_lib.autoregressive.base import Autoregressive, Steps
from course_lib.autoregressive.masks import pixelcnn_mask
from course_lib.distributions import GreyLevels
from course_lib.inputs import require_event_shape, require_positive_integer
from course_lib.saved_settings import SavedSettings


class MaskedConv2d(SavedSettings, nn.Conv2d):
    """A convolution that sees the past of raster order only, at stride 1 and constant size.

    The weight is stored whole and masked when it is used; rows below the centre, which the mask
    leaves nothing of, are not computed.

    Args:
        kind: ``"A"`` or ``"B"``, see `course_lib.autoregressive.masks.pixelcnn_mask`.
        in_channels: features read.
        out_channels: features written.
        kernel_size: width of the kernel, odd.
        n_colours: number of channels of the image.
        n_gates: number of gates that `out_channels` is made of.
        rows_above: rows of the kernel above the centre; half of `kernel_size` if not given.
    """

    mask: Tensor

    def __init__(
        self,
        kind: str,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        *,
        n_colours: int = 1,
        n_gates: int = 1,
        rows_above: int | None = None,
    ) -> None:
        out_channels = require_positive_integer(out_channels, "the number of channels")
        self.radius = kernel_size // 2
        self.rows_above = self.radius if rows_above is None else rows_above
        super().__init__(in_channels, out_channels, (self.rows_above + 1, kernel_size))
        self.kind, self.n_colours, self.n_gates = kind, n_colours, n_gates
        mask = pixelcnn_mask(
            kind, kernel_size, in_channels, out_channels, n_colours=n_colours, n_gates=n_gates
        )
        first = self.radius - self.rows_above
        mask = mask[:, :, first : self.radius + 1].to(self.weight.dtype)
        self.register_buffer("mask", mask, persistent=False)
        self.is_masked = not mask.all()  # a 1×1 kernel of kind B on a grey image hides nothing
        with torch.no_grad():  # the usual width of initial weights, for the inputs that are left
            self.weight *= (mask[0].numel() / mask.flatten(1).sum(1).clamp(min=1)).sqrt().mean()

    def settings(self) -> dict[str, object]:
        """What the mask, which is not in the state dict, depends on."""
        return {"kind": self.kind, "n_colours": self.n_colours, "n_gates": self.n_gates}

    def masked_weight(self) -> Tensor:
        """The weight in use, shape ``(out, in, rows_above + 1, kernel_size)``."""
        return self.weight * self.mask if self.is_masked else self.weight

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(N, in, H, W)`` to ``(N, out, H, W)``."""
        weight = self.masked_weight()
        # Padded where the past is, so that nothing has to be cut off afterwards.
        if self.rows_above:
            x = F.pad(x, (0, 0, self.rows_above, 0))
            return F.conv2d(x, weight, self.bias, padding=(0, self.radius))
        if self.radius:  # without rows above, nothing right of the centre is left either
            x, weight = F.pad(x, (self.radius, 0)), weight[..., : self.radius + 1]
        return F.conv2d(x, weight, self.bias)


class PixelwiseConv:
    """A `MaskedConv2d` evaluated one pixel at a time, each product computed once.

    What the rows above contribute is computed for a whole row at its beginning, as one
    convolution; what the left neighbours contribute, at each pixel, as one matrix product.

    Args:
        convolution: the layer.
        n: number of images.
        height: H.
        width: W.
    """

    def __init__(self, convolution: MaskedConv2d, n: int, height: int, width: int) -> None:
        weight, bias = convolution.masked_weight(), convolution.bias
        above, radius = convolution.rows_above, convolution.radius
        self.n, self.width, self.above, self.radius = n, width, above, radius
        self.weight_above, self.bias = weight[:, :, :above], bias
        # The last row of the kernel, up to its centre: (taps · in, out).
        self.taps = weight[:, :, above, : radius + 1].permute(2, 1, 0).flatten(0, 1).contiguous()
        # Without rows above, one row is enough: a window never reaches to the right, where the
        # row before has left its values.
        rows = above + height if above else 1
        self.inputs = weight.new_zeros(n, rows, width + 2 * radius, weight.shape[1])
        self.terms = [bias] * width
        self._take_row(above)

    def _take_row(self, row: int) -> None:
        """Prepare the views of a row of the inputs: calls on views are cheap, making them is not."""
        self.row = self.inputs[:, row]  # (n, W + 2·radius, in)
        self.slots = self.row[:, self.radius : self.radius + self.width].unbind(1)
        taps = self.radius + 1
        self.windows = [
            self.row[:, c : c + taps].view(len(self.inputs), -1) for c in range(self.width)
        ]

    def begin_row(self, row: int) -> None:
        """Compute what the rows above contribute to all pixels of `row`."""
        if self.above:
            self._take_row(self.above + row)
            rows = self.inputs[:, row : row + self.above].permute(0, 3, 1, 2)
            terms = F.conv2d(rows, self.weight_above, self.bias)  # (n, out, 1, W)
            self.terms = terms.squeeze(2).permute(2, 0, 1).contiguous().unbind(0)  # (n, out) each

    def put(self, column: int, value: Tensor) -> None:
        """Write the input at a pixel of the current row, shape ``(n, in)``."""
        self.slots[column].copy_(value)

    def pixel(self, column: int, out: Tensor | None = None) -> Tensor:
        """The output at a pixel of the current row, shape ``(n, out)``; written to `out` if given."""
        return torch.addmm(self.terms[column], self.windows[column], self.taps, out=out)


def input_taps(convolution: MaskedConv2d) -> Tensor:
    """Weights of a 1×k kernel from the left end to its centre, shape ``(k//2 + 1, in, out)``."""
    return convolution.masked_weight()[:, :, 0, : convolution.radius + 1].permute(2, 1, 0)


class Head(nn.Module):
    """From features to the distribution's parameters: two 1×1 convolutions, each after a ReLU.

    Args:
        channels: number of features.
        n_colours: number of channels C of the image.
        n_parameters: number P of parameters of the distribution.
    """

    def __init__(self, channels: int, n_colours: int, n_parameters: int) -> None:
        super().__init__()
        self.n_colours = n_colours
        self.hidden = MaskedConv2d("B", channels, channels, 1, n_colours=n_colours)
        self.output = MaskedConv2d("B", channels, n_colours * n_parameters, 1, n_colours=n_colours)

    def forward(self, features: Tensor) -> Tensor:
        """Map ``(N, channels, H, W)`` to ``(N, C, H, W, P)``."""
        parameters = self.output(F.relu(self.hidden(F.relu(features))))  # (N, C·P, H, W)
        return parameters.unflatten(1, (self.n_colours, -1)).movedim(2, -1)

    def pixelwise(self) -> "PixelwiseHead":
        """The same map for one pixel at a time."""
        return PixelwiseHead(self)


class PixelwiseHead:
    """A `Head` for one pixel at a time, as two matrix products."""

    def __init__(self, head: Head) -> None:
        self.n_colours = head.n_colours
        self.weights = [
            layer.masked_weight().flatten(1).T.contiguous() for layer in (head.hidden, head.output)
        ]
        self.biases = [head.hidden.bias, head.output.bias]

    def __call__(self, features: Tensor) -> Tensor:
        """Map ``(n, channels)`` to ``(n, C, P)``."""
        hidden = torch.addmm(self.biases[0], F.relu(features), self.weights[0]).relu_()
        parameters = torch.addmm(self.biases[1], hidden, self.weights[1])
        return parameters.view(len(parameters), self.n_colours, -1)


class PixelSampler(ABC):
    """What a model keeps while it generates images pixel by pixel."""

    @abstractmethod
    def begin_row(self, row: int) -> None:
        """Compute all that depends on the rows above only."""

    @abstractmethod
    def pixel(self, column: int) -> Tensor:
        """Parameters of a pixel of the current row, shape ``(n, C, P)``."""

    @abstractmethod
    def put(self, column: int, colour: int, value: Tensor) -> None:
        """Take in one colour of a pixel, encoded, shape ``(n,)``."""


class RasterModel(Autoregressive):
    """Base of the models of images in raster order: rows, then columns, then colours.

    A subclass writes ``forward`` and `pixel_sampler`.

    Args:
        event_shape: ``(C, H, W)``.
        levels: number K of grey levels.
        distribution: the output distribution.
        n_classes: number of classes of a conditional model.

    Raises:
        ValueError: `event_shape` is not that of an image.
    """

    def __init__(
        self,
        event_shape: Sequence[int],
        levels: int,
        distribution: GreyLevels | None = None,
        n_classes: int | None = None,
    ) -> None:
        if len(require_event_shape(event_shape)) != 3:
            raise ValueError(
                f"event_shape is {tuple(event_shape)}; (C, H, W) is expected. For a grey image "
                f"write (1, H, W)."
            )
        super().__init__(event_shape, levels, distribution, n_classes)
        colours_last = self.order.view(self.event_shape).permute(1, 2, 0)
        self.order = colours_last.flatten().contiguous()

    def pixel_sampler(self, n: int, labels: Tensor | None) -> PixelSampler:
        """The model's fast sampler for `n` images."""
        raise NotImplementedError

    def _cached(self, n: int, labels: Tensor | None) -> Steps:
        sampler = self.pixel_sampler(n, labels)
        colours, height, width = self.event_shape
        encoded = self.encode(torch.arange(self.levels, device=self.order.device))
        for row in range(height):
            sampler.begin_row(row)
            for column in range(width):
                for colour in range(colours):
                    # For each further colour the pixel is computed again: its features of that
                    # colour now see the one just drawn.
                    parameters = sampler.pixel(column)[:, colour]
                    value = yield (colour * height + row) * width + column, parameters
                    sampler.put(column, colour, encoded.index_select(0, value))


def first_kernel_size(kernel_size: int | None, event_shape: Sequence[int], default: int = 7) -> int:
    """The size of a first kernel: as given if it fits the image, else the default cut to fit.

    Args:
        kernel_size: what the caller asked for, or None.
        event_shape: ``(C, H, W)``.
        default: the size to take when none is given.

    Raises:
        ValueError: it is even or below 3, or reaches further than the image is large.
    """
    longest = max(event_shape[1:])
    if kernel_size is None:
        return max(3, min(default, 2 * longest - 1))
    kernel_size = require_positive_integer(kernel_size, "kernel_size")
    if kernel_size < 3 or kernel_size % 2 == 0:
        raise ValueError(
            f"kernel_size is {kernel_size}; an odd number of at least 3 is expected: the first "
            f"layer leaves its centre out, and would see nothing else."
        )
    if kernel_size // 2 >= longest:
        raise ValueError(
            f"kernel_size is {kernel_size}, and the image of {event_shape[1]}×{event_shape[2]} "
            f"pixels is smaller than its reach: the outer weights would never see a pixel. "
            f"Pass at most {max(3, 2 * longest - 1)}, leave it out, or use larger images."
        )
    return kernel_size
