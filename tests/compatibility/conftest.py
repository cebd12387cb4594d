"""Every test here runs on the built-in, on ours, and on the built-in with our kernels installed. A ``feature`` mark says
which row of docs/compatibility.md it stands behind; ``make compatibility`` writes that page from the results."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

import leakyrelu_ext
from releases import CAN_INSTALL
from sides import BUILTIN, INSTALLED, OURS, Side


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "side" in metafunc.fixturenames:
        metafunc.parametrize("side", [BUILTIN, OURS, *[INSTALLED] * CAN_INSTALL], ids=lambda side: side.name)


def pytest_itemcollected(item: pytest.Item) -> None:
    item.add_marker(pytest.mark.cpu_only)


@pytest.fixture(autouse=True)
def _expected_failures(request: pytest.FixtureRequest) -> None:
    """``feature(..., builtin_cannot=reason)``: the built-in is expected to fail; ``ours_cannot``: ours is, and so on."""
    mark = request.node.get_closest_marker("feature")
    side = request.node.callspec.params.get("side") if hasattr(request.node, "callspec") else None
    if mark is None or not isinstance(side, Side):
        return
    if reason := mark.kwargs.get({BUILTIN: "builtin_cannot", OURS: "ours_cannot", INSTALLED: "installed_cannot"}[side]):
        request.node.add_marker(pytest.mark.xfail(reason=reason, strict=True))


@pytest.fixture(autouse=True)
def _installed(request: pytest.FixtureRequest) -> Iterator[None]:
    side = request.node.callspec.params.get("side") if hasattr(request.node, "callspec") else None
    if side is INSTALLED:
        with leakyrelu_ext.install():
            yield
    else:
        yield
