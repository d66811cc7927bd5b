"""A control group for each box, where this process may make one: the kernel then counts memory.

What the processes hold together, their files in memory and what the kernel keeps for them (buffers
of sockets, files without content) all count, and nothing passes the limit even for a moment. Systems
with version 2 of control groups let a user have groups below the user's own sessions; in most
containers there is none, and the watch of the box alone keeps the limit.
"""

import contextlib
import os
from pathlib import Path

ROOT = Path("/sys/fs/cgroup")
ALLOWANCE = 64 * 2**20  # for bubblewrap, and for what the kernel keeps of the processes themselves


def place(root: Path = ROOT, own: Path = Path("/proc/self/cgroup")) -> Path | None:
    """The nearest group in which this process may make others with a memory limit, if any."""
    with contextlib.suppress(OSError):
        for line in own.read_text().splitlines():
            if line.startswith("0::/"):
                here = Path(os.path.normpath(f"{root}/{line[4:]}"))
                for folder in (here, *here.parents):
                    if root in (folder, *folder.parents) and _delegated(folder):
                        return folder
    return None


def make(inside: Path, name: str, memory: int, processes: int) -> Path | None:
    """Make a group that may hold `memory` bytes and `processes`; ``None`` if the system refuses.

    The caller removes it.
    """
    group = inside / name
    try:
        group.mkdir()
        (group / "memory.max").write_text(str(memory + ALLOWANCE))
    except OSError:
        with contextlib.suppress(OSError):
            group.rmdir()
        return None
    for limit, value in (
        ("memory.swap.max", "0"),
        ("memory.oom.group", "1"),  # a box dies as a whole
        ("pids.max", str(processes + 2)),  # bubblewrap's own come on top
    ):
        with contextlib.suppress(OSError):  # not every system has each
            (group / limit).write_text(value)
    return group


def memory_ran_out(group: Path) -> bool:
    """Whether the kernel has killed a process of the group because its memory was used up."""
    with contextlib.suppress(OSError):
        for line in (group / "memory.events").read_text().splitlines():
            name, _, count = line.partition(" ")
            if name == "oom_kill" and count != "0":
                return True
    return False


def _delegated(folder: Path) -> bool:
    try:
        controllers = (folder / "cgroup.subtree_control").read_text().split()
    except OSError:
        return False
    writable = all(os.access(path, os.W_OK) for path in (folder, folder / "cgroup.procs"))
    return "memory" in controllers and writable
