"""Checkpoints: they belong to one run, are whole at any moment, and a run can be made longer."""

import contextlib
import errno
import functools
import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from course_lib.training import Player, TrainingError, cosine_decay, fit, linear_decay
from course_lib.training.identity import describe
from course_lib.vae import VAE, NegativeELBO

X = torch.randn(64, 3, generator=torch.Generator().manual_seed(7))
Y = X @ torch.tensor([[1.0], [-2.0], [0.5]]) + 0.3
DATA, HELD_OUT = (X[:48], Y[:48]), (X[48:], Y[48:])
FACTOR = 1.0


def network(dropout=0.2, activation=nn.ReLU, seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(3, 8), activation(), nn.Dropout(dropout), nn.Linear(8, 1))


def squared_error(model, batch, progress):
    x, y = batch
    return (model(x) - y).square().mean()


def noisy(batch, generator):
    x, y = batch
    return x + 0.1 * torch.randn(x.shape, generator=generator), y


def run(path=None, model=None, loss=squared_error, train=DATA, **settings):
    """A short run; returns its model and its history."""
    model = network() if model is None else model
    defaults = {"steps": 6, "batch_size": 16, "learning_rate": 1e-2, "progress": False}
    history = fit(model, loss, train, checkpoint=path, **(defaults | settings))
    return model, history


def weights(model):
    return torch.cat([p.detach().flatten() for p in model.parameters()])


def rows(history):
    """What has been recorded, without the seconds."""
    both = history.train + history.validation
    return [{k: v for k, v in row.items() if k != "seconds"} for row in both], history.best_step


class Weighted:
    def __init__(self, weight=1.0):
        self.weight = weight
        self.calls = 0

    def __call__(self, model, batch, progress):
        self.calls += 1
        return self.weight * squared_error(model, batch, progress)


@dataclass(slots=True)
class Scaled:
    scale: float = 1.0

    def __call__(self, model, batch, progress):
        return self.scale * squared_error(model, batch, progress)


class Module(nn.Module):
    def __init__(self, weight):
        super().__init__()
        self.weight = weight

    def forward(self, model, batch, progress):
        return self.weight * squared_error(model, batch, progress)


def with_default(weight):
    def loss(model, batch, progress, factor=weight):
        return factor * squared_error(model, batch, progress)

    return loss


def with_closure(weight):
    return lambda model, batch, progress: weight * squared_error(model, batch, progress)


def weighted(model, batch, progress, *, weight):
    return weight * squared_error(model, batch, progress)


def times_factor(model, batch, progress):
    return FACTOR * squared_error(model, batch, progress)


def changed(data):
    x, y = (tensor.clone() for tensor in data)
    x[5, 1] += 1e-6
    return x, y


def decayed(of_weights):
    """Another setting for one group of parameters."""
    return lambda parameters, lr: torch.optim.SGD(
        [{"params": parameters[:1]}, {"params": parameters[1:], "weight_decay": of_weights}], lr=lr
    )


def sgd(momentum):
    return lambda parameters, lr: torch.optim.SGD(parameters, lr=lr, momentum=momentum)


OTHER = {
    "an attribute of the loss": ({"loss": Weighted()}, {"loss": Weighted(20)}, "loss.weight = 20"),
    "a field": ({"loss": Scaled()}, {"loss": Scaled(20)}, "loss.scale = 20"),
    "a module": ({"loss": Module(1.0)}, {"loss": Module(2.0)}, r"loss = Module\(weight=2\)"),
    "a default": ({"loss": with_default(1)}, {"loss": with_default(2)}, "loss.factor = 2"),
    "a closure": ({"loss": with_closure(1)}, {"loss": with_closure(2)}, "loss.weight = 2"),
    "a tensor": (
        {"loss": with_closure(torch.tensor(1.0))},
        {"loss": with_closure(torch.tensor([2.0]).mean())},
        "loss.weight = float32",
    ),
    "a partial function": (
        {"loss": functools.partial(weighted, weight=1)},
        {"loss": functools.partial(weighted, weight=2)},
        "loss.weight = 2",
    ),
    "a method": (
        {"loss": Weighted(1).__call__}, {"loss": Weighted(2).__call__}, "loss.self.weight = 2",
    ),
    "code": (
        {"loss": lambda model, batch, _: model(batch[0]).square().mean()},
        {"loss": lambda model, batch, _: model(batch[0]).abs().mean()},
        "code of loss",
    ),
    "type": ({"loss": Weighted()}, {"loss": Scaled()}, "loss = Weighted, .* loss = Scaled"),
    "data": ({}, {"train": changed(DATA)}, "train = .*SHA-256"),
    "type of data": ({}, {"train": (X[:48], Y[:48].double())}, "train = .*float64"),
    "number of data": ({}, {"train": (X[:40], Y[:40])}, "training examples = 40"),
    "validation": (
        {"validation": HELD_OUT}, {"validation": changed(HELD_OUT)}, "validation = .*SHA-256",
    ),
    "no validation": ({"validation": HELD_OUT}, {}, "this one has validation = None"),
    "schedule": (
        {"schedule": cosine_decay}, {"schedule": linear_decay}, "schedule = .*linear_decay",
    ),
    "no schedule": ({"schedule": cosine_decay}, {}, "this one has schedule = None"),
    "transform": ({"transform": noisy}, {}, "transform = noisy, and .* transform = None"),
    "clipping": ({"gradient_clip": 1.0}, {"gradient_clip": 2.0}, "gradient_clip = 2"),
    "evaluations": ({}, {"evaluate_every": 3}, "evaluate_every = 1, and .* evaluate_every = 3"),
    "optimizer": ({"optimizer": sgd(0.5)}, {"optimizer": sgd(0.9)}, "optimizer.momentum = 0.9"),
    "a group of parameters": (
        {"optimizer": decayed(0)},
        {"optimizer": decayed(0.1)},
        "optimizer.weight_decay of group 1 = 0.1",
    ),
    "model": ({}, {"model": network(dropout=0.5)}, r"model.2 = .*Dropout\(inplace=False, p=0.5"),
    "activation": ({}, {"model": network(activation=nn.Tanh)}, "model.1 = .*Tanh"),
}  # fmt: skip


@pytest.mark.parametrize(("first", "second", "message"), OTHER.values(), ids=OTHER)
def test_another_run_is_refused_by_name_and_nothing_is_changed(tmp_path, first, second, message):
    path = tmp_path / "run.pt"
    run(path, **first)
    before = path.read_bytes()
    model = second.pop("model", None) or network(seed=3)
    kept = weights(model)
    with pytest.raises(TrainingError, match=message):
        run(path, model, **second)
    assert torch.equal(weights(model), kept)
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["run.pt"]


def test_a_global_number_counts(tmp_path, monkeypatch):
    """As in a notebook: one cell sets it, another holds the loss."""
    path = tmp_path / "run.pt"
    run(path, loss=times_factor)
    run(path, loss=times_factor)
    monkeypatch.setattr(sys.modules[__name__], "FACTOR", 2.0, raising=True)
    monkeypatch.setitem(times_factor.__globals__, "FACTOR", 2.0)
    with pytest.raises(TrainingError, match=r"loss\.FACTOR = 1, and this one has loss\.FACTOR = 2"):
        run(path, loss=times_factor)


def test_the_losses_of_the_library_are_told_apart(tmp_path):
    def train(loss):
        torch.manual_seed(0)
        x = (X[:, :, None] > 0).float().reshape(64, 1, 1, 3)
        model = VAE((1, 1, 3), 2, hidden=(4,))
        fit(model, loss, x, steps=2, batch_size=16, checkpoint=tmp_path / "a.pt", progress=False)

    train(NegativeELBO(beta=1))
    train(NegativeELBO(beta=1.0))
    with pytest.raises(TrainingError, match=r"loss\.beta = 1, and this one has loss\.beta = 20"):
        train(NegativeELBO(beta=20))


def test_the_loss_of_a_player_is_named(tmp_path):
    def players(weight):
        return [Player("a", with_closure(weight), lambda m: m[0].parameters()),
                Player("b", squared_error, lambda m: m[3].parameters())]  # fmt: skip

    run(tmp_path / "a.pt", loss=players(1))
    run(tmp_path / "a.pt", loss=players(1))
    with pytest.raises(TrainingError, match=r"loss of the player 'a'\.weight = 2"):
        run(tmp_path / "a.pt", loss=players(2))


def written(text, **variables):
    """A function as a cell of a notebook defines it, beside other variables."""
    names = {"squared_error": squared_error, "__name__": "__main__"} | variables
    exec(text, names)
    return names["loss"]


def with_things(*_):
    """What differs between processes: addresses, handles, clocks that only the object knows."""
    seen, generator, lock = [], torch.Generator(), threading.Lock()

    class Opaque:
        started = time.perf_counter()

        def __init__(self):
            self.begun = time.perf_counter()

    opaque = Opaque()

    def loss(model, batch, progress):
        seen.append(batch)
        with lock:
            assert opaque is not generator
        return squared_error(model, batch, progress)

    return loss


INNOCENT = {
    "a new object": lambda call: {"loss": Weighted(2)},
    "numbers of other libraries": lambda call: {
        "loss": Scaled([2, 2.0, np.float32(2), np.int64(2)][call]),
        "gradient_clip": [1, np.float64(1), torch.tensor(1.0), 1.0][call],
    },
    "other lines and documentation": lambda call: {
        "loss": written("\n" * 7 * call + f"""def loss(model, batch, progress):
            '''{call}'''
            return squared_error(model, batch, progress)"""),
    },
    "a new function": lambda call: {"loss": with_closure(2), "transform": noisy},
    "handles and lists": lambda call: {"loss": with_things()},
    "a global variable with the name of a method": lambda call: {
        "loss": written("""def loss(model, batch, progress):
            return (model(batch[0]) - batch[1]).square().mean()""", mean=call, square=[call]),
    },
    "a new schedule": lambda call: {"schedule": lambda share: 1 - share / 2},
    "data in another layout": lambda call: {
        "train": (X[:48].T.contiguous().T if call % 2 else X[:48], Y[:48]),
    },
    "a new optimizer": lambda call: {"optimizer": sgd(0.5), "callback": lambda *_: call},
    "the model inside of a function": lambda call: (
        lambda model: {"model": model, "loss": lambda m, b, p: squared_error(model, b, p)}
    )(network(seed=call)),
    "how it is shown and kept": lambda call: {
        "checkpoint_every": call + 1, "callback": lambda *_: None,
    },
}  # fmt: skip


class StoppedError(Exception):
    """Raised by a callback, to end a run early."""


@pytest.mark.parametrize("make", INNOCENT.values(), ids=INNOCENT)
def test_the_same_run_is_never_refused(tmp_path, make):
    """Stopped, called again with everything made anew, and again when it is finished."""
    path = tmp_path / "run.pt"

    def stop(step, model):
        if step == 4:
            raise StoppedError

    with contextlib.suppress(StoppedError):
        run(path, **(make(0) | {"callback": stop, "checkpoint_every": 1}))
    assert torch.load(path)["step"] == 3
    for call in (1, 2, 3):
        run(path, **make(call))
    assert torch.load(path)["step"] == 6


def test_the_same_cell_may_be_run_again_with_its_objects(tmp_path):
    """A loss that counts its calls has another count by then."""
    path, loss, seen = tmp_path / "run.pt", Weighted(2), []

    def record(model, batch, progress):
        seen.append(len(seen))
        return loss(model, batch, progress)

    def stop(step, model):
        if step == 4:
            raise StoppedError

    with contextlib.suppress(StoppedError):
        run(path, loss=record, callback=stop, checkpoint_every=1)
    run(path, loss=record)
    run(path, loss=record)
    assert loss.calls == len(seen) == 7  # the fourth step came twice
    loss.weight = 3
    with pytest.raises(TrainingError, match=r"loss\.loss\.weight = 3"):
        run(path, loss=record)


SCRIPT = """
import sys, torch
from torch import nn
from course_lib.training import fit

WORDS = {"one", "two", "three", "four"}
torch.manual_seed(0)
x = torch.rand(64, 3)
class Loss:
    scale = 2.0
    def __init__(self, names): self.names, self.weight = names, 2.0
    def __call__(self, model, batch, progress):
        assert "one" in self.names and "two" in {"one", "two", "three"}
        return self.weight * (model(batch) - batch.sum(1, keepdim=True)).square().mean()
for name in sys.argv[1:]:
    torch.manual_seed(1)
    model = nn.Sequential(nn.Linear(3, 400), nn.ReLU(), nn.Linear(400, 400), nn.Linear(400, 1))
    fit(model, Loss(WORDS), x, steps=60, batch_size=16, checkpoint=name, checkpoint_every=1,
        progress=False, evaluate_every=10)
    torch.save(model.state_dict(), name + ".end")
"""


@pytest.mark.slow
def test_a_run_that_is_killed_while_it_writes_goes_on_exactly(tmp_path):
    """In another process, whose sets have another order."""
    (tmp_path / "train.py").write_text(SCRIPT)

    def train(seed, *arguments):
        environment = {
            **os.environ, "PYTHONHASHSEED": str(seed), "OMP_NUM_THREADS": "1",
            "PYTHONPATH": str(Path(__file__).parents[1]),
        }  # fmt: skip
        command = [sys.executable, *arguments]
        return subprocess.run(
            command, cwd=tmp_path, env=environment, capture_output=True, text=True
        )

    killed = train(1, Path(__file__).with_name("killed.py"), "20", "train.py", "run.pt")
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert list(tmp_path.glob(".run.pt.~*.part"))
    assert torch.load(tmp_path / "run.pt")["step"] == 19
    last = train(2, "train.py", "run.pt", "whole.pt")
    assert last.returncode == 0, last.stderr
    ends = [torch.load(tmp_path / f"{name}.pt.end") for name in ("run", "whole")]
    assert all(torch.equal(ends[0][name], ends[1][name]) for name in ends[1])
    # What the killed one was writing is gone, and so is its lock.
    names = {"run.pt", "run.pt.end", "whole.pt", "whole.pt.end", "train.py"}
    assert set(os.listdir(tmp_path)) == names


def test_a_finished_run_says_that_it_is(tmp_path, capsys):
    path = tmp_path / "run.pt"
    model, history = run(path)
    assert "finished" not in capsys.readouterr().err
    again, its = run(path, network(seed=1), callback=lambda *_: pytest.fail("trained"))
    said = capsys.readouterr().err
    assert f"{path} is finished (6 of 6 steps); nothing was trained. To train it longer" in said
    assert said.count("\n") == 1
    assert torch.equal(weights(again), weights(model))
    assert its == history


LONGER = {  # with an evaluation at the shorter runs' ends, or not
    "plain": {"evaluate_every": 5},
    "plain, at other steps": {"evaluate_every": 7},
    "noise and clipping": {"evaluate_every": 7, "transform": noisy, "gradient_clip": 1.0},
    "best weights": {"evaluate_every": 7, "validation": HELD_OUT},
    "averaged best weights": {
        "evaluate_every": 7, "validation": HELD_OUT, "ema": 0.9, "transform": noisy,
    },
    "momentum": {"evaluate_every": 50, "optimizer": sgd(0.9)},
    "double": {"evaluate_every": 7, "precision": "64-true", "validation": HELD_OUT},
}  # fmt: skip


@pytest.mark.parametrize("settings", LONGER.values(), ids=LONGER)
def test_a_longer_run_is_that_of_so_many_steps_from_the_beginning(tmp_path, settings):
    whole, expected = run(steps=40, **settings)
    path = tmp_path / "run.pt"
    for seed, steps in enumerate((15, 20, 40, 40)):
        model, history = run(path, network(seed=seed), steps=steps, extend=True, **settings)
    assert torch.equal(weights(model), weights(whole))
    assert rows(history) == rows(expected)


def test_a_longer_run_may_be_stopped_and_goes_on(tmp_path):
    path = tmp_path / "run.pt"
    settings = {"evaluate_every": 4, "validation": HELD_OUT, "transform": noisy}
    whole, expected = run(steps=40, **settings)

    def stop(step, model):
        if step == 28:
            raise StoppedError

    run(path, steps=10, **settings)
    with pytest.raises(StoppedError):
        run(path, steps=40, extend=True, checkpoint_every=3, callback=stop, **settings)
    model, history = run(path, steps=40, **settings)  # it is a run of 40 steps by now
    assert torch.equal(weights(model), weights(whole))
    assert rows(history) == rows(expected)


def test_progress_in_a_longer_run_is_that_of_all_its_steps(tmp_path):
    path, seen = tmp_path / "run.pt", []

    def schedule(share):
        seen.append(share)
        return 1.0

    run(path, steps=4, schedule=schedule)
    run(path, steps=8, schedule=schedule, extend=True)
    assert seen == [0, 0.25, 0.5, 0.75, 0.5, 0.625, 0.75, 0.875]


def test_only_more_steps_make_a_run_longer(tmp_path):
    path = tmp_path / "run.pt"
    run(path, steps=40)
    with pytest.raises(TrainingError, match=r"steps = 40, .* steps = 80; .* pass extend=True"):
        run(path, steps=80)
    with pytest.raises(TrainingError, match="steps = 40, and this one has steps = 20"):
        run(path, steps=20, extend=True)
    with pytest.raises(TrainingError, match=r"with learning_rate = 0\.01, and"):
        run(path, steps=80, learning_rate=0.1, extend=True)
    with pytest.raises(ValueError, match="extend is True without a checkpoint"):
        run(extend=True)
    _, history = run(path, steps=80, extend=True)  # the intervals stay what they were
    assert [row["step"] for row in history.train] == list(range(2, 81, 2))


@pytest.mark.parametrize(
    "error", [OSError(errno.ENOSPC, "No space left on device"), KeyboardInterrupt()]
)
def test_a_checkpoint_that_fails_to_be_written_leaves_the_old_one_whole(
    tmp_path, monkeypatch, error
):
    path, save = tmp_path / "run.pt", torch.save
    whole, _ = run()

    def full(content, file):
        if content["step"] == 5:
            file.write(b"half of it")
            raise error
        save(content, file)

    monkeypatch.setattr(torch, "save", full)
    expected = TrainingError if isinstance(error, OSError) else KeyboardInterrupt
    said = r"at step 5 \(No space left on device\). The file holds everything up to step 4, whole"
    with pytest.raises(expected, match=said if expected is TrainingError else None):
        run(path, checkpoint_every=1)
    assert os.listdir(tmp_path) == ["run.pt"]
    monkeypatch.setattr(torch, "save", save)
    assert torch.load(path)["step"] == 4
    model, _ = run(path)
    assert torch.equal(weights(model), weights(whole))


def test_a_disk_that_is_really_full_is_named(tmp_path):
    """A limit of the system on the length of files stands for it."""
    resource = pytest.importorskip("resource")
    path = tmp_path / "run.pt"
    model = nn.Sequential(nn.Linear(3, 300), nn.Linear(300, 300), nn.Linear(300, 1))
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, limits[1]))
    try:
        with pytest.raises(
            TrainingError, match=r"at step 6 \(File too large\). There is no earlier"
        ):
            run(path, model)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert os.listdir(tmp_path) == []


def test_two_runs_do_not_share_a_checkpoint(tmp_path):
    path = tmp_path / "run.pt"
    (tmp_path / "link.pt").symlink_to(path)
    refused = []

    def start_another(step, model):
        for same in (path, tmp_path / "link.pt"):
            with pytest.raises(TrainingError, match="is in use: another run"):
                run(same)
            refused.append(step)
        with torch.enable_grad():
            run(tmp_path / "other.pt", seed=step)
        (tmp_path / "other.pt").unlink()

    run(path, callback=start_another, evaluate_every=3)
    assert refused == [0, 0, 3, 3, 6, 6]
    (tmp_path / ".run.pt.lock").touch()  # as a killed run leaves it
    run(path, evaluate_every=3)
    assert sorted(os.listdir(tmp_path)) == ["link.pt", "run.pt"]


def test_a_checkpoint_of_an_earlier_version_is_not_guessed_at(tmp_path):
    path = tmp_path / "run.pt"
    torch.save({"step": 6, "settings": {"steps": 6}}, path)
    with pytest.raises(TrainingError, match="did not record the loss and the data"):
        run(path)
    run(tmp_path / "new.pt")
    content = torch.load(tmp_path / "new.pt")
    del content["identity"]["transform"]
    torch.save(content, path)
    with pytest.raises(TrainingError, match="did not record transform"):
        run(path)


def test_another_version_of_pytorch_is_mentioned(tmp_path, capsys):
    path = tmp_path / "run.pt"
    run(path)
    content = torch.load(path)
    content["torch"] = "1.0"
    torch.save(content, path)
    run(path)
    assert f"with PyTorch 1.0, and this is {torch.__version__}" in capsys.readouterr().err


class Ordered(nn.Linear):
    """A model with a state of its own, which is compared when it is loaded."""

    def __init__(self, order):
        super().__init__(3, 1)
        self._order = order

    def get_extra_state(self):
        return {"order": self._order}

    def set_extra_state(self, state):
        if state["order"] != self._order:
            raise ValueError(f"the order is {state['order']} there and {self._order} here")


def test_why_a_model_refuses_its_state_is_passed_on(tmp_path):
    path = tmp_path / "run.pt"
    run(path, Ordered(1), validation=HELD_OUT, ema=0.9)
    run(path, Ordered(1), validation=HELD_OUT, ema=0.9)
    model = Ordered(2)
    before = weights(model)
    with pytest.raises(TrainingError, match=r"this model and .*the order is 1 there and 2 here"):
        run(path, model, validation=HELD_OUT, ema=0.9)
    assert torch.equal(weights(model), before)


def test_every_bit_of_a_tensor_counts_on_every_layout_and_type():
    for dtype in (torch.uint8, torch.bool, torch.bfloat16, torch.float64, torch.complex64):
        x = torch.arange(24).reshape(4, 6).to(dtype)
        y = x.clone()
        y[3, 5] = 0
        a, b, c = (dict(describe("x", t))["x"] for t in (x, x.T.contiguous().T, y))
        assert a == b != c
