"""Plausible and hostile runs of the benchmark's suites, for tests of what is shown of them."""

import dataclasses
import math
import random
import re

import pytest

pytest.importorskip("matplotlib")
from leakyrelu_bench.measure import scoring
from leakyrelu_bench.results import Quantiles, Roof, Row, Run, save

ENVIRONMENT = {
    "started": "2026-11-26T09:00:00+00:00",
    "device": "AMD EPYC 9B14",
    "cpu": "AMD EPYC 9B14",
    "cores": 2,
    "memory_bytes": 16 * 2**30,
    "threads": 2,
    "cpu_tier": "avx512_bf16",
    "torch_cpu_capability": "AVX512",
    "leakyrelu_ext": "0.1.0",
    "commit": "004ddfe",
    "torch": "2.13.0+cpu",
    "python": "3.12.3",
    "kernel": "6.1.0",
    "allocator": "glibc 2.36",
    "huge_pages": "madvise",
    "small_page_fault_seconds": 1.8e-6,
    "huge_page_fault_seconds": 148e-6,
    "settings": {"OMP_NUM_THREADS": "2"},
}
ITEM_SIZES = {"float32": 4, "bfloat16": 2, "float16": 2}
VERSIONS = {"JAX": "jax 0.7.0", "ONNX Runtime": "onnxruntime 1.22.0", "NumPy": "numpy 2.3.1"}
HOSTILE = '<script>alert(1)</script> $\\frac{x$ & "quoted" | `tick` <!-- results: end -->\n\ud800\x07'


def row_of(chance, suite, case, mode, ours, rival, ours_seconds, ratio, **more):
    """A row whose times and noise are a little off, as measured ones are."""
    ratio *= math.exp(chance.gauss(0, 0.02))
    values = {
        "shape": (),
        "dtype": "float32",
        "layout": "",
        "outputs": "",
        "unit": "seconds",
        "version": VERSIONS.get(rival, "torch 2.13.0+cpu"),
        "ours_value": Quantiles(0.97 * ours_seconds, ours_seconds, 1.06 * ours_seconds),
        "rival_value": Quantiles(*(factor * ratio * ours_seconds for factor in (0.98, 1, 1.05))),
        "ratio": ratio,
        "ratio_low": 0.97 * ratio,
        "ratio_high": 1.04 * ratio,
        "noise": chance.uniform(0.01, 0.07),
    }
    return Row(suite=suite, case=case, mode=mode, ours=ours, rival=rival, **{**values, **more})


def without_figures(row, obstacle):
    nothing = dict.fromkeys(("ours_value", "rival_value", "ratio", "ratio_low", "ratio_high", "noise"))
    return dataclasses.replace(row, obstacle=obstacle, extra={}, **nothing)


def ops_run(chance):
    modes = {"forward": 2, "in place": 2, "backward op": 2, "backward": 2, "forward+backward": 4, "owned backward": 2}
    gains = dict(zip(modes, (1.3, 1.0, 1.5, 1.6, 1.15, 2.9), strict=True))
    others = {"built-in": 1.0, "compiled": 1.4, "JAX": 2.5, "ONNX Runtime": 1.8, "NumPy": 4.0}
    inputs = [(f"noise, 2^{power}", (2**power,), "contiguous") for power in range(6, 25, 2)]
    inputs += [
        ("photos, stem 1", (2, 32, 214, 320), "contiguous"),
        ("photos, stem 2", (2, 64, 107, 160), "contiguous"),
        ("photos, stem 2, channels_last", (2, 64, 107, 160), "channels_last"),
        ("2^20, x[:, :, ::2]", (64, 64, 256), "strided"),
    ]
    rows, roofs = [], []
    for case, shape, layout in inputs:
        for dtype, item_size in ITEM_SIZES.items():
            size = math.prod(shape) * item_size
            for outputs in ("fresh", "warm") if layout == "contiguous" else ("fresh",):
                slow = 4.0 if outputs == "fresh" and size > 2**24 else 1.0
                roof = 60e9 / (1 + size / 2**23)
                if case.startswith("noise") and size >= 2**14:
                    roofs.append(Roof(case, dtype, layout, outputs, size, roof, 0.93 * roof, 2 * roof))
                for mode, tensors in modes.items():
                    seconds = 0.8e-6 + tensors * size / (0.85 * roof)
                    for rival, against in others.items():
                        if rival in ("JAX", "ONNX Runtime", "NumPy") and mode not in ("forward", "backward op"):
                            continue
                        ratio = against * gains[mode] * slow * (1.0 if dtype == "float32" else 1.5)
                        ratio *= 0.8 if dtype == "float32" and 2**23 < size <= 2**24 and mode == "forward" else 1.0
                        extra = {
                            "page_faults": (0.0, 0.0 if slow == 1 else size / 4096),
                            "saved_bytes": (size / item_size / 8, float(size)),
                            "bytes_per_second": (tensors * size / seconds, tensors * size / seconds / ratio),
                        }
                        row = row_of(
                            chance, "ops", case, mode, "ours", rival, seconds, ratio,
                            shape=shape, dtype=dtype, layout=layout, outputs=outputs, extra=extra,
                        )  # fmt: skip
                        if rival == "NumPy" and dtype == "bfloat16":
                            row = without_figures(row, "NumPy has no bfloat16")
                        elif rival == "ONNX Runtime" and mode == "backward op":
                            row = without_figures(row, "not installed: pip install 'leakyrelu_ext[peers]'")
                        rows.append(row)
    rows = scoring.with_roof_shares(rows, roofs)
    return Run("ops", {"dtype": ["float32", "bfloat16", "float16"], "quick": True, "only": None}, ENVIRONMENT, rows, roofs)


def fused_run(chance):
    cases = [
        ("StyleGAN2: bias + lrelu + gain, 8x64x128x128", "float32", 8.0),
        ("StyleGAN2: bias + lrelu + gain, 8x64x128x128, channels_last", "float32", 6.0),
        ("StyleGAN2: bias + lrelu + gain, 8x64x128x128", "bfloat16", 4.0),
        ("StyleGAN2: bias + lrelu + gain + clamp, 4x512x64x64", "float32", 12.0),
        ("StyleGAN2: bias + lrelu + gain, 2x32x8x8", "float32", 2.2),
        ("nnU-Net, residual encoder: residual + lrelu, 1x32x32x64x64", "float32", 3.1),
        ("MLP: bias + lrelu + dropout, 512x1024", "float32", 0.93),
    ]
    rows = []
    for case, dtype, gain in cases:
        shape = tuple(map(int, re.findall(r"\d+", case.split(", ")[-1 if "channels" not in case else -2])))
        for mode in ("forward", "forward+backward"):
            for rival, factor in {"eager": 1.0, "in place": 0.6, "reference": 1.02, "compiled": 0.9}.items():
                extra = {"saved_bytes": (2.0**20, 2.0**25), "page_faults": (12.0, 8192.0)}
                row = row_of(
                    chance, "fused", case, mode, "ours", rival, 3e-3, max(gain * factor, 0.9),
                    shape=shape, dtype=dtype, layout="contiguous", outputs="fresh", extra=extra,
                )  # fmt: skip
                rows.append(without_figures(row, "no C++ compiler") if rival == "compiled" and "2x32" in case else row)
    return Run("fused", {}, ENVIRONMENT, rows)


def compile_run(chance):
    rows = []
    sides = {"eager ours": 1.03, "compiled ours": 0.9, "compiled ours, as op": 0.96}
    for net in ("4 × (conv, norm, activation)", "4 × (conv, activation), large", "perceptron, dropout"):
        for ours, gain in sides.items():
            for rival, slower in {"eager built-in": 1.0, "compiled built-in": 1.1}.items():
                extra = {"saved_bytes": (14.6 * 2**20, 22.3 * 2**20)}
                rows.append(row_of(chance, "compile", net, "training step", ours, rival, 8e-3, gain * slower, extra=extra))
    return Run("compile", {"seed": 0}, ENVIRONMENT, rows)


def models_run(chance):
    names = (
        "nnU-Net 3-D",
        "nnU-Net 2-D",
        "DCGAN discriminator",
        "Darknet-53",
        "ESRGAN RRDB",
        "HiFi-GAN V1 generator",
        "GAT",
    )
    rows = []
    for index, name in enumerate(names):
        for mode in ("training step", "inference step"):
            for ours, gain in {"ours": 1.04, "ours, installed": 1.06, "compiled ours": 1.0}.items():
                for rival in ("built-in", "compiled built-in"):
                    step = 0.1 * (index + 1)
                    ratio = gain * (0.93 if rival != "built-in" else 1.0) * (0.9 if name == "GAT" else 1.0)
                    extra = {
                        "activation_share": (0.03, 0.05),
                        "saved_bytes": (2.0**27, 2.0**28),
                        "peak_bytes": (2.0**29, 2.2 * 2**28),
                    }
                    row = row_of(chance, "models", name, mode, ours, rival, step, ratio, extra=extra)
                    if name == "ESRGAN RRDB" and "compiled" in ours:
                        row = without_figures(row, "compilation failed: RuntimeError: out of memory")
                    rows.append(row)
    return Run("models", {"seed": 0}, ENVIRONMENT, rows, interrupted=True)


def memory_run(chance):
    rivals = {"built-in, out of place": 1.0, "built-in, in place": 0.55, "compiled built-in": 0.8}
    rows = []
    for case, whole in {"4 × (conv, activation), 8×3×128×128": 2.0**27, "nnU-Net 2-D": 2.0**29}.items():
        for ours, share in {"ours, out of place": 0.52, "ours, in place": 0.5}.items():
            for mode, base in {"saved for the backward": whole, "peak of a training step": 3 * whole}.items():
                for rival, of_whole in rivals.items():
                    mine, theirs = share * base, of_whole * base
                    rows.append(
                        Row(
                            "memory", case, (), "float32", "", mode, "", "bytes", ours, rival, "torch 2.13.0+cpu",
                            Quantiles(mine, mine, mine), Quantiles(theirs, theirs, theirs), theirs / mine, None, None, 0.0,
                        )
                    )  # fmt: skip
            for rival, of_whole in rivals.items():
                most, least = 2**31 // int(share * whole), 2**31 // int(of_whole * whole)
                rows.append(
                    Row(
                        "memory", case, (), "float32", "", "largest batch within 2 GiB", "", "samples", ours, rival,
                        "torch 2.13.0+cpu", Quantiles(most, most, most), Quantiles(least, least, least), most / least,
                        None, None, 0.0,
                    )
                )  # fmt: skip
    return Run("memory", {"budget": "2 GiB"}, ENVIRONMENT, rows)


def example_runs():
    """A plausible run of every suite, the same ones every time."""
    chance = random.Random(0)
    return [make(chance) for make in (ops_run, fused_run, compile_run, models_run, memory_run)]


def hostile_runs():
    """Names that are code, markers of README, formulas, not even text; and facts that are missing."""
    chance = random.Random(1)
    rows = [
        row_of(
            chance, HOSTILE, HOSTILE, HOSTILE, HOSTILE, HOSTILE, 1e-3, 1.5, version=HOSTILE, extra={HOSTILE: (1.0, None)}
        ),
        without_figures(row_of(chance, "x", HOSTILE, HOSTILE, HOSTILE, HOSTILE, 1e-3, 1.5, dtype=HOSTILE), HOSTILE),
    ]
    suites = ("ops", "fused", "compile", "models", "memory", HOSTILE)
    return [Run(suite, {HOSTILE: HOSTILE}, {"device": HOSTILE, "settings": {HOSTILE: [HOSTILE]}}, rows) for suite in suites]


def odd_runs():
    empty = Run("ops", {}, {}, [], interrupted=True)
    only_obstacles = ops_run(random.Random(2))
    rows = [without_figures(row, "broken") for row in only_obstacles.rows[:4]]
    one = dataclasses.replace(only_obstacles, rows=only_obstacles.rows[:1], roofs=[])
    return {
        "none": [],
        "empty": [empty],
        "obstacles": [dataclasses.replace(only_obstacles, rows=rows)],
        "one row": [one],
        "a suite twice": [one, one],
        "an unknown suite": [dataclasses.replace(one, suite="new")],
        "hostile": hostile_runs(),
    }


def files_of(runs, folder):
    paths = [folder / f"{index}.json" for index in range(len(runs))]
    for run, path in zip(runs, paths, strict=True):
        save(run, path)
    return [str(path) for path in paths]
