# make demo | make test | make check | make docs | make dist: each sets up what it needs in .venv first. Needs Python 3.10+ and git, nothing else.

PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
READY  := $(VENV)/.ready

# Containers often forbid Python to keep what it compiles; then every process of a study or a test compiles torch anew.
export PYTHONDONTWRITEBYTECODE :=

# What a test run says before it starts.
VERSIONS := "import platform, torch; print('Python', platform.python_version(), 'with torch', torch.__version__)"

.PHONY: demo test test-slow oldest constraints bench paper check format tables docs docs-serve dist clean

demo: $(READY)  ## train SGD, SAM and BiSAM on the embedded digits and compare them
	$(BIN)/bisam compare digits --out studies/demo

test: $(READY)  ## the whole test suite
	@$(BIN)/python -c $(VERSIONS)
	$(BIN)/python -m pytest -n 2 --dist worksteal $(ARGS)

test-slow: $(READY)  ## what `make test` leaves out: clusters, database servers, and processes that are killed
	$(BIN)/python -m pytest -n 2 --dist worksteal -m slow $(ARGS)

# What needs the laboratory, an engine or the site is left out: those have their own lowest versions.
OLDEST := .venv-oldest
FLOOR  := $(shell sed -n 's/^dependencies = \["torch>=\([0-9.]*\)"\]$$/\1/p' pyproject.toml)
CORE   := tests/geometry tests/losses tests/step tests/testing tests/vectors $(filter-out %_tables.py %_docs.py %_pages.py %_notebook.py %_examples.py \
          %_project.py %_dist.py %_assistants.py %_constraints.py,$(wildcard tests/test_*.py))

oldest: $(READY)  ## the library's own tests on the oldest torch that is supported
	@test -x $(OLDEST)/bin/python || $(BIN)/uv venv --quiet $(OLDEST)
	$(BIN)/uv pip install --quiet --python $(OLDEST)/bin/python --editable . 'torch==$(FLOOR)' numpy setuptools hypothesis pytest pytest-xdist schedulefree
	@$(OLDEST)/bin/python -c $(VERSIONS)
	$(OLDEST)/bin/python -m pytest -n 2 --dist worksteal $(CORE) $(ARGS)

constraints: $(READY)  ## install the newest packages that fit, and record them; then run the tests
	$(BIN)/uv pip install --quiet --upgrade --python $(BIN)/python --editable '.[dev]'
	$(BIN)/python .ci/constraints.py > .constraints.fresh && mv .constraints.fresh constraints.txt
	@touch $(READY)

bench: $(READY)  ## what everything costs beside what it may cost: the table of targets
	$(BIN)/python benchmarks/bench.py $(ARGS)

paper: $(READY)  ## Tables 1 and 2 of the paper, as far as time allows: ARGS="--data-dir data --hours 8"
	$(BIN)/python benchmarks/paper.py $(ARGS)

check: $(READY)  ## format, lint, strict types, import contract
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(READY)  ## put everything into the house style
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

tables: $(READY)  ## the tables of README.md and docs/methods.md, from the code and the tests
	$(BIN)/python docs/tables.py

docs: $(READY)  ## the site, into site/; a warning is an error
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build

docs-serve: $(READY)  ## the site while you write, at http://127.0.0.1:8000
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs serve

# The wheel is tried where nothing else is: first the library alone, which must need torch alone, then the laboratory.
EMPTY := .venv-dist

dist: $(READY)  ## wheel and source archive into dist/; the wheel is tried in an empty environment
	rm -rf dist $(EMPTY)
	$(BIN)/uv build --quiet
	$(BIN)/python .ci/dist.py dist
	$(BIN)/uv venv --quiet $(EMPTY)
	$(BIN)/uv pip install --quiet --python $(EMPTY)/bin/python dist/*.whl
	cd $(EMPTY) && bin/python -I ../.ci/first_example.py ../README.md
	$(BIN)/uv pip install --quiet --python $(EMPTY)/bin/python "bisam[lab] @ file://$$(ls $(CURDIR)/dist/*.whl)"
	cd $(EMPTY) && bin/bisam compare digits --smoke --out study
	rm -rf $(EMPTY)

clean:  ## remove the environment, the site and the archives
	rm -rf $(VENV) $(EMPTY) site dist

# uv installs in seconds what pip installs in minutes; it goes into the project's own environment, like all the rest.
# It compiles nothing. The imports do, once: or, in a container that forbids Python to keep what it compiles, every
# command compiles torch anew, which takes longer than what it is for. The versions are those that CI saw, where this
# Python is CI's: a package that was released this morning breaks nothing here.
$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || \
	  { echo "$(PYTHON) is older than 3.10: run make PYTHON=/path/to/a/newer/python"; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV) || \
	  { echo "$(PYTHON) cannot make environments: install its venv module (Debian: apt install python3-venv)"; exit 1; }
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv
	$(BIN)/uv pip install --quiet --python $(BIN)/python --constraint constraints.txt --editable '.[dev]'
	$(BIN)/python -c 'import bisam_lab.run.train, bisam_lab.report.summary, bisam_lab.cli.app'
	@touch $@
