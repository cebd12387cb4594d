"""The suite's options: which implementation of the ops it runs on."""

import sys
import warnings
from pathlib import Path

import pytest

collect_ignore: list[str] = []


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--hide-native", action="store_true", help="run on the fallback, as if leakyrelu_ext._C were missing")
    parser.addoption(
        "--cuda-on-host",
        type=Path,
        metavar="LIBRARY",
        help="run the CUDA backend's source on the host: a library that cuda_on_host/build.py has made",
    )


def pytest_configure(config: pytest.Config) -> None:
    if config.getoption("--hide-native"):
        sys.modules["leakyrelu_ext._C"] = None  # type: ignore[assignment]  # makes its import fail
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            import leakyrelu_ext
        assert not leakyrelu_ext.build_info()["native"]
    if library := config.getoption("--cuda-on-host"):
        import torch

        import leakyrelu_ext

        assert leakyrelu_ext.build_info()["native"]
        torch.ops.load_library(library)
    else:
        collect_ignore.append("cuda_on_host")
