# Everything that a machine needs to run a cluster is made by lab/; these targets only call it.
SHELL := /bin/bash
.DEFAULT_GOAL := help
.PHONY: help up down preview kubeconfig env doctor check lint unit test e2e

STACK ?= dev
LAB := .venv/bin/python -m lab
REQUIREMENTS := requirements.txt lab/requirements.txt tests/requirements.txt

help: ## show this
	@awk -F ' ## ' '/^[a-z0-9]+:.* ## / { sub(/:.*/, "", $$1); printf "make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
	@echo 'STACK=name takes Pulumi.name.yaml instead of Pulumi.dev.yaml'

up: .venv/ready ## bring a cluster up on this machine, and print its nodes and how to use it
	@$(LAB) up --stack '$(STACK)'

down: .venv/ready ## destroy it; downloads and builds stay in the cache
	@$(LAB) down --stack '$(STACK)'

preview: .venv/ready ## show what up would change
	@$(LAB) preview --stack '$(STACK)'

kubeconfig: .venv/ready ## print the kubeconfig
	@$(LAB) kubeconfig --stack '$(STACK)'

env: .venv/ready ## print the settings for this shell: eval "$(make -s env)"
	@$(LAB) env --stack '$(STACK)'

doctor: .venv/ready ## say what this machine has, would download or build, and what is wrong; changes only .venv
	@$(LAB) doctor

check: .venv/ready ## both of the next, in under a minute
	@$(MAKE) --no-print-directory --jobs=2 --output-sync=target lint unit

lint: .venv/ready ## ruff and mypy
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy .

unit: .venv/ready ## unit and golden tests
	@# A file's tests share what was made for the first of them; more processes than cores, for many tests wait.
	.venv/bin/pytest --quiet --numprocesses=3 --dist=loadfile

test: check e2e ## all tests, those on real clusters too

e2e: .venv/ready ## tests on real clusters
	$(LAB) toolchain
	$(LAB) mirror
	@# Both runs, whatever the first one finds, but for an interrupt, which is 2. By name, not by number of tests: the
	@# modules that take longest have few.
	.venv/bin/pytest -m 'e2e and alone' ; first=$$? ; [ $$first -ne 2 ] && \
	.venv/bin/pytest -m 'e2e and not alone' --numprocesses=2 --dist=loadfile --no-loadscope-reorder && exit $$first

# On stderr, because `make -s env` is read by a shell.
.venv/ready: $(REQUIREMENTS)
	@{ set -e; \
	python3 -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "error: Python 3.11 or newer is needed, and python3 is $$(python3 --version 2>&1)" ; \
	  echo "mend:  install a newer Python and have it first on PATH as python3" ; exit 1 ; } ; \
	python3 -c 'import ensurepip, venv' 2>/dev/null || { \
	  echo "error: this Python can't make virtual environments" ; \
	  echo "mend:  apt-get install python3-venv" ; exit 1 ; } ; \
	echo "… Python packages into .venv" ; \
	python3 -m venv .venv ; \
	.venv/bin/pip install --quiet --disable-pip-version-check --requirement tests/requirements.txt ; \
	touch $@ ; } >&2
