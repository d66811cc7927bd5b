"""WaveNet's sampler: each layer keeps its past inputs, and computes one new output per time."""

import torch
import torch.nn.functional as F
from torch import Tensor

from course_lib.autoregressive.base import Steps
from course_lib.autoregressive.gated_pixelcnn import gated_unit
from course_lib.autoregressive.wavenet import WaveNet, WaveNetLayer
from course_lib.fast import register


@register(WaveNet.forward)
def steps(model: WaveNet, n: int, labels: Tensor | None) -> Steps:
    """Each layer keeps its past inputs, and computes one new output per time.

    One value needs one step of each layer, whatever the receptive field is.
    """
    pasts = [
        model.first.weight.new_zeros(model.n_dims + layer.reach, n, model.first.out_features)
        for layer in model.layers
    ]
    hidden, output = (
        (layer.weight.squeeze(-1), layer.bias) for layer in (model.hidden, model.output)
    )
    before = model.first.weight.new_zeros(n, 1)
    for t in range(model.n_dims):
        h = model.first(before)  # (n, channels)
        skip = 0
        for layer, past in zip(model.layers, pasts, strict=True):
            past[layer.reach + t] = h
            h, to_skip = _step(layer, past[t : layer.reach + t + 1 : layer.dilation])
            skip = skip + to_skip
        parameters = F.linear(F.relu(F.linear(F.relu(skip), *hidden)), *output)
        value = yield t, parameters
        before = model.encode(value).unsqueeze(1)


def _step(layer: WaveNetLayer, taps: Tensor) -> tuple[Tensor, Tensor]:
    """The output of a layer at one time.

    Args:
        layer: the layer.
        taps: the inputs under the kernel, oldest first, shape ``(kernel_size, n, channels)``.
    """
    weight = layer.gates.weight.permute(2, 1, 0).flatten(0, 1)  # (taps · channels, 2·channels)
    window = taps.transpose(0, 1).flatten(1)
    gated = gated_unit(torch.addmm(layer.gates.bias, window, weight))
    outputs = F.linear(gated, layer.outputs.weight.squeeze(-1), layer.outputs.bias)
    residual, skip = outputs.chunk(2, 1)
    return taps[-1] + residual, skip
