r"""Patterns: how many keys or paths are spoken of as one, `session:*`, `uploads/*.png`.

Rules:
- Numbers, hexadecimal ids, UUIDs and long random words become `*`; what names a thing stays.
- The same name always gives the same pattern, on the clone and on the original.
- A name that already holds `*` keeps it literal as `\*`: a pattern never covers more by accident.
"""

from __future__ import annotations

import re

_SEPARATORS = re.compile(r"([^0-9A-Za-z]+)")
_VARIES = re.compile(r"\d+|(?=.*\d)[0-9a-fA-F]{8,}|(?=.*\d)[0-9A-Za-z]{16,}|[0-9a-fA-F]{32,}")


def pattern_of(name: str) -> str:
    """Return the pattern of a key or of one path segment, such as `session:*` for `session:17`."""
    escaped = name.replace("\\", "\\\\").replace("*", "\\*")
    parts = _SEPARATORS.split(escaped)
    found = "".join("*" if _VARIES.fullmatch(part) else part for part in parts)
    # A UUID is five varying words with dashes between them.
    return re.sub(r"\*(?:-\*)+", "*", found)
