"""What a box leaves behind (nothing), whatever ends the grader, and what the kernel keeps for it."""

import errno
import fcntl
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import nbformat
import numpy as np
import pytest

from course_lib.grading import box, control_group, keeper
from course_lib.grading.box import Box, Limits, Room
from course_lib.grading.judge import GradingRecord, Lost, Session, grade
from course_lib.grading.keeper import descendants
from course_lib.grading.question import load_assignment

from .course import make

ROOT = Path(__file__).parents[2]
MINI = load_assignment("mini", Path(__file__).parent / "course")
LIMITS = Limits(
    cell_seconds=60, total_seconds=200, memory=900 * 2**20, scratch=32 * 2**20, processes=40
)
# Children that leave the session, become orphans, and switch off the signal of a parent's death;
# the number is this process's own, since tests run side by side.
ORPHAN = ["sleep", str(97_000_000 + os.getpid())]
LEAVES_CHILDREN = f"""
import ctypes, os, time
def own():
    ctypes.CDLL(None).prctl(1, 0, 0, 0, 0)
    os.setsid()
for _ in range(2):
    if os.fork() == 0:
        own()
        if os.fork() == 0:
            own()
            os.execvp("sleep", {ORPHAN})
        os._exit(0)
ctypes.CDLL(None).prctl(1, 0, 0, 0, 0)
"""


def orphans():
    """The processes that `LEAVES_CHILDREN` has left."""
    found = []
    for process in Path("/proc").iterdir():
        if process.name.isdigit():
            try:
                command = (process / "cmdline").read_text().split("\0")[:-1]
            except OSError:
                continue
            found += [process.name] if command == ORPHAN else []
    return found


def alive(process):
    try:
        stat = Path(f"/proc/{process}/stat").read_text()
    except OSError:
        return False
    return stat.rpartition(")")[2].split()[0] not in "ZX"


def until(condition, seconds=60):
    deadline = time.monotonic() + seconds
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.05)
    return condition()


def kept(folder, *command, group=""):
    arguments = [sys.executable, "-I", "-S", keeper.__file__, str(folder), str(group), *command]
    return subprocess.Popen(
        arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True
    )


def test_a_keeper_passes_on_what_its_command_says_and_returns(tmp_path):
    running = kept(
        tmp_path, sys.executable, "-c", "print(input() if 0 else 7); raise SystemExit(3)"
    )
    assert running.stdout.read() == b"7\n"
    assert running.wait(60) == 3
    assert tmp_path.exists()
    assert kept(tmp_path, "/no/such/program").wait(60) == 127


@pytest.mark.parametrize("word", ["a byte", "its end", "the end of the command"])
def test_a_keeper_leaves_no_process_behind(tmp_path, word):
    """Orphans in sessions of their own included; the folder goes only if the grader is dead."""
    folder = tmp_path / "room"
    folder.mkdir()
    lock = keeper.locked(folder)
    wait = "3600" if word != "the end of the command" else "2"
    cell = f"{LEAVES_CHILDREN}\ntime.sleep({wait})"
    running = kept(folder, sys.executable, "-c", cell)
    assert until(lambda: len(orphans()) == 2)
    members = descendants(running.pid)
    if word == "a byte":
        running.stdin.write(b"\n")
        running.stdin.flush()
    elif word == "its end":  # as when this process dies, which lets go of its lock as well
        os.close(lock)
        running.stdin.close()
    running.wait(60)
    assert not orphans()
    assert not any(map(alive, members))
    assert folder.exists() == (word != "its end")


GRADER = """
import sys, nbformat
from pathlib import Path
from course_lib.grading.box import Limits, room
from course_lib.grading.judge import grade
from course_lib.grading.question import load_assignment
mini = load_assignment("mini", Path("tests/grading/course"))
with room(sys.argv[1]) as shared:
    print(shared.folder, flush=True)
    submission = Path(sys.argv[2]).read_bytes()
    grade(submission, "a", mini, secret="s", room=shared, limits=Limits())
"""


@pytest.mark.isolation
@pytest.mark.parametrize("sandbox", ["bubblewrap", "none"])
def test_nothing_outlives_a_grader_that_is_killed(sandbox, tmp_path, shared):
    path = tmp_path / "a.ipynb"
    path.write_text(nbformat.writes(make.notebook(LEAVES_CHILDREN + "time.sleep(3600)")))
    command = [sys.executable, "-c", GRADER, sandbox, str(path)]
    running = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT)
    folder = Path(running.stdout.readline().strip())
    assert folder.is_dir()
    assert until(lambda: len(orphans()) == 2)
    members = descendants(running.pid)
    running.kill()
    running.wait()
    assert until(lambda: not orphans() and not any(map(alive, members)), 30)
    assert until(lambda: not folder.exists(), 30)


@pytest.mark.parametrize("sandbox", ["none"])
def test_a_room_is_removed_with_all_that_a_box_made_in_it(sandbox):
    with box.room(sandbox) as made:
        running = box.start(made, LIMITS, 0, "-c", "open('left', 'w'); print(open('left').name)")
        assert running.stdout.readline() == b"left\n"
        running.wait(60)
        running.stdin.close()
        assert (made.folder / "left").exists()
    assert not made.folder.exists()


def test_what_a_killed_run_left_is_removed_by_the_next_and_a_living_one_is_not(
    tmp_path, monkeypatch
):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    left = tmp_path / f"{box.PREFIX}left"
    (left / "course_lib").mkdir(parents=True)
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "work").touch()
    (left / "link").symlink_to(outside)
    (tmp_path / f"{box.PREFIX}link").symlink_to(outside)
    (tmp_path / "other").mkdir()
    with box.room("none") as living:
        assert not left.exists()
        with box.room("none") as second:
            assert living.folder.exists()
            assert second.folder.exists()
        assert (living.folder / "course_lib").exists()
    assert {path.name for path in tmp_path.iterdir()} == {
        *("outside", "other", f"{box.PREFIX}link"),
    }
    assert (outside / "work").exists()


def test_a_room_is_not_taken_for_abandoned_between_its_making_and_its_lock(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    real, seen = fcntl.flock, []

    def late(descriptor, operation):
        """Another run comes first, and removes what nobody has locked."""
        if not seen:
            seen.extend(tmp_path.iterdir())
            for folder in seen:
                keeper.remove_abandoned(folder)
        real(descriptor, operation)

    monkeypatch.setattr(fcntl, "flock", late)
    folder, lock = box._locked_folder()
    assert seen
    assert seen != [folder]
    assert folder.is_dir()
    assert keeper.locked(folder) is None
    os.close(lock)


def test_folders_that_are_made_to_stay_are_removed(tmp_path):
    """Closed to their owner, or deeper than a path or a recursion can go."""
    closed = tmp_path / "left" / "closed"
    (closed / "in").mkdir(parents=True)
    closed.chmod(0)
    here = os.open(tmp_path / "left", os.O_RDONLY)
    for _ in range(1500):
        os.mkdir("d", dir_fd=here)
        below = os.open("d", os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = below
    os.close(here)
    keeper.remove(tmp_path / "left")
    assert not (tmp_path / "left").exists()


def options(arguments, name):
    return [arguments[k + 1] for k, argument in enumerate(arguments) if argument == name]


def test_as_root_no_two_runs_share_a_user(monkeypatch):
    """The kernel's limit of processes is one for each user, in whatever run."""
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    users = set()
    for _ in range(50):
        run = Room(Path("/nowhere"), "bubblewrap")
        for slot in range(4):
            (user,) = options(box.command(run, LIMITS, slot, "-c", "pass"), "--reuid")
            (group,) = options(box.command(run, LIMITS, slot, "-c", "pass"), "--regid")
            assert user == group
            users.add(int(user))
    assert len(users) == 200
    assert min(users) >= 20_000


@pytest.mark.parametrize(
    ("table", "given"),
    [
        ("0 0 4294967295\n", range(2_000_200_001, 2_147_352_576)),
        ("0 1000 1\n1 100000 65536\n", range(20_000, 60_000)),
        ("0 1000 1\n", None),
    ],
)
def test_users_are_those_that_the_system_has(tmp_path, table, given, monkeypatch):
    path = tmp_path / "map"
    path.write_text(table)
    monkeypatch.setattr(box, "_mapped", lambda users, _, real=box._mapped: real(users, path))
    chosen = {box._user(k) for k in range(0, 2**31, 10**8)}
    assert chosen <= set(given) if given and len(given) < 10**6 else True
    assert all(user in given for user in chosen) if given else chosen == {None}


def delegated(root, controllers="cpu memory pids"):
    for name in ("user", "user/session", "user/session/scope"):
        (root / name).mkdir()
        (root / name / "cgroup.procs").touch()
        (root / name / "cgroup.subtree_control").write_text("")
    (root / "user" / "cgroup.subtree_control").write_text(controllers)
    own = root / "own"
    own.write_text("0::/user/session/scope\n")
    return own


def test_a_control_group_is_made_in_the_nearest_place_that_has_memory_limits(tmp_path):
    own = delegated(tmp_path)
    place = control_group.place(tmp_path, own)
    assert place == tmp_path / "user"
    group = control_group.make(place, "box", 10**9, 40)
    assert group == tmp_path / "user" / "box"
    assert int((group / "memory.max").read_text()) == 10**9 + control_group.ALLOWANCE
    assert (group / "memory.swap.max").read_text() == "0"
    assert (group / "pids.max").read_text() == "42"
    (group / "memory.events").write_text("low 0\noom 1\noom_kill 0\n")
    assert not control_group.memory_ran_out(group)
    (group / "memory.events").write_text("low 0\noom 1\noom_kill 3\n")
    assert control_group.memory_ran_out(group)
    assert control_group.make(place, "box", 10**9, 40) is None  # there is one of this name


@pytest.mark.parametrize("text", ["0::/../../elsewhere\n", "4:memory:/user\n", "", "0::/gone\n"])
def test_without_a_delegated_group_there_is_none(tmp_path, text):
    own = delegated(tmp_path)
    own.write_text(text)
    assert control_group.place(tmp_path, own) is None
    assert control_group.place(tmp_path, tmp_path / "missing") is None


def test_without_the_memory_controller_there_is_no_group(tmp_path):
    assert control_group.place(tmp_path, delegated(tmp_path, "cpu pids")) is None


def test_a_box_runs_in_its_group(tmp_path):
    """The group is a folder of files here: what matters is who is put into it, and when."""
    group = tmp_path / "group"
    group.mkdir()
    assert kept(tmp_path, "true", group=group).wait(60) == 0
    assert (group / "cgroup.procs").read_text() == "0"
    assert (group / "cgroup.kill").read_text() == "1"


PROBE = """
import ctypes, errno, os, socket
c = ctypes.CDLL(None, use_errno=True)
def fault(number, *arguments):
    ctypes.set_errno(0)
    return errno.errorcode.get(ctypes.get_errno(), "none") if c.syscall(number, *arguments) < 0 else "works"
"""


def answered(shared, cell, limits=LIMITS):
    """What one cell prints in a box."""
    record = GradingRecord("a", "")
    with Session([PROBE + cell], shared, limits, 0, record) as session:
        session.ready()
    assert record.errors == []
    return record


@pytest.mark.isolation
def test_no_socket_but_those_inside_the_box_can_be_made(shared):
    record = answered(
        shared,
        """
for family in range(1, 50):
    for make in (socket.socket, socket.socketpair):
        for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM, socket.SOCK_RAW, socket.SOCK_SEQPACKET):
            try:
                make(family, kind); print("made", family)
            except OSError as error:
                if family > 1: print(error.errno)
a, b = socket.socketpair()
for option in (socket.SO_SNDBUF, socket.SO_RCVBUF):
    try:
        a.setsockopt(socket.SOL_SOCKET, option, 2**20); print("enlarged")
    except PermissionError:
        pass
import asyncio, multiprocessing
await asyncio.sleep(0)
with multiprocessing.Pool(1) as pool: print("pool", pool.map(abs, [-1]))
import torch
from torch.utils.data import DataLoader
print("loader", sum(len(x) for x in DataLoader(torch.zeros(4, 1), num_workers=1)))
""",
    )
    said = record.output.splitlines()
    assert "pool [1]" in said
    assert "loader 4" in said
    assert set(said) - {"pool [1]", "loader 4", "made 1"} == {str(errno.EAFNOSUPPORT)}


@pytest.mark.isolation
def test_calls_that_no_notebook_needs_are_refused(shared):
    from course_lib.grading.system_calls import CLONE3, REFUSED, UNKNOWN

    machine = os.uname().machine
    record = answered(
        shared,
        f"""
for number in {sorted(REFUSED[machine].values())}: print(fault(number, 0, 0, 0, 0, 0, 0))
print([fault(n, 0, 0, 0, 0, 0, 0) for n in ({CLONE3}, {UNKNOWN}, {UNKNOWN + 1}, 999)])
""",
    )
    *refused, unknown = record.output.splitlines()
    assert refused == ["EPERM"] * len(REFUSED[machine])
    assert unknown == str(["ENOSYS"] * 4)


# What takes memory that no process holds: it counts towards the limit. Each takes some 200 MB a second:
# how much a faster one gets between two looks at the box depends on the machine.
HOARDS = {
    "buffers of sockets": """
import os, socket, time
for _ in range(20):
    if os.fork() == 0:
        pairs = []
        try:
            while True:
                time.sleep(0.1)
                pairs.append(socket.socketpair())
                for end in pairs[-1]:
                    end.setblocking(False)
                    try:
                        while True: end.send(bytes(2**16))
                    except BlockingIOError: pass
        except OSError: pass
        time.sleep(3600)
time.sleep(3600)
""",
    "files without content": """
import os, time
k = 0
while True:
    if k % 1000 == 0: time.sleep(0.02)
    for folder in ("/tmp", "/home", "/dev/shm"):
        os.close(os.open(f"{folder}/{k}", os.O_CREAT)); k += 1
""",
    "pages that are only read": """
import mmap, time
kept = []
while True:
    time.sleep(0.05)
    kept.append(mmap.mmap(-1, 2**33, flags=mmap.MAP_PRIVATE | 0x4000, prot=mmap.PROT_READ))
    for place in range(0, 2**33, 2**21): kept[-1][place]
""",
}


@pytest.mark.isolation
@pytest.mark.parametrize("hoard", HOARDS)
def test_memory_that_the_kernel_keeps_counts(shared, hoard):
    record = GradingRecord("a", "")
    with Session([HOARDS[hoard], "x = 1"], shared, LIMITS, 0, record) as session:
        session.ready()
    assert [(number, "of memory" in text) for number, text in record.errors] == [(0, True)]
    assert record.memory <= 1.5 * LIMITS.memory


@pytest.mark.isolation
def test_a_box_that_stops_reading_or_floods_ends_with_its_time(shared):
    """The runner's own functions are replaced, and the pipe is made as small as it can be."""
    stops = """
import fcntl, os, time
from course_lib.sandbox import wire
for number in range(3, 10):
    try: fcntl.fcntl(number, 1031, 4096)
    except OSError: pass
wire.receive = lambda *a: time.sleep(3600)
"""
    limits = Limits(cell_seconds=30, total_seconds=60, memory=LIMITS.memory)
    record = GradingRecord("a", "")
    with Session([stops], shared, limits, 0, record) as session:
        session.ready()
        with pytest.raises(Lost, match="no answer within the time limit"):
            session.ask("f", (np.zeros(2**20),), time.monotonic() - 4)
    floods = """
import os, signal
from course_lib.sandbox import wire
signal.setitimer(signal.ITIMER_REAL, 0)
while True: wire.send(sys_answers, wire.pack({"cell": 2}, {}))
""".replace("sys_answers", "int(__import__('sys').argv[2])")
    submission = nbformat.writes(make.notebook(floods)).encode()
    record = grade(submission, "a", MINI, secret="s", room=shared, limits=limits)
    points = {verdict.name: verdict.points for verdict in record.verdicts}
    assert points == {"first": 1, "target": 0, "last": 1, "words": None}


@pytest.mark.isolation
def test_a_box_without_bubblewrap_has_a_folder_that_goes_with_it():
    with box.room("none") as made, Box(made, LIMITS, 0) as running:
        running.receive(time.monotonic() + 60)
        running.send(
            {"cells": ["open('left', 'w').close()"], "skip": [], "cell_seconds": 30},
            deadline=time.monotonic() + 60,
        )
        while running.receive(time.monotonic() + 60)[0].get("ready") != "notebook":
            pass
        (scratch,) = made.folder.glob("box-*")
        assert (scratch / "left").exists()
        running.close()
        assert not scratch.exists()
        assert not made.boxes


@pytest.mark.isolation
def test_a_keeper_that_is_stopped_or_killed_delays_no_end(shared, monkeypatch):
    monkeypatch.setattr(box, "END_SECONDS", 2)
    for sent in (signal.SIGSTOP, signal.SIGKILL):
        with Box(shared, LIMITS, 0) as running:
            running.receive(time.monotonic() + 60)
            members = descendants(running._process.pid)
            os.kill(running._process.pid, sent)
        assert until(lambda members=members: not any(map(alive, members)), 30)
