"""Run the benchmarks and print one table."""

from __future__ import annotations

import datetime
import importlib
import os
import platform
import sys

from benchmarks.table import Row, render

MODULES = ("lifecycle", "kernel", "store", "memory_back", "accounting", "guard", "rescue")


def main(patterns: list[str]) -> int:
    rows: list[Row] = []
    for name in MODULES:
        if patterns and not any(pattern in name for pattern in patterns):
            continue
        for row in importlib.import_module(f"benchmarks.{name}").rows():
            print(f"{row.what}: {row.value:.2f}{row.unit} ({'reached' if row.reached else 'NOT reached'})", flush=True)
            rows.append(row)
    machine = f"{os.cpu_count()} cores, {platform.machine()}, {platform.system()} {platform.release()}"
    print(f"\n{datetime.date.today()} - Python {platform.python_version()}, {machine}\n\n{render(rows)}")
    return 0


sys.exit(main(sys.argv[1:]))
