"""Notes what the suite came to on this torch, for the table of releases in docs/compatibility.md."""

from __future__ import annotations

import json
import platform
from collections import Counter
from pathlib import Path

import pytest
import torch

import leakyrelu_ext


def load(path: Path) -> dict[str, dict]:
    """By release of torch; empty without a file."""
    return json.loads(path.read_text()) if path.exists() else {}


class ReleaseOutcomes:
    """A pytest plugin: writes this torch's entry in a file of all releases."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.counts: Counter[str] = Counter()
        self.reasons: Counter[str] = Counter()

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        """Modules that cannot be imported, or are skipped as a whole."""
        if report.outcome != "passed":
            self._count(report.outcome, report)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when == "call" or report.outcome != "passed":
            self._count("expected to fail" if hasattr(report, "wasxfail") else report.outcome, report)

    def _count(self, outcome: str, report: pytest.CollectReport | pytest.TestReport) -> None:
        self.counts[outcome] += 1
        if outcome == "skipped":
            assert isinstance(report.longrepr, tuple)
            self.reasons[report.longrepr[2].removeprefix("Skipped: ")] += 1

    def pytest_sessionfinish(self, exitstatus: int) -> None:
        if exitstatus not in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED):
            return  # interrupted, or nothing ran
        releases = load(self.path)
        releases[torch.__version__.split("+")[0]] = {
            "torch": torch.__version__,
            "leakyrelu_ext": leakyrelu_ext.__version__,
            "python": platform.python_version(),
            **{outcome: self.counts[outcome] for outcome in ("passed", "failed", "skipped", "expected to fail")},
            "reasons": dict(sorted(self.reasons.items())),
        }
        ordered = sorted(releases.items(), key=lambda item: [int(part) for part in item[0].split(".")[:2]])
        self.path.write_text(json.dumps(dict(ordered), indent=1) + "\n")
