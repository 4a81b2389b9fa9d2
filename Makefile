# The doors of the lab. Each target does the set-up it needs, once.
#   make lab ARGS="--no-browser --port 8899"   hands ARGS to JupyterLab
#   make test ARGS="-k layers"                 hands ARGS to pytest
#   make grade ARGS="--jobs 4"                 hands ARGS to python -m lab_grader grade dora
#   make PYTHON=/path/to/python3.12 lab        uses that Python for a new .venv
#   make TORCH=cpu lab                         installs PyTorch's CPU build, on Linux much smaller
#   make VENV=.venv-3.13 PYTHON=python3.13 check   in another environment than .venv

VENV ?= .venv
BIN := $(VENV)/bin
ARGS ?=
export VENV PYTHON TORCH
# What other projects set up for themselves must not reach into this one.
unexport PYTHONPATH PYTHONHOME
# nbgrader calls `alembic` by its name, in JupyterLab's Formgrader too.
export PATH := $(CURDIR)/$(BIN):$(PATH)

.PHONY: help lab test check check-every-python release book pictures bench grade report bench-grading lock

help:
	@echo "Students"
	@echo "  make lab      open the lessons in JupyterLab"
	@echo "Instructors"
	@echo "  make release  make what students get, notebooks/, from solutions/dora/*.py"
	@echo "  make grade    grade the submissions in grading/submitted; ARGS=--help lists options"
	@echo "  make report   a page on what the class got wrong; ARGS=--names shows names"
	@echo "  make book     build/book/index.html, the solved lessons to read; ARGS=--links checks external links"
	@echo "Maintainers"
	@echo "  make check    the fast tests: style, imports, units, checks"
	@echo "  make check-every-python  the same under each supported Python that is installed"
	@echo "  make test     run every test and every lesson"
	@echo "  make bench    execute every lesson, and print how long its cells take"
	@echo "  make bench-grading  time make grade against stock nbgrader, on a made-up class"
	@echo "  make lock     write the versions of all packages into constraints.txt; ARGS=--upgrade renews them"
	@echo "  make pictures take the README's pictures of the running lab, in Chromium"

# In the students' folder: from here, nbgrader would complain that its course lies outside.
lab: for-lab
	cd notebooks && "$(CURDIR)/$(BIN)/jupyter" lab 00-start.ipynb --ServerApp.ip=127.0.0.1 $(ARGS)

# The fast lane, for while one works: rules of style and imports, units, checks.
check: export OMP_NUM_THREADS = 1
check: for-test
	$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/lint-imports
	$(BIN)/python -m pytest -n 2 --dist worksteal -q -m "not slow" tests/unit tests/checks $(ARGS)

# The fast lane under each supported Python that is installed, each in its own environment.
check-every-python:
	@failed=; \
	for python in python3.11 python3.12 python3.13; do \
	    if ! $$python --version 2>/dev/null; then echo "$$python is not installed: skipped"; \
	    elif ! $(MAKE) check PYTHON=$$python VENV=.venv-$$python; then failed="$$failed $$python"; fi; \
	done; \
	if [ -n "$$failed" ]; then echo "The fast tests fail under$$failed"; exit 1; fi

# One thread each: workers with kernels of two threads each slow each other down. Three for two cores,
# since many tests wait: for a limit on time, or for a page. A worker takes one module after the other
# in this order, the short ones of tests/unit last, so that all workers end at the same time.
test: export OMP_NUM_THREADS = 1
test: for-test
	$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/lint-imports
	$(BIN)/python -m pytest -n 3 --dist loadscope --no-loadscope-reorder --nbval-lax --nbval-current-env --nbval-cell-timeout=300 solutions tests $(ARGS)

release: for-grading
	$(BIN)/python scripts/release.py $(ARGS)

book: for-book
	$(BIN)/python scripts/build_book.py $(ARGS)

pictures: for-test
	PYTHONPATH=tests $(BIN)/python scripts/pictures.py

bench: for-test
	$(BIN)/python -m benchmarks.lessons

# For every platform and each supported Python. What is there stays, unless ARGS=--upgrade.
lock: for-test
	$(BIN)/uv pip compile pyproject.toml --extra test --universal --python-version 3.11 --no-annotate \
	    --custom-compile-command "make lock" --quiet --output-file constraints.txt $(ARGS)

grade: for-grading
	$(BIN)/python -m lab_grader grade dora $(ARGS)

report: for-grading
	$(BIN)/python -m lab_grader report dora $(ARGS)

bench-grading: for-test
	$(BIN)/python -m benchmarks.grading $(ARGS)

# Each ends at once where nothing has changed: see scripts/set_up.sh.
.PHONY: for-lab for-test for-grading for-book
for-lab: ; @scripts/set_up.sh .
for-test: ; @scripts/set_up.sh .[test]
for-grading: ; @scripts/set_up.sh .[grading]
for-book: ; @scripts/set_up.sh .[book]
