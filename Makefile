# make install   .venv with everything; .venv/bin/graphnet is the command
# make demo      train the paper's network on photos, evaluate it, and leave pictures in runs/demo
# make examples  train the four networks of examples/tasks, and print their results beside baselines
# make check     lint, types, imports and the fast tests of the rooms from system to cli: while working
# make test      lint, types, imports and all tests
# make site      the documentation as a site in build/site, with a reference that is made from the source
# make fuzz      5,000 random models of all layers and 2,000 with shared and nested parts through every pass and
#                executor, 20,000 wrong plans, 1,000 sound passes, 11,000 damaged image files, and 300,000 mutated
#                model files, training files and checkpoints
# make guided    1,000,000 inputs for each of seven readers, of which those that reach new code are kept (atheris)
# make torture   trainings that are killed, or whose changes of files fail, at every place and at random moments
# make shuffled  all tests in a random order, whose seed is printed
# make separate  each file of tests in a process of its own
# make mutants   600 faults in the built-in layers, losses and kernels: which the conformance kit catches
# make opinfo    every layer against torch's operators on all of torch's own sample inputs, in float64
# make hour      a plugin with one of each kind, from an empty folder to a training, with installed wheels, on
#                this Python and on 3.13
# make onnx      every layer exported and run in onnxruntime, and ONNX's own node cases read and run
# make alone     every layer exported as a folder, and run where torch is alone
# make napari    the tests of napari-graphnet, without a window, in an environment of its own in .venv-napari
# make programs  all Triton programs of all sizes are compiled for a GPU; none is needed
# make stub      graphnet/nn/known.pyi: what type checkers are told of the classes of graphnet.nn
# make public    tests/docs/public_names.txt: the list of public names; a name may go only with a new contract
# make lock      requirements.lock: the newest releases of all that make install needs, with their hashes
# make audit     known vulnerabilities of the releases in requirements.lock
# make matrix    the core's tests on each Python and torch that this machine has
# make speedrun  train the paper's network in seconds, over five seeds; DATA is the folder of photos/ and
#                ee559_val.npz, see examples/denoisers/README.md

PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
DATA ?= ../shared/data
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --dist worksteal
CHECKED := system sdk description graph passes plan model training cli
PROJECTS := pyproject.toml $(patsubst %,plugins/graphnet-%/pyproject.toml,cpu denoise onnx triton)

.PHONY: install demo examples speedrun check test site fuzz guided torture shuffled separate mutants opinfo hour onnx alone lint lock audit napari programs stub public \
	matrix clean

install: $(VENV)/installed

# A build of torch for CPUs and one for CUDA have different hashes, and the latter needs CUDA's libraries:
# requirements.lock leaves them out.
$(VENV)/installed: $(PROJECTS) requirements.in requirements.lock constraints.txt Makefile
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt torch
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -r requirements.in
	$(BIN)/python -m pip check --quiet
	touch $@

NOT_LOCKED := torch graphnet-framework $(patsubst plugins/%/pyproject.toml,%,$(filter plugins/%,$(PROJECTS)))

lock: .venv-lock/installed
	.venv-lock/bin/uv pip compile --quiet --upgrade --universal --python-version 3.11 --generate-hashes \
		--no-annotate --no-header $(NOT_LOCKED:%=--no-emit-package %) -c constraints.txt \
		--group dev --group plugins/graphnet-onnx/pyproject.toml:test requirements.in -o requirements.lock

audit: .venv-lock/installed
	.venv-lock/bin/pip-audit --disable-pip -r requirements.lock

.venv-lock/installed: pyproject.toml
	$(PYTHON) -m venv .venv-lock
	.venv-lock/bin/python -m pip install --quiet --disable-pip-version-check --upgrade 'pip>=25.1'  # knows --group
	.venv-lock/bin/python -m pip install --quiet --disable-pip-version-check --group lock
	touch $@

demo: install
	$(BIN)/python examples/demo.py

examples: install
	OMP_NUM_THREADS=1 $(BIN)/python examples/tasks/run.py  # networks so small are as fast on one thread

speedrun: install
	$(BIN)/python examples/speedrun.py --photos $(DATA)/photos --pairs $(DATA)/ee559_val.npz

napari: .venv-napari/installed
	cd plugins/napari-graphnet && OMP_NUM_THREADS=1 QT_QPA_PLATFORM=offscreen ../../.venv-napari/bin/python -m pytest -q

.venv-napari/installed: plugins/napari-graphnet/pyproject.toml plugins/graphnet-denoise/pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv-napari
	.venv-napari/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt torch
	.venv-napari/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt 'napari[pyqt6]' \
		pytest pytest-qt -e . -e plugins/graphnet-cpu -e 'plugins/graphnet-denoise[formats]' -e plugins/napari-graphnet
	touch $@

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy graphnet plugins benchmarks tests/support/nn_typed.py tests/hour/user_script.py
	$(BIN)/mypy --explicit-package-bases docs/site
	$(BIN)/lint-imports --no-logo --no-cache
	$(BIN)/codespell

check: lint
	$(PYTEST) -m "not slow" tests/test_imports.py $(addprefix tests/,$(CHECKED))

site: install
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict

test: lint site
	$(PYTEST) --ignore plugins/graphnet-triton
	TRITON_INTERPRET=1 $(PYTEST) plugins/graphnet-triton

fuzz: install
	GRAPHNET_FUZZ_MODELS=2000 GRAPHNET_FUZZ_FAULTS=10000 GRAPHNET_FUZZ_SOUND=1000 $(PYTEST) \
		tests/plan/test_fuzz.py tests/plan/test_training_rules.py tests/plan/test_sound_passes.py
	GRAPHNET_FUZZ_GRAPHS=5000 GRAPHNET_FUZZ_COMPILED=300 $(PYTEST) tests/plan/test_every_layer.py
	GRAPHNET_FUZZ_FILES=100000 $(PYTEST) tests/fuzz
	GRAPHNET_DAMAGES=60 $(PYTEST) plugins/graphnet-denoise/tests/test_zoo.py -k damaged

GUIDED := model-descriptions training-descriptions model-files training-files checkpoints pickles images

guided: install build/atheris
	for name in $(GUIDED); do PYTHONPATH=build/atheris $(BIN)/python -m tests.fuzz.guided $$name || exit 1; done

build/atheris:
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --target $@ 'atheris>=3'

torture: install
	$(BIN)/python -m tests.crash.torture

shuffled: install
	seed=$${GRAPHNET_SHUFFLE:-$$$$}; echo "GRAPHNET_SHUFFLE=$$seed"; \
		GRAPHNET_SHUFFLE=$$seed $(PYTEST) --ignore plugins/graphnet-triton

separate: install
	find tests $(patsubst %,plugins/graphnet-%/tests,cpu denoise onnx) -name 'test_*.py' | sort | OMP_NUM_THREADS=1 xargs -P 2 -I FILE \
		sh -c '$(BIN)/python -m pytest -q FILE > /dev/null 2>&1 || { test $$? = 5 || { echo FILE fails alone; exit 1; }; }'

mutants: install
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.support.mutants

opinfo: install
	$(BIN)/python -m tests.opinfo

hour: install
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.hour
	OMP_NUM_THREADS=1 $(BIN)/nox --session hour

onnx: install
	OMP_NUM_THREADS=1 $(BIN)/python -W ignore -m graphnet_onnx

alone: install
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.standalone

programs: install
	GRAPHNET_ALL_PROGRAMS=1 $(PYTEST) plugins/graphnet-triton/tests/test_compiled.py

stub: install
	$(BIN)/python -m tests.support.nn_stub

public: install
	$(BIN)/python -m tests.support.public_names

matrix: install
	$(BIN)/nox

clean:
	rm -rf $(VENV) .venv-lock .venv-napari runs build .pytest_cache .mypy_cache .ruff_cache .hypothesis
