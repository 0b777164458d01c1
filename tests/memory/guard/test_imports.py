"""The import gate: what does not fit is refused before its code runs, and nothing else about importing changes."""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
import threading
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from memkit.errors import MemoryGuardError
from memkit.memory.guard.imports import ImportGate
from tests.memory.guard.gates import MIB, FakeGate, python

NAME = "memkit_test_library"
linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="RLIMIT_DATA holds on Linux only")


@pytest.fixture
def library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A package on `sys.path` that counts how often its code has run."""
    folder = tmp_path / "path" / NAME
    folder.mkdir(parents=True)
    (folder / "__init__.py").write_text("runs = globals().get('runs', 0) + 1\nfrom . import inner\n")
    (folder / "inner.py").write_text("")
    monkeypatch.syspath_prepend(folder.parent)
    yield folder
    for name in [one for one in sys.modules if one.partition(".")[0] == NAME]:
        del sys.modules[name]


@pytest.fixture
def told() -> list[Any]:
    return []


@pytest.fixture
def gate(told: list[Any]) -> Iterator[ImportGate]:
    made = ImportGate({NAME: 100 * MIB}, {NAME: told.append})
    yield made
    made.uninstall()


def test_an_import_that_does_not_fit_is_refused_before_its_code_runs(library, gate, told):
    room = FakeGate(left=90 * MIB)
    gate.install(room)
    with pytest.raises(MemoryGuardError, match=rf"importing {NAME} takes about 100.0 MiB .*; 90.0 MiB are left"):
        importlib.import_module(NAME)
    assert NAME not in sys.modules
    assert told == []
    assert room.asked == [150 * MIB], "room was to be made first"


def test_an_import_that_fits_once_room_was_made_goes_on(library, gate, told):
    room = FakeGate(left=90 * MIB, more=60 * MIB)
    gate.install(room)
    module = importlib.import_module(NAME)
    assert module.runs == 1
    assert (room.asked, room.lifts, room.inside) == ([150 * MIB], 1, 0)


def test_a_refused_import_can_be_made_again_later(library, gate):
    room = FakeGate(left=0)
    gate.install(room)
    with pytest.raises(MemoryGuardError):
        importlib.import_module(NAME)
    room.left = 2**40
    assert importlib.import_module(NAME).runs == 1


def test_the_limit_is_lifted_while_the_library_loads_and_not_after(library, gate, monkeypatch):
    room = FakeGate()
    (library / "inner.py").write_text("import memkit_test_probe as probe\nprobe.inside.append(probe.room.inside)\n")
    probe = type(sys)("memkit_test_probe")
    probe.inside, probe.room = [], room
    monkeypatch.setitem(sys.modules, "memkit_test_probe", probe)
    gate.install(room)
    importlib.import_module(NAME)
    assert probe.inside == [1]
    assert room.inside == 0


def test_what_a_library_imports_in_turn_is_not_asked_for_again(library, told):
    both = ImportGate({NAME: MIB, f"{NAME}.inner": MIB}, {f"{NAME}.inner": told.append})
    room = FakeGate()
    both.install(room)
    try:
        importlib.import_module(NAME)
    finally:
        both.uninstall()
    assert room.lifts == 1
    assert [module.__name__ for module in told] == [f"{NAME}.inner"], "but it is told of"


def test_a_library_is_told_of_once_it_is_complete(library, gate, told):
    gate.install(FakeGate())
    module = importlib.import_module(NAME)
    assert told == [module]
    assert hasattr(told[0], "inner")


def test_a_library_that_is_loaded_already_is_told_of_at_once(library, gate, told):
    module = importlib.import_module(NAME)
    gate.install(FakeGate())
    assert told == [module]


def test_an_adaptation_that_fails_does_not_fail_the_import(library, caplog):
    failing = ImportGate({}, {NAME: lambda module: 1 / 0})
    failing.install(FakeGate())
    try:
        assert importlib.import_module(NAME).runs == 1
    finally:
        failing.uninstall()
    assert "could not be adapted" in caplog.text


def test_looking_for_a_spec_loads_and_refuses_nothing(library, gate, told):
    gate.install(FakeGate(left=0))
    spec = importlib.util.find_spec(NAME)
    assert spec is not None
    assert spec.origin == str(library / "__init__.py")
    assert told == []
    assert NAME not in sys.modules


def test_the_loader_is_the_one_there_would_be_without_the_gate(library, gate):
    before = importlib.util.find_spec(NAME).loader
    gate.install(FakeGate())
    module = importlib.import_module(NAME)
    assert type(module.__loader__) is type(before)
    assert module.__loader__ == before, "and carries nothing of ours"
    assert module.__spec__.loader is module.__loader__


def test_reloading_is_told_of_and_never_refused(library, gate, told):
    room = FakeGate()
    gate.install(room)
    module = importlib.import_module(NAME)
    room.left = 0
    assert importlib.reload(module) is module
    assert module.runs == 2
    assert told == [module, module]


def test_a_lazy_loader_is_refused_when_it_loads(library, gate):
    room = FakeGate(left=0)
    gate.install(room)
    spec = importlib.util.find_spec(NAME)
    spec.loader = importlib.util.LazyLoader(spec.loader)
    module = importlib.util.module_from_spec(spec)
    sys.modules[NAME] = module
    spec.loader.exec_module(module)
    with pytest.raises(MemoryGuardError):
        _ = module.runs


def test_a_namespace_package_imports_as_ever(tmp_path, monkeypatch):
    (tmp_path / f"{NAME}_space" / "part").mkdir(parents=True)
    monkeypatch.syspath_prepend(tmp_path)
    spaces = ImportGate({f"{NAME}_space": MIB})
    spaces.install(FakeGate())
    try:
        assert importlib.import_module(f"{NAME}_space").__file__ is None
    finally:
        spaces.uninstall()
        sys.modules.pop(f"{NAME}_space", None)


def test_a_loader_of_several_modules_attends_to_the_right_one(tmp_path, monkeypatch, gate, told):
    """A zip file has one loader for all that is in it."""
    with zipfile.ZipFile(tmp_path / "all.zip", "w") as archive:
        archive.writestr(f"{NAME}.py", f"import {NAME}_other\n")
        archive.writestr(f"{NAME}_other.py", "")
    monkeypatch.syspath_prepend(str(tmp_path / "all.zip"))
    gate.install(FakeGate())
    try:
        module = importlib.import_module(NAME)
        assert told == [module]
    finally:
        for name in (NAME, f"{NAME}_other"):
            sys.modules.pop(name, None)
        importlib.invalidate_caches()


def test_finders_of_others_are_asked_as_for_an_editable_install(library, gate, told, monkeypatch):
    class Editable:
        @staticmethod
        def find_spec(name: str, path: Any = None, target: Any = None) -> Any:
            if name != f"{NAME}_edit":
                return None
            return importlib.util.spec_from_file_location(name, library / "inner.py")

    monkeypatch.setattr(sys, "meta_path", [*sys.meta_path, Editable])
    editable = ImportGate({f"{NAME}_edit": MIB}, {f"{NAME}_edit": told.append})
    editable.install(FakeGate())
    try:
        assert importlib.import_module(f"{NAME}_edit") in told
    finally:
        editable.uninstall()
        sys.modules.pop(f"{NAME}_edit", None)


def test_a_missing_module_is_missing(gate):
    absent = ImportGate({"memkit_test_absent": MIB})
    absent.install(FakeGate())
    try:
        with pytest.raises(ModuleNotFoundError, match="memkit_test_absent"):
            importlib.import_module("memkit_test_absent")
    finally:
        absent.uninstall()


def test_installing_twice_and_uninstalling_leaves_no_trace(gate):
    before = list(sys.meta_path)
    gate.install(FakeGate())
    gate.install(FakeGate())
    assert sys.meta_path == [gate, *before]
    gate.uninstall()
    gate.uninstall()
    assert sys.meta_path == before


def test_a_spec_found_while_installed_loads_freely_after_uninstalling(library, gate, told):
    gate.install(FakeGate(left=0))
    spec = importlib.util.find_spec(NAME)
    gate.uninstall()
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert told == []


def test_threads_import_at_the_same_time(library, gate, told):
    gate.install(FakeGate())
    threads = [threading.Thread(target=importlib.import_module, args=(NAME,)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [module.runs for module in told] == [1]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_child_imports_as_without_the_gate(library, gate):
    gate.install(FakeGate(left=0))
    child = os.fork()
    if child == 0:
        try:
            importlib.import_module(NAME)
        except BaseException:  # noqa: BLE001 - a child must not go on with the tests
            os._exit(1)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


@linux
@pytest.mark.parametrize("name", ["numpy", "pandas", "torch", "pyarrow"])
def test_a_real_library_is_refused_where_it_would_end_the_process(name):
    """And is there at once as soon as there is room for it."""
    pytest.importorskip(name)
    done = python(f"""
        import sys
        from tests.memory.guard.gates import FakeGate
        from memkit.memory.guard.imports import ImportGate
        room = FakeGate(left=20 * 2**20)
        gate = ImportGate()
        gate.install(room)
        leave(20)
        try:
            import {name}
        except MemoryError as error:
            print(error)
        assert "{name}" not in sys.modules
        unlimited()
        room.left = 2**40
        import {name}
        print("imported")
    """)
    assert done.returncode == 0, done.stderr[-500:]
    assert done.stdout.startswith(f"importing {name} takes about ")
    assert done.stdout.endswith("imported\n")
