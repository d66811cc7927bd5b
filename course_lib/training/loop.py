"""One training loop for every family.

The loop is short and ours to read; the engine under it (device, precision, processes) is
Lightning Fabric, so that the same call runs on one CPU, on one GPU, or under ``torchrun``.
"""

import os
from collections.abc import Callable, Sequence
from numbers import Integral, Real
from pathlib import Path

import torch
from lightning_fabric import Fabric
from torch import nn

from course_lib.inputs import require_positive_integer, require_writable
from course_lib.memory import keep_freed_memory
from course_lib.progress import progress_bar
from course_lib.randomness import seeded
from course_lib.training.batches import Batch, Order, Transform, count, select, to_device
from course_lib.training.checkpoint import load_checkpoint, save_checkpoint
from course_lib.training.history import History
from course_lib.training.interruption import Failure, Interruption
from course_lib.training.players import Loss, Player, as_players
from course_lib.training.state import State


def fit(
    model: nn.Module,
    loss: Loss | Sequence[Player],
    train: Batch,
    *,
    validation: Batch | None = None,
    steps: int,
    batch_size: int,
    learning_rate: float = 1e-3,
    schedule: Callable[[float], float] | None = None,
    optimizer: Callable[..., torch.optim.Optimizer] | None = None,
    transform: Transform | None = None,
    gradient_clip: float | None = None,
    ema: float | None = None,
    evaluate_every: int | None = None,
    checkpoint: str | os.PathLike | None = None,
    checkpoint_every: int = 1000,
    callback: Callable[[int, nn.Module], None] | None = None,
    seed: int = 0,
    compile: bool = False,
    precision: str = "32-true",
    accelerator: str = "auto",
    devices: int | str = 1,
    num_nodes: int = 1,
    progress: bool = True,
) -> History:
    """Train `model` in place by minimizing `loss`, or by letting several players take turns.

    With a validation set, `model` ends with the weights of its best evaluation (averaged ones if
    `ema` is given); without one, with the last. It ends on the device from which it came: what ran
    without a GPU goes on running with one, and ``model.to("cuda")`` before the call keeps it there.
    Training leaves the global random state as it found it, and the same call with the same seed
    gives the same weights on the same machine.

    Args:
        model: the network to train.
        loss: called as ``loss(model, batch, progress)``, where `progress` is a 0-d tensor in
            [0, 1]: the share of training that is done (for warm-up). Returns a dictionary of 0-d
            tensors whose entry ``"loss"`` is minimized and whose others are recorded beside it;
            or the loss alone. Losses are means over examples of sums over dimensions.
            Or a sequence of `Player`: in every step each in turn is updated by its own loss.
        train: the training set, a tensor or a tuple of tensors with the same first dimension.
            It is moved to the device once.
        validation: the validation set, of the same kind; not with several players, whose losses
            do not say which weights are best.
        steps: number of optimizer steps; of rounds in which every player has its updates.
        batch_size: examples per step, over all processes together.
        learning_rate: step size, before `schedule`.
        schedule: maps `progress` in [0, 1] to a factor on the learning rate; see
            `cosine_decay` and `linear_decay`.
        optimizer: called with the parameters and ``lr=``; Adam in its fused form by default.
        transform: called as ``transform(batch, generator)`` on every batch, for noise that is
            drawn anew, such as dynamic binarization. Applied to the validation set too, with
            the same noise at every evaluation.
        gradient_clip: largest norm of the gradient.
        ema: decay of an exponential moving average of the weights, for instance 0.999.
        evaluate_every: steps between evaluations; by default 20 in all.
        checkpoint: file to write, atomically, every `checkpoint_every` steps, at the end and on
            Ctrl-C. If it exists, training goes on from it exactly where it was.
        checkpoint_every: steps between checkpoints.
        callback: called as ``callback(step, model)`` before the first step and at every
            evaluation with the weights that are evaluated, under ``no_grad`` and in evaluation
            mode, on the device of the training.
        seed: seeds the order of the data and all noise drawn in training.
        compile: compile the loss with ``torch.compile``.
        precision: as in Lightning Fabric: ``"32-true"``, ``"bf16-mixed"``, ``"64-true"``, …
        accelerator: ``"auto"``, ``"cpu"``, ``"cuda"`` or ``"mps"``.
        devices: processes on this node. Under ``torchrun``, those that it has started count
            instead, so that the same call runs there: every process takes an equal share of
            `batch_size`, and the gradient is that of the whole batch.
        num_nodes: number of nodes; under ``torchrun``, its own.
        progress: show a progress bar.

    Returns:
        The recorded history.

    Raises:
        TypeError: the model is no module, the data are no tensors, a function is none, or the seed
            no integer; or the loss returned something else than 0-d tensors.
        ValueError: an argument is out of range, the data do not fit one another, a player has no
            parameter, players share a name or a parameter, or `checkpoint` cannot be written.
        TrainingError: a term of the loss became NaN or infinite; `checkpoint` holds another run;
            or, with several processes, one of them failed. The message names the checkpoint from
            which the same call goes on.
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"model is a {type(model).__name__}; a torch.nn.Module is expected.")
    steps = require_positive_integer(steps, "steps")
    batch_size = require_positive_integer(batch_size, "batch_size")
    checkpoint_every = require_positive_integer(checkpoint_every, "checkpoint_every")
    if not isinstance(seed, Integral):
        raise TypeError(f"seed is {seed!r}; an integer is expected.")
    seed = int(seed)  # torch takes no other kind, nor does a checkpoint
    if evaluate_every is not None:
        evaluate_every = require_positive_integer(evaluate_every, "evaluate_every")
    if not isinstance(learning_rate, Real) or not learning_rate > 0:
        raise ValueError(f"learning_rate is {learning_rate}; a positive number is expected.")
    if ema is not None and not 0 < ema < 1:
        raise ValueError(f"ema is {ema}; a decay between 0 and 1 is expected, such as 0.999.")
    if gradient_clip is not None and not gradient_clip > 0:
        raise ValueError(f"gradient_clip is {gradient_clip}; a positive norm is expected, or None.")
    for name, value, expected in (
        ("schedule", schedule, "of the progress, such as course_lib.training.cosine_decay,"),
        ("optimizer", optimizer, "of parameters and lr=, such as torch.optim.SGD,"),
        ("transform", transform, "of batch and generator"),
        ("callback", callback, "of step and model"),
    ):
        if value is not None and not callable(value):
            raise TypeError(f"{name} is {value!r}; a function {expected} is expected.")
    if checkpoint is not None:
        checkpoint = Path(checkpoint)
        # Now, and not when the first checkpoint is due: till then all would be lost.
        require_writable(checkpoint.parent, f"the checkpoint {checkpoint.name}")
    n_train = count(train, "train")
    players = as_players(model, loss)
    if validation is not None:
        count(validation, "validation")
        if len(players) > 1:
            raise ValueError(
                "validation is given with several players; there is no one loss that says which "
                "weights are best. Measure what matters in callback=, and leave validation out."
            )

    if "TORCHELASTIC_RUN_ID" in os.environ:  # started by torchrun
        devices = int(os.environ["LOCAL_WORLD_SIZE"])
        num_nodes = int(os.environ["WORLD_SIZE"]) // devices
    many_processes = devices not in (1, "1") or num_nodes > 1
    # Each player's loss leaves the other players' parameters alone; processes must expect that.
    unused = many_processes and len(players) > 1
    strategy = "ddp_find_unused_parameters_true" if unused else "auto"
    fabric = Fabric(
        accelerator=accelerator,
        devices=devices,
        num_nodes=num_nodes,
        precision=precision,
        strategy=strategy,
    )
    fabric.launch()
    if fabric.device.type == "cpu":
        keep_freed_memory()
    if batch_size % fabric.world_size:
        raise ValueError(
            f"batch_size is {batch_size} for {fabric.world_size} processes; a multiple of the "
            f"number of processes is expected, so that every process has an equal share."
        )
    # Plain numbers, since a checkpoint is read as data and not as code.
    settings = {
        "steps": steps,
        "batch_size": batch_size,
        "learning_rate": float(learning_rate),
        "ema": None if ema is None else float(ema),
        "seed": seed,
        "training examples": n_train,
        "precision": precision,
        "accelerator": fabric.device.type,
        "players": [
            (p.name, p.updates, None if p.learning_rate is None else float(p.learning_rate))
            for p in players
        ],
    }
    state = State(fabric, model, players, settings, schedule, optimizer, compile)
    train = to_device(train, fabric.device)
    validation = None if validation is None else to_device(validation, fabric.device)
    evaluate_every = evaluate_every or max(1, steps // 20)

    with seeded(seed + fabric.global_rank, fabric.device):
        order = Order(n_train, batch_size, seed, fabric.world_size)
        noise = torch.Generator(fabric.device).manual_seed(seed + 1 + fabric.global_rank)
        if checkpoint is not None and checkpoint.exists():
            load_checkpoint(checkpoint, state, order, noise)
        bar = progress_bar(
            show=progress and fabric.global_rank == 0,
            total=steps,
            initial=state.step,
            desc="training",
        )
        with bar, Interruption(fabric) as interruption, Failure(state, checkpoint), state:
            if state.step == 0 and callback is not None:
                with state.evaluated_weights():
                    callback(0, model)
            while state.step < steps:
                for turn in state.turns:
                    share = order.next()[fabric.global_rank :: fabric.world_size]
                    batch = select(train, share.to(fabric.device))
                    if transform is not None:
                        batch = transform(batch, noise)
                    state.update(turn, batch, gradient_clip)
                state.finish_step()
                bar.update()
                if state.step % evaluate_every == 0 or state.step == steps:
                    row = state.log()
                    state.share_buffers()
                    if validation is not None:
                        row = state.evaluate(validation, batch_size, transform, seed)
                    bar.set_postfix({n: f"{v:.4g}" for n, v in row.items() if n.endswith("loss")})
                    if callback is not None:
                        with state.evaluated_weights():
                            callback(state.step, model)
                interrupted = interruption.anywhere()
                last = state.step == steps or interrupted
                if checkpoint is not None and (state.step % checkpoint_every == 0 or last):
                    save_checkpoint(checkpoint, state, order, noise)
                if interrupted:
                    kept = (
                        f"{checkpoint} holds all of it"
                        if checkpoint
                        else "no checkpoint was asked for"
                    )
                    raise KeyboardInterrupt(f"stopped after step {state.step} of {steps}; {kept}")
    return state.history
