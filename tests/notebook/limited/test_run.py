"""The command, and notebooks in real kernels in boxes."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import nbformat
import psutil
import pytest
from nbformat.v4 import new_code_cell, new_notebook

from memkit import cli
from memkit.errors import LimitError
from memkit.notebook.limited import command, fitting
from memkit.notebook.limited.choice import Choice
from memkit.notebook.limited.fit import Step
from memkit.notebook.limited.fitting import Fitting
from memkit.notebook.limited.groupbox import own_groups
from memkit.notebook.limited.limit import Box
from memkit.notebook.limited.outcome import Outcome
from memkit.notebook.limited.sized import Job
from memkit.notebook.limited.tree import Tree
from memkit.notebook.report.execution import Wish
from memkit.units import GIB, MIB
from tests.notebook.test_report import cell, result

from .test_limits import real_v1

Write = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def make(*sources: str) -> Path:
        path = tmp_path / "nb.ipynb"
        nbformat.write(new_notebook(cells=[new_code_cell(source) for source in sources]), path)
        return path

    return make


def taking(size: int, name: str = "kept") -> str:
    """A cell that takes memory in a mapping of its own, which is gone when it is given back."""
    take = f"import mmap; {name} = mmap.mmap(-1, {size}, mmap.MAP_PRIVATE)\n"
    return take + f"for at in range(0, {size}, mmap.PAGESIZE): {name}[at] = 1"


def run(*arguments: object) -> int:
    return cli.main(["run", *map(str, arguments)])


# -- what cannot be done -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "say how much memory"),
        (["--memory", "much"], "is not a size"),
        (["--memory=-1GiB"], "is not a size"),
        (["--memory", "0"], "no kernel runs in that"),
        (["--memory", "4"], "no kernel runs in that"),
        (["--memory", "9999TiB"], "cannot be had"),
        (["--memory", "1GiB", "--timeout", "0"], "must be more than 0"),
        (["--memory", "1GiB", "-o", "."], "is a folder"),
        (["--memory", "1GiB", "--html", "."], "is a folder"),
        (["--memory", "1GiB", "-o", "x.html", "--html", "x.html"], "cannot both be"),
        (["--fit", "--memory", "0.5"], "no kernel runs in that"),
    ],
)
def test_what_makes_no_sense_is_one_line_and_code_2(
    arguments: list[str],
    words: str,
    write: Write,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(write("1"), *arguments) == 2
    said = capsys.readouterr()
    assert words in said.err
    assert (said.err.count("\n"), said.out) == (1, "")
    assert [path.name for path in tmp_path.iterdir()] == ["nb.ipynb"]


def test_the_source_is_never_the_output(write: Write, capsys: pytest.CaptureFixture[str]) -> None:
    source = write("1")
    before = source.read_bytes()
    for option in ("-o", "--html"):
        assert run(source, "--memory", "1GiB", option, source) == 2
        assert "is the notebook itself" in capsys.readouterr().err
    assert source.read_bytes() == before


@pytest.mark.parametrize(("content", "words"), [(None, "there is no notebook"), ("{}", "not a valid notebook")])
def test_a_notebook_that_cannot_be_used_is_code_2(
    content: str | None, words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "nb.ipynb"
    if content is not None:
        path.write_text(content)
    assert run(path, "--memory", "1GiB") == 2
    assert words in capsys.readouterr().err


def test_where_nothing_is_permitted_it_is_code_2_with_every_reason(
    write: Write, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def choose(ways: Any) -> Choice:
        raise LimitError("memory cannot be limited here - " + "; ".join(f"{way.name}: no" for way in ways))

    monkeypatch.setattr(command, "choose", choose)
    assert run(write("1"), "--memory", "1GiB", "--method", "cgroup") == 2
    said = capsys.readouterr().err
    assert said == "memkit run: memory cannot be limited here - cgroup v2: no; cgroup v1: no\n"


# -- the search, with runs that are made up ----------------------------------------------------------------------------


class Unlimited:
    """A way of limiting that limits nothing: what becomes of a run is made up."""

    name = "nothing"

    def available(self) -> str | None:
        return None

    @contextmanager
    def box(self, size: int) -> Iterator[Box]:
        raise AssertionError("no kernel is started")
        yield


@pytest.fixture
def made_up(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, write: Write) -> Callable[..., Fitting]:
    """A search in which the notebook completes from `needs` on."""

    def make(needs: int, upper: int = GIB, alone: int | None = 60 * MIB, interrupt_at: int = 99) -> Fitting:
        source, wishes = write("1"), []

        def run_at(job: Job, size: int, on_progress: Any) -> tuple[Outcome, Any]:
            wishes.append(job.wish)
            state = "done" if size >= needs else "failed"
            made = result(cell(1, state), output=None, interrupted=len(wishes) == interrupt_at, source=source)
            return Outcome(made, size, "nothing", None, 0), new_notebook(cells=[new_code_cell("1")])

        def idle(job: Job, size: int) -> Outcome:
            death = None if alone else result().death
            return Outcome(result(death=death, output=None), size, "nothing", alone, 0, alone)

        monkeypatch.setattr(fitting, "run_at", run_at)
        monkeypatch.setattr(fitting, "idle", idle)
        job = Job(source, tmp_path / "out.ipynb", Wish(None, 0.5, False), Unlimited())
        made = Fitting(job, upper, told.append_step, lambda progress: None)
        made.wishes = wishes  # type: ignore[attr-defined]
        return made

    class Told(list[Step]):
        def append_step(self, number: int, step: Step, seconds: float) -> None:
            self.append(step)
            assert number == len(self)

    told = Told()
    return make


def test_the_notebook_of_the_smallest_run_that_completed_is_kept(
    made_up: Callable[..., Fitting], tmp_path: Path
) -> None:
    search = made_up(400 * MIB)
    fit = search.run(lambda lower: None)
    assert fit.smallest is not None
    assert search.best is not None
    assert search.best[0].size == fit.smallest.size
    kept = json.loads((tmp_path / "out.ipynb").read_text())
    assert kept["metadata"]["memkit_run"]["memory"] == fit.smallest.size
    assert {path.name for path in tmp_path.iterdir()} == {"nb.ipynb", "out.ipynb"}


def test_after_the_first_run_a_cell_is_not_waited_for_without_end(made_up: Callable[..., Fitting]) -> None:
    """With too little memory one may read the same pages for ever."""
    search = made_up(400 * MIB)
    search.run(lambda lower: None)
    timeouts = [wish.timeout for wish in search.wishes]  # type: ignore[attr-defined]
    assert timeouts[0] is None
    assert set(timeouts[1:]) == {60.0}


def test_an_interrupted_search_ends_with_what_it_has(made_up: Callable[..., Fitting]) -> None:
    search = made_up(400 * MIB, interrupt_at=3)
    fit = search.run(lambda lower: None)
    assert search.interrupted
    assert len(fit.steps) == 2


def test_less_than_a_kernel_needs_is_refused_with_what_it_needs(made_up: Callable[..., Fitting]) -> None:
    with pytest.raises(LimitError, match=r"no kernel starts in 50.0 MiB: one that runs nothing needs 60.0 MiB"):
        made_up(400 * MIB, upper=50 * MIB).run(lambda lower: None)


# -- real kernels ------------------------------------------------------------------------------------------------------


def groups_left() -> list[str]:
    return Tree().boxes(own_groups(Path("/"), 1)[0])


@real_v1
@pytest.mark.kernel
def test_a_notebook_runs_as_on_a_machine_of_that_size(
    write: Write, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    seen = "import memkit; print('limit', memkit.session().read().limit)"
    source = write(seen, taking(40 * MIB), "import subprocess; subprocess.Popen(['sleep', '600']).pid")
    before = source.read_bytes()
    assert run(source, "--memory", "400MiB", "--html", tmp_path / "out" / "r.html") == 0
    said = capsys.readouterr().out
    assert said.startswith("memory: 400.0 MiB, held by cgroup v1\n")
    assert "highest peak in 2 (" in said
    executed = nbformat.read(tmp_path / "nb.run.ipynb", as_version=4)
    assert executed.cells[0].outputs[0].text == f"limit {400 * MIB}\n"
    assert executed.cells[1].metadata["memkit"]["peak"] > 60 * MIB
    assert executed.cells[1].metadata["memkit"]["delta"] == pytest.approx(40 * MIB, rel=0.1)
    html = (tmp_path / "out" / "r.html").read_text()
    assert "run as on a machine with 400.0 MiB of memory, held by cgroup v1" in html
    assert 'href="../nb.run.ipynb"' in html
    assert source.read_bytes() == before
    assert groups_left() == []
    sleeper = int(executed.cells[2].outputs[0]["data"]["text/plain"])
    assert not psutil.pid_exists(sleeper) or psutil.Process(sleeper).status() == psutil.STATUS_ZOMBIE


@real_v1
@pytest.mark.kernel
def test_without_memkit_a_kernel_that_needs_more_dies_and_the_cause_is_known(
    write: Write, capsys: pytest.CaptureFixture[str]
) -> None:
    source = write(taking(20 * MIB, "a") + "\ndel a", taking(10 * MIB), taking(300 * MIB))
    assert run(source, "--memory", "160MiB", "--no-memkit") == 3
    said = capsys.readouterr().out
    assert "the kernel died in cell 3" in said
    assert "needed more than 160.0 MiB" in said
    assert "the system killed 1 process at it" in said
    assert "peak    160.0 MiB (100.0 %)" in said
    executed = nbformat.read(source.with_suffix(".run.ipynb"), as_version=4)
    peaks = [c.metadata["memkit"]["peak"] for c in executed.cells]
    assert peaks[2] > peaks[0] > peaks[1], "each cell has a peak of its own, read from outside"
    assert groups_left() == []


@pytest.mark.kernel
@pytest.mark.skipif(sys.platform != "linux", reason="RLIMIT_DATA as Linux has it")
def test_with_rlimit_memkit_in_the_kernel_knows_the_size_of_its_machine(
    write: Write, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = write("import memkit; s = memkit.session().read(); print(s.limit, s.binding)", "1 / 0", "print('after')")
    arguments = ["--memory", "600MiB", "--method", "rlimit", "--allow-errors", "-o", tmp_path / "o.ipynb"]
    assert run(source, *arguments) == 1
    assert "held by rlimit, as asked for" in capsys.readouterr().out
    executed = nbformat.read(tmp_path / "o.ipynb", as_version=4)
    assert executed.cells[0].outputs[0].text == f"{600 * MIB} MEM_LIMIT\n"
    assert executed.cells[2].outputs[0].text == "after\n"


@real_v1
@pytest.mark.kernel
def test_too_little_for_a_kernel_says_how_much_it_needs(
    write: Write, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(write("1"), "--memory", "12MiB", "--no-memkit") == 2
    assert "no kernel starts in 12.0 MiB: one that runs nothing needs " in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["nb.ipynb"], "nothing was run, so nothing is written"
    assert groups_left() == []


@real_v1
@pytest.mark.kernel
def test_the_smallest_memory_is_found(write: Write, capsys: pytest.CaptureFixture[str]) -> None:
    source = write(taking(120 * MIB))
    assert run(source, "--fit", "--memory", "256MiB", "--no-memkit") == 0
    said = capsys.readouterr().out
    (line,) = (line for line in said.splitlines() if line.startswith("smallest memory: "))
    found = float(line.split()[2])
    assert 120 < found < 200
    assert "in cell 1: out of memory, killed by the system)" in line
    executed = nbformat.read(source.with_suffix(".run.ipynb"), as_version=4)
    assert executed.metadata["memkit_run"]["memory"] == int(found) * MIB
    assert groups_left() == []


@real_v1
@pytest.mark.kernel
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_nothing_is_left_after_it_was_interrupted_or_terminated(
    number: signal.Signals, write: Write, tmp_path: Path
) -> None:
    source = write("print('first')", "open('running', 'w').close()\nimport time; time.sleep(60)")
    arguments = [sys.executable, "-m", "memkit", "run", str(source), "--memory", "300MiB", "--no-memkit"]
    process = subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 60
    while not (tmp_path / "running").exists() and time.monotonic() < deadline:
        time.sleep(0.05)  # another process: there is no clock to inject
    kernels = psutil.Process(process.pid).children(recursive=True)
    process.send_signal(number)
    said, _ = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "\ninterrupted\n" in said
    assert kernels
    assert not any(child.is_running() for child in kernels)
    assert groups_left() == []
    executed = nbformat.read(source.with_suffix(".run.ipynb"), as_version=4)
    assert executed.cells[0].outputs[0].text == "first\n"
    assert executed.cells[1].metadata["memkit"]["state"] == "interrupted"
