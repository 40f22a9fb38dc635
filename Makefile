# Needs Python 3.10+ and make. Everything else is installed into .venv by the first target that needs it.
.DEFAULT_GOAL := help
.PHONY: help setup demo up down test test-harness test-launcher test-slow test-model test-browser test-cluster screenshots docs wheels latest-dagster check audit bench bench-airflow format clean

VENV := .venv
INSTALLED := $(VENV)/.installed
TOOLS := $(VENV)/.installed-dev
BIN := $(VENV)/bin
HARNESS := packages/dagster-scenario
LAUNCHER := packages/dagster-warm-launcher
ORCHARD := $(HARNESS)/tests/foreign/orchard
AIRFLOW := .dedp/airflow/venv

help: ## this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /|/' | awk -F'|' '{printf "  make %-13s %s\n", $$1, $$2}'

setup: $(TOOLS) ## install everything into .venv; `make demo` and `make up` do without the tests' packages

$(INSTALLED): requirements.txt pyproject.toml packages/dagster-warm-launcher/pyproject.toml scripts/setup.sh
	@./scripts/setup.sh

$(TOOLS): $(INSTALLED) requirements-dev.txt packages/dagster-scenario/pyproject.toml
	@./scripts/setup.sh dev

$(VENV)/.installed-%: requirements-%.txt $(TOOLS)
	@./scripts/setup.sh $*

demo: $(INSTALLED) ## the pipelines end to end, with their results checked
	@$(BIN)/dedp demo

up: $(INSTALLED) ## PostgreSQL, Spark, Dagster's daemon and UI on http://127.0.0.1:3000, until Ctrl-C or `make down`
	@$(BIN)/dedp up

down: ## stop what `make up` started
	@test ! -x $(BIN)/dedp || $(BIN)/dedp down

test: setup ## every test but those that take minutes
	@$(BIN)/python -m pytest --numprocesses 2 --dist loadfile --no-loadscope-reorder -m "not slow" --ignore tests/cluster

test-harness: setup ## the tests of the harness, which is a package of its own
	@cd $(HARNESS) && ../../$(BIN)/python -m pytest --numprocesses 2 --dist loadfile --no-loadscope-reorder -m "not slow" tests

test-launcher: setup ## the tests of the run launcher, which is a package of its own
	@cd $(LAUNCHER) && ../../$(BIN)/python -m pytest --numprocesses 2 --dist loadfile --no-loadscope-reorder -m "not slow" tests

test-slow: setup ## what takes minutes: runs killed at every step, the demo, bursts, the harness on other releases
	@$(BIN)/python -m pytest --numprocesses 2 --dist loadfile --no-loadscope-reorder -m slow --ignore tests/cluster --ignore tests/model tests $(HARNESS)/tests
	@cd $(LAUNCHER) && ../../$(BIN)/python -m pytest --numprocesses 2 --dist loadfile --no-loadscope-reorder -m slow tests
	@MODEL_INTERLEAVINGS=200 FILE_SCHEDULES=250 MODEL_LOADS=100 PROMOTION_SCHEDULES=100 $(BIN)/python -m pytest --numprocesses 2 tests/model tests/sensors/delta_commits/test_any_order.py

test-browser: $(VENV)/.installed-browser ## the UI in a headless Chromium: sign in, look, launch a partition (needs chromium)
	@$(BIN)/python -m pytest tests/browser

screenshots: $(VENV)/.installed-browser ## write the pictures of the documentation again, into docs/images
	@$(BIN)/python -m pytest tests/browser --screenshots docs/images

docs: $(VENV)/.installed-docs ## the documentation as a site, with the API reference, in site/; nothing may be amiss
	@$(BIN)/python -m pytest tests/docs --site site

wheels: setup ## the wheels and source archives of the three distributions, in dist/
	@rm -rf dist
	@for folder in . $(HARNESS) $(LAUNCHER); do (cd $$folder && $(CURDIR)/$(BIN)/hatchling build -d $(CURDIR)/dist) || exit 1; done

latest-dagster: setup ## the newest Dagster that pyproject.toml allows into .venv, in place of the pinned one
	@$(BIN)/python scripts/uv_with_pip_settings.py $(BIN)/uv pip install --python $(BIN)/python --no-build-isolation \
	    $$(sed -n 's/^\(dagster[a-z-]*\)==.*/--upgrade-package \1/p' requirements.txt) --editable .

test-model: setup ## 10,000 schedules of each model (of promotions 2,000): commits, files, ticks, runs, crashes, outages
	@MODEL_INTERLEAVINGS=10000 FILE_SCHEDULES=10000 MODEL_LOADS=2000 PROMOTION_SCHEDULES=2000 $(BIN)/python -m pytest --numprocesses 2 tests/model

test-cluster: setup ## the late-data integrator on a Spark cluster of separate processes (needs a JDK 17+)
	@$(BIN)/python -m pytest tests/cluster

check: setup ## formatting, lint, types, and that every code location loads
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@MYPYPATH=.:$(HARNESS)/src $(BIN)/mypy dedp_assets sensors jobs tests scripts examples/relations
	@MYPYPATH=.:benchmarks:$(HARNESS)/src $(BIN)/mypy benchmarks
	@MYPYPATH=$(HARNESS)/src $(BIN)/mypy --strict $(HARNESS)/src $(HARNESS)/tests/*.py $(HARNESS)/tests/world
	@MYPYPATH=$(LAUNCHER)/src:$(LAUNCHER)/tests $(BIN)/mypy --strict $(LAUNCHER)/src $(LAUNCHER)/tests/*.py
	@MYPYPATH=$(HARNESS)/src:$(ORCHARD)/src $(BIN)/mypy --strict --follow-imports silent $(ORCHARD)/tests
	@said=$$(env -u DAGSTER_HOME $(BIN)/dagster definitions validate --workspace workspace.yaml 2>&1) \
	    || { echo "$$said"; exit 1; }; \
	    echo "$$said" | sed -n 's/.*\(Validation successful for code location [A-Za-z0-9_.]*\)\..*/\1/p'

audit: setup ## known vulnerabilities of the pinned packages, if a database of them answers
	@$(BIN)/python scripts/audit.py

bench: setup ## the measured claims of benchmarks/README.md
	@for script in load_rows refresh_totals import_locations uploads_tick uploads_memory promotions_deliveries \
	    promotion_reports scenario_ticks scenario_month commit_tick late_partition backfill_days memory_of_a_day; do \
	    echo "== $$script"; $(BIN)/python benchmarks/$$script.py || failed=1; \
	done; test -z "$$failed"

bench-airflow: setup $(AIRFLOW)/.installed ## the isolated sequencer here and in Apache Airflow, which it installs, side by side
	@$(BIN)/python benchmarks/against_airflow.py

$(AIRFLOW)/.installed: benchmarks/airflow/requirements.txt
	@echo "Installing Apache Airflow into $(AIRFLOW), which takes some minutes ..."
	@rm -rf $(AIRFLOW)
	@$(BIN)/python -m venv $(AIRFLOW)
	@$(AIRFLOW)/bin/python -m pip --disable-pip-version-check install --quiet -r $<
	@touch $@

format: setup ## format the code and mend what lint can mend
	@$(BIN)/ruff check --fix --quiet . ; $(BIN)/ruff format .

clean: down ## remove .venv and the default state folder
	rm -rf $(VENV) .dedp site dist
