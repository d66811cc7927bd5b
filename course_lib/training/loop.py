"""One training loop for every family.

The loop is short and ours to read; the engine under it (device, precision, processes) is
Lightning Fabric, so that the same call runs on one CPU, on one GPU, or under ``torchrun``.
"""

import os
import sys
from collections.abc import Callable, Sequence

from lightning_fabric import Fabric
from torch import nn

from course_lib.memory import keep_freed_memory
from course_lib.progress import progress_bar
from course_lib.randomness import seeded
from course_lib.training.arguments import Arguments
from course_lib.training.batches import Batch, BatchTransform
from course_lib.training.checkpoint import Checkpoint, sole_use
from course_lib.training.history import History
from course_lib.training.interruption import failure_explained, interruptible
from course_lib.training.optimizers import OptimizerFactory
from course_lib.training.players import Loss, Player
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
    optimizer: OptimizerFactory | None = None,
    transform: BatchTransform | None = None,
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
    without a GPU keeps running with one, and ``model.to("cuda")`` before the call keeps it there.
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
            Ctrl-C. If it exists, training resumes from it exactly where it was. It belongs to one run:
            of other settings, data, functions or of another model it is refused, and what differs is
            named. Of functions, the code and the values that they refer to count; of a finished run
            nothing is trained, and a line says so.
        checkpoint_every: steps between checkpoints.
        extend: let a run whose `checkpoint` is of fewer steps continue to `steps`. The result is, to the
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
            them failed. The message names the checkpoint from which the same call resumes.
    """
    given = Arguments(**locals())  # checked
    fabric = _launch(given)
    seed = given.seed + fabric.global_rank
    with sole_use(given.checkpoint, fabric), seeded(seed, fabric.device):
        file = Checkpoint(given.checkpoint, fabric)
        state = State(fabric, given, file.interval(given))
        file.resume(state)
        bar = progress_bar(
            show=progress and fabric.global_rank == 0,
            total=given.steps,
            initial=state.step,
            desc="training",
        )
        with bar, interruptible(fabric) as asked_to_stop, failure_explained(state, file), state:
            if state.step == 0:
                state.call_back()
            while state.step < given.steps:
                for turn in state.turns:
                    state.update(turn, state.next_batch())
                state.finish_step()
                bar.update()
                ended = state.step == given.steps
                if ended or state.step % state.evaluate_every == 0:
                    row = state.record()
                    bar.set_postfix({n: f"{v:.4g}" for n, v in row.items() if n.endswith("loss")})
                    state.call_back()
                interrupted = asked_to_stop()
                if ended or interrupted or state.step % given.checkpoint_every == 0:
                    file.save(state)
                if interrupted:
                    kept = (
                        f"{file.path} holds all of it"
                        if file.path
                        else "no checkpoint was asked for"
                    )
                    raise KeyboardInterrupt(f"stopped after step {state.step} of {steps}; {kept}")
    return state.history


def _launch(given: Arguments) -> Fabric:
    """Start the processes; in an interactive session there is no script that they could run."""
    devices, num_nodes = given.devices, given.num_nodes
    if "TORCHELASTIC_RUN_ID" in os.environ:  # started by torchrun
        devices = int(os.environ["LOCAL_WORLD_SIZE"])
        num_nodes = int(os.environ["WORLD_SIZE"]) // devices
    many_processes = devices not in (1, "1") or num_nodes > 1
    main = sys.modules["__main__"]
    file = getattr(main, "__file__", None)
    script = getattr(main, "__spec__", None) is not None or (file and os.path.isfile(file))
    interactive = hasattr(sys, "ps1") or sys.flags.interactive or not script
    # Each player's loss leaves the other players' parameters alone; processes must expect that.
    unused = many_processes and len(given.players) > 1 and not interactive
    fabric = Fabric(
        accelerator=given.accelerator,
        devices=devices,
        num_nodes=num_nodes,
        precision=given.precision,
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
    if fabric.device.type == "cpu":
        keep_freed_memory()
    if given.batch_size % fabric.world_size:
        raise ValueError(
            f"batch_size is {given.batch_size} for {fabric.world_size} processes; a multiple of the "
            f"number of processes is expected, so that every process has an equal share."
        )
    return fabric
