"""GPUs through pretended NVML and torch."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from types import SimpleNamespace
from typing import Any

import pytest

from memkit.memory import accelerators
from memkit.memory.accelerators import Accelerators, Device
from memkit.units import GIB, MIB


class FakeNvml:
    """Two cards; process 42 runs on the first, another one on both."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.lost = False
        self.compute = {0: [(42, 3 * GIB), (7, GIB)], 1: [(7, GIB)]}

    def nvmlInit(self) -> None:
        self.calls.append("init")

    def nvmlShutdown(self) -> None:
        self.calls.append("shutdown")

    def nvmlDeviceGetCount(self) -> int:
        if self.lost:
            raise RuntimeError("GPU is lost")
        return 2

    def nvmlDeviceGetHandleByIndex(self, index: int) -> int:
        return index

    def nvmlDeviceGetName(self, handle: int) -> bytes | str:
        return b"Card A" if handle == 0 else "Card B"

    def nvmlDeviceGetUUID(self, handle: int) -> str:
        return f"GPU-{handle}"

    def nvmlDeviceGetMemoryInfo(self, handle: int) -> Any:
        return SimpleNamespace(total=24 * GIB, used=(handle + 4) * GIB)

    def nvmlDeviceGetComputeRunningProcesses(self, handle: int) -> list[Any]:
        return [SimpleNamespace(pid=pid, usedGpuMemory=used) for pid, used in self.compute[handle]]

    def nvmlDeviceGetGraphicsRunningProcesses(self, handle: int) -> list[Any]:
        return self.nvmlDeviceGetComputeRunningProcesses(handle)


class FakeTorch:
    """torch with CUDA cards given as (name, uuid, reserved), or with Apple's MPS."""

    def __init__(self, *cards: tuple[str, str | None, int], initialised: bool = True, mps: bool = False) -> None:
        self.asked: list[int] = []
        self.cuda = SimpleNamespace(
            is_initialized=lambda: initialised,
            device_count=lambda: len(cards),
            get_device_properties=lambda i: SimpleNamespace(name=cards[i][0], uuid=cards[i][1], total_memory=8 * GIB),
            memory_reserved=lambda i: cards[i][2],
            mem_get_info=self._free,
        )
        self.backends = SimpleNamespace(mps=SimpleNamespace(is_available=lambda: mps))
        self.mps = SimpleNamespace(
            recommended_max_memory=lambda: 12 * GIB,
            driver_allocated_memory=lambda: 3 * GIB,
            current_allocated_memory=lambda: 2 * GIB,
        )

    def _free(self, index: int) -> tuple[int, int]:
        self.asked.append(index)
        return 5 * GIB, 8 * GIB


def absent() -> Any:
    raise ImportError("No module named 'pynvml'")


def test_each_card_tells_everybodys_use_and_ours() -> None:
    devices = Accelerators(FakeNvml, {}, pid=42)()
    assert devices == (
        Device("Card A", 0, 24 * GIB, 4 * GIB, 3 * GIB),
        Device("Card B", 1, 24 * GIB, 5 * GIB, None),
    )


def test_a_driver_that_gives_no_bytes_per_process_is_not_zero() -> None:
    nvml = FakeNvml()
    nvml.compute = {0: [(42, None)], 1: []}  # type: ignore[list-item]
    assert Accelerators(lambda: nvml, {}, pid=42)()[0].ours is None


def test_nvml_is_connected_to_once_and_let_go_once() -> None:
    nvml = FakeNvml()
    read = Accelerators(lambda: nvml, {})
    read()
    read()
    read.close()
    read.close()
    assert nvml.calls == ["init", "shutdown"]


def test_a_forked_child_connects_for_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    nvml = FakeNvml()
    read = Accelerators(lambda: nvml, {})
    read()
    monkeypatch.setattr(accelerators.os, "getpid", lambda: 99999999)
    read()
    assert nvml.calls == ["init", "init"]


def test_that_there_is_no_card_is_found_out_once_and_said() -> None:
    tries: list[int] = []

    def load() -> Any:
        tries.append(1)
        return absent()

    read = Accelerators(load, {})
    assert (read(), read()) == ((), ())
    assert len(tries) == 1
    assert "pynvml" in read.notes[0]


def test_a_card_that_is_lost_is_said_and_comes_back() -> None:
    nvml = FakeNvml()
    read = Accelerators(lambda: nvml, {}, pid=42)
    nvml.lost = True
    assert read() == ()
    assert "lost" in read.notes[0]
    nvml.lost = False
    assert len(read()) == 2
    assert read.notes == ()


def test_torch_is_never_imported() -> None:
    before = "torch" in sys.modules
    Accelerators()()
    assert ("torch" in sys.modules) == before


def test_torch_that_has_not_touched_cuda_is_not_made_to() -> None:
    """Asking would create a context of hundreds of MB on every card."""
    torch = FakeTorch(("Card", None, GIB), initialised=False)
    assert Accelerators(absent, {"torch": torch})() == ()
    assert torch.asked == []


def test_a_card_without_our_memory_is_not_asked_for_its_use() -> None:
    torch = FakeTorch(("Used", None, GIB), ("Idle", None, 0))
    used, idle = Accelerators(absent, {"torch": torch})()
    assert (used.used, used.ours, idle.used, idle.ours) == (3 * GIB, GIB, None, 0)
    assert torch.asked == [0]


def test_one_card_known_to_both_is_listed_once_by_its_uuid() -> None:
    """CUDA_VISIBLE_DEVICES=1 makes NVML's second card torch's first."""
    torch = FakeTorch(("Card B", "1", 900 * MIB))
    devices = Accelerators(FakeNvml, {"torch": torch}, pid=42)()
    assert [(device.name, device.ours) for device in devices] == [("Card A", 3 * GIB), ("Card B", 900 * MIB)]


def test_without_uuids_name_and_number_must_agree() -> None:
    torch = FakeTorch(("Card A", None, 4 * GIB), ("Card C", None, 0))
    devices = Accelerators(FakeNvml, {"torch": torch}, pid=42)()
    assert [(device.name, device.ours) for device in devices] == [("Card A", 4 * GIB), ("Card B", None), ("Card C", 0)]


def test_apples_unified_memory_is_read_from_torch() -> None:
    read = Accelerators(absent, {"torch": FakeTorch(initialised=False, mps=True)})
    assert read() == (Device("Apple GPU", 0, 12 * GIB, 3 * GIB, 2 * GIB),)


def test_a_half_imported_torch_is_said_and_nvml_still_read() -> None:
    read = Accelerators(FakeNvml, {"torch": SimpleNamespace()}, pid=42)
    assert len(read()) == 2
    assert "torch" in read.notes[0]


_REAL = """
from memkit.memory.accelerators import Accelerators
import torch
read = Accelerators(lambda: 1 / 0)
read()
print([note for note in read.notes if "torch" in note], torch.cuda.is_initialized())
"""


@pytest.mark.skipif(importlib.util.find_spec("torch") is None, reason="torch is not installed")
def test_the_real_torch_answers_where_it_is_loaded_and_is_not_made_to_start_cuda() -> None:
    """In a process of its own: torch would make every later test of this one slower."""
    result = subprocess.run([sys.executable, "-c", _REAL], capture_output=True, text=True, timeout=60, check=True)
    assert result.stdout.strip() == "[] False"
