"""Flows against zuko, nflows and normflows.

    python -m benchmarks.flows                 everything that can be imported
    python -m benchmarks.flows --only maf      one part
    python -m benchmarks.flows --rounds 5      fewer rounds: quicker, wider spreads

RealNVP with the same layers, widths and number of parameters, and the same fused Adam for all: a
training step, log_prob and sample. Masked autoregressive flow: sampling. In every round each
contender runs once, in turn, so that a busy machine slows all of them; a ratio is taken within a
round, and its median and quartiles are printed. Only ratios are worth comparing between machines.
"""

import argparse
import importlib.util
import statistics
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from benchmarks.common import interleave, ratios, training_step
from course_lib.flow import MAF, MaskedAutoregressive, RealNVP

OURS = "course_lib"
PEERS = ("zuko", "nflows", "normflows")


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


def report(title: str, seconds: dict[str, list[float]]) -> None:
    """Print medians, and how many times longer each peer takes, with quartiles over the rounds."""
    print(f"\n{title}")
    for name, values in seconds.items():
        line = f"  {name:<11}{1e3 * statistics.median(values):10.3f} ms"
        if name != OURS:
            low, middle, high = ratios(seconds, name, OURS)
            line += f"{middle:9.2f} × ours  (quartiles {low:.2f} … {high:.2f})"
        print(line, flush=True)


def realnvp(rounds: int, peers: list[str]) -> None:
    """Time a training step, log_prob and sample of RealNVP."""
    for features, hidden in ((64, (128, 128)), (784, (256, 256))):
        contenders = {name: REALNVP[name](features, 8, hidden) for name in REALNVP if name in peers}
        sizes = {n: sum(p.numel() for p in c.model.parameters()) for n, c in contenders.items()}
        print(f"\nRealNVP, {features} dimensions, 8 couplings of {hidden}; parameters: {sizes}")
        x = torch.randn(128, features)
        steps = {
            name: training_step(c.model, lambda c=c, x=x: -c.log_prob(x).mean())
            for name, c in contenders.items()
        }
        report("training step, batch of 128", interleave(steps, rounds, 10))
        for contender in contenders.values():
            contender.model.eval()
        with torch.no_grad():
            calls = {n: lambda c=c, x=x: c.log_prob(x) for n, c in contenders.items()}
            report("log_prob, batch of 128", interleave(calls, rounds, 20))
            calls = {n: lambda c=c: c.sample(128) for n, c in contenders.items()}
            report("sample, 128", interleave(calls, rounds, 20))


def maf(rounds: int, peers: list[str]) -> None:
    """Time sampling of MAF, and compare it with D passes of the network."""
    for features, hidden in ((64, (128, 128)), (784, (512, 512))):
        contenders = {name: MAFS[name](features, 5, hidden) for name in MAFS if name in peers}
        sizes = {n: sum(p.numel() for p in c.model.parameters()) for n, c in contenders.items()}
        print(f"\nMAF, {features} dimensions, 5 layers of {hidden}; parameters: {sizes}")
        for contender in contenders.values():
            contender.model.eval()
        with torch.no_grad():
            for parameter in contenders[OURS].model.parameters():  # not the identity it starts as
                parameter += 0.5 * torch.randn_like(parameter) / parameter.shape[-1] ** 0.5
            layers = contenders[OURS].model.modules()
            layer = next(m for m in layers if isinstance(m, MaskedAutoregressive))
            z = torch.randn(64, features)
            fast, plain = layer.solve_once(z)[0], layer.solve_by_passes(z)[0]
            error = ((fast - plain).abs() / plain.abs().clamp(min=1)).max().item()
            print(f"largest relative difference from D passes of one layer: {error:.1e}")
            calls = {n: lambda c=c: c.sample(64) for n, c in contenders.items()}
            report("sample, 64", interleave(calls, max(3, rounds // 4), 1))


def main() -> None:
    """Run the parts that were asked for."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", choices=("realnvp", "maf"), help="run one part")
    parser.add_argument("--rounds", type=int, default=21, help="rounds of the quick contests")
    parser.add_argument("--threads", type=int, default=1, help="threads of torch")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    present = [name for name in PEERS if importlib.util.find_spec(name)]
    for name in PEERS:
        if name not in present:
            print(f"{name} is missing; install it beside torch: pip install --no-deps {name}")
    for part in (realnvp, maf):
        if arguments.only in (None, part.__name__):
            part(arguments.rounds, [OURS, *present])


if __name__ == "__main__":
    main()
