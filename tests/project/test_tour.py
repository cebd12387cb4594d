"""The page that teaches how to build an extension shows one that works."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

PAGE = Path(__file__).parents[2] / "docs" / "how-it-works.md"


@pytest.mark.slow
@pytest.mark.cpu_only
def test_the_smallest_version_compiles_and_passes_its_own_checks(tmp_path):
    (program,) = (code for code in re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL) if "load_inline" in code)
    assert "opcheck" in program
    (tmp_path / "tiny.py").write_text(program)
    environment = {**os.environ, "TORCH_EXTENSIONS_DIR": str(tmp_path / "built")}
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])  # ninja
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "tiny.py"],
        cwd=tmp_path,
        env=environment | {"PATH": path},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
