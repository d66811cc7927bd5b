"""The flows of other libraries, built alike: same layers, widths and number of parameters.

``make bench`` installs them beside the environment; what cannot be imported is not compared.
"""

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from benchmarks.common import OURS
from course_lib.flow import MAF, RealNVP


@dataclass
class Contender:
    """One library's model with the two calls that are timed."""

    model: nn.Module
    log_prob: Callable[[Tensor], Tensor]
    sample: Callable[[int], Tensor]


def course_realnvp(features: int, layers: int, hidden: tuple[int, ...]) -> Contender:
    """Build this course's RealNVP."""
    model = RealNVP((features,), layers=layers, hidden=hidden)
    return Contender(model, model.log_prob, model.sample)


def zuko_realnvp(features: int, layers: int, hidden: tuple[int, ...]) -> Contender:
    """Build zuko's RealNVP."""
    import zuko

    model = zuko.flows.RealNVP(features, transforms=layers, hidden_features=hidden)
    return Contender(model, lambda x: model().log_prob(x), lambda n: model().sample((n,)))


def nflows_realnvp(features: int, layers: int, hidden: tuple[int, ...]) -> Contender:
    """Build nflows' RealNVP: couplings with alternating masks."""
    from nflows.distributions.normal import StandardNormal
    from nflows.flows import Flow
    from nflows.nn.nets import MLP
    from nflows.transforms import AffineCouplingTransform, CompositeTransform

    class Network(MLP):  # couplings pass a context, which the library's own MLP does not take
        def __init__(self, inputs: int, outputs: int) -> None:
            super().__init__((inputs,), (outputs,), list(hidden), activation=nn.functional.relu)

        def forward(self, x: Tensor, context: None = None) -> Tensor:
            return super().forward(x)

    couplings = [
        AffineCouplingTransform((torch.arange(features) + index) % 2, Network)
        for index in range(layers)
    ]
    model = Flow(CompositeTransform(couplings), StandardNormal([features]))
    return Contender(model, model.log_prob, model.sample)


def normflows_realnvp(features: int, layers: int, hidden: tuple[int, ...]) -> Contender:
    """Build normflows' RealNVP: couplings of halves, swapped in between."""
    import normflows

    flows = []
    for _ in range(layers):
        half = features // 2
        network = normflows.nets.MLP([half, *hidden, 2 * half], init_zeros=True)
        flows += [
            normflows.flows.AffineCouplingBlock(network),
            normflows.flows.Permute(features, mode="swap"),
        ]
    model = normflows.NormalizingFlow(normflows.distributions.DiagGaussian(features, False), flows)
    return Contender(model, model.log_prob, lambda n: model.sample(n)[0])


def course_maf(features: int, layers: int, hidden: tuple[int, ...]) -> Contender:
    """Build this course's MAF."""
    model = MAF((features,), layers=layers, hidden=hidden)
    return Contender(model, model.log_prob, model.sample)


def zuko_maf(features: int, layers: int, hidden: tuple[int, ...]) -> Contender:
    """Build zuko's MAF."""
    import zuko

    model = zuko.flows.MAF(features, transforms=layers, hidden_features=hidden)
    return Contender(model, lambda x: model().log_prob(x), lambda n: model().sample((n,)))


def nflows_maf(features: int, layers: int, hidden: tuple[int, ...]) -> Contender:
    """Build nflows' MAF."""
    from nflows.distributions.normal import StandardNormal
    from nflows.flows import Flow
    from nflows.transforms import (
        CompositeTransform,
        MaskedAffineAutoregressiveTransform,
        ReversePermutation,
    )

    transforms = []
    for _ in range(layers):
        # Its first hidden layer is not counted as a block.
        autoregressive = MaskedAffineAutoregressiveTransform(
            features, hidden[0], num_blocks=len(hidden) - 1, use_residual_blocks=False
        )
        transforms += [autoregressive, ReversePermutation(features)]
    model = Flow(CompositeTransform(transforms), StandardNormal([features]))
    return Contender(model, model.log_prob, model.sample)


REALNVP = {
    OURS: course_realnvp,
    "zuko": zuko_realnvp,
    "nflows": nflows_realnvp,
    "normflows": normflows_realnvp,
}
MAFS = {OURS: course_maf, "zuko": zuko_maf, "nflows": nflows_maf}


def importable() -> list[str]:
    """Names of the libraries that take part; says which do not, and how to get them."""
    names = [name for name in REALNVP if name == OURS or importlib.util.find_spec(name)]
    missing = sorted(REALNVP.keys() - names)
    if missing:
        print(f"not compared, because they cannot be imported: {', '.join(missing)} (make bench)")
    return names
