# Two commands for a newcomer: `make run` and `make test`. Everything they need lies in
# $(VENV), at the versions of requirements.lock.

PYTHON ?= python3
VENV ?= .venv
DATA_DIR ?= data
WORKDIR ?= runs/chexnet-phantom
NAME ?=
# The rival in tests of imported weights; the build without gigabytes of CUDA.
TORCH ?= torch==2.13.0+cpu
# Compiles small programs in two thirds of the time; used where this jax knows it.
QUICK = --xla_cpu_use_fusion_emitters=false --xla_cpu_parallel_codegen_split_count=1
BIN = $(VENV)/bin
# Modules are compiled when they are first imported: most never are.
INSTALL = $(BIN)/python -m pip install --quiet --no-compile -c requirements.lock

.PHONY: run test test-long measure lint clean help

help:
	@echo "make run        train, evaluate and report CheXNet on phantom films"
	@echo "make test       every short test (below 15 minutes on 2 cores)"
	@echo "make test-long  full-width configs, a training to its figure, faults"
	@echo "make measure NAME=...  a restartable measurement of benchmarks/"
	@echo "make lint       formatting and static checks"

$(VENV)/.made:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "Python 3.11 or newer is needed, $(PYTHON) is" \
	    "`$(PYTHON) --version`; give another one: make PYTHON=python3.12" >&2; exit 2; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(INSTALL) --upgrade pip 2>/dev/null || echo "pip stays as it came with Python, and is slower"
	@touch $@

$(VENV)/.core: $(VENV)/.made setup.py requirements.lock
	@echo "installing into $(VENV) (about a minute)"
	@$(INSTALL) -e .
	@touch $@

# With the core, in one go; torch is not everywhere.
$(VENV)/.test: $(VENV)/.made setup.py requirements.lock
	@echo "installing into $(VENV), with the test extra (some minutes)"
	@$(INSTALL) -e '.[test]' '$(TORCH)' 2>/dev/null || { $(INSTALL) -e '.[test]'; \
	  echo "pip could not install $(TORCH): tests against torch will be skipped"; \
	  echo "(PIP_EXTRA_INDEX_URL may name PyTorch's index, TORCH another build)"; }
	@XLA_FLAGS='$(QUICK)' JAX_PLATFORMS=cpu $(BIN)/python -c 'import jax; jax.devices()' \
	  2>/dev/null && echo '$(QUICK)' > $(VENV)/.quick || : > $(VENV)/.quick
	@touch $(VENV)/.core $@

run: $(VENV)/.core
	@$(BIN)/python -m cxr_jax.main --config=configs/chexnet.py:phantom \
	  --workdir=$(WORKDIR) --data_dir=$(DATA_DIR)

# Most of a test is the compilation of a program that runs once or twice: the compiler does
# not polish it. Trainings to a figure run what it makes for users.
test test-long: export JAX_DISABLE_MOST_OPTIMIZATIONS ?= 1
PYTEST = XLA_FLAGS="$$XLA_FLAGS `cat $(VENV)/.quick 2>/dev/null`" $(BIN)/python -m pytest \
  -n 2 --dist loadfile --no-loadscope-reorder

test: $(VENV)/.test
	$(PYTEST) -m "not long and not gpu"

test-long: $(VENV)/.test
	$(PYTEST) -m "long and not gpu"

measure: $(VENV)/.test
	@test -f benchmarks/$(NAME).py || { echo "make measure NAME=...: one of" \
	  "`cd benchmarks && ls *.py | sed 's/\.py//' | tr '\n' ' '`" >&2; exit 2; }
	$(BIN)/python benchmarks/$(NAME).py

lint: $(VENV)/.test
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

clean:
	rm -rf $(VENV) .cache build *.egg-info
