"""Bias, residual and dropout around a Leaky ReLU as one call, in graphs: what convert(fuse=True) finds and puts there."""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

from ._composite import FLOATING
from .functional import bias_leaky_relu, leaky_relu, leaky_relu_
from .modules import LeakyReLU
from .tracing import augmented, has_hooks

_Calls = Mapping[object, Callable[..., Tensor]]

# Layers with a bias, and the dimension of their output that it belongs to, with and without a batch.
_BIAS_DIM: dict[type[nn.Module], int] = {
    nn.Linear: -1,
    nn.Conv1d: -2,
    nn.Conv2d: -3,
    nn.Conv3d: -4,
    nn.ConvTranspose1d: -2,
    nn.ConvTranspose2d: -3,
    nn.ConvTranspose3d: -4,
}
_TRANSPOSED: dict[type[nn.Module], Callable[..., Tensor]] = {
    nn.ConvTranspose1d: F.conv_transpose1d,
    nn.ConvTranspose2d: F.conv_transpose2d,
    nn.ConvTranspose3d: F.conv_transpose3d,
}
_NORMS = (
    *(nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm),
    *(nn.InstanceNorm1d, nn.InstanceNorm2d, nn.InstanceNorm3d, nn.GroupNorm, nn.LayerNorm),
)
# Their outputs share no memory with anything.
_FRESH = {*_BIAS_DIM, *_NORMS}


# What a fused graph calls. The modules come as arguments, looked up by name and asked at every call: slopes, probabilities,
# modes, hooks, parametrizations and whole modules may be changed after conversion.


def _is_plain(module: nn.Module) -> bool:
    return not has_hooks(module) and "forward" not in module.__dict__


def without_bias(input: Tensor, layer: nn.Module) -> tuple[Tensor, Tensor | None, int]:
    """``layer(input)`` without its bias, the bias, and the dimension that it belongs to.

    If ``layer`` must be called to do all that it does (hooks, another class by now), its output and no bias.
    """
    if isinstance(input, fx.Proxy):  # a leaf of traces; subclasses of Tensor are to see the operators, not this
        return input.tracer.create_proxy("call_function", without_bias, (input, layer), {})
    kind = type(layer)
    if kind not in _BIAS_DIM or layer.bias is None or not _is_plain(layer):
        return layer(input), None, 1
    c: Any = layer
    if kind is nn.Linear:
        output = F.linear(input, c.weight)
    elif kind in _TRANSPOSED:
        geometry = c.stride, c.padding, c.output_padding, c.groups, c.dilation
        output = _TRANSPOSED[kind](input, c.weight, None, *geometry)
    else:
        output = c._conv_forward(input, c.weight, None)
    return output, c.bias, _BIAS_DIM[kind]


def _fits(input: Any, residual: Any, in_place: bool = False) -> bool:
    """Whether bias_leaky_relu computes ``input + residual``, or ``input += residual``: ``input`` has the sum's shape."""
    if not isinstance(input, Tensor) or not isinstance(residual, Tensor):
        return False
    if input.dtype not in FLOATING or residual.dtype not in FLOATING or input.device != residual.device:
        return False
    if any(t.layout != torch.strided or t.is_nested for t in (input, residual)):
        return False
    if input.dtype != residual.dtype and 0 in (input.dim(), residual.dim()):
        return False  # tensors without dimensions do not promote
    if in_place and torch.promote_types(input.dtype, residual.dtype) != input.dtype:
        return False
    sizes = zip(reversed(input.shape), reversed(residual.shape), strict=False)
    return residual.dim() <= input.dim() and all(r == n or r == 1 for n, r in sizes)


def _how(activation: nn.Module | tuple[float, bool], dropout: nn.Module | float | None) -> tuple[float, bool, float] | None:
    """Slope, whether to overwrite, and the probability that counts; None if a module must be called."""
    if isinstance(activation, nn.Module):
        if type(activation) not in (nn.LeakyReLU, LeakyReLU) or not _is_plain(activation):
            return None
        how: Any = (activation.negative_slope, activation.inplace)
    else:
        how = activation
    if isinstance(dropout, nn.Module):
        if type(dropout) is not nn.Dropout or not _is_plain(dropout):
            return None
        dropout = dropout.p if dropout.training else 0.0
    return *how, dropout or 0.0


def sum_leaky_relu(
    source: Any,
    activation: nn.Module | tuple[float, bool],
    dropout: nn.Module | float | None,
    residual: Any,
    in_place: bool,
) -> Any:
    """``dropout(activation(source + residual))``, by bias_leaky_relu if it can be.

    Args:
        source: a tensor, or what :func:`without_bias` returns.
        activation: module, or slope and whether to overwrite.
        dropout: module, probability, or None.
        residual: tensor, or None. Which of the two has the shape of the sum is seen here only.
        in_place: the sum is ``source += residual``.
    """
    for value in (source, residual):
        if isinstance(value, fx.Proxy):
            arguments = (source, activation, dropout, residual, in_place)
            return value.tracer.create_proxy("call_function", sum_leaky_relu, arguments, {})
    input, bias, dim = source if isinstance(source, tuple) else (source, None, 1)
    how = _how(activation, dropout)
    if how is not None and (residual is None or _fits(input, residual, in_place)):
        slope, overwrite, p = how
        if residual is not None:  # only a layer's own output is nobody else's
            overwrite = overwrite and bias is not None and residual.dtype == input.dtype
        return bias_leaky_relu(input, bias, slope, residual=residual, dim=dim, dropout_p=p, inplace=overwrite)
    if how is not None and bias is None and not in_place and _fits(residual, input):
        slope, _, p = how
        return bias_leaky_relu(residual, None, slope, residual=input, dropout_p=p)
    if bias is not None:
        shape = [1] * input.dim()
        shape[dim] = -1
        input = input + bias.to(input.dtype).view(shape)
    if residual is not None:
        input = augmented("iadd", input, residual) if in_place else input + residual
    output = activation(input) if isinstance(activation, nn.Module) else leaky_relu(input, *activation)
    if dropout is None:
        return output
    return dropout(output) if isinstance(dropout, nn.Module) else F.dropout(output, dropout)


# Where it goes.


class Site(NamedTuple):
    """Nodes that become one call: at most ``dropout(activation(add(layer, other)))``."""

    layer: fx.Node | None
    add: fx.Node | None
    activation: fx.Node
    dropout: fx.Node | None

    def __str__(self) -> str:
        return " + ".join(_name(node) for node in self if node is not None)


def _name(node: fx.Node) -> str:
    if node.target is augmented:
        return str(node.args[0])
    return str(node.target) if node.op == "call_module" else node.name


def _module(node: object, root: nn.Module) -> nn.Module | None:
    if isinstance(node, fx.Node) and node.op == "call_module":
        return root.get_submodule(str(node.target))
    return None


def _bound(node: fx.Node, **defaults: Any) -> dict[str, Any]:
    """The arguments by name."""
    given = {"input" if name == "self" else name: value for name, value in node.kwargs.items()}  # ATen's name for it
    return {**defaults, **dict(zip(defaults, node.args, strict=False)), **given}


def _input(node: fx.Node) -> fx.Node | None:
    """The module's only argument."""
    arguments = [*node.args, *node.kwargs.values()]
    return arguments[0] if len(arguments) == 1 and isinstance(arguments[0], fx.Node) else None


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float))


def _activation(node: fx.Node, root: nn.Module, calls: _Calls) -> tuple[fx.Node | None, tuple[float, bool] | None]:
    """What goes into a Leaky ReLU; of a call also its slope and whether it overwrites. None if ``node`` is none."""
    if type(_module(node, root)) in (nn.LeakyReLU, LeakyReLU):
        return _input(node), None
    if node.op == "call_function" and node.target in calls:
        bound = _bound(node, input=None, negative_slope=0.01, inplace=False)
        input, slope, inplace = bound["input"], bound["negative_slope"], bound["inplace"]
        if len(bound) == 3 and isinstance(input, fx.Node) and _is_number(slope) and isinstance(inplace, bool):
            return input, (slope, inplace or calls[node.target] is leaky_relu_)
    return None, None


def _dropout_p(node: fx.Node) -> float | None:
    """The probability of a call of F.dropout."""
    if node.op != "call_function" or node.target is not F.dropout:
        return None
    bound = _bound(node, input=None, p=0.5, training=True, inplace=False)
    if not _is_number(bound["p"]) or not isinstance(bound["training"], bool) or len(bound) != 4:
        return None
    return float(bound["p"]) if bound["training"] else 0.0


def _operands(node: fx.Node) -> tuple[fx.Node, fx.Node] | None:
    """Of a sum of two nodes, whatever they will be."""
    args, alpha = node.args, dict(node.kwargs)
    if node.op == "call_function" and node.target is augmented and args[0] == "iadd":
        args = args[1:]
    elif not (
        (node.op == "call_function" and node.target in (operator.add, torch.add))
        or (node.op == "call_method" and node.target in ("add", "__add__"))
    ):
        return None
    if alpha.pop("alpha", 1) != 1 or alpha or len(args) != 2 or not all(isinstance(arg, fx.Node) for arg in args):
        return None
    return args[0], args[1]  # type: ignore[return-value]


def _obstacle(node: fx.Node, root: nn.Module) -> str | None:
    """Why the node must stay a call of its own."""
    module = _module(node, root)
    if module is not None and has_hooks(module):
        return f"{_name(node)} has hooks"
    if module is not None and "forward" in module.__dict__:
        return f"{_name(node)} has a forward of its own"
    if module is not None and _input(node) is None:
        return f"{_name(node)} takes more than its input"
    return None


def _used_elsewhere(node: fx.Node) -> str | None:
    return f"the output of {_name(node)} is used elsewhere" if len(node.users) > 1 else None


def _layer_obstacle(node: fx.Node, root: nn.Module) -> str | None:
    module = _module(node, root)
    if type(module) not in _BIAS_DIM:
        return f"{_name(node)} is a {type(module).__module__}.{type(module).__name__}"
    return _used_elsewhere(node) or _obstacle(node, root)


def _has_bias(node: object, root: nn.Module) -> bool:
    module = _module(node, root)
    return isinstance(module, tuple(_BIAS_DIM)) and getattr(module, "bias", None) is not None


def _is_private(node: fx.Node, root: nn.Module) -> bool:
    """Nobody else sees the output, before or after."""
    return type(_module(node, root)) in _FRESH and len(node.users) == 1 and _obstacle(node, root) is None


def find(graph: fx.Graph, root: nn.Module, calls: _Calls) -> tuple[list[Site], list[str]]:
    """The sites of ``graph``, whose modules are ``root``'s, and a line for each that nearly is one.

    Args:
        graph: not changed.
        root: holds the modules that the graph names.
        calls: the functions that are a Leaky ReLU, and for each ``leaky_relu`` or ``leaky_relu_``.
    """
    sites, lines = [], []
    for activation in graph.nodes:
        source, _ = _activation(activation, root, calls)
        if source is None:
            continue
        layer = add = dropout = None
        obstacles: list[str | None] = []
        if operands := _operands(source):
            left, right = operands
            in_place = source.target is augmented
            add = source
            obstacles.append(_used_elsewhere(source))
            if in_place and not _is_private(left, root):
                obstacles.append(f"{_name(source)} overwrites the output of {_name(left)}, which may be used elsewhere")
            for operand in (left,) if in_place else (left, right):
                if layer is None and _has_bias(operand, root) and left is not right:
                    if obstacle := _layer_obstacle(operand, root):
                        lines.append(f"{_name(operand)} + {_name(source)}: bias not fused, {obstacle}")
                    else:
                        layer = operand
        elif _has_bias(source, root):
            layer = source
            obstacles.append(_layer_obstacle(source, root))
        else:
            continue
        obstacles.append(_obstacle(activation, root))
        if found := next(filter(None, obstacles), None):
            lines.append(f"{_name(source)} + {_name(activation)}: not fused, {found}")
            continue
        if len(activation.users) == 1:
            user = next(iter(activation.users))
            if type(_module(user, root)) is nn.Dropout or (_dropout_p(user) is not None and user.args[:1] == (activation,)):
                if obstacle := _obstacle(user, root):
                    lines.append(f"{_name(activation)} + {_name(user)}: not fused, {obstacle}")
                else:
                    dropout = user
        sites.append(Site(layer, add, activation, dropout))
    return sites, lines


def fuse(graph_module: fx.GraphModule, calls: _Calls) -> list[str]:
    """Rewires all sites, in place. Returns a line per site, and those of :func:`find`."""
    graph = graph_module.graph
    sites, lines = find(graph, graph_module, calls)
    for site in sites:
        _rewire(graph, site, graph_module, calls)
    if sites:
        graph.lint()
        graph_module.recompile()
    return [f"fused {site}: bias_leaky_relu" for site in sites] + lines


def _rewire(graph: fx.Graph, site: Site, root: nn.Module, calls: _Calls) -> None:
    layer, add, activation, dropout = site
    source: Any
    residual = None
    if add is not None:
        operands = _operands(add)
        assert operands is not None
        source, residual = operands
        if layer is not None:
            source, residual = layer, next(operand for operand in operands if operand is not layer)
    if layer is not None:
        # Both calls stand where their inputs were read, so that what overwrites those in between keeps its effect.
        with graph.inserting_before(layer):
            source = graph.call_function(without_bias, (_input(layer), graph.get_attr(str(layer.target))))
    with graph.inserting_before(add or layer):
        how = _activation(activation, root, calls)[1] or graph.get_attr(str(activation.target))
        drop = None
        if dropout is not None:
            p = _dropout_p(dropout)
            drop = graph.get_attr(str(dropout.target)) if p is None else p
        arguments = (source, how, drop, residual, add is not None and add.target is augmented)
        fused = graph.call_function(sum_leaky_relu, arguments)
    (dropout or activation).replace_all_uses_with(fused)
    for node in (dropout, activation, add, layer):
        if node is not None:
            graph.erase_node(node)


def unfuse(graph_module: fx.GraphModule) -> list[str]:
    """Undoes :func:`fuse`, in place; calls of F.leaky_relu become calls of ours. Returns a line per site."""
    graph, lines = graph_module.graph, []
    for fused in list(graph.nodes):
        if fused.op != "call_function" or fused.target is not sum_leaky_relu:
            continue
        source, activation, dropout, residual, in_place = fused.args
        parts: list[fx.Node] = []

        def call(module: Any, input: Any, parts: list[fx.Node] = parts) -> fx.Node:
            parts.append(graph.call_module(module.target, (input,)))
            return parts[-1]

        output: Any = source
        if source.target is without_bias:
            with graph.inserting_before(source):
                input, layer = source.args
                output = call(layer, input)
        with graph.inserting_before(fused):
            if residual is not None:
                target, first = (augmented, ("iadd",)) if in_place else (operator.add, ())
                parts.append(output := graph.call_function(target, (*first, output, residual)))
            if isinstance(activation, fx.Node):
                output = call(activation, output)
            else:
                parts.append(output := graph.call_function(leaky_relu, (output, *activation)))
            if isinstance(dropout, fx.Node):
                output = call(dropout, output)
            elif dropout is not None:
                parts.append(output := graph.call_function(F.dropout, (output, dropout)))
        fused.replace_all_uses_with(output)
        lines.append(f"unfused {' + '.join(map(_name, parts))}")
        for node in (fused, source, *source.args, activation, dropout):
            unused = isinstance(node, fx.Node) and not node.users and node.op != "placeholder"
            if unused and (node.target in (sum_leaky_relu, without_bias) or node.op == "get_attr"):
                graph.erase_node(node)
    if lines:
        graph.lint()
        graph_module.recompile()
    return lines
