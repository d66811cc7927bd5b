"""A submission's session against peers that do not keep to the protocol: it ends, and never raises."""

import contextlib
import itertools
import os
import struct
import threading
import time
from pathlib import Path

import nbformat
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from course_lib.grading import judge
from course_lib.grading.box import Box, Limits, Room
from course_lib.grading.judge import GradingRecord, Lost, Session, grade
from course_lib.sandbox import wire

from .course import make
from .test_classroom import MINI

ROOM = Room(Path(), "none")
SHORT = Limits(cell_seconds=30, total_seconds=0.5)
LONG = Limits(cell_seconds=30, total_seconds=60)


class PipeBox(Box):
    """A box whose process is a thread that runs `peer`; all reads and writes are the real ones."""

    peer = staticmethod(lambda requests, answers: None)
    made = 0
    peak_memory, killed_for_memory, output = 0, False, ""

    def __init__(self, room, limits, slot):
        requests, self._requests = os.pipe()
        self._answers, answers = os.pipe()
        os.set_blocking(self._requests, False)
        os.set_blocking(self._answers, False)
        self._ends = (requests, answers)
        type(self).made += 1
        self.closed = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self):
        requests, answers = self._ends
        with contextlib.suppress(OSError, wire.Broken):
            type(self).peer(requests, answers)
            self.closed.wait()

    def close(self):
        self.closed.set()
        os.close(self._requests)
        os.close(self._answers)
        self._thread.join(timeout=10)
        for descriptor in self._ends:
            os.close(descriptor)


@pytest.fixture
def peer(monkeypatch):
    """Call it with what the boxes of the test do."""
    monkeypatch.setattr(judge, "Box", PipeBox)

    def behave(function):
        monkeypatch.setattr(PipeBox, "peer", staticmethod(function))
        monkeypatch.setattr(PipeBox, "made", 0)

    return behave


def say(answers, header, arrays=None):
    wire.send(answers, wire.pack(header, arrays or {}))


def serve(requests, answers):
    """Keep to the protocol up to the questions."""
    say(answers, {"ready": "shell"})
    request, _ = wire.receive(requests)
    for cell in range(len(request["cells"])):
        if cell not in request["skip"]:
            say(answers, {"cell": cell})
            say(answers, {"cell": cell, "error": None})
    say(answers, {"ready": "notebook"})


def graded(limits, submission=None):
    submission = submission or nbformat.writes(make.master()).encode()
    return grade(submission, "a", MINI, secret="s", room=ROOM, limits=limits)


def comments(record):
    return {verdict.comment for verdict in record.verdicts if verdict.name != "words"}


def is_silent(requests, answers):
    pass


def never_reads(requests, answers):
    say(answers, {"ready": "shell"})


def drips(requests, answers):
    os.write(answers, struct.pack(">II", 2**14, 0))
    while True:
        os.write(answers, b" ")
        time.sleep(0.01)


def is_silent_in_a_cell(requests, answers):
    say(answers, {"ready": "shell"})
    wire.receive(requests)
    say(answers, {"cell": 0})


def answers_nothing(requests, answers):
    serve(requests, answers)


def drips_an_answer(requests, answers):
    serve(requests, answers)
    wire.receive(requests)
    drips(requests, answers)


@pytest.mark.parametrize(
    "behaviour",
    [is_silent, never_reads, drips, is_silent_in_a_cell, answers_nothing, drips_an_answer],
)
def test_no_peer_extends_the_total_time(peer, behaviour):
    """Every limit but the total one is far away, so that it alone ends the session."""
    peer(behaviour)
    large = make.notebook("#" * 2**20)  # more than a pipe holds
    record = graded(SHORT, nbformat.writes(large).encode())
    assert record.points == 0
    assert any("the time limit of 0.5 s was used up" in comment for comment in comments(record))
    assert PipeBox.made == 1


def late(record):
    return [note for note in record.notes if note.startswith("stopped by a limit of time")]


@pytest.mark.parametrize(
    ("behaviour", "limits", "what"),
    [
        (is_silent, SHORT, "the whole notebook"),
        (drips_an_answer, SHORT, "the whole notebook"),
        (is_silent_in_a_cell, Limits(cell_seconds=0.2, total_seconds=60), "code cell 1"),
    ],
)
def test_what_a_limit_of_time_has_stopped_is_named_to_the_instructor(
    peer, monkeypatch, behaviour, limits, what
):
    """On a busy machine it costs honest students points, and nobody reads all pages to find them."""
    monkeypatch.setattr(judge, "GRACE", 0.1)
    peer(behaviour)
    (note,) = late(graded(limits))
    assert what in note
    assert "--only" in note


def test_a_cell_that_took_its_time_and_raised_is_named_one_that_failed_at_once_is_not(peer):
    def raises_in_two_cells(requests, answers):
        say(answers, {"ready": "shell"})
        wire.receive(requests)
        for cell, seconds in ((0, 0), (1, 0.3)):
            say(answers, {"cell": cell})
            time.sleep(seconds)
            say(answers, {"cell": cell, "error": "CellTimeout: stopped after 0.2 s"})

    peer(raises_in_two_cells)
    notebook = nbformat.writes(make.notebook("1", "2")).encode()
    (note,) = late(graded(Limits(cell_seconds=0.2, total_seconds=60), notebook))
    assert "code cell 2" in note
    assert "code cell 1" not in note


def test_thousands_of_late_cells_make_one_short_note():
    record = GradingRecord("a", "key")
    with Session([], ROOM, LONG, 0, record) as session:
        for number in range(2000):
            session.late(f"code cell {number + 1}")
    (note,) = record.notes
    assert "code cell 5 and 1995 more" in note


def floods(frames):
    def behave(requests, answers):
        say(answers, {"ready": "shell"})
        wire.receive(requests)
        for header in frames():
            say(answers, header)

    return behave


@pytest.mark.parametrize(
    "frames",
    [
        lambda: itertools.repeat({"cell": 0}),
        lambda: itertools.cycle([{"cell": 0}, {"cell": 0, "error": None}]),
        lambda: itertools.repeat({"ready": "shell"}),
        lambda: itertools.repeat({"cell": 1, "error": "x"}),
        lambda: ({"cell": k} for k in itertools.count()),
        lambda: itertools.repeat({}),
    ],
)
def test_a_flood_of_valid_frames_ends_at_the_first_that_is_out_of_turn(peer, frames):
    peer(floods(frames))
    record = graded(LONG)
    assert record.points == 0
    assert any("that was not asked for" in comment for comment in comments(record))


def test_a_peer_that_stops_reading_loses_the_question(peer):
    peer(answers_nothing)
    record = GradingRecord("a", "")
    with Session(["pass"], ROOM, LONG, 0, record) as session:
        session.ready()
        with pytest.raises(Lost, match="no answer within the time limit"):
            session.ask("f", (np.zeros(2**18),), time.monotonic() + 0.3 - judge.GRACE)


numbers = st.integers() | st.floats() | st.booleans() | st.none()
texts = st.text(st.characters(), max_size=20)  # with surrogates
things = st.recursive(
    numbers | texts,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(texts, inner, max_size=2),
    max_leaves=5,
)
headers = st.dictionaries(
    st.sampled_from(["cell", "error", "ready", "id", "missing", "ok"]) | texts, things, max_size=4
)


@settings(
    deadline=None, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(said=headers, moment=st.sampled_from(["boot", "cell", "end", "answer"]))
def test_whatever_a_peer_says_the_record_can_be_written(peer, said, moment):
    def behave(requests, answers):
        if moment == "answer":
            serve(requests, answers)
            while True:
                request, _ = wire.receive(requests)
                say(answers, {**said, "id": request["id"]})
        if moment != "boot":
            say(answers, {"ready": "shell"})
            wire.receive(requests)
        if moment == "end":
            say(answers, {"cell": 0})
        say(answers, {"cell": 0, **said} if moment == "end" else said)
        os.close(answers)
        os.dup2(requests, answers)  # `close` finds the number open

    peer(behave)
    record = graded(LONG)
    assert record.points == 0
    texts = [v.comment for v in record.verdicts] + [text for _, text in record.errors]
    for text in texts:
        text.encode()
        assert len(text) < 600
        assert "\n" not in text


def test_an_error_is_one_short_line_whatever_it_was():
    assert judge._line("a\n b\u2028c \ud800 " + "x" * 1000) == ("a b c ? " + "x" * 1000)[:500]
    assert judge._line([["deep"]]) == "an error without a text"


def test_too_many_cells_are_said_so_and_not_run(peer):
    peer(serve)
    cells = [f"x = {k}" for k in range(judge.CELLS_LIMIT + 1)]
    record = graded(LONG, nbformat.writes(make.with_cells(cells)).encode())
    assert comments(record) == {"the notebook has 2001 code cells; at most 2000 run"}
    assert PipeBox.made == 0
