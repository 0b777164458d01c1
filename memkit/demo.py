"""The lifecycle on real arrays, told line by line: ``python -m memkit demo [all|creation|expiry|pressure|restore]``."""

from __future__ import annotations

import time
from collections.abc import Callable

from memkit.memory import heap
from memkit.units import MIB, format_bytes
from memkit.wiring import Session


def run(part: str = "all") -> None:
    """Run one part or all, each in a session of its own."""
    for name, (title, show) in PARTS.items():
        if part in ("all", name):
            print(f"\n== {name}: {title}")
            _run(show)


def _run(show: Callable[[Session, int], None]) -> None:
    session = Session()
    session.start()
    try:
        show(session, _size(session))
    finally:
        session.close()
        del session
        heap.give_back()


def _size(session: Session) -> int:
    """Bytes of one demo array: 2 % of what is available, from 8 to 256 MiB."""
    return max(8 * MIB, min(256 * MIB, session.read().available // 50))


def _array(size: int, seed: int = 0):  # type: ignore[no-untyped-def]
    import numpy

    return numpy.random.default_rng(seed).random(size // 8)


def _own(session: Session) -> str:
    return format_bytes(session.meter.read())


def creation(session: Session, size: int) -> None:
    """Something is made, tracked and looked at."""
    print(f"this process holds {_own(session)}; making an array of {format_bytes(size)}")
    handle = session.track(_array(size), name="frames", type="render_cache", tags=["demo"])
    print(f"tracked: {handle!r}; this process holds {_own(session)}")
    with handle as frames:
        print(f"in use, so {handle.info.state}: its mean is {frames.mean():.4f}")
    print(session.status())


def expiry(session: Session, size: int) -> None:
    """A short time to live runs out; nobody has to sweep."""
    handle = session.track(_array(size), name="scratch", type="temp_buffers", ttl=0.3)
    print(f"tracked {handle!r}; this process holds {_own(session)}")
    deadline = time.monotonic() + 10
    while "scratch" in session.tracker and time.monotonic() < deadline:
        time.sleep(0.05)
    try:
        handle.get()
    except LookupError as error:
        print(f"asked for after its time: {error}")
    print(f"this process holds {_own(session)}")


def pressure(session: Session, size: int) -> None:
    """A lower limit is set; what matters least goes first, measured after every step."""
    for number, type_ in enumerate(("temp_buffers", "audio_cache", "general")):
        session.track(_array(size, number), name=f"{type_}_data", type=type_)
    print(session.release(bytes=2 * size, dry_run=True))
    limit = int(session.meter.read() / 0.80)
    print(f"\nthis process holds {_own(session)}; with a limit of {format_bytes(limit)} that is 80 %:")
    session.configure(limit=limit)
    print(session.status())
    for event in session.log:
        if event.kind in ("released", "compressed", "spilled", "level"):
            print(f"  {event.kind:10} {event.name:18} {event.reason}")


def restore(session: Session, size: int) -> None:
    """A value goes to disk and comes back equal."""
    values = _array(size)
    checksum = values.sum()
    handle = session.track(values, name="table")
    del values
    print(handle.spill())
    print(f"on disk: {handle!r}; this process holds {_own(session)}")
    began = time.perf_counter()
    same = handle.get().sum() == checksum
    print(f"back in {time.perf_counter() - began:.2f} s and read through; equal: {same}")


PARTS: dict[str, tuple[str, Callable[[Session, int], None]]] = {
    "creation": ("an array is made and tracked", creation),
    "expiry": ("a time to live runs out", expiry),
    "pressure": ("memory becomes short", pressure),
    "restore": ("to disk and back", restore),
}
