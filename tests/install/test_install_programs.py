"""Models and training code as people write them: installed, outputs and gradients are the same bits, and nothing is lost.

Tracing a model (torch.fx) went wrong on each of these.
"""

import copy
import random
import threading

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.distributed.algorithms._checkpoint.checkpoint_wrapper import (
    CheckpointImpl,
    apply_activation_checkpointing,
    checkpoint_wrapper,
)
from torch.nn.modules.module import register_module_forward_hook
from torch.utils.flop_counter import FlopCounterMode

from aten import uninstalled
from cases import assert_same_bits, randn
from leakyrelu_ext import install, stats
from models import UNet, example_inputs
from releases import needs_install

pytestmark = [pytest.mark.native, pytest.mark.cpu_only, needs_install]


def tensors_of(output):
    return [output] if isinstance(output, torch.Tensor) else [tensor for part in output for tensor in tensors_of(part)]


def step(model, x):
    """Whatever the model gives, and the gradients; models with a ``loss`` are asked for it."""
    torch.manual_seed(1)
    random.seed(1)
    leaf = x.detach().clone().requires_grad_()
    outputs = tensors_of(model(leaf))
    loss = getattr(model, "loss", lambda: 0)() + sum(output.double().square().sum() for output in outputs)
    wanted = [leaf, *model.parameters()]
    return outputs + list(torch.autograd.grad(loss, wanted, allow_unused=True))


def assert_same_steps(actual, expected):
    for one, other in zip(actual, expected, strict=True):
        assert (one is None) == (other is None)
        if one is not None:
            assert_same_bits(one, other)


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner, self.outer, self.activation = nn.Linear(6, 6), nn.Linear(6, 4), nn.LeakyReLU(0.2)

    def forward(self, x):
        return self.outer(self.activation(self.inner(x)))


class AutocastIsland(Net):
    def forward(self, x):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            hidden = F.leaky_relu(self.inner(x), 0.1)
            with torch.autocast("cpu", enabled=False):
                return self.outer(self.activation(hidden.float()))


class GradIslands(Net):
    def forward(self, x):
        with torch.no_grad():
            weights = F.leaky_relu(self.inner(x), 0.1).softmax(1)
            with torch.enable_grad():
                hidden = self.activation(self.inner(x))
        return self.outer(hidden * weights)


class DeepSupervision(Net):
    deep_supervision = True

    def forward(self, x):
        hidden = self.activation(self.inner(x))
        if self.deep_supervision and torch.is_grad_enabled():
            return [self.outer(hidden), self.outer(F.leaky_relu(hidden * 2 - 1))]
        return self.outer(hidden)


class Scaled(Net):
    def forward(self, x):
        if torch.is_tensor(x):
            x = x / 255
        return super().forward(x)


class StoresALoss(Net):
    def forward(self, x):
        hidden = self.activation(self.inner(x))
        self.inner.penalty = hidden.abs().mean()
        return self.outer(hidden)

    def loss(self):
        return self.inner.penalty.double()


class LayerDrop(Net):
    def forward(self, x):
        for _ in range(6):
            if random.random() < 0.5:
                x = x + self.activation(self.inner(x))
        return self.outer(x)


class HoldsALock(Net):
    def __init__(self):
        super().__init__()
        self.lock, self.scaled = threading.Lock(), self.inner.weight * 2  # a lock, and a tensor that is no leaf

    def __deepcopy__(self, memo):
        twin = HoldsALock()
        twin.load_state_dict(self.state_dict())
        return twin

    def forward(self, x):
        with self.lock:
            return super().forward(x)


class InPlaceOnChunks(Net):
    def forward(self, x):
        hidden = self.inner(x)
        F.leaky_relu_(hidden[:, :3], 0.3)
        F.leaky_relu(hidden[:, 3:], 0.1, inplace=True)
        with torch.no_grad():
            for part in self.inner(x).chunk(2, dim=1):
                hidden = hidden + F.leaky_relu_(part, 0.5).repeat(1, 2)
        return self.outer(hidden)


class MaskedScores(Net):
    """GAT's."""

    def forward(self, x):
        h = self.inner(x)
        scores = F.leaky_relu(h @ h.t(), negative_slope=0.2)
        return self.outer(torch.softmax(scores.masked_fill(x[:, :1] > 0.5, float("-inf")), 0).nan_to_num() @ h)


class BatchNormInEval(Net):
    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm1d(6)

    def forward(self, x):
        return self.outer(F.dropout(self.activation(self.norm(self.inner(x))), 0.5, self.training))


MODELS = {
    "autocast switched off within": (AutocastIsland, 2),
    "islands of no_grad and enable_grad": (GradIslands, 2),
    "deep supervision, if gradients are recorded": (DeepSupervision, 2),
    "if torch.is_tensor(x)": (Scaled, 1),
    "a loss that a submodule keeps": (StoresALoss, 1),
    "layer drop by Python's random numbers": (LayerDrop, None),
    "a lock and a tensor among the attributes": (HoldsALock, 1),
    "in place on slices and chunks": (InPlaceOnChunks, 4),
    "masked scores": (MaskedScores, 1),
    "norm and dropout by mode": (BatchNormInEval, 1),
}


@pytest.mark.parametrize(("make", "calls"), MODELS.values(), ids=MODELS)
@pytest.mark.parametrize("training", [True, False])
def test_models(make, calls, training):
    torch.manual_seed(0)
    model, x = make().train(training), randn(5, 6)
    with uninstalled():
        expected = step(copy.deepcopy(model), x)
    with install():
        before = stats()["installed_calls"]
        actual = step(model, x)
        happened = stats()["installed_calls"] - before
        assert happened == calls if calls is not None else happened > 0
        with torch.no_grad():
            assert len(tensors_of(model(x))) == 1
    assert_same_steps(actual, expected)


def both(run):
    """``run`` of a U-Net without and with our kernels: for what stands around a model."""
    results = []
    for context in (uninstalled, install):
        torch.manual_seed(0)
        model = UNet()
        with context():
            before = stats()["installed_calls"]
            results.append(run(model, *example_inputs(model)))
            assert (stats()["installed_calls"] > before) == (context is install)
    return results


def test_an_attribute_changed_afterwards():
    with install():
        model = DeepSupervision()
        assert len(model(randn(2, 6))) == 2
        model.deep_supervision = False
        assert model(randn(2, 6)).shape == (2, 4)


def test_forward_hooks_on_blocks_and_global_hooks():
    def run(model, x):
        seen = []
        model.encode[0].register_forward_hook(lambda module, args, output: output * 2)
        handle = register_module_forward_hook(lambda module, args, output: seen.append(type(module).__name__))
        try:
            result = step(model, x)
        finally:
            handle.remove()
        assert seen.count("LeakyReLU") == 3
        return result

    expected, actual = both(run)
    assert_same_steps(actual, expected)


def test_rows_of_the_flop_counter():
    def run(model, x):
        with FlopCounterMode(display=False) as counter:
            model(x).square().sum().backward()
        return counter.get_flop_counts()

    expected, actual = both(run)
    assert actual == expected
    assert len(actual) > 10


@pytest.mark.parametrize("kind", [CheckpointImpl.REENTRANT, CheckpointImpl.NO_REENTRANT])
def test_checkpoint_wrapper_on_blocks(kind):
    def run(model, x):
        apply_activation_checkpointing(
            model,
            checkpoint_wrapper_fn=lambda block: checkpoint_wrapper(block, checkpoint_impl=kind),
            check_fn=lambda module: isinstance(module, nn.Sequential),
        )
        output = model(x.requires_grad_())
        output.square().sum().backward()
        return [output, *(parameter.grad for parameter in model.parameters())]

    expected, actual = both(run)
    assert_same_steps(actual, expected)


def test_a_patch_of_a_class(monkeypatch):
    forward = nn.Conv2d.forward
    monkeypatch.setattr(nn.Conv2d, "forward", lambda self, x: forward(self, x) * 2)
    expected, actual = both(step)
    assert_same_steps(actual, expected)
    monkeypatch.undo()
    assert not torch.equal(both(step)[0][0], expected[0])


def test_an_optimizer_s_steps_and_second_derivatives():
    def run(model, x):
        optimizer = torch.optim.AdamW(model.parameters(), 1e-2)
        losses = []
        for _ in range(4):
            leaf = x.detach().clone().requires_grad_()
            output = model(leaf)
            (slope,) = torch.autograd.grad(output.sum(), leaf, create_graph=True)  # a gradient penalty
            loss = output.square().mean() + (slope.norm() - 1).square()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.detach())
        return [*losses, *model.parameters()]

    expected, actual = both(run)
    assert_same_steps(actual, expected)


def test_the_network_of_dynamic_network_architectures():
    architectures = pytest.importorskip("dynamic_network_architectures.architectures.unet")

    def make():
        return architectures.PlainConvUNet(
            1, 3, [8, 16, 32], nn.Conv2d, 3, [1, 2, 2], 2, 2, 2, conv_bias=True, norm_op=nn.InstanceNorm2d,
            norm_op_kwargs={"affine": True}, nonlin=nn.LeakyReLU, nonlin_kwargs={"inplace": True}, deep_supervision=True,
        )  # fmt: skip

    assert_same_library_model(make, randn(2, 1, 32, 32))


def test_the_network_of_monai():
    nets = pytest.importorskip("monai.networks.nets")

    def make():
        return nets.DynUNet(2, 1, 2, [3, 3, 3], [1, 2, 2], [2, 2], deep_supervision=True, deep_supr_num=1)

    assert_same_library_model(make, randn(2, 1, 32, 32))


def assert_same_library_model(make, x):
    torch.manual_seed(0)
    model = make()
    with uninstalled():
        expected = step(copy.deepcopy(model), x)
    with install():
        before = stats()["installed_calls"]
        actual = step(model, x)
        assert stats()["installed_calls"] - before >= 10
    assert_same_steps(actual, expected)
