"""What a declared address stands for: itself, a variable's value, or a file's content.

Whoever asks says in an error of its own what is missing: nothing here is told to people.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from handrail.estate.model import Address


def read(address: Address, root: Path, environment: Mapping[str, str]) -> str:
    """Return it without the blanks around it; empty where the variable is not set or empty.

    Raises:
        OSError: the file cannot be read.
        UnicodeDecodeError: it is no text.
    """
    if address.env:
        return environment.get(address.env, "").strip()
    if address.file:
        return (root / Path(address.file).expanduser()).read_text(encoding="utf-8").strip()
    return address.value
