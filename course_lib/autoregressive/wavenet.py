"""WaveNet: dilated causal convolutions over a one-dimensional signal."""

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from course_lib.autoregressive.base import Autoregressive
from course_lib.autoregressive.gated_pixelcnn import gated_unit
from course_lib.distributions import GreyLevels
from course_lib.inputs import require_dropout, require_positive_integer, require_widths
from course_lib.saved_settings import SavedSettings


class WaveNet(Autoregressive):
    """A stack of gated, dilated, causal convolutions with residual and skip connections.

    A kernel of k taps with dilation d reads the times t, t − d, …, t − (k−1)d. Doubling the
    dilation from layer to layer doubles the reach with each (``eq-wavenet-receptive-field``).

    Source: van den Oord et al., "WaveNet: a generative model for raw audio" (2016).

    Args:
        event_shape: ``(T,)``, the length of a signal.
        levels: number K of levels of the quantized signal.
        channels: number of features.
        dilations: dilation of each layer; if not given 1, 2, 4, … as far as the signal is long.
        kernel_size: number k of taps.
        dropout: share of features dropped in training.
        distribution: of one entry; if none is given, Bernoulli for two levels and categorical for
            more.

    Raises:
        ValueError: `event_shape` has other than one entry, or a kernel reaches beyond the signal.

    Example:
        >>> model = WaveNet((64,), 16, dilations=(1, 2, 4))
        >>> model.receptive_field
        8
    """

    def __init__(
        self,
        event_shape: Sequence[int],
        levels: int,
        *,
        channels: int = 32,
        dilations: Sequence[int] | None = None,
        kernel_size: int = 2,
        dropout: float = 0.0,
        distribution: GreyLevels | None = None,
    ) -> None:
        super().__init__(event_shape, levels, distribution)
        if len(self.event_shape) != 1:
            raise ValueError(
                f"event_shape is {self.event_shape}; (T,), the length of a signal, is expected."
            )
        channels = require_positive_integer(channels, "channels")
        kernel_size = require_positive_integer(kernel_size, "kernel_size")
        length = self.n_dims
        if dilations is None:
            dilations = [1]
            while receptive_field([*dilations, 2 * dilations[-1]], kernel_size) <= length:
                dilations.append(2 * dilations[-1])
        dilations = require_widths(dilations, "dilations")
        if not dilations:
            raise ValueError("dilations is empty; at least one layer is expected.")
        self.receptive_field = receptive_field(dilations, kernel_size)
        if self.receptive_field > max(length, kernel_size):
            raise ValueError(
                f"dilations are {tuple(dilations)}, which with {kernel_size} taps have a receptive field "
                f"of {self.receptive_field}; at most the {length} values of a signal are expected. Leave "
                f"layers out, or pass longer signals."
            )
        self.first = nn.Linear(1, channels)
        self.layers = nn.ModuleList(
            WaveNetLayer(channels, dilation, kernel_size, dropout) for dilation in dilations
        )
        self.hidden = nn.Conv1d(channels, channels, 1)
        self.output = nn.Conv1d(channels, self.distribution.n_parameters, 1)

    def forward(self, x: Tensor, labels: Tensor | None = None) -> Tensor:
        """Parameters of all conditionals, shape ``(N, T, P)``, for quantized signals `x`."""
        # Moved right by one: time t is predicted from the values before it, and time 0 from none.
        before = F.pad(self.encode(x), (1, 0))[:, :-1]
        h = self.first(before.unsqueeze(-1)).transpose(1, 2)  # (N, channels, T)
        skip = 0
        for layer in self.layers:
            h, to_skip = layer(h)
            skip = skip + to_skip
        return self.output(F.relu(self.hidden(F.relu(skip)))).transpose(1, 2)


def receptive_field(dilations: Sequence[int], kernel_size: int = 2) -> int:
    """Number of values that one output of a stack of causal convolutions reads.

    Source: equation ``eq-wavenet-receptive-field``.

    Args:
        dilations: dilation of each layer.
        kernel_size: number k of taps of each.

    Returns:
        1 + (k − 1) · Σ dilations.
    """
    return 1 + (kernel_size - 1) * sum(dilations)


class WaveNetLayer(SavedSettings):
    """One gated, dilated, causal convolution.

    Args:
        channels: number of features.
        dilation: distance of neighbouring taps.
        kernel_size: number of taps.
        dropout: share of features dropped in training.
    """

    def __init__(self, channels: int, dilation: int, kernel_size: int, dropout: float) -> None:
        super().__init__()
        self.dilation = dilation
        self.reach = dilation * (kernel_size - 1)
        self.gates = nn.Conv1d(channels, 2 * channels, kernel_size, dilation=dilation)
        self.outputs = nn.Conv1d(channels, 2 * channels, 1)  # residual and skip
        self.dropout = nn.Dropout(require_dropout(dropout))

    def settings(self) -> dict[str, object]:
        """What the weights' meaning depends on."""
        return {"dilation": self.dilation}

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Map ``(N, channels, T)`` to the next layer's input and a term of the skip sum."""
        gated = self.dropout(gated_unit(self.gates(F.pad(x, (self.reach, 0)))))
        residual, skip = self.outputs(gated).chunk(2, 1)
        return x + residual, skip
