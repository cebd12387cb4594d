"""In a terminal the answer comes first, and tables are as wide as it: nothing is cut, nothing wraps."""

import dataclasses
import io
import random
import re
from pathlib import Path

import pytest

pytest.importorskip("rich")
from leakyrelu_bench import results
from leakyrelu_bench.report import compare, summary, terminal
from rich.console import Console

from benchmark_samples import example_runs, hostile_runs, odd_runs

pytestmark = pytest.mark.cpu_only

SUITES = ("ops", "fused", "compile", "models", "memory")
RUNS = {suite: results.load(Path(__file__).parents[2] / "docs" / "results" / f"{suite}.json") for suite in SUITES}
RUNS |= {f"example of {run.suite}": run for run in example_runs()}


def shown(run, width, wide=False):
    console = Console(width=width, file=io.StringIO())
    terminal.show(run, console, wide)
    return console.file.getvalue()


@pytest.mark.parametrize("run", RUNS.values(), ids=RUNS)
@pytest.mark.parametrize("width", [80, 120, 200])
@pytest.mark.parametrize("wide", [False, True])
def test_nothing_is_cut_and_no_line_is_longer_than_the_terminal(run, width, wide):
    text = shown(run, width, wide)
    tables = text[: text.index("ratio: how many times better")]
    assert max(map(len, text.splitlines())) <= width
    assert "…" not in tables
    lines = tables.splitlines()
    for name in {terminal.case_name(row) for row in run.rows} | {name for row in run.rows for name in (row.ours, row.rival)}:
        assert any(name in line for line in lines), name
    for row in run.rows:
        if row.ours_value:
            assert terminal.figure(row.ours_value.median, row.unit) in tables


@pytest.mark.parametrize("run", RUNS.values(), ids=RUNS)
def test_the_answer_comes_first_and_is_short(run):
    text = shown(run, 80)
    head = text[: text.index("\n{} against {}".format(*summary.main_pairs(run)[0]))]
    assert len(head.splitlines()) <= 24
    assert " times as fast as " in head or " times better than " in head
    assert "\nlost beyond the noise: " in head
    if any("saved_bytes" in row.extra for row in run.rows):
        assert "\nkept for the backward: " in head
    assert "\npage faults: " in head
    worse = sum(row.verdict == "worse" for row in run.rows)
    assert f"lost beyond the noise: {worse} of {sum(row.ratio is not None for row in run.rows)}" in head


def test_fewer_columns_in_a_terminal_than_in_a_file():
    run = RUNS["ops"]
    assert "GB/s" not in shown(run, 250)
    wide = shown(run, 250, wide=True)
    for heading in (
        "case",
        "dtype",
        "mode",
        "vs compiled",
        "vs ONNX Runtime",
        "noise",
        "GB/s",
        "of the roof",
        "saved",
        "faults",
    ):
        assert heading in wide
    (line,) = re.findall(r"^noise, 2\^24, warm +float32 +chain .*", wide, re.M)
    assert line.count("µs") + line.count("ms") == 2


@pytest.mark.parametrize("runs", [*odd_runs().values(), hostile_runs()])
@pytest.mark.parametrize("wide", [False, True])
def test_any_run_is_shown(runs, wide):
    for run in runs:
        assert max(map(len, shown(run, 80, wide).splitlines()), default=0) <= 140  # a name of any length is not cut


@pytest.mark.parametrize("width", [80, 120, 200])
@pytest.mark.parametrize("suite", SUITES)
def test_a_comparison_fits_too(suite, width):
    chance = random.Random(0)
    before = RUNS[suite]
    rows = [dataclasses.replace(row, ratio=row.ratio and row.ratio * chance.uniform(0.5, 1.5)) for row in before.rows]
    found = compare.compare(before, dataclasses.replace(before, rows=rows))
    console = Console(width=width, file=io.StringIO())
    compare.show(found, 0.05, console)
    text = console.file.getvalue()
    assert max(map(len, text.splitlines())) <= width
    assert "…" not in text
    changed = [change for change in found.changes if change.verdict != "same"]
    assert len(re.findall(r" ±\d+%$", text, re.M)) == len(changed)
    for change in changed:
        assert change.after.rival in text
        assert terminal.case_name(change.after) in text


def row(rival="built-in", ratio=2.0, noise=0.01, obstacle=None, outputs="fresh"):
    value = None if obstacle else results.Quantiles(1e-3, 2e-3, 3e-3)
    ratio = None if obstacle else ratio
    of_case = ("ops", "noise, 2^6", (64,), "float32", "contiguous", "forward", outputs, "seconds", "ours", rival, "torch")
    return results.Row(*of_case, value, value, ratio, ratio, ratio, noise, obstacle)


def a_run(*rows, interrupted=False):
    return results.Run("ops", {}, {}, list(rows), [], interrupted)


def test_a_table_says_same_within_the_noise():
    text = shown(
        a_run(
            row(),
            row("compiled", 1.005),
            row("JAX", 0.5),
            row("NumPy", obstacle="not installed: pip"),
            row("ORT", obstacle="broke"),
        ),
        200,
        wide=True,
    )
    (heading,) = re.findall(r"^.*vs compiled.*$", text, re.M)
    assert re.split(r"\s{2,}", heading.strip())[3:] == ["vs compiled", "vs JAX", "vs NumPy", "vs ORT", "noise"]
    values = text.splitlines()[text.splitlines().index(heading) + 1]
    assert re.split(r"\s{2,}", values.strip()) == ["2 ms", "2 ms", "2.00", "1.00 (same)", "0.50", "absent", "fails", "±1%"]


def test_better_is_green_and_worse_is_red():
    console = Console(width=120, file=io.StringIO(), force_terminal=True, color_system="standard")
    terminal.show(a_run(row(), row("JAX", 0.5), row("NumPy", 1.001)), console)
    text = console.file.getvalue()
    assert re.search(r"\x1b\[32m *2\.00", text)
    assert re.search(r"\x1b\[31m *0\.50", text)
    assert not re.search(r"\x1b\[3[12]m *1\.00", text)


def test_warm_rows_are_lines_of_their_own():
    lines = shown(a_run(row(), row(outputs="warm")), 120).splitlines()
    assert [line.split("  ")[0] for line in lines if line.startswith("noise, 2^6")] == ["noise, 2^6", "noise, 2^6, warm"]


def test_the_end_says_what_is_missing_and_the_answer_again():
    rows = [row(ratio=4.0), row(ratio=1.0, outputs="warm"), row("JAX", obstacle="not installed")]
    lines = shown(a_run(*rows, interrupted=True), 200).splitlines()
    assert lines[0] == "interrupted: only what was measured until then"
    assert lines[1] == lines[-1] == "ours is 2.00 times as fast as built-in (geometric mean of 2, 1 the same)"
    assert lines[-2] == "not measured: ours against JAX (noise, 2^6, float32, forward, fresh): not installed"
