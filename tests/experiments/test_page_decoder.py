"""The decoder that pages hold: small, computed from the recorded run, and the one of its pictures."""

from pathlib import Path

import pytest
import torch
from torch import nn

from course_lib.experiments import page_decoder
from course_lib.experiments.page_decoder import PageDecoder, decoder_path, factorized, read_decoder
from course_lib.experiments.pictures import picture_path
from course_lib.vae import latent_grid
from tests.experiments.test_pictures import pixels

RESULTS = Path(__file__).parents[2] / "results"


@pytest.fixture
def whole():
    """A decoder with tanh units, whose logits are as large as those of a trained one."""
    torch.manual_seed(0)
    decoder = nn.Sequential(nn.Linear(2, 30), nn.Tanh(), nn.Linear(30, 40))
    with torch.no_grad():
        for parameter in decoder.parameters():
            parameter *= 4
    return decoder.requires_grad_(False)


def test_the_more_dimensions_the_closer(whole):
    before = whole[2].weight.clone()
    z = 6 * torch.rand(500, 2, dtype=torch.float64) - 3
    with torch.no_grad():
        small = [factorized(whole, rank) for rank in (5, 10, 30)]
        expected = whole.double()(z)
        errors = [(decoder(z) - expected).abs().max().item() for decoder in small]
    assert errors[0] > errors[1] > 1e3 * errors[2]
    assert errors[2] < 1e-9  # as many as the hidden units have
    assert [layer.out_features for layer in small[0] if isinstance(layer, nn.Linear)] == [30, 5, 40]
    assert torch.equal(whole[2].weight, before.double())  # the given one is left as it is


def test_what_is_written_is_read(whole, tmp_path):
    path = tmp_path / "decoder.npz"
    written = PageDecoder(factorized(whole, 8), torch.randn(6, 2), torch.arange(6))
    written.write(path)
    found = read_decoder(path)
    z = torch.randn(20, 2)
    with torch.no_grad():
        expected = written.decoder.float()(z)
        torch.testing.assert_close(found.decoder(z), expected, atol=0.02, rtol=2e-3)
    for weight in found.decoder.parameters():
        assert torch.equal(weight, weight.half().float())
    torch.testing.assert_close(found.points, written.points, atol=2e-3, rtol=2e-3)
    assert torch.equal(found.labels, written.labels)


def test_the_stored_decoder_is_that_of_the_recorded_run():
    """It draws the manifold of the record, to the grey levels of that picture."""
    stored = read_decoder(decoder_path(RESULTS))
    with torch.no_grad():
        images = stored.decoder(latent_grid(10)).sigmoid().view(10, 10, 28, 28)
    plane = pixels(picture_path(RESULTS, page_decoder.RECORD, "manifold").read_bytes())
    shown = torch.from_numpy(plane.copy())[: 10 * 29, : 10 * 29].view(10, 29, 10, 29)
    found = shown.transpose(1, 2)[..., 1:, 1:] / 255
    assert (found - images).abs().max() < 0.5 / 63 + 1.5 / 255


def test_the_stored_decoder_is_small():
    stored = read_decoder(decoder_path(RESULTS))
    assert 2 * sum(p.numel() for p in stored.decoder.parameters()) <= 300_000
    assert decoder_path(RESULTS).stat().st_size <= 300_000
    assert stored.points.shape == (page_decoder.POINTS, 2)
    assert set(stored.labels.tolist()) == set(range(10))
