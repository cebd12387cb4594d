"""ActivationMonitor counts what is there, and changes nothing."""

import copy
import io
import json
import pickle
import subprocess
import sys
import threading
from contextlib import nullcontext
from functools import partial
from pathlib import Path

import pytest
import torch
import torch.utils.checkpoint
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import leakyrelu_ext
from leakyrelu_ext.diagnostics import ActivationMonitor

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
X = torch.tensor([[1.0, -2.0, 0.0], [3.0, -1.0, -4.0]])


def observed(model, *inputs, backward=True, **arguments):
    with ActivationMonitor(model, **arguments) as monitor:
        for x in inputs:
            y = model(x)
            if backward:
                y.sum().backward()
    return monitor.to_dict()


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


def test_units_of_convolutions_and_linears():
    class Tokens(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear, self.act = nn.Linear(3, 6), nn.ReLU()
            self.conv, self.act2 = nn.Conv1d(6, 7, 1), nn.ReLU()

        def forward(self, x):
            return self.act2(self.conv(self.act(self.linear(x)).transpose(1, 2)))

    layers = observed(Tokens(), torch.randn(2, 5, 3))["layers"]
    assert [layer["units"] for layer in layers] == [6, 7]
    layers = observed(Tokens(), torch.randn(2, 5, 3), unit_dim=1)["layers"]
    assert [layer["units"] for layer in layers] == [5, 7]


class Between(nn.Module):
    """``layer``, ReLU, on (batch, time, channels); what the layer puts out beside its output is dropped."""

    def __init__(self, layer):
        super().__init__()
        self.norm, self.layer, self.act = nn.BatchNorm1d(9), layer, nn.ReLU()

    def forward(self, x):
        x = self.norm(x)  # of 9 channels: what came last but one does not count
        layer = self.layer
        if isinstance(layer, nn.Embedding):
            y = layer(x[..., 0].abs().long().clamp(max=1))
        else:
            y = layer(x, x, x) if isinstance(layer, nn.MultiheadAttention) else layer(x)
        y = y[0] if isinstance(y, tuple) else y
        return self.act(y - y.detach().amax((0, 1), keepdim=True) * torch.tensor([1, 0, 0, 1, 0, 0]))


LAYERS_OF_FEATURES = {
    "LSTM": lambda: nn.LSTM(6, 6, batch_first=True),
    "GRU": lambda: nn.GRU(6, 3, bidirectional=True, batch_first=True),
    "MultiheadAttention": lambda: nn.MultiheadAttention(6, 2, batch_first=True),
    "Embedding": lambda: nn.Embedding(2, 6),
    "LayerNorm": lambda: nn.LayerNorm(6),
    "RMSNorm": lambda: nn.RMSNorm(6),
    "TransformerEncoderLayer": lambda: nn.TransformerEncoderLayer(6, 2, 8, batch_first=True),
    "Linear": lambda: nn.Linear(6, 6),
}


@pytest.mark.parametrize("layer", LAYERS_OF_FEATURES.values(), ids=LAYERS_OF_FEATURES)
def test_units_of_batch_time_channels(layer):
    model = Between(layer())
    (found,) = [each for each in observed(model, torch.randn(4, 9, 6), backward=False)["layers"] if each["name"] == "act"]
    assert found["units"] == 6
    assert found["dead_units"] >= 2


class LayerNorm2d(nn.LayerNorm):
    """As in torchvision and timm: of the channels, which come first."""

    def forward(self, x):
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


@pytest.mark.parametrize("norm", [nn.LayerNorm((3, 4, 5)), LayerNorm2d(3)])
def test_layer_norms_of_images_leave_channels_first(norm):
    model = nn.Sequential(norm, nn.ReLU())
    assert observed(model, torch.randn(2, 3, 4, 5))["layers"][0]["units"] == 3


@pytest.mark.parametrize("training", [True, False])
def test_units_after_a_transformer_in_both_modes(training):
    layer = nn.TransformerEncoderLayer(6, 2, 8, batch_first=True)
    model = nn.Sequential(nn.TransformerEncoder(layer, 1, enable_nested_tensor=False), nn.ReLU()).train(training)
    with torch.set_grad_enabled(training):
        found = observed(model, torch.randn(4, 9, 6), backward=False)["layers"]
    assert found[-1]["units"] == 6


def test_a_transformer_keeps_its_faster_way():
    torch.manual_seed(0)
    model = nn.Sequential(nn.TransformerEncoderLayer(8, 2, 16, batch_first=True), nn.Linear(8, 8), nn.ReLU()).eval()
    x = torch.randn(4, 9, 8)
    with torch.no_grad():
        expected = model(x)
        with ActivationMonitor(model), torch.profiler.profile() as profile:
            assert torch.equal(model(x), expected)
    called = {event.key for event in profile.key_averages()}
    assert "aten::_transformer_encoder_layer_fwd" in called


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


def test_units_that_change_are_not_guessed():
    (layer,) = observed(nn.ReLU(), torch.ones(2, 3), torch.ones(2, 4), backward=False)["layers"]
    assert (layer["units"], layer["dead_units"], layer["calls"]) == (None, None, 2)


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


def test_units_are_channels_again_after_a_reshape():
    generator = nn.Sequential(
        nn.Linear(5, 8 * 16),
        nn.Unflatten(1, (8, 4, 4)),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.ConvTranspose2d(8, 4, 4),
        nn.ReLU(),
    )
    assert [layer["units"] for layer in observed(generator, torch.randn(3, 5))["layers"]] == [8, 4]
    with pytest.raises(IndexError, match="argument 'unit_dim' is 3, but the input of the model has 2 dimensions"):
        observed(nn.ReLU(), X, unit_dim=3)


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


@pytest.mark.parametrize("use_reentrant", [False, True])
def test_checkpointing(use_reentrant):
    class Checkpointed(nn.Sequential):
        def forward(self, x):
            return torch.utils.checkpoint.checkpoint(super().forward, x, use_reentrant=use_reentrant)

    model = Checkpointed(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 1))
    (layer,) = observed(model, torch.randn(8, 4, requires_grad=True))["layers"]
    assert layer["calls"] == 1
    # A reentrant one runs without gradients, and again outside of the forward.
    assert (layer["gradient_norm"] is None) == use_reentrant


@pytest.mark.parametrize("every", [1, 2])
@pytest.mark.parametrize("use_reentrant", [False, True])
def test_what_a_checkpoint_computes_again_counts_once(use_reentrant, every):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 4), nn.ReLU(inplace=True), nn.Linear(4, 1))
    batches = [torch.randn(8, 4, requires_grad=True) for _ in range(4)]
    found = []
    for forward in (model, partial(torch.utils.checkpoint.checkpoint, model, use_reentrant=use_reentrant)):
        with ActivationMonitor(model, every) as monitor:
            for pair in (batches[:2], batches[2:]):  # two forwards before the backward of both
                sum(forward(x).sum() for x in pair).backward()
        found.append(monitor.to_dict())
    assert found[1] == found[0]
    assert found[0]["observed"] == 4 // every
    assert found[0]["layers"][0]["gradient_norm"] > 0


def test_a_checkpoint_of_a_forward_that_is_not_observed():
    """On the very input of one that was."""
    model, x = nn.Sequential(nn.Linear(4, 4), nn.ReLU()), torch.randn(8, 4, requires_grad=True)
    found = []
    for forward in (model, partial(torch.utils.checkpoint.checkpoint, model, use_reentrant=True)):
        with ActivationMonitor(model, every=2) as monitor:
            forward(x).sum().backward()
            (forward(x) * 3).sum().backward()
        found.append(monitor.to_dict())
    assert found[1] == found[0]


@pytest.mark.parametrize("every", [1, 2])
def test_a_checkpoint_of_more_than_the_model(every):
    torch.manual_seed(0)
    inner = nn.Sequential(nn.Linear(4, 4), nn.ReLU())
    whole, x = nn.Sequential(nn.Linear(4, 4), inner), torch.randn(8, 4, requires_grad=True)
    found = []
    for forward in (whole, partial(torch.utils.checkpoint.checkpoint, whole, use_reentrant=True)):
        with ActivationMonitor(inner, every) as monitor:
            with torch.no_grad():
                whole(x)  # a validation
            for scale in (1, 2, 3):
                (forward(x) * scale).sum().backward()
        found.append(monitor.to_dict())
    assert found[1] == found[0]


def test_a_validation_without_gradients_is_not_taken_for_a_checkpoint():
    model, x = nn.Sequential(nn.Linear(4, 4), nn.ReLU()), torch.randn(8, 4)
    with ActivationMonitor(model) as monitor:
        with torch.no_grad():
            model(x)
        model(x).sum().backward()
    assert (monitor.to_dict()["forwards"], monitor.to_dict()["layers"][0]["calls"]) == (2, 2)


def saved_and_loaded(model):
    buffer = io.BytesIO()
    torch.save(model, buffer)
    buffer.seek(0)
    return torch.load(buffer, weights_only=False)


COPIES = {
    "deepcopy": copy.deepcopy,
    "copy": copy.copy,
    "pickle": lambda model: pickle.loads(pickle.dumps(model)),
    "torch.save": saved_and_loaded,
    "AveragedModel": lambda model: torch.optim.swa_utils.AveragedModel(model).module,
    "in a parent": lambda model: copy.deepcopy(nn.ModuleList([nn.Tanh(), model]))[1],
}


class CopiedWithin(nn.Module):
    """In its forward, where what is in it has hooks, too."""

    def __init__(self, make):
        super().__init__()
        self.layers, self.make, self.copies = nn.Sequential(nn.Linear(4, 4), nn.ReLU()), make, []

    def forward(self, x):
        y = self.layers(x)
        self.copies.append(self.make(self.layers))
        return y


@pytest.mark.parametrize("make", COPIES.values(), ids=COPIES)
def test_a_copy_is_not_watched(make):
    model, x = nn.Sequential(nn.Linear(4, 4), nn.ReLU()), torch.randn(8, 4)
    model.register_forward_hook(user_hook)
    within = CopiedWithin(make)
    with ActivationMonitor(model) as monitor, ActivationMonitor(within):
        copied = make(model)
        within(x)
        assert torch.equal(copied(x), model(x))
    assert monitor.to_dict()["forwards"] == 1
    assert list(copied._forward_hooks.values()) == [user_hook]
    for module in (copied, *copied, *within.copies, *within.copies[0]):
        assert not module._forward_pre_hooks
        assert not module._forward_pre_hooks_with_kwargs
        assert not module._forward_hooks_always_called
        assert "__reduce_ex__" not in vars(module)
    for module in (*copied, *within.copies, *within.copies[0]):
        assert not module._forward_hooks
    for module in (*model.modules(), *within.modules()):
        assert "__reduce_ex__" not in vars(module)
    copied.register_forward_hook(user_hook).remove()


def user_hook(module, args, output):
    pass


class DeepCopiesItsDict(nn.Sequential):
    def __deepcopy__(self, memo):
        new = type(self).__new__(type(self))
        memo[id(self)] = new
        new.__dict__.update({name: copy.deepcopy(value, memo) for name, value in vars(self).items()})
        return new


class StateWithoutHooks(nn.Sequential):
    def __getstate__(self):
        return {name: value for name, value in vars(self).items() if name != "_forward_pre_hooks"}


class StateInATuple(nn.Sequential):
    def __getstate__(self):
        return vars(self), 1

    def __setstate__(self, state):
        super().__setstate__(state[0])


@pytest.mark.parametrize("kind", [nn.Sequential, DeepCopiesItsDict, StateWithoutHooks, StateInATuple])
@pytest.mark.parametrize("make", COPIES.values(), ids=COPIES)
def test_a_copy_is_a_model_of_its_own(make, kind):
    model, x = kind(nn.Linear(4, 4), nn.ReLU()), torch.randn(8, 4)
    with ActivationMonitor(model) as monitor:
        copied = make(model)
        if make is not copy.copy:
            nn.init.constant_(copied[0].weight, 7.0)
            assert (saved_and_loaded(copied)[0].weight == 7).all()
        copied(x)
    assert monitor.to_dict()["forwards"] == (1 if make is copy.copy and kind in (DeepCopiesItsDict, StateInATuple) else 0)
    again = saved_and_loaded(copied)
    assert torch.equal(again[0].weight, copied[0].weight)
    again(x)


def test_two_monitors_of_one_model():
    model, x = nn.Sequential(nn.Linear(4, 4), nn.ReLU()), torch.randn(8, 4)
    first, second = ActivationMonitor(model), ActivationMonitor(model)
    with first:
        with second:
            model(x)
        assert not copy.deepcopy(model)._forward_pre_hooks
        model(x)
    assert [monitor.to_dict()["forwards"] for monitor in (first, second)] == [2, 1]


@pytest.mark.parametrize("make", COPIES.values(), ids=COPIES)
def test_a_graph_module_copies_itself_in_its_own_way(make):
    model = torch.fx.symbolic_trace(nn.Sequential(nn.Linear(4, 4), nn.ReLU()))
    with ActivationMonitor(model) as monitor:
        monitor.lock = threading.Lock()  # so that a copy of the monitor would raise
        copied = make(model)
        copied(torch.randn(8, 4))
    assert monitor.to_dict()["forwards"] == 0
    copied.register_forward_hook(user_hook).remove()
    copy.deepcopy(copied)


def test_frozen_parameters_and_a_model_that_is_wrapped(tmp_path):
    model = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4), nn.LeakyReLU(inplace=True), nn.Linear(4, 1))
    model[0].requires_grad_(False)
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    try:
        wrapped = nn.parallel.DistributedDataParallel(model)
        found = observed(wrapped, torch.randn(8, 4), torch.randn(8, 4))
    finally:
        torch.distributed.destroy_process_group()
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
