"""Real data of several domains, read from what is installed; nothing is downloaded and nothing is cached."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from ..training.configuration import DATASETS as NAMES
from . import anomalies, images, series, tabular, texts
from .base import Dataset, MissingDatasetError, Split

__all__ = ["NAMES", "Dataset", "MissingDatasetError", "Split", "load"]

_LOADERS: dict[str, Callable[[Path | None], Dataset]] = {
    "digits": lambda _: images.digits(),
    "mnist-5k": lambda _: images.mnist_5k(),
    "fashion-mnist": images.fashion_mnist,
    "reuters-r8": lambda _: texts.reuters_r8(),
    "20-newsgroups": lambda _: texts.newsgroups(),
    "japanese-vowels": lambda _: series.japanese_vowels(),
    "breast-cancer": lambda _: tabular.breast_cancer(),
    "wine": lambda _: tabular.wine(),
    "italy-power-demand": lambda _: series.italy_power_demand(),
    "osu-leaf": lambda _: series.osu_leaf(),
    "anomaly": lambda _: anomalies.ecg(),
}


def load(name: str, folder: Path | None = None) -> Dataset:
    """The dataset ``name``, one of NAMES; ``folder``: where Fashion-MNIST's files are, if not where Debian puts them.

    Raises:
        MissingDatasetError: it is not installed.
        ValueError: there is none of that name, or its files are damaged.
    """
    if name not in _LOADERS:
        raise ValueError(f"dataset {name!r} is none of {', '.join(NAMES)}")
    return _LOADERS[name](folder)
