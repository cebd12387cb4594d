"""PyTorch's own Leaky ReLU, the reference of the tests; its own also under --installed, where ours run under its name."""

import contextlib
from collections.abc import Iterator

import torch.nn.functional as F
from torch import Tensor, nn

from leakyrelu_ext import install, installation


@contextlib.contextmanager
def uninstalled() -> Iterator[None]:
    native = installation.native
    ours = native is not None and native.uninstall()
    try:
        yield
    finally:
        if ours:
            install()


def leaky_relu(*arguments, **keywords) -> Tensor:
    with uninstalled():
        return F.leaky_relu(*arguments, **keywords)


def leaky_relu_(*arguments, **keywords) -> Tensor:
    with uninstalled():
        return F.leaky_relu_(*arguments, **keywords)


class LeakyReLU(nn.LeakyReLU):
    def forward(self, input: Tensor) -> Tensor:
        return leaky_relu(input, self.negative_slope, self.inplace)
