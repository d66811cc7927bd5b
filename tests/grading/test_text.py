"""What strangers write becomes harmless, and stays told apart."""

import hypothesis.strategies as st
import pytest
from hypothesis import example, given, settings

from course_lib.checking.compare import structure_fault
from course_lib.grading.text import (
    cell,
    escaped,
    label,
    labels,
    one_line,
    readable,
    shortened,
    storable,
)

from .hostile import names, texts

short = texts.map(lambda text: text[:400])


@settings(deadline=None, derandomize=True)
@given(short)
def test_every_text_can_be_stored_and_ordinary_ones_stay_as_they_are(text):
    stored = storable(text)
    assert stored.encode() == storable(stored).encode()
    if not any("\ud800" <= c <= "\udfff" for c in text):
        assert stored == text
    assert "\r" not in readable(text)
    assert readable(readable(text)) == readable(text)
    assert "<" not in escaped(text)
    assert "\n" not in one_line(text, 100)
    assert len(one_line(text, 100)) <= 100


def test_halves_of_a_character_that_belong_together_are_joined():
    assert storable("a\ud83d\ude42b\ud83dc") == "a🙂b�c"
    assert readable("a\x1b[31m\x00\r\nb\u202ec") == "a␛[31m␀\nb�c"
    assert readable("naïve 🙂 א\tπ\n∑ e\u0301 क्\u200dष") == "naïve 🙂 א\tπ\n∑ e\u0301 क्\u200dष"


@pytest.mark.parametrize(
    "text",
    ["=1", "+1", "-1", "@a", "\t=1", "\r=1", " =1", '"=1', "'=1", "''=1", "＝1", "\n-1", " \t a"],
)
def test_no_cell_is_a_formula(text):
    assert cell(text)[0] == "'"


@settings(derandomize=True, deadline=None)
@given(st.lists(st.sampled_from("'\"= \ta").map(str), max_size=4), st.data())
def test_no_two_readable_texts_share_a_cell(pieces, data):
    one = "".join(pieces)
    other = data.draw(st.lists(st.sampled_from("'\"= \ta"), max_size=4).map("".join))
    assert (cell(one) == cell(other)) == (one == other)


@settings(deadline=None, derandomize=True, max_examples=50)
@given(st.lists(names | st.sampled_from(["ada", "Jürgen Müller", "00123", "-x"]), unique=True))
@example(["a/b", label("a/b")])
def test_every_name_gets_a_label_that_files_take_and_no_two_share_one(given_names):
    made = labels(given_names)
    assert len(set(made)) == len(given_names)
    for name, written in zip(given_names, made, strict=True):
        assert label(written) == written
        assert "/" not in written
        assert written[0] not in ". "
        assert len(f".{written}.json".encode()) <= 255
        assert readable(written) == written
        if name in ("ada", "Jürgen Müller", "00123", "-x"):
            assert written == name


@settings(deadline=None, derandomize=True)
@given(short, short, st.integers(60, 200))
def test_a_text_that_is_cut_is_told_apart_from_every_other(one, other, limit):
    assert len(shortened(one, limit)) <= limit
    assert (shortened(one, limit) == shortened(other, limit)) == (one == other)


def test_labels_of_results_are_cut_however_long_and_many_they_are():
    long, many = {"a" * 14_000_000: 1}, {str(k): 1 for k in range(100_000)}
    for given_labels in (long, many):
        fault = structure_fault(given_labels, {"": 1})
        assert fault.startswith(f"one result is expected, and {len(given_labels)} results (")
        assert len(fault) < 300
