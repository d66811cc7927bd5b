"""Kernels that need not import the heavy libraries: they are forked from one process that has.

A kernel spends four to five processor seconds on its imports before it can execute a cell, most of them on
PyTorch and on what its optimizers load. The book has one kernel for each of its notebooks, so these seconds
are spent once here: in a server that imports the libraries, executes nothing, and is forked for each kernel.
The course's models are not among them: each notebook imports them itself.
"""

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from functools import cache
from multiprocessing import get_context
from multiprocessing.process import BaseProcess
from pathlib import Path
from uuid import uuid4

from jupyter_client import AsyncKernelManager
from jupyter_client.connect import KernelConnectionInfo
from jupyter_client.provisioning import LocalProvisioner

# Neither what asks at its import for the kernel that it runs in (progress bars, widgets), nor the course's.
PRELOADED = (
    "jupyter_cache.executors.utils",  # the first two for `notebooks.py`, which every fork imports again
    "sphinx.application",
    "ipykernel.kernelapp",
    "ipykernel.ipkernel",
    "torch",
    "torch._dynamo",  # an optimizer imports it
    "matplotlib.pyplot",
    "seaborn",
)
# Only on Linux: on macOS some system libraries do not survive a fork.
CAN_FORK = sys.platform == "linux"


@cache
def import_paths() -> list[str]:
    """Where a fresh interpreter looks for modules; this one has the folders of its tools besides."""
    command = [sys.executable, "-P", "-c", "import json, sys; print(json.dumps(sys.path))"]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def run_kernel(
    arguments: Sequence[str], folder: str, environment: Mapping[str, str], paths: Sequence[str]
) -> None:
    """Be a kernel, in the forked process."""
    from ipykernel.kernelapp import IPKernelApp

    os.setsid()  # a group of its own, as the manager expects, which ends it with all that it has started
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    sys.path[:] = paths
    # It ends with the server, and the server with the process that executes the notebooks.
    IPKernelApp.launch_instance([*arguments, f"--IPKernelApp.parent_handle={os.getppid()}"])


class Forked:
    """A forked process with the interface of `subprocess.Popen` that the manager uses."""

    stdin = stdout = stderr = None

    def __init__(self, process: BaseProcess) -> None:
        self._process = process
        self.pid = process.pid
        self.kill, self.terminate = process.kill, process.terminate

    def poll(self) -> int | None:
        """The exit status, None while the process runs."""
        return self._process.exitcode

    def wait(self) -> int | None:
        """Wait for its end."""
        self._process.join()
        return self._process.exitcode

    def send_signal(self, signum: int) -> None:
        """Send a signal to the process alone."""
        os.kill(self.pid, signum)


class ForkedProvisioner(LocalProvisioner):
    """Starts a kernel by a fork."""

    async def launch_kernel(self, cmd: list[str], **kwargs: object) -> KernelConnectionInfo:
        """Fork; of the command ``python -m ipykernel_launcher …`` only the arguments are used."""
        folder = str(kwargs.get("cwd") or Path.cwd())
        environment = dict(kwargs.get("env") or os.environ)
        # A daemon ends with this process; the price is that a notebook cannot use `multiprocessing`.
        process = _context().Process(
            target=run_kernel, args=(cmd[3:], folder, environment, import_paths()), daemon=True
        )
        process.start()
        self.process = Forked(process)
        self.pid = self.pgid = process.pid
        self.cwd = folder
        return self.connection_info


class ForkedKernelManager(AsyncKernelManager):
    """A manager whose kernels are forked."""

    async def _async_pre_start_kernel(self, **settings: object) -> tuple[list[str], dict]:
        if self.provisioner is None:
            self.kernel_id = self.kernel_id or str(uuid4())
            self.provisioner = ForkedProvisioner(
                kernel_id=self.kernel_id, kernel_spec=self.kernel_spec, parent=self
            )
        return await super()._async_pre_start_kernel(**settings)


def _context():
    """Processes forked from a server; it imports what is preloaded when the first is asked for."""
    # matplotlib reads it when it is imported, and a kernel sets it too late for that.
    os.environ["MPLBACKEND"] = "module://matplotlib_inline.backend_inline"
    context = get_context("forkserver")
    context.set_forkserver_preload(list(PRELOADED))
    return context


def manager_class() -> type[AsyncKernelManager]:
    """What manages the kernels that execute the book's notebooks."""
    return ForkedKernelManager if CAN_FORK else AsyncKernelManager
