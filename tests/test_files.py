"""Files are whole at every moment: after a full disk, a kill, and with several writers at once."""

import errno
import os
import resource
import signal
import subprocess
import sys
import threading
from contextlib import contextmanager
from pathlib import Path

import pytest

from course_lib import files
from course_lib.files import locked, remove_leftovers, replace_bytes, replace_text, replacing


@contextmanager
def full_after(size: int):
    """No file grows beyond `size` bytes in the block, as on a disk that is nearly full."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("size", [0, 1, 1000])
def test_a_full_disk_leaves_the_file_as_it_was(tmp_path, size):
    path = tmp_path / "points.csv"
    replace_text(path, "points given by hand")
    with full_after(size), pytest.raises(OSError, match=r"points\.csv") as caught:
        replace_bytes(path, bytes(5000))
    assert caught.value.errno == errno.EFBIG
    assert path.read_text() == "points given by hand"
    assert [p.name for p in tmp_path.iterdir()] == ["points.csv"]


def test_an_error_in_the_middle_leaves_the_file_as_it_was(tmp_path):
    path = tmp_path / "checkpoint.pt"
    path.write_bytes(b"old")

    def interrupted():
        with replacing(path) as file:
            file.write(b"half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert path.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["checkpoint.pt"]


def test_a_killed_writer_leaves_the_file_whole_and_nothing_for_ever(tmp_path, monkeypatch):
    path = tmp_path / "file"
    path.write_bytes(b"old")
    program = (
        "import os, sys\nfrom pathlib import Path\nfrom course_lib.files import replacing\n"
        "with replacing(Path(sys.argv[1])) as file:\n"
        "    file.write(bytes(10**6))\n    os.kill(os.getpid(), 9)\n"
    )
    done = subprocess.run([sys.executable, "-c", program, str(path)], check=False)
    assert done.returncode == -signal.SIGKILL
    assert path.read_bytes() == b"old"
    assert len(list(tmp_path.iterdir())) == 2
    replace_bytes(path, b"new")
    assert len(list(tmp_path.iterdir())) == 2, "another writer's file was removed while it is young"
    monkeypatch.setattr(files, "LEFTOVER_SECONDS", -1)
    replace_bytes(path, b"newer")
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def test_only_what_writers_leave_behind_is_removed(tmp_path):
    kept = ["file", ".file.part", "file.part", ".hidden", ".other.~0123456789abcdef"]
    left = [".file.~0123456789abcdef.part", ".other.~fedcba9876543210.part"]
    for name in (*kept, *left):
        (tmp_path / name).touch()
    remove_leftovers(tmp_path, "file", age=0)
    assert {p.name for p in tmp_path.iterdir()} == {*kept, left[1]}
    remove_leftovers(tmp_path, age=0)
    assert {p.name for p in tmp_path.iterdir()} == set(kept)
    remove_leftovers(tmp_path / "nowhere", age=0)


def test_many_writers_at_once_do_not_mix(tmp_path):
    path = tmp_path / "file"
    contents = [bytes([k]) * 100_000 for k in range(8)]
    seen = []

    def write(content):
        for _ in range(10):
            replace_bytes(path, content)
            seen.append(path.read_bytes())

    threads = [threading.Thread(target=write, args=(content,)) for content in contents]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(seen) == 80
    assert set(seen) <= set(contents)
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def test_permissions_are_kept_and_a_secret_is_never_readable_by_others(tmp_path):
    path = tmp_path / "secret"
    modes = []
    before = os.umask(0o022)
    try:
        with replacing(path, mode=0o600) as file:
            modes.append(os.fstat(file.fileno()).st_mode & 0o777)
            file.write(b"s")
        replace_bytes(path, b"t")  # it has a mode by now
        modes.append(path.stat().st_mode & 0o777)
        replace_bytes(tmp_path / "open", b"")
        modes.append((tmp_path / "open").stat().st_mode & 0o777)
        (tmp_path / "open").chmod(0o664)
        replace_bytes(tmp_path / "open", b"")
        modes.append((tmp_path / "open").stat().st_mode & 0o777)
    finally:
        os.umask(before)
    assert modes == [0o600, 0o600, 0o644, 0o664]


def test_a_link_is_followed_and_a_device_is_no_file_to_replace(tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere" / "file")
    replace_text(tmp_path / "link", "ä\r\nb\n")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "elsewhere" / "file").read_bytes() == "ä\r\nb\n".encode()
    read, write = os.pipe()
    replace_text(Path(f"/dev/fd/{write}"), "through")
    os.close(write)
    with open(read, "rb") as file:
        assert file.read() == b"through"


@pytest.mark.parametrize("name", ["x" * 255, "ü" * 127, "a[b]*?", os.fsdecode(b"latin-\xe9")])
def test_every_name_that_a_file_system_takes_is_written(tmp_path, name):
    replace_bytes(tmp_path / name, b"content")
    assert (tmp_path / name).read_bytes() == b"content"
    assert len(list(tmp_path.iterdir())) == 1


def test_a_lock_is_held_by_one_block_at_a_time(tmp_path):
    path = tmp_path / "lock"
    with locked(path) as file:
        assert os.path.samestat(os.fstat(file), path.stat())
        with pytest.raises(BlockingIOError), locked(path):
            pass
    with locked(path, remove=True):
        assert path.exists()
    assert not path.exists()


def test_a_lock_whose_file_was_removed_meanwhile_is_taken_anew(tmp_path, monkeypatch):
    path, flock = tmp_path / "lock", files.fcntl.flock

    def late(file, operation):
        monkeypatch.setattr(files.fcntl, "flock", flock)
        path.unlink()  # whoever held it before does this between our opening and our lock
        flock(file, operation)

    monkeypatch.setattr(files.fcntl, "flock", late)
    with locked(path) as file:
        assert os.path.samestat(os.fstat(file), path.stat())


def test_where_there_are_no_locks_nothing_is_held(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "fcntl", None)
    with locked(tmp_path / "lock") as file:
        assert file is None
    assert not list(tmp_path.iterdir())
