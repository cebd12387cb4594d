"""What the files of the Linux kernel say of this machine and this process."""

from __future__ import annotations

import re
from pathlib import Path


def told(path: str, pattern: str) -> str | None:
    """The first group of ``pattern`` in the file, line by line; None where there is no such file, or line."""
    file = Path(path)
    found = re.search(pattern, file.read_text(), re.MULTILINE) if file.exists() else None
    return found[1] if found else None


def told_number(path: str, pattern: str) -> int | None:
    number = told(path, pattern)
    return None if number is None else int(number)
