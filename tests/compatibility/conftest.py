"""Every test here runs twice, on the built-in and on ours, and says by a ``feature`` mark which row of
docs/compatibility.md it stands behind; ``make compatibility`` writes that page from the results."""

from __future__ import annotations

import pytest

from sides import BUILTIN, OURS, Side


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "side" in metafunc.fixturenames:
        metafunc.parametrize("side", [BUILTIN, OURS], ids=lambda side: side.name)


def pytest_itemcollected(item: pytest.Item) -> None:
    item.add_marker(pytest.mark.cpu_only)


@pytest.fixture(autouse=True)
def _expected_failures(request: pytest.FixtureRequest) -> None:
    """``feature(..., builtin_cannot=reason)``: the built-in is expected to fail; ``ours_cannot``: ours is."""
    mark = request.node.get_closest_marker("feature")
    side = request.node.callspec.params.get("side") if hasattr(request.node, "callspec") else None
    if mark is None or not isinstance(side, Side):
        return
    if reason := mark.kwargs.get("builtin_cannot" if side is BUILTIN else "ours_cannot"):
        request.node.add_marker(pytest.mark.xfail(reason=reason, strict=True))
