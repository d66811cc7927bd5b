"""The tables of the book: published numbers, and beside them those of the records."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from course_lib.evaluation import estimate
from course_lib.experiments.records import Record, StudyRecord

NOT_RUN = "not run"


@dataclass(frozen=True)
class Published:
    """One row of the MNIST table: what was published, and which recipes answer it.

    Attributes:
        name: of the model there.
        protocol: what was done to the data there.
        value: the published number; lower is better.
        unit: ``"nats"`` or ``"bits/dim"``.
        source: who published it: a citation or a link, in the Markdown of the book.
        model: the course's model.
        budgets: its recipes that follow this protocol, the longest first.
    """

    name: str
    protocol: str
    value: str
    unit: str
    source: str
    model: str
    budgets: tuple[str, ...]


FIXED, DYNAMIC, GREY = "fixed binarization", "dynamic binarization", "8 bits"
PIXEL_RNN = "{cite:p}`oord2016pixel`"
IWAE = "{cite:p}`burda2016importance`"
FFJORD = "{cite:p}`grathwohl2019ffjord`"
PYTORCH_GENERATIVE = "[pytorch-generative](https://github.com/EugenHotaj/pytorch-generative)"
UVA = "[UvA notebooks](https://uvadlc-notebooks.readthedocs.io), tutorial"

MNIST = (
    Published("NADE", FIXED, "88.3", "nats", "{cite:p}`uria2016neural`", "NADE", ("gpu", "cpu")),
    Published(
        "MADE, two hidden layers, 32 orderings",
        FIXED, "86.6", "nats", "{cite:p}`germain2015made`", "MADE", ("gpu", "cpu"),
    ),
    Published("PixelCNN", FIXED, "81.3", "nats", PIXEL_RNN, "PixelCNN", ("gpu", "cpu")),
    Published("Row LSTM", FIXED, "80.5", "nats", PIXEL_RNN, "RowLSTM", ("gpu", "cpu")),
    Published(
        "Diagonal BiLSTM",
        FIXED, "79.2", "nats", PIXEL_RNN, "DiagonalBiLSTM", ("gpu", "cpu"),
    ),
    Published(
        "gated PixelCNN",
        DYNAMIC, "81.5", "nats", PYTORCH_GENERATIVE, "GatedPixelCNN", ("gpu", "cpu"),
    ),
    Published(
        "VAE, estimated with 5000 samples",
        DYNAMIC, "86.8", "nats", IWAE, "VAE", ("gpu", "cpu"),
    ),
    Published(
        "IWAE trained with k = 50",
        DYNAMIC, "84.8", "nats", IWAE, "VAE", ("gpu-iwae50", "cpu-iwae50"),
    ),
    Published(
        "PixelCNN, 256 levels",
        GREY, "0.81", "bits/dim", f"{UVA} 12", "GatedPixelCNN", ("gpu-256", "cpu-256"),
    ),
    Published(
        "RealNVP", GREY, "1.06", "bits/dim", FFJORD, "MultiScaleRealNVP", ("gpu", "cpu"),
    ),
    Published(
        "multi-scale flow, variational dequantization",
        GREY, "1.02", "bits/dim", f"{UVA} 11", "MultiScaleRealNVP",
        ("gpu-variational", "cpu-variational"),
    ),
    Published("Glow", GREY, "1.05", "bits/dim", FFJORD, "Glow", ("gpu", "cpu")),
)  # fmt: skip


def mnist_rows(records: Sequence[Record]) -> list[list[str]]:
    """Rows of the MNIST table, the header first: every published row, run or not.

    Args:
        records: of any data set; those of MNIST are used.

    Returns:
        Cells as text, in Markdown. A recipe without a record says that it has not been run.
    """
    rows = [["model", "published", "here", "run", "settings"]]
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
                    f"{published.value} {published.unit}, {published.protocol}; {published.source}",
                    f"{_metrics(best)}, {best.protocol}" if best else NOT_RUN,
                    _circumstances(best) if best else f"meant for {_means(budget)}",
                    f"{published.model} --budget {budget}{_devices(best)}",
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
                    next(iter(first.metrics)).replace("_", " "),
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
        "which number",
        "seeds",
        "parameters",
        "time",
        "settings",
    ]
    return [header, *(row for _, row in sorted(rows, key=lambda pair: pair[0]))]


def stability_rows(record: StudyRecord | None) -> list[list[str]]:
    """Rows of the table of the study of stability, the header first, by target and mean divergence.

    Args:
        record: of the study ``gan_stability``; None where there is none.

    Returns:
        Cells as text, with means over seeds and their standard errors, in nats.
    """
    rows = [["target", "method", "KL by histogram, nats", "worst seed", "run", "settings"]]
    if record is None:
        return rows
    found = [(r, torch.tensor(r["kl_histogram"], dtype=torch.float64)) for r in record.rows]
    order = list(record.noise_floor)
    for r, kl in sorted(found, key=lambda pair: (order.index(pair[0]["target"]), pair[1].mean())):
        result = estimate(kl)
        rate = f"rate {r['learning_rate']:g}{' falling to 0' if r['decay'] else ''}"
        rows.append(
            [
                f"{r['target']}, noise floor {record.noise_floor[r['target']]:.4f}",
                r["method"],
                f"{result.mean:.4f} ± {result.standard_error:.4f}",
                f"{kl.max():.4f}",
                f"{len(kl)} seeds, {r['seconds_all_targets']:.0f} s for all targets",
                f"{rate}, {r['steps']} steps",
            ]
        )
    return rows


def _metrics(r: Record) -> str:
    texts = []
    for name, m in r.metrics.items():
        digits = 2 if m.unit == "nats" else 3  # a bit/dim of MNIST is 543 nats
        value, error = f"{m.value:.{digits}f}", f"{m.standard_error:.{digits}f}"
        texts.append(f"{value} ± {error} {m.unit} ({name.replace('_', ' ')})")
    return "; ".join(texts)


def _devices(r: Record | None) -> str:
    """Another number of processes is another run."""
    processes = r.hardware["processes"] if r else 1
    return f" --devices {processes}" if processes > 1 else ""


def _circumstances(r: Record) -> str:
    cores = r.hardware["threads"] * r.hardware["processes"]
    processor = r.hardware["processor"].replace("(R)", "").removesuffix(" Processor")
    where = r.hardware["accelerator"] or f"{cores} core{'s' if cores > 1 else ''}, {processor}"
    # Other programs may have used the processor too: they cost minutes, but no processor time.
    shared = r.cpu_seconds is not None and r.hardware["accelerator"] is None
    time = f"{r.cpu_seconds / 60:.0f} CPU min" if shared else f"{r.seconds / 60:.0f} min"
    return f"{time}, {where}, seed {r.seed}"


def _means(budget: str) -> str:
    return "one CPU core" if budget.startswith("cpu") else "a GPU"
