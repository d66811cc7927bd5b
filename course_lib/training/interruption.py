"""How a run ends before its last step: by Ctrl-C, or because another process has failed."""

import contextlib
import signal
import sys
import threading
from collections.abc import Callable, Iterator

import torch
from lightning_fabric import Fabric

from course_lib.training.checkpoint import Checkpoint
from course_lib.training.errors import TrainingError
from course_lib.training.state import State


@contextlib.contextmanager
def interruptible(fabric: Fabric) -> Iterator[Callable[[], bool]]:
    """While entered: the first Ctrl-C is noted and waits for the end of the step.

    Yields:
        Whether any process has been asked to stop: they must stop after the same step.
    """
    noted = False

    def note(number: int, frame: object) -> None:
        nonlocal noted
        if noted:  # a second Ctrl-C does not wait
            raise KeyboardInterrupt
        noted = True

    def anywhere() -> bool:
        if fabric.world_size == 1:
            return noted
        wanted = torch.tensor(float(noted), device=fabric.device)
        return bool(fabric.all_reduce(wanted, reduce_op="sum") > 0)

    with _handled(signal.SIGINT, note):
        yield anywhere


@contextlib.contextmanager
def failure_explained(state: State, file: Checkpoint) -> Iterator[None]:
    """While entered: with several processes, an error says where it was and how to continue.

    A process meets the failure of another as a broken connection, or as torchrun's SIGTERM, and
    neither names the training or the checkpoint.
    """
    fabric = state.fabric
    if fabric.world_size == 1:
        yield
        return
    with _handled(signal.SIGTERM, _terminate):
        try:
            yield
        except Exception as error:
            kept = "There is no checkpoint; pass checkpoint= to be able to resume"
            if file.saved_step is not None:
                kept = (
                    f"{file.path} holds everything up to step {file.saved_step}; the same call goes "
                    f"on from there"
                )
            message = (
                f"Process {fabric.global_rank} of {fabric.world_size} stopped at step "
                f"{state.step} of {state.given.steps}: {error} If another has failed, torchrun says "
                f"which one, and its own message why. {kept}."
            )
            # torchrun ends the others at once: before a traceback is written, as a rule.
            with _handled(signal.SIGTERM, signal.SIG_IGN):
                print(message, file=sys.stderr, flush=True)
                raise TrainingError(message) from error


def _terminate(number: int, frame: object) -> None:
    raise TrainingError("it was asked to stop, as torchrun does when another has failed.")


@contextlib.contextmanager
def _handled(number: int, handler: Callable | signal.Handlers) -> Iterator[None]:
    """Handle a signal; Python delivers them to the main thread only, elsewhere nothing happens."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    previous = signal.signal(number, handler)
    try:
        yield
    finally:
        signal.signal(number, previous)
