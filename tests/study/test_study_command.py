"""`leakyrelu-bench train`: what it refuses, shows and saves; killed and resumed it tells the same; two processes are one."""

import json
import math
import os
import signal
import subprocess
import sys
import time

import pytest
import torch

pytest.importorskip("sklearn")
pytest.importorskip("pydantic")
pytest.importorskip("scipy")
pytest.importorskip("rich")
from leakyrelu_bench import cli
from leakyrelu_bench.study import study
from leakyrelu_bench.study.training.names import CLAIMS

pytestmark = pytest.mark.cpu_only

WINE = ["train", "--dataset", "wine", "--activation", "relu", "--activation", "leaky_relu", "--slope", "0.2"]
SHORT = [*WINE, "--epochs", "2", "--seeds", "2", "--jobs", "1"]


def run(*arguments, **keywords):
    return subprocess.run(
        [sys.executable, "-m", "leakyrelu_bench", *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        **keywords,
    )


@pytest.mark.parametrize(
    "arguments",
    [
        ["--claim", "everything"],
        ["--dataset", "imagenet"],
        ["--activation", "maxout"],
        ["--slope", "nan"],
        ["--slope", "steep"],
        ["--depth", "0"],
        ["--jobs", "0"],
        ["--nproc", "0"],
        ["--seeds", "0"],
        ["--learning-rate", "0"],
        ["--batch-size", "1"],
        ["--only", "x"],
        ["--quick", "--full"],
    ],
)
def test_bad_arguments(arguments, capsys):
    with pytest.raises(SystemExit) as stopped:
        cli.main(["train", *arguments])
    assert stopped.value.code == 2
    error = capsys.readouterr().err
    assert error.startswith("leakyrelu-bench")
    assert ": error: " in error
    assert error.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--claim", "slope", "--activation", "relu"], "argument --claim"),
        (["--claim", "slope", "--patience", "0"], "argument --claim"),
        (["--claim", "slope", "--dataset", "wine"], "argument --dataset"),
        (["--activation", "relu", "--slope", "0.1"], "argument --slope"),
        (["--resume"], "argument --resume"),
        (["--json", "a.json", "--html", "a.json"], "is given twice"),
    ],
)
def test_arguments_that_do_not_go_together(arguments, message, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert cli.main(["train", *arguments]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_help_teaches(capsys):
    with pytest.raises(SystemExit) as stopped:
        cli.main(["train", "--help"])
    assert stopped.value.code == 0
    shown = capsys.readouterr().out
    for word in ("--claim", "--resume", "--nproc", "--jobs", "--device", "--threads", "--json FILE", "--html FILE", *CLAIMS):
        assert word in shown


def test_without_its_packages_the_program_names_the_extra():
    missing = "import sys; sys.modules.update(dict.fromkeys(['pydantic', 'rich', 'scipy', 'sklearn']))"
    code = f"{missing}; from leakyrelu_bench import cli; sys.exit(cli.main(['train', '--quick']))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert "leakyrelu_ext[study]" in done.stderr


def test_a_grid_ends_in_its_table_and_files(tmp_path, capsys):
    path, page = tmp_path / "a.json", tmp_path / "a.html"
    assert cli.main([*SHORT, "--json", str(path), "--html", str(page)]) == 0
    shown = capsys.readouterr().out
    assert "leaky_relu 0.2" in shown
    assert "relu" in shown
    found = study.load(path)
    assert {arm.arm.of.activation for arm in found.arms} == {"relu", "leaky_relu"}
    assert all(len(arm.scores) == 2 and 0 <= arm.score.mean <= 1 for arm in found.arms)
    assert len(found.outcomes) == 2 * (3 * 2 + 2)
    assert found.datasets["wine"]["classes"] == 3
    assert not found.interrupted
    assert page.read_text().count("<html") == 1
    assert len((tmp_path / "a.jsonl").read_text().splitlines()) == 1 + 16


def test_nothing_is_overwritten_unasked(tmp_path, capsys):
    path = tmp_path / "a.json"
    path.write_text("mine")
    assert cli.main([*SHORT, "--json", str(path)]) == 2
    assert path.read_text() == "mine"
    path.unlink()
    (tmp_path / "a.jsonl").write_text("mine")
    assert cli.main([*SHORT, "--json", str(path)]) == 2
    assert cli.main([*SHORT, "--json", str(path), "--resume"]) == 2  # foreign
    assert (tmp_path / "a.jsonl").read_text() == "mine"
    error = capsys.readouterr().err
    assert error.count("\n") == 3


def test_a_dataset_that_is_missing_is_a_row_with_its_command(tmp_path, capsys, monkeypatch):
    from leakyrelu_bench.study.claims import plan
    from leakyrelu_bench.study.data import MissingDatasetError

    whole = plan.dataset

    def without(name, folder):
        if name == "digits":
            raise MissingDatasetError(name, "pip install --no-deps digits")
        return whole(name, folder)

    monkeypatch.setattr(plan, "dataset", without)
    path = tmp_path / "a.json"
    assert cli.main([*SHORT, "--dataset", "digits", "--json", str(path)]) == 0
    assert "pip install --no-deps digits" in capsys.readouterr().out
    found = study.load(path)
    assert [(each.dataset, each.command) for each in found.skipped] == [("digits", "pip install --no-deps digits")]
    assert {arm.dataset for arm in found.arms} == {"wine"}


def table(path):
    """The final figures: all but times and environment."""
    found = json.loads(path.read_text())
    for arm in [*found["arms"], *(arm for claim in found["claims"] for arm in claim["arms"])]:
        del arm["seconds_per_epoch"]
    return [found[name] for name in ("arms", "claims", "datasets", "skipped")]


def test_killed_and_resumed_it_gives_the_same_table(tmp_path):
    arguments = [*WINE, "--epochs", "6", "--seeds", "3", "--jobs", "2", "--regularisation", "dropout", "--observe"]
    whole, resumed = tmp_path / "whole.json", tmp_path / "resumed.json"
    assert run(*arguments, "--json", whole).returncode == 0
    process = subprocess.Popen(
        [sys.executable, "-m", "leakyrelu_bench", *arguments, "--json", str(resumed)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    journal = tmp_path / "resumed.jsonl"
    deadline = time.monotonic() + 120
    while not (journal.exists() and journal.read_bytes().count(b"\n") >= 4):
        assert process.poll() is None, "it ended before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.kill()
    process.wait()
    assert not resumed.exists()
    before = journal.read_bytes()
    done = run(*arguments, "--json", resumed, "--resume")
    assert done.returncode == 0, done.stderr
    assert journal.read_bytes().startswith(before[: before.rindex(b"\n")])
    assert table(resumed) == table(whole)
    keys = [json.loads(line)["key"] for line in journal.read_text().splitlines()[1:]]
    assert len(keys) == len(set(keys)) == 2 * (3 * 2 + 3)


def test_ctrl_c_keeps_and_shows_what_is_finished(tmp_path):
    path = tmp_path / "a.json"
    arguments = [*WINE, "--epochs", "200", "--patience", "0", "--seeds", "300", "--jobs", "2", "--learning-rate", "0.01"]
    process = subprocess.Popen(
        [sys.executable, "-m", "leakyrelu_bench", *arguments, "--json", str(path)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    journal = tmp_path / "a.jsonl"
    deadline = time.monotonic() + 120
    while not (journal.exists() and journal.read_bytes().count(b"\n") >= 3):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGINT)
    _, error = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Traceback" not in error
    found = study.load(path)
    assert found.interrupted


ONE_ARM = ["train", "--dataset", "wine", "--activation", "leaky_relu", "--slope", "0.1", "--learning-rate", "0.01"]
ONE_ARM += ["--epochs", "3", "--seeds", "2", "--observe"]


def distributed(count, path, *more):
    processes = ["--nproc", count] if count > 1 else ["--jobs", 1]
    done = run(*ONE_ARM, "--json", path, *processes, *more)
    assert done.returncode == 0, done.stderr
    return done, study.load(path)


def test_two_processes_train_what_one_does(tmp_path):
    alone_shown, alone = distributed(1, tmp_path / "one.json")
    shown, together = distributed(2, tmp_path / "two.json")
    assert together.environment["processes"] == 2
    assert shown.stdout.count("leaky_relu 0.1") == alone_shown.stdout.count("leaky_relu 0.1")  # one of them prints
    for one, other in zip(alone.outcomes, together.outcomes, strict=True):
        assert one.configuration == other.configuration
        assert one.steps == other.steps
        for name in ("train_loss", "validation_loss", "dead_share"):
            a, b = one.curves[name], other.curves[name]
            assert a[1:] == pytest.approx(b[1:], rel=1e-3), name  # the same batches, summed in another order
        assert math.isclose(one.test_score, other.test_score, abs_tol=0.05)


def test_two_processes_resume(tmp_path):
    path = tmp_path / "two.json"
    distributed(2, path)
    journal = tmp_path / "two.jsonl"
    lines = journal.read_text().splitlines(keepends=True)
    journal.write_text("".join(lines[:-1]))
    before = table(path)
    distributed(2, path, "--resume")
    assert len(journal.read_text().splitlines()) == len(lines)
    assert table(path) == before


@pytest.mark.slow
@pytest.mark.parametrize("claim", ["dying-relu", "slope", "cost"])  # the others differ in what test_study_claims.py has
def test_a_claim_ends_in_a_verdict(claim, tmp_path):
    path = tmp_path / "a.json"
    dataset = "japanese-vowels" if claim in ("cost", "domains") else "digits"
    from leakyrelu_bench.study import data as datasets

    try:
        datasets.load(dataset)
    except datasets.MissingDatasetError as error:
        pytest.skip(error.command)
    done = run("train", "--claim", claim, "--quick", "--seeds", 2, "--epochs", 1, "--dataset", dataset, "--json", path)
    assert done.returncode == 0, done.stderr
    (found,) = study.load(path).claims
    assert found.name == claim
    assert found.effects
    assert f"{claim}: {found.verdict}" in done.stdout
    assert torch.tensor([effect.mean for effect in found.effects]).isfinite().all()
