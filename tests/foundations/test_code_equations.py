"""A model is a code: actual code words, and an actual stack of bits."""

import math
from fractions import Fraction
from itertools import product

import pytest
import torch

pytestmark = pytest.mark.usefixtures("float64")


def random_code(generator, outcomes):
    """Words of a random prefix-free code: leaves of a binary tree, some of which are left unused."""
    words = [""]
    while len(words) < outcomes + 2:
        split = int(torch.randint(len(words), (1,), generator=generator))
        word = words.pop(split)
        words += [word + "0", word + "1"]
    return words[:outcomes]


def entropy(p):
    return -torch.xlogy(p, p).sum()


@pytest.mark.equation(
    "eq-kraft",
    formula=lambda lengths, p: ((2.0**-lengths).sum(), entropy(p) / math.log(2)),
    wrong={
        "powers of e": lambda lengths, p: ((-lengths).exp().sum(), entropy(p) * math.log(2)),
        "one bit more": lambda lengths, p: (
            (2.0 ** (1 - lengths)).sum(),
            entropy(p) / math.log(2),
        ),
        "nats": lambda lengths, p: ((2.0**-lengths).sum(), entropy(p)),
        "one bit above the entropy": lambda lengths, p: (
            (2.0**-lengths).sum(),
            entropy(p) / math.log(2) + 1,
        ),
    },
)
def test_no_prefix_free_code_is_shorter_than_the_entropy(formula):
    generator = torch.Generator().manual_seed(0)
    for _ in range(50):
        words = random_code(generator, 6)
        assert not any(a != b and b.startswith(a) for a, b in product(words, words))
        lengths = torch.tensor([len(word) for word in words], dtype=torch.float64)
        p = torch.distributions.Dirichlet(torch.ones(6)).sample()
        total, least = formula(lengths, p)
        assert total <= 1
        assert p @ lengths >= least
    # Both are equalities for a full tree and the probabilities that it stands for.
    lengths = torch.tensor([1.0, 3.0, 3.0, 2.0])
    p = torch.tensor([0.5, 0.125, 0.125, 0.25])
    total, least = formula(lengths, p)
    torch.testing.assert_close(total, torch.tensor(1.0))
    torch.testing.assert_close(p @ lengths, least)


SYMBOLS = 3


def conditional(past):
    """A model of sequences whose next symbol depends on the whole past; exact fractions."""
    weights = [1 + (3 * sum(past) + 5 * len(past) + 7 * k) % 11 for k in range(SYMBOLS)]
    return [Fraction(weight, sum(weights)) for weight in weights]


def interval(x):
    """The interval of a sequence, by the chain rule: its lower end and its length."""
    low, length = Fraction(0), Fraction(1)
    for i, symbol in enumerate(x):
        probabilities = conditional(x[:i])
        low += length * sum(probabilities[:symbol], Fraction(0))
        length *= probabilities[symbol]
    return low, length


def encode(low, length):
    """The shortest word all of whose continuations lie in [low, low + length)."""
    digits = 0
    while True:
        cell = math.ceil(low * 2**digits)
        if Fraction(cell + 1, 2**digits) <= low + length:
            return f"{cell:0{digits}b}" if digits else ""
        digits += 1


def decode(word, steps):
    value = Fraction(int(word, 2), 2 ** len(word))
    low, length, x = Fraction(0), Fraction(1), ()
    for _ in range(steps):
        probabilities = conditional(x)
        for symbol in range(SYMBOLS):
            if value < low + length * probabilities[symbol]:
                length *= probabilities[symbol]
                break
            low += length * probabilities[symbol]
        x += (symbol,)
    return x


@pytest.mark.equation(
    "eq-arithmetic-length",
    formula=lambda q: math.ceil(-math.log2(q)) + 1,
    wrong={
        "one digit less": lambda q: math.ceil(-math.log2(q)),
        "rounded down": lambda q: math.floor(-math.log2(q)) + 1,
        "nats": lambda q: math.ceil(-math.log(q)) + 1,
        "one digit more": lambda q: math.ceil(-math.log2(q)) + 2,
    },
)
def test_arithmetic_coding_needs_so_many_digits(formula):
    sequences = list(product(range(SYMBOLS), repeat=4))
    intervals = [interval(x) for x in sequences]
    assert sum(length for _, length in intervals) == 1
    words = []
    for x, (low, length) in zip(sequences, intervals, strict=True):
        digits = formula(length)
        assert len(encode(low, length)) <= digits  # so many are enough
        assert digits < -math.log2(length) + 2
        cell = math.ceil(low * 2**digits)  # the first cell of this size inside
        word = f"{cell:0{digits}b}"
        assert Fraction(cell + 1, 2**digits) <= low + length
        assert decode(word, 4) == x
        words.append(word)
    assert not any(a != b and b.startswith(a) for a, b in product(words, words))
    # And no fewer would do wherever the interval lies: the worst place of one of this length.
    for _, length in intervals:
        digits = formula(length) - 1
        low = Fraction(1, 2 ** (digits + 40))
        assert math.ceil(low * 2**digits) + 1 > (low + length) * 2**digits


@pytest.mark.equation(
    "eq-compression-price",
    formula=lambda h, kl: (h / math.log(2), (h + kl) / math.log(2) + 2),
    wrong={
        "divergence dropped": lambda h, kl: (h / math.log(2), h / math.log(2) + 2),
        "nats": lambda h, kl: (h, h + kl + 2),
        "one bit only": lambda h, kl: (h / math.log(2), (h + kl) / math.log(2) + 1),
        "divergence paid below too": lambda h, kl: ((h + kl) / math.log(2) + 2, math.inf),
    },
)
def test_the_price_of_the_wrong_model_in_bits(formula):
    sequences = list(product(range(SYMBOLS), repeat=4))
    q = torch.tensor([float(interval(x)[1]) for x in sequences])
    lengths = torch.tensor([math.ceil(-math.log2(interval(x)[1])) + 1.0 for x in sequences])
    # Data unlike the model; and data that prefer the sequences on which rounding costs most.
    wasted = lengths + q.log2()
    for weights in (torch.rand(81), torch.rand(81) ** 8, wasted**60 * torch.rand(81)):
        p = weights / weights.sum()
        h, kl = entropy(p).item(), (torch.xlogy(p, p) - p * q.log()).sum().item()
        low, high = formula(h, kl)
        assert low <= (p @ lengths).item() < high
    # The model's own data: what is left is the rounding.
    low, _ = formula(entropy(q).item(), 0.0)
    assert 1 <= (q @ lengths).item() - low < 2


TOTAL = 64  # all probabilities of the model are multiples of 1/64
PRIOR = [30, 20, 14]
LIKELIHOOD = [[40, 20, 4], [3, 21, 40], [16, 32, 16]]  # of three values of x, given z
POSTERIOR = [[20, 26, 18], [41, 10, 13], [8, 37, 19]]  # of z given x, not the true one


def push(stack, frequencies, symbol):
    """Write a symbol on a stack of bits, held as one large integer."""
    start, share = sum(frequencies[:symbol]), frequencies[symbol]
    return stack // share * TOTAL + start + stack % share


def pop(stack, frequencies):
    """Read the symbol that was written last, and the stack below it."""
    rest, symbol = stack % TOTAL, 0
    while rest >= frequencies[symbol]:
        rest -= frequencies[symbol]
        symbol += 1
    return stack // TOTAL * frequencies[symbol] + rest, symbol


def expected_length(x, back=1.0):
    q = torch.tensor(POSTERIOR[x]) / TOTAL
    joint = torch.tensor([PRIOR[z] * LIKELIHOOD[z][x] for z in range(3)]) / TOTAL**2
    return (q * (back * q.log2() - joint.log2())).sum().item()


@pytest.mark.equation(
    "eq-bits-back",
    formula=expected_length,
    wrong={
        "no bits back": lambda x: expected_length(x, back=0.0),
        "bits back twice": lambda x: expected_length(x, back=2.0),
        "nats": lambda x: expected_length(x) * math.log(2),
        "likelihood of x": lambda x: (
            -math.log2(sum(PRIOR[z] * LIKELIHOOD[z][x] for z in range(3)) / TOTAL**2)
        ),
    },
)
def test_bits_back_coding_is_as_long_as_the_negative_elbo(formula):
    generator = torch.Generator().manual_seed(0)
    runs = 3000
    for x in range(3):
        grown = []
        for _ in range(runs):
            digits = torch.randint(2, (90,), generator=generator).tolist()
            before = int("1" + "".join(map(str, digits)), 2)
            stack, z = pop(before, POSTERIOR[x])
            stack = push(stack, LIKELIHOOD[z], x)
            stack = push(stack, PRIOR, z)
            grown.append(math.log2(stack) - math.log2(before))
            # The receiver, who has the stack alone, finds x and the bits that lay there before.
            stack, z_found = pop(stack, PRIOR)
            stack, x_found = pop(stack, LIKELIHOOD[z_found])
            assert (x_found, push(stack, POSTERIOR[x_found], z_found)) == (x, before)
        grown = torch.tensor(grown)
        error = 5 * grown.std().item() / runs**0.5
        assert abs(grown.mean().item() - formula(x)) < error
        # The other side of the equation: the evidence, and the divergence from the posterior.
        joint = torch.tensor([PRIOR[z] * LIKELIHOOD[z][x] for z in range(3)]) / TOTAL**2
        q = torch.tensor(POSTERIOR[x]) / TOTAL
        divergence = (q * (q / (joint / joint.sum())).log2()).sum()
        assert formula(x) == pytest.approx((divergence - joint.sum().log2()).item())
