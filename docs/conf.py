"""Sphinx configuration of the documentation: `make docs` builds it and runs its doctests."""

import shutil
import sys
from pathlib import Path

from docutils import nodes
from docutils.utils.math.latex2mathml import tex2mathml
from sphinx.application import Sphinx
from sphinx.writers.html5 import HTML5Translator

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE / "_extensions"))

import leakyrelu_ext  # noqa: E402

project = "leakyrelu_ext"
author = "the authors of leakyrelu_ext"
copyright = "BSD-3-Clause"
release = version = leakyrelu_ext.__version__

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.doctest",
    "sphinx.ext.napoleon",
    "sphinx_copybutton",
    "measured",
]
# releases.json and results/ are data, read by other pages.
exclude_patterns = ["results"]
myst_enable_extensions = ["colon_fence"]
myst_heading_anchors = 3

autodoc_typehints = "signature"
autodoc_member_order = "bysource"
autodoc_default_options = {"members": True}
napoleon_google_docstring = True
napoleon_numpy_docstring = False

doctest_global_setup = """
import torch
import torch.nn.functional as F
from torch import nn
import leakyrelu_ext
from leakyrelu_ext import AddLeakyReLU, BiasLeakyReLU, LeakyReLU
from leakyrelu_ext import BatchNormLeakyReLU2d, GroupNormLeakyReLU, InstanceNormLeakyReLU2d
from leakyrelu_ext.diagnostics import ActivationMonitor
from leakyrelu_ext.init import init_for_leaky_relu_
torch.manual_seed(0)
"""
doctest_global_cleanup = "leakyrelu_ext.uninstall()"

html_math_renderer = "mathml"
html_theme = "furo"
html_title = "leakyrelu_ext"
html_static_path = ["_static"]
html_css_files = ["custom.css"]
html_show_copyright = False
copybutton_prompt_text = r">>> |\.\.\. |\$ "
copybutton_prompt_is_regexp = True


def _copy_results(app: Sphinx, error: Exception | None) -> None:
    """Figures to which generated pages refer in HTML, which Sphinx does not read."""
    if error is None and app.builder.format == "html":
        data = shutil.ignore_patterns("*.json")
        shutil.copytree(HERE / "results", Path(app.outdir) / "results", ignore=data, dirs_exist_ok=True)


def _test_examples(_app: Sphinx, _what: str, _name: str, _obj: object, _options: object, lines: list[str]) -> None:
    """`Example::`, as PyTorch writes it, begins a literal block, which doctest leaves alone."""
    lines[:] = ["Example:" if line == "Example::" else line for line in lines]


def _write_math(translator: HTML5Translator, node: nodes.Element) -> None:
    """As MathML, which browsers know without a script from the network."""
    translator.body.append(tex2mathml(node.astext().replace(r"\_", "_"), as_block=isinstance(node, nodes.math_block)))
    raise nodes.SkipNode


def setup(app: Sphinx) -> None:
    app.add_html_math_renderer("mathml", (_write_math, None), (_write_math, None))
    app.connect("autodoc-process-docstring", _test_examples, priority=400)  # before napoleon
    app.connect("build-finished", _copy_results)
