"""install() where the compiled library is missing: PyTorch's own kernels stay, and it says so."""

import subprocess
import sys

CODE = """
import sys, warnings
sys.modules["leakyrelu_ext._C"] = None
warnings.simplefilter("ignore")
import torch, leakyrelu_ext
with leakyrelu_ext.install():
    print(leakyrelu_ext.build_info()["installed"], torch.nn.functional.leaky_relu(torch.ones(1)).item())
leakyrelu_ext.uninstall()
"""


def test_nothing_changes_and_it_says_so(monkeypatch):
    monkeypatch.delenv("LEAKYRELU_EXT_REQUIRE_NATIVE", raising=False)
    done = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, check=True)
    assert done.stdout == "[] 1.0\n"
    assert "nothing installed, PyTorch's own leaky_relu stays: the compiled library is missing (" in done.stderr
