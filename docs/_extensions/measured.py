"""A directive that prints a table from docs/results/<suite>.json, so that no page has figures of its own.

    ```{measured} models
    :only: nnU-Net
    :ours: ours
    :rivals: built-in
    ```

``only``: beginnings of the names of cases; ``ours`` and ``rivals``: contestants; with "; " between. Without, all are shown.
"""

from __future__ import annotations

from pathlib import Path

from docutils import nodes
from docutils.parsers.rst import directives
from leakyrelu_bench.report.markdown import where
from leakyrelu_bench.report.notation import NOTHING, figure, ratio
from leakyrelu_bench.results import Row, load
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

RESULTS = Path(__file__).parents[1] / "results"


def _pair(row: Row, extra: str) -> str:
    ours, rival = row.extra.get(extra, (None, None))
    if ours is None or rival is None:
        return ""
    unit = "share" if extra.endswith("_share") else "bytes"
    return f"{figure(rival, unit)} / {figure(ours, unit)}"


def _case(row: Row) -> str:
    layout = row.layout if row.layout not in ("", "contiguous", *row.case.split(", ")) else ""
    warm = "warm" if row.outputs == "warm" else ""
    return ", ".join(filter(None, (row.case, layout, warm)))


def _counted(rows: list[Row]) -> list[list[str]]:
    """One line for each case and mode, one column for each contestant."""
    names = list(dict.fromkeys([row.rival for row in rows] + [row.ours for row in rows]))
    lines: dict[tuple[str, ...], dict[str, str]] = {}
    for row in rows:
        cells = lines.setdefault((_case(row), row.dtype, row.mode), dict.fromkeys(names, NOTHING))
        for name, value in ((row.ours, row.ours_value), (row.rival, row.rival_value)):
            if value is not None:
                cells[name] = figure(value.median, row.unit)
    return [["case", "dtype", "what", *names], *([*key, *cells.values()] for key, cells in lines.items())]


_EXTRAS = {"activation_share": "time in activations", "saved_bytes": "saved for the backward"}


def _timed(rows: list[Row]) -> list[list[str]]:
    """One line for each case and mode, one column for each pair of contestants, then what else was counted."""
    pairs = list(dict.fromkeys((row.rival, row.ours) for row in rows))
    extras = [name for name in _EXTRAS if any(_pair(row, name) for row in rows)]
    lines: dict[tuple[str, ...], dict[object, str]] = {}
    for row in rows:
        empty: dict[object, str] = dict.fromkeys([*pairs, *extras], NOTHING)
        cells = lines.setdefault((_case(row), row.dtype, row.mode), empty)
        cells[row.rival, row.ours] = ratio(row)
        for name in extras:
            if (row.rival, row.ours) == pairs[0]:
                cells[name] = _pair(row, name) or NOTHING
    headings = [
        *(f"{rival} / {ours}" for rival, ours in pairs),
        *(f"{_EXTRAS[name]}, {' / '.join(pairs[0])}" for name in extras),
    ]
    return [["case", "dtype", "mode", *headings], *([*key, *cells.values()] for key, cells in lines.items())]


class Measured(SphinxDirective):
    required_arguments = 1
    option_spec = dict.fromkeys(("only", "ours", "rivals"), directives.unchanged)

    def run(self) -> list[nodes.Node]:
        path = RESULTS / f"{self.arguments[0]}.json"
        self.env.note_dependency(str(path))
        record = load(path)
        only, ours, rivals = (self.options[name].split("; ") if name in self.options else [] for name in self.option_spec)
        rows = [
            row
            for row in record.rows
            if row.case.startswith(tuple(only or [""]))
            and (not ours or row.ours in ours)
            and (not rivals or row.rival in rivals)
        ]
        if not rows:
            raise self.error(f"{path} has no such rows")
        timed = all(row.unit == "seconds" for row in rows)
        table = _timed(rows) if timed else _counted(rows)
        if {row.dtype for row in rows} == {"float32"}:
            table = [line[:1] + line[2:] for line in table]
        about = f"`leakyrelu-bench {self.arguments[0]}`, {where(record)}."
        if timed:
            about += " Ratios of times: above 1 ours is faster; “same” is within the noise."
        texts = table[0].index("mode" if timed else "what") + 1
        rule = ["---"] * texts + ["--:"] * (len(table[0]) - texts)
        cells = [[cell.replace("|", "\\|").replace(">", "\\>") for cell in line] for line in (table[0], rule, *table[1:])]
        found = self.parse_text_to_nodes("\n".join([about, "", *("| " + " | ".join(line) + " |" for line in cells)]))
        for node in found:
            if isinstance(node, nodes.table):
                node["classes"].append("measured")
        return found


def setup(app: Sphinx) -> dict[str, bool]:
    app.add_directive("measured", Measured)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
