# Every target sets up what it needs: `make demo` and `make test` each work in a fresh clone.
VENV := .venv
PY := $(VENV)/bin/python
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
PYTHON ?= python3

.DEFAULT_GOAL := help
.PHONY: help install install-gpu demo test test-all check format protos protos-check serve bench report simulate clean

help: ## Print this help
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

install: $(STAMP) ## Create .venv with the exact versions of constraints.txt

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; assert sys.version_info >= (3, 11), "Lockstep needs Python 3.11 or newer; name one with PYTHON=..."'
	$(PYTHON) -m venv $(VENV)
	$(PY) -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[all,jax,dev]'
	touch $@

install-gpu: $(STAMP) ## On a GPU machine: CUDA 13 for ONNX Runtime, and .venv-tensorflow with CUDA 12 for TensorFlow
	$(PY) -m pip install --quiet --constraint constraints.txt 'onnxruntime-gpu[cuda,cudnn]'
	$(PYTHON) -m venv .venv-tensorflow
	.venv-tensorflow/bin/python -m pip install --quiet 'tensorflow[and-cuda]>=2.20,<2.22' numpy
	@echo 'Name .venv-tensorflow/bin/python as the interpreter of TensorFlow backends: see docs/gpu.md'

demo: $(STAMP) ## The main job: train, export, verify, serve, classify, load-test, report
	$(BIN)/lockstep demo

test: $(STAMP) ## The tests (no corpus, no training; without a network, those of other people's clients are skipped)
	$(BIN)/pytest

test-all: $(STAMP) ## The tests, the long ones too
	$(BIN)/pytest -m 'long or not long'

check: $(STAMP) protos-check ## Format, lint, types, imports, generated code: what CI runs beside the tests
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(STAMP) ## Format the code and mend what the linter can
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

PROTOC := $(PY) -m grpc_tools.protoc --proto_path=. lockstep/protos/open_inference.proto lockstep/protos/sentiment.proto

protos: $(STAMP) ## Generate the code of protos/
	$(PROTOC) --python_out=. --pyi_out=. --grpc_python_out=.

protos-check: $(STAMP) ## Fail where the committed generated code is not what protos/ generates
	rm -rf build/protos && mkdir -p build/protos
	$(PROTOC) --python_out=build/protos --pyi_out=build/protos --grpc_python_out=build/protos
	for f in build/protos/lockstep/protos/*; do cmp "$$f" "protos/$$(basename $$f)" || { echo "run: make protos"; exit 1; }; done

serve: $(STAMP) ## Serve ./models on 127.0.0.1:8001 (gRPC) and :8002 (HTTP)
	$(BIN)/lockstep serve --repository models

bench: $(STAMP) ## Measure the gateway beside the offline bound; writes docs/reports/performance.md (half an hour)
	$(PY) -m benchmarks.run

report: $(STAMP) ## The frameworks side by side: trains and exports the zoo, measures (two hours); writes docs/reports/
	$(BIN)/lockstep report frameworks --train

simulate: $(STAMP) ## Policies and orders on measured costs; writes reports/simulation/
	$(PY) -m benchmarks.simulate

clean: ## Remove the environment, caches, models and reports
	rm -rf $(VENV) .venv-tensorflow .cache .state models reports build *.egg-info
