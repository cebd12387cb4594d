"""How results are shown in a terminal."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from rich.table import Table

from .compiled import Row as CompiledRow
from .fused import CONTESTANTS
from .fused import Row as FusedRow
from .ops import Row, geometric_mean
from .roof import Roof


def seconds(value: float) -> str:
    for unit, scale in (("s", 1.0), ("ms", 1e-3), ("µs", 1e-6)):
        if value >= scale:
            return f"{value / scale:.3g} {unit}" if value / scale < 1000 else f"{value / scale:.0f} {unit}"
    return f"{value / 1e-9:.0f} ns"


def size(value: int) -> str:
    for unit, scale in (("MiB", 2**20), ("KiB", 2**10)):
        if value >= scale:
            return f"{value / scale:.4g} {unit}"
    return f"{value} B"


def dtype_name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def ops_table(rows: Sequence[Row]) -> Table:
    table = Table(
        title="Leaky ReLU: built-in eager and leakyrelu_ext, interleaved, medians",
        caption=(
            "ratio: built-in / ours, median over the rounds, above 1 ours is faster. Then, built-in / ours: bytes that each "
            "must move per second; bytes saved for the backward; minor page faults per call. Forward: "
            "without grad. Backward: through autograd, with a gradient that the caller keeps. Owned backward: what it adds "
            "to the backward of a chain of ops."
        ),
    )
    for heading in ("input", "dtype", "mode"):
        table.add_column(heading)
    for heading in ("built-in", "ours", "ratio", "GB/s", "saved", "faults"):
        table.add_column(heading, justify="right")
    section = None
    for row in rows:
        if section not in (None, row.input):
            table.add_section()
        section = row.input
        table.add_row(
            row.input,
            dtype_name(row.dtype),
            row.mode,
            seconds(row.times.one.seconds),
            seconds(row.times.other.seconds),
            f"{row.times.ratio:.2f}",
            " / ".join(f"{moved / sample.seconds / 1e9:.1f}" for moved, sample in row.traffic),
            f"{size(row.builtin_saved)} / {size(row.ours_saved)}",
            f"{row.times.one.faults:.0f} / {row.times.other.faults:.0f}",
            style="red" if row.times.ratio < 0.95 else "green" if row.times.ratio > 1.05 else "",
        )
    return table


def roof_table(rows: Sequence[Roof]) -> Table:
    table = Table(
        title="leakyrelu_ext against what memory allows, interleaved, medians",
        caption="share: of the bandwidth of that operation, which moves as many bytes, in memory that it has already.",
    )
    for heading in ("input", "dtype", "what", "roof"):
        table.add_column(heading)
    for heading in ("roof", "ours", "GB/s", "share"):
        table.add_column(heading, justify="right")
    for row in rows:
        times = (row.times.one.seconds, row.times.other.seconds)
        table.add_row(
            row.input,
            dtype_name(row.dtype),
            row.what,
            row.roof,
            *map(seconds, times),
            " / ".join(f"{row.nbytes / time / 1e9:.1f}" for time in times),
            f"{row.times.ratio:.0%}",
        )
    return table


def compiled_table(rows: Sequence[CompiledRow]) -> Table:
    table = Table(
        title="A training step (forward and backward), eager and compiled, interleaved, medians",
        caption="ratio: eager built-in / this one, median over the rounds. saved: bytes kept for the backward, in all.",
    )
    for heading in ("net", "contestant"):
        table.add_column(heading)
    for heading in ("time", "ratio", "saved"):
        table.add_column(heading, justify="right")
    section = None
    for row in rows:
        if section not in (None, row.net):
            table.add_section()
        table.add_row(
            row.net if row.net != section else "", row.contestant, seconds(row.seconds), f"{row.ratio:.2f}", size(row.saved)
        )
        section = row.net
    return table


def fused_table(rows: Sequence[FusedRow]) -> Table:
    def triple(values: dict[str, str]) -> str:
        return " / ".join(values.get(name, "–") for name in ("eager", "compiled", "ours")) if values else ""

    table = Table(
        title="bias_leaky_relu against the same composed from PyTorch's ops, all of a row interleaved, medians",
        caption=(
            "Behind each time: it / ours, median over the rounds, above 1 ours is faster. eager: the plain line, a new "
            "tensor from every op. in place: the same, each op into the tensor before it wherever autograd allows. "
            "reference: StyleGAN's composition restated, which comes to the ops of eager: what the two differ by is noise. "
            "compiled: torch.compile of the plain line. forward: without grad. forward+backward: gradients of input, bias "
            "and residual, from a gradient that the caller keeps. saved: bytes kept for the backward, faults: minor page "
            "faults per call; both eager / compiled / ours."
        ),
    )
    for heading in ("case", "dtype", "mode"):
        table.add_column(heading)
    for heading in (*CONTESTANTS, "saved", "faults"):
        table.add_column(heading, justify="right")
    section = None
    for row in rows:
        if section not in (None, (row.case, row.dtype)):
            table.add_section()
        section = (row.case, row.dtype)
        times = {name: seconds(value) for name, value in row.seconds.items()}
        cells = [f"{times[name]} {row.ratios[name]:5.2f}" if name in times else "–" for name in CONTESTANTS[:-1]]
        slowest_win = min(row.ratios[name] for name in ("eager", "compiled") if name in row.ratios)
        table.add_row(
            row.case,
            dtype_name(row.dtype),
            row.mode,
            *cells,
            times["ours"],
            triple({name: size(value) for name, value in row.saved.items()}),
            triple({name: f"{value:.0f}" for name, value in row.faults.items()}),
            style="red" if slowest_win < 0.95 else "green" if slowest_win > 1.05 else "",
        )
    return table


def ops_summary(rows: Sequence[Row]) -> str:
    worst = min(rows, key=lambda row: row.times.ratio)
    return (
        f"geometric mean of {len(rows)} ratios: {geometric_mean(row.times.ratio for row in rows):.2f}x; "
        f"worst: {worst.times.ratio:.2f}x ({worst.input}, {dtype_name(worst.dtype)}, {worst.mode})"
    )


def fused_summary(rows: Sequence[FusedRow]) -> str:
    """A line per contestant but ours, and why what could not be compiled could not."""
    lines = []
    for name in CONTESTANTS[:-1]:
        against = [row for row in rows if name in row.ratios]
        if against:
            worst = min(against, key=lambda row: row.ratios[name])
            lines.append(
                f"against {name}: geometric mean of {len(against)} ratios "
                f"{geometric_mean(row.ratios[name] for row in against):.2f}x; worst: {worst.ratios[name]:.2f}x "
                f"({worst.case}, {dtype_name(worst.dtype)}, {worst.mode})"
            )
    obstacles = {row.obstacle: f"{row.case}, {row.mode}" for row in reversed(rows) if row.obstacle}
    lines += [f"not compiled, first {where}: {obstacle}" for obstacle, where in obstacles.items()]
    return "\n".join(lines)
