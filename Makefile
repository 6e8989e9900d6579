# Two commands on a machine with Python 3.11 and make: `make demo` sets up and runs the main job, `make test` the tests.
PYTHON ?= python3.11
BIN := .venv/bin
READY := .venv/.ready

.PHONY: demo test test-all lint ablations bench-export load clean

demo: $(READY)
	$(BIN)/emotion-ai demo

test: $(READY)
	$(BIN)/python -m pytest -m "not slow"

test-all: $(READY)
	$(BIN)/python -m pytest

# BUDGET=quick proves the road in minutes; DATA is the folder of the datasets, ABLATIONS="trainer=gpu" goes to every run
BUDGET ?= full
DATA ?= $(EMOTION_AI_DATA)
ablations: $(READY)
	$(BIN)/emotion-ai ablations --budget $(BUDGET) $(if $(DATA),--data "$(DATA)") $(ABLATIONS)

bench-export: $(READY)
	$(BIN)/python -m emotion_ai_export.bench.speed

load: $(READY) # against the server that runs on 8501 and 8500; LOAD="--server ... --grpc ..." names another
	$(BIN)/python -m emotion_ai_export.bench.load $(LOAD)

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

clean:
	rm -rf .venv build demo

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	touch $(READY)
