"""The modules: constructor, state and behaviour of PyTorch's norms, with the activation."""

import copy
import io
import pickle

import pytest
import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

import leakyrelu_ext
from cases import assert_same_bits, randn
from leakyrelu_ext import (
    BatchNormLeakyReLU1d,
    BatchNormLeakyReLU2d,
    BatchNormLeakyReLU3d,
    GroupNormLeakyReLU,
    InstanceNormLeakyReLU1d,
    InstanceNormLeakyReLU2d,
    InstanceNormLeakyReLU3d,
)

PAIRS = [
    (BatchNormLeakyReLU1d, nn.BatchNorm1d, (4, 6, 5)),
    (BatchNormLeakyReLU1d, nn.BatchNorm1d, (4, 6)),
    (BatchNormLeakyReLU2d, nn.BatchNorm2d, (4, 6, 5, 3)),
    (BatchNormLeakyReLU3d, nn.BatchNorm3d, (2, 6, 2, 5, 3)),
    (InstanceNormLeakyReLU1d, nn.InstanceNorm1d, (4, 6, 5)),
    (InstanceNormLeakyReLU2d, nn.InstanceNorm2d, (4, 6, 5, 3)),
    (InstanceNormLeakyReLU3d, nn.InstanceNorm3d, (2, 6, 2, 5, 3)),
]
OPTIONS = [
    {},
    {"affine": True, "track_running_stats": True},
    {"affine": False},
    {"momentum": None, "track_running_stats": True},
]
pairs = pytest.mark.parametrize(("ours", "theirs", "shape"), PAIRS, ids=lambda value: getattr(value, "__name__", str(value)))


def feature(name):
    return pytest.mark.feature("Fused: norm and Leaky ReLU", name)


def with_noise(module):
    """Parameters that are not ones and zeros."""
    with torch.no_grad():
        for index, parameter in enumerate(module.parameters()):
            parameter.add_(randn(*parameter.shape, dtype=parameter.dtype, seed=30 + index) * 0.3)
    return module


@feature("state, gradients and running statistics over steps; PyTorch's state_dict loads")
@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pairs
def test_a_training_run(ours, theirs, shape, options):
    """State, gradients and results over some steps and in evaluation."""
    norm = with_noise(theirs(6, **options, dtype=torch.float64))
    module = ours(6, **options, negative_slope=0.2, dtype=torch.float64)
    assert module.load_state_dict(norm.state_dict()) == ([], [])
    reference = nn.Sequential(norm, nn.LeakyReLU(0.2))
    for step in range(3):
        x = randn(*shape, dtype=torch.float64, seed=step)
        inputs = [x.clone().requires_grad_() for _ in range(2)]
        outputs = [function(leaf) for function, leaf in zip((module, reference), inputs, strict=True)]
        torch.testing.assert_close(*outputs)
        for output in outputs:
            output.sin().sum().backward()
        torch.testing.assert_close(*(leaf.grad for leaf in inputs))
    for (name, one), (other_name, other) in zip(module.named_parameters(), norm.named_parameters(), strict=True):
        assert name == other_name
        torch.testing.assert_close(one.grad, other.grad)
    for name, value in norm.state_dict().items():
        torch.testing.assert_close(module.state_dict()[name], value)
    x = randn(*shape, dtype=torch.float64, seed=9)
    torch.testing.assert_close(module.eval()(x), reference.eval()(x))


def test_group_norm():
    norm = with_noise(nn.GroupNorm(3, 6))
    module = GroupNormLeakyReLU(3, 6, negative_slope=0.2)
    module.load_state_dict(norm.state_dict())
    x = randn(4, 6, 5, 3)
    torch.testing.assert_close(module(x), nn.functional.leaky_relu(norm(x), 0.2))


@pairs
def test_residual(ours, theirs, shape):
    x, residual = randn(*shape), randn(*shape, seed=1)
    torch.testing.assert_close(ours(6)(x, residual), nn.functional.leaky_relu(theirs(6)(x) + residual, 0.01))


@pytest.mark.parametrize(("ours", "theirs", "shape"), PAIRS[4:], ids=lambda value: getattr(value, "__name__", str(value)))
def test_no_batch(ours, theirs, shape):
    x, residual = randn(*shape[1:]), randn(*shape[1:], seed=1)
    module = ours(6, affine=True)
    torch.testing.assert_close(module(x, residual), nn.functional.leaky_relu(theirs(6)(x) + residual, 0.01))


@feature("copy.deepcopy, pickle, torch.save and load")
@pairs
def test_copies(ours, theirs, shape):
    module = with_noise(ours(6, negative_slope=0.3, affine=True))
    x = randn(*shape)
    expected = module.eval()(x)
    stream = io.BytesIO()
    torch.save(module, stream)
    stream.seek(0)
    for other in (copy.deepcopy(module), pickle.loads(pickle.dumps(module)), torch.load(stream, weights_only=False)):
        assert_same_bits(other(x), expected)
        assert repr(other) == repr(module)
    assert repr(module).endswith("negative_slope=0.3)")


@feature("wrong inputs: PyTorch's errors")
@pairs
def test_wrong_inputs(ours, theirs, shape):
    """PyTorch's own errors."""
    for bad in (torch.ones(2), torch.ones(2, 5, *shape[2:]), torch.ones(1, 6, *[1] * (len(shape) - 2))):
        found = []
        for module in (ours(6, affine=True), theirs(6, affine=True)):
            with pytest.raises((RuntimeError, ValueError)) as error:
                module(bad)
            found.append(error.type)
        assert found[0] == found[1]


def test_statistics_switched_off_later():
    norm, module = nn.BatchNorm2d(6), BatchNormLeakyReLU2d(6)
    for each in (norm, module):
        each.track_running_stats = False
        each(randn(4, 6, 5, 3))
    assert module.num_batches_tracked == norm.num_batches_tracked == 0
    assert_same_bits(module.running_mean, norm.running_mean)


def test_an_instance_norm_that_ignores_its_size():
    with pytest.warns(UserWarning, match="num_features"):
        InstanceNormLeakyReLU2d(5)(randn(2, 6, 4, 4))


@feature("convert_sync_batchnorm leaves it as it is")
def test_sync_batch_norm_does_not_drop_the_activation():
    model = nn.Sequential(BatchNormLeakyReLU2d(3), nn.BatchNorm2d(3))
    converted = nn.SyncBatchNorm.convert_sync_batchnorm(model)
    assert isinstance(converted[0], BatchNormLeakyReLU2d)
    assert isinstance(converted[1], nn.SyncBatchNorm)


def test_distributed_data_parallel(process_group):
    model = nn.Sequential(
        nn.Conv2d(2, 6, 3), BatchNormLeakyReLU2d(6), nn.Conv2d(6, 4, 3), InstanceNormLeakyReLU2d(4, affine=True)
    )
    other = copy.deepcopy(model)
    parallel = DistributedDataParallel(model)
    x = randn(2, 2, 9, 9)
    parallel(x).square().sum().backward()
    other(x).square().sum().backward()
    for one, expected in zip(model.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(one.grad, expected.grad)
    parallel.eval()(x)


@feature("torch.optim.swa_utils.AveragedModel")
def test_an_averaged_model():
    model = nn.Sequential(nn.Conv2d(2, 6, 3), BatchNormLeakyReLU2d(6))
    averaged = torch.optim.swa_utils.AveragedModel(model, use_buffers=True)
    model(randn(2, 2, 9, 9))
    averaged.update_parameters(model)
    torch.testing.assert_close(averaged.module[1].running_mean, model[1].running_mean)


def test_names_are_public():
    for ours, _, _ in PAIRS:
        assert ours.__name__ in leakyrelu_ext.__all__
