# The two commands of the README: make demo, make test. Each does all its set-up.
SHELL := bash
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
ARGS ?=
# MARKED=1 also runs the tests that need system packages (see .ci/run).
MARKED ?=
# Four for two cores: most tests wait for something. Those with MARKED=1 fill the cores themselves.
JOBS ?= $(if $(MARKED),2,4)
PIP := $(BIN)/python -m pip --disable-pip-version-check

.PHONY: demo test check format bench damage mutants attack soak wheelhouse deb release-check clean

demo: $(VENV)/center.stamp
	@$(BIN)/iot-agent demo $(ARGS)

test: $(VENV)/test.stamp
	PYTHONDONTWRITEBYTECODE= MARKED=$(MARKED) $(BIN)/python -m pytest -n $(JOBS) --dist worksteal $(ARGS)

check: $(VENV)/check.stamp
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo --no-cache
	$(BIN)/bandit --quiet --configfile pyproject.toml --recursive agent drivers center

# Before a release: also whether what is pinned has known vulnerabilities.
format: $(VENV)/check.stamp
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# A whole agent and a whole center with faults by a seed, every count compared: docs/tests.md.
MINUTES ?= 60
soak: $(VENV)/test.stamp
	PYTHONDONTWRITEBYTECODE= $(BIN)/python -m tests.soak --minutes $(MINUTES) $(if $(SEED),--seed $(SEED)) $(ARGS)

# Small wrong changes of the code that no test notices, by a seed, for a quarter of an hour: docs/tests.md.
mutants: $(VENV)/mutants.stamp
	$(BIN)/python -m tests.mutants $(if $(SEED),--seed $(SEED)) $(ARGS)

# A flipped bit at every byte of a buffer, a thousand random corruptions, 200 whole agents on damaged folders: some 45 min.
damage: $(VENV)/test.stamp
	SOAK=1 MARKED=1 EXPLORE=1 $(BIN)/python -m pytest -s --timeout 7200 tests/buffer/test_flips.py tests/buffer/test_recovery.py \
		tests/system/test_damaged_state.py $(ARGS)

# What a stranger or one device's token can cost a center on loopback, at full size (SECURITY.md): some minutes.
attack: $(VENV)/test.stamp
	ATTACK=1 EXPLORE=1 $(BIN)/python -m pytest -s --timeout 1800 tests/attack $(ARGS)

bench: $(VENV)/test.stamp
	$(BIN)/python -m bench $(ARGS)

# Everything that deploy/install.sh needs to install without a network, for machines like this one.
wheelhouse: | $(BIN)/python
	rm -rf wheelhouse
	$(PIP) wheel --quiet --use-pep517 --constraint constraints.txt --wheel-dir wheelhouse '.[sensors,mqtt]'
	cp constraints.txt wheelhouse/

# Debian packages of agent and center for arm64, armhf and amd64, into dist/ (ARGS="arm64": that one). As root.
deb:
	deploy/debian/build $(ARGS)

# Both on Debian 12 and 13 of each architecture, in folders, under emulation: an hour or more. After make deb, as root.
release-check: check $(VENV)/release.stamp
	$(BIN)/python .ci/audit
	RELEASE=1 MARKED=1 $(BIN)/python -m pytest -s --timeout 7200 tests/system/test_release.py $(ARGS)

clean:
	rm -rf $(VENV) build *.egg-info

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "Python 3.11 or newer is needed, and $(PYTHON) is older: run make PYTHON=python3.11"; exit 1; }
	@$(PYTHON) -m venv $(VENV) || { echo "no venv: on Debian, apt install python3-venv"; exit 1; }

# What pip does, as it does it; then its errors, or that all is there.
SHOW := awk '/^ *(Collecting|Building|WARNING|ERROR)/ { sub(/^ */, "  "); print substr($$0, 1, 150); fflush() }'

# Installed once, and again when it is no longer this folder that is installed (pip install ., pip uninstall).
EDITABLE := $(wildcard $(VENV)/lib/python*/site-packages/__editable__.iot_edge_agent-*)

$(VENV)/%.stamp: pyproject.toml constraints.txt $(if $(EDITABLE),,not-editable) | $(BIN)/python
	@echo "Installing what 'make $(MAKECMDGOALS)' needs into $(VENV): once, a minute or two, from the package index (PyPI, or"
	@echo "the one that pip is set to) …"
	@set -o pipefail; $(PIP) install --editable '.[$*]' --constraint constraints.txt 2>&1 | tee $(VENV)/install.log | $(SHOW) || { \
	  echo "error: pip could not install it (all it said: $(VENV)/install.log). It needs the package index: is there a network?"; \
	  echo "  Behind a proxy, set HTTPS_PROXY; for an index of your own, PIP_INDEX_URL. Then run make again."; exit 1; }
	@touch $@

.PHONY: not-editable
not-editable: ;
