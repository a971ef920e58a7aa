# Everything that a machine needs to run a cluster is made by lab/; these targets only call it.
SHELL := /bin/bash
.DEFAULT_GOAL := help
.PHONY: help up down preview kubeconfig env doctor check lint unit sweeps test scenarios

# Every process would compile all modules anew.
unexport PYTHONDONTWRITEBYTECODE

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

check: .venv/ready ## lint and unit, in a minute
	@$(MAKE) --no-print-directory --jobs=2 --output-sync=target lint unit

# The user's, so that a fresh clone need not begin with nothing, which takes a quarter of a minute. One at a time may
# write there.
MYPY_CACHE := $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/kubepivot/mypy
lint: .venv/ready ## ruff and mypy
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	@mkdir -p '$(MYPY_CACHE)'
	flock '$(MYPY_CACHE)' .venv/bin/mypy --cache-dir '$(MYPY_CACHE)' .

# One more than two cores, for many tests wait. More would import everything once more.
PYTEST := .venv/bin/pytest --quiet --numprocesses=3

unit: .venv/ready ## unit and golden tests
	$(PYTEST) tests/golden tests/unit -m 'not e2e and not sweep'

sweeps: .venv/ready ## unit tests with all further values and places to be killed at; tests of stand-ins and imitations
	$(PYTEST) tests/golden tests/unit -m sweep
	$(PYTEST) tests/plugins -m 'not e2e'

test: check sweeps ## all of that, then what a cluster goes through in its life, on real ones: 25 minutes at most
	$(call on-clusters,e2e and life)

SLICE ?= 1/1
SCENARIOS := e2e and not life$(if $(WITHOUT), and not $(WITHOUT))
scenarios: .venv/ready ## all that can befall a cluster; NAME=reboot for what has that name, SLICE=1/8 for a part
	$(call on-clusters,$(if $(NAME),e2e,$(SCENARIOS)),$(if $(NAME),-k '$(NAME)',--slice='$(SLICE)'))

# One cluster at a time: two at once keep two cores so busy that limits of seconds are missed, and take as long.
define on-clusters
	$(LAB) toolchain
	$(LAB) mirror
	.venv/bin/pytest -m '$(1)' $(2)
endef

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
