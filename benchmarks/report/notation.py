"""How figures are written for people, the same in the report and in the README."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..results import Row

# Of extras whose name does not end in a unit; every other one is a plain number.
_UNIT_OF_NAME = {"bytes": "bytes", "bytes_per_second": "bandwidth", "share": "share", "seconds": "seconds"}
NOTHING = "–"


def plain(text: object) -> str:
    """One line of valid UTF-8 without control characters, whatever a file of results held."""
    line = " ".join(str(text).split()).encode("utf-8", "replace").decode("utf-8")
    return "".join(character if character.isprintable() else "?" for character in line)


def seconds(value: float) -> str:
    for unit, scale in (("s", 1.0), ("ms", 1e-3), ("µs", 1e-6)):
        if abs(value) >= scale:
            return f"{value / scale:.3g} {unit}" if abs(value) / scale < 999.5 else f"{value / scale:.0f} {unit}"
    return f"{value / 1e-9:.0f} ns"


def size(value: float) -> str:
    """Of a number of bytes."""
    for unit, scale in (("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10)):
        if abs(value) >= scale:
            return f"{value / scale:.4g} {unit}"
    return f"{value:.4g} B"


def figure(value: float, unit: str) -> str:
    """``unit``: one of :data:`.results.UNITS`, or "bandwidth" (bytes per second), "share" (of 1), "" (a plain number)."""
    if unit == "seconds":
        return seconds(value)
    if unit == "bytes":
        return size(value)
    if unit == "bandwidth":
        return f"{value / 1e9:.3g} GB/s"
    if unit == "share":
        return f"{value:.0%}"
    return f"{value:.0f}" if abs(value) >= 100 or float(value).is_integer() else f"{value:.2g}"


def unit_of_extra(name: str) -> str:
    """Of an entry of :attr:`.results.Row.extra`, from its name."""
    return next((unit for ending, unit in _UNIT_OF_NAME.items() if name == ending or name.endswith(f"_{ending}")), "")


def ratio(row: Row) -> str:
    """The ratio of ``row``, with "(same)" where it is within the noise, or a dash."""
    if row.ratio is None:
        return NOTHING
    # 0.004 would read as 0.00
    written = f"{row.ratio:.2f}" if row.ratio >= 0.1 else f"{row.ratio:.2g}"
    return f"{written} (same)" if row.verdict == "same" else written


def elements(shape: tuple[int, ...]) -> str:
    return "×".join(map(str, shape)) if shape else "scalar"


def page_faults(environment: Mapping[str, Any]) -> str:
    """What one costs there, or "" if that was not measured."""
    small, huge = (environment.get(f"{kind}_page_fault_seconds") for kind in ("small", "huge"))
    if not isinstance(small, float):
        return ""
    return f"{seconds(small)} (4 KiB)" + (f" and {seconds(huge)} (2 MiB)" if isinstance(huge, float) else "")


def setting(name: str, value: Any) -> str:
    """A fact of the environment or an argument."""
    if value is None:
        return "unknown"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, dict):
        return "; ".join(f"{key}={setting('', entry)}" for key, entry in value.items()) or "none"
    if isinstance(value, (list, tuple)):
        return ", ".join(setting("", entry) for entry in value) or "none"
    if name.endswith("_bytes") and isinstance(value, (int, float)):
        return size(value)
    if name.endswith("fault_seconds") and isinstance(value, (int, float)):
        return f"{value * 1e6:.3g} µs"
    return str(value)
