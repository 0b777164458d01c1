"""What IPython offers is with memkit as it is without: the same cells in two kernels show the same."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.guard.conversation import Cell, Conversation, Seen

pytestmark = [pytest.mark.kernel, pytest.mark.slow, pytest.mark.soak]

_FORM = """
import ipywidgets
clicks = []
button = ipywidgets.Button(description="count")
button.on_click(lambda _: clicks.append(len(clicks)))
"""
_TASK = """
import asyncio
done = []
async def later():
    for i in range(3):
        await asyncio.sleep(0.05)
        done.append(i)
task = asyncio.create_task(later())
"""
_TALKS: dict[str, tuple[Cell, ...]] = {
    "a result": (Cell("x = 20\nx + 1"), Cell("_ * 2"), Cell("print(x); x")),
    "an error": (Cell("def f(x):\n    return 1 / x\nf(0)"), Cell("undefined"), Cell("x = ")),
    "%debug": (
        Cell("def f(x):\n    return 1 / x\ny = 5\nf(0)"),
        Cell("%debug", answers=("p x", "up", "p y", "w", "q")),
        Cell("y"),
    ),
    "breakpoint": (Cell("def f(x):\n    breakpoint()\n    return x\nf(3)", answers=("p x", "c")),),
    "%timeit": (
        Cell("%timeit -n 10 -r 2 sum(range(10))"),
        Cell("%%timeit -n 2 -r 2\nsum([1])"),
        Cell("%time sum([1])"),
    ),
    "%%prun": (Cell("%%prun -s name\ndef f():\n    return sorted([2, 1])\nf()"),),
    "%%capture": (Cell("%%capture out\nprint('inside')\n6 * 7"), Cell("out.stdout, len(out.outputs)")),
    "input()": (
        Cell("name = input('name? ')\nprint(name[::-1])", answers=("memory",)),
        Cell("import getpass\nlen(getpass.getpass('secret? '))", answers=("12345",)),
    ),
    "an interrupt": (
        Cell("import time\nprint('started')\nwhile True: time.sleep(0.01)", interrupt=True),
        Cell("print('again')\nwhile True: x = 1", interrupt=True),
        Cell("print('in C')\ntime.sleep(60)", interrupt=True),
        Cell("'alive'"),
    ),
    "an interrupt that is caught": (
        Cell(
            "print('started')\ntry:\n    time.sleep(60)\nexcept KeyboardInterrupt:\n    print('caught')", interrupt=True
        ),
    ),
    "asyncio": (
        Cell("import asyncio\nawait asyncio.sleep(0.01, 'slept')"),
        Cell(_TASK),
        Cell("await task\ndone"),
        Cell("async def bad():\n    raise ValueError('late')\nawait asyncio.gather(bad(), return_exceptions=True)"),
        Cell("await asyncio.wait_for(asyncio.sleep(60), 0.05)"),
    ),
    "ipywidgets": (
        Cell(_FORM, click="button.model_id"),
        Cell("len(clicks)", click="button.model_id"),
        Cell("clicks"),
        Cell("w = ipywidgets.IntSlider(value=3)\nw.observe(lambda change: print(change.new), 'value')\nw.value = 7"),
        Cell("out = ipywidgets.Output()\nwith out:\n    print('into it')\nlen(out.outputs)"),
    ),
    "matplotlib inline": (
        Cell("%matplotlib inline\nimport matplotlib.pyplot as plt\nplt.plot([1, 2])\nplt.title('t')"),
        Cell("figure, axes = plt.subplots()\naxes.bar([1, 2], [3, 4]);"),
        Cell("plt.plot([1])\nprint('then a figure')"),
    ),
    "threads and signals": (
        Cell("import signal\nsignal.getsignal(signal.SIGINT).__name__"),
        Cell("import threading\nt = threading.Thread(target=print, args=('from a thread',))\nt.start()\nt.join()"),
    ),
    "magics": (
        Cell("%%writefile made.py\nvalue = 7"),
        Cell("%run made.py\nvalue"),
        Cell("!echo shell"),
        Cell("lines = !printf 'a\\nb\\n'\nlines"),
        Cell("%%bash\necho in bash"),
        Cell("a = 1\n%who_ls int"),
        Cell("zip?"),
        Cell("%xmode Minimal"),
        Cell("1 / 0"),
    ),
    "leaving": (Cell("import sys\nsys.exit(3)"), Cell("'still here'")),
}


_Both = tuple[dict[str, list[Seen]], dict[str, list[Seen]]]


def _talk(folder: Path, loaded: bool) -> dict[str, list[Seen]]:
    conversation = Conversation(folder, loaded)
    try:
        return {name: conversation.say(cells) for name, cells in _TALKS.items()}
    finally:
        conversation.close()


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> _Both:
    """What all cells showed in a kernel with memkit, and in one without."""
    folders = [tmp_path_factory.mktemp(name) for name in ("with", "without")]
    with ThreadPoolExecutor(2) as pool:
        first, second = pool.map(_talk, folders, (True, False))
    return first, second


@pytest.mark.parametrize("name", _TALKS)
def test_a_user_sees_the_same(both: _Both, name: str) -> None:
    """Streams, results, errors with their tracebacks, questions, and how each cell ended."""
    loaded, plain = both
    assert loaded[name] == plain[name]


def test_the_cells_did_what_they_are_for(both: _Both) -> None:
    """Two empty conversations would be the same as well."""
    plain = both[1]
    assert plain["a result"][0].parts == [("execute_result", "text/plain: #")]
    assert plain["%debug"][1].questions == ["ipdb> "] * 5
    assert [seen.questions for seen in plain["input()"]] == [["name? "], ["secret? "]]
    assert [seen.status for seen in plain["an interrupt"]] == ["error", "error", "error", "ok"]
    assert "KeyboardInterrupt" in plain["an interrupt"][1].parts[-1][1]
    assert any("image/png" in text for _, text in plain["matplotlib inline"][0].parts)
    assert plain["ipywidgets"][2].parts[-1][1].count("#") == 2
