"""FVSBN: the fully visible sigmoid belief network, one logistic regression per dimension."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from course_lib.autoregressive.base import Autoregressive
from course_lib.distributions import GreyLevels
from course_lib.fast import prepared
from course_lib.masked import made_mask, masked_linear


class FVSBN(Autoregressive):
    """Each dimension by a generalized linear model of those before it.

    parameters_i = b_i + Σ_{j<i} W_ij x_j, with a strictly triangular W.

    Source: Frey, Hinton and Dayan, "Does the wake-sleep algorithm produce good density
    estimators?" (1996).

    Args:
        event_shape: shape of one example; its dimensions are generated in the order of the
            flattened tensor.
        levels: number K of grey levels.
        distribution: of one entry; if none is given, Bernoulli for two levels and categorical for
            more.

    Example:
        >>> model = FVSBN((1, 4, 4), 2)
        >>> model.log_prob(model.sample(3)).shape
        torch.Size([3])
    """

    mask: Tensor

    def __init__(
        self, event_shape: Sequence[int], levels: int, *, distribution: GreyLevels | None = None
    ) -> None:
        super().__init__(event_shape, levels, distribution)
        n_parameters = self.distribution.n_parameters
        degrees = torch.arange(self.n_dims)
        mask = made_mask(degrees, degrees.repeat_interleave(n_parameters), strict=True)
        self.known = prepared(masked_linear, mask)
        mask = mask.to(torch.get_default_dtype())
        self.register_buffer("mask", mask, persistent=False)  # (D·P, D)
        self.weight = nn.Parameter(torch.randn_like(mask) * 0.01)
        self.bias = nn.Parameter(torch.zeros(len(mask)))

    def forward(self, x: Tensor, labels: Tensor | None = None) -> Tensor:
        """Parameters of all conditionals, shape ``(N, *event_shape, P)``, for grey levels `x`."""
        h = self.encode(x).flatten(1)
        parameters = masked_linear(h, self.weight, self.mask, self.bias, self.known)
        return parameters.view(len(x), *self.event_shape, self.distribution.n_parameters)
