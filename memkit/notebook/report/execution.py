"""Runs the cells of a notebook one after the other, saving after each, and knows what is known when it ends early."""

from __future__ import annotations

import asyncio
import dataclasses
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from memkit.notebook.report.document import cells_to_run, coalesce
from memkit.notebook.report.kernel import Kernel, KernelDiedError, Start, cancel, ended, running
from memkit.notebook.report.result import CellRun, Death, Progress, State
from memkit.notebook.report.trace import Tail

_TICK = 0.2  # seconds between two looks at a running cell
_GRACE = 5.0  # seconds that a cell has to end after it was interrupted for taking too long
_LOAD_SECONDS = 60.0

# Run in a namespace of its own, so that the notebook sees nothing of it.
_LOAD = """
import memkit
from IPython import get_ipython
memkit.load_ipython_extension(get_ipython())
from memkit.notebook.report.recorder import begin
begin({path!r}, {interval!r})
"""


@dataclasses.dataclass(frozen=True, slots=True)
class Wish:
    """What was asked for; seconds. Without `memkit` the kernel is left as it is, and nothing is recorded in it."""

    timeout: float | None
    interval: float
    allow_errors: bool
    memkit: bool = True


class Execution:
    """One run of one notebook; its state is true at any moment, also after `run` was cancelled or has raised."""

    def __init__(
        self,
        notebook: Any,
        folder: Path,
        private: Path,
        wish: Wish,
        save: Callable[[], None],
        on_progress: Callable[[Progress], object],
        start: Start,
    ) -> None:
        self.cells = cells_to_run(notebook)
        self.death: Death | None = None
        self.notes: list[str] = []
        self._notebook, self._folder, self._wish = notebook, folder, wish
        self._save, self._on_progress, self._start = save, on_progress, start
        self._recording = private / "recording.jsonl"
        self._stderr = private / "stderr.txt"
        self._tail = Tail(self._recording)
        self._began = 0.0

    @property
    def trace(self) -> Any:
        """Everything that was recorded so far."""
        return self._tail.read()

    async def run(self, kernel_name: str) -> None:
        """Start a kernel and run the cells; returns early where one fails or the kernel dies."""
        try:
            async with running(kernel_name, self._folder, self._stderr, self._start) as kernel:
                await self._learn_language(kernel)
                if self._wish.memkit:
                    await self._load_memkit(kernel)
                await self._run_cells(kernel)
        except KernelDiedError as death:
            self._died(None, death)

    async def _learn_language(self, kernel: Kernel) -> None:
        info = await kernel.while_alive(kernel.client.kernel_info(reply=True, timeout=_LOAD_SECONDS))
        self._notebook.metadata["language_info"] = info["content"]["language_info"]

    async def _load_memkit(self, kernel: Kernel) -> None:
        """Before the first cell and unseen by the notebook; without memkit the cells are run all the same."""
        code = _LOAD.format(path=str(self._recording), interval=self._wish.interval)
        reply = await kernel.while_alive(
            kernel.client.execute_interactive(
                f"exec({code!r}, {{}})", silent=True, store_history=False, allow_stdin=False,
                timeout=_LOAD_SECONDS, output_hook=lambda message: None,
            )
        )  # fmt: skip
        if reply["content"]["status"] != "ok":
            reason = f"{reply['content'].get('ename')}: {reply['content'].get('evalue')}"
            self.notes.append(f"memkit could not be loaded in the kernel, so its memory was not measured: {reason}")

    async def _run_cells(self, kernel: Kernel) -> None:
        from nbclient import NotebookClient

        client = NotebookClient(
            self._notebook, km=kernel.manager, timeout=None, coalesce_streams=True, store_widget_state=False
        )
        client.kc = kernel.client
        for position in range(len(self.cells)):
            state = await self._run_cell(client, kernel, position)
            self._save()
            if state not in ("done", "failed") or (state == "failed" and not self._wish.allow_errors):
                return
        await kernel.check()

    # -- one cell --------------------------------------------------------------------------------------------------

    async def _run_cell(self, client: Any, kernel: Kernel, position: int) -> State:
        self._began, known = time.time(), len(self.trace.records)
        self._change(position, state="interrupted", started=self._began)  # unless it comes to an end of its own
        cell = self._notebook.cells[self.cells[position].index]
        task = asyncio.ensure_future(client.async_execute_cell(cell, self.cells[position].index))
        kernel.busy = True
        try:
            state, death = await self._outcome(task, kernel, position)
        finally:
            self._change(position, seconds=time.time() - self._began)
            await cancel(task)
        records = self.trace.records[known:]
        error = next((output.ename for output in cell.outputs if output.output_type == "error"), None)
        # A cell that runs others inside it ends last, so the last record is its own.
        record = records[-1] if records else None
        # A UsageError of a magic has no error output, only a record.
        self._change(position, state=state, error=error or (record.error if record else None), record=record)
        kernel.busy = state == "timed out"
        if death is not None:
            self._died(self.cells[position], death)
            coalesce(cell)
        self._tell(position, running=False)
        return state

    async def _outcome(
        self, task: asyncio.Future[Any], kernel: Kernel, position: int
    ) -> tuple[State, KernelDiedError | None]:
        """Wait for a cell; one that takes too long is interrupted, and given up where that does not help."""
        from nbclient.exceptions import CellExecutionError, DeadKernelError
        from zmq import ZMQError

        try:
            if not await self._watch(task, kernel, position, self._wish.timeout):
                await kernel.manager.interrupt_kernel()
                await self._watch(task, kernel, position, _GRACE)
                return "timed out", None
            task.result()
        except CellExecutionError:
            return "failed", None
        except DeadKernelError:
            return "died", KernelDiedError(f"the kernel {ended(await kernel.exit_code())}", kernel.said())
        except ZMQError as error:
            return "died", KernelDiedError(f"the kernel takes no messages any more: {error}", kernel.said())
        except KernelDiedError as death:
            await asyncio.wait({task}, timeout=_TICK)  # what it printed last is still on its way
            return "died", death
        return "done", None

    async def _watch(self, task: asyncio.Future[Any], kernel: Kernel, position: int, seconds: float | None) -> bool:
        """Tell of the progress until the task is done (True) or the time is over (False); raises KernelDiedError."""
        deadline = None if seconds is None else time.monotonic() + seconds
        while not task.done():
            self._tell(position, running=True)
            left = _TICK if deadline is None else min(_TICK, deadline - time.monotonic())
            if left <= 0:
                return False
            await asyncio.wait({task}, timeout=left)
            if not task.done():
                await kernel.check()
        return True

    def _died(self, cell: CellRun | None, death: KernelDiedError) -> None:
        if self.death is not None:
            return
        trace = self.trace
        self.death = Death(
            cell=cell,
            cause=str(death),
            at=time.time(),
            level=trace.levels[-1] if trace.levels else None,
            sample=trace.samples[-1] if trace.samples else None,
            resources=trace.resources,
            resource_count=trace.resource_count,
            said=death.said,
        )

    def _change(self, position: int, **changes: Any) -> None:
        self.cells[position] = dataclasses.replace(self.cells[position], **changes)

    def _tell(self, position: int, running: bool) -> None:
        cell, trace = self.cells[position], self.trace
        since = [sample.rss for sample in trace.samples if sample.time >= self._began]
        before = [sample for sample in trace.samples if sample.time < self._began][-1:]
        peak = max(since, default=None) if running else cell.peak
        grown = since[-1] - before[0].rss if since and before else None
        self._on_progress(
            Progress(cell, len(self.cells), running, time.time() - self._began, peak, grown if running else cell.delta)
        )
