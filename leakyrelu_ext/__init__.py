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
from .norm_functional import batch_norm_leaky_relu, group_norm_leaky_relu, instance_norm_leaky_relu
from .norm_modules import (
    BatchNormLeakyReLU1d,
    BatchNormLeakyReLU2d,
    BatchNormLeakyReLU3d,
    GroupNormLeakyReLU,
    InstanceNormLeakyReLU1d,
    InstanceNormLeakyReLU2d,
    InstanceNormLeakyReLU3d,
)

__all__ = [
    "AddLeakyReLU",
    "BatchNormLeakyReLU1d",
    "BatchNormLeakyReLU2d",
    "BatchNormLeakyReLU3d",
    "BiasLeakyReLU",
    "GroupNormLeakyReLU",
    "Installation",
    "InstanceNormLeakyReLU1d",
    "InstanceNormLeakyReLU2d",
    "InstanceNormLeakyReLU3d",
    "LeakyReLU",
    "LeakyReLUFunction",
    "__version__",
    "batch_norm_leaky_relu",
    "bias_leaky_relu",
    "build_info",
    "convert",
    "group_norm_leaky_relu",
    "install",
    "instance_norm_leaky_relu",
    "leaky_relu",
    "leaky_relu_",
    "revert",
    "set_compile_target",
    "stats",
    "uninstall",
]

follow_environment()
del follow_environment
