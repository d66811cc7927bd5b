"""One training loop for every family.

The loop is short and ours to read; the engine under it (device, precision, processes) is
Lightning Fabric, so that the same call runs on one CPU, on one GPU, or under ``torchrun``.
"""

import copy
import math
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from numbers import Integral, Real
from pathlib import Path

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from course_lib.inputs import require_positive_integer, require_tensor, require_writable
from course_lib.memory import keep_freed_memory
from course_lib.progress import progress_bar
from course_lib.randomness import seeded

Batch = Tensor | tuple[Tensor, ...]
Terms = dict[str, Tensor]
Loss = Callable[[nn.Module, Batch, Tensor], Terms | Tensor]
Transform = Callable[[Batch, torch.Generator], Batch]


@dataclass(frozen=True)
class Player:
    """One of several players of a game, each with a loss and parameters of its own.

    Attributes:
        name: what to call it; its terms are recorded as ``"name/term"``.
        loss: what it minimizes, called like the loss of `fit`.
        parameters: picks its parameters out of the model; no two players share one.
        updates: how often it is updated in every step, each time on a fresh batch.
        learning_rate: its step size; that of `fit` if none is given.
        optimizer: called with its parameters and ``lr=``; that of `fit` if none is given.
    """

    name: str
    loss: Loss
    parameters: Callable[[nn.Module], Iterable[nn.Parameter]]
    updates: int = 1
    learning_rate: float | None = None
    optimizer: Callable[..., torch.optim.Optimizer] | None = None

    def record_name(self, term: str) -> str:
        """Name of a term in the history: a player without a name is alone and needs no prefix."""
        return f"{self.name}/{term}" if self.name else term


class TrainingError(RuntimeError):
    """Training cannot go on; the message says at which step, why, and what to try."""


@dataclass
class History:
    """What was measured while training.

    Attributes:
        train: one row per logged step: ``step``, ``seconds`` and the mean of each term of the
            loss since the row before.
        validation: one row per evaluation: ``step``, ``seconds`` and the mean of each term over
            the whole validation set.
        best_step: the step with the lowest validation loss, or None without a validation set.
    """

    train: list[dict[str, float]] = field(default_factory=list)
    validation: list[dict[str, float]] = field(default_factory=list)
    best_step: int | None = None

    def curve(self, term: str, split: str = "train") -> tuple[list[float], list[float]]:
        """Return the steps and the values of one term of the loss, for plotting.

        Args:
            term: a name such as ``"loss"``; `train` and `validation` rows list what there is.
            split: ``"train"`` or ``"validation"``.

        Raises:
            ValueError: there is no such split, or no row of it has that term.
        """
        if split not in ("train", "validation"):
            raise ValueError(f"split is {split!r}; 'train' or 'validation' is expected.")
        rows = {"train": self.train, "validation": self.validation}[split]
        if not any(term in row for row in rows):
            known = sorted({name for row in rows for name in row} - {"step", "seconds"})
            raise ValueError(f"no {split} row has the term {term!r}; recorded are {known}.")
        pairs = [(row["step"], row[term]) for row in rows if term in row]
        return [step for step, _ in pairs], [value for _, value in pairs]


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
    for name, value in (("steps", steps), ("batch_size", batch_size)):
        require_positive_integer(value, name)
    require_positive_integer(checkpoint_every, "checkpoint_every")
    if not isinstance(seed, Integral):
        raise TypeError(f"seed is {seed!r}; an integer is expected.")
    seed = int(seed)  # torch takes no other kind, nor does a checkpoint
    if evaluate_every is not None:
        require_positive_integer(evaluate_every, "evaluate_every")
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
        # Now, and not when the first checkpoint is due: till then all would be lost.
        require_writable(Path(checkpoint).parent, f"the checkpoint {Path(checkpoint).name}")
    n_train = _count(train, "train")
    players = _players(model, loss)
    if validation is not None:
        _count(validation, "validation")
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
    state = _State(fabric, model, players, settings, schedule, optimizer, compile)
    train = _to_device(train, fabric.device)
    validation = None if validation is None else _to_device(validation, fabric.device)
    evaluate_every = evaluate_every or max(1, steps // 20)

    with seeded(seed + fabric.global_rank, fabric.device):
        order = _Order(n_train, batch_size, seed, fabric.world_size)
        noise = torch.Generator(fabric.device).manual_seed(seed + 1 + fabric.global_rank)
        if checkpoint is not None and Path(checkpoint).exists():
            state.load(Path(checkpoint), order, noise)
        bar = progress_bar(
            show=progress and fabric.global_rank == 0,
            total=steps,
            initial=state.step,
            desc="training",
        )
        with bar, _Interruption(fabric) as interruption, _Failure(state, checkpoint), state:
            if state.step == 0 and callback is not None:
                with state.evaluated_weights():
                    callback(0, model)
            while state.step < steps:
                for turn in state.turns:
                    share = order.next()[fabric.global_rank :: fabric.world_size]
                    batch = _index(train, share.to(fabric.device))
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
                    state.save(Path(checkpoint), order, noise)
                if interrupted:
                    kept = (
                        f"{checkpoint} holds all of it"
                        if checkpoint
                        else "no checkpoint was asked for"
                    )
                    raise KeyboardInterrupt(f"stopped after step {state.step} of {steps}; {kept}")
    return state.history


def cosine_decay(progress: float) -> float:
    """A schedule: from 1 to 0 along half a cosine."""
    return 0.5 * (1 + math.cos(math.pi * progress))


def linear_decay(progress: float) -> float:
    """A schedule: from 1 to 0 along a line."""
    return 1 - progress


def _players(model: nn.Module, loss: Loss | Sequence[Player]) -> tuple[Player, ...]:
    """One loss is a game of one nameless player; several must not share names or parameters."""
    if isinstance(loss, type) or not isinstance(loss, Sequence | Callable):
        raise TypeError(
            f"loss is {loss!r}; a function of model, batch and progress is expected, or a sequence "
            f"of players. A class of losses is called first, as in NegativeELBO()."
        )
    if not isinstance(loss, Sequence):
        return (Player("", loss, nn.Module.parameters),)
    owners: dict[nn.Parameter, str] = {}
    for player in loss:
        if not isinstance(player, Player):
            raise TypeError(
                f"loss holds {player!r}; a sequence of players is expected. Pass a single loss as it "
                f"is, and give each of several losses its parameters, as in "
                f"Player('generator', loss, lambda model: model.generator.parameters())."
            )
        require_positive_integer(player.updates, f"updates of the player {player.name!r}")
        if player.learning_rate is not None and not player.learning_rate > 0:
            raise ValueError(
                f"learning_rate of the player {player.name!r} is {player.learning_rate}; a positive "
                f"number is expected, or None for that of fit."
            )
        for parameter in _trainable(player, model):
            if owners.setdefault(parameter, player.name) != player.name:
                raise ValueError(
                    f"the players {owners[parameter]!r} and {player.name!r} share a parameter of shape "
                    f"{tuple(parameter.shape)}; each parameter is updated by one player. Let each "
                    f"player's `parameters` pick its own network's only."
                )
    names = [player.name for player in loss]
    if not names or len(set(names)) < len(names) or "" in names:
        raise ValueError(f"players are named {names}; at least one, each with a name of its own.")
    return tuple(loss)


def _trainable(player: Player, model: nn.Module) -> list[nn.Parameter]:
    found = [p for p in player.parameters(model) if p.requires_grad]
    if not found:
        who = f"the player {player.name!r}" if player.name else "the model"
        raise ValueError(
            f"{who} has no parameter that is trained; at least one is expected. Call "
            f"requires_grad_(True) on what was frozen."
        )
    return found


def _moving_average(decay: float) -> Callable[[list[Tensor], list[Tensor], object], None]:
    """Average floating-point tensors; copy others, since a mean of indices or masks is none."""
    average = get_ema_multi_avg_fn(decay)

    def update(averaged: list[Tensor], current: list[Tensor], count: object) -> None:
        if averaged[0].is_floating_point():  # the lists hold tensors of one type
            average(averaged, current, count)
        else:
            torch._foreach_copy_(averaged, current)

    return update


def _directions(module: nn.Module) -> list[Tensor]:
    """Those of spectral normalization; they have length one, and a mean of them is shorter."""
    return [
        buffer
        for name, buffer in module.named_buffers()
        if ".parametrizations." in f".{name}" and name.endswith(("._u", "._v"))
    ]


class _Objective(nn.Module):
    """The losses as one module, so that one forward pass of it is what Fabric wraps."""

    def __init__(self, model: nn.Module, players: Sequence[Player]) -> None:
        super().__init__()
        self.model = model
        self.losses = [player.loss for player in players]

    def forward(self, batch: Batch, progress: Tensor, turn: int = 0) -> Terms:
        terms = self.losses[turn](self.model, batch, progress)
        terms = terms if isinstance(terms, dict) else {"loss": terms}
        for name, value in {"loss": None, **terms}.items():
            if not isinstance(value, Tensor) or value.dim():
                given = (
                    f"of shape {tuple(value.shape)}" if isinstance(value, Tensor) else repr(value)
                )
                raise TypeError(
                    f"the loss returned a term {name!r} that is {given}; a tensor of shape () is "
                    f"expected. Take the mean over the batch, and name what is minimized 'loss'."
                )
        return terms


class _Order:
    """Batches of indices: a new permutation each epoch, its incomplete last batch dropped.

    A batch is a multiple of the number of processes, so that every process has an equal share.
    """

    def __init__(self, n: int, batch_size: int, seed: int, n_processes: int) -> None:
        self.n = n
        self.batch_size = min(batch_size, n - n % n_processes)
        self.generator = torch.Generator().manual_seed(seed)
        self.rest = torch.empty(0, dtype=torch.int64)

    def next(self) -> Tensor:
        if len(self.rest) < self.batch_size:
            self.rest = torch.randperm(self.n, generator=self.generator)
        batch, self.rest = self.rest[: self.batch_size], self.rest[self.batch_size :]
        return batch


class _State:
    """All that changes while training, and how to write it down."""

    def __init__(
        self,
        fabric: Fabric,
        model: nn.Module,
        players: tuple[Player, ...],
        settings: dict[str, object],
        schedule: Callable[[float], float] | None,
        optimizer: Callable[..., torch.optim.Optimizer] | None,
        compile: bool,
    ) -> None:
        self.fabric, self.model, self.settings = fabric, model, settings
        self.home = next(model.parameters()).device
        self.precision = fabric.strategy.precision
        self.steps, ema = settings["steps"], settings["ema"]
        learning_rate = settings["learning_rate"]
        self.players, self.schedule = players, schedule
        # The players' turns of one step: each player as often as it has updates.
        self.turns = [turn for turn, p in enumerate(players) for _ in range(p.updates)]
        objective = _Objective(model, players)
        default = optimizer or (
            lambda parameters, lr: torch.optim.Adam(parameters, lr=lr, fused=True)
        )
        optimizers = [
            (player.optimizer or default)(_trainable(player, model), lr=rate or learning_rate)
            for player, (_, _, rate) in zip(players, settings["players"], strict=True)
        ]
        # Of each group of parameters: what a schedule multiplies.
        self.rates = [[group["lr"] for group in o.param_groups] for o in optimizers]
        if compile:
            objective = torch.compile(objective)
        self.objective, *self.optimizers = fabric.setup(objective, *optimizers)
        self.average = (
            AveragedModel(model, multi_avg_fn=_moving_average(ema), use_buffers=True)
            if ema is not None
            else None
        )
        # What is copied and not averaged: found once, because every step needs it.
        self.copied = (
            list(zip(_directions(self.average.module), _directions(model), strict=True))
            if ema is not None
            else []
        )
        self.step = 0
        self.saved_step: int | None = None
        self.seconds = 0.0
        self.history = History()
        self.best: dict[str, Tensor] | None = None
        self.best_loss = math.inf
        self.sums: Terms = {}
        self.since_log = 0
        self.started = time.perf_counter()

    def update(self, turn: int, batch: Batch, gradient_clip: float | None) -> None:
        """One update of the player whose turn it is."""
        player, optimizer = self.players[turn], self.optimizers[turn]
        done = self.step / self.steps
        if self.schedule is not None:
            for group, rate in zip(optimizer.param_groups, self.rates[turn], strict=True):
                group["lr"] = float(rate * self.schedule(done))  # a checkpoint holds plain numbers
        self.model.train()
        terms = self.objective(batch, torch.tensor(done, device=self.fabric.device), turn)
        self._require_finite({player.record_name(n): v for n, v in terms.items()}, "training")
        if not terms["loss"].requires_grad:
            raise TrainingError(
                f"At step {self.step} the loss has no gradient: it depends on no parameter that is "
                f"trained. Compute it from the model's outputs, without no_grad, detach or item."
            )
        # This also drops what the other players' losses have sent to these parameters.
        optimizer.zero_grad(set_to_none=True)
        self.fabric.backward(terms["loss"])
        if gradient_clip is not None:
            # Fabric's own clipping refuses fused optimizers with float16; torch's scaler does not.
            scaler = getattr(self.precision, "scaler", None)
            if scaler is not None:
                scaler.unscale_(optimizer.optimizer)
            parameters = [p for group in optimizer.param_groups for p in group["params"]]
            norm = nn.utils.clip_grad_norm_(parameters, gradient_clip)
            # With float16 an overflow is expected: the scaler leaves the step out.
            if scaler is None:
                self._require_finite({player.record_name("norm of the gradient"): norm}, "training")
        optimizer.step()
        for term, value in terms.items():
            name = player.record_name(term)
            self.sums[name] = self.sums.get(name, 0) + value.detach() / player.updates

    def finish_step(self) -> None:
        """All players have had their updates."""
        if self.average is not None:
            self.average.update_parameters(self.model)
            for averaged, current in self.copied:
                averaged.copy_(current)
        self.step += 1
        self.since_log += 1

    def _require_finite(self, terms: Terms, phase: str) -> None:
        # One test on one number: a term that is not finite makes the sum so.
        total = torch.stack([value.detach().float() for value in terms.values()]).sum()
        if torch.isfinite(total):
            return
        bad = [name for name, value in terms.items() if not torch.isfinite(value)]
        values = ", ".join(f"{name} = {value.item():.4g}" for name, value in terms.items())
        raise TrainingError(
            f"In {phase} at step {self.step}, {' and '.join(bad) or 'the sum of the terms'} "
            f"became NaN or infinite ({values}). Try a smaller learning rate (now "
            f"{self.optimizers[0].param_groups[0]['lr']:.3g}), gradient_clip=1.0, or check the data for "
            f"NaN; torch.autograd.set_detect_anomaly(True) names the operation."
        )

    def share_buffers(self) -> None:
        """Every process keeps statistics of its own share, as batch normalization does; rank 0's count."""
        if self.fabric.world_size > 1:
            for module in filter(None, (self.model, self.average)):
                for buffer in module.buffers():
                    torch.distributed.broadcast(buffer, 0)

    def log(self) -> dict[str, float]:
        """Record the mean of each term since the last row."""
        means = {name: value / self.since_log for name, value in self.sums.items()}
        row = self._row(self.fabric.all_reduce(means, reduce_op="mean"))
        self.sums, self.since_log = {}, 0
        self.history.train.append(row)
        return row

    @torch.no_grad()
    def evaluate(
        self, data: Batch, batch_size: int, transform: Transform | None, seed: int
    ) -> dict[str, float]:
        """Record each term over `data`, with the same noise every time; keep the best weights."""
        totals: Terms = {}
        n = _count(data, "validation")
        size = max(1, batch_size // self.fabric.world_size)
        device = self.fabric.device
        # A model that is itself of another precision is evaluated in it; all others in float32.
        true = self.settings["precision"].endswith("-true")
        precision = self.fabric.autocast() if true else nullcontext()
        with self.evaluated_weights(), seeded(seed, device), precision:
            noise = torch.Generator(device).manual_seed(seed)
            done = torch.ones((), device=device)
            # Parts of nearly equal size: a loss over pairs could do nothing with a last single one.
            for index in torch.arange(n, device=device).tensor_split(-(-n // size)):
                batch = _index(data, index)
                if transform is not None:
                    batch = transform(batch, noise)
                # Not through the wrapper: every process sees the whole validation set.
                terms = self.plain_objective(_cast(batch, self.model), done)
                for name, value in terms.items():
                    totals[name] = totals.get(name, 0) + len(index) / n * value
            # Rounding may differ by process; which weights are best must not.
            totals = self.fabric.all_reduce(totals, reduce_op="mean")
            self._require_finite(totals, "validation")
            row = self._row(totals)
            self.history.validation.append(row)
            if row["loss"] < self.best_loss:
                self.best_loss = row["loss"]
                self.best = copy.deepcopy(self.model.state_dict())
                self.history.best_step = self.step
        return row

    @property
    def plain_objective(self) -> nn.Module:
        module = self.objective.module
        return getattr(module, "_orig_mod", module)

    def _row(self, terms: Terms) -> dict[str, float]:
        seconds = self.seconds + time.perf_counter() - self.started
        values = {name: float(value) for name, value in terms.items()}
        return {"step": self.step, "seconds": round(seconds, 3), **values}

    def evaluated_weights(self) -> "_Swap":
        return _Swap(self.model, self.average)

    def __enter__(self) -> "_State":
        return self

    def __exit__(self, *error: object) -> None:
        """Leave the model with the weights that are to be used, in evaluation mode, where it was."""
        if self.best is not None:
            self.model.load_state_dict(self.best)
        elif self.average is not None and self.step:
            self.model.load_state_dict(self.average.module.state_dict())
        self.model.eval().to(self.home)

    def save(self, path: Path, order: _Order, noise: torch.Generator) -> None:
        """Write everything, then rename: a crash while writing leaves the old file whole."""
        # Every process draws noise of its own.
        device = self.fabric.device
        on_device = torch.cuda.get_rng_state(device) if device.type == "cuda" else None
        noises = [(noise.get_state(), torch.get_rng_state(), on_device)]
        if self.fabric.world_size > 1:
            noises *= self.fabric.world_size
            torch.distributed.all_gather_object(noises, noises[0])
        self.saved_step = self.step
        if self.fabric.global_rank > 0:
            return
        content = {
            "step": self.step,
            "settings": self.settings,
            "seconds": self.seconds + time.perf_counter() - self.started,
            "model": self.model.state_dict(),
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
            "average": None if self.average is None else self.average.state_dict(),
            "best": self.best,
            "best_loss": self.best_loss,
            "history": (self.history.train, self.history.validation, self.history.best_step),
            "sums": {name: torch.as_tensor(value) for name, value in self.sums.items()},
            "since_log": self.since_log,
            "order": (order.generator.get_state(), order.rest),
            "noises": noises,
            "precision": self.precision.state_dict(),  # with float16, the scale of the gradient
        }
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(path.name + ".partial")
        torch.save(content, partial)
        os.replace(partial, path)

    def load(self, path: Path, order: _Order, noise: torch.Generator) -> None:
        left = "It was left as it is; pass another path, or move it away to start afresh."
        try:
            content = torch.load(path, map_location="cpu", weights_only=True)
            settings = content["settings"]
        except Exception as error:  # a file may hold anything
            reason = error.strerror if isinstance(error, OSError) else type(error).__name__
            raise TrainingError(f"{path} is not a checkpoint of fit ({reason}). {left}") from error
        if len(content["noises"]) != self.fabric.world_size:
            raise TrainingError(
                f"{path} was written by {len(content['noises'])} processes and these are "
                f"{self.fabric.world_size}; each has noise of its own, so the run would not go on "
                f"as it was. Start as many processes, or pass another path."
            )
        other = [name for name, value in self.settings.items() if settings.get(name) != value]
        if other:
            its, here = (
                ", ".join(f"{name} = {which.get(name)}" for name in other)
                for which in (settings, self.settings)
            )
            raise TrainingError(
                f"{path} was written by a run with {its}, and this one has {here}; it would not go "
                f"on as it was. Pass the same, or another path."
            )
        # Only now: a checkpoint that is refused must leave the model as it was.
        before = copy.deepcopy(self.model.state_dict())
        try:
            self.model.load_state_dict(content["model"])
            for optimizer, kept in zip(self.optimizers, content["optimizers"], strict=True):
                names = [sorted(group) for group in optimizer.param_groups]
                if names != [sorted(group) for group in kept["param_groups"]]:
                    raise ValueError(f"its optimizer is not {type(optimizer.optimizer).__name__}")
                optimizer.load_state_dict(kept)
            self.precision.load_state_dict(content["precision"])
        except (KeyError, RuntimeError, ValueError) as error:
            self.model.load_state_dict(before)
            raise TrainingError(
                f"{path} is not a checkpoint of this model and optimizer ({error}). {left}"
            ) from error
        if self.average is not None:
            self.average.load_state_dict(content["average"])
        self.step, self.seconds = content["step"], content["seconds"]
        self.saved_step = self.step
        self.best, self.best_loss = content["best"], content["best_loss"]
        self.history.train, self.history.validation, self.history.best_step = content["history"]
        device = self.fabric.device
        self.sums = {name: value.to(device) for name, value in content["sums"].items()}
        self.since_log = content["since_log"]
        state, order.rest = content["order"]
        order.generator.set_state(state)
        its_noise, global_noise, on_device = content["noises"][self.fabric.global_rank]
        noise.set_state(its_noise)
        torch.set_rng_state(global_noise)
        if on_device is not None:
            torch.cuda.set_rng_state(on_device, device)


class _Interruption:
    """While entered: the first Ctrl-C is noted and waits for the end of the step."""

    def __init__(self, fabric: Fabric) -> None:
        self.fabric = fabric

    def anywhere(self) -> bool:
        """Whether any process has been asked to stop: they must stop after the same step."""
        if self.fabric.world_size == 1:
            return self.wanted
        wanted = torch.tensor(float(self.wanted), device=self.fabric.device)
        return bool(self.fabric.all_reduce(wanted, reduce_op="sum") > 0)

    def __enter__(self) -> "_Interruption":
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


class _Failure:
    """While entered: with several processes, an error says where it was and how to go on.

    A process meets the failure of another as a broken connection, or as torchrun's SIGTERM, and
    neither names the training or the checkpoint.
    """

    def __init__(self, state: _State, checkpoint: str | os.PathLike | None) -> None:
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


class _Swap:
    """While entered: the model holds its averaged weights, in evaluation mode, without gradients."""

    def __init__(self, model: nn.Module, average: AveragedModel | None) -> None:
        self.model, self.average = model, average
        self.no_grad = torch.no_grad()

    def __enter__(self) -> None:
        self.model.eval()
        if self.average is not None:
            self.kept = copy.deepcopy(self.model.state_dict())
            self.model.load_state_dict(self.average.module.state_dict())
        self.no_grad.__enter__()

    def __exit__(self, *error: object) -> None:
        self.no_grad.__exit__(*error)
        if self.average is not None:
            self.model.load_state_dict(self.kept)


def _count(data: Batch, name: str) -> int:
    """Number of examples; all tensors of a tuple must agree on it."""
    if not isinstance(data, Tensor | tuple):
        raise TypeError(
            f"{name} is a {type(data).__name__}; a tensor or a tuple of tensors is expected. "
            f"Convert arrays with torch.as_tensor; of a data set pass a split, such as data.train."
        )
    tensors = data if isinstance(data, tuple) else (data,)
    for tensor in tensors:
        require_tensor(tensor, name)
    counts = {len(tensor) for tensor in tensors}
    if len(counts) != 1 or 0 in counts:
        raise ValueError(
            f"{name} holds tensors of {sorted(counts)} examples; the same number, at least one, "
            f"is expected of each."
        )
    return counts.pop()


def _to_device(data: Batch, device: torch.device) -> Batch:
    if isinstance(data, tuple):
        return tuple(tensor.to(device) for tensor in data)
    return data.to(device)


def _cast(batch: Batch, model: nn.Module) -> Batch:
    """Numbers of the type of the model's parameters; integers stay integers."""
    if isinstance(batch, tuple):
        return tuple(_cast(tensor, model) for tensor in batch)
    parameter = next((p for p in model.parameters() if p.is_floating_point()), None)
    if parameter is None or not batch.is_floating_point():
        return batch
    return batch.to(parameter.dtype)


def _index(data: Batch, index: Tensor) -> Batch:
    return tuple(tensor[index] for tensor in data) if isinstance(data, tuple) else data[index]
