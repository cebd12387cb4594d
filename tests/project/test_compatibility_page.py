"""docs/compatibility.md has a row for every feature that a test stands behind and for every release that was tried."""

import json
import re
import subprocess
import sys
from pathlib import Path

import torch

TESTS = Path(__file__).parents[1]
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


SUITE = """
import pytest
def test_passes(): pass
def test_fails(): assert False
@pytest.mark.skip(reason="no GPU")
def test_skipped(): pass
@pytest.mark.xfail
def test_expected(): assert False
"""


def record(tmp_path: Path, *options: str) -> dict:
    """What the plugin writes of the suite in ``tmp_path``."""
    code = (
        "import sys, pytest, pathlib; from release_outcomes import ReleaseOutcomes\n"
        "pytest.main(['-p', 'no:cacheprovider', *sys.argv[2:]], plugins=[ReleaseOutcomes(pathlib.Path(sys.argv[1]))])"
    )
    path = tmp_path / "releases.json"
    command = [
        sys.executable,
        "-c",
        f"import sys; sys.path.insert(0, {str(TESTS / 'support')!r}); {code}",
        str(path),
        *options,
    ]
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)
    return json.loads(path.read_text()) if path.exists() else {}


def test_what_a_release_came_to_is_recorded(tmp_path: Path) -> None:
    (tmp_path / "test_some.py").write_text(SUITE)
    (release,) = record(tmp_path).values()
    assert release["torch"] == torch.__version__
    counts = {name: release[name] for name in ("passed", "failed", "skipped", "expected to fail")}
    assert counts == {"passed": 1, "failed": 1, "skipped": 1, "expected to fail": 1}
    assert release["reasons"] == {"no GPU": 1}


def test_a_module_that_does_not_import_is_no_success(tmp_path: Path) -> None:
    (tmp_path / "test_broken.py").write_text("import no_such_module")
    assert record(tmp_path) == {}
    (tmp_path / "test_some.py").write_text(SUITE)
    (release,) = record(tmp_path, "--continue-on-collection-errors").values()
    assert release["failed"] == 2


def test_every_release_that_was_tried_is_in_the_table() -> None:
    releases = json.loads((TESTS.parent / "docs" / "releases.json").read_text())
    assert len(releases) > 1
    for release in releases.values():
        assert release["failed"] == 0
        assert f"| {release['torch']} | {release['python']} | {release['passed']} |" in PAGE
