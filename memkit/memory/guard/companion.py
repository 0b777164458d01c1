"""A thread that keeps the watcher running, hears what it says, and frees memory while a cell waits."""

from __future__ import annotations

import contextlib
import logging
import os
import select
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

log = logging.getLogger("memkit")

# Our package is found last: nothing beside it can take the place of a module of the standard library.
_BOOT = "import sys; sys.path.append(sys.argv.pop(1)); from memkit.memory.guard.watcher import main; main(sys.argv[1:])"
_ROOT = str(Path(__file__).resolve().parents[3])
_MOST_STARTS, _WITHIN = 5, 60.0  # a watcher that dies this often has a reason to
_AGAIN = 30.0
_PATIENCE = 2.0


class Companion:
    """Runs the watcher with these arguments. `relieve(bytes)` and `heard(line)` are called in the thread.

    `starts` are the times of the last starts; `pid` is the running watcher's, 0 while there is none; `trouble` says
    why there is none.
    """

    def __init__(
        self,
        arguments: list[str],
        page_fd: int | None,
        *,
        relieve: Callable[[int], object],
        heard: Callable[[str], object],
    ) -> None:
        self._command = [sys.executable, "-I", "-S", "-c", _BOOT, _ROOT, *arguments]
        self._page_fd = page_fd
        self._relieve, self._heard = relieve, heard
        self._process: subprocess.Popen[bytes] | None = None
        self._wanted = 0
        self._relieved = threading.Event()
        self._stopping = False
        self._requests, self._request = os.pipe()
        self.starts: deque[float] = deque(maxlen=_MOST_STARTS)
        self.count = 0
        self.trouble = ""
        self._thread = threading.Thread(target=self._run, name="memkit-guard", daemon=True)
        self._thread.start()

    @property
    def pid(self) -> int:
        process = self._process
        return process.pid if process is not None else 0

    def nudge(self) -> None:
        """Have the watcher look now: a cell begins, or the marks have changed."""
        process = self._process
        if process is not None and process.stdin is not None:
            with contextlib.suppress(OSError, ValueError):  # it has just ended; the next one begins with a look
                os.write(process.stdin.fileno(), b"\n")

    def relieve(self, needed: int, patience: float) -> bool:
        """Have the thread free memory, and wait for it; False where it took longer than `patience` seconds.

        Called from a signal handler: whatever the interrupted code holds, the thread does not wait for it for ever.
        """
        self._wanted = needed
        self._relieved.clear()
        os.write(self._request, b"r")
        return self._relieved.wait(patience)

    def stop(self) -> None:
        """End the watcher and the thread."""
        self._stopping = True
        os.write(self._request, b"s")
        if self._thread is not threading.current_thread():
            self._thread.join(_PATIENCE)
        os.close(self._request)
        os.close(self._requests)

    # -- the thread -------------------------------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            while not self._stopping:
                self._start()
                self._listen()
        finally:
            self._end()

    def _start(self) -> None:
        if len(self.starts) == _MOST_STARTS and time.monotonic() - self.starts[0] < _WITHIN:
            self.trouble = f"it ended {_MOST_STARTS} times within a minute"
            return
        try:
            self._process = subprocess.Popen(
                self._command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                pass_fds=[] if self._page_fd is None else [self._page_fd],
                bufsize=0,
            )
        except OSError as error:
            self.trouble = f"it cannot be started: {error}"
            return
        self.count += 1
        self.starts.append(time.monotonic())
        self.trouble = ""

    def _listen(self) -> None:
        """Until the watcher has ended or we are to stop; where there is none, until it is time to try again."""
        poll = select.poll()
        poll.register(self._requests, select.POLLIN)
        voice = self._process.stdout.fileno() if self._process is not None and self._process.stdout else None
        if voice is not None:
            poll.register(voice, select.POLLIN)
        while not self._stopping:
            ready = dict(poll.poll(None if voice is not None else _AGAIN * 1000))
            if self._requests in ready:
                self._answer()
            if voice in ready and not self._hear(os.read(voice, 4096)):
                break
            if not ready:
                return
        self._end()

    def _answer(self) -> None:
        if b"r" not in os.read(self._requests, 64) or self._stopping:
            return
        try:
            self._relieve(self._wanted)
        except Exception:  # what frees memory is given; a failure must not end the guard
            log.exception("memkit: memory could not be freed")
        finally:
            self._relieved.set()

    def _hear(self, said: bytes) -> bool:
        for line in said.decode(errors="replace").splitlines():
            self._heard(line)
        return bool(said)

    def _end(self) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        for pipe in (process.stdin, process.stdout):
            _close(pipe)
        process.kill()
        process.wait()


def _close(pipe: Any) -> None:
    if pipe is not None:
        with contextlib.suppress(OSError):
            pipe.close()
