"""Folders are rooms: imports between them run one way, no circle leads back, and none is crowded."""

import ast
import subprocess
from collections import Counter
from pathlib import Path, PurePath

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = {"leakyrelu_bench": ROOT / "benchmarks", "leakyrelu_ext": ROOT / "leakyrelu_ext"}
# What the modules of each part of the benchmark may import of the others.
ARROWS = {
    "results": set(),
    "models": set(),
    "measure": {"results"},
    "suites": {"measure", "models", "results"},
    "report": {"results"},
    "session": {"measure", "report", "results"},
    "study": {"measure", "report", "results", "suites"},
    "publish": {"report", "results", "study"},
    "cli": {"measure", "publish", "report", "results", "session", "study", "suites"},
    "__main__": {"cli"},
}
MOST_FILES = 16
ROOMS = ("csrc", "leakyrelu_ext", "benchmarks", "tests", "docs")


def name_of(path, package, root):
    parts = path.relative_to(root).with_suffix("").parts
    return ".".join((package, *parts)).removesuffix(".__init__")


def imports(path, name, modules):
    """Those of ``modules`` that the file imports, inside functions too; a package's __init__ only where it is named."""
    found = set()
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            above = package.rsplit(".", node.level - 1)[0] if node.level else ""
            of = ".".join(filter(None, (above, node.module)))
            members = {f"{of}.{alias.name}" for alias in node.names}
            found |= {member for member in members if member in modules}
            if not members <= modules.keys():
                found.add(of)
    return found & modules.keys() - {name}


def graph(package):
    root = PACKAGES[package]
    modules = {name_of(path, package, root): path for path in sorted(root.rglob("*.py"))}
    return {name: imports(path, name, modules) for name, path in modules.items()}


def circles(edges):
    """The modules that lead back to themselves."""

    def reached(start):
        seen, todo = set(), list(edges[start])
        while todo:
            if (module := todo.pop()) not in seen:
                seen.add(module)
                todo += edges[module]
        return seen

    return {module for module in edges if module in reached(module)}


@pytest.mark.parametrize("package", PACKAGES)
def test_no_circle_of_imports(package):
    assert circles(graph(package)) == set()


def test_circles_are_found(tmp_path):
    texts = {
        "__init__": "",
        "a": "def f():\n    from . import b",
        "b": "from .c import x",
        "c": "from pack.a import f",
        "d": "from .a import f",
    }
    for stem, text in texts.items():
        (tmp_path / f"{stem}.py").write_text(text)
    modules = {name_of(path, "pack", tmp_path): path for path in tmp_path.glob("*.py")}
    edges = {name: imports(path, name, modules) for name, path in modules.items()}
    assert circles(edges) == {"pack.a", "pack.b", "pack.c"}


def test_imports_between_parts_of_the_benchmark_run_one_way():
    edges = graph("leakyrelu_bench")
    part = {name: name.split(".")[1] for name in edges if "." in name}
    backward = {
        f"{name} imports {other}"
        for name in part
        for other in edges[name]
        if part[other] not in {part[name], *ARROWS[part[name]]}
    }
    assert backward == set()


def test_no_folder_is_crowded():
    listed = subprocess.run(["git", "-C", str(ROOT), "ls-files", *ROOMS], capture_output=True, text=True, check=False)
    if listed.returncode or not listed.stdout:
        pytest.skip("not a checkout")
    folders = Counter(str(PurePath(path).parent) for path in listed.stdout.splitlines() if (ROOT / path).is_file())
    assert {folder: count for folder, count in folders.items() if count > MOST_FILES} == {}
