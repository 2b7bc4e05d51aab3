# Everything a developer runs. Each target makes the virtual environment it needs, in this folder; `make PYTHON=python3.13
# test` uses one of its own for that Python. Needed on the machine: Python 3.10 or newer, and Rust.

PYTHON ?= python3
VENV ?= .venv$(patsubst %,-%,$(filter-out python3,$(notdir $(PYTHON))))
CARGO ?= cargo
# The Cargo profile of the extension: `release` is what users get, `ci` compiles sooner. And how many of the tests run on
# this Python: see `--extent` in tests/conftest.py.
PROFILE ?= release
# Cargo features: `testing` has the hooks of the tests, `plain` goes without tricks on the interpreter.
FEATURES ?= testing
EXTENT ?= full

BIN := $(VENV)/$(if $(filter Windows_NT,$(OS)),Scripts,bin)
# A build folder for each interpreter, so that going from one to another compiles nothing again.
TARGET := $(or $(CARGO_TARGET_DIR),target)/$(notdir $(VENV))
# What the virtual environment holds was built with this profile, and is built again for another, or for other features.
BUILT := $(VENV)/.built-$(PROFILE)-$(FEATURES)
TOOLS := pytest>=9.0 hypothesis pytest-benchmark pytest-xdist mypy pyright[nodejs] typing-extensions ruff \
	aiohttp anyio async_lru beartype django fastapi httpx pydantic trio uvloop;sys_platform!="win32"
SOURCES := $(shell find src -name '*.rs') build.rs Cargo.toml Cargo.lock pyproject.toml warp_cache.pyi
PYTHON_FILES := tests examples benches .ci

export PIP_DISABLE_PIP_VERSION_CHECK := 1
.DELETE_ON_ERROR:
.PHONY: help build demo test test-rust test-python torture loom bench lint clean

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: build ## Build the extension and cache a real workload with every strategy
	$(BIN)/python examples/quickstart.py

test: test-rust test-python ## Run every test, Rust's and Python's

test-rust: ## Run the tests of the cache core, which need no Python
	$(CARGO) test --no-default-features

torture: ## Kill, stop and damage what shares a cache for ten minutes (`make test` does so for seconds)
	WARP_CACHE_KILLS=20000 WARP_CACHE_DAMAGES=100000 WARP_CACHE_FILE_DAMAGES=20000 WARP_CACHE_LENGTH_STEP=7 \
		WARP_CACHE_OPS=200000000 \
		$(CARGO) test --release --no-default-features --lib -- --nocapture --test-threads=1 shared::tests::torture shared::tests::faults

loom: ## Model the shared backend's shards, and check that each ordering is needed
	RUSTFLAGS="--cfg loom" RUST_BACKTRACE=0 CARGO_PROFILE_TEST_OPT_LEVEL=2 $(CARGO) test --no-default-features --lib \
		--target-dir $(or $(CARGO_TARGET_DIR),target)/loom -- --nocapture shared::tests::models

test-python: build $(VENV)/.tools ## Run the tests of the extension, a process for each core
	@# The end of a worker ends the run: another in its place would hide the crash, or hang.
	$(BIN)/python -m pytest -n auto --dist worksteal --max-worker-restart=0 --extent=$(EXTENT)

bench: build $(VENV)/.tools ## Measure against functools.lru_cache
	@# pytest reports a folder without benchmarks as status 5.
	$(BIN)/python -m pytest benches --benchmark-only || [ $$? -eq 5 ]
	$(BIN)/python benches/compare.py
	$(BIN)/python benches/awaiting.py
	$(BIN)/python benches/memory.py
	$(BIN)/python benches/shared.py

lint: build $(VENV)/.tools ## Check formatting, lints, types and documentation
	$(CARGO) fmt --check
	$(CARGO) clippy --all-targets --no-default-features -- -D warnings
	PYO3_PYTHON=$(abspath $(BIN)/python) $(CARGO) clippy --features testing -- -D warnings
	PYO3_PYTHON=$(abspath $(BIN)/python) RUSTDOCFLAGS="-D warnings" $(CARGO) doc --no-deps --document-private-items
	$(BIN)/ruff check $(PYTHON_FILES)
	$(BIN)/ruff format --check $(PYTHON_FILES)
	$(BIN)/mypy

build: $(BUILT) ## Build the extension, optimized, into the virtual environment

clean: ## Remove what these targets made
	rm -rf .venv .venv-* target .pytest_cache .mypy_cache .ruff_cache .hypothesis .benchmarks
	find $(PYTHON_FILES) -name __pycache__ -exec rm -rf {} +

# An empty file in the virtual environment marks each step of its set-up as done.

$(VENV)/.made:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || \
		{ echo "Python 3.10 or newer is needed: make PYTHON=python3.12 $(MAKECMDGOALS)" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	@touch $@

$(VENV)/.tools: $(VENV)/.made Makefile
	$(BIN)/python -m pip install --quiet --upgrade $(patsubst %,'%',$(TOOLS))
	@touch $@

$(VENV)/.maturin: $(VENV)/.made pyproject.toml
	$(BIN)/python -m pip install --quiet --upgrade 'maturin>=1.9.4,<2'
	@touch $@

$(BUILT): $(VENV)/.maturin $(SOURCES)
	@$(CARGO) --version >/dev/null || { echo "Rust is needed: https://rustup.rs" >&2; exit 1; }
	@rm -f $(VENV)/.built $(VENV)/.built-*
	env -u CONDA_PREFIX VIRTUAL_ENV=$(abspath $(VENV)) $(BIN)/maturin develop --profile $(PROFILE) --features $(FEATURES) --locked --target-dir $(TARGET)
	@touch $@
