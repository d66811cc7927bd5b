"""What `fit` was given, checked before anything is started."""

import math
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace

from torch import nn

from course_lib.inputs import (
    require_function,
    require_integer,
    require_kind,
    require_positive_integer,
    require_real,
    require_writable,
)
from course_lib.training.batches import count
from course_lib.training.optimizers import require_factory
from course_lib.training.players import as_players


class Arguments(SimpleNamespace):
    """The arguments of `fit`, each under its name; numbers are Python's own, which a file can hold.

    Attributes:
        n_train: number of training examples.
        players: who minimizes what; a single loss is that of one player without a name.

    Raises:
        TypeError: an argument is of another type.
        ValueError: an argument is out of range, or does not fit another one.
    """

    def __init__(self, **given: object) -> None:
        super().__init__(**given)
        require_kind(self.model, nn.Module, "model")
        self._check_numbers()
        self._check_functions()
        self._check_checkpoint()
        self.n_train = count(self.train, "train")
        self.players = as_players(self.model, self.loss)
        if self.validation is not None:
            count(self.validation, "validation")
            if len(self.players) > 1:
                raise ValueError(
                    "validation is given with several players; there is no one loss that says which "
                    "weights are best. Measure what matters in callback=, and leave validation out."
                )

    def _check_numbers(self) -> None:
        for name in ("steps", "batch_size", "checkpoint_every", "num_nodes", "evaluate_every"):
            value = getattr(self, name)
            if value is not None or name != "evaluate_every":
                setattr(self, name, require_positive_integer(value, name))
        self.seed = require_integer(self.seed, "seed")
        if not -(2**63) <= self.seed < 2**63:
            raise ValueError(f"seed is {self.seed}; an integer of at most 63 bits is expected.")
        if not isinstance(self.devices, str | Sequence):
            expected = "a number of processes, or 'auto',"
            self.devices = require_integer(self.devices, "devices", expected)
        for name, expected, below in (
            ("learning_rate", "a positive number", math.inf),
            ("ema", "a decay between 0 and 1, such as 0.999,", 1),
            ("gradient_clip", "a positive norm, or None,", math.inf),
        ):
            value = getattr(self, name)
            if value is not None or name == "learning_rate":
                setattr(self, name, require_real(value, name, expected, above=0, below=below))

    def _check_functions(self) -> None:
        for name, expected in (
            ("schedule", "of the progress, such as course_lib.training.cosine_decay,"),
            ("transform", "of batch and generator"),
            ("callback", "of step and model"),
        ):
            if getattr(self, name) is not None:
                require_function(getattr(self, name), name, f"a function {expected}")
        require_factory(self.optimizer, "optimizer")

    def _check_checkpoint(self) -> None:
        if self.checkpoint is not None:
            self.checkpoint = Path(self.checkpoint)
            # Now, and not when the first checkpoint is due: till then all would be lost.
            require_writable(self.checkpoint.parent, f"the checkpoint {self.checkpoint.name}")
        elif self.extend:
            raise ValueError(
                "extend is True without a checkpoint; the file of the run that is to be longer is "
                "expected. Pass its path as checkpoint=."
            )
