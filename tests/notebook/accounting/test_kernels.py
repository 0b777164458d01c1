"""Accounting in real kernels: exact peaks, and every way in which a cell can run and end."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nbformat
import pytest
from jupyter_client.blocking.client import BlockingKernelClient
from jupyter_client.manager import KernelManager

from memkit.memory.files import kilobytes, read
from memkit.units import MIB

from .conftest import TAKE

pytestmark = pytest.mark.kernel

_RECORDS = """
import json
from memkit.notebook.extension import loaded
print(json.dumps([record.to_dict() for record in loaded(get_ipython()).cells.records]))
"""


class Kernel:
    """A kernel with memkit loaded; cells are run as a front end runs them."""

    def __init__(self, folder: Path) -> None:
        self.manager = KernelManager()
        environ = {**os.environ, "IPYTHONDIR": str(folder), "MEMKIT_STORE_DIR": str(folder)}
        self.manager.start_kernel(env=environ, stderr=subprocess.DEVNULL)
        self.client: BlockingKernelClient = self.manager.client()
        self.client.start_channels()
        self.client.wait_for_ready(timeout=60)
        self.outputs: list[dict[str, Any]] = []
        self.run("%load_ext memkit")
        self.run(TAKE)

    def run(self, source: str, cell_id: str | None = None, **options: Any) -> dict[str, Any]:
        """Run a cell to its end; the reply's content."""
        self.outputs = []
        message = self.message(source, cell_id, **options)
        self.client.shell_channel.send(message)
        return self.reply(message)

    def message(self, source: str, cell_id: str | None = None, **options: Any) -> dict[str, Any]:
        content = {"code": source, "silent": False, "store_history": True, "allow_stdin": False, **options}
        message: dict[str, Any] = self.client.session.msg("execute_request", content)
        if cell_id is not None:
            message["metadata"]["cellId"] = cell_id
        return message

    def reply(self, message: dict[str, Any]) -> dict[str, Any]:
        """Wait for the reply and the idle state; output of this request is kept."""
        replied: dict[str, Any] = {}
        while not replied:
            found = self.client.get_shell_msg(timeout=60)
            if found["parent_header"]["msg_id"] == message["header"]["msg_id"]:
                replied = found["content"]
        while True:
            found = self.client.get_iopub_msg(timeout=60)
            if found["parent_header"].get("msg_id") != message["header"]["msg_id"]:
                continue
            if found["msg_type"] == "status" and found["content"]["execution_state"] == "idle":
                return replied
            if found["msg_type"] in ("display_data", "execute_result", "stream", "error"):
                self.outputs.append({"output_type": found["msg_type"], **found["content"]})

    def control(self, kind: str) -> dict[str, Any]:
        self.client.control_channel.send(self.client.session.msg(kind))
        content: dict[str, Any] = self.client.get_control_msg(timeout=60)["content"]
        return content

    @property
    def text(self) -> str:
        """What was printed."""
        return "".join(output["text"] for output in self.outputs if output["output_type"] == "stream")

    def records(self) -> list[dict[str, Any]]:
        self.run(_RECORDS, store_history=False)
        found: list[dict[str, Any]] = json.loads(self.text)
        return found

    def mark(self) -> int:
        """VmHWM, as the system tells it of the kernel's process."""
        return kilobytes(read(f"/proc/{self.manager.provisioner.pid}/status"), "VmHWM")["VmHWM"]  # type: ignore[union-attr]

    def close(self) -> None:
        self.client.stop_channels()
        self.manager.shutdown_kernel(now=True)


@pytest.fixture(scope="module")
def kernel(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kernel]:
    made = Kernel(tmp_path_factory.mktemp("kernel"))
    yield made
    made.close()


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="this system keeps no mark that can be reset")
def test_peaks_of_known_allocations_are_exact_to_a_mebibyte(kernel: Kernel) -> None:
    """Above the beginning against the bytes allocated, and in all against the system's own mark."""
    for mib in range(4, 84, 4):
        kernel.run(f"%%memkit -q -o answer\nm = take({mib})\nm.close()\ndel m")
        mark = kernel.mark()
        kernel.run("print(answer.to_json())")
        cell = json.loads(kernel.text)["cell"]
        assert abs(cell["needed"] - mib * MIB) < MIB, mib
        assert abs(cell["peak"] - mark) < MIB, mib
        assert abs(cell["delta"]) < MIB, mib


def test_nested_cells_have_their_own_peaks_and_the_outer_has_all(kernel: Kernel) -> None:
    kernel.run(
        "take(60).close()\n"
        "get_ipython().run_cell('take(20).close()')\n"
        "get_ipython().run_cell('')\n"
        "get_ipython().run_cell('take(40).close()')\n"
        "kept = take(5)"
    )
    *_, first, second, outer, _ = [*kernel.records(), None]
    if outer["method"] == "kernel high-water mark":
        assert [round(r["needed"] / MIB, -1) for r in (first, second, outer)] == [20, 40, 60]
    assert [r["depth"] for r in (first, second, outer)] == [1, 1, 0]
    assert outer["delta"] > 4 * MIB
    assert outer["seconds"] >= first["seconds"] + second["seconds"]


def test_async_cells_are_accounted_for_over_their_awaits(kernel: Kernel) -> None:
    kernel.run("import asyncio\nm = take(30)\nawait asyncio.sleep(0.2)\nm.close()")
    last = kernel.records()[-1]
    assert last["error"] is None
    assert last["seconds"] >= 0.2
    assert not last["overlapped"]
    if last["method"] == "kernel high-water mark":
        assert last["needed"] > 29 * MIB


def test_a_comm_message_during_an_async_cell_disturbs_nothing(kernel: Kernel) -> None:
    """Widgets answer while a cell awaits; ipykernel then runs their callbacks in between."""
    kernel.run(
        "import asyncio\n"
        "def ring():\n    get_ipython().run_cell('take(20).close()')\n"
        "asyncio.get_running_loop().call_later(0.05, ring)\n"
        "await asyncio.sleep(0.3)"
    )
    *_, inner, outer = kernel.records()
    assert (inner["source"], inner["depth"]) == ("take(20).close()", 1)
    assert outer["depth"] == 0
    assert outer["seconds"] >= 0.3


def wait_until_busy(flag: Path) -> None:
    """The cell has got to where it makes this file."""
    deadline = time.monotonic() + 30
    while not flag.exists():
        assert time.monotonic() < deadline, "the cell has not come so far"
        time.sleep(0.01)


@pytest.mark.parametrize(
    ("wait", "errors"),
    [
        ("import time\ntime.sleep(30)", {"KeyboardInterrupt"}),
        # In steps: ipykernel hears of an interrupt when its event loop next has something to do.
        (
            "import asyncio\nfor _ in range(3000):\n    await asyncio.sleep(0.01)",
            {"CancelledError", "KeyboardInterrupt"},
        ),
    ],
)
def test_an_interrupted_cell_has_a_record_of_what_it_took(
    kernel: Kernel, tmp_path: Path, wait: str, errors: set[str]
) -> None:
    message = kernel.message(f"m = take(25)\nopen({str(tmp_path / 'flag')!r}, 'w').close()\n{wait}")
    kernel.client.shell_channel.send(message)
    wait_until_busy(tmp_path / "flag")
    kernel.manager.interrupt_kernel()
    assert kernel.reply(message)["status"] == "error"
    last = kernel.records()[-1]
    assert last["error"] in errors
    assert last["delta"] > 24 * MIB
    assert last["seconds"] < 30
    kernel.run("m.close()")
    assert kernel.records()[-1]["depth"] == 0, "the interrupted cell has not ended"


def test_a_cell_that_raises_has_a_record(kernel: Kernel) -> None:
    kernel.run("m = take(25)\nm.close()\n1/0")
    last = kernel.records()[-1]
    assert last["error"] == "ZeroDivisionError"
    assert last["ran"]
    kernel.run("1 +")
    assert not kernel.records()[-1]["ran"]


def test_silent_requests_have_no_record_and_no_badge(kernel: Kernel) -> None:
    kernel.run("%memkit badge on")
    count = len([r for r in kernel.records() if r["in_history"]])
    kernel.run("quiet = 1", silent=True)
    assert kernel.outputs == []
    kernel.run("hidden = 2", store_history=False)
    assert kernel.outputs == []
    kernel.run("%memkit badge off")
    assert len([r for r in kernel.records() if r["in_history"]]) == count + 1


def test_a_badge_comes_after_all_other_output_and_stays_in_the_file(kernel: Kernel) -> None:
    kernel.run("%memkit badge on")
    kernel.run("print('first')\n6 * 7")
    outputs = kernel.outputs
    kernel.run("%memkit badge off")
    assert [output["output_type"] for output in outputs] == ["stream", "execute_result", "display_data"]
    kept = nbformat.v4.output_from_msg({"header": {"msg_type": "display_data"}, "content": outputs[-1]})
    assert kept.metadata.memkit.seconds > 0
    nbformat.validate(kept, "output", version=4)


def test_cells_of_a_subshell_are_marked_where_they_overlap(kernel: Kernel, tmp_path: Path) -> None:
    reply = kernel.control("create_subshell_request")
    if reply.get("status") != "ok":
        pytest.skip("this ipykernel has no subshells")
    go, begun = tmp_path / "go", tmp_path / "begun"
    wait = (
        f"import os, time\nopen({str(begun)!r}, 'w').close()\nwhile not os.path.exists({str(go)!r}): time.sleep(0.01)"
    )
    main = kernel.message(f"# main\n{wait}\ntake(10).close()")
    kernel.client.shell_channel.send(main)
    wait_until_busy(begun)
    sub = kernel.message("# sub\ntake(30).close()\n'shown'")
    sub["header"]["subshell_id"] = reply["subshell_id"]
    kernel.client.shell_channel.send(sub)
    assert kernel.reply(sub)["status"] == "ok", "the subshell waits for the main shell"
    go.touch()
    deadline = time.monotonic() + 30
    while "# main" not in (found := {r["source"].split("\n")[0]: r for r in kernel.records()}):
        assert time.monotonic() < deadline
    for cell in (found["# main"], found["# sub"]):
        assert cell["overlapped"]
        assert cell["depth"] == 0
        if cell["method"] == "kernel high-water mark":
            assert cell["needed"] > 29 * MIB, "the mark is the process's: what the other took counts"
    kernel.run("x = 1")
    assert not kernel.records()[-1]["overlapped"]


def test_the_front_ends_cell_ids_lead_into_the_file(kernel: Kernel, tmp_path: Path) -> None:
    path = tmp_path / "nb.ipynb"
    nbformat.write(nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("m = 1", id="one")]), path)
    kernel.run("m = 1", cell_id="one")
    kernel.run(f"%memkit cells --write {path}")
    assert nbformat.read(path, 4).cells[0].metadata.memkit.execution_count > 0


def test_a_kernel_that_dies_leaves_nothing_half_written(tmp_path: Path) -> None:
    """Not even when it dies between writing the notebook file anew and putting it in place."""
    path = tmp_path / "nb.ipynb"
    nbformat.write(nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("m = 1", id="one")]), path)
    before = path.read_bytes()
    kernel = Kernel(tmp_path)
    try:
        kernel.run("m = 1", cell_id="one")
        kernel.run("import os\nos.replace = lambda *_: os.kill(os.getpid(), 9)")
        kernel.client.execute(f"%memkit cells --write {path}")
        deadline = time.monotonic() + 30
        while kernel.manager.is_alive():
            assert time.monotonic() < deadline
            time.sleep(0.02)
        assert path.read_bytes() == before
    finally:
        kernel.close()


def test_in_a_terminal_it_works_as_well(tmp_path: Path) -> None:
    code = "%load_ext memkit\n%memkit badge on\nx = 6\n%%memkit\nrows = [0] * 10**6\n\n\n"
    done = subprocess.run(
        [sys.executable, "-m", "IPython", "--simple-prompt", "--no-banner", "--colors=nocolor"],
        input=code, capture_output=True, text=True, timeout=60,
        env={**os.environ, "IPYTHONDIR": str(tmp_path), "MEMKIT_STORE_DIR": str(tmp_path)},
    )  # fmt: skip
    assert "peak +" in done.stdout
    assert "cell [4]" in done.stdout, done.stdout + done.stderr
