"""The isolated process in which a submission runs.

With bubblewrap: no network, its own process table, a read-only system, an empty home of bounded
size, no view of other submissions, of the references or of the parts of `course_lib` that answer
questions. Limits hold for memory, processes, files and output.

Every box has a keeper (`course_lib.grading.keeper`), which kills and reaps the whole process
tree at the end, and when the grader dies, whatever kills it. No call of `Box` waits without end.
"""

import compileall
import contextlib
import os
import secrets
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
from course_lib.checking.presence import LIBRARY, STAND_IN
from course_lib.grading import control_group, keeper
from course_lib.grading.keeper import descendants
from course_lib.grading.system_calls import program
from course_lib.sandbox import wire

PREFIX = "course-lib-room-"
# Numbers that neither systemd nor the usual mappings of a directory service give to anybody; and
# what is left where the system has only the first 65536, as in most containers of a user's own.
USERS = (range(2_000_200_001, 2_147_352_576), range(20_000, 60_000))
FILE_BYTES = 2048  # of kernel memory for a file in memory, its name included, without its content
BOOT_SECONDS = 60
END_SECONDS = 15  # until `close` gives up waiting for processes that cannot be killed
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
    groups: Path | None = None  # the control group in which each box gets its own
    # The kernel counts the processes of a user, so the users of two runs must not be the same.
    first_user: int = field(default_factory=lambda: secrets.randbelow(2**31))

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
    for left in Path(tempfile.gettempdir()).glob(f"{PREFIX}*"):
        keeper.remove_abandoned(left)  # by a run that was killed
    folder, lock = _locked_folder()
    try:
        _copy_library(folder / "course_lib")
        (folder / "fonts").mkdir()
        for fonts in Path(os.environ.get("MPLCONFIGDIR", _matplotlib_cache())).glob(
            "fontlist*.json"
        ):
            shutil.copy(fonts, folder / "fonts")
        folder.chmod(0o755)
        made = Room(folder, sandbox, groups=control_group.place())
        if sandbox == "bubblewrap":
            _require_working(made)
        yield made
    finally:
        keeper.remove(folder)
        os.close(lock)


def _locked_folder() -> tuple[Path, int]:
    """A new folder and its lock, which tells other runs that this one is alive."""
    while True:
        folder = Path(tempfile.mkdtemp(prefix=PREFIX))
        lock = keeper.locked(folder)
        if lock is not None:
            return folder, lock
        # Another run, on its way through what was left, has taken it for abandoned.


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
    shutil.copy(source / "sandbox" / "unchecked.py", folder / STAND_IN)
    compileall.compile_dir(folder, quiet=1)


class Box:
    """One isolated process, with a pipe each way. Use as a context manager."""

    def __init__(self, room: Room, limits: Limits, slot: int) -> None:
        self.limits = limits
        self._output = bytearray()
        self.peak_memory = 0
        self.killed_for_memory = False
        self._answered = False
        self._room = room
        self._scratch = Path(tempfile.mkdtemp(prefix="box-", dir=room.folder))
        self._group = room.groups and control_group.make(
            *(room.groups, f"{room.folder.name}-{self._scratch.name}"),
            *(limits.memory + 3 * limits.scratch, limits.processes),
        )
        request_read, self._requests = os.pipe()
        self._answers, answer_write = os.pipe()
        os.set_blocking(self._requests, False)
        os.set_blocking(self._answers, False)
        try:
            self._process = start(
                room,
                limits,
                slot,
                *("-m", "course_lib.sandbox.runner", str(request_read), str(answer_write)),
                pass_fds=(request_read, answer_write),
                stderr=subprocess.STDOUT,
                scratch=self._scratch,
                group=self._group,
            )
        finally:
            os.close(request_read)
            os.close(answer_write)
        self._threads = [
            threading.Thread(target=task, daemon=True) for task in (self._drain, self._watch)
        ]
        for thread in self._threads:
            thread.start()
        room.boxes.add(self)
        if room.stopped.is_set():  # asked after joining: a box is killed by `stop`, or here
            self.close()
            raise Stopped

    def __enter__(self) -> "Box":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def send(
        self,
        header: dict[str, Any],
        arrays: dict[str, np.ndarray] | None = None,
        *,
        deadline: float,
    ) -> None:
        """Send one message; raise `course_lib.sandbox.wire.Broken` if the box is dead.

        Raises:
            TimeoutError: the box has not read it before the deadline.
        """
        wire.send(self._requests, wire.pack(header, arrays or {}), deadline)

    def receive(self, deadline: float) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        """Receive one message; raise `TimeoutError` or `course_lib.sandbox.wire.Broken`."""
        message = wire.receive(self._answers, deadline, wire.ANSWER)
        self._answered = True
        return message

    @property
    def output(self) -> str:
        """The first part of what was printed."""
        return self._output.decode(errors="replace")

    def close(self) -> None:
        """Kill every process of the box, and wait until they are gone, `END_SECONDS` at most."""
        end = time.monotonic() + END_SECONDS
        self._room.boxes.discard(self)
        self.kill()
        try:
            self._process.wait(END_SECONDS)
        except subprocess.TimeoutExpired:  # something has stopped the keeper
            for member in (*reversed(descendants(self._process.pid)), self._process.pid):
                with contextlib.suppress(OSError):
                    os.kill(member, signal.SIGKILL)
        self._process.stdin.close()
        for descriptor in (self._requests, self._answers):
            with contextlib.suppress(OSError):
                os.close(descriptor)
        self._requests = self._answers = -1
        for thread in self._threads:
            thread.join(timeout=max(0.5, end - time.monotonic()))
        if not self._threads[0].is_alive():  # else it still waits for what holds the other end
            self._process.stdout.close()
        if self._group is not None:
            self.killed_for_memory |= control_group.memory_ran_out(self._group)
            keeper.remove_group(str(self._group))
        keeper.remove(self._scratch)

    def kill(self) -> None:
        """Tell the keeper to kill every process of the box."""
        with contextlib.suppress(OSError, ValueError):  # the keeper has ended, or the box is closed
            self._process.stdin.write(b"\n")

    def _drain(self) -> None:
        while part := self._process.stdout.read(2**16):
            self._output += part[: max(0, self.limits.output - len(self._output))]

    def _watch(self) -> None:
        """Kill the box when its processes together hold more memory than they may."""
        while self._process.poll() is None:
            members = descendants(self._process.pid)
            # The first is bubblewrap; until its first message the second may still be in the making,
            # and see this system.
            inside = members[1:2] if self._answered and self._room.sandbox != "none" else []
            kept = sum(map(kept_by_kernel, inside))
            used = kept + sum(map(held, members))
            if used > self.limits.memory:  # forked children share pages: count each page once
                used = kept + sum(map(proportional, members))
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
    scratch: Path | None = None,
    group: Path | None = None,
) -> subprocess.Popen:
    """Start a box that runs ``python``, under a keeper; a byte to its standard input ends it.

    Args:
        room: the shared files.
        limits: what the box may use.
        slot: number of the box among those of the room that run side by side.
        *python: arguments of the interpreter.
        pass_fds: descriptors that the box gets.
        stderr: as for `subprocess.Popen`.
        scratch: home and temporary folder of a box without bubblewrap; the room by default.
        group: the control group of the box.
    """
    scratch = scratch or room.folder
    with _filter_of_calls(room) as descriptor:
        if room.sandbox == "none":
            arguments = [*_limited(limits), *python]
            environment = _environment(room.folder, scratch, scratch)
        else:
            arguments = command(room, limits, slot, *python, filter_descriptor=descriptor)
            environment = {}
        kept = [sys.executable, "-I", "-S", keeper.__file__, str(room.folder), str(group or "")]
        return subprocess.Popen(
            [*kept, *arguments],
            env=environment,
            pass_fds=pass_fds if descriptor is None else (*pass_fds, descriptor),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=stderr,
            bufsize=0,
            start_new_session=True,
            cwd=scratch,
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
    user = _user(room.first_user + slot) if os.geteuid() == 0 else None
    bubblewrap = ["bwrap", "--unshare-pid", "--unshare-net", "--unshare-ipc", "--unshare-uts"]
    bubblewrap += ["--die-with-parent", "--new-session", "--as-pid-1", "--cap-drop", "ALL"]
    if filter_descriptor is not None:
        bubblewrap += ["--seccomp", str(filter_descriptor)]
    if user is not None:
        # Root's own folders may be closed to others, so bubblewrap binds what is needed while it
        # is root; the submission's process then becomes a user of its own, without capabilities.
        bubblewrap += ["--cap-add", "CAP_SETUID", "--cap-add", "CAP_SETGID"]
        limited = [
            *["setpriv", "--reuid", str(user), "--regid", str(user), "--clear-groups"],
            *["--no-new-privs", "--bounding-set=-all", "--inh-caps=-all", "--pdeathsig", "KILL"],
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
    for name, value in _environment(Path("/course"), Path("/home"), Path("/tmp")).items():
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


def held(process: int) -> int:
    """Bytes of memory that a process holds, in swap too, and its page tables; 0 if it is gone."""
    return _kibibytes(Path(f"/proc/{process}/status"), "VmRSS:", "VmPTE:", "VmSwap:")


def proportional(process: int) -> int:
    """Bytes that a process holds, shared pages divided among those that share them."""
    shares = _kibibytes(Path(f"/proc/{process}/smaps_rollup"), "Pss:", "SwapPss:")
    tables = _kibibytes(Path(f"/proc/{process}/status"), "VmPTE:")
    return shares + tables if shares else held(process)


def kept_by_kernel(process: int) -> int:
    """At most so many bytes does the kernel keep for sockets and files of the box of a process."""
    own = Path(f"/proc/{process}")
    kept = 0
    with contextlib.suppress(OSError, ValueError, IndexError):
        # "sockets: used 4" of the box's own network; each can fill its buffer, and one message more.
        sockets = int((own / "net" / "sockstat").read_text().split()[2])
        kept += sockets * 2 * int(Path("/proc/sys/net/core/wmem_default").read_text())
    for folder in ("tmp", "home", "dev/shm"):
        with contextlib.suppress(OSError):
            files = os.statvfs(own / "root" / folder)
            kept += (files.f_files - files.f_ffree) * FILE_BYTES
    return kept


def _kibibytes(path: Path, *names: str) -> int:
    """The sum of the named lines, in bytes; 0 if the process is gone."""
    try:
        lines = path.read_text(errors="replace").splitlines()
        return 1024 * sum(int(line.split()[1]) for line in lines if line.startswith(names))
    except (OSError, ValueError, IndexError):
        return 0


def _user(number: int) -> int | None:
    """One of the users that are nobody's; ``None`` where this system has none of them."""
    for users in USERS:
        if all(_mapped(users, Path(f"/proc/self/{which}_map")) for which in ("uid", "gid")):
            return users[number % len(users)]
    return None


def _mapped(users: range, table: Path) -> bool:
    rows = [tuple(map(int, line.split())) for line in table.read_text().splitlines()]
    return any(first <= users[0] and users[-1] < first + count for first, _, count in rows)


def _limited(limits: Limits) -> list[str]:
    """The interpreter under its limits."""
    return [
        "prlimit",
        f"--nproc={limits.processes}",
        f"--data={limits.memory}",
        f"--fsize={limits.scratch}",
        "--nofile=512",
        "--sigpending=1024",  # timers
        "--msgqueue=0",
        "--core=0",
        *(sys.executable, "-s", "-B"),
    ]


def _environment(course: Path, home: Path, scratch: Path) -> dict[str, str]:
    return {
        "PATH": "/usr/bin:/bin",
        "HOME": str(home),
        "TMPDIR": str(scratch),
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
        "TORCHDYNAMO_DISABLE": "1",  # a compiled function costs minutes, and computes the same
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
    lifeline, test.stdin = test.stdin, None  # `communicate` would close it
    try:
        answer = test.communicate(timeout=BOOT_SECONDS)
    except subprocess.TimeoutExpired:
        answer = (b"", b"no answer")
    finally:
        with contextlib.suppress(OSError), lifeline:
            lifeline.write(b"\n")
    output, errors = (part.decode(errors="replace").strip() for part in answer)
    if output != "works":
        raise SandboxError(NAMESPACES.format(error=errors or "no output"))
