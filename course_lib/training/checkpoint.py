"""The whole of a training run in one file, from which it goes on exactly where it was."""

import contextlib
import copy
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import torch
from lightning_fabric import Fabric

from course_lib.files import remove_leftovers, replacing
from course_lib.training.batches import Order
from course_lib.training.errors import TrainingError
from course_lib.training.identity import Identity
from course_lib.training.state import State, default_interval

try:
    import fcntl
except ImportError:  # Windows, where two runs at once are not noticed
    fcntl = None

LEFT = "It was left as it is; pass another path, or move it away to start afresh."
# How many differences an error lists, and how much of each.
LISTED, SHOWN = 6, 120


@contextlib.contextmanager
def sole_use(path: Path | None, fabric: Fabric) -> Iterator[None]:
    """Keep other runs from `path` for a while.

    The system takes the lock back when the process ends, however it ends; a file that a killed run
    leaves behind blocks nobody. Where the file system knows no locks, nothing happens.

    Raises:
        TrainingError: another run has it, in this process or another one.
    """
    if path is None:
        yield
        return
    real = Path(os.path.realpath(path))  # a link to it is the same file
    lock, held = real.with_name(f".{real.name}.lock"), None
    busy = False
    if fabric.global_rank == 0:
        try:
            held = _locked(lock)
        except BlockingIOError:
            busy = True
        except OSError:
            held = None
    if fabric.broadcast(busy):
        raise TrainingError(
            f"{path} is in use: another run writes its checkpoints there. Give each run a path of its "
            f"own, or wait until the other has ended."
        )
    try:
        if held is not None:
            # Nobody else writes: what is half written was left by a run that was killed.
            remove_leftovers(real.parent, real.name, age=0)
        yield
    finally:
        if held is not None:
            with contextlib.suppress(OSError):
                lock.unlink()
            os.close(held)


def _locked(path: Path) -> int | None:
    """Open and lock a file; whoever had it before may have removed it in between."""
    while fcntl is not None:
        file = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.path.samestat(os.fstat(file), os.stat(path)):
                return file
            os.close(file)
        except FileNotFoundError:
            os.close(file)
        except OSError:
            os.close(file)
            raise
    return None


def save_checkpoint(
    path: Path, state: State, identity: Identity, order: Order, noise: torch.Generator
) -> None:
    """Write everything beside the old file, then take its place: a crash leaves the old one whole."""
    # Every process draws noise of its own.
    device = state.fabric.device
    on_device = torch.cuda.get_rng_state(device) if device.type == "cuda" else None
    noises = [(noise.get_state(), torch.get_rng_state(), on_device)]
    if state.fabric.world_size > 1:
        noises *= state.fabric.world_size
        torch.distributed.all_gather_object(noises, noises[0])
    if state.fabric.global_rank == 0:
        content = {
            "step": state.step,
            "steps": state.steps,
            "evaluate_every": state.evaluate_every,
            "identity": identity.to_keep(),
            "torch": str(torch.__version__),
            "seconds": state.elapsed(),
            "model": state.model.state_dict(),  # those that are trained, not the best
            "optimizers": [optimizer.state_dict() for optimizer in state.optimizers],
            "average": None if state.average is None else state.average.state_dict(),
            "records": state.records(),
            "before_end": state.before_end,
            "order": (order.generator.get_state(), order.rest),
            "noises": noises,
            "precision": state.precision.state_dict(),  # with float16, the scale of the gradient
        }
        _write(path, content, state)
    state.saved_step = state.step


def _write(path: Path, content: dict, state: State) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as file:
            torch.save(content, file)
    except (OSError, RuntimeError) as error:
        # torch puts an error of its own over that of the file.
        reason = error if isinstance(error, OSError) else error.__context__
        reason = getattr(reason, "strerror", None) or error
        kept = (
            f"The file holds everything up to step {state.saved_step}, whole"
            if state.saved_step is not None
            else "There is no earlier one"
        )
        raise TrainingError(
            f"The checkpoint {path} could not be written at step {state.step} ({reason}). {kept}. Make "
            f"room, and call again."
        ) from error


def read_checkpoint(path: Path) -> dict:
    """Read a checkpoint; what is none is refused, and left as it is."""
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


def require_same_run(
    path: Path, content: dict, identity: Identity, state: State, *, extend: bool
) -> None:
    """Require that a checkpoint is of this run, or of a shorter one if `extend`.

    Raises:
        TrainingError: it is of another; the message names what differs.
    """
    if len(content["noises"]) != state.fabric.world_size:
        raise TrainingError(
            f"{path} was written by {len(content['noises'])} processes and these are "
            f"{state.fabric.world_size}; each has noise of its own, so the run would not go on "
            f"as it was. Start as many processes, or pass another path."
        )
    kept = content["identity"]
    missing = [name for name in identity.names if name not in kept]
    if missing:
        raise TrainingError(
            f"{path} was written by another version of this library, which did not record "
            f"{', '.join(missing)}; whether this is the same run cannot be told. {LEFT}"
        )
    other = identity.differences(kept)
    longer = content["steps"] < state.steps
    if longer and extend:
        del other["steps"]
    chosen = content["evaluate_every"] != default_interval(
        content["steps"]
    ) or state.evaluate_every != default_interval(state.steps)
    if "steps" in other and not chosen:
        other.pop("evaluate_every", None)
    if other:
        shown = list(other.items())[:LISTED]
        more = f" (and {len(other) - LISTED} more)" if len(other) > LISTED else ""
        its, here = (
            ", ".join(f"{name} = {_cut(pair[i])}" for name, pair in shown) + more for i in (0, 1)
        )
        advice = "Pass the same, or another path."
        if list(other) == ["steps"] and longer:
            advice = "Pass the same, or another path; to train this run longer, pass extend=True."
        raise TrainingError(
            f"{path} was written by a run with {its}, and this one has {here}; it would not go "
            f"on as it was. {advice}"
        )
    if content["torch"] != str(torch.__version__) and state.fabric.global_rank == 0:
        say(
            f"{path} was written with PyTorch {content['torch']}, and this is {torch.__version__}: "
            f"the run goes on, but perhaps not to the last bit as it would have."
        )


def restore(path: Path, content: dict, state: State, order: Order, noise: torch.Generator) -> None:
    """Put everything back; if the model or the optimizer does not take it, nothing is changed."""
    before = copy.deepcopy(state.model.state_dict())
    try:
        state.model.load_state_dict(content["model"])
        for optimizer, kept in zip(state.optimizers, content["optimizers"], strict=True):
            optimizer.load_state_dict(kept)
        state.precision.load_state_dict(content["precision"])
        if state.average is not None:
            state.average.load_state_dict(content["average"])
    except Exception as error:  # a model may refuse the state in words of its own
        state.model.load_state_dict(before)
        raise TrainingError(
            f"{path} is not a checkpoint of this model and optimizer ({error}). {LEFT}"
        ) from error
    state.step, state.seconds = content["step"], content["seconds"]
    state.saved_step = state.step
    # A run that goes on beyond its end forgets what it recorded only because it ended.
    extended = content["steps"] < state.steps
    state.restore_records((extended and content["before_end"]) or content["records"])
    where, order.rest = content["order"]
    order.generator.set_state(where)
    its_noise, global_noise, on_device = content["noises"][state.fabric.global_rank]
    noise.set_state(its_noise)
    torch.set_rng_state(global_noise)
    if on_device is not None:
        torch.cuda.set_rng_state(on_device, state.fabric.device)


def say(message: str) -> None:
    """Tell the person who waits, in a notebook or a terminal, whether or not there is a progress bar."""
    print(message, file=sys.stderr, flush=True)


def _cut(words: str) -> str:
    return words if len(words) <= SHOWN else f"{words[:SHOWN]}…"
