# make install   .venv with everything; .venv/bin/graphnet is the command
# make demo      train the paper's network on photos, evaluate it, and leave pictures in runs/demo
# make test      lint, types and tests
# make matrix    the core's tests on each Python and torch that this machine has
# make speedrun  train the paper's network in seconds, over five seeds; DATA is the folder of photos/ and
#                ee559_val.npz, see examples/denoisers/README.md

PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
DATA ?= ../shared/data
PROJECTS := pyproject.toml $(patsubst %,plugins/graphnet-%/pyproject.toml,cpu denoise triton)

.PHONY: install demo speedrun test lint matrix clean

install: $(VENV)/installed

$(VENV)/installed: $(PROJECTS) constraints.txt Makefile
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --upgrade 'pip>=25.1'  # knows --group
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt torch
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt --group dev \
		-e . -e plugins/graphnet-cpu -e 'plugins/graphnet-denoise[plots]' -e plugins/graphnet-triton
	touch $@

demo: install
	$(BIN)/python examples/demo.py

speedrun: install
	$(BIN)/python examples/speedrun.py --photos $(DATA)/photos --pairs $(DATA)/ee559_val.npz

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy graphnet plugins
	$(BIN)/lint-imports --no-logo --no-cache
	$(BIN)/codespell

test: lint
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto
	TRITON_INTERPRET=1 OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto plugins/graphnet-triton

matrix: install
	$(BIN)/nox

clean:
	rm -rf $(VENV) runs .pytest_cache .mypy_cache .ruff_cache .hypothesis
