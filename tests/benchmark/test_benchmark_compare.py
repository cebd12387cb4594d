"""Two runs compared: only what is beyond the noise of both is a change, and a file that is not one of ours is refused."""

import dataclasses
import json
import math
from pathlib import Path

import pytest

pytest.importorskip("rich")
from leakyrelu_bench import cli, results
from leakyrelu_bench.report import compare
from leakyrelu_bench.results import Quantiles, Roof, Row, Run

pytestmark = pytest.mark.cpu_only


def row(ratio=2.0, noise=0.05, case="noise, 2^16", rival="built-in", obstacle=None, **more):
    if obstacle:
        ratio = None
    value = None if ratio is None else Quantiles(0.9, 1.0, 1.1)
    figures = (value, value, ratio, ratio, ratio, noise)
    of_case = ("ops", case, (65536,), "float32", "contiguous", "forward", "fresh", "seconds", "ours", rival, "torch 1.0")
    return dataclasses.replace(Row(*of_case, *figures, obstacle), **more)


def run(*rows, interrupted=False, suite="ops", **environment):
    facts = {"device": "a CPU", "threads": 2, "torch": "2.13.0", **environment}
    roof = Roof("noise, 2^16", "float32", "contiguous", "fresh", 4, 1.0, 2.0, 3.0)
    return Run(suite, {"seed": 0}, facts, list(rows), [roof], interrupted)


@pytest.mark.parametrize(
    ("before", "after", "noise", "verdict"),
    [
        (2.0, 2.1, 0.05, "same"),
        (2.0, 2.0 * 1.06, 0.05, "same"),  # both are off by up to 5 %, so the change by 7
        (2.0, 2.2, 0.05, "better"),
        (2.0, 1.8, 0.05, "worse"),
        (2.0, 1.9, 0.0, "worse"),
        (2.0, 2.0, 0.0, "same"),
    ],
)
def test_a_change_is_one_beyond_the_noise_of_both(before, after, noise, verdict):
    (change,) = compare.compare(run(row(before, noise)), run(row(after, noise))).changes
    assert change.verdict == verdict
    assert change.factor == pytest.approx(after / before)
    assert math.log1p(change.noise) == pytest.approx(math.sqrt(2) * math.log1p(noise))


def test_rows_are_matched_by_what_they_measure():
    before = run(row(2.0), row(3.0, rival="compiled"), row(4.0, case="photos"))
    after = run(row(4.0, case="photos"), row(3.0, rival="compiled"), row(1.0), row(9.0, outputs="warm"))
    found = compare.compare(before, after)
    assert {change.after.case: change.factor for change in found.changes if change.after.rival == "built-in"} == {
        "noise, 2^16": 0.5,
        "photos": 1.0,
    }
    assert (found.only_before, found.only_after) == (0, 1)


def test_regressions_are_over_the_threshold_and_the_worst_first():
    before = run(row(2.0, 0.01), row(2.0, 0.01, case="b"), row(2.0, 0.01, case="c"))
    after = run(row(1.9, 0.01), row(1.0, 0.01, case="b"), row(4.0, 0.01, case="c"))
    found = compare.compare(before, after)
    assert [change.after.case for change in found.regressions(0.02)] == ["b", "noise, 2^16"]
    assert [change.after.case for change in found.regressions(0.2)] == ["b"]
    assert found.regressions(1.5) == []


def test_what_fails_now_is_a_regression():
    found = compare.compare(
        run(row(2.0), row(obstacle="was absent", case="b")), run(row(obstacle="broke"), row(2.0, case="b"))
    )
    assert [entry.obstacle for entry in found.regressions(0.5)] == ["broke"]
    assert [entry.case for entry in found.gained] == ["b"]
    assert "fails now: noise, 2^16, forward, ours against built-in: broke" in compare.summary(found, 0.05)


def test_other_environments_are_named():
    found = compare.compare(run(row()), run(row(), threads=4))
    assert found.differences == ["threads: 2 before, 4 after"]


def test_an_interrupted_run_is_named_and_nothing_measurable_is_no_failure():
    found = compare.compare(run(row(2.0)), run(row(obstacle=results.TOO_LITTLE), interrupted=True))
    assert found.differences == ["after was interrupted"]
    assert found.regressions(0.05) == []


def saved(path, *rows, **settings):
    results.save(run(*rows, **settings), path)
    return str(path)


def test_compare_ends_with_1_on_a_regression(tmp_path, capsys):
    before, same, worse = (saved(tmp_path / name, row(ratio)) for name, ratio in (("a", 2.0), ("b", 2.01), ("c", 1.0)))
    assert cli.main(["compare", before, same]) == 0
    assert "1 rows in both: 1 the same within the noise (100.0%)" in capsys.readouterr().out
    assert cli.main(["compare", before, worse]) == 1
    assert "1 regressions over 5%" in capsys.readouterr().out
    assert cli.main(["compare", before, worse, "--threshold", "2"]) == 0
    assert cli.main(["compare", worse, before]) == 0


def test_a_file_of_results_comes_back_as_it_was(tmp_path):
    written = run(row(), row(obstacle="not installed"), row(shape=(2, 3), extra={"page_faults": (1.0, None)}))
    results.save(written, tmp_path / "a.json")
    assert results.load(tmp_path / "a.json") == written


def test_a_row_in_a_file_can_be_read_without_its_script(tmp_path):
    results.save(run(row(), commit="abc", started="2026-01-01"), tmp_path / "a.json")
    (entry,) = json.loads((tmp_path / "a.json").read_text())["rows"]
    told = ("suite", "case", "shape", "dtype", "mode", "rival", "version", "device", "threads", "torch", "commit", "started")
    assert all(entry[name] for name in told)
    assert entry["verdict"] == "better"


A_FILE = {
    "format": results.FORMAT,
    "version": results.VERSION,
    "suite": "ops",
    "arguments": {},
    "environment": {},
    "interrupted": False,
    "roofs": [],
}
A_ROW = json.loads(json.dumps(dataclasses.asdict(row())))
FOREIGN = {
    "not JSON": "{",
    "other JSON": '{"a": 1}',
    "a list": "[]",
    "a later version": json.dumps({"format": results.FORMAT, "version": 99}),
    "without rows": json.dumps({"format": results.FORMAT, "version": results.VERSION, "suite": "ops"}),
    "rows that are none": json.dumps({**A_FILE, "rows": [{"case": 1}]}),
    "an infinite ratio": json.dumps({**A_FILE, "rows": [{**A_ROW, "ratio": math.inf}]}),
    "a negative ratio": json.dumps({**A_FILE, "rows": [{**A_ROW, "ratio": -1.0}]}),
    "a negative noise": json.dumps({**A_FILE, "rows": [{**A_ROW, "noise": -2.0}]}),
    "a text for a figure": json.dumps({**A_FILE, "rows": [{**A_ROW, "extra": {"saved_bytes": ["many", 1]}}]}),
    "a case that is no text": json.dumps({**A_FILE, "rows": [{**A_ROW, "case": ["x"]}]}),
    "a shape of texts": json.dumps({**A_FILE, "rows": [{**A_ROW, "shape": ["x"]}]}),
    "an endless ratio": json.dumps({**A_FILE, "rows": [{**A_ROW, "ratio": 10**400}]}),
    "a roof without figures": json.dumps({**A_FILE, "rows": [A_ROW], "roofs": [{"case": "x"}]}),
    "another unit": json.dumps({**A_FILE, "rows": [{**A_ROW, "unit": "miles"}]}),
    "not text": b"\xff\xfe\x00",
    "too deep": "[" * 100_000,
}


@pytest.mark.parametrize("content", FOREIGN.values(), ids=FOREIGN)
def test_a_foreign_file_is_refused_in_one_line(content, tmp_path, capsys):
    path, fine = tmp_path / "foreign.json", saved(tmp_path / "a.json", row())
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    for arguments in ((fine, str(path)), (str(path), fine)):
        assert cli.main(["compare", *arguments]) == 2
        shown = capsys.readouterr()
        assert shown.err.startswith("leakyrelu-bench compare: error: ")
        assert shown.err.count("\n") == 1
        assert "foreign.json" in shown.err


def test_missing_and_unrelated_files_are_refused(tmp_path, capsys):
    fine = saved(tmp_path / "a.json", row())
    other = saved(tmp_path / "b.json", row(suite="models"), suite="models")
    nothing = saved(tmp_path / "c.json", row(case="something else"))
    for second, why in (
        (str(tmp_path / "missing.json"), "No such file"),
        (str(tmp_path), "Is a directory"),
        (other, "of the suite 'models'"),
        (nothing, "no measurement in common"),
    ):
        assert cli.main(["compare", fine, second]) == 2
        assert why in capsys.readouterr().err


def test_nothing_is_overwritten_without_force(tmp_path):
    path = tmp_path / "a.json"
    results.refuse_to_overwrite((path, None), force=False)
    path.write_text("mine")
    with pytest.raises(results.ResultsError, match="--force overwrites it"):
        results.refuse_to_overwrite((None, path), force=False)
    results.refuse_to_overwrite((path,), force=True)
    for impossible, why in (
        (tmp_path, "is a directory"),
        (tmp_path / "no" / "a.json", "there is no directory"),
        (tmp_path / ("a" * 300), "File name too long"),
        (Path("/dev/null"), "is not a regular file"),
    ):
        with pytest.raises(results.ResultsError, match=why):
            results.refuse_to_overwrite((impossible,), force=True)


def test_writing_is_all_or_nothing(tmp_path, monkeypatch):
    path = tmp_path / "a.json"
    path.write_text("before")
    monkeypatch.setattr(results.Path, "replace", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(results.ResultsError, match="No space left"):
        results.write(path, "after")
    assert path.read_text() == "before"
    assert list(tmp_path.iterdir()) == [path]
