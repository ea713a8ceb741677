# Every target makes .venv and installs what it needs when that is missing. Needs python3 (3.11-3.13) and make.
#
#   make demo                                                      train an ODE-Net on real handwritten digits
#   make test                                                      run the tests, docstring examples included
#   make demo TORCH_INDEX=https://download.pytorch.org/whl/cpu     the same with the small CPU build of torch
#   make test PYTHON=python3.12                                    the same with another Python

PYTHON ?= python3
TORCH_INDEX ?=
ARGS ?=

BIN := .venv/bin
# Byte-compiling all of torch takes longer than the imports that need it: --no-compile leaves that to the first import.
INSTALL := $(BIN)/python -m pip install --quiet --no-compile --disable-pip-version-check --constraint constraints.txt \
	$(if $(TORCH_INDEX),--extra-index-url $(TORCH_INDEX))

# Threads that wait without spinning: where other programs share the cores, spinning makes training many times slower.
export OMP_WAIT_POLICY ?= PASSIVE

# Where nothing may be written beside a module, each of many processes would compile all that it imports anew.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: demo test check format bench clean
.DELETE_ON_ERROR:

demo: .venv/installed-cli
	$(BIN)/neuralode train digits $(ARGS)

# One thread per worker: the tests run side by side, and their arrays are small.
test: .venv/installed-dev
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses auto $(ARGS)

check: .venv/installed-dev
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/pyright

format: .venv/installed-dev
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

bench: .venv/installed-peers
	$(BIN)/python -m benchmarks $(ARGS)

# Run folders (runs/) are results, not build products: they stay.
clean:
	rm -rf .venv .pytest_cache .ruff_cache .hypothesis build dist
	find src tests benchmarks -name __pycache__ -prune -exec rm -rf {} + 2>/dev/null || true

# Of aeon the tests want a data file, of the others what they do with torchdiffeq: they come without what they need themselves.
# One environment for all targets; a stamp says which extra of pyproject.toml it holds.
.venv/installed-%: pyproject.toml constraints.txt | .venv/bin/python
	@echo "installing neuralode[$*] into .venv; the first time takes a minute or two"
	$(INSTALL) --editable '.[$*]'
	$(if $(filter dev,$*),$(INSTALL) --no-deps aeon flow_matching torchcde torchsde trampoline torchcfm POT)
	@touch $@ $(if $(filter dev,$*),.venv/installed-cli .venv/installed-bench)

.venv/bin/python:
	$(PYTHON) -m venv .venv
