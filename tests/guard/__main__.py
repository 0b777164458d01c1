"""`python -m tests.guard`: every case at every limit, in real kernels, as a table with its survival rate."""

from __future__ import annotations

import argparse
import fnmatch
import json
import sys
import threading
import time
import traceback
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from memkit.units import GIB, parse_bytes
from tests.guard import runner, table
from tests.guard.case import BROKEN, LIMITS, Case
from tests.guard.cases import CASES
from tests.guard.group import NoGroupError
from tests.guard.outcome import Outcome

_WIDE = 2 * GIB  # from here on one kernel at a time: two would take what a small machine has


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.guard", description=__doc__)
    parser.add_argument("--limit", action="append", help="a limit such as 1.5GiB; default: all four")
    parser.add_argument("--only", nargs="+", metavar="NAME", help="names, patterns, or themes of cases")
    parser.add_argument("--runs", type=int, default=1)
    parser.add_argument("--without-guard", action="store_true", help="what happens without memkit")
    parser.add_argument("--jobs", type=int, default=1, help="kernels at once; below 2 GiB only")
    parser.add_argument("--python", default=sys.executable, help="the interpreter of the kernels")
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument("--list", action="store_true", help="only the names of the cases")
    return parser.parse_args(argv)


def chosen(cases: Iterable[Case], patterns: Sequence[str] | None, limit: int) -> list[Case]:
    """The cases to run at a limit; a pattern is a theme, a name, or a part of it with wildcards."""
    return [case for case in cases if limit in case.limits and (not patterns or matches(case, patterns))]


def matches(case: Case, patterns: Sequence[str]) -> bool:
    """Whether a case is meant by any of the patterns."""
    return any(pattern == case.theme or fnmatch.fnmatch(case.name, pattern) for pattern in patterns)


class _Battery:
    """All runs of one call, printed as they end."""

    def __init__(self, settings: runner.Settings, jobs: int) -> None:
        self.settings = settings
        self.jobs = jobs
        self.outcomes: list[Outcome] = []
        self._printing = threading.Lock()

    def run(self, cases: Sequence[Case], limit: int) -> None:
        with ThreadPoolExecutor(1 if limit > _WIDE else self.jobs) as pool:
            list(pool.map(lambda case: self._one(case, limit), cases))

    def _one(self, case: Case, limit: int) -> None:
        outcome = self._try(case, limit)
        if outcome.kind == BROKEN:  # a busy machine, or a bug of the harness: the second time tells
            outcome = self._try(case, limit)
        with self._printing:
            self.outcomes.append(outcome)
            print(table.line(outcome), flush=True)

    def _try(self, case: Case, limit: int) -> Outcome:
        try:
            return runner.run(case, limit, self.settings)
        except NoGroupError:
            raise
        except Exception:  # noqa: BLE001 - one case that the harness cannot handle must not cost the other hundreds
            return Outcome(case, limit, BROKEN, "harness", note=traceback.format_exc()[-400:])


def main(argv: Sequence[str] | None = None) -> int:
    """Run what was asked for; 0 where every outcome is one that the table allows, 2 where no group can be made."""
    options = _arguments(argv)
    if options.list:
        print("\n".join(f"{case.theme:<12} {case.name}" for case in CASES))
        return 0
    limits = [parse_bytes(text) for text in options.limit] if options.limit else list(LIMITS)
    battery = _Battery(runner.Settings(not options.without_guard, options.python), options.jobs)
    possible = [case for case in CASES if battery.settings.guard or "memkit" not in case.needs]
    start = time.monotonic()
    print(table.HEADER)
    try:
        for limit in limits * options.runs:
            battery.run(chosen(possible, options.only, limit), limit)
    except NoGroupError as error:
        print(f"the battery needs a control group with a limit: {error}", file=sys.stderr)
        return 2
    print(table.summary(battery.outcomes, battery.settings.guard))
    print(f"{time.monotonic() - start:.0f} s in all")
    if options.json:
        options.json.write_text(json.dumps([outcome.as_dict() for outcome in battery.outcomes], indent=1, default=list))
    return int(any(outcome.failed for outcome in battery.outcomes))


if __name__ == "__main__":
    sys.exit(main())
