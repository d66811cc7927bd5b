"""What is shared by the processes of a test run is made once, and again where the first try failed."""

from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.sharing import once


class Factory:
    """The part of pytest's factory that is used, with the folders of several processes of one run."""

    def __init__(self, folder):
        self.folder = folder

    def getbasetemp(self):
        self.folder.mkdir(exist_ok=True)
        return self.folder


def test_what_several_ask_for_is_made_once(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTEST_XDIST_WORKER", "gw0")
    made = []

    def make(folder):
        made.append(folder)
        (folder / "result").write_text("whole")

    workers = [Factory(tmp_path / f"popen-gw{k}") for k in range(8)]
    with ThreadPoolExecutor(8) as pool:
        folders = list(pool.map(lambda worker: once(worker, "shared", make), workers))
    assert set(folders) == {tmp_path / "shared"}
    assert (folders[0] / "result").read_text() == "whole"
    assert len(made) == 1


def test_what_failed_is_tried_again_and_leaves_nothing(tmp_path, monkeypatch):
    monkeypatch.delenv("PYTEST_XDIST_WORKER", raising=False)

    def fails(folder):
        (folder / "half").touch()
        raise RuntimeError("broken")

    with pytest.raises(RuntimeError, match="broken"):
        once(Factory(tmp_path), "shared", fails)
    again = once(Factory(tmp_path), "shared", lambda folder: (folder / "result").touch())
    assert [path.name for path in again.iterdir()] == ["result"]
