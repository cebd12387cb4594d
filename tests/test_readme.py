"""The README's example does what its comments say."""

import re
from pathlib import Path

import torch

README = (Path(__file__).parent.parent / "README.md").read_text()


def test_example_runs():
    (example,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    assert len(example.strip().splitlines()) <= 12
    namespace: dict = {}
    exec(example, namespace)
    assert namespace["x"].grad.shape == namespace["x"].shape
    assert namespace["saved"] == [namespace["x"].numel() // 8] or not namespace["leakyrelu_ext"].build_info()["native"]
    assert isinstance(namespace["model"], torch.nn.Module)


def test_the_two_commands_come_first():
    head = README[:1500]
    assert "make bench" in head
    assert "make test" in head
