.PHONY: check test nightly test-gpu bench docs golden
PYTHON ?= .venv/bin/python

check: ; .venv/bin/ruff check . && .venv/bin/ruff format --check . && .venv/bin/mypy
test: ; scripts/test
nightly: ; scripts/nightly
test-gpu: ; $(PYTHON) -m pytest -m gpu
bench: ; $(PYTHON) -m benchmarks.bench_cpu
docs: ; scripts/docs
golden: ; $(PYTHON) scripts/make_golden.py
