"""Page, document and README's block say what the rows say, whatever those hold; the page renders in a browser."""

import dataclasses
import functools
import html
import random
import re
from pathlib import Path

import pytest

pytest.importorskip("matplotlib")
from leakyrelu_bench import cli, publish
from leakyrelu_bench.report import figures, notation, readme, summary
from leakyrelu_bench.report.drawing import DARK, LIGHT
from leakyrelu_bench.results import ResultsError, Run

from benchmark_samples import (
    compile_run,
    example_runs,
    files_of,
    fused_run,
    hostile_runs,
    odd_runs,
    ops_run,
    row_of,
    without_figures,
)
from browser_page import browser as browser  # the fixture
from browser_page import check_page, check_that_nothing_runs

pytestmark = pytest.mark.cpu_only


@functools.cache
def example_page() -> str:
    """Of every suite, given in another order than is told. Drawing it takes seconds."""
    return publish.page(list(reversed(example_runs())))


@pytest.mark.parametrize("runs", odd_runs().values(), ids=odd_runs())
def test_any_run_gives_a_page_a_document_and_a_block(runs):
    page = publish.page(runs)
    assert "<script" not in page
    page.encode("utf-8")
    assert page.count("<section id=") == len(runs) + 2
    document = publish.results(runs, "results")
    assert document.count("\n## ") == len({run.suite for run in runs})
    for text in (document.split("-->", 1)[1], readme.block(runs, "docs/results")):
        assert "<!--" not in text
        assert "<script" not in text
        text.encode("utf-8")


def test_the_op_comes_first_and_each_section_opens_with_its_answer_and_its_figures():
    page = example_page()
    sections = page.split("<section id=")[1:]
    order = [re.search(r'<p class="quiet">leakyrelu-bench (\w+),', section) for section in sections]
    assert [found[1] for found in order if found] == ["ops", "fused", "models", "memory", "compile"]
    for section in sections[:5]:
        verdict, figure, table = (section.index(part) for part in ('<p class="verdict">', "<picture>", "<table>"))
        assert verdict < figure < table
        assert re.search(r"times (as fast as|better than) ", section[verdict:figure])


def test_the_page_holds_every_row_and_every_fact():
    runs = example_runs()
    page = example_page()
    assert page.count('<tr class="') == sum(len(run.rows) for run in runs)
    text = html.unescape(page)
    for row in runs[0].rows[::97]:
        assert row.case in text
        assert row.rival in text
    for value in (
        "004ddfe",
        "avx512_bf16",
        "glibc 2.36",
        "16 GiB",
        "OMP_NUM_THREADS=2",
        "argument quick",
        "1.8 µs",
        "148 µs",
    ):
        assert value in text
    assert "NumPy has no bfloat16" in text
    assert "compilation failed" in text
    assert page.count("This run was interrupted") == 1
    assert "http:" not in page
    assert "https:" not in page


def test_the_page_names_the_worst_rows():
    run = ops_run(random.Random(0))
    lowest = min((row for row in run.rows if row.verdict == "worse"), key=lambda row: row.ratio)
    text = html.unescape(publish.page([run]))
    assert f"{lowest.ratio:.2f}: ours against {lowest.rival}, {lowest.case}" in text
    assert f"worse in {sum(row.verdict == 'worse' for row in run.rows)}," in text


def test_summaries_count_beyond_the_noise():
    chance = random.Random(0)
    base = row_of(chance, "ops", "x", "forward", "ours", "built-in", 1e-3, 1.0)
    rows = [dataclasses.replace(base, ratio=ratio, noise=0.05) for ratio in (2.0, 1.04, 0.96, 0.5)]
    (found,) = summary.by_rival(Run("ops", {}, {}, [*rows, without_figures(base, "absent")]))
    assert (found.better, found.same, found.worse, found.without) == (1, 2, 1, 1)
    assert found.mean == pytest.approx((2 * 1.04 * 0.96 * 0.5) ** 0.25)
    assert found.worst.ratio == 0.5
    assert [row.ratio for row in summary.lost(rows)] == [0.5]


def test_an_obstacle_names_the_side_that_all_its_rows_share():
    chance = random.Random(0)
    rows = [
        without_figures(row_of(chance, "models", "net", "step", ours, rival, 1.0, 1.0), reason)
        for reason, ours, rival in (("a", "A", "x"), ("a", "A", "y"), ("b", "A", "x"), ("b", "B", "x"), ("c", "A", "x"))
    ]
    sides = {reason: names for reason, (names, _) in summary.obstacles(rows).items()}
    assert sides == {"a": "A", "b": "x", "c": "A against x"}


def test_the_counterpart_is_of_the_same_kind():
    runs = dict(zip(("ops", "fused", "compile", "models", "memory"), example_runs(), strict=True))
    assert summary.counterpart(runs["models"], "compiled ours") == "compiled built-in"
    assert summary.counterpart(runs["models"], "ours, installed") == "built-in"
    assert summary.counterpart(runs["memory"], "ours, in place") == "built-in, in place"


@pytest.mark.parametrize(
    ("value", "unit", "written"),
    [
        (1.5e-9, "seconds", "2 ns"),
        (2.345e-6, "seconds", "2.35 µs"),
        (0.9996e-3, "seconds", "1000 µs"),
        (12.0, "seconds", "12 s"),
        (8, "bytes", "8 B"),
        (8.765e6, "bytes", "8.359 MiB"),
        (3 * 2**30, "bytes", "3 GiB"),
        (12.34e9, "bandwidth", "12.3 GB/s"),
        (0.857, "share", "86%"),
        (3, "samples", "3"),
        (0.25, "", "0.25"),
    ],
)
def test_figures_are_written_with_their_units(value, unit, written):
    assert notation.figure(value, unit) == written


def test_pictures_are_the_same_every_time_and_named_apart():
    run = compile_run(random.Random(0))
    drawn = figures.pictures([run, run])
    assert [picture.name for picture in drawn] == ["compile/training-step", "compile/training-step-2"]
    assert drawn[0].svg(DARK) == drawn[1].svg(DARK)
    assert drawn[0].png() == drawn[1].png()
    light, dark = drawn[0].svg(LIGHT), drawn[0].svg(DARK)
    # Every colour of one is another's in the other.
    assert not set(re.findall("#[0-9a-f]{6}", light)) & set(re.findall("#[0-9a-f]{6}", dark))


def call(*arguments):
    return cli.main(["report", *map(str, arguments)])


def test_the_command_writes_what_it_is_asked_for(tmp_path, capsys):
    files = files_of(example_runs()[1:4], tmp_path)
    docs = tmp_path / "docs"
    docs.mkdir()
    target = tmp_path / "README.md"
    target.write_text("A\n<!-- results: begin -->\nold\n<!-- results: end -->\nZ\n")
    wanted = ("--html", tmp_path / "r.html", "--png", docs / "png", "--results", docs / "results.md", "--readme", target)
    assert call(*files, *wanted) == 0
    written = capsys.readouterr().out.splitlines()
    assert all(Path(path).stat().st_size for path in written)
    for document in (target, docs / "results.md"):
        images = re.findall(r'src="([^"]+)"', document.read_text())
        assert images
        assert all((document.parent / image).exists() for image in images)
    for again in (wanted[:2], wanted[2:4], wanted[4:6]):
        assert call(*files, *again) == 2
        assert "--force" in capsys.readouterr().err
    assert call(*files, *wanted, "--force") == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--html", "absent/r.html"], "no directory"),
        (["--html", "."], "is a directory"),
        (["--png", "0.json"], "0.json"),
        (["--png", "absent/png"], "no directory"),
        (["--readme", "absent.md"], "absent.md"),
        (["--readme", "0.json"], "<!-- results: begin -->"),
        (["--results", "absent/r.md"], "no directory"),
        (["absent.json", "--html", "r.html"], "absent.json"),
    ],
)
def test_what_cannot_be_is_one_line_and_leaves_nothing(tmp_path, monkeypatch, capsys, arguments, message):
    monkeypatch.chdir(tmp_path)
    files = files_of([fused_run(random.Random(0))], tmp_path)
    assert call(*files, *arguments) == 2
    error = capsys.readouterr().err
    assert error.startswith("leakyrelu-bench report: error: ")
    assert message in error
    assert error.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["0.json"]


def test_without_an_output_it_says_which_there_are(tmp_path, capsys):
    with pytest.raises(SystemExit) as stopped:
        call(tmp_path / "0.json")
    assert stopped.value.code == 2
    message = capsys.readouterr().err
    assert all(option in message for option in ("--html", "--png", "--results", "--readme"))


def test_readme_is_rewritten_between_its_markers_only(tmp_path):
    path = tmp_path / "README.md"
    path.write_text("before\n<!-- results: begin -->\nold | table\n<!-- results: end -->\nafter\n")
    (file,) = files_of(example_runs()[:1], tmp_path)
    assert call(file, "--readme", path) == 0
    once = path.read_text()
    assert call(file, "--readme", path) == 0
    assert path.read_text() == once
    assert once.startswith("before\n<!-- results: begin -->\n| what |")
    assert "2026-11-26, AMD EPYC 9B14, 2 threads" in once
    assert once.endswith("<!-- results: end -->\nafter\n")
    assert "old | table" not in once


def test_readme_has_telling_results_each_with_its_command():
    runs = example_runs()
    block = readme.block(runs, "docs/results")
    against = [row for row in runs[0].rows if row.rival == "built-in"]
    (line,) = [line for line in block.splitlines() if line.startswith("| the op, geometric mean")]
    assert f"of {len(against)} comparisons" in line
    assert f"| {summary.geometric_mean(row.ratio for row in against):.2f} | `leakyrelu-bench ops` |" in line
    same, worse = (sum(row.verdict == verdict for row in against) for verdict in ("same", "worse"))
    assert f"({same} the same within the noise, {worse} slower)" in line
    wanted = ("noise, 2^20", "bfloat16", "forward", "fresh")
    (row,) = [row for row in against if (row.case, row.dtype, row.mode, row.outputs) == wanted]
    assert f"| {notation.ratio(row)} | `leakyrelu-bench ops --only 2^20 --dtype bfloat16` |" in block
    assert "| `leakyrelu-bench fused` |" in block
    assert "| `leakyrelu-bench models` |" in block
    assert "Steps of whole models: " in block
    assert block.count("<img ") == 1


def test_the_document_says_what_is_within_the_noise_and_what_is_lost():
    run = ops_run(random.Random(0))
    text = publish.results([run], "results")
    wanted = ("noise, 2^6", "float32", "in place", "fresh", "built-in")
    of_run = next(
        row for row in run.rows
        if (row.case, row.dtype, row.mode, row.outputs, row.rival) == wanted
    )  # fmt: skip
    assert of_run.verdict == "same"
    (line,) = [line for line in text.splitlines() if line.startswith("| noise, 2^6 | float32 |")]
    assert f"{of_run.ratio:.2f} (same)" in line
    against = [row for row in run.rows if row.rival == "built-in"]
    assert f"geometric mean of all {len(against)} ratios" in text
    assert f"worst {min(row.ratio for row in against):.2f}" in text
    assert "NumPy has no bfloat16" in text
    assert "x\\[:, :, ::2\\]" in text


def test_a_second_run_of_a_suite_is_summed_up_too():
    text = publish.results([fused_run(random.Random(0)), fused_run(random.Random(1))], "results")
    assert text.count("geometric mean of all 14 ratios") == 2
    assert text.count("|---|") == 1


def test_tables_have_as_many_cells_as_headings():
    for runs in (example_runs(), hostile_runs()):
        for text in (publish.results(runs, "results"), readme.block(runs, "docs/results")):
            tables = re.findall(r"(?:^\|.*\n)+", re.sub(r"\\.", "", text), re.M)
            assert tables or runs[0].suite != "ops"
            for table in tables:
                assert len({line.count("|") for line in table.splitlines()}) == 1


def test_absent_markers_are_named(tmp_path):
    path = tmp_path / "README.md"
    text = "<!-- results: end -->\n<!-- results: begin -->\n"
    path.write_text(text)
    with pytest.raises(ResultsError) as refused:
        readme.updated(path, example_runs()[:2], "docs/results")
    assert "README.md" in str(refused.value)
    assert "<!-- results: begin -->" in str(refused.value)
    assert "<!-- results: end -->" in str(refused.value)
    assert path.read_text() == text


@pytest.fixture(scope="module")
def page_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("page") / "report.html"
    path.write_text(example_page())
    return path


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize(("width", "height"), [(360, 800), (1280, 900)])
def test_the_page_in_a_browser(browser, page_file, width, height, scheme):
    check_page(browser, page_file, publish.pictures(example_runs()), width, height, scheme)


def test_hostile_names_run_nothing_in_a_browser(browser, tmp_path):
    path = tmp_path / "hostile.html"
    path.write_text(publish.page(hostile_runs()))
    check_that_nothing_runs(browser, path)
