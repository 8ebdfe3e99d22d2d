# Everything that people and CI do with this project; `make` lists it.
#
# The programs in .venv/bin begin with the path of the environment, which may contain a space and then does not work
# there. So they are never called by name, always as `$(PYTHON) -m ...`.

.DEFAULT_GOAL := help
PYTHON := .venv/bin/python
READY := .venv/.ready
NODE_READY := .node/.ready
NODE_PACKAGES := newman@6.2.2 mongosh@2.12.0
ARGS ?=
# Most tests wait for processes and servers most of the time. PARALLEL= runs them one after another. The order is that of
# tests/conftest.py; xdist's own would put the files with the fewest tests last, and these take longest.
PARALLEL ?= --numprocesses 3 --dist loadfile --no-loadscope-reorder

# An environment knows where the project is. After a move, or in a copy, setup has to run again.
ifneq ($(shell cat $(READY) 2>/dev/null),$(CURDIR))
.PHONY: $(READY)
endif

.PHONY: help
help: ## list what can be made
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-8s %s\n", $$1, $$2 }' Makefile

.PHONY: setup
setup: $(READY) ## make .venv with all that development, tests and the embedded server need

.PHONY: run
run: $(READY) ## start the service on its embedded server; make run ARGS="--port 9000" passes options
	@exec $(PYTHON) cmd/jobqueue serve $(ARGS)

.PHONY: demo
demo: $(READY) ## show what the service does, on a database that is gone afterwards
	@exec $(PYTHON) cmd/jobqueue demo

.PHONY: test
test: $(READY) node ## run all tests but the long ones; make test ARGS="-k lease" passes options to pytest
	$(PYTHON) -m pytest -m "not soak" $(PARALLEL) $(ARGS)

.PHONY: soak
soak: $(READY) ## run the tests that take long
	$(PYTHON) -m pytest -m soak --timeout 3600 $(ARGS)

.PHONY: bench
bench: $(READY) ## run the benchmarks in their short form, to see that they work; make bench ARGS="engine http" chooses
	$(PYTHON) -m benchmarks $(or $(ARGS),engine latency http) report --short

.PHONY: simulate
simulate: $(READY) ## try fresh seeds of the simulation for SECONDS (60); make simulate SEED=7 replays one
	@PYTHONPATH=tests/support $(PYTHON) -m simulated.run $(if $(SEED),--seed $(SEED),--seconds $(or $(SECONDS),60))

.PHONY: lint
lint: $(READY) ## look for mistakes and for code that is out of format
	$(PYTHON) -m ruff check .
	$(PYTHON) -m ruff format --check .

.PHONY: format
format: $(READY) ## put the code into format
	$(PYTHON) -m ruff check --fix .
	$(PYTHON) -m ruff format .

.PHONY: types
types: $(READY) ## check the types
	$(PYTHON) -m mypy

.PHONY: node
node: ## install newman and mongosh, which some tests use, into .node; needs npm
	@if command -v npm >/dev/null; then $(MAKE) --no-print-directory $(NODE_READY); \
	else echo "npm is not on the PATH: the tests that use newman and mongosh will be skipped"; fi

.PHONY: clean
clean: ## remove all that was made, but not the data in .jobqueue
	rm -rf .venv .node build dist .coverage .pytest_cache .mypy_cache .ruff_cache
	find cmd jobqueue tests -name __pycache__ -type d -prune -exec rm -rf {} +

# The embedded server has wheels for Python 3.11 to 3.13, hence the search for one of these.
$(READY): pyproject.toml
	@$(PYTHON) -m pip --version >/dev/null 2>&1 || for python in python3 python3.13 python3.12 python3.11; do \
		if $$python -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null; \
		then exec $$python -m venv --clear .venv; fi; \
	done; \
	test -x $(PYTHON) || { echo "Python 3.11, 3.12 or 3.13 is needed, and none is on the PATH" >&2; exit 1; }
	$(PYTHON) -m pip install --quiet --disable-pip-version-check --editable ".[embedded,dev]"
	@echo "$(CURDIR)" >$(READY)

$(NODE_READY): Makefile
	@mkdir -p .node
	npm install --prefix .node --no-audit --no-fund --loglevel error $(NODE_PACKAGES) && touch $(NODE_READY) \
		|| echo "npm could not install them: the tests that use newman and mongosh will be skipped"
