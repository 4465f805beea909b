# Two commands do everything on a machine with Python 3.11+, pip and make.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: prove prove-serving test verify lint clean

# Exit code 1 of `prove` is an answer, "not everything was proven", and no failure of make.
prove: $(VENV)/installed  ## set up, then the main job: prove the gain on this machine
	$(BIN)/twofold prove examples/stdlib-lm.toml || [ $$? -eq 1 ]

prove-serving: $(VENV)/installed  ## set up, then prove a serving plan against two baselines here
	$(BIN)/twofold prove examples/serving.toml || [ $$? -eq 1 ]

test: $(VENV)/installed lint  ## set up, then every check that CI runs, fast ones first
	$(BIN)/pytest -q -m "not slow and not verify"
	$(BIN)/pytest -q -m "slow and not verify"

lint: $(VENV)/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

verify: test prove  ## the long form: also a whole proof on this machine, and ten kills
	$(BIN)/pytest -q -m verify
	TWOFOLD_VERIFY=1 $(BIN)/pytest -q tests/launch/test_training.py

$(VENV)/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --constraint constraints.txt "pip>=25.1" torch numpy
	$(BIN)/pip install --quiet --constraint constraints.txt --editable ".[torch,serve]" --group dev
	touch $@

clean:
	rm -rf $(VENV)
