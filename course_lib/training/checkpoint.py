"""The whole of a training run in one file, from which it resumes exactly where it was."""

import contextlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import torch
from lightning_fabric import Fabric

from course_lib.files import locked, remove_leftovers, replacing
from course_lib.training.arguments import Arguments
from course_lib.training.errors import TrainingError
from course_lib.training.identity import Identity
from course_lib.training.state import State

LEFT = "It was left as it is; pass another path, or move it away to start afresh."
# How many differences an error lists, and how much of each.
LISTED, SHOWN = 6, 120


class Checkpoint:
    """The file of one run, which has it to itself; see `sole_use`. Without a path, nothing is kept.

    Args:
        path: of the file.
        fabric: the engine; of several processes the first one writes.

    Attributes:
        kept: what the file holds, until the run resumes from there.
        saved_step: its step; None if there is nothing yet.

    Raises:
        TrainingError: the file holds something else.
    """

    def __init__(self, path: Path | None, fabric: Fabric) -> None:
        self.path, self.fabric = path, fabric
        self.kept = _read(path) if path is not None and path.exists() else None
        self.saved_step: int | None = None

    def interval(self, given: Arguments) -> int:
        """Steps between evaluations: as chosen, as in the run that is made longer, or 20 in all."""
        if given.evaluate_every is not None:
            return given.evaluate_every
        longer = given.extend and self.kept is not None and self.kept["steps"] < given.steps
        return self.kept["evaluate_every"] if longer else _default_interval(given.steps)

    def resume(self, state: State) -> None:
        """Bring a new state to where the file is, if there is one; of another run it is refused."""
        if self.path is None:
            return
        self.identity = Identity(state)
        if self.kept is None:
            return
        try:
            self._require_same_run(state)
            state.load_state_dict(self.kept)
        except Exception as error:  # a model may refuse the state in words of its own
            state.model.to(state.original_device)
            if isinstance(error, TrainingError):
                raise
            raise TrainingError(
                f"{self.path} is not a checkpoint of this model and optimizer ({error}). {LEFT}"
            ) from error
        self.kept = None  # it may be large
        self.saved_step, steps = state.step, state.given.steps
        if state.step == steps:
            self._say(
                f"The run of {self.path} is finished ({steps} of {steps} steps); nothing was trained. "
                f"To train it longer, pass more steps and extend=True; to train anew, pass another "
                f"path, or remove the file."
            )

    def _require_same_run(self, state: State) -> None:
        """Require that the file is of this run, or of a shorter one that is to be made longer."""
        kept, path = self.kept, self.path
        if len(kept["noises"]) != self.fabric.world_size:
            raise TrainingError(
                f"{path} was written by {len(kept['noises'])} processes and these are "
                f"{self.fabric.world_size}; each has noise of its own, so the run would not continue "
                f"as it was. Start as many processes, or pass another path."
            )
        missing = [name for name in self.identity.names if name not in kept["identity"]]
        if missing:
            raise TrainingError(
                f"{path} was written by another version of this library, which did not record "
                f"{', '.join(missing)}; whether this is the same run cannot be told. {LEFT}"
            )
        other = self.identity.differences(kept["identity"])
        longer = kept["steps"] < state.given.steps
        if longer and state.given.extend:
            del other["steps"]
        elif "steps" in other and all(
            run["evaluate_every"] == _default_interval(run["steps"])
            for run in (kept, {"steps": state.given.steps, "evaluate_every": state.evaluate_every})
        ):
            other.pop("evaluate_every", None)  # nobody has chosen it
        if other:
            shown = list(other.items())[:LISTED]
            more = f" (and {len(other) - LISTED} more)" if len(other) > LISTED else ""
            its, here = (
                ", ".join(f"{name} = {_cut(pair[i])}" for name, pair in shown) + more
                for i in (0, 1)
            )
            extend = list(other) == ["steps"] and longer
            advice = "; to train this run longer, pass extend=True." if extend else "."
            raise TrainingError(
                f"{path} was written by a run with {its}, and this one has {here}; it would not "
                f"continue as it was. Pass the same, or another path{advice}"
            )
        if kept["torch"] != str(torch.__version__):
            self._say(
                f"{path} was written with PyTorch {kept['torch']}, and this is {torch.__version__}: "
                f"the run continues, but perhaps not to the last bit as it would have."
            )

    def save(self, state: State) -> None:
        """Write it all beside the old file, then take its place: a crash leaves the old one whole."""
        if self.path is None:
            return
        content = state.state_dict()  # all processes take part
        if self.fabric.global_rank == 0:
            content |= {"identity": self.identity.to_keep(), "torch": str(torch.__version__)}
            try:
                self.path.parent.mkdir(parents=True, exist_ok=True)
                with replacing(self.path) as file:
                    torch.save(content, file)
            except (OSError, RuntimeError) as error:
                # torch puts an error of its own over that of the file.
                reason = error if isinstance(error, OSError) else error.__context__
                reason = getattr(reason, "strerror", None) or error
                kept = f"The file holds everything up to step {self.saved_step}, whole"
                if self.saved_step is None:
                    kept = "There is no earlier one"
                raise TrainingError(
                    f"The checkpoint {self.path} could not be written at step {state.step} ({reason}). "
                    f"{kept}. Make room, and call again."
                ) from error
        self.saved_step = state.step

    def _say(self, message: str) -> None:
        """Tell the person who waits, in a notebook or a terminal, with or without a progress bar."""
        if self.fabric.global_rank == 0:
            print(message, file=sys.stderr, flush=True)


@contextlib.contextmanager
def sole_use(path: Path | None, fabric: Fabric) -> Iterator[None]:
    """Keep other runs from `path` for a while. Where the file system has no locks, nothing happens.

    Raises:
        TrainingError: another run has it, in this process or another one.
    """
    if path is None:
        yield
        return
    real = Path(os.path.realpath(path))  # a link to it is the same file
    lock, busy = real.with_name(f".{real.name}.lock"), False
    with contextlib.ExitStack() as held:
        if fabric.global_rank == 0:
            try:
                if held.enter_context(locked(lock, remove=True)) is not None:
                    # Nobody else writes: what is half written was left by a run that was killed.
                    remove_leftovers(real.parent, real.name, age=0)
            except BlockingIOError:
                busy = True
            except OSError:
                pass
        if fabric.broadcast(busy):
            raise TrainingError(
                f"{path} is in use: another run writes its checkpoints there. Give each run a path of "
                f"its own, or wait until the other has ended."
            )
        yield


def _read(path: Path) -> dict:
    """Read a checkpoint; any other file is refused, and left as it is."""
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
        known = "identity" in content
        if not known:
            content["settings"]
    except Exception as error:  # a file may hold anything
        reason = error.strerror if isinstance(error, OSError) else type(error).__name__
        raise TrainingError(f"{path} is not a checkpoint of fit ({reason}). {LEFT}") from error
    if not known:
        raise TrainingError(
            f"{path} was written by an earlier version of this library, which did not record the loss "
            f"and the data of its run; whether this is the same run cannot be told. {LEFT}"
        )
    return content


def _default_interval(steps: int) -> int:
    """Steps between evaluations, if nobody has chosen: 20 in all."""
    return max(1, steps // 20)


def _cut(words: str) -> str:
    return words if len(words) <= SHOWN else f"{words[:SHOWN]}…"
