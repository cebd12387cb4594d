"""Norm and activation as one op are held against others that compute the same, and nothing is timed that does not."""

import dataclasses

import pytest
import torch

pytest.importorskip("rich")
pytest.importorskip("sklearn")
from leakyrelu_bench import cli
from leakyrelu_bench.measure import contest, scoring
from leakyrelu_bench.suites import arguments as given
from leakyrelu_bench.suites import norm

pytestmark = pytest.mark.cpu_only
CPU = torch.device("cpu")


def small(case):
    """The case on few elements; channels as they are."""
    return dataclasses.replace(case, shape=(2, case.shape[1], *(5 for _ in case.shape[2:])))


def rows_of(cases, compile=False):
    group = norm.group(cases, 0, compile, CPU)
    with group.contests() as contests:
        *_, seen = contest.take_passes(contests, 2, 0.004)
    assert group.count == len(contests)
    return scoring.with_roof_shares(scoring.rows_of(seen), scoring.roofs_of(seen))


SMALL = list(dict.fromkeys(small(case) for case in norm.CASES))


def test_every_case_meets_its_rivals():
    rows = rows_of(SMALL)
    modes = {case.name: norm.MODES if case.training else norm.MODES[:1] for case in SMALL}
    assert dict.fromkeys((row.case, row.mode) for row in rows) == dict.fromkeys(
        (name, mode) for name, of_case in modes.items() for mode in of_case
    )
    for row in rows:
        assert row.ratio, row
        assert ("saved_bytes" in row.extra) == (row.mode == "forward+backward")
    inverted = {(row.case, row.dtype) for row in rows if row.rival == "inverting"}
    assert inverted == {(c.name, "float32") for c in SMALL if c.kind == "batch" and c.training and c.dtype == torch.float32}


def test_ours_keeps_less():
    case = dataclasses.replace(SMALL[0], shape=(2, 32, 20, 20))
    (row,) = [row for row in rows_of([case]) if (row.rival, row.mode) == ("eager", "forward+backward")]
    ours, eager = row.extra["saved_bytes"]
    nbytes = 4 * 2 * 32 * 20 * 20
    assert nbytes < ours < 1.1 * nbytes
    assert eager > 2 * nbytes


def test_the_roof_is_that_of_the_least_moves():
    case = dataclasses.replace(SMALL[0], shape=(2, 32, 40, 40))
    rows = rows_of([case])
    for row in rows:
        ours, rival = row.extra["roof_share"]
        assert ours / rival == pytest.approx(row.rival_value.median / row.ours_value.median)
    of_evaluation = next(c for c in norm.CASES if not c.training)
    training, evaluation = (norm._Ground(c, "forward", 0, False, CPU) for c in (case, of_evaluation))
    assert (training.least_moves, evaluation.least_moves) == (3, 2)


def test_every_contest_is_another_measurement():
    for cases in (norm.CASES, norm.CUDA_CASES):
        with norm.group(cases, 0, compile=True, device=CPU).contests() as contests:
            keys = [each.row("ours", rival).key for each in contests for rival in each.rivals]
        assert len(set(keys)) == len(keys)


def test_on_cuda_cases_are_larger_and_timed_by_the_gpu(monkeypatch):
    monkeypatch.setattr(given, "CudaStopwatch", lambda device: f"the stopwatch of {device}")
    arguments = cli.parser().parse_args(["norm", "--quick"])
    arguments.device = torch.device("cuda", 0)
    plan, _ = norm.plan(arguments)
    (group,) = plan.groups
    with group.contests() as contests:
        assert [each.case for each in contests] == [case.name for case in norm.CUDA_CASES for _ in norm.MODES]
        assert {each.prepare.__self__.device for each in contests} == {torch.device("cuda", 0)}
    assert plan.stopwatch == "the stopwatch of cuda:0"


@pytest.mark.parametrize("wrong", [0, 1, 2, 3], ids=["output", "input", "weight", "bias"])
def test_ours_that_differs_is_not_timed(monkeypatch, wrong):
    step = norm._step

    def broken(call, operands, mode):
        def results():
            found = list(step(call, operands, mode)())
            found[wrong] = found[wrong] + 0.01 * found[wrong].abs().max()
            return tuple(found)

        return results if call.__qualname__.startswith("ours") else step(call, operands, mode)

    monkeypatch.setattr(norm, "_step", broken)
    with pytest.raises(contest.MismatchError, match="of 'ours' differs from float64's; nothing was timed"):
        norm._Ground(SMALL[5], "forward+backward", 0, False, CPU).prepare(0)


def test_what_can_not_be_compiled_is_an_obstacle(monkeypatch):
    def fails(*_):
        raise RuntimeError("no compiler")

    monkeypatch.setattr(norm, "compiled", lambda function: fails)
    rows = rows_of(SMALL[:1], compile=True)
    assert {row.obstacle for row in rows if row.rival == "compiled"} == {"RuntimeError: no compiler"}


def test_the_command_line(capsys):
    assert cli.main(["norm", "--only", "4x64x16x16", "--seconds", "0.001", "--no-compile"]) == 0
    assert "InPlace-ABN" not in capsys.readouterr().out
    assert cli.main(["norm", "--only", "AlexNet"]) == 2
