# Two commands do everything on a fresh machine: `make demo` and `make test`.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
VIEWERS := .viewers
DEMO ?= demo
JOBS ?= 2
EMPTY := .venv-wheel
TORCH := $(shell sed -n 's/^torch==//p' constraints.txt)

.PHONY: demo test kills slurm workflows browser viewers docs package check lint types layers clean

demo: $(VENV)/.installed
	$(BIN)/n2v-scale demo $(DEMO)

# Two processes of one thread each: on two cores they take two thirds of the time that one takes.
test: $(VENV)/.installed
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --ignore tests/integration --ignore tests/slurm \
		-m 'not workflows and not slurm and not browser' -n $(JOBS) --dist worksteal

# Real processes killed at random moments, full disks: minutes, and the better for an idle machine.
kills: $(VENV)/.installed
	$(BIN)/python -m pytest tests/integration

# The workflow managers that workflows/ has files for, executed.
workflows: $(VENV)/.workflows
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest tests/workflows -m 'workflows and not slurm'

# The pages that this package makes, in the Chromium of this machine (apt-get install chromium).
browser: $(VENV)/.browser
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m browser tests/browser

# What other people's viewers read with: napari's reader, without Qt, and zarrita, where npm is.
viewers: $(VENV)/.installed $(VIEWERS)/.installed
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest tests/viewing/test_readers.py

# On a real SLURM of three nodes, which is installed and brought up on this machine for so long.
slurm: $(VENV)/.workflows
	tests/slurm/with-slurm.sh $(BIN)/python -m pytest tests/slurm tests/workflows -m slurm

# The site of the documentation, into site/; a warning is an error.
docs: $(VENV)/.docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

# The wheel, in an empty environment, does the whole of the demo, made small.
package: $(VENV)/.build
	rm -rf dist $(EMPTY)
	$(BIN)/python -m build --outdir dist .
	$(PYTHON) -m venv $(EMPTY)
	$(EMPTY)/bin/python -m pip install --quiet --constraint constraints.txt torch==$(TORCH)
	$(EMPTY)/bin/python -m pip install --quiet --constraint constraints.txt "$$(ls dist/*.whl)[report]"
	$(EMPTY)/bin/python -m pip check
	cd $(EMPTY) && bin/n2v-scale demo demo --minutes 0.3 --shape 32,128,128

check: lint types layers

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/.dev
	$(BIN)/mypy

layers: $(VENV)/.dev
	$(BIN)/lint-imports

# The stamp is made last, so that an interrupted installation is taken up again.
$(VENV)/.installed: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --constraint constraints.txt --editable '.[test,report,export]'
	touch $@

$(VENV)/.dev: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $@

$(VENV)/.build: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet --constraint constraints.txt build
	touch $@

$(VENV)/.docs: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[docs]'
	touch $@

$(VENV)/.workflows: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[workflows]'
	touch $@

$(VENV)/.browser: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[browser]'
	touch $@

# An environment of its own: napari adds itself to pytest wherever it is installed.
$(VIEWERS)/.installed:
	$(PYTHON) -m venv $(VIEWERS)
	$(VIEWERS)/bin/python -m pip install --quiet napari==0.9.2 napari-ome-zarr==0.10.0
	if command -v npm; then npm install --silent --prefix $(VIEWERS) zarrita@0.7.5; fi
	touch $@

clean:
	rm -rf $(VENV) $(VIEWERS) $(DEMO) $(EMPTY) dist site
