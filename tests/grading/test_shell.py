"""Notebooks as students write them define the same in the runner's shell as in a notebook's kernel."""

import ast
import json
import os
import subprocess

import pytest
from jupyter_client.manager import start_new_kernel

from course_lib.grading.box import Limits, start

pytestmark = pytest.mark.isolation
F = "def f(x):\n    return x + 1\n"  # a function that its cell must not lose

# name: cells, one after another
SAME = {
    "matplotlib inline": ["%matplotlib inline\nimport matplotlib.pyplot as plt\n" + F],
    "matplotlib notebook": ["%matplotlib notebook\n" + F],
    "matplotlib alone": ["import matplotlib.pyplot as plt\n%matplotlib\n" + F],
    "matplotlib auto": ["%matplotlib auto\n" + F],
    "matplotlib list": ["%matplotlib --list\n" + F],
    "pylab": ["%pylab inline\n" + F, "g = linspace(0, 1, 3).sum()\nclose('all')"],
    "gui": ["%gui\n" + F],
    "matplotlib by the method": [
        "get_ipython().run_line_magic('matplotlib', 'inline')\n" + F,
        "get_ipython().enable_matplotlib('inline')\ndef g(): return 1",
    ],
    "matplotlib inside a function": [
        "def g():\n    %matplotlib inline\n    return 3\na = g()\n" + F
    ],
    "retina": [
        "%matplotlib inline\n%config InlineBackend.figure_format = 'retina'\n" + F,
        "%config InlineBackend.rc = {'figure.figsize': (4, 3)}\ndef g(): return 2",
    ],
    "formats of figures": [
        "import matplotlib_inline.backend_inline\n"
        "matplotlib_inline.backend_inline.set_matplotlib_formats('svg', 'pdf')\n" + F,
        "import matplotlib.pyplot as plt\nfig, ax = plt.subplots()\ndisplay(fig)\ndef g(): return 1",
    ],
    "figures": [
        "import matplotlib.pyplot as plt\nplt.ion()\nfig, ax = plt.subplots()\nax.plot([1, 2])\n"
        "fig.show()\nfig.canvas.draw()\nb = bytes(fig.canvas.buffer_rgba())[0]\n"
        "plt.show()\nplt.show(block=False)\nplt.pause(0.001)\nplt.close('all')\n" + F,
        "plt.figure(1)\nplt.plot([1, 2])\nplt.savefig('figure.png')",
        "a = len(plt.get_fignums())",
        "plt.switch_backend('agg')\ndef g(): return 1",
    ],
    "a figure without warnings": [
        "import warnings\nwarnings.simplefilter('error')\n"
        "import matplotlib.pyplot as plt\nplt.plot([1])\nplt.show()\n" + F,
    ],
    "a file's backend": ["import matplotlib\nmatplotlib.use('Agg')\n" + F],
    "extensions": ["%load_ext autoreload\n%autoreload 2\n" + F, "def g(): return f(2)"],
    "timing": [
        "%time a = 3\n" + F,
        "%%time\nb = f(2)\ndef g(): return b",
        "c = %timeit -n 1 -r 1 -o -q f(1)\nc = c.loops",
        "%%timeit -n 1 -r 1\nf(3)",
        "%prun -q f(1)\ndef h(): return 1",
    ],
    "capture": ["%%capture out\nprint('hidden')\ndisplay(1)\n" + F, "a = out.stdout\nout.show()"],
    "an empty line before a cell magic": ["\n\n%%time\n" + F],
    "the system": [
        "!echo here\n" + F,
        "lines = !printf 'a\\nb\\n'\na = list(lines)\n!no-such-program\nb = get_ipython().system('true')",
        "c = get_ipython().getoutput('echo 3')[0]\n!pip --version\n%pip --version\ndef g(): return a",
    ],
    "files and folders": [
        "%cd -q /tmp\n%pwd\n%ls\n%env A_NAME=1\nimport os\na = os.environ['A_NAME']\n" + F,
        "%%writefile a_module.py\ndef k(): return 5",
        "from a_module import k\n%run a_module.py\nb = k()",
    ],
    "other languages": [
        "%%bash\necho 1",
        "%%html\n<b>bold</b>",
        "%%javascript\nalert(1)",
        "%%latex\n$x$",
        "%%markdown\n*x*",
        "%%script sh\necho 1",
        "%%script false --no-raise-error\nskipped = 1",
        "%%bash\nfalse",
        F,
    ],
    "small magics": [
        "%who\n%whos\n%lsmagic\n%precision 3\n%xmode Plain\n%config Completer.use_jedi = False\n"
        + F,
        "%history -l 1\n%alias_magic t time\n%t a = 1\n%pdb off\n%autosave 60\n%logstop\nlen?\nlen??\n"
        "def g(): return 1",
    ],
    "reset": ["a = 1\n" + F, "%reset -f", "display(1)\nb = get_ipython() is not None\n" + F],
    "reset of some": ["a = 1\nb = 2\n%reset_selective -f a\n" + F, "%xdel b"],
    "a cell magic that nobody knows": [F, "%%no_such_magic\ndef lost(): pass", "a = f(1)"],
    "a magic after code": ["a = 1\n%matplotlib inline\nif a:\n    %matplotlib inline\n" + F],
    "registered magics": [
        "from IPython.core.magic import register_line_magic, register_cell_magic\n"
        "@register_line_magic\ndef twice(line): return 2 * line\n"
        "@register_cell_magic\ndef run_it(line, cell): get_ipython().run_cell(cell)",
        "a = %twice ab",
        "%%run_it\n" + F,
    ],
    "display": [
        "h = display('training', display_id=True)\nh.update('more')\n" + F,
        "display('a', display_id='one', clear=True)\ndisplay('b', metadata={})\ndisplay()\n"
        "k = display(display_id=True)\nk.display('c')\nid_ = display(1, 2, display_id='two').display_id",
        "from IPython.display import *\nfrom IPython.display import display, update_display, clear_output\n"
        "update_display('c', display_id='one')\nclear_output(wait=True)\ndisplay(HTML('<b>'))\n"
        "display(Markdown('*a*'), Latex('x'), Math('x'), Image(data=b'', format='png'), Code('x'))\n"
        "display({'text/plain': 'raw'}, raw=True)\ndisplay(JSON({}), SVG('<svg/>'), Javascript('1'))\n"
        "def g(): return display is not print",
        "import IPython\nIPython.display.display(IPython.display.Audio([0.0, 1.0], rate=8000))\n"
        "bar = IPython.display.ProgressBar(2)\nfor _ in bar: pass\ndef k(): return 1",
    ],
    "widgets": [
        "from ipywidgets import interact, interactive, Output, IntSlider, VBox\n"
        "@interact(n=(0, 4))\ndef show(n=2): print(n)\n" + F,
        "w = interactive(f, x=IntSlider(3))\ndisplay(w)\nout = Output()\ndisplay(VBox([w, out]))\n"
        "with out: print(1)\nout.append_stdout('x')\nwith out: 1 / 0\ndef g(): return w.result",
        "@out.capture()\ndef k(): return 2\nk()\nw.children[0].value = 4\na = w.result",
        "def bad(n): raise ValueError\ninteract(bad, n=1)\ndef m(): return 1",
    ],
    "progress bars": [
        "from tqdm import tqdm, trange\nfrom tqdm.auto import tqdm as auto\n"
        "from tqdm.notebook import tqdm as notebook\n"
        "from tqdm import tqdm_notebook\nlist(tqdm_notebook(range(2)))\n"
        "for _ in tqdm(range(3)): pass\nbar = trange(4)\nbar.set_description('x')\nbar.update()\n"
        "bar.set_postfix(loss=1)\na = bar.n, bar.total, bar.desc, 'rate' in bar.format_dict\nbar.close()\n"
        + F,
        "for _ in auto(range(3), leave=False): pass\n"
        "with notebook(total=3) as bar:\n    bar.update(2)\n    b = bar.n, bar.total\ntqdm.write('x')\n"
        "def g(): return 1",
    ],
    "imports": [
        "from __future__ import annotations\nimport os.path, sys as system\nfrom math import *\n"
        "from os import path as p, sep\nclass A:\n    import json\n    def m(self):\n        import re\n"
        "        return re.escape('a')\na = A().m(), A.json.dumps(1), system.maxsize > 1, p.sep == sep\n"
        + F,
        "try:\n    import no_such_module\nexcept ImportError:\n    b = 1\n"
        "def g():\n    import no_such_module",
        "try: g()\nexcept ModuleNotFoundError as error: c = error.name",
    ],
    "event loops": [
        "import asyncio\nasync def one(): return 1\na = await one()\n" + F,
        "task = asyncio.create_task(one())\nfuture = asyncio.ensure_future(one())\n"
        "b = asyncio.get_event_loop().is_running()\ndef g(): return 2",
        "await asyncio.sleep(0.01)\nc = task.result(), await asyncio.gather(one(), one())",
        "asyncio.run(one())\ndef lost(): pass",
        "async for _ in (x async for x in _never()): pass",
        "import threading\nfound = []\n"
        "t = threading.Thread(target=lambda: found.append(asyncio.run(one())))\n"
        "t.start(); t.join()\nd = found",
    ],
    "threads and processes": [
        "import threading, time, concurrent.futures\n"
        "threading.Thread(target=time.sleep, args=(600,), daemon=True).start()\n"
        "threading.Thread(target=print, args=('from a thread',)).start()\n"
        "pool = concurrent.futures.ThreadPoolExecutor(2)\na = list(pool.map(str, range(3)))\n" + F,
        "import multiprocessing\nworkers = multiprocessing.get_context('fork').Pool(1)\n"
        "b = workers.map(f, [1, 2])\ndef g(): return 1",
    ],
    "warnings as errors": [
        "import warnings\nwarnings.simplefilter('error')\nwarnings.filterwarnings('error')\n" + F,
        "a = f(1)\ndisplay(a)\n%matplotlib inline\nimport matplotlib.pyplot as plt\ndef g(): return 1",
        "f(2)",
    ],
    "leaving": [
        "import sys\n" + F + "sys.exit()\ndef lost(): pass",
        "def g(): return 1\nraise SystemExit(0)",
        "raise KeyboardInterrupt",
        "def k(): return 1",
    ],
    "errors": [F + "1 / 0\ndef lost(): pass", "def g(: pass", "a = f(2)\nassert False\nb = 1"],
    "logging": [
        "import logging\nlogging.basicConfig(level=logging.DEBUG)\nlogging.info('x')\n" + F,
        "logging.captureWarnings(True)\nlogging.getLogger('a').error('x')\ndef g(): return 1",
    ],
    "streams": [
        "import io, sys, contextlib\nwith contextlib.redirect_stdout(io.StringIO()) as s: print(1)\n"
        "a = s.getvalue()\n" + F,
        "sys.stdout.flush()\nsys.stdout.isatty()\nold = sys.stdout\nsys.stdout = io.StringIO()\nprint(2)\n"
        "sys.stdout = old\nb = sys.stdout.encoding.lower()\ndef g(): return 1",
        "import faulthandler\nfaulthandler.enable()\nsys.stdout.fileno()\ndef k(): return 1",
        "sys.stdout = open('/tmp/printed', 'w')\nprint(3)",
        "c = 1\nc\ndef m(): return 1",
    ],
    "what a cell is": [
        "a = __name__\nb = '__file__' in globals()\n" + F,
        "import inspect, pickle, dataclasses\n@dataclasses.dataclass\nclass P:\n    x: int = 1\n"
        "c = inspect.getsource(f)\nd = pickle.loads(pickle.dumps(P(2))).x\n"
        "e = pickle.loads(pickle.dumps(f))(1)",
        "import __main__\ng = __main__.f(3)\nf(3)",
        "h = _\nk = len(In) > 2, 4 in Out.values()\nl = In[-1][:5]",
    ],
    "arguments": [
        "import argparse\np = argparse.ArgumentParser()\np.add_argument('-f')\n"
        "p.add_argument('--lr', default=1)\n"
        "args = p.parse_args()\na = args.lr\n" + F,
        "b = p.parse_known_args()[0].lr\nargs = p.parse_args([])\ndef g(): return 1",
        "args = argparse.ArgumentParser().parse_args()\ndef lost(): pass",
    ],
    "signals and limits": [
        "import signal, sys\nsignal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "signal.signal(signal.SIGALRM, signal.SIG_IGN)\nsys.setrecursionlimit(5000)\n" + F,
        "def g(n): return n and g(n - 1)\na = g(1500)",
    ],
    "the shell's methods": [
        "shell = get_ipython()\nshell.run_cell('a = 1')\nshell.ex('b = 2')\nc = shell.ev('a + b')\n"
        "shell.push({'d': 4})\nshell.run_cell_magic('time', '', 'e = 5')\nshell.set_next_input('x')\n"
        "shell.events.register('post_execute', lambda: None)\n" + F,
        "from IPython import get_ipython\nimport IPython\nget_ipython().ast_node_interactivity = 'all'\n"
        "g = IPython.get_ipython() is shell",
    ],
    "tracebacks": ["1 / 0", "%tb", F],
}

# What a hosted kernel, or one with a person before it, has and ours has not: name: (cells, what the
# runner defines beyond a kernel)
MORE = {
    "Google Drive": (
        ["from google.colab import drive\ndrive.mount('/content/drive')\n" + F],
        {"drive", "f"},
    ),
    "other parts of Colab": (
        [
            "import google.colab\ngoogle.colab.output.clear()\n" + F,
            "from google.colab import files as up, userdata\nfor name in up.upload(): print(name)\n"
            "data = up.upload()\nlist(data.keys())\ndef g(): return len(data)",
            "def mount():\n    from google.colab import output\n    with output.use_tags('x'): pass\n"
            "mount()\ndef k(): return 1",
        ],
        {"google", "up", "userdata", "data", "g", "k", "f"},
    ),
    "where am I": (
        [
            "try:\n    import google.colab\n    IN_COLAB = True\nexcept ImportError:\n    IN_COLAB = False\n"
            "import sys\nif 'google.colab' in sys.modules: import no_such_module\n" + F
        ],
        set(),
    ),
    "magics of others": (
        [
            "%load_ext tensorboard\n%tensorboard --logdir logs\n" + F,
            "%tensorflow_version 2.x\ndef g(): return 1",
            "get_ipython().magic('matplotlib inline')\n%conda install -y numpy\ndef h(): return 1",
            "%%wandb\ndef k(): return 1",
            "# timing\n%%time\ndef m(): return 1",
            "%run no_such_file.py\ndef n(): return 1",
        ],
        set("fghkmn"),
    ),
    "front ends for figures": (
        [
            "%matplotlib widget\n" + F,
            "%matplotlib qt\ndef g(): return 1",
            "%matplotlib tk\nimport matplotlib.pyplot as plt\nplt.plot([1])\nplt.show()\ndef h(): return 1",
            "import matplotlib\nmatplotlib.use('TkAgg')\nplt.switch_backend('QtAgg')\nplt.figure()\n"
            "matplotlib.use('module://ipympl.backend_nbagg')\nmatplotlib.use('nbAgg')\nplt.plot([1])\n"
            "plt.show()\ndef k(): return 1",
        ],
        {*"fghk", "plt"},
    ),
    "names that moved": (
        [
            "from IPython.core.display import display, HTML\ndisplay(HTML('<b>'))\n" + F,
            "from IPython.display import set_matplotlib_formats, Image\nset_matplotlib_formats('svg')\n"
            "def g(): return 1",
        ],
        {"display", "HTML", "f", "set_matplotlib_formats", "Image", "g"},
    ),
    "packages that are not there": (
        [
            "import numpy as np, no_such_package\nfrom no_such_package.sub import thing as other\n"
            "from math import pi, no_such_name\nimport os.path, no_such_one.sub\n" + F,
            "def g():\n    import no_such_package\na = no_such_package.thing",
            "class A(other): pass\nrun = no_such_package.start(1)\nwith run: c = 1\n"
            "for i in run: pass\nf(1)",
            "@no_such_package.fast\ndef h(): return 1\ndef k(): return 1\nh()\nd = 1",
            "from no_such_package import f\nb = 1",
            "def l(x: other['n d'] | None = None, *y: no_such_package.A[int, 'n']) -> other: return 1\n"
            "def m(x: int | other): return l()\ne = m(1)",
            "m(run.part)\n1 / 0\ndef lost(): pass",
        ],
        {
            *("np", "no_such_package", "other", "pi", "no_such_name", "os", "no_such_one", "f"),
            *("a", "A", "run", "c", "i", "h", "k", "d", "b", "l", "m", "e"),
        },
    ),
    "a broken representation": (
        [
            "class R:\n    def _repr_html_(self): raise ValueError('broken')\nR()",
            F + "display(R())\ndef g(): return 1",
        ],
        set(),
    ),
    "text that is no Unicode": (["print('\\ud83d')\n'\\udcff'\n" + F], set("f")),
    "questions": (
        [
            "name = input('Your name? ')\n" + F,
            "from getpass import getpass\nimport getpass as asks\nkey = getpass('Key', None)\n"
            "asks.getpass()\ndef g(): return 1",
            "while input('q to end') != 'q': pass\ndef lost(): pass",
            "import pdb\nbreakpoint()\npdb.set_trace()\ndef h(): return 1",
            "%debug\ndef k(): return 1",
        ],
        {"name", "f", "key", "g", "h", "k"},
    ),
    "event loops in event loops": (
        [
            "import asyncio\nimport nest_asyncio\nnest_asyncio.apply()\n"
            "async def one():\n    await asyncio.sleep(0)\n    return 1\na = asyncio.run(one())\n"
            + F,
            "b = asyncio.run(one())\nc = asyncio.new_event_loop().run_until_complete(one())",
            "d = await one()",
        ],
        {"nest_asyncio", "one", "a", "f", "b", "c", "d"},
    ),
}
# A kernel does not outlive these.
ALONE = {
    "leaving for good": (["exit()\n" + F, "quit()\ndef g(): return 1"], {"f", "g"}),
    "out of time": (
        [
            "import asyncio\nawait asyncio.sleep(1e6)  # stopped",
            "while True:\n    await asyncio.sleep(0)  # stopped",
            "while True: pass  # stopped",
            "await asyncio.sleep(0)\n" + F,
        ],
        {"asyncio", "f"},
    ),
}

NAMES = (
    "sorted(n for n in get_ipython().user_ns if n[0] != '_' and"
    " n not in get_ipython().user_ns_hidden)"
)
VALUES = (
    "{n: repr(v) for n, v in get_ipython().user_ns.items() if len(n) == 1 and n not in '_p'"
    " and type(v) in (int, str, bool, list, tuple, type(None))}"
)
DEFINED = f"({NAMES}, {VALUES}, get_ipython().ev('f(1)') if 'f' in get_ipython().user_ns else None)"

# Runs in the box: each notebook in a fork of one shell, which has neither seen another.
RUNNER = """
import json, os, sys
arguments = sys.argv
from course_lib.sandbox import runner
from course_lib.sandbox.shell import make_shell
notebooks, results = json.loads(arguments[1]), int(arguments[2])
runner.prepare()
shell = make_shell()
import ipywidgets, matplotlib.pyplot, tqdm.auto
for name, cells in notebooks.items():
    child = os.fork()
    if not child:
        errors = [runner.run_cell(shell, c, 0.3 if "# stopped" in c else 60) for c in cells]
        found = eval(arguments[3], {"get_ipython": lambda: shell})
        with os.fdopen(results, "w") as file:
            file.write(json.dumps([name, *found, errors]) + chr(10))
        os._exit(0)
    os.waitpid(child, 0)
"""


@pytest.fixture(scope="module")
def in_runner(shared):
    """For each notebook: the names defined, values, what f(1) gives, and the cells' errors."""
    notebooks = SAME | {name: cells for name, (cells, _) in (MORE | ALONE).items()}
    read, write = os.pipe()
    arguments = ("-c", RUNNER, json.dumps(notebooks), str(write), DEFINED)
    process = start(shared, Limits(), 0, *arguments, pass_fds=(write,), stderr=subprocess.STDOUT)
    os.close(write)
    with os.fdopen(read) as file, process:
        process.stdout.read()  # the results are far below what a pipe holds
        found = {name: rest for name, *rest in map(json.loads, file)}
    return found


@pytest.fixture(scope="module")
def kernel():
    manager, client = start_new_kernel()
    yield client
    client.stop_channels()
    manager.shutdown_kernel(now=True)


def ask(kernel, code, **options):
    """A kernel's reply to a cell."""
    request = kernel.execute(code, allow_stdin=False, stop_on_error=False, **options)
    while True:
        reply = kernel.get_shell_msg(timeout=60)
        if reply["parent_header"]["msg_id"] == request:
            return reply["content"]


def in_kernel(kernel, cells, tmp_path):
    """What `in_runner` holds for a notebook; of the errors, only whether there was one."""
    clean = (
        "import os, sys, warnings\nwarnings.resetwarnings()\nsys.stdout = sys.__stdout__\n"
        f"os.chdir({str(tmp_path)!r})\n"
    )
    failed = []
    for cell in (clean, "%reset -f", *cells):
        reply = ask(kernel, cell, store_history=cell in cells)
        failed.append(reply["status"] != "ok")
    reply = ask(kernel, "", silent=True, user_expressions={"defined": DEFINED})
    defined = ast.literal_eval(reply["user_expressions"]["defined"]["data"]["text/plain"])
    return *defined, failed[2:]


@pytest.mark.parametrize("name", SAME)
def test_the_runner_defines_what_a_kernel_defines(name, in_runner, kernel, tmp_path):
    names, values, result, failed = in_kernel(kernel, SAME[name], tmp_path)
    *found, errors = in_runner[name]
    assert found == [names, values, result]
    assert [error is not None for error in errors] == failed, errors
    assert result == 2
    assert "lost" not in names


@pytest.mark.parametrize("name", MORE)
def test_what_only_other_kernels_have_costs_no_function(name, in_runner, kernel, tmp_path):
    cells, more = MORE[name]
    names, *_ = in_kernel(kernel, cells, tmp_path)
    found, _, result, _ = in_runner[name]
    assert set(found) == set(names) | more
    assert result == 2
    assert "lost" not in found


@pytest.mark.parametrize("name", ALONE)
def test_the_runner_outlives_what_a_kernel_does_not(name, in_runner):
    found, _, result, errors = in_runner[name]
    assert set(found) == ALONE[name][1]
    assert result == 2
    for cell, error in zip(ALONE[name][0], errors, strict=True):
        assert ("stopped after" in (error or "")) == ("# stopped" in cell)
