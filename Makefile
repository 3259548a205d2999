# `make help` lists the targets. Python packages live in ~/.cache/confops, one environment for each state of the lock files and of lab/venv.
SHELL := /bin/sh
cache := $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/confops
lock = $(shell cat lab/venv $(1) | sha256sum | cut -c 1-12)
run_env := $(cache)/venv-run-$(call lock,requirements/run.txt)
dev_env := $(cache)/venv-dev-$(call lock,requirements/dev.txt)
run := env PATH="$(run_env)/bin:$$PATH"
dev := env PATH="$(dev_env)/bin:$$PATH"
S ?= default
SINCE ?= main

export LC_ALL := C.UTF-8
export ANSIBLE_CONFIG := $(CURDIR)/ansible.cfg

.PHONY: help prepare demo down clean-lab venv test check lint unit sanity scenario scenarios hostile bench-converge bench-backup bench-cache bench-deploy lock

help: ## list the targets
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  %-16s %s\n", $$1, $$2}'

prepare:
	@lab/prepare $(packages)

demo: prepare $(run_env)/.complete ## a host, Indico on it, sample events in it
	@$(run) ansible-playbook -i inventories/lab lab/up.yml
	@$(run) ansible-playbook -i inventories/lab site.yml
	@$(run) ansible-playbook -i inventories/lab lab/seed.yml

down: $(run_env)/.complete ## remove the demo's host
	@$(run) ansible-playbook -i inventories/lab lab/down.yml

clean-lab: ## remove all hosts of the lab, those of interrupted tests too
	@export CONTAINERS_CONF="$(cache)/lab/containers.conf"; \
	    podman ps --all --quiet --filter label=confops.lab=1 | xargs --no-run-if-empty podman rm --force --time 0; \
	    ! podman network exists confops || podman network rm confops # with the addresses of hosts that were killed half made

venv: $(run_env)/.complete ## the pinned Ansible, for one's own hosts
	@echo 'export PATH="$(run_env)/bin:$$PATH"'

test check lint: packages := git rsync shellcheck
test scenario scenarios: packages += chromium

test: prepare $(dev_env)/.complete ## everything
	@$(dev) pytest tests

check: prepare $(dev_env)/.complete ## lint and unit tests
	@$(dev) pytest tests/test_lint.py tests/unit

lint: prepare $(dev_env)/.complete ## only the linters
	@$(dev) pytest tests/test_lint.py

unit: $(dev_env)/.complete ## only the unit tests
	@$(dev) pytest tests/unit

sanity: $(dev_env)/.complete ## ansible-test sanity
	@$(dev) pytest tests/test_sanity.py

scenario: prepare $(dev_env)/.complete ## one molecule scenario, S=default
	@$(dev) molecule test --scenario-name $(S)

scenarios: prepare $(dev_env)/.complete ## those that a change asks for, SINCE=main
	@names=$$($(dev) python -m tests.lib.since $(SINCE)); if [ -n "$$names" ]; then $(dev) pytest tests/test_scenarios.py -k "$$names"; \
	    else echo "What changed since $(SINCE) asks for no scenario."; fi

hostile: $(dev_env)/.complete ## tries to break backups and restores, SEED=1 RUNS=1, or CASE='fifo/*/verify/*'
	@PYTHONPATH=collections $(dev) python -m tests.hostile

bench-converge: $(dev_env)/.complete ## how long site.yml takes, and on what
	@$(dev) python tests/bench_converge.py

bench-backup: $(dev_env)/.complete ## backups beside stock repozo, SIZE_MB=512
	@$(dev) python -m tests.bench_backup

bench-cache: packages := wrk
bench-cache: prepare $(dev_env)/.complete ## requests per second with each cache, on a host of its own or INVENTORY=...
	@$(dev) python -m tests.bench_cache

bench-deploy: prepare $(dev_env)/.complete ## how long a roll-out takes, HOSTS="1 2 4" applications
	@$(dev) python -m tests.bench_deploy

lock: ## pin the newest versions that requirements/*.in allow
	@for set in run dev zodb5 zodb6; do uv pip compile --quiet --python-version 3.11 --generate-hashes --no-emit-index-url --no-header \
	    --upgrade requirements/$$set.in --output-file requirements/$$set.txt; done

# Their names tell of the lock file and of what made them, so no date matters.
$(cache)/venv-run-%/.complete:
	@sh lab/venv $(@D) requirements/run.txt
$(cache)/venv-dev-%/.complete:
	@sh lab/venv $(@D) requirements/dev.txt
