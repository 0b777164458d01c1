"""The battery's table: every case, in the order in which it runs."""

from __future__ import annotations

import dataclasses

from tests.guard.case import Case
from tests.guard.cases import (
    arrays,
    deaths,
    formats,
    frames,
    habits,
    legitimate,
    legitimate_libraries,
    mappings,
    notebook,
    objects,
    processes,
    tensors,
)

_THEMES = {
    "objects": objects.CASES,
    "formats": formats.CASES,
    "arrays": arrays.CASES,
    "frames": frames.CASES,
    "tensors": tensors.CASES,
    "mappings": mappings.CASES,
    "processes": processes.CASES,
    "notebook": notebook.CASES,
    "habits": habits.CASES,
    "deaths": deaths.CASES,
    "legitimate": (*legitimate.CASES, *legitimate_libraries.CASES),
}

CASES: tuple[Case, ...] = tuple(
    dataclasses.replace(case, theme=theme) for theme, cases in _THEMES.items() for case in cases
)
HOSTILE: tuple[Case, ...] = tuple(case for case in CASES if case.theme not in ("legitimate", "deaths"))
LEGITIMATE: tuple[Case, ...] = tuple(case for case in CASES if case.theme == "legitimate")
DEATHS: tuple[Case, ...] = tuple(case for case in CASES if case.theme == "deaths")


def named(name: str) -> Case:
    """The case of a name; raises KeyError."""
    return {case.name: case for case in CASES}[name]
