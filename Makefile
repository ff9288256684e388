# Two commands do everything: `make demo` and `make test`. Both set up .venv first if it is not there.
PYTHON ?= python3
BIN := .venv/bin
INSTALLED := .venv/.installed
RUN := runs/demo
# Tests run in two processes with one thread each: more threads than cores take turns at great cost.
TESTS := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile

.PHONY: help install demo test test-all lint types format reference clean

help:
	@echo "make demo      set up, pre-train on the embedded digits, measure: one table and one page"
	@echo "make test      set up, run the tests"
	@echo "make test-all  the slow tests too"
	@echo "make lint      ruff;  make types  mypy;  make format  ruff format"
	@echo "make reference write docs/reference/configuration.md anew"

install: $(INSTALLED)

$(INSTALLED): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit("ibot needs Python 3.11 or newer; set PYTHON=...") if sys.version_info < (3, 11) else None'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $@

demo: $(INSTALLED)
	@start=$$(date +%s); \
	if [ -f $(RUN)/config.yaml ]; then set -- --resume; fi; \
	$(BIN)/ibot pretrain --out $(RUN) "$$@" && echo "pre-training took $$(( $$(date +%s) - start )) s"
	@start=$$(date +%s); \
	for evaluation in knn-eval linear-probe cluster; do \
		echo "$$evaluation ..."; $(BIN)/ibot --quiet $$evaluation $(RUN) builtin:digits || exit; \
	done; \
	$(BIN)/ibot compare $(RUN) && echo "evaluation took $$(( $$(date +%s) - start )) s"
	@$(BIN)/ibot report $(RUN)

test: $(INSTALLED)
	$(TESTS)

test-all: $(INSTALLED)
	$(TESTS) -m 'slow or not slow'

lint: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(INSTALLED)
	$(BIN)/mypy

format: $(INSTALLED)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

reference: $(INSTALLED)
	$(BIN)/python -m ibot_cli.config.reference > docs/reference/configuration.md

clean:
	rm -rf .venv .venv-wheel build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache
