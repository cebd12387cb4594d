"""Rows of results from passes: ratios that survive a slow spell, noise that covers what varies, rivals that fail."""

import dataclasses
import math
import random

import pytest
import torch

pytest.importorskip("rich")
from leakyrelu_bench import results
from leakyrelu_bench.measure import contest, scoring
from leakyrelu_bench.measure.contest import Contest, Pass, Prepared, Seen
from leakyrelu_bench.measure.timing import Timed

pytestmark = pytest.mark.cpu_only


def a_contest(prepare=None, ours=("ours",), rivals=("built-in",)):
    versions = dict.fromkeys(rivals, "torch 1.0")
    return Contest("ops", "x", (8,), "float32", "contiguous", "forward", "fresh", ours, versions, prepare)


def seen(passes, differences=False, **settings):
    """From passes of {contestant: rounds}; ours again as ours if it is not there."""
    made = Seen(a_contest(**settings))
    for seconds in passes:
        seconds = {contest.AGAIN: seconds["ours"], **seconds}
        pools = {name: name if name == "JAX" else "torch" for name in seconds}
        made.passes.append(Pass(seconds, dict.fromkeys(seconds, 0.0), pools, differences=differences))
    return made


def only_row(*arguments, **settings):
    (row,) = scoring.rows_of([seen(*arguments, **settings)])
    return row


def test_ratio_is_that_of_the_rounds_not_of_the_medians():
    """A machine that slows down tenfold now and then: each round's ratio is 2, whatever the medians are."""
    speeds = [1.0] * 5 + [10.0] * 6
    row = only_row([{"ours": speeds, "built-in": [2 * speed for speed in speeds]}])
    assert row.ratio == pytest.approx(2.0)
    assert (row.ratio_low, row.ratio_high) == pytest.approx((2.0, 2.0))
    assert row.ours_value == results.Quantiles.of(speeds)


def test_one_bad_pass_does_not_decide():
    good, bad = {"ours": [1.0] * 5, "built-in": [2.0] * 5}, {"ours": [1.0] * 5, "built-in": [9.0] * 5}
    row = only_row([good, bad, good])
    assert row.ratio == pytest.approx(2.0)
    assert row.verdict == "same"  # what one pass in three does, the next run may do
    assert only_row([good, good, good]).verdict == "better"


def test_differences_are_compared_by_their_medians():
    """A round's difference may be nothing, or less."""
    row = only_row([{"ours": [2.0, 0.0, 2.0, 9.0, 2.0], "built-in": [8.0, 8.0, -1.0, 8.0, 8.0]}] * 2, differences=True)
    assert row.ratio == pytest.approx(4.0)


@pytest.mark.parametrize(("ours", "theirs"), [(-1.0, 8.0), (-1.0, -8.0), (0.0, 8.0), (8.0, 0.0), (0.0, 0.0)])
def test_differences_of_nothing_are_an_obstacle(ours, theirs):
    row = only_row([{"ours": [ours] * 5, "built-in": [theirs] * 5}] * 2, differences=True)
    assert (row.ratio, row.verdict) == (None, "none")
    assert row.obstacle == results.TOO_LITTLE


def test_rounds_that_never_both_take_time_are_no_crash():
    row = only_row([{"ours": [2.0, 2.0, -9.0, -9.0, 2.0], "built-in": [-1.0, -1.0, 8.0, 8.0, 8.0]}] * 2, differences=True)
    assert row.ratio == pytest.approx(4.0)


def test_other_libraries_have_rounds_of_their_own():
    """As many as they had the time for; so medians are compared."""
    row = only_row([{"ours": [1.0, 2.0, 3.0], "JAX": [5.0, 6.0, 7.0, 8.0, 1000.0]}] * 2, rivals=("JAX",))
    assert row.ratio == pytest.approx(3.5)
    assert row.ratio_low < 3.5 < row.ratio_high


def test_who_fails_in_one_pass_is_out():
    made = Seen(a_contest())
    for obstacles in ({}, {"built-in": "memory gave out"}, {}):
        seconds = {"ours": [1.0] * 5, contest.AGAIN: [1.0] * 5}
        made.passes.append(Pass(seconds, dict.fromkeys(seconds, 0.0), dict.fromkeys(seconds, "torch"), obstacles))
    (row,) = scoring.rows_of([made])
    assert row.obstacle == "memory gave out"


def test_noise_covers_what_passes_differ_by():
    """Of ratios that are 1.5 with a standard deviation of 10 %, nearly all are within the noise."""
    chance = random.Random(0)

    def one_pass():
        return {
            "ours": [1.0] * 5,
            "built-in": [1.5 * math.exp(chance.gauss(0, 0.1))] * 5,
            contest.AGAIN: [math.exp(chance.gauss(0, 0.1))] * 5,
        }

    rows = scoring.rows_of(seen([one_pass() for _ in range(3)]) for _ in range(400))
    within = [abs(math.log(row.ratio / 1.5)) <= math.log1p(row.noise) for row in rows]
    assert sum(within) / len(rows) > 0.95
    assert all(0.1 < row.noise < 0.6 for row in rows)


def test_noise_is_seen_in_ours_against_itself():
    steady = {"ours": [1.0] * 5, "built-in": [1.1] * 5}
    shaken = {**steady, contest.AGAIN: [1.3] * 5}
    assert only_row([steady] * 3).verdict == "better"
    assert only_row([shaken] * 3).verdict == "same"


def test_noise_is_never_stated_as_nothing():
    row = only_row([{"ours": [1.0] * 5, "built-in": [1.005] * 5}] * 3)
    assert row.noise == scoring.LEAST_NOISE
    assert row.verdict == "same"


def test_every_rival_is_held_against_each_of_ours():
    passes = [{"ours": [1.0] * 5, "fused": [0.5] * 5, "built-in": [2.0] * 5, "compiled": [4.0] * 5}]
    rows = scoring.rows_of([seen(passes, ours=("ours", "fused"), rivals=("built-in", "compiled"))])
    ratios = {(row.ours, row.rival): row.ratio for row in rows}
    assert ratios == pytest.approx(
        {("ours", "built-in"): 2, ("ours", "compiled"): 4, ("fused", "built-in"): 4, ("fused", "compiled"): 8}
    )


def prepared(**settings):
    def prepare(number):
        calls = {name: Timed(lambda: torch.ones(64)) for name in ("ours", "built-in")}
        return Prepared(calls, **settings)

    return prepare


def taken(prepare, passes=2, **settings):
    *_, last = contest.take_passes([a_contest(prepare, **settings)], passes, 0.004)
    return scoring.rows_of(last)


def test_a_rival_that_fails_is_a_row_that_says_so():
    ours, failed = taken(prepared(obstacles={"JAX": "not installed"}), rivals=("built-in", "JAX"))
    assert ours.ratio
    assert failed.ratio is None
    assert (failed.obstacle, failed.verdict) == ("not installed", "none")


def test_facts_become_figures_of_both_sides():
    facts = {"saved_bytes": {"ours": 8, "built-in": 256}, "moved_bytes": {"ours": 512, "built-in": 768}}
    (row,) = taken(prepared(facts=facts))
    assert row.extra["saved_bytes"] == (8, 256)
    mine, theirs = row.extra["bytes_per_second"]
    assert mine == pytest.approx(512 / row.ours_value.median)
    assert theirs == pytest.approx(768 / row.rival_value.median)


def test_the_baseline_is_taken_off(monkeypatch):
    """On a machine that slows down tenfold now and then."""

    def rounds(timed, budget, stopwatch, seed):
        speeds = [1.0] * 7 + [10.0] * 6
        units = [entry.call() for entry in timed]
        return [[unit * speed for speed in speeds] for unit in units], [float(unit) for unit in units]

    monkeypatch.setattr(contest, "interleave", rounds)
    calls = {"ours": Timed(lambda: 7.0), "built-in": Timed(lambda: 13.0)}
    (row,) = taken(lambda _: Prepared(calls, baseline=Timed(lambda: 5.0)))
    assert (row.ours_value.median, row.rival_value.median, row.ratio) == pytest.approx((2.0, 8.0, 4.0))
    assert row.extra["page_faults"] == pytest.approx((2.0, 8.0))


def test_roofs_are_bandwidths_of_what_was_timed(monkeypatch):
    monkeypatch.setattr(contest, "interleave", lambda timed, *_, **__: ([[e.call()] * 5 for e in timed], [0] * len(timed)))
    roofs = {name: Timed(lambda seconds=seconds: seconds) for name, seconds in ROOFS.items()}
    facts = {"moved_bytes": {"ours": 2000, "built-in": 2000}, "overwrites": {"ours": 1.0, "built-in": 0.0}}
    calls = {"ours": Timed(lambda: 4.0), "built-in": Timed(lambda: 8.0)}
    nbytes = scoring.ROOF_FROM_BYTES

    def prepare(_):
        return Prepared(calls, facts=facts, roofs=roofs, nbytes=nbytes)

    *_, last = contest.take_passes([a_contest(prepare)], 2, 0.004)
    (roof,) = scoring.roofs_of(last)
    assert roof.copy_bytes_per_second == pytest.approx(2 * nbytes / 2)
    assert roof.triad_bytes_per_second == pytest.approx(3 * nbytes / 2)
    assert roof.scale_bytes_per_second == pytest.approx(2 * nbytes / 0.5)
    rows = scoring.rows_of(last)
    (row,) = scoring.with_roof_shares(rows, [roof])
    assert row.extra["roof_share"] == pytest.approx((500 / (4 * nbytes), 250 / (1.5 * nbytes)))
    assert "overwrites" not in row.extra
    for other in (dataclasses.replace(roof, dtype="float16"), dataclasses.replace(roof, nbytes=nbytes - 1)):
        assert "roof_share" not in scoring.with_roof_shares(rows, [other])[0].extra


ROOFS = {contest.COPY: 2.0, contest.TRIAD: 2.0, contest.SCALE: 0.5}


def test_passes_go_over_everything_with_new_tensors():
    log = []

    def prepare(number):
        log.append(number)
        return prepared()(number)

    contests = [a_contest(prepare), a_contest(prepare)]
    counts = [[len(entry.passes) for entry in known] for known in contest.take_passes(contests, 2, 0.004)]
    assert log == [0, 0, 1, 1]
    assert counts == [[1], [1, 1], [2, 1], [2, 2]]


def test_what_was_seen_before_an_interruption_is_kept():
    def prepare(number):
        if number == 1:
            raise KeyboardInterrupt
        return prepared()(number)

    known = None
    with pytest.raises(KeyboardInterrupt):
        for known in contest.take_passes([a_contest(prepare)], 2, 0.004):  # noqa: B007
            pass
    (row,) = scoring.rows_of(known)
    assert row.ratio > 0


def test_a_recompilation_is_not_timed():
    function = torch.compile(lambda x: x + 1, backend="eager", dynamic=False)
    function(torch.ones(3))
    sizes = iter([3, 4, 5, 6, 7, 8, 9, 10])

    def prepare(_):
        return Prepared({"ours": Timed(lambda: None), "built-in": Timed(lambda: function(torch.ones(next(sizes))))})

    (row,) = taken(prepare)
    assert row.ratio is None
    assert "recompil" in row.obstacle


class FailsAt:
    """A call that works so many times."""

    def __init__(self, calls):
        self.calls = calls

    def __call__(self):
        self.calls -= 1
        if self.calls < 0:
            raise MemoryError("gave out")


@pytest.mark.parametrize("calls", [0, 1, 2, 50])
def test_who_fails_while_it_is_timed_is_out_and_the_others_are_timed(calls):
    fails, prepared_passes = FailsAt(calls), []

    def prepare(number):
        prepared_passes.append(number)
        return Prepared({"ours": Timed(lambda: None), "built-in": Timed(lambda: None), "JAX": Timed(fails, "JAX")})

    good, failed = taken(prepare, rivals=("built-in", "JAX"))
    assert good.ratio > 0
    assert failed.ratio is None
    assert failed.obstacle == "MemoryError: gave out"
    assert prepared_passes == [0, 1]


def test_the_second_of_ours_may_fail_the_first_may_not():
    def prepare(*failing):
        names = ("ours", "ours, compiled", "built-in")
        return lambda _: Prepared({name: Timed(FailsAt(2 if name in failing else 10**9)) for name in names})

    first, second = taken(prepare("ours, compiled"), ours=("ours", "ours, compiled"))
    assert first.ratio > 0
    assert second.obstacle == "MemoryError: gave out"
    with pytest.raises(MemoryError, match="gave out"):
        taken(prepare("ours"), ours=("ours", "ours, compiled"))


def test_a_failing_baseline_ends_the_pass():
    calls = {"ours": Timed(lambda: None), "built-in": Timed(lambda: None)}
    with pytest.raises(MemoryError, match="gave out"):
        taken(lambda _: Prepared(calls, baseline=Timed(FailsAt(3))))
