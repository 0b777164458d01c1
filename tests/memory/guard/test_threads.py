"""Ending threads that a cell has started."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from types import FrameType

import pytest

from memkit.errors import MemoryGuardError
from memkit.memory.guard import stack, threads


class Worker:
    """A thread that runs until it is told to end, or raised something."""

    def __init__(self) -> None:
        self.raised: BaseException | None = None
        self.stop = False
        self.ready = threading.Event()
        self.thread = threading.Thread(target=self.run)

    def run(self) -> None:
        try:
            self.ready.set()
            while not self.stop:
                time.sleep(0.001)
        except MemoryGuardError as error:
            self.raised = error

    def __enter__(self) -> Worker:
        self.thread.start()
        assert self.ready.wait(5)
        return self

    def __exit__(self, *_: object) -> None:
        self.stop = True
        self.thread.join(5)


@pytest.fixture
def worker() -> Iterator[Worker]:
    with Worker() as worker:
        yield worker


def runs(code: Callable[..., object]) -> Callable[[FrameType], bool]:
    return lambda frame: frame.f_code is code.__code__


def test_a_new_thread_is_raised_the_error_and_an_old_one_is_not(worker: Worker) -> None:
    before = threads.running()
    with Worker() as new:
        assert threads.end(before, MemoryGuardError) == 1
        new.thread.join(5)
        assert isinstance(new.raised, MemoryGuardError)
    assert worker.raised is None


def test_only_threads_that_run_the_wanted_code_are_ended() -> None:
    before = threads.running()
    with Worker() as new:
        assert threads.end(before, MemoryGuardError, runs(Worker.__init__)) == 0
        assert threads.end(before, MemoryGuardError, runs(Worker.run)) == 1
        new.thread.join(5)
        assert new.raised is not None


def test_memkits_own_threads_are_never_ended() -> None:
    before = threads.running()
    with Worker() as new:
        new.thread.name = "memkit-something"
        assert threads.end(before, MemoryGuardError) == 0


def test_the_walk_stops_at_the_nearest_frame_of_the_notebook() -> None:
    def innermost() -> bool:
        import sys

        frame = sys._getframe()
        own = frame.f_globals["__name__"]
        assert stack.within(frame, own, until=lambda frame: False)
        assert not stack.within(frame, own, until=lambda frame: True)
        return stack.any_of(frame, runs(outermost))

    def outermost() -> bool:
        return innermost()

    assert outermost()
    assert not innermost()
