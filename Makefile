VENV ?= .venv
BIN := $(VENV)/bin
CORE_TESTS := $(addprefix test/,geometry camera features uncertainty bundle engines localization mapping) \
    test/recordings test/report test/fusion/test_robot_localization.py test/replay/test_offline.py
# ROS nodes that run here must not reach a robot on the same network.
export ROS_AUTOMATIC_DISCOVERY_RANGE = LOCALHOST
export ROS_DOMAIN_ID ?= 42
unexport _ROS_WHEELS_BOOTSTRAP_COMPLETE
unexport LD_LIBRARY_PATH
FUZZ_SECONDS ?= 60
FUZZ_SEED := $(or $(FUZZ_SEED),$(shell date +%s))
SOAK_MINUTES ?= 30

.DEFAULT_GOAL := demo
.PHONY: demo test test-fast fuzz parameters soak audit lint minimum runtime dev lock clean

demo: runtime  ## relocalize a drive through the real ROS 2 node
	@rm -rf results/demo
	$(BIN)/rgsiam replay test/data/town_drive --bundle models/town --out results/demo --ros

test: dev lint minimum  ## lint, types, all tests, and the core's tests with the oldest versions
	$(BIN)/python -m pytest
	$(VENV)-min/bin/python -m pytest $(CORE_TESTS)

test-fast: dev  ## for daily work: no ROS nodes, no training; under 90 seconds
	$(BIN)/python -m pytest -m "not ros and not slow"

fuzz: dev  ## damaged images, bundles and bags; FUZZ_SECONDS for each target, FUZZ_SEED
	FUZZ_EXAMPLES=$$((10 * $(FUZZ_SECONDS))) $(BIN)/python -m pytest test/fuzz \
	    --hypothesis-seed=$(FUZZ_SEED)
	$(BIN)/python test/fuzz/run.py --seconds $(FUZZ_SECONDS) --seed $(FUZZ_SEED)

soak: runtime  ## the node at 30 Hz with faults for SOAK_MINUTES: memory and delay must stay flat
	$(BIN)/python benchmarks/soak.py --minutes $(SOAK_MINUTES) --out results/soak

audit:  ## known vulnerabilities of what is locked (asks osv.dev)
	@test -x $(VENV)-audit/bin/pip-audit || { python3 -m venv $(VENV)-audit && \
	    $(VENV)-audit/bin/pip install --quiet --no-deps --require-hashes -r requirements/audit.lock; }
	@for lock in runtime dev; do echo "== $$lock.lock"; $(VENV)-audit/bin/pip-audit \
	    --vulnerability-service osv --disable-pip --require-hashes -r requirements/$$lock.lock || exit 1; done

lint: dev  ## style and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	@mkdir -p $(VENV)/typecheck  # mypy finds training/ by its import name there
	@ln -sfn "$(CURDIR)/training" $(VENV)/typecheck/rgsiam_training
	MYPYPATH=$(VENV)/typecheck $(BIN)/mypy

minimum: dev
	@VENV=$(VENV) requirements/setup.sh minimum

runtime:
	@VENV=$(VENV) requirements/setup.sh runtime

dev:
	@VENV=$(VENV) requirements/setup.sh dev

parameters: runtime  ## write the node's parameters into docs/node.md and config/relocalize.yaml
	$(BIN)/python -m rgsiam_ros.node.parameter_spec .

lock:  ## for maintainers: resolve the dependencies anew (needs uv)
	cd requirements && uv pip compile --universal --python-version 3.10 --generate-hashes -q \
	    runtime.in ros.in -o runtime.lock
	cd requirements && uv pip compile --universal --python-version 3.11 --generate-hashes -q \
	    minimum.in -o minimum.lock
	cd requirements && uv pip compile --universal --python-version 3.10 --generate-hashes -q \
	    --no-emit-package torch --override overrides.txt -c runtime.lock dev.in -o dev.lock
	cd requirements && uv pip compile --universal --python-version 3.11 --generate-hashes -q \
	    audit.in -o audit.lock

clean:
	rm -rf $(VENV) .venv-* build dist results .mypy_cache .ruff_cache .pytest_cache
