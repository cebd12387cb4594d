"""torch.compile as a contestant: many compiled functions side by side, and why one could not be."""

from __future__ import annotations

import types
from collections.abc import Callable
from typing import Any

import torch


def compiled(function: types.FunctionType) -> Callable[..., Any]:
    """``function`` compiled for static shapes, apart from whatever else is compiled of the same source line.

    Dynamo keeps what it compiles with the code object, looks through all of it at every call, and stops at eight: each
    contestant gets a code object of its own.
    """
    own = types.FunctionType(
        function.__code__.replace(), function.__globals__, function.__name__, function.__defaults__, function.__closure__
    )
    return torch.compile(own, fullgraph=True, dynamic=False)


LINE_CHARACTERS = 160


def first_line(error: BaseException) -> str:
    """The error in a line that is short enough to stand in a row."""
    line = f"{type(error).__name__}: {(str(error).strip().splitlines() or [''])[0]}"
    return line if len(line) <= LINE_CHARACTERS else line[: LINE_CHARACTERS - 1] + "…"
