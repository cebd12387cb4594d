"""The benchmark measures what it says, and refuses to time two sides that differ."""

import dataclasses
import itertools
import os
import subprocess
import sys

import pytest
import torch
from torch import nn

from cases import randn

pytest.importorskip("rich")
pytest.importorskip("sklearn")
from leakyrelu_bench import cli, fused, inputs, ops, roof, tables, timing

import leakyrelu_ext

pytestmark = pytest.mark.cpu_only
CPU = torch.device("cpu")


def run(*arguments):
    return subprocess.run([sys.executable, "-m", "leakyrelu_bench", *arguments], capture_output=True, text=True, check=False)


@pytest.mark.slow
def test_ops_ends_in_its_table():
    done = run("ops", "--max-size", "4096", "--seconds", "0.02", "--seed", "3", "--threads", "1")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.strip().splitlines()
    assert "1 thread(s)" in lines[0]
    for word in ("photos, stem 1", "channels_last", "noise, 2^12", "bfloat16", "forward+backward", "owned backward"):
        assert word in done.stdout
    assert "2^14" not in done.stdout
    assert "out.copy_(x)" not in done.stdout  # the roof is measured from 2^16 elements on
    assert lines[-1].startswith(f"geometric mean of {(3 * 5 + 4 * 3) * 3} ratios: ")
    assert "worst: " in lines[-1]


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
        ["ops", "--seed", "99999999999999999999"],
        ["ops", "--seconds", "-1"],
        ["ops", "--dtype", "int8"],
        ["ops", "--device", "tpu"],
        ["ops", "--device", "meta"],
        ["fused", "--seconds", "0"],
        ["fused", "--dtype", "float32"],
    ],
)
def test_bad_arguments(arguments, capsys):
    with pytest.raises(SystemExit) as stopped:
        cli.main(arguments)
    assert stopped.value.code == 2
    assert "usage: leakyrelu-bench" in capsys.readouterr().err


def broken(what):
    """The built-in with one mistake."""

    class Module(nn.LeakyReLU):
        def forward(self, x):
            y = function(x, self.negative_slope)
            return y + 0 * x.clamp(min=-1).detach() if what != "gradient" else torch.where(x > 0, x, (x * 0.01).detach())

    def function(x, slope):
        return torch.where(x >= 0, x, x * slope * (1.001 if what == "function" else 1))

    def backward_op(x, grad):
        return lambda: torch.where(x > 0, grad, grad * (0.011 if what == "backward op" else 0.01))

    return ops.Side(function, Module(inputs.SLOPE), backward_op)


@pytest.mark.native
@pytest.mark.parametrize("what", ["function", "gradient", "backward op"])
def test_a_side_that_differs_is_not_timed(what, monkeypatch, capsys):
    builtin, _ = ops.sides()
    monkeypatch.setattr(ops, "sides", lambda: (builtin, broken(what)))
    monkeypatch.setattr(ops, "measure_pair", lambda *_: pytest.fail("timed all the same"))
    assert cli.main(["ops", "--max-size", "64"]) == 1
    assert f"the {what} differs from the built-in's" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.native
def test_compile_compares_all_contestants():
    from leakyrelu_bench import compiled

    (net,) = (net for net in compiled.NETS if net.name == "4 x (conv, activation)")
    rows = list(compiled.run(0, 0.01, (compiled.Net("small", net.make, (1, 3, 16, 16)),)))
    assert [row.contestant for row in rows] == list(compiled.CONTESTANTS)
    saved = {row.contestant: row.saved for row in rows}
    assert saved["eager ours"] < saved["eager built-in"]
    assert saved["compiled ours"] == saved["compiled built-in"] > saved["compiled ours, as op"]
    assert rows[0].ratio == 1.0
    table = tables.compiled_table(rows)
    assert table.row_count == len(rows)
    assert leakyrelu_ext.functional._under_compile is leakyrelu_ext.functional._composite


def small(case):
    """The case on few elements; channels as they are."""
    return dataclasses.replace(case, shape=(2, case.shape[1], *(3 for _ in case.shape[2:])), stem=None)


def test_fused_times_every_contestant_of_every_case():
    cases = [small(case) for case in fused.CASES]
    rows = list(fused.run(cases, 0, 0.001, compile=False))
    assert [(row.case, row.mode) for row in rows] == [(case.name, mode) for case in cases for mode in fused.MODES]
    for row in rows:
        assert set(row.seconds) == set(row.ratios) == set(row.faults)
        assert {"eager", "ours"} <= set(row.seconds) <= set(fused.CONTESTANTS) - {"compiled"}
        assert ("in place" in row.seconds) == ("MLP: dropout" not in row.case)
        assert ("reference" in row.seconds) == ("StyleGAN2" in row.case)
        assert row.ratios["ours"] == 1.0
        assert set(row.saved) == (set(row.seconds) if row.mode == "forward+backward" else set())
        assert row.obstacle is None
    names = [(case.name, case.dtype) for case in (*fused.CASES, *fused.WARM_CASES)]
    assert len(set(names)) == len(names)


FORMULAS = [
    fused.Formula(0.2, bias, residual, gain, clamp)
    for bias, residual in ((True, False), (False, True), (True, True))
    for gain in (1.0, 2**0.5)
    for clamp in (None, 0.5)
]


@pytest.mark.parametrize("requires_grad", [False, True])
@pytest.mark.parametrize("formula", FORMULAS, ids=str)
def test_all_fused_contestants_compute_the_formula(formula, requires_grad):
    case = fused.Case("StyleGAN2" if not formula.residual else "other", formula, (2, 3, 5, 4))
    operands = fused.make_operands(case, 0, requires_grad)
    before = [leaf.detach().clone() for leaf in operands.leaves]
    calls = fused.contestants(case, requires_grad, compile=False)
    mode = fused.MODES[requires_grad]
    expected, *gradients = results = fused._step(calls["eager"], operands, mode)()
    sums = [tensor.view(3, 1, 1) if tensor.dim() == 1 else tensor for tensor in before]
    formula_of = torch.nn.functional.leaky_relu(sum(sums[1:], sums[0]), 0.2) * formula.gain
    torch.testing.assert_close(expected, formula_of if formula.clamp is None else formula_of.clamp(-0.5, 0.5))
    assert len(gradients) == requires_grad * len(operands.leaves)
    for name, call in calls.items():
        fused.check(case, name, fused._step(call, operands, mode)(), tuple(results))
    assert all(torch.equal(leaf, copy) for leaf, copy in zip(operands.leaves, before, strict=True))


@pytest.mark.parametrize("share", [0.85, 0.95])
def test_fused_refuses_a_wrong_share_of_dropped_elements(share):
    case = fused.Case("MLP", fused.Formula(1.0, bias=False, dropout_p=0.1), (64, 512))
    x = fused.make_operands(case, 0, False).input
    kept = torch.rand(x.shape, generator=torch.Generator().manual_seed(0))
    fused.check(case, "ours", (torch.where(kept < 0.9, x / 0.9, 0),), (x,))
    with pytest.raises(ops.MismatchError, match="the share kept by the dropout of 'ours' differs"):
        fused.check(case, "ours", (torch.where(kept < share, x / 0.9, 0),), (x,))


@pytest.mark.native
@pytest.mark.parametrize(
    ("what", "only"),
    [
        ("the output", "gain, 2x32x8x8"),
        ("the output", "MLP: bias"),
        ("the gradient of input", "gain, 2x32x8x8"),
        ("the gradient of bias", "gain, 2x32x8x8"),
        ("the gradient of residual", "residual encoder"),
    ],
)
def test_fused_does_not_time_what_differs(what, only, monkeypatch, capsys):
    def broken(formula):
        correct = fused.eager(formula, 2 if formula.dropout_p else 5 if formula.residual else 4)

        def call(x, bias, residual):
            if what == "the output":
                return correct(x, bias, residual) * 1.0001
            if what == "the gradient of bias":  # whose sum lacks the first sample's
                return torch.cat([correct(x[:1], bias.detach(), residual), correct(x[1:], bias, residual)])
            if what == "the gradient of residual":
                return correct(x, bias, residual.where(x > 0, residual.detach()))
            return correct(x.where(x > 0, x.detach()), bias, residual)

        return call

    monkeypatch.setattr(fused, "ours", broken)
    if what != "the output":
        monkeypatch.setattr(fused, "MODES", ("forward+backward",))
    monkeypatch.setattr(fused, "interleave", lambda *_: pytest.fail("timed all the same"))
    assert cli.main(["fused", "--only", only, "--no-compile"]) == 1
    assert f"{what} of 'ours' differs from eager's; nothing was timed" in capsys.readouterr().err


def test_fused_says_what_could_not_be_compiled(monkeypatch):
    def fails(*_):
        raise RuntimeError("no C++ compiler\nfar and wide")

    monkeypatch.setattr(torch, "compile", lambda *_, **__: fails)
    rows = list(fused.run([small(fused.CASES[0])], 0, 0.001))
    assert [row.obstacle for row in rows] == ["RuntimeError: no C++ compiler"] * 2
    assert not any("compiled" in row.ratios for row in rows)
    lines = tables.fused_summary(rows).splitlines()
    assert [line.split(":")[0] for line in lines[:3]] == ["against eager", "against in place", "against reference"]
    assert lines[3:] == [f"not compiled, first {rows[0].case}, forward: RuntimeError: no C++ compiler"]
    assert tables.fused_table(rows).row_count == 2


def test_fused_summary_names_the_worst():
    ratios = ({"eager": 4.0, "ours": 1.0}, {"eager": 1.0, "compiled": 3.0, "ours": 1.0})
    rows = [fused.Row(name, torch.float32, "forward", {}, row, {}, {}, None) for name, row in zip("ab", ratios, strict=True)]
    assert tables.fused_summary(rows).splitlines() == [
        "against eager: geometric mean of 2 ratios 2.00x; worst: 1.00x (b, float32, forward)",
        "against compiled: geometric mean of 1 ratios 3.00x; worst: 3.00x (b, float32, forward)",
    ]


@pytest.mark.native
def test_fused_saves_one_bit_per_element_and_two_with_clamp():
    gain = fused.Case("StyleGAN2", fused.Formula(0.2, gain=2.0), (2, 32, 8, 8))
    clamp = dataclasses.replace(gain, formula=fused.Formula(0.2, gain=2.0, clamp=1.0))
    saved = [row.saved for row in fused.run([gain, clamp], 0, 0.001, compile=False) if row.saved]
    n = 2 * 32 * 8 * 8
    assert [row["ours"] for row in saved] == [n // 8, n // 4]
    assert [row["eager"] for row in saved] == [4 * n, 8 * n]


@pytest.mark.native
def test_fused_only_some_cases(capsys):
    assert cli.main(["fused", "--only", "2x32x8x8", "--seconds", "0.001", "--no-compile"]) == 0
    shown = capsys.readouterr().out
    assert "StyleGAN2: bias + lrelu + gain, 2x32x8x8" in shown
    assert "nnU-Net" not in shown
    assert "against in place: geometric mean of 2 ratios" in shown
    assert cli.main(["fused", "--only", "AlexNet"]) == 1
    assert "no case has 'AlexNet' in its name" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.native
def test_fused_ends_in_its_summary():
    done = run("fused", "--only", "512x1024", "--seconds", "0.02", "--seed", "3", "--threads", "1")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.strip().splitlines()
    assert "1 thread(s)" in lines[0]
    for word in ("MLP: bias + lrelu + dropout", "512x1024", "forward+backward"):
        assert word in done.stdout
    assert "not compiled" not in done.stdout
    assert lines[-1].startswith("against compiled: geometric mean of ")


@pytest.mark.native
def test_only_some_inputs(capsys):
    assert cli.main(["ops", "--only", "2^8", "--seconds", "0.001", "--dtype", "float16"]) == 0
    shown = capsys.readouterr().out
    assert "noise, 2^8" in shown
    assert "photos" not in shown
    assert "page faults of a fresh output, each: " in shown
    assert cli.main(["ops", "--only", "2^7"]) == 1
    assert "no input has '2^7' in its name" in capsys.readouterr().err


@pytest.mark.native
def test_a_device_that_is_not_there(capsys):
    assert cli.main(["ops", "--device", "cuda:99"]) == 1
    assert capsys.readouterr().err == "leakyrelu-bench: error: there is no device cuda:99 here\n"


def test_time_on_a_gpu_is_that_between_the_events_of_each_call(monkeypatch):
    """On a GPU that works off what is enqueued: 3 ms for what is timed, 100 ms for the flush before."""
    queue, now = [], [0.0]

    class Event:
        def __init__(self, enable_timing):
            assert enable_timing

        def record(self):
            queue.append(self)

        def synchronize(self):
            for entry in queue:
                if isinstance(entry, Event):
                    entry.at = now[0]
                else:
                    now[0] += entry
            queue.clear()

        def elapsed_time(self, end):
            return end.at - self.at

    class Memory:
        def zero_(self):
            queue.append(60.0)

        def max(self):
            queue.append(40.0)

    stopwatch = object.__new__(timing.CudaStopwatch)
    stopwatch._flushed = Memory()
    monkeypatch.setattr(torch.cuda, "Event", Event)
    assert stopwatch.calls(1e-6) == 1
    assert stopwatch.time(lambda: queue.append(3.0), 4) == pytest.approx(3e-3)
    pair = timing.measure_pair(lambda: queue.append(3.0), lambda: queue.append(1.5), 0.001, stopwatch)
    assert (pair.one.seconds, pair.other.seconds, pair.ratio) == pytest.approx((3e-3, 1.5e-3, 2.0))


def test_layouts_are_what_they_are_called():
    for dtype in (torch.float32, torch.bfloat16):
        channels_last, gaps = (case.make(dtype) for case in inputs.layout_inputs(0, CPU))
        assert channels_last.numel() == gaps.numel() == 2**20
        assert channels_last.dtype == gaps.dtype == dtype
        assert channels_last.is_contiguous(memory_format=torch.channels_last)
        assert gaps.stride(-1) == 2


def test_shares_are_what_comes_on_top(monkeypatch):
    """On a machine that slows down tenfold now and then."""
    now = [0.0]
    speeds = itertools.chain.from_iterable([speed] * 3 for speed in itertools.cycle([1.0] * 7 + [10.0] * 6))

    def busy(units):
        def call():
            now[0] += units * next(speeds)

        return call

    monkeypatch.setattr(timing.time, "perf_counter", lambda: now[0])
    pair = timing.measure_shares(busy(5.0), busy(13.0), busy(7.0), 1e6)
    assert (pair.one.seconds, pair.other.seconds, pair.ratio) == pytest.approx((8.0, 2.0, 4.0))


@pytest.mark.native
def test_the_chain_hands_its_gradient_over():
    x = randn(100)
    run = ops._chain(leakyrelu_ext.LeakyReLU(), x, randn(100, seed=1))
    before = leakyrelu_ext.stats()["backward_into_grad_output"]
    run()
    run()
    assert leakyrelu_ext.stats()["backward_into_grad_output"] == before + 2


@pytest.mark.native
@pytest.mark.parametrize("what", ["forward", "backward in place"])
def test_the_roof_moves_as_many_bytes(what):
    rows = list(roof.run(inputs.noise_inputs(0, CPU, [2**10]), (torch.float32,), 0.001))
    (row,) = (row for row in rows if row.what == what)
    assert row.nbytes == 2 * 4 * 2**10
    assert row.times.ratio == pytest.approx(row.times.one.seconds / row.times.other.seconds, rel=0.9)


def test_warm_outputs_and_the_cost_of_a_fault():
    """In a process of its own: both change how memory is had."""
    code = (
        "import torch\n"
        "from leakyrelu_bench import timing\n"
        "def faults():\n"
        "    before = timing._minor_faults()\n"
        "    torch.ones(2**26, dtype=torch.uint8)\n"
        "    return timing._minor_faults() - before\n"
        "fresh = [faults() for _ in range(4)][-1]\n"
        "with timing.warm_outputs() as possible:\n"
        "    assert possible\n"
        "    warm = faults()\n"
        "small, huge = timing.fault_seconds(False), timing.fault_seconds(True)\n"
        "assert 1e-8 < small < 1e-3, small\n"
        "assert huge is None or small < huge < 1e-1, huge\n"
        "print(fresh > 1000, warm < 100)\n"
    )
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    if "THP_MEM_ALLOC_ENABLE" not in os.environ:
        assert done.stdout.split() == ["True", "True"]


def test_inputs_are_the_photographs_activations_and_reproducible():
    photos = inputs.photographs()
    assert photos.shape == (2, 3, 427, 640)
    torch.testing.assert_close(photos.std((0, 2, 3)), torch.ones(3))
    first, second = inputs.conv_stem_activations(0)
    assert first.shape == (2, 32, 214, 320)
    assert second.shape == (2, 64, 107, 160)
    assert 0.2 < (second > 0).float().mean() < 0.8
    torch.testing.assert_close(second, inputs.conv_stem_activations(0)[1])
    assert not torch.equal(second, inputs.conv_stem_activations(1)[1])


def test_both_sides_are_timed_equally_often():
    calls = []
    pair = timing.measure_pair(lambda: calls.append("a"), lambda: calls.append("b"), 0.01)
    assert calls.count("a") == calls.count("b") > timing.MIN_ROUNDS
    assert min(pair.one.seconds, pair.other.seconds, pair.ratio) > 0


def test_one_function_against_itself_keeps_its_sides_apart():
    count = itertools.count()

    def counted():
        next(count)

    pair = timing.measure_pair(counted, counted, 0.01)
    assert 0.2 < pair.ratio < 5
    assert next(count) % 2 == 0


def test_ratio_is_that_of_the_rounds_not_of_the_medians(monkeypatch):
    """A machine that slows down tenfold now and then: each round's ratio is 2, whatever the medians are."""
    now = [0.0]
    # one speed per round: two calls, after the four of the warm-up
    speeds = itertools.chain.from_iterable([speed] * 2 for speed in itertools.cycle([1.0] * 5 + [10.0] * 6))

    def busy(units):
        def call():
            now[0] += units * next(speeds)

        return call

    monkeypatch.setattr(timing.time, "perf_counter", lambda: now[0])
    pair = timing.measure_pair(busy(2.0), busy(1.0), 1e6)
    assert pair.ratio == pytest.approx(2.0)


def test_settling_keeps_large_blocks_in_the_heap():
    """After it, 16 MiB tensors come and go without page faults; in a new process each of the first costs 4096."""
    code = (
        "import torch\n"
        "from leakyrelu_bench import timing\n"
        "timing.settle_allocator()\n"
        "counts = []\n"
        "for _ in range(9):\n"
        "    before = timing._minor_faults()\n"
        "    torch.ones(2**24, dtype=torch.uint8)\n"
        "    counts.append(timing._minor_faults() - before)\n"
        "print(sorted(counts)[4])\n"
    )
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, check=True)
    assert int(done.stdout) < 100


@pytest.mark.native
def test_without_the_library_there_is_nothing_to_compare():
    code = "import sys; sys.modules['leakyrelu_ext._C'] = None; from leakyrelu_bench import cli; sys.exit(cli.main(['ops']))"
    environment = {key: value for key, value in os.environ.items() if key != "LEAKYRELU_EXT_REQUIRE_NATIVE"}
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, check=False, env=environment
    )
    assert done.returncode == 1
    assert "nothing to compare with the built-in" in done.stderr


@pytest.mark.native
def test_saved_bytes_and_traffic():
    x = randn(1000).requires_grad_()
    builtin, ours = ops.sides()
    assert ops.saved_bytes(builtin.module, x) == 4000
    assert ops.saved_bytes(ours.module, x) == 125
    pair = timing.Pair(timing.Sample(2.0, 0), timing.Sample(1.0, 0), 2.0)
    row = ops.Row("x", torch.float32, "backward", pair, 4000, 4000, 125)
    assert [moved for moved, _ in row.traffic] == [12000, 8125]


def test_geometric_mean():
    assert ops.geometric_mean([0.5, 2.0, 8.0]) == pytest.approx(2.0)


def test_units():
    assert tables.seconds(1.5e-6) == "1.5 µs"
    assert tables.seconds(0.0123) == "12.3 ms"
    assert tables.size(125) == "125 B"
    assert tables.size(2**24) == "16 MiB"
