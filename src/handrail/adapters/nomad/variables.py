"""The variables that a specification declares, and their values as HCL."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping

_PLAIN_TYPES = frozenset({"", "string", "number", "bool", "any"})
_VARIABLE = re.compile(r'^[ \t]*variable[ \t]+"?([\w-]+)"?[ \t]*\{', re.MULTILINE)
_TYPE = re.compile(r"\btype[ \t]*=[ \t]*([a-z]+)")


def declared_in(text: str) -> Mapping[str, str]:
    """Return the variables that a specification declares, to what type they are of: `map`.

    Found by their look: a full reading takes longer than all else that a plan does.
    """
    found = {}
    heads = list(_VARIABLE.finditer(text))
    ends = [each.start() for each in heads[1:]] + [len(text)]
    for head, end in zip(heads, ends, strict=False):
        kind = _TYPE.search(text, head.end(), end)
        found[head[1]] = kind[1] if kind else ""
    return found


def assignments(declared: Mapping[str, str], values: Mapping[str, str]) -> str:
    """Return values as a file of variables in HCL; those that nothing declares are left out.

    Args:
        declared: the variables, to their types.
        values: text; of a variable that is a list, map or object it is HCL or JSON.
    """
    lines = []
    for name in sorted(set(values) & set(declared)):
        is_plain = declared[name] in _PLAIN_TYPES
        lines.append(f"{name} = {quoted(values[name]) if is_plain else values[name].strip()}")
    return "\n".join(lines)


def quoted(text: str) -> str:
    """Return text as a string of HCL that means just that text."""
    found = json.dumps(text, ensure_ascii=False)
    return found.replace("${", "$${").replace("%{", "%%{")
