"""Marks for tests of what not every release of torch can do."""

import pytest

from leakyrelu_ext._torch_versions import RELEASE


def since(major: int, minor: int, what: str) -> pytest.MarkDecorator:
    """Skips where torch is older. ``what``: what that release brought, as a clause: "the built-in takes nested tensors"."""
    return pytest.mark.skipif((major, minor) > RELEASE, reason=f"only from torch {major}.{minor} on {what}")
