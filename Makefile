# Everything a newcomer needs: `make demo` and `make test`, each from nothing but Python 3.11+, git and make.

PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
TORCH_VERSION := 2.13.0

# Which PyTorch to install: auto (the CPU build unless an NVIDIA GPU is there), cpu or cuda.
TORCH ?= auto
ifeq ($(TORCH),auto)
  TORCH_BUILD := $(shell nvidia-smi -L >/dev/null 2>&1 && echo cuda || echo cpu)
else ifneq ($(filter $(TORCH),cpu cuda),)
  TORCH_BUILD := $(TORCH)
else
  $(error TORCH=$(TORCH) is unknown; expected auto, cpu or cuda)
endif
# PyPI's own build for Linux is the CUDA one; PyTorch's index has the small CPU one. Where that index cannot be
# reached, pip warns and takes what the other indexes have.
TORCH_INDEX_cpu := --extra-index-url https://download.pytorch.org/whl/cpu --retries 1 --timeout 30

PACKAGES := pipeline pipeline/api pipeline/cli pipeline/reports pipeline/sources stage1_extract stage2_adapt cache
# A new file changes its folder's date, and a strict editable install then has to be made again.
INSTALLED_FROM := setup.cfg pyproject.toml constraints.txt $(PACKAGES)
# A process for each core; the tests of a file share what they set up.
SIDE_BY_SIDE := -n auto --dist loadfile
INSTALL := $(BIN)/pip install --quiet -c constraints.txt --config-settings editable_mode=strict

.PHONY: help venv demo test slow lint format docs clean

help:
	@echo 'make venv    install into .venv, and run nothing'
	@echo 'make demo    the whole way on MovieLens-100K with a real LLM, a quarter of an hour'
	@echo 'make test    the tests, without real models and data'
	@echo 'make slow    the tests with real models and data'
	@echo 'make lint    ruff and mypy        make format  let ruff format the code'
	@echo 'make docs    the documents as a site, in site/'
	@echo 'Options: TORCH=auto|cpu|cuda (which PyTorch), PYTHON=/path/to/python3.11'

venv: $(VENV)/.demo

demo: $(VENV)/.demo
	PATH="$(CURDIR)/$(BIN):$$PATH" sh demo.sh

test: $(VENV)/.dev
	$(BIN)/python -m pytest $(SIDE_BY_SIDE) -m 'not slow' $(ARGS)

slow: $(VENV)/.dev $(VENV)/.demo
	$(BIN)/python -m pytest $(SIDE_BY_SIDE) -m slow $(ARGS)

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(VENV)/.dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# The variable leaves out the theme's notice of its makers' next program.
docs: $(VENV)/.docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

$(VENV)/.torch-$(TORCH_BUILD): Makefile
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo 'ssna needs Python 3.11 or newer; found $(PYTHON). Name another: make PYTHON=/path/to/python3.11'; exit 1; }
	$(PYTHON) -m venv $(VENV)
	@rm -f $(VENV)/.torch-*
	$(BIN)/pip install --quiet $(if $(wildcard $(VENV)/.dev $(VENV)/.demo $(VENV)/.docs),--force-reinstall --no-deps) \
	  torch==$(TORCH_VERSION) $(TORCH_INDEX_$(TORCH_BUILD))
	@touch $@

$(VENV)/.dev: $(VENV)/.torch-$(TORCH_BUILD) $(INSTALLED_FROM)
	$(INSTALL) -e '.[dev]'
	@touch $@

$(VENV)/.demo: $(VENV)/.torch-$(TORCH_BUILD) $(INSTALLED_FROM)
	$(INSTALL) -e '.[demo]'
	@touch $@

$(VENV)/.docs: $(VENV)/.torch-$(TORCH_BUILD) $(INSTALLED_FROM)
	$(INSTALL) -e '.[docs]'
	@touch $@

clean:
	rm -rf $(VENV) build dist demo site *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
