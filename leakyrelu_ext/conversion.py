"""Converts the modules of existing models from PyTorch's Leaky ReLU to ours, and back."""

from __future__ import annotations

import copy as copying
import logging
from collections.abc import Callable

from torch import nn

from .modules import LeakyReLU

_logger = logging.getLogger("leakyrelu_ext")
_Report = Callable[[str], object]

# Former arguments, which made convert() and revert() trace models, and their replacements.
_REMOVED = {
    "functional": "leakyrelu_ext.install() puts the kernels under every call of torch.nn.functional.leaky_relu, untraced",
    "fuse": "in the model's code, call leakyrelu_ext.bias_leaky_relu, or use BiasLeakyReLU and AddLeakyReLU",
}


def convert(model: nn.Module, *, copy: bool = False, report: _Report | None = None, **removed: object) -> nn.Module:
    """Turns every :class:`torch.nn.LeakyReLU` in ``model`` into a :class:`leakyrelu_ext.LeakyReLU`.

    This converts one model; :func:`leakyrelu_ext.install` serves the whole process, including calls of ``F.leaky_relu`` and
    scripted code, and changes no types. Each module stays the same object and only changes its class: slopes, ``inplace``,
    hooks, training flags, names, shared instances and references from elsewhere are kept. Subclasses of ``nn.LeakyReLU`` and
    instances with their own ``forward`` are left alone and reported. Converting again changes nothing.

    Some tools look up a module's exact type and do not know ours: captum's ``DeepLift`` (uses gradients instead of its
    rule), BackPACK (refuses the module), ptflops (does not count it), PyTorch's eager and FX quantization (leave it in
    float), torchvision's ``create_feature_extractor`` (looks into it as into a user's module). For these, call
    :func:`revert` first, or use :func:`leakyrelu_ext.install` instead.

    Args:
        model: any module tree, or a single ``nn.LeakyReLU``.
        copy: convert a deep copy and leave ``model`` as it is. Default: ``False``, in place.
        report: called with one line per module (``print``, ``list.append``, …), or with one line if there is nothing to
            convert. Default: ``logging``, at INFO, or at WARNING if there is nothing to convert.

    Returns:
        ``model``, or its copy.

    Raises:
        TypeError: ``model`` is not a module; or ``functional`` or ``fuse`` is given, which earlier versions had (the message
            names the replacement).
    """
    return _replace("convert", model, nn.LeakyReLU, LeakyReLU, copy, report, removed)


def revert(model: nn.Module, *, copy: bool = False, report: _Report | None = None, **removed: object) -> nn.Module:
    """Undoes :func:`convert`: every :class:`leakyrelu_ext.LeakyReLU` becomes a :class:`torch.nn.LeakyReLU`.

    Arguments, result and errors are those of :func:`convert`.
    """
    return _replace("revert", model, LeakyReLU, nn.LeakyReLU, copy, report, removed)


def _replace(
    function: str,
    model: nn.Module,
    old: type[nn.LeakyReLU],
    new: type[nn.LeakyReLU],
    copy: bool,
    report: _Report | None,
    removed: dict[str, object],
) -> nn.Module:
    for name in removed:
        if name not in _REMOVED:
            raise TypeError(f"{function}() got an unexpected keyword argument '{name}'")
        raise TypeError(f"{function}(): argument '{name}' is gone, as tracing changed models: {_REMOVED[name]}")
    if not isinstance(model, nn.Module):
        raise TypeError(f"argument 'model' must be a torch.nn.Module, got {type(model).__name__}")
    if copy:
        model = copying.deepcopy(model)
    found = False
    for name, module in model.named_modules():
        if not isinstance(module, nn.LeakyReLU):
            continue
        found = True
        what = name or "the model itself"
        if type(module) is new or not isinstance(module, old):
            continue
        if type(module) is not old:
            line = f"{what}: left alone, it is a {type(module).__module__}.{type(module).__name__}"
        elif "forward" in module.__dict__:
            line = f"{what}: left alone, it has a forward of its own"
        else:
            module.__class__ = new
            line = f"{what}: {old.__module__}.{old.__name__} -> {new.__module__}.{module}"
        (report or _logger.info)(line)
    if not found:
        (report or _logger.warning)(
            f"nothing to {function}: there is no torch.nn.LeakyReLU in this {type(model).__name__}; "
            "for calls of torch.nn.functional.leaky_relu and for scripted models there is leakyrelu_ext.install()"
        )
    return model
