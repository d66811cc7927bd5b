"""Attention: every place of a sequence reads the others, with weights that depend on what stands there.

Shared by the models whose network is a transformer. With ``causal`` a place reads itself and what comes
before it; without, all places. Nothing here knows positions: permuted tokens give permuted outputs, unless a
mask or an embedding of the positions tells them apart.
"""

import math

import torch
from torch import Tensor, nn

from course_lib.fast import fast_path
from course_lib.inputs import require_dropout, require_positive_integer, require_shapes
from course_lib.saved_settings import SavedSettings


def causal_mask(n: int, *, device: torch.device | str | None = None) -> Tensor:
    """Which places each place may read: itself and those before it (``eq-causal-attention``).

    Args:
        n: number T of places.
        device: where the mask is made.

    Returns:
        True where the row's place reads the column's, bool, shape ``(T, T)``.
    """
    n = require_positive_integer(n, "n")
    return torch.ones(n, n, dtype=torch.bool, device=device).tril()


def attention_weights(queries: Tensor, keys: Tensor, *, causal: bool = False) -> Tensor:
    """The weights softmax(q·k / √d) with which each query reads each key.

    Products of d independent numbers of variance 1 have variance d; divided by √d they have variance 1, and
    the softmax begins neither flat nor saturated (``eq-attention-scale``).

    Source: Vaswani et al., "Attention is all you need" (2017).

    Args:
        queries: shape ``(..., T, d)``.
        keys: shape ``(..., S, d)``.
        causal: leave out the keys after each query; then T must be S.

    Returns:
        Shape ``(..., T, S)``; the last axis sums to 1.

    Raises:
        ValueError: keys of another size than the queries', or `causal` with other than as many keys as
            queries.
    """
    _require_fitting(causal, queries=(queries, "... T d"), keys=(keys, "... S d"))
    scores = queries @ keys.transpose(-1, -2) / math.sqrt(queries.shape[-1])
    if causal:
        mask = causal_mask(scores.shape[-1], device=scores.device)
        scores = scores.masked_fill(~mask, -math.inf)
    return scores.softmax(-1)


def attend(queries: Tensor, keys: Tensor, values: Tensor, *, causal: bool = False) -> Tensor:
    """Means of the values, weighted for each query by `attention_weights`.

    Args:
        queries: shape ``(..., T, d)``.
        keys: shape ``(..., S, d)``.
        values: shape ``(..., S, e)``.
        causal: leave out what comes after each query; then T must be S.

    Returns:
        Shape ``(..., T, e)``.

    Raises:
        ValueError: keys of another size than the queries', another number of values than of keys, or `causal`
            with other than as many keys as queries.
    """
    _require_fitting(
        causal, queries=(queries, "... T d"), keys=(keys, "... S d"), values=(values, "... S e")
    )
    fast = fast_path(attend)
    if fast is not None:
        return fast(queries, keys, values, causal=causal)
    return attention_weights(queries, keys, causal=causal) @ values


def _require_fitting(causal: bool, **given: tuple[Tensor, str]) -> None:
    """Require shapes that fit, so that a path without checks of its own reads nothing else."""
    require_shapes(**given)
    T, S = given["queries"][0].shape[-2], given["keys"][0].shape[-2]
    if causal and T != S:
        raise ValueError(
            f"causal attention has {T} queries and {S} keys; as many keys as queries are expected. Pass the "
            f"keys that may be read, and leave causal out."
        )


class SelfAttention(SavedSettings):
    """Attention of a sequence to itself, by several heads that each read a share of the features.

    Heads may share keys and values, several queries to each: what a sampler keeps of the past, and has to
    read at every step, then shrinks by as much.

    Source: Vaswani et al. (2017); shared keys and values: Shazeer, "Fast transformer decoding" (2019).

    Args:
        width: number of features of a token.
        heads: number of heads, which divides `width`.
        causal: whether a place reads itself and those before it only.
        key_value_heads: number of different keys and values, which divides `heads`; as many as heads if not
            given.

    Raises:
        ValueError: `heads` does not divide `width`, or `key_value_heads` not `heads`.
    """

    def __init__(
        self, width: int, heads: int, *, causal: bool = False, key_value_heads: int | None = None
    ) -> None:
        super().__init__()
        width = require_positive_integer(width, "width")
        self.heads = require_positive_integer(heads, "heads")
        shared = heads if key_value_heads is None else key_value_heads
        self.key_value_heads = require_positive_integer(shared, "key_value_heads")
        if width % self.heads or self.heads % self.key_value_heads:
            raise ValueError(
                f"heads is {self.heads}, width {width} and key_value_heads {self.key_value_heads}; a "
                f"number of heads that divides the width is expected, and one of keys and values that "
                f"divides the number of heads."
            )
        self.causal = causal
        self.size = width // self.heads  # of a query, a key and a value
        features = (self.heads + 2 * self.key_value_heads) * self.size
        self.queries_keys_values = nn.Linear(width, features)
        self.output = nn.Linear(width, width)

    def settings(self) -> dict[str, object]:
        """What the weights' meaning depends on."""
        return {
            "heads": self.heads,
            "key_value_heads": self.key_value_heads,
            "causal": self.causal,
        }

    def project(self, tokens: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values of tokens ``(..., T, width)``, each ``(..., its heads, T, size)``."""
        parts = self.queries_keys_values(tokens).unflatten(-1, (-1, self.size)).transpose(-3, -2)
        return parts.split([self.heads, self.key_value_heads, self.key_value_heads], -3)

    def merge(self, read: Tensor) -> Tensor:
        """What the heads have read, ``(..., heads, T, width/heads)``, as tokens ``(..., T, width)``."""
        return self.output(read.transpose(-3, -2).flatten(-2))

    def forward(self, tokens: Tensor) -> Tensor:
        """From and to shape ``(..., T, width)``."""
        queries, keys, values = self.project(tokens)
        readers = self.heads // self.key_value_heads
        if readers > 1:
            keys, values = (part.repeat_interleave(readers, -3) for part in (keys, values))
        return self.merge(attend(queries, keys, values, causal=self.causal))


class AttentionBlock(nn.Module):
    """A layer of a transformer: attention between places, then a perceptron at each place.

    Both add to their input, and read it normalized ("pre-norm", by which a deep stack trains without care).

    Source: Vaswani et al. (2017); the norm in front of each part: Xiong et al. (2020).

    Args:
        width: number of features of a token.
        heads: number of heads, which divides `width`.
        causal: whether a place reads itself and those before it only.
        dropout: share of what each part adds that is dropped in training.
        expansion: width of the perceptron's hidden layer, in widths of a token.
        key_value_heads: see `SelfAttention`.
    """

    def __init__(
        self,
        width: int,
        heads: int,
        *,
        causal: bool = False,
        dropout: float = 0.0,
        expansion: int = 4,
        key_value_heads: int | None = None,
    ) -> None:
        super().__init__()
        self.attention = SelfAttention(width, heads, causal=causal, key_value_heads=key_value_heads)
        hidden = width * require_positive_integer(expansion, "expansion")
        self.before_attention, self.before_perceptron = nn.LayerNorm(width), nn.LayerNorm(width)
        self.perceptron = nn.Sequential(
            nn.Linear(width, hidden), nn.GELU(approximate="tanh"), nn.Linear(hidden, width)
        )
        self.dropout = nn.Dropout(require_dropout(dropout))

    def forward(self, tokens: Tensor) -> Tensor:
        """From and to shape ``(..., T, width)``."""
        tokens = tokens + self.dropout(self.attention(self.before_attention(tokens)))
        return tokens + self.dropout(self.perceptron(self.before_perceptron(tokens)))
