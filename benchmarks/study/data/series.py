"""Series of frames: speech features and other time series, from the .ts files of aeon."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from .base import VALIDATION_SHARE, Parts, Reader, Split, divided, installed_file, numbered


def read_ts(text: str) -> tuple[list[Tensor], list[str]]:
    """Series ``(C, L)``, each of a length of its own, and their labels.

    One a line, "dimension:dimension:…:label", each dimension its values with commas between.

    Raises:
        ValueError: it is no such file, a number is none or missing ("?"), or dimensions differ in length.
    """
    head, marker, body = text.partition("@data")
    if not marker or "@classLabel true" not in head:
        raise ValueError("not a .ts file with class labels")
    series, labels = [], []
    for number, line in enumerate(filter(None, map(str.strip, body.splitlines())), 1):
        *dimensions, label = line.split(":")
        try:
            values = torch.tensor([[float(value) for value in dimension.split(",")] for dimension in dimensions])
        except ValueError as error:
            raise ValueError(f"series {number}: {error}") from error
        if values.dim() != 2 or not values.isfinite().all() or not label:
            raise ValueError(f"series {number}: values {list(values.shape)}, label {label!r}")
        series.append(values)
        labels.append(label)
    if len({len(each) for each in series}) != 1:
        raise ValueError("no series, or of several dimensions")
    return series, labels


def _read(path: Path) -> tuple[list[Tensor], list[str]]:
    try:
        return read_ts(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, ValueError) as error:
        raise ValueError(f"{path}: damaged: {error}") from error


def archive(stem: str) -> Reader:
    def read(name: str, _: Path | None) -> Parts:
        paths = [installed_file("aeon", f"data/{stem}/{stem}_{part}.ts", name) for part in ("TRAIN", "TEST")]
        (series, names), (test_series, test_names) = (_read(path) for path, _ in paths)
        labels, test_labels = numbered(names, test_names, paths[1][0])
        rest, part = divided(labels, VALIDATION_SHARE)
        frames = torch.cat([series[row] for row in rest.tolist()], 1).double()
        mean, deviation = frames.mean(1, keepdim=True), frames.std(1, keepdim=True)
        longest = max(each.shape[1] for each in (*series, *test_series))

        def split(chosen: list[Tensor], labels: Tensor) -> Split:
            x = torch.zeros(len(chosen), len(mean), longest)
            for row, each in enumerate(chosen):
                x[row, :, : each.shape[1]] = (each - mean) / deviation
            return Split((x, torch.tensor([each.shape[1] for each in chosen])), labels)

        train = split(series, labels)
        return paths[0][1], train.take(rest), train.take(part), split(test_series, test_labels)

    return read
