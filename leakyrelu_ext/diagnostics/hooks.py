"""Forward hooks that copies of their modules do not get."""

from __future__ import annotations

import functools
import weakref
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

from torch import nn
from torch.utils.hooks import RemovableHandle

_HOOKS = ("_forward_hooks", "_forward_pre_hooks")
_OPTIONS = ("_forward_hooks_with_kwargs", "_forward_hooks_always_called", "_forward_pre_hooks_with_kwargs")
_REDUCE = "__reduce_ex__"


def _nothing(*_: object) -> None:
    pass


class _Hook(functools.partial[None]):
    # Modules that implement their own copying copy the hook: the copy does nothing.
    def __reduce__(self) -> tuple[Any, ...]:
        return _Hook, (_nothing,)


@functools.lru_cache(maxsize=256)
def _copied_by_default(kind: type) -> bool:
    """Whether ``copy`` and ``pickle`` of the class use only the module's ``__dict__``, and recreate it."""
    protocol = ("__reduce_ex__", "__reduce__", "__getstate__")
    own = any(getattr(kind, name, None) is not getattr(nn.Module, name, None) for name in protocol)
    return not own and not hasattr(kind, "__copy__") and not hasattr(kind, "__deepcopy__")


def _without_hooks(state: Any) -> Any:
    """Removes our hooks from a module's ``__dict__``, alone or in a tuple; other states stay as they are."""
    if isinstance(state, tuple):
        return tuple(map(_without_hooks, state))
    if not isinstance(state, dict) or _REDUCE not in state:
        return state
    state = {name: value for name, value in state.items() if name != _REDUCE}
    ours = {key for name in _HOOKS for key, hook in state[name].items() if isinstance(hook, _Hook)}
    for name in (*_HOOKS, *_OPTIONS):
        state[name] = OrderedDict((key, value) for key, value in state[name].items() if key not in ours)
    return state


class _Reduce:
    """A module's ``__reduce_ex__`` while it has hooks of ours: ``copy`` and ``pickle`` look it up on the object."""

    def __init__(self, module: nn.Module) -> None:
        self.module = weakref.ref(module)

    def __call__(self, protocol: Any) -> Any:
        module = self.module()
        return _without_hooks(type(module).__reduce_ex__(module, protocol))  # type: ignore[arg-type,call-arg]


class Hooks:
    """Hooks on any modules, which are removed together."""

    def __init__(self) -> None:
        self._handles: list[RemovableHandle] = []
        self._modules: list[nn.Module] = []

    def __bool__(self) -> bool:
        return bool(self._handles)

    def before(self, module: nn.Module, function: Callable[..., None], **options: bool) -> None:
        self._note(module, module.register_forward_pre_hook(_Hook(function), **options))

    def after(self, module: nn.Module, function: Callable[..., None], **options: bool) -> None:
        self._note(module, module.register_forward_hook(_Hook(function), **options))

    def _note(self, module: nn.Module, handle: RemovableHandle) -> None:
        self._handles.append(handle)
        self._modules.append(module)
        if _copied_by_default(type(module)):  # type: ignore[arg-type]
            state = vars(module)
            if _REDUCE not in state:
                state[_REDUCE] = _Reduce(module)

    def remove(self) -> None:
        for handle in self._handles:
            handle.remove()
        for module in self._modules:
            if not any(isinstance(hook, _Hook) for name in _HOOKS for hook in getattr(module, name).values()):
                vars(module).pop(_REDUCE, None)
        self._handles.clear()
        self._modules.clear()
