"""Leaky ReLU for PyTorch with fused native kernels and one bit per element saved for the backward."""

from . import diagnostics as diagnostics
from . import init as init
from ._library import build_info, stats
from ._version import __version__
from .autograd import LeakyReLUFunction
from .conversion import convert, revert
from .functional import bias_leaky_relu, leaky_relu, leaky_relu_, set_compile_target
from .installation import Installation, follow_environment, install, uninstall
from .modules import AddLeakyReLU, BiasLeakyReLU, LeakyReLU

__all__ = [
    "AddLeakyReLU",
    "BiasLeakyReLU",
    "Installation",
    "LeakyReLU",
    "LeakyReLUFunction",
    "__version__",
    "bias_leaky_relu",
    "build_info",
    "convert",
    "install",
    "leaky_relu",
    "leaky_relu_",
    "revert",
    "set_compile_target",
    "stats",
    "uninstall",
]

follow_environment()
del follow_environment
