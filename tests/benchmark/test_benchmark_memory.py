"""The benchmark's suite `memory`: what is saved, peaks in real processes, and batches that real runs confirm."""

import itertools
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from leakyrelu_bench import cli
from leakyrelu_bench.measure import compiling
from leakyrelu_bench.measure.budget import available_bytes, parse_bytes
from leakyrelu_bench.measure.contest import MismatchError
from leakyrelu_bench.measure.saved import saved_bytes
from leakyrelu_bench.models import MODELS
from leakyrelu_bench.suites.arguments import NothingToDoError
from leakyrelu_bench.suites.memory import plan as memory
from leakyrelu_bench.suites.memory import process, rows, saved
from leakyrelu_bench.suites.memory.largest import largest_batch
from leakyrelu_bench.suites.memory.process import Answer, Question, ask
from leakyrelu_bench.suites.variants import COMPILED, IN_PLACE, OURS_IN_PLACE, OURS_OUT_OF_PLACE, OUT_OF_PLACE

pytestmark = pytest.mark.cpu_only

CPU = torch.device("cpu")
DCGAN = next(model for model in MODELS if model.name == "DCGAN discriminator")
N = 2**20


def arguments(*given, quick=True, full=False):
    levels = [*(["--quick"] if quick else []), *(["--full"] if full else [])]
    return cli.parser().parse_args(["memory", "--threads", "1", *levels, *given])


def plan(*given, **levels):
    return memory.plan(arguments(*given, **levels))[0]


@pytest.mark.parametrize(
    ("text", "expected"),
    [("2GiB", 2**31), ("512 MiB", 2**29), ("1.5 GB", 1_500_000_000), (" 3kib ", 3072), ("7B", 7), (".5MiB", 2**19)],
)
def test_amounts_of_memory(text, expected):
    assert parse_bytes(text) == expected


@pytest.mark.parametrize(
    "text", ["", "2", "GiB", "2 GiBs", "-1GiB", "0MiB", "nanGiB", "1e3MiB", "2 Gi", "9999999999TiB", "٣GiB"]
)
def test_what_is_no_amount_of_memory(text):
    with pytest.raises(ValueError, match="must be") as raised:
        parse_bytes(text)
    assert "\n" not in str(raised.value)
    assert repr(text) in str(raised.value)


def test_a_bad_budget_is_the_parsers_error(capsys):
    with pytest.raises(SystemExit):
        arguments("--budget", "2 gigs")
    assert "--budget: must be a number and one of B, KiB, " in capsys.readouterr().err


def test_what_there_is_not_is_not_tried():
    with pytest.raises(NothingToDoError, match=r"^argument --budget: .* 6 TiB|^argument --budget: .*are to be had$"):
        plan("--budget", "4TiB")
    assert 0 < available_bytes(CPU) < 2**50
    assert plan("--budget", "4TiB", "--no-models").steps == 4  # nothing would be tried


def test_only_some_cases_and_models():
    assert plan().steps == 4 + 2 * 5
    assert plan(quick=False).steps == 6 + 7 * 5
    made = plan("--only", "GAN", "--no-compile")
    assert [model.name for model in made.models] == ["DCGAN discriminator", "ESRGAN", "HiFi-GAN V1"]
    assert made.steps == 3 * 4
    with pytest.raises(NothingToDoError, match="no case or model has 'AlexNet' in its name"):
        plan("--only", "AlexNet")


@pytest.mark.parametrize(
    ("bytes_of", "expected"),
    [
        (lambda n: 1000 + 70 * n, 128),
        (lambda n: 1000 + 70 * n + (3000 if n > 40 else 0), 85),  # another algorithm for larger batches
        (lambda n: 5 * n * n, 44),
        (lambda n: 9000 if n <= 300 else 20000, 300),
        (lambda n: 4000 * n, 2),
        (lambda n: 9000 * n, 1),
        (lambda n: 10001 * n, 0),
        (lambda n: float("inf") if n > 50 else 10 * n, 50),  # memory gave out
        (lambda n: 10000 * (n >= 9) + 100 * n, 8),
    ],
)
@pytest.mark.parametrize("first", [1, 16])
def test_the_largest_batch_has_been_run_and_one_more_too(bytes_of, expected, first):
    run = []

    def recorded(batch):
        assert batch >= 1
        run.append(batch)
        return bytes_of(batch)

    assert largest_batch(recorded, 10000, first) == expected
    assert {expected, expected + 1} - {0} <= set(run)
    assert len(run) == len(set(run)) <= 24


def test_on_a_line_few_runs_are_enough():
    run = []
    assert largest_batch(lambda n: run.append(n) or 1000 + 70 * n, 10000, 16) == 128
    assert run == [16, 32, 128, 129]


@pytest.mark.native
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_alone_one_bit_per_element(dtype):
    case = saved.Case(saved.ALONE, dtype)
    assert case in saved.CASES
    counted = list(saved.rows(case, 0, CPU, compile=False))
    assert [row.rival for row in counted] == [OUT_OF_PLACE.name, IN_PLACE.name]
    for row in counted:
        assert (row.ours_value.median, row.rival_value.median) == (N // 8, N * dtype.itemsize)
        assert (row.ratio, row.noise, row.unit) == (8 * dtype.itemsize, 0.0, "bytes")


@pytest.mark.native
def test_between_convolutions_nothing_is_saved_against_in_place():
    case = saved.Case(saved.BETWEEN, torch.float32)
    out_of_place, in_place = saved.rows(case, 0, CPU, compile=False)
    assert out_of_place.ours_value.median == in_place.ours_value.median == 4 * N + N // 8
    assert out_of_place.rival_value.median == 8 * N
    assert in_place.rival_value.median == 4 * N
    assert (out_of_place.verdict, in_place.verdict) == ("better", "worse")


@pytest.mark.slow
@pytest.mark.native
def test_compiled_keeps_more_than_a_bit():
    counted = list(saved.rows(saved.Case(saved.ALONE, torch.float32), 0, CPU))
    assert counted[2].rival == COMPILED.name
    assert counted[2].rival_value.median >= N
    assert counted[2].obstacle is None


def test_what_cannot_be_compiled_is_a_row(monkeypatch):
    def fails(_):
        raise RuntimeError("no C++ compiler\nfar and wide")

    monkeypatch.setattr(saved, "compiled", fails)
    row = list(saved.rows(saved.CASES[0], 0, CPU))[2]
    assert (row.rival, row.obstacle, row.ratio) == (COMPILED.name, "RuntimeError: no C++ compiler", None)


def test_what_differs_is_not_counted(monkeypatch):
    class Broken(torch.nn.LeakyReLU):
        def forward(self, x):
            return super().forward(x) * 1.0001

    monkeypatch.setattr(saved.leakyrelu_ext, "LeakyReLU", Broken)
    with pytest.raises(MismatchError, match=r"activation alone, float32: the output of 'ours, out of place' differs"):
        list(saved.rows(saved.CASES[0], 0, CPU))


def test_saved_bytes_count_a_storage_once_and_not_what_is_there_anyway():
    weight, x = torch.randn(3, requires_grad=True), torch.randn(3)
    assert saved_bytes(lambda: weight.square() + weight.exp().square()) == 12 + 12  # exp's output is kept by both
    assert saved_bytes(lambda: weight.square() + weight * x) == 12 + 12
    assert saved_bytes(lambda: weight.square() + weight * x, besides=[weight]) == 12


def test_a_peak_is_what_is_alive_at_once():
    """In a process of its own: it changes how memory is had."""
    code = (
        "import json, torch\n"
        "from leakyrelu_bench.suites.memory.meters import resident_set\n"
        "meter = resident_set()\n"
        "def step():\n"
        "    a = torch.ones(2**23); b = a + 1; del a\n"  # 64 MiB at once
        "    c = [torch.ones(2**12) for _ in range(512)]; del b\n"  # 8 MiB
        "peaks = []\n"
        "for _ in range(4):\n"
        "    meter.start(); step(); peaks.append(meter.bytes())\n"
        "print(json.dumps(peaks))\n"
    )
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    for nbytes in json.loads(done.stdout)[1:]:
        assert abs(nbytes - 2**26) < rows.SCATTER_BYTES


@pytest.mark.slow
@pytest.mark.native
def test_peaks_repeat_and_ours_is_lower_than_out_of_place():
    question = Question(DCGAN.name, OURS_OUT_OF_PLACE.name, 16, 0, "cpu", threads=1)
    ours, again = ask(question), ask(question)
    builtin = ask(replace(question, variant=OUT_OF_PLACE.name))
    for answer in (ours, again, builtin):
        assert answer.obstacle is None
        assert len(answer.peak_bytes) == process.STEPS
        assert max(answer.peak_bytes) - min(answer.peak_bytes) < rows.SCATTER_BYTES
    assert abs(max(ours.peak_bytes) - max(again.peak_bytes)) < rows.SCATTER_BYTES
    # The widest activation's input, 64 x 32 x 32 of 16 samples, is alive at the peak out of place.
    assert min(builtin.peak_bytes) - max(ours.peak_bytes) > 3 * 2**20
    assert ours.held_bytes == builtin.held_bytes > 4 * (2_765_568 + 16 * 3 * 64 * 64)


@pytest.mark.slow
@pytest.mark.native
def test_the_largest_batch_fits_and_another_does_not():
    budget = 2**26
    answer = ask(Question(DCGAN.name, OURS_OUT_OF_PLACE.name, 16, 0, "cpu", threads=1, budget=budget))
    assert answer.largest_bytes <= budget
    more = ask(Question(DCGAN.name, OURS_OUT_OF_PLACE.name, answer.largest + 1, 0, "cpu", threads=1, check=False))
    assert max(more.peak_bytes) + more.held_bytes > budget - rows.SCATTER_BYTES
    assert ask(Question(DCGAN.name, OUT_OF_PLACE.name, 16, 0, "cpu", threads=1, budget=budget)).largest < answer.largest
    assert ask(Question(DCGAN.name, OUT_OF_PLACE.name, 1, 0, "cpu", threads=1, budget=2**20, check=False)).largest == 0


@pytest.mark.slow
@pytest.mark.native
@pytest.mark.parametrize("variant", [IN_PLACE, OURS_IN_PLACE])
def test_in_place_does_not_go_everywhere(variant):
    answer = ask(Question("HiFi-GAN V1", variant.name, 1, 0, "cpu"))
    assert "modified by an inplace operation" in answer.obstacle
    assert len(answer.obstacle) <= compiling.LINE_CHARACTERS
    assert answer.peak_bytes == ()


def test_what_computes_something_else_is_not_measured(monkeypatch):
    told = []
    monkeypatch.setattr(process, "resident_set", lambda: pytest.fail("not used") if told else None)
    monkeypatch.setattr(process, "measure", lambda *_: pytest.fail("measured all the same"))
    original = process.make

    def broken(model, variant, seed, device):
        made = original(model, variant, seed, device)
        if variant is not OUT_OF_PLACE:
            made.module.layers[1].negative_slope = 0.21
        return made

    monkeypatch.setattr(process, "make", broken)
    for variant, key in ((IN_PLACE, "obstacle"), (OURS_IN_PLACE, "obstacle"), (OURS_OUT_OF_PLACE, "mismatch")):
        told.clear()
        process.answer(Question(DCGAN.name, variant.name, 2, 0, "cpu"), told.append)
        assert told == [{key: "computes something else: output 0 differs from the built-in's out of place"}]
    monkeypatch.setattr(memory, "ask", lambda _: Answer(mismatch="computes something else"))
    with pytest.raises(MismatchError, match="DCGAN discriminator, 'ours, out of place': computes something else"):
        list(plan("--only", "DCGAN").results(lambda _: None))


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", "killed, as the system does when memory gives out"),
        ("import os; os.abort()", "ended by signal 6"),
        ("raise SystemExit('no such thing')", "no such thing"),
    ],
)
def test_how_a_process_ended_is_an_obstacle(code, expected, monkeypatch):
    """Of what it had not told yet."""
    peaks = 'print(\'{"peak_bytes": [3, 4], "held_bytes": 5}\', flush=True); '
    original = subprocess.run
    for told, answer in (
        ("", Answer(obstacle=expected)),
        (peaks, Answer(peak_bytes=(3, 4), held_bytes=5, largest_obstacle=expected)),
    ):
        monkeypatch.setattr(
            process.subprocess,
            "run",
            lambda _, told=told, **options: original([sys.executable, "-c", told + code], **options),
        )
        assert ask(Question(DCGAN.name, IN_PLACE.name, 1, 0, "cpu")) == answer


def test_the_process_ends_with_its_parent(tmp_path):
    """Which is killed, and cannot end it itself."""
    listed = tmp_path / "children"
    parent = (
        "import subprocess, time\n"
        "from leakyrelu_bench.suites.memory import process\n"
        "def run(command, **_):\n"
        "    child = subprocess.Popen(command)\n"
        f"    open({str(listed)!r}, 'w').write(str(child.pid))\n"
        "    time.sleep(100)\n"
        "process.subprocess.run = run\n"
        "process.ask(process.Question('GAT', 'ours, out of place', 40, 0, 'cpu'))\n"
    )
    with subprocess.Popen([sys.executable, "-c", parent], stdout=subprocess.DEVNULL) as started:
        while not (listed.exists() and listed.read_text()):
            time.sleep(0.05)
        child = int(listed.read_text())
        time.sleep(6)  # past its imports
        assert os.path.exists(f"/proc/{child}")
        started.send_signal(signal.SIGKILL)
    status = Path(f"/proc/{child}/status")
    for _ in range(100):
        if not status.exists() or "\nState:\tZ" in status.read_text():
            return
        time.sleep(0.1)
    os.kill(child, signal.SIGKILL)
    pytest.fail("it is still there")


def answer_of(*peaks, largest=None):
    return Answer(peak_bytes=peaks, held_bytes=7, largest=largest, largest_bytes=largest)


def test_rows_of_answers():
    answers = {
        OURS_OUT_OF_PLACE: answer_of(100 * 2**20, 101 * 2**20, 102 * 2**20, largest=12),
        OURS_IN_PLACE: Answer(obstacle="cannot"),
        OUT_OF_PLACE: answer_of(202 * 2**20, largest=6),
        IN_PLACE: answer_of(101 * 2**20, largest=0),
        COMPILED: answer_of(50 * 2**20),
    }
    found = {(row.ours, row.rival, row.unit): row for row in rows.of_answers(DCGAN, 16, 2**31, answers, counted=False)}
    assert len(found) == 2 * 3 * 2
    peaks = found[OURS_OUT_OF_PLACE.name, OUT_OF_PLACE.name, "bytes"]
    assert (peaks.ratio, peaks.shape, peaks.mode) == (2.0, (16, 3, 64, 64), "peak of a training step")
    assert peaks.noise == pytest.approx(2.5 / 100)  # 2 MiB between the steps, half a MiB between processes
    assert peaks.extra == {"held_bytes": (7, 7)}
    assert found[OURS_OUT_OF_PLACE.name, IN_PLACE.name, "bytes"].verdict == "same"
    assert found[OURS_OUT_OF_PLACE.name, COMPILED.name, "bytes"].verdict == "worse"
    batches = found[OURS_OUT_OF_PLACE.name, OUT_OF_PLACE.name, "samples"]
    assert (batches.ratio, batches.shape, batches.mode) == (2.0, (1, 3, 64, 64), "largest batch within 2 GiB")
    obstacles = {key: row.obstacle for key, row in found.items() if row.obstacle}
    assert obstacles == {
        (OURS_OUT_OF_PLACE.name, IN_PLACE.name, "samples"): rows.NOT_ONE,
        (OURS_OUT_OF_PLACE.name, COMPILED.name, "samples"): rows.ONLY_FULL,
        **{
            (OURS_IN_PLACE.name, rival.name, unit): "cannot"
            for rival, unit in itertools.product(rows.RIVALS, ("bytes", "samples"))
        },
    }


@pytest.mark.slow
@pytest.mark.native
def test_a_whole_plan_tells_what_is_known_after_every_step():
    made = plan("--only", "DCGAN", "--no-compile", "--budget", "64MiB")
    steps = []
    known = [len(results()[0]) for results in made.results(steps.append)]
    assert steps == [f"DCGAN discriminator, {variant.name}" for variant in made.variants]
    assert known == [0, 0, 4, 8]
