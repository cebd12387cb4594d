"""Dataclasses as JSON and back, by pydantic: every entry must have the type that its field declares."""

from __future__ import annotations

import math
from typing import Annotated, TypeVar

from pydantic import BeforeValidator, PlainSerializer, TypeAdapter, ValidationError

T = TypeVar("T")

# JSON has no NaN and no infinity: null stands for both, and is read as NaN.
Figure = Annotated[
    float,
    BeforeValidator(lambda value: math.nan if value is None else value),
    PlainSerializer(lambda value: value if math.isfinite(value) else None),
]


def read(kind: TypeAdapter[T], text: str | bytes) -> T:
    """What ``text`` holds, if it is of that ``kind``.

    Raises:
        ValueError: it is not; the message is one line that names the entry.
    """
    try:
        return kind.validate_json(text, strict=True)
    except ValidationError as error:
        first = error.errors()[0]
        raise ValueError(": ".join(filter(None, (".".join(map(str, first["loc"])), first["msg"])))) from error
