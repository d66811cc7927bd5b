"""The tables of the book: published numbers, and beside them those of the records."""

from collections.abc import Sequence
from dataclasses import dataclass

from course_lib.experiments.records import Record

NOT_RUN = "not run"


@dataclass(frozen=True)
class Published:
    """One row of the MNIST table: what a paper reports, and which recipes answer it.

    Attributes:
        name: of the model in the paper.
        protocol: what was done to the data there.
        value: the published number; lower is better.
        unit: ``"nats"`` or ``"bits/dim"``.
        model: the course's model.
        budgets: its recipes that follow this protocol, the longest first.
    """

    name: str
    protocol: str
    value: str
    unit: str
    model: str
    budgets: tuple[str, ...]


MNIST = (
    Published("NADE", "fixed binarization", "88.3", "nats", "NADE", ("gpu",)),
    Published("MADE", "fixed binarization", "86.6", "nats", "MADE", ("gpu", "cpu")),
    Published("PixelCNN", "fixed binarization", "81.3", "nats", "PixelCNN", ("gpu",)),
    Published("Row LSTM", "fixed binarization", "80.5", "nats", "RowLSTM", ("gpu",)),
    Published("Diagonal BiLSTM", "fixed binarization", "79.2", "nats", "DiagonalBiLSTM", ("gpu",)),
    Published(
        "gated PixelCNN", "dynamic binarization", "81.5", "nats", "GatedPixelCNN", ("gpu", "cpu")
    ),
    Published(
        "VAE, estimated with 5000 samples",
        "dynamic binarization",
        "86.8",
        "nats",
        "VAE",
        ("gpu", "cpu"),
    ),
    Published(
        "IWAE trained with k = 50",
        "dynamic binarization",
        "84.8",
        "nats",
        "VAE",
        ("gpu-iwae50", "cpu-iwae50"),
    ),
    Published("PixelCNN, 256 levels", "8 bits", "0.81", "bits/dim", "GatedPixelCNN", ("gpu-256",)),
    Published("RealNVP", "8 bits", "1.06", "bits/dim", "MultiScaleRealNVP", ("gpu",)),
    Published(
        "multi-scale flow, variational dequantization",
        "8 bits",
        "1.02",
        "bits/dim",
        "MultiScaleRealNVP",
        ("gpu-variational",),
    ),
    Published("Glow", "8 bits", "1.05", "bits/dim", "Glow", ("gpu",)),
)


def mnist_rows(records: Sequence[Record]) -> list[list[str]]:
    """Rows of the MNIST table, the header first: every published row, run or not.

    Args:
        records: of any data set; those of MNIST are used.

    Returns:
        Cells as text. A recipe without a record says that it has not been run.
    """
    rows = [["model", "published", "here", "time and hardware", "settings"]]
    for published in MNIST:
        for budget in published.budgets:
            matching = [
                r
                for r in records
                if (r.data, r.model, r.budget) == ("mnist", published.model, budget)
            ]
            best = min(matching, key=lambda r: r.score, default=None)
            rows.append(
                [
                    published.name,
                    f"{published.value} {published.unit}, {published.protocol}",
                    _metrics(best) if best else NOT_RUN,
                    _circumstances(best) if best else f"{NOT_RUN}; meant for: {_means(budget)}",
                    f"{published.model} --budget {budget}",
                ]
            )
    return rows


def digits_rows(records: Sequence[Record]) -> list[list[str]]:
    """Rows of the digits' leaderboard, the header first, best model first.

    Args:
        records: of any data set; those of the digits are used.

    Returns:
        Cells as text, with the mean over seeds of the test score and its range.
    """
    groups: dict[tuple[str, str], list[Record]] = {}
    for r in records:
        if r.data == "digits":
            groups.setdefault((r.model, r.budget), []).append(r)
    rows = []
    for (model, budget), runs in groups.items():
        scores = [r.score for r in runs]
        mean = sum(scores) / len(scores)
        spread = f" ({min(scores):.3f} to {max(scores):.3f})" if len(scores) > 1 else ""
        first = runs[0]
        seconds = sum(r.seconds for r in runs) / len(runs)
        rows.append(
            (
                mean,
                [
                    model,
                    f"{mean:.3f}{spread}",
                    str(len(runs)),
                    f"{first.parameters:,}",
                    f"{seconds:.0f} s",
                    f"{model} --budget {budget}",
                ],
            )
        )
    header = [
        "model",
        "test bits/dim (range over seeds)",
        "seeds",
        "parameters",
        "time",
        "settings",
    ]
    return [header, *(row for _, row in sorted(rows, key=lambda pair: pair[0]))]


def _metrics(r: Record) -> str:
    return "; ".join(
        f"{m.value:.2f} ± {m.standard_error:.2f} {m.unit} ({name.replace('_', ' ')})"
        for name, m in r.metrics.items()
    )


def _circumstances(r: Record) -> str:
    cores = r.hardware["threads"] * r.hardware["processes"]
    where = r.hardware["accelerator"] or (
        f"{r.hardware['processor']}, {cores} core{'s' if cores > 1 else ''}"
    )
    time = f"{r.seconds / 60:.0f} min"
    if r.cpu_seconds is not None and r.hardware["accelerator"] is None:
        time += f" ({r.cpu_seconds / 60:.0f} min of processor time)"
    return f"{time}, {where}, seed {r.seed}, {r.date}, {r.protocol}"


def _means(budget: str) -> str:
    return "one CPU core" if budget.startswith("cpu") else "a GPU"
