"""The mechanics of `make gpu-check` (.ci/gpu_check.py), with other commands in the place of its stages'."""

import importlib.util
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.cpu_only
SCRIPT = Path(__file__).parents[2] / ".ci" / "gpu_check.py"
LIMIT = 20.0  # seconds; of what is to pass
SHORT = 3.0  # of what is not to; Python must have started until then, also on a busy machine

_spec = importlib.util.spec_from_file_location("gpu_check", SCRIPT)
gpu_check = importlib.util.module_from_spec(_spec)
sys.modules["gpu_check"] = gpu_check
_spec.loader.exec_module(gpu_check)
HERE = gpu_check.Machine("2.11.0", "13.0", "a GPU", "9.0")


@pytest.fixture(autouse=True)
def work(tmp_path, monkeypatch):
    """A folder of its own, in which something is built."""
    work = tmp_path / "work"
    for name, folder in (("WORK", work), ("SITE", work / "site"), ("WHEELS", work / "wheels")):
        monkeypatch.setattr(gpu_check, name, folder)
    monkeypatch.setattr(gpu_check, "GRACE", 1.0)
    monkeypatch.setattr(gpu_check, "PATIENCE", 0.3)
    build()
    return work


def build():
    module = gpu_check.SITE / "leakyrelu_ext" / "_built_with.py"
    module.parent.mkdir(parents=True, exist_ok=True)
    module.touch()


def python(code):
    return [sys.executable, "-c", code]


def stage(name, *codes, **facts):
    return gpu_check.Stage(name, [python(code) for code in codes], **facts)


def run_all(tmp_path, *stages, limit=LIMIT):
    return gpu_check.run_all(stages, dict.fromkeys(gpu_check.LIMITS, limit), tmp_path / "out", "a head")


@pytest.fixture
def orphans(monkeypatch):
    """Adopted as long as the test takes; of the children that this process has now, none is killed."""
    there, every = set(gpu_check.descendants()), gpu_check.descendants
    monkeypatch.setattr(gpu_check, "descendants", lambda: [pid for pid in every() if pid not in there])
    gpu_check.adopt_orphans()
    yield
    gpu_check.adopt_orphans(False)


def is_alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


PASSES = "print('3 passed in 0.1s')"
# Writes its number, in a session of its own, as the daemon of a pool of compilers would be.
GRANDCHILD = "import os, time; os.setsid(); print(os.getpid(), flush=True); time.sleep(60)"
SPAWNS = (
    f"import subprocess, sys; worker = subprocess.Popen([sys.executable, '-c', {GRANDCHILD!r}], stdout=subprocess.PIPE); "
    "print(worker.stdout.readline().decode().strip(), flush=True)"
)


@pytest.mark.usefixtures("orphans")
def test_a_stage_that_fails_does_not_stop_the_next(tmp_path, capfd):
    fails = stage("core", "print('1 failed, 2 passed in 0.1s'); raise SystemExit(3)")
    assert run_all(tmp_path, fails, stage("rest", PASSES)) == 1
    last = capfd.readouterr().out.rpartition("\n\n")[2]
    assert (tmp_path / "out" / "summary.txt").read_text().endswith(f"\n\n{last}")
    rows = last.splitlines()
    assert [re.split(r"  +", re.sub(r"(?<=  )\d+(?=  |$)", "N", row)) for row in rows] == [
        ["stage", "outcome", "seconds"],
        ["core", "failed with exit status 3", "N", "1 failed, 2 passed in 0.1s"],
        ["rest", "passed", "N", "3 passed in 0.1s"],
        ["all", "N"],
    ]
    assert run_all(tmp_path, stage("rest", PASSES)) == 0


@pytest.mark.usefixtures("orphans")
def test_a_stage_that_runs_out_of_time_is_killed_with_what_it_started(tmp_path):
    ignores = f"import signal, time; signal.signal(signal.SIGINT, signal.SIG_IGN); {SPAWNS}; time.sleep(60)"
    assert run_all(tmp_path, stage("core", ignores), stage("rest", PASSES), limit=SHORT) == 1
    grandchild = int((tmp_path / "out" / "core.txt").read_text().splitlines()[-1])
    assert not is_alive(grandchild)
    shown = (tmp_path / "out" / "summary.txt").read_text()
    assert re.search(r"^core +ran out of time +\d+$", shown, re.M)
    assert re.search(r"^rest +passed", shown, re.M)


@pytest.mark.usefixtures("orphans")
def test_tests_that_run_out_of_time_tell_what_failed_though_their_workers_hang(tmp_path):
    code = (
        "import subprocess, time; worker = subprocess.Popen(['sleep', '60'])\n"
        "try: time.sleep(60)\nexcept KeyboardInterrupt: worker.wait(); print('2 failed in 1.0s')"
    )
    assert run_all(tmp_path, stage("core", code), limit=SHORT) == 1
    shown = (tmp_path / "out" / "summary.txt").read_text()
    assert re.search(r"^core +ran out of time +\d+  2 failed in 1.0s$", shown, re.M)


@pytest.mark.usefixtures("orphans")
def test_what_a_stage_leaves_running_does_not_disturb_the_next(tmp_path):
    assert run_all(tmp_path, stage("core", SPAWNS)) == 0
    assert not is_alive(int((tmp_path / "out" / "core.txt").read_text().splitlines()[-1]))


@pytest.mark.usefixtures("orphans")
def test_a_benchmark_that_runs_out_of_time_saves_what_it_has(tmp_path):
    path = tmp_path / "out" / "ops.json"
    found = {"rows": [{"ratio": 1.5}, {"ratio": None}], "interrupted": True}
    code = (
        "import json, time\nprint('a table', flush=True)\n"
        f"try: time.sleep(60)\nexcept KeyboardInterrupt: open({str(path)!r}, 'w').write({json.dumps(found)!r})"
    )
    assert run_all(tmp_path, stage("ops", code, result="ops.json"), limit=SHORT) == 1
    shown = (tmp_path / "out" / "summary.txt").read_text()
    assert "\na table\n" in shown
    assert re.search(r"^ops +ran out of time +\d+  1 of 2 rows measured, interrupted$", shown, re.M)
    assert sorted(os.listdir(tmp_path / "out")) == ["ops.json", "summary.txt"]


def test_a_background_job_of_a_shell_can_be_interrupted_all_the_same():
    """There Ctrl-C is ignored, and what a stage starts would inherit that."""
    code = (
        "import signal, sys; signal.signal(signal.SIGINT, signal.SIG_IGN);"
        f"sys.path.insert(0, {str(SCRIPT.parent)!r}); import gpu_check; gpu_check.main(['--stages', 'none']);"
        "print(signal.getsignal(signal.SIGINT) is signal.default_int_handler)"
    )
    assert subprocess.run(python(code), capture_output=True, text=True, check=True).stdout == "True\n"


@pytest.mark.usefixtures("orphans")
def test_when_the_build_fails_the_others_are_left_out(tmp_path):
    stages = stage("build", "raise SystemExit(1)"), stage("core", PASSES), stage("ops", PASSES, result="ops.json")
    assert run_all(tmp_path, *stages) == 1
    shown = (tmp_path / "out" / "summary.txt").read_text()
    for name in ("core", "ops"):
        assert re.search(rf"^{name} +left out: nothing built +0$", shown, re.M)
    assert sorted(os.listdir(tmp_path / "out")) == ["build.txt", "summary.txt"]


def test_a_build_says_how_many_warnings_there_were(tmp_path):
    log = (
        "  warning: no previously-included files matching '*.so' found anywhere in distribution\n"  # setuptools'
        "  /csrc/ops.cpp:3:5: warning: unused variable 'x' [-Wunused-variable]\n"
        '  csrc/cuda/leaky_relu.cu(3): warning #177-D: variable "x" was declared but never referenced\n'
        "  g++ -Wsign-compare -Wall -c csrc/ops.cpp\n"
    )
    assert gpu_check.counts(stage("build"), log, tmp_path) == "warnings: 2"


@pytest.mark.usefixtures("orphans")
def test_commands_at_once_come_one_after_the_other_in_the_log(tmp_path):
    met = tmp_path / "met"  # the first waits for the second
    wait = f"import time; from pathlib import Path\nwhile not Path({str(met)!r}).exists(): time.sleep(0.01)"
    first = f"print('one', flush=True); {wait}\nprint('two'); print('==== ERROR SUMMARY: 0 errors')"
    second = f"print('three'); open({str(met)!r}, 'w'); raise SystemExit(4)"
    assert run_all(tmp_path, stage("sanitizer", first, second, at_once=True)) == 1
    log = (tmp_path / "out" / "sanitizer.txt").read_text()
    assert [line for line in log.splitlines() if line in ("one", "two", "three")] == ["one", "two", "three"]
    shown = (tmp_path / "out" / "summary.txt").read_text()
    assert re.search(r"^sanitizer +failed with exit status 4 +\d+  ERROR SUMMARY: 0 errors$", shown, re.M)


@pytest.mark.usefixtures("orphans")
def test_a_command_that_is_not_there_fails(tmp_path):
    assert run_all(tmp_path, gpu_check.Stage("core", [["/no/such/command"]]), stage("rest", PASSES)) == 1
    assert re.search(r"^core +failed with exit status 127", (tmp_path / "out" / "summary.txt").read_text(), re.M)


def the_stages(tmp_path, device="cuda", wheels=None, names=tuple(gpu_check.LIMITS), here=HERE):
    return {each.name: each for each in gpu_check.stages(names, wheels, device, tmp_path / "out", here)}


def test_the_stages_come_in_order_and_write_eight_files(tmp_path):
    stages = the_stages(tmp_path)
    assert list(stages) == list(gpu_check.LIMITS)
    files = {*(stage.file for stage in stages.values()), "summary.txt"}
    assert files == {
        *("build.txt", "core.txt", "ops.json", "fused.json", "models.json", "sanitizer.txt", "rest.txt", "summary.txt")
    }
    assert list(the_stages(tmp_path, names=("rest", "ops"))) == ["ops", "rest"]


def test_all_stages_fit_into_eight_minutes():
    spec = importlib.util.spec_from_file_location("as_it_is", SCRIPT)
    as_it_is = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = as_it_is
    spec.loader.exec_module(as_it_is)
    assert sum(limit + as_it_is.GRACE for limit in as_it_is.LIMITS.values()) <= as_it_is.TOTAL == 480


def test_every_test_is_in_one_stage(tmp_path):
    stages = the_stages(tmp_path)
    folder = Path(__file__).parents[1]
    assert all((folder / name).exists() for name in gpu_check.CORE)
    core, (rest, memory) = stages["core"].commands[0], stages["rest"].commands
    assert {name for name in core if name.endswith(".py")} == set(gpu_check.CORE)
    assert {argument.removeprefix("--ignore=") for argument in rest if "--ignore=" in argument} == set(gpu_check.CORE)
    assert rest[-1] == "."
    assert memory[-3:] == ["-m", "slow", "kernels/test_cuda.py"]


def test_it_is_built_for_this_gpu_only(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_CUDA_ARCH_LIST", "7.5;8.0")
    assert the_stages(tmp_path)["build"].variables == {"FORCE_CUDA": "1", "TORCH_CUDA_ARCH_LIST": "9.0"}
    of_cpu = the_stages(tmp_path, "cpu")["build"].variables
    assert of_cpu == {"FORCE_CUDA": "1", "TORCH_CUDA_ARCH_LIST": "7.5;8.0"}
    monkeypatch.delenv("TORCH_CUDA_ARCH_LIST")
    assert the_stages(tmp_path, "cpu")["build"].variables["TORCH_CUDA_ARCH_LIST"] == "9.0"
    without = gpu_check.Machine("2.13.0+cpu", None, None, None)
    assert the_stages(tmp_path, "cpu", here=without)["build"].variables == {"FORCE_CUDA": "0"}


def test_nothing_comes_from_a_network_or_goes_into_the_interpreter(tmp_path):
    (tmp_path / "absent-1.0-py3-none-any.whl").touch()
    wheels, install, _ = the_stages(tmp_path, wheels=tmp_path)["build"].commands
    for command, target in ((wheels, gpu_check.WHEELS), (install, gpu_check.SITE)):
        assert {"--no-index", "--no-deps"} <= set(command)
        assert command[command.index("--target") + 1] == str(target)
    assert "--no-build-isolation" in install


def test_only_wheels_of_what_is_lacking_are_installed(tmp_path, monkeypatch):
    versions = {"numpy": "1.26.4", "setuptools": "70.3.0", "pytest-xdist": "3.8.0", "torch": "2.6.0+cu126", "pytest": "10.0"}

    def version(name):
        if name in versions:
            return versions[name]
        raise gpu_check.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(gpu_check.metadata, "version", version)
    for name in ("numpy-2.4.6", "setuptools-81.0.0", "pytest_xdist-3.8.0", "torch-2.13.0", "pytest-9.0", "Expect_Test-0.3"):
        (tmp_path / f"{name}-py3-none-any.whl").touch()
    least = gpu_check.minimums('requires = ["setuptools>=77"]\ntest = ["pytest>=8", "torch>=2.7"]')
    assert least == {"setuptools": (77,), "pytest": (8,), "torch": (2, 7)}
    assert gpu_check.lacking(tmp_path, least) == ["expect-test", "setuptools>=77"]


def test_what_is_installed_comes_first_on_the_path(monkeypatch):
    monkeypatch.setenv("PYTHONPATH", "mine")
    environment = gpu_check.environment()
    assert environment["PYTHONPATH"].split(os.pathsep) == [str(gpu_check.SITE), str(gpu_check.WHEELS), "mine"]
    assert environment["PATH"].startswith(str(gpu_check.WHEELS / "bin"))
    assert environment["LEAKYRELU_EXT_REQUIRE_NATIVE"] == "1"


def test_without_a_sanitizer_its_stage_is_left_out(tmp_path, monkeypatch):
    monkeypatch.setattr(gpu_check.shutil, "which", lambda _: None)
    sanitizer = the_stages(tmp_path)["sanitizer"]
    outcome = gpu_check.run(sanitizer, LIMIT, tmp_path, {})
    assert (outcome.words, outcome.passed) == ("left out: no compute-sanitizer", True)
    monkeypatch.setattr(gpu_check.shutil, "which", lambda name: f"/bin/{name}")
    assert the_stages(tmp_path)["sanitizer"].obstacle is None
    assert the_stages(tmp_path, "cpu")["sanitizer"].obstacle == "no GPU"


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--stages", ""], "the stages are build core ops fused models sanitizer rest; got none"),
        (["--stages", "core tests"], "the stages are build core ops fused models sanitizer rest; got core tests"),
        (["--seconds", "0"], "--seconds must be positive, got 0.0"),
        (["--wheels", "/no/such/folder"], "/no/such/folder is not a folder"),
    ],
)
def test_wrong_arguments_are_one_line(arguments, says, capsys, monkeypatch):
    monkeypatch.setattr(gpu_check.signal, "signal", lambda *_: None)
    monkeypatch.setattr(gpu_check, "run_all", lambda *_: pytest.fail("ran all the same"))
    assert gpu_check.main(arguments) == 2
    assert capsys.readouterr().err == f"gpu-check: {says}\n"


def test_without_a_gpu_nothing_is_built(capsys, monkeypatch):
    monkeypatch.setattr(gpu_check.signal, "signal", lambda *_: None)
    monkeypatch.setattr(gpu_check, "machine", lambda: gpu_check.Machine("2.13.0+cpu", None, None, None))
    monkeypatch.setattr(gpu_check, "run_all", lambda *_: pytest.fail("ran all the same"))
    assert gpu_check.main([]) == 1
    assert capsys.readouterr().err == "gpu-check: torch 2.13.0+cpu sees no NVIDIA GPU here\n"
