"""The benchmark's suite `models`: variants are held against the built-in before anything is timed."""

import gc
import weakref

import pytest
import torch
from leakyrelu_bench import cli
from leakyrelu_bench.measure import activation_share as measured_share
from leakyrelu_bench.measure import contest, scoring
from leakyrelu_bench.measure.activation_share import activation_share
from leakyrelu_bench.models import MODELS, Model, loss
from leakyrelu_bench.suites import agreement, models, steps
from leakyrelu_bench.suites.agreement import Agreement, first_farther
from leakyrelu_bench.suites.arguments import NothingToDoError
from leakyrelu_bench.suites.variants import (
    BUILTIN,
    COMPILED,
    IN_PLACE,
    INSTALLED,
    OURS,
    OURS_COMPILED,
    OURS_IN_PLACE,
    OUT_OF_PLACE,
    VARIANTS,
    Made,
    make,
)
from torch import nn

pytestmark = pytest.mark.cpu_only

BY_NAME = {model.name: model for model in MODELS}
CPU = torch.device("cpu")


class Net(nn.Module):
    """Something of everything, and small: a norm with statistics, dropout, two outputs."""

    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm2d(3)
        self.conv = nn.Conv2d(3, 8, 3)
        self.activation = nn.LeakyReLU(0.1)
        self.dropout = nn.Dropout(0.5)
        self.last = nn.Conv2d(8, 2, 1)

    def forward(self, x):
        hidden = self.dropout(self.activation(self.conv(self.norm(x))))
        return [self.last(hidden), hidden.mean((2, 3))]


def net_inputs(batch, generator):
    return (torch.randn(batch, 3, 10, 10, generator=generator) + 1,)


NET = Model("Net", Net, net_inputs, 2)


def arguments(*given, quick=True, full=False):
    levels = [*(["--quick"] if quick else []), *(["--full"] if full else [])]
    return cli.parser().parse_args(["models", *levels, *given])


def groups_of(given):
    return models.plan(given)[0].groups


@pytest.fixture
def small(monkeypatch):
    monkeypatch.setattr(models, "MODELS", (NET,))
    monkeypatch.setattr(models, "QUICK_MODELS", (NET.name,))


def difference(variant, change=lambda module: None, model=NET, training=True):
    inputs = model.inputs(model.batch, torch.Generator().manual_seed(0))
    made = make(model, variant, 0)
    change(made.module)
    return Agreement(make(model, BUILTIN, 0), inputs, 1, training).difference(variant, made)


def rows_of_passes(groups, passes=1):
    seen = []
    for group in groups:
        with group.contests() as contests:
            assert len(contests) == group.count
            for latest in contest.take_passes(contests, passes, 0.001):
                seen = latest
    return scoring.rows_of(seen)


@pytest.mark.native
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("variant", [OUT_OF_PLACE, IN_PLACE, OURS, OURS_IN_PLACE, INSTALLED], ids=lambda v: v.name)
def test_eager_variants_agree(variant, training):
    assert difference(variant, training=training) is None


@pytest.mark.slow
@pytest.mark.native
@pytest.mark.parametrize("variant", [variant for variant in VARIANTS if variant.compiled], ids=lambda v: v.name)
def test_compiled_variants_agree(variant):
    torch._dynamo.reset()
    assert difference(variant) is None


def slope(module):
    module.activation.negative_slope = 0.1001


def weight(module):
    with torch.no_grad():
        module.last.bias.add_(1e-4)


def gradient(module):
    module.conv.bias.register_hook(lambda grad: grad * 1.001)


def not_a_number(module):
    module.norm.weight.register_hook(lambda grad: grad * torch.nan)


def frozen(module):
    module.norm.bias.requires_grad_(False)


@pytest.mark.native
@pytest.mark.parametrize(
    ("change", "name"),
    [
        (slope, "output 0"),
        (weight, "output 0"),
        (gradient, "gradient of conv.bias"),
        (not_a_number, "gradient of norm.weight"),
        (frozen, "gradient of norm.bias"),
    ],
)
@pytest.mark.parametrize("variant", [OURS, INSTALLED], ids=lambda v: v.name)
def test_what_differs_is_named(variant, change, name):
    assert difference(variant, change) == name


def test_rounding_is_no_difference_and_a_tenth_percent_is():
    exact = {"a.weight": torch.linspace(1, 2, 100).double(), "b.bias": torch.zeros(100).double()}
    noise = torch.linspace(-1e-7, 1e-7, 100)
    expected = {"a.weight": exact["a.weight"].float() + noise, "b.bias": noise}
    assert first_farther(expected, expected, exact) is None
    assert first_farther({"a.weight": exact["a.weight"].float() - 3 * noise, "b.bias": -5 * noise}, expected, exact) is None
    assert first_farther({"a.weight": expected["a.weight"] * 1.001, "b.bias": noise}, expected, exact) == "a.weight"
    assert first_farther({"a.weight": expected["a.weight"], "b.bias": 20 * noise}, expected, exact) == "b.bias"
    assert first_farther({"a.weight": expected["a.weight"]}, expected, exact) == "b.bias"


def test_a_gradient_that_is_rounding_only_is_held_against_its_modules_others():
    generator = torch.Generator().manual_seed(0)
    weight, noise = (torch.randn(1000, generator=generator, dtype=torch.float64) for _ in range(2))
    zero = 1e-17 * noise
    builtins = 1e-8 * noise
    exact = {"gradient of conv.weight": weight, "gradient of conv.bias": zero, "gradient of other.bias": zero}
    expected = {name: (tensor + builtins).float() for name, tensor in exact.items()}
    scattered = {**expected, "gradient of conv.bias": 1e-7 * noise}
    assert first_farther(scattered, expected, exact) is None
    assert first_farther({**scattered, "gradient of conv.bias": 1e-3 * noise}, expected, exact) == "gradient of conv.bias"
    assert first_farther({**expected, "gradient of other.bias": 1e-7 * noise}, expected, exact) == "gradient of other.bias"


@pytest.mark.parametrize(
    ("factor", "expected"),
    [
        (lambda call, variant: 1 + 1e-3 * (call == 1), None),  # the first call of either is odd, as oneDNN's may be
        (lambda call, variant: 1 + 1e-3 * (call == 2), None),
        (lambda call, variant: 1 + 2e-7 * call, None),  # no two calls give the same bits, but all the same numbers
        (lambda call, variant: 1 + 2e-7 * call + 1e-3 * variant, "output 0"),
        (lambda call, variant: 1 + 2e-7 * variant, "output 0"),  # the variant's bits are others every time
    ],
)
def test_other_bits_now_and_then_are_the_librarys(factor, expected, monkeypatch):
    reference, variant = make(NET, BUILTIN, 0), make(NET, OUT_OF_PLACE, 0)
    original, calls = agreement.results, []

    def unsteady(made, *rest):
        calls.append(made)
        by = 1 if made not in (reference, variant) else factor(len(calls), made is variant)  # the one in float64 is steady
        return {name: tensor * by for name, tensor in original(made, *rest).items()}

    monkeypatch.setattr(agreement, "results", unsteady)
    inputs = NET.inputs(2, torch.Generator().manual_seed(0))
    assert Agreement(reference, inputs, 1, True).difference(OUT_OF_PLACE, variant) == expected


@pytest.mark.parametrize("training", [True, False])
def test_comparing_leaves_the_model_as_it_was(training):
    made = make(NET, BUILTIN, 0)
    before = {name: value.clone() for name, value in made.module.state_dict().items()}
    agreement.results(made, net_inputs(2, None), 0, training)
    for name, value in made.module.state_dict().items():
        assert torch.equal(value, before[name])
    assert all(parameter.grad is None for parameter in made.module.parameters())


@pytest.mark.native
def test_rows_of_a_small_net(small):
    rows = rows_of_passes(groups_of(arguments("--no-compile")))
    assert [(row.case, row.mode, row.ours, row.rival) for row in rows] == [
        ("Net", mode, ours.name, BUILTIN.name) for mode in models.MODES for ours in (OURS, INSTALLED)
    ]
    for row in rows:
        assert row.obstacle is None
        assert (row.suite, row.shape, row.dtype, row.unit) == ("models", (2, 3, 10, 10), "float32", "seconds")
        assert row.version == f"torch {torch.__version__}"
        assert all(0 < share < 1 for share in row.extra["activation_share"])
    elements = 2 * 8 * 8 * 8
    ours, builtin = rows[0].extra["saved_bytes"]
    assert builtin - ours == elements * 4 - elements // 8
    assert rows[1].extra["saved_bytes"] == rows[0].extra["saved_bytes"]  # installed keeps bits, too
    assert "saved_bytes" not in rows[2].extra  # inference
    assert "peak_bytes" not in rows[0].extra


@pytest.mark.slow
@pytest.mark.native
def test_rows_of_dcgan_with_all_variants():
    rows = rows_of_passes(groups_of(arguments("--only", "DCGAN", quick=False)))
    assert len(rows) == 2 * 3 * 2
    for row in rows:
        assert row.obstacle is None, row.obstacle
        assert row.ratio > 0
    training = {(row.ours, row.rival): row for row in rows if row.mode == steps.TRAINING}
    ours, builtin = training[OURS.name, BUILTIN.name].extra["peak_bytes"]
    assert 20 * 2**20 < ours < 40 * 2**20
    assert 20 * 2**20 < builtin < 40 * 2**20
    assert training[OURS_COMPILED.name, COMPILED.name].extra["saved_bytes"][0] > 2**20


@pytest.mark.native
@pytest.mark.parametrize("wrong", [OURS, INSTALLED], ids=lambda variant: variant.name)
def test_ours_that_differs_is_not_timed(small, monkeypatch, wrong):
    original = steps.make

    def broken(model, variant, seed, device):
        made = original(model, variant, seed, device)
        if variant is wrong:
            slope(made.module)
        return made

    monkeypatch.setattr(steps, "make", broken)
    monkeypatch.setattr(contest, "interleave", lambda *_, **__: pytest.fail("timed all the same"))
    with pytest.raises(contest.MismatchError, match=f"Net, training step: output 0 of '{wrong.name}' differs"):
        rows_of_passes(groups_of(arguments("--no-compile")))


@pytest.mark.native
def test_a_variant_that_differs_or_fails_is_a_row(small, monkeypatch):
    original = steps.make

    def broken(model, variant, seed, device):
        made = original(model, variant, seed, device)
        if variant is OURS_COMPILED:
            slope(made.module)
            return Made(made.module, made.module)
        if not variant.compiled:
            return made

        def fails(*_):
            raise RuntimeError("no C++ compiler\nfar and wide")

        return Made(made.module, fails)

    monkeypatch.setattr(steps, "make", broken)
    rows = rows_of_passes(groups_of(arguments()))
    assert len(rows) == 2 * 3 * 2
    for row in rows:
        if row.ours == OURS_COMPILED.name:
            assert row.obstacle == "computes something else: output 0 differs from the built-in's beyond rounding"
        elif row.rival == COMPILED.name:
            assert row.obstacle == "RuntimeError: no C++ compiler"
        else:
            assert row.ratio is not None


@pytest.mark.native
def test_every_pass_begins_with_fresh_statistics_and_new_inputs(small):
    (group,) = groups_of(arguments("--no-compile"))
    with group.contests() as (training, inference):
        architecture = training.prepare.func.__self__
        norms = [made.module.norm for made in architecture.made.values()]
        assert len(norms) == 3
        for timed in training.prepare(0).calls.values():
            timed.call()
        assert all(norm.running_mean.any() and norm.training for norm in norms)
        inference.prepare(0)
        assert not any(norm.running_mean.any() or norm.training for norm in norms)
        assert not torch.equal(architecture.inputs(0)[0], architecture.inputs(1)[0])
        kept = weakref.ref(norms[0])
        del norms, architecture
    gc.collect()
    assert kept() is None  # though the contests are still there
    assert training.case == "Net"


def test_only_some_models():
    assert len(groups_of(arguments())) == len(models.QUICK_MODELS)
    assert len(groups_of(arguments(quick=False))) == len(MODELS)
    assert [group.count for group in groups_of(arguments("--only", "nnU"))] == [2, 2]
    with pytest.raises(NothingToDoError, match="no model has 'AlexNet' in its name"):
        groups_of(arguments("--only", "AlexNet"))


def test_descriptions():
    assert models.describe(BY_NAME["HiFi-GAN V1"]) == (
        "HiFi-GAN V1 (Kong et al.: HiFi-GAN, NeurIPS 2020): 13,926,017 parameters; published 13.92 M (table 1 of the paper)"
    )
    assert "2,765,568 parameters; published 2,765,568 (" in models.describe(BY_NAME["DCGAN discriminator"])
    assert "46,324,558 parameters; no published count (none found)" in models.describe(BY_NAME["nnU-Net 2-D"])


@pytest.mark.native
@pytest.mark.parametrize("variant", [BUILTIN, OURS], ids=lambda v: v.name)
def test_the_share_of_the_activation_and_a_quiet_profiler(variant, capfd):
    activation = make(Model("", lambda: nn.LeakyReLU(0.1), net_inputs), variant, 0).module
    x = torch.randn(2**20, requires_grad=True)
    y = torch.randn(2**12, requires_grad=True)

    def step(mostly, hardly):
        loss(activation(mostly) + 0).backward()
        loss(hardly.sin()).backward()

    assert activation_share(lambda: None, CPU) is None
    assert activation_share(lambda: y.sin(), CPU) == 0
    assert 0 < activation_share(lambda: activation(x), CPU) <= 1
    assert 0 < activation_share(lambda: step(x, y), CPU) < 1
    assert capfd.readouterr().err == ""


@pytest.mark.native
@pytest.mark.parametrize("variant", [BUILTIN, OURS], ids=lambda v: v.name)
def test_the_share_is_that_of_forward_and_backward(variant, monkeypatch):
    """Each op and node is given the same time, so that the share is exact: that of their number."""
    activation = make(Model("", lambda: nn.LeakyReLU(0.1), net_inputs), variant, 0).module
    x = torch.randn(64, requires_grad=True)

    def step():
        loss(activation(x.sin())).backward()

    counted = []

    class Counted(measured_share.profile):
        def key_averages(self):
            for event in (events := super().key_averages()):
                counted.append(event.key)
                event.self_cpu_time_total = 1.0
            return events

    monkeypatch.setattr(measured_share, "profile", Counted)
    share = activation_share(step, CPU)
    of_activation = [name for name in counted if "leaky" in name.lower()]
    assert share == len(of_activation) / len(counted)
    assert any("backward" in name.lower() for name in of_activation)
    assert any("backward" not in name.lower() for name in of_activation)
