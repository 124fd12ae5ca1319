# One line over a script each; `make help` lists them. The scripts say the rest.
.DEFAULT_GOAL := help
.PHONY: help setup run test fmt lint types arch unit e2e sim fuzz check docs bench clean

QUESTION ?= What is the capital of France?

help:  ## list the targets
	@sed -n 's/^\([a-z0-9]*\):[a-z ]*## /\1       /; T; s/^\(.\{7\}\) */  make \1/p' Makefile
setup:  ## prepare .venv from the lock files; .venv/bin/trunkline is then the command
	@exec sh scripts/setup.sh runtime
run: setup  ## start the network, ask one question, verify the receipt, keep serving
	@exec .venv/bin/trunkline up --ask "$(QUESTION)"
test:  ## everything that must be green: style, types, architecture, tests
	@sh scripts/setup.sh test && exec .venv/bin/python scripts/check.py all
fmt:  ## format the sources
	@sh scripts/setup.sh test && exec .venv/bin/python scripts/check.py fmt
lint:  ## ruff
	@sh scripts/setup.sh test && exec .venv/bin/python scripts/check.py lint
types:  ## mypy, strict
	@sh scripts/setup.sh test && exec .venv/bin/python scripts/check.py types
arch:  ## who may import whom
	@sh scripts/setup.sh test && exec .venv/bin/python scripts/check.py arch
unit:  ## the quick tests
	@sh scripts/setup.sh test && exec .venv/bin/python scripts/check.py unit
e2e:  ## the tests with real processes
	@sh scripts/setup.sh test && exec .venv/bin/python scripts/check.py e2e
sim:  ## play 200 fresh seeds of disasters; one again with SEED=…
	@sh scripts/setup.sh test && exec .venv/bin/python scripts/sim.py --seeds $(or $(SEEDS),$(if $(SEED),1,200)) $(if $(SEED),--seed $(SEED))
fuzz:  ## fuzz the parsers with atheris for SECONDS=120, from the corpus in tests/fuzz
	@sh scripts/setup.sh test && exec .venv/bin/python scripts/fuzz.py --seconds $(or $(SECONDS),120) $(if $(KEEP),--keep)
check: test  ## the same as test
docs:  ## write the generated documentation
	@sh scripts/setup.sh test && exec .venv/bin/python scripts/docs.py
bench:  ## time to the first answer, memory, CPU a request
	@sh scripts/setup.sh test && exec .venv/bin/python bench/hello.py
clean:  ## remove the environment and the caches, never the data folder
	@rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis
