"""All that changes while training: weights, optimizers, order of the data, noise, what is recorded."""

import copy
import math
import time
from contextlib import nullcontext

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from course_lib.randomness import seeded
from course_lib.training.arguments import Arguments
from course_lib.training.averaging import WeightAverage, evaluated_weights
from course_lib.training.batches import Batch, BatchIndices, cast, count, select, to_device
from course_lib.training.errors import TrainingError
from course_lib.training.history import History
from course_lib.training.optimizers import make_optimizer
from course_lib.training.players import LossModule, LossTerms, trainable


class State:
    """A run at one of its steps.

    Args:
        fabric: the engine, with its processes started.
        given: what `fit` was given.
        evaluate_every: steps between evaluations.
    """

    def __init__(self, fabric: Fabric, given: Arguments, evaluate_every: int) -> None:
        self.fabric, self.given, self.evaluate_every = fabric, given, evaluate_every
        self.model, self.players = given.model, given.players
        self.precision = fabric.strategy.precision
        # The players' turns of one step: each player as often as it has updates.
        self.turns = [turn for turn, p in enumerate(self.players) for _ in range(p.updates)]
        optimizers = [
            make_optimizer(
                player.optimizer or given.optimizer,
                trainable(player, self.model),
                player.learning_rate or given.learning_rate,
                self.model,
                player.called("optimizer"),
            )
            for player in self.players
        ]
        # Of each group of parameters: what a schedule multiplies.
        self.rates = [[group["lr"] for group in o.param_groups] for o in optimizers]
        self.original_device = next(self.model.parameters()).device
        objective = LossModule(self.model, self.players)
        if given.compile:
            objective = torch.compile(objective)
        self.objective, *self.optimizers = fabric.setup(objective, *optimizers)
        # Of 8 or 11 significant bits only; what is compared or averaged is computed in float32.
        self.half = given.precision in ("bf16-true", "16-true")
        self.average = None
        if given.ema is not None:
            self.average = WeightAverage(self.model, given.ema, half=self.half)
        self.train = to_device(given.train, fabric.device)
        self.validation = given.validation
        if self.validation is not None:
            self.validation = to_device(self.validation, fabric.device)
        self.order = BatchIndices(given.n_train, given.batch_size, given.seed, fabric.world_size)
        seed = given.seed + 1 + fabric.global_rank
        self.noise = torch.Generator(fabric.device).manual_seed(seed)
        self.step = 0
        self.seconds = 0.0
        self.started = time.perf_counter()
        self.history = History()
        self.sums: dict[str, float] = {}
        self.since_log = 0
        self.best: dict[str, Tensor] | None = None
        self.best_loss = math.inf
        self.before_end: dict[str, object] | None = None

    def next_batch(self) -> Batch:
        """This process's share of the next batch, with fresh noise."""
        index = self.order.next()[self.fabric.global_rank :: self.fabric.world_size]
        batch = select(self.train, index.to(self.fabric.device))
        transform = self.given.transform
        return batch if transform is None else transform(batch, self.noise)

    def update(self, turn: int, batch: Batch) -> None:
        """One update of the player whose turn it is."""
        player, optimizer = self.players[turn], self.optimizers[turn]
        done = self.step / self.given.steps
        if self.given.schedule is not None:
            for group, rate in zip(optimizer.param_groups, self.rates[turn], strict=True):
                # A checkpoint holds plain numbers.
                group["lr"] = float(rate * self.given.schedule(done))
        if not self.model.training:  # as after an evaluation
            self.model.train()
        terms = self.objective(batch, torch.tensor(done, device=self.fabric.device), turn)
        values = {player.record_name(name): v for name, v in _numbers(terms).items()}
        self._require_finite(values, "training")
        if not terms["loss"].requires_grad:
            raise TrainingError(
                f"At step {self.step} the loss has no gradient: it depends on no parameter that is "
                f"trained. Compute it from the model's outputs, without no_grad, detach or item."
            )
        # This also drops what the other players' losses have sent to these parameters.
        optimizer.zero_grad(set_to_none=True)
        self.fabric.backward(terms["loss"])
        if self.given.gradient_clip is not None:
            # Fabric's own clipping refuses fused optimizers with float16; torch's scaler does not.
            scaler = getattr(self.precision, "scaler", None)
            if scaler is not None:
                scaler.unscale_(optimizer.optimizer)
            parameters = [p for group in optimizer.param_groups for p in group["params"]]
            norm = nn.utils.clip_grad_norm_(parameters, self.given.gradient_clip)
            # With float16 an overflow is expected: the scaler leaves the step out.
            if scaler is None:
                name = player.record_name("norm of the gradient")
                self._require_finite({name: norm.item()}, "training")
        optimizer.step()
        for name, value in values.items():
            self.sums[name] = self.sums.get(name, 0.0) + value / player.updates

    def finish_step(self) -> None:
        """All players have had their updates."""
        if self.average is not None:
            self.average.update(first=self.step == 0)
        self.step += 1
        self.since_log += 1

    def _require_finite(self, values: dict[str, float], phase: str) -> None:
        bad = [name for name, value in values.items() if not math.isfinite(value)]
        if not bad:
            return
        shown = ", ".join(f"{name} = {value:.4g}" for name, value in values.items())
        raise TrainingError(
            f"In {phase} at step {self.step}, {' and '.join(bad)} became NaN or infinite ({shown}). "
            f"Try a smaller learning rate (now {self.optimizers[0].param_groups[0]['lr']:.3g}), "
            f"gradient_clip=1.0, or check the data for NaN; torch.autograd.set_detect_anomaly(True) "
            f"names the operation."
        )

    def record(self) -> dict[str, float]:
        """Record the mean of each term since the last row, and the validation if there is one.

        Returns:
            The last row.
        """
        if self.step % self.evaluate_every:  # the end, where a longer run would not record anything
            self.before_end = self._records()
        means = {name: value / self.since_log for name, value in self.sums.items()}
        row = self._row(self._mean_over_processes(means))
        self.sums, self.since_log = {}, 0
        self.history.train.append(row)
        self._share_buffers()
        return row if self.validation is None else self._evaluate()

    def _share_buffers(self) -> None:
        """Every process keeps statistics of its own share, as batch normalization does; rank 0's count."""
        if self.fabric.world_size > 1:
            modules = [self.model] if self.average is None else [self.model, self.average.module]
            for buffer in (buffer for module in modules for buffer in module.buffers()):
                torch.distributed.broadcast(buffer, 0)

    @torch.no_grad()
    def _evaluate(self) -> dict[str, float]:
        """Record each term of the validation set, with the same noise every time; keep the best weights."""
        totals: dict[str, float] = {}
        n = count(self.validation, "validation")
        size = max(1, self.given.batch_size // self.fabric.world_size)
        device = self.fabric.device
        # A model of float64 is evaluated in it; all others in float32, or the loss of a model of
        # bfloat16 would be known in steps of up to 64 nats, and the best weights chosen by them.
        double = self.given.precision == "64-true"
        precision = self.fabric.autocast() if double else nullcontext()
        with (
            evaluated_weights(self.model, self.average),
            seeded(self.given.seed, device),
            precision,
        ):
            noise = torch.Generator(device).manual_seed(self.given.seed)
            done = torch.ones((), device=device)
            # Parts of nearly equal size: a loss over pairs could do nothing with a last single one.
            for index in torch.arange(n, device=device).tensor_split(-(-n // size)):
                batch = select(self.validation, index)
                if self.given.transform is not None:
                    batch = self.given.transform(batch, noise)
                for name, value in _numbers(self._evaluated_terms(batch, done)).items():
                    totals[name] = totals.get(name, 0.0) + len(index) / n * value
            # Rounding may differ by process; which weights are best must not.
            totals = self._mean_over_processes(totals)
            self._require_finite(totals, "validation")
            row = self._row(totals)
            self.history.validation.append(row)
            if row["loss"] < self.best_loss:
                self.best_loss = row["loss"]
                self.best = copy.deepcopy(self.model.state_dict())
                self.history.best_step = self.step
        return row

    def _evaluated_terms(self, batch: Batch, done: Tensor) -> LossTerms:
        """Not through the wrapper: every process sees the whole validation set."""
        objective = self.objective.module
        objective = getattr(objective, "_orig_mod", objective)  # what the compiler has wrapped
        weights = [*objective.named_parameters(), *objective.named_buffers()]
        floats = {name: w for name, w in weights if w.is_floating_point()}
        if not self.half:
            return objective(cast(batch, next(iter(floats.values())).dtype), done)
        floats = {name: w.float() for name, w in floats.items()}
        arguments = (cast(batch, torch.float32), done)
        return torch.func.functional_call(objective, floats, arguments)

    def _mean_over_processes(self, values: dict[str, float]) -> dict[str, float]:
        if self.fabric.world_size == 1:
            return values
        own = torch.tensor(list(values.values()), dtype=torch.float64, device=self.fabric.device)
        means = self.fabric.all_reduce(own, reduce_op="mean").tolist()
        return dict(zip(values, means, strict=True))

    def _row(self, values: dict[str, float]) -> dict[str, float]:
        return {"step": self.step, "seconds": round(self._elapsed(), 3), **values}

    def _elapsed(self) -> float:
        """Seconds of training, those before a checkpoint included."""
        return self.seconds + time.perf_counter() - self.started

    def call_back(self) -> None:
        """Call the callback, if there is one, with the weights that are evaluated."""
        if self.given.callback is not None:
            with evaluated_weights(self.model, self.average):
                self.given.callback(self.step, self.model)

    def state_dict(self) -> dict[str, object]:
        """All that a run needs to continue exactly from here.

        Every process has noise of its own: with several, all must call it.
        """
        device = self.fabric.device
        on_device = torch.cuda.get_rng_state(device) if device.type == "cuda" else None
        noises = [(self.noise.get_state(), torch.get_rng_state(), on_device)]
        if self.fabric.world_size > 1:
            noises *= self.fabric.world_size
            torch.distributed.all_gather_object(noises, noises[0])
        return {
            "step": self.step,
            "steps": self.given.steps,
            "evaluate_every": self.evaluate_every,
            "seconds": self._elapsed(),
            "model": self.model.state_dict(),  # those that are trained, not the best
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
            "average": None if self.average is None else self.average.module.state_dict(),
            "precision": self.precision.state_dict(),  # with float16, the scale of the gradient
            "order": self.order.state_dict(),
            "noises": noises,
            "records": self._records(),
            "before_end": self.before_end,
        }

    def load_state_dict(self, kept: dict) -> None:
        """Put everything back; if the model or an optimizer does not take it, nothing is changed.

        Raises:
            Exception: whatever the model or the optimizer says to a state that is not its own.
        """
        before = copy.deepcopy(self.model.state_dict())
        try:
            self.model.load_state_dict(kept["model"])
            for optimizer, its in zip(self.optimizers, kept["optimizers"], strict=True):
                optimizer.load_state_dict(its)
            self.precision.load_state_dict(kept["precision"])
            if self.average is not None:
                self.average.module.load_state_dict(kept["average"])
        except Exception:
            self.model.load_state_dict(before)
            raise
        self.step, self.seconds = kept["step"], kept["seconds"]
        self.order.load_state_dict(kept["order"])
        noise, global_noise, on_device = kept["noises"][self.fabric.global_rank]
        self.noise.set_state(noise)
        torch.set_rng_state(global_noise)
        if on_device is not None:
            torch.cuda.set_rng_state(on_device, self.fabric.device)
        # A run that is continued beyond its end forgets what it recorded only because it ended.
        longer = kept["steps"] < self.given.steps
        records = (longer and kept["before_end"]) or kept["records"]
        self.history = History(*records["history"])
        self.sums, self.since_log = records["sums"], records["since_log"]
        self.best, self.best_loss = records["best"], records["best_loss"]

    def _records(self) -> dict[str, object]:
        """What has been measured so far, and the best weights."""
        history = self.history
        return {
            "history": (list(history.train), list(history.validation), history.best_step),
            "sums": self.sums,
            "since_log": self.since_log,
            "best": self.best,
            "best_loss": self.best_loss,
        }

    def __enter__(self) -> "State":
        self.model.train()  # all of its parts
        return self

    def __exit__(self, *error: object) -> None:
        """Leave the model with the weights that are to be used, in evaluation mode, where it was."""
        if self.best is not None:
            self.model.load_state_dict(self.best)
        elif self.average is not None and self.step:
            self.model.load_state_dict(self.average.module.state_dict())
        self.model.eval().to(self.original_device)


def _numbers(terms: LossTerms) -> dict[str, float]:
    """The terms of a loss as plain numbers, fetched all at once: a GPU is waited for once."""
    return dict(
        zip(terms, torch.stack([term.detach() for term in terms.values()]).tolist(), strict=True)
    )
