"""The command line: what it refuses, what it shows and saves, and that Ctrl-C keeps what is done."""

import dataclasses
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

pytest.importorskip("rich")
pytest.importorskip("sklearn")
from leakyrelu_bench import cli, results, session
from leakyrelu_bench.measure import contest, environment, processes
from leakyrelu_bench.suites import ops
from leakyrelu_bench.suites.arguments import LEVELS
from test_benchmark_terminal import row

pytestmark = pytest.mark.cpu_only


def run(*arguments):
    return subprocess.run([sys.executable, "-m", "leakyrelu_bench", *arguments], capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["nothing"],
        ["ops", "--threads", "0"],
        ["ops", "--threads", "x"],
        ["ops", "--threads", "99999"],
        ["ops", "--seconds", "inf"],
        ["ops", "--seconds", "nan"],
        ["ops", "--seconds", "-1"],
        ["ops", "--seed", "99999999999999999999"],
        ["ops", "--dtype", "int8"],
        ["ops", "--device", "tpu"],
        ["ops", "--device", "meta"],
        ["ops", "--device", "cuda:99"],
        ["ops", "--quick", "--full"],
        ["ops", "--json"],
        ["fused", "--device", "cuda:99"],
        ["compile", "--device", "cuda"],
        ["fused", "--seconds", "0"],
        ["fused", "--dtype", "float32"],
        ["compile", "--max-size", "1"],
        ["compile", "--no-compile"],
        ["memory", "--budget", "2"],
        ["memory", "--seconds", "1"],
        ["compare", "a.json"],
        ["compare", "a.json", "b.json", "--threshold", "-1"],
        ["report", "a.json"],
        ["report", "--html", "a.html"],
    ],
)
def test_bad_arguments(arguments, capsys):
    with pytest.raises(SystemExit) as stopped:
        cli.main(arguments)
    assert stopped.value.code == 2
    error = capsys.readouterr().err
    assert error.startswith("leakyrelu-bench")
    assert ": error: " in error
    assert error.count("\n") == 1


def test_a_device_that_is_not_there(capsys):
    with pytest.raises(SystemExit):
        cli.main(["ops", "--device", "cuda:99"])
    assert "argument --device: there is no device cuda:99 here (see leakyrelu-bench ops --help)\n" in capsys.readouterr().err


@pytest.mark.parametrize("command", cli.SUITES)
def test_help_teaches(command, capsys):
    with pytest.raises(SystemExit) as stopped:
        cli.main([command, "--help"])
    assert stopped.value.code == 0
    shown = capsys.readouterr().out
    for option in (
        "--device",
        "--threads",
        "--quick",
        "--full",
        "--json FILE",
        "--html FILE",
        "--seed",
        "--force",
        "--only",
    ):
        assert option in shown
    assert max(map(len, shown.splitlines())) <= 125


@pytest.mark.native
@pytest.mark.parametrize("command", cli.SUITES)
def test_nothing_of_that_name(command, capsys):
    assert cli.main([command, "--only", "AlexNet"]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"leakyrelu-bench {command}: error: argument --only: no ")
    assert error.count("\n") == 1


@pytest.mark.native
def test_results_go_to_the_terminal_and_to_files(tmp_path, capsys):
    path, page = tmp_path / "a.json", tmp_path / "a.html"
    arguments = [
        "ops",
        "--only",
        "2^6",
        "--seconds",
        "0.003",
        "--dtype",
        "float16",
        "--no-compile",
        "--no-peers",
        "--seed",
        "3",
    ]
    assert cli.main([*arguments, "--json", str(path), "--html", str(page)]) == 0
    shown = capsys.readouterr().out
    for word in (
        "noise, 2^6",
        "float16",
        "forward+backward",
        "page faults of a fresh output, each: ",
        "transparent huge pages",
    ):
        assert word in shown
    assert "photos" not in shown
    saved = results.load(path)
    assert (saved.suite, saved.interrupted, saved.arguments["seed"]) == ("ops", False, 3)
    assert {row.mode for row in saved.rows} == {"forward", "in place", "backward", "forward+backward"}
    assert all(row.ratio and row.noise for row in saved.rows)
    for name in ("cpu_tier", "torch", "threads", "huge_pages", "allocator", "small_page_fault_seconds", "started", "device"):
        assert saved.environment[name] is not None
    assert "noise, 2^6" in page.read_text()
    before = path.read_bytes()
    assert cli.main([*arguments, "--json", str(path)]) == 2
    assert "is there already; --force overwrites it" in capsys.readouterr().err
    assert path.read_bytes() == before
    assert cli.main([*arguments, "--json", str(path), "--force"]) == 0
    assert results.load(path).environment["started"]


class Interrupted:
    """A plan that Ctrl-C ends after its first step."""

    steps = 2

    def results(self, step):
        value = results.Quantiles(1.0, 1.0, 1.0)
        figures = (value, value, 2.0, 2.0, 2.0, 0.01)
        row = results.Row("ops", "x", (1,), "float32", "", "forward", "", "seconds", "ours", "built-in", "torch", *figures)
        step("x")
        yield lambda: ([row], [])
        step("y")
        raise KeyboardInterrupt


@pytest.mark.native
def test_an_interruption_keeps_what_is_done(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(ops, "plan", lambda arguments: (Interrupted(), ["a note"]))
    path = tmp_path / "a.json"
    assert cli.main(["ops", "--json", str(path)]) == 130
    shown = capsys.readouterr().out
    assert "interrupted: only what was measured until then" in shown
    assert "a note" in shown
    saved = results.load(path)
    assert saved.interrupted
    assert [row.case for row in saved.rows] == ["x"]


class Mismatched:
    steps = 1

    def results(self, step):
        step("x")
        raise contest.MismatchError("the function differs")
        yield


class Broken(Interrupted):
    """A plan whose process dies after the first step."""

    def results(self, step):
        yield next(super().results(step))
        raise processes.PassError("x: the process of pass 1 ended with exit code -9")


@pytest.mark.native
@pytest.mark.parametrize(
    ("plan", "message", "kept"), [(Mismatched, "the function differs", 0), (Broken, "ended with exit code -9", 1)]
)
def test_a_failure_is_one_line_and_status_1(plan, message, kept, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(ops, "plan", lambda arguments: (plan(), []))
    path = tmp_path / "a.json"
    assert cli.main(["ops", "--json", str(path)]) == 1
    error = next(line for line in capsys.readouterr().err.splitlines() if "error" in line)
    assert error.startswith("leakyrelu-bench: error: ")
    assert message in error
    assert path.exists() == bool(kept)
    assert not kept or results.load(path).interrupted


@pytest.mark.slow
@pytest.mark.native
def test_ctrl_c_on_the_real_thing(tmp_path):
    """As a terminal sends it: to the processes of the passes, too. Whenever it comes, what is done is kept."""
    path = tmp_path / "a.json"
    command = [sys.executable, "-m", "leakyrelu_bench", "ops", "--full", "--no-compile", "--no-peers", "--json", str(path)]
    for patience in (0.5, 15):
        with subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
        ) as process:
            process.stdout.readline()  # it measures from here on
            time.sleep(patience)
            os.killpg(process.pid, signal.SIGINT)
            shown, errors = process.communicate(timeout=60)
        assert process.returncode == 130, errors
        assert "Traceback" not in errors
    assert "interrupted: only what was measured until then" in shown
    saved = results.load(path)
    assert saved.interrupted
    assert saved.rows[0].case == "photos, stem 1"


@pytest.mark.native
def test_a_closed_pipe_loses_no_results(tmp_path):
    path = tmp_path / "a.json"
    arguments = ["ops", "--only", "2^6", "--seconds", "0.003", "--dtype", "float32", "--no-compile", "--no-peers"]
    command = [sys.executable, "-m", "leakyrelu_bench", *arguments, "--json", str(path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        process.stdout.readline()
        process.stdout.close()
        process.wait(timeout=120)
    assert results.load(path).rows


@pytest.mark.native
def test_without_the_library_there_is_nothing_to_compare():
    code = "import sys; sys.modules['leakyrelu_ext._C'] = None; from leakyrelu_bench import cli; sys.exit(cli.main(['ops']))"
    variables = {key: value for key, value in os.environ.items() if key != "LEAKYRELU_EXT_REQUIRE_NATIVE"}
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, check=False, env=variables
    )
    assert done.returncode == 1
    assert "nothing to compare with the built-in" in done.stderr


def test_without_the_extra_it_says_how_to_get_it():
    code = "import sys; sys.modules['rich'] = None; from leakyrelu_bench import cli; sys.exit(cli.main(['ops']))"
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert "pip install 'leakyrelu_ext[bench]'" in done.stderr


@pytest.mark.slow
@pytest.mark.native
def test_ops_ends_in_its_table():
    done = run("ops", "--quick", "--max-size", "4096", "--seconds", "0.02", "--seed", "3", "--threads", "1")
    assert done.returncode == 0, done.stderr
    assert "1 thread(s)" in done.stdout.splitlines()[0]
    for word in (
        "photos, stem 2",
        "noise, 2^6",
        "bfloat16",
        "forward+backward",
        "owned backward",
        "compiled",
    ):
        assert word in done.stdout
    assert "2^14" not in done.stdout
    assert " times as fast as built-in (geometric mean of " in done.stdout
    assert re.search(r"^compiled +[\d.]+ +\d+ +\d+ +\d+ ", done.stdout, re.M)


@pytest.mark.slow
@pytest.mark.native
def test_fused_ends_in_its_summary():
    done = run("fused", "--only", "512x1024", "--seconds", "0.02", "--seed", "3", "--threads", "1")
    assert done.returncode == 0, done.stderr
    assert "1 thread(s)" in done.stdout.splitlines()[0]
    for word in (
        "MLP: bias + lrelu + dropout",
        "512x1024",
        "forward+backward",
    ):
        assert word in done.stdout
    (counts,) = re.findall(r"^compiled +[\d.]+ +(\d+) +(\d+) +(\d+) ", done.stdout, re.M)
    assert sum(map(int, counts)) == 4
    assert "not measured: " not in done.stdout


@pytest.mark.slow
@pytest.mark.native
def test_compile_holds_every_rival_against_each_of_ours(tmp_path):
    path = tmp_path / "a.json"
    done = run("compile", "--only", "perceptron, dropout", "--seconds", "0.02", "--json", str(path))
    assert done.returncode == 0, done.stderr
    rows = results.load(path).rows
    assert len(rows) == 2 * 3
    assert all(row.ratio for row in rows)
    saved = {row.ours: row.extra["saved_bytes"] for row in rows if row.rival == "compiled built-in"}
    assert saved["compiled ours"][0] == saved["compiled ours"][1] > saved["compiled ours, as op"][0]


def test_busy_neighbours_are_noticed():
    """Another process that computes takes a core, and what this one does does not count."""
    begun = environment.Neighbours()
    end = time.monotonic() + 3
    busy = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    try:
        while time.monotonic() < end:
            torch.ones(100).sum()
        share = begun.share()
    finally:
        busy.kill()
        busy.wait()
    assert share is not None
    assert share * os.cpu_count() > 0.3
    assert share < 1.0


def test_environment_is_told_in_full():
    facts = environment.collect(torch.device("cpu"))
    json.dumps(facts)
    told = environment.describe(facts)
    for fact in (facts["torch"], facts["cpu"], facts["cpu_tier"], facts["allocator"], f"{facts['threads']} thread(s)"):
        assert fact in told
    assert "page faults" not in told
    with_faults = environment.describe({**facts, "small_page_fault_seconds": 1e-6, "huge_page_fault_seconds": None})
    assert "1.00 µs (4 KiB), none to be had (2 MiB)" in with_faults


def test_what_a_library_says_is_shown_as_it_is(capsys, monkeypatch):
    class Plan(Interrupted):
        def results(self, step):
            odd = row(obstacle="broke [/usr/lib/x.so] pip install 'leakyrelu_ext[peers]'")
            yield lambda: ([row(), dataclasses.replace(odd, case="[bold]x[/bold]", rival="[a]")], [])

    monkeypatch.setattr(ops, "plan", lambda arguments: (Plan(), ["absent: pip install 'leakyrelu_ext[peers]'"]))
    assert cli.main(["ops"]) == 0
    shown = capsys.readouterr().out
    assert shown.count("leakyrelu_ext[peers]") == 2
    assert "[bold]x[/bold]" in shown
    assert "vs [a]" in shown


def test_one_file_cannot_be_both(tmp_path, capsys):
    path = str(tmp_path / "a")
    assert cli.main(["ops", "--json", path, "--html", path]) == 2
    assert "is both --json and --html" in capsys.readouterr().err


def test_commit_is_that_of_the_sources(monkeypatch, tmp_path):
    assert environment.commit() is None or len(environment.commit()) >= 7
    for command in (
        ["init", "-q"],
        ["-c", "user.name=a", "-c", "user.email=a@b", "commit", "-q", "--allow-empty", "-m", "x"],
    ):
        subprocess.run(["git", "-C", str(tmp_path), *command], check=True)
    inside = tmp_path / "site-packages" / "environment.py"
    inside.parent.mkdir()
    inside.write_text("")
    monkeypatch.setattr(environment, "__file__", str(inside))
    assert environment.commit() is None  # somebody else's
    with monkeypatch.context() as patched:
        patched.setenv("PATH", "")
        assert environment.commit() is None
    monkeypatch.setattr(environment, "__file__", str(Path("/") / "environment.py"))
    assert environment.commit() is None


def test_levels_are_more_thorough_one_after_the_other():
    for quick, usual, full in LEVELS.values():
        assert quick.passes <= usual.passes <= full.passes
        assert quick.seconds < usual.seconds < full.seconds
    assert session.BUSY < 0.1
