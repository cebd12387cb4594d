"""What the CUDA kernels move: nothing twice, and in the widest and fewest requests that there can be."""

import pytest
import torch

from cases import DTYPES, misaligned, randn
from emulated import Report, ops, report, tile

SECTOR, ACCESS, WARP = 32, 16, 32


def directions(dtype: torch.dtype, n: int) -> list[tuple[str, Report, int, int]]:
    """Name, report, and the bytes of n elements and their masks that must be loaded and stored."""
    x, elements, bits = randn(n, dtype=dtype), n * dtype.itemsize, n // 8
    ops.leaky_relu(x, 0.1)
    without_mask = report()
    _, mask = ops.leaky_relu_forward(x, 0.1)
    forward = report()
    ops.leaky_relu_backward(x, mask, 0.1, None)
    return [
        ("without mask", without_mask, elements, elements),
        ("forward", forward, elements, elements + bits),
        ("backward", report(), elements + bits, elements),
    ]


@pytest.mark.parametrize("dtype", DTYPES)
def test_dense_memory_moves_once_in_full_requests(dtype: torch.dtype) -> None:
    n = 5 * tile(dtype)
    for name, moved, loaded, stored in directions(dtype, n):
        for traffic, nbytes in ((moved.loads, loaded), (moved.stores, stored)):
            assert traffic.bytes == nbytes, name
            assert traffic.sectors == nbytes // SECTOR, name
            assert traffic.request_sectors == traffic.sectors, f"{name}: a sector is asked for more than once"
            elements_requests = n * dtype.itemsize // (ACCESS * WARP)
            assert traffic.widest_requests == elements_requests, name
            mask_requests = (nbytes - n * dtype.itemsize) // SECTOR  # a warp's mask bytes are a sector
            assert traffic.requests == elements_requests + mask_requests, name


@pytest.mark.parametrize("dtype", DTYPES)
def test_rows_move_in_full_requests(dtype: torch.dtype) -> None:
    row = 512 // dtype.itemsize
    x = randn(40 * tile(dtype) // row, 3 * row, dtype=dtype)[:, row : 2 * row]
    ops.leaky_relu(x, 0.1)
    moved = report()
    for traffic in (moved.loads, moved.stores):
        assert traffic.bytes == x.numel() * dtype.itemsize
        assert traffic.requests == traffic.widest_requests == x.numel() * dtype.itemsize // (ACCESS * WARP)
        assert traffic.request_sectors <= traffic.requests * (ACCESS * WARP // SECTOR + 1)  # rows begin within a sector


@pytest.mark.parametrize("dtype", DTYPES)
def test_misaligned_memory_moves_once_side_by_side(dtype: torch.dtype) -> None:
    x = misaligned(randn(4 * tile(dtype), dtype=dtype))
    ops.leaky_relu(x, 0.1)
    loads = report().loads
    assert loads.requests == x.numel() // WARP
    assert loads.request_sectors <= loads.requests * (WARP * dtype.itemsize // SECTOR + 1)


@pytest.mark.parametrize("dtype", DTYPES)
def test_bias_leaky_relu_memory_moves_once(dtype: torch.dtype) -> None:
    x, opmath = randn(4, 8, 1024, dtype=dtype), torch.promote_types(dtype, torch.float32)
    bias, nbytes, bits = randn(8, dtype=opmath), x.nbytes, x.numel() // 8
    _, mask = ops.bias_leaky_relu_forward(x, bias, 0.1, x.clone(), clamp=1.0)
    forward = report()
    assert forward.loads.bytes == 2 * nbytes + bias.nbytes
    assert forward.loads.widest_requests == 2 * nbytes // (ACCESS * WARP)
    assert forward.stores.bytes == nbytes + 2 * bits
    assert forward.stores.widest_requests == nbytes // (ACCESS * WARP)

    def backward(*wanted: bool) -> Report:
        ops.bias_leaky_relu_backward(x, mask, 0.1, None, 1.0, 0.0, 1, opmath, wanted)
        return report()

    assert backward(True, False).loads.bytes == nbytes + 2 * bits
    both, only_bias = backward(True, True), backward(False, True)
    partials = only_bias.stores.bytes - bias.nbytes
    assert bias.nbytes <= partials <= 8 * bias.nbytes
    assert only_bias.loads.bytes == both.loads.bytes == nbytes + 2 * bits + partials
    assert both.loads.widest_requests == both.stores.widest_requests == nbytes // (ACCESS * WARP)
    assert both.stores.bytes == nbytes + partials + bias.nbytes


@pytest.mark.parametrize("shape", [(2048, 64), (256, 8, 7, 7), (1, 8, 65536)], ids=["rows", "short runs", "long runs"])
def test_sums_take_little(shape: tuple[int, ...]) -> None:
    x = randn(*shape)
    mask = torch.zeros(x.numel() // 8, dtype=torch.uint8)
    ops.bias_leaky_relu_backward(x, mask, 0.1, None, 1.0, 0.0, 1, torch.float32, [False, True])
    # A block makes one sum of at least 4 groups' 8 elements each: written, and read again.
    assert 2 * report().stores.bytes <= 2 * x.nbytes / 32
