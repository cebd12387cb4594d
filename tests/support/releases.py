"""Marks for tests of what not every release of torch can do."""

import pytest

import leakyrelu_ext
from leakyrelu_ext._torch_versions import RELEASE

CAN_INSTALL = leakyrelu_ext.build_info()["native"] and RELEASE >= (2, 9)
needs_install = pytest.mark.skipif(not CAN_INSTALL, reason="install() needs the compiled library and torch 2.9")


def since(major: int, minor: int, what: str) -> pytest.MarkDecorator:
    """Skips where torch is older. ``what``: what that release brought, as a clause: "the built-in takes nested tensors"."""
    return pytest.mark.skipif((major, minor) > RELEASE, reason=f"only from torch {major}.{minor} on {what}")
