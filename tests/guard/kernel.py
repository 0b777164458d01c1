"""A real kernel alone in a control group: started, spoken to, watched, and started again after a death."""

from __future__ import annotations

import ast
import contextlib
import os
import queue
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jupyter_client import BlockingKernelClient
from jupyter_client.connect import write_connection_file

from tests.guard.group import Group

START_SECONDS = 60.0
_ALIVE_EVERY = 0.05
# The group is entered before Python begins, so that nothing of the kernel is counted elsewhere.
_ENTER = 'echo $$ > "$0" && exec "$@"'


# Takes memory until the process is dead whose number it is given.
_CROWD = """
import mmap, sys
pid, size = map(int, sys.argv[1:])
def alive():
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rsplit(")", 1)[1].split()[0] not in "ZX"
    except OSError:
        return False
memory = mmap.mmap(-1, size)
for start in range(0, size - 2**20, 2**20):
    if not alive():
        break
    memory[start:start + 2**20] = b"1" * 2**20
"""


class DiedError(Exception):
    """The kernel's process ended; `how` is the signal's name or the exit code."""

    def __init__(self, how: str) -> None:
        self.how = how
        super().__init__(how)


@dataclass(frozen=True, slots=True)
class Reply:
    """How a cell ended: `error` is empty where it passed; `values` are the user expressions asked for."""

    error: str
    text: str
    seconds: float
    values: dict[str, str]


def told(code: int) -> str:
    """`SIGKILL` or `exit 1`, from what a process ended with."""
    return signal.Signals(-code).name if code < 0 else f"exit {code}"


class Kernel:
    """One kernel after another under the same connection file's name and session name, in one group."""

    def __init__(self, group: Group, folder: Path, python: str = sys.executable) -> None:
        self.group = group
        self.folder = folder
        self.pids: list[int] = []
        self._began = time.time()
        self._python = python
        self._connection = folder / "kernel-battery.json"
        self._said = folder / "said.txt"
        (folder / "store").mkdir()
        shutil.copy(Path(__file__).with_name("room.py"), folder / "room.py")
        write_connection_file(str(self._connection), transport="ipc", ip=str(folder / "ipc"))
        self._process: subprocess.Popen[bytes] | None = None
        self._client: BlockingKernelClient | None = None
        self._others: list[subprocess.Popen[bytes]] = []

    def start(self) -> None:
        """Start it, or the next one, and wait until it answers; raises DiedError, TimeoutError."""
        with self._said.open("ab") as said:
            self._process = subprocess.Popen(
                ["sh", "-c", _ENTER, str(self.group.procs), *self._command()],
                cwd=self.folder,
                env=self._environment(),
                stdin=subprocess.DEVNULL,
                stdout=said,
                stderr=said,
                start_new_session=True,
            )
        self.pids.append(self._process.pid)
        self._connect()

    def _command(self) -> list[str]:
        # The history of this run is not the user's.
        history = "--HistoryManager.hist_file=:memory:"
        return [self._python, "-m", "ipykernel_launcher", "-f", str(self._connection), history]

    def _environment(self) -> dict[str, str]:
        added = {
            "BATTERY_GROUP": str(self.group.folder),
            "BATTERY_LIMIT": str(self.group.limit),
            "BATTERY_TAG": self.tag,
            "IPYTHONDIR": str(self.folder / "ipython"),
            "JPY_PARENT_PID": str(os.getpid()),
            "JPY_SESSION_NAME": str(self.folder / "battery.ipynb"),
            "MEMKIT_STORE_DIR": str(self.folder / "store"),
            "MPLBACKEND": "agg",
            "PYDEVD_DISABLE_FILE_VALIDATION": "1",
            "TMPDIR": str(self.folder),
        }
        return {**os.environ, **added}

    @property
    def tag(self) -> str:
        """A word in the names of whatever this kernel leaves in /dev/shm."""
        return self.group.folder.name

    def _connect(self) -> None:
        if self._client is not None:
            self._client.stop_channels()
        self._client = BlockingKernelClient(connection_file=str(self._connection))
        self._client.load_connection_file()
        self._client.start_channels(iopub=False, stdin=False, hb=False)
        self._client.allow_stdin = False
        deadline = time.monotonic() + START_SECONDS
        message = self._client.kernel_info()
        while self._reply_to(message, 1.0) is None:
            if time.monotonic() > deadline:
                raise TimeoutError(f"the kernel does not answer: {self.said()}")
            message = self._client.kernel_info()

    def run(self, code: str, seconds: float, **expressions: str) -> Reply:
        """Run a cell; raises DiedError at once where the kernel dies, TimeoutError after so many seconds."""
        return self.wait(self.send(code, **expressions), seconds)

    def send(self, code: str, **expressions: str) -> str:
        """Begin a cell; its message's id."""
        assert self._client is not None
        return str(self._client.execute(code, user_expressions=expressions, stop_on_error=False))

    def wait(self, message: str, seconds: float) -> Reply:
        """The end of a cell that was sent; raises as `run` does."""
        start = time.monotonic()
        content = self._reply_to(message, seconds)
        if content is None:
            raise TimeoutError(f"no answer in {seconds:.0f} s")
        values = {name: shown(value) for name, value in content.get("user_expressions", {}).items()}
        return Reply(content.get("ename") or "", content.get("evalue", ""), time.monotonic() - start, values)

    def _reply_to(self, message: str, seconds: float) -> dict[str, Any] | None:
        """The content of the reply to a message, or None where the time is over."""
        assert self._client is not None
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            with contextlib.suppress(queue.Empty):
                got = self._client.get_shell_msg(timeout=_ALIVE_EVERY)
                if got["parent_header"].get("msg_id") == message:
                    return dict(got["content"])
                continue
            self.check()
        return None

    def check(self) -> None:
        """Raise DiedError where the process is gone."""
        assert self._process is not None
        code = self._process.poll()
        if code is not None:
            raise DiedError(told(code))

    def watch(self, seconds: float) -> None:
        """Let it be idle for so long; raises DiedError as soon as it dies."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            self.check()
            time.sleep(_ALIVE_EVERY)

    def click(self, comm_id: str) -> None:
        """What a browser sends when the button of this id is clicked: no cell runs."""
        assert self._client is not None
        content = {"comm_id": comm_id, "data": {"method": "custom", "content": {"event": "click"}}}
        self._client.shell_channel.send(self._client.session.msg("comm_msg", content))

    def signal(self, name: str) -> None:
        """Send its process a signal."""
        assert self._process is not None
        self._process.send_signal(signal.Signals[name])

    def crowd(self) -> None:
        """Let a process that is none of the kernel's take the group's memory until the kernel is dead, and end."""
        assert self._process is not None
        script = [self._python, "-c", _CROWD, str(self._process.pid), str(self.group.limit)]
        self._others.append(subprocess.Popen(["sh", "-c", _ENTER, str(self.group.procs), *script]))

    def said(self) -> str:
        """The end of what the kernels wrote to their own stdout and stderr."""
        return self._said.read_bytes()[-4000:].decode(errors="replace").strip() if self._said.exists() else ""

    def close(self) -> None:
        """End it with everything in its group."""
        if self._client is not None:
            self._client.stop_channels()
        try:
            self.group.remove()
        finally:
            for process in filter(None, (self._process, *self._others)):
                process.wait()
            self._clear_shared_memory()

    def _clear_shared_memory(self) -> None:
        for path in Path("/dev/shm").glob("*"):
            if f"{self.tag}-" in path.name or any(str(pid) in path.name for pid in self.pids) or self._orphaned(path):
                shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)

    def _orphaned(self, path: Path) -> bool:
        """Whether it is a tensor that a worker, now dead, has shared since this kernel was started."""
        kind, _, rest = path.name.partition("_")
        if kind != "torch" or Path("/proc", rest.partition("_")[0]).exists():
            return False
        with contextlib.suppress(FileNotFoundError):
            return path.stat().st_ctime >= self._began
        return False


def shown(value: dict[str, Any]) -> str:
    """A user expression as text, or the name of the error it ended with."""
    return str(value["data"]["text/plain"]) if value["status"] == "ok" else f"{value['ename']}: {value['evalue']}"


def literal(text: str) -> object:
    """What a text stands for, or the text itself where it is no literal."""
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text
