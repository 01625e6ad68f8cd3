# Two commands on a fresh machine: `make demo` and `make test`. Both make .venv and install
# everything into it first; nothing outside this folder changes but the cache of decoded images
# and features (GSFL_TUNE_CACHE, default ~/.cache/gsfl-tune).

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
DEMO := runs/demo
RESUME = $(if $(wildcard $(DEMO)/run.json),--resume)

# Where it is set, every process that a search or a test starts compiles anew what it imports.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: demo docs test test-all gpu-smoke lint format install clean

install: $(VENV)/.installed

# What the demo needs, which is what users need: half of what the tests do.
$(VENV)/.users: pyproject.toml
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(0 if (3, 11) <= v < (3, 13) else "gsfl-tune needs Python 3.11 or 3.12, found %d.%d: make PYTHON=python3.11 ..." % v)'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --upgrade pip
	$(BIN)/pip install --quiet --editable '.[cpu,offline]'
	touch $@

$(VENV)/.installed: $(VENV)/.users
	$(BIN)/pip install --quiet --editable '.[cpu,offline,dev]'
	$(BIN)/pip install --quiet --no-deps 'lightly>=1.6'  # docs/pretrain.md says why without them
	touch $@

demo: $(VENV)/.users
	$(BIN)/gsfl-tune check search_spaces/typefaces.yaml
	$(BIN)/gsfl-tune search search_spaces/typefaces.yaml --run-dir $(DEMO) $(RESUME)
	$(BIN)/gsfl-tune data search_spaces/typefaces.yaml --sheet $(DEMO)/contact-sheet.png --samples $(DEMO)/samples
	$(BIN)/gsfl-tune predict $(DEMO)/best $(DEMO)/samples/*.png --top 3
	$(BIN)/gsfl-tune report $(DEMO)

# Three files at a time, one thread each: the tests wait for processes as much as for the CPU.
PYTEST = OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 3 --dist loadfile --no-loadscope-reorder

test: install lint gpu-smoke
	$(PYTEST) -m 'not slow' $(PYTEST_ARGS)

test-all: install lint gpu-smoke
	$(PYTEST) $(PYTEST_ARGS)

# All that benchmarks/gpu/run.sh does on a GPU, in small, on the CPU (docs/gpu.md).
gpu-smoke: install
	CUDA_VISIBLE_DEVICES= PYTHON=$(BIN)/python bash benchmarks/gpu/run.sh --tiny

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# The site, in site/index.html. `make test` builds it too, and looks for broken links.
docs: install
	$(BIN)/mkdocs build --strict

format: install
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf $(VENV) build site *.egg-info .pytest_cache .mypy_cache .ruff_cache .import_linter_cache
