"""The whole of a training run in one file, from which it goes on exactly where it was."""

import copy
from pathlib import Path

import torch

from course_lib.files import replacing
from course_lib.training.batches import Order
from course_lib.training.errors import TrainingError
from course_lib.training.state import State


def save_checkpoint(path: Path, state: State, order: Order, noise: torch.Generator) -> None:
    """Write everything, then rename: a crash while writing leaves the old file whole."""
    # Every process draws noise of its own.
    device = state.fabric.device
    on_device = torch.cuda.get_rng_state(device) if device.type == "cuda" else None
    noises = [(noise.get_state(), torch.get_rng_state(), on_device)]
    if state.fabric.world_size > 1:
        noises *= state.fabric.world_size
        torch.distributed.all_gather_object(noises, noises[0])
    state.saved_step = state.step
    if state.fabric.global_rank > 0:
        return
    content = {
        "step": state.step,
        "settings": state.settings,
        "seconds": state.elapsed(),
        "model": state.model.state_dict(),
        "optimizers": [optimizer.state_dict() for optimizer in state.optimizers],
        "average": None if state.average is None else state.average.state_dict(),
        "best": state.best,
        "best_loss": state.best_loss,
        "history": (state.history.train, state.history.validation, state.history.best_step),
        "sums": {name: torch.as_tensor(value) for name, value in state.sums.items()},
        "since_log": state.since_log,
        "order": (order.generator.get_state(), order.rest),
        "noises": noises,
        "precision": state.precision.state_dict(),  # with float16, the scale of the gradient
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as file:
        torch.save(content, file)


def load_checkpoint(path: Path, state: State, order: Order, noise: torch.Generator) -> None:
    """Put everything back; a file that does not belong to this run is refused, and changes nothing."""
    left = "It was left as it is; pass another path, or move it away to start afresh."
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
        settings = content["settings"]
    except Exception as error:  # a file may hold anything
        reason = error.strerror if isinstance(error, OSError) else type(error).__name__
        raise TrainingError(f"{path} is not a checkpoint of fit ({reason}). {left}") from error
    if len(content["noises"]) != state.fabric.world_size:
        raise TrainingError(
            f"{path} was written by {len(content['noises'])} processes and these are "
            f"{state.fabric.world_size}; each has noise of its own, so the run would not go on "
            f"as it was. Start as many processes, or pass another path."
        )
    other = [name for name, value in state.settings.items() if settings.get(name) != value]
    if other:
        its, here = (
            ", ".join(f"{name} = {which.get(name)}" for name in other)
            for which in (settings, state.settings)
        )
        raise TrainingError(
            f"{path} was written by a run with {its}, and this one has {here}; it would not go "
            f"on as it was. Pass the same, or another path."
        )
    # Only now: a checkpoint that is refused must leave the model as it was.
    before = copy.deepcopy(state.model.state_dict())
    try:
        state.model.load_state_dict(content["model"])
        for optimizer, kept in zip(state.optimizers, content["optimizers"], strict=True):
            names = [sorted(group) for group in optimizer.param_groups]
            if names != [sorted(group) for group in kept["param_groups"]]:
                raise ValueError(f"its optimizer is not {type(optimizer.optimizer).__name__}")
            optimizer.load_state_dict(kept)
        state.precision.load_state_dict(content["precision"])
    except (KeyError, RuntimeError, ValueError) as error:
        state.model.load_state_dict(before)
        raise TrainingError(
            f"{path} is not a checkpoint of this model and optimizer ({error}). {left}"
        ) from error
    if state.average is not None:
        state.average.load_state_dict(content["average"])
    state.step, state.seconds = content["step"], content["seconds"]
    state.saved_step = state.step
    state.best, state.best_loss = content["best"], content["best_loss"]
    state.history.train, state.history.validation, state.history.best_step = content["history"]
    device = state.fabric.device
    state.sums = {name: value.to(device) for name, value in content["sums"].items()}
    state.since_log = content["since_log"]
    where, order.rest = content["order"]
    order.generator.set_state(where)
    its_noise, global_noise, on_device = content["noises"][state.fabric.global_rank]
    noise.set_state(its_noise)
    torch.set_rng_state(global_noise)
    if on_device is not None:
        torch.cuda.set_rng_state(on_device, device)
