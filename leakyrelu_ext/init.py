"""Initialisation for the slope that really follows each layer."""

from __future__ import annotations

import copy
import itertools
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.overrides import TorchFunctionMode

from .fusion import sum_leaky_relu, without_bias
from .modules import AddLeakyReLU, BiasLeakyReLU
from .tracing import Tracer

_Conv = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
_Transposed = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
_LAYERS = (nn.Linear, *_Conv, *_Transposed)
# What their outputs go into is not what the layer before them is followed by.
_OTHER_LAYERS = (
    *(nn.Bilinear, nn.RNNBase, nn.RNNCellBase, nn.MultiheadAttention),
    *(nn.Transformer, nn.TransformerEncoderLayer, nn.TransformerDecoderLayer),
)
_LAYER_CALLS = {"linear", "bilinear", *(f"conv{transposed}{n}d" for transposed in ("", "_transpose") for n in (1, 2, 3))}
_OF_NO_VALUES = {"size", "dim", "numel", "stride", "shape", "ndim", "dtype", "device"}
_gain = nn.init.calculate_gain
# calculate_gain has none for ELU, GELU, SiLU, Mish, Hardswish: they are taken for what they are near to, ReLU.
_LIKE_RELU = (nn.ReLU, nn.ReLU6, nn.ELU, nn.CELU, nn.GELU, nn.SiLU, nn.Mish, nn.Hardswish)
_OTHERS = {nn.Tanh: _gain("tanh"), nn.Sigmoid: _gain("sigmoid"), nn.SELU: _gain("selu")}
_CALLED = {
    **{kind.__name__.lower(): _gain("relu") for kind in _LIKE_RELU},
    **{kind.__name__.lower(): gain for kind, gain in _OTHERS.items()},
}


@dataclass(frozen=True)
class Initialised:
    """What was done to one layer.

    ``followed_by``: the kind of activation that its output goes into, "nothing" where there is none. ``std``: of the weights
    drawn. ``found_by``: "trace" (torch.fx), "example" (the order in which the model ran on it) or "registration" (the order
    of its modules).
    """

    name: str
    kind: str
    followed_by: str
    negative_slope: float | None
    gain: float
    std: float
    found_by: str


class Report(list[Initialised]):
    """A line a layer, in the order of the model's modules; prints as a table."""

    def __str__(self) -> str:
        head = ("layer", "kind", "followed by", "gain", "std", "found by")
        rows = [
            (each.name or "(model)", each.kind, each.followed_by, f"{each.gain:.4g}", f"{each.std:.4g}", each.found_by)
            for each in self
        ]
        widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
        return "\n".join("  ".join(map(str.ljust, row, widths)).rstrip() for row in (head, *rows))


@dataclass(frozen=True)
class _Follower:
    name: str
    slope: float | None
    gain: float


_NOTHING = _Follower("nothing", None, 1.0)


def _leaky(name: str, slope: float, factor: float = 1.0) -> _Follower:
    """``factor``: of the activation's own output, which the weights need not make up for."""
    slope = float(slope)
    return _Follower(f"{name}({slope:g})", slope, _gain("leaky_relu", slope) / (abs(factor) or 1.0))


def _mean(weight: Tensor) -> float:
    return 0.25 if weight.is_meta else weight.detach().float().mean().item()  # what nn.PReLU begins with


def _module_follower(module: nn.Module) -> _Follower | None:
    """None for what is no activation."""
    name = type(module).__name__
    if isinstance(module, nn.LeakyReLU):
        return _leaky(name, module.negative_slope)
    if isinstance(module, (BiasLeakyReLU, AddLeakyReLU)):
        return _leaky(name, module.negative_slope, module.gain)
    if isinstance(module, nn.PReLU):
        return _leaky(name, _mean(module.weight))
    if isinstance(module, nn.RReLU):
        return _leaky(name, (module.lower + module.upper) / 2)
    if isinstance(module, _LIKE_RELU):
        return _Follower(name, 0.0 if isinstance(module, (nn.ReLU, nn.ReLU6)) else None, _gain("relu"))
    for kind, gain in _OTHERS.items():
        if isinstance(module, kind):
            return _Follower(name, None, gain)
    return None


def _called(target: object) -> str:
    """ "leaky_relu" of F.leaky_relu, F.leaky_relu_, ours, Tensor's and ATen's."""
    return str(getattr(target, "__name__", target)).split(".")[0].rstrip("_")


def _call_follower(target: object, args: Sequence[Any], kwargs: Mapping[str, Any]) -> _Follower | None:
    """None for what is no activation."""

    def argument(position: int, name: str, default: Any) -> Any:
        return kwargs.get(name, args[position] if len(args) > position else default)

    name = _called(target)
    if name in ("leaky_relu", "bias_leaky_relu"):
        slope = argument(1 if name == "leaky_relu" else 2, "negative_slope", 0.01)
        factor = kwargs.get("gain", 1.0) if name == "bias_leaky_relu" else 1.0
        if isinstance(slope, (int, float)) and isinstance(factor, (int, float)):
            return _leaky(name, slope, factor)
        return _leaky(name, 0.01)  # computed as the model runs
    if name == "rrelu":
        lower, upper = argument(1, "lower", 1 / 8), argument(2, "upper", 1 / 3)
        return _leaky(name, (lower + upper) / 2)
    if name == "prelu":
        weight = argument(1, "weight", None)
        return _leaky(name, _mean(weight) if isinstance(weight, Tensor) else 0.25)
    if name in _CALLED:
        return _Follower(name, 0.0 if name in ("relu", "relu6") else None, _CALLED[name])
    return None


class _Graph:
    def __init__(self, graph: fx.Graph, root: nn.Module) -> None:
        self.graph, self.root = graph, root

    def _held(self, node: object) -> Any:
        """The module or tensor that ``node`` names (None: the tracer's own); other arguments are what they are."""
        if not isinstance(node, fx.Node) or node.op not in ("call_module", "get_attr"):
            return node
        held: Any = self.root
        for part in str(node.target).split("."):
            held = getattr(held, part, None)
        return held

    def _layer(self, node: fx.Node) -> nn.Module | None:
        held = self._held(node.args[1] if node.target is without_bias else node)
        return held if isinstance(held, _LAYERS) and node.op != "get_attr" else None

    def _follower(self, node: fx.Node) -> _Follower | None:
        if node.op == "call_module":
            return _module_follower(self._held(node))
        args = [self._held(arg) for arg in node.args]
        if node.target is sum_leaky_relu:  # of a converted model
            how = args[1]
            return _module_follower(how) if isinstance(how, nn.Module) else _leaky("leaky_relu", how[0])
        return _call_follower(node.target, args, node.kwargs) if node.op in ("call_function", "call_method") else None

    def _ends(self, node: fx.Node) -> bool:
        if node.op == "call_module" and isinstance(self._held(node), _OTHER_LAYERS):
            return True
        name = str(node.args[1]) if node.target is getattr else _called(node.target)
        return self._layer(node) is not None or (node.op != "call_module" and name in _LAYER_CALLS | _OF_NO_VALUES)

    def _followers(self, layer: fx.Node) -> list[_Follower]:
        """The activations that its output goes into, through whatever is neither one nor another layer."""
        found: list[_Follower] = []
        seen: set[fx.Node] = set()
        todo = list(layer.users)
        while todo:
            user = todo.pop()
            if user in seen:
                continue
            seen.add(user)
            if (follower := self._follower(user)) is not None:
                found.append(follower)
            elif not self._ends(user):
                todo += user.users
        return found

    def followers(self) -> dict[nn.Module, list[_Follower]]:
        found: dict[nn.Module, list[_Follower]] = {}
        for node in self.graph.nodes:
            if (layer := self._layer(node)) is not None:
                found.setdefault(layer, []).extend(self._followers(node))
        return found


def _by_trace(model: nn.Module) -> dict[nn.Module, list[_Follower]]:
    """Nothing where the model cannot be traced."""
    if isinstance(model, fx.GraphModule):
        return _Graph(model.graph, model).followers()
    # Tracing runs the code on proxies, and the code may keep them: it gets a copy that shares the tensors.
    attributes = (value for module in model.modules() for value in vars(module).values())
    tensors = itertools.chain(model.parameters(), model.buffers(), attributes)
    try:
        double = copy.deepcopy(model, {id(tensor): tensor for tensor in tensors if isinstance(tensor, Tensor)})
        graph = Tracer().trace(double)
    except Exception:  # the model's code may raise anything
        return {}
    return _Graph(graph, model).followers()


def _in_order(steps: Iterable[nn.Module | _Follower]) -> dict[nn.Module, list[_Follower]]:
    """The activation that comes next, unless another layer does."""
    found: dict[nn.Module, list[_Follower]] = {}
    latest: nn.Module | None = None
    for step in steps:
        if isinstance(step, _LAYERS):
            latest = step
            found.setdefault(latest, [])
        elif isinstance(step, _OTHER_LAYERS):
            latest = None
        elif latest is not None and (follower := step if isinstance(step, _Follower) else _module_follower(step)):
            found[latest].append(follower)
            latest = None
    return found


class _Calls(TorchFunctionMode):
    """Notes the functions that are activations."""

    def __init__(self, steps: list[nn.Module | _Follower]) -> None:
        super().__init__()
        self.steps = steps

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if (follower := _call_follower(func, args, kwargs or {})) is not None:
            self.steps.append(follower)
        return func(*args, **(kwargs or {}))


def _by_example(model: nn.Module, example: Tensor | tuple[Any, ...]) -> dict[nn.Module, list[_Follower]]:
    steps: list[nn.Module | _Follower] = []
    # In evaluation mode, which draws no random numbers and leaves running statistics alone.
    training = [module for module in model.modules() if module.training]
    handles = [
        module.register_forward_pre_hook(lambda module, _: steps.append(module))
        for module in model.modules()
        if isinstance(module, (*_LAYERS, *_OTHER_LAYERS)) or _module_follower(module) is not None
    ]
    try:
        model.eval()
        with torch.no_grad(), _Calls(steps):
            model(*(example if isinstance(example, tuple) else (example,)))
    finally:
        for handle in handles:
            handle.remove()
        for module in training:
            module.training = True
    return _in_order(steps)


def _fans(layer: nn.Module) -> tuple[float, float]:
    """How many inputs an output sums, and how many outputs an input goes into.

    Not torch's, which takes a transposed convolution's weight, (in, out / groups, …), for (out, in, …), and leaves groups
    out of fan_out. With a stride s only one in s of the taps meets a position of the wider side.
    """
    if isinstance(layer, nn.Linear):
        return layer.in_features, layer.out_features
    assert isinstance(layer, (*_Conv, *_Transposed))
    taps = math.prod(layer.kernel_size)
    met = math.prod(max(1.0, size / step) for size, step in zip(layer.kernel_size, layer.stride, strict=True))
    inputs, outputs = layer.in_channels // layer.groups, layer.out_channels // layer.groups
    return (inputs * met, outputs * taps) if isinstance(layer, _Transposed) else (inputs * taps, outputs * met)


def _std(layer: nn.Module, method: str, mode: str, gain: float) -> float:
    fan_in, fan_out = (fan or 1.0 for fan in _fans(layer))
    if method == "xavier":
        return gain * math.sqrt(2 / (fan_in + fan_out))
    return gain / math.sqrt(fan_in if mode == "fan_in" else fan_out)


def _checked(argument: str, value: str, accepted: Sequence[str]) -> None:
    if value not in accepted:
        raise ValueError(f"argument {argument!r} must be {' or '.join(map(repr, accepted))}, got {value!r}")


def init_for_leaky_relu_(
    module: nn.Module,
    *,
    method: str = "he",
    mode: str = "fan_in",
    distribution: str = "normal",
    example: Tensor | tuple[Any, ...] | None = None,
    generator: torch.Generator | None = None,
) -> Report:
    r"""Draws the weights of every linear and (transposed) convolutional layer with the gain of the activation that follows.

    The weights' standard deviation is :math:`\text{gain} / \sqrt{\text{fan}}` (he), or
    :math:`\text{gain} \sqrt{2 / (\text{fan\_in} + \text{fan\_out})}` (xavier), and the gain
    :math:`\sqrt{2 / (1 + \text{slope}^2)}` before a Leaky ReLU of that slope (less by BiasLeakyReLU's own gain): ReLU is
    slope 0, PReLU and RReLU their mean slope; ELU, GELU, SiLU, Mish and Hardswish are taken for ReLU; tanh, sigmoid and SELU
    have :func:`torch.nn.init.calculate_gain`'s; a layer that none follows has 1. So the mean square of activations (fan_in)
    or gradients (fan_out) stays what it is from layer to layer. Fans count what is really summed, given groups and strides,
    of transposed convolutions too. Biases become 0; norms, embeddings, recurrent layers and what else there is stay as they
    are.

    What follows a layer is found by tracing the model with torch.fx, through norms, pooling, dropout, sums and reshapes, up
    to the next layer; of several activations the one with the largest gain counts. Where a model cannot be traced it is the
    activation that ran next on ``example``, without one the next in the order in which modules were registered. The report
    says which it was.

    Args:
        module: the model, changed in place; any floating-point dtype and device.
        method: ``"he"`` or ``"xavier"``.
        mode: ``"fan_in"`` or ``"fan_out"``; of he only.
        distribution: ``"normal"`` or ``"uniform"``.
        example: an input, or a tuple of all, to run an untraceable model on once: in evaluation mode, without gradients.
        generator: where the numbers come from. Default: torch's own of the weights' device.

    Returns:
        A list with one :class:`Initialised` per layer; printed, it is a table.

    Raises:
        TypeError: ``module`` is no :class:`torch.nn.Module`, or wrapped in DistributedDataParallel.
        ValueError: another ``method``, ``mode`` or ``distribution``; no such layer in ``module``; a lazy layer that has not
            run yet; a layer whose weight or bias is parametrized; an activation of infinite or NaN slope. Nothing has
            changed then.

    He et al.: Delving Deep into Rectifiers, ICCV 2015, arXiv:1502.01852 (eq. 15 for the slope); Glorot, Bengio:
    Understanding the difficulty of training deep feedforward neural networks, AISTATS 2010.

    Example::

        >>> model = nn.Sequential(nn.Linear(8, 8), nn.LeakyReLU(0.2), nn.Linear(8, 2))
        >>> print(init_for_leaky_relu_(model))
        layer  kind    followed by     gain   std     found by
        0      Linear  LeakyReLU(0.2)  1.387  0.4903  trace
        2      Linear  nothing         1      0.3536  trace
    """
    if not isinstance(module, nn.Module):
        raise TypeError(f"argument 'module' must be a torch.nn.Module, got {type(module).__name__}")
    if isinstance(module, nn.parallel.DistributedDataParallel):
        raise TypeError(
            "argument 'module' must not be a DistributedDataParallel, whose processes would draw different weights: "
            "initialise the model before it is wrapped"
        )
    _checked("method", method, ("he", "xavier"))
    _checked("mode", mode, ("fan_in", "fan_out"))
    _checked("distribution", distribution, ("normal", "uniform"))
    module = getattr(module, "_orig_mod", module)  # of torch.compile
    layers = {name: layer for name, layer in module.named_modules() if isinstance(layer, _LAYERS)}
    if not layers:
        raise ValueError(f"argument 'module' ({type(module).__name__}) has no linear or convolutional layer")
    for name, layer in layers.items():
        if isinstance(layer._parameters.get("weight"), nn.UninitializedParameter):
            raise ValueError(f"argument 'module': {name or 'it'} is lazy: run the model once before")
        for of in ("weight", "bias"):
            if of not in layer._parameters or nn.utils.parametrize.is_parametrized(layer, of):
                raise ValueError(f"argument 'module': the {of} of {name or 'it'} is parametrized: initialise before that")
    # Each is asked about the layers that those before do not know. A trace does not enter torch's own modules, for example.
    ways: dict[str, Callable[[], dict[nn.Module, list[_Follower]]]] = {
        "trace": partial(_by_trace, module),
        "example": partial(_by_example, module, example) if example is not None else dict,
        "registration": lambda: _in_order(each for _, each in module.named_modules(remove_duplicate=False)),
    }
    found: dict[nn.Module, tuple[str, list[_Follower]]] = {}
    for way, ask in ways.items():
        if not found.keys() >= set(layers.values()):
            found = {**{layer: (way, followers) for layer, followers in ask().items()}, **found}
    report = Report()
    for name, layer in layers.items():
        found_by, followers = found[layer]
        # The largest: it makes up for the one that passes the least on, so that no path loses variance.
        follower = max(followers, key=lambda each: each.gain, default=_NOTHING)
        if not 0 < follower.gain < math.inf:
            raise ValueError(f"argument 'module': {name or 'it'} is followed by {follower.name}, for which there is no gain")
        std = _std(layer, method, mode, follower.gain)
        report.append(Initialised(name, type(layer).__name__, follower.name, follower.slope, follower.gain, std, found_by))
    for layer, drawn in zip(layers.values(), report, strict=True):
        _draw_(layer, drawn.std, distribution, generator)
    return report


def _draw_(layer: nn.Module, std: float, distribution: str, generator: torch.Generator | None) -> None:
    weight, bias = layer.weight, layer.bias
    assert isinstance(weight, Tensor)
    if distribution == "normal":
        nn.init.normal_(weight, std=std, generator=generator)
    else:
        nn.init.uniform_(weight, -math.sqrt(3) * std, math.sqrt(3) * std, generator=generator)
    if isinstance(bias, Tensor):
        nn.init.zeros_(bias)
