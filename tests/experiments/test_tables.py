"""The tables of the book: every published row, and no number without its file."""

from pathlib import Path

from course_lib.experiments import RECIPES, Metric, Record, read_records
from course_lib.experiments.tables import MNIST, NOT_RUN, digits_rows, mnist_rows

ROOT = Path(__file__).parents[2]


def record(model, data, budget, value, seed=0):
    return Record(
        model, data, budget, "dynamic binarization",
        {"negative_elbo": Metric(value, 0.05, "nats", 10_000)},
        parameters=1000, steps=10, best_step=5, seed=seed, seconds=600.0, settings={},
        command=f"course-lib train {model} --data {data} --budget {budget} --seed {seed}",
    )  # fmt: skip


def test_a_row_without_a_record_says_so():
    header, *rows = mnist_rows([])
    assert len(rows) == sum(len(p.budgets) for p in MNIST)
    assert all(row[2] == NOT_RUN and row[3].startswith("meant for") for row in rows)
    assert all(len(row) == len(header) for row in rows)


def test_a_row_with_records_shows_the_best_with_its_error_and_command():
    rows = mnist_rows(
        [record("VAE", "mnist", "cpu", 92.1), record("VAE", "mnist", "cpu", 91.5, seed=3)]
    )
    (row,) = [row for row in rows if row[2] not in ("here", NOT_RUN)]
    assert row[2] == "91.50 ± 0.05 nats (negative elbo), dynamic binarization"
    assert "10 min" in row[3]
    assert "seed 3" in row[3]
    assert row[4] == "VAE --budget cpu"


def test_a_run_of_several_processes_says_how_it_is_repeated():
    run = record("VAE", "mnist", "cpu", 92.1)
    run.hardware["processes"] = 2
    settings = [row[4] for row in mnist_rows([run]) if row[2] != NOT_RUN]
    assert settings[1:] == ["VAE --budget cpu --devices 2"]


def test_bits_per_dimension_keep_the_digits_of_their_error():
    run = record("GatedPixelCNN", "mnist", "gpu-256", 0.0)
    run.metrics["negative_log_likelihood"] = Metric(1.0921, 0.0026, "bits/dim", 10_000)
    del run.metrics["negative_elbo"]
    assert any(row[2].startswith("1.092 ± 0.003 bits/dim") for row in mnist_rows([run]))


def test_every_row_can_be_run():
    for published in MNIST:
        for budget in published.budgets:
            assert ("mnist", published.model, budget) in RECIPES


def test_the_leaderboard_is_sorted_and_averages_over_seeds():
    _, *rows = digits_rows(
        [
            record("MADE", "digits", "60s", 2.0),
            record("MADE", "digits", "60s", 2.2, seed=1),
            record("NADE", "digits", "60s", 1.9),
        ]
    )
    assert [row[0] for row in rows] == ["NADE", "MADE"]
    assert rows[1][1] == "2.100 (2.000 to 2.200)"
    assert rows[1][2] == "negative elbo"
    assert rows[1][3] == "2"


def test_every_record_of_the_repository_is_in_a_table():
    records = read_records(ROOT / "results")
    text = str(mnist_rows(records)) + str(digits_rows(records))
    for r in records:
        assert f"{r.model} --budget {r.budget}" in text
