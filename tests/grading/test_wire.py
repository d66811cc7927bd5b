"""Messages between judge and box: whatever the other side does, each wait ends and nothing is believed."""

import contextlib
import fcntl
import json
import os
import resource
import struct
import threading
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import save

from course_lib.sandbox import wire

SOON = 0.3  # seconds that these tests wait where nothing comes


@pytest.fixture
def pipe():
    """A pipe whose ends do not block, as the judge's own do not."""
    read, write = os.pipe()
    os.set_blocking(read, False)
    os.set_blocking(write, False)
    yield read, write
    for descriptor in (read, write):
        with contextlib.suppress(OSError):
            os.close(descriptor)


def frame(header, body=b""):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack(">II", len(text), len(body)) + text + body


def received(message, bounds=wire.ANSWER, seconds=10.0):
    """What `receive` makes of the bytes of one message."""
    read, write = os.pipe()
    sender = threading.Thread(target=write_all, args=(write, message))
    sender.start()
    try:
        return wire.receive(read, time.monotonic() + seconds, bounds)
    finally:
        os.close(read)
        sender.join()


def write_all(descriptor, message):
    view = memoryview(message)
    with contextlib.suppress(BrokenPipeError):
        while view:
            view = view[os.write(descriptor, view) :]
    os.close(descriptor)


arrays = st.dictionaries(
    st.text(st.characters(exclude_categories=["Cs"]), max_size=8).filter(
        lambda name: name != "__metadata__"  # the format's own
    ),
    st.builds(
        lambda kind, shape: np.arange(np.prod(shape, dtype=int)).reshape(shape).astype(kind),
        st.sampled_from(["f8", "f4", "f2", "i8", "u1", "?"]),
        st.lists(st.integers(0, 3), max_size=4),
    ),
    max_size=3,
)
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


def test_the_parts_of_an_answer_come_in_one_order_whatever_the_reader_draws():
    parts = {name: np.zeros(1) for name in "qwertzuiopasdfghjkl"}
    reversed_parts = dict(reversed(parts.items()))
    for sent in (parts, reversed_parts, parts):
        _, got = received(wire.pack({}, sent))
        assert list(got) == sorted(parts)


@settings(deadline=None, max_examples=50)
@given(header=st.dictionaries(st.text(), values, max_size=4), sent=arrays)
def test_what_is_sent_arrives(header, sent):
    got, results = received(wire.pack(header, sent), wire.Bounds())
    assert got == header
    assert set(results) == set(sent)
    for name, value in sent.items():
        assert results[name].dtype == value.dtype
        np.testing.assert_array_equal(results[name], value)


@settings(deadline=None, max_examples=100)
@given(st.binary(max_size=200) | st.builds(frame, st.binary(max_size=99), st.binary(max_size=99)))
def test_whatever_bytes_come_they_are_a_message_or_refused(message):
    with contextlib.suppress(wire.Broken):
        header, results = received(message)
        assert isinstance(header, dict)
        assert all(isinstance(value, np.ndarray) for value in results.values())


def tensor(kind, shape, offsets=(0, 0), name="a"):
    text = json.dumps({name: {"dtype": kind, "shape": shape, "data_offsets": offsets}}).encode()
    return struct.pack("<Q", len(text)) + text


@pytest.mark.parametrize(
    "message",
    [
        frame(b"[" * 10_000),
        frame(b'{"a":' * 3_000),
        frame(b'{"a": ' + b"9" * 10_000 + b"}"),
        frame(b'"' + b"\\ud800" * 100 + b'"'),
        frame(b"[1]"),
        frame(b"null"),
        frame(b""),
        frame(b"{}" + bytes(2**14)),
        frame({}, tensor("BF16", [1], (0, 2)) + bytes(2)),
        frame({}, tensor("F8_E4M3", [1], (0, 1)) + bytes(1)),
        frame({}, tensor("F64", [2**60])),
        frame({}, tensor("F64", [2**60, 2**60])),
        frame({}, tensor("F64", [-1])),
        frame({}, tensor("F64", [1], (8, 0))),
        frame({}, tensor("F64", [1], (0, 8))),
        frame({}, struct.pack("<Q", 2**63) + bytes(8)),
        frame({}, tensor("F64", [0], name="n" * 2**17)),
        struct.pack(">II", 2**32 - 1, 0),
        struct.pack(">II", 2, 2**32 - 1),
        struct.pack(">II", 2, wire.ANSWER_LIMIT + 1),
    ],
)
def test_bombs_and_nonsense_are_malformed(message):
    with pytest.raises(wire.Malformed):
        received(message)


@pytest.mark.parametrize("shape", [[0], [0, 2**60], [2**31, 0, 2**31], [1] * 20 + [0]])
def test_an_empty_array_of_an_absurd_shape_is_refused_or_costs_nothing(shape):
    with contextlib.suppress(wire.Malformed):
        _, results = received(frame({}, tensor("F64", shape)))
        assert results["a"].nbytes == 0


def test_many_thousand_arrays_are_refused_on_both_sides():
    many = {f"{k}": np.zeros(1) for k in range(10_000)}
    with pytest.raises(wire.Malformed):
        received(frame({}, save(many)))
    with pytest.raises(ValueError, match="10000 parts; their names are too long"):
        wire.pack({}, many)


def test_an_answer_that_is_too_large_is_refused_before_it_is_sent():
    # A view of one number: what counts is what would travel.
    with pytest.raises(ValueError, match="the result has 64 MiB; at most 32 MiB are read"):
        wire.pack({}, {"": np.broadcast_to(np.zeros(1), (2**23,))})


def test_nobody_who_stops_reading_holds_a_writer_up(pipe):
    _, write = pipe
    with pytest.raises(TimeoutError):
        wire.send(write, bytes(2**20), time.monotonic() + SOON)


def test_a_pipe_that_is_made_smaller_holds_no_writer_up(pipe):
    """Also where the reader changes its own end, or takes a little from time to time."""
    read, write = pipe
    fcntl.fcntl(read, 1031, 4096)  # F_SETPIPE_SZ
    os.set_blocking(read, True)
    stop = threading.Event()

    def sip():
        while not stop.wait(0.01):
            os.read(read, 1)

    reader = threading.Thread(target=sip)
    reader.start()
    try:
        with pytest.raises(TimeoutError):
            wire.send(write, bytes(2**20), time.monotonic() + SOON)
    finally:
        stop.set()
        reader.join()


@pytest.mark.parametrize("size", [1, 2**16])
def test_drops_and_floods_extend_no_deadline(pipe, size):
    """One byte at a time, or always more than can be read: the deadline stands."""
    read, write = pipe
    stop = threading.Event()

    def feed():
        os.write(write, struct.pack(">II", 2**32 - 1, 0))
        while not stop.is_set():
            with contextlib.suppress(BlockingIOError):
                os.write(write, b"x" * size)
            if size == 1:
                stop.wait(0.01)

    feeder = threading.Thread(target=feed)
    feeder.start()
    try:
        with pytest.raises(TimeoutError):
            wire.receive(read, time.monotonic() + SOON)
    finally:
        stop.set()
        feeder.join()


def test_a_deadline_that_has_passed_reads_nothing(pipe):
    read, write = pipe
    os.write(write, frame({}))
    with pytest.raises(TimeoutError):
        wire.receive(read, time.monotonic() - 1)


def test_a_reader_that_is_gone_is_said_so(pipe):
    read, write = pipe
    os.close(read)
    with pytest.raises(wire.Broken):
        wire.send(write, frame({}), time.monotonic() + 10)


def test_descriptors_of_any_number_work():
    """A grader with many jobs has more than a thousand."""
    read, write = os.pipe()
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(hard, 4096)), hard))
    high = fcntl.fcntl(read, fcntl.F_DUPFD_CLOEXEC, 1500)
    try:
        os.write(write, frame({"a": 1}))
        assert wire.receive(high, time.monotonic() + 10)[0] == {"a": 1}
    finally:
        for descriptor in (read, write, high):
            os.close(descriptor)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
