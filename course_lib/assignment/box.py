"""The isolated process in which a submission runs.

With bubblewrap: no network, its own process table, a read-only system, an empty home of bounded
size, no view of other submissions, of the references or of the parts of `course_lib` that answer
questions. Limits hold for memory, processes, files and output, and the
whole process tree is killed and reaped at the end.
"""

import compileall
import contextlib
import os
import shutil
import signal
import site
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

import course_lib
from course_lib.assignment.system_calls import program
from course_lib.grading import wire
from course_lib.grading.presence import LIBRARY, STAND_IN

FIRST_USER = 60_000
HEADER_LIMIT = 2**20  # a submission's headers are short; parsing JSON costs many times its size
INSTALL = """\
bubblewrap is not installed, and student code must not run without isolation. Install it:
    Debian, Ubuntu:  sudo apt-get install bubblewrap
    Fedora:          sudo dnf install bubblewrap
or pass --sandbox none inside a container that is isolated already (the report will say so)."""
NAMESPACES = """\
bubblewrap cannot create its namespaces here: {error}
On Ubuntu 24.04 and later, unprivileged user namespaces are off by default; allow them with
    sudo sysctl -w kernel.apparmor_restrict_unprivileged_userns=0
In a container, allow them when it starts (for instance --security-opt seccomp=unconfined), or
pass --sandbox none there (the report will say so)."""


class SandboxError(RuntimeError):
    """Isolation is asked for and cannot be had; the message says what to install or set."""


@dataclass(frozen=True)
class Limits:
    """What one submission may use.

    Attributes:
        cell_seconds: time for one cell.
        total_seconds: time for the whole submission, restarts included.
        memory: bytes of memory of all processes together.
        scratch: bytes of each of its two scratch folders (home and temporary files).
        processes: processes and threads at a time.
        output: bytes of printed output that are kept; the rest is read and dropped.
    """

    cell_seconds: float = 180
    total_seconds: float = 900
    memory: int = 3 * 2**30
    scratch: int = 128 * 2**20
    processes: int = 64
    output: int = 64 * 2**10


class Stopped(Exception):
    """The grading was stopped: what a box would have answered is not known."""


@dataclass(frozen=True)
class Room:
    """What all boxes of a grading run share, read-only: the library without what is asked for."""

    folder: Path
    sandbox: str
    boxes: set["Box"] = field(default_factory=set)
    stopped: threading.Event = field(default_factory=threading.Event)

    def stop(self) -> None:
        """Kill all boxes; no other starts."""
        self.stopped.set()
        for box in tuple(self.boxes):
            box.kill()


@contextlib.contextmanager
def room(sandbox: str = "bubblewrap") -> Iterator[Room]:
    """Prepare the shared read-only files, and remove them at the end.

    Args:
        sandbox: ``"bubblewrap"``; or ``"none"`` in a container that is isolated already.

    Raises:
        SandboxError: bubblewrap is missing, or the system does not let it work.
    """
    if sandbox == "bubblewrap" and shutil.which("bwrap") is None:
        raise SandboxError(INSTALL)
    folder = Path(tempfile.mkdtemp(prefix="course-lib-"))
    try:
        _copy_library(folder / "course_lib")
        (folder / "fonts").mkdir()
        for fonts in Path(os.environ.get("MPLCONFIGDIR", _matplotlib_cache())).glob(
            "fontlist*.json"
        ):
            shutil.copy(fonts, folder / "fonts")
        folder.chmod(0o755)
        made = Room(folder, sandbox)
        if sandbox == "bubblewrap":
            _require_working(made)
        yield made
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _copy_library(folder: Path) -> None:
    """Copy what a box sees of the library, with a `check` that knows no expected values."""
    source = Path(course_lib.__file__).parent
    for name in LIBRARY:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        if (source / name).is_dir():
            shutil.copytree(
                source / name, folder / name, ignore=shutil.ignore_patterns("__pycache__")
            )
        else:
            shutil.copy(source / name, folder / name)
    shutil.copy(source / "grading" / "unchecked.py", folder / STAND_IN)
    compileall.compile_dir(folder, quiet=1)


class Box:
    """One isolated process, with a pipe each way. Use as a context manager."""

    def __init__(self, room: Room, limits: Limits, slot: int) -> None:
        self.limits = limits
        request_read, self._requests = os.pipe()
        self._answers, answer_write = os.pipe()
        self._output = bytearray()
        self.peak_memory = 0
        self.killed_for_memory = False
        try:
            self._process = start(
                room,
                limits,
                slot,
                *("-m", "course_lib.grading.runner", str(request_read), str(answer_write)),
                pass_fds=(request_read, answer_write),
                stderr=subprocess.STDOUT,
            )
        finally:
            os.close(request_read)
            os.close(answer_write)
        self._threads = [
            threading.Thread(target=task, daemon=True) for task in (self._drain, self._watch)
        ]
        for thread in self._threads:
            thread.start()
        self._room = room
        room.boxes.add(self)
        if room.stopped.is_set():  # asked after joining: a box is killed by `stop`, or here
            self.close()
            raise Stopped

    def __enter__(self) -> "Box":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def send(self, header: dict[str, Any], arrays: dict[str, np.ndarray] | None = None) -> None:
        """Send one message; raise `course_lib.grading.wire.Broken` if the box is dead."""
        wire.send(self._requests, header, arrays or {})

    def receive(self, deadline: float) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        """Receive one message; raise `TimeoutError` or `course_lib.grading.wire.Broken`."""
        return wire.receive(self._answers, deadline, header_limit=HEADER_LIMIT)

    @property
    def output(self) -> str:
        """The first part of what was printed."""
        return self._output.decode(errors="replace")

    def close(self) -> None:
        """Kill every process of the box, and wait until they are gone."""
        self._room.boxes.discard(self)
        self.kill()
        self._process.wait()
        for descriptor in (self._requests, self._answers):
            with contextlib.suppress(OSError):
                os.close(descriptor)
        self._requests = self._answers = -1
        for thread in self._threads:
            thread.join(timeout=5)

    def kill(self) -> None:
        """Kill every process of the box."""
        for member in reversed(descendants(self._process.pid)):
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(member, signal.SIGKILL)
        self._process.kill()

    def _drain(self) -> None:
        while part := self._process.stdout.read1(2**16):
            self._output += part[: max(0, self.limits.output - len(self._output))]

    def _watch(self) -> None:
        """Kill the box when its processes together hold more memory than they may."""
        while self._process.poll() is None:
            members = [self._process.pid, *descendants(self._process.pid)]
            used = sum(map(resident, members))
            if used > self.limits.memory:  # forked children share pages: count each page once
                used = sum(map(proportional, members))
            self.peak_memory = max(self.peak_memory, used)
            if used > self.limits.memory:
                self.killed_for_memory = True
                self.kill()
                return
            time.sleep(0.05)


def start(
    room: Room,
    limits: Limits,
    slot: int,
    *python: str,
    pass_fds: tuple[int, ...] = (),
    stderr: int = subprocess.PIPE,
) -> subprocess.Popen:
    """Start a box that runs ``python``; `slot` numbers boxes that run side by side."""
    with _filter_of_calls(room) as descriptor:
        if room.sandbox == "none":
            arguments, environment = [*_limited(limits), *python], _environment(room.folder)
        else:
            arguments = command(room, limits, slot, *python, filter_descriptor=descriptor)
            environment = {}
        return subprocess.Popen(
            arguments,
            env=environment,
            pass_fds=pass_fds if descriptor is None else (*pass_fds, descriptor),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=stderr,
            start_new_session=True,
            cwd=room.folder,
        )


@contextlib.contextmanager
def _filter_of_calls(room: Room) -> Iterator[int | None]:
    """A descriptor from which bubblewrap reads the filter of system calls; None without one."""
    calls = program() if room.sandbox == "bubblewrap" else None
    if calls is None:
        yield None
        return
    read, write = os.pipe()
    try:
        os.write(write, calls)  # far below what a pipe holds
        os.close(write)
        yield read
    finally:
        os.close(read)


def command(
    room: Room, limits: Limits, slot: int, *python: str, filter_descriptor: int | None = None
) -> list[str]:
    """The command line of a box with bubblewrap."""
    limited = [*_limited(limits), *python]
    as_root = os.geteuid() == 0
    bubblewrap = ["bwrap", "--unshare-pid", "--unshare-net", "--unshare-ipc", "--unshare-uts"]
    bubblewrap += ["--die-with-parent", "--new-session", "--as-pid-1", "--cap-drop", "ALL"]
    if filter_descriptor is not None:
        bubblewrap += ["--seccomp", str(filter_descriptor)]
    if as_root:
        # Root's own folders may be closed to others, so bubblewrap binds what is needed while it
        # is root; the submission's process then becomes a user of its own, without capabilities.
        bubblewrap += ["--cap-add", "CAP_SETUID", "--cap-add", "CAP_SETGID"]
        user = str(FIRST_USER + slot)
        limited = [
            *["setpriv", "--reuid", user, "--regid", user, "--clear-groups"],
            *["--no-new-privs", "--bounding-set=-all", "--inh-caps=-all"],
            *limited,
        ]
    else:
        bubblewrap += ["--unshare-user", "--disable-userns"]
    for link in ("bin", "sbin", "lib", "lib32", "lib64"):
        path = Path("/", link)
        if path.is_symlink():
            bubblewrap += ["--symlink", os.readlink(path), str(path)]
        elif path.exists():
            bubblewrap += ["--ro-bind", str(path), str(path)]
    size = str(limits.scratch)
    bubblewrap += ["--proc", "/proc", "--dev", "/dev", "--size", size, "--perms", "1777"]
    bubblewrap += ["--tmpfs", "/dev/shm", "--remount-ro", "/dev"]
    bubblewrap += ["--size", size, "--perms", "1777", "--tmpfs", "/tmp"]
    bubblewrap += ["--size", size, "--perms", "0777", "--tmpfs", "/home"]
    made: set[Path] = set()
    for path in _system_paths():
        bubblewrap += [*_parents(path, made), "--ro-bind", str(path), str(path)]
    for installed in _installed_copies():
        bubblewrap += ["--tmpfs", str(installed), "--remount-ro", str(installed)]
    bubblewrap += ["--perms", "0755", "--dir", "/course"]
    for part in ("course_lib", "fonts"):
        bubblewrap += ["--ro-bind", str(room.folder / part), f"/course/{part}"]
    bubblewrap += ["--remount-ro", "/", "--chdir", "/home"]
    for name, value in _environment(Path("/course")).items():
        bubblewrap += ["--setenv", name, value]
    return ["/usr/bin/env", "-i", *bubblewrap, *limited]


def require_hidden(*paths: Path) -> None:
    """Require that a box cannot see `paths`: references, submissions, records.

    Raises:
        SandboxError: one lies in a folder that every box reads, such as ``/usr``.
    """
    for path in paths:
        place = path.resolve()
        for shown in _system_paths():
            if place == shown or shown in place.parents:
                raise SandboxError(
                    f"{place} lies in {shown}, which submissions can read. Move it elsewhere, for "
                    f"instance below /home or /srv, and call the command again."
                )


def descendants(process: int) -> list[int]:
    """The process numbers of all children, grandchildren and so on."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError, IndexError, ValueError):
                # The name in parentheses may hold anything: read what stands behind the last one.
                parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
                children.setdefault(parent, []).append(int(entry.name))
    found, todo = [], [process]
    while todo:
        new = children.get(todo.pop(), [])
        found += new
        todo += new
    return found


def resident(process: int) -> int:
    """Bytes of memory that a process holds; 0 if it is gone."""
    try:
        pages = int(Path(f"/proc/{process}/statm").read_text().split()[1])
    except (OSError, IndexError):
        return 0
    return pages * os.sysconf("SC_PAGE_SIZE")


def proportional(process: int) -> int:
    """Bytes of memory that a process holds, shared pages divided among those that share them."""
    try:
        lines = Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()
        return 1024 * sum(int(line.split()[1]) for line in lines if line.startswith("Pss:"))
    except (OSError, ValueError, IndexError):
        return resident(process)


def _limited(limits: Limits) -> list[str]:
    """The interpreter under its limits."""
    return [
        "prlimit",
        f"--nproc={limits.processes}",
        f"--data={limits.memory}",
        f"--fsize={limits.scratch}",
        "--nofile=512",
        "--core=0",
        *(sys.executable, "-s", "-B"),
    ]


def _environment(course: Path) -> dict[str, str]:
    scratch = "/tmp"
    return {
        "PATH": "/usr/bin:/bin",
        "HOME": "/home",
        "USER": "student",
        "LANG": "C.UTF-8",
        "PYTHONPATH": str(course),
        "PYTHONHASHSEED": "0",
        "PYTHONUNBUFFERED": "1",
        "FONT_LISTS": str(course / "fonts"),
        "MPLCONFIGDIR": f"{scratch}/matplotlib",
        "MPLBACKEND": "Agg",
        "IPYTHONDIR": f"{scratch}/ipython",
        "OMP_NUM_THREADS": "1",
        "OPENBLAS_NUM_THREADS": "1",
        "TQDM_MININTERVAL": "3600",  # a disabled bar would lack what a notebook may ask of it
    }


def _system_paths() -> list[Path]:
    """What Python needs to run, and no more: the system's programs, this interpreter, its packages."""
    wanted = [
        *map(Path, ("/usr", "/etc/ld.so.cache", "/etc/alternatives")),
        *map(Path, {sys.prefix, sys.base_prefix, *site.getsitepackages()}),
    ]
    present = sorted({p for p in wanted if p.exists()}, key=lambda p: len(p.parts))
    return [p for p in present if not any(q in p.parents for q in present)]


def _installed_copies() -> list[Path]:
    """Copies of the library among the installed packages: hidden, since they hold the solutions.

    Those of every interpreter that a box sees, not of this one alone: an environment's own packages lie
    beside those of the interpreter that it was made with.
    """
    roots = {Path(sys.prefix), Path(sys.base_prefix), Path("/usr"), Path("/usr/local")}
    found = {p for root in roots for p in root.glob("lib*/python3*/*-packages/course_lib")}
    found |= {Path(folder, "course_lib") for folder in site.getsitepackages()}
    return sorted(p for p in found if p.is_dir())


def _parents(path: Path, made: set[Path]) -> list[str]:
    """Options that make a mount's parent folders, open to be passed through by every user."""
    options = []
    for parent in reversed(path.parents[:-1]):
        if parent not in made:
            made.add(parent)
            options += ["--perms", "0755", "--dir", str(parent)]
    return options


def _matplotlib_cache() -> str:
    import matplotlib

    return matplotlib.get_cachedir()


def _require_working(made: Room) -> None:
    test = start(made, Limits(), 0, "-c", "print('works')")
    output, errors = (part.decode(errors="replace").strip() for part in test.communicate())
    if output != "works":
        raise SandboxError(NAMESPACES.format(error=errors or "no output"))
