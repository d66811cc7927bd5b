"""Training: one loop for every family.

`fit` minimizes one loss, or lets the players of a game take turns; what it measures is a `History`.
A run is stopped by Ctrl-C, resumes from its checkpoint, and takes as many processes as it is given.
"""

from course_lib.training.batches import Batch, BatchTransform
from course_lib.training.errors import TrainingError
from course_lib.training.history import History
from course_lib.training.loop import fit
from course_lib.training.losses import negative_log_likelihood
from course_lib.training.players import Loss, LossTerms, Player
from course_lib.training.schedules import cosine_decay, linear_decay

__all__ = [
    "Batch",
    "BatchTransform",
    "History",
    "Loss",
    "LossTerms",
    "Player",
    "TrainingError",
    "cosine_decay",
    "fit",
    "linear_decay",
    "negative_log_likelihood",
]
