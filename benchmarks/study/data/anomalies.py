"""A series with anomalies, as windows with and without."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from .base import Parts, Split, installed_file, standardised

# Two of its heartbeats.
WINDOW = 40
# Prime to a heartbeat's 20 points, so that windows begin everywhere in it: within one of the anomalies all beats come late,
# which windows in step with the beats would give away.
STRIDE = 3
# Every fifth block of points is for validation, from the fourth on: so a part of each of the three anomalies, no two of
# which are alike, is on either side. No window reaches into another part.
BLOCK, FIRST, EVERY = 100, 3, 5


def _read(path: Path) -> tuple[Tensor, Tensor]:
    """Values, and which of them are anomalous, ``(L,)``."""
    try:
        table = torch.as_tensor(np.loadtxt(path, delimiter=",", skiprows=1, ndmin=2))
        _, values, flags = table.unbind(1)
    except (OSError, ValueError) as error:
        raise ValueError(f"{path}: damaged: {error}") from error
    return values, flags == 1


def _windows(values: Tensor, flags: Tensor, runs: Iterable[tuple[int, int]]) -> tuple[Tensor, Tensor]:
    """Those within the runs (begin, end): ``(N, 1, WINDOW)``, and whether an anomaly is in them."""
    whole = [(values[begin:end], flags[begin:end]) for begin, end in runs if end - begin >= WINDOW]
    inputs = torch.cat([x.unfold(0, WINDOW, STRIDE) for x, _ in whole])
    labels = torch.cat([y.unfold(0, WINDOW, STRIDE).any(1) for _, y in whole])
    return inputs.unsqueeze(1), labels.long()


def runs(length: int) -> tuple[list[tuple[int, int]], list[tuple[int, int]]]:
    """Of the training series (begin, end), those to learn from and those for validation."""
    held = [(begin, begin + BLOCK) for begin in range(FIRST * BLOCK, length, EVERY * BLOCK)]
    between = [(end, begin) for (_, end), (begin, _) in itertools.pairwise([(0, 0), *held, (length, length)])]
    return between, held


def ecg(name: str, _: Path | None) -> Parts:
    """Of aeon's series with anomalies the only one with enough to learn from: the others have one and none."""
    paths = [installed_file("aeon", f"UnitTest/ecg-diff-count-3_{part}.csv", name) for part in ("TRAIN_A", "TEST")]
    series, test = (_read(path) for path, _ in paths)
    between, held = runs(len(series[0]))
    windows = [_windows(*series, between), _windows(*series, held), _windows(*test, [(0, len(test[0]))])]
    inputs = standardised(*(x for x, _ in windows), dims=(0, 2))
    train, validation, last = (
        Split((x, torch.full((len(x),), WINDOW)), labels) for x, (_, labels) in zip(inputs, windows, strict=True)
    )
    return paths[0][1], train, validation, last
