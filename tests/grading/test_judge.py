"""The trusted side of grading, with boxes that have no process: which probes it sends, what it credits."""

import itertools
import time
from collections import deque
from dataclasses import replace
from pathlib import Path

import nbformat
import numpy as np
import pytest
import torch

from course_lib.checking.measures import Measurement
from course_lib.grading import judge
from course_lib.grading.box import Limits, Room
from course_lib.grading.judge import grade, record_key
from course_lib.grading.question import Measure
from course_lib.sandbox import runner, wire

from .course import make
from .test_classroom import MINI

TARGET = next(question for question in MINI.questions if question.name == "target")
DIE = "the process ends here"


class StandIn:
    """What `course_lib.grading.box.Box` does, in this process."""

    peak_memory, killed_for_memory, output = 0, False, ""
    made: list["StandIn"]
    answers: dict
    identity = staticmethod(lambda identity: identity)

    def __init__(self, room, limits, slot):
        self.namespace = {"torch": torch}
        self.replies = deque([({"ready": "shell"}, {})])
        self.deadlines = []
        self.made.append(self)

    def send(self, header, arrays=None, *, deadline):
        if "cells" not in header:
            reply, results = runner.answer(self.namespace, header, arrays)
            self.replies.append(({"id": self.identity(header["id"]), **reply}, results))
            return
        for index, source in enumerate(header["cells"]):
            if index in header["skip"]:
                continue
            self.replies.append(({"cell": index}, {}))
            if source == DIE:
                return self.replies.append(wire.Broken("the other side closed the pipe"))
            error = None
            try:
                exec(source, self.namespace)
            except Exception as raised:
                error = runner.describe(raised)
            self.replies.append(({"cell": index, "error": error}, {}))
        self.namespace |= self.answers
        self.replies.append(({"ready": "notebook"}, {}))

    def receive(self, deadline):
        self.deadlines.append(deadline)
        reply = self.replies.popleft()
        if isinstance(reply, Exception):
            raise reply
        return reply

    def close(self):
        pass


@pytest.fixture
def boxes(monkeypatch):
    monkeypatch.setattr(StandIn, "made", [], raising=False)
    monkeypatch.setattr(StandIn, "answers", {}, raising=False)
    monkeypatch.setattr(judge, "Box", StandIn)
    return StandIn.made


def graded(*cells, student="ada", secret="s", limits=None, assignment=MINI, **answers):
    """The record of a notebook with `cells` and, at its end, `answers`; and its verdicts by name."""
    StandIn.answers = answers
    record = grade(
        nbformat.writes(make.notebook(*cells)).encode(),
        student,
        assignment,
        secret=secret,
        room=Room(Path(), "none"),
        limits=limits or Limits(),
    )
    return record, {verdict.name: verdict for verdict in record.verdicts}


def right(x, w):
    return TARGET.reference(x, w)


def remembers_the_public_cases(otherwise):
    """An answer that gives the published results, and `otherwise` where nothing was published."""
    published = [(*case.inputs, case.expected[""]) for case in TARGET.public("mini").cases]

    def answer(x, w):
        for shown_x, shown_w, result in published:
            if torch.equal(x, torch.from_numpy(shown_x)) and torch.equal(
                w, torch.from_numpy(shown_w)
            ):
                return torch.from_numpy(result)
        return otherwise(x, w)

    return answer


def test_points_are_those_of_the_question_and_the_rest_waits_for_a_person(boxes):
    record, verdicts = graded(target=right)
    assert [v.points for v in verdicts.values()] == [1, 1, 1, None]
    assert record.points == 3
    assert verdicts["words"].comment == "graded by a person"
    _, verdicts = graded()
    assert (verdicts["target"].points, verdicts["target"].comment) == (0, "not answered")


def not_yet(*_):
    raise NotImplementedError


@pytest.mark.parametrize("placeholder", [None, ..., not_yet])
def test_a_placeholder_is_unanswered_and_no_mistake(boxes, placeholder):
    record, verdicts = graded(target=placeholder)
    assert (verdicts["target"].points, verdicts["target"].comment) == (0, "not answered")
    assert record.points == 2


@pytest.mark.parametrize("share", ["no hidden case", "half of the hidden cases"])
def test_the_public_results_alone_earn_nothing(boxes, share):
    def otherwise(x, w):
        half = share != "no hidden case" and x.dtype == torch.float64
        return right(x, w) if half else torch.zeros(len(x))

    record, verdicts = graded(target=remembers_the_public_cases(otherwise))
    assert verdicts["target"].points == 0
    assert "not on others of the same kind" in verdicts["target"].comment
    assert record.points == 2


def test_hidden_probes_depend_on_secret_and_student_and_are_not_the_public_ones(boxes):
    def hidden(**who):
        seen = []

        def target(x, w):
            seen.append((tuple(x.flatten().tolist()), tuple(w.tolist())))
            return right(x, w)

        assert graded(target=target, **who)[1]["target"].points == 1
        assert len(seen) == 2 * TARGET.draws
        return seen[TARGET.draws :], seen[: TARGET.draws]

    first, public = hidden(student="ada", secret="s")
    assert hidden(student="ada", secret="s") == (first, public)
    for other in ({"student": "bob", "secret": "s"}, {"student": "ada", "secret": "t"}):
        drawn, same = hidden(**other)
        assert same == public
        assert not {*drawn} & {*first}
    assert not {*first} & {*public}


def test_a_known_mistake_is_named_where_it_explains_every_case(boxes):
    mistakes = {mistake.name: mistake for mistake in TARGET.mistakes}
    assert len(mistakes) == 2
    for name, mistake in mistakes.items():
        verdict = graded(target=mistake.answer)[1]["target"]
        assert (verdict.points, verdict.mistake, verdict.comment) == (0, name, mistake.hint)

    def sometimes(x, w):
        return mistakes["mean"].answer(x, w) if x.dtype == torch.float64 else x.sum(1)

    verdict = graded(target=sometimes)[1]["target"]
    assert (verdict.points, verdict.mistake) == (0, None)


def test_a_question_that_raises_costs_only_itself(boxes):
    def target(x, w):
        raise RuntimeError("broken")

    record, verdicts = graded(target=target)
    assert [v.points for v in verdicts.values()] == [1, 0, 1, None]
    assert "RuntimeError: broken" in verdicts["target"].comment
    assert len(boxes) == 1
    assert record.errors == []
    _, verdicts = graded(target=lambda x, w: None)
    assert "is its `return` missing?" in verdicts["target"].comment


def test_every_fatal_cell_is_left_out_and_named(boxes):
    record, verdicts = graded(DIE, make.TARGET, DIE)
    assert [v.points for v in verdicts.values()] == [1, 1, 1, None]
    assert record.errors == [(k, "the process ended; the cell was left out") for k in (2, 4)]
    assert len(boxes) == 3


def test_the_number_of_boxes_is_bounded(boxes):
    record, verdicts = graded(*[DIE] * 30, target=right)
    assert record.points == 0
    assert {verdicts[name].comment for name in ("first", "target", "last")} == {
        f"given up after {judge.RESTARTS} restarts"
    }
    assert len(boxes) == judge.RESTARTS + 1


def test_no_box_starts_when_the_time_of_the_submission_is_used_up(boxes):
    record, verdicts = graded(limits=Limits(total_seconds=-1), target=right)
    assert record.points == 0
    assert "the time limit of -1 s was used up" in verdicts["first"].comment
    assert boxes == []


def test_every_wait_ends_with_the_cell_the_question_or_the_submission(boxes, monkeypatch):
    passed = itertools.count(time.monotonic(), 1e-4)  # a clock that a busy machine does not move on
    monkeypatch.setattr(judge.time, "monotonic", lambda: next(passed))
    for limits in (Limits(cell_seconds=20, total_seconds=500), Limits(total_seconds=3)):
        start = time.monotonic()
        graded(limits=limits, target=right)
        took = time.monotonic() - start
        boot, *rest = boxes[-1].deadlines
        assert boot <= start + took + judge.BOOT_SECONDS
        cells, answers = rest[: -3 * 2 * TARGET.draws], rest[-3 * 2 * TARGET.draws :]
        total = start + took + limits.total_seconds
        assert all(d <= min(start + took + 20 + judge.GRACE, total) for d in cells)
        longest = min(start + took + TARGET.seconds, total) + judge.GRACE
        assert all(d <= longest for d in answers)


def test_a_slow_answer_is_told_that_it_was_time(boxes, monkeypatch):
    """The question has 4 s for eight inputs: of 1.5 s each, two are answered, and a third is stopped."""
    passed = 0.0

    def slow(x, w):
        nonlocal passed
        passed += 1.5
        if passed > TARGET.seconds:
            raise runner.CellTimeout("stopped after 1 s")
        return answer(x, w)

    real = time.monotonic
    monkeypatch.setattr(judge.time, "monotonic", lambda: real() + passed)
    answer = right
    record, verdicts = graded(target=slow)
    verdict = verdicts["target"]
    assert "stopped by a limit of time: target." in record.notes[-1]
    assert (verdict.points, verdict.mistake) == (0, None)
    assert verdict.comment == (
        "too slow: 2 of 8 inputs were answered within the 4 s that this question has for all of "
        "them. The answers that came in time are right: what is missing is speed"
    )
    answer, passed = TARGET.mistakes[0].answer, 0.0
    wrong = graded(target=slow)[1]["target"].comment
    assert wrong.startswith("too slow: 2 of 8")
    assert "are right" not in wrong


def test_a_slow_model_is_told_that_it_was_time(boxes, monkeypatch):
    passed = 0.0

    def decode(z):
        nonlocal passed
        passed += 45
        if passed > 60:
            raise runner.CellTimeout("stopped after 15 s")
        return z

    def measure(ask, *, split, seed):
        for _ in range(3):
            ask("decode", np.zeros((2, 2), np.float32))

    real = time.monotonic
    monkeypatch.setattr(judge.time, "monotonic", lambda: real() + passed)
    monkeypatch.setattr(judge.measures, "decoder_nats", measure)
    question = Measure("model", 3, "decoder_nats", ("decode",), limit=2.0)
    record, verdicts = graded(assignment=replace(MINI, questions=(question,)), decode=decode)
    verdict = verdicts["model"]
    assert "stopped by a limit of time: model." in record.notes[-1]
    assert verdict.points == 0
    assert verdict.comment.startswith("too slow: 1 of the batches were answered within the 60 s")


def test_a_message_that_answers_another_request_is_no_answer(boxes, monkeypatch):
    monkeypatch.setattr(StandIn, "identity", staticmethod(lambda identity: identity - 1))
    record, verdicts = graded(target=right)
    assert record.points == 0
    assert verdicts["target"].comment == "the process sent something that was not asked for"


@pytest.mark.parametrize(
    ("value", "suspicious", "points", "flagged"),
    [
        (2.0, False, 3, False),
        (2.0001, False, 0, False),
        (float("nan"), False, 0, False),
        (0.1, True, 3, True),
        (2.5, True, 0, False),
    ],
)
def test_a_trained_model_is_measured_on_the_test_images(
    boxes, monkeypatch, value, suspicious, points, flagged
):
    asked = []

    def measure(ask, *, split, seed):
        asked.append((split, seed))
        return Measurement(value, "nats", suspicious)

    monkeypatch.setattr(judge.measures, "decoder_nats", measure)
    question = Measure("model", 3, "decoder_nats", ("decode",), limit=2.0)
    assignment = replace(MINI, questions=(question,))
    for who in ({}, {"student": "bob"}, {"secret": "t"}, {}):
        _, verdicts = graded(assignment=assignment, **who)
        assert verdicts["model"].points == points
        assert verdicts["model"].suspicious is flagged
    splits, seeds = zip(*asked, strict=True)
    assert set(splits) == {"test"}
    assert len(set(seeds)) == 3
    assert seeds[0] == seeds[3]


def test_a_record_depends_on_all_that_could_change_it(tmp_path):
    (tmp_path / "questions.py").write_text("TITLE = 'Other'")
    key = record_key(b"{}", MINI, "s", Limits())
    assert key == record_key(b"{}", MINI, "s", Limits())
    others = {
        record_key(b"{} ", MINI, "s", Limits()),
        record_key(b"{}", replace(MINI, name="maxi"), "s", Limits()),
        record_key(b"{}", replace(MINI, folder=tmp_path), "s", Limits()),
        record_key(b"{}", MINI, "t", Limits()),
        record_key(b"{}", MINI, "s", Limits(memory=1)),
    }
    assert len(others | {key}) == 6
