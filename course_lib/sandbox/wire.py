"""Messages between the judge and the isolated process: a JSON header and plain arrays.

Arrays travel as safetensors, which cannot hold code; nothing is ever unpickled. The judge bounds
what it reads in bytes, and each of its reads and writes in time, whatever the other side does:
stop reading, send one byte a second, or send without end.
"""

import json
import os
import select
import struct
import time
from dataclasses import dataclass
from typing import Any

import numpy as np
from safetensors.numpy import load, save

ANSWER_LIMIT = 32 * 2**20
PART = 2**16  # bytes that are read at a time


class Broken(Exception):
    """The other side closed the pipe, or sent something that is not a message."""


class Malformed(Broken):
    """The other side sent something that is not a message, or not the one that was to come."""


@dataclass(frozen=True)
class Bounds:
    """The largest message that is read, in bytes.

    Decoding costs a multiple of these: up to four times the arrays, and up to a hundred times the
    header and the names of the arrays, since a JSON text of two bytes can stand for an object.

    Attributes:
        header: of the JSON header.
        names: of the arrays' names, types and shapes.
        arrays: of the arrays, names included.
    """

    header: int = 2**32
    names: int = 2**32
    arrays: int = 2**32


# What the judge reads from a submission: a header holds one line of text, an array few numbers.
ANSWER = Bounds(header=2**14, names=2**17, arrays=ANSWER_LIMIT)


def pack(header: dict[str, Any], arrays: dict[str, np.ndarray]) -> bytes:
    """The bytes of one message.

    Raises:
        ValueError: the arrays are too large for a judge to read them.
        Exception: something in `header` is not JSON, or an array is of a type that safetensors
            does not have.
    """
    size = sum(array.nbytes for array in arrays.values())
    if size > ANSWER_LIMIT - ANSWER.names:
        raise ValueError(
            f"the result has {size / 2**20:.0f} MiB; at most {ANSWER_LIMIT // 2**20} MiB are read"
        )
    text = json.dumps(header).encode()
    # np.array with order="C" keeps the shape () of a scalar, which ascontiguousarray does not.
    body = save({name: np.array(a, order="C") for name, a in arrays.items()}) if arrays else b""
    if body and int.from_bytes(body[:8], "little") > ANSWER.names:
        raise ValueError(f"the result has {len(arrays)} parts; their names are too long to be read")
    return struct.pack(">II", len(text), len(body)) + text + body


def send(descriptor: int, message: bytes, deadline: float | None = None) -> None:
    """Write one message that `pack` has made.

    Args:
        descriptor: where to write; with a deadline, one that does not block.
        message: what to write.
        deadline: the value of `time.monotonic` after which to give up; ``None`` waits for ever.

    Raises:
        TimeoutError: the deadline has passed.
        course_lib.sandbox.wire.Broken: the other side is gone.
    """
    view = memoryview(message)
    while view:
        _wait(descriptor, select.POLLOUT, deadline)
        try:
            view = view[os.write(descriptor, view) :]
        except BlockingIOError:
            continue
        except OSError as error:
            raise Broken(str(error)) from error


def receive(
    descriptor: int, deadline: float | None = None, bounds: Bounds = Bounds()
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Read one message.

    Args:
        descriptor: where to read; with a deadline, one that does not block.
        deadline: the value of `time.monotonic` after which to give up, even where more data
            waits; ``None`` waits for ever.
        bounds: the largest message that is read.

    Raises:
        TimeoutError: the deadline has passed.
        course_lib.sandbox.wire.Broken: the pipe was closed.
        Malformed: the message is larger than `bounds`, or it cannot be decoded.
    """
    header_size, body_size = struct.unpack(">II", _read(descriptor, 8, deadline))
    if header_size > bounds.header or body_size > bounds.arrays:
        raise Malformed(f"{header_size} and {body_size} bytes are too many to be read")
    text = _read(descriptor, header_size, deadline)
    body = _read(descriptor, body_size, deadline)
    try:
        header = json.loads(text)
        arrays = _arrays(body, bounds) if body else {}
    except Exception as error:  # whatever the bytes are, they are not a message
        raise Malformed(f"not a message: {type(error).__name__}") from error
    if not isinstance(header, dict):
        raise Malformed("not a message: the header is not a mapping")
    return header, arrays


def _arrays(body: bytes, bounds: Bounds) -> dict[str, np.ndarray]:
    # The format begins with the length of the names: parsing them costs far more than their bytes.
    if int.from_bytes(body[:8], "little") > bounds.names:
        raise ValueError("too many arrays, or names too long")
    # The format's reader returns another order at every call: a comment that lists an answer's parts
    # would differ from run to run.
    return dict(sorted(load(body).items()))


def _read(descriptor: int, size: int, deadline: float | None) -> bytes:
    # What has come is kept in one buffer: a list of parts would cost many times their size where
    # they are of one byte each, and the size that was announced is not to be believed.
    buffer = bytearray()
    while len(buffer) < size:
        _wait(descriptor, select.POLLIN, deadline)
        try:
            part = os.read(descriptor, min(size - len(buffer), PART))
        except BlockingIOError:  # the other side has read its own message
            continue
        except OSError as error:
            raise Broken(str(error)) from error
        if not part:
            raise Broken("the other side closed the pipe")
        buffer += part
    return bytes(buffer)


def _wait(descriptor: int, event: int, deadline: float | None) -> None:
    """Wait until the descriptor is ready; not `select.select`, which ends at descriptor 1023."""
    left = None if deadline is None else deadline - time.monotonic()
    if left is not None and left <= 0:
        raise TimeoutError
    ready = select.poll()
    ready.register(descriptor, event)
    if not ready.poll(None if left is None else 1000 * left):
        raise TimeoutError
