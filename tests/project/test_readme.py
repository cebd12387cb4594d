"""The README's example does what its comments say."""

import re
from pathlib import Path

import pytest
import torch

import leakyrelu_ext
from aten import uninstalled
from releases import needs_install

README = (Path(__file__).parents[2] / "README.md").read_text()


def examples():
    return re.findall(r"```python\n(.*?)```", README, re.DOTALL)


@needs_install
def test_the_line_that_installs():
    with uninstalled():
        exec(examples()[0], {})
        assert leakyrelu_ext.build_info()["installed"]
        leakyrelu_ext.uninstall()


@pytest.mark.own_name
def test_example_runs():
    (_, example) = examples()
    assert len(example.strip().splitlines()) <= 12
    namespace: dict = {}
    exec(example, namespace)
    assert namespace["x"].grad.shape == namespace["x"].shape
    assert namespace["saved"] == [namespace["x"].numel() // 8] or not namespace["leakyrelu_ext"].build_info()["native"]
    assert isinstance(namespace["model"], torch.nn.Module)


def test_the_figures_are_those_of_the_files_of_results():
    pytest.importorskip("matplotlib")
    pytest.importorskip("scipy")
    from leakyrelu_bench import results
    from leakyrelu_bench.report import readme
    from leakyrelu_bench.study import study
    from leakyrelu_bench.study.report import document

    folder = Path(__file__).parents[2] / "docs" / "results"
    runs = [results.load(folder / f"{suite}.json") for suite in ("ops", "fused", "compile", "models", "memory")]
    runs.append(study.load(folder / "train.json"))
    assert readme.check(folder.parent.parent / "README.md", runs)
    assert not any(run.interrupted for run in runs)
    assert (folder.parent / "study.md").read_text() == document.render(runs[-1], "results")
    for picture in re.findall(r'src="(docs/results/[^"]+)"', README):
        assert (folder.parent.parent / picture).exists()


def test_the_two_commands_come_first():
    head = README[:1500]
    assert "make bench" in head
    assert "make test" in head
