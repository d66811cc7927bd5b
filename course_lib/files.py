"""Files that are whole at every moment: written beside, then put in place of the old ones.

A full disk, a kill or a crash in the middle of a write leaves the file as it was before. Where two
processes must not write at once, one of them holds a lock.
"""

import contextlib
import os
import secrets
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

try:
    import fcntl
except ImportError:  # Windows, where two writers at once are not noticed
    fcntl = None

# What a killed process left behind is removed by a later write of the same file; a write that
# is still running is younger than this.
LEFTOVER_SECONDS = 3600.0


@contextlib.contextmanager
def replacing(path: Path, *, mode: int | None = None) -> Iterator[BinaryIO]:
    """Open a new file that takes the place of `path` when the block ends without an error.

    Each writer has a file of its own in the same folder, so two at once do not mix. If the block or
    the write fails, that file is removed and `path` stays as it was. A link is followed.

    Args:
        path: the file to be written; its folder must exist.
        mode: permissions of the file; by default those it has, or those of any new file.

    Raises:
        OSError: the file cannot be written; the message names `path`.
    """
    if path.exists() and not path.is_file():  # a pipe or a device holds nothing that could be lost
        with open(path, "wb") as file:
            yield file
        return
    path = Path(os.path.realpath(path))
    remove_leftovers(path.parent, path.name)
    temporary = path.with_name(f"{_prefix(path.name)}{secrets.token_hex(8)}.part")
    try:
        if mode is None and path.exists():
            mode = path.stat().st_mode & 0o777
        with open(temporary, "xb", opener=_opener(mode)) as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        if mode is not None:  # whatever the process's mask says
            temporary.chmod(mode)
        os.replace(temporary, path)
    except BaseException as error:
        with contextlib.suppress(OSError):
            temporary.unlink()
        if isinstance(error, OSError) and error.filename in (None, str(temporary)):
            raise OSError(error.errno, error.strerror or str(error), str(path)) from error
        raise


def replace_bytes(path: Path, content: bytes, *, mode: int | None = None) -> None:
    """Write `content` to `path` at once; see `replacing`."""
    with replacing(path, mode=mode) as file:
        file.write(content)


def replace_text(
    path: Path, text: str, *, encoding: str = "utf-8", mode: int | None = None
) -> None:
    """Write `text` to `path` at once, its line ends as they are; see `replacing`."""
    replace_bytes(path, text.encode(encoding), mode=mode)


def remove_leftovers(folder: Path, name: str | None = None, *, age: float | None = None) -> None:
    """Remove what killed processes have left of files that were being written.

    Args:
        folder: where to look.
        name: only of the file of this name; by default of any.
        age: seconds since the last write; `LEFTOVER_SECONDS` by default. Give 0 only where nobody
            else writes.
    """
    age = LEFTOVER_SECONDS if age is None else age
    begin = "." if name is None else _prefix(name)
    with contextlib.suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            token = entry.name.removesuffix(".part")[-16:]
            ours = entry.name.startswith(begin) and entry.name.endswith(f".~{token}.part")
            if ours and len(token) == 16:
                with contextlib.suppress(OSError):
                    if time.time() - entry.stat(follow_symlinks=False).st_mtime >= age:
                        os.unlink(entry.path)


@contextlib.contextmanager
def locked(path: Path, *, remove: bool = False) -> Iterator[int | None]:
    """Hold a lock, a file that is made if need be, until the block ends.

    The system releases the lock when the process ends, however it ends: a file that a killed process
    leaves behind blocks nobody.

    Args:
        path: the file; nothing but the lock depends on its content.
        remove: remove it at the end of the block.

    Yields:
        The open file's descriptor; None where the system has no such locks.

    Raises:
        BlockingIOError: another process holds it, or another block of this one.
        OSError: the file cannot be made, or its file system has no locks.
    """
    if fcntl is None:
        yield None
        return
    with contextlib.ExitStack() as stack:
        while True:
            file = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
            stack.callback(os.close, file)
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            with contextlib.suppress(FileNotFoundError):
                # Whoever held it before may have removed the file in between.
                if os.path.samestat(os.fstat(file), os.stat(path)):
                    break
        try:
            yield file
        finally:
            if remove:
                with contextlib.suppress(OSError):
                    path.unlink()


def _prefix(name: str) -> str:
    """The beginning of a temporary name: hidden, and short however long the file's own name is."""
    return f".{name[:40]}.~"


def _opener(mode: int | None) -> Callable[[str, int], int]:
    """Makes a file with its permissions from the start: a secret is never readable by others."""
    return lambda name, flags: os.open(name, flags, 0o666 if mode is None else mode)
