"""Downloads that survive bad Wi-Fi: several mirrors, resumption, checksums, nothing lost.

pooch knows where a user's cache is and how to hash a file, but starts every download again
from its first byte; the resuming is done here.
"""

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path

import pooch
import requests

from course_lib.progress import progress_bar

CHUNK = 1 << 16
# Seconds to wait for a connection, and for the next bytes: a stalled mirror is left, not waited for.
TIMEOUT = (5.0, 15.0)


class DownloadError(OSError):
    """A file is neither in the folder nor to be had from any mirror."""


def fetch(
    name: str,
    sha256: str,
    mirrors: Sequence[str],
    folder: Path,
    *,
    timeout: tuple[float, float] = TIMEOUT,
) -> Path:
    """Return the path of a checked local copy of a file, downloading it if need be.

    A download is written to ``NAME.part`` and takes the file's name only when its checksum is
    right, so an interrupted download is resumed by the next call, and a file in the cache is
    replaced only by a good one.

    Args:
        name: file name, below each mirror and in `folder`.
        sha256: hexadecimal checksum that the file must have.
        mirrors: addresses to try in turn, each ending in a slash.
        folder: where the file is kept.
        timeout: seconds to wait for a connection, and between bytes.

    Raises:
        DownloadError: no mirror delivered the right bytes; the message lists what each did.
    """
    path = folder / name
    if path.exists() and pooch.file_hash(str(path)) == sha256:
        return path
    failures = []
    for mirror in mirrors:
        try:
            _download(mirror + name, sha256, path, timeout)
            return path
        except (requests.RequestException, OSError) as error:
            failures.append(f"  {mirror}{name}: {_reason(error)}")
    state = "has the wrong checksum and was left as it is" if path.exists() else "does not exist"
    raise DownloadError(
        f"{path} {state}, and no mirror delivered it:\n"
        + "\n".join(failures)
        + f"\nConnect to the network and call again (a partial download is resumed), or put the "
        f"file into a folder yourself and set COURSE_LIB_DATA to that folder. "
        f"Expected SHA-256: {sha256}."
    )


def _download(url: str, sha256: str, path: Path, timeout: tuple[float, float]) -> None:
    """Download to ``path.part``, resuming what is there, and move it to `path` if it is right."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    have = part.stat().st_size if part.exists() else 0
    headers = {"Range": f"bytes={have}-", "Accept-Encoding": "identity"} if have else {}
    with requests.get(url, headers=headers, stream=True, timeout=timeout) as response:
        if response.status_code == requests.codes.requested_range_not_satisfiable:
            # The part is as long as the file, or longer: let the checksum decide.
            _accept(part, path, sha256)
            return
        response.raise_for_status()
        resumed = response.status_code == requests.codes.partial_content
        have = have if resumed else 0
        total = have + int(response.headers.get("Content-Length", 0)) or None
        bar = progress_bar(
            total=total, initial=have, unit="B", unit_scale=True, desc=f"downloading {path.name}"
        )
        with bar, open(part, "ab" if resumed else "wb") as file:
            for chunk in response.iter_content(CHUNK):
                file.write(chunk)
                bar.update(len(chunk))
    if total is not None and part.stat().st_size < total:
        raise OSError(f"connection ended after {part.stat().st_size} of {total} bytes")
    try:
        _accept(part, path, sha256)
    except OSError:
        if not resumed:
            raise
        # The first bytes came from an earlier try: this mirror may still be right about all of them.
        _download(url, sha256, path, timeout)


def _accept(part: Path, path: Path, sha256: str) -> None:
    digest = hashlib.sha256(part.read_bytes()).hexdigest()
    if digest != sha256:
        part.unlink()  # wrong bytes are of no use to the next try
        raise OSError(f"wrong checksum {digest[:12]}…, {sha256[:12]}… expected")
    os.replace(part, path)


def _reason(error: Exception) -> str:
    if isinstance(error, requests.HTTPError):
        return f"HTTP {error.response.status_code}"
    if isinstance(error, requests.Timeout):
        return "timed out"
    if isinstance(error, requests.ConnectionError):
        return "no connection"
    return str(error)
