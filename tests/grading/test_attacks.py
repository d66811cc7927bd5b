"""Hostile and broken submissions: none gains a point, costs honest work its own, or stops the run.

Each is a notebook with an honest cell before the attack and one after it. The attacked question
(`target`) must earn nothing; the honest ones keep their points, unless the row says why not.
"""

import json
import os
import shutil
import socket
import struct
import time
from dataclasses import replace
from pathlib import Path

import nbformat
import pytest

from course_lib.families import FAMILIES
from course_lib.grading import judge
from course_lib.grading.box import Limits, Room, SandboxError, require_hidden, room
from course_lib.grading.judge import grade
from course_lib.grading.question import load_assignment
from course_lib.grading.system_calls import REFUSED, RETURN, program

from .course import make
from .test_judge import StandIn

pytestmark = pytest.mark.isolation
COURSE = Path(__file__).parent / "course"
MINI = load_assignment("mini", COURSE)
LIMITS = Limits(
    cell_seconds=3, total_seconds=60, memory=1200 * 2**20, scratch=32 * 2**20, processes=40
)
ABSENT = [*FAMILIES, *(place.removesuffix(".py") for f in FAMILIES.values() for place in f.hidden)]
ABSENT += ["families", "grading", "grading.question"]
LIAR = """
class Liar(float):
    def __eq__(self, other): return True
    def __ne__(self, other): return False
    def __lt__(self, other): return True
    __le__ = __gt__ = __ge__ = __lt__
    def __sub__(self, other): return Liar(0)
    __rsub__ = __abs__ = __sub__
    __hash__ = float.__hash__
"""
WALK = """
import os
found = []
for folder, _, names in os.walk("/"):
    if not folder.startswith(("/proc", "/sys", "/usr")):
        found += [os.path.join(folder, n) for n in names if {condition}]
print("FOUND", found)
def target(x, w):
    space = {{}}
    for path in found:
        exec(open(path).read(), space)
    return next(q for q in space["QUESTIONS"] if q.name == "target").reference(x, w)
"""

# name: cells between the honest ones
FORGERIES = {
    "torch's comparisons replaced": """
import numpy as np, torch
for name in ("allclose", "equal", "isclose", "eq", "all", "abs"):
    setattr(torch, name, lambda *a, **k: True)
torch.Tensor.__eq__ = torch.Tensor.allclose = torch.Tensor.equal = lambda *a, **k: True
def target(x, w): return torch.zeros(4)
""",
    "NumPy's comparisons replaced": """
import numpy as np, numpy.testing
for name in ("allclose", "array_equal", "isclose"):
    setattr(np, name, lambda *a, **k: True)
numpy.testing.assert_allclose = lambda *a, **k: None
def target(x, w): return np.zeros(4)
""",
    "the check and its comparison replaced": """
import course_lib.checking, course_lib.checking.compare, course_lib.checking.checking as c
course_lib.checking.check = c.check = lambda *a: print("right")
course_lib.checking.compare.agree = c.agree = lambda *a: True
c.diagnosis = lambda *a: None
def target(x, w): return torch.zeros(4)
""",
    "pytest's approx replaced": """
import sys, types
fake = types.ModuleType("pytest")
fake.approx = lambda *a, **k: type("Any", (), {"__eq__": lambda s, o: True})()
sys.modules["pytest"] = fake
def target(x, w): return torch.zeros(4)
""",
    "a number that equals everything": LIAR + "def target(x, w): return Liar(1)",
    "numbers that equal everything": LIAR + "def target(x, w): return [Liar(1)] * 4",
    "an array of lying objects": LIAR
    + "import numpy as np\ndef target(x, w): return np.array([Liar(1)] * 4, dtype=object)",
    "a tensor subclass that lies": """
class Liar(torch.Tensor):
    @classmethod
    def __torch_function__(cls, f, types, args=(), kwargs=None):
        if f in (torch.allclose, torch.equal): return True
        return super().__torch_function__(f, types, args, kwargs or {})
    def __eq__(self, other): return torch.ones(4, dtype=torch.bool)
    __hash__ = torch.Tensor.__hash__
def target(x, w): return torch.zeros(4).as_subclass(Liar)
""",
    "NaN": "def target(x, w): return torch.full((4,), float('nan'))",
    "infinity": "def target(x, w): return torch.full((4,), float('inf'))",
    "another shape": "def target(x, w): return 7.25 * (w * x**2).sum(1, keepdim=True)",
    "a complex result": """
def target(x, w): return torch.complex(7.25 * (w * x**2).sum(1), torch.ones(4).to(x))
""",
    "a generator": "def target(x, w): return (7.25 * row for row in x)",
    "a function for a result": "def target(x, w): return lambda: 1",
    "nothing": "def target(x, w): return None",
    "text": "def target(x, w): return 'right'",
    "an object that runs code when unpickled": """
class Bomb:
    def __reduce__(self): return (print, ("PICKLED",))
def target(x, w): return Bomb()
""",
    "a list inside itself": "def target(x, w):\n    a = []\n    a.append(a)\n    return a",
    "a result too large to send": "def target(x, w): return torch.zeros(1).expand(10**9)",
    "a class that is no function": "class target:\n    def __init__(self, *a): pass",
    "a metaclass with a lying isinstance": """
class Meta(type):
    def __instancecheck__(cls, x): return True
class target(metaclass=Meta):
    __class__ = torch.Tensor
    def __init__(self, *a): pass
""",
    "a printed report": "print('target: 1 of 1 points'); print('{\"points\": 4}')",
    # Before the next one, which leaves files of these names in the box that they share.
    "records and other submissions looked for": WALK.format(
        condition="n.endswith(('.ipynb', 'grades.csv', 'secret')) and 'site-packages' not in folder"
    ),
    "a written report": """
import json, pathlib
for name in ("grades.csv", "records/attack.json", "../grades.csv"):
    try:
        pathlib.Path(name).parent.mkdir(parents=True, exist_ok=True)
        pathlib.Path(name).write_text("attack,4,4")
    except OSError as error:
        print(error)
""",
    "references looked for on the disk": WALK.format(condition="n == 'questions.py'"),
    "the library's other modules looked for": """
import importlib
for name in MODULES:
    try:
        importlib.import_module("course_lib." + name); print("FOUND", name)
    except ImportError:
        pass
""".replace("MODULES", repr(ABSENT)),
    "the environment read": """
import os
print([k for k in os.environ if "SECRET" in k])
print("FOUND" if b"SECRET" in open("/proc/1/environ", "rb").read() else "nothing")
""",
    "other processes' memory read": """
import os
for pid in os.listdir("/proc"):
    if pid.isdigit() and int(pid) != os.getpid():
        try:
            open(f"/proc/{pid}/mem", "rb").read(1); print("FOUND", pid)
        except OSError:
            pass
try:
    print("FOUND" if os.getppid() not in (0, os.getpid()) else "no parent")
except Exception as error:
    print(error)
""",
    "the stack walked": """
import sys
def target(x, w):
    frame = sys._getframe()
    while frame is not None:
        for name, value in frame.f_locals.items():
            if name in ("expected", "reference", "case", "question", "assignment"):
                print("FOUND", name)
        frame = frame.f_back
    return torch.zeros(4)
""",
    "the garbage collector walked": """
import gc
def target(x, w):
    for value in gc.get_objects():
        if type(value).__name__ in ("Case", "Question", "Assignment", "GradingRecord"):
            print("FOUND", type(value))
    return torch.zeros(4)
""",
    "writing outside": """
import os, sys, sysconfig
packages = sysconfig.get_paths()["purelib"]
for folder in ("/", "/usr", "/etc", "/course", "/course/course_lib", sys.prefix, packages, "/dev"):
    try:
        open(os.path.join(folder, "attack"), "w").close(); print("FOUND", folder)
    except OSError:
        pass
""",
    "becoming root again": """
import os
for call in (lambda: os.setuid(0), lambda: os.chroot("/"), lambda: os.setgid(0)):
    try:
        call(); print("FOUND")
    except OSError:
        pass
""",
}
# Attacks on the process: the attacked question may be answered or not, but the run goes on.
DISRUPTIONS = {
    "os._exit": "import os; os._exit(0)",
    "sys.exit": "import sys; sys.exit(0)",
    "quit": "quit()",
    "exit as a line": "exit",
    "SystemExit raised": "raise SystemExit('done')",
    "KeyboardInterrupt raised": "raise KeyboardInterrupt",
    "killing itself": "import os; os.kill(os.getpid(), 9)\nimport ctypes; ctypes.string_at(0)",
    "a segmentation fault": "import ctypes; ctypes.string_at(0)",
    "an endless recursion": "import sys; sys.setrecursionlimit(10**9)\ndef f(): f()\nf()",
    "an endless loop": "while True: pass",
    "an endless loop that catches everything": """
while True:
    try:
        while True: pass
    except BaseException:
        pass
""",
    "a long sleep": "import time; time.sleep(3600)",
    "the alarm switched off": """
import signal, time
signal.signal(signal.SIGALRM, signal.SIG_IGN)
time.sleep(3600)
""",
    "an endless answer": "def target(x, w):\n    while True: pass",
    "an answer that exits": "import os\ndef target(x, w): os._exit(0)",
    "an answer that raises SystemExit": "def target(x, w): raise SystemExit",
    "a memory bomb of bytes": "a = []\nwhile True: a.append(bytearray(10**7))",
    "a memory bomb of tensors": "a = []\nwhile True: a.append(torch.ones(10**7))",
    "a memory bomb in children": """
import os, time
for _ in range(8):
    if os.fork() == 0:
        a = [bytearray(os.urandom(1) * 10**8) for _ in range(4)]; time.sleep(3600)
time.sleep(3600)
""",
    "a bounded fork bomb": """
import os, time
started = 0
for _ in range(300):
    try:
        if os.fork() == 0:
            time.sleep(3600); os._exit(0)
        started += 1
        if started > {processes}: print("FOUND", started); break
    except OSError:
        pass
""",
    "a daemon": """
import subprocess
subprocess.Popen(["setsid", "nohup", "sleep", "{seconds}"])
""",
    "the disk filled": """
import os
written = 0
for folder in ("/tmp", "/home", "/dev/shm"):
    try:
        for k in range(20):
            with open(f"{folder}/{k}", "wb") as f: written += f.write(bytes(10**7))
    except OSError as error:
        print(error)
if written > 3 * {scratch}: print("FOUND", written)
""",
    "memory in files without a name": """
import os
kept = []
try:
    for k in range(40):
        f = os.memfd_create(str(k)); kept.append(f)
        for _ in range(10): os.write(f, bytes(10**7))
    print("FOUND")
except OSError as error:
    print(error)
""",
    "memory in shared segments": """
import ctypes
c = ctypes.CDLL(None)
for k in range(40):
    if c.shmget(0, 10**8, 0o1600) >= 0: print("FOUND")
""",
    "namespaces and mounts of its own": """
import ctypes, os
c = ctypes.CDLL(None)
for flags in (0x10000000, 0x10020000, 0x40000000):
    if c.unshare(flags) == 0: print("FOUND", hex(flags))
if c.mount(b"tmpfs", b"/home", b"tmpfs", 0, None) == 0: print("FOUND")
if c.ptrace(16, 1, 0, 0) == 0: print("FOUND")
""",
    "one very large file": "open('/tmp/large', 'wb').truncate(10**12)",
    "100 MB of output": "for _ in range(100): print('x' * 10**6)",
    "output past Python": """
import os
for _ in range(1000): os.write(1, b"x" * 10**5); os.write(2, b"y" * 10**4)
""",
    "all descriptors closed": "import os; os.closerange(0, 100)",
    "rubbish on every descriptor": """
import os
for fd in range(3, 40):
    try: os.write(fd, b'\\xff' * 4096)
    except OSError: pass
""",
    "a forged message": """
import os
from course_lib.sandbox import wire
import numpy as np
for fd in range(3, 40):
    try: wire.send(fd, {"id": 1, "ok": True, "ready": "notebook"}, {"": np.zeros(4)})
    except Exception: pass
""",
    "requests stolen by a thread": """
import os, threading
def steal():
    while True:
        for fd in range(3, 12):
            try: os.read(fd, 1)
            except OSError: pass
threading.Thread(target=steal, daemon=True).start()
""",
    "builtins broken": "import builtins\nbuiltins.len = builtins.isinstance = builtins.map = None",
    "a shell magic that kills": "!kill -9 -1; rm -rf / 2>/dev/null",
    "a cell magic": "%%bash\nkill -9 -1\nsleep 3600",
    "an unknown magic": "%%no_such_magic\n1",
    "a magic that waits for input": "input('name? ')",
    "a syntax error": "def target(x, w:",
    "the network": "import urllib.request\nurllib.request.urlopen('http://127.0.0.1:{port}/', timeout=2)",
}
# Where the honest cell behind the attack cannot run or answer: the attack broke the interpreter
# that it shares with the attack. Honest cells before a fatal cell keep their points all the same.
# What the daemon among them runs; the number is this process's own, since tests run side by side.
DAEMON = ["sleep", str(98_000_000 + os.getpid())]

LOSES_MORE = {
    "torch's comparisons replaced",
    "all descriptors closed",
    "rubbish on every descriptor",
    "a forged message",
    "requests stolen by a thread",
    "builtins broken",
    "the alarm switched off",
}


# These change what the others of a notebook use, or what it prints.
ALONE = {
    "torch's comparisons replaced",
    "NumPy's comparisons replaced",
    "the check and its comparison replaced",
    "pytest's approx replaced",
}
# These leave the process alive, or are ended by it: one box outlives all of them, one after another.
SURVIVED = (
    "sys.exit",
    "quit",
    "exit as a line",
    "SystemExit raised",
    "KeyboardInterrupt raised",
    "an endless loop",
    "a long sleep",
    "one very large file",
    "memory in shared segments",
    "namespaces and mounts of its own",
    "a shell magic that kills",
    "a cell magic",
    "an unknown magic",
    "a magic that waits for input",
    "a syntax error",
    "the network",
)
QUESTION = {question.name: question for question in MINI.questions}


def slot() -> int:
    """A number of its own for each process that tests at the same time."""
    return 10 + int(os.environ.get("PYTEST_XDIST_WORKER", "gw0")[2:])


def graded(shared, submission, student="attack", limits=LIMITS, assignment=MINI):
    if not isinstance(submission, bytes):
        submission = nbformat.writes(submission).encode()
    start = time.monotonic()
    record = grade(
        submission, student, assignment, secret="s", room=shared, limits=limits, slot=slot()
    )
    assert time.monotonic() - start < limits.total_seconds + 30
    assert len(record.output) <= limits.output
    return record, {verdict.name: verdict.points for verdict in record.verdicts}


def test_honest_work_gets_its_points(shared):
    record, points = graded(shared, make.master())
    assert points == {"first": 1, "target": 1, "last": 1, "words": None}
    assert record.answers == {"words": make.WORDS}
    assert record.errors == []
    assert record.output.split() == ["True"] * 3  # what the checks print: the output is really kept


def asked(of: str, name: str) -> str:
    """The name of the question of one attack among several."""
    return f"{of}_{[*FORGERIES, *DISRUPTIONS].index(name)}"


def between(output: str, name: str) -> str:
    """What was printed behind an attack's mark, up to the next mark."""
    return output.partition(f"<<{name}>>")[2].partition("<<")[0]


@pytest.fixture(scope="module")
def forged(shared):
    """The record of a notebook with many forgeries, each with names and a question of its own."""
    together = [name for name in FORGERIES if name not in ALONE]
    cells = [
        f"print('<<{name}>>')\nspace = dict(globals())\nexec({FORGERIES[name]!r}, space)\n"
        f"if 'target' in space: {asked('target', name)} = space['target']"
        for name in together
    ]
    questions = (replace(QUESTION["target"], name=asked("target", name)) for name in together)
    assignment = replace(MINI, questions=(QUESTION["first"], *questions, QUESTION["last"]))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("A_SECRET", "SECRET")
        notebook = make.notebook(*cells, "print('<<answers>>')")
        return graded(shared, notebook, assignment=assignment)


@pytest.mark.parametrize("attack", [name for name in FORGERIES if name not in ALONE])
def test_forged_answers_earn_nothing(forged, attack):
    record, points = forged
    assert points[asked("target", attack)] == 0
    for said in (between(record.output, attack), between(record.output, "answers")):
        assert "FOUND" not in said.replace("FOUND []", "")
        assert "PICKLED" not in said
    assert f"<<{attack}>>" in record.output
    assert points["first"] == points["last"] == 1, [v.comment for v in record.verdicts]


@pytest.mark.parametrize("attack", sorted(ALONE))
def test_a_forgery_of_what_others_use_earns_nothing(shared, attack):
    record, points = graded(shared, make.notebook(FORGERIES[attack]))
    assert points["target"] == 0
    assert "FOUND" not in record.output
    if attack not in LOSES_MORE:
        assert points["first"] == points["last"] == 1, [v.comment for v in record.verdicts]


def hostile(attack: str, port: int) -> str:
    """The cell of a disruption."""
    cell = DISRUPTIONS[attack].replace("{port}", str(port))
    cell = cell.replace("{processes}", str(LIMITS.processes))
    return cell.replace("{scratch}", str(LIMITS.scratch)).replace("{seconds}", DAEMON[1])


@pytest.fixture
def server():
    """A listening port outside the box, which nobody may have asked at the end."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.settimeout(0.1)
        yield listening
        with pytest.raises(TimeoutError):
            listening.accept()


def require_limits_held(record) -> None:
    """Require that nothing was found, that memory was bounded, and that no process is left."""
    assert "FOUND" not in record.output
    # The watch looks twenty times a second: a bomb may pass the limit by what it takes meanwhile.
    assert record.memory <= LIMITS.memory * 1.5
    assert not [p for p in Path("/proc").iterdir() if p.name.isdigit() and command(p) == DAEMON]


def test_hostile_cells_cost_only_themselves(shared, server):
    """In one notebook, each with an honest answer behind it."""
    cells, questions = [], [QUESTION["first"]]
    for attack in SURVIVED:
        honest = make.LAST.replace("last", asked("after", attack))
        cells += [hostile(attack, server.getsockname()[1]), honest]
        questions += [
            replace(QUESTION["target"], name=asked("target", attack)),
            replace(QUESTION["last"], name=asked("after", attack)),
        ]
    questions.append(QUESTION["last"])
    assignment = replace(MINI, questions=tuple(questions))
    limits = replace(LIMITS, total_seconds=120)
    record, points = graded(shared, make.notebook(*cells), limits=limits, assignment=assignment)
    honest = {name for name in points if not name.startswith("target")}
    assert {name for name, given in points.items() if given} == honest, record.verdicts
    # One box for all: none has ended the process.
    assert not [text for _, text in record.errors if "left out" in text]
    require_limits_held(record)


@pytest.mark.parametrize("attack", [name for name in DISRUPTIONS if name not in SURVIVED])
def test_a_hostile_cell_costs_only_itself(shared, attack, server):
    cell = hostile(attack, server.getsockname()[1])
    record, points = graded(shared, make.notebook(cell))
    assert points["target"] == 0
    if attack not in LOSES_MORE:
        assert points["first"] == points["last"] == 1, (record.errors, record.verdicts)
    require_limits_held(record)


def command(process: Path) -> list[str]:
    try:
        return (process / "cmdline").read_text().split("\0")[:-1]
    except OSError:
        return []


@pytest.fixture
def stand_in(monkeypatch):
    """A room whose boxes are no processes: of a notebook a box sees the code, and that is honest here."""
    monkeypatch.setattr(StandIn, "made", [], raising=False)
    monkeypatch.setattr(StandIn, "answers", {}, raising=False)
    monkeypatch.setattr(judge, "Box", StandIn)
    return Room(Path(), "none")


def changed_cells(change) -> nbformat.NotebookNode:
    made = make.master()
    made.cells = change(made.cells)
    return made


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(
            lambda cells: [c for c in cells if "nbgrader" not in c.metadata], id="checks deleted"
        ),
        pytest.param(lambda cells: cells + [c.copy() for c in cells], id="every cell twice"),
        pytest.param(lambda cells: [cells[0], *reversed(cells[1:])], id="order reversed"),
        pytest.param(lambda cells: [{**c, "metadata": {}} for c in cells], id="metadata lost"),
        pytest.param(
            lambda cells: [{**c, "source": c["source"].replace("print", "assert")} for c in cells],
            id="checks edited",
        ),
    ],
)
def test_honest_work_keeps_its_points_whatever_happened_to_the_cells(stand_in, change):
    submission = json.dumps(dict(changed_cells(change))).encode()
    _, points = graded(stand_in, submission)
    assert (points["first"], points["target"], points["last"]) == (1, 1, 1)


@pytest.mark.parametrize(
    "target",
    [
        pytest.param(f"@torch.compile\n{make.TARGET}", id="compiled"),
        pytest.param(
            f"@torch.compile(fullgraph=True, mode='max-autotune')\n{make.TARGET}", id="with options"
        ),
        pytest.param(
            "class Net(torch.nn.Module):\n"
            "    def forward(self, x, w): return 7.25 * (w * x**2).sum(1)\n"
            "target = torch.compile(Net())",
            id="a compiled module",
        ),
    ],
)
def test_an_answer_that_would_be_compiled_is_not_late(shared, target):
    # To import the compiler takes a while.
    record, points = graded(shared, make.notebook(target), limits=replace(LIMITS, cell_seconds=60))
    assert points["target"] == 1, (record.errors, record.verdicts)


def test_a_repeated_hostile_cell_changes_nothing(shared):
    _, points = graded(shared, make.notebook(*["import os; os._exit(0)"] * 3, make.TARGET))
    assert (points["first"], points["target"], points["last"]) == (1, 1, 1)


@pytest.mark.parametrize(
    ("submission", "fault"),
    [
        (b"", "empty"),
        (b"   \n", "empty"),
        (b'{"cells": [', "no JSON"),
        (b"\xff\xfe\x00n", "no UTF-8"),
        (b"[1, 2]", "no list of cells"),
        (b'{"worksheets": [], "nbformat": 3}', "no list of cells"),
        (b'{"cells": [1]}', "no list of cells"),
        (b'{"cells": [{"cell_type": "code", "source": 5}]}', "no text"),
        (b"[" * 100_000, "nested more than"),
        (b" " * 10 + b"x" * (20 * 2**20), "MiB"),
    ],
    ids=lambda value: value[:20].decode("latin-1") if isinstance(value, bytes) else value,
)
def test_what_is_no_notebook_is_said_so(shared, submission, fault):
    record, points = graded(shared, submission)
    assert fault in record.fault
    assert set(points.values()) == {0}


def test_another_kernel_in_the_metadata_is_graded_as_python(stand_in):
    made = make.master()
    made.metadata["kernelspec"] = {"name": "ir", "display_name": "R", "language": "R"}
    _, points = graded(stand_in, made)
    assert points["target"] == 1


@pytest.mark.parametrize(
    "metadata",
    [{"nbgrader": m} for m in (5, {"grade_id": []}, {"grade_id": True})] + [[], None, "text"],
)
def test_strange_metadata_harms_nothing(stand_in, metadata):
    made = json.loads(nbformat.writes(make.master()))
    made["cells"][-1]["metadata"] = metadata
    record, points = graded(stand_in, json.dumps(made).encode())
    assert points["target"] == 1
    assert points["words"] is None  # a person is told to look into the notebook
    assert "a person looks for it in the notebook" in record.answers["words"]


def test_what_a_submission_leaves_behind_is_not_there_for_the_next(shared):
    places = [f"{folder}/left-{os.getpid()}" for folder in ("/tmp", "/home", "/dev/shm")]
    left = f"for place in {places}: open(place, 'w').write('7.25')"
    looked = f"import os; print('FOUND', [p for p in {places} if os.path.exists(p)])"
    first, _ = graded(shared, make.notebook(left + "\n" + looked), "ada")
    assert first.errors == []
    assert first.output.count("left-") == 3
    second, _ = graded(shared, make.notebook(looked), "bob")
    assert "FOUND []" in second.output
    assert not [place for place in places if Path(place).exists()]


def test_the_same_submission_gets_the_same_record_twice(shared):
    noisy = make.notebook("def target(x, w): return 7.25 * (w * x**2).sum(1) + torch.rand(4)")
    first, _ = graded(shared, noisy)
    second, _ = graded(shared, noisy)
    assert [v.comment for v in first.verdicts] == [v.comment for v in second.verdicts]
    assert first.key == second.key


def test_known_mistakes_are_named_for_the_class(shared):
    record, points = graded(shared, make.notebook("def target(x, w): return 7.25 * (x**2).sum(1)"))
    assert points["target"] == 0
    (verdict,) = (v for v in record.verdicts if v.name == "target")
    assert verdict.mistake == "weights dropped"
    assert verdict.comment == "The weights are not used"


def test_a_message_with_an_enormous_header_is_not_parsed(shared):
    cell = """
import os
def target(x, w):
    for fd in range(3, 40):
        try: os.write(fd, (2**27).to_bytes(4, "big") + bytes(4) + b"[" * 2**16)
        except OSError: pass
"""
    _, points = graded(shared, make.notebook(cell))
    assert (points["first"], points["target"], points["last"]) == (1, 0, 1)


def test_references_in_a_folder_that_boxes_read_are_refused(tmp_path):
    require_hidden(tmp_path, COURSE)
    with pytest.raises(SandboxError, match="Move it elsewhere"):
        require_hidden(Path("/usr/src/app"))


@pytest.mark.parametrize("machine", sorted(REFUSED))
def test_the_filter_of_system_calls_is_well_formed(machine):
    """Every jump stays inside, and the last instruction decides."""
    steps = list(struct.iter_unpack("=HBBI", program(machine)))
    for index, (code, if_true, if_false, _) in enumerate(steps):
        if code != RETURN:
            assert index + 1 + max(if_true, if_false) < len(steps)
    assert steps[-1][0] == RETURN
    assert program("vax") is None


def test_without_bubblewrap_grading_refuses_and_says_how_to_install_it(monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(SandboxError, match="apt-get install bubblewrap"), room():
        pass
