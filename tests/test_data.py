"""Data sets, and downloads from a server that misbehaves in every way a network can."""

import gzip
import hashlib
import http.server
import os
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from course_lib import data
from course_lib.download import DownloadError, fetch

CONTENT = bytes(range(256)) * 1200  # 300 kB: several chunks
DIGEST = hashlib.sha256(CONTENT).hexdigest()
SHORT = (2.0, 0.5)  # seconds to wait in tests


class Server(http.server.ThreadingHTTPServer):
    """Serves CONTENT under every first path element's own kind of trouble."""

    daemon_threads = True
    requests: list[tuple[str, str | None]]


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        wanted = self.headers.get("Range")
        self.server.requests.append((self.path, wanted))
        trouble = self.path.split("/")[1]
        if trouble == "missing":
            self.send_error(404)
            return
        body = b"x" * len(CONTENT) if trouble == "wrong" else CONTENT
        start = 0
        if wanted and trouble != "no-range":
            start = int(wanted.removeprefix("bytes=").removesuffix("-"))
            if start >= len(body):
                self.send_error(416)
                return
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(body) - start))
        self.end_headers()
        if trouble == "truncated":
            self.wfile.write(body[start : start + 100_000])
            self.close_connection = True
        elif trouble == "stalled":
            self.wfile.write(body[start : start + 50_000])
            self.wfile.flush()
            time.sleep(1.5)
            self.close_connection = True
        else:
            self.wfile.write(body[start:])

    def log_message(self, *arguments):
        pass


@pytest.fixture
def server():
    server = Server(("127.0.0.1", 0), Handler)
    server.requests = []
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()


def mirrors(server, *troubles):
    return [f"http://127.0.0.1:{server.server_port}/{trouble}/" for trouble in troubles]


def get(server, folder, *troubles):
    return fetch("file", DIGEST, mirrors(server, *troubles), folder, timeout=SHORT)


def test_a_good_mirror_delivers_and_the_cache_is_used_afterwards(server, tmp_path):
    assert get(server, tmp_path, "good").read_bytes() == CONTENT
    get(server, tmp_path, "good")
    assert len(server.requests) == 1
    assert os.listdir(tmp_path) == ["file"]


@pytest.mark.parametrize("trouble", ["missing", "wrong", "truncated", "stalled"])
def test_the_next_mirror_helps(server, tmp_path, trouble):
    assert get(server, tmp_path, trouble, "good").read_bytes() == CONTENT


@pytest.mark.parametrize(
    ("trouble", "reason"),
    [("missing", "HTTP 404"), ("wrong", "wrong checksum"), ("stalled", "timed out|no connection")],
)
def test_the_error_says_what_each_mirror_did_and_how_to_help_oneself(
    server, tmp_path, trouble, reason
):
    with pytest.raises(DownloadError, match=reason) as error:
        get(server, tmp_path, trouble)
    assert "COURSE_LIB_DATA" in str(error.value)
    assert DIGEST in str(error.value)


def test_a_broken_download_is_resumed_where_it_ended(server, tmp_path):
    with pytest.raises(DownloadError):
        get(server, tmp_path, "truncated")
    have = (tmp_path / "file.part").stat().st_size
    assert 0 < have < len(CONTENT)
    assert get(server, tmp_path, "good").read_bytes() == CONTENT
    assert server.requests[-1] == ("/good/file", f"bytes={have}-")


def test_a_server_that_cannot_resume_sends_everything_again(server, tmp_path):
    (tmp_path / "file.part").write_bytes(CONTENT[:1000])
    assert get(server, tmp_path, "no-range").read_bytes() == CONTENT


@pytest.mark.parametrize("part", [b"y" * 1000, b"y" * len(CONTENT), CONTENT + b"more"])
def test_a_part_with_wrong_bytes_does_not_spoil_a_good_mirror(server, tmp_path, part):
    (tmp_path / "file.part").write_bytes(part)
    assert get(server, tmp_path, "good", "good").read_bytes() == CONTENT


def test_a_complete_part_is_taken(server, tmp_path):
    (tmp_path / "file.part").write_bytes(CONTENT)
    assert get(server, tmp_path, "good").read_bytes() == CONTENT


def test_a_corrupt_cached_file_is_replaced_by_a_good_one_only(server, tmp_path):
    (tmp_path / "file").write_bytes(b"corrupt")
    with pytest.raises(DownloadError, match="wrong checksum and was left as it is"):
        get(server, tmp_path, "missing")
    assert (tmp_path / "file").read_bytes() == b"corrupt"
    assert get(server, tmp_path, "good").read_bytes() == CONTENT


def test_without_a_network_the_error_names_the_fix(tmp_path):
    with pytest.raises(DownloadError, match="no connection") as error:
        fetch("file", DIGEST, ["http://127.0.0.1:9/"], tmp_path, timeout=SHORT)
    assert "set COURSE_LIB_DATA" in str(error.value)


def idx(array):
    header = bytes([0, 0, 8, array.ndim]) + b"".join(n.to_bytes(4, "big") for n in array.shape)
    return gzip.compress(header + array.astype(np.uint8).tobytes(), mtime=0)


def test_mnist_is_read_from_a_folder_with_its_splits(tmp_path, monkeypatch):
    """A small MNIST in the original format: order, splits and labels survive."""
    rng = np.random.default_rng(0)
    digests = {}
    for part, n in (("train", 60_000), ("t10k", 10_000)):
        images, labels = rng.integers(0, 256, (n, 2, 3)), np.arange(n) % 10
        for name, array in ((f"{part}-images-idx3", images), (f"{part}-labels-idx1", labels)):
            content = idx(array)
            (tmp_path / f"{name}-ubyte.gz").write_bytes(content)
            digests[f"{name}-ubyte.gz"] = hashlib.sha256(content).hexdigest()
        if part == "t10k":
            expected = torch.as_tensor(images)
    monkeypatch.setenv("COURSE_LIB_DATA", str(tmp_path))
    monkeypatch.setattr(data, "MNIST_SHA256", digests)
    mnist = data.mnist()
    assert [len(s) for s in (mnist.train, mnist.validation, mnist.test)] == [55_000, 5_000, 10_000]
    assert mnist.event_shape == (1, 2, 3)
    assert torch.equal(mnist.test.squeeze(1).long(), expected)
    assert mnist.validation_labels[0] == 55_000 % 10


ORIGINAL = Path(__file__).parents[2] / "shared" / "data" / "mnist"


@pytest.mark.skipif(not ORIGINAL.is_dir(), reason=f"the original files are not at {ORIGINAL}")
def test_the_original_mnist_files(monkeypatch):
    monkeypatch.setenv("COURSE_LIB_DATA", str(ORIGINAL))
    mnist = data.mnist()
    assert mnist.event_shape == (1, 28, 28)
    assert mnist.test_labels[:5].tolist() == [7, 2, 1, 0, 4]
    assert mnist.train_labels[:5].tolist() == [5, 0, 4, 1, 9]
    # The mean intensity of the 60,000 training images that everybody normalizes with.
    images = torch.cat([mnist.train, mnist.validation]).double()
    assert (images / 255).mean().item() == pytest.approx(0.1307, abs=5e-5)


def test_a_data_folder_that_does_not_exist_is_named(monkeypatch):
    monkeypatch.setenv("COURSE_LIB_DATA", "/no/such/folder")
    with pytest.raises(ValueError, match="/no/such/folder"):
        data.mnist()


def test_digits_have_fixed_splits_without_overlap():
    digits = data.digits()
    assert (digits.levels, digits.event_shape) == (17, (1, 8, 8))
    assert [len(s) for s in (digits.train, digits.validation, digits.test)] == [1300, 137, 360]
    assert digits.train.max() == 16
    assert torch.equal(digits.test, data.digits().test)
    everything = torch.cat([digits.train, digits.validation, digits.test])
    from sklearn.datasets import load_digits

    assert everything.double().sum().item() == load_digits().data.sum()
    assert set(digits.test_labels.tolist()) == set(range(10))


def test_unknown_data_set_is_answered_with_the_known_ones():
    with pytest.raises(ValueError, match=r"'cifar'.*'digits', 'mnist'"):
        data.load("cifar")
    assert data.load("digits").name == "digits"


def test_binarize_has_the_mean_of_the_intensity_and_follows_the_generator():
    x = torch.tensor([0.0, 0.2, 0.9, 1.0]).expand(50_000, 4)
    drawn = data.binarize(x, generator=torch.Generator().manual_seed(0))
    assert set(drawn.unique().tolist()) == {0.0, 1.0}
    assert (drawn.mean(0) - x[0]).abs().max() < 0.01
    assert torch.equal(drawn, data.binarize(x, generator=torch.Generator().manual_seed(0)))


def test_dequantize_fills_the_interval_of_each_level():
    levels = torch.arange(17).repeat(5000, 1)
    x = data.dequantize(levels, 17)
    assert torch.equal((x * 17).floor().long().clamp(max=16), levels)
    assert x.min() >= 0
    assert x.max() < 1
    fraction = x.double() * 17 - levels
    assert fraction.mean().item() == pytest.approx(0.5, abs=0.01)


def test_dequantize_never_reaches_one(monkeypatch):
    monkeypatch.setattr(torch, "rand", lambda *a, **k: torch.full(a[0], 1 - 2**-24))
    assert data.dequantize(torch.tensor([255]), 256) < 1


@pytest.mark.parametrize("levels", [2, 17, 256, 1000])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_dequantize_never_reaches_the_next_level(monkeypatch, levels, dtype):
    largest = torch.nextafter(torch.tensor(1, dtype=dtype), torch.tensor(0, dtype=dtype)).item()
    monkeypatch.setattr(torch, "rand", lambda shape, **k: torch.full(shape, largest, dtype=dtype))
    x = torch.arange(levels)
    y = data.dequantize(x, levels, dtype=dtype)
    assert y.dtype == dtype
    assert (y >= x.to(dtype) / levels).all()
    edges = (x + 1).to(dtype) / levels
    assert (y < edges).all()
    assert (torch.nextafter(y, edges) >= edges - 2 * torch.finfo(dtype).eps).all()  # and only just


def test_intensities_reach_both_ends():
    assert data.intensities(torch.tensor([0, 8, 16]), 17).tolist() == [0.0, 0.5, 1.0]


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: data.binarize(torch.tensor([0, 16])), TypeError, "intensities"),
        (lambda: data.binarize(torch.tensor([0.0, 16.0])), ValueError, r"\[0, 1\]"),
        (lambda: data.binarize(torch.tensor([torch.nan])), ValueError, "NaN"),
        (lambda: data.binarize(torch.empty(0)), ValueError, "empty"),
        (lambda: data.intensities(torch.tensor([17]), 17), ValueError, "0 … 16"),
        (lambda: data.intensities(torch.tensor([-1]), 17), ValueError, "-1"),
        (lambda: data.dequantize(torch.tensor([0.5]), 17), TypeError, "float32"),
        (lambda: data.intensities([1, 2], 17), TypeError, "list"),
    ],
)
def test_bad_values_are_named(call, error, message):
    with pytest.raises(error, match=message):
        call()
