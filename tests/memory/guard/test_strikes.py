"""What a cell that does not stop is raised next."""

from __future__ import annotations

from memkit.errors import MemoryGuardError, MemoryGuardInterrupt
from memkit.memory.guard.strikes import Strikes


def test_two_errors_then_interrupts_each_a_second_apart() -> None:
    strikes = Strikes()
    raised = [strikes.next(now) for now in (0.0, 1.0, 2.0, 3.0)]
    assert raised == [MemoryGuardError, MemoryGuardError, MemoryGuardInterrupt, MemoryGuardInterrupt]


def test_a_cell_that_is_unwinding_is_left_alone_for_a_second() -> None:
    strikes = Strikes()
    assert strikes.next(10.0) is MemoryGuardError
    assert strikes.unwinding(10.5)
    assert strikes.next(10.999) is None
    assert strikes.count == 1
    assert not strikes.unwinding(11.0)


def test_the_interrupt_passes_through_except_exception() -> None:
    assert issubclass(MemoryGuardInterrupt, KeyboardInterrupt)
    assert not issubclass(MemoryGuardInterrupt, Exception)
