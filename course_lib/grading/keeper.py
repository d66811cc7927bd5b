"""Runs one command, and ends all that it started when it ends or when the grader is gone.

A process that is killed cannot clean up, and the kernel's own help ("die with the parent") is
lost where a process becomes another user, and can be switched off by any process. So between the
grader and each box stands this small program:

    python keeper.py FOLDER GROUP COMMAND...

Its standard input is a pipe that the grader holds. A byte means "end it"; the end of the file
means that the grader is dead, whatever killed it: then the grader's FOLDER is removed, too. GROUP
is a control group in which the command runs, or nothing. Orphans of the command become children of
this process, so none is lost. It imports nothing of the library, and starts in a few milliseconds.
"""

import contextlib
import fcntl
import os
import select
import signal
import sys
import time

CHILD_SUBREAPER = 36  # of prctl(2)
PATIENCE = 10  # seconds until a process that does not die (in a fault of a driver) is left behind


def main(folder: str, group: str, *command: str) -> int:
    """Run `command` to its end, or to the grader's word or death; return its exit status."""
    import ctypes

    ctypes.CDLL(None).prctl(CHILD_SUBREAPER, 1, 0, 0, 0)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    grader = os.getppid()
    child = os.fork()
    if child == 0:
        _become(group, command)
    os.closerange(3, 2**20)  # the command's pipes: their ends must not stay open here
    woken, wake = os.pipe()
    os.set_blocking(woken, False)
    os.set_blocking(wake, False)
    signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
    events = select.poll()
    events.register(0, select.POLLIN)
    events.register(woken, select.POLLIN)
    status, word = None, None
    while (status := _reaped().get(child)) is None and word is None and os.getppid() == grader:
        # A signal between the question and this wait is in the pipe. The second is for a grader
        # that left a copy of its pipe to a child: its death is then seen by who the parent is.
        if any(descriptor == 0 for descriptor, _ in events.poll(1000)):
            word = os.read(0, 1)
        _emptied(woken)
    end_children(group)
    if word == b"" or os.getppid() != grader:
        remove_abandoned(folder, patience=2)
        remove_group(group)
    return 0 if status is None else os.waitstatus_to_exitcode(status) % 256


def _become(group: str, command: tuple[str, ...]) -> None:
    """Become the command, in its group, with nothing to read; never return."""
    try:
        os.setsid()  # a signal to its own group must not reach the keeper
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        for ignored_by_python in (signal.SIGPIPE, signal.SIGXFSZ):
            signal.signal(ignored_by_python, signal.SIG_DFL)
        with contextlib.suppress(OSError):  # where memory is short, the box goes before the grader
            _write("/proc/self/oom_score_adj", "1000")
        if group:
            _write(f"{group}/cgroup.procs", "0")
        os.execvp(command[0], command)
    except BaseException as error:
        os.write(2, f"{command[0]}: {error}\n".encode())
    finally:
        os._exit(127)


def end_children(group: str) -> None:
    """Kill all processes below this one, and what they start meanwhile, and reap them."""
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        if group:
            with contextlib.suppress(OSError):
                _write(f"{group}/cgroup.kill", "1")
        for member in reversed(descendants(os.getpid())):
            with contextlib.suppress(OSError):
                os.kill(member, signal.SIGKILL)
        _reaped()
        try:
            os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        except ChildProcessError:
            return
        time.sleep(0.005)


def descendants(process: int) -> list[int]:
    """The process numbers of all children, grandchildren and so on."""
    children: dict[int, list[int]] = {}
    for name in os.listdir("/proc"):
        if name.isdigit():
            with contextlib.suppress(OSError, IndexError, ValueError):
                # The name in parentheses may hold anything: read what stands behind the last one.
                with open(f"/proc/{name}/stat", "rb") as stat:
                    parent = int(stat.read().rpartition(b")")[2].split()[1])
                children.setdefault(parent, []).append(int(name))
    found, todo = [], [process]
    while todo:
        new = children.get(todo.pop(), [])
        found += new
        todo += new
    return found


def locked(folder: str | os.PathLike[str]) -> int | None:
    """Lock a folder for as long as the returned descriptor is open; ``None`` if another has it.

    The lock goes with the process that holds it, however that ends.
    """
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    except OSError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # Another may have removed the folder between its opening and its lock.
        if os.path.samestat(os.fstat(descriptor), os.stat(folder, follow_symlinks=False)):
            return descriptor
    except OSError:
        pass
    os.close(descriptor)
    return None


def remove_abandoned(folder: str | os.PathLike[str], patience: float = 0) -> None:
    """Remove this user's folder if the process that had locked it is gone, within `patience` s."""
    end = time.monotonic() + patience
    while (descriptor := locked(folder)) is None:
        if time.monotonic() >= end or not os.path.lexists(folder):
            return
        time.sleep(0.02)
    try:
        if os.fstat(descriptor).st_uid == os.geteuid():
            remove(folder)
    finally:
        os.close(descriptor)


def remove(folder: str | os.PathLike[str]) -> None:
    """Remove a folder with all that a submission may have made in it; no link is followed.

    Programs do it, because Python's own function ends at a thousand folders in one another.
    """
    with contextlib.suppress(OSError):
        return os.rmdir(folder)
    import subprocess  # seldom needed by a keeper, whose start is waited for

    subprocess.run(["rm", "-rf", "--", folder], check=False, stderr=subprocess.DEVNULL)
    if os.path.lexists(folder):  # a folder in it that its owner may not open
        chmod = ["chmod", "-R", "u+rwx", "--", folder]
        subprocess.run(chmod, check=False, stderr=subprocess.DEVNULL)
        subprocess.run(["rm", "-rf", "--", folder], check=False, stderr=subprocess.DEVNULL)


def remove_group(group: str) -> None:
    """Remove a control group, once the last of its processes is gone."""
    for _ in range(50 if group else 0):
        with contextlib.suppress(OSError):
            os.rmdir(group)
        if not os.path.exists(group):
            return
        time.sleep(0.02)


def _write(path: str, text: str) -> None:
    with open(path, "w") as file:
        file.write(text)


def _reaped() -> dict[int, int]:
    """Process numbers and statuses of the children that have ended."""
    found = {}
    with contextlib.suppress(ChildProcessError):
        while (ended := os.waitpid(-1, os.WNOHANG))[0]:
            found[ended[0]] = ended[1]
    return found


def _emptied(descriptor: int) -> None:
    with contextlib.suppress(BlockingIOError):
        while os.read(descriptor, 64):
            pass


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
