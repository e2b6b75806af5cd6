# `make` alone explains itself. Each target makes what it needs, so `make test` works in a fresh
# clone. Recipes are one line where they can be; what is longer is a script you can read.

SHELL := /bin/sh
BIN := .venv/bin
READY := .venv/fairlane-env
ARGS ?=
export PYTHON

.DEFAULT_GOAL := help
.PHONY: help env model serve demo loadtest test test-unit lint docs format bench-path bench-queue bench-scheduler bench-engine chaos fuzz k8s-check dist audit paper cluster autoscaling compare lock clean redis-server prometheus chromium

help:  ## Show this text.
	@echo 'Fairlane: LLM serving on Ray Serve and vLLM where each client gets its fair share.'
	@echo
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-15s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
	@echo
	@echo 'First time:  make demo          (makes the environment, two to four minutes)'
	@echo 'Variables:   PYTHON=python3.11  the interpreter for `make env`'
	@echo '             ARGS="..."         passed on by serve, demo, loadtest, test*, bench-*, chaos, fuzz, audit, paper, cluster, autoscaling, compare'

# The file is a fingerprint of what .venv was made from: deployments/setup_env.sh writes it, and
# does nothing while it fits.
$(READY): requirements/cpu.lock pyproject.toml deployments/setup_env.sh
	@deployments/setup_env.sh

env: $(READY)  ## Make .venv: Python, Ray, vLLM for CPU, all at locked versions.

model: env  ## Make the tiny random Llama that demos and tests serve.
	@$(BIN)/python -m deployments.tiny_model

# `exec` leaves no shell between make and the program: the terminal's Ctrl-C reaches it directly.
# make waits until the program has shut down, and adds no error of its own when that exits with 0.
serve: env  ## Serve on this machine; Ctrl-C stops it.
	@exec $(BIN)/fairlane serve $(ARGS)

demo: env  ## Watch two clients compete, with and without fair sharing.
	@exec $(BIN)/fairlane demo $(ARGS)

loadtest: env  ## Play a workload against a running server; ARGS=--list names them.
	@exec $(BIN)/fairlane loadtest $(ARGS)

test: lint redis-server prometheus chromium  ## Lint, then run every test (real Valkey and Redis, real vLLM on CPU).
	$(BIN)/python -m pytest $(ARGS)

test-unit: env  ## Run only the tests that need no server (seconds).
	$(BIN)/python -m pytest tests/unit $(ARGS)

lint: env  ## Check style (ruff) and types (mypy).
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

docs: env  ## Write what is made of something else: references, schema, dashboard, rules.
	@$(BIN)/python -m deployments.configuration.reference
	@$(BIN)/python -m deployments.configuration.metrics_reference
	@$(BIN)/python -m deployments.configuration.alerts_reference
	@$(BIN)/python -m deployments.observability.dashboard
	@$(BIN)/python -m deployments.kubernetes.monitoring

format: env  ## Rewrite the code in the house style.
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench-path: env  ## Measure what Fairlane adds to vLLM's own server, token by token.
	@exec $(BIN)/python -m loadtests.bench_path $(ARGS)

bench-queue: env  ## Measure the global queue on Valkey and Redis: grants, latency, CPU, memory.
	@exec $(BIN)/python -m loadtests.bench_queue $(ARGS)

bench-scheduler: env  ## Measure what fairness costs in each step of vLLM's scheduler.
	@exec $(BIN)/python -m loadtests.bench_scheduler $(ARGS)

bench-engine: env  ## Measure a noisy neighbour in a real vLLM engine, with fairness and without.
	@exec $(BIN)/python -m loadtests.bench_engine $(ARGS)

chaos: env  ## Kill, stall and cut off each part under load, scale, roll out; two models; no request is lost.
	@$(BIN)/python -m loadtests.chaos $(ARGS)
	@[ -n "$(ARGS)" ] || exec $(BIN)/python -m pytest -m long

k8s-check: env  ## Check the manifests of k8s/ (needs kubectl or kustomize, no cluster).
	@exec $(BIN)/python -m deployments.kubernetes $(or $(ARGS),$(wildcard k8s/overlays/*))

# The wheel is made of the sdist, so that nothing is in it that the sdist lacks.
dist: env  ## Make the sdist and the wheel, in dist/.
	@rm -rf build dist
	@$(BIN)/python -c 'import setuptools.build_meta as backend; backend.build_sdist("dist")' >/dev/null
	@$(BIN)/python -m pip wheel -q --no-deps --no-build-isolation -w dist dist/*.tar.gz
	@rm -rf fairlane.egg-info; ls dist

fuzz: env  ## Send 10,000 broken and hostile requests to a router (minutes).
	@exec $(BIN)/python -m loadtests.fuzz $(ARGS)

audit:  ## Look up known holes in the locked packages (asks PyPI).
	@requirements/audit.sh $(ARGS)

paper: env  ## Simulate the VTC paper's experiments; write a report beside its numbers.
	@exec $(BIN)/python -m loadtests.experiments.paper $(ARGS)

cluster: env  ## Simulate ways to share a cluster; write a report.
	@exec $(BIN)/python -m loadtests.experiments.cluster $(ARGS)

autoscaling: env  ## Simulate a day of traffic on a pool that scales by backlog (minutes).
	@exec $(BIN)/python -m loadtests.experiments.autoscaling $(ARGS)

compare: env  ## Simulate a workload of yours: ARGS="--workload my.csv --replicas 4".
	@exec $(BIN)/python -m loadtests.experiments.compare $(ARGS)

lock:  ## Resolve requirements/cpu.lock again, keeping the versions that still fit.
	@requirements/lock.sh $(ARGS)

clean:  ## Remove the environment, the caches and what runs left in .local.
	rm -rf .venv .local build dist *.egg-info router/dashboard/web/node_modules .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# Tests run the global queue on Valkey (from the lock) and on Debian's Redis, alert rules in promtool
# and every query in a Prometheus that scrapes the application, both Debian's. Where these can't be
# installed the tests say so and skip.
redis-server prometheus:
	@command -v $@ >/dev/null && exit 0; \
	if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	    echo 'test: installing $@ with apt-get'; \
	    apt-get -qq update && DEBIAN_FRONTEND=noninteractive apt-get -qq install --yes \
	        --no-install-recommends $@ >/dev/null && exit 0; \
	fi; \
	echo 'test: no $@ here; tests against it will be skipped'

# Tests of the dashboard run in a real browser, with axe-core from npm. Likewise.
WEB := router/dashboard/web
chromium:
	@command -v chromium >/dev/null || { \
	    if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	        echo 'test: installing chromium with apt-get'; \
	        apt-get -qq update && DEBIAN_FRONTEND=noninteractive apt-get -qq install --yes \
	            --no-install-recommends chromium >/dev/null; \
	    fi; } || echo 'test: no chromium here; tests in a browser will be skipped'
	@command -v npm >/dev/null || { \
	    if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	        echo 'test: installing npm with apt-get'; \
	        apt-get -qq update && DEBIAN_FRONTEND=noninteractive apt-get -qq install --yes \
	            --no-install-recommends npm >/dev/null; \
	    fi; } || true
	@[ -f $(WEB)/node_modules/axe-core/axe.min.js ] || { command -v npm >/dev/null && \
	    cd $(WEB) && npm ci --ignore-scripts --no-audit --no-fund --silent; } || \
	    echo 'test: no npm here; tests of accessibility will be skipped'
