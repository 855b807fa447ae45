# Needs Python 3.11 or newer, pip, make and git. Another interpreter: make test PYTHON=python3.13
PYTHON ?= python3
BIN := .venv/bin
SERVERS := redis-server postgresql pgbouncer iproute2 nftables valgrind faketime strace
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: demo servers test bench proof clean
.DELETE_ON_ERROR:

demo: .venv/.cli  ## a small newsroom of agents at work; FOLDER=... names the texts they read
	@$(BIN)/afk demo $(if $(FOLDER),"$(FOLDER)")

servers:  ## once, before the tests: what they need from Debian or Ubuntu (asks for root)
	@PATH="$$PATH:/usr/sbin:/sbin$$(printf ':%s' /usr/lib/postgresql/*/bin)"; \
	for tool in redis-server postgres pgbouncer ip nft valgrind faketime strace; do \
		command -v $$tool >/dev/null || missing=1; \
	done; \
	if [ -n "$$missing" ]; then \
		echo "Installing $(SERVERS)"; \
		as=; [ "$$(id -u)" = 0 ] || as=sudo; \
		$$as apt-get update -qq && \
		$$as env DEBIAN_FRONTEND=noninteractive apt-get install -qq -y $(SERVERS) >/dev/null; \
	fi

test: .venv/.dev  ## everything that has to hold before a change is merged
	$(BIN)/ruff format --check
	$(BIN)/ruff check
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo
	$(BIN)/pytest -n 2 --dist loadfile

bench: .venv-bench/.bench  ## measures the library next to its peers; needs redis-server, as the tests do
	@.venv-bench/bin/python -m benchmarks $(PART) $(if $(STORE),--store $(STORE)) $(if $(SIZE),--size $(SIZE)) \
	    $(if $(WORKLOAD),--workload "$(WORKLOAD)") $(if $(PEERS),--peers "$(PEERS)") \
	    $(if $(REPORT),--report $(REPORT)) $(if $(FRESH),--fresh)

proof: .venv/.dev  ## tries to break the promises, for long; PART=crash is one way, STORE=redis one store
	@$(BIN)/python -m proof $(PART) $(if $(STORE),--store $(STORE)) $(if $(SEED),--seed $(SEED))

clean:
	rm -rf .venv .venv-bench dist .*_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

.venv/.created .venv-bench/.created:
	@$(PYTHON) -c 'import sys, ensurepip, venv; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || \
	{ echo "'$(PYTHON)' is not Python 3.11 or newer with venv (Debian: apt install python3-venv). Try: make PYTHON=python3.11" >&2; exit 1; }
	@echo "Setting up $(@D) (once)"
	@$(PYTHON) -m venv $(@D)
	@touch $@

.venv/.cli: pyproject.toml | .venv/.created
	@echo "Installing afk-messaging into .venv"
	@$(BIN)/pip install --quiet --editable '.[cli,redis,postgres,nats]'
	@touch $@

.venv/.dev: pyproject.toml | .venv/.created
	@echo "Installing afk-messaging and the development tools into .venv"
	@$(BIN)/pip install --quiet --upgrade 'pip>=25.1'  # the first with --group
	@$(BIN)/pip install --quiet --editable '.[cli]' --group dev
	@touch .venv/.cli $@

.venv-bench/.bench: pyproject.toml | .venv-bench/.created
	@echo "Installing afk-messaging and what it is measured against into .venv-bench"
	@.venv-bench/bin/pip install --quiet --upgrade 'pip>=25.1'
	@.venv-bench/bin/pip install --quiet --editable '.[cli]' --group bench
	@touch $@
