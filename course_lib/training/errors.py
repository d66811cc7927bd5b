"""What `course_lib.training.fit` raises when it cannot go on."""


class TrainingError(RuntimeError):
    """Training cannot go on; the message says at which step, why, and what to try."""
