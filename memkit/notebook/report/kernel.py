"""A kernel of our own: started, watched, and gone afterwards whatever happened."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from memkit.errors import MemkitError

T = TypeVar("T")

START_SECONDS = 60.0  # a cold start of a kernel with many extensions on a slow disk takes half of it
SUSPICION = ", which the system sends when memory runs out"
_ALIVE_EVERY = 0.25
_SEND_MILLISECONDS = 10_000
_LONGEST_SAID = 4000  # characters


class KernelDiedError(MemkitError):
    """The kernel ended, or never began, without being asked to; the message says how, `said` what it wrote last."""

    def __init__(self, message: str, said: str = "") -> None:
        self.said = said
        super().__init__(message)


@dataclass(frozen=True, slots=True)
class Start:
    """How a kernel's process begins, and who follows it.

    `prefix` is a command that ends by executing what comes after it, in the same process. `environ` is added to the
    environment. `started` is told the process id, `look` is called a few times a second while the process lives.
    """

    prefix: tuple[str, ...] = ()
    environ: Mapping[str, str] = field(default_factory=dict)
    started: Callable[[int], object] = lambda pid: None
    look: Callable[[], object] = lambda: None


class Kernel:
    """One kernel process: its manager, its client, and the file that gets what it writes to stdout and stderr."""

    def __init__(self, manager: Any, stderr: Path, start: Start) -> None:
        self.manager = manager
        self.client: Any = None
        self.busy = False  # a cell runs, or did when it was given up
        self._stderr, self._start = stderr, start
        self._said_at_start = 0
        self._provisioner: Any = None

    @property
    def name(self) -> str:
        """The name of its kernel specification."""
        return str(self.manager.kernel_name)

    async def start(self, folder: Path) -> None:
        """Start it in a folder and wait until it answers; raises KernelDiedError."""
        from zmq import ZMQError

        # The history of this run is not the user's.
        history = ["--HistoryManager.hist_file=:memory:"] if self.manager.ipykernel else []
        try:
            with self._stderr.open("wb") as errors:
                await self.manager.start_kernel(
                    extra_arguments=history, cwd=str(folder), stdout=errors, stderr=errors,
                    env={**os.environ, **self._start.environ},
                )  # fmt: skip
            self._provisioner = self.manager.provisioner
            self._start.started(self._provisioner.pid)
            self.client = self.manager.client()
            self.client.start_channels()
            # A socket whose other end has refused it for good (another kernel took the port) would block for ever.
            for channel in (self.client.shell_channel, self.client.control_channel):
                channel.socket.sndtimeo = _SEND_MILLISECONDS
            await self.while_alive(self.client.wait_for_ready(timeout=START_SECONDS))
        except (OSError, RuntimeError, TimeoutError, ZMQError, KernelDiedError) as error:
            raise KernelDiedError(
                f"the kernel {self.name!r} did not start: {await self._why(error)}", self.said()
            ) from error
        self.client.allow_stdin = False
        self._said_at_start = self._stderr.stat().st_size  # what it says while it starts is the same each time

    async def check(self) -> None:
        """Raise KernelDiedError where the process is gone."""
        if not await self.manager.is_alive():
            raise KernelDiedError(f"the kernel {ended(await self.exit_code())}", self.said())
        self._start.look()

    async def _why(self, error: Exception) -> str:
        code = await self.exit_code()
        return str(error) if code is None else f"it {ended(code)}"

    async def while_alive(self, work: Awaitable[T]) -> T:
        """The result of some work with the kernel; raises KernelDiedError as soon as the process is gone."""
        task = asyncio.ensure_future(work)
        try:
            while not task.done():
                await asyncio.wait({task}, timeout=_ALIVE_EVERY)
                if not task.done():
                    await self.check()
            return task.result()
        finally:
            await cancel(task)

    async def exit_code(self) -> int | None:
        """What the process ended with: negative for a signal, None while it runs or where it cannot be known."""
        code = None if self._provisioner is None else await self._provisioner.poll()
        return None if code is None else int(code)

    def said(self) -> str:
        """The end of what the process wrote to its own stdout and stderr since it was ready."""
        if not self._stderr.exists():
            return ""
        said = self._stderr.read_bytes()[self._said_at_start :]
        return said.decode(errors="replace").strip()[-_LONGEST_SAID:]

    async def stop(self) -> None:
        """End it, gently where it still listens, and remove its connection file and channels."""
        try:
            if self.client is not None:
                self.client.stop_channels()
            if self.manager.has_kernel:
                alive = await self.manager.is_alive()
                if alive and self.busy:  # else it would hear of the shutdown only after its cell
                    await self.manager.interrupt_kernel()
                await self.manager.shutdown_kernel(now=not alive)
        finally:
            await self.manager.cleanup_resources()


@contextlib.asynccontextmanager
async def running(name: str, folder: Path, stderr: Path, start: Start = Start()) -> AsyncIterator[Kernel]:
    """A kernel that answers, for the length of a `with`; raises KernelDiedError where it does not start."""
    kernel = Kernel(_manager(name, start.prefix), stderr, start)
    try:
        await kernel.start(folder)
        yield kernel
    finally:
        # Shielded: a second Ctrl-C must not leave a kernel behind.
        stopping = asyncio.ensure_future(kernel.stop())
        try:
            await asyncio.shield(stopping)
        except asyncio.CancelledError:
            await stopping
            raise


def _manager(name: str, prefix: tuple[str, ...]) -> Any:
    from jupyter_client.manager import AsyncKernelManager

    class Prefixed(AsyncKernelManager):  # type: ignore[misc,unused-ignore]
        """Puts a command before the kernel's own, once `python` in that is resolved."""

        def format_kernel_cmd(self, extra_arguments: list[str] | None = None) -> list[str]:
            return [*prefix, *super().format_kernel_cmd(extra_arguments)]

    return Prefixed(kernel_name=name)


async def cancel(task: asyncio.Future[Any]) -> None:
    """End a task and wait until it has ended; what it raises then is of no more interest."""
    if not task.done():
        task.cancel()
        await asyncio.wait({task}, timeout=5)
    if task.done() and not task.cancelled():
        task.exception()  # seen, so that asyncio does not complain


def known(name: str) -> bool:
    """Whether a kernel of that name is installed."""
    from jupyter_client.kernelspec import KernelSpecManager, NoSuchKernel

    try:
        KernelSpecManager().get_kernel_spec(name)
    except NoSuchKernel:
        return False
    return True


def ended(code: int | None) -> str:
    """How a process ended, in words."""
    if code is None:
        return "ended; how is not known"
    if code >= 0:
        return f"ended by itself with exit code {code}"
    try:
        name = signal.Signals(-code).name
    except ValueError:
        name = "a signal"
    why = SUSPICION if name == "SIGKILL" else ""
    return f"was killed by {name} (signal {-code}){why}"
