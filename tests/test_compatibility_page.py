"""docs/compatibility.md has a row for every feature that a test stands behind, and names tests that are there."""

import re
from pathlib import Path

TESTS = Path(__file__).parent
PAGE = (TESTS.parent / "docs" / "compatibility.md").read_text()


def plain(text: str) -> str:
    return text.replace("`", "")


def test_every_feature_has_a_row() -> None:
    named = []
    for path in TESTS.rglob("test_*.py"):
        named += re.findall(r'^@(?:pytest\.mark\.)?feature\((?:"[^"]+", )?(["\'])(.+?)\1[,)]', path.read_text(), re.M)
    assert len(named) > 60
    for _, name in named:
        assert f"| {name} |" in plain(PAGE), f"{name!r} has no row: run `make compatibility`"


def test_every_test_named_is_there() -> None:
    names = set(re.findall(r"`([\w/]+\.py)::(\w+)`", PAGE))
    assert len(names) > 60
    for file, test in names:
        assert f"def {test}(" in (TESTS / file).read_text()


def test_nothing_fails() -> None:
    assert "**FAILS**" not in PAGE
