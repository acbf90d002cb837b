# Every target sets up all it needs in .venv, so that each works as the first command on a fresh clone.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
# Test processes. Half of the suite's time is waiting (for sockets, cameras, brokers): one more than two cores.
JOBS ?= 3

.PHONY: help demo test check lint reference cameras soak gpu engine-proof install rollback uninstall clean

help:
	@echo 'make demo    render parts, train, compile, calibrate, stream, listen; results in demo/'
	@echo 'make test    the whole test suite'
	@echo 'make check   lint, types and the test suite'
	@echo 'make reference   write docs/reference/ from the code'
	@echo 'make cameras GigE Vision, USB3 Vision and GStreamer cameras for .venv (docs/cameras.md)'
	@echo 'make soak    the longer proofs (minutes to an hour)'
	@echo 'make gpu     the proofs that need an NVIDIA GPU (fails where there is none)'
	@echo 'make engine-proof   TensorRT bindings, RTX builder and pycuda without a GPU (downloads much)'
	@echo 'sudo make install     as a systemd service, also to update (docs/deployment.md)'
	@echo 'sudo make rollback    back to the version before the last update'
	@echo 'sudo make uninstall   remove the service; configuration and data stay'
	@echo 'make clean   remove .venv, demo/ and caches'

$(READY): pyproject.toml setup.py engine/kernels/resize.c
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' \
	  || { echo 'error: skrd4ad needs Python 3.10 or newer; try: make PYTHON=python3.11'; exit 2; }
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null \
	  || { echo 'error: this Python has no venv module; on Debian and Ubuntu: apt install python3-venv'; exit 2; }
	@echo 'Setting up .venv (once; a few minutes, mostly the download of torch) ...'
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --upgrade pip
	@PYTHONWARNINGS=ignore $(BIN)/python -m pip install --quiet --editable '.[train,dev]'
	@mkdir -p $(VENV)/src && ln -sfn ../.. $(VENV)/src/skrd4ad
	@touch $@

demo: $(READY)
	@$(BIN)/skrd4ad demo --out demo

test: $(READY)
	@$(BIN)/python -m pytest -q -m 'not soak and not gpu' -n $(JOBS) --dist loadfile

lint: $(READY)
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@MYPYPATH=$(VENV)/src $(BIN)/mypy -p skrd4ad

check: lint test

reference: $(READY)
	@$(BIN)/python -m skrd4ad.reference docs/reference

cameras: $(READY)
	@$(BIN)/python -m pip install --quiet --editable '.[aravis]' \
	  || { echo 'error: PyGObject does not build; docs/cameras.md names the Debian packages it needs'; exit 2; }

soak: $(READY)
	@$(BIN)/python -m pytest -q -m soak --timeout=7200 -s

gpu: $(READY)
	@$(BIN)/python -c 'import torch, sys; sys.exit(0 if torch.cuda.is_available() else "error: no NVIDIA GPU")'
	@$(BIN)/python -c 'import pycuda.driver' 2>/dev/null || $(BIN)/python -m pip install --quiet pycuda \
	  || { echo 'error: pycuda does not build; it needs g++ and the CUDA toolkit (set CUDA_HOME)'; exit 2; }
	@$(BIN)/python -m pytest -q -m gpu tests/gpu

engine-proof: $(READY)
	@$(BIN)/python tests/engine/shim/proof/install.py .proof
	@SKRD4AD_PROOF=.proof $(BIN)/python -m pytest -q -m engine_proof --timeout=900 tests/engine/shim/proof

install rollback uninstall:
	@PYTHON=$(PYTHON) deploy/install.sh $@

clean:
	rm -rf $(VENV) .proof demo build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis *.egg-info
