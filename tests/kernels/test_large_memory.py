"""Large results: huge pages, and stores past the caches. Settings are fixed at their first use, so each gets a process."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

pytestmark = [
    pytest.mark.native,
    pytest.mark.cpu_only,
    pytest.mark.skipif(sys.platform != "linux", reason="Linux's huge pages"),
]

CAPABILITIES = ["default", "avx2", "avx512"]

PREAMBLE = """
import ctypes, json, os, resource, torch
import torch.nn.functional as F
import leakyrelu_ext
def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
def of_call(function):
    before = faults(), leakyrelu_ext.stats()
    result = function()
    after = faults(), leakyrelu_ext.stats()
    return result, {"faults": after[0] - before[0]} | {key: after[1][key] - before[1][key] for key in after[1]}
"""


def run(code, **environment):
    done = subprocess.run(
        [sys.executable, "-c", PREAMBLE + code],
        cwd=Path(__file__).parent,  # not where the sources lie, if another installation is tested
        capture_output=True,
        text=True,
        check=False,
        env={key: value for key, value in os.environ.items() if key != "LEAKYRELU_EXT_HUGE_PAGES"} | environment,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def huge_pages_offered():
    setting = Path("/sys/kernel/mm/transparent_hugepage/enabled")
    return setting.exists() and "[never]" not in setting.read_text()


FRESH = """
x = torch.randn(2**24)
leakyrelu_ext.leaky_relu(x[:10])
y, counts = of_call(lambda: leakyrelu_ext.leaky_relu(x, 0.1))
assert torch.equal(y, F.leaky_relu(x, 0.1))
print(json.dumps(counts))
"""


def test_large_outputs_take_huge_pages():
    counts = run(FRESH)
    if not huge_pages_offered():
        pytest.skip(f"the kernel offers no huge pages, and the output is right without: {counts}")
    assert counts["huge_page_requests"] == 1
    assert counts["faults"] < 2**26 / 4096 / 10


@pytest.mark.parametrize("setting", ["0", "Off"])
def test_huge_pages_can_be_switched_off(setting):
    counts = run(FRESH, LEAKYRELU_EXT_HUGE_PAGES=setting)
    assert counts["huge_page_requests"] == 0
    if Path("/sys/kernel/mm/transparent_hugepage/enabled").exists() and not os.environ.get("THP_MEM_ALLOC_ENABLE"):
        assert counts["faults"] > 0


def test_the_threshold():
    requests = run("""
found = []
for megabytes in (3.99, 4, 31, 32, 33):
    x = torch.randn(int(megabytes * 2**20) // 4)
    y, counts = of_call(lambda: leakyrelu_ext.leaky_relu(x, 0.1))
    assert torch.equal(y, F.leaky_relu(x, 0.1))
    found.append(counts["huge_page_requests"])
print(json.dumps(found))
""")
    assert requests == [0, 1, 1, 1, 1]


def test_such_outputs_are_ordinary_tensors():
    """They can be resized, shared, pickled, handed to NumPy and freed, and the profiler sees their memory."""
    assert (
        run("""
import io, threading
from torch.profiler import profile
for mebibytes in (8, 40):
    x = torch.randn(mebibytes * 2**18)
    expected = F.leaky_relu(x, 0.1)
    with profile(profile_memory=True) as prof:
        y = leakyrelu_ext.leaky_relu(x, 0.1)
        del y
    allocated = sorted(e.self_cpu_memory_usage for e in prof.events() if e.self_cpu_memory_usage)
    assert allocated[-1] == x.nbytes and allocated[0] == -x.nbytes, allocated
    y = leakyrelu_ext.leaky_relu(x, 0.1)
    assert y.data_ptr() % 64 == 0
    buffer = io.BytesIO()
    torch.save(y, buffer)
    buffer.seek(0)
    assert torch.equal(torch.load(buffer), expected)
    y.untyped_storage().resize_(2 * x.nbytes)
    assert torch.equal(y, expected)
    y.untyped_storage().resize_(100)
    assert torch.equal(y[:25], expected[:25])
    y = leakyrelu_ext.leaky_relu(x, 0.1)
    array = y.numpy()
    del y
    assert array[-1] == expected[-1]
    y = leakyrelu_ext.leaky_relu(x, 0.1).share_memory_()
    assert y.is_shared() and torch.equal(y, expected)
    y = leakyrelu_ext.leaky_relu(x, 0.1)
    thread = threading.Thread(target=lambda y: y.untyped_storage().resize_(0), args=(y,))
    thread.start()
    thread.join()
print(json.dumps("done"))
""")
        == "done"
    )


# Heap memory that stays with the process, as with allocators that keep what was freed: outputs come warm.
WARM = """
libc = ctypes.CDLL(None)
M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4
assert libc.mallopt(M_MMAP_MAX, 0) == libc.mallopt(M_TRIM_THRESHOLD, 2**31 - 1) == 1
def streamed(function):
    # The result of a call that got memory in use before: glibc moves on through fresh memory for a while.
    for _ in range(30):
        result, counts = of_call(function)
        if counts["streaming_calls"] == 1:
            return result
        del result
    raise AssertionError(f"no output was stored past the caches: {counts}")
def not_streamed(function):
    for _ in range(20):
        result, counts = of_call(function)
        assert counts["streaming_calls"] == 0
    return result
"""

EVERY_DTYPE = """
ops = torch.ops.leakyrelu_ext
threshold = int(os.environ["LEAKYRELU_EXT_STREAM_BYTES"])
for dtype in (torch.float64, torch.float32, torch.bfloat16, torch.float16):
    n = threshold // dtype.itemsize + 77  # an odd number of elements beyond the threshold
    x = torch.arange(n, dtype=torch.int32).remainder_(1000).sub_(500).to(dtype)
    y = streamed(lambda: leakyrelu_ext.leaky_relu(x, -0.3))
    assert torch.equal(y, F.leaky_relu(x, -0.3)), dtype
    del y
    y, mask = streamed(lambda: torch.ops.leakyrelu_ext.leaky_relu_forward(x, -0.3))
    grad = streamed(lambda: torch.ops.leakyrelu_ext.leaky_relu_backward(y, mask, 0.5, None))
    assert torch.equal(grad, torch.where(x > 0, y, y * 0.5)), dtype
    del grad, mask
    _, counts = of_call(lambda: leakyrelu_ext.leaky_relu_(x, -0.3))  # each line is in the cache already
    assert counts["streaming_calls"] == 0, (dtype, counts)
    assert torch.equal(x, y), dtype
    del x, y
    # bias_leaky_relu: channels that are rows, and channels that repeat. Rows that end within a cache line are not streamed.
    for shape in ((2, 8, n // 1024 + 1, 64), (2, 8, n // 1024 + 1, 72), (n // 40 + 1, 40)):
        row = torch.Size(shape[2:]).numel() * dtype.itemsize
        run = streamed if len(shape) == 2 or row % 64 == 0 else not_streamed
        x = torch.arange(torch.Size(shape).numel(), dtype=torch.int32).remainder_(1000).sub_(500).view(shape).to(dtype)
        bias = torch.arange(shape[1]).to(dtype)
        sums = x + bias.view(-1, *[1] * (len(shape) - 2))
        y, mask = run(lambda: ops.bias_leaky_relu_forward(x, bias, -0.25, None, 1, 2.0))
        assert torch.equal(y, torch.where(sums > 0, sums, sums * -0.25) * 2), (dtype, shape)
        del y
        grad, grad_bias = run(
            lambda: ops.bias_leaky_relu_backward(x, mask, -0.25, None, 2.0, 0.0, 1, torch.float64, [True, True])
        )
        expected = torch.where(sums > 0, x, x * -0.25) * 2
        assert torch.equal(grad, expected), (dtype, shape)
        expected = expected.double().sum([d for d in range(len(shape)) if d != 1])
        assert torch.allclose(grad_bias, expected, rtol=1e-4, atol=1.0), (dtype, shape)
        del grad, expected, x, sums, mask
print(json.dumps("done"))
"""

DEFAULT_THRESHOLD = """
try:
    level3 = int(open("/sys/devices/system/cpu/cpu0/cache/index3/size").read().strip().removesuffix("K")) * 1024
except OSError:
    level3 = 2**25
assert torch.get_num_threads() < 16
x = torch.ones(level3 // 4)
streamed(lambda: leakyrelu_ext.leaky_relu(x, 0.1))
x = x[1:]
not_streamed(lambda: leakyrelu_ext.leaky_relu(x, 0.1))
print(json.dumps("done"))
"""


def test_outputs_as_large_as_the_third_level_cache_are_stored_past_it():
    assert run(WARM + DEFAULT_THRESHOLD, OMP_NUM_THREADS="2") == "done"


def test_a_bad_threshold_is_refused():
    """Each time; what is refused is not fixed."""
    wishes = ["0", "-1", "1e6", "4MB", " 5", "99999999999999999999"]
    messages = run(f"""
messages = []
for wish in {wishes}:
    os.environ["LEAKYRELU_EXT_STREAM_BYTES"] = wish
    try:
        leakyrelu_ext.leaky_relu(torch.ones(2**20), 0.1)
    except ValueError as error:
        messages.append(str(error))
print(json.dumps(messages))
""")
    assert len(messages) == len(wishes)
    for wish, message in zip(wishes, messages, strict=True):
        assert f"LEAKYRELU_EXT_STREAM_BYTES must be a positive number of bytes, got '{wish}'" in message


@pytest.mark.parametrize("tier", ["avx512_bf16", "avx512", "avx2", "generic"])
def test_large_warm_outputs_are_stored_past_the_caches(tier):
    """The same bits, then; also in the last, odd elements."""
    capability = {"generic": "default", "avx512_bf16": "avx512"}.get(tier, tier)
    if CAPABILITIES.index(capability) > CAPABILITIES.index(torch.backends.cpu.get_cpu_capability().lower()):
        pytest.skip(f"this CPU has no {tier}")
    wish = tier if tier != "avx512_bf16" else ""
    settings = {"ATEN_CPU_CAPABILITY": capability, "LEAKYRELU_EXT_CPU_TIER": wish, "LEAKYRELU_EXT_STREAM_BYTES": str(2**22)}
    assert run(WARM + EVERY_DTYPE, **settings) == "done"


def test_stats_are_counts():
    assert set(run("print(json.dumps(leakyrelu_ext.stats()))").values()) == {0}
