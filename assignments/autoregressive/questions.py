"""The assignment on autoregressive models: references, probes, known mistakes, other right forms.

Not given to students: what they get is in ``student/``.
"""

import math
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from course_lib.grading import Measure, Mistake, Question, Written
from course_lib.grading.draws import integer, normal, signed, uniform

TITLE = "Autoregressive models"


# 1. The entropy of a chain, as an expression. ---------------------------------------------------


def draw_chain(g: torch.Generator) -> tuple[Tensor, ...]:
    # Either state the likelier one; pixels that mostly stay as they are, and that mostly change; one
    # pixel, two, and more.
    small = uniform(g, 0.05, 0.2, 5)
    large = small + uniform(g, 0.15, 0.3, 5)
    a = torch.stack([small[0], large[1], 1 - small[2], 1 - large[3], small[4]])
    b = torch.stack([large[0], small[1], 1 - large[2], 1 - small[3], large[4]])
    return a, b, torch.cat([torch.randint(4, 12, (3,), generator=g), torch.tensor([2, 1])]).double()


H_A = "(-a*log(a) - (1-a)*log(1-a))"
H_B = "(-b*log(b) - (1-b)*log(1-b))"
H_START = "(-a/(a+b)*log(a/(a+b)) - b/(a+b)*log(b/(a+b)))"
CHAIN_ENTROPY = Question(
    name="chain_entropy",
    points=2,
    kind="expression",
    symbols=("a", "b", "n"),
    reference=f"{H_START} + (n - 1)*(b*{H_A} + a*{H_B})/(a + b)",
    draw=draw_chain,
    mistakes=(
        Mistake(
            "n for n − 1",
            "The first pixel is counted twice: n pixels have n − 1 transitions",
            f"{H_START} + n*(b*{H_A} + a*{H_B})/(a + b)",
        ),
        Mistake(
            "first pixel forgotten",
            "The first pixel's own entropy is missing: the chain rule begins with p(x₁)",
            f"(n - 1)*(b*{H_A} + a*{H_B})/(a + b)",
        ),
        Mistake(
            "entropy rate",
            "This is n times the entropy rate, right for long rows only: the first pixel has none before it",
            f"n*(b*{H_A} + a*{H_B})/(a + b)",
        ),
        Mistake(
            "states exchanged",
            "The two states' probabilities are exchanged: mostly it is in the one that it leaves rarely",
            f"{H_START} + (n - 1)*(a*{H_A} + b*{H_B})/(a + b)",
        ),
        Mistake(
            "unweighted",
            "Both conditional entropies have the same weight; their weights are P(0) and P(1)",
            f"{H_START} + (n - 1)*({H_A} + {H_B})/2",
        ),
        Mistake(
            "conditionals summed",
            "The conditional entropies are added without the probabilities of the two states",
            f"{H_START} + (n - 1)*({H_A} + {H_B})",
        ),
        Mistake(
            "independent pixels",
            "This is the entropy of n independent pixels: given the pixel before, a pixel is less uncertain",
            f"n*{H_START}",
        ),
        Mistake(
            "bits",
            "This is in bits; nats are asked for",
            f"({H_START} + (n - 1)*(b*{H_A} + a*{H_B})/(a + b))/log(2)",
        ),
        Mistake(
            "sign",
            "The sign is flipped: the entropy of a discrete distribution is not negative",
            f"-{H_START} - (n - 1)*(b*{H_A} + a*{H_B})/(a + b)",
        ),
        Mistake(
            "per pixel",
            "This is the entropy per pixel; that of the whole row is asked for",
            f"({H_START} + (n - 1)*(b*{H_A} + a*{H_B})/(a + b))/n",
        ),
    ),
    equivalents=(
        "log(a+b) - (a*log(a) + b*log(b))/(a+b)"
        " - (n-1)*(a*b*log(a*b) + b*(1-a)*log(1-a) + a*(1-b)*log(1-b))/(a+b)",
        f"n*(b*{H_A} + a*{H_B})/(a + b) + {H_START} - b/(a+b)*{H_A} - a*{H_B}/(a+b)",
    ),
)


# 2. Three pixels, by hand. ----------------------------------------------------------------------


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def pixel_table(*, plug_in: bool = False, linear: bool = False, **changed: float) -> dict:
    """P(x₁ = 1) = 0.6, P(x₂ = 1 | x₁) = 0.3 + 0.5 x₁, logit P(x₃ = 1 | x₁, x₂) = −1 + 2x₁ − x₂."""

    def second(x1: float) -> float:
        return 0.3 + 0.5 * x1

    def third(x1: float, x2: float) -> float:
        return -1 + 2 * x1 - x2 if linear else sigmoid(-1 + 2 * x1 - x2)

    def joint(x1: int, x2: int, x3: int) -> float:
        p = 0.6 if x1 else 0.4
        p *= second(x1) if x2 else 1 - second(x1)
        return p * (third(x1, x2) if x3 else 1 - third(x1, x2))

    pairs = [(i, j) for i in (0, 1) for j in (0, 1)]
    p_third = sum(joint(i, j, 1) for i, j in pairs)
    if plug_in:
        p_third = third(0.6, 0.6 * 0.8 + 0.4 * 0.3)
    nats = -math.log(joint(1, 0, 1))
    return {
        "nats": nats,
        "bits_per_dim": nats / (3 * math.log(2)),
        "p_third": p_third,
        "p_first_given_rest": joint(1, 1, 0) / (joint(0, 1, 0) + joint(1, 1, 0)),
    } | changed


PIXELS = pixel_table()
THREE_PIXELS = Question(
    name="three_pixels",
    points=1.5,
    kind="value",
    reference=PIXELS,
    mistakes=(
        Mistake(
            "nats/dim",
            "bits_per_dim is in nats per dimension: divide by log 2",
            pixel_table(bits_per_dim=PIXELS["nats"] / 3),
        ),
        Mistake(
            "bits per image",
            "bits_per_dim is in bits for the whole image: divide by the number of pixels",
            pixel_table(bits_per_dim=PIXELS["nats"] / math.log(2)),
        ),
        Mistake(
            "mean over pixels",
            "nats is averaged over the pixels: the log-likelihood of an image is the sum over them",
            pixel_table(nats=PIXELS["nats"] / 3),
        ),
        Mistake(
            "sign",
            "nats is the log-likelihood; its negative is asked for",
            pixel_table(nats=-PIXELS["nats"], bits_per_dim=-PIXELS["bits_per_dim"]),
        ),
        Mistake(
            "expected pixels plugged in",
            "p_third puts the means of the pixels before into the sigmoid; average the probabilities instead",
            pixel_table(plug_in=True),
        ),
        Mistake(
            "condition ignored",
            "p_first_given_rest is p(x₁) alone: what comes later in the order is evidence too",
            pixel_table(p_first_given_rest=0.6),
        ),
        Mistake(
            "condition exchanged",
            "p_first_given_rest is the probability of the other pixels given the first",
            pixel_table(p_first_given_rest=0.8 * (1 - sigmoid(0.0))),
        ),
        Mistake(
            "not normalized",
            "p_first_given_rest is the joint probability: divide by that of the condition",
            pixel_table(p_first_given_rest=0.6 * 0.8 * (1 - sigmoid(0.0))),
        ),
    ),
    equivalents=(
        {name: torch.tensor(value) for name, value in PIXELS.items()},
        {name: round(value, 5) for name, value in PIXELS.items()},
        {name: float(f"{value:.5g}") for name, value in PIXELS.items()},
    ),
)


# 3. MADE's masks for any order, with direct connections. ----------------------------------------


def made_masks(order, hidden):
    to_hidden = hidden[:, None] >= order[None, :]
    to_output = order[:, None] > hidden[None, :]
    direct = order[:, None] > order[None, :]
    return to_hidden.int(), to_output.int(), direct.int()


def made_masks_by_loop(order, hidden):
    def mask(reading, read, allowed):
        return torch.tensor(
            [[float(allowed(int(k), int(d))) for d in read] for k in reading], dtype=torch.float64
        )

    return (
        mask(hidden, order, lambda k, d: d <= k),
        mask(order, hidden, lambda k, d: d < k),
        mask(order, order, lambda k, d: d < k),
    )


def draw_degrees(g: torch.Generator, d: tuple[int, int], extra: int) -> tuple[Tensor, Tensor]:
    d = integer(g, *d)
    order = torch.randperm(d, generator=g)
    # Neither the natural order nor its own inverse.
    while torch.equal(order[order], torch.arange(d)):
        order = torch.randperm(d, generator=g)
    # Every degree but one occurs: each comparison meets a tie, and the direct connections allow what no
    # path through a hidden unit does.
    degrees = torch.randperm(d - 1, generator=g)[: d - 2]
    degrees = torch.cat([degrees, degrees[torch.randint(d - 2, (extra,), generator=g)]])
    return order, degrees[torch.randperm(len(degrees), generator=g)]


MADE_MASKS = Question(
    name="made_masks",
    points=1.5,
    reference=made_masks,
    # Fewer hidden units than inputs, and more.
    draw=(
        partial(draw_degrees, d=(4, 7), extra=0),
        partial(draw_degrees, d=(5, 8), extra=5),
    ),
    mistakes=(
        Mistake(
            "strict in the hidden layer",
            "The hidden layer's mask is strict: a unit of degree m may read the input of degree m",
            lambda o, h: ((h[:, None] > o).int(), *made_masks(o, h)[1:]),
        ),
        Mistake(
            "output not strict",
            "An output reads hidden units of its own degree, which have read its own input",
            lambda o, h: (made_masks(o, h)[0], (o[:, None] >= h).int(), made_masks(o, h)[2]),
        ),
        Mistake(
            "direct connections not strict",
            "The direct connections let each output see its own input",
            lambda o, h: (*made_masks(o, h)[:2], (o[:, None] >= o).int()),
        ),
        Mistake(
            "natural order",
            "The places of the inputs are taken for their degrees: order says which place each one has",
            lambda o, h: made_masks(torch.arange(len(o)), h),
        ),
        Mistake(
            "order inverted",
            "order is read as a list of inputs, first to last; it holds the place of each input",
            lambda o, h: made_masks(o.argsort(), h),
        ),
        Mistake(
            "from the future",
            "The comparisons are the wrong way round: outputs see what comes after them",
            lambda o, h: (
                (h[:, None] <= o).int(),
                (o[:, None] < h).int(),
                (o[:, None] < o).int(),
            ),
        ),
        Mistake(
            "transposed",
            "The masks are transposed: a weight has shape (units that read, units that are read)",
            lambda o, h: tuple(m.T for m in made_masks(o, h)),
        ),
        Mistake(
            "direct connections as paths",
            "The direct connections allow what a path through the hidden units allows; they may do more "
            "where no unit has a degree between two inputs",
            lambda o, h: (
                *made_masks(o, h)[:2],
                (made_masks(o, h)[1] @ made_masks(o, h)[0] > 0).int(),
            ),
        ),
        Mistake(
            "direct transposed",
            "The mask of the direct connections is transposed: output i would see what comes after it",
            lambda o, h: (*made_masks(o, h)[:2], made_masks(o, h)[2].T),
        ),
    ),
    equivalents=(
        made_masks_by_loop,
        # What an output reads is what no hidden unit of its degree may.
        lambda o, h: (o <= h[:, None], ~(o <= h[:, None]).T, (o < o[:, None]).numpy()),
        lambda o, h: (
            ~(h[:, None] < o[None, :]),
            ~(o[:, None] <= h[None, :]),
            (o[:, None] - o[None, :]).clamp(0, 1),
        ),
    ),
)


# 4. Masked convolutions for colour images. ------------------------------------------------------


def colour_masks(size, reading, read):
    c = size // 2
    past = torch.zeros(size, size, dtype=torch.int32)
    past[:c] = 1
    past[c, :c] = 1
    both = []
    for centre in (reading[:, None] > read, reading[:, None] >= read):
        mask = past.repeat(len(reading), len(read), 1, 1)
        mask[:, :, c, c] = centre.int()
        both.append(mask)
    return tuple(both)


def colour_masks_by_loop(size, reading, read):
    masks = torch.zeros(2, len(reading), len(read), size, size)
    for kind in (0, 1):
        for i, g in enumerate(reading.tolist()):
            for j, h in enumerate(read.tolist()):
                for u in range(size):
                    for v in range(size):
                        # Position in raster order, the colour being the last digit.
                        here, there = (size // 2, size // 2, g), (u, v, h)
                        masks[kind, i, j, u, v] = there < here or (kind == 1 and there == here)
    return masks[0], masks[1]


def colour_masks_by_index(size, reading, read):
    index = torch.arange(size**2).view(1, 1, size, size) - size**2 // 2
    rank = 3 * index + read.view(1, -1, 1, 1) - reading.view(-1, 1, 1, 1)
    return (rank < 0), (rank <= 0)


def changed_centre(change):
    """A mistake of `colour_masks` at the centre: `change` gives the centres of A and B."""

    def answer(size, reading, read):
        masks = colour_masks(size, reading, read)
        for mask, centre in zip(masks, change(reading[:, None], read[None, :]), strict=True):
            mask[:, :, size // 2, size // 2] = centre.int()
        return masks

    return answer


def changed_past(change):
    """A mistake of `colour_masks` beside the centre: `change` edits one mask in place."""

    def answer(size, reading, read):
        masks = colour_masks(size, reading, read)
        for mask in masks:
            centre = mask[:, :, size // 2, size // 2].clone()
            change(mask, size // 2, reading, read)
            mask[:, :, size // 2, size // 2] = centre
        return masks

    return answer


def right_of_centre(mask, c, reading, read):
    mask[:, :, c] = 1


def above_alone(mask, c, reading, read):
    mask[:, :, c] = 0


def upper_left(mask, c, reading, read):
    mask[:, :, :, c + 1 :] = 0


def columns_for_rows(mask, c, reading, read):
    mask.copy_(mask.transpose(2, 3).clone())


def colours_everywhere(mask, c, reading, read):
    mask *= (reading[:, None] >= read).int()[:, :, None, None]


def draw_colours(
    g: torch.Generator, size: int, reading: tuple[int, int], read: tuple[int, int]
) -> tuple[int, Tensor, Tensor]:
    def colours(n: int) -> Tensor:
        # Every colour, so that each comparison meets a tie; not in order, nor equally often.
        while True:
            drawn = torch.cat([torch.arange(3), torch.randint(3, (n - 3,), generator=g)])
            drawn = drawn[torch.randperm(n, generator=g)]
            if not torch.equal(drawn[:3], torch.arange(3)) and drawn.diff().min() < 0:
                return drawn

    return size, colours(integer(g, *reading)), colours(integer(g, *read))


COLOUR_MASKS = Question(
    name="colour_masks",
    points=2,
    reference=colour_masks,
    draw=(
        partial(draw_colours, size=3, reading=(3, 4), read=(4, 6)),
        partial(draw_colours, size=5, reading=(5, 7), read=(3, 5)),
    ),
    mistakes=(
        Mistake(
            "A for both",
            "Kind B equals kind A: with A in every layer, each hides a neighbour; B may read its own colour",
            changed_centre(lambda g, h: (g > h, g > h)),
        ),
        Mistake(
            "B for both",
            "Kind A equals kind B: the first layer sees the very value that it is to predict",
            changed_centre(lambda g, h: (g >= h, g >= h)),
        ),
        Mistake(
            "A and B exchanged",
            "The two kinds are exchanged: A, which hides a value from itself, comes first",
            changed_centre(lambda g, h: (g >= h, g > h)),
        ),
        Mistake(
            "centre of A closed",
            "Kind A hides the whole centre: green may read the red value of its own pixel, and blue both",
            changed_centre(lambda g, h: (0 * (g + h), g >= h)),
        ),
        Mistake(
            "position only",
            "The colours are masked by position only: B's centre is open to all, and green sees blue",
            changed_centre(lambda g, h: (0 * (g + h), 1 + 0 * (g + h))),
        ),
        Mistake(
            "colours the other way",
            "At the centre a colour sees those that come after it: reading and read are exchanged",
            changed_centre(lambda g, h: (g < h, g <= h)),
        ),
        Mistake(
            "own row to the right",
            "The pixels to the right in the centre's row are open: they are the future",
            changed_past(right_of_centre),
        ),
        Mistake(
            "own row closed",
            "The pixels to the left in the centre's row are hidden, although they are known",
            changed_past(above_alone),
        ),
        Mistake(
            "above right closed",
            "The pixels above and to the right are hidden, although raster order has passed them",
            changed_past(upper_left),
        ),
        Mistake(
            "rows and columns exchanged",
            "Rows and columns are exchanged: this is the mask of an order that goes column by column",
            changed_past(columns_for_rows),
        ),
        Mistake(
            "colours compared everywhere",
            "The colours are compared at every position; other pixels are known in all of their colours",
            changed_past(colours_everywhere),
        ),
    ),
    equivalents=(colour_masks_by_loop, colour_masks_by_index),
)


# 5. A conditional gated unit. -------------------------------------------------------------------


def gated_halves(features, labels, embedding):
    return (features + embedding[labels][:, :, None, None]).chunk(2, 1)


def gated_unit(features, labels, embedding):
    a, b = gated_halves(features, labels, embedding)
    return torch.tanh(a) * torch.sigmoid(b)


def gated_unit_by_glu(features, labels, embedding):
    one_hot = F.one_hot(labels, len(embedding)).to(embedding)
    pre = features + (one_hot @ embedding).unsqueeze(-1).unsqueeze(-1)
    half = pre.shape[1] // 2
    return F.glu(torch.cat([pre[:, :half].tanh(), pre[:, half:]], 1), 1)


def gated_unit_by_loop(features, labels, embedding):
    results = []
    for x, label in zip(features, labels.tolist(), strict=True):
        half = len(x) // 2
        e = embedding[label].view(-1, 1, 1)
        b = x[half:] + e[half:]
        results.append((x[:half] + e[:half]).tanh() / (1 + (-b).exp()))
    return torch.stack(results)


def even_first(x):
    return torch.cat([x[:, ::2], x[:, 1::2]], 1)


def draw_features(
    g: torch.Generator, n: int, classes: int, half: int, shape: tuple[int, int]
) -> tuple[Tensor, ...]:
    # More examples than classes, so that a class occurs twice, or more classes than examples.
    labels = torch.randperm(classes, generator=g)
    labels = torch.cat([labels, labels[:n]])[-n:] if n > classes else labels[:n]
    embedding = signed(g, 0.4, 1.2, classes, 2 * half)
    return normal(g, n, 2 * half, *shape), labels, embedding


GATED = Question(
    name="gated_unit",
    points=1,
    reference=gated_unit,
    draw=(
        lambda g: draw_features(g, integer(g, 5, 7), 4, 2, (2, 3)),
        lambda g: draw_features(g, 3, integer(g, 5, 7), 3, (4, 2)),
    ),
    mistakes=(
        Mistake(
            "halves exchanged",
            "The halves are exchanged: the first goes through tanh, the second through the sigmoid",
            lambda x, y, e: gated_unit(x.roll(x.shape[1] // 2, 1), y, e.roll(e.shape[1] // 2, 1)),
        ),
        Mistake(
            "labels ignored",
            "The labels are not used",
            lambda x, y, e: gated_unit(x, y, 0 * e),
        ),
        Mistake(
            "no embedding of the gate",
            "The label moves the proposal alone; it is added to both halves, before the non-linearities",
            lambda x, y, e: gated_unit(x, y, e * (torch.arange(e.shape[1]) < e.shape[1] // 2)),
        ),
        Mistake(
            "even and odd channels",
            "The halves are the even and the odd channels; a is the first half of the channels, b the second",
            lambda x, y, e: gated_unit(even_first(x), y, even_first(e)),
        ),
        Mistake(
            "sum for product",
            "The two factors are added; the gate multiplies",
            lambda x, y, e: gated_halves(x, y, e)[0].tanh() + gated_halves(x, y, e)[1].sigmoid(),
        ),
        Mistake(
            "sigmoid twice",
            "Both factors are sigmoids: the proposal goes through tanh, so that it can be negative",
            lambda x, y, e: gated_halves(x, y, e)[0].sigmoid() * gated_halves(x, y, e)[1].sigmoid(),
        ),
        Mistake(
            "no tanh",
            "The proposal enters without tanh: this is a gated linear unit",
            lambda x, y, e: F.glu(torch.cat(gated_halves(x, y, e), 1), 1),
        ),
    ),
    equivalents=(gated_unit_by_glu, gated_unit_by_loop),
)


# 6. A mixture of discretized logistics. ---------------------------------------------------------


def bin_masses(x, mean, scale, levels, *, tails=True, half=0.5):
    """Mass of each component in the bin of level x, shape (N, D, M)."""
    k = x[:, :, None].to(mean)
    upper = torch.sigmoid((k + half - mean) / scale)
    lower = torch.sigmoid((k - half - mean) / scale)
    if tails:
        upper = torch.where(k == levels - 1, torch.ones_like(upper), upper)
        lower = torch.where(k == 0, torch.zeros_like(lower), lower)
    return upper - lower


def logistic_mixture(x, logits, mean, log_scale, levels, **wrong):
    mass = bin_masses(x, mean, log_scale.exp(), levels, **wrong)
    return (mass * logits.softmax(-1)).sum(-1).log().sum(1)


def logistic_mixture_by_tanh(x, logits, mean, log_scale, levels):
    edges = torch.cat([torch.tensor([-math.inf]), torch.arange(levels - 1) + 0.5])
    edges = torch.cat([edges, torch.tensor([math.inf])]).to(mean)
    half = (edges[:, None, None, None] - mean) / (2 * log_scale.exp())
    mass = (torch.tanh(half).diff(dim=0) / 2).movedim(0, 2)  # (N, D, K, M)
    p = (mass * logits.softmax(-1)[:, :, None]).sum(-1)
    return p.gather(2, x[:, :, None])[:, :, 0].log().sum(1)


def logistic_mixture_in_logs(x, logits, mean, log_scale, levels):
    k = x[:, :, None].to(mean)
    a, b = ((k + d - mean) * (-log_scale).exp() for d in (0.5, -0.5))
    inner = F.logsigmoid(a) + F.logsigmoid(-b) + torch.log(-torch.expm1(b - a))
    log_mass = torch.where(
        k == 0, F.logsigmoid(a), torch.where(k == levels - 1, F.logsigmoid(-b), inner)
    )
    return torch.logsumexp(logits.log_softmax(-1) + log_mass, -1).sum(-1)


def logistic_density(x, logits, mean, log_scale, levels):
    a = (x[:, :, None].to(mean) - mean) / log_scale.exp()
    density = torch.sigmoid(a) * torch.sigmoid(-a) / log_scale.exp()
    return (density * logits.softmax(-1)).sum(-1).log().sum(1)


def draw_mixture(
    g: torch.Generator, edges: tuple[int, ...], n: int, inside: int, components: int
) -> tuple[Tensor, Tensor, Tensor, Tensor, int]:
    levels = integer(g, 5, 9)
    # Some edge and the inside, in every image, at any place.
    x = torch.randint(1, levels - 1, (n, inside), generator=g)
    x = torch.cat([x, torch.tensor(edges).repeat(n, 1) % levels], 1)
    x = torch.stack([row[torch.randperm(len(row), generator=g)] for row in x])
    shape = (*x.shape, components)
    # Scales above 1 and one below it; locations on both sides of the level, and beyond the last one.
    log_scale = uniform(g, 0.1, 0.6, *shape)
    log_scale[..., -1] = -uniform(g, 0.3, 0.6, *x.shape)
    logits, mean = torch.zeros(shape).double(), torch.zeros(shape).double()
    again = torch.ones(x.shape, dtype=torch.bool)
    while again.any():
        drawn = x[:, :, None] + log_scale.exp() * signed(g, 0.2, 2.5, *shape)
        mean = torch.where(again[:, :, None], drawn, mean)
        weights = normal(g, *shape)
        weights[..., -1] -= 1.5
        logits = torch.where(again[:, :, None], weights, logits)
        # Who divides by log_scale meets a component of negative mass, but no bin.
        again = (bin_masses(x, mean, log_scale, levels) * logits.softmax(-1)).sum(-1) < 0.01
    return x, logits, mean, log_scale, levels


MIXTURE = Question(
    name="logistic_mixture",
    points=2,
    reference=logistic_mixture,
    # Images with both edges, without the highest level, without the lowest one.
    draw=(
        partial(draw_mixture, edges=(0, -1), n=3, inside=2, components=2),
        partial(draw_mixture, edges=(0,), n=2, inside=3, components=3),
        partial(draw_mixture, edges=(-1,), n=4, inside=1, components=4),
    ),
    draws=6,
    mistakes=(
        Mistake(
            "edge bins without tails",
            "The first and last level get an ordinary bin; without the tails the masses do not sum to 1",
            lambda *a: logistic_mixture(*a, tails=False),
        ),
        Mistake(
            "largest level from the images",
            "The highest level is taken from x; an image need not have it: K is given",
            lambda x, w, m, s, k: logistic_mixture(x, w, m, s, x.max() + 1),
        ),
        Mistake(
            "density for mass",
            "This is the density at the level, and not the mass of its bin: a density is no probability",
            logistic_density,
        ),
        Mistake(
            "logarithms mixed",
            "The components' log-masses are averaged; the mixture averages their masses",
            lambda x, w, m, s, k: (bin_masses(x, m, s.exp(), k).log() * w.softmax(-1)).sum((1, 2)),
        ),
        Mistake(
            "components of images mixed",
            "Each component is multiplied over the pixels first: every pixel is a mixture of its own",
            lambda x, w, m, s, k: (
                (bin_masses(x, m, s.exp(), k) * w.softmax(-1)).log().sum(1).logsumexp(-1)
            ),
        ),
        Mistake(
            "log_scale as scale",
            "log_scale is used as the scale itself; the scale is its exponential",
            lambda x, w, m, s, k: (bin_masses(x, m, s, k) * w.softmax(-1)).sum(-1).log().sum(1),
        ),
        Mistake(
            "equal weights",
            "The weights of the components are not used",
            lambda x, w, m, s, k: logistic_mixture(x, 0 * w, m, s, k),
        ),
        Mistake(
            "bins twice as wide",
            "The bins reach a whole level to each side; neighbours meet half-way",
            lambda *a: logistic_mixture(*a, half=1.0),
        ),
        Mistake(
            "mean over pixels",
            "The pixels are averaged: the log-likelihood of an image is the sum over them",
            lambda *a: logistic_mixture(*a) / a[0].shape[1],
        ),
        Mistake(
            "sign",
            "This is the negative log-likelihood; log P(x) is asked for",
            lambda *a: -logistic_mixture(*a),
        ),
    ),
    equivalents=(logistic_mixture_by_tanh, logistic_mixture_in_logs),
)


# 7. Attention to the past. ----------------------------------------------------------------------


def causal_attention(queries, keys, values):
    return attention_with(queries, keys, values)


def attention_with(
    queries,
    keys,
    values,
    *,
    mask=lambda past: past,
    hidden=-math.inf,
    scale=math.sqrt,
    weigh=lambda scores: scores.softmax(-1),
):
    """`causal_attention`, with what a mistake changes."""
    length, d = queries.shape[-2:]
    past = torch.ones(length, length, dtype=torch.bool).tril()
    scores = queries @ keys.mT / scale(d)
    return weigh(scores.masked_fill(~mask(past), hidden)) @ values


def attention_wrong(**wrong):
    return lambda *inputs: attention_with(*inputs, **wrong)


def attention_by_rows(queries, keys, values):
    """Place after place, with the maximum taken out by hand."""
    read = []
    for i in range(queries.shape[-2]):
        scores = torch.einsum("...d,...jd->...j", queries[..., i, :], keys[..., : i + 1, :])
        scores = scores * queries.shape[-1] ** -0.5
        weights = torch.exp(scores - scores.amax(-1, keepdim=True))
        total = torch.einsum("...j,...je->...e", weights, values[..., : i + 1, :])
        read.append(total / weights.sum(-1, keepdim=True))
    return torch.stack(read, -2)


def attention_in_one_pass(queries, keys, values):
    """Key after key, with a running maximum and a running sum."""
    length, d = queries.shape[-2:]
    highest = torch.full_like(queries[..., :1], -math.inf)
    weight, total = (
        torch.zeros_like(highest),
        queries.new_zeros(*queries.shape[:-1], values.shape[-1]),
    )
    for j in range(length):
        score = (queries * keys[..., j : j + 1, :]).sum(-1, keepdim=True) / math.sqrt(d)
        score[..., :j, :] = -math.inf  # these places come before the key
        risen = torch.maximum(highest, score)
        old, new = ((x - risen).exp().nan_to_num() for x in (highest, score))
        weight, highest = old * weight + new, risen
        total = old * total + new * values[..., j : j + 1, :]
    return total / weight


def draw_attention(
    g: torch.Generator, batch: tuple[int, ...], d: int, e: int
) -> tuple[Tensor, ...]:
    shape = (*batch, integer(g, 4, 7))
    queries, keys = (1.3 * normal(g, *shape, d) for _ in range(2))
    return queries, keys, signed(g, 0.3, 1.5, *shape, e)


def draw_heads(g: torch.Generator) -> tuple[Tensor, ...]:
    batch = (integer(g, 2, 4), integer(g, 2, 4))
    return draw_attention(g, batch[integer(g, 0, 2) :], integer(g, 5, 9), integer(g, 2, 5))


def draw_extreme(g: torch.Generator) -> tuple[Tensor, ...]:
    """Exponentials of the scores are too large for float64, and too small; rounding is no matter."""
    while True:
        queries, keys, values = draw_attention(g, (2,), integer(g, 3, 6), 2)
        queries, keys = 40 * queries, 40 * keys
        scores = queries @ keys.mT / math.sqrt(keys.shape[-1])
        past = torch.ones(scores.shape[-2:]).tril().bool()
        first, second = scores.masked_fill(~past, -1e5).topk(2, -1).values.unbind(-1)
        # The first place reads itself only, whose score is far below those of the future.
        low = scores[:, 0, 0].max() < -800 and scores[:, 0].amax(-1).min() > 0
        if low and first.max() > 800 and (first - second).min() > 60:
            return queries, keys, values


CAUSAL = Question(
    name="causal_attention",
    points=1.5,
    reference=causal_attention,
    draw=(
        lambda g: draw_attention(g, (), integer(g, 3, 5), integer(g, 2, 4)),
        draw_heads,
        draw_extreme,
    ),
    draws=6,
    mistakes=(
        Mistake(
            "no mask",
            "The future is read: place i may read the places up to i",
            attention_wrong(mask=torch.ones_like),
        ),
        Mistake(
            "own place hidden",
            "The mask is strict: the first place has nothing to read, hence NaN; place i reads itself, too",
            attention_wrong(mask=lambda past: past.tril(-1)),
        ),
        Mistake(
            "own place hidden, by a large number",
            "The mask is strict, and the first place reads all others; place i reads itself and the past",
            attention_wrong(mask=lambda past: past.tril(-1), hidden=-1e9),
        ),
        Mistake(
            "one place of the future",
            "The mask is moved by one: place i reads place i + 1, which is not known yet",
            attention_wrong(mask=lambda past: torch.ones_like(past).tril(1)),
        ),
        Mistake(
            "mask transposed",
            "The mask is transposed: each place reads itself and the future instead of the past",
            attention_wrong(mask=lambda past: past.T),
        ),
        Mistake(
            "scale missing",
            "The scores are not divided by √d",
            attention_wrong(scale=lambda d: 1),
        ),
        Mistake(
            "d for √d",
            "The scores are divided by d; products of d independent numbers have the standard deviation √d",
            attention_wrong(scale=lambda d: d),
        ),
        Mistake(
            "softmax over the queries",
            "The softmax runs over the queries: the weights with which a place reads sum to 1 over the keys",
            attention_wrong(weigh=lambda scores: scores.softmax(-2)),
        ),
        Mistake(
            "masked after the softmax",
            "The mask comes after the softmax: the weights of the past then do not sum to 1",
            attention_wrong(mask=torch.ones_like, weigh=lambda scores: scores.softmax(-1).tril()),
        ),
        Mistake(
            "scores set to 0",
            "The scores of the future are set to 0, whose exponential is 1: minus infinity leaves no weight",
            attention_wrong(hidden=0),
        ),
    ),
    equivalents=(
        attention_by_rows,
        attention_in_one_pass,
        lambda q, k, v: F.scaled_dot_product_attention(q, k, v, is_causal=True),
        attention_wrong(hidden=-1e30, weigh=lambda scores: scores.log_softmax(-1).exp()),
    ),
)


# 8. One step with a cache. ----------------------------------------------------------------------


def attention_step(*inputs):
    return step_with(*inputs)


def step_with(
    token,
    place,
    keys,
    values,
    to_query,
    to_key,
    to_value,
    *,
    at=lambda place: place,
    stored=(True, True),
    rows=lambda place: slice(place + 1),
    scale=None,
    axis=1,
    late=False,
):
    """`attention_step`, with what a mistake changes.

    at: the row that the new key and value are written to; stored: whether they are; rows: those that
    are read; late: whether what is read is what was there before.
    """
    kept = [keys.clone(), values.clone()]
    for cache, matrix, wanted in zip(kept, (to_key, to_value), stored, strict=True):
        if wanted:
            cache[:, at(place)] = token @ matrix
    seen = [keys, values] if late else kept
    query = token @ to_query
    scores = torch.einsum("nd,ntd->nt", query, seen[0][:, rows(place)])
    scores = scores / math.sqrt(query.shape[1] if scale is None else scale)
    read = torch.einsum("nt,nte->ne", scores.softmax(axis), seen[1][:, rows(place)])
    return read, kept[0][:, : place + 1], kept[1][:, : place + 1]


def step_by_appending(token, place, keys, values, to_query, to_key, to_value):
    keys = torch.cat([keys[:, :place], (token @ to_key).unsqueeze(1)], 1)
    values = torch.cat([values[:, :place], (token @ to_value).unsqueeze(1)], 1)
    query = (token @ to_query).unsqueeze(1)
    return F.scaled_dot_product_attention(query, keys, values).squeeze(1), keys, values


def step_by_mask(token, place, keys, values, to_query, to_key, to_value):
    """All rows of the memory are scored, and those that are not valid yet get no weight."""
    here = (torch.arange(keys.shape[1]) == place)[:, None]
    keys = torch.where(here, (token @ to_key)[:, None], keys)
    values = torch.where(here, (token @ to_value)[:, None], values)
    scores = (keys @ (token @ to_query)[:, :, None]).squeeze(-1) * to_query.shape[1] ** -0.5
    scores[:, place + 1 :] = -math.inf
    weights = scores.softmax(-1)[:, :, None]
    return (weights * values).sum(1), keys[:, : place + 1], values[:, : place + 1]


def step_by_loop(token, place, keys, values, to_query, to_key, to_value):
    """One example after another, one place after another."""
    results = []
    for h, k, v in zip(token, keys, values, strict=True):
        k = torch.stack([*k[:place], h @ to_key])
        v = torch.stack([*v[:place], h @ to_value])
        scores = torch.stack([row @ (h @ to_query) for row in k]) / to_query.shape[1] ** 0.5
        weights = (scores - scores.logsumexp(0)).exp()
        results.append((sum(w * row for w, row in zip(weights, v, strict=True)), k, v))
    return tuple(torch.stack(part) for part in zip(*results, strict=True))


def step_wrong(**wrong):
    return lambda *inputs: step_with(*inputs, **wrong)


def draw_step(
    g: torch.Generator, n: tuple[int, int], sizes: tuple[int, int, int, int], place: tuple[int, int]
) -> tuple[Tensor | int, ...]:
    length, width, d, e = sizes
    n = integer(g, *n)
    to_query, to_key = (1.4 * normal(g, width, d) / math.sqrt(width) for _ in range(2))
    to_value = normal(g, width, e)
    # What an earlier batch left in the memory has the size of what is valid.
    keys, values = 1.4 * normal(g, n, length, d), signed(g, 0.3, 1.5, n, length, e)
    return normal(g, n, width), integer(g, *place), keys, values, to_query, to_key, to_value


def draw_last_step(g: torch.Generator) -> tuple[Tensor | int, ...]:
    """The memory is full, and the exponentials of the scores are too large and too small."""
    while True:
        token, place, keys, values, *matrices = draw_step(g, (2, 5), (6, 5, 3, 2), (5, 6))
        token, keys = 40 * token, 40 * keys
        new = (token @ matrices[1])[:, None]
        scores = (torch.cat([keys[:, :place], new], 1) @ (token @ matrices[0])[:, :, None])[..., 0]
        first, second = (scores / math.sqrt(3)).topk(2, 1).values.unbind(1)
        if first.max() > 800 and (first - second).min() > 60:
            return token, place, keys, values, *matrices


STEP = Question(
    name="attention_step",
    points=1.5,
    reference=attention_step,
    draw=(
        partial(draw_step, n=(3, 5), sizes=(7, 4, 3, 2), place=(2, 5)),
        partial(draw_step, n=(5, 7), sizes=(9, 3, 5, 4), place=(3, 7)),
        partial(draw_step, n=(2, 5), sizes=(4, 3, 4, 3), place=(0, 1)),
        draw_last_step,
    ),
    draws=8,
    mistakes=(
        Mistake(
            "stale rows read",
            "All rows of the memory are read; those after this place hold what an earlier batch left there",
            step_wrong(rows=lambda place: slice(None)),
        ),
        Mistake(
            "one row too many",
            "One row too many is read: that of the next place, which an earlier batch left there",
            step_wrong(rows=lambda place: slice(place + 2)),
        ),
        Mistake(
            "read before stored",
            "The rows are read before the new ones are stored: at this place stands what was there before",
            step_wrong(late=True),
        ),
        Mistake(
            "own place left out",
            "The places before this one are read; a place reads itself, too",
            step_wrong(rows=lambda place: slice(place)),
        ),
        Mistake(
            "places counted from 1",
            "The new rows overwrite those of the place before: place counts from 0",
            step_wrong(at=lambda place: place - 1, rows=lambda place: slice(place)),
        ),
        Mistake(
            "values not stored",
            "The new key is stored and the new value is not",
            step_wrong(stored=(True, False)),
        ),
        Mistake(
            "scale missing",
            "The scores are not divided by √d, the root of a query's width",
            step_wrong(scale=1),
        ),
        Mistake(
            "width of the token",
            "The scores are divided by the root of the token's width w; a query has the width d",
            lambda token, *more: step_with(token, *more, scale=token.shape[1]),
        ),
        Mistake(
            "softmax over the batch",
            "The softmax runs over the batch: the weights of one example sum to 1 over its places",
            step_wrong(axis=0),
        ),
    ),
    equivalents=(step_by_appending, step_by_mask, step_by_loop),
)


# 9. Completing a sequence with given noise. -----------------------------------------------------


def complete(x, known, noise, bias, weight):
    x = x.clone()
    for i in range(known, x.shape[1]):
        logits = bias[i] + x[:, :i].to(weight) @ weight[i, :i]
        below = logits.softmax(-1).cumsum(-1)[:, :-1]
        x[:, i] = (below <= noise[:, i : i + 1]).sum(1)
    return x


def complete_by_loop(x, known, noise, bias, weight):
    rows = []
    for row, u in zip(x.tolist(), noise, strict=True):
        row = row[:known]
        for i in range(known, x.shape[1]):
            logits = bias[i] + sum(v * weight[i, j] for j, v in enumerate(row))
            edges = torch.exp(logits - torch.logsumexp(logits, 0)).cumsum(0)
            row.append(min(int(torch.searchsorted(edges, u[i], right=True)), len(edges) - 1))
        rows.append(row)
    return torch.tensor(rows)


def complete_wrong(
    draw=None, *, feed=True, all_levels=False, shifted=lambda known: 0, from_start=False
):
    """`complete` with one thing wrong; `draw` gives a level from probabilities and noise."""

    def answer(x, known, noise, bias, weight):
        read, result = x.clone(), x.clone()
        for i in range(0 if from_start else known, x.shape[1]):
            seen = read if all_levels else read[:, :i]
            logits = bias[i] + seen.to(weight) @ weight[i, : seen.shape[1]]
            p, u = logits.softmax(-1), noise[:, i - shifted(known)].unsqueeze(1)
            result[:, i] = (p.cumsum(-1)[:, :-1] <= u).sum(1) if draw is None else draw(p, u)
            if feed:
                read[:, i] = result[:, i]
        return result

    return answer


def draw_sequences(
    g: torch.Generator, n: int, known: int, k: int
) -> tuple[Tensor, int, Tensor, Tensor, Tensor]:
    d = known + integer(g, 4, 6)
    x = torch.randint(k, (n, d), generator=g)
    bias, weight = 0.5 * normal(g, d, k), 0.7 * normal(g, d, d, k)
    noise = uniform(g, 0, 1, n, d)
    # The order of sums must not decide about a level: no u is nearly a cumulated probability.
    for i in range(known, d):
        row = complete(x[:, : i + 1], known, noise, bias, weight)
        logits = bias[i] + row[:, :i].to(weight) @ weight[i, :i]
        p = logits.softmax(-1)
        edges = F.pad(p.cumsum(-1)[:, :-1], (1, 1))
        edges[:, -1] = 1
        lower = torch.randint(k, (n, 1), generator=g)
        lower = torch.where(p.gather(1, lower) < 0.02, p.argmax(1, keepdim=True), lower)
        low, high = (edges.gather(1, lower + side)[:, 0] for side in (0, 1))
        noise[:, i] = low + (high - low) * uniform(g, 0.05, 0.95, n)
    return x, known, noise, bias, weight


COMPLETE = Question(
    name="complete",
    points=1.5,
    reference=complete,
    draw=(
        lambda g: draw_sequences(g, integer(g, 8, 11), 2, 4),
        lambda g: draw_sequences(g, integer(g, 6, 8), integer(g, 3, 5), 5),
    ),
    mistakes=(
        Mistake(
            "most probable level",
            "The most probable level is taken; a sample follows the distribution, and uses the noise",
            complete_wrong(lambda p, u: p.argmax(-1)),
        ),
        Mistake(
            "drawn values not fed back",
            "The conditionals read the old entries of x: what has been drawn must be fed back",
            complete_wrong(feed=False),
        ),
        Mistake(
            "known entries drawn",
            "The known entries are drawn anew; they are given",
            complete_wrong(from_start=True),
        ),
        Mistake(
            "reads what comes after",
            "The conditionals read all entries; entry i may depend on those before it alone",
            complete_wrong(all_levels=True),
        ),
        Mistake(
            "noise counted from the first drawn entry",
            "The noise is counted from the first entry that is drawn; entry i has its own u, in column i",
            complete_wrong(shifted=lambda known: known),
        ),
        Mistake(
            "noise moved",
            "Entry i uses the noise of the entry before it; entry i has its own u",
            complete_wrong(shifted=lambda known: 1),
        ),
        Mistake(
            "from the top",
            "The levels are counted from the top: this inverts 1 − F, or uses 1 − u",
            complete_wrong(lambda p, u: (p.cumsum(-1)[:, :-1] <= 1 - u).sum(1)),
        ),
        Mistake(
            "one level too low",
            "The level is one too low: count the levels whose cumulated probability u has reached",
            complete_wrong(lambda p, u: ((p.cumsum(-1)[:, :-1] <= u).sum(1) - 1).clamp(min=0)),
        ),
        Mistake(
            "one level too low, down to −1",
            "The level is one too low, and −1 at times: count the levels whose cumulated probability u has "
            "reached",
            complete_wrong(lambda p, u: (p.cumsum(-1)[:, :-1] <= u).sum(1) - 1),
        ),
        Mistake(
            "one level too high",
            "The level is one too high: the levels are counted from 0",
            complete_wrong(lambda p, u: (p.cumsum(-1)[:, :-1] <= u).sum(1) + 1),
        ),
        Mistake(
            "probabilities not cumulated",
            "u is compared with the probabilities themselves; the distribution function is their running sum",
            complete_wrong(lambda p, u: (p[:, :-1] <= u).sum(1)),
        ),
    ),
    equivalents=(complete_by_loop,),
)


# 10. Teacher forcing of a recurrent model. ------------------------------------------------------


def recurrent_logits(inputs, embedding, recurrent, readout):
    h = torch.zeros(len(inputs), recurrent.shape[0]).to(recurrent)
    logits = []
    for t in range(inputs.shape[1]):
        h = torch.tanh(embedding[inputs[:, t]] + h @ recurrent)
        logits.append(h @ readout)
    return torch.stack(logits, 1)


def forced_terms(inputs, targets, *weights):
    log_p = recurrent_logits(inputs, *weights).log_softmax(-1)
    return -log_p.gather(2, targets[:, :, None])[:, :, 0]


def shifted(x, embedding):
    start = torch.full_like(x[:, :1], len(embedding) - 1)
    return torch.cat([start, x[:, :-1]], 1)


def teacher_forcing(x, *weights):
    return forced_terms(shifted(x, weights[0]), x, *weights).sum(1)


def teacher_forcing_by_cross_entropy(x, *weights):
    logits = recurrent_logits(shifted(x, weights[0]), *weights)
    return F.cross_entropy(logits.transpose(1, 2), x, reduction="none").sum(-1)


def teacher_forcing_by_loop(x, embedding, recurrent, readout):
    totals = []
    for row in x.tolist():
        h, total, value = recurrent.new_zeros(len(recurrent)), 0.0, len(embedding) - 1
        for target in row:
            h = torch.tanh(embedding[value] + recurrent.T @ h)
            logits = readout.T @ h
            total = total + torch.logsumexp(logits, 0) - logits[target]
            value = target
        totals.append(total)
    return torch.stack(totals)


def free_running(x, embedding, recurrent, readout):
    value = torch.full_like(x[:, 0], len(embedding) - 1)
    inputs = value[:, None]
    for _ in range(x.shape[1] - 1):
        guess = recurrent_logits(inputs, embedding, recurrent, readout)[:, -1].argmax(-1)
        inputs = torch.cat([inputs, guess[:, None]], 1)
    return forced_terms(inputs, x, embedding, recurrent, readout).sum(1)


def draw_recurrent(
    g: torch.Generator, n: int, length: int, levels: int, hidden: int
) -> tuple[Tensor, ...]:
    x = torch.randint(levels, (n, length), generator=g)
    recurrent = 0.6 * normal(g, hidden, hidden)
    return x, normal(g, levels + 1, hidden), recurrent, 1.5 * normal(g, hidden, levels)


TEACHER = Question(
    name="teacher_forcing",
    points=1.5,
    reference=teacher_forcing,
    draw=(
        lambda g: draw_recurrent(g, integer(g, 3, 5), integer(g, 6, 8), 5, 3),
        lambda g: draw_recurrent(g, integer(g, 6, 8), integer(g, 4, 6), 3, 4),
    ),
    mistakes=(
        Mistake(
            "not shifted",
            "At every time the network reads the value that it is to predict: the inputs are not shifted",
            lambda x, *w: forced_terms(x, x, *w).sum(1),
        ),
        Mistake(
            "first value not predicted",
            "The first value is not scored: it is predicted from the start symbol",
            lambda x, *w: forced_terms(x[:, :-1], x[:, 1:], *w).sum(1),
        ),
        Mistake(
            "last value not predicted",
            "The last value is not scored",
            lambda x, *w: teacher_forcing(x[:, :-1], *w),
        ),
        Mistake(
            "own predictions fed back",
            "The network reads its own guesses; teacher forcing gives it the true values before",
            free_running,
        ),
        Mistake(
            "shifted by two",
            "The inputs are shifted by two: the value just before is out of sight",
            lambda x, *w: forced_terms(shifted(shifted(x, w[0]), w[0]), x, *w).sum(1),
        ),
        Mistake(
            "another start symbol",
            "The first input is 0, a value like any other; the start symbol has a row of its own",
            lambda x, *w: forced_terms(torch.cat([0 * x[:, :1], x[:, :-1]], 1), x, *w).sum(1),
        ),
        Mistake(
            "mean over time",
            "The values are averaged: the log-likelihood of a sequence is the sum over them",
            lambda x, *w: teacher_forcing(x, *w) / x.shape[1],
        ),
        Mistake(
            "batch reduced",
            "The batch is averaged as well: the result must keep one value per sequence, shape (N,)",
            lambda x, *w: teacher_forcing(x, *w).mean(),
        ),
        Mistake(
            "sign",
            "This is the log-likelihood; its negative is asked for",
            lambda *a: -teacher_forcing(*a),
        ),
    ),
    equivalents=(teacher_forcing_by_cross_entropy, teacher_forcing_by_loop),
)


# 11. Several orders, one model. -----------------------------------------------------------------


def order_ensemble(log_p):
    r, _, d = log_p.shape
    log_prob = torch.logsumexp(log_p.sum(2), 0) - math.log(r)
    return -log_prob / (d * math.log(2))


def draw_orders(
    g: torch.Generator, r: tuple[int, int], n: tuple[int, int], d: tuple[int, int]
) -> tuple[Tensor]:
    # No two sizes are equal.
    return (-uniform(g, 0.2, 2.5, integer(g, *r), integer(g, *n), integer(g, *d)),)


ENSEMBLE = Question(
    name="order_ensemble",
    points=1,
    reference=order_ensemble,
    draw=(
        partial(draw_orders, r=(2, 4), n=(4, 6), d=(6, 9)),
        partial(draw_orders, r=(6, 8), n=(2, 4), d=(4, 6)),
    ),
    mistakes=(
        Mistake(
            "mean of logs",
            "The log-likelihoods of the orders are averaged; the model averages their probabilities",
            lambda p: -p.sum(2).mean(0) / (p.shape[2] * math.log(2)),
        ),
        Mistake(
            "averaged pixel by pixel",
            "The conditionals are averaged pixel by pixel; the mixture averages the probabilities of images",
            lambda p: -(p.logsumexp(0) - math.log(len(p))).sum(1) / (p.shape[2] * math.log(2)),
        ),
        Mistake(
            "not divided",
            "The probabilities are added and not averaged: they sum to the number of orders",
            lambda p: order_ensemble(p) - math.log2(len(p)) / p.shape[2],
        ),
        Mistake(
            "nats/dim",
            "This is in nats per dimension: divide by log 2",
            lambda p: order_ensemble(p) * math.log(2),
        ),
        Mistake(
            "bits per image",
            "This is in bits for the whole image: divide by the number of dimensions",
            lambda p: order_ensemble(p) * p.shape[2],
        ),
        Mistake(
            "best order",
            "This is the likelihood under the best of the orders, which is no model: it exceeds the average",
            lambda p: -p.sum(2).max(0).values / (p.shape[2] * math.log(2)),
        ),
        Mistake(
            "pixels averaged first",
            "The pixels are averaged before the exponential; the likelihood of an image needs their sum",
            lambda p: -(p.mean(2).logsumexp(0) - math.log(len(p))) / math.log(2),
        ),
        Mistake(
            "sign",
            "The sign is flipped: bits count −log₂ P(x)",
            lambda p: -order_ensemble(p),
        ),
    ),
    equivalents=(
        lambda p: -p.sum(2).exp().mean(0).log2() / p.shape[2],
        lambda p: torch.stack(
            [
                -torch.logsumexp(image.sum(1) - math.log(len(p)), 0) / math.log(2) / p.shape[2]
                for image in p.unbind(1)
            ]
        ),
    ),
)

# 12. The bound of a masked model. ---------------------------------------------------------------


def masked_bound(log_p, masked):
    number = masked.sum(1)
    return (log_p * masked).sum(1) * log_p.shape[1] / number


def weighted_bound(weight, *, masked_only=True):
    """`masked_bound` with another weight, a function of the numbers of masked and of all pixels."""

    def answer(log_p, masked):
        m, d = masked.sum(1).double(), log_p.shape[1]
        summed = log_p * masked if masked_only else log_p
        return summed.sum(1) * weight(m, d)

    return answer


def draw_masks(g: torch.Generator, n: tuple[int, int], d: tuple[int, int]) -> tuple[Tensor, Tensor]:
    n, d = integer(g, *n), integer(g, *d)
    # No number of masked pixels for which two weights agree: not half, not all, not all but one.
    fits = [m for m in range(1, d - 1) if 2 * m not in (d - 1, d, d + 1)]
    numbers = torch.tensor(fits)[torch.randint(len(fits), (n,), generator=g)]
    numbers[0], numbers[1] = 1, fits[-1]  # a single one, and many
    place = torch.rand(n, d, generator=g).argsort(1).argsort(1)
    return -uniform(g, 0.3, 2.5, n, d), place < numbers[:, None]


MASKED = Question(
    name="masked_bound",
    points=1.5,
    reference=masked_bound,
    draw=(
        partial(draw_masks, n=(3, 5), d=(7, 9)),
        partial(draw_masks, n=(7, 9), d=(10, 13)),
    ),
    mistakes=(
        Mistake(
            "weight 1",
            "The masked pixels are added without a weight: a mask of few pixels stands for many orders",
            weighted_bound(lambda m, d: 1),
        ),
        Mistake(
            "all pixels",
            "All pixels are added; the network has read those that are not masked",
            weighted_bound(lambda m, d: d / m, masked_only=False),
        ),
        Mistake(
            "known pixels",
            "The known pixels are added, which the network has read; the masked ones are predicted",
            lambda p, masked: masked_bound(p, ~masked),
        ),
        Mistake(
            "weight inverted",
            "The weight is upside down: the fewer pixels are masked, the more each of them counts",
            weighted_bound(lambda m, d: m / d),
        ),
        Mistake(
            "mean over the masked pixels",
            "This is the mean over the masked pixels; an image of D pixels costs D times as much",
            weighted_bound(lambda m, d: 1 / m),
        ),
        Mistake(
            "mean over all pixels",
            "The sum over the masked pixels is divided by D; the weight is D over their number",
            weighted_bound(lambda m, d: 1 / d),
        ),
        Mistake(
            "number of known pixels",
            "The sum is divided by the number of known pixels; the masked ones are averaged",
            weighted_bound(lambda m, d: d / (d - m)),
        ),
        Mistake(
            "place for number",
            "The sum is divided by the place in the order, D − m + 1; at that place m pixels are masked",
            weighted_bound(lambda m, d: d / (d - m + 1)),
        ),
        Mistake(
            "one number for the batch",
            "All images get the mean number of masked pixels; each has its own",
            lambda p, masked: (p * masked).sum(1) * p.shape[1] / masked.sum(1).double().mean(),
        ),
        Mistake(
            "sign",
            "The sign is flipped: a lower bound of log p(x) is asked for, and it is negative",
            lambda *a: -masked_bound(*a),
        ),
        Mistake(
            "bits per dimension",
            "This is in bits per dimension; nats per image are asked for",
            lambda p, masked: -masked_bound(p, masked) / (p.shape[1] * math.log(2)),
        ),
    ),
    equivalents=(
        lambda p, masked: p.masked_fill(~masked, 0).sum(1) / masked.double().mean(1),
        lambda p, masked: torch.stack(
            [len(row) * row[hidden].mean() for row, hidden in zip(p, masked, strict=True)]
        ),
    ),
)


# Optional: the receptive field of a stack of unequal layers. ------------------------------------


def receptive_field(kernels, dilations):
    return 1 + ((kernels - 1) * dilations).sum()


def receptive_field_by_sets(kernels, dilations):
    seen = {0}
    for k, d in zip(kernels.tolist(), dilations.tolist(), strict=True):
        seen = {t - tap * d for t in seen for tap in range(k)}
    return 1 - min(seen)


def draw_stack(g: torch.Generator, extra: int) -> tuple[Tensor, Tensor]:
    # A layer of one tap, and one without dilation; dilations that do not only grow.
    while True:
        kernels = torch.cat([torch.tensor([1, 2, 4]), torch.randint(2, 6, (extra,), generator=g)])
        kernels = kernels[torch.randperm(3 + extra, generator=g)]
        dilations = torch.cat(
            [torch.tensor([1, 3]), torch.randint(2, 20, (1 + extra,), generator=g)]
        )
        dilations = dilations[torch.randperm(3 + extra, generator=g)]
        spans = (kernels - 1) * dilations
        # Not where one layer's size would do for all, nor where the others add nothing.
        alike = (kernels[0] - 1) * dilations.sum() == spans.sum()
        if dilations.diff().min() < 0 and not alike and kernels[-1] > 1:
            return kernels, dilations


RECEPTIVE_FIELD = Question(
    name="receptive_field",
    points=0,
    reference=receptive_field,
    draw=(partial(draw_stack, extra=0), lambda g: draw_stack(g, integer(g, 2, 5))),
    mistakes=(
        Mistake(
            "own value forgotten",
            "The 1 is missing: without any layer, an output reads its own value",
            lambda k, d: ((k - 1) * d).sum(),
        ),
        Mistake(
            "k for k − 1",
            "k taps span k − 1 steps, not k",
            lambda k, d: 1 + (k * d).sum(),
        ),
        Mistake(
            "dilations ignored",
            "The dilations are not used: taps are d apart, not 1",
            lambda k, d: 1 + (k - 1).sum(),
        ),
        Mistake(
            "first kernel for all",
            "The size of the first kernel is used for every layer",
            lambda k, d: 1 + (k[0] - 1) * d.sum(),
        ),
        Mistake(
            "sums multiplied",
            "The sums over the layers are multiplied; each layer adds its own product",
            lambda k, d: 1 + (k - 1).sum() * d.sum(),
        ),
        Mistake(
            "last layer alone",
            "This is the reach of the last layer alone; the layers before it add theirs",
            lambda k, d: 1 + (k[-1] - 1) * d[-1],
        ),
    ),
    equivalents=(
        receptive_field_by_sets,
        lambda k, d: float(1 - d.sum() + (k * d).sum()),
    ),
)


# Optional: the skew of the second direction. ----------------------------------------------------


def skew_left(x):
    n, c, height, width = x.shape
    skewed = x.new_zeros(n, c, height, height + width - 1)
    for r in range(height):
        skewed[:, :, r, height - 1 - r : height - 1 - r + width] = x[:, :, r]
    return skewed


def skew_right(x):
    return skew_left(x.flip(2)).flip(2)


def skew_left_by_index(x):
    n, c, height, width = x.shape
    rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    place = (rows * (height + width - 1) + height - 1 - rows + columns).flatten()
    flat = x.new_zeros(n, c, height * (height + width - 1))
    flat[:, :, place] = x.flatten(2)
    return flat.unflatten(2, (height, height + width - 1))


def wrapped_around(x):
    height, width = x.shape[2:]
    twice = torch.cat([x, x], 3)[..., : height + width - 1]
    rows = [twice[:, :, r].roll(height - 1 - r, -1) for r in range(height)]
    return torch.stack(rows, 2)


def draw_image(g: torch.Generator, *shape: tuple[int, int]) -> tuple[Tensor]:
    return (signed(g, 0.5, 2, *(integer(g, *size) for size in shape)),)


SKEW = Question(
    name="skew_left",
    points=0,
    reference=skew_left,
    # Images that are higher than wide, and wider than high.
    draw=(
        lambda g: draw_image(g, (1, 3), (3, 4), (4, 6), (2, 4)),
        lambda g: draw_image(g, (3, 4), (1, 3), (2, 4), (4, 7)),
    ),
    mistakes=(
        Mistake(
            "first direction",
            "This is the skew of the first direction, whose lower rows move to the right",
            skew_right,
        ),
        Mistake(
            "mirrored",
            "The image is mirrored: the columns are in the wrong order within each row",
            lambda x: skew_right(x.flip(3)),
        ),
        Mistake(
            "rows turned over",
            "The rows are in the wrong order: row r stays row r, only its columns move",
            lambda x: skew_right(x).flip(2),
        ),
        Mistake(
            "wrapped around",
            "What leaves the image comes in again on the other side: the free places hold zeros",
            wrapped_around,
        ),
        Mistake(
            "too narrow",
            "The result has the width of the image, so that entries are lost",
            lambda x: skew_left(x)[..., : x.shape[3]],
        ),
        Mistake(
            "one too far",
            "Each row moves one place too far: the last one stays where it is",
            lambda x: F.pad(skew_left(x), (1, 0)),
        ),
    ),
    equivalents=(
        skew_left_by_index,
        lambda x: skew_right(x.flip(3)).flip(3),
        lambda x: torch.stack(
            [F.pad(x[:, :, r], (len(x[0, 0]) - 1 - r, r)) for r in range(len(x[0, 0]))], 2
        ),
    ),
)


QUESTIONS = (
    CHAIN_ENTROPY,
    THREE_PIXELS,
    MADE_MASKS,
    COLOUR_MASKS,
    GATED,
    MIXTURE,
    CAUSAL,
    STEP,
    COMPLETE,
    TEACHER,
    ENSEMBLE,
    MASKED,
    RECEPTIVE_FIELD,
    SKEW,
    Measure(
        name="trained_model",
        points=4,
        measure="causal_bits",
        functions=("logits",),
        limit=1.95,
    ),
    Written(
        name="leak",
        points=3,
        rubric=(
            "1 point: reports both numbers for each of the three networks, and says that the loss of the "
            "leaking one is far too good to be true, while its number with replaced pixels is worse "
            "than that of a uniform distribution. 1 point: says why: its first layer reads the value to be "
            "predicted; given only what is known during generation it has nothing to go by, so its "
            "samples are noise, and its loss is no likelihood (its terms are no conditionals of "
            "one distribution). 1 point: says that mask A in every layer gives a valid, somewhat worse model "
            "(each further layer leaves out its own place: without skip connections near neighbours "
            "disappear), and names a test that tells a leak from a good model (replaced pixels, or "
            "the Jacobian)."
        ),
    ),
)
