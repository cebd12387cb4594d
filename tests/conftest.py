"""The suite's options: which implementation of the ops it runs on, and where."""

import signal
import sys
import warnings
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
import torch
import torch.distributed as dist

import cases

collect_ignore: list[str] = []


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--hide-native", action="store_true", help="run on the fallback, as if leakyrelu_ext._C were missing")
    parser.addoption(
        "--installed",
        action="store_true",
        help="run what is written for our function and module on PyTorch's own, with our kernels installed under them",
    )
    parser.addoption("--device", type=torch.device, default="cpu", help="of all inputs: cpu, cuda or cuda:N")
    parser.addoption("--compatibility", type=Path, metavar="PAGE", help="write docs/compatibility.md from the outcomes")
    parser.addoption(
        "--record-release", type=Path, metavar="FILE", help="note what this torch came to in docs/releases.json"
    )
    parser.addoption(
        "--cuda-on-host",
        type=Path,
        metavar="LIBRARY",
        help="run the CUDA backend's source on the host: a library that cuda_on_host/build.py has made",
    )


def pytest_configure(config: pytest.Config) -> None:
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # of a shell's background job; programs under test inherit it
        signal.signal(signal.SIGINT, signal.default_int_handler)
    device = torch.device(config.getoption("--device"))
    if device.type == "cuda":
        if not torch.cuda.is_available():
            raise pytest.UsageError(f"--device {device}: torch {torch.__version__} sees no GPU here")
        cases.DEVICE = torch.device("cuda", device.index or 0)
        torch.cuda.set_device(cases.DEVICE)
    if config.getoption("--hide-native"):
        sys.modules["leakyrelu_ext._C"] = None  # type: ignore[assignment]  # makes its import fail
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            import leakyrelu_ext
        assert not leakyrelu_ext.build_info()["native"]
    if config.getoption("--installed"):
        import leakyrelu_ext

        leakyrelu_ext.install()
        leakyrelu_ext.leaky_relu = torch.nn.functional.leaky_relu
        leakyrelu_ext.leaky_relu_ = torch.nn.functional.leaky_relu_
        leakyrelu_ext.LeakyReLU = torch.nn.LeakyReLU
    if page := config.getoption("--compatibility"):
        from compatibility_page import CompatibilityPage

        config.pluginmanager.register(CompatibilityPage(page))
    if (record := config.getoption("--record-release")) and not hasattr(config, "workerinput"):  # not in xdist's processes
        from release_outcomes import ReleaseOutcomes

        config.pluginmanager.register(ReleaseOutcomes(record))
    if library := config.getoption("--cuda-on-host"):
        import leakyrelu_ext

        assert leakyrelu_ext.build_info()["native"]
        torch.ops.load_library(library)
    else:
        collect_ignore.append("cuda_on_host")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Marks: ``cpu_only`` tests stay out elsewhere, ``gpu`` tests on the CPU, tests of our own names under --installed."""
    for item in items:
        if item.get_closest_marker("own_name") and item.config.getoption("--installed"):
            item.add_marker(pytest.mark.skip(reason="about leakyrelu_ext's own function or module"))
        if item.get_closest_marker("cpu_only") and cases.DEVICE.type != "cpu":
            item.add_marker(pytest.mark.skip(reason="about the CPU"))
        if item.get_closest_marker("gpu") and cases.DEVICE.type != "cuda":
            item.add_marker(pytest.mark.skip(reason="needs --device cuda"))


@pytest.fixture(autouse=True)
def _tensors_on_the_device() -> Iterator[None]:
    if cases.DEVICE.type == "cpu":
        yield
    else:
        with cases.DEVICE:
            yield


@pytest.fixture
def process_group() -> Iterator[None]:
    """A gloo process group of this process alone, with its store in memory: there is nothing to wait for."""
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1, timeout=timedelta(seconds=60))
    try:
        yield
    finally:
        dist.destroy_process_group()
