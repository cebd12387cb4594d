"""The scripts in examples/ run as they are, and print what their first lines say."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.native, pytest.mark.cpu_only, pytest.mark.own_name]

EXAMPLES = Path(__file__).parents[2] / "examples"


def printed_by(example: str, folder: Path) -> str:
    pytest.importorskip("sklearn")
    done = subprocess.run([sys.executable, EXAMPLES / example], capture_output=True, text=True, cwd=folder, timeout=300)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_every_example_has_a_test_and_a_line_in_the_readme():
    names = {path.name for path in EXAMPLES.glob("*.py")}
    assert names == set(re.findall(r'printed_by\("(\w+\.py)"', Path(__file__).read_text()))
    assert names == set(re.findall(r"`(\w+\.py)`", (EXAMPLES / "README.md").read_text()))


def test_digits_discriminator(tmp_path):
    printed = printed_by("digits_discriminator.py", tmp_path)
    plain, fused = map(int, re.search(r"keeps (\d+) bytes with PyTorch's ops, (\d+) with", printed).groups())
    assert fused < 0.6 * plain
    before, after = map(float, re.findall(r": (?:generated images are )?(\d+\.\d+)", printed))
    assert after < 0.8 * before  # images come closer to real digits


def test_unet_one_line(tmp_path):
    printed = printed_by("unet_one_line.py", tmp_path)
    before, after = map(float, re.search(r"keeps ([\d.]+) MiB before, ([\d.]+) MiB after", printed).groups())
    assert after < 0.8 * before
    assert re.findall(r"the same bits: (\w+)", printed) == ["True", "True"]


def test_watch_units_die(tmp_path):
    printed = printed_by("watch_units_die.py", tmp_path)
    still = {name: int(units) for name, units in re.findall(r"^(\w+): (\d+) of 320 units without", printed, re.MULTILINE)}
    assert still.keys() == {"ReLU", "LeakyReLU"}
    assert still["ReLU"] > 10
    assert still["LeakyReLU"] == 0
    assert printed.count("1 of 1 forwards observed") == 2  # the monitor's table, once for each network
