"""Loading: what is said of the build, and what happens when the library cannot be loaded."""

import os
import subprocess
import sys

import pytest
import torch

import leakyrelu_ext
from leakyrelu_ext import _library

WITHOUT_NATIVE = "import sys; sys.modules['leakyrelu_ext._C'] = None\n"
PRETEND_ANOTHER_TORCH = (
    "import sys, types; m = types.ModuleType('leakyrelu_ext._built_with')\n"
    "m.TORCH, m.CUDA, m.HIP, m.XPU = '2.0.1', '11.8', None, None\n"
    "sys.modules['leakyrelu_ext._built_with'] = m\n"
)
NOT_COMPILED = "import sys; sys.modules['leakyrelu_ext._built_with'] = None\n"

every_trouble = pytest.mark.parametrize(
    "trouble",
    [WITHOUT_NATIVE, PRETEND_ANOTHER_TORCH, NOT_COMPILED],
    ids=["no library", "other torch", "source tree"],
)


def python(code, **environment):
    environment = {key: value for key, value in os.environ.items() if key != "LEAKYRELU_EXT_REQUIRE_NATIVE"} | environment
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=False)


def test_build_info():
    info = leakyrelu_ext.build_info()
    assert info["version"] == leakyrelu_ext.__version__
    assert info["torch"] == torch.__version__
    assert (info["obstacle"] is None) == info["native"]


@pytest.mark.native
def test_build_info_of_the_library():
    info = leakyrelu_ext.build_info()
    assert info["native"]
    assert info["cpu_tier"] in ("avx512_bf16", "avx512", "avx2", "generic", "neon")
    assert info["torch_built_with"].split(".")[:2] == torch.__version__.split(".")[:2]
    assert info["openmp"] == ("OpenMP" in torch.__config__.parallel_info().split("ATen parallel backend:")[1])


@pytest.mark.native
@pytest.mark.parametrize(
    ("capability", "tiers"), [("avx512", ("avx512_bf16", "avx512")), ("avx2", ("avx2",)), ("default", ("generic",))]
)
def test_tier_follows_aten_cpu_capability(capability, tiers):
    if capability not in torch.backends.cpu.get_cpu_capability().lower() and capability == "avx512":
        pytest.skip("this CPU has no AVX-512")
    code = "import leakyrelu_ext; print(leakyrelu_ext.build_info()['cpu_tier'])"
    assert python(code, ATEN_CPU_CAPABILITY=capability).stdout.strip() in tiers


@pytest.mark.native
def test_tier_can_be_chosen_among_those_allowed():
    code = "import leakyrelu_ext; print(leakyrelu_ext.build_info()['cpu_tier'])"
    assert python(code, LEAKYRELU_EXT_CPU_TIER="generic").stdout.strip() == "generic"
    code = "import torch, leakyrelu_ext; leakyrelu_ext.leaky_relu(torch.ones(3))"
    for wish, capability in (("avx2", "default"), ("sse9", "avx2")):
        done = python(code, LEAKYRELU_EXT_CPU_TIER=wish, ATEN_CPU_CAPABILITY=capability)
        assert done.returncode == 1
        assert "ValueError: environment variable LEAKYRELU_EXT_CPU_TIER must be one of generic" in done.stderr
        assert f"got '{wish}'" in done.stderr


@pytest.mark.native
def test_one_openmp_runtime():
    """A second one would start a second pool of threads."""
    code = "import leakyrelu_ext; print(open('/proc/self/maps').read())"
    maps = python(code).stdout
    runtimes = {line.split()[-1] for line in maps.splitlines() if "libgomp" in line or "libomp" in line}
    assert len(runtimes) == 1, runtimes


def test_main_prints_what_an_issue_needs(monkeypatch):
    monkeypatch.setenv("LEAKYRELU_EXT_HUGE_PAGES", "0")
    monkeypatch.setenv("SOMEBODYS_PASSWORD", "not for an issue")
    done = python("import runpy; runpy.run_module('leakyrelu_ext', run_name='__main__')")
    assert done.returncode == 0, done.stderr
    first, *lines, last = done.stdout.splitlines()
    assert first == last == "```"
    facts = {line[:17].strip(): line[18:] for line in lines}
    assert facts["version"] == leakyrelu_ext.__version__
    assert facts["environment"].split().count("LEAKYRELU_EXT_HUGE_PAGES=0") == 1
    assert facts["kernels on CPU"].startswith("native" if facts["native"] == "True" else "built-in")
    assert {"torch", "platform", "cpu", "gpu", "huge pages", "kernels on CUDA"} <= facts.keys()
    assert "not for an issue" not in done.stdout


@pytest.mark.parametrize(
    "trouble", [WITHOUT_NATIVE, PRETEND_ANOTHER_TORCH, NOT_COMPILED], ids=["no library", "other torch", "source tree"]
)
def test_falls_back_with_one_warning(trouble):
    code = trouble + (
        "import warnings\n"
        "with warnings.catch_warnings(record=True) as caught:\n"
        "    warnings.simplefilter('always')\n"
        "    import torch, leakyrelu_ext\n"
        "x = torch.tensor([-2.0, 3.0], requires_grad=True)\n"
        "y = leakyrelu_ext.LeakyReLU(0.5)(x); y.sum().backward()\n"
        "z = leakyrelu_ext.leaky_relu_(x * 1, -0.5); z.sum().backward()\n"
        "info = leakyrelu_ext.build_info()\n"
        "print([str(w.message) for w in caught if 'leakyrelu_ext' in str(w.message)])\n"
        "print(y.tolist(), z.tolist(), x.grad.tolist(), info['native'], info['obstacle'])\n"
    )
    done = python(code)
    assert done.returncode == 0, done.stderr
    warnings, results = done.stdout.splitlines()
    assert warnings.count("cannot be loaded") == 1
    assert "pip install --no-build-isolation" in warnings
    assert results.startswith("[-1.0, 3.0] [1.0, 3.0] [0.0, 2.0] False ")


@pytest.mark.parametrize(
    "trouble", [WITHOUT_NATIVE, PRETEND_ANOTHER_TORCH, NOT_COMPILED], ids=["no library", "other torch", "source tree"]
)
def test_may_be_required(trouble):
    done = python(trouble + "import leakyrelu_ext", LEAKYRELU_EXT_REQUIRE_NATIVE="1")
    assert done.returncode == 1
    assert "ImportError: leakyrelu_ext: the compiled library cannot be loaded" in done.stderr


def test_names_the_torch_it_was_compiled_against():
    done = python(PRETEND_ANOTHER_TORCH + "import leakyrelu_ext", LEAKYRELU_EXT_REQUIRE_NATIVE="1")
    assert f"compiled against torch 2.0.1 (CUDA 11.8 build), and this is torch {torch.__version__} (" in done.stderr


CPU, CUDA, ROCM = {}, {"cuda": "13.0"}, {"hip": "6.4.43483"}


@pytest.mark.parametrize(
    ("built", "running", "same"),
    [
        (("2.13.0", CPU), ("2.13.1+cpu", CPU), True),
        (("2.13.0", CPU), ("2.14.0", CPU), False),
        (("2.13.0a0+git123", CPU), ("2.13.0", CPU), False),
        (("2.14.0.dev20260101", CPU), ("2.14.0.dev20260102", CPU), False),
        (("2.14.0.dev20260101", CPU), ("2.14.0.dev20260101", CPU), True),
        (("2.13.0+cu130", CUDA), ("2.13.0+cu130", CUDA), True),
        (("2.13.0+cu130", CUDA), ("2.13.0+cpu", CPU), False),
        (("2.13.0+cpu", CPU), ("2.13.0+cu130", CUDA), False),
        (("2.13.0+cu130", CUDA), ("2.13.0+cu132", {"cuda": "13.2"}), True),
        (("2.13.0+cu130", CUDA), ("2.13.0+cu128", {"cuda": "12.8"}), False),
        (("2.13.0+cu130", CUDA), ("2.13.0+rocm6.4", ROCM), False),
        (("2.13.0+rocm6.4", ROCM), ("2.13.1+rocm6.3", {"hip": "6.3.1"}), True),
        (("2.13.0+rocm6.4", ROCM), ("2.13.0+rocm7.0", {"hip": "7.0.2"}), False),
        (("2.13.0+xpu", {"xpu": "20250201"}), ("2.13.0+cpu", CPU), False),
    ],
)
def test_which_torches_share_an_abi(built, running, same):
    torches = [_library._Torch(version, **platform) for version, platform in (built, running)]
    assert _library._same_abi(*torches) == same


@pytest.mark.native
def test_the_library_knows_the_torch_it_was_compiled_against():
    from leakyrelu_ext import _built_with

    kinds = ("CUDA", "HIP", "XPU")
    assert [bool(getattr(_built_with, kind)) for kind in kinds] == [
        bool(getattr(torch.version, kind.lower())) for kind in kinds
    ]


def test_a_library_of_an_older_version_of_the_package_is_named_as_that():
    code = (
        "import sys, types; m = types.ModuleType('leakyrelu_ext._built_with'); m.TORCH = '2.13.0'\n"
        "sys.modules['leakyrelu_ext._built_with'] = m; import leakyrelu_ext"
    )
    done = python(code, LEAKYRELU_EXT_REQUIRE_NATIVE="1")
    assert "(it was compiled by another version of this package). Mend: " in done.stderr


def test_import_leaves_the_environment_alone():
    done = python("import os; before = dict(os.environ); import leakyrelu_ext; print(before == dict(os.environ))")
    assert done.stdout.strip() == "True"
