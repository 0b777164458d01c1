"""Bytes and seconds as people write them, and back.

Inside memkit a size is an int of bytes and a duration a float of seconds. Text such as ``512MiB``, ``5 min`` or
``75%`` exists only in configuration files, on the command line and in what is shown.
"""

from __future__ import annotations

import math
import re

from memkit.errors import UnitError

KIB, MIB, GIB, TIB = 2**10, 2**20, 2**30, 2**40

# IEC 80000-13 prefixes are powers of two; SI prefixes are powers of ten, as on a disk's label.
_BYTES = {
    "": 1, "b": 1, "byte": 1, "bytes": 1,
    "k": KIB, "kib": KIB, "m": MIB, "mib": MIB, "g": GIB, "gib": GIB, "t": TIB, "tib": TIB,
    "kb": 10**3, "mb": 10**6, "gb": 10**9, "tb": 10**12,
}  # fmt: skip
_SECONDS = {
    "": 1.0, "s": 1.0, "sec": 1.0, "second": 1.0, "seconds": 1.0, "ms": 1e-3,
    "m": 60.0, "min": 60.0, "minute": 60.0, "minutes": 60.0,
    "h": 3600.0, "hour": 3600.0, "hours": 3600.0, "d": 86400.0, "day": 86400.0, "days": 86400.0,
}  # fmt: skip
_NEVER = frozenset({"none", "never"})
_QUANTITY = re.compile(r"\s*([+-]?(?:\d+(?:\.\d*)?|\.\d+)(?:e[+-]?\d+)?)\s*([a-z]*)\s*", re.IGNORECASE)


def _quantity(text: str, units: dict[str, float] | dict[str, int], kind: str, example: str) -> float:
    match = _QUANTITY.fullmatch(text)
    if match is None or match[2].lower() not in units:
        raise UnitError(f"{text!r} is not a {kind}; write it like {example}")
    return float(match[1]) * units[match[2].lower()]


def parse_bytes(text: str | int | float) -> int:
    """Bytes from ``512MiB``, ``1.5 GiB``, ``2GB`` (powers of ten) or a plain number; raises UnitError."""
    if isinstance(text, bool) or not isinstance(text, (str, int, float)):
        raise UnitError(f"{text!r} is not a size; write it like 512MiB")
    value = _quantity(text, _BYTES, "size", "512MiB or 1.5GiB") if isinstance(text, str) else text
    if not math.isfinite(value) or value < 0:
        raise UnitError(f"{text!r} is not a size: it must be zero or more")
    return int(value)


def parse_seconds(text: str | int | float | None) -> float | None:
    """Seconds from ``30s``, ``5 min``, ``2h``, ``1d`` or a number; None for ``none``/``never``; raises UnitError."""
    if text is None or (isinstance(text, str) and text.strip().lower() in _NEVER):
        return None
    if isinstance(text, bool) or not isinstance(text, (str, int, float)):
        raise UnitError(f"{text!r} is not a duration; write it like 5 min")
    value = _quantity(text, _SECONDS, "duration", "30s, 5 min, 2h or none") if isinstance(text, str) else float(text)
    if not math.isfinite(value) or value < 0:
        raise UnitError(f"{text!r} is not a duration: it must be zero or more")
    return value


def parse_share(text: str | int | float) -> float:
    """A share between 0 and 1 from ``75%`` or ``0.75``; raises UnitError."""
    value: float = math.nan
    if isinstance(text, str) and text.strip().endswith("%"):
        value = _quantity(text.strip()[:-1], {"": 1}, "share", "75%") / 100
    elif not isinstance(text, bool):
        value = _quantity(str(text), {"": 1}, "share", "75% or 0.75")
    if not 0 <= value <= 1:
        raise UnitError(f"{text!r} is not a share; write it like 75% or 0.75")
    return value


def format_bytes(count: float | None, *, signed: bool = False) -> str:
    """Bytes as ``412.0 MiB`` (one decimal; two from 1 GiB); ``-`` for None."""
    if count is None:
        return "-"
    sign = "-" if count < 0 else "+" if signed else ""
    size = abs(count)
    if size < KIB:
        return f"{sign}{size:.0f} B"
    for unit, factor in (("KiB", KIB), ("MiB", MIB), ("GiB", GIB)):
        decimals = 2 if factor == GIB else 1
        if round(size / factor, decimals) < KIB or unit == "GiB":
            return f"{sign}{size / factor:.{decimals}f} {unit}"
    raise AssertionError("unreachable")


def format_seconds(seconds: float | None) -> str:
    """Seconds as ``0:18``, ``7:20`` or ``2 h 5 min``; ``-`` for None."""
    if seconds is None:
        return "-"
    sign, whole = ("-" if seconds < 0 else ""), int(abs(seconds))
    if whole < 3600:
        return f"{sign}{whole // 60}:{whole % 60:02d}"
    return f"{sign}{whole // 3600} h {whole % 3600 // 60} min"


def format_ttl(seconds: float | None) -> str:
    """A time to live as it would be written in a configuration: ``30 s``, ``5 min``, ``none``."""
    if seconds is None:
        return "none"
    for unit, factor in (("h", 3600), ("min", 60)):
        if seconds >= factor and seconds % factor == 0:
            return f"{seconds / factor:g} {unit}"
    return f"{seconds:g} s"


def format_share(share: float | None) -> str:
    """A share as ``57.8 %``; ``-`` for None."""
    return "-" if share is None else f"{share * 100:.1f} %"
