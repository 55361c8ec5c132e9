# Two commands do everything, set-up included: `make demo` and `make test`.
# On a machine without make, README.md has the same steps as plain commands.
PYTHON ?= python3
BIN := .venv/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt
SIDE_BY_SIDE := OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses auto --maxprocesses 4
QUICK := $(SIDE_BY_SIDE) -m "not slow"
# What is slow for its networks alone; clusters and browsers want the machine for themselves.
NETWORKS := $(SIDE_BY_SIDE) -m slow tests/render tests/weights

.PHONY: demo test quick checks browser clean

demo: .venv/installed
	$(BIN)/farm run jobs/demo.yaml

test: .venv/installed-dev browser checks
	$(QUICK)
	$(NETWORKS)
	$(BIN)/python -m pytest -m slow --ignore tests/render --ignore tests/weights

# What takes two minutes once mypy has its cache: all but real clusters, browsers and fresh environments.
quick: .venv/installed-dev checks
	$(QUICK)

checks: .venv/installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# The page is tested in a real browser. Debian's is taken where there is none and this is CI.
browser: .venv/installed-dev
	@if [ -n "$$CI" ] && ! $(BIN)/python -m tests.browser; then \
		apt-get update -qq && apt-get install -y -qq chromium >/dev/null || \
		$(BIN)/playwright install --with-deps chromium; fi

.venv/installed: pyproject.toml constraints.txt
	@echo "installing into .venv: a minute or two"
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(PIP) --editable .
	@touch $@

# k-diffusion defines what the samplers' names mean; its own requirements (training, metrics) are not needed.
.venv/installed-dev: pyproject.toml constraints.txt
	@echo "installing into .venv: a minute or two"
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(PIP) --editable '.[dev]'
	$(PIP) --no-deps k-diffusion torchdiffeq
	@touch $@ .venv/installed

clean:
	rm -rf .venv build dist .pytest_cache .mypy_cache .ruff_cache .import_linter_cache
