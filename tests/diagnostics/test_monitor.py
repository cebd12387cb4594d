"""ActivationMonitor counts what is there, and changes nothing."""

import copy
import json
import pickle
import subprocess
import sys
from contextlib import nullcontext
from functools import partial
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import leakyrelu_ext
from leakyrelu_ext.diagnostics import ActivationMonitor
from monitored import X, observed

pytestmark = pytest.mark.cpu_only

KINDS = [
    nn.ReLU,
    nn.LeakyReLU,
    leakyrelu_ext.LeakyReLU,
    nn.PReLU,
    nn.RReLU,
    nn.ELU,
    nn.GELU,
    nn.SiLU,
    nn.Sigmoid,
    nn.Tanh,
]


def test_counts_of_a_hand_made_input():
    x = X.clone().requires_grad_()
    (layer,) = observed(nn.Sequential(nn.ReLU()), x)["layers"]
    assert (layer["name"], layer["kind"], layer["calls"], layer["elements"], layer["units"]) == ("0", "ReLU", 1, 6, 3)
    assert layer["negative_share"] == 3 / 6  # 0 is not negative
    assert layer["dead_units"] == 2
    assert layer["zero_gradient_units"] == 2
    assert layer["pre_mean"] == pytest.approx(-0.5)
    assert layer["pre_variance"] == pytest.approx(X.var(correction=0).item())
    assert layer["mean"] == pytest.approx(4 / 6)
    assert layer["variance"] == pytest.approx(X.relu().var(correction=0).item())
    assert layer["gradient_norm"] == pytest.approx(2**0.5)
    assert layer["gradient_mean"] == pytest.approx(2 / 6)
    assert layer["nonfinite"] == 0


@pytest.mark.parametrize("kind", KINDS)
def test_a_dead_unit_has_no_gradient_with_relu_only(kind):
    model = nn.Sequential(nn.Linear(4, 3), kind(), nn.Linear(3, 1))
    with torch.no_grad():
        model[0].bias[1] = -6.0
        model[0].weight[1] = 0.0
    (layer,) = observed(model, torch.rand(32, 4))["layers"]
    assert layer["dead_units"] >= 1
    assert layer["zero_gradient_units"] == (layer["dead_units"] if kind is nn.ReLU else 0)


@pytest.mark.parametrize("kind", [nn.ReLU, nn.ReLU6, nn.LeakyReLU, leakyrelu_ext.LeakyReLU, nn.RReLU])
def test_in_place_is_seen_as_out_of_place_is(kind):
    found = []
    for inplace in (False, True):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Conv2d(2, 5, 3), kind(inplace=inplace), nn.Conv2d(5, 2, 3)).train()
        found.append(observed(model, torch.randn(2, 2, 8, 8)))
    assert found[0] == found[1]
    assert found[0]["layers"][0]["units"] == 5


@pytest.mark.parametrize(
    "kind", [*KINDS, partial(leakyrelu_ext.LeakyReLU, -0.5, inplace=True), partial(nn.ReLU, inplace=True)]
)
@pytest.mark.parametrize("training", [True, False])
def test_what_the_model_computes_is_the_same_to_the_bit(kind, training):
    results = []
    for watched in (False, True):
        torch.manual_seed(0)
        model = nn.Sequential(
            nn.Conv2d(2, 5, 3), nn.BatchNorm2d(5), kind(), nn.Flatten(), nn.Dropout(0.3), nn.Linear(180, 4), kind()
        ).train(training)
        x = torch.randn(8, 2, 8, 8, requires_grad=True)
        with ActivationMonitor(model) if watched else nullcontext():
            y = model(x)
            y.square().sum().backward()
        results.append([y, x.grad, *(p.grad for p in model.parameters()), *model.buffers(), torch.get_rng_state()])
    for actual, expected in zip(*results, strict=True):
        assert torch.equal(actual, expected)


@settings(derandomize=True, deadline=None, max_examples=40)
@given(sizes=st.lists(st.integers(1, 9), min_size=1, max_size=5), shift=st.floats(-1e3, 1e3), features=st.integers(1, 7))
def test_batch_by_batch_is_as_all_at_once(sizes, shift, features):
    x = torch.randn(sum(sizes), features, generator=torch.Generator().manual_seed(sum(sizes)), dtype=torch.float64) + shift
    (whole,) = observed(nn.ReLU(), x, backward=False)["layers"]
    (parts,) = observed(nn.ReLU(), *x.split(sizes), backward=False)["layers"]
    assert parts["calls"] == len(sizes)
    for name in ("elements", "units", "negative_share", "dead_units"):
        assert parts[name] == whole[name]
    for name in ("mean", "variance", "pre_mean", "pre_variance"):
        assert parts[name] == pytest.approx(whole[name], rel=1e-9, abs=1e-9)


def test_every_so_many_forwards():
    model = nn.Sequential(nn.Linear(2, 2), nn.ReLU())
    found = observed(model, *torch.randn(7, 4, 2), every=3)
    assert (found["forwards"], found["observed"]) == (7, 3)
    assert found["layers"][0]["calls"] == 3
    assert found["layers"][0]["elements"] == 3 * 8


def test_a_module_that_is_called_twice_has_two_lines():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second, self.act = nn.Linear(2, 3), nn.Linear(3, 4), nn.ReLU()

        def forward(self, x):
            return self.act(self.second(self.act(self.first(x))))

    layers = observed(Twice(), torch.randn(5, 2), torch.randn(5, 2))["layers"]
    assert [(layer["name"], layer["units"], layer["calls"]) for layer in layers] == [("act", 3, 2), ("act#2", 4, 2)]


def test_the_ratio_is_of_the_first_and_the_last():
    model = nn.Sequential(nn.Identity(), nn.LeakyReLU(0.5), nn.LeakyReLU(0.5))
    x = -torch.ones(1, 4, requires_grad=True)
    found = observed(model, x)
    assert [layer["gradient_norm"] for layer in found["layers"]] == pytest.approx([0.5, 1.0])
    assert found["gradient_norm_ratio"] == pytest.approx(0.5)


def test_gradient_norms_of_several_backwards():
    model = nn.Sequential(nn.ReLU())
    ones = torch.ones(1, 4, requires_grad=True)
    with ActivationMonitor(model) as monitor:
        (model(ones) * 3).sum().backward()
        (model(ones) * 4).sum().backward()
    assert monitor.to_dict()["layers"][0]["gradient_norm"] == pytest.approx((4 * (9 + 16) / 2) ** 0.5)


def test_without_gradients():
    model = nn.Sequential(nn.Linear(2, 2), nn.ReLU())
    with torch.no_grad():
        found = observed(model, torch.randn(3, 2), backward=False)
    assert found["gradient_norm_ratio"] is None
    assert found["layers"][0]["zero_gradient_units"] is None
    assert found["layers"][0]["gradient_norm"] is None


def test_infinite_and_nan_are_counted():
    x = torch.tensor([[float("nan"), float("inf"), 1.0]])
    found = observed(nn.ReLU(), x, backward=False)
    assert found["layers"][0]["nonfinite"] == 2
    assert found["layers"][0]["mean"] is None
    json.dumps(found, allow_nan=False)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_dtypes(dtype):
    x = torch.full((1 << 16, 2), 0.1, dtype=dtype)
    x[:, 1] = -0.1
    (layer,) = observed(leakyrelu_ext.LeakyReLU(0.5), x.requires_grad_())["layers"]
    assert layer["mean"] == pytest.approx(0.025, rel=0.01)
    assert layer["dead_units"] == 1
    assert layer["gradient_norm"] == pytest.approx((2**16 * 1.25) ** 0.5, rel=0.01)


def test_autocast():
    model = nn.Sequential(nn.Linear(4, 4), leakyrelu_ext.LeakyReLU(), nn.Linear(4, 1))
    with torch.autocast("cpu", torch.bfloat16):
        found = observed(model, torch.randn(8, 4))
    assert found["layers"][0]["gradient_norm"] > 0


@pytest.mark.parametrize("shape", [(), (3,), (0, 3), (2, 0, 4)])
def test_odd_shapes(shape):
    (layer,) = observed(nn.ReLU(), torch.ones(shape), backward=False)["layers"]
    assert layer["elements"] == torch.ones(shape).numel()
    json.dumps(layer, allow_nan=False)


def test_hooks_are_gone_afterwards_and_results_stay():
    model = nn.Sequential(nn.Linear(2, 2), nn.ReLU())
    monitor = ActivationMonitor(model)

    def interrupted():
        with monitor:
            model(torch.randn(3, 2))
            raise RuntimeError("mine")

    with pytest.raises(RuntimeError, match="mine"):
        interrupted()
    for module in model.modules():
        assert not module._forward_hooks
        assert not module._forward_pre_hooks
    copy.deepcopy(model)
    pickle.loads(pickle.dumps(model))
    model(torch.randn(3, 2))
    assert monitor.to_dict()["forwards"] == 1
    with monitor:
        model(torch.randn(3, 2))
        with pytest.raises(RuntimeError, match="observes already"):
            monitor.__enter__()
    assert monitor.to_dict()["layers"][0]["calls"] == 2
    monitor.reset()
    assert monitor.to_dict() == {"forwards": 0, "observed": 0, "gradient_norm_ratio": None, "layers": []}


def test_a_forward_that_raises_does_not_leave_it_observing():
    class Fails(nn.Module):
        def __init__(self):
            super().__init__()
            self.act = nn.ReLU()

        def forward(self, x):
            self.act(x)
            raise KeyError("no")

    model = Fails()
    with ActivationMonitor(model) as monitor:
        with pytest.raises(KeyError):
            model(torch.ones(2, 2))
        model.act(torch.ones(2, 2))  # not in the model's forward
    assert monitor.to_dict()["layers"][0]["calls"] == 1


def test_of_the_fused_modules_the_sum_is_the_pre_activation():
    bias = leakyrelu_ext.BiasLeakyReLU(3, dim=-1, inplace=True)
    with torch.no_grad():
        bias.bias.copy_(torch.tensor([0.0, -5.0, 5.0]))
    (layer,) = observed(bias, X.clone(), backward=False)["layers"]
    assert (layer["name"], layer["kind"], layer["units"]) == ("", "BiasLeakyReLU", 3)
    assert layer["dead_units"] == 1
    assert layer["pre_mean"] == pytest.approx(X.mean().item())
    add = leakyrelu_ext.AddLeakyReLU()
    for arguments in ({"residual": torch.full((3,), -9.0)}, {"residual": -X}):
        with ActivationMonitor(add) as monitor:
            add(input=X.clone().requires_grad_(), **arguments).sum().backward()
        (layer,) = monitor.to_dict()["layers"]
        assert layer["dead_units"] == 3
        assert layer["pre_mean"] == pytest.approx((X + arguments["residual"]).mean().item())
        assert layer["zero_gradient_units"] == 0


def test_a_leaf_keeps_no_hook():
    weight, act = nn.Parameter(X.clone()), nn.ReLU()
    with ActivationMonitor(act) as monitor:
        for _ in range(3):
            act(weight).sum().backward()
        late = act(weight * 1).sum()
    assert not weight._backward_hooks
    late.backward()
    assert monitor.to_dict()["layers"][0]["gradient_norm"] == pytest.approx(2**0.5)


@pytest.mark.parametrize("value", [1e-30, 1e30])
def test_squares_beyond_float32(value):
    x = torch.ones(300, 50, requires_grad=True)
    with ActivationMonitor(nn.LeakyReLU()) as monitor:
        monitor._model(x).backward(torch.full_like(x, value))
    (layer,) = monitor.to_dict()["layers"]
    assert layer["gradient_norm"] == pytest.approx(value * 15000**0.5)
    assert layer["zero_gradient_units"] == 0


@pytest.mark.parametrize("shift", [0.0, 100.0])
def test_half_a_million_elements_and_a_thousand_calls(shift):
    x = torch.randn(1000, 8, 8, 8, generator=torch.Generator().manual_seed(0)) + shift
    (layer,) = observed(nn.LeakyReLU(1.0), *x.split(1), backward=False)["layers"]
    assert layer["calls"] == 1000
    assert layer["pre_mean"] == pytest.approx(x.double().mean().item(), rel=1e-6, abs=1e-7)
    assert layer["variance"] == pytest.approx(x.double().var(correction=0).item(), rel=1e-6 * (1 + shift**2))


def test_one_overflow_does_not_spoil_the_rest():
    act = nn.ReLU()
    found = observed(act, torch.tensor([[float("inf"), -1.0], [float("nan"), -1.0]]), -X[:, :2], backward=False)
    (layer,) = found["layers"]
    assert layer["nonfinite"] == 2
    assert layer["pre_mean"] == pytest.approx(-X[:, :2].mean().item())
    assert layer["dead_units"] == 0  # NaN is not known to be dead
    json.dumps(found, allow_nan=False)


@pytest.mark.usefixtures("process_group")
def test_frozen_parameters_and_a_model_that_is_wrapped():
    model = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4), nn.LeakyReLU(inplace=True), nn.Linear(4, 1))
    model[0].requires_grad_(False)
    found = observed(nn.parallel.DistributedDataParallel(model), torch.randn(8, 4), torch.randn(8, 4))
    assert [(layer["name"], layer["calls"]) for layer in found["layers"]] == [("module.1", 2), ("module.3", 2)]
    assert found["layers"][0]["gradient_norm"] is None
    assert found["gradient_norm_ratio"] == 1.0


def test_what_has_no_values_of_its_own_is_let_pass():
    model = nn.Sequential(nn.Linear(4, 4), nn.Tanh())
    act = model[1]
    with ActivationMonitor(model) as monitor:
        torch.func.vmap(model)(torch.randn(3, 4))
        torch.func.grad(lambda x: model(x).sum())(torch.randn(4))
        torch.func.jvp(model, (torch.randn(4),), (torch.randn(4),))
        torch.fx.symbolic_trace(model)
    assert monitor.to_dict()["layers"] == []
    with ActivationMonitor(act) as monitor:
        with torch._subclasses.fake_tensor.FakeTensorMode():
            act(torch.ones(2, 2))
        act(torch.ones(2, device="meta"))
        act(torch.nested.nested_tensor([torch.ones(2), torch.ones(1)], layout=torch.jagged))
        act(torch.ones(2, dtype=torch.complex64))
    assert monitor.to_dict()["layers"] == []


def test_inference_mode_and_training_in_turn():
    model = nn.Sequential(nn.Linear(4, 4), nn.ReLU())
    with ActivationMonitor(model) as monitor:
        for _ in range(2):
            with torch.inference_mode():
                model(torch.randn(3, 4))
            model(torch.randn(3, 4)).sum().backward()
    assert monitor.to_dict()["layers"][0]["calls"] == 4


@pytest.mark.parametrize("before", [False, True])
def test_what_is_compiled_is_not_seen_and_not_broken(before):
    torch.compiler.reset()
    model = nn.Sequential(nn.Linear(4, 8), leakyrelu_ext.LeakyReLU(), nn.Linear(8, 1))
    compiled, x = torch.compile(model, backend="aot_eager", fullgraph=True), torch.randn(16, 4)
    if before:
        compiled(x)
    found = observed(compiled, x, x, every=2)
    assert (found["forwards"], found["observed"], found["layers"]) == (2, 1, [])
    with torch.compiler.set_stance("force_eager"):
        assert observed(compiled, x)["layers"][0]["calls"] == 1
    assert observed(model, x)["layers"][0]["calls"] == 1


def test_summary_and_plot(tmp_path):
    pytest.importorskip("matplotlib")
    model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 6), leakyrelu_ext.LeakyReLU(0.1))
    with ActivationMonitor(model) as monitor:
        model(torch.randn(16, 4)).sum().backward()
    lines = monitor.summary().splitlines()
    assert len(lines) == 1 + 2 + 1
    assert lines[1].split()[:3] == ["1", "ReLU", "8"]
    assert lines[2].split()[:3] == ["3", "LeakyReLU", "6"]
    assert lines[3].startswith(f"{sum(layer['dead_units'] for layer in monitor.to_dict()['layers'])} of 14 units dead; ")
    figure = monitor.plot(tmp_path / "a.png")
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")
    assert [axes.get_title() for axes in figure.axes] == ["share", "variance", "gradient norm"]
    shown = figure.axes[2].get_lines()[0].get_ydata()
    assert list(shown) == [layer["gradient_norm"] for layer in monitor.to_dict()["layers"]]
    monitor.reset()
    monitor.plot()
    assert "0 of 0 units dead" in monitor.summary()


def test_matplotlib_is_asked_for_by_plot_only(monkeypatch):
    code = "import sys, leakyrelu_ext.diagnostics; assert 'matplotlib' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(leakyrelu_ext.__file__).parent.parent)
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ImportError, match="pip install matplotlib"):
        ActivationMonitor(nn.ReLU()).plot()


@pytest.mark.parametrize(
    ("arguments", "kind", "message"),
    [
        (("model",), TypeError, "argument 'model' must be a torch.nn.Module, got str"),
        ((nn.Linear(2, 2),), ValueError, r"argument 'model' \(Linear\) has no activation module"),
        ((nn.ReLU(), 0), ValueError, "argument 'every' must be at least 1, got 0"),
        ((nn.ReLU(), 1.5), TypeError, "argument 'every' must be an integer, got 1.5"),
        ((nn.ReLU(), True), TypeError, "argument 'every' must be an integer, got True"),
        ((nn.ReLU(), 1, "channels"), TypeError, "argument 'unit_dim' must be an integer or None, got 'channels'"),
    ],
)
def test_errors(arguments, kind, message):
    with pytest.raises(kind, match=message):
        ActivationMonitor(*arguments)
