"""What is finished, a JSON line a run, so that whatever ends a study, nothing is lost and nothing is run twice."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from ...results import ResultsError, refuse_to_overwrite
from ..as_json import read
from ..study import Cost
from .configuration import Configuration
from .outcome import Outcome

FORMAT = "leakyrelu-bench-journal"
_OUTCOME, _COSTS = TypeAdapter(Outcome), TypeAdapter(list[Cost])


def refuse(path: Path, resume: bool, force: bool) -> None:
    """Raises ResultsError if ``path`` is there and is neither to be gone on with nor overwritten, or cannot be a file."""
    if path.is_file() and not (resume or force):
        raise ResultsError(f"{path}: is there already; --resume goes on with it, --force overwrites it")
    refuse_to_overwrite([path], force=True)


class Journal:
    """The finished runs in ``path`` and those of this call; None keeps them in memory only.

    ``resume``: a file that is there is taken up again, else it must not be there (``force``: is overwritten). A last line
    that was not written to its end is taken off.

    Raises:
        ResultsError: the file cannot be read or written, is of another kind, is damaged, or is there already.
    """

    def __init__(self, path: Path | None, resume: bool = False, force: bool = False) -> None:
        self._path = path
        self._done: dict[str, Outcome] = {}
        self._costs: dict[str, list[Cost]] = {}
        if path is None:
            return
        refuse(path, resume, force)
        if path.exists() and resume:
            self._read(path)
        else:
            self._write("w", {"format": FORMAT})

    def _read(self, path: Path) -> None:
        try:
            content = path.read_bytes()
            head, _, rest = content.partition(b"\n")
            if json.loads(head).get("format") != FORMAT:
                raise ResultsError(f"{path}: not a journal of leakyrelu-bench train")
            lines = rest.split(b"\n")
            for number, line in enumerate(lines[:-1], 2):
                try:
                    entry = json.loads(line)
                    if "costs" in entry:
                        self._costs[entry["dataset"]] = read(_COSTS, json.dumps(entry["costs"]))
                    else:
                        outcome = read(_OUTCOME, line)
                        self._done[outcome.key] = outcome
                except (KeyError, TypeError, ValueError) as error:
                    raise ResultsError(f"{path}: line {number} is damaged: {error}") from error
            if lines[-1]:
                os.truncate(path, len(content) - len(lines[-1]))
        except OSError as error:
            raise ResultsError(f"{path}: {error.strerror or error}") from error
        except (ValueError, AttributeError) as error:
            raise ResultsError(f"{path}: not a journal of leakyrelu-bench train") from error

    def _write(self, mode: str, entry: dict[str, Any]) -> None:
        assert self._path is not None
        try:
            with self._path.open(mode, encoding="utf-8") as file:
                file.write(json.dumps(entry, ensure_ascii=False, allow_nan=False) + "\n")
                file.flush()
                os.fsync(file.fileno())  # a machine may be killed, too
        except OSError as error:
            raise ResultsError(f"{self._path}: {error.strerror or error}") from error

    @property
    def outcomes(self) -> list[Outcome]:
        return list(self._done.values())

    def costs(self, dataset: str) -> list[Cost] | None:
        return self._costs.get(dataset)

    def add_costs(self, dataset: str, costs: list[Cost]) -> None:
        self._costs[dataset] = costs
        if self._path is not None:
            self._write("a", {"dataset": dataset, "costs": _COSTS.dump_python(costs, mode="json")})

    def find(self, configuration: Configuration) -> Outcome | None:
        return self._done.get(configuration.key)

    def add(self, outcome: Outcome) -> None:
        self._done[outcome.key] = outcome
        if self._path is not None:
            self._write("a", _OUTCOME.dump_python(outcome, mode="json"))
