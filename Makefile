# What a contributor and CI run. Only Python 3.11+ (with venv), git and make are needed; `make help` lists the targets.

VENV ?= .venv
PY := $(VENV)/bin/python
ARGS ?=
# What has to be covered to the last branch without servers; all else has to be to 95 %, with them. Left out there is what
# runs in processes of its own alone, where nothing counts its lines.
PURE := streams/core/*,streams/wire.py,streams/bridge/bullmq.py,streams/bridge/hashes.py
PROCESSES := */__main__.py,streams/commands/run.py,streams/demo/application.py,streams/demo/crawler.py,streams/demo/run.py,streams/demo/consumer.py
FAST := not system and not node and not slow

.DEFAULT_GOAL := help
.PHONY: help venv check lint types unit fast test proof demo bench docs format clean

help: ## list the targets
	@sed -n 's/^\([a-z]*\):.*## /  make \1\t/p' Makefile | expand -t 16

venv: $(VENV)/.dev ## the virtual environment, renewed when pyproject.toml changed

FIND_PYTHON = for name in $(PYTHON) python3 python3.14 python3.13 python3.12 python3.11; do \
	if $$name -c 'import ensurepip, sys, venv; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; \
	then echo $$name; break; fi; done
PIP = $(PY) -m pip install --quiet --disable-pip-version-check
NO_PIP = { echo "pip could not install: check the network (behind a proxy with a CA of its own set PIP_CERT)"; exit 1; }

$(VENV)/bin/python:
	@python=$$($(FIND_PYTHON)); \
	if [ -z "$$python" ]; then \
		echo "Python 3.11 or newer with venv is needed (Debian: apt install python3-venv), or: make PYTHON=/path/to/python"; \
		exit 1; \
	fi; \
	echo "making $(VENV) with $$($$python --version)"; \
	$$python -m venv $(VENV)

# pip learned dependency groups (--group) in 25.1.
$(VENV)/.runtime: pyproject.toml | $(VENV)/bin/python
	@echo "installing bullmq-streams and what it runs on into $(VENV)"
	@$(PIP) --upgrade 'pip>=25.1' || $(NO_PIP)
	@$(PIP) --editable '.[local]' || $(NO_PIP)
	@touch $@

$(VENV)/.dev: $(VENV)/.runtime
	@echo "installing the tools of the gate into $(VENV)"
	@$(PIP) --group dev || $(NO_PIP)
	@touch $@

$(VENV)/.bench: $(VENV)/.dev
	@echo "installing what the benchmarks compare with into $(VENV)"
	@$(PIP) --group bench || $(NO_PIP)
	@touch $@

check: lint types unit ## the fast gate: format, lint, types, tests that need no server

lint: venv ## formatter and linter alone
	@echo "== format" && $(PY) -m ruff format --check .
	@echo "== lint" && $(PY) -m ruff check .

types: venv ## mypy alone
	@echo "== types" && $(PY) -m mypy

unit: venv ## the tests that need no server alone, with their coverage
	@echo "== tests without servers" && $(PY) -m pytest -m "$(FAST)" --cov --cov-report=
	@$(PY) -m coverage report --include='$(PURE)' --fail-under=100 --show-missing --skip-covered

fast: venv ## the same tests without coverage: for another Python, make PYTHON=python3.13 VENV=/tmp/venv-3.13 fast
	@$(PY) -m pytest -m "$(FAST)" -p no:cacheprovider

test: check ## everything: the gate, then the tests on a real Kafka and Redis, which they start and stop
	@echo "== tests on real servers" && $(PY) -m pytest -m "not slow and not ($(FAST))" --cov --cov-append --cov-report= $(ARGS)
	$(if $(ARGS),,@echo "== coverage of all tests, in percent" && \
		$(PY) -m coverage report --format=total --fail-under=95 --omit='$(PROCESSES)')

proof: venv ## the long proofs that `test` leaves out
	@$(PY) -m pytest -m slow $(ARGS)

demo: $(VENV)/.runtime ## the whole line live in the terminal; make demo ARGS="--seconds 60" ends by itself
	@$(PY) -m streams.cli demo $(ARGS)

bench: $(VENV)/.bench ## the benchmarks of docs/benchmarks.md
	@$(PY) -m tests.bench $(ARGS)

docs: venv ## write the generated pages of docs/ anew
	@$(PY) -m streams.docs

format: venv ## format, and mend what the linter can
	@$(PY) -m ruff format .
	@$(PY) -m ruff check --fix .

clean: ## remove the virtual environment and all caches
	rm -rf $(VENV) .mypy_cache .pytest_cache .ruff_cache .hypothesis .coverage build dist tests/node/node_modules
	find . -name __pycache__ -prune -exec rm -rf {} +
