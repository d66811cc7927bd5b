"""The likelihood of an autoregressive model, pixel by pixel."""

import numpy as np
import torch
from torch import Tensor

from course_lib.checking.measures.common import (
    Ask,
    Invalid,
    Measurement,
    ask_each,
    images,
    one_array,
)


def causal_bits(ask: Ask, *, split: str, seed: int) -> Measurement:
    """−log₂ P per dimension of an autoregressive model of the digits, in bits/dim.

    Asks ``logits(x)`` for levels x, int64 of shape ``(96, 1, 8, 8)``, in 64 rounds: in round i the pixels
    from the i-th on (in raster order) are replaced by random levels, and of the answer, shape
    ``(96, 64, 17)``, only the logits of pixel i are used. They are normalized here. So what
    earns a likelihood is a conditional distribution given the pixels before, whatever the model is, and
    whatever it remembers of earlier rounds: no round shows a pixel that is still to be predicted.

    At the end the whole images are asked, a part of them at a time, to tell a model that sees the
    future, that is random or that looks at other images from one that is merely bad.

    Raises:
        Invalid: it does one of these; or an answer has another shape, or is not finite.
    """
    generator = torch.Generator().manual_seed(seed)
    levels = 17
    x = images(split).flatten(1).long()
    x = x[torch.randperm(len(x), generator=generator)[:96]]
    n, d = x.shape
    row = torch.arange(n)

    def query(shown: Tensor) -> Tensor:
        arrays = ask("logits", shown.reshape(-1, 1, 8, 8).contiguous().numpy())
        return one_array(arrays, (len(shown), d, levels), "logits(x)").log_softmax(-1)

    log_prob = torch.zeros(n, d, dtype=torch.float64)
    kept = torch.zeros(n, d, levels, dtype=torch.float64)
    for i in range(d):
        noise = torch.randint(levels, (n, d - i), generator=generator)
        order = torch.randperm(n, generator=generator)
        shown = torch.cat([x[:, :i], noise], 1)[order]
        kept[order, i] = query(shown)[:, i]
        log_prob[:, i] = kept[row, i, x[:, i]]
    whole = ask_each(query, x, generator, "logits(x)")
    change = (whole - kept).exp().sub(1).abs().amax((0, 2))  # (64,)
    changed = (change > 0.01).nonzero().flatten().tolist()
    if changed:
        raise Invalid(
            f"the distribution of pixel {changed[0]} (counted from 0 in raster order; {len(changed)} "
            "pixels in all) changes with pixels that are not before it: it sees the future, or depends "
            "on the other images of its batch"
        )
    value = float(-log_prob.sum(1).mean().item() / (d * np.log(2)))
    return Measurement(value, "bits/dim", suspicious=value < 1.6)
