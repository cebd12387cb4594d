"""The published architectures of the benchmark are what their papers say, and compute the same bits once converted."""

import copy
from collections import Counter

import pytest
import torch
from leakyrelu_bench.models import MODELS, gat, loss
from torch import nn

import leakyrelu_ext
from aten import uninstalled
from releases import CAN_INSTALL

pytestmark = pytest.mark.cpu_only

BY_NAME = {model.name: model for model in MODELS}
PARAMETERS = {
    "nnU-Net 3-D": 31_195_594,
    "nnU-Net 2-D": 46_324_558,
    "DCGAN discriminator": 2_765_568,
    "Darknet-53": 41_609_928,
    "ESRGAN": 16_697_987,
    "HiFi-GAN V1": 13_926_017,
    "GAT": 92_373,
}
# (slope, in place): how often it is called in a forward
CALLS = {
    "nnU-Net 3-D": {(0.01, True): 2 * 6 + 2 * 5},
    "nnU-Net 2-D": {(0.01, True): 2 * 8 + 2 * 7},
    "DCGAN discriminator": {(0.2, True): 4},
    "Darknet-53": {(0.1, True): 52},
    "ESRGAN": {(0.2, True): 23 * 3 * 4 + 3},
    "HiFi-GAN V1": {(0.1, False): 4 * (1 + 3 * 3 * 2), (0.01, False): 1},
    "GAT": {(0.2, False): 2},
}
OUTPUTS = {
    "nnU-Net 3-D": [(2, 2, 64 >> level, 32 >> level, 32 >> level) for level in range(5)],
    "nnU-Net 2-D": [(2, 2, 256 >> level, 256 >> level) for level in range(7)],
    "DCGAN discriminator": [(2,)],
    "Darknet-53": [(2, 1000)],
    "ESRGAN": [(2, 3, 64, 64)],
    "HiFi-GAN V1": [(2, 1, 8192)],
    "GAT": [(2 * gat.NODES, 7)],
}
# Less than this, and a norm has one element to work on.
SMALL = {
    "nnU-Net 3-D": (1, 1, 64, 32, 32),
    "nnU-Net 2-D": (1, 1, 256, 128),
    "DCGAN discriminator": (2, 3, 64, 64),
    "Darknet-53": (2, 3, 32, 32),
    "ESRGAN": (1, 3, 4, 4),
    "HiFi-GAN V1": (1, 80, 3),
}


@pytest.fixture(params=BY_NAME)
def name(request):
    return request.param


def small_inputs(name):
    generator = torch.Generator().manual_seed(0)
    return (torch.randn(SMALL[name], generator=generator),) if name in SMALL else gat.random_graphs(2, generator, 0.02)


def on_meta(name):
    with torch.device("meta"):
        return BY_NAME[name].make()


def activations(model):
    return [module for module in model.modules() if isinstance(module, nn.LeakyReLU)]


def outputs_of(output):
    return [output] if isinstance(output, torch.Tensor) else list(output)


def training_step(model, inputs):
    torch.manual_seed(1)  # dropout
    model.zero_grad(set_to_none=True)
    output = model(*inputs)
    loss(output).backward()
    return [*outputs_of(output), *(parameter.grad for parameter in model.parameters())]


def test_parameters(name):
    model = BY_NAME[name]
    count = sum(parameter.numel() for parameter in on_meta(name).parameters())
    assert count == PARAMETERS[name]
    if model.published:
        number, _, millions = model.published.partition(" ")
        scale = 1e6 if millions else 1
        last_digit = scale * 10.0 ** -len(number.partition(".")[2]) if millions else 0
        off = abs(count - scale * float(number.replace(",", "")))
        assert off <= last_digit * (1 if name == "HiFi-GAN V1" else 0.5)  # cut off, others rounded


def test_activations_and_outputs(name):
    """Of a batch of two."""
    model, calls = on_meta(name), Counter()
    for activation in activations(model):
        activation.register_forward_hook(lambda module, *_: calls.update([(module.negative_slope, module.inplace)]))
    inputs = BY_NAME[name].inputs(2, torch.Generator().manual_seed(0))
    outputs = outputs_of(model(*(x.to("meta") for x in inputs)))
    assert calls == CALLS[name]
    assert [tuple(output.shape) for output in outputs] == OUTPUTS[name]


@pytest.mark.parametrize("name", ["DCGAN discriminator", "GAT"], indirect=True)
def test_weights_follow_torchs_seed_and_inputs_their_generator(name):
    made, drawn = [], []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        made.append(torch.cat([parameter.detach().flatten() for parameter in BY_NAME[name].make().parameters()]))
    for seed in (0, 0, 1):  # torch's own goes on
        drawn.append(torch.cat([x.flatten() for x in BY_NAME[name].inputs(1, torch.Generator().manual_seed(seed))]))
    for first, same, other in (made, drawn):
        assert torch.equal(first, same)
        assert not torch.equal(first, other)


@pytest.mark.native
def test_converted_and_installed_are_the_builtin_bit_for_bit(name):
    torch.manual_seed(0)
    model = BY_NAME[name].make()
    converted = leakyrelu_ext.convert(copy.deepcopy(model))
    assert activations(converted)
    assert all(type(activation) is leakyrelu_ext.LeakyReLU for activation in activations(converted))
    inputs = small_inputs(name)
    with uninstalled():
        expected = training_step(model, inputs)
    steps = [training_step(converted, inputs)]
    if CAN_INSTALL:
        with leakyrelu_ext.install():
            before = leakyrelu_ext.stats()["installed_calls"]
            steps.append(training_step(model, inputs))
            assert leakyrelu_ext.stats()["installed_calls"] - before == sum(CALLS[name].values())
    for got in steps:
        assert len(got) == len(expected)
        for ours, builtin in zip(got, expected, strict=True):
            assert torch.equal(ours, builtin)
    assert all(tensor.isfinite().all() and tensor.any() for tensor in expected)  # or equal bits would mean little


@pytest.mark.parametrize("name", ["nnU-Net 2-D", "DCGAN discriminator", "GAT"], indirect=True)
def test_traced_without_a_graph_break(name):
    model = on_meta(name)
    leakyrelu_ext.convert(model)
    inputs = [x.to("meta") for x in small_inputs(name)]
    torch._dynamo.reset()
    outputs = torch.compile(model, fullgraph=True, backend="eager")(*inputs)
    assert [x.shape for x in outputs_of(outputs)] == [x.shape for x in outputs_of(model(*inputs))]


def test_attention_is_a_softmax_over_the_neighbours():
    """GAT by its formulas, dense, as the authors' code has it."""
    torch.manual_seed(0)
    x, edges = gat.random_graphs(1, torch.Generator().manual_seed(0), 0.02)
    model = gat.GAT(dropout=0.0).double()
    x = x.double()
    adjacent = torch.zeros(len(x), len(x), dtype=torch.bool)
    adjacent[edges[1], edges[0]] = True

    def dense(layer, h):
        h = layer.project(h).unflatten(1, layer.source.shape)
        scores = (
            torch.einsum("nho,ho->hn", h, layer.target)[:, :, None] + torch.einsum("nho,ho->hn", h, layer.source)[:, None]
        )
        scores = nn.functional.leaky_relu(scores, 0.2).masked_fill(~adjacent, float("-inf"))
        return torch.einsum("hts,sho->tho", scores.softmax(2), h).flatten(1) + layer.bias

    torch.testing.assert_close(model(x, edges), dense(model.output, nn.functional.elu(dense(model.hidden, x))))


def test_random_graphs_are_of_coras_size():
    x, edges = gat.random_graphs(2, torch.Generator().manual_seed(0))
    nodes, directed = 2 * 2708, 2 * (10556 + 2708)
    assert x.shape == (nodes, 1433)
    assert edges.shape == (2, directed)
    assert edges.unique(dim=1).shape == edges.shape
    assert torch.equal(edges.flip(0).unique(dim=1), edges.unique(dim=1))  # both ways
    assert torch.equal(edges[0] < 2708, edges[1] < 2708)  # disjoint
    assert torch.equal(edges[0][edges[0] == edges[1]], torch.arange(nodes))
    torch.testing.assert_close(x.sum(1), torch.ones(nodes))


def test_loss_adds_up_what_deep_supervision_gives():
    coarse, fine = torch.tensor([1.0, 3.0]), torch.full((2, 2), 2.0)
    assert loss(coarse) == 5.0
    assert loss([fine, coarse]) == loss((fine, coarse)) == 9.0
