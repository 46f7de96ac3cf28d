# `make demo` and `make test` each set up everything that they need, in .venv, without root.
PYTHON ?= python3
VENV   := .venv
READY  := $(VENV)/.ready

.PHONY: demo demo-deploy test check bench torture torture-short lock clean

demo: $(READY)
	@PATH="$(CURDIR)/$(VENV)/bin:$$PATH" $(VENV)/bin/python examples/story-1/demo.py

demo-deploy: $(READY)
	@$(VENV)/bin/python -m handrail demo deploy

test: $(READY)
	$(VENV)/bin/python -m pytest -n auto

check: $(READY)
	scripts/check

bench: $(READY)
	$(VENV)/bin/python -m bench

# Other projects' own suites, through the guard and direct: needs compilers, apt and PyPI, once.
torture: $(READY)
	$(VENV)/bin/python -m scripts.torture

torture-short: $(READY)
	$(VENV)/bin/python -m scripts.torture --short

# Rebuilt when the lock or the project's metadata changes; the source itself is installed in place.
$(READY): requirements.lock pyproject.toml
	scripts/setup "$(PYTHON)" "$(VENV)"
	@touch $@

lock: $(READY)
	$(VENV)/bin/python -m uv pip compile --generate-hashes --no-emit-index-url --universal \
	    --python-version 3.11 --all-extras --no-emit-package handrail --quiet \
	    pyproject.toml -o requirements.lock

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis .coverage*
