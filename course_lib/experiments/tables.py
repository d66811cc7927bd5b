"""The tables of the book: published numbers, and beside them those of the records."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from course_lib.evaluation import estimate
from course_lib.experiments.records import Record, StudyRecord


@dataclass(frozen=True)
class Published:
    """One row of the MNIST table: what was published, and which recipes answer it.

    Attributes:
        name: of the model there.
        protocol: what was done to the data there.
        value: the published number; lower is better. None where none is known.
        unit: ``"nats"`` or ``"bits/dim"``.
        source: who published it: a citation or a link, in the Markdown of the book. Without a number, what
            the sources of the model report instead.
        model: the course's model.
        budgets: its recipes that follow this protocol, the longest first.
    """

    name: str
    protocol: str
    value: str | None
    unit: str
    source: str
    model: str
    budgets: tuple[str, ...]


# What a solver's error makes of the bound beside it: no other bound, but how far that one can be trusted.
WITH_SOLVER_ERROR = "bound_plus_solver_error"
FIXED, DYNAMIC, GREY = "fixed binarization", "dynamic binarization", "8 bits"
PIXEL_RNN = "{cite:p}`oord2016pixel`"
IWAE = "{cite:p}`burda2016importance`"
VDM = "{cite:t}`kingma2021variational`"
FFJORD = "{cite:p}`grathwohl2019ffjord`"
PYTORCH_GENERATIVE = "[pytorch-generative](https://github.com/EugenHotaj/pytorch-generative)"
UVA = "[UvA notebooks](https://uvadlc-notebooks.readthedocs.io), tutorial"

MNIST = (
    Published("NADE", FIXED, "88.3", "nats", "{cite:p}`uria2016neural`", "NADE", ("gpu", "cpu")),
    Published(
        "MADE, two hidden layers, 32 masks",
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
        "IWAE trained with k = 50, one stochastic layer",
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
        "multi-scale flow, variational dequantization, 8 draws",
        GREY, "1.02", "bits/dim", f"{UVA} 11", "MultiScaleRealNVP",
        ("gpu-variational", "cpu-variational"),
    ),
    Published("Glow", GREY, "1.05", "bits/dim", FFJORD, "Glow", ("gpu", "cpu")),
    Published(
        "diffusion, bound",
        GREY, None, "bits/dim", f"{VDM} report colour images", "Diffusion", ("gpu", "cpu"),
    ),
    Published(
        "flow in continuous time, trained by likelihood; here by flow matching",
        GREY, "0.99", "bits/dim", FFJORD, "VelocityFlow", ("gpu", "cpu"),
    ),
)  # fmt: skip


TEST_IMAGES = {"mnist": 10_000, "digits": 360}  # of the split on which a run is measured


def mnist_rows(records: Sequence[Record]) -> list[list[str]]:
    """Rows of the MNIST table, the header first: every published row whose recipe has been run.

    Args:
        records: of any data set; those of MNIST are used.

    Returns:
        Cells as text, in Markdown, with the tightest bound first. Several seeds of a recipe are averaged,
        whatever they scored. A recipe without a record has no row.
    """
    rows = [["model", "published", "here", "run", "settings"]]
    groups = _by_recipe(records, "mnist")
    for published in MNIST:
        for budget in published.budgets:
            runs = groups.get((published.model, budget))
            if runs is None:
                continue
            rows.append(
                [
                    published.name,
                    _published(published),
                    f"{_metrics(runs)}, {runs[0].protocol}",
                    _circumstances(runs),
                    f"{published.model} --budget {budget}{_devices(runs)}",
                ]
            )
    return rows


def _published(row: Published) -> str:
    if row.value is None:
        return f"none found, {row.protocol}; {row.source}"
    return f"{row.value} {row.unit}, {row.protocol}; {row.source}"


def digits_rows(records: Sequence[Record]) -> list[list[str]]:
    """Rows of the digits' leaderboard, the header first, ranked by the tightest bound.

    Args:
        records: of any data set; those of the digits are used.

    Returns:
        Cells as text. They hold the mean over seeds of the tightest bound, with its standard error over
        seeds and that over the test images.
    """
    rows = []
    for (model, budget), runs in _by_recipe(records, "digits").items():
        name, _ = runs[0].tightest
        value = _average(runs, name)
        row = [
            model,
            _with_error(value.mean, value.over_seeds, 4),
            f"{value.over_images:.3f}",
            _which_number(runs, name),
            str(len(runs)),
            f"{runs[0].parameters:,}",
            _time(runs),
            f"{model} --budget {budget}",
        ]
        rows.append((value.mean, row))
    header = [
        "model",
        "test bits/dim ± over seeds",
        "± over images",
        "which number",
        "seeds",
        "parameters",
        "time",
        "settings",
    ]
    # A mean that is no number is neither better nor worse than another: it stands last.
    return [header, *(row for _, row in sorted(rows, key=lambda r: (math.isnan(r[0]), r[0])))]


def stability_rows(record: StudyRecord | None) -> list[list[str]]:
    """Rows of the table of the study of stability, the header first, by target and mean divergence.

    Args:
        record: of the study ``gan_stability``; None where there is none.

    Returns:
        Cells as text, in Markdown, with means over seeds and their standard errors, in nats.
    """
    rows = [
        [
            "target",
            "method",
            "settings of",
            "KL by histogram, nats",
            "worst seed",
            "KL by kernel, nats",
            "training, both targets",
            "settings",
        ]
    ]
    if record is None:
        return rows
    found = [(r, torch.tensor(r["kl_histogram"], dtype=torch.float64)) for r in record.rows]
    order = list(record.noise_floor)
    for r, kl in sorted(found, key=lambda pair: (order.index(pair[0]["target"]), pair[1].mean())):
        by_kernel = estimate(torch.tensor(r["kl_kernel"], dtype=torch.float64))
        result = estimate(kl)
        floor, most = (scores[r["target"]] for scores in (record.noise_floor, record.saturation))
        rows.append(
            [
                f"{r['target']}: floor {floor['histogram']:.4f} by histogram, "
                f"{floor['kernel']:.4f} by kernel; "
                f"saturation {most['histogram']:.2f}, {most['kernel']:.2f}",
                r["method"],
                r["by"] if r["by"] == "ours" else f"{{cite:t}}`{r['by']}`",
                f"{result.mean:.4f} ± {result.standard_error:.4f}",
                f"{kl.max():.4f}",
                f"{by_kernel.mean:.4f} ± {by_kernel.standard_error:.4f}",
                f"{r['cpu_seconds_all_targets']:.0f} CPU s",
                f"{study_settings(r)}, {len(kl)} seeds",
            ]
        )
    return rows


def study_settings(row: dict) -> str:
    """How a method of the study of stability was trained, in one line; k is the discriminator's updates."""
    betas = ", ".join(f"{beta:g}" for beta in row["betas"])
    average = "last weights" if row["average"] is None else f"average {row['average']:g}"
    return (
        f"k = {row['updates']}, rate {row['learning_rate']:g}{' falling to 0' if row['decay'] else ''}, "
        f"β = ({betas}), {average}, {row['steps']} steps"
    )


def sampler_rows(record: StudyRecord | None) -> list[list[str]]:
    """Rows of the table of the study of samplers, the header first, by sampler and evaluations.

    Args:
        record: of the study ``diffusion_samplers`` or ``flow_samples``; None where there is none.

    Returns:
        Cells as text, with means over draws and their spread.
    """
    rows = [
        [
            "images",
            "sampler",
            "evaluations",
            "Fréchet distance",
            "precision",
            "coverage",
            "to the nearest training image",
            "settings",
        ]
    ]
    if record is None:
        return rows
    for r in record.rows:
        real, noise = (scores[r["target"]] for scores in (record.noise_floor, record.saturation))
        cells = []
        for name in ("frechet", "precision", "coverage", "nearest"):
            values = torch.tensor(r[name], dtype=torch.float64)
            cells.append(f"{values.mean():.2f} ± {values.std():.2f}")
        options = r["options"] if "options" in r else {"method": r["solver"]}
        options = ", ".join(f"{name}={value!r}" for name, value in options.items())
        rows.append(
            [
                f"{r['target']}: training images have the distance "
                f"{real['frechet']:.2f} ± {real['frechet_spread']:.2f} and the coverage "
                f"{real['coverage']:.2f} ± {real['coverage_spread']:.2f}, noise "
                f"{noise['frechet']:.2f} and {noise['coverage']:.2f}; a test image is "
                f"{real['nearest']:.2f} from the nearest training image",
                r["method"],
                str(r["evaluations"]),
                *cells,
                f"steps={r['steps']}, {options}",
            ]
        )
    return rows


def source_rows(
    records: Sequence[Record], game: StudyRecord | None, stability: StudyRecord | None
) -> list[list[str]]:
    """Rows of the table of the sources' experiments, the header first: what was expected, what was found.

    Args:
        records: of any recipes; those of the budgets ``source`` and ``source-2d`` are used.
        game: of the study ``gan_source``; None where there is none.
        stability: of the study ``gan_stability``; None where there is none.

    Returns:
        Cells as text, in Markdown. What has not been run has no row.
    """
    rows = [["experiment", "expected", "found here", "run", "settings"]]
    groups = _by_recipe(records, "mnist")
    for budget, dimensions, expected in (
        ("source", 20, "noise turns into digits; training and validation bound stay close"),
        ("source-2d", 2, "one plane of digits that change gradually"),
    ):
        runs = groups.get(("VAE", budget))
        if runs is not None:
            (_, train), (_, validation) = (
                runs[0].curves[split][-1] for split in ("train", "validation")
            )
            rows.append(
                [
                    f"VAE 784–500–{dimensions}",
                    expected,
                    f"−ELBO at the end {train:.2f} nats on training, {validation:.2f} on validation images; "
                    f"on test images {_metrics(runs)}",
                    _circumstances(runs),
                    f"VAE --budget {budget}",
                ]
            )
    for row in () if game is None else game.rows:
        equilibrium = row["real_label"] / 2
        real, fake = (
            row["curves"][f"discriminator/{images}"][-1][1] for images in ("real", "fake")
        )
        rows.append(
            [
                f"GAN, {row['method']}",
                f"at the equilibrium D = {equilibrium:.2f} on all images {{eq}}`eq-label-smoothing`",
                f"at the end D = {real:.3f} on real and {fake:.3f} on generated images; {_judged(row)}",
                _circumstances([game]),
                f"study {game.name}",
            ]
        )
    if stability is None:
        return rows
    for target in stability.noise_floor:
        found = {
            (r["method"], study_settings(r)): estimate(
                torch.tensor(r["kl_histogram"], dtype=torch.float64)
            )
            for r in stability.rows
            if r["target"] == target
        }
        ranked = sorted(found, key=lambda name: found[name].mean)
        penalized = next(name for name in ranked if name[0].startswith("GAN-DP"))
        slow = [
            name for name in ranked if name[0].startswith("WGAN-GP") and "rate 1e-05" in name[1]
        ]
        texts = [f"{name[0]}, {found[name]}" for name in (ranked[0], penalized)]
        rows.append(
            [
                f"on the line, {target}: the gradient penalty on data",
                "the lowest divergence of all",
                f"lowest: {texts[0]} nats; best with the penalty: {texts[1]} nats",
                _circumstances([stability]),
                f"study {stability.name}",
            ]
        )
        if target == "Gaussian":
            rows.append(
                [
                    "on the line, Gaussian: WGAN-GP at the rate 1e-5",
                    "near 0.024 nats",
                    "; ".join(
                        f"{method}, {how.split(',')[0]}: {found[method, how]} nats"
                        for method, how in slow
                    ),
                    _circumstances([stability]),
                    f"study {stability.name}",
                ]
            )
    return rows


def provenance(record: Record | StudyRecord) -> str:
    """Where a picture comes from, in one sentence of Markdown: numbers, settings, time, hardware, commit."""
    if isinstance(record, Record):
        data = {"mnist": "MNIST", "digits": "the digits"}[record.data]
        found = f"{record.model} on {data}: {_metrics([record])}"
    else:
        real = record.noise_floor[record.rows[0]["target"]]
        judged = "; ".join(f"GAN {row['method']}: {_judged(row)}" for row in record.rows)
        found = (
            f"{judged}; as many training images: Fréchet distance {real['frechet']:.2f}, "
            f"coverage {real['coverage']:.2f}"
        )
    commit = "" if record.commit is None else f", commit `{record.commit[:7]}`"
    return f"{found}. `{record.command}`: {_circumstances([record])}{commit}."


def _judged(row: dict) -> str:
    """What a classifier's features say of the images of a row: mean and spread over draws."""
    texts = []
    for name, words in (("frechet", "Fréchet distance"), ("coverage", "coverage")):
        values = torch.tensor(row[name], dtype=torch.float64)
        texts.append(f"{words} {values.mean():.2f} ± {values.std():.2f}")
    return ", ".join(texts)


@dataclass(frozen=True)
class _Average:
    """A metric of several seeds: the mean, and how sure it is with respect to either source of chance.

    The standard error over images is that of one run: all seeds are measured on the same images, so
    that averaging over them does not make it smaller.
    """

    mean: float
    over_seeds: float | None
    over_images: float
    unit: str


def _average(runs: Sequence[Record], name: str) -> _Average:
    metrics = [r.metrics[name] for r in runs]
    values = torch.tensor([m.value for m in metrics], dtype=torch.float64)
    return _Average(
        mean=values.mean().item(),
        over_seeds=estimate(values).standard_error if len(runs) > 1 else None,
        over_images=sum(m.standard_error for m in metrics) / len(metrics),
        unit=metrics[0].unit,
    )


def _by_recipe(records: Sequence[Record], data: str) -> dict[tuple[str, str], list[Record]]:
    """All records of a data set by model and budget: the seeds of one recipe together."""
    groups: dict[tuple[str, str], list[Record]] = {}
    for r in records:
        if r.data == data:
            groups.setdefault((r.model, r.budget), []).append(r)
    return groups


def _metrics(runs: Sequence[Record]) -> str:
    """All numbers of a recipe, the tightest bound first; of how many images, if not of the whole split."""
    texts = []
    first, _ = runs[0].tightest
    for name in sorted(runs[0].metrics, key=lambda name: name != first):
        value = _average(runs, name)
        digits = 2 if value.unit == "nats" else 3  # a bit/dim of MNIST is 543 nats
        text = f"{_with_error(value.mean, value.over_images, digits)} {value.unit}"
        n = runs[0].metrics[name].n
        if n < TEST_IMAGES[runs[0].data]:
            text += f" on {n} images"
        if value.over_seeds is not None:
            text += f", over seeds ± {value.over_seeds:.{digits}f}"
        texts.append(f"{text} ({name.replace('_', ' ')})")
    return "; ".join(texts)


def _which_number(runs: Sequence[Record], name: str) -> str:
    """What a metric is, with the error of the solver that computed it, if there is one."""
    text = name.replace("_", " ")
    if WITH_SOLVER_ERROR not in runs[0].metrics:
        return text
    error = _average(runs, WITH_SOLVER_ERROR).mean - _average(runs, name).mean
    return f"{text} by an ODE, solver's error {error:.4f}"


def _with_error(value: float, error: float | None, digits: int) -> str:
    return f"{value:.{digits}f}" + ("" if error is None else f" ± {error:.{digits}f}")


def _devices(runs: Sequence[Record]) -> str:
    """Another number of processes is another run."""
    processes = runs[0].hardware["processes"]
    return f" --devices {processes}" if processes > 1 else ""


def _circumstances(runs: Sequence[Record | StudyRecord]) -> str:
    r = runs[0]
    cores = r.hardware["threads"] * r.hardware["processes"]
    processor = r.hardware["processor"].replace("(R)", "").removesuffix(" Processor")
    where = r.hardware["accelerator"] or f"{cores} core{'s' if cores > 1 else ''}, {processor}"
    seeds = f"seed{'s' if len(runs) > 1 else ''} {', '.join(str(r.seed) for r in runs)}"
    return f"{_time(runs)}, {where}, {seeds}"


def _time(runs: Sequence[Record | StudyRecord]) -> str:
    """Time of training, on average over seeds: of the processor, or else what stands in its place.

    Other programs may have used the processor too: they cost minutes, but no processor time. On an
    accelerator the processor's time says nothing.
    """
    on_cpu = all(r.hardware["accelerator"] is None for r in runs)
    if on_cpu and all(r.cpu_seconds is not None for r in runs):
        return _duration(sum(r.cpu_seconds for r in runs) / len(runs), "CPU ")
    clock = _duration(sum(r.seconds for r in runs) / len(runs), "")
    return f"{clock} by the clock" + (", CPU time not recorded" if on_cpu else "")


def _duration(seconds: float, kind: str) -> str:
    return f"{seconds / 60:.0f} {kind}min" if seconds >= 300 else f"{seconds:.0f} {kind}s"
