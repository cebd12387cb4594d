"""How results are shown in a terminal."""

from __future__ import annotations

from collections.abc import Sequence

from rich.markup import escape
from rich.table import Table

from ..results import Row, Run
from .notation import NOTHING, figure, ratio, size
from .summary import by_rival, name_of, obstacles

_TITLES = {
    "ops": "Leaky ReLU: leakyrelu_ext and its rivals",
    "fused": "bias_leaky_relu and the same composed from PyTorch's ops",
    "compile": "Small nets, eager and under torch.compile",
    "models": "Published architectures",
    "memory": "Memory",
}
_CAPTION = (
    "vs: how many times better ours is, median over passes and rounds; same: within the noise, half a 95 % interval (the "
    "widest of the line is shown). Behind a slash: {}'s. –: not measured here."
)
_STYLES = {"better": "green", "worse": "red"}


def case_name(row: Row) -> str:
    return f"{row.case}, warm" if row.outputs == "warm" else row.case


# Heading, name in Row.extra, how a value is shown: ours / the first rival's.
_EXTRAS = (
    ("GB/s", "bytes_per_second", lambda value: f"{value / 1e9:.1f}"),
    ("of the roof", "roof_share", lambda value: f"{value:.0%}"),
    ("saved", "saved_bytes", size),
    ("peak", "peak_bytes", size),
    ("activation", "activation_share", lambda value: f"{value:.0%}"),
    ("faults", "page_faults", lambda value: f"{value:.0f}"),
)


def _cell(row: Row | None) -> str:
    if row is None:
        return NOTHING
    if row.ratio is None:
        return "absent" if (row.obstacle or "").startswith("not installed") else "fails" if row.rival_value is None else "?"
    if row.verdict == "same":
        return "same"
    return f"[{_STYLES[row.verdict]}]{row.ratio:.2f}[/]"


def _table(title: str, rows: Sequence[Row]) -> Table:
    rivals = list(dict.fromkeys(row.rival for row in rows))
    table = Table(title=title, caption=_CAPTION.format(rivals[0]))
    several_ours = len({row.ours for row in rows}) > 1
    with_dtype = any(row.dtype for row in rows)
    extras = [extra for extra in _EXTRAS if any(extra[1] in row.extra for row in rows)]
    noisy = any(row.noise for row in rows)
    for heading in ("case", *(["dtype"] if with_dtype else []), "mode", *(["of ours"] if several_ours else [])):
        table.add_column(heading)
    of_rivals = [escape(f"vs {rival}") for rival in rivals]
    of_extras = [heading for heading, _, _ in extras]
    for heading in ("ours", rivals[0], *of_rivals, *(["noise"] if noisy else []), *of_extras):
        table.add_column(heading, justify="right")
    lines: dict[tuple[object, ...], dict[str, Row]] = {}
    for row in rows:
        lines.setdefault((*row.contest, row.ours), {})[row.rival] = row
    section = None
    for of_line in lines.values():
        there = [entry for entry in (of_line.get(rival) for rival in rivals) if entry]
        row = next((entry for entry in there if entry.ours_value), there[0])
        beside = of_line.get(rivals[0])  # whose figures stand behind the slash
        if section not in (None, case_name(row)):
            table.add_section()
        section = case_name(row)

        def shown(name: str, form: object, row: Row = row, beside: Row | None = beside) -> str:
            pair = (row.extra.get(name, (None, None))[0], beside.extra.get(name, (None, None))[1] if beside else None)
            return " / ".join(NOTHING if value is None else form(value) for value in pair)  # type: ignore[operator]

        table.add_row(
            escape(section),
            *([row.dtype] if with_dtype else []),
            row.mode,
            *([row.ours] if several_ours else []),
            figure(row.ours_value.median, row.unit) if row.ours_value else "fails",
            figure(beside.rival_value.median, beside.unit) if beside and beside.rival_value else NOTHING,
            *(_cell(of_line.get(rival)) for rival in rivals),
            *([f"±{noise:.0%}" if (noise := max(entry.noise or 0 for entry in of_line.values())) else ""] if noisy else []),
            *(shown(name, form) for _, name, form in extras),
        )
    return table


def of(run: Run) -> list[Table]:
    """A table per unit of the rows."""
    units = dict.fromkeys(row.unit for row in run.rows)
    return [_table(_TITLES.get(run.suite, run.suite), [row for row in run.rows if row.unit == unit]) for unit in units]


def summary(run: Run) -> str:
    """A line per rival and each of ours: the mean, what was better and worse, the worst; and why what is missing is."""
    lines = ["interrupted: only what was measured until then"] if run.interrupted else []
    for entry in by_rival(run):
        if entry.worst:
            lines.append(
                f"{entry.ours} against {entry.rival}: geometric mean of {entry.compared} ratios {entry.mean:.2f}x; better "
                f"{entry.better}, same {entry.same}, worse {entry.worse}; worst: {ratio(entry.worst)} "
                f"({name_of(entry.worst)})"
            )
    for reason, (sides, rows) in obstacles(run.rows).items():
        more = f" and {len(rows) - 1} more" if len(rows) > 1 else ""
        lines.append(f"not measured: {sides} ({name_of(rows[0])}{more}): {reason}")
    return "\n".join(lines)
