"""The package as a stranger gets it: the wheel, the environment, the public names, the command line."""

from __future__ import annotations

import importlib
import itertools
import json
import os
import pkgutil
import re
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
import yaml

import memkit

if sys.version_info >= (3, 11):
    import tomllib
else:
    tomllib = None

ROOT = Path(__file__).parent.parent
# The same package under conda-forge's name.
CONDA = {"torch": "pytorch", "xxhash": "python-xxhash"}


def project() -> dict:
    if tomllib is None:
        pytest.skip("reading pyproject.toml needs Python 3.11")
    return tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def split(requirement: str) -> tuple[str, str]:
    name, version = re.fullmatch(r"([A-Za-z0-9_.-]+?)\s*([<>=!~].*)?", requirement).groups()
    return CONDA.get(name.lower(), name.lower()), (version or "").replace(" ", "")


def test_environment_and_project_have_the_same_requirements():
    described = project()
    wanted = dict(map(split, itertools.chain(described["dependencies"], *described["optional-dependencies"].values())))
    wanted["python"] = described["requires-python"]
    listed = yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"]
    given = dict(split(item) for item in listed if isinstance(item, str) and item != "pip")
    assert given == wanted


def test_constraints_pin_every_requirement_that_was_tested():
    described = project()
    pinned = {line.split("==")[0].lower().replace("_", "-") for line in (ROOT / "constraints.txt").read_text().splitlines() if "==" in line}  # fmt: skip # noqa: E501
    extras = described["optional-dependencies"]
    for requirement in described["dependencies"] + extras["models"] + extras["lab"] + extras["dev"]:
        name = re.match(r"[A-Za-z0-9_.-]+", requirement)[0].lower().replace("_", "-")
        assert name in pinned, f"{name} is not in constraints.txt"
    assert "torch==2.13.0" in (ROOT / "constraints.txt").read_text().splitlines()


def test_public_names_are_there_and_none_is_hidden_by_a_module():
    modules = {module.name for module in pkgutil.iter_modules(memkit.__path__)}
    assert not modules & set(memkit.__all__), "importing that module would replace the function"
    for name in memkit.__all__:
        assert callable(getattr(memkit, name)) or name == "guard"
        assert getattr(memkit, name).__doc__
    assert set(memkit.__all__) <= set(dir(memkit))
    with pytest.raises(AttributeError, match="no attribute 'nosuch'"):
        memkit.nosuch  # noqa: B018


def test_every_module_says_in_its_first_line_what_it_is():
    for module in pkgutil.walk_packages(memkit.__path__, "memkit."):
        if module.name != "memkit.__main__":
            assert importlib.import_module(module.name).__doc__, module.name


def test_errors_are_those_drawn_at_the_top_of_their_module():
    from memkit import errors

    drawn = re.findall(r"[├└]── (\w+)", errors.__doc__)
    defined = [
        name
        for name, item in vars(errors).items()
        if isinstance(item, type) and issubclass(item, errors.MemkitError) and item is not errors.MemkitError
    ]
    assert sorted(drawn) == sorted(defined)


def run(*arguments: str, **options) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, "-m", "memkit", *arguments], text=True, capture_output=True, **options)


def test_the_command_line_shows_the_status():
    done = run("status")
    assert done.returncode == 0
    assert "available - normal" in done.stdout
    document = json.loads(run("status", "--json").stdout)
    assert document["limit"] == document["used"] + document["available"]


@pytest.mark.parametrize("part", ["creation", "expiry", "pressure", "restore"])
def test_each_part_of_the_demo_runs_and_shows_what_it_promises(part, tmp_path):
    done = run("demo", part, env={**os.environ, "MEMKIT_STORE_DIR": str(tmp_path)})
    assert done.returncode == 0, done.stderr
    promise = {
        "creation": "in use, so pinned",
        "expiry": "was released at",
        "pressure": "released   temp_buffers_data",
        "restore": "equal: True",
    }
    assert promise[part] in done.stdout


def test_wrong_use_of_the_command_line_is_a_clear_error():
    assert "invalid choice" in run("demo", "nosuch").stderr
    assert run().returncode == 2
    done = run("status", env={**os.environ, "MEMKIT_CONFIG": "/no/such/file.yaml"})
    assert (done.returncode, done.stderr.strip()) == (
        1, "memkit: /no/such/file.yaml: there is no such configuration file",
    )  # fmt: skip


@pytest.mark.slow
@pytest.mark.kernel
def test_the_wheel_works_in_a_clean_environment(tmp_path):
    """Built, installed with its dependencies alone, loaded in a real kernel, with its packaged settings."""
    pip = ["-m", "pip", "--quiet", "--disable-pip-version-check"]
    subprocess.run(
        [sys.executable, *pip, "wheel", "--no-deps", "--no-build-isolation", "-w", tmp_path, ROOT], check=True
    )
    (wheel,) = tmp_path.glob("memkit-*.whl")
    subprocess.run([sys.executable, "-m", "venv", tmp_path / "venv"], check=True)
    python = tmp_path / "venv" / ("Scripts" if os.name == "nt" else "bin") / "python"
    subprocess.run([python, *pip, "install", "-c", ROOT / "constraints.txt", wheel], check=True)
    cells = ("%load_ext memkit", "x = [1]\n%memkit register x --type temp_buffers", "%memkit spill x\n%memkit", "x")
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source) for source in cells])
    nbformat.write(notebook, tmp_path / "try.ipynb")
    command = [python, "-m", "jupyter", "nbconvert", "--to", "markdown", "--execute", "--stdout", "try.ipynb"]
    environ = {**os.environ, "IPYTHONDIR": str(tmp_path), "JUPYTER_CONFIG_DIR": str(tmp_path), "MEMKIT_CONFIG": ""}
    done = subprocess.run(command, cwd=tmp_path, text=True, capture_output=True, env=environ)
    assert done.returncode == 0, done.stderr
    assert "level normal" in done.stdout
    assert "temp_buffers" in done.stdout
    report = [python, "-m", "memkit", "report", "try.ipynb", "-o", "out.html"]
    done = subprocess.run(report, cwd=tmp_path, text=True, capture_output=True, env=environ)
    assert done.returncode == 0, done.stdout + done.stderr
    assert (tmp_path / "out.html").stat().st_size > 10_000
