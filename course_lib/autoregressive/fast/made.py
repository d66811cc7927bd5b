"""MADE's sampler: each hidden unit once, as soon as the last input it reads is known."""

import torch
from torch import Tensor

from course_lib.autoregressive.base import Steps
from course_lib.autoregressive.made import MADE
from course_lib.fast import register


@register(MADE.forward)
def steps(model: MADE, n: int, labels: Tensor | None, ordering: int = 0) -> Steps:
    """Each hidden unit once, as soon as the last input it reads is known.

    Units are sorted by degree, so those of one degree are a slice, and all they may read is
    a prefix of the layer before: one small matrix product per layer and dimension.
    """
    order = model.orderings[ordering]
    P = model.distribution.n_parameters
    first, *middle, last = model.masked_weights(ordering)
    first = first[:, order].contiguous()  # columns in the order of generation
    last = last.view(model.n_dims, P, -1)[order].contiguous()
    last_bias = model.linears[-1].bias.view(model.n_dims, P)[order]
    weights = [first, *middle]
    # ends[l][d]: number of units of layer l with a degree below d.
    degrees = [torch.arange(model.n_dims), *(d.cpu() for d in model.hidden_degrees)]
    places = torch.arange(model.n_dims + 1)
    ends = [torch.searchsorted(d, places).tolist() for d in degrees]
    layers = [first.new_zeros(n, len(d)) for d in degrees]  # inputs, then hidden layers
    for step, index in enumerate(order.tolist()):
        readable = ends[-1][step]
        value = yield (
            index,
            torch.addmm(last_bias[step], layers[-1][:, :readable], last[step, :, :readable].T),
        )
        layers[0][:, step] = model.encode(value)
        for k, (weight, linear) in enumerate(zip(weights, model.linears, strict=False)):
            start, end, known = ends[k + 1][step], ends[k + 1][step + 1], ends[k][step + 1]
            if start < end:
                h = torch.addmm(
                    linear.bias[start:end], layers[k][:, :known], weight[start:end, :known].T
                )
                layers[k + 1][:, start:end] = h.relu_()
