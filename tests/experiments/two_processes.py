"""Started by torchrun in test_processes.py: the same calls that the test makes in one process."""

import os
import signal
import sys
from pathlib import Path

import torch

from course_lib.autoregressive import FVSBN, negative_log_likelihood
from course_lib.data import binarize, digits, intensities
from course_lib.training import fit

torch.set_num_threads(1)


def data():
    images = digits()
    return images.train, (images.test > 8).long()


def draw(batch, generator):
    return binarize(intensities(batch, 17), generator=generator).long()


def one_gradient(seed=0):
    """A step of plain gradient descent of rate 1, in float64: the change of weights is the gradient."""
    torch.manual_seed(seed)
    model = FVSBN((1, 8, 8), 2).double()
    x = (data()[0] > 8).long()
    fit(
        model, negative_log_likelihood, x, steps=1, batch_size=64, learning_rate=1.0,
        optimizer=torch.optim.SGD, precision="64-true", progress=False, accelerator="cpu",
    )  # fmt: skip
    return model.state_dict()


def trained(**settings):
    torch.manual_seed(0)
    model = FVSBN((1, 8, 8), 2)
    train, test = data()
    fit(
        model, negative_log_likelihood, train, steps=400, batch_size=64, learning_rate=1e-2,
        transform=draw, progress=False, accelerator="cpu", **settings,
    )  # fmt: skip
    with torch.no_grad():
        return model.log_prob(test)


def killed(folder):
    """Process 1 is killed at step 100, without a word."""

    def strike(step, model):
        if step == 100 and os.environ["RANK"] == "1" and not (folder / "struck").exists():
            (folder / "struck").touch()
            os.kill(os.getpid(), signal.SIGKILL)

    return trained(
        callback=strike, evaluate_every=50, checkpoint=folder / "run.pt", checkpoint_every=40
    )


if __name__ == "__main__":
    folder = Path(sys.argv[2])
    result = killed(folder) if sys.argv[1] == "killed" else (one_gradient(), trained())
    if int(os.environ["RANK"]) == 0:
        torch.save(result, folder / "result.pt")
