"""What `check` says beside right and wrong: time, precision, and modules that grading does not have."""

import itertools
import json
import re
import sys
import types
from dataclasses import replace

import numpy as np
import pytest
import torch

from course_lib.checking import check, checking, presence
from course_lib.checking.checking import WrongAnswer, diagnosis, evaluate
from course_lib.checking.measures import Measurement
from course_lib.checking.public import PublicMeasure
from course_lib.grading.question import Measure, Question, load_assignment
from course_lib.grading.release import public_checks

from .assignments import ASSIGNMENTS, ROOT
from .test_classroom import COURSE

MINI = load_assignment("mini", COURSE)


@pytest.fixture
def public(monkeypatch):
    questions = {q.name: q.public("mini") for q in MINI.questions[:3]}
    questions["model"] = PublicMeasure("model", "decoder_nats", ("decode",), 20.0, seconds=60)
    monkeypatch.setattr(checking, "load", lambda assignment: questions)


def right(x, w):
    return 7.25 * (w * x**2).sum(1)


def clock(monkeypatch, took):
    times = itertools.chain([100.0, 100.0 + took], itertools.repeat(200.0))
    monkeypatch.setattr(checking, "time", types.SimpleNamespace(monotonic=lambda: next(times)))


@pytest.mark.parametrize(("took", "warned"), [(0.1, False), (0.99, False), (1.1, True), (6, True)])
def test_a_slow_answer_is_warned_of_before_the_grading_stops_it(
    public, monkeypatch, capsys, took, warned
):
    """The mini assignment allows 4 s for public and hidden inputs together: twice what is measured."""
    clock(monkeypatch, took)
    check("mini.target", right)
    said = capsys.readouterr().out
    assert said.startswith("✓ mini.target: right on 4 public cases")
    assert ("slow" in said) is warned
    assert not warned or "stops it after 4 s" in said


def test_a_slow_model_is_warned_of(public, monkeypatch, capsys):
    monkeypatch.setattr(
        checking.measures, "decoder_nats", lambda ask, *, split, seed: Measurement(19.0, "nats")
    )
    for took, warned in ((29, False), (31, True)):
        clock(monkeypatch, took)
        check("mini.model", lambda z: z)
        assert ("stops it after 60 s" in capsys.readouterr().out) is warned


def test_a_wrong_and_slow_answer_is_told_both(public, monkeypatch):
    clock(monkeypatch, 9)
    with pytest.raises(WrongAnswer, match=r"weights are not used\. But it is slow"):
        check("mini.target", lambda x, w: 7.25 * (x**2).sum(1))


def test_the_limits_are_released_and_stand_on_the_students_page():
    page = (ROOT / "book" / "instructors" / "assignments.md").read_text(encoding="utf-8")
    limits = {Question: set(), Measure: set()}
    for assignment in ASSIGNMENTS:
        stored = {
            q["name"]: q["seconds"] for q in json.loads(json.dumps(public_checks(assignment)))
        }
        for question in assignment.questions:
            if type(question) in limits:
                assert stored[question.name] == question.seconds
                limits[type(question)].add(question.seconds)
    assert limits == {Question: {10}, Measure: {60}}
    assert re.search(r"10 seconds[^.]*one question", page)
    assert re.search(r"60 seconds[^.]*trained model", page)


# Numerics. --------------------------------------------------------------------------------------

LOG_SIGMOID = Question(
    name="log_sigmoid",
    points=1,
    reference=torch.nn.functional.logsigmoid,
    draw=lambda g: (155 * torch.rand(6, generator=g, dtype=torch.float64) - 150,),
)
PROBABILITY = replace(
    LOG_SIGMOID,
    name="probability",
    reference=torch.sigmoid,
    draw=lambda g: (torch.randn(6, generator=g, dtype=torch.float64),),
)


def said(question, answer):
    public = question.public("a test")
    return diagnosis(public, evaluate(public, answer))


@pytest.mark.parametrize(
    ("question", "answer", "advice"),
    [
        (LOG_SIGMOID, lambda x: torch.sigmoid(x).log(), "in float32.*use logsigmoid"),
        (LOG_SIGMOID, lambda x: (torch.sigmoid(x) + 1e-12).log(), "answered by -27.63.*epsilon"),
        (
            LOG_SIGMOID,
            lambda x: torch.sigmoid(x).clamp(1e-40).log(),
            "answered by|wrong in float32",
        ),
        (
            LOG_SIGMOID,
            lambda x: torch.nn.functional.logsigmoid(x).half(),
            "precision looks like float16's",
        ),
        (LOG_SIGMOID, lambda x: (x * 1e4).half(), "ends at 65504"),
        (
            LOG_SIGMOID,
            lambda x: torch.nn.functional.logsigmoid(x).bfloat16(),
            "precision looks like bfloat16's",
        ),
        (PROBABILITY, lambda x: torch.sigmoid(x.half()), "precision looks like float16's"),
        (PROBABILITY, lambda x: torch.sigmoid(x.half()).double(), "precision looks like float16's"),
        (PROBABILITY, lambda x: torch.sigmoid(x.bfloat16()), "precision looks like bfloat16's"),
        (PROBABILITY, lambda x: 1 / (1.0005 + (-x).exp()), "nearly right.*epsilon"),
        (PROBABILITY, lambda x: torch.sigmoid(x).numpy().astype(np.float16), "float16's"),
    ],
)
def test_what_is_wrong_with_the_arithmetic_is_said(question, answer, advice):
    assert re.search(advice, said(question, answer)), said(question, answer)


@pytest.mark.parametrize(
    "answer",
    [
        lambda x: -torch.sigmoid(x),
        lambda x: 2 * torch.sigmoid(x),
        lambda x: torch.sigmoid(x) + 0.5,
        torch.tanh,
        torch.zeros_like,
        lambda x: torch.sigmoid(x)[:3],
        lambda x: torch.sigmoid(x).round(),
        lambda x: torch.sigmoid(x) + 0j,
    ],
)
def test_nothing_is_said_of_the_arithmetic_where_the_formula_is_wrong(answer):
    text = said(PROBABILITY, answer)
    assert text is not None
    assert not re.search("precision|logsigmoid|epsilon|float16", text), text


def test_a_right_answer_gets_no_advice():
    for question in (LOG_SIGMOID, PROBABILITY):
        assert said(question, question.reference) is None


# Modules that are absent. -----------------------------------------------------------------------

NOTEBOOK = """
import math, sys, torch, numpy as np, sklearn.datasets, PIL.Image
from torch import nn
from course_lib.data import digits
from course_lib.training import fit
from course_lib.checking import WrongAnswer, check
import sympy, functools, collections, matplotlib.pyplot as plt
data = digits()
model = nn.Linear(1, 1)
written = sympy.lambdify([sympy.Symbol("x")], sympy.Symbol("x") ** 2)
part = functools.partial(written, 1)
Pair = collections.namedtuple("Pair", "a b")
several = [data, model, torch.float32, np.float64(1), np.exp, Pair(1, 2), (n for n in "ab")]
first, kind, ufunc, pair, drawn = several[0], several[2], several[4], several[5], several[6]
def answer(x):
    import scipy.special
    return x
"""


def namespace(source):
    space = {"__name__": "__main__"}
    exec(source, space)
    return space


def test_what_the_statements_allow_is_present():
    assert presence.absent(namespace(NOTEBOOK)) == set()


ABSENT = {
    "from course_lib.divergences import kl_gaussian": {"course_lib.divergences"},
    "import course_lib.vae as vae": {"course_lib.vae"},
    "from course_lib import masked": {"course_lib.masked"},
    "from course_lib.evaluation import bits_per_dim as bits": {"course_lib.evaluation"},
    "from course_lib.vae import VAE\nmodel = VAE((1, 8, 8), 2)": {"course_lib.vae.vae"},
    "from course_lib.checking.measures import images": {"course_lib.checking.measures.common"},
    "def f(x):\n    from course_lib.divergences import kl_gaussian": {"course_lib.divergences"},
    "def f(x):\n    def g():\n        import my_helpers\n    return g": {"my_helpers"},
    "class A:\n    def f(self):\n        import my_helpers.more": {"my_helpers"},
    "import my_helpers": {"my_helpers"},
    "import pytest as p, hypothesis.strategies as st": {"pytest", "hypothesis"},
}


@pytest.mark.parametrize("source", ABSENT)
def test_what_is_absent_in_grading_is_found(monkeypatch, source):
    monkeypatch.setitem(sys.modules, "my_helpers", types.ModuleType("my_helpers"))
    assert presence.absent(namespace(NOTEBOOK + source)) == ABSENT[source]


def test_the_check_names_it_in_a_notebook(public, monkeypatch, capsys):
    source = "from course_lib.divergences import kl_gaussian\nimport hypothesis"
    shell = types.SimpleNamespace(user_ns=namespace(source))
    check("mini.target", right)
    assert "Note" not in capsys.readouterr().out  # outside of a notebook
    ipython = types.SimpleNamespace(get_ipython=lambda: shell)
    monkeypatch.setitem(sys.modules, "IPython", ipython)
    check("mini.target", right)
    first, second, line = capsys.readouterr().out.splitlines()
    assert first.startswith("Note: course_lib.divergences: absent while your notebook is graded")
    assert second.startswith("Note: hypothesis")
    assert "possibly absent" in second
    assert line == "✓ mini.target: right on 4 public cases"
