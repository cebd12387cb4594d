"""Small tables of measurements."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import sklearn
import torch

from .base import TEST_SHARE, VALIDATION_SHARE, Parts, Reader, Split, divided, standardised


def table(load: Callable[..., Any]) -> Reader:
    """``load``: one of scikit-learn's."""

    def read(_name: str, _: Path | None) -> Parts:
        features, labels = map(torch.as_tensor, load(return_X_y=True))
        rest, test = divided(labels, TEST_SHARE)
        within, part = divided(labels[rest], VALIDATION_SHARE)
        indices = (rest[within], rest[part], test)
        parts = standardised(*(features[each] for each in indices))
        train, validation, last = (Split((x,), labels[each].long()) for x, each in zip(parts, indices, strict=True))
        return f"scikit-learn {sklearn.__version__}", train, validation, last

    return read
