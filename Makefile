# `make demo` and `make test` are all that a fresh machine needs: each makes `.venv` itself.
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
LOCK := requirements.lock

export HF_HUB_OFFLINE ?= 1
# Without its bytecode kept, every process compiles what it imports: seconds for torch, and a test starts many processes.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: demo test lint docs lock clean
.DELETE_ON_ERROR:

demo: $(VENV)/demo.done          ## tokenize the bundled samples and train on the shards
	$(BIN)/audioprep run demo || test $$? -eq 3   # 3: one of the samples is broken on purpose

test: $(VENV)/test.done          ## run the tests
	$(BIN)/python -m pytest -n 2

lint: $(VENV)/test.done          ## ruff and pyright
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright

docs: $(VENV)/test.done          ## build the documentation into site/
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

docs/cli.md: $(wildcard audioprep/cli/*.py)   ## write the reference of the command line anew
	$(BIN)/python -m typer audioprep.cli.app utils docs --name audioprep --output $@

lock: $(BIN)/uv                  ## resolve the dependencies anew
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --no-header --no-annotate \
	  pyproject.toml --extra all --group dev --output-file $(LOCK)

$(BIN)/uv:
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv

$(VENV)/demo.done: pyproject.toml $(LOCK) | $(BIN)/uv
	$(BIN)/uv pip install --quiet --python $(BIN)/python --constraint $(LOCK) --editable ".[train]"
	@touch $@

$(VENV)/test.done: pyproject.toml $(LOCK) | $(BIN)/uv
	$(BIN)/uv pip install --quiet --python $(BIN)/python --requirement $(LOCK) --no-deps
	$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --editable .
	@touch $@ $(VENV)/demo.done

clean:
	rm -rf $(VENV) site demo-out
