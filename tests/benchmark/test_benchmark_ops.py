"""`leakyrelu-bench ops` compares before it times, and measures what its rows say."""

import math

import pytest
import torch
from torch import nn

from cases import randn

pytest.importorskip("rich")
pytest.importorskip("sklearn")
from leakyrelu_bench import results
from leakyrelu_bench.measure import compiling, contest, peers, scoring
from leakyrelu_bench.measure.saved import saved_bytes
from leakyrelu_bench.suites import inputs, ops
from leakyrelu_bench.suites.bits import close

import leakyrelu_ext

pytestmark = pytest.mark.cpu_only
CPU = torch.device("cpu")


NO_COMPILER = ops.Rivals()


def rows_of(cases, dtypes=(torch.float32,), rivals=NO_COMPILER):
    group = ops.group(list(cases), dtypes, CPU, rivals)
    with group.contests() as contests:
        *_, seen = contest.take_passes(contests, 2, 0.004)
    return scoring.with_roof_shares(scoring.rows_of(seen), scoring.roofs_of(seen))


def noise(*sizes):
    return inputs.noise_inputs(0, CPU, sizes)


def broken(what):
    """The built-in with one mistake."""

    class Module(nn.LeakyReLU):
        def forward(self, x):
            y = function(x, self.negative_slope)
            return y + 0 * x.clamp(min=-1).detach() if what != "gradient" else torch.where(x > 0, x, (x * 0.01).detach())

    def function(x, slope, inplace=False):
        wrong = what == ("function in place" if inplace else "function")
        return torch.where(x >= 0, x, x * slope * (1.001 if wrong else 1))

    def backward_op(x, grad):
        return lambda: torch.where(x > 0, grad, grad * (0.011 if what == "backward op" else 0.01))

    return ops.Side(function, Module(inputs.SLOPE), backward_op)


@pytest.mark.native
@pytest.mark.parametrize("what", ["function", "function in place", "gradient", "backward op"])
def test_a_side_that_differs_is_not_timed(what, monkeypatch):
    builtin, _ = ops.sides()
    monkeypatch.setattr(ops, "sides", lambda: (builtin, broken(what)))
    monkeypatch.setattr(contest, "interleave", lambda *_, **__: pytest.fail("timed all the same"))
    with pytest.raises(contest.MismatchError, match=f"the {what} differs from the built-in's"):
        rows_of(noise(2**6))


@pytest.mark.native
def test_modes_and_rivals_by_size():
    rows = rows_of(noise(2**6, 2**20))
    by_mode = {}
    for row in rows:
        assert row.ratio or row.obstacle == results.TOO_LITTLE, row  # a short look at a difference may see nothing
        by_mode.setdefault((row.shape, row.mode), []).append(row.rival)
    small = [mode for (shape, mode) in by_mode if shape == (2**6,)]
    assert small == ["forward", "in place", "backward", "forward+backward"]
    assert [mode for (shape, mode) in by_mode if shape == (2**20,)] == list(ops.MODES)
    assert by_mode[(2**20,), "forward"] == ["built-in", "built-in in place"]
    assert by_mode[(2**20,), "in place"] == ["built-in in place"]
    assert by_mode[(2**20,), "chain"] == ["built-in", "built-in in place"]
    assert by_mode[(2**20,), "backward"] == ["built-in"]


@pytest.mark.native
def test_saved_and_moved_bytes():
    n = 2**20
    rows = {(row.mode, row.rival): row for row in rows_of(noise(n))}
    assert rows["backward", "built-in"].extra["saved_bytes"] == (n // 8, 4 * n)
    moved = {
        mode: [
            bandwidth * value.median / n
            for bandwidth, value in zip(row.extra["bytes_per_second"], (row.ours_value, row.rival_value), strict=True)
        ]
        for (mode, rival), row in rows.items()
        if rival == "built-in" and mode in ("forward", "backward op", "forward+backward")
    }
    assert moved["forward"] == pytest.approx([8, 8])
    assert moved["backward op"] == pytest.approx([8.125, 12])  # the gradient twice, and a bit an element or the input
    assert moved["forward+backward"] == pytest.approx([16.25, 20])
    assert all(0 < share < 10 for share in rows["forward", "built-in"].extra["roof_share"])


@pytest.mark.slow
@pytest.mark.native
def test_a_compiled_rival_keeps_its_own_code_per_case():
    sizes = [2**power for power in range(6, 16)]  # more than Dynamo compiles of one function
    rows = [row for row in rows_of(noise(*sizes), rivals=ops.Rivals([torch.float32])) if row.rival == "compiled"]
    assert len(rows) == 2 * len(sizes)
    assert all(row.ratio and row.version.endswith("(Inductor)") for row in rows), rows


def test_compiled_functions_are_apart():
    def function(x):
        return x * 2

    compiled = [compiling.compiled(function) for _ in range(20)]
    torch._dynamo.reset()
    for size, each in enumerate(compiled, 1):
        assert torch.equal(each(torch.ones(size)), 2 * torch.ones(size))
    with torch.compiler.set_stance("fail_on_recompile"):
        for size, each in enumerate(compiled, 1):
            each(torch.ones(size))


def test_close_is_within_roundings_of_the_dtype():
    one = torch.tensor([1.0, 6e-8], dtype=torch.float16)  # the second: the smallest subnormal
    for factor, roundings, expected in ((1 + 2**-10, 2, True), (1 + 2**-9, 3, False), (1 + 2**-9, 4, True)):
        assert close(one * torch.tensor([factor, 1.0], dtype=torch.float16), one, roundings) == expected
    assert close(one * torch.tensor([1.0, 2.0], dtype=torch.float16), one, 2)
    assert not close(one * torch.tensor([1.0, 3.0], dtype=torch.float16), one, 3)
    assert not close(one * math.nan, one, 100)


def test_layouts_are_what_they_are_called():
    for dtype in (torch.float32, torch.bfloat16):
        channels_last, gaps = (case.make(dtype) for case in inputs.layout_inputs(0, CPU))
        assert channels_last.numel() == gaps.numel() == 2**20
        assert channels_last.dtype == gaps.dtype == dtype
        assert channels_last.is_contiguous(memory_format=torch.channels_last)
        assert gaps.stride(-1) == 2


def test_shapes_and_layouts_are_those_of_the_tensors():
    for case in (*inputs.real_inputs(0, CPU), *inputs.layout_inputs(0, CPU), *noise(2**6)):
        x = case.make(torch.float32)
        assert tuple(x.shape) == case.shape
        assert x.is_contiguous() == (case.layout == "contiguous")


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


@pytest.mark.native
def test_the_owned_backward_hands_its_gradient_over():
    x = randn(100)
    run = ops._owned_backward(leakyrelu_ext.LeakyReLU(), x, randn(100, seed=1))
    before = leakyrelu_ext.stats()["backward_into_grad_output"]
    run()
    run()
    assert leakyrelu_ext.stats()["backward_into_grad_output"] == before + 2


@pytest.mark.native
def test_saved_bytes_count_every_storage_once():
    x = randn(1000).requires_grad_()
    builtin, ours = ops.sides()
    assert saved_bytes(lambda: builtin.module(x)) == 4000
    assert saved_bytes(lambda: ours.module(x)) == 125
    assert saved_bytes(lambda: builtin.module(x) + builtin.module(x)) == 4000


PEERS = peers.find()


@pytest.fixture(params=["JAX", "ONNX Runtime", "NumPy"])
def peer(request):
    found = {peer.name: peer for peer in PEERS[0]}
    if request.param not in found:
        pytest.skip(PEERS[1][request.param])
    return found[request.param]


def test_peers_compute_leaky_relu(peer):
    x, grad = randn(5, 7), randn(5, 7, seed=1)
    torch.testing.assert_close(peer.tensor(peer.forward(x, 0.1)()), torch.where(x > 0, x, x * 0.1))
    if peer.backward:
        torch.testing.assert_close(peer.tensor(peer.backward(x, grad, 0.1)()), torch.where(x > 0, grad, grad * 0.1))
    assert peer.name in peer.version
    assert any(digit in peer.version for digit in "0123456789")


@pytest.mark.native
def test_peers_take_part_each_in_its_own_pool(peer):
    rivals = ops.Rivals((), [peer], {}, {torch.float32})
    rows = [row for row in rows_of(noise(2**16), (torch.float32, torch.float64), rivals) if row.rival == peer.name]
    assert [row.mode for row in rows] == ["forward", *(["backward op"] if peer.backward else [])]
    assert all(row.ratio and row.dtype == "float32" and row.version == peer.version for row in rows)


@pytest.mark.native
def test_what_a_peer_cannot_or_gets_wrong_is_a_row_that_says_so():
    def fails(x, slope):
        raise TypeError("no such dtype\nhere")

    def wrong(x, slope):
        return lambda: torch.nn.functional.leaky_relu(x, slope) * 1.001

    for forward, why in ((fails, "TypeError: no such dtype"), (wrong, "differ from the built-in's")):
        peer = peers.Peer("other", "other 1.0", forward, None, lambda result: result)
        rows = rows_of(noise(2**6), rivals=ops.Rivals((), [peer], {}, {torch.float32}))
        (row,) = (row for row in rows if row.rival == "other")
        assert why in row.obstacle
        assert row.ratio is None


@pytest.mark.native
def test_an_absent_peer_is_a_row_that_says_how_to_get_it(monkeypatch):
    monkeypatch.setattr(peers.util, "find_spec", lambda name: None)
    found, absent = peers.find()
    assert found == []
    assert list(absent) == ["JAX", "ONNX Runtime", "NumPy"]
    rows = rows_of(noise(2**6), rivals=ops.Rivals((), found, absent, {torch.float32}))
    missing = [row for row in rows if row.rival in absent]
    assert [row.mode for row in missing] == ["forward"] * 3
    assert all("pip install 'leakyrelu_ext[peers]'" in row.obstacle for row in missing)
