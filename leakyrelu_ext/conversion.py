"""Models that exist already: from PyTorch's Leaky ReLU to ours, and back."""

from __future__ import annotations

import copy as copying
import inspect
import itertools
import logging
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import fx, nn

from . import fusion
from .functional import leaky_relu, leaky_relu_
from .modules import LeakyReLU
from .tracing import Tracer, has_hooks

_logger = logging.getLogger("leakyrelu_ext")
_Report = Callable[[str], object]
_Calls = dict[object, Callable[..., torch.Tensor]]

# Call sites in an FX graph, the built-in's and ours.
_OUR_CALLS: _Calls = {
    F.leaky_relu: leaky_relu,
    torch._C._nn.leaky_relu: leaky_relu,
    torch.ops.aten.leaky_relu: leaky_relu,
    torch.ops.aten.leaky_relu.default: leaky_relu,
    torch._C._nn.leaky_relu_: leaky_relu_,  # F.leaky_relu_ is this one
    torch.ops.aten.leaky_relu_: leaky_relu_,
    torch.ops.aten.leaky_relu_.default: leaky_relu_,
}
_BUILTIN_CALLS: _Calls = {leaky_relu: F.leaky_relu, leaky_relu_: F.leaky_relu_}


_CALLS: _Calls = {**_OUR_CALLS, leaky_relu: leaky_relu, leaky_relu_: leaky_relu_}


def convert(
    model: nn.Module,
    *,
    copy: bool = False,
    functional: bool = False,
    fuse: bool = False,
    report: _Report | None = None,
) -> nn.Module:
    """Makes every :class:`torch.nn.LeakyReLU` in ``model`` a :class:`leakyrelu_ext.LeakyReLU`.

    The modules stay the objects they are, of another class: slopes, ``inplace``, hooks, training flags, names, shared
    instances and references from elsewhere are kept. Subclasses of ``nn.LeakyReLU`` and instances with a ``forward`` of
    their own are left alone, and that is reported. Converting twice is converting once. :func:`revert` before PyTorch's
    eager or FX quantization, which knows its own modules only.

    Args:
        model: any module tree, or a single ``nn.LeakyReLU``.
        copy: convert a deep copy and leave ``model`` as it is. Default: ``False``, in place.
        functional: also replace calls of ``torch.nn.functional.leaky_relu``, by tracing with :mod:`torch.fx`. If there are
            such calls, the result is a :class:`torch.fx.GraphModule` with all parameters, buffers and submodules of
            ``model``, but not its class, methods and other attributes; checkpointing in its code is not kept. Default:
            ``False``.
        fuse: also make ``dropout(leaky_relu(layer(x) + residual))`` one call of :func:`leakyrelu_ext.bias_leaky_relu`. The
            layer, a convolution, transposed convolution or :class:`torch.nn.Linear` with a bias, may be missing, or the
            residual; the dropout (:class:`torch.nn.Dropout`, ``F.dropout``) too. Implies ``functional``; see below.
            Default: ``False``.
        report: called with one line per replacement (``print``, ``list.append``, …). Default: ``logging`` at INFO.

    Returns:
        ``model``, its copy, or the ``GraphModule`` made of either.

    With ``fuse`` all modules stay where they are, with their parameters and names, and are asked at every call: a slope,
    probability or mode changed later counts, and a module that has got hooks or a parametrization, or another module in its
    place, is called as before. Nothing is fused whose output is used elsewhere, nor a module that has hooks or a ``forward``
    of its own, nor a layer that is called with more than its input or is of a subclass; what was nearly fused is reported.
    Which summand has the sum's shape is seen at run time: if neither has, PyTorch's own ops compute the sum.

    The results are the model's but for rounding. A layer's bias is added to the sum of its ``n`` products
    (``in_channels / groups * kernel size``, or ``in_features``), not somewhere within it. However those are summed, two
    results differ before the activation by at most ``2 * g * (sum(abs(weight * input)) + abs(bias) + abs(residual))``, where
    ``g = k * u / (1 - k * u)``, ``k = n + 2``, ``u = 2**-24`` in float32 and ``2**-53`` in float64 (Higham: Accuracy and
    Stability of Numerical Algorithms, 2002, section 3.1; not for Winograd's algorithm or FFTs); usually, by a unit in the
    last place. A value that near to 0 may take the other slope, backwards too. Sums without a layer are the same bits in
    float32 and float64. In 16-bit dtypes, and under autocast, sums are not rounded before the activation. Dropout draws
    other random numbers than PyTorch's.

    Raises:
        TypeError: ``model`` is not a module; ``functional`` or ``fuse``, and ``model`` is compiled, scripted or wrapped for
            distribution (convert it before).
        ValueError: ``functional`` or ``fuse``, and the traced model would compute something else: its code depends on
            ``training`` or on optional arguments, switches grad mode or autocast, makes tensors of its own, assigns
            buffers, or has hooks where it is traced through.
        torch.fx.proxy.TraceError: ``functional`` or ``fuse``, and ``model`` cannot be traced (its code may raise others on
            proxies). After any of these errors ``model`` is as it was.
    """
    calls = _OUR_CALLS if functional or fuse else {}
    return _replace(model, nn.LeakyReLU, LeakyReLU, calls, copy, report, fuse=fuse)


def revert(model: nn.Module, *, copy: bool = False, functional: bool = False, report: _Report | None = None) -> nn.Module:
    """Undoes :func:`convert`: every :class:`leakyrelu_ext.LeakyReLU` becomes a :class:`torch.nn.LeakyReLU`.

    What was fused becomes calls of its parts again, which compute the model's bits (calls of ``leaky_relu`` among them stay
    ours unless ``functional``). Arguments, result and errors are those of :func:`convert`.
    """
    return _replace(model, LeakyReLU, nn.LeakyReLU, _BUILTIN_CALLS if functional else {}, copy, report, unfuse=True)


def _replace(
    model: nn.Module,
    old: type[nn.Module],
    new: type[nn.Module],
    calls: _Calls,
    copy: bool,
    report: _Report | None,
    *,
    fuse: bool = False,
    unfuse: bool = False,
) -> nn.Module:
    if not isinstance(model, nn.Module):
        raise TypeError(f"argument 'model' must be a torch.nn.Module, got {type(model).__name__}")
    report = report or _logger.info
    if copy:
        model = copying.deepcopy(model)
    lines: list[str] = []

    def has_sites(graph: fx.Graph) -> bool:
        sites, nearly = fusion.find(graph, model, _CALLS) if fuse else ([], [])
        if sites or _sites(graph, calls):
            return True
        lines.extend(nearly)
        return False

    traced = None
    if calls and not isinstance(model, fx.GraphModule):  # first: it may raise
        traced = _trace(model, has_sites)
    inner = [module for module in model.modules() if isinstance(module, fx.GraphModule)]
    for graph_module in [traced, *inner] if traced is not None else inner:
        if fuse:
            lines += fusion.fuse(graph_module, _CALLS)
        if unfuse:
            lines += fusion.unfuse(graph_module)
        lines += _replace_calls(graph_module, calls)
    for name, module in model.named_modules():
        what = name or "the model itself"
        if type(module) is old and "forward" not in module.__dict__:
            module.__class__ = new
            lines.append(f"{what}: {old.__module__}.{old.__name__} -> {new.__module__}.{module}")
        elif isinstance(module, old) and type(module) not in (old, new):
            lines.append(f"{what}: left alone, it is a {type(module).__module__}.{type(module).__name__}")
        elif type(module) is old:
            lines.append(f"{what}: left alone, it has a forward of its own")
    for line in lines:
        report(line)
    return model if traced is None else traced


def _sites(graph: fx.Graph, calls: _Calls) -> list[fx.Node]:
    return [node for node in graph.nodes if node.op == "call_function" and node.target in calls]


def _name(target: Any) -> str:
    return f"{target.__module__}.{target.__name__}" if inspect.isfunction(target) else str(target)


def _replace_calls(graph_module: fx.GraphModule, calls: _Calls) -> list[str]:
    """Returns a line per call replaced."""
    lines = []
    for node in _sites(graph_module.graph, calls):
        target = calls[node.target]
        lines.append(f"call {node.name}: {_name(node.target)} -> {_name(target)}")
        node.target = target
        if "self" in node.kwargs:  # ATen's name for it
            node.kwargs = {"input" if key == "self" else key: value for key, value in node.kwargs.items()}
    if lines:
        graph_module.recompile()
    return lines


def _loses(model: nn.Module, lost: list[str]) -> ValueError:
    return ValueError(
        f"argument 'model' ({type(model).__name__}) cannot be converted with 'functional' or 'fuse': the traced model would "
        "lose " + "; ".join(dict.fromkeys(lost))
    )


def _trace(model: nn.Module, has_sites: Callable[[fx.Graph], bool]) -> fx.GraphModule | None:
    """A GraphModule over all that ``model`` holds, which is not run itself; None unless its graph ``has_sites``."""
    wrappers = (torch.jit.ScriptModule, nn.parallel.DistributedDataParallel)
    if isinstance(model, wrappers) or hasattr(model, "_orig_mod"):
        raise TypeError(
            f"argument 'model' must not be a {type(model).__name__} if 'functional' or 'fuse': "
            "convert the model before it is compiled, scripted or wrapped"
        )
    # Tracing runs the code on proxies, and the code may keep them: it gets a copy that shares the tensors.
    attributes = (value for module in model.modules() for value in vars(module).values())
    tensors = itertools.chain(model.parameters(), model.buffers(), attributes)
    double = copying.deepcopy(model, {id(tensor): tensor for tensor in tensors if isinstance(tensor, torch.Tensor)})
    tracer = Tracer()
    lost = tracer.lost
    try:
        graph = tracer.trace(double.train())
    except TypeError as error:  # a module of torch 2.7 takes no proxy as a buffer
        if "as buffer" not in str(error):
            raise
        raise _loses(model, ["buffers that its code assigns"]) from error
    if not has_sites(graph):
        return None
    if has_hooks(model):
        lost.append("its hooks")
    if any(isinstance(buffer, fx.Proxy) for module in double.modules() for buffer in module._buffers.values()):
        lost.append("buffers that its code assigns")
    elif str(graph) != str(Tracer().trace(double.eval())):
        lost.append("what depends on 'training'")
    if any(node.op == "get_attr" and str(node.target).startswith("_tensor_constant") for node in graph.nodes):
        lost.append("tensors that its code makes (they would be constants)")
    optional = inspect.signature(model.forward).parameters.values()
    if names := [parameter.name for parameter in optional if parameter.default is None]:
        lost.append(f"optional arguments ({', '.join(names)})")
    if lost:
        raise _loses(model, lost)
    traced = fx.GraphModule(double, graph, type(model).__name__)
    # All that is the model's, also what the graph does not use: checkpoints must fit, optimizers see all parameters.
    for name in ("_parameters", "_buffers", "_non_persistent_buffers_set", "_modules"):
        held = getattr(traced, name)
        held.clear()
        held.update(getattr(model, name))
    traced.training = model.training
    return traced
