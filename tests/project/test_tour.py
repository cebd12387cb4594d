"""The page that teaches how to build an extension shows one that works."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

PAGE = Path(__file__).parents[2] / "docs" / "how-it-works.md"


@pytest.mark.slow
@pytest.mark.cpu_only
def test_the_smallest_version_compiles_and_passes_its_own_checks(tmp_path):
    files = dict(re.findall(r"^`([\w.]+)`, .*?\n\n```[\w+]+\n(.*?)```", PAGE.read_text(), re.DOTALL | re.MULTILINE))
    assert files.keys() == {"tiny.cpp", "setup.py", "check.py"}
    assert "opcheck" in files["check.py"]
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    for command in (["setup.py", "build_ext", "--inplace"], ["check.py"]):
        done = subprocess.run([sys.executable, "-W", "ignore", *command], cwd=tmp_path, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
