"""What was measured while training."""

from dataclasses import dataclass, field


@dataclass
class History:
    """What was measured while training.

    Attributes:
        train: one row per logged step: ``step``, ``seconds`` and the mean of each term of the
            loss since the row before.
        validation: one row per evaluation: ``step``, ``seconds`` and the mean of each term over
            the whole validation set.
        best_step: the step with the lowest validation loss, or None without a validation set.
    """

    train: list[dict[str, float]] = field(default_factory=list)
    validation: list[dict[str, float]] = field(default_factory=list)
    best_step: int | None = None

    def curve(self, term: str, split: str = "train") -> tuple[list[float], list[float]]:
        """Return the steps and the values of one term of the loss, for plotting.

        Args:
            term: a name such as ``"loss"``; `train` and `validation` rows list what there is.
            split: ``"train"`` or ``"validation"``.

        Raises:
            ValueError: there is no such split, or no row of it has that term.
        """
        if split not in ("train", "validation"):
            raise ValueError(f"split is {split!r}; 'train' or 'validation' is expected.")
        rows = {"train": self.train, "validation": self.validation}[split]
        if not isinstance(term, str) or not any(term in row for row in rows):
            known = sorted({name for row in rows for name in row} - {"step", "seconds"})
            raise ValueError(
                f"term is {term!r}, which no {split} row has; one of the recorded terms is expected, {known}."
            )
        pairs = [(row["step"], row[term]) for row in rows if term in row]
        return [step for step, _ in pairs], [value for _, value in pairs]
