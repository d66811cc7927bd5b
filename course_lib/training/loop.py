"""One training loop for every family.

The loop is short and ours to read; the engine under it (device, precision, processes) is
Lightning Fabric, so that the same call runs on one CPU, on one GPU, or under ``torchrun``.
"""

import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from lightning_fabric import Fabric
from torch import nn

from course_lib.inputs import (
    require_integer,
    require_positive_integer,
    require_real,
    require_writable,
)
from course_lib.memory import keep_freed_memory
from course_lib.progress import progress_bar
from course_lib.randomness import seeded
from course_lib.training.batches import Batch, Order, Transform, count, select, to_device
from course_lib.training.checkpoint import (
    read_checkpoint,
    require_same_run,
    restore,
    save_checkpoint,
    say,
    sole_use,
)
from course_lib.training.errors import TrainingError
from course_lib.training.history import History
from course_lib.training.identity import Identity
from course_lib.training.interruption import Failure, Interruption
from course_lib.training.optimizers import OptimizerFactory, require_factory
from course_lib.training.players import Loss, Player, as_players
from course_lib.training.state import State, default_interval


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
    optimizer: OptimizerFactory | None = None,
    transform: Transform | None = None,
    gradient_clip: float | None = None,
    ema: float | None = None,
    evaluate_every: int | None = None,
    checkpoint: str | os.PathLike | None = None,
    checkpoint_every: int = 1000,
    extend: bool = False,
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
        optimizer: called with the parameters and ``lr=``; Adam in its fused form by default. It takes
            a step from one gradient, which L-BFGS does not.
        transform: called as ``transform(batch, generator)`` on every batch, for noise that is
            drawn anew, such as dynamic binarization. Applied to the validation set too, with
            the same noise at every evaluation.
        gradient_clip: largest norm of the gradient.
        ema: decay of an exponential moving average of the weights, for instance 0.999.
        evaluate_every: steps between evaluations; by default 20 in all.
        checkpoint: file to write, atomically, every `checkpoint_every` steps, at the end and on
            Ctrl-C. If it exists, training goes on from it exactly where it was. It belongs to one run:
            of other settings, data, functions or of another model it is refused, and what differs is
            named. Of functions, the code and the values that they refer to count; of a finished run
            nothing is trained, and a line says so.
        checkpoint_every: steps between checkpoints.
        extend: let a run whose `checkpoint` is of fewer steps go on to `steps`. The result is, to the
            last bit on a CPU, that of a run of so many steps from the beginning, if neither `schedule`
            nor the loss depends on progress, and with the same `evaluate_every` (by default the shorter
            run's). Otherwise it is a run of its own: up to where it was, progress was the share of the
            fewer steps; from there on it is that of all.
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
        TypeError: the model is not a module, the data are not tensors, a function is not one, a
            number of steps or examples or the seed is not an integer, or the optimizer is not one that
            takes a step from one gradient; or the loss returned something else than 0-d tensors.
        ValueError: an argument is out of range, the data do not fit one another, a player has no
            parameter, players share a name or a parameter, `checkpoint` cannot be written, or several
            processes are asked for where they cannot be started, as in a notebook.
        TrainingError: a term of the loss became NaN or infinite; `checkpoint` holds another run, is
            in use by another, or could not be written in the end; or, with several processes, one of
            them failed. The message names the checkpoint from which the same call goes on.
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"model is a {type(model).__name__}; a torch.nn.Module is expected.")
    steps = require_positive_integer(steps, "steps")
    batch_size = require_positive_integer(batch_size, "batch_size")
    checkpoint_every = require_positive_integer(checkpoint_every, "checkpoint_every")
    num_nodes = require_positive_integer(num_nodes, "num_nodes")
    seed = require_integer(seed, "seed")
    if not -(2**63) <= seed < 2**63:
        raise ValueError(f"seed is {seed}; an integer of at most 63 bits is expected.")
    if not isinstance(devices, str | Sequence):
        devices = require_integer(devices, "devices", "a number of processes, or 'auto',")
    if evaluate_every is not None:
        evaluate_every = require_positive_integer(evaluate_every, "evaluate_every")
    learning_rate = require_real(learning_rate, "learning_rate", "a positive number", above=0)
    if ema is not None:
        decay = "a decay between 0 and 1, such as 0.999,"
        ema = require_real(ema, "ema", decay, above=0, below=1)
    if gradient_clip is not None:
        norm = "a positive norm, or None,"
        gradient_clip = require_real(gradient_clip, "gradient_clip", norm, above=0)
    for name, value, expected in (
        ("schedule", schedule, "of the progress, such as course_lib.training.cosine_decay,"),
        ("transform", transform, "of batch and generator"),
        ("callback", callback, "of step and model"),
    ):
        if value is not None and not callable(value):
            raise TypeError(f"{name} is {value!r}; a function {expected} is expected.")
    require_factory(optimizer, "optimizer")
    if checkpoint is not None:
        checkpoint = Path(checkpoint)
        # Now, and not when the first checkpoint is due: till then all would be lost.
        require_writable(checkpoint.parent, f"the checkpoint {checkpoint.name}")
    elif extend:
        raise ValueError(
            "extend is True without a checkpoint; the file of the run that is to be longer is expected. "
            "Pass its path as checkpoint=."
        )
    n_train = count(train, "train")
    players = as_players(model, loss)
    if validation is not None:
        count(validation, "validation")
        if len(players) > 1:
            raise ValueError(
                "validation is given with several players; there is no one loss that says which "
                "weights are best. Measure what matters in callback=, and leave validation out."
            )

    fabric = _launch(accelerator, devices, num_nodes, precision, players)
    if fabric.device.type == "cpu":
        keep_freed_memory()
    if batch_size % fabric.world_size:
        raise ValueError(
            f"batch_size is {batch_size} for {fabric.world_size} processes; a multiple of the "
            f"number of processes is expected, so that every process has an equal share."
        )
    with sole_use(checkpoint, fabric), seeded(seed + fabric.global_rank, fabric.device):
        kept = None
        if checkpoint is not None and checkpoint.exists():
            kept = read_checkpoint(checkpoint)
        if evaluate_every is None:
            longer = extend and kept is not None and kept["steps"] < steps
            evaluate_every = kept["evaluate_every"] if longer else default_interval(steps)
        settings = {
            "steps": steps,
            "batch_size": batch_size,
            "learning_rate": learning_rate,
            "gradient_clip": gradient_clip,
            "ema": ema,
            "seed": seed,
            "training examples": n_train,
            "evaluate_every": evaluate_every,
            "precision": str(precision),
            "accelerator": fabric.device.type,
            "compile": bool(compile),
            "players": [(p.name, p.updates, p.learning_rate) for p in players if p.name],
        }
        state = State(fabric, model, players, settings, schedule, optimizer)
        order = Order(n_train, batch_size, seed, fabric.world_size)
        noise = torch.Generator(fabric.device).manual_seed(seed + 1 + fabric.global_rank)
        identity = None
        if checkpoint is not None:
            identity = Identity(
                settings,
                {"train": train, "validation": validation},
                {"model": model, "schedule": schedule, "transform": transform}
                | {p.called("loss"): p.loss for p in players}
                | {
                    p.called("optimizer"): o.optimizer
                    for p, o in zip(players, state.optimizers, strict=True)
                },
            )
        train = to_device(train, fabric.device)
        validation = None if validation is None else to_device(validation, fabric.device)
        if kept is not None:
            try:
                require_same_run(checkpoint, kept, identity, state, extend=extend)
                restore(checkpoint, kept, state, order, noise)
            except TrainingError:
                model.to(state.home)
                raise
            if state.step == steps and fabric.global_rank == 0:
                say(
                    f"The run of {checkpoint} is finished ({steps} of {steps} steps); nothing was "
                    f"trained. To train it longer, pass more steps and extend=True; to train anew, pass "
                    f"another path, or remove the file."
                )
        kept = None  # it may be large
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
                due = state.step % evaluate_every == 0
                if due or state.step == steps:
                    if not due:  # a longer run would not have recorded anything here
                        state.before_end = state.records()
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
                    save_checkpoint(checkpoint, state, identity, order, noise)
                if interrupted:
                    kept = (
                        f"{checkpoint} holds all of it"
                        if checkpoint
                        else "no checkpoint was asked for"
                    )
                    raise KeyboardInterrupt(f"stopped after step {state.step} of {steps}; {kept}")
    return state.history


def _launch(
    accelerator: str,
    devices: int | str,
    num_nodes: int,
    precision: str,
    players: Sequence[Player],
) -> Fabric:
    """Start the processes; in an interactive session there is no script that they could run."""
    if "TORCHELASTIC_RUN_ID" in os.environ:  # started by torchrun
        devices = int(os.environ["LOCAL_WORLD_SIZE"])
        num_nodes = int(os.environ["WORLD_SIZE"]) // devices
    many_processes = devices not in (1, "1") or num_nodes > 1
    main = sys.modules["__main__"]
    file = getattr(main, "__file__", None)
    script = getattr(main, "__spec__", None) is not None or (file and os.path.isfile(file))
    interactive = hasattr(sys, "ps1") or sys.flags.interactive or not script
    # Each player's loss leaves the other players' parameters alone; processes must expect that.
    unused = many_processes and len(players) > 1 and not interactive
    fabric = Fabric(
        accelerator=accelerator,
        devices=devices,
        num_nodes=num_nodes,
        precision=precision,
        strategy="ddp_find_unused_parameters_true" if unused else "auto",
    )
    launcher = fabric.strategy.launcher
    starts = fabric.world_size > 1 and launcher is not None
    if starts and (interactive or launcher.is_interactive_compatible):
        raise ValueError(
            f"devices is {devices!r} and num_nodes is {num_nodes} in an interactive session, from "
            f"which other processes cannot be started; one process is expected in a notebook. Write "
            f"the call into a script and start it with python, or with torchrun "
            f"--nproc-per-node={devices} SCRIPT; or leave devices out."
        )
    fabric.launch()
    return fabric
