"""The training loop: what it minimizes, resumes, keeps, stops at, and leaves alone."""

import math
import os
import signal
import sys
import threading
import types

import numpy as np
import pytest
import torch
from lightning_fabric import Fabric
from lightning_fabric.plugins import MixedPrecision
from torch import nn

from course_lib.data import digits
from course_lib.training import (
    History,
    Player,
    TrainingError,
    cosine_decay,
    fit,
    linear_decay,
    loop,
)
from course_lib.vae import NegativeELBO

GENERATOR = torch.Generator().manual_seed(7)
X = torch.randn(200, 3, generator=GENERATOR)
Y = X @ torch.tensor([[1.0], [-2.0], [0.5]]) + 0.3
DATA = (X[:160], Y[:160])
HELD_OUT = (X[160:], Y[160:])


def linear(seed=0):
    torch.manual_seed(seed)
    return nn.Linear(3, 1)


def squared_error(model, batch, progress):
    x, y = batch
    return (model(x) - y).square().mean()


def noisy(batch, generator):
    x, y = batch
    return x + 0.1 * torch.randn(x.shape, generator=generator), y


def dropout_network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 16), nn.ReLU(), nn.Dropout(0.2), nn.Linear(16, 1))


def run(model, **settings):
    defaults = {"steps": 60, "batch_size": 32, "learning_rate": 1e-2, "progress": False}
    return fit(model, squared_error, DATA, **{**defaults, **settings})


def weights(model):
    return torch.cat([p.detach().flatten() for p in model.parameters()])


def test_it_minimizes_the_loss():
    model = linear()
    history = run(model, steps=800, learning_rate=3e-2, schedule=linear_decay)
    assert history.train[-1]["loss"] < 1e-4
    torch.testing.assert_close(
        model.weight.detach(), torch.tensor([[1.0, -2.0, 0.5]]), atol=0.02, rtol=0
    )
    assert not model.training


def test_one_step_is_one_step_of_adam():
    """The first update is that of torch's own Adam on the same batch."""
    model, twin = linear(), linear()
    run(model, steps=1, batch_size=160)
    optimizer = torch.optim.Adam(twin.parameters(), lr=1e-2)
    squared_error(twin, DATA, None).backward()
    optimizer.step()
    torch.testing.assert_close(weights(model), weights(twin))


def test_the_same_seed_gives_the_same_weights_and_another_does_not():
    results = []
    for seed in (1, 1, 2):
        model = dropout_network()
        run(model, seed=seed, transform=noisy)
        results.append(weights(model))
    assert torch.equal(results[0], results[1])
    assert not torch.equal(results[0], results[2])


def test_the_global_random_state_is_left_alone():
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    model = linear()
    torch.manual_seed(5)
    run(model, transform=noisy, validation=HELD_OUT)
    assert torch.equal(torch.rand(3), expected)


@pytest.mark.parametrize("settings", [{}, {"ema": 0.9}, {"validation": HELD_OUT, "ema": 0.95}])
def test_a_run_that_was_stopped_goes_on_exactly(tmp_path, settings):
    settings = {
        **settings, "transform": noisy, "schedule": cosine_decay, "gradient_clip": 1.0,
        "evaluate_every": 7,
    }  # fmt: skip
    whole = dropout_network()
    expected = run(whole, **settings)

    def stop(step, model):
        if step == 28:
            raise StoppedError

    path = tmp_path / "checkpoint.pt"
    with pytest.raises(StoppedError):
        run(dropout_network(), **settings, checkpoint=path, checkpoint_every=5, callback=stop)
    resumed = dropout_network()
    nn.init.zeros_(resumed[0].weight)  # whatever the model holds, the checkpoint counts
    history = run(resumed, **settings, checkpoint=path, checkpoint_every=5)
    assert torch.equal(weights(resumed), weights(whole))
    assert [row["loss"] for row in history.train] == [row["loss"] for row in expected.train]
    assert history.best_step == expected.best_step


class StoppedError(Exception):
    """Raised by a callback, to end a run early."""


@pytest.fixture
def float16_on_cpu(monkeypatch):
    """Fabric replaces float16 by bfloat16 where there is no GPU; the scaler of gradients works there too."""

    def fabric(precision, **settings):
        return Fabric(plugins=MixedPrecision(precision, "cpu"), **settings)

    monkeypatch.setattr(loop, "Fabric", fabric)


@pytest.mark.parametrize("gradient_clip", [None, 1.0])
@pytest.mark.usefixtures("float16_on_cpu")
def test_a_run_in_float16_goes_on_exactly_and_can_clip(tmp_path, gradient_clip):
    """The gradients overflow at first, till the scaler has found its scale, which a checkpoint holds."""
    settings = {
        "precision": "16-mixed", "accelerator": "cpu", "gradient_clip": gradient_clip,
        "evaluate_every": 10, "checkpoint_every": 10,
    }  # fmt: skip

    def start():
        model = dropout_network()
        nn.init.constant_(model[-1].bias, 100.0)
        return model

    def stop(step, model):
        if step == 40:
            raise StoppedError

    whole, resumed = start(), start()
    history = run(whole, **settings, checkpoint=tmp_path / "whole.pt")
    assert torch.load(tmp_path / "whole.pt")["precision"]["scale"] < 2**16
    assert history.train[-1]["loss"] < history.train[0]["loss"]
    path = tmp_path / "checkpoint.pt"
    with pytest.raises(StoppedError):
        run(start(), **settings, checkpoint=path, callback=stop)
    run(resumed, **settings, checkpoint=path)
    assert torch.equal(weights(resumed), weights(whole))


def test_ctrl_c_waits_for_the_step_keeps_everything_and_can_be_continued(tmp_path):
    path = tmp_path / "checkpoint.pt"
    before = signal.getsignal(signal.SIGINT)

    def interrupt(step, model):
        if step == 20:
            os.kill(os.getpid(), signal.SIGINT)

    whole = dropout_network()
    run(whole, transform=noisy, evaluate_every=10)
    with pytest.raises(KeyboardInterrupt, match="holds all of it"):
        run(
            dropout_network(), transform=noisy, evaluate_every=10, checkpoint=path,
            callback=interrupt,
        )  # fmt: skip
    assert 20 <= torch.load(path)["step"] < 60
    resumed = dropout_network()
    run(resumed, transform=noisy, evaluate_every=10, checkpoint=path)
    assert torch.equal(weights(resumed), weights(whole))
    assert signal.getsignal(signal.SIGINT) is before


def test_it_trains_outside_the_main_thread():
    model, before = linear(), weights(linear())
    thread = threading.Thread(target=run, args=(model,))
    thread.start()
    thread.join()
    assert not torch.equal(weights(model), before)


def test_a_finished_run_is_not_run_again(tmp_path):
    path = tmp_path / "checkpoint.pt"
    model = linear()
    run(model, checkpoint=path)
    again = linear(seed=9)
    history = run(again, checkpoint=path)
    assert torch.equal(weights(again), weights(model))
    assert history.train[-1]["step"] == 60


def test_a_checkpoint_of_something_else_is_refused_and_left(tmp_path):
    path = tmp_path / "checkpoint.pt"
    path.write_bytes(b"not a checkpoint")
    with pytest.raises(TrainingError, match="left as it is"):
        run(linear(), checkpoint=path)
    assert path.read_bytes() == b"not a checkpoint"
    run(linear(), checkpoint=tmp_path / "other.pt", steps=10)
    with pytest.raises(TrainingError, match=r"model = .*Linear\(.*, and .* model = .*Sequential"):
        run(dropout_network(), checkpoint=tmp_path / "other.pt", steps=10)
    with pytest.raises(TrainingError, match="not a checkpoint of fit"):
        run(linear(), checkpoint=tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"steps": 20}, "with steps = 10, and this one has steps = 20; it would not continue"),
        ({"batch_size": 16}, "with batch_size = 32, and this one has batch_size = 16"),
        ({"learning_rate": 1e-3}, "learning_rate = 0.01, and this one has learning_rate = 0.001"),
        ({"ema": 0.9}, "with ema = None, and this one has ema = 0.9"),
        ({"seed": 1, "steps": 9}, "steps = 10, seed = 0, and this one has steps = 9, seed = 1"),
    ],
)
def test_a_run_of_other_settings_does_not_go_on_from_a_checkpoint(tmp_path, change, message):
    path = tmp_path / "checkpoint.pt"
    run(linear(), checkpoint=path, steps=10)
    before = path.read_bytes()
    with pytest.raises(TrainingError, match=message):
        run(linear(), checkpoint=path, **({"steps": 10} | change))
    with pytest.raises(TrainingError, match="training examples = "):
        fit(
            linear(), squared_error, (X[:40], Y[:40]), checkpoint=path,
            steps=10, batch_size=32, learning_rate=1e-2, progress=False,
        )  # fmt: skip
    assert path.read_bytes() == before


def test_numbers_of_numpy_do_not_spoil_a_checkpoint(tmp_path):
    path = tmp_path / "checkpoint.pt"
    for _ in range(2):
        run(linear(), checkpoint=path, steps=3, learning_rate=np.float64(1e-2), seed=np.int64(2))


def test_a_checkpoint_that_cannot_be_written_stops_before_training(tmp_path):
    (tmp_path / "file").write_text("in the way")
    for folder in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(ValueError, match=r"the checkpoint a\.pt cannot be written to .*file"):
            run(linear(), checkpoint=folder / "a.pt", callback=lambda *_: pytest.fail("trained"))


LOSSES = {
    "a class": (NegativeELBO, TypeError, r"NegativeELBO\(\)"),
    "a number": (5.0, TypeError, "a function of model, batch and progress"),
    "nothing": (lambda *_: None, TypeError, "'loss' that is None"),
    "a vector": (
        lambda model, batch, _: (model(batch[0]) - batch[1]).square().flatten(),
        TypeError,
        r"'loss' that is of shape \(32,\); a tensor of shape \(\) is expected. Take the mean",
    ),
    "no term to minimize": (
        lambda model, batch, _: {"error": model(batch[0]).mean()},
        TypeError,
        "name what is minimized 'loss'",
    ),
    "a plain number among the terms": (
        lambda model, batch, _: {"loss": model(batch[0]).mean(), "error": 1.0},
        TypeError,
        "'error' that is 1.0",
    ),
    "a loss without a gradient": (
        lambda model, batch, _: model(batch[0]).mean().detach(),
        TrainingError,
        "At step 0 the loss has no gradient",
    ),
}


@pytest.mark.parametrize(("loss", "error", "message"), LOSSES.values(), ids=LOSSES)
def test_what_is_no_loss_is_named(loss, error, message):
    with pytest.raises(error, match=message):
        fit(linear(), loss, DATA, steps=1, batch_size=32, progress=False)


def test_the_best_validation_weights_are_kept():
    """With a learning rate that blows up late, the best weights are early ones."""
    model = linear()
    history = run(
        model, steps=200, validation=HELD_OUT, evaluate_every=10,
        schedule=lambda share: 1.0 if share < 0.5 else 1e5,
    )  # fmt: skip
    losses = {row["step"]: row["loss"] for row in history.validation}
    assert history.best_step == min(losses, key=losses.get) < 200
    with torch.no_grad():
        reached = squared_error(model, HELD_OUT, None).item()
    assert reached == pytest.approx(losses[history.best_step], rel=1e-5)


def test_every_evaluation_has_the_same_noise():
    """Of the transform's generator and of the global one; otherwise the best weights are the luckiest."""

    def loss(model, batch, progress):
        return squared_error(model, batch, progress) + torch.randn(())

    history = fit(
        linear(), loss, DATA, validation=HELD_OUT, steps=6, batch_size=16, evaluate_every=2,
        transform=noisy, schedule=lambda share: 0.0, progress=False,
    )  # fmt: skip
    assert len({row["loss"] for row in history.validation}) == 1
    assert len({row["loss"] for row in history.train}) == 3  # training's is drawn anew


def test_validation_weighs_every_example_alike():
    """Parts of 22, 22 and 21: the mean is over examples."""
    held_out = (X[:65], Y[:65])
    model = linear()
    history = run(model, steps=1, validation=held_out)
    with torch.no_grad():
        expected = squared_error(model, held_out, None).item()
    assert history.validation[0]["loss"] == pytest.approx(expected, rel=1e-5)


def test_averaged_weights_are_the_moving_average():
    decay, trace = 0.8, []
    model = linear()
    settings = {"steps": 12, "evaluate_every": 1}
    run(linear(), **settings, callback=lambda step, m: trace.append(weights(m)))
    run(model, **settings, ema=decay)
    average = trace[1]  # after the first step the average is the weights themselves
    for step in trace[2:]:
        average = decay * average + (1 - decay) * step
    torch.testing.assert_close(weights(model), average)


def test_running_statistics_are_averaged_and_counts_are_copied():
    def network():
        torch.manual_seed(0)
        return nn.Sequential(nn.BatchNorm1d(3), nn.Linear(3, 1))

    decay, means = 0.8, []
    model = network()
    settings = {"steps": 6, "evaluate_every": 1}
    run(network(), **settings, callback=lambda s, m: means.append(m[0].running_mean.clone()))
    run(model, **settings, ema=decay)
    average = means[1]
    for mean in means[2:]:
        average = decay * average + (1 - decay) * mean
    torch.testing.assert_close(model[0].running_mean, average)
    assert model[0].num_batches_tracked == 6


def test_schedule_sees_progress_and_scales_the_rate():
    seen = []
    model = linear()
    before = weights(model)
    run(model, steps=4, schedule=lambda share: seen.append(share) or 0.0)
    assert seen == [0.0, 0.25, 0.5, 0.75]
    assert torch.equal(weights(model), before)
    assert cosine_decay(0) == 1
    assert cosine_decay(0.5) == pytest.approx(0.5)
    assert linear_decay(0.25) == 0.75


def test_the_loss_sees_progress():
    seen = []

    def loss(model, batch, progress):
        seen.append(progress.item())
        return squared_error(model, batch, progress)

    fit(linear(), loss, DATA, steps=4, batch_size=16, progress=False)
    assert seen == [0.0, 0.25, 0.5, 0.75]


def test_every_example_is_seen_once_an_epoch():
    seen = []

    def loss(model, batch, progress):
        seen.append(batch.squeeze(1))
        return model(batch.expand(-1, 3)).mean()

    fit(linear(), loss, torch.arange(96.0).unsqueeze(1), steps=6, batch_size=32, progress=False)
    first, second = torch.cat(seen[:3]), torch.cat(seen[3:])
    assert first.sort().values.tolist() == second.sort().values.tolist() == list(range(96))
    assert not torch.equal(first, second)


def test_gradient_clipping_bounds_the_step():
    model = linear()
    before = weights(model)
    run(model, steps=1, learning_rate=1.0, gradient_clip=1e-3, optimizer=torch.optim.SGD)
    assert (weights(model) - before).norm().item() == pytest.approx(1e-3, rel=1e-3)


def test_nan_stops_at_the_step_and_names_the_term():
    def loss(model, batch, progress):
        error = squared_error(model, batch, progress)
        penalty = error * (math.nan if progress > 0.4 else 1.0)
        return {"loss": error + penalty, "error": error, "penalty": penalty}

    with pytest.raises(TrainingError, match=r"step 5.*loss and penalty.*error = ") as error:
        fit(linear(), loss, DATA, steps=10, batch_size=16, progress=False)
    assert "learning rate" in str(error.value)


def test_every_term_is_recorded():
    def loss(model, batch, progress):
        return {"loss": squared_error(model, batch, progress), "two": torch.tensor(2.0)}

    history = fit(linear(), loss, DATA, validation=HELD_OUT, steps=4, batch_size=16, progress=False)
    assert history.curve("two") == ([1, 2, 3, 4], [2.0] * 4)
    assert history.curve("two", "validation")[1] == pytest.approx([2.0] * 4)
    with pytest.raises(ValueError, match=r"'three'.*\['loss', 'two'\]"):
        history.curve("three")
    with pytest.raises(ValueError, match="split is 'test'; 'train' or 'validation' is expected"):
        history.curve("loss", "test")
    assert isinstance(history, History)


def test_callback_sees_averaged_weights_without_gradients():
    seen = []

    def callback(step, model):
        assert not model.training
        assert not torch.is_grad_enabled()
        seen.append(step)

    run(linear(), steps=10, evaluate_every=5, ema=0.9, callback=callback)
    assert seen == [0, 5, 10]


@pytest.mark.parametrize("validation", [None, HELD_OUT])
def test_the_model_ends_on_the_device_from_which_it_came(monkeypatch, validation):
    """Data that are not on a GPU can be given to it afterwards. Here the call stands for the move."""
    model, moves, move = linear(), [], nn.Module.to

    def record(module, *target, **options):
        moves.append((module, target))
        return move(module, *target, **options)

    monkeypatch.setattr(nn.Module, "to", record)
    run(model, steps=5, validation=validation)
    assert moves[-1] == (model, (torch.device("cpu"),))


def test_double_precision_is_double_throughout():
    data = tuple(tensor.double() for tensor in DATA)
    model = linear()
    fit(model, squared_error, data, steps=2, batch_size=16, precision="64-true", progress=False)
    assert weights(model).dtype == torch.float64


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"steps": 0}, "steps is 0"),
        ({"batch_size": -1}, "batch_size is -1"),
        ({"learning_rate": 0.0}, "learning_rate is 0"),
        ({"learning_rate": "1e-3"}, "learning_rate is 1e-3"),
        ({"ema": 1.0}, "ema is 1"),
        ({"checkpoint_every": 0}, "checkpoint_every"),
        ({"evaluate_every": 0}, "evaluate_every is 0"),
        ({"gradient_clip": -1.0}, "gradient_clip is -1"),
        ({"validation": (X, Y[:3])}, "validation"),
    ],
)
def test_bad_settings_are_named(settings, message):
    with pytest.raises(ValueError, match=message):
        run(linear(), **settings)


def test_empty_and_odd_data_are_named():
    with pytest.raises(ValueError, match="train holds tensors of"):
        fit(linear(), squared_error, (X[:0], Y[:0]), steps=1, batch_size=2)
    with pytest.raises(TypeError, match="train is a list; a tensor or a tuple of tensors"):
        fit(linear(), squared_error, [[1.0]], steps=1, batch_size=2)
    with pytest.raises(TypeError, match=r"train is a Dataset; .* such as data\.train"):
        fit(linear(), squared_error, digits(), steps=1, batch_size=2)
    with pytest.raises(TypeError, match=r"model is <function .*; an object of the class Module is"):
        fit(squared_error, linear(), DATA, steps=1, batch_size=2)
    for name in ("optimizer", "transform", "callback"):
        with pytest.raises(TypeError, match=f"{name} is 3; a function of .* is expected"):
            run(linear(), **{name: 3})
    with pytest.raises(ValueError, match="the model has no parameter that is trained"):
        run(linear().requires_grad_(False))
    with pytest.raises(ValueError, match="the model has no parameter that is trained"):
        run(nn.Flatten())
    with pytest.raises(TypeError, match="seed is None; an integer is expected"):
        run(linear(), seed=None)
    with pytest.raises(TypeError, match="schedule is 'cosine'; a function of the progress"):
        run(linear(), schedule="cosine")


def test_averaging_keeps_spectral_normalization():
    torch.manual_seed(0)
    layer = nn.utils.parametrizations.spectral_norm(nn.Linear(3, 40))
    model = nn.Sequential(layer, nn.ReLU(), nn.Linear(40, 1))
    run(model, steps=200, ema=0.99)
    # A mean of unit vectors is shorter: dividing by what it measures would let the norm grow.
    assert abs(torch.linalg.matrix_norm(layer.weight, 2) - 1) < 0.1


@pytest.mark.parametrize("transform", [None, noisy])
def test_a_double_model_is_validated_in_double(transform):
    def loss(model, batch, progress):
        assert batch[0].dtype == torch.float64
        return squared_error(model, batch, progress)

    model = linear()
    history = fit(
        model, loss, DATA, validation=HELD_OUT, steps=20, batch_size=32, precision="64-true",
        transform=transform, progress=False,
    )  # fmt: skip
    assert model.weight.dtype == torch.float64
    assert len(history.validation) == 20


def test_a_schedule_of_numpy_leaves_a_checkpoint_that_can_be_read(tmp_path):
    def schedule(progress):
        return 0.5 * (1 + np.cos(np.pi * progress))

    path = tmp_path / "checkpoint.pt"
    run(linear(), schedule=schedule, checkpoint=path)
    model = linear(1)
    run(model, schedule=schedule, checkpoint=path)
    twin = linear()
    run(twin, schedule=cosine_decay)
    torch.testing.assert_close(weights(model), weights(twin))


def test_a_schedule_scales_every_group_of_parameters_by_its_own_rate():
    def groups(parameters, lr):
        weight, bias = parameters
        return torch.optim.SGD([{"params": [weight], "lr": lr}, {"params": [bias], "lr": 10 * lr}])

    moved = {}
    for name, schedule in (("constant", None), ("halved", lambda progress: 0.5)):
        model = linear()
        before = weights(model)
        run(model, steps=1, optimizer=groups, schedule=schedule)
        moved[name] = weights(model) - before
    torch.testing.assert_close(moved["halved"], 0.5 * moved["constant"])


def test_validation_leaves_the_data_alone_and_has_no_tiny_last_part():
    def double(batch, generator):
        return tuple(tensor.mul_(2) for tensor in batch)

    sizes = []

    def loss(model, batch, progress):
        sizes.append(len(batch[0]))
        return squared_error(model, batch, progress)

    held_out = tuple(tensor[:33].clone() for tensor in HELD_OUT)
    fit(
        linear(), loss, DATA, validation=held_out, steps=2, batch_size=32, evaluate_every=1,
        transform=double, progress=False,
    )  # fmt: skip
    torch.testing.assert_close(held_out, tuple(tensor[:33] for tensor in HELD_OUT))
    assert sizes == [32, 17, 16, 32, 17, 16]


def test_a_refused_checkpoint_leaves_the_model_as_it_was(tmp_path):
    path = tmp_path / "checkpoint.pt"
    run(linear(), checkpoint=path, steps=10)
    for settings, message in (
        ({"steps": 5}, "steps = 10, and this one has steps = 5"),
        (
            {"optimizer": torch.optim.SGD},
            r"optimizer = \S+Adam, and this one has optimizer = \S+SGD;",
        ),
        ({"precision": "64-true"}, "precision = 32-true"),
        ({"gradient_clip": 1.0}, "gradient_clip = None, and this one has gradient_clip = 1;"),
    ):
        model = linear(seed=3)
        before = weights(model)
        with pytest.raises(TrainingError, match=message):
            run(model, checkpoint=path, **{"steps": 10, **settings})
        assert torch.equal(weights(model), before.to(weights(model).dtype))


def test_an_infinite_gradient_is_named_where_gradients_are_clipped():
    def loss(model, batch, progress):
        return (model(batch[0]) * 0).clamp(min=0).sqrt().mean()  # slope 1 / (2 √0)

    with pytest.raises(TrainingError, match="norm of the gradient"):
        fit(linear(), loss, DATA, steps=1, batch_size=8, gradient_clip=1.0, progress=False)


def test_players_are_players_with_rates_of_their_own():
    with pytest.raises(TypeError, match="a sequence of players is expected"):
        run_players([squared_error])
    with pytest.raises(ValueError, match="learning_rate of the player 'a' is 0"):
        run_players([Player("a", squared_error, nn.Module.parameters, learning_rate=0.0)])


def run_players(players):
    return fit(linear(), players, DATA, steps=1, batch_size=8, progress=False)


def test_other_devices_are_not_seeded(monkeypatch):
    def refuse(seed):
        raise AssertionError("all devices are seeded")

    model = linear()
    monkeypatch.setattr(torch.cuda, "manual_seed_all", refuse)
    run(model, steps=2, validation=HELD_OUT, accelerator="cpu")


INTEGERS = {
    "numpy": np.int64,
    "a short one of numpy": np.uint8,
    "a tensor": torch.tensor,
    "an array": np.array,
}
REALS = {"numpy": np.float64, "a tensor": torch.tensor, "an array": np.array}


@pytest.mark.parametrize("integer", INTEGERS.values(), ids=INTEGERS)
def test_integers_of_other_libraries_are_integers(tmp_path, integer):
    plain = {"steps": 9, "batch_size": 16, "evaluate_every": 3, "checkpoint_every": 4, "seed": 5}
    plain |= {"devices": 1, "num_nodes": 1}
    models = []
    for number in (integer, int):
        models.append(linear())
        settings = {name: number(value) for name, value in plain.items()}
        player = Player("a", squared_error, nn.Module.parameters, updates=number(2))
        fit(models[-1], [player], DATA, checkpoint=tmp_path / "a.pt", progress=False, **settings)
    assert torch.equal(weights(models[0]), weights(models[1]))


@pytest.mark.parametrize("real", REALS.values(), ids=REALS)
def test_numbers_of_other_libraries_are_numbers(tmp_path, real):
    plain = {"learning_rate": 0.25, "ema": 0.5, "gradient_clip": 0.5}  # exact in every type
    models = []
    for number in (real, float):
        models.append(linear())
        player = Player("a", squared_error, nn.Module.parameters, learning_rate=number(0.125))
        fit(
            models[-1], [player], DATA, steps=3, batch_size=16, progress=False,
            checkpoint=tmp_path / "a.pt", **{name: number(v) for name, v in plain.items()},
        )  # fmt: skip
    assert torch.equal(weights(models[0]), weights(models[1]))


@pytest.mark.parametrize("value", [True, 2.5, "3", None, np.float64(2), torch.tensor(2.0), [3]])
@pytest.mark.parametrize("name", ["steps", "batch_size", "checkpoint_every", "seed", "num_nodes"])
def test_what_is_not_an_integer_is_named(name, value):
    with pytest.raises(TypeError, match=f"{name} is .*; an integer .*is expected"):
        run(linear(), **{name: value})


@pytest.mark.parametrize("value", [True, "0.5", [0.5], math.nan, 0, -1, torch.ones(2), 1j])
@pytest.mark.parametrize("name", ["learning_rate", "ema", "gradient_clip"])
def test_what_is_not_a_positive_number_is_named(name, value):
    with pytest.raises(
        ValueError, match=rf"(?s){name} is .*; a .*(positive|between 0 and 1).*is expected"
    ):
        run(linear(), **{name: value})


class NoRate(torch.optim.Optimizer):
    """An optimizer that chooses its rate itself."""

    def __init__(self, parameters, lr):
        super().__init__(parameters, {})

    def step(self, closure=None):
        raise AssertionError("a step was taken")


OPTIMIZERS = {
    "a closure is needed": (torch.optim.LBFGS, "LBFGS, which evaluates the loss several times"),
    "in a function": (
        lambda parameters, lr: torch.optim.LBFGS(parameters, lr=lr, max_iter=3),
        "LBFGS, which evaluates the loss several times",
    ),
    "gradients are dense": (torch.optim.SparseAdam, "SparseAdam, which takes sparse gradients only"),
    "made already": (
        torch.optim.SGD([nn.Parameter(torch.ones(1))], lr=0.1),
        r"a SGD that has its parameters already.*Pass the class, torch\.optim\.SGD",
    ),
    "no lr": (lambda parameters: torch.optim.SGD(parameters, lr=1.0), "argument 'lr'"),
    "no rate": (NoRate, "NoRate, which has no learning rate"),
    "another class": (nn.Linear, "cannot be made"),
    "something else": (lambda parameters, lr: lr, "makes a float; a function of parameters and lr="),
    "a name": ("adam", "is 'adam'; a function of parameters and lr="),
}  # fmt: skip


@pytest.mark.parametrize("whose", ["fit's", "a player's"])
@pytest.mark.parametrize(("optimizer", "message"), OPTIMIZERS.values(), ids=OPTIMIZERS)
def test_an_optimizer_that_cannot_be_used_is_named_before_the_first_step(whose, optimizer, message):
    model = linear()
    before = weights(model)

    def loss(*_):
        pytest.fail("the loss was evaluated")

    of_fit, of_player = (optimizer, None) if whose == "fit's" else (None, optimizer)
    player = Player("a", loss, nn.Module.parameters, optimizer=of_player)
    with pytest.raises(TypeError, match=message):
        fit(model, [player], DATA, steps=1, batch_size=8, optimizer=of_fit, progress=False)
    assert torch.equal(weights(model), before)


def test_sparse_gradients_may_have_their_optimizer():
    model = nn.Embedding(5, 2, sparse=True)
    before = model.weight.clone()
    fit(
        model, lambda model, batch, _: model(batch).square().mean(), torch.arange(5), steps=2,
        batch_size=5, optimizer=torch.optim.SparseAdam, progress=False,
    )  # fmt: skip
    assert not torch.equal(model.weight, before)


@pytest.mark.parametrize("players", [False, True])
@pytest.mark.parametrize("devices", [2, "2", np.int64(2)])
def test_several_processes_cannot_be_started_from_a_notebook(monkeypatch, devices, players):
    monkeypatch.setattr("lightning_fabric.connector._IS_INTERACTIVE", True)
    monkeypatch.setattr(sys, "ps1", "In : ", raising=False)
    loss = squared_error
    if players:
        loss = [Player("a", squared_error, lambda m: [m.weight]),
                Player("b", squared_error, lambda m: [m.bias])]  # fmt: skip
    with pytest.raises(ValueError, match=r"devices is '?2.* interactive session.*script.*torchrun"):
        fit(linear(), loss, DATA, steps=1, batch_size=8, devices=devices, accelerator="cpu")
    fit(linear(), loss, DATA, steps=1, batch_size=8, devices=1, progress=False)


def test_several_processes_cannot_be_started_without_a_script(monkeypatch):
    """As after ``python -c`` or from standard input: the others would have nothing to run."""
    main = types.ModuleType("__main__")
    monkeypatch.setitem(sys.modules, "__main__", main)
    with pytest.raises(ValueError, match="other processes cannot be started"):
        run(linear(), devices=2, accelerator="cpu")


@pytest.mark.parametrize("precision", ["bf16-true", "16-true", "bf16-mixed"])
@pytest.mark.parametrize("ema", [None, 0.5])
def test_the_best_weights_are_not_chosen_by_a_rounded_loss(precision, ema):
    """Near 10,000 numbers of bfloat16 are 64 apart, those of float16 8: all would look alike."""

    def loss(model, batch, progress):
        x, y = batch
        error = (model(x) - y).square().mean()
        return {"loss": 10_000 + error, "error": error}

    model = linear()
    history = fit(
        model, loss, DATA, validation=HELD_OUT, steps=40, batch_size=32, evaluate_every=4, ema=ema,
        learning_rate=3e-2, optimizer=torch.optim.SGD, precision=precision, progress=False,
        accelerator="cpu",
    )  # fmt: skip
    errors = {row["step"]: row["error"] for row in history.validation}
    losses = {row["step"]: row["loss"] for row in history.validation}
    assert len(set(losses.values())) > 5
    for step, value in losses.items():
        assert value == pytest.approx(10_000 + errors[step], rel=1e-6)
    assert history.best_step == min(losses, key=losses.get) > 4
    # These are the weights that the caller is given, in their own type.
    with torch.no_grad():
        error = loss(model.float(), HELD_OUT, None)["error"].item()
    assert error == pytest.approx(errors[history.best_step], rel=1e-4)


@pytest.mark.parametrize("precision", ["bf16-true", "16-true"])
def test_an_average_of_half_weights_moves_by_less_than_their_rounding(precision):
    """Where weights are near 1, a thousandth of their differences is lost in bfloat16."""

    def train(**settings):
        model = nn.Linear(3, 1, bias=False)
        nn.init.ones_(model.weight)
        seen = []
        fit(
            model, lambda model, batch, _: model(batch[0]).mean(), (torch.ones(64, 3),), steps=60,
            batch_size=32, evaluate_every=1, learning_rate=2**-5, optimizer=torch.optim.SGD,
            progress=False, accelerator="cpu", precision=precision,
            callback=lambda step, m: seen.append(weights(m).float()), **settings,
        )  # fmt: skip
        return seen

    trace = train()
    average = trace[1]
    for now in trace[2:]:
        average = 0.999 * average + 0.001 * now
    found = train(ema=0.999)[-1]
    torch.testing.assert_close(found, average, rtol=4e-3, atol=0)
    assert (found < trace[1]).all()


def test_means_of_half_losses_are_recorded_in_float32():
    def loss(model, batch, progress):
        return {"loss": (model(batch[0]) - batch[1]).square().mean(),
                "one": torch.tensor(1.0, dtype=torch.bfloat16),
                "large": torch.tensor(1e39, dtype=torch.float64)}  # fmt: skip

    history = fit(
        linear(), loss, DATA, steps=600, batch_size=8, evaluate_every=600, progress=False,
        accelerator="cpu",
    )  # fmt: skip
    # A sum of bfloat16 stays at 256.
    assert history.train[0]["one"] == 1
    assert history.train[0]["large"] == pytest.approx(1e39)
