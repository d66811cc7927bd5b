"""The untrusted side of grading: executes a notebook's cells, then answers requests with arrays.

Runs inside the box as ``python -m course_lib.sandbox.runner REQUESTS ANSWERS``, two descriptors.
It holds no expected value and compares nothing: whatever a submission does to this process, all
that leaves it is arrays, and the judge outside looks at them alone.
"""

import os
import random
import shutil
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from course_lib.sandbox import wire

ERROR_LENGTH = 400


class CellTimeout(BaseException):
    """Raised in a cell or an answer that has run out of time; no `except Exception` catches it."""


@contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """Raise `CellTimeout` in the block after `seconds`; the judge outside holds to it regardless.

    It is raised again every second, because an event loop may have dropped the first.
    """
    running = True

    def stop(*_: object) -> None:
        if running:
            raise CellTimeout(f"stopped after {seconds:g} s")

    signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds, 1)
    try:
        yield
    finally:
        running = False
        signal.setitimer(signal.ITIMER_REAL, 0)


def main() -> None:
    """Serve one judge until it closes the pipe."""
    requests, answers = map(int, sys.argv[1:3])
    prepare()
    from course_lib.sandbox.shell import make_shell

    shell = make_shell()
    wire.send(answers, wire.pack({"ready": "shell"}, {}))
    header, _ = wire.receive(requests)
    for index, source in enumerate(header["cells"]):
        if index in header["skip"]:
            continue
        wire.send(answers, wire.pack({"cell": index}, {}))
        error = run_cell(shell, source, header["cell_seconds"])
        wire.send(answers, wire.pack({"cell": index, "error": error}, {}))
    wire.send(answers, wire.pack({"ready": "notebook"}, {}))
    with shell.builtin_trap:  # what functions find among the built-in names while a cell runs
        while True:
            try:
                header, arrays = wire.receive(requests)
            except wire.Broken:
                return
            reply, results = answer(shell.user_ns, header, arrays)
            try:
                message = wire.pack({"id": header["id"], **reply}, results)
            except Exception as error:  # too large, or numbers of a type that does not travel
                message = wire.pack({"id": header["id"], "error": describe(error)}, {})
            wire.send(answers, message)


def prepare() -> None:
    """Fix the seeds; take over the font list, which matplotlib would take a second to rebuild."""
    import torch

    random.seed(0)
    torch.manual_seed(0)
    np.random.seed(0)  # noqa: NPY002 - submissions may use the global generator
    cache = Path(os.environ["MPLCONFIGDIR"])
    cache.mkdir(parents=True, exist_ok=True)
    for fonts in Path(os.environ.get("FONT_LISTS", "/nowhere")).glob("fontlist*.json"):
        shutil.copy(fonts, cache)


def run_cell(shell: Any, source: str, seconds: float) -> str | None:
    """Run one cell; return a description of its error, or ``None``."""
    try:
        with time_limit(seconds):
            error, tolerated = shell.run_as_kernel(source)
    except BaseException as raised:
        return describe(raised)
    if error is not None:
        return describe(error)
    return f"{describe(tolerated[0])} (the rest of the cell was run)" if tolerated else None


def answer(
    namespace: dict[str, Any], header: dict[str, Any], arrays: dict[str, np.ndarray]
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Evaluate one answer on one probe: the reply's header and the resulting arrays."""
    import torch

    from course_lib.checking.answers import NotAnswered, as_arrays, as_function

    name = header["name"]
    if name not in namespace:
        return {"missing": True}, {}
    inputs = [
        torch.from_numpy(arrays[str(k)]) if value is None else value
        for k, value in enumerate(header["inputs"])
    ]
    try:
        with time_limit(header["seconds"]):
            function = as_function(namespace[name], header["kind"], header["symbols"])
            return {"ok": True}, as_arrays(function(*inputs))
    except (NotAnswered, NotImplementedError):
        return {"missing": True}, {}
    except BaseException as error:
        return {"error": describe(error)}, {}


def describe(error: BaseException) -> str:
    """An error in one bounded line, whatever its own ``__str__`` does."""
    try:
        return f"{type(error).__name__}: {error}".splitlines()[0][:ERROR_LENGTH]
    except BaseException:
        return type(error).__name__[:ERROR_LENGTH]


if __name__ == "__main__":
    main()
