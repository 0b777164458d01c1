"""Memory of GPUs: NVIDIA's through NVML, AMD's and Apple's through torch where a notebook has loaded it already."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping


@dataclass(frozen=True, slots=True)
class Device:
    """One accelerator's memory in bytes: of all programs (`used`) and of this process (`ours`); None = cannot tell."""

    name: str
    index: int
    total: int | None
    used: int | None
    ours: int | None


@dataclass(frozen=True, slots=True)
class _Card:
    uuid: str | None
    device: Device


class Accelerators:
    """Reads every accelerator when called. Imports pynvml once, torch never.

    A failure is no error: `notes` says what is missing and why. `close` ends the connection to NVML.
    """

    def __init__(
        self,
        load_nvml: Callable[[], Any] | None = None,
        modules: Mapping[str, Any] | None = None,
        pid: int | None = None,
    ) -> None:
        self._nvml = Nvml(load_nvml or _import_pynvml, pid)
        self._modules: Mapping[str, Any] = sys.modules if modules is None else modules
        self._torch_note: str | None = None

    def __call__(self) -> tuple[Device, ...]:
        return tuple(card.device for card in _merge(self._nvml.cards(), self._torch_cards()))

    @property
    def notes(self) -> tuple[str, ...]:
        return tuple(note for note in (self._nvml.note, self._torch_note) if note)

    def close(self) -> None:
        """Let go of NVML; a later call connects again."""
        self._nvml.close()

    def _torch_cards(self) -> list[_Card]:
        torch = self._modules.get("torch")
        if torch is None:
            return []
        self._torch_note = None
        try:
            return _cuda_cards(torch) + _mps_cards(torch)
        except Exception as error:  # noqa: BLE001  foreign: may be half-imported in another thread, or its driver gone
            self._torch_note = f"torch's devices cannot be read: {error!r}"
            return []


class Nvml:
    """NVIDIA's management library, connected to once per process; that it is absent is found out once."""

    def __init__(self, load: Callable[[], Any], pid: int | None = None) -> None:
        self._load = load
        self._target = pid
        self._library: Any = None
        self._connected: int | None = None
        self._absent = False
        self.note: str | None = None

    def cards(self) -> list[_Card]:
        """All cards; empty with a `note` where there are none or they cannot be read."""
        if not self._connect():
            return []
        try:
            cards = [self._card(index) for index in range(self._library.nvmlDeviceGetCount())]
        except Exception as error:  # noqa: BLE001  foreign: a card that fell off the bus, a driver being replaced
            self.note = f"NVIDIA cards cannot be read: {error!r}"
            return []
        self.note = None
        return cards

    def close(self) -> None:
        if self._connected == os.getpid():
            try:
                self._library.nvmlShutdown()
            except Exception as error:  # noqa: BLE001  foreign; nothing is left to undo
                self.note = f"NVML did not shut down: {error!r}"
        self._connected = None

    def _connect(self) -> bool:
        if self._absent:
            return False
        if self._connected == os.getpid():  # a forked child connects for itself
            return True
        try:
            self._library = self._library or self._load()
            self._library.nvmlInit()
        except Exception as error:  # noqa: BLE001  foreign: not installed, no driver, no card: all mean "absent"
            self._absent, self.note = True, f"no NVIDIA card: {error!r}"
            return False
        self._connected = os.getpid()
        return True

    def _card(self, index: int) -> _Card:
        handle = self._library.nvmlDeviceGetHandleByIndex(index)
        memory = self._library.nvmlDeviceGetMemoryInfo(handle)
        name, uuid = (_text(self._library.nvmlDeviceGetName(handle)), _text(self._library.nvmlDeviceGetUUID(handle)))
        return _Card(uuid.removeprefix("GPU-"), Device(name, index, memory.total, memory.used, self._ours(handle)))

    def _ours(self, handle: Any) -> int | None:
        """Bytes of this process; None where it is not listed: in a container NVML may know it by another number."""
        pid = os.getpid() if self._target is None else self._target
        library = self._library
        processes = [
            *library.nvmlDeviceGetComputeRunningProcesses(handle),
            *library.nvmlDeviceGetGraphicsRunningProcesses(handle),
        ]
        # One process may stand in both lists, with the same total; Windows' usual driver model gives no bytes.
        return max((p.usedGpuMemory for p in processes if p.pid == pid and p.usedGpuMemory is not None), default=None)


# Where a driver shows itself on Linux; the second is that of Windows' subsystem for Linux.
_DRIVERS = ("/dev/nvidiactl", "/dev/dxg", "/proc/driver/nvidia")


def _import_pynvml() -> Any:
    """Not imported where no driver can be: that alone takes 10 ms."""
    if sys.platform == "linux" and not any(map(os.path.exists, _DRIVERS)):
        raise OSError("no driver is loaded")
    import pynvml

    return pynvml


def _text(value: str | bytes) -> str:
    return value.decode() if isinstance(value, bytes) else value  # bytes before nvidia-ml-py 12


def _cuda_cards(torch: Any) -> list[_Card]:
    cuda = torch.cuda
    if not cuda.is_initialized():  # asking anything else would create a context: hundreds of MB on every card
        return []
    return [_cuda_card(cuda, index) for index in range(cuda.device_count())]


def _cuda_card(cuda: Any, index: int) -> _Card:
    facts = cuda.get_device_properties(index)
    ours = cuda.memory_reserved(index)
    used = None
    if ours:  # a context exists there already, so this question is free
        free, total = cuda.mem_get_info(index)
        used = total - free
    uuid = getattr(facts, "uuid", None)
    return _Card(None if uuid is None else str(uuid), Device(facts.name, index, facts.total_memory, used, ours))


def _mps_cards(torch: Any) -> list[_Card]:
    if not torch.backends.mps.is_available():
        return []
    mps = torch.mps
    total = getattr(mps, "recommended_max_memory", lambda: None)()  # unified memory: what Metal advises to stay below
    held = mps.driver_allocated_memory()
    return [_Card(None, Device("Apple GPU", 0, total, held, mps.current_allocated_memory()))]


def _merge(nvml: list[_Card], torch: list[_Card]) -> list[_Card]:
    """One entry per card: NVML knows all programs, torch knows its own share even inside a container."""
    merged = list(nvml)
    for card in torch:
        place = next((i for i, known in enumerate(merged) if _same(known, card)), None)
        if place is None:
            merged.append(card)
        else:
            merged[place] = _Card(merged[place].uuid, _with_ours(merged[place].device, card.device.ours))
    return merged


def _same(known: _Card, card: _Card) -> bool:
    if known.uuid is not None and card.uuid is not None:
        return known.uuid == card.uuid  # CUDA_VISIBLE_DEVICES renumbers torch's cards, so the index says little
    return (known.device.name, known.device.index) == (card.device.name, card.device.index)


def _with_ours(device: Device, ours: int | None) -> Device:
    known = [count for count in (device.ours, ours) if count is not None]
    return replace(device, ours=max(known, default=None))
