"""Started by torchrun in test_processes.py: the same calls that the test makes in one process."""

import os
import signal
import sys
from pathlib import Path

import torch
from torch import nn

from course_lib.autoregressive import FVSBN
from course_lib.data import binarize, digits, intensities
from course_lib.training import fit, negative_log_likelihood

torch.set_num_threads(1)


def data():
    images = digits()
    return images.train, (images.test > 8).long()


def draw(batch, generator):
    return binarize(intensities(batch, 17), generator=generator).long()


def one_gradient(seed=0):
    """A step of plain gradient descent of rate 1, in float64: the change of weights is the gradient."""
    model, *_ = trained(seed, noisy=False, steps=1, learning_rate=1.0, optimizer=torch.optim.SGD)
    return model.state_dict()


def trained(seed=0, *, noisy=True, **settings):
    """A model, its log-likelihoods of the test images and its history; without noise, in float64.

    The seed is that of the order of the data, and of the noise; the first weights are always the same.
    """
    torch.manual_seed(0)
    model = FVSBN((1, 8, 8), 2)
    train, test = data()
    if noisy:
        settings |= {"transform": draw}
    else:
        train = (train > 8).long()
        model = model.double()
        settings |= {"precision": "64-true"}
    settings = {"steps": 400, "learning_rate": 1e-2} | settings
    history = fit(
        model, negative_log_likelihood, train, batch_size=64, seed=seed, progress=False,
        accelerator="cpu", **settings,
    )  # fmt: skip
    with torch.no_grad():
        return model, model.log_prob(test), history.curve("loss")


def ends_of_both(**settings):
    """What batch normalization leaves in each process: every one has seen batches of its own."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.BatchNorm1d(64), nn.Linear(64, 1))
    train = data()[0].float()
    history = fit(
        model, lambda model, x, _: (model(x) - x.mean((2, 3))).square().mean(), train, steps=12,
        batch_size=8, evaluate_every=3, accelerator="cpu", progress=False, **settings,
    )  # fmt: skip
    ends = [None, None]
    torch.distributed.all_gather_object(ends, (model.state_dict(), history.best_step))
    return ends


def killed(folder):
    """Process 1 is killed at step 100, without a word."""

    def strike(step, model):
        if step == 100 and os.environ["RANK"] == "1" and not (folder / "struck").exists():
            (folder / "struck").touch()
            os.kill(os.getpid(), signal.SIGKILL)

    return trained(
        callback=strike, evaluate_every=50, checkpoint=folder / "run.pt", checkpoint_every=40
    )[1]


def all_results(folder):
    """The gradient; likelihoods and losses without noise; likelihoods with noise; what both end with.

    Last, what a training ends with that was killed and went on: the first time, nothing comes after it.
    """
    resumed = killed(folder)
    ends = ends_of_both(), ends_of_both(ema=0.5), ends_of_both(validation=data()[1].float())
    return one_gradient(), trained(noisy=False)[1:], trained()[1], ends, resumed


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    result = all_results(folder)
    if int(os.environ["RANK"]) == 0:
        torch.save(result, folder / "result.pt")
