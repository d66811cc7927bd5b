"""A recipe of the family, from the untrained model to what is recorded of it."""

import math
from dataclasses import replace

import pytest
import torch

from course_lib.data import digits
from course_lib.flow_matching import MeanFlow, VelocityFlow
from course_lib.flow_matching.family import FAMILY, FlowMatchingRecipe
from course_lib.training import fit


def test_a_recipe_builds_trains_and_measures():
    data = digits()
    recipe = FlowMatchingRecipe(
        3,
        8,
        1e-3,
        {"hidden": (8,), "prediction": "levels"},
        solver_steps=4,
        dequantization_samples=2,
    )
    model = recipe.build(VelocityFlow, data)
    assert model.log_frequencies.exp().sum(-1).allclose(torch.ones(1))
    fit(model, recipe.loss(), data.train, steps=3, batch_size=8, progress=False)
    model.eval()
    found = recipe.measure(model, data.test[:6])
    assert list(found) == ["dequantization_bound", "bound_plus_solver_error"]
    assert all(values.shape == (6,) for values in found.values())
    bound, with_error = found.values()
    assert (with_error >= bound).all()
    assert (with_error > bound).any()
    # Bits per dimension between nothing known and all known.
    assert 2 < bound.mean() / (64 * math.log(2)) < math.log2(17)
    assert recipe.log_likelihood(model, data.test[:3]).shape == (3,)
    # Both draws count: with one of them the number is another.
    torch.manual_seed(0)
    two = recipe.measure(model, data.test[:6])["dequantization_bound"]
    torch.manual_seed(0)
    one = replace(recipe, dequantization_samples=1).measure(model, data.test[:6])
    assert not torch.equal(one["dequantization_bound"], two)
    # Images over the whole split, not the first ones.
    third = replace(recipe, measured_every=3, dequantization_samples=1)
    torch.manual_seed(0)
    found = third.measure(model, data.test[:7])
    torch.manual_seed(0)
    expected = replace(third, measured_every=1).measure(model, data.test[[0, 3, 6]])
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    with pytest.raises(ValueError, match="measured_every is 0"):
        replace(recipe, measured_every=0)


def test_the_family_names_its_models():
    assert FAMILY.model("VelocityFlow") is VelocityFlow
    assert FAMILY.model("MeanFlow") is MeanFlow
    assert FAMILY.package.__all__
