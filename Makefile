# The doors of the lab. Each target does the set-up it needs, once.
#   make lab ARGS="--no-browser --port 8899"   hands ARGS to JupyterLab
#   make test ARGS="-k layers"                 hands ARGS to pytest
#   make grade ARGS="--jobs 4"                 hands ARGS to python -m lab_grader grade dora
#   make PYTHON=/path/to/python3.12 lab        uses that Python for a new .venv

BIN := .venv/bin
ARGS ?=
export PYTHON
# nbgrader calls `alembic` by its name, in JupyterLab's Formgrader too.
export PATH := $(CURDIR)/$(BIN):$(PATH)

.PHONY: help lab test release book pictures bench grade bench-grading

help:
	@echo "make lab      open the lessons in JupyterLab"
	@echo "make test     run every test and every lesson"
	@echo "make release  remake solutions/*.ipynb and notebooks/ from solutions/*.py"
	@echo "make book     build/book/index.html, the solved lessons to read; ARGS=--links asks their links"
	@echo "make pictures take the README's pictures of the running lab, in Chromium"
	@echo "make bench    execute every lesson, and print how long its cells take"
	@echo "make grade    grade what lies in grading/submitted; ARGS=--help says more"
	@echo "make bench-grading  time it against stock nbgrader, on a class that it makes up"

# In the lessons' folder: from here, nbgrader would complain that its course lies outside.
lab: .venv/lab.stamp
	cd notebooks/dora && "$(CURDIR)/$(BIN)/jupyter" lab --ServerApp.ip=127.0.0.1 $(ARGS)

# One thread each: two workers with kernels of two threads each slow each other down. In the order of
# the folders, whose long modules come first, so that both workers end at the same time.
test: export OMP_NUM_THREADS = 1
test: .venv/test.stamp
	$(BIN)/ruff check . && $(BIN)/ruff format --check .
	$(BIN)/python -m pytest -n 2 --dist loadscope --no-loadscope-reorder --nbval-lax --nbval-current-env --nbval-cell-timeout=300 tests solutions $(ARGS)

release: .venv/grading.stamp
	$(BIN)/python scripts/release.py $(ARGS)

book: .venv/book.stamp
	$(BIN)/python scripts/book.py $(ARGS)

pictures: .venv/test.stamp
	$(BIN)/python scripts/pictures.py

bench: .venv/test.stamp
	$(BIN)/python benchmarks/lessons.py

grade: .venv/grading.stamp
	$(BIN)/python -m lab_grader grade dora $(ARGS)

bench-grading: .venv/grading.stamp
	$(BIN)/python benchmarks/grading.py $(ARGS)

.venv/lab.stamp: pyproject.toml constraints.txt
	@scripts/set_up.sh .

.venv/test.stamp: pyproject.toml constraints.txt
	@scripts/set_up.sh .[test]

.venv/grading.stamp: pyproject.toml constraints.txt
	@scripts/set_up.sh .[grading]

.venv/book.stamp: pyproject.toml constraints.txt
	@scripts/set_up.sh .[book]
