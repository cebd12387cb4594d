"""The suite's options. --hide-native runs it as if the library had not been compiled."""

import sys
import warnings

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--hide-native", action="store_true", help="run on the fallback, as if leakyrelu_ext._C were missing")


def pytest_configure(config: pytest.Config) -> None:
    if config.getoption("--hide-native"):
        sys.modules["leakyrelu_ext._C"] = None  # type: ignore[assignment]  # makes its import fail
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            import leakyrelu_ext
        assert not leakyrelu_ext.build_info()["native"]
