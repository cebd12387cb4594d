"""Models that exist already: from PyTorch's Leaky ReLU to ours, and back."""

from __future__ import annotations

import copy as copying
import logging
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import fx, nn

from .functional import leaky_relu, leaky_relu_
from .modules import LeakyReLU

_logger = logging.getLogger("leakyrelu_ext")
_Report = Callable[[str], object]

# Call sites in an FX graph, the built-in's and ours.
_OUR_CALLS: dict[object, Callable[..., torch.Tensor]] = {
    F.leaky_relu: leaky_relu,
    F.leaky_relu_: leaky_relu_,
    torch.ops.aten.leaky_relu.default: leaky_relu,
    torch.ops.aten.leaky_relu_.default: leaky_relu_,
}
_BUILTIN_CALLS: dict[object, Callable[..., torch.Tensor]] = {
    leaky_relu: F.leaky_relu,
    leaky_relu_: F.leaky_relu_,
}


def convert(model: nn.Module, *, copy: bool = False, functional: bool = False, report: _Report | None = None) -> nn.Module:
    """Makes every :class:`torch.nn.LeakyReLU` in ``model`` a :class:`leakyrelu_ext.LeakyReLU`.

    The modules stay the objects they are, of another class: slopes, ``inplace``, hooks, training flags, names, shared
    instances and references from elsewhere are kept. Other classes, subclasses of ``nn.LeakyReLU`` among them, are left
    alone. Converting twice is converting once.

    Args:
        model: any module tree, or a single ``nn.LeakyReLU``.
        copy: convert a deep copy and leave ``model`` as it is. Default: ``False``, in place.
        functional: also replace calls of ``torch.nn.functional.leaky_relu``, in models that
            :func:`torch.fx.symbolic_trace` can trace. If there are such calls, the result is the traced
            :class:`torch.fx.GraphModule`, which shares parameters and submodules with ``model`` (hooks of modules that were
            traced through are not part of it). Default: ``False``.
        report: called with one line per replacement (``print``, ``list.append``, …). Default: ``logging`` at INFO.

    Returns:
        ``model``, its copy, or the ``GraphModule`` made of either.

    Raises:
        TypeError: ``model`` is not a module.
        torch.fx.proxy.TraceError: ``functional``, and ``model`` cannot be traced (its code may raise others on proxies).
    """
    return _replace(model, nn.LeakyReLU, LeakyReLU, _OUR_CALLS if functional else {}, copy, report)


def revert(model: nn.Module, *, copy: bool = False, functional: bool = False, report: _Report | None = None) -> nn.Module:
    """Undoes :func:`convert`: every :class:`leakyrelu_ext.LeakyReLU` becomes a :class:`torch.nn.LeakyReLU`.

    Arguments, result and errors are those of :func:`convert`.
    """
    return _replace(model, LeakyReLU, nn.LeakyReLU, _BUILTIN_CALLS if functional else {}, copy, report)


def _replace(
    model: nn.Module,
    old: type[nn.Module],
    new: type[nn.Module],
    calls: dict[object, Callable[..., torch.Tensor]],
    copy: bool,
    report: _Report | None,
) -> nn.Module:
    if not isinstance(model, nn.Module):
        raise TypeError(f"argument 'model' must be a torch.nn.Module, got {type(model).__name__}")
    report = report or _logger.info
    if copy:
        model = copying.deepcopy(model)
    for name, module in model.named_modules():
        if type(module) is old:
            module.__class__ = new
            report(f"{name or 'the model itself'}: {old.__module__}.{old.__name__} -> {new.__module__}.{module}")
    return _replace_calls(model, calls, report) if calls else model


def _replace_calls(model: nn.Module, calls: dict[object, Callable[..., torch.Tensor]], report: _Report) -> nn.Module:
    traced = model if isinstance(model, fx.GraphModule) else fx.symbolic_trace(model)
    sites = [node for node in traced.graph.nodes if node.op == "call_function" and node.target in calls]
    for node in sites:
        target = calls[node.target]
        report(f"call {node.name}: {node.target} -> {target.__module__}.{target.__name__}")
        node.target = target
    if not sites:
        return model
    traced.recompile()
    return traced
