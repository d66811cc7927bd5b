"""The tables of the book: what was run, the tighter bound, all seeds, and no number without its file."""

from dataclasses import replace
from pathlib import Path

import pytest

from course_lib.experiments import RECIPES, Metric, Record, read_records
from course_lib.experiments.tables import MNIST, digits_rows, mnist_rows, source_rows

ROOT = Path(__file__).parents[2]


def record(model, data, budget, value, seed=0, **changes):
    made = Record(
        model, data, budget, "dynamic binarization",
        {"negative_elbo": Metric(value, 0.05, "nats", 10_000)},
        parameters=1000, steps=10, best_step=5, seed=seed, seconds=600.0, settings={},
        command=f"course-lib train {model} --data {data} --budget {budget} --seed {seed}",
        hardware={"processor": "Z80", "accelerator": None, "threads": 1, "processes": 1},
        cpu_seconds=540.0,
    )  # fmt: skip
    return replace(made, **changes)


def bound(value, error=0.05, unit="nats"):
    return Metric(value, error, unit, 10_000)


def test_what_has_not_been_run_has_no_row():
    header, *rows = mnist_rows([])
    assert rows == []
    _, row = mnist_rows([record("VAE", "mnist", "cpu", 92.1)])
    assert len(row) == len(header)


def test_a_model_without_a_published_number_says_so():
    metrics = {"negative_elbo": bound(1.2, 0.002, "bits/dim")}
    _, row = mnist_rows([record("Diffusion", "mnist", "cpu", 0.0, metrics=metrics)])
    assert row[1].startswith("none found, 8 bits; ")
    assert row[2].startswith("1.200 ± 0.002 bits/dim (negative elbo)")


@pytest.mark.parametrize("values", [(92.1, 91.5), (91.5, 92.1)])
def test_all_seeds_are_averaged_and_the_better_one_is_not_chosen(values):
    runs = [record("VAE", "mnist", "cpu", v, seed) for seed, v in zip((0, 3), values, strict=True)]
    _, row = mnist_rows(runs)
    # The standard error of the two values is 0.3; the images are the same for both.
    assert row[2] == ("91.80 ± 0.05 nats, over seeds ± 0.30 (negative elbo), dynamic binarization")
    assert row[3] == "9 CPU min, 1 core, Z80, seeds 0, 3"
    assert row[4] == "VAE --budget cpu"


def test_the_tighter_bound_comes_first():
    metrics = {"negative_elbo": bound(90.58, 0.23), "iwae_500": bound(86.3, 0.22)}
    for order in (list(metrics), list(reversed(metrics))):
        run = record("VAE", "mnist", "cpu", 0.0, metrics={n: metrics[n] for n in order})
        assert run.tightest == ("iwae_500", metrics["iwae_500"])
        assert mnist_rows([run])[1][2] == (
            "86.30 ± 0.22 nats (iwae 500); 90.58 ± 0.23 nats (negative elbo), dynamic binarization"
        )


@pytest.mark.parametrize("order", [1, -1])
def test_a_value_that_is_no_number_is_not_passed_over(order):
    metrics = {"negative_elbo": bound(float("nan")), "iwae_500": bound(86.3)}
    run = record("VAE", "digits", "60s", 0.0, metrics=dict(list(metrics.items())[::order]))
    assert run.tightest[0] == "negative_elbo"
    good = record("MADE", "digits", "60s", 90.0)
    assert [row[0] for row in digits_rows([run, good])] == ["model", "MADE", "VAE"]


def test_a_run_of_several_processes_says_how_it_is_repeated():
    run = record("VAE", "mnist", "cpu", 92.1)
    run.hardware["processes"] = 2
    assert mnist_rows([run])[1][4] == "VAE --budget cpu --devices 2"


def test_bits_per_dimension_keep_the_digits_of_their_error():
    metrics = {"negative_log_likelihood": bound(1.0921, 0.0026, "bits/dim")}
    run = record("GatedPixelCNN", "mnist", "gpu-256", 0.0, metrics=metrics)
    assert mnist_rows([run])[1][2].startswith("1.092 ± 0.003 bits/dim")


def test_a_number_of_fewer_images_says_of_how_many():
    few = {"dequantization_bound": replace(bound(1.2, 0.01, "bits/dim"), n=400)}
    runs = [
        record("VelocityFlow", "mnist", "cpu", 0.0, metrics=few),
        record("VAE", "mnist", "cpu", 92.1),
    ]
    flow, vae = (next(r for r in mnist_rows(runs) if r[4].startswith(m)) for m in ("Velo", "VAE"))
    assert flow[2].startswith("1.200 ± 0.010 bits/dim on 400 images (dequantization bound)")
    assert " on " not in vae[2]


def test_time_is_that_of_the_processor_and_says_where_it_was_not_recorded():
    def run(**changes):
        return record("VAE", "mnist", "cpu", 92.1, **changes)

    def circumstances(*runs):
        return mnist_rows(runs)[1][3]

    assert circumstances(run()).startswith("9 CPU min, ")
    assert circumstances(run(), run(seed=1, cpu_seconds=660.0)).startswith("10 CPU min, ")
    # One without would make the mean that of the others.
    clock = "10 min by the clock, CPU time not recorded, "
    assert circumstances(run(), run(seed=1, cpu_seconds=None)).startswith(clock)
    on_gpu = {"processor": "Z80", "accelerator": "GPU", "threads": 1, "processes": 1}
    assert circumstances(run(hardware=on_gpu)) == "10 min by the clock, GPU, seed 0"
    digits = record("MADE", "digits", "60s", 2.0, cpu_seconds=9.6)
    assert digits_rows([digits])[1][6] == "10 CPU s"


def test_every_row_can_be_run():
    for published in MNIST:
        for budget in published.budgets:
            assert ("mnist", published.model, budget) in RECIPES


def test_the_leaderboard_ranks_by_the_tighter_bound_and_averages_over_seeds():
    def flow(looser, tighter):
        return {"dequantization_bound": bound(looser), "importance_100": bound(tighter, 0.04)}

    _, *rows = digits_rows(
        [
            record("MADE", "digits", "60s", 2.0),
            record("MADE", "digits", "60s", 2.2, seed=1),
            record("NADE", "digits", "60s", 2.3),
            record("RealNVP", "digits", "60s", 0.0, metrics=flow(2.4, 2.05)),
        ]
    )
    assert [row[0] for row in rows] == ["RealNVP", "MADE", "NADE"]
    assert rows[0][1:5] == ["2.0500", "0.040", "importance 100", "1"]
    assert rows[1][1:5] == ["2.1000 ± 0.1000", "0.050", "negative elbo", "2"]


def test_a_number_by_a_solver_stands_with_the_solvers_error():
    def solved(value, error):
        names = ("bound_plus_solver_error", "dequantization_bound")
        return {n: bound(v) for n, v in zip(names, (value + error, value), strict=True)}

    runs = [
        record("VelocityFlow", "digits", "60s", 0.0, seed, metrics=solved(value, error))
        for seed, (value, error) in enumerate([(1.7, 0.004), (1.8, 0.006)])
    ]
    _, row = digits_rows(runs)
    assert row[1] == "1.7500 ± 0.0500"
    assert row[3] == "dequantization bound by an ODE, solver's error 0.0050"
    metrics = {n: replace(m, unit="bits/dim") for n, m in solved(1.2, 0.003).items()}
    _, row = mnist_rows([record("VelocityFlow", "mnist", "cpu", 0.0, metrics=metrics)])
    assert row[1].startswith("0.99 bits/dim, 8 bits; ")
    assert "(dequantization bound); 1.203 ± 0.050 bits/dim (bound plus solver error)" in row[2]


def test_every_record_of_the_repository_is_in_a_table():
    records = read_records(ROOT / "results")
    text = str([*mnist_rows(records), *digits_rows(records), *source_rows(records, None, None)])
    for r in records:
        assert (
            f"{r.model} --budget {r.budget}'" in text or f"{r.model} --budget {r.budget} " in text
        )
