"""Real data of several domains, read from what is installed; nothing is downloaded and nothing is cached."""

from __future__ import annotations

from pathlib import Path

from sklearn.datasets import load_breast_cancer, load_wine

from ..training.names import DATASETS as NAMES
from . import anomalies, images, series, tabular, texts
from .base import Dataset, MissingDatasetError, Reader, Split

__all__ = ["NAMES", "Dataset", "MissingDatasetError", "Split", "load"]

# Domain, kind and metric; task; source ("{}": the wheel with its version); reader.
_DATASETS: dict[str, tuple[tuple[str, str, str], str, str, Reader]] = {
    "digits": (
        ("image", "image", "accuracy"),
        "handwritten digits, 8x8 pixels",
        "UCI handwritten digits (Alpaydin, Kaynak 1998), its test part, in {}",
        images.digits,
    ),
    "mnist-5k": (
        ("image", "image", "accuracy"),
        "handwritten digits, 28x28 pixels, 5000 of MNIST",
        "MNIST (LeCun et al. 1998), 500 samples of each digit, in {}",
        images.mnist_5k,
    ),
    "fashion-mnist": (
        ("image", "image", "accuracy"),
        "clothes, 28x28 pixels",
        "Fashion-MNIST (Xiao et al. 2017, arXiv:1708.07747)",
        images.fashion_mnist,
    ),
    "reuters-r8": (
        ("text", "tokens", "macro-F1"),
        "topic of newswires, 8 very unequal classes",
        f"Reuters-21578 (Lewis 1997), R8, ModApte split, in {{}}; the first {texts.LENGTH} words",
        texts.topics("reuters-r8"),
    ),
    "20-newsgroups": (
        ("text", "tokens", "accuracy"),
        "newsgroup of a message, headers left in",
        f"20 Newsgroups (Lang 1995), by date, in {{}}; the first {texts.LENGTH} words",
        texts.topics("20newsgroups"),
    ),
    "japanese-vowels": (
        ("speech", "frames", "accuracy"),
        "which of 9 speakers said /ae/, from 12 LPC cepstra a frame: speaker identification, not speech recognition",
        "Japanese Vowels (Kudo et al. 1999), UCI, in {}",
        series.archive("JapaneseVowels"),
    ),
    "breast-cancer": (
        ("tabular", "features", "accuracy"),
        "malignant or benign, from 30 measures of cell nuclei",
        "Wisconsin Diagnostic Breast Cancer (Street et al. 1993), UCI, in {}",
        tabular.table(load_breast_cancer),
    ),
    "wine": (
        ("tabular", "features", "accuracy"),
        "which of 3 cultivars, from 13 chemical measures",
        "Wine (Aeberhard, Forina 1992), UCI, in {}",
        tabular.table(load_wine),
    ),
    "italy-power-demand": (
        ("time series", "frames", "accuracy"),
        "winter or summer half-year, from a day's demand for power; 67 days to train on",
        "Keogh et al. 2006, UCR archive, in {}",
        series.archive("ItalyPowerDemand"),
    ),
    "osu-leaf": (
        ("time series", "frames", "accuracy"),
        "which of 6 trees, from the outline of a leaf as a series",
        "Gandhi 2002, UCR archive, in {}",
        series.archive("OSULeaf"),
    ),
    "anomaly": (
        ("anomaly", "frames", "macro-F1"),
        f"whether an anomaly is in {anomalies.WINDOW} points of a synthetic ECG; each of 3 kinds once to learn from, once to"
        " test",
        "Wenig et al.: TimeEval, PVLDB 2022, ecg-diff-count-3, in {}",
        anomalies.ecg,
    ),
}


def load(name: str, folder: Path | None = None) -> Dataset:
    """The dataset ``name``, one of NAMES; ``folder``: where Fashion-MNIST's files are, if not where Debian puts them.

    Raises:
        MissingDatasetError: it is not installed.
        ValueError: there is none of that name, or its files are damaged.
    """
    if name not in _DATASETS:
        raise ValueError(f"dataset {name!r} is none of {', '.join(NAMES)}")
    (domain, kind, metric), task, source, read = _DATASETS[name]
    origin, train, validation, test = read(name, folder)
    classes = int(train.labels.max()) + 1
    vocabulary = int(train.inputs[0].max()) + 1 if kind == "tokens" else None
    source = source.format(origin)
    return Dataset(name, domain, task, source, metric, classes, kind, train, validation, test, vocabulary)
