"""The study's networks are as deep as they are said to be, see no padding, and learn."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

pytest.importorskip("sklearn")
pytest.importorskip("pydantic")
from leakyrelu_bench.study.data import Dataset, Split
from leakyrelu_bench.study.training import networks

import leakyrelu_ext

pytestmark = pytest.mark.cpu_only

N, CLASSES = 24, 3


def made(kind):
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(N) % CLASSES

    def noise(*shape):
        x = torch.randn(N, *shape, generator=generator)
        x[:, 0] += labels.view(-1, *[1] * (len(shape) - 1))
        return x

    inputs = {
        "image": lambda: (noise(1, 8, 8),),
        "features": lambda: (noise(6),),
        "tokens": lambda: (torch.where(torch.arange(12) < 5, labels[:, None] + 2, 0),),
        "frames": lambda: (noise(4, 10) * (torch.arange(10) < 7), torch.full((N,), 7)),
    }[kind]()
    split = Split(inputs, labels)
    return Dataset(
        kind,
        "",
        "",
        "",
        "accuracy",
        CLASSES,
        kind,
        split,
        split,
        split,
        vocabulary=2 + CLASSES if kind == "tokens" else None,
    )


KINDS = ("image", "features", "tokens", "frames")
FORMS = [(kind, False) for kind in KINDS] + [("image", True), ("features", True)]


@pytest.mark.parametrize("depth", [1, 2, 3, 6])
@pytest.mark.parametrize(("kind", "plain"), FORMS)
@pytest.mark.parametrize(("norm", "dropout_p"), [(False, 0.0), (True, 0.0), (False, 0.2), (True, 0.2)])
def test_parts_are_counted_and_gradients_come_through(kind, plain, depth, norm, dropout_p):
    dataset = made(kind)
    torch.manual_seed(0)
    net = networks.build(dataset, leakyrelu_ext.LeakyReLU, depth=depth, norm=norm, dropout_p=dropout_p, plain=plain)
    kinds = [type(module) for module in net.modules()]
    assert kinds.count(leakyrelu_ext.LeakyReLU) == depth
    assert sum(issubclass(each, nn.modules.batchnorm._BatchNorm) for each in kinds) == depth * norm
    assert kinds.count(nn.Dropout) == depth * bool(dropout_p)
    hidden = [module for module in net.modules() if isinstance(module, (nn.Linear, nn.Conv1d, nn.Conv2d))][:-1]
    assert len(hidden) == depth
    assert all((module.bias is None) == norm for module in hidden)
    logits = net(*dataset.train.inputs)
    assert logits.shape == (N, CLASSES)
    F.cross_entropy(logits, dataset.train.labels).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in net.parameters())


@pytest.mark.parametrize("kind", ["tokens", "frames"])
@pytest.mark.parametrize("depth", [1, 3])
def test_padding_is_not_seen(kind, depth):
    dataset = made(kind)
    torch.manual_seed(0)
    net = networks.build(dataset, nn.LeakyReLU, depth=depth).eval()
    x, *rest = dataset.train.inputs
    longer = F.pad(x, (0, 9))
    assert torch.allclose(net(longer, *rest), net(x, *rest), atol=1e-5)
    if kind == "frames":
        longer[..., 7:] = 99.0
        assert torch.allclose(net(longer, *rest), net(x, *rest), atol=1e-5)


@pytest.mark.parametrize("kind", ["tokens", "frames"])
def test_norm_and_activation_see_no_padding(kind):
    """In training, where a norm's statistics are of what it is given."""
    dataset, seen = made(kind), []

    class Activation(nn.LeakyReLU):
        def forward(self, x):
            seen.append(x)
            return super().forward(x)

    torch.manual_seed(0)
    net = networks.build(dataset, Activation, depth=2, width=8, norm=True)
    x, *rest = dataset.train.inputs
    logits = [net(F.pad(x, (0, longer)), *rest) for longer in (0, 9)]
    assert torch.allclose(*logits, atol=1e-5)
    steps = N * {"tokens": 5, "frames": 7}[kind]
    assert [each.shape for each in seen] == [(steps, 8)] * 4
    assert seen[0].mean(0).abs().max() < 1e-5


def test_fifty_hidden_layers():
    net = networks.build(made("features"), leakyrelu_ext.LeakyReLU, depth=50, norm=True)
    dataset = made("features")
    F.cross_entropy(net(*dataset.train.inputs), dataset.train.labels).backward()
    assert all(p.grad.isfinite().all() for p in net.parameters())


def test_weights_follow_torchs_seed():
    drawn = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        net = networks.build(made("tokens"), nn.ReLU, depth=2)
        drawn.append(torch.cat([parameter.detach().flatten() for parameter in net.parameters()]))
    assert torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], drawn[2])


def test_an_empty_text_has_finite_logits():
    net = networks.build(made("tokens"), nn.LeakyReLU, depth=2)
    assert net(torch.zeros(2, 12, dtype=torch.int64)).isfinite().all()


@pytest.mark.parametrize(("kind", "plain"), FORMS)
def test_it_learns(kind, plain):
    dataset = made(kind)
    torch.manual_seed(0)
    net = networks.build(dataset, leakyrelu_ext.LeakyReLU, depth=2, plain=plain)
    optimiser = torch.optim.Adam(net.parameters(), 3e-3)
    losses = []
    for _ in range(40):
        optimiser.zero_grad()
        loss = F.cross_entropy(net(*dataset.train.inputs), dataset.train.labels)
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < 0.6 * losses[0]


@pytest.mark.parametrize(
    ("kind", "arguments", "message"),
    [
        ("image", {"depth": 0}, "depth and width must be at least 1, got 0"),
        ("image", {"depth": 1, "width": 0}, "depth and width"),
        ("tokens", {"depth": 1, "plain": True}, "for images and features, tokens has tokens"),
    ],
)
def test_errors(kind, arguments, message):
    with pytest.raises(ValueError, match=message):
        networks.build(made(kind), nn.ReLU, **arguments)
