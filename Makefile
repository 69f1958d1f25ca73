# Needs make and Python 3.11 or newer. `make demo` and `make test` set up .venv by themselves, once.
PYTHON ?= $(shell for name in python3.11 python3.12 python3.13 python3; do \
	$$name -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$name && break; done)
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.installed
DEMO_READY := $(VENV)/.installed-demo
export PIP_DISABLE_PIP_VERSION_CHECK := 1
# Modules are compiled when they are first imported, not all 22,000 of them when they are installed.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help demo test faults coverage lowest lint golden docs format bench wheel clean

help:
	@echo "make demo    train on phantom patients and leave a folder to look at: demo-output"
	@echo "make test    run the tests"
	@echo "make faults  property-based and fault-injection tests on many more examples, and the long tests"
	@echo "make coverage  the tests that are not slow, and the lines they reach: coverage-output"
	@echo "make lowest  the tests with the lowest versions that pyproject.toml declares: .venv-lowest"
	@echo "make lint    ruff and mypy"
	@echo "make golden  weights, masks, metrics, settings and help texts beside the committed record"
	@echo "make docs    the documentation site, without warnings: site"
	@echo "make format  let ruff rewrite what it can"
	@echo "make bench   measure the ratios that the README states: benchmark-output"
	@echo "make wheel   build the wheel and the source archive: dist"
	@echo "make clean   delete what the above made, .venv included"

# Installed again whenever the dependencies change.
$(READY): pyproject.toml
	@test -n "$(PYTHON)" || { echo "needs Python 3.11 or newer; name it: make PYTHON=..."; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "Installing into $(VENV), once; torch is large, so this takes some minutes."
	$(BIN)/python -m pip install --quiet --no-compile --editable '.[dev]'
	@touch $(READY)

# The demo needs the package alone, without the tools of tests and lint.
$(DEMO_READY): pyproject.toml
	@test -n "$(PYTHON)" || { echo "needs Python 3.11 or newer; name it: make PYTHON=..."; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "Installing into $(VENV), once; torch is large, so this takes some minutes."
	$(BIN)/python -m pip install --quiet --no-compile --editable .
	@touch $(DEMO_READY)

demo: $(DEMO_READY)
	$(BIN)/samonai demo --out demo-output

test: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --maxprocesses 4 --dist loadfile

# So many times as many drawn files, flipped bits and kills as in CI.
FAULTS ?= 20
faults: $(READY)
	SAMONAI_FAULTS=$(FAULTS) OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --maxprocesses 4 \
		--dist loadgroup tests/faults tests/test_fuzz_*.py
	SAMONAI_FAULTS=$(FAULTS) OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --maxprocesses 4 \
		--dist loadfile -m long

# Apart from `make test`, because tracing slows the tests down; the floor is in pyproject.toml.
coverage: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --maxprocesses 4 -m 'not slow' \
		--cov --cov-report term:skip-covered --cov-report html

# Warnings of old libraries are no errors here.
lowest:
	$(PYTHON) -m venv .venv-lowest
	.venv-lowest/bin/python -m pip install --quiet uv
	.venv-lowest/bin/uv pip install --quiet --python .venv-lowest/bin/python \
		--resolution lowest-direct --editable '.[dev]'
	OMP_NUM_THREADS=1 .venv-lowest/bin/python -m pytest -n auto --maxprocesses 4 -W default

lint: $(READY)
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

golden: $(READY)
	$(BIN)/python tools/golden.py

docs: $(READY)
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

format: $(READY)
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

bench: $(READY)
	$(BIN)/python -m benchmarks --out benchmark-output

wheel: $(READY)
	$(BIN)/python -m build --no-isolation

clean:
	rm -rf $(VENV) .venv-lowest demo-output benchmark-output coverage-output site dist build .pytest_cache .mypy_cache .ruff_cache
