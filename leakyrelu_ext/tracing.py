"""Models as graphs: a torch.fx tracer that notes what a graph would not hold, and keeps assignments in place in place."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import torch
from torch import fx, nn

from .modules import AddLeakyReLU, BiasLeakyReLU, LeakyReLU

_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")


def has_hooks(module: nn.Module) -> bool:
    return any(getattr(module, hooks) for hooks in _HOOKS)


def augmented(name: str, x: Any, y: Any) -> Any:
    """``x += y`` for ``name`` "iadd", and so on. Torch's code generator would rebind a number's name to the sum."""
    return getattr(operator, name)(x, y)


class _Proxy(fx.Proxy):
    """fx.Proxy has no ``__iadd__``: Python would take ``__add__``, and the tensor would keep its old value."""


def _assignment(name: str) -> Callable[[fx.Proxy, Any], fx.Proxy]:
    def assign(self: fx.Proxy, other: Any) -> fx.Proxy:
        return self.tracer.create_proxy("call_function", augmented, (name, self, other), {})

    return assign


for _name in ("add", "sub", "mul", "matmul", "truediv", "floordiv", "mod", "pow", "and", "or", "xor", "lshift", "rshift"):
    setattr(_Proxy, f"__i{_name}__", _assignment(f"i{_name}"))


def _modes() -> tuple[bool, ...]:
    return torch.is_grad_enabled(), torch.is_autocast_enabled("cpu"), torch.is_autocast_enabled("cuda")


class Tracer(fx.Tracer):
    """``lost``: what the graph would not hold."""

    # Or ``self.steps.add_(1)`` would count while tracing, and never again.
    proxy_buffer_attributes = True

    def __init__(self) -> None:
        super().__init__()
        self.lost: list[str] = []
        self.modes = _modes()

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        ours = (LeakyReLU, BiasLeakyReLU, AddLeakyReLU, fx.GraphModule)
        leaf = isinstance(m, ours) or super().is_leaf_module(m, module_qualified_name)
        if not leaf and has_hooks(m):
            self.lost.append(f"hooks of {module_qualified_name}")
        return leaf

    def create_node(self, *args: Any, **kwargs: Any) -> fx.Node:
        if _modes() != self.modes:
            self.lost.append("the grad mode or autocast that its code sets")
        return super().create_node(*args, **kwargs)

    def proxy(self, node: fx.Node) -> fx.Proxy:
        return _Proxy(node, self)
