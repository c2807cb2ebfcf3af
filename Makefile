# `make` alone lists what there is. Everything here runs in .venv, which `setup` builds from poetry.lock.
.DEFAULT_GOAL := help
VENV := .venv/bin
# What a test starts is compiled once, not by each of hundreds of processes.
unexport PYTHONDONTWRITEBYTECODE
# Several tests at a time, each on servers of its own. Those with servers spend half their time waiting for
# something to time out: three or four keep two cores busy.
PYTEST := $(VENV)/python -m pytest -q

.PHONY: help setup demo dev test unit database processes thorough redis coverage chaos e2e screenshots openai schemathesis check format layout bench docs dump-release lock clean

help:  ## list the targets
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / {printf "  \033[36m%-10s\033[0m %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup:  ## build .venv from the lock (a no-op when nothing changed)
	@scripts/setup

demo: setup  ## make a concept and refine it on a real Postgres and a real Redis, and watch it (ARGS="--prompt …")
	@$(VENV)/uvian demo $(ARGS)

dev: setup  ## everything up until Ctrl-C, with the URLs to connect
	@$(VENV)/uvian dev $(ARGS)

test: unit database processes  ## every test that pip alone can run

unit: setup  ## tests without servers
	@$(PYTEST) -n 3 --dist worksteal -m 'not database and not processes and not e2e and not real' $(ARGS)

database: setup  ## tests on a real Postgres and a real Redis
	@$(PYTEST) -n 3 --dist loadscope -m database $(ARGS)

processes: setup  ## tests that start, kill and restart real workers and servers
	@$(PYTEST) -n 4 --dist worksteal -m processes $(ARGS)

thorough: setup  ## property tests with a thousand examples each, twenty times what `make unit` tries
	@$(PYTEST) -n 2 -m 'hypothesis and not database and not processes and not e2e and not real' --hypothesis-profile=thorough --timeout 1200 $(ARGS)

redis: setup  ## every state of a Redis that is neither up nor gone, 45 s each (UVIAN_TEST_REDIS=/usr/bin/redis-server; a table)
	@UVIAN_TEST_STATES=long $(PYTEST) -m processes tests/processes/test_redis_states.py $(ARGS)

coverage: setup  ## the same tests, and the lines that none of them runs (takes half as long again)
	@$(VENV)/coverage erase
	@COVERAGE_PROCESS_START=pyproject.toml $(MAKE) --no-print-directory test
	@$(VENV)/coverage combine --quiet
	@$(VENV)/coverage report

e2e: setup  ## in a browser, through a pooler and a real PostgREST: apt-get install chromium pgbouncer postgresql nodejs npm
	@scripts/setup_e2e
	@PYTHONPATH=.venv/e2e $(PYTEST) -n 3 --dist loadfile -m e2e $(ARGS)

screenshots: setup  ## take those of the documentation again (docs/images/gateway-*.png), and look at them
	@scripts/setup_e2e
	@PICTURES=docs/images PYTHONPATH=.venv/e2e $(PYTEST) tests/e2e/test_pictures.py $(ARGS)

chaos: setup  ## hundreds of faults while jobs run, then the books (SECONDS=60 SEED=1)
	@$(VENV)/python -m tests.chaos --seconds $(or $(SECONDS),60) $(if $(SEED),--seed $(SEED)) $(ARGS)

openai: setup  ## a real OpenAI-compatible server, chosen by its base URL alone (llama.cpp; builds it once)
	@scripts/llama_server
	@$(PYTEST) -m real $(ARGS)

schemathesis: setup  ## generated requests against the gateway's OpenAPI document (ARGS="--max-examples 200")
	@scripts/schemathesis $(ARGS)

check: setup  ## lint, format, types, layers, generated files, sizes of files and folders
	@$(VENV)/ruff check .
	@$(VENV)/ruff format --check .
	@$(VENV)/mypy
	@$(VENV)/lint-imports --no-cache --no-logo
	@$(VENV)/python scripts/generate_docs.py --check
	@$(VENV)/python scripts/generate_rest.py --check
	@$(VENV)/python scripts/generate_reference.py --check
	@$(VENV)/python scripts/generate_faults.py --check
	@$(VENV)/python scripts/generate_typescript.py --check
	@$(VENV)/python scripts/compile_page_client.py --check
	@$(VENV)/python scripts/generate_types.py --check
	@$(VENV)/python scripts/layout.py --check

format: setup  ## let ruff write the files as it wants them
	@$(VENV)/ruff check --fix --quiet . || true
	@$(VENV)/ruff format .

layout: setup  ## how large the code is: files, folders, functions, classes, SQL (ARGS=--json)
	@$(VENV)/python scripts/layout.py $(ARGS)

bench: setup  ## measure against the peers, as ratios (ARGS="--json --check")
	@$(VENV)/python -m benchmarks $(ARGS)

docs: setup  ## write the generated pages again
	@$(VENV)/python scripts/generate_docs.py
	@$(VENV)/python scripts/generate_rest.py
	@$(VENV)/python scripts/generate_reference.py
	@$(VENV)/python scripts/generate_faults.py
	@$(VENV)/python scripts/generate_typescript.py
	@$(VENV)/python scripts/compile_page_client.py
	@$(VENV)/python scripts/generate_types.py
	@$(VENV)/python scripts/generate_schema.py

dump-release: setup  ## keep a dump of this release's schema, once, when it is tagged
	@$(VENV)/python -m tests.migrations.dumps

lock: setup  ## resolve poetry.lock again
	@.venv/poetry/bin/poetry lock

clean:  ## remove what was built and downloaded
	rm -rf .venv .uvian .coverage* .mypy_cache .pytest_cache .ruff_cache .hypothesis clients/typescript/node_modules clients/typescript/dist
