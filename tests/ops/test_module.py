"""LeakyReLU is nn.LeakyReLU's twin."""

import copy
import inspect
import io
import pickle

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import aten
import cases
import leakyrelu_ext
from cases import assert_same_bits, randn
from leakyrelu_ext import AddLeakyReLU, BiasLeakyReLU, LeakyReLU, bias_leaky_relu, leaky_relu

ARGUMENTS = [(), (0.2,), (0.2, True), (-1,)]


@pytest.mark.parametrize("arguments", ARGUMENTS)
def test_same_repr_and_attributes(arguments):
    ours, builtin = LeakyReLU(*arguments), nn.LeakyReLU(*arguments)
    assert repr(ours) == repr(builtin)
    assert isinstance(ours, nn.LeakyReLU)
    assert (ours.negative_slope, ours.inplace) == (builtin.negative_slope, builtin.inplace)
    assert ours.state_dict() == builtin.state_dict() == {}


@pytest.mark.own_name
def test_same_signatures():
    assert inspect.signature(LeakyReLU) == inspect.signature(nn.LeakyReLU)
    assert list(inspect.signature(leaky_relu).parameters) == list(inspect.signature(F.leaky_relu).parameters)
    defaults = [parameter.default for parameter in inspect.signature(leaky_relu).parameters.values()]
    assert defaults == [parameter.default for parameter in inspect.signature(F.leaky_relu).parameters.values()]


@pytest.mark.parametrize("arguments", ARGUMENTS)
@pytest.mark.parametrize("copied", [copy.deepcopy, copy.copy, lambda m: pickle.loads(pickle.dumps(m))])
def test_copies(copied, arguments):
    x = randn(10)
    module = LeakyReLU(*arguments)
    twin = copied(module)
    assert type(twin) is LeakyReLU
    assert repr(twin) == repr(module)
    assert_same_bits(twin(x.clone()), module(x.clone()))


def test_save_and_load():
    buffer = io.BytesIO()
    torch.save(nn.Sequential(nn.Linear(2, 2), LeakyReLU(0.3)), buffer)
    buffer.seek(0)
    assert torch.load(buffer, weights_only=False)[1].negative_slope == 0.3


def test_slope_may_be_changed_later():
    module = LeakyReLU(0.1)
    module.negative_slope = 0.5
    assert module(torch.tensor([-2.0])).item() == -1.0


def test_loads_the_state_of_a_model_with_the_builtin():
    ours = nn.Sequential(nn.Linear(3, 3), LeakyReLU(0.2), nn.Linear(3, 1))
    builtin = nn.Sequential(nn.Linear(3, 3), nn.LeakyReLU(0.2), nn.Linear(3, 1))
    ours.load_state_dict(builtin.state_dict())
    x = randn(5, 3)
    assert_same_bits(ours(x), builtin(x))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast_as_the_builtin(dtype):
    linear, x = nn.Linear(8, 8), randn(4, 8)
    with torch.autocast(cases.DEVICE.type, dtype=dtype):
        actual, expected = LeakyReLU()(linear(x)), nn.LeakyReLU()(linear(x))
    assert actual.dtype == expected.dtype == dtype
    assert_same_bits(actual, expected)


@pytest.mark.own_name
def test_public_names():
    assert set(leakyrelu_ext.__all__) == {
        "AddLeakyReLU",
        *(f"{norm}LeakyReLU{n}d" for norm in ("BatchNorm", "InstanceNorm") for n in (1, 2, 3)),
        "BiasLeakyReLU",
        "GroupNormLeakyReLU",
        "Installation",
        "LeakyReLU",
        "LeakyReLUFunction",
        "__version__",
        "batch_norm_leaky_relu",
        "bias_leaky_relu",
        "build_info",
        "convert",
        "group_norm_leaky_relu",
        "install",
        "instance_norm_leaky_relu",
        "leaky_relu",
        "leaky_relu_",
        "revert",
        "set_compile_target",
        "stats",
        "uninstall",
    }
    for name in leakyrelu_ext.__all__:
        assert hasattr(leakyrelu_ext, name)


@torch.backends.cudnn.flags(enabled=True, deterministic=True)
def test_training_a_model_gives_the_builtins_weights():
    def train(activation):
        torch.manual_seed(0)
        model = nn.Sequential(
            nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), activation(0.2, True), nn.Conv2d(8, 4, 3), activation(0.1), nn.Flatten()
        )
        model = model.to(memory_format=torch.channels_last)
        optimizer = torch.optim.Adam(model.parameters(), 1e-2)
        x = randn(4, 3, 9, 9).contiguous(memory_format=torch.channels_last)
        for _ in range(5):
            optimizer.zero_grad()
            model(x).square().mean().backward()
            optimizer.step()
        return list(model.parameters())

    for ours, builtin in zip(train(LeakyReLU), train(nn.LeakyReLU), strict=True):
        assert torch.equal(ours, builtin)


class FusedLeakyReLU(nn.Module):
    """What a StyleGAN2 checkpoint holds of such a layer, and its formula."""

    def __init__(self, channel, bias=True, negative_slope=0.2, scale=2**0.5):
        super().__init__()
        if bias:
            self.bias = nn.Parameter(torch.zeros(channel))
        else:
            self.bias = None
        self.negative_slope, self.scale = negative_slope, scale

    def forward(self, input):
        if self.bias is not None:
            input = input + self.bias.view(1, -1, *[1] * (input.dim() - 2))
        return aten.leaky_relu(input, self.negative_slope) * self.scale


@pytest.mark.feature("Fused: bias, residual and Leaky ReLU", "StyleGAN2's state_dict loads")
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("shape", [(4, 6), (2, 6, 5, 3)])
def test_a_stylegan2_state_loads_and_computes_the_same(shape, bias):
    theirs, ours = FusedLeakyReLU(6, bias), BiasLeakyReLU(6, bias=bias)
    if bias:
        assert torch.equal(ours.bias, theirs.bias)
        nn.init.normal_(theirs.bias)
    ours.load_state_dict(theirs.state_dict(), strict=True)
    theirs.load_state_dict(ours.state_dict(), strict=True)
    x, grad_output = randn(*shape).requires_grad_(), randn(*shape, seed=1)
    expected, actual = theirs(x), ours(x)
    assert_same_bits(actual, expected)
    wanted = [x, theirs.bias] if bias else [x]
    expected_grads = torch.autograd.grad(expected, wanted, grad_output)
    grads = torch.autograd.grad(actual, [x, ours.bias] if bias else [x], grad_output)
    assert_same_bits(grads[0], expected_grads[0])
    if bias:  # the same terms, each rounded at most twice, in another order
        terms = grad_output.numel() // 6
        bound = 2 * (terms + 2) * 2**-24 * 2**0.5 * grad_output.abs().sum_to_size(1, 6, *[1] * (x.dim() - 2)).flatten()
        assert ((grads[1] - expected_grads[1]).abs() <= bound).all()


def test_bias_module_passes_on_every_argument():
    module = BiasLeakyReLU(3, 0.3, gain=2.0, clamp=1.5, dim=-1, dtype=torch.float64)
    nn.init.normal_(module.bias)
    x = randn(2, 5, 3, dtype=torch.float64)
    expected = bias_leaky_relu(x, module.bias, 0.3, dim=-1, gain=2.0, clamp=1.5)
    assert_same_bits(module(x), expected)
    assert module(x).abs().max() == 1.5
    module.inplace = True
    with torch.no_grad():
        assert module(x) is x
    assert_same_bits(x, expected)


def test_add_module_passes_on_every_argument():
    x, residual = randn(4, 3, dtype=torch.float64), randn(3, dtype=torch.float64, seed=1)
    assert_same_bits(AddLeakyReLU()(x, residual), aten.leaky_relu(x + residual))
    module = AddLeakyReLU(0.3, True, gain=2.0, clamp=1.5)
    expected = (aten.leaky_relu(x + residual, 0.3) * 2).clamp(-1.5, 1.5)
    assert module(x, residual) is x
    assert_same_bits(x, expected)


@pytest.mark.parametrize(
    "call",
    [
        lambda x: BiasLeakyReLU(50, 1.0, 1.0, dropout_p=0.25).to(x).train,
        lambda x: lambda mode: lambda y: AddLeakyReLU(1.0, dropout_p=0.25).train(mode)(y, torch.zeros_like(x)),
    ],
    ids=["bias", "add"],
)
def test_modules_drop_in_training_only(call):
    x = randn(40, 50).abs() + 1
    torch.manual_seed(0)
    dropped = call(x)(True)(x)
    assert 0.2 < (dropped == 0).float().mean() < 0.3
    kept = dropped != 0
    torch.testing.assert_close(dropped[kept], x[kept] / 0.75)
    assert_same_bits(call(x)(False)(x), x)


def test_reprs_of_the_fused_modules():
    assert repr(BiasLeakyReLU(8)) == "BiasLeakyReLU(8, negative_slope=0.2, gain=1.41421)"
    assert (
        repr(BiasLeakyReLU(8, 0.1, 1, 256, 0.5, -1, bias=False, inplace=True))
        == "BiasLeakyReLU(8, negative_slope=0.1, gain=1, clamp=256, dropout_p=0.5, dim=-1, bias=False, inplace=True)"
    )
    assert repr(AddLeakyReLU()) == "AddLeakyReLU(negative_slope=0.01)"
    assert repr(AddLeakyReLU(0.2, True, gain=2.0)) == "AddLeakyReLU(negative_slope=0.2, gain=2.0, inplace=True)"


@pytest.mark.feature("Fused: bias, residual and Leaky ReLU", "copy.deepcopy, pickle, torch.save and load")
@pytest.mark.parametrize(
    "module", [BiasLeakyReLU(3, clamp=1.0, dtype=torch.float64), AddLeakyReLU(0.3)], ids=["bias", "add"]
)
@pytest.mark.parametrize("copied", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))])
def test_copies_of_the_fused_modules(copied, module):
    twin = copied(module)
    assert repr(twin) == repr(module)
    arguments = [randn(2, 3, dtype=torch.float64)] * (2 if isinstance(module, AddLeakyReLU) else 1)
    assert_same_bits(twin(*arguments), module(*arguments))


def test_a_bias_on_the_meta_device_and_of_another_size():
    assert BiasLeakyReLU(3, device="meta", dtype=torch.bfloat16).bias.dtype == torch.bfloat16
    with pytest.raises(RuntimeError, match=r"argument 'bias' must be of shape \(4,\)"):
        BiasLeakyReLU(3)(randn(2, 4))
