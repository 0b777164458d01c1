"""The peak of GPU memory for a cell, without spoiling it for the notebook."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from memkit.notebook.accounting import vram
from memkit.notebook.accounting.vram import Vram, between


class Cuda:
    """As much of torch.cuda as is asked; `allocated` by device."""

    def __init__(self, *allocated: int, awake: bool = True) -> None:
        self.allocated, self.peaks, self.awake = list(allocated), list(allocated), awake

    def is_initialized(self) -> bool:
        return self.awake

    def device_count(self) -> int:
        assert self.awake, "asked of a GPU that sleeps: that makes a context of hundreds of MB"
        return len(self.allocated)

    def goes_to(self, size: int) -> None:
        self.allocated[0] = size
        self.peaks[0] = max(self.peaks[0], size)

    def memory_stats_as_nested_dict(self, device: int) -> dict[str, Any]:
        return {"allocated_bytes": {"all": {"current": self.allocated[device], "peak": self.peaks[device]}}}

    def reset_peak_memory_stats(self, device: int) -> None:
        self.peaks[device] = self.allocated[device]


def modules(cuda: Cuda) -> dict[str, Any]:
    return {"torch": SimpleNamespace(cuda=cuda)}


def test_devices_are_summed() -> None:
    cuda = Cuda(5, 7)
    cuda.goes_to(6)
    cuda.goes_to(1)
    assert vram.read(modules(cuda)) == Vram(current=8, peak=13)


def test_without_torch_or_with_a_sleeping_gpu_there_is_nothing_and_nobody_is_woken() -> None:
    assert vram.read({}) is None
    assert vram.read(modules(Cuda(5, awake=False))) is None
    vram.restart({})
    vram.restart(modules(Cuda(5, awake=False)))


def test_torch_that_is_half_imported_or_broken_is_no_failure() -> None:
    assert vram.read({"torch": SimpleNamespace()}) is None
    assert vram.read(modules(SimpleNamespace(is_initialized=lambda: 1 / 0))) is None  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("before", "after", "peak", "exact"),
    [
        (None, None, None, True),
        (None, Vram(3, 9), 9, True),  # this cell was the first to use the GPU
        (Vram(3, 9), Vram(4, 12), 12, True),  # the highest ever is this cell's
        (Vram(3, 3), Vram(3, 3), 3, True),
        (Vram(3, 9), Vram(5, 9), 5, False),  # an earlier cell has been higher: this one somewhere between
        (Vram(5, 9), Vram(3, 9), 5, False),
        (Vram(3, 9), Vram(3, 7), 7, False),  # the cell itself has reset torch's peak
    ],
)
def test_a_peak_is_exact_where_torchs_own_has_risen(
    before: Vram | None, after: Vram | None, peak: int | None, exact: bool
) -> None:
    assert between(before, after) == (peak, exact)


def test_after_a_restart_the_next_peak_is_exact() -> None:
    cuda = Cuda(100)
    cuda.goes_to(900)
    cuda.goes_to(200)
    vram.restart(modules(cuda))
    before = vram.read(modules(cuda))
    cuda.goes_to(500)
    cuda.goes_to(100)
    assert between(before, vram.read(modules(cuda))) == (500, True)


@pytest.fixture
def cuda(monkeypatch: pytest.MonkeyPatch) -> Cuda:
    made = Cuda(100)
    monkeypatch.setitem(__import__("sys").modules, "torch", SimpleNamespace(cuda=made))
    return made


def test_the_record_of_a_cell_has_it(cuda: Cuda, notebook: Any, records: Any) -> None:
    notebook.shell.user_ns["cuda"] = cuda
    notebook("cuda.goes_to(900); cuda.goes_to(100)")
    notebook("cuda.goes_to(300)")
    first, second = records()[-2:]
    assert (first.vram_peak, first.vram_exact) == (900, True)
    assert (second.vram_peak, second.vram_exact) == (300, False)
    assert "VRAM at least" in second.note
    assert cuda.peaks == [900], "what the notebook reads from torch has changed"


def test_the_cell_magic_makes_it_exact(cuda: Cuda, notebook: Any, records: Any) -> None:
    notebook.shell.user_ns["cuda"] = cuda
    notebook("cuda.goes_to(900); cuda.goes_to(100)")
    assert "VRAM peak 300 B" in notebook("%%memkit\ncuda.goes_to(300); cuda.goes_to(100)")
    assert records()[-1].vram_exact
    assert "VRAM peak" in notebook("%memkit cells")
