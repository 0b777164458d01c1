"""Loading, unloading, the magic and its answers, in a real shell."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading

import pytest
from IPython.core.completer import provisionalcompleter

from memkit import api
from memkit.notebook.commands import COMMANDS

HEAVY = ("numpy", "pandas", "torch", "transformers", "matplotlib", "nbconvert", "nbclient")
SLOW = ("IPython", "httpx", "ipywidgets", "psutil", "yaml", "zstandard")


def threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("memkit")]


# -- loading -------------------------------------------------------------------------------------------------------


def test_loading_says_limit_available_and_level_in_one_line(plain):
    text = plain("%load_ext memkit")
    assert text.count("\n") == 1
    assert text.startswith("memkit: limit ")
    assert "available, level normal" in text


def test_loading_twice_is_harmless(notebook):
    session = notebook.session
    text = notebook("import memkit; memkit.load_ipython_extension(get_ipython())")
    assert notebook.error is None
    assert text.startswith("memkit: limit ")
    assert notebook.session is session
    assert threads() == ["memkit-monitor"]
    notebook("%reload_ext memkit")
    assert threads() == ["memkit-monitor"]


def test_unloading_leaves_no_thread_event_matcher_magic_handler_or_file(plain, tmp_path):
    shell = plain.shell

    def traces():
        return (
            {name: list(callbacks) for name, callbacks in shell.events.callbacks.items()},
            list(shell.Completer.custom_matchers),
            sorted(shell.magics_manager.magics["line"]),
            sorted(shell.magics_manager.magics["cell"]),
            shell.custom_exceptions,
            shell.transform_ast.__func__,
            list(shell.ast_transformers),
        )

    before = traces()
    plain("%load_ext memkit")
    plain("x = list(range(100_000))\n%memkit register x\n%memkit spill x")
    assert list((tmp_path / "store").rglob("*.values"))
    plain("%unload_ext memkit")
    assert plain.error is None
    assert traces() == before
    assert threads() == []
    assert [path for path in (tmp_path / "store").rglob("*") if path.is_file()] == []
    assert plain["x"] == list(range(100_000)), "what was demoted is back"
    assert api.current() is None


def test_what_was_tracked_before_loading_stays_tracked(plain):
    plain("import memkit\nh = memkit.track([1, 2], name='early')")
    plain("%load_ext memkit")
    assert "early" in plain("%memkit")


def test_traitlets_settings_are_honoured(plain, tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text("types: {mine: {priority: 77}}")
    plain.shell.config.Memkit.config_file = str(file)
    plain.shell.config.Memkit.warning = "60%"
    plain.shell.config.Memkit.recovery = 0.5
    plain.shell.config.Memkit.limit = "3GiB"
    text = plain("%load_ext memkit")
    assert "limit 3.00 GiB (user)" in text
    settings = plain.session.settings
    assert (settings.monitor.warning, settings.monitor.recovery, settings.types["mine"].priority) == (0.6, 0.5, 77)


def test_wrong_settings_are_an_error_and_leave_nothing_loaded(plain):
    plain.shell.config.Memkit.warning = "99%"
    text = plain("%load_ext memkit")
    assert "recovery < warning < emergency" in text
    assert threads() == []
    assert api.current() is None


@pytest.mark.parametrize("statement", ["import memkit", "import memkit; memkit.__all__; dir(memkit)"])
def test_importing_memkit_imports_nothing_heavy(statement):
    code = f"import sys; {statement}; print([name for name in {HEAVY + SLOW!r} if name in sys.modules])"
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "[]"


def test_loading_the_extension_imports_no_torch_transformers_matplotlib_numpy_or_pandas():
    code = (
        "import sys; from IPython.core.interactiveshell import InteractiveShell as S; s = S.instance();"
        "s.run_line_magic('load_ext', 'memkit'); s.run_cell('x = [1]\\n%memkit register x\\n%memkit');"
        f"print([name for name in {HEAVY!r} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], text=True, capture_output=True, env={**os.environ})
    assert done.stdout.strip().endswith("[]"), done.stdout + done.stderr


# -- the magic -----------------------------------------------------------------------------------------------------


def test_the_bare_magic_is_the_status(notebook):
    notebook("x = bytearray(3 * 2**20)\n%memkit register x --type temp_buffers --ttl 30s")
    text = notebook("%memkit")
    assert "normal" in text
    assert "x" in text
    assert "temp_buffers  3.0 MiB  ram" in text
    assert "available" in text


def test_an_empty_status_teaches(notebook):
    assert "%memkit register NAME" in notebook("%memkit")


def test_every_answer_is_an_object_with_text_html_and_bytes(notebook):
    notebook("x = bytearray(2**20)\n%memkit register x")
    notebook("answer = %memkit status")
    answer = notebook["answer"]
    assert answer.limit == answer.used + answer.available
    assert {"ram", "compressed", "disk", "swap"} <= set(answer.tiers)
    (info,) = answer.resources
    assert (info.name, info.type, info.tier, info.state, info.priority, info.ttl) == (
        "x", "general", "ram", "active", 40, None,
    )  # fmt: skip
    assert 2**20 <= info.size < 2**20 + 200
    assert "<table" in answer._repr_html_()
    assert "1.0 MiB" in answer._repr_html_()
    assert "1.0 MiB" in str(answer)


@pytest.mark.parametrize(
    "line",
    ["status", "top", "release --all -n", "reclaim -n", "config", "monitor", "events", "report", "help"],
)
def test_every_answer_gives_json_and_html(notebook, line):
    notebook("x = bytearray(2**20)\n%memkit register x")
    document = json.loads(notebook(f"%memkit {line} --json"))
    assert isinstance(document, dict)
    assert document
    notebook(f"_answer = %memkit {line}")
    html = notebook["_answer"]._repr_html_()
    assert html.startswith("<div>")
    assert "<script" not in html


def test_json_can_go_to_a_file(notebook, tmp_path):
    text = notebook(f"%memkit report --json {tmp_path / 'out.json'}")
    assert "out.json" in text
    document = json.loads((tmp_path / "out.json").read_text())
    assert {"status", "events", "statistics", "created"} <= set(document)


def test_the_event_log_can_go_to_csv(notebook, tmp_path):
    notebook("x = [1]\n%memkit register x")
    notebook(f"%memkit report --csv {tmp_path / 'log.csv'}")
    head, first, *_ = (tmp_path / "log.csv").read_text().splitlines()
    assert head == "time,kind,name,type,size,reason"
    assert ",registered,x,general," in first


def test_html_escapes_what_users_write(notebook):
    notebook("x = [1]\nimport memkit\nmemkit.track(x, name='<script>alert(1)</script>')")
    notebook("_answer = %memkit")
    assert "<script" not in notebook["_answer"]._repr_html_()


def test_every_line_of_a_cell_shows_its_answer_not_only_the_last(notebook):
    text = notebook("x, y = [1], [2]\n%memkit register x\n%memkit register y\nanswer = %memkit top")
    assert "registered x" in text
    assert "registered y" in text
    assert "variables" not in text
    assert notebook("%memkit -q\n1 + 1").count("\n") == 1


def test_quiet_and_output_flags(notebook):
    assert notebook("%memkit -q") == ""
    assert notebook("%memkit top -q -o kept") == ""
    assert type(notebook["kept"]).__name__ == "Top"


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("release nosuch", "no resource named 'nosuch'"),
        ("relase x", "did you mean 'release'"),
        ("register nosuch", "no variable 'nosuch'"),
        ("register x --type tempbuffers", "did you mean 'temp_buffers'"),
        ("register x --ttl 5parsecs", "not a duration"),
        ("register x --ttl -5s", "must be zero or more"),
        ("register x --ttl 0", "ttl 0 would expire at once"),
        ("register x --priority high", "invalid int value"),
        ("release --bytes lots", "not a size"),
        ("release", "release what?"),
        ("config warning 99%", "recovery < warning < emergency"),
        ("config nosuch 5", "unknown key"),
        ("config nosuch", "no setting 'nosuch'"),
        ("register json", "'json' is a module"),
        ("spill", "required: NAME"),
        ("unpin x", "not pinned"),
        ("register x --reload 'not python('", "invalid syntax|was never closed"),
        ("status --json /no/such/folder/x.json", "No such file"),
        ("top -n many", "invalid int"),
        ("-o", "needs the name of a variable"),
    ],
)
def test_wrong_use_is_one_line_without_a_traceback(notebook, line, expected):
    notebook("import json\nx = [1]\n" + ("%memkit register x" if "unpin" in line else ""))
    text = notebook(f"%memkit {line}").strip()
    assert notebook.error is not None
    assert "Traceback" not in text
    assert text.startswith("UsageError: ")
    assert text.count("\n") == 0
    import re

    assert re.search(expected, text), text


def test_help_is_there_for_all_and_for_each(notebook):
    text = notebook("%memkit help")
    for name in COMMANDS:
        assert name in text
        own = notebook(f"%memkit {name} --help")
        assert f"usage: %memkit {name}" in own
    assert "usage: %memkit release" in notebook("%memkit help release")


def test_completion_knows_subcommands_options_names_and_types(notebook):
    notebook("frames = [1]\nfriends = [2]\n%memkit register frames")

    def complete(line):
        with provisionalcompleter():
            return [found.text for found in notebook.shell.Completer.completions(line, len(line))]

    assert {"release", "register", "restore", "reclaim", "report"} <= set(complete("%memkit re"))
    assert complete("%memkit release fr") == ["frames"]
    assert set(complete("%memkit register fr")) == {"frames", "friends"}
    assert "--dry-run" in complete("%memkit release --d")
    assert complete("%memkit register frames --type temp") == ["temp_buffers"]
    assert complete("%memkit config emer") == ["emergency"]


def test_register_again_says_that_it_replaces(notebook):
    notebook("x = [1]\n%memkit register x")
    assert "replacing the earlier registration" in notebook("%memkit register x --type temp_buffers")


def test_a_limit_can_be_set_and_lifted(notebook):
    assert "2.00 GiB" in notebook("%memkit config limit 2GiB")
    assert notebook.session.status().limit == 2 * 2**30
    assert notebook.session.status().binding == "user"
    notebook("%memkit config limit none")
    assert notebook.session.status().binding != "user"


def test_a_setting_can_be_named_as_it_is_shown(notebook):
    assert "monitor.warning  72.0 %" in notebook("%memkit config monitor.warning 72%")


def test_pin_touch_and_unpin(notebook):
    notebook("x = [1]\n%memkit register x --type temp_buffers\n%memkit pin x")
    assert "pinned" in notebook("%memkit")
    assert "left alone" in notebook("%memkit release x")
    notebook("%memkit unpin x")
    notebook("%memkit touch x")
    assert "released x" in notebook("%memkit release x")


def test_monitor_can_be_stopped_and_started(notebook):
    assert "stopped" in notebook("%memkit monitor stop")
    assert threads() == []
    assert "running every 5 s" in notebook("%memkit monitor start")
    assert threads() == ["memkit-monitor"]
