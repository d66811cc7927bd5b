"""Data sets, and downloads from a server that misbehaves in every way a network can."""

import gzip
import hashlib
import http.server
import os
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
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
    requests: list[str]
    begun: threading.Event  # something has been sent
    ended: threading.Event


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        self.server.requests.append(self.path)
        trouble = self.path.split("/")[1]
        if trouble == "missing":
            self.send_error(404)
            return
        body = b"x" * len(CONTENT) if trouble.endswith("wrong") else CONTENT
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        try:
            self.deliver(trouble, body)
        except ConnectionError:  # the other side has gone
            self.close_connection = True

    def deliver(self, trouble, body):
        if trouble == "truncated":
            self.wfile.write(body[:100_000])
            self.close_connection = True
        elif trouble == "stalled":
            self.wfile.write(body[:50_000])
            self.wfile.flush()
            time.sleep(1.5)
            self.close_connection = True
        elif trouble == "endless":
            self.wfile.write(body[:200_000])
            self.wfile.flush()
            self.server.begun.set()
            self.server.ended.wait(60)
        elif trouble.startswith("slow"):
            for start in range(0, len(body), 50_000):
                self.wfile.write(body[start : start + 50_000])
                self.wfile.flush()
                time.sleep(0.02)
        else:
            self.wfile.write(body)

    def log_message(self, *arguments):
        pass


@pytest.fixture
def server():
    server = Server(("127.0.0.1", 0), Handler)
    server.requests = []
    server.begun, server.ended = threading.Event(), threading.Event()
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.ended.set()
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


@pytest.mark.parametrize("trouble", ["missing", "wrong", "truncated", "stalled"])
def test_a_download_that_failed_leaves_nothing_and_the_next_call_begins_anew(
    server, tmp_path, trouble
):
    with pytest.raises(DownloadError):
        get(server, tmp_path, trouble)
    assert os.listdir(tmp_path) == []
    assert get(server, tmp_path, "good").read_bytes() == CONTENT


def test_a_killed_download_blocks_nobody(server, tmp_path):
    code = (
        "import sys; from pathlib import Path; from course_lib.download import fetch; "
        "fetch('file', sys.argv[1], [sys.argv[2]], Path(sys.argv[3]))"
    )
    child = subprocess.Popen(
        [sys.executable, "-c", code, DIGEST, *mirrors(server, "endless"), tmp_path],
        stderr=subprocess.DEVNULL,
    )
    assert server.begun.wait(60)
    while not any(path.stat().st_size for path in tmp_path.iterdir()):  # it is being written
        assert child.poll() is None
    child.kill()
    child.wait()
    assert not (tmp_path / "file").exists()
    assert get(server, tmp_path, "good").read_bytes() == CONTENT


@pytest.mark.parametrize("troubles", [("slow",), ("wrong", "slow"), ("slow-wrong", "slow")])
def test_threads_that_ask_at_once_all_get_the_whole_file(server, tmp_path, troubles):
    """Whichever order they end in: what a caller has been given stays as it was."""
    together = threading.Barrier(4)

    def ask(_):
        together.wait()
        path = get(server, tmp_path, *troubles)
        return [hashlib.sha256(path.read_bytes()).hexdigest() for _ in range(20)]

    with ThreadPoolExecutor(4) as pool:
        read = list(pool.map(ask, range(4)))
    assert {digest for digests in read for digest in digests} == {DIGEST}
    assert os.listdir(tmp_path) == ["file"]


def test_processes_that_ask_at_once_all_get_the_whole_file(server, tmp_path):
    code = (
        "import sys; from pathlib import Path; from course_lib.download import fetch; "
        "sys.stdin.readline(); "
        "print(len(fetch('file', sys.argv[1], [sys.argv[2]], Path(sys.argv[3])).read_bytes()))"
    )
    children = [
        subprocess.Popen(
            [sys.executable, "-c", code, DIGEST, *mirrors(server, "slow"), tmp_path],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )
        for _ in range(3)
    ]  # fmt: skip
    for child in children:  # all are started before the first is let go
        child.stdin.write("go\n")
        child.stdin.flush()
    answers = [child.communicate(timeout=120) for child in children]
    assert [said for said, _ in answers] == [f"{len(CONTENT)}\n"] * 3, answers
    assert os.listdir(tmp_path) == ["file"]


def test_a_file_of_somebody_elses_is_not_replaced(server, tmp_path):
    """Other data sets have files of the same names."""
    (tmp_path / "file").write_bytes(b"fashion")
    mirror = mirrors(server, "good")
    with pytest.raises(DownloadError, match=r"wrong checksum.* Move it away"):
        fetch("file", DIGEST, mirror, tmp_path, replace=False, timeout=SHORT)
    assert (tmp_path / "file").read_bytes() == b"fashion"
    (tmp_path / "file").unlink()
    path = fetch("file", DIGEST, mirror, tmp_path, replace=False, timeout=SHORT)
    assert path.read_bytes() == CONTENT


def test_what_cannot_be_read_or_written_is_named(server, tmp_path, monkeypatch):
    (tmp_path / "there" / "file").mkdir(parents=True)
    with pytest.raises(DownloadError, match=r"file cannot be read \(Is a directory\)"):
        get(server, tmp_path / "there", "missing")
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    with pytest.raises(DownloadError, match="link is a link to a file that does not exist"):
        fetch("link", DIGEST, mirrors(server, "missing"), tmp_path, timeout=SHORT)
    monkeypatch.setattr(os, "access", lambda *_: False)
    with pytest.raises(DownloadError, match=r"no permission.*Set COURSE_LIB_DATA") as error:
        get(server, tmp_path, "good")
    assert DIGEST in str(error.value)


def test_a_file_that_is_there_needs_no_permission_to_write(tmp_path, monkeypatch):
    folder = tmp_path / "with a space"
    folder.mkdir()
    (tmp_path / "elsewhere").write_bytes(CONTENT)
    (folder / "file").symlink_to(tmp_path / "elsewhere")
    monkeypatch.setattr(os, "access", lambda *_: False)
    assert fetch("file", DIGEST, [], folder) == folder / "file"


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


def test_a_folder_of_other_data_is_left_alone(tmp_path, monkeypatch):
    other = idx(np.zeros((3, 2, 2)))
    for name in data.MNIST_SHA256:
        (tmp_path / name).write_bytes(other)
    monkeypatch.setenv("COURSE_LIB_DATA", str(tmp_path))
    monkeypatch.setattr(data, "MNIST_MIRRORS", [])
    with pytest.raises(DownloadError, match=r"train-images-idx3-ubyte\.gz has the wrong checksum"):
        data.mnist()
    assert {path.read_bytes() for path in tmp_path.iterdir()} == {other}


def test_unpacked_files_are_as_good_if_they_are_the_original_ones(tmp_path, monkeypatch):
    monkeypatch.setattr(data, "MNIST_MIRRORS", [])
    monkeypatch.setenv("COURSE_LIB_DATA", str(tmp_path))
    sizes = {"train-images-idx3": (60_000, 2, 3), "train-labels-idx1": (60_000,),
             "t10k-images-idx3": (10_000, 2, 3), "t10k-labels-idx1": (10_000,)}  # fmt: skip
    digests = {}
    for name, size in sizes.items():
        content = gzip.decompress(idx(np.ones(size)))
        (tmp_path / f"{name}-ubyte").write_bytes(content)
        digests[f"{name}-ubyte"] = hashlib.sha256(content).hexdigest()
    with pytest.raises(DownloadError, match=r"train-images-idx3-ubyte\.gz does not exist"):
        data.mnist()
    monkeypatch.setattr(data, "UNPACKED_SHA256", digests)
    assert data.mnist().train.shape == (55_000, 1, 2, 3)


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
