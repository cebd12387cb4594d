"""Writes docs/compatibility.md from the outcomes of the tests that carry a ``feature`` mark.

A test on a fused ``family`` stands in that one's section, whatever area its mark names."""

from __future__ import annotations

import platform
import re
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import torch

import leakyrelu_ext
from release_outcomes import load

HEAD = """# Compatibility

## Releases of torch

For torch 2.7 to 2.15, with Python 3.10 to 3.14 where that torch has wheels; the library is compiled against the torch that
runs. Where releases differ, this package does as the built-in of the one that runs:

- before 2.8, a dtype without kernels is refused by a RuntimeError, from 2.8 on by a NotImplementedError;
- before 2.12, the built-in refuses jagged nested tensors, and so do we;
- before 2.14, `clamp` passes a gradient where the value equals a bound, from 2.14 on it does not.

`make test-core TORCH=torch==2.15.0 RECORD=1` ran the core of the suite (without the slow tests, and those of the benchmark
and the study) on each of these, on a CPU:

"""

FEATURES = f"""
## What works

Written by `make compatibility` from the results of the tests it names; torch {torch.__version__}, leakyrelu_ext
{leakyrelu_ext.__version__}, Python {platform.python_version()}, CPU. Most tests run three times: on PyTorch's Leaky ReLU,
on ours, and on PyTorch's with our kernels installed under it (`leakyrelu_ext.install()`). Where the first column says
*reference*, ours is compared with it within the test; `make test-installed` runs those tests on the installed kernels.
The fused families are compared so with PyTorch's own modules, one after the other; `install()` does not concern them.
Numbers are of test cases.

"""


def releases_table(releases: dict[str, dict]) -> str:
    """Skips that all releases share (a missing wheel, a GPU) say nothing of a release: only the others get a reason."""
    shared = set.intersection(*(set(release["reasons"]) for release in releases.values())) if releases else set()
    lines = ["| torch | Python | passed | failed | skipped | skipped there only; notes |", "|---|---|--:|--:|--:|---|"]
    for release in releases.values():
        own = [f"{reason} ({count})" for reason, count in release["reasons"].items() if reason not in shared]
        own += [release["note"]] if "note" in release else []  # written by hand; gone when that release is recorded again
        counts = " | ".join(str(release[outcome]) for outcome in ("passed", "failed", "skipped"))
        lines.append(f"| {release['torch']} | {release['python']} | {counts} | {'; '.join(own)} |")
    return "\n".join(lines) + "\n"


@dataclass
class Row:
    """Outcomes by side ("" for tests without sides): passed, or why not."""

    outcomes: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    tests: set[str] = field(default_factory=set)

    def cell(self, side: str) -> str:
        outcomes = self.outcomes.get(side)
        if outcomes is None:
            return {"built-in": "*reference*", "installed": "–"}.get(side) or self.cell("")
        reasons = sorted({outcome for outcome in outcomes if outcome != "yes"})
        passed = outcomes.count("yes")
        return "; ".join([f"yes ({passed})"] * bool(passed) + reasons)


class CompatibilityPage:
    """A pytest plugin."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.rows: dict[str, dict[str, Row]] = defaultdict(lambda: defaultdict(Row))

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(self, item: pytest.Item, call: pytest.CallInfo[None]) -> Iterator[None]:
        report = yield
        mark = item.get_closest_marker("feature")
        if mark is None or (report.when != "call" and report.outcome == "passed"):
            return report
        if hasattr(report, "wasxfail"):
            outcome = f"no: {report.wasxfail.removeprefix('reason: ')}"
        elif report.outcome == "skipped":
            outcome = f"not tested: {report.longrepr[2].removeprefix('Skipped: ')}"
        else:
            outcome = "yes" if report.outcome == "passed" else "**FAILS**"
        params = item.callspec.params if hasattr(item, "callspec") else {}
        side, family = params.get("side"), params.get("family")
        row = self.rows[family.area if family else mark.args[0]][mark.args[1]]
        row.outcomes[side.name if side else ""].append(outcome)
        row.tests.add(item.nodeid.split("[")[0].removeprefix("tests/"))
        return report

    def pytest_sessionfinish(self) -> None:
        page = HEAD + releases_table(load(self.path.with_name("releases.json"))) + FEATURES
        for area, rows in sorted(self.rows.items()):
            page += f"### {area}\n\n| | built-in | ours | installed | tests |\n|---|---|---|---|---|\n"
            for name, row in rows.items():
                tests = "<br>".join(f"`{test}`" for test in sorted(row.tests))
                name = re.sub(r"(\w*__\w+__|\w+\([^ ]*\))", r"`\1`", name)
                page += f"| {name} | {row.cell('built-in')} | {row.cell('ours')} | {row.cell('installed')} | {tests} |\n"
            page += "\n"
        self.path.write_text(page.rstrip() + "\n")
