"""How a run ends before its last step: by Ctrl-C, or because another process has failed."""

import signal
import sys
import threading
from pathlib import Path

import torch
from lightning_fabric import Fabric

from course_lib.training.errors import TrainingError
from course_lib.training.state import State


class Interruption:
    """While entered: the first Ctrl-C is noted and waits for the end of the step."""

    def __init__(self, fabric: Fabric) -> None:
        self.fabric = fabric

    def anywhere(self) -> bool:
        """Whether any process has been asked to stop: they must stop after the same step."""
        if self.fabric.world_size == 1:
            return self.wanted
        wanted = torch.tensor(float(self.wanted), device=self.fabric.device)
        return bool(self.fabric.all_reduce(wanted, reduce_op="sum") > 0)

    def __enter__(self) -> "Interruption":
        self.wanted = False
        self.previous = None
        # Python delivers signals to the main thread only; elsewhere there is nothing to defer.
        if threading.current_thread() is threading.main_thread():
            self.previous = signal.signal(signal.SIGINT, self._note)
        return self

    def _note(self, number: int, frame: object) -> None:
        if self.wanted:  # a second Ctrl-C does not wait
            raise KeyboardInterrupt
        self.wanted = True

    def __exit__(self, *error: object) -> None:
        if self.previous is not None:
            signal.signal(signal.SIGINT, self.previous)


class Failure:
    """While entered: with several processes, an error says where it was and how to go on.

    A process meets the failure of another as a broken connection, or as torchrun's SIGTERM, and
    neither names the training or the checkpoint.
    """

    def __init__(self, state: State, checkpoint: Path | None) -> None:
        self.state, self.checkpoint = state, checkpoint
        main = threading.current_thread() is threading.main_thread()
        self.listens = state.fabric.world_size > 1 and main

    def __enter__(self) -> None:
        if self.listens:
            self.previous = signal.signal(signal.SIGTERM, self._terminate)

    def _terminate(self, number: int, frame: object) -> None:
        raise TrainingError("it was asked to stop, as torchrun does when another has failed.")

    def __exit__(self, kind: type | None, error: BaseException | None, trace: object) -> None:
        try:
            if self.state.fabric.world_size > 1 and isinstance(error, Exception):
                # torchrun ends the others at once: before a traceback is written, as a rule.
                if self.listens:
                    signal.signal(signal.SIGTERM, signal.SIG_IGN)
                message = self._message(error)
                print(message, file=sys.stderr, flush=True)
                raise TrainingError(message) from error
        finally:
            if self.listens:
                signal.signal(signal.SIGTERM, self.previous)

    def _message(self, error: Exception) -> str:
        fabric = self.state.fabric
        kept = (
            f"{self.checkpoint} holds everything up to step {self.state.saved_step}; the same call "
            f"goes on from there"
            if self.checkpoint is not None and self.state.saved_step is not None
            else "There is no checkpoint; pass checkpoint= to be able to go on"
        )
        return (
            f"Process {fabric.global_rank} of {fabric.world_size} stopped at step "
            f"{self.state.step} of {self.state.steps}: {error} If another has failed, torchrun says "
            f"which one, and its own message why. {kept}."
        )
