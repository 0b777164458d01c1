"""Touch, register, sweep and memory per resource, against a cache and a dict that do less."""

from __future__ import annotations

import gc
import timeit
import tracemalloc
from collections.abc import Iterator

from cachetools import TTLCache

from benchmarks.table import Row, ratios, row
from memkit.config import Policy
from memkit.lifecycle.holders import Owned
from memkit.lifecycle.tracker import Tracker

_POLICY = Policy("bench", ttl=3600.0)


def _seconds(statement, number: int) -> float:
    return min(timeit.repeat(statement, number=number, repeat=3)) / number


def _filled(count: int) -> Tracker:
    tracker = Tracker()
    for number in range(count):
        tracker.register(f"n{number}", Owned(number), _POLICY, size=28)
    return tracker


def touch() -> Row:
    tracker, cache = _filled(1000), TTLCache(10_000, 3600)
    for number in range(1000):
        cache[f"n{number}"] = number
    found = ratios(
        lambda: _seconds(lambda: tracker.touch("n500"), 100_000), lambda: _seconds(lambda: cache["n500"], 100_000)
    )
    return row("touch of a tracked resource", "cachetools.TTLCache get", found, "x", 1.0)


def register_and_release() -> Row:
    tracker, cache = _filled(1000), TTLCache(10_000, 3600)

    def ours() -> None:
        resource = tracker.register("new", Owned(1), _POLICY, size=28)
        with tracker.claim([resource], "release", "user"):
            resource.holder.clear()
            tracker.forget(resource, "released", "benchmark")

    def peer() -> None:
        cache["new"] = 1
        cache.pop("new")

    found = ratios(lambda: _seconds(ours, 20_000), lambda: _seconds(peer, 20_000))
    return row("register + release", "TTLCache set + pop", found, "x", 3.0)


def sweep() -> Row:
    many, few = _filled(1_000_000), _filled(1000)
    found = ratios(lambda: _seconds(many.take_due, 20_000), lambda: _seconds(few.take_due, 20_000))
    return row("sweep, nothing due, 1,000,000 tracked", "1,000 tracked", found, "x", 2.0)


def memory_per_resource(count: int = 200_000) -> Row:
    names = [f"name-{number}" for number in range(count)]

    def grown(fill) -> float:
        gc.collect()
        tracemalloc.start()
        kept = fill()
        size = tracemalloc.get_traced_memory()[0]
        tracemalloc.stop()
        del kept
        return size / count

    def tracked() -> Tracker:
        tracker = Tracker()
        for name in names:
            tracker.register(name, Owned(object()), _POLICY, size=16)
        return tracker

    found = [grown(tracked) - grown(lambda: {name: object() for name in names}) for _ in range(3)]
    return row("memory per tracked resource", "a dict entry with a small object", found, " B", 400)


def rows() -> Iterator[Row]:
    for measure in (touch, register_and_release, sweep, memory_per_resource):
        yield measure()
