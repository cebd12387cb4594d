"""README is short, its examples do what their comments say, and its figures are those of the files of results."""

import re
from pathlib import Path

import pytest
import torch

import leakyrelu_ext
from aten import uninstalled
from releases import needs_install

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()


def examples():
    return re.findall(r"```python\n(.*?)```", README, re.DOTALL)


@needs_install
def test_the_line_that_installs():
    with uninstalled():
        exec(examples()[0], {})
        assert leakyrelu_ext.build_info()["installed"]
        leakyrelu_ext.uninstall()


@pytest.mark.own_name
def test_examples_run(capsys):
    namespace: dict = {}
    for example in examples()[1:]:
        assert len(example.strip().splitlines()) <= 12
        exec(example, namespace)
    assert namespace["x"].grad.shape == namespace["x"].shape
    assert namespace["saved"] == [namespace["x"].numel() // 8] or not namespace["leakyrelu_ext"].build_info()["native"]
    assert isinstance(namespace["model"], torch.nn.Module)
    assert namespace["styled"].shape == namespace["images"].shape
    assert "units dead" in capsys.readouterr().out


def test_it_is_short():
    assert len(README.splitlines()) <= 150


def test_what_it_links_is_there():
    links = re.findall(r"\]\(([^)#:]+)\)", README)
    assert len(links) > 15
    assert [link for link in links if not (ROOT / link).exists()] == []


def test_the_figures_are_those_of_the_files_of_results():
    pytest.importorskip("matplotlib")
    pytest.importorskip("scipy")
    from leakyrelu_bench import publish, results
    from leakyrelu_bench.report import readme
    from leakyrelu_bench.study import study
    from leakyrelu_bench.study.report import document

    docs = ROOT / "docs"
    suites = ("ops", "fused", "norm", "compile", "models", "memory")
    runs = [results.load(docs / "results" / f"{suite}.json") for suite in suites]
    trained = study.load(docs / "results" / "train.json")
    assert readme.updated(docs.parent / "README.md", runs, "docs/results") == README
    assert (docs / "results.md").read_text() == publish.results([*runs, trained], "results")
    assert (docs / "study.md").read_text() == document.render(trained, "results")
    assert not any(run.interrupted for run in (*runs, trained))
    pages = [docs.parent / "README.md", docs / "results.md", docs / "study.md"]
    shown = {
        (page.parent / path).resolve() for page in pages for path in re.findall(r'src="([^"]+\.png)"', page.read_text())
    }
    assert shown
    assert all(picture.is_file() for picture in shown)


def test_the_two_commands_come_first():
    head = README[:1500]
    assert "make bench" in head
    assert "make test" in head
