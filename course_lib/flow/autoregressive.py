"""Autoregressive flow: chapter 2 seen as a bijection, with a sampler that repeats no work."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from course_lib.flow.coupling import bounded, require_bound
from course_lib.flow.transform import Transform
from course_lib.inputs import require_dropout, require_widths
from course_lib.masked import MaskedLinear, made_masks, spread_degrees


class MaskedAutoregressive(Transform):
    r"""Standardize each entry by a mean and a scale computed from the entries before it.

    .. math:: z_i = (x_i - \mu_i(x_{<i}))\, e^{-\alpha_i(x_{<i})}

    (``eq-maf``), in the order of the flattened event. One pass of a masked network gives all
    :math:`\mu_i, \alpha_i`, so x → z is parallel, with log-determinant :math:`-\sum_i \alpha_i`.
    z → x must find the entries one after another; without gradients each hidden unit is computed
    once, as soon as the entries it sees are known, which costs about one pass in all instead of D.
    Source: Papamakarios, Pavlakou and Murray (2017), "Masked Autoregressive Flow".

    Args:
        event_shape: shape of one x.
        hidden: width of each hidden layer, at least one.
        bound: largest absolute value of α.
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
        super().__init__(event_shape)
        hidden = require_widths(hidden)
        if len(hidden) == 0:
            raise ValueError("hidden is empty; at least one hidden layer is expected.")
        require_bound(bound)
        self.features = math.prod(self.event_shape)
        self.bound = bound
        inputs = torch.arange(self.features)
        # Sorted degrees: what is known after i entries is a prefix of every hidden layer.
        self.degrees = [spread_degrees(self.features, width) for width in hidden]
        # The means of all entries, then their log-scales.
        *masks, last = made_masks(inputs, self.degrees, inputs.repeat(2))
        self.layers = nn.ModuleList(MaskedLinear(mask) for mask in masks)
        self.layers.append(MaskedLinear(last, staircases=2))
        self.dropout = nn.Dropout(require_dropout(dropout))
        self.steps = self._steps()
        # How many entries, and how many units of every layer, each step computes.
        known = torch.tensor([[stop, *counts] for stop, counts in self.steps])
        self.sizes = known.diff(dim=0, prepend=torch.zeros_like(known[:1])).T.tolist()
        nn.init.zeros_(self.layers[-1].weight)  # starts as the identity
        nn.init.zeros_(self.layers[-1].bias)

    def settings(self) -> dict[str, object]:
        """What the weights' meaning depends on."""
        return {**super().settings(), "bound": self.bound}

    def law(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return means μ and log-scales α of every entry given those before it.

        Args:
            x: flattened, shape ``(N, D)``.

        Returns:
            μ and α, both of shape ``(N, D)``; column i depends on columns before i only.
        """
        hidden = x
        for layer in self.layers[:-1]:
            hidden = self.dropout(layer(hidden).relu_())
        # Under autocast the network has rounded; the map and its determinant must not.
        mean, raw = self.layers[-1](hidden).to(x.dtype).chunk(2, 1)
        return mean, bounded(raw, self.bound)

    def _forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        x = x.flatten(1)
        mean, log_scale = self.law(x)
        log_slope = -log_scale
        z = (x - mean) * log_slope.exp()
        return z.unflatten(1, self.event_shape), log_slope.sum(1)

    def _inverse(self, z: Tensor) -> tuple[Tensor, Tensor]:
        needs_gradient = torch.is_grad_enabled() and (
            z.requires_grad or any(p.requires_grad for p in self.parameters())
        )
        dropping = self.training and self.dropout.p > 0
        # What the network rounds under autocast depends on the products it makes: on the very same.
        kind = z.device.type
        rounding = torch.amp.is_autocast_available(kind) and torch.is_autocast_enabled(kind)
        plain = needs_gradient or dropping or rounding
        solve = self.solve_by_passes if plain else self.solve_once
        x, log_det = solve(z.flatten(1))
        return x.unflatten(1, self.event_shape), log_det

    def solve_by_passes(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """Invert with D passes of the network, each of which fixes one more entry.

        The plain way, and differentiable: what `solve_once` is checked against.

        Args:
            z: flattened, shape ``(N, D)``.

        Returns:
            x, shape ``(N, D)``, and the log-determinant of z → x, shape ``(N,)``.
        """
        known = z[:, :0]
        log_scales = []
        for i in range(self.features):
            # Zeros stand for what is not known yet; the masks keep them from being seen.
            mean, log_scale = self.law(torch.cat([known, torch.zeros_like(z[:, i:])], 1))
            new = z[:, i] * log_scale[:, i].exp() + mean[:, i]
            known = torch.cat([known, new[:, None]], 1)
            log_scales.append(log_scale[:, i])
        return known, torch.stack(log_scales, 1).sum(1)

    @torch.no_grad()
    def solve_once(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """Invert computing every hidden unit once, when the entries it sees are known.

        Units of equal degree are computed together, and so are the entries between two degrees,
        which depend on the same units.

        Args:
            z: flattened, shape ``(N, D)``.

        Returns:
            x, shape ``(N, D)``, and the log-determinant of z → x, shape ``(N,)``. No gradients.
        """
        with torch.inference_mode():  # views are made faster in it
            x, log_det = self._solve_once(z)
        return x.clone(), log_det.clone()  # ordinary tensors again

    def _solve_once(self, z: Tensor) -> tuple[Tensor, Tensor]:
        weights = [layer.masked_weight().to(z.dtype) for layer in self.layers]
        biases = [layer.bias.to(z.dtype) for layer in self.layers]
        # The outputs of entry i, its mean and its log-scale, become neighbours: rows 2i and 2i + 1.
        neighbours = torch.arange(2 * self.features, device=z.device).view(2, -1).T.flatten()
        weights[-1], biases[-1] = weights[-1][neighbours], biases[-1][neighbours]
        # Units are rows here, so that a prefix of a layer is a contiguous block. Each starts at
        # its bias; the matrix products are added to it.
        units = [bias[:, None].repeat(1, len(z)) for bias in biases]
        *hidden, outputs = units
        z = z.T.contiguous()
        x = torch.empty_like(z)  # (D, N)
        # All views that a step needs, made at once: what is known before it, and its own rows.
        sizes, *widths = self.sizes
        means, log_scales = (outputs[part::2].split(sizes) for part in (0, 1))
        rows = outputs.split([2 * size for size in sizes])
        row_weights = weights[-1].split([2 * size for size in sizes])
        blocks = [h.split(width) for h, width in zip(hidden, widths, strict=True)]
        block_weights = [w.split(width) for w, width in zip(weights, widths, strict=False)]
        z_parts, x_parts = z.split(sizes), x.split(sizes)
        filled = 0  # units of the last hidden layer computed so far
        for step, (stop, counts) in enumerate(self.steps):
            # The step's entries see exactly the units computed so far.
            rows[step].addmm_(
                row_weights[step].narrow(1, 0, filled), hidden[-1].narrow(0, 0, filled)
            )
            raw = log_scales[step]
            log_scale = raw.div_(self.bound).tanh_().mul_(self.bound)  # `bounded`, in place
            torch.addcmul(means[step], z_parts[step], log_scale.exp(), out=x_parts[step])
            # Now the units that see these entries, but none after them.
            below, seen = x, stop
            for layer, count in enumerate(counts):
                block_weight = block_weights[layer][step].narrow(1, 0, seen)
                blocks[layer][step].addmm_(block_weight, below.narrow(0, 0, seen)).relu_()
                below, seen = hidden[layer], count
            filled = counts[-1]
        return x.T.contiguous(), outputs[1::2].sum(0)

    def _steps(self) -> list[tuple[int, list[int]]]:
        """After each step: how many entries are known, and how many units of every layer."""
        # Units of degree d see entries 0 … d and are computed with entry d; the last one has none.
        lasts = torch.cat(self.degrees).unique()
        counts = [
            torch.searchsorted(degrees, lasts, right=True).tolist() for degrees in self.degrees
        ]
        stops = (lasts + 1).tolist()
        steps = [(stop, list(row)) for stop, *row in zip(stops, *counts, strict=True)]
        if stops[-1] < self.features:
            steps.append((self.features, [len(degrees) for degrees in self.degrees]))
        return steps
