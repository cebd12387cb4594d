"""What every suite measures, in one form: rows that can be read without the script, and runs of them as JSON files."""

from __future__ import annotations

import json
import math
import os
import statistics
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Protocol

FORMAT, VERSION = "leakyrelu-bench", 1
# The suite whose files hold a training study: see study/study.py.
STUDY = "train"
UNITS = ("seconds", "bytes", "samples")


# The obstacle of a row whose ours or rival takes nothing measurable beside what surrounds it.
TOO_LITTLE = "takes too little beside what surrounds it"


# Of the dataclasses in a file: no figure in it is infinite or NaN.
_FINITE = {"allow_inf_nan": False}


class ResultsError(Exception):
    """A file of results that cannot be read or written; the message is one line that names the file."""


@dataclass(frozen=True)
class Quantiles:
    """Of single measurements: the median, and the bounds between which the middle 60 % of them lie."""

    __pydantic_config__ = _FINITE
    low: float
    median: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Quantiles:
        if len(values) == 1:
            return cls(values[0], values[0], values[0])
        deciles = statistics.quantiles(values, n=10, method="inclusive")
        return cls(deciles[1], deciles[4], deciles[7])


@dataclass(frozen=True)
class Row:
    """One of ours and one rival, measured side by side in one run, on one case.

    ``ratio`` says how much better ours is: above 1 it took less time or memory, or more samples fit. It is None, and so are
    the figures, where ``obstacle`` says why there is nothing to compare.
    ``noise``: what the ratio may be off by, as a fraction, at the 95 % level; 0 where a figure is counted, not measured.
    """

    __pydantic_config__ = _FINITE
    suite: str
    case: str
    shape: tuple[int, ...]
    dtype: str
    layout: str  # contiguous, channels_last, …; "" where a case has many tensors
    mode: str
    outputs: str  # "fresh" or "warm" memory; "" where that is not controlled
    unit: str  # of the figures, one of UNITS
    ours: str  # which of ours
    rival: str
    version: str  # the rival's library and its version
    ours_value: Quantiles | None = None
    rival_value: Quantiles | None = None
    ratio: float | None = None
    ratio_low: float | None = None  # over the rounds, as Quantiles
    ratio_high: float | None = None
    noise: float | None = None
    obstacle: str | None = None
    # What else is known of either side, by name, with its unit in the name: {"page_faults": [ours, rival], …}
    extra: dict[str, tuple[float | None, float | None]] = field(default_factory=dict)

    @property
    def key(self) -> tuple[object, ...]:
        """What two runs' rows must share to be the same measurement."""
        of_key = (self.suite, self.case, self.shape, self.dtype, self.layout, self.mode, self.outputs, self.unit)
        return (*of_key, self.ours, self.rival)

    @property
    def contest(self) -> tuple[object, ...]:
        """What rows share that were measured side by side."""
        return self.key[:-2]

    @property
    def verdict(self) -> str:
        """``better``, ``worse`` (ours), ``same`` within the noise, or ``none`` without figures."""
        if self.ratio is None:
            return "none"
        if abs(math.log(self.ratio)) <= math.log1p(self.noise or 0.0):
            return "same"
        return "better" if self.ratio > 1 else "worse"


@dataclass(frozen=True)
class Roof:
    """The bandwidth of plain operations on memory that is there, measured in the same rounds as the rows of that case."""

    __pydantic_config__ = _FINITE
    case: str
    dtype: str
    layout: str
    outputs: str
    nbytes: int  # of one tensor
    copy_bytes_per_second: float  # out.copy_(x): two tensors move
    triad_bytes_per_second: float  # torch.add(x, y, alpha=2, out=out): three
    scale_bytes_per_second: float  # out.mul_(1.0): one, twice

    def bytes_per_second(self, in_place: bool) -> float:
        """The highest that plain operations reached: of those that write over what they read, or of the others."""
        return self.scale_bytes_per_second if in_place else max(self.copy_bytes_per_second, self.triad_bytes_per_second)


@dataclass(frozen=True)
class Run:
    """One call of a suite. ``environment``: see :func:`leakyrelu_bench.measure.environment.collect`."""

    suite: str
    arguments: dict[str, Any]
    environment: dict[str, Any]
    rows: list[Row]
    roofs: list[Roof] = field(default_factory=list)
    interrupted: bool = False


class Measured(Protocol):
    """What a run and a training study have in common."""

    @property
    def arguments(self) -> dict[str, Any]: ...
    @property
    def environment(self) -> dict[str, Any]: ...
    @property
    def interrupted(self) -> bool: ...


def refuse_to_overwrite(paths: Iterable[Path | None], force: bool) -> None:
    """Raises ResultsError if one of ``paths`` is there (unless ``force``), or cannot become a file."""
    for path in filter(None, paths):
        folder = path.absolute().parent
        try:
            if path.is_dir():
                raise ResultsError(f"{path}: is a directory")
            if path.exists() and not path.is_file():
                raise ResultsError(f"{path}: is not a regular file")
            if path.exists() and not force:
                raise ResultsError(f"{path}: is there already; --force overwrites it")
            if not folder.is_dir():
                raise ResultsError(f"{path}: there is no directory {folder}")
            if not os.access(folder, os.W_OK):
                raise ResultsError(f"{path}: {folder} cannot be written to")
        except OSError as error:  # a name that is too long, a folder that may not be entered
            raise ResultsError(f"{path}: {error.strerror or error}") from error


def write(path: Path, content: str | bytes) -> None:
    """All or nothing: whoever reads ``path`` meanwhile sees what was there before.

    Raises:
        ResultsError: the file cannot be written.
    """
    # What is not valid Unicode can come from a file of results; it is written as a question mark.
    data = content if isinstance(content, bytes) else content.encode("utf-8", "replace")
    try:
        handle, name = tempfile.mkstemp(dir=path.absolute().parent, prefix=f".{path.name}.")
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(data)
            Path(name).chmod(0o644)
            Path(name).replace(path)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise
    except OSError as error:
        raise ResultsError(f"{path}: {error.strerror or error}") from error


def save(run: Run, path: Path) -> None:
    """Writes ``run`` as JSON, a line a row, so that two files can be compared by eye and by diff.

    Raises:
        ResultsError: the file cannot be written.
    """
    # Each row tells by itself where and when it was measured.
    where = {name: run.environment.get(name) for name in ("device", "cpu_tier", "threads", "torch", "commit", "started")}
    head = {
        "format": FORMAT,
        "version": VERSION,
        "suite": run.suite,
        "interrupted": run.interrupted,
        "arguments": run.arguments,
        "environment": run.environment,
    }
    parts = [json.dumps(head, indent=1, ensure_ascii=False)[:-2]]
    for name, entries in (
        ("roofs", [asdict(roof) for roof in run.roofs]),
        ("rows", [{**asdict(row), "verdict": row.verdict, **where} for row in run.rows]),
    ):
        lines = ",\n  ".join(json.dumps(entry, ensure_ascii=False, allow_nan=False) for entry in entries)
        parts.append(f' "{name}": [\n  {lines}\n ]' if entries else f' "{name}": []')
    write(path, ",\n".join(parts) + "\n}\n")


def document(path: Path) -> dict[str, Any]:
    """The JSON object in a file that this program wrote.

    Raises:
        ResultsError: the file is missing, unreadable, not JSON, not of this program, or of a later version of it.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ResultsError(f"{path}: {error.strerror or error}") from error
    except (ValueError, RecursionError) as error:
        raise ResultsError(f"{path}: not JSON ({str(error).splitlines()[0]})") from error
    if not isinstance(found, dict) or found.get("format") != FORMAT:
        raise ResultsError(f'{path}: not a file of results: "format" is not "{FORMAT}"')
    if found.get("version") != VERSION:
        raise ResultsError(f"{path}: version {found.get('version')!r} of the format; this program reads {VERSION}")
    return found


def load(path: Path) -> Run:
    """Reads what :func:`save` wrote.

    Raises:
        ResultsError: as :func:`document`; the file is damaged, or holds a training study.
    """
    found = document(path)
    if found.get("suite") == STUDY:
        raise ResultsError(f"{path}: is a training study, not rows of a benchmark")
    from pydantic import TypeAdapter, ValidationError

    try:
        run = TypeAdapter(Run).validate_json(json.dumps(found), strict=True)
    except ValidationError as error:
        first = error.errors()[0]
        raise ResultsError(f"{path}: damaged: {'.'.join(map(str, first['loc']))}: {first['msg']}") from error
    for number, row in enumerate(run.rows):
        if row.unit not in UNITS or (row.ratio is not None and row.ratio <= 0) or (row.noise or 0.0) < 0:
            raise ResultsError(f"{path}: damaged: rows.{number}: {row.ratio} ± {row.noise} in {row.unit!r}")
    if any(value <= 0 for roof in run.roofs for value in vars(roof).values() if not isinstance(value, str)):
        raise ResultsError(f"{path}: damaged: a roof of nothing")
    return run
