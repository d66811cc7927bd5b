"""Messages between the judge and the isolated process: a JSON header and plain arrays.

Arrays travel as safetensors, which cannot hold code; nothing is ever unpickled. A message is
bounded, and its reader gets a deadline.
"""

import json
import os
import select
import struct
import time
from typing import Any

import numpy as np
from safetensors.numpy import load, save

MESSAGE_LIMIT = 256 * 2**20


class Broken(Exception):
    """The other side closed the pipe, or sent what is no message."""


def send(descriptor: int, header: dict[str, Any], arrays: dict[str, np.ndarray]) -> None:
    """Write one message.

    Raises:
        Broken: the other side is gone.
    """
    text = json.dumps(header).encode()
    # np.array with order="C" keeps the shape () of a scalar, which ascontiguousarray does not.
    body = save({name: np.array(a, order="C") for name, a in arrays.items()}) if arrays else b""
    message = struct.pack(">II", len(text), len(body)) + text + body
    view = memoryview(message)
    try:
        while view:
            view = view[os.write(descriptor, view) :]
    except OSError as error:
        raise Broken(str(error)) from error


def receive(
    descriptor: int, deadline: float | None = None, header_limit: int = MESSAGE_LIMIT
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Read one message.

    Args:
        descriptor: where to read.
        deadline: the value of `time.monotonic` after which to give up; ``None`` waits for ever.
        header_limit: the largest header, in bytes, that is read.

    Raises:
        TimeoutError: the deadline has passed.
        Broken: the pipe was closed, or the message is too large or malformed.
    """
    sizes = struct.unpack(">II", _read(descriptor, 8, deadline))
    if sizes[0] > header_limit or sum(sizes) > MESSAGE_LIMIT:
        raise Broken(f"a message of {sizes} bytes is too large to be read")
    text = _read(descriptor, sizes[0], deadline)
    body = _read(descriptor, sizes[1], deadline)
    try:
        header = json.loads(text)
        arrays = load(body) if body else {}
    except Exception as error:  # whatever the bytes are, they are no message
        raise Broken(f"no message: {type(error).__name__}") from error
    if not isinstance(header, dict):
        raise Broken("no message: the header is no mapping")
    return header, arrays


def _read(descriptor: int, size: int, deadline: float | None) -> bytes:
    parts = []
    while size:
        wait = None if deadline is None else max(0.0, deadline - time.monotonic())
        if not select.select([descriptor], [], [], wait)[0]:
            raise TimeoutError
        part = os.read(descriptor, min(size, 2**20))
        if not part:
            raise Broken("the other side closed the pipe")
        parts.append(part)
        size -= len(part)
    return b"".join(parts)
