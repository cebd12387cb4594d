"""Page, document and README's block say what the rows say, whatever those hold; the page renders in a browser."""

import dataclasses
import html
import math
import random
import re
from pathlib import Path

import pytest

pytest.importorskip("matplotlib")
from leakyrelu_bench import cli, publish
from leakyrelu_bench.measure import scoring
from leakyrelu_bench.report import figures, notation, readme, summary
from leakyrelu_bench.report.drawing import DARK, LIGHT
from leakyrelu_bench.results import Quantiles, ResultsError, Roof, Row, Run, save

from browser_page import browser as browser  # the fixture
from browser_page import check_page, check_that_nothing_runs

pytestmark = pytest.mark.cpu_only

ENVIRONMENT = {
    "started": "2026-11-26T09:00:00+00:00",
    "device": "AMD EPYC 9B14",
    "cpu": "AMD EPYC 9B14",
    "cores": 2,
    "memory_bytes": 16 * 2**30,
    "threads": 2,
    "cpu_tier": "avx512_bf16",
    "torch_cpu_capability": "AVX512",
    "leakyrelu_ext": "0.1.0",
    "commit": "004ddfe",
    "torch": "2.13.0+cpu",
    "python": "3.12.3",
    "kernel": "6.1.0",
    "allocator": "glibc 2.36",
    "huge_pages": "madvise",
    "small_page_fault_seconds": 1.8e-6,
    "huge_page_fault_seconds": 148e-6,
    "settings": {"OMP_NUM_THREADS": "2"},
}
ITEM_SIZES = {"float32": 4, "bfloat16": 2, "float16": 2}
VERSIONS = {"JAX": "jax 0.7.0", "ONNX Runtime": "onnxruntime 1.22.0", "NumPy": "numpy 2.3.1"}
HOSTILE = '<script>alert(1)</script> $\\frac{x$ & "quoted" | `tick` <!-- results: end -->\n\ud800\x07'


def row_of(chance, suite, case, mode, ours, rival, ours_seconds, ratio, **more):
    """A row whose times and noise are a little off, as measured ones are."""
    ratio *= math.exp(chance.gauss(0, 0.02))
    values = {
        "shape": (),
        "dtype": "float32",
        "layout": "",
        "outputs": "",
        "unit": "seconds",
        "version": VERSIONS.get(rival, "torch 2.13.0+cpu"),
        "ours_value": Quantiles(0.97 * ours_seconds, ours_seconds, 1.06 * ours_seconds),
        "rival_value": Quantiles(*(factor * ratio * ours_seconds for factor in (0.98, 1, 1.05))),
        "ratio": ratio,
        "ratio_low": 0.97 * ratio,
        "ratio_high": 1.04 * ratio,
        "noise": chance.uniform(0.01, 0.07),
    }
    return Row(suite=suite, case=case, mode=mode, ours=ours, rival=rival, **{**values, **more})


def without_figures(row, obstacle):
    nothing = dict.fromkeys(("ours_value", "rival_value", "ratio", "ratio_low", "ratio_high", "noise"))
    return dataclasses.replace(row, obstacle=obstacle, extra={}, **nothing)


def ops_run(chance):
    modes = {"forward": 2, "in place": 2, "backward op": 2, "backward": 2, "forward+backward": 4, "owned backward": 2}
    gains = dict(zip(modes, (1.3, 1.0, 1.5, 1.6, 1.15, 2.9), strict=True))
    others = {"built-in": 1.0, "compiled": 1.4, "JAX": 2.5, "ONNX Runtime": 1.8, "NumPy": 4.0}
    inputs = [(f"noise, 2^{power}", (2**power,), "contiguous") for power in range(6, 25, 2)]
    inputs += [
        ("photos, stem 1", (2, 32, 214, 320), "contiguous"),
        ("photos, stem 2", (2, 64, 107, 160), "contiguous"),
        ("photos, stem 2, channels_last", (2, 64, 107, 160), "channels_last"),
        ("2^20, x[:, :, ::2]", (64, 64, 256), "strided"),
    ]
    rows, roofs = [], []
    for case, shape, layout in inputs:
        for dtype, item_size in ITEM_SIZES.items():
            size = math.prod(shape) * item_size
            for outputs in ("fresh", "warm") if layout == "contiguous" else ("fresh",):
                slow = 4.0 if outputs == "fresh" and size > 2**24 else 1.0
                roof = 60e9 / (1 + size / 2**23)
                if case.startswith("noise") and size >= 2**14:
                    roofs.append(Roof(case, dtype, layout, outputs, size, roof, 0.93 * roof, 2 * roof))
                for mode, tensors in modes.items():
                    seconds = 0.8e-6 + tensors * size / (0.85 * roof)
                    for rival, against in others.items():
                        if rival in ("JAX", "ONNX Runtime", "NumPy") and mode not in ("forward", "backward op"):
                            continue
                        ratio = against * gains[mode] * slow * (1.0 if dtype == "float32" else 1.5)
                        ratio *= 0.8 if dtype == "float32" and 2**23 < size <= 2**24 and mode == "forward" else 1.0
                        extra = {
                            "page_faults": (0.0, 0.0 if slow == 1 else size / 4096),
                            "saved_bytes": (size / item_size / 8, float(size)),
                            "bytes_per_second": (tensors * size / seconds, tensors * size / seconds / ratio),
                        }
                        row = row_of(
                            chance, "ops", case, mode, "ours", rival, seconds, ratio,
                            shape=shape, dtype=dtype, layout=layout, outputs=outputs, extra=extra,
                        )  # fmt: skip
                        if rival == "NumPy" and dtype == "bfloat16":
                            row = without_figures(row, "NumPy has no bfloat16")
                        elif rival == "ONNX Runtime" and mode == "backward op":
                            row = without_figures(row, "not installed: pip install 'leakyrelu_ext[peers]'")
                        rows.append(row)
    rows = scoring.with_roof_shares(rows, roofs)
    return Run("ops", {"dtype": ["float32", "bfloat16", "float16"], "quick": True, "only": None}, ENVIRONMENT, rows, roofs)


def fused_run(chance):
    cases = [
        ("StyleGAN2: bias + lrelu + gain, 8x64x128x128", "float32", 8.0),
        ("StyleGAN2: bias + lrelu + gain, 8x64x128x128, channels_last", "float32", 6.0),
        ("StyleGAN2: bias + lrelu + gain, 8x64x128x128", "bfloat16", 4.0),
        ("StyleGAN2: bias + lrelu + gain + clamp, 4x512x64x64", "float32", 12.0),
        ("StyleGAN2: bias + lrelu + gain, 2x32x8x8", "float32", 2.2),
        ("nnU-Net, residual encoder: residual + lrelu, 1x32x32x64x64", "float32", 3.1),
        ("MLP: bias + lrelu + dropout, 512x1024", "float32", 0.93),
    ]
    rows = []
    for case, dtype, gain in cases:
        shape = tuple(map(int, re.findall(r"\d+", case.split(", ")[-1 if "channels" not in case else -2])))
        for mode in ("forward", "forward+backward"):
            for rival, factor in {"eager": 1.0, "in place": 0.6, "reference": 1.02, "compiled": 0.9}.items():
                extra = {"saved_bytes": (2.0**20, 2.0**25), "page_faults": (12.0, 8192.0)}
                row = row_of(
                    chance, "fused", case, mode, "ours", rival, 3e-3, max(gain * factor, 0.9),
                    shape=shape, dtype=dtype, layout="contiguous", outputs="fresh", extra=extra,
                )  # fmt: skip
                rows.append(without_figures(row, "no C++ compiler") if rival == "compiled" and "2x32" in case else row)
    return Run("fused", {}, ENVIRONMENT, rows)


def compile_run(chance):
    rows = []
    sides = {"eager ours": 1.03, "compiled ours": 0.9, "compiled ours, as op": 0.96}
    for net in ("4 × (conv, norm, activation)", "4 × (conv, activation), large", "perceptron, dropout"):
        for ours, gain in sides.items():
            for rival, slower in {"eager built-in": 1.0, "compiled built-in": 1.1}.items():
                extra = {"saved_bytes": (14.6 * 2**20, 22.3 * 2**20)}
                rows.append(row_of(chance, "compile", net, "training step", ours, rival, 8e-3, gain * slower, extra=extra))
    return Run("compile", {"seed": 0}, ENVIRONMENT, rows)


def models_run(chance):
    names = (
        "nnU-Net 3-D",
        "nnU-Net 2-D",
        "DCGAN discriminator",
        "Darknet-53",
        "ESRGAN RRDB",
        "HiFi-GAN V1 generator",
        "GAT",
    )
    rows = []
    for index, name in enumerate(names):
        for mode in ("training step", "inference step"):
            for ours, gain in {"ours": 1.04, "ours, installed": 1.06, "compiled ours": 1.0}.items():
                for rival in ("built-in", "compiled built-in"):
                    step = 0.1 * (index + 1)
                    ratio = gain * (0.93 if rival != "built-in" else 1.0) * (0.9 if name == "GAT" else 1.0)
                    extra = {
                        "activation_share": (0.03, 0.05),
                        "saved_bytes": (2.0**27, 2.0**28),
                        "peak_bytes": (2.0**29, 2.2 * 2**28),
                    }
                    row = row_of(chance, "models", name, mode, ours, rival, step, ratio, extra=extra)
                    if name == "ESRGAN RRDB" and "compiled" in ours:
                        row = without_figures(row, "compilation failed: RuntimeError: out of memory")
                    rows.append(row)
    return Run("models", {"seed": 0}, ENVIRONMENT, rows, interrupted=True)


def memory_run(chance):
    rivals = {"built-in, out of place": 1.0, "built-in, in place": 0.55, "compiled built-in": 0.8}
    rows = []
    for case, whole in {"4 × (conv, activation), 8×3×128×128": 2.0**27, "nnU-Net 2-D": 2.0**29}.items():
        for ours, share in {"ours, out of place": 0.52, "ours, in place": 0.5}.items():
            for mode, base in {"saved for the backward": whole, "peak of a training step": 3 * whole}.items():
                for rival, of_whole in rivals.items():
                    mine, theirs = share * base, of_whole * base
                    rows.append(
                        Row(
                            "memory", case, (), "float32", "", mode, "", "bytes", ours, rival, "torch 2.13.0+cpu",
                            Quantiles(mine, mine, mine), Quantiles(theirs, theirs, theirs), theirs / mine, None, None, 0.0,
                        )
                    )  # fmt: skip
            for rival, of_whole in rivals.items():
                most, least = 2**31 // int(share * whole), 2**31 // int(of_whole * whole)
                rows.append(
                    Row(
                        "memory", case, (), "float32", "", "largest batch within 2 GiB", "", "samples", ours, rival,
                        "torch 2.13.0+cpu", Quantiles(most, most, most), Quantiles(least, least, least), most / least,
                        None, None, 0.0,
                    )
                )  # fmt: skip
    return Run("memory", {"budget": "2 GiB"}, ENVIRONMENT, rows)


def example_runs():
    """A plausible run of every suite, the same ones every time."""
    chance = random.Random(0)
    return [make(chance) for make in (ops_run, fused_run, compile_run, models_run, memory_run)]


def hostile_runs():
    """Names that are code, markers of README, formulas, not even text; and facts that are missing."""
    chance = random.Random(1)
    rows = [
        row_of(
            chance, HOSTILE, HOSTILE, HOSTILE, HOSTILE, HOSTILE, 1e-3, 1.5, version=HOSTILE, extra={HOSTILE: (1.0, None)}
        ),
        without_figures(row_of(chance, "x", HOSTILE, HOSTILE, HOSTILE, HOSTILE, 1e-3, 1.5, dtype=HOSTILE), HOSTILE),
    ]
    suites = ("ops", "fused", "compile", "models", "memory", HOSTILE)
    return [Run(suite, {HOSTILE: HOSTILE}, {"device": HOSTILE, "settings": {HOSTILE: [HOSTILE]}}, rows) for suite in suites]


def odd_runs():
    empty = Run("ops", {}, {}, [], interrupted=True)
    only_obstacles = ops_run(random.Random(2))
    rows = [without_figures(row, "broken") for row in only_obstacles.rows[:4]]
    one = dataclasses.replace(only_obstacles, rows=only_obstacles.rows[:1], roofs=[])
    return {
        "none": [],
        "empty": [empty],
        "obstacles": [dataclasses.replace(only_obstacles, rows=rows)],
        "one row": [one],
        "a suite twice": [one, one],
        "an unknown suite": [dataclasses.replace(one, suite="new")],
        "hostile": hostile_runs(),
    }


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
    page = publish.page(list(reversed(example_runs())))
    sections = page.split("<section id=")[1:]
    order = [re.search(r'<p class="quiet">leakyrelu-bench (\w+),', section) for section in sections]
    assert [found[1] for found in order if found] == ["ops", "fused", "models", "memory", "compile"]
    for section in sections[:5]:
        verdict, figure, table = (section.index(part) for part in ('<p class="verdict">', "<picture>", "<table>"))
        assert verdict < figure < table
        assert re.search(r"times (as fast as|better than) ", section[verdict:figure])


def test_the_page_holds_every_row_and_every_fact():
    runs = example_runs()
    page = publish.page(runs)
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
    assert drawn[0].png(LIGHT) == drawn[1].png(LIGHT)
    assert drawn[0].svg(LIGHT) != drawn[0].svg(DARK)


def files_of(runs, folder):
    paths = [folder / f"{index}.json" for index in range(len(runs))]
    for run, path in zip(runs, paths, strict=True):
        save(run, path)
    return [str(path) for path in paths]


def call(*arguments):
    return cli.main(["report", *map(str, arguments)])


def test_the_command_writes_what_it_is_asked_for(tmp_path, capsys):
    files = files_of(example_runs(), tmp_path)
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
    path.write_text(publish.page(example_runs()))
    return path


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize(("width", "height"), [(360, 800), (1280, 900)])
def test_the_page_in_a_browser(browser, page_file, width, height, scheme):
    check_page(browser, page_file, publish.pictures(example_runs()), width, height, scheme)


def test_hostile_names_run_nothing_in_a_browser(browser, tmp_path):
    path = tmp_path / "hostile.html"
    path.write_text(publish.page(hostile_runs()))
    check_that_nothing_runs(browser, path)
