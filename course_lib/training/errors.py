"""What `course_lib.training.fit` raises when it cannot continue."""


class TrainingError(RuntimeError):
    """Training cannot continue; the message says at which step, why, and what to try."""
