VENV ?= .venv
BIN := $(VENV)/bin
# Nothing that runs here may meet a robot on the same network.
export ROS_AUTOMATIC_DISCOVERY_RANGE = LOCALHOST
export ROS_DOMAIN_ID ?= 42
unexport _ROS_WHEELS_BOOTSTRAP_COMPLETE
unexport LD_LIBRARY_PATH

.DEFAULT_GOAL := demo
.PHONY: demo test lint runtime dev lock clean

demo: runtime  ## relocalize a drive through the real ROS 2 node
	@rm -rf results/demo
	$(BIN)/rgsiam replay test/data/town_drive --bundle models/town --out results/demo --ros

test: dev lint  ## lint, types, and every test
	$(BIN)/python -m pytest

lint: dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

runtime:
	@VENV=$(VENV) requirements/setup.sh runtime

dev:
	@VENV=$(VENV) requirements/setup.sh dev

lock:  ## for maintainers: resolve the dependencies anew (needs uv)
	cd requirements && uv pip compile --universal --python-version 3.10 --generate-hashes -q \
	    runtime.in ros.in -o runtime.lock
	cd requirements && uv pip compile --universal --python-version 3.10 --generate-hashes -q \
	    --no-emit-package torch --override overrides.txt -c runtime.lock dev.in -o dev.lock

clean:
	rm -rf $(VENV) .venv-* build dist results .mypy_cache .ruff_cache .pytest_cache
