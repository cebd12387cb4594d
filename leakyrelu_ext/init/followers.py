"""Finds the activation that follows each layer: by running a copy of the model, or by the order of registration."""

from __future__ import annotations

import contextlib
import copy
import random
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves, tree_map
from torch.utils.hooks import RemovableHandle
from torch.utils.weak import WeakTensorKeyDictionary

from ..modules import AddLeakyReLU, BiasLeakyReLU

LAYERS = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
# An activation after one of these does not count for the layer before.
_OTHER_LAYERS = (nn.Bilinear, nn.RNNBase, nn.RNNCellBase, nn.MultiheadAttention)
_TRANSFORMER_LAYERS = (nn.TransformerEncoderLayer, nn.TransformerDecoderLayer)
_LAYER_CALLS = {
    *("linear", "bilinear"),
    *(f"conv{transposed}{n}d" for transposed in ("", "_transpose") for n in (1, 2, 3)),
}
# With a parameter these count as layers, too, though no module calls them.
_PRODUCTS = {"matmul", "__matmul", "__rmatmul", "mm", "bmm", "addmm", "baddbmm", "einsum"}
_OF_THE_FIRST = {"type_as", "expand_as", "view_as", "reshape_as"}  # they take only shape or dtype from the other one
_gain = nn.init.calculate_gain
# calculate_gain has no gain for ELU, CELU, GELU, SiLU, Mish and Hardswish: they count as ReLU, which they resemble.
_LIKE_RELU = (nn.ReLU, nn.ReLU6, nn.ELU, nn.CELU, nn.GELU, nn.SiLU, nn.Mish, nn.Hardswish)
_OTHERS = {nn.Tanh: _gain("tanh"), nn.Sigmoid: _gain("sigmoid"), nn.SELU: _gain("selu")}
_CALLED = {
    **{kind.__name__.lower(): _gain("relu") for kind in _LIKE_RELU},
    **{kind.__name__.lower(): gain for kind, gain in _OTHERS.items()},
}


@dataclass(frozen=True)
class Follower:
    """An activation. ``slope``: None if it is not a (Leaky) ReLU."""

    name: str
    slope: float | None
    gain: float


NOTHING = Follower("nothing", None, 1.0)
Followers = dict[nn.Module, list[Follower]]


def _leaky(name: str, slope: float, factor: float = 1.0) -> Follower:
    """``factor``: the activation's own gain, which the weights need not supply."""
    slope = float(slope)
    return Follower(f"{name}({slope:g})", slope, _gain("leaky_relu", slope) / (abs(factor) or 1.0))


def _mean(weight: Tensor) -> float:
    return 0.25 if weight.is_meta else weight.detach().float().mean().item()  # nn.PReLU's initial slope


def _module_follower(module: nn.Module) -> Follower | None:
    """None if the module is not an activation."""
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
        return Follower(name, 0.0 if isinstance(module, (nn.ReLU, nn.ReLU6)) else None, _gain("relu"))
    for kind, gain in _OTHERS.items():
        if isinstance(module, kind):
            return Follower(name, None, gain)
    return None


def _called(target: object) -> str:
    """The plain name of a function: ``leaky_relu`` for ``F.leaky_relu``, ``F.leaky_relu_``, ours, Tensor's and ATen's."""
    return str(getattr(target, "__name__", target)).split(".")[0].rstrip("_")


def _call_follower(target: object, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Follower | None:
    """None if the call is not an activation."""

    def argument(position: int, name: str, default: Any) -> Any:
        return kwargs.get(name, args[position] if len(args) > position else default)

    name = _called(target).removesuffix("_forward")
    if name in ("leaky_relu", "bias_leaky_relu"):
        slope = argument(1 if name == "leaky_relu" else 2, "negative_slope", 0.01)
        factor = argument(5, "gain", 1.0) if name == "bias_leaky_relu" else 1.0
        return _leaky(name, slope, factor)
    if name == "rrelu":
        lower, upper = argument(1, "lower", 1 / 8), argument(2, "upper", 1 / 3)
        return _leaky(name, (lower + upper) / 2)
    if name == "prelu":
        weight = argument(1, "weight", None)
        return _leaky(name, _mean(weight) if isinstance(weight, Tensor) else 0.25)
    if name in _CALLED:
        return Follower(name, 0.0 if name in ("relu", "relu6") else None, _CALLED[name])
    return None


class _Watch(TorchFunctionMode):
    """Finds the activations that the outputs of a model's layers flow into, through everything but other layers."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.found: Followers = {}
        self._sources = WeakTensorKeyDictionary()  # by tensor: the layers whose outputs flowed into it
        self._within = 0  # number of running activation modules, whose functions count as theirs
        self._running: list[nn.Module] = []  # running layers, whose products count as theirs
        self._seen: set[nn.Module] = set()  # running layers that have computed a product
        layers = (module for module in model.modules() if isinstance(module, LAYERS))
        self._by_weight = {id(weight): layer for layer in layers for weight in layer._parameters.values()}
        self._handles: list[RemovableHandle] = []

    def __enter__(self) -> _Watch:
        for module in self.model.modules():
            if isinstance(module, nn.MultiheadAttention):  # uses out_proj's weight without calling it
                self._after(module, partial(self._leave_other, module.out_proj))
            elif isinstance(module, _OTHER_LAYERS):
                self._after(module, partial(self._leave_other, None))
            elif isinstance(module, LAYERS):
                self._before(module, self._enter_layer)
                self._after(module, self._leave_layer)
            elif _module_follower(module) is not None:
                self._before(module, self._enter_activation)
                self._after(module, self._leave_activation)
            else:
                self._after(module, self._leave_module)
        super().__enter__()  # type: ignore[no-untyped-call]
        return self

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)  # type: ignore[no-untyped-call]
        for handle in self._handles:
            handle.remove()

    def _before(self, module: nn.Module, hook: Callable[..., None]) -> None:
        self._handles.append(module.register_forward_pre_hook(hook, with_kwargs=True))

    def _after(self, module: nn.Module, hook: Callable[..., None]) -> None:
        self._handles.append(module.register_forward_hook(hook, with_kwargs=True, always_call=True))

    def _of(self, *values: object) -> frozenset[nn.Module]:
        tensors = (x for x in tree_leaves(values) if isinstance(x, Tensor) and x in self._sources)
        return frozenset().union(*(self._sources[x] for x in tensors))

    def _mark(self, values: object, sources: frozenset[nn.Module]) -> None:
        for x in tree_leaves(values):
            if isinstance(x, Tensor):
                self._sources[x] = sources

    def _note(self, sources: frozenset[nn.Module], follower: Follower) -> None:
        for layer in sources:
            self.found[layer].append(follower)

    def _from(self, layer: nn.Module | None) -> frozenset[nn.Module]:
        if layer is None:
            return frozenset()
        self.found.setdefault(layer, [])
        return frozenset((layer,))

    def _enter_layer(self, module: nn.Module, args: object, kwargs: object) -> None:
        self._running.append(module)
        self._seen.discard(module)

    def _leave_layer(self, module: nn.Module, args: object, kwargs: object, output: object) -> None:
        self._running.pop()
        if module not in self._seen:  # computed out of sight
            self._mark(output, self._from(module))

    def _leave_other(self, layer: nn.Module | None, module: nn.Module, args: object, kwargs: object, output: object) -> None:
        self._mark(output, self._from(layer))

    def _leave_module(self, module: nn.Module, args: object, kwargs: object, output: object) -> None:
        """Output computed out of sight, in TorchScript for example, comes from all inputs."""
        unseen = [x for x in tree_leaves(output) if isinstance(x, Tensor) and x not in self._sources]
        self._mark(unseen, self._of(args, kwargs))

    def _enter_activation(self, module: nn.Module, args: object, kwargs: object) -> None:
        if not self._within and (follower := _module_follower(module)) is not None:
            self._note(self._of(args, kwargs), follower)
        self._within += 1

    def _leave_activation(self, module: nn.Module, args: object, kwargs: object, output: object) -> None:
        self._within -= 1
        self._mark(output, frozenset())

    def _product(self, name: str, values: object) -> frozenset[nn.Module] | None:
        """The layer of a product, empty if no layer owns the parameter; None if it is no product with a parameter."""
        tensors = [x for x in tree_leaves(values) if isinstance(x, Tensor)]
        parameters = [x for x in (x if x._base is None else x._base for x in tensors) if isinstance(x, nn.Parameter)]
        if name not in _LAYER_CALLS and not (name in _PRODUCTS and parameters):
            return None
        if self._running:
            self._seen.add(self._running[-1])
            return self._from(self._running[-1])
        return self._from(next((self._by_weight[id(x)] for x in parameters if id(x) in self._by_weight), None))

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        if self._within:
            return result
        name = _called(func)
        if (sources := self._product(name, (args, kwargs))) is None:
            sources = self._of(args[:1]) if name in _OF_THE_FIRST else self._of(args, kwargs)
            if name.endswith("_like") or name.startswith("new_"):
                sources = frozenset()
            elif sources and (follower := _call_follower(func, args, kwargs)) is not None:
                self._note(sources, follower)
                sources = frozenset()
        target = args[0] if func is Tensor.__setitem__ else result
        self._mark(target, sources)
        if args and target is args[0] and isinstance(target, Tensor) and (base := target._base) is not None:
            # An in-place write to a view changes its base, too.
            self._sources[base] = sources if target.numel() == base.numel() else sources | self._of(base)
        return result


def _owner(function: object) -> object:
    """The object whose method ``function`` is, else None."""
    while isinstance(function, partial):
        function = function.func
    return getattr(function, "__self__", None)


def _double(model: nn.Module) -> nn.Module:
    """A copy that shares no tensors, but locks and the like. Of its hooks, only methods of its own modules stay."""
    modules = set(model.modules())
    memo: dict[int, Any] = {}
    dropped: set[int] = set()
    leaves: list[Any] = []
    for module in modules:
        for hook in (*module._forward_hooks.values(), *module._forward_pre_hooks.values()):
            owner = _owner(hook)
            if not isinstance(owner, nn.Module) or owner not in modules:
                memo[id(hook)] = hook
                dropped.add(id(hook))
        leaves += tree_leaves([value for name, value in vars(module).items() if name != "_modules"])
    for leaf in leaves:
        if isinstance(leaf, nn.UninitializedBuffer):  # torch cannot copy it
            kind: Any = type(leaf)
            memo[id(leaf)] = kind(leaf.requires_grad, leaf.data.device, leaf.data.dtype)
        elif isinstance(leaf, Tensor) and not leaf.is_leaf:
            memo[id(leaf)] = leaf.detach().clone()
    try:
        double = copy.deepcopy(model, dict(memo))
    except Exception:  # an attribute may raise anything
        for leaf in leaves:
            if not isinstance(leaf, (Tensor, nn.Module)) and not isinstance(_owner(leaf), nn.Module):
                try:
                    copy.deepcopy(leaf, dict(memo))
                except Exception:
                    memo[id(leaf)] = leaf
        double = copy.deepcopy(model, memo)
    for twin, module in zip(double.modules(), model.modules(), strict=True):
        if twin is module:  # copies itself this way
            continue
        for name in vars(twin).keys() - vars(module).keys():  # copies of TransformerDecoderLayer get a second activation
            del vars(twin)[name]
        for hooks in (twin._forward_hooks, twin._forward_pre_hooks):
            for key in [key for key, hook in hooks.items() if id(hook) in dropped]:
                del hooks[key]
    return double


def _copied(leaf: Any) -> Any:
    """A copy, or ``leaf`` itself if it cannot be copied."""
    if isinstance(leaf, Tensor):
        return leaf.detach().clone()
    try:
        return copy.deepcopy(leaf)
    except Exception:  # copying may raise anything
        return leaf


@contextlib.contextmanager
def _random_numbers_put_back(model: nn.Module) -> Iterator[None]:
    cuda = {tensor.device for tensor in (*model.parameters(), *model.buffers()) if tensor.is_cuda}
    python = random.getstate()
    numpy = sys.modules.get("numpy")
    numpys = numpy.random.get_state() if numpy else None
    try:
        with torch.random.fork_rng(sorted(device.index or 0 for device in cuda)):
            yield
    finally:
        random.setstate(python)
        if numpy:
            numpy.random.set_state(numpys)


def by_example(model: nn.Module, example: Any) -> Followers:
    """The followers of the layers that run on ``example`` in evaluation mode or, if they do not, in training mode.

    Raises:
        RuntimeError: ``model`` cannot be copied. Exceptions of its code propagate.
    """
    args = example if type(example) is tuple else (example,)
    found: Followers = {}
    was = [(module, module.training) for module in model.modules()]
    with torch.no_grad(), _random_numbers_put_back(model), torch.compiler.set_stance("force_eager"):
        for training in (False, True):
            try:
                double = _double(model)
            except Exception as error:
                message = f"argument 'module' cannot be copied, and only a copy runs on 'example': {error}"
                raise RuntimeError(message) from error
            original = dict(zip(double.modules(), model.modules(), strict=True))
            watch = _Watch(double)
            try:
                double.train(training)
                with watch:
                    double(*tree_map(_copied, args))
            except Exception:
                if not training:
                    raise
                break  # for example, a batch of one is too small for a batch norm
            finally:
                for module, mode in was:  # for modules whose copies are themselves
                    if module.training != mode:
                        module.training = mode
            found = {original[layer]: followers for layer, followers in watch.found.items() if layer in original} | found
            if found.keys() >= {module for module in model.modules() if isinstance(module, LAYERS)}:
                break
    return found


def _steps(module: nn.Module) -> Iterator[nn.Module | Follower | None]:
    """What is registered in a module, in order. None separates modules that do not follow each other."""
    children = {name: child for name, child in module._modules.items() if child is not None}
    if isinstance(module, _TRANSFORMER_LAYERS):  # registers its activation last, or not at all
        for name, child in children.items():
            if name not in ("linear1", "activation", "linear2"):
                yield None
                yield from _steps(child)
        yield None
        yield module.linear1
        function: Any = module.activation
        if isinstance(function, nn.Module):
            yield function
        elif isinstance(function, partial):
            yield _call_follower(function.func, (None, *function.args), function.keywords)
        else:
            yield _call_follower(function, (), {})
        yield module.linear2
        yield None
        return
    if isinstance(module, _OTHER_LAYERS):
        yield None
    yield module
    for child in children.values():
        yield from _steps(child)
    if isinstance(module, _OTHER_LAYERS):
        yield None


def _in_order(steps: Iterable[nn.Module | Follower | None]) -> Followers:
    found: Followers = {}
    latest: nn.Module | None = None
    for step in steps:
        if isinstance(step, LAYERS):
            latest = step
            found.setdefault(step, [])
        elif step is None:
            latest = None
        elif latest is not None and (follower := step if isinstance(step, Follower) else _module_follower(step)):
            found[latest].append(follower)
            latest = None
    return found


def by_registration(model: nn.Module) -> Followers:
    """For each layer the activation registered next, unless another layer comes first."""
    return _in_order(_steps(model))
