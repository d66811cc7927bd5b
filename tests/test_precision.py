"""Float32's products on a GPU: what the setting says, and that it comes back."""

from types import SimpleNamespace

import pytest
import torch

from course_lib.precision import float32_products

PLACES = (torch.backends.cudnn.conv, torch.backends.cuda.matmul)


def settings():
    return [place.fp32_precision for place in PLACES]


@pytest.mark.parametrize("kind", ["ieee", "tf32"])
def test_both_kinds_of_products_are_set_and_come_back(kind):
    before, within = settings(), []

    def fail():
        with float32_products(kind):
            within.extend(settings())
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert within == [kind, kind]
    assert settings() == before


def test_a_setting_of_the_user_is_no_obstacle():
    before = settings()
    try:
        PLACES[0].fp32_precision = "ieee"
        with float32_products("tf32"):
            assert settings() == ["tf32", "tf32"]
        assert settings()[0] == "ieee"
    finally:
        for place, old in zip(PLACES, before, strict=True):
            place.fp32_precision = old


def test_older_versions_of_torch_have_a_flag(monkeypatch):
    cudnn, cublas = SimpleNamespace(allow_tf32=True), SimpleNamespace(allow_tf32=False)
    monkeypatch.setattr(torch.backends, "cudnn", cudnn)
    monkeypatch.setattr(torch.backends.cuda, "matmul", cublas)
    for kind, allowed in (("ieee", False), ("tf32", True)):
        with float32_products(kind):
            assert (cudnn.allow_tf32, cublas.allow_tf32) == (allowed, allowed)
        assert (cudnn.allow_tf32, cublas.allow_tf32) == (True, False)
