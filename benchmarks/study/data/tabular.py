"""Small tables of measurements."""

from __future__ import annotations

import sklearn
import torch
from sklearn import datasets
from torch import Tensor

from .base import TEST_SHARE, VALIDATION_SHARE, Dataset, Split, divided, standardised


def _dataset(name: str, task: str, source: str, features: Tensor, labels: Tensor) -> Dataset:
    rest, test = divided(labels, TEST_SHARE)
    within, part = divided(labels[rest], VALIDATION_SHARE)
    indices = (rest[within], rest[part], test)
    parts = standardised(*(features[each] for each in indices))
    train, validation, last = (Split((x,), labels[each]) for x, each in zip(parts, indices, strict=True))
    source = f"{source}, in scikit-learn {sklearn.__version__}"
    return Dataset(name, "tabular", task, source, "accuracy", int(labels.max()) + 1, "features", train, validation, last)


def breast_cancer() -> Dataset:
    features, labels = datasets.load_breast_cancer(return_X_y=True)
    return _dataset(
        "breast-cancer",
        "malignant or benign, from 30 measures of cell nuclei",
        "Wisconsin Diagnostic Breast Cancer (Street et al. 1993), UCI",
        torch.as_tensor(features),
        torch.as_tensor(labels).long(),
    )


def wine() -> Dataset:
    features, labels = datasets.load_wine(return_X_y=True)
    return _dataset(
        "wine",
        "which of 3 cultivars, from 13 chemical measures",
        "Wine (Aeberhard, Forina 1992), UCI",
        torch.as_tensor(features),
        torch.as_tensor(labels).long(),
    )
