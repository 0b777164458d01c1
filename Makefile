# Two commands do everything: `make demo` and `make test`. Both create .venv and install what they need.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
READY := $(VENV)/.memkit-ready
PIP_FLAGS := --quiet --disable-pip-version-check

export MPLBACKEND = agg
export PYTHONDONTWRITEBYTECODE =

.PHONY: help demo test battery soak lint bench lab wheel clean

help:
	@echo "make demo   run the quickstart notebook in a real kernel and write an HTML report"
	@echo "make test   the whole check: lint, types, import layers, unit, property, kernel and notebook tests"
	@echo "make soak   what takes too long for make test"
	@echo "make battery  every way to run out of memory, in real kernels at four limits: survival rate, half an hour"
	@echo "make bench  speed and memory against peers, one table"
	@echo "make lab    JupyterLab with the notebooks"

$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10) and "memkit needs Python >= 3.10, this is " + sys.version.split()[0])'
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "installing into $(VENV) (the first time takes a few minutes)"
	@$(BIN)/python -m pip install $(PIP_FLAGS) --upgrade pip
	@$(BIN)/python -m pip install $(PIP_FLAGS) -c constraints.txt -e '.[models,lab,dev]'
	@touch $@

demo: $(READY)
	@mkdir -p reports
	@$(BIN)/python -m memkit report notebooks/quickstart.ipynb -o reports/quickstart.html

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

test: lint
	$(BIN)/python -m pytest

battery: $(READY)
	$(BIN)/python -m tests.guard --jobs 2

soak: $(READY)
	$(BIN)/python -m pytest -m soak

bench: $(READY)
	$(BIN)/python -m benchmarks

lab: $(READY)
	$(BIN)/jupyter lab notebooks

wheel: $(READY)
	$(BIN)/python -m pip wheel $(PIP_FLAGS) --no-deps -w dist .

clean:
	rm -rf $(VENV) dist build reports .mypy_cache .ruff_cache .pytest_cache .hypothesis
