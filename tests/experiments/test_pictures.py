"""Pictures of recorded runs: that they show what they should, and stay with their record."""

import hashlib
import io
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from course_lib.data import digits, intensities
from course_lib.experiments import STUDIES, read_records, read_study, run, write_record
from course_lib.experiments.pictures import Stages, draw, picture_path, sheet
from course_lib.experiments.recipes import RECIPES
from course_lib.experiments.running import build, images_of
from course_lib.families import FAMILIES
from course_lib.vae.family import VAERecipe

RESULTS = Path(__file__).parents[2] / "results"
LIKELIHOODS = [name for name, family in FAMILIES.items() if family.recipe is not None]


def pixels(png):
    """The grey levels of a PNG."""
    return np.asarray(Image.open(io.BytesIO(png)))


def a_recipe(family):
    """The first recipe of a family for the digits, or one for them, and its model's name."""
    for (data, model, _), recipe in RECIPES.items():
        if recipe.family == family and data == "digits":
            return model, recipe
    arguments = {"latent_dim": 2, "hidden": (20,)}
    return "VAE", VAERecipe(20, 32, 1e-3, arguments, binary=True)


def test_a_sheet_holds_each_image_in_its_place():
    images = torch.rand(3, 4, 1, 5, 6, generator=torch.Generator().manual_seed(0))
    found = pixels(sheet(images))
    assert found.shape == (3 * 6 + 1, 4 * 7 + 1)
    for row in range(3):
        for column in range(4):
            inside = found[row * 6 + 1 : row * 6 + 6, column * 7 + 1 : column * 7 + 7]
            error = torch.from_numpy(inside.copy()) / 255 - images[row, column, 0]
            assert error.abs().max() < 0.5 / 63 + 0.5 / 255 + 1e-6
    lines = [found[::6].ravel(), found[:, ::7].ravel()]
    assert len(np.unique(np.concatenate(lines))) == 1


@pytest.mark.parametrize("family", LIKELIHOODS)
def test_every_family_with_a_recipe_can_be_drawn(family):
    """Samples and their nearest training images, from a fixed seed, with the same pixels in both sheets."""
    data = digits()
    name, recipe = a_recipe(family)
    torch.manual_seed(0)
    model = build(name, data, recipe).eval()
    test = images_of(data.test, data, recipe)
    drawn = draw(model, data, recipe, test)
    torch.rand(1)  # the global generator plays no part
    assert draw(model, data, recipe, test) == drawn
    samples, nearest = pixels(drawn["samples"]), pixels(drawn["nearest"])
    assert samples.shape == (4 * 9 + 1, 10 * 9 + 1)
    assert nearest.shape == (2 * 9 + 1, 10 * 9 + 1)
    np.testing.assert_array_equal(nearest[:9], samples[:9])
    # Below each sample stands a training image, and no other is nearer.
    train = intensities(data.train, data.levels)
    first = torch.from_numpy(samples[1:9].copy()).float() / 255
    for column in range(10):
        cut = slice(column * 9 + 1, column * 9 + 9)
        below = torch.from_numpy(nearest[10:18, cut].copy()).float() / 255
        assert (train[:, 0] - below).abs().amax((1, 2)).min() < 0.01
        distances = (train[:, 0] - first[:, cut]).square().sum((1, 2)).sqrt()
        assert (first[:, cut] - below).square().sum().sqrt() <= distances.min() + 0.05


def test_completions_keep_the_upper_half():
    data = digits()
    name, recipe = a_recipe("autoregressive")
    torch.manual_seed(0)
    model = build(name, data, recipe).eval()
    found = pixels(draw(model, data, recipe, data.test)["completions"])
    given = pixels(sheet(intensities(data.test[:10], data.levels)[None]))
    np.testing.assert_array_equal(found[:9], given[:9])
    for row in (1, 2, 3):
        np.testing.assert_array_equal(found[row * 9 + 1 : row * 9 + 5], given[1:5])
        assert (found[row * 9 + 5 : row * 9 + 9] != given[5:9]).any()


def test_interpolations_begin_and_end_at_images():
    data = digits()
    name, recipe = a_recipe("flow")
    torch.manual_seed(0)
    model = build(name, data, recipe).eval()
    found = pixels(draw(model, data, recipe, data.test)["interpolations"])
    given = pixels(sheet(intensities(data.test[:8], data.levels).unflatten(0, (2, 4)).mT.mT))
    for row in range(4):
        rows = slice(row * 9 + 1, row * 9 + 9)
        np.testing.assert_array_equal(found[rows, 1:9], given[1:9, row * 9 + 1 : row * 9 + 9])
        np.testing.assert_array_equal(found[rows, 82:90], given[10:18, row * 9 + 1 : row * 9 + 9])


def test_the_plane_of_two_latents_is_the_decoders():
    data = digits()
    name, recipe = a_recipe("vae")
    torch.manual_seed(0)
    model = build(name, data, recipe).eval()
    drawn = draw(model, data, recipe, images_of(data.test, data, recipe))
    plane = pixels(drawn["manifold"])
    assert plane.shape == (91, 91)
    corner = model.decode(torch.tensor([[-1.6449, 1.6449]])).mean[0, 0]  # quantiles 0.05 and 0.95
    found = torch.from_numpy(plane[1:9, 1:9].copy()) / 255
    assert (found - corner).abs().max() < 0.02


@pytest.fixture
def short(monkeypatch):
    """A recipe of some steps, with stages."""
    arguments = {"latent_dim": 2, "hidden": (20,), "decoder_activation": "tanh"}
    recipe = VAERecipe(
        40, 32, 1e-2, arguments, binary=True, evaluations=4, stages=(0.0, 0.5), ema=0.9
    )
    monkeypatch.setitem(RECIPES, ("digits", "VAE", "short"), recipe)
    monkeypatch.setattr("course_lib.vae.family.IWAE_SAMPLES", 2)
    return recipe


def test_a_run_leaves_its_pictures_and_their_digests(short, tmp_path):
    found = run("VAE", "digits", budget="short", pictures=tmp_path, progress=False)
    assert set(found.pictures) == {
        "samples", "samples-0", "samples-50", "nearest", "reconstructions", "manifold",
    }  # fmt: skip
    contents = {}
    for name, digest in found.pictures.items():
        contents[name] = picture_path(tmp_path, found.name, name).read_bytes()
        assert hashlib.sha256(contents[name]).hexdigest() == digest
    stages = [contents[name] for name in ("samples-0", "samples-50", "samples")]
    assert len(set(stages)) == 3  # training changes what is drawn from the same noise
    # The loss was looked at four times, and falls.
    for curve in found.curves.values():
        assert [step for step, _ in curve] == [10, 20, 30, 40]
        assert curve[-1][1] < curve[0][1]
    path = write_record(found, tmp_path)
    assert json.loads(path.read_text())["pictures"] == found.pictures
    assert [record.pictures for record in read_records(tmp_path)] == [found.pictures]


def test_a_run_that_was_resumed_has_the_stages_from_before(short, tmp_path):
    data, checkpoint = digits(), tmp_path / "run.pt"
    torch.manual_seed(0)
    model = build("VAE", data, short).eval()
    before = Stages(data, short, checkpoint)
    before(0, model)
    before(10, model)  # no stage begins there
    after = Stages(data, short, checkpoint)
    after(20, model)
    assert set(before.drawn) == {"samples-0"}
    assert set(after.drawn) == {"samples-50"}
    assert after.pictures() == before.drawn | after.drawn
    assert set(after.pictures()) == {"samples-0", "samples-50"}


def test_every_stage_falls_on_an_evaluation():
    for recipe in RECIPES.values():
        steps = Stages(digits(), recipe, None)._steps()
        assert len(steps) == len(recipe.stages)
        assert all(step % recipe.evaluate_every == 0 for step in steps.values())
        for share, step in zip(recipe.stages, steps.values(), strict=True):
            assert abs(step - share * recipe.steps) < recipe.evaluate_every


def test_a_trial_leaves_no_picture(short, tmp_path):
    assert run("VAE", "digits", budget="short", steps=5, progress=False).pictures == {}
    assert not list(tmp_path.iterdir())


def test_records_and_pictures_of_the_repository_belong_together():
    """Each picture is the one of its record's run, each record has all of them, and none is large."""
    expected = set()
    studies = [found for name in STUDIES if (found := read_study(RESULTS, name)) is not None]
    for record in (*read_records(RESULTS), *studies):
        for name, digest in record.pictures.items():
            path = picture_path(RESULTS, record.name, name)
            expected.add(path)
            content = path.read_bytes()
            assert hashlib.sha256(content).hexdigest() == digest, path
            assert len(content) <= 40_000, path
    assert set(RESULTS.glob("*.png")) == expected


def test_what_is_not_text_stays_small():
    """Pictures, and the decoder of the pages, add at most three megabytes to the repository."""
    assert sum(path.stat().st_size for path in RESULTS.iterdir() if path.suffix != ".json") < 3e6


def test_binary_samples_are_compared_with_grey_images():
    """The search is among the images themselves, whatever their values were made of."""
    data = replace(digits(), train=digits().train[:50])
    name, recipe = a_recipe("vae")
    model = build(name, data, recipe).eval()
    drawn = draw(model, data, recipe, images_of(data.test, data, recipe))
    below = torch.from_numpy(pixels(drawn["nearest"])[10:18, 1:9].copy()).float() / 255
    train = intensities(data.train, data.levels)[:, 0]
    assert (train - below).abs().amax((1, 2)).min() < 0.01
