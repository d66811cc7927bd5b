"""Autoregressive flow: chapter 2 seen as a bijection."""

import math
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn

from course_lib.fast import fast_path
from course_lib.flow.coupling import bounded, require_bound
from course_lib.flow.image import Permutation
from course_lib.flow.transform import Inverse, Transform
from course_lib.inputs import require_count, require_dropout, require_widths
from course_lib.masked import MaskedLinear, made_masks, spread_degrees


class AutoregressiveTransform(Transform):
    r"""Standardize each entry by a mean and a scale computed from the entries before it.

    .. math:: z_i = (x_i - \mu_i(x_{<i}))\, e^{-\alpha_i(x_{<i})}

    (``eq-maf``), in the order of the flattened event. One pass of a network that sees the past only gives
    all :math:`\mu_i, \alpha_i`, so x → z is parallel, with log-determinant :math:`-\sum_i \alpha_i`.
    z → x must find the entries one after another, by D passes; or quicker, if a fast path is registered for
    the method `conditionals` of a subclass.
    Source: Papamakarios, Pavlakou and Murray (2017), "Masked Autoregressive Flow".

    Args:
        event_shape: shape of one x.
        bound: largest absolute value of α.

    Raises:
        ValueError: `bound` is not positive.
    """

    def __init__(self, event_shape: Sequence[int], *, bound: float) -> None:
        super().__init__(event_shape)
        require_bound(bound)
        self.features = math.prod(self.event_shape)
        self.bound = bound

    def settings(self) -> dict[str, object]:
        """What the weights' meaning depends on."""
        return {**super().settings(), "bound": self.bound}

    def conditionals(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return means μ and log-scales α of every entry given those before it.

        Args:
            x: flattened, shape ``(N, D)``.

        Returns:
            μ and α, both of shape ``(N, D)``; column i depends on columns before i only.
        """
        raise NotImplementedError

    def _forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        x = x.flatten(1)
        mean, log_scale = self.conditionals(x)
        log_slope = -log_scale
        z = (x - mean) * log_slope.exp()
        return z.unflatten(1, self.event_shape), log_slope.sum(1)

    def _inverse(self, z: Tensor) -> tuple[Tensor, Tensor]:
        solve = fast_path(type(self).conditionals) or AutoregressiveTransform.solve_by_passes
        x, log_det = solve(self, z.flatten(1))
        return x.unflatten(1, self.event_shape), log_det

    def solve_by_passes(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """Invert with D passes of the network, each of which fixes one more entry.

        Args:
            z: flattened, shape ``(N, D)``.

        Returns:
            x, shape ``(N, D)``, and the log-determinant of z → x, shape ``(N,)``.
        """
        known = z[:, :0]
        log_scales = []
        for i in range(self.features):
            # Zeros stand for what is not known yet; the masks keep them from being seen.
            mean, log_scale = self.conditionals(torch.cat([known, torch.zeros_like(z[:, i:])], 1))
            new = z[:, i] * log_scale[:, i].exp() + mean[:, i]
            known = torch.cat([known, new[:, None]], 1)
            log_scales.append(log_scale[:, i])
        return known, torch.stack(log_scales, 1).sum(1)


class MaskedAutoregressive(AutoregressiveTransform):
    """An autoregressive layer whose network is a masked perceptron, as in MADE.

    Source: Papamakarios, Pavlakou and Murray (2017), "Masked Autoregressive Flow".

    Args:
        event_shape: shape of one x.
        hidden: width of each hidden layer, at least one.
        bound: largest absolute value of a log-scale α.
        dropout: probability of dropping a hidden unit while training.

    Raises:
        ValueError: `hidden` is empty, or `bound` is not positive.
    """

    def __init__(
        self,
        event_shape: Sequence[int],
        hidden: Sequence[int] = (64, 64),
        *,
        bound: float = 3.0,
        dropout: float = 0.0,
    ) -> None:
        super().__init__(event_shape, bound=bound)
        hidden = require_widths(hidden)
        if len(hidden) == 0:
            raise ValueError("hidden is empty; at least one hidden layer is expected.")
        inputs = torch.arange(self.features)
        degrees = [spread_degrees(self.features, width) for width in hidden]
        # The outputs are the means of all entries, then their log-scales.
        masks = made_masks(inputs, degrees, inputs.repeat(2))
        self.layers = nn.ModuleList(MaskedLinear(mask) for mask in masks)
        self.dropout = nn.Dropout(require_dropout(dropout))
        nn.init.zeros_(self.layers[-1].weight)  # starts as the identity
        nn.init.zeros_(self.layers[-1].bias)

    def conditionals(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """See `AutoregressiveTransform.conditionals`."""
        hidden = x
        for layer in self.layers[:-1]:
            hidden = self.dropout(layer(hidden).relu_())
        # Under autocast the network has rounded; the map and its determinant must not.
        mean, raw = self.layers[-1](hidden).to(x.dtype).chunk(2, 1)
        return mean, bounded(raw, self.bound)


def autoregressive_layers(
    event_shape: Sequence[int],
    layers: int,
    hidden: Sequence[int],
    *,
    bound: float,
    dropout: float,
    inverse: bool,
) -> Iterator[Transform]:
    """The layers of a masked autoregressive flow, or, each turned around, of an inverse one.

    Args:
        event_shape: shape of one x.
        layers: number of autoregressive layers, with the order of the entries reversed in between.
        hidden: width of each hidden layer of a layer's network.
        bound: largest absolute value of a log-scale.
        dropout: probability of dropping a hidden unit while training.
        inverse: turn each layer around.
    """
    for index in range(require_count(layers, "layers")):
        if index:
            yield Permutation(event_shape)
        layer = MaskedAutoregressive(event_shape, hidden, bound=bound, dropout=dropout)
        yield Inverse(layer) if inverse else layer
