"""The study of the source's GAN: its networks as the source has them, its pictures, and its resuming."""

import hashlib
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import nn

from course_lib.classifier import train_classifier
from course_lib.data import digits
from course_lib.experiments import diffusion_samplers, gan_source, read_study, write_study
from course_lib.experiments.diffusion_samplers import MEASURES
from course_lib.experiments.pictures import picture_path

PLAIN, PENALTY = gan_source.METHODS


@pytest.fixture
def small(monkeypatch):
    """The study with small networks, on the digits."""
    methods = tuple(
        replace(m, generator=(16, 24), discriminator=(16,), latent_dim=6, evaluations=4)
        for m in gan_source.METHODS
    )
    monkeypatch.setattr(gan_source, "METHODS", methods)
    monkeypatch.setattr(gan_source, "DATA", "digits")
    monkeypatch.setattr(gan_source, "REAL_DRAWS", 2)
    monkeypatch.setattr(diffusion_samplers, "train_classifier", partial(train_classifier, steps=20))
    return methods


def test_both_games_are_those_of_the_source_but_for_the_penalty():
    assert replace(PENALTY, method=PLAIN.method, key=PLAIN.key, gamma=None) == PLAIN
    for method in gan_source.METHODS:
        model = method.build(replace(digits(), train=torch.zeros(1, 1, 28, 28)))
        affine = [m for m in model.discriminator.modules() if isinstance(m, nn.Linear)]
        assert [m.in_features for m in affine] == [784, 512, 256]
        assert affine[-1].out_features == 1
        affine = [m for m in model.generator.modules() if isinstance(m, nn.Linear)]
        assert [m.in_features for m in affine] == [100, 128, 256, 512, 1024]
        assert affine[-1].out_features == 784
        normalized = [m for m in model.modules() if isinstance(m, nn.BatchNorm1d)]
        assert [m.num_features for m in normalized] == [256, 512, 1024]
        slopes = [m.negative_slope for m in model.modules() if isinstance(m, nn.LeakyReLU)]
        assert slopes == [0.2] * 6
    assert (PLAIN.learning_rate, PLAIN.batch_size, PLAIN.real_label) == (2e-4, 64, 0.9)


def test_a_sample_does_not_depend_on_the_rest_of_its_batch():
    """Samples are drawn with the running averages of batch normalization, which sampling leaves alone."""
    torch.manual_seed(0)
    model = PLAIN.build(digits()).train()
    model(torch.randn(50, PLAIN.latent_dim))  # in training the averages move
    before = {name: value.clone() for name, value in model.state_dict().items()}
    assert any(v.abs().max() > 0 for k, v in before.items() if k.endswith("running_mean"))
    samples = model.sample(8, generator=torch.Generator().manual_seed(3))
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert model.training
    z = torch.randn(8, PLAIN.latent_dim, generator=torch.Generator().manual_seed(3))
    model.eval()
    torch.testing.assert_close(model(z[:1]), samples[:1])
    assert samples.abs().max() <= 1
    assert PLAIN.intensities(samples, digits()).min() >= 0


def test_the_study_trains_measures_and_draws(small, tmp_path):
    found = gan_source.run(n_seeds=2, steps=8, pictures=tmp_path, progress=False)
    assert found.command == "course-lib study gan_source --seeds 2 --steps 8"
    assert [row["method"] for row in found.rows] == [m.method for m in small]
    expected = {"samples", "samples-0", "samples-50", "nearest", "interpolations"}
    assert set(found.pictures) == {f"{m.key}-{name}" for m in small for name in expected}
    for name, digest in found.pictures.items():
        content = picture_path(tmp_path, found.name, name).read_bytes()
        assert hashlib.sha256(content).hexdigest() == digest
        assert len(content) <= 40_000
    for row in found.rows:
        assert all(len(row[name]) == 2 for name in MEASURES)
        assert row["frechet"][0] != row["frechet"][1]
        assert set(row["curves"]) == set(gan_source.TERMS)
        for curve in row["curves"].values():
            assert [step for step, _ in curve] == [2, 4, 6, 8]
    plain, penalty = found.rows
    assert plain["pictures"]["plain-samples-0"] == penalty["pictures"]["penalty-samples-0"]
    assert plain["pictures"]["plain-samples"] != penalty["pictures"]["penalty-samples"]
    assert plain["curves"] != penalty["curves"]  # the penalty counts
    assert found.noise_floor["digits"]["frechet"] < found.saturation["digits"]["frechet"]
    write_study(found, tmp_path)


def test_a_study_that_was_stopped_resumes_within_a_game(small, tmp_path, monkeypatch):
    whole = gan_source.run(n_seeds=1, steps=8, pictures=tmp_path / "whole", progress=False)
    stages = gan_source.Stages.__call__

    def stop_at_six(self, step, model):
        if step == 6 and self.recipe.key == "penalty":
            raise KeyboardInterrupt
        stages(self, step, model)

    arguments = {"n_seeds": 1, "steps": 8, "progress": False, "checkpoints": tmp_path}
    monkeypatch.setattr(gan_source.Stages, "__call__", stop_at_six)
    with pytest.raises(KeyboardInterrupt):
        gan_source.run(pictures=tmp_path / "parts", **arguments)
    monkeypatch.setattr(gan_source.Stages, "__call__", stages)
    begun = []
    train = gan_source.train

    def counted(method, data, *, checkpoint, **options):
        begun.append((method.key, checkpoint.exists()))
        return train(method, data, checkpoint=checkpoint, **options)

    monkeypatch.setattr(gan_source, "train", counted)
    found = gan_source.run(pictures=tmp_path / "parts", **arguments)
    assert begun == [("penalty", True)]  # the first was done, the second goes on
    assert found.pictures == whole.pictures
    for row, expected in zip(found.rows, whole.rows, strict=True):
        for name in (*MEASURES, "curves"):
            assert row[name] == expected[name]
    assert found.cpu_seconds is None  # it was not measured in one go
    assert {path.name for path in tmp_path.iterdir()} == {"whole", "parts"}


def test_what_the_book_says_of_the_game_is_what_the_record_holds():
    found = read_study(Path(__file__).parents[2] / "results", gan_source.NAME)
    if found is None:
        pytest.skip("it has not been run yet, and no page shows it")
    plain, penalty = found.rows
    assert max(penalty["frechet"]) < min(plain["frechet"])
    assert min(penalty["coverage"]) > max(plain["coverage"])
    for images in ("real", "fake"):
        ends = [row["curves"][f"discriminator/{images}"][-1][1] for row in (plain, penalty)]
        assert abs(ends[1] - 0.45) < 0.03
        assert abs(ends[0] - 0.45) > 0.1
