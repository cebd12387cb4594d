"""Series of frames: speech features and other time series, from the .ts files of aeon."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from .base import VALIDATION_SHARE, Dataset, Split, divided, installed_file


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


def _dataset(name: str, stem: str, domain: str, task: str, source: str, metric: str = "accuracy") -> Dataset:
    paths = [installed_file("aeon", f"data/{stem}/{stem}_{part}.ts", name) for part in ("TRAIN", "TEST")]
    (series, names), (test_series, test_names) = (_read(path) for path, _ in paths)
    classes = sorted(set(names))
    if not set(test_names) <= set(classes):
        raise ValueError(f"{paths[1][0]}: labels that the training part lacks")
    labels = torch.tensor([classes.index(label) for label in names])
    rest, part = (indices.tolist() for indices in divided(labels, VALIDATION_SHARE))
    frames = torch.cat([series[row] for row in rest], 1).double()
    mean, deviation = frames.mean(1, keepdim=True), frames.std(1, keepdim=True)
    longest = max(each.shape[1] for each in (*series, *test_series))

    def split(chosen: list[Tensor], labels: Tensor) -> Split:
        x = torch.zeros(len(chosen), len(mean), longest)
        for row, each in enumerate(chosen):
            x[row, :, : each.shape[1]] = (each - mean) / deviation
        return Split((x, torch.tensor([each.shape[1] for each in chosen])), labels)

    return Dataset(
        name,
        domain,
        task,
        f"{source}, in {paths[0][1]}",
        metric,
        len(classes),
        "frames",
        split([series[row] for row in rest], labels[rest]),
        split([series[row] for row in part], labels[part]),
        split(test_series, torch.tensor([classes.index(label) for label in test_names])),
    )


def japanese_vowels() -> Dataset:
    return _dataset(
        "japanese-vowels",
        "JapaneseVowels",
        "speech",
        "which of 9 speakers said /ae/, from 12 LPC cepstra a frame: speaker identification, not speech recognition",
        "Japanese Vowels (Kudo et al. 1999), UCI",
    )


def italy_power_demand() -> Dataset:
    return _dataset(
        "italy-power-demand",
        "ItalyPowerDemand",
        "time series",
        "winter or summer half-year, from a day's demand for power; 67 days to train on",
        "Keogh et al. 2006, UCR archive",
    )


def osu_leaf() -> Dataset:
    return _dataset(
        "osu-leaf",
        "OSULeaf",
        "time series",
        "which of 6 trees, from the outline of a leaf as a series",
        "Gandhi 2002, UCR archive",
    )
