# Two commands matter: `make demo` and `make test`. `make help` lists the rest.
SHELL := /bin/bash
VENV ?= .venv
export VENV
PYTHON := $(VENV)/bin/python
PYTEST := $(PYTHON) -m pytest

help: ## list the targets
	@sed -nE 's/^([a-z-]+):.*## (.*)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 24

demo: root ## the main job on two hosts with real VMs; KEEP=1 leaves it running
	@devstack/alone.sh $(MAKE) --no-print-directory setup-test test-demo

demo-down: ## take away what `make demo KEEP=1` left running
	@$(PYTHON) -m devstack.demo --down

test: root ## everything; needs root
	@devstack/alone.sh $(MAKE) --no-print-directory setup-test lint test-c fuzz test-unit \
		test-functional test-package test-demo

test-unit: setup ## tests without root, under a minute
	$(PYTEST) -q -n 2 tests/unit

test-simulations: setup ## SIMULATIONS (2000) migrations in simulated time, and what may go wrong
	VNET_SIMULATIONS=$(or $(SIMULATIONS),2000) $(PYTEST) -q -n 2 tests/unit/test_migration_simulation.py

test-functional: setup-test root ## tests on the real kernel, libvirtd and QEMU; needs root
	$(PYTEST) -v tests/functional

test-handover: setup-test root ## MIGRATIONS (20) under 10,000 datagrams a second; on an idle machine
	VNET_MIGRATIONS=$(or $(MIGRATIONS),20) VNET_RATE=10000 $(PYTEST) -v tests/functional/test_handover.py

test-demo: setup-test root
	@$(PYTHON) -m devstack.demo $(if $(KEEP),--keep)

test-package: setup ## sdist and wheel build; the wheel's extension and BPF object load
	$(PYTHON) devstack/check_package.py

test-c: setup ## the C core's own tests under ASan and UBSan
	$(MAKE) -C csrc check

fuzz: setup ## every fuzz target for FUZZ_SECONDS (10)
	$(MAKE) -C csrc fuzz FUZZ_SECONDS=$(or $(FUZZ_SECONDS),10)
	$(PYTHON) tests/fuzz/run.py --seconds $(or $(FUZZ_SECONDS),10)

bench-%: setup-bench root
	PYTHONPATH=.:tests/twin:tests/functional $(PYTHON) tests/bench/bench_$(subst -,_,$*).py

bench-hook: ## what the libvirt hook costs, a call and a VM's start (QUICK=1: fewer rounds)

bench-datapath: ## two namespaces through each peer in turn, side by side

bench-datapath-exact: ## the same in QEMU, counting instructions; OVS's kernel datapath too

bench-program: ## nanoseconds of the programs in the kernel, against an empty one

bench-classifier: ## look-ups, changes and loading of large sets of rules, natively and in the kernel

bench-qos: ## how closely a port's limit is kept, by TCP and UDP, from 1 Mbit/s to 10 Gbit/s

bench-bulk: ## connections exported and imported a second, and what they take

bench-agent: ## memory of an agent with 1,000 ports, and listings of a million connections

bench-migration: ## a VM's frames while it moves under 10,000 of them a second, with and without the hand-over

bench-transfer: ## a million connections move with their VM: time, and memory of the agents

bench-attack: ## traffic of two guests beside the flood of a third

lint: setup ## ruff and mypy
	$(PYTHON) -m ruff check .
	$(PYTHON) -m ruff format --check .
	$(PYTHON) -m mypy

format: setup ## let ruff format the tree
	$(PYTHON) -m ruff format .
	$(PYTHON) -m ruff check --fix .

setup: ## what building needs
	@devstack/setup.sh compile

setup-test: ## what the lab and the tests need besides
	@devstack/setup.sh test

setup-bench: ## what benches compare with, besides
	@devstack/setup.sh bench

root:
	@[ "$$(id -u)" = 0 ] || { echo "This needs root (namespaces, BPF, libvirtd). Without it: make test-unit" >&2; exit 1; }

clean: ## remove what was built, keep the guest's image
	rm -rf build/temp* build/lib* build/bpf dist *.egg-info vnet_agent/datapath/*.so $(VENV)

.PHONY: help demo demo-down test test-unit test-simulations test-functional test-handover test-demo test-package test-c fuzz lint format setup setup-test setup-bench root clean
.NOTPARALLEL:
