"""All that changes while training: the updates, what is recorded, and the best weights."""

import copy
import math
import time
from collections.abc import Callable
from contextlib import nullcontext

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from course_lib.randomness import seeded
from course_lib.training.averaging import EvaluatedWeights, WeightAverage
from course_lib.training.batches import Batch, Transform, cast, count, select
from course_lib.training.errors import TrainingError
from course_lib.training.history import History
from course_lib.training.optimizers import OptimizerFactory, make_optimizer
from course_lib.training.players import Objective, Player, Terms, trainable


def default_interval(steps: int) -> int:
    """Steps between evaluations, if nobody has chosen: 20 in all."""
    return max(1, steps // 20)


def single(value: Tensor) -> Tensor:
    """A term of the loss to be summed or compared, in float32 if its own type has fewer bits."""
    value = value.detach()
    return value if value.dtype == torch.float64 else value.float()


class State:
    """A run at one of its steps."""

    def __init__(
        self,
        fabric: Fabric,
        model: nn.Module,
        players: tuple[Player, ...],
        settings: dict[str, object],
        schedule: Callable[[float], float] | None,
        optimizer: OptimizerFactory | None,
    ) -> None:
        self.fabric, self.model, self.settings = fabric, model, settings
        self.home = next(model.parameters()).device
        self.precision = fabric.strategy.precision
        self.steps, self.evaluate_every = settings["steps"], settings["evaluate_every"]
        ema = settings["ema"]
        self.players, self.schedule = players, schedule
        # The players' turns of one step: each player as often as it has updates.
        self.turns = [turn for turn, p in enumerate(players) for _ in range(p.updates)]
        objective = Objective(model, players)
        optimizers = [
            make_optimizer(
                player.optimizer or optimizer,
                trainable(player, model),
                settings["learning_rate"] if player.learning_rate is None else player.learning_rate,
                model,
                player.called("optimizer"),
            )
            for player in players
        ]
        # Of each group of parameters: what a schedule multiplies.
        self.rates = [[group["lr"] for group in o.param_groups] for o in optimizers]
        if settings["compile"]:
            objective = torch.compile(objective)
        self.objective, *self.optimizers = fabric.setup(objective, *optimizers)
        # Of 8 or 11 significant bits only; what is compared or averaged is computed in float32.
        self.half = settings["precision"] in ("bf16-true", "16-true")
        self.average = None if ema is None else WeightAverage(model, ema, half=self.half)
        self.step = 0
        self.saved_step: int | None = None
        self.seconds = 0.0
        self.history = History()
        self.best: dict[str, Tensor] | None = None
        self.best_loss = math.inf
        self.sums: Terms = {}
        self.since_log = 0
        self.before_end: dict[str, object] | None = None
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
            self.sums[name] = self.sums.get(name, 0) + single(value) / player.updates

    def finish_step(self) -> None:
        """All players have had their updates."""
        if self.average is not None:
            self.average.update_parameters(self.model)
        self.step += 1
        self.since_log += 1

    def _require_finite(self, terms: Terms, phase: str) -> None:
        # One test on one number: a term that is not finite makes the sum so.
        total = torch.stack([single(value) for value in terms.values()]).sum()
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
        n = count(data, "validation")
        size = max(1, batch_size // self.fabric.world_size)
        device = self.fabric.device
        # A model of float64 is evaluated in it; all others in float32, or the loss of a model of
        # bfloat16 would be known in steps of up to 64 nats, and the best weights chosen by them.
        double = self.settings["precision"] == "64-true"
        precision = self.fabric.autocast() if double else nullcontext()
        with self.evaluated_weights(), seeded(seed, device), precision:
            noise = torch.Generator(device).manual_seed(seed)
            done = torch.ones((), device=device)
            # Parts of nearly equal size: a loss over pairs could do nothing with a last single one.
            for index in torch.arange(n, device=device).tensor_split(-(-n // size)):
                batch = select(data, index)
                if transform is not None:
                    batch = transform(batch, noise)
                for name, value in self._evaluated_terms(batch, done).items():
                    totals[name] = totals.get(name, 0) + len(index) / n * single(value)
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

    def _evaluated_terms(self, batch: Batch, done: Tensor) -> Terms:
        """Not through the wrapper: every process sees the whole validation set."""
        objective = self.plain_objective
        weights = dict([*objective.named_parameters(), *objective.named_buffers()])
        floats = {name: w for name, w in weights.items() if w.is_floating_point()}
        if not self.half:
            dtype = next(iter(floats.values())).dtype
            return objective(cast(batch, dtype), done)
        floats = {name: w.float() for name, w in floats.items()}
        arguments = (cast(batch, torch.float32), done)
        return torch.func.functional_call(objective, floats, arguments)

    def records(self) -> dict[str, object]:
        """What has been measured so far, and the best weights; for a checkpoint."""
        history = self.history
        return {
            "history": (list(history.train), list(history.validation), history.best_step),
            "sums": {name: torch.as_tensor(value) for name, value in self.sums.items()},
            "since_log": self.since_log,
            "best": self.best,
            "best_loss": self.best_loss,
        }

    def restore_records(self, kept: dict[str, object]) -> None:
        """Put back what `records` has returned."""
        self.history.train, self.history.validation, self.history.best_step = kept["history"]
        self.sums = {name: value.to(self.fabric.device) for name, value in kept["sums"].items()}
        self.since_log = kept["since_log"]
        self.best, self.best_loss = kept["best"], kept["best_loss"]

    def elapsed(self) -> float:
        """Seconds of training, those before a checkpoint included."""
        return self.seconds + time.perf_counter() - self.started

    @property
    def plain_objective(self) -> nn.Module:
        """The losses without what Fabric and the compiler have put around them."""
        module = self.objective.module
        return getattr(module, "_orig_mod", module)

    def _row(self, terms: Terms) -> dict[str, float]:
        values = {name: float(value) for name, value in terms.items()}
        return {"step": self.step, "seconds": round(self.elapsed(), 3), **values}

    def evaluated_weights(self) -> EvaluatedWeights:
        """While entered, the model is as it is evaluated."""
        return EvaluatedWeights(self.model, self.average)

    def __enter__(self) -> "State":
        return self

    def __exit__(self, *error: object) -> None:
        """Leave the model with the weights that are to be used, in evaluation mode, where it was."""
        if self.best is not None:
            self.model.load_state_dict(self.best)
        elif self.average is not None and self.step:
            self.model.load_state_dict(self.average.module.state_dict())
        self.model.eval().to(self.home)
