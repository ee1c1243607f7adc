# `make` lists what there is to do. Everything runs in .venv, which is made on first use.

DATA ?= data
# Interpreter for .venv; empty takes the first Python of version 3.10 to 3.13 that runs.
PYTHON ?=
export PYTHON

RUN := .venv/bin/python
READY := .venv/.installed

# Tests run in so many processes, each on one core.
WORKERS ?= 2
KILLS ?= 100

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help venv demo real model test coverage lint house format docs bench torture audit wheel pins licences \
	check-data clean distclean

help:
	@echo "make demo             three synthetic centres, from smears to the report"
	@echo "make real DATA=path   the same on real smears; path holds tecom, cellavision, acevedo20 and bccd"
	@echo "make model DATA=path  the detector that ships, from the same folders (150 minutes on 2 cores)"
	@echo "make test             run the tests"
	@echo "make coverage         the same, slower, and measure how much of the code they cover"
	@echo "make lint             check style, format and the bounds of the house"
	@echo "make house            count lines and files by folder, and name what breaks a bound"
	@echo "make format           put style and format right, as far as that goes by itself"
	@echo "make docs             build the documentation as a site, site/index.html"
	@echo "make bench            measure speed and memory"
	@echo "make torture          kill the stages again and again, and compare with an undisturbed run (KILLS=100)"
	@echo "make audit            ask whether a pinned package has a known vulnerability (needs the network)"
	@echo "make wheel            build the wheel, and try it in an empty environment"
	@echo "make pins             pin the packages anew (UPGRADE=1 takes newer ones); make licences lists their licences"
	@echo "make venv             only set up .venv (PYTHON=... chooses the interpreter)"
	@echo "make clean            remove runs/ and what tools left behind; keeps .venv"
	@echo "make distclean        make clean, and remove .venv"

venv: $(READY)

$(READY): requirements.txt setup.cfg pyproject.toml tools/setup-venv.sh
	@sh tools/setup-venv.sh
	@touch $(READY)

demo: $(READY)
	@.venv/bin/aecfe run experiments/configs/demo.yaml

real: check-data $(READY)
	@.venv/bin/aecfe run experiments/configs/real-small.yaml --data "$(DATA)"

model: check-data $(READY)
	@$(RUN) tools/make_model.py experiments/configs/recipes/smear-small.yaml --data "$(DATA)"

# Before the installation, so that a wrong path is told at once.
check-data:
	@test -d "$(DATA)" || { echo "error: no folder $(DATA); name the folder of the centres: make $(MAKECMDGOALS) DATA=path" >&2; exit 2; }

test: $(READY)
	@$(RUN) -m pytest -q -n $(WORKERS) --dist loadfile --no-loadscope-reorder $(MEASURE)

coverage: MEASURE = --cov --cov-report=term:skip-covered
coverage: test

lint: $(READY)
	@$(RUN) -m ruff check .
	@$(RUN) -m ruff format --check .
	@$(RUN) tools/house.py

house: $(READY)
	@$(RUN) tools/house.py

format: $(READY)
	@$(RUN) -m ruff check --fix .
	@$(RUN) -m ruff format .

bench: $(READY)
	@$(RUN) benchmarks/bench.py
	@$(RUN) benchmarks/shipped.py
	@$(RUN) benchmarks/autoencoder_speed.py

docs: $(READY)
	@NO_MKDOCS_2_WARNING=1 $(RUN) -m mkdocs build --strict
	@echo "site/index.html"

torture: $(READY)
	@$(RUN) tools/torture.py --kills $(KILLS)

audit: $(READY)
	@$(RUN) -m pip_audit --requirement requirements.txt --require-hashes --disable-pip

wheel: $(READY)
	@sh tools/check-wheel.sh

pins: $(READY)
	@sh tools/pin-requirements.sh

licences: $(READY)
	@$(RUN) -m piplicenses --from=mixed --order=license --format=markdown

clean:
	@rm -rf runs site build dist *.egg-info .pytest_cache .ruff_cache
	@find . -path ./.venv -prune -o -path ./.git -prune -o -type d -name __pycache__ -exec rm -rf {} +

distclean: clean
	@rm -rf .venv
