# What a newcomer types: `make up`, `make test`. Each target sets up what it needs first; that is silent and quick when it is done.
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory
.PHONY: help setup up down psql url listen lint test bench bench-years coverage pictures recording clean coolify-facts

# What toolchain/setup found or made: .venv, pulumi, the plugins and the base image.
ENV := source .cache/env
SHELL_SCRIPTS = $(shell git ls-files | xargs grep -lE '^\#!.*\b(ba)?sh\b')

help: ## Show this list
	@echo "PostgreSQL that tells its listeners when the schema changes. Start with: make up"
	@sed -nE 's/^([a-z-]+):.*## (.*)/\1\t\2/p' Makefile | while IFS=$$'\t' read -r target what; do printf '  make %-13s %s\n' "$$target" "$$what"; done

setup: ## Set this machine up; asks again for official plugins and image where stand-ins are used
	@toolchain/setup --retry

up: ## Set up, build the image, start the dev database on this machine, prove that it notifies
	@toolchain/setup
	@$(ENV) && python toolchain/dev.py up

down: ## Remove what `make up` made on the Docker engine and in Pulumi, the dev database's data included
	@toolchain/setup
	@$(ENV) && python toolchain/dev.py down

psql: ## Open psql in the dev database
	@toolchain/setup
	@$(ENV) && python toolchain/dev.py psql

url: ## Print the dev database's URL, password included
	@toolchain/setup
	@$(ENV) && python toolchain/dev.py url

listen: ## Watch the dev database's schema changes live
	@toolchain/setup
	@$(ENV) && python toolchain/dev.py listen

lint: ## Check style, types and shell scripts
	@toolchain/setup
	@$(ENV) && ruff check --quiet . && ruff format --quiet --check .
	@$(ENV) && mypy --no-error-summary schema_changes components/notifying_postgres toolchain benchmarks tests
	@$(ENV) && for program in __main__.py components/__main__.py examples/other-stack; do mypy --no-error-summary "$$program" || exit 1; done
	@$(ENV) && pyright >.cache/pyright.log || { cat .cache/pyright.log; exit 1; }
	@$(ENV) && shellcheck $(SHELL_SCRIPTS)

test: ## Set up, lint, and run all tests; what is missing is an error, nothing is skipped
	@toolchain/setup --tests --languages
	@$(MAKE) lint
	@$(ENV) && NOTHING_SKIPPED=1 pytest -n 4 --dist worksteal  # 4 also on 2 cores: half of the time is waiting

coverage: ## Run all tests and tell which lines none of them reaches
	@toolchain/setup --tests --languages
	@$(ENV) && pytest -n 4 --dist worksteal --cov --cov-report term-missing:skip-covered

pictures: ## Draw the pictures in docs/ from their sources
	@toolchain/setup
	@$(ENV) && python -m pip install --quiet --disable-pip-version-check -e '.[docs]'
	@$(ENV) && for picture in overview architecture; do d2 --layout elk --pad 20 "docs/$$picture.d2" "docs/$$picture.svg"; done
	@chmod a+r docs/*.svg

recording: ## Record a session with the dev database, and draw docs/session.svg from it
	@toolchain/setup
	@$(ENV) && python -m pip install --quiet --disable-pip-version-check -e '.[docs]' && toolchain/recording

bench: ## Measure what it all costs (13 minutes), into docs/benchmarks.md
	@toolchain/setup --tests --bench
	@$(ENV) && python -m pip install --quiet --disable-pip-version-check -e '.[bench]' && python benchmarks/run.py

bench-years: ## Measure a minor version, and a major one with 1 GB beside pg_upgrade and dump and restore (6 minutes)
	@toolchain/setup --tests
	@$(ENV) && python -m benchmarks.years

coolify-facts: ## Compare Coolify's openapi.json of another version with the requests made: make coolify-facts FILE=openapi.json
	@test -f "$(FILE)" || { echo "name the file: make coolify-facts FILE=openapi.json" >&2; exit 2; }
	@toolchain/setup
	@$(ENV) && python tests/support/documented_requests.py "$(FILE)"

clean: ## Remove .venv and the caches in this folder; run `make down` first
	@test -z "$$(ls .pulumi-state/.pulumi/stacks/*/*.json 2>/dev/null)" || { echo "the dev stack is up: run 'make down' first" >&2; exit 1; }
	@rm -rf .venv .cache .pulumi-state .pytest_cache .mypy_cache .ruff_cache .hypothesis
	@find . -name __pycache__ -prune -exec rm -rf {} +
