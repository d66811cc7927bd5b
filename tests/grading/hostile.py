"""Submissions of every hostile kind, drawn by hypothesis: bytes, structures, texts, names, replies."""

import copy
import json
from collections import Counter
from typing import Any, ClassVar

import hypothesis.strategies as st
import nbformat
import numpy as np
import torch

from course_lib.checking.answers import as_arrays
from course_lib.grading.notebook import FILE_LIMIT
from course_lib.sandbox import wire

from .course import make
from .test_judge import StandIn

# How many submissions of which kind were tried.
TRIED: Counter[str] = Counter()

PIECES = (
    *(
        "\ud83d",
        "\ude00\ud83d",
        "\0",
        "\x07",
        "\x1b[2J\x1b[31m",
        "\x9b31m",
        "\x7f",
        "\r",
        "\r\n",
        "\n",
    ),
    *("\u2028", "\u2029", "\x85", "\x0b", "\x0c", "\u202e", "\u2066", "\u200b", "\ufeff", "\uffff"),
    *(
        "</script><script>alert(1)</script>",
        "<img src=x onerror=alert(1)>",
        "&#x3c;b>",
        "]]>",
        "-->",
    ),
    *("</pre></table></body>", "\" onmouseover='x", "javascript:alert(1)", "</title>", "<!--"),
    *("=cmd|' /C calc'!A0", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", " =1", "'=1", '"=1', "＝1"),
    *(",", ";", '"', "'", "\\", "%s{}%(a)s", "../../x", "/", "..", "~", "left out", "not answered"),
    *("NaN", "null", "Infinity", "a" * 300, "ä" * 300, "🙂", "e\u0301", "א", "graded by a person"),
)
texts = st.one_of(
    st.lists(
        st.sampled_from(PIECES) | st.text(st.characters(exclude_categories=()), max_size=8),
        max_size=6,
    ).map("".join),
    st.builds(lambda piece, n: piece * n, st.sampled_from(PIECES), st.sampled_from([1000, 50_000])),
)
scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.sampled_from([10**400, -0.0, float("nan"), float("inf")])
    | texts
)
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
    max_leaves=8,
)
nbgrader = st.dictionaries(st.sampled_from(("grade_id", "grade", "solution", "locked")), values)
NAMES = (
    "ada ",
    " ada",
    "ADA",
    "'ada",
    "ada\u200b",
    "=ada",
    "",
    ".",
    "..",
    "a/b",
    "con",
    "x" * 251,
    "٣",
)
names = (
    st.sampled_from(NAMES)
    | texts
    | st.binary(min_size=1, max_size=12).map(lambda raw: raw.decode("utf-8", "surrogateescape"))
)

HONEST = json.loads(nbformat.writes(make.master()))
HONEST_SOURCES = ["".join(c["source"]) for c in HONEST["cells"] if c["cell_type"] == "code"]
FIELDS = ("cell_type", "source", "metadata", "outputs", "id", "execution_count", "attachments")


@st.composite
def notebooks(draw: st.DrawFn, kind: str) -> dict[str, Any]:
    """An honest notebook with one part that is not."""
    made = copy.deepcopy(HONEST)
    cells = made["cells"]
    # Even an untouched copy of the honest cells must not be taken for one of the honest students.
    cells[1]["source"] = "# another's\n" + "".join(cells[1]["source"])
    if kind == "answer":
        cells[-1]["source"] = draw(texts | st.lists(texts, max_size=4))
    elif kind == "field":
        draw(st.sampled_from(cells))[draw(st.sampled_from(FIELDS) | texts)] = draw(values)
    elif kind == "cell":
        cells.insert(draw(st.integers(0, len(cells))), draw(values))
    elif kind == "cells":
        made["cells"] = draw(values)
    elif kind == "metadata":
        marks = draw(values | st.fixed_dictionaries({"nbgrader": values | nbgrader}))
        draw(st.sampled_from([made, cells[-1], cells[0]]))["metadata"] = marks
    elif kind == "code":
        cells[0]["source"] = draw(texts)
    else:
        cells += [{"cell_type": "code", "source": draw(texts)[:10] + "x"}] * 3000
    return made


PARTS = ("answer", "field", "cell", "cells", "metadata", "code", "many")
KINDS = (*PARTS, "bytes", "JSON", "changed", "nested", "long")


@st.composite
def submissions(draw: st.DrawFn, kind: str) -> bytes:
    """The bytes that are handed in."""
    whole = json.dumps(HONEST).encode()
    if kind in PARTS:
        made, plain = draw(notebooks(kind)), draw(st.booleans())
        return json.dumps(made, ensure_ascii=plain).encode("utf-8", "surrogatepass")
    if kind == "bytes":
        return draw(st.binary(max_size=200))
    if kind == "JSON":
        return json.dumps(draw(values | st.fixed_dictionaries({"cells": values}))).encode()
    if kind == "changed":
        at = draw(st.integers(0, len(whole)))
        with_bytes = whole[:at] + draw(st.binary(max_size=4)) + whole[at + 1 :]
        other = json.dumps(HONEST).encode("utf-16")
        return draw(st.sampled_from([whole[:at], with_bytes, b"\xef\xbb\xbf" + whole, other]))
    if kind == "nested":
        depth = draw(st.sampled_from([100, 900, 2000, 100_000]))
        inner = "[" * depth + "]" * depth
        return whole.replace(b'"metadata": {}', b'"metadata": ' + inner.encode())
    number = "9" * draw(st.sampled_from([5000, 20_000]))
    size = draw(st.sampled_from([b"", b" " * FILE_LIMIT]))
    return b'{"nbformat": ' + number.encode() + b"}" + size


arrays = st.dictionaries(
    st.sampled_from(["", "0", "1"]) | texts,
    st.sampled_from(
        [
            *(
                np.zeros(4),
                np.full(4, np.nan),
                np.full(4, 1e308),
                np.array(np.inf),
                np.zeros((0, 3)),
            ),
            *(np.zeros(4, complex), np.zeros(4, bool), np.zeros(4, np.int64), np.zeros((1,) * 30)),
            *(np.zeros(4, np.float16), np.zeros(4, np.uint8), np.full(4, -(2**63))),
        ]
    ),
    max_size=4,
)
failures = st.sampled_from([wire.Broken("the other side closed the pipe"), TimeoutError()])
cell_numbers = st.integers(-2, 9)
cell_messages = (
    st.fixed_dictionaries({"cell": cell_numbers, "error": texts | values})
    | st.fixed_dictionaries({"cell": cell_numbers | values})
    | st.just({"ready": "notebook"})
    | st.dictionaries(texts | st.sampled_from(["cell", "error", "ready"]), values, max_size=3)
)
replies = (
    st.fixed_dictionaries({"error": texts | values})
    | st.just({"missing": True})
    | st.just({"ok": True})
    | st.dictionaries(texts | st.sampled_from(["id", "error", "missing"]), values, max_size=3)
)


class Puppet(StandIn):
    """A box that serves honest notebooks honestly, and says of any other what was drawn for it."""

    made: ClassVar[list] = []
    answers: ClassVar[dict] = {}
    cells: ClassVar[list] = []
    answers_drawn: ClassVar[list] = []
    printed = ""

    def __init__(self, room, limits, slot):
        super().__init__(room, limits, slot)
        self.honest = True

    def send(self, header, arrays=None, *, deadline):
        if "cells" in header:
            self.honest = header["cells"] == HONEST_SOURCES
        if self.honest and "cells" in header:
            return super().send(header, arrays, deadline=deadline)
        if self.honest:  # in a thread, where a runner's alarm cannot be set
            function = self.namespace[header["name"]]
            results = as_arrays(function(*(torch.from_numpy(a) for a in arrays.values())))
            self.replies.append(({"id": header["id"], "ok": True}, results))
            return None
        if "cells" in header:
            for message in self.cells:
                self.replies.append(message if isinstance(message, Exception) else (message, {}))
            self.replies.append(({"ready": "notebook"}, {}))
            return None
        message, results = self.answers_drawn[header["id"] % len(self.answers_drawn)]
        if isinstance(message, Exception):
            self.replies.append(message)
        else:
            self.replies.append(({"id": header["id"], **message}, results))
        return None

    @property
    def output(self):
        return "" if self.honest else self.printed


@st.composite
def boxes(draw: st.DrawFn) -> None:
    """Draw what boxes of the odd submission do."""
    Puppet.cells = draw(st.lists(cell_messages | failures, max_size=5))
    Puppet.answers_drawn = draw(
        st.lists(st.tuples(replies | failures, arrays), min_size=1, max_size=4)
    )
    raw = draw(st.binary(max_size=50)).decode(errors="replace")
    Puppet.printed = (raw + draw(texts))[: 2**16]


# Cells for true boxes; each takes one text. The first say something, the others answer with it.
SAYING = (
    "raise ValueError({text})",
    "print({text})",
    "import sys; sys.stderr.write(repr({text}) * 10); sys.stdout.buffer.write(bytes(range(256)))",
    "class Odd(Exception):\n    def __str__(self): raise self\nraise Odd({text})",
    "raise type('E' + ''.join(c for c in {text} if c.isalpha()), (Exception,), {{}})({text})",
    "import warnings; warnings.warn({text})",
    "{raw}",
)
ANSWERING = (
    "def target(x, w): raise RuntimeError({text})",
    "def target(x, w): return {{{text}: x, 'b': w}}",
    "def target(x, w): return {{{text} * 500_000: x}}",
    "def target(x, w): return {{(str(k) + {text}): x for k in range(2000)}}",
    "class Odd(Exception):\n    def __str__(self): return 5\ndef target(x, w): raise Odd({text})",
    "class Key(str):\n    def __str__(self): raise KeyError({text})\n"
    "def target(x, w): return {{Key('a'): x}}",
    "def target(x, w):\n    r = [{text}]\n    r.append(r)\n    return r",
)


def real_notebooks(text: str) -> dict[str, bytes]:
    """Notebooks that say a text in every way, and one for each way to answer with it."""

    def made(*cells: str) -> bytes:
        filled = [cell.format(text=ascii(text), raw=text) for cell in cells]
        notebook = make.notebook(*filled)
        notebook.cells[-1].source = text
        return json.dumps(notebook).encode()

    return {"odd": made(*SAYING)} | {f"odd {k}": made(cell) for k, cell in enumerate(ANSWERING)}
