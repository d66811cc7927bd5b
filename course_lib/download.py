"""Downloads with several mirrors and checksums: a file has its name only when it is whole and right.

Any number of processes and threads may ask for the same file at once: each downloads into a file of
its own beside the place, and the first that is done puts it there.
"""

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path

import pooch
import requests

from course_lib.files import replacing
from course_lib.inputs import require_writable
from course_lib.progress import progress_bar

CHUNK = 1 << 16
# Seconds to wait for a connection, and for the next bytes: a stalled mirror is left, not waited for.
TIMEOUT = (5.0, 15.0)


class DownloadError(OSError):
    """A file is neither in the folder nor available from any mirror."""


def fetch(
    name: str,
    sha256: str,
    mirrors: Sequence[str],
    folder: Path,
    *,
    replace: bool = True,
    timeout: tuple[float, float] = TIMEOUT,
) -> Path:
    """Return the path of a checked local copy of a file, downloading it if need be.

    Args:
        name: file name, below each mirror and in `folder`.
        sha256: hexadecimal checksum that the file must have.
        mirrors: addresses to try in turn, each ending in a slash.
        folder: where the file is kept.
        replace: whether a file of that name with another checksum is replaced, by a right one only.
            In a folder that is not ours it may be somebody's other data.
        timeout: seconds to wait for a connection, and between bytes.

    Raises:
        DownloadError: no mirror delivered the right bytes, and the message lists what each did; or the
            folder cannot be written to; or a wrong file is there and not to be replaced.
    """
    path = folder / name
    state = _state(path, sha256)
    if state is None:
        return path
    help_yourself = (
        f"put the file into a folder yourself and set COURSE_LIB_DATA to that folder. "
        f"Expected SHA-256: {sha256}."
    )
    if os.path.lexists(path) and not replace:
        raise DownloadError(
            f"{path} {state}; the original file is expected. Move it away, and it is downloaded, or "
            f"{help_yourself}"
        )
    try:
        require_writable(folder, name)
    except ValueError as error:
        raise DownloadError(
            f"{path} {state}, and {error} Set COURSE_LIB_DATA to such a folder, or {help_yourself}"
        ) from error
    failures = []
    for mirror in mirrors:
        try:
            _download(mirror + name, sha256, path, timeout)
            return path
        except (requests.RequestException, OSError) as error:
            failures.append(f"  {mirror}{name}: {_reason(error)}")
    raise DownloadError(
        f"{path} {state}, and no mirror delivered it:\n"
        + "\n".join(failures)
        + f"\nConnect to the network and call again, or {help_yourself}"
    )


def _state(path: Path, sha256: str) -> str | None:
    """What is wrong with a file, in words; None if it is the right one."""
    if not os.path.lexists(path):
        return "does not exist"
    try:
        if pooch.file_hash(str(path)) == sha256:
            return None
    except FileNotFoundError:
        return "is a link to a file that does not exist"
    except OSError as error:
        return f"cannot be read ({error.strerror})"
    return "has the wrong checksum and was left as it is"


def _download(url: str, sha256: str, path: Path, timeout: tuple[float, float]) -> None:
    """Download beside `path`, and move it there if it is right."""
    # As it lies on the server: a proxy or a server that unpacks would spoil the checksum.
    headers = {"Accept-Encoding": "identity"}
    with requests.get(url, headers=headers, stream=True, timeout=timeout) as response:
        response.raise_for_status()
        total = int(response.headers.get("Content-Length", 0)) or None
        digest, have = hashlib.sha256(), 0
        bar = progress_bar(total=total, unit="B", unit_scale=True, desc=f"downloading {path.name}")
        with bar, replacing(path) as file:
            for chunk in response.iter_content(CHUNK):
                file.write(chunk)
                digest.update(chunk)
                have += len(chunk)
                bar.update(len(chunk))
            if total is not None and have < total:
                raise OSError(f"connection ended after {have} of {total} bytes")
            if digest.hexdigest() != sha256:
                raise OSError(f"wrong checksum {digest.hexdigest()[:12]}…, {sha256[:12]}… expected")


def _reason(error: Exception) -> str:
    if isinstance(error, requests.HTTPError):
        return f"HTTP {error.response.status_code}"
    if isinstance(error, requests.Timeout):
        return "timed out"
    if isinstance(error, requests.exceptions.ChunkedEncodingError):
        return "connection ended before the file"
    if isinstance(error, requests.ConnectionError):
        return "no connection"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return str(error)
