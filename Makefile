# Needs Python 3.11 or newer, pip, make and git. Another interpreter: make test PYTHON=python3.13
PYTHON ?= python3
BIN := .venv/bin
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: demo test bench clean
.DELETE_ON_ERROR:

demo: .venv/.cli  ## a small newsroom of agents at work; FOLDER=... names the texts they read
	@$(BIN)/afk demo $(if $(FOLDER),"$(FOLDER)")

test: .venv/.dev  ## everything that has to hold before a change is merged
	$(BIN)/ruff format --check
	$(BIN)/ruff check
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo
	$(BIN)/pytest

bench: .venv/.cli
	@$(BIN)/python -m benchmarks

clean:
	rm -rf .venv dist .*_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

.venv/.created:
	@$(PYTHON) -c 'import sys, ensurepip, venv; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || \
	{ echo "'$(PYTHON)' is not Python 3.11 or newer with venv (Debian: apt install python3-venv). Try: make PYTHON=python3.11" >&2; exit 1; }
	@echo "Setting up .venv (once)"
	@$(PYTHON) -m venv .venv
	@touch $@

.venv/.cli: pyproject.toml | .venv/.created
	@echo "Installing afk-messaging into .venv"
	@$(BIN)/pip install --quiet --editable '.[cli]'
	@touch $@

.venv/.dev: pyproject.toml | .venv/.created
	@echo "Installing afk-messaging and the development tools into .venv"
	@$(BIN)/pip install --quiet --upgrade 'pip>=25.1'  # the first with --group
	@$(BIN)/pip install --quiet --editable '.[cli]' --group dev
	@touch .venv/.cli $@
