"""Every fast path gives what its plain path gives: values, gradients, samples and completions."""

from dataclasses import replace
from functools import partial

import pytest
import torch

from course_lib import autoregressive as ar
from course_lib import fast, flow
from course_lib.attention import SelfAttention, attend
from course_lib.autoregressive import nade
from course_lib.fast import fast_path, plain_paths, prepared, register, registered
from course_lib.flow.checks import build as away_from_identity
from course_lib.masked import MaskedLinear, masked_linear
from tests.autoregressive.properties import GREY, build

pytestmark = pytest.mark.usefixtures("float64")
SHAPES = [((1, 1, 1), 2), ((1, 1, 6), 2), ((1, 5, 1), 3), ((1, 6, 5), 4), ((3, 4, 3), 3)]
ANY_MASK = torch.rand(401, 301, generator=torch.Generator().manual_seed(0)) < 0.3


def source(seed):
    return torch.Generator().manual_seed(seed)


def drawn(make, n=5, classes=None):
    """A sample and a completion."""
    model = make()
    labels = {} if classes is None else {"labels": torch.arange(n) % classes}
    x = torch.randint(model.levels, (n, *model.event_shape), generator=source(2))
    known = torch.rand(x.shape, generator=source(3)) < 0.4
    return [
        model.sample(n, generator=source(1), **labels),
        model.complete(x, known, generator=source(4), **labels),
    ]


def drawn_by(name):
    """The same of small models of every shape."""
    return [partial(drawn, partial(build, name, shape, levels)) for shape, levels in SHAPES]


def conditional(name, shape):
    return lambda: build(name, shape, 3, n_classes=2)


def learnt(make):
    """Log-probabilities, and their gradients with respect to all parameters."""
    model = make()
    log_prob = model.log_prob(torch.randint(model.levels, (3, *model.event_shape)))
    return [log_prob, *torch.autograd.grad(log_prob.sin().sum(), list(model.parameters()))]


def layer(mask, *, bias=True):
    """Values and gradients of a masked layer, those of its input too."""
    module = MaskedLinear(mask, bias=bias)
    x = torch.randn(2, 3, mask.shape[1], requires_grad=True)
    y = module(x)
    return [y, *torch.autograd.grad(y.sin().sum(), [x, *module.parameters()])]


def attended(shape, *, causal, keys=None):
    """What queries read, its gradients, their gradients, and derivatives along a direction."""
    given = [torch.randn(shape if i == 0 or keys is None else keys) for i in range(3)]
    along = [torch.randn_like(part) for part in given]
    given = [part.requires_grad_() for part in given]
    read = attend(*given, causal=causal)
    first = torch.autograd.grad(read.sin().sum(), given, create_graph=True)
    second = torch.autograd.grad(sum(part.cos().sum() for part in first), given)
    function = partial(attend, causal=causal)
    tangent = torch.func.jvp(function, tuple(given), tuple(along))[1]
    mapped = torch.func.vmap(function)(*(torch.stack([part, -part]) for part in given))
    return [read, *first, *second, tangent, mapped]


def attending(*, causal):
    """A layer of attention, and its gradients."""
    module = SelfAttention(12, 3, causal=causal)
    x = torch.randn(2, 5, 12, requires_grad=True)
    y = module(x)
    return [y, *torch.autograd.grad(y.sin().sum(), [x, *module.parameters()])]


def solved(shape, hidden, **settings):
    """The inverse of one layer, and gradients through it."""
    module = away_from_identity(
        lambda: flow.MaskedAutoregressive(shape, hidden, **settings), spread=0.5
    )
    z = torch.randn(9, *shape, requires_grad=True)
    with torch.no_grad():
        without = module.inverse(z)
    x, log_det = module.inverse(z)
    gradients = torch.autograd.grad(x.sin().sum() + log_det.sum(), [z, *module.parameters()])
    return [*without, x, log_det, *gradients]


def solved_by_attention(shape, **settings):
    """The inverse of a block of TarFlow, and gradients through it."""
    module = away_from_identity(
        lambda: flow.AttentionAutoregressive(shape, width=8, heads=2, **settings), spread=0.3
    )
    z = torch.randn(9, *shape, requires_grad=True)
    with torch.no_grad():
        without = module.inverse(z)
    x, log_det = module.inverse(z)
    gradients = torch.autograd.grad(x.sin().sum() + log_det.sum(), [z, *module.parameters()])
    return [*without, x, log_det, *gradients]


def of_flows():
    with torch.no_grad():
        maf, iaf = (
            away_from_identity(lambda kind=kind: kind((1, 3, 4), layers=2, hidden=(20,)))
            for kind in (flow.MAF, flow.IAF)
        )
        return [maf.sample(5, generator=source(1)), iaf.log_prob(torch.randn(5, 1, 3, 4))]


# By the plain function or method: what is computed both ways. Every fast path must stand here.
CASES = {
    **{
        getattr(ar, name).forward: drawn_by(name)
        for name in ("FVSBN", "NADE", "PixelCNN", "RowLSTM", "DiagonalBiLSTM", "WaveNet")
    },
    ar.MADE.forward: drawn_by("MADE") + drawn_by("MADE, 3 orderings"),
    ar.GatedPixelCNN.forward: [
        *drawn_by("GatedPixelCNN"),
        *drawn_by("GatedPixelCNN, one layer"),
        *(
            partial(drawn, conditional("GatedPixelCNN", shape), classes=2)
            for shape in ((1, 3, 4), (3, 3, 4))
        ),
    ],
    ar.Transformer.forward: [
        *drawn_by("Transformer"),
        *(partial(drawn, conditional("Transformer", (c, 3, 4)), classes=2) for c in (1, 3)),
    ],
    attend: [
        *(partial(attending, causal=causal) for causal in (True, False)),
        *(partial(attended, (2, 3, 6, 4), causal=causal) for causal in (True, False)),
        partial(attended, (2, 3, 1, 4), causal=False, keys=(2, 3, 6, 4)),
        partial(attended, (3, 7, 4), causal=True),
    ],
    nade.products: [
        partial(learnt, partial(build, "NADE", shape, levels)) for shape, levels in SHAPES[1:]
    ],
    masked_linear: [
        partial(learnt, lambda: ar.MADE((1, 6, 6), 3, hidden=(400, 400))),
        partial(learnt, lambda: ar.MADE((1, 6, 6), 3, hidden=(400, 400), n_orderings=2)),
        partial(learnt, lambda: ar.FVSBN((1, 16, 16), 3)),
        partial(layer, ANY_MASK),
        partial(layer, ANY_MASK, bias=False),
        partial(layer, torch.arange(400)[:, None] % 200 * 3 > torch.arange(300)[None, :] * 2),
    ],
    flow.AttentionAutoregressive.conditionals: [
        partial(solved_by_attention, (7,)),
        partial(solved_by_attention, (1,)),
        partial(solved_by_attention, (1, 3, 4), patch=4, n_blocks=3),
    ],
    flow.MaskedAutoregressive.conditionals: [
        *(partial(solved, (7,), hidden) for hidden in ((4, 9), (5,), (16, 3, 8))),
        partial(solved, (1,), (4,)),
        *(partial(solved, (1, 3, 4), (48, 48), bound=bound) for bound in (0.5, 10.0)),
        of_flows,
    ],
}


def name(plain):
    return plain.__qualname__


@pytest.fixture
def calls(monkeypatch):
    """Which fast paths are taken."""
    taken = []
    for plain, path in dict(registered()).items():

        def spy(*arguments, plain=plain, path=path, **keywords):
            taken.append(plain)
            return path.compute(*arguments, **keywords)

        monkeypatch.setitem(fast._paths, plain, replace(path, compute=spy))
    return taken


@pytest.mark.parametrize("plain", registered(), ids=name)
def test_a_fast_path_gives_what_its_plain_path_gives(plain, calls):
    assert plain in CASES, "a fast path that is not tried: name cases for it above"
    for case in CASES[plain]:
        torch.manual_seed(0)
        given = case()
        assert plain in calls, "the fast path is not taken"
        calls.clear()
        with plain_paths():
            torch.manual_seed(0)
            expected = case()
        assert not calls, "a fast path is taken where it is switched off"
        assert len(given) == len(expected)
        for a, b in zip(given, expected, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-11 if a.is_floating_point() else 0)
            # A degenerate probe would be equal for any path.
            assert a.numel() < 20 or a.unique().numel() > 1


def test_every_case_belongs_to_a_fast_path():
    assert set(CASES) == set(registered())


@pytest.mark.parametrize("model", GREY)
def test_naive_sampling_takes_no_sampler(model, calls):
    module = build(model, (1, 3, 3), 2)
    fast_one = module.sample(4, generator=source(0))
    assert type(module).forward in calls
    calls.clear()
    assert torch.equal(module.sample(4, generator=source(0), cached=False), fast_one)
    assert type(module).forward not in calls


def test_a_subclass_with_another_forward_is_sampled_by_it():
    class Inverted(ar.PixelCNN):
        def forward(self, x, labels=None):
            return -2 * super().forward(x, labels)

    model = Inverted((1, 5, 5), 3)
    cached, naive = (model.sample(6, generator=source(0), cached=c) for c in (True, False))
    assert torch.equal(cached, naive)
    plain = ar.PixelCNN((1, 5, 5), 3)
    plain.load_state_dict(model.state_dict())
    assert not torch.equal(plain.sample(6, generator=source(0)), cached)


def test_a_subclass_with_the_same_forward_keeps_the_fast_sampler(calls):
    class Named(ar.PixelCNN):
        """Changes nothing."""

    Named((1, 3, 3), 2).sample(2)
    assert ar.PixelCNN.forward in calls


def test_a_subclass_with_another_distribution_is_inverted_by_it():
    class Shifted(flow.MaskedAutoregressive):
        def conditionals(self, x):
            mean, log_scale = super().conditionals(x)
            return mean + 1, log_scale

    layer = away_from_identity(lambda: Shifted((4,), (6,)))
    z = torch.randn(3, 4)
    with torch.no_grad():
        torch.testing.assert_close(layer(layer.inverse(z)[0])[0], z)


def test_switching_off_ends_with_the_block_and_can_be_nested():
    def plain():
        pass

    assert fast_path(plain) is None
    assert prepared(plain, 1) is None
    assert fast_path(masked_linear) is not None
    with plain_paths():
        with pytest.raises(KeyError), plain_paths():
            raise KeyError
        assert fast_path(masked_linear) is None
        assert (
            prepared(masked_linear, ANY_MASK) is not None
        )  # a model that is built here is fast later
    assert fast_path(masked_linear) is not None


def test_what_registers_is_found_with_what_it_prepares(monkeypatch):
    monkeypatch.setattr(fast, "_paths", {})

    def plain(x):
        return x + x

    @register(plain, prepare=lambda x: x + 1)
    def quick(x):
        return 2 * x

    assert fast_path(plain) is quick
    assert prepared(plain, 1) == 2


@pytest.mark.parametrize(
    "make", [lambda: ar.MADE((1, 6, 6), 3, hidden=(400, 400)), lambda: ar.NADE((1, 4, 4), 3)]
)
def test_a_compiler_gets_the_plain_operations(make, calls):
    model = make()
    x = torch.randint(3, (2, *model.event_shape))
    compiled = torch.compile(model, backend="eager", fullgraph=True)(x)
    assert not calls
    torch.testing.assert_close(compiled, model(x))
    assert calls
