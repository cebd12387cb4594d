"""bias_leaky_relu is held against compositions that compute the same, and nothing is timed that does not."""

import dataclasses
import re

import pytest
import torch

pytest.importorskip("rich")
pytest.importorskip("sklearn")
from leakyrelu_bench import cli
from leakyrelu_bench.measure import contest, scoring
from leakyrelu_bench.suites import arguments as given
from leakyrelu_bench.suites import fused

pytestmark = pytest.mark.cpu_only
CPU = torch.device("cpu")


def rows_of(cases, compile=False):
    group = fused.group(cases, 0, compile, CPU)
    with group.contests() as contests:
        *_, seen = contest.take_passes(contests, 2, 0.004)
    assert group.count == len(contests)
    return scoring.rows_of(seen)


def small(case):
    """The case on few elements; channels as they are."""
    return dataclasses.replace(case, shape=(2, case.shape[1], *(3 for _ in case.shape[2:])), stem=None)


def test_every_case_meets_its_rivals_in_both_modes():
    cases = [small(case) for case in fused.CASES]
    rows = rows_of(cases)
    measured = dict.fromkeys((row.case, row.mode) for row in rows)
    assert list(measured) == list(dict.fromkeys((case.name, mode) for case in cases for mode in fused.MODES))
    for row in rows:
        assert row.ratio, row
        assert ("saved_bytes" in row.extra) == (row.mode == "forward+backward")
    by_rival = {rival: {row.case for row in rows if row.rival == rival} for rival in ("eager", "in place", "reference")}
    names = {case.name for case in cases}
    assert by_rival["eager"] == names
    assert by_rival["in place"] == {name for name in names if "MLP: dropout" not in name}
    assert by_rival["reference"] == {name for name in names if "StyleGAN2" in name}


def test_every_contest_is_another_measurement():
    keys = []
    for cases in (fused.CASES, fused.WARM_CASES):
        with fused.group(cases, 0, compile=True, device=CPU).contests() as contests:
            keys += [each.row("ours", rival).key for each in contests for rival in each.rivals]
    assert len(set(keys)) == len(keys)


def test_on_cuda_every_case_is_warm_and_timed_by_the_gpu(monkeypatch):
    monkeypatch.setattr(given, "CudaStopwatch", lambda device: f"the stopwatch of {device}")
    gpu = torch.device("cuda", 0)
    arguments = cli.parser().parse_args(["fused", "--quick"])
    arguments.device = gpu
    plan, _ = fused.plan(arguments)
    (group,) = plan.groups
    with group.contests() as contests:
        assert [contest.case for contest in contests] == [case.name for case in fused.CASES for _ in fused.MODES]
        assert {contest.outputs for contest in contests} == {"warm"}
        assert {contest.prepare.__self__.device for contest in contests} == {gpu}
    assert plan.stopwatch == "the stopwatch of cuda:0"


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
    operands = fused.make_operands(case, 0, requires_grad, CPU)
    before = [leaf.detach().clone() for leaf in operands.leaves]
    calls = {name: make() for name, make in fused.contestants(case, requires_grad, compile=False).items()}
    assert ("reference" in calls) == (not formula.residual)
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
    x = fused.make_operands(case, 0, False, CPU).input
    kept = torch.rand(x.shape, generator=torch.Generator().manual_seed(0))
    fused.check(case, "ours", (torch.where(kept < 0.9, x / 0.9, 0),), (x,))
    with pytest.raises(contest.MismatchError, match="the share kept by the dropout of 'ours' differs"):
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
def test_fused_does_not_time_what_differs(what, only, monkeypatch):
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
    monkeypatch.setattr(contest, "interleave", lambda *_, **__: pytest.fail("timed all the same"))
    with pytest.raises(contest.MismatchError, match=f"{what} of 'ours' differs from eager's; nothing was timed"):
        rows_of([case for case in fused.CASES if only in case.name])


def test_fused_says_what_could_not_be_compiled(monkeypatch):
    def fails(*_):
        raise RuntimeError("no C++ compiler\nfar and wide")

    monkeypatch.setattr(torch, "compile", lambda *_, **__: fails)
    rows = rows_of([small(fused.CASES[0])], compile=True)
    failed = [row for row in rows if row.rival == "compiled"]
    assert [row.obstacle for row in failed] == ["RuntimeError: no C++ compiler"] * 2
    assert all(row.ratio for row in rows if row not in failed)


def test_a_rival_that_computes_something_else_is_a_row_that_says_so(monkeypatch):
    correct = fused.eager

    def wrong(formula, dims, in_place=False, requires_grad=True):
        call = correct(formula, dims, in_place, requires_grad)
        return (lambda *tensors: call(*tensors) * 1.01) if in_place else call

    monkeypatch.setattr(fused, "eager", wrong)
    rows = rows_of([small(fused.CASES[0])])
    (row, _) = (row for row in rows if row.rival == "in place")
    assert "the output of 'in place' differs from eager's" in row.obstacle


@pytest.mark.native
def test_fused_saves_one_bit_per_element_and_two_with_clamp():
    gain = fused.Case("StyleGAN2", fused.Formula(0.2, gain=2.0), (2, 32, 8, 8))
    clamp = dataclasses.replace(gain, formula=fused.Formula(0.2, gain=2.0, clamp=1.0))
    rows = [row for row in rows_of([gain, clamp]) if row.mode == "forward+backward" and row.rival == "eager"]
    n = 2 * 32 * 8 * 8
    assert [row.extra["saved_bytes"] for row in rows] == [(n // 8, 4 * n), (n // 4, 8 * n)]


@pytest.mark.native
def test_fused_only_some_cases(capsys):
    assert cli.main(["fused", "--only", "2x32x8x8", "--seconds", "0.001", "--no-compile"]) == 0
    shown = capsys.readouterr().out
    assert "StyleGAN2: bias + lrelu + gain, 2x32x8x8" in shown
    assert "nnU-Net" not in shown
    (counts,) = re.findall(r"^in place +[\d.]+ +(\d+) +(\d+) +(\d+) ", shown, re.M)
    assert sum(map(int, counts)) == 2
    assert cli.main(["fused", "--only", "AlexNet"]) == 2
    assert "no case has 'AlexNet' in its name" in capsys.readouterr().err
