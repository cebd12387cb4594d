"""Bad input: PyTorch's own errors, never a crash."""

import pytest
import torch
import torch.nn.functional as F

import leakyrelu_ext
from cases import randn
from leakyrelu_ext import batch_norm_leaky_relu, group_norm_leaky_relu, instance_norm_leaky_relu

X, FOUR, THREE = torch.ones(2, 4, 3, 3), torch.ones(4), torch.ones(3)
BATCH = {
    "no statistics in evaluation": (X, None, None),
    "one running statistic": (X, FOUR, None),
    "a running mean that is too short": (X, THREE, FOUR, None, None, True),
    "a running variance that is too short": (X, FOUR, THREE, None, None, True),
    "a weight that is too short": (X, FOUR, FOUR, THREE),
    "a bias that is too short": (X, FOUR, FOUR, FOUR, THREE),
    "integers": (X.long(), FOUR, FOUR),
    "complex numbers": (X.to(torch.complex64), FOUR, FOUR),
    "one value per channel": (torch.ones(1, 4, 1), None, None, None, None, True),
    "one value per channel, two dimensions": (torch.ones(1, 4), None, None, None, None, True),
    "a weight that is no tensor": (X, FOUR, FOUR, 3),
    "parameters of another dtype": (X, FOUR.double(), FOUR.double()),
    "one dimension": (FOUR, FOUR, FOUR),
    "sparse": (X.to_sparse(), FOUR, FOUR),
    "another device": (X, FOUR.to("meta"), FOUR.to("meta"), None, None, True),
    "a momentum that is no number": (X, FOUR, FOUR, None, None, True, "much"),
    "an eps that is no number": (X, FOUR, FOUR, None, None, True, 0.1, "little"),
    "an eps of zero": (X, None, None, None, None, True, 0.1, 0.0),
    "a negative eps": (X, FOUR, FOUR, None, None, False, 0.1, -1e-3),
}
INSTANCE = {
    "no statistics": (X, None, None, None, None, False),
    "one running statistic": (X, FOUR, None),
    "a running mean that is too short": (X, THREE, FOUR),
    "a weight that is too short": (X, None, None, THREE),
    "a bias that is too short": (X, None, None, None, THREE),
    "one value per channel": (torch.ones(2, 4, 1, 1),),
    "two dimensions": (torch.ones(2, 4),),
    "integers": (X.long(),),
}
GROUP = {
    "groups that do not divide": (X, 3),
    "no groups": (X, 0),
    "a negative number of groups": (X, -2),
    "half a group": (X, 0.5),
    "a weight that is too short": (X, 2, THREE),
    "a bias that is too short": (X, 2, FOUR, THREE),
    "one value per group": (torch.ones(1, 4), 4),
    "one dimension": (FOUR, 2),
    "integers": (X.long(), 2),
}
CASES = [
    pytest.param(ours, theirs, arguments, id=f"{ours.__name__.split('_')[0]}-{name}")
    for ours, theirs, cases in (
        (batch_norm_leaky_relu, F.batch_norm, BATCH),
        (instance_norm_leaky_relu, F.instance_norm, INSTANCE),
        (group_norm_leaky_relu, F.group_norm, GROUP),
    )
    for name, arguments in cases.items()
]


@pytest.mark.parametrize(("ours", "theirs", "arguments"), CASES)
def test_as_pytorch(ours, theirs, arguments):
    """The same type, or no error and the same result."""
    try:
        expected = F.leaky_relu(theirs(*arguments), 0.01)
    except Exception as error:
        accepted = (type(error), RuntimeError) if isinstance(error, ZeroDivisionError) else type(error)
        with pytest.raises(accepted):
            ours(*arguments)
    else:
        torch.testing.assert_close(ours(*arguments), expected)


@pytest.mark.native
@pytest.mark.parametrize("function", [batch_norm_leaky_relu, instance_norm_leaky_relu, group_norm_leaky_relu])
def test_no_tensor(function):
    """PyTorch's own functions fall over some of these with an AttributeError."""
    for bad in (None, 3, "x"):
        with pytest.raises(
            TypeError, match=rf"{function.__name__}\(\): argument 'input' \(position 1\) must be Tensor, not "
        ):
            function(
                bad,
                *([None, None] if function is batch_norm_leaky_relu else [2] if function is group_norm_leaky_relu else []),
            )


def test_one_value_per_channel_says_so():
    for function, arguments in ((batch_norm_leaky_relu, (None, None, None, None, True)), (instance_norm_leaky_relu, ())):
        with pytest.raises(
            ValueError, match=r"Expected more than 1 .* when training, got input size torch.Size\(\[1, 4, 1, 1\]\)"
        ):
            function(torch.ones(1, 4, 1, 1), *arguments)


@pytest.mark.parametrize("residual", [torch.ones(4, 3, 3), torch.ones(2, 4, 3, 3, dtype=torch.float64), torch.ones(1)])
def test_residuals_that_broadcast_or_promote(residual):
    """PyTorch's own addition takes them, and so they are taken here."""
    x = randn(2, 4, 3, 3).requires_grad_()
    actual = instance_norm_leaky_relu(x, residual=residual)
    expected = F.leaky_relu(F.instance_norm(x) + residual, 0.01)
    torch.testing.assert_close(actual, expected)
    assert actual.dtype == expected.dtype


@pytest.mark.native
def test_a_residual_with_more_dimensions():
    x = randn(3, 6, 4, 5).contiguous(memory_format=torch.channels_last)
    residual = randn(2, 3, 6, 4, 5, seed=1)
    actual = instance_norm_leaky_relu(x, residual=residual)
    torch.testing.assert_close(actual, F.leaky_relu(F.instance_norm(x) + residual, 0.01))


@pytest.mark.native
@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_ops_without_channels(device):
    x, none = torch.empty(2, 0, 4, device=device), torch.empty(0, device=device)
    ops = torch.ops.leakyrelu_ext
    output, statistics, mask = ops.norm_leaky_relu_forward(x, *[None] * 5, 0, True, 0.1, 1e-5, 0.1, True)
    assert (output.shape, statistics.numel(), mask.numel()) == (x.shape, 0, 0)
    bits = none.to(torch.uint8)
    ops.norm_leaky_relu_backward(x, x, none, None, bits, 0, True, 1e-5, 0.1, [True] * 4)
    for groups in (-2, 3):
        with pytest.raises(ValueError, match="num_groups"):
            ops.norm_leaky_relu_forward(torch.ones(2, 4, 3, device=device), *[None] * 5, groups, True, 0.1, 1e-5, 0.1, True)


def test_a_residual_that_does_not_fit():
    with pytest.raises(RuntimeError, match="must match the size"):
        instance_norm_leaky_relu(X + randn(2, 4, 3, 3), residual=torch.ones(5))


@pytest.mark.native
def test_the_backward_op_checks_its_arguments():
    ops = torch.ops.leakyrelu_ext
    x = randn(2, 4, 3, 3)
    output, statistics, mask = ops.norm_leaky_relu_forward(x, None, None, None, None, x, 0, True, 0.1, 1e-5, 0.1, True)
    good = {"grad_output": output, "input": x, "statistics": statistics, "weight": None, "mask": mask, "num_groups": 0}
    rest = (True, 1e-5, 0.1, [True] * 4)
    ops.norm_leaky_relu_backward(*good.values(), *rest)
    bad = {
        "grad_output": [output[:1], output.double()],
        "input": [x.long(), torch.ones(3)],
        "statistics": [statistics[1:], statistics.double()],
        "weight": [torch.ones(3)],
        "mask": [mask[1:], mask.float()],
        "num_groups": [3, -1],
    }
    for name, values in bad.items():
        for value in values:
            with pytest.raises((RuntimeError, NotImplementedError, ValueError), match=f"argument '{name}'|grad_output"):
                ops.norm_leaky_relu_backward(*(good | {name: value}).values(), *rest)


@pytest.mark.native
def test_the_forward_op_is_not_differentiable():
    """It says so, instead of returning results without a history."""
    x = randn(2, 4, 3, 3).requires_grad_()
    with pytest.raises(RuntimeError, match="not differentiable, norm_leaky_relu is"):
        torch.ops.leakyrelu_ext.norm_leaky_relu_forward(x, *[None] * 5, 0, True, 0.1, 1e-5, 0.1, False)


def test_slopes_that_overflow():
    """As leaky_relu: the slope must fit the arithmetic."""
    with pytest.raises(RuntimeError):
        batch_norm_leaky_relu(X, FOUR, FOUR, negative_slope=1e300)
    batch_norm_leaky_relu(X.double(), FOUR.double(), FOUR.double(), negative_slope=1e300)


def test_keyword_only():
    with pytest.raises(TypeError):
        leakyrelu_ext.group_norm_leaky_relu(X, 2, None, None, 1e-5, 0.1, X)
