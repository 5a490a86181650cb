# Two commands do everything on a fresh machine: `make quickstart` and `make test`.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
RUN ?= runs/quickstart
export MUJOCO_GL ?= egl

.PHONY: help install system quickstart test lint types format bench docs clean

help:  ## show this list
	@awk -F':.*## ' '/^[a-z]+:.*## /{printf "  make %-11s %s\n", $$1, $$2}' Makefile

# libEGL and Mesa's software driver render MuJoCo without a screen; libGL is what OpenCV (a dependency of gym-pusht) loads.
system:
	@if ldconfig -p | grep -q libEGL.so.1 && ldconfig -p | grep -q libGL.so.1; then exit 0; fi; \
	if command -v apt-get >/dev/null && [ "$$(id -u)" = 0 ]; then \
	  apt-get update -qq && apt-get install -y -qq libegl1 libgl1 libgl1-mesa-dri libglib2.0-0; \
	else echo "Rendering needs libEGL and libGL: sudo apt-get install libegl1 libgl1 libgl1-mesa-dri libglib2.0-0"; fi

$(BIN)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet -c constraints.txt torch
	$(BIN)/python -m pip install --quiet -c constraints.txt -e ".[formats,pusht,vision,vla,serve,search,dev]"
	# Without their dependencies: robomimic wants a torchvision that fits torch, robosuite a library for other robots.
	$(BIN)/python -m pip install --quiet -c constraints.txt numba scipy
	$(BIN)/python -m pip install --quiet -c constraints.txt --no-deps robomimic robosuite
	touch $@

install: system $(BIN)/.installed  ## make .venv with everything the tests need

quickstart: install  ## train on the bundled demonstrations, evaluate 50 unseen starts, write the report
	$(BIN)/sensorimotor train experiment=push_t run=$(RUN)
	$(BIN)/sensorimotor report run=$(RUN)

test: lint types  ## lint, types and the test suite
	$(BIN)/python -m pytest

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/codespell .

# Pyright reads files, not import hooks: give it a folder in which the checkout is called by its package name.
types: install
	@mkdir -p build/types && ln -sfn ../.. build/types/sensorimotor
	$(BIN)/pyright

format: install  ## rewrite the sources in the house format
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: install  ## run every benchmark (hours) and rewrite docs/results.md
	@for script in $(sort $(wildcard benchmarks/*.py)); do echo "== $$script"; $(BIN)/python $$script || exit 1; done
	$(MAKE) docs

docs: install  ## write docs/results.md and the README's table from benchmarks/results/
	$(BIN)/python docs/results.py

clean:  ## remove what the targets above made, except runs/
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .ruff_cache
