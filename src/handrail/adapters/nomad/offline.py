"""A specification's text read on this machine, by python-hcl2: where its cluster is away, or first.

Rules:
- Only what does not parse is wrong here: what blocks and attributes mean, the cluster knows alone.
- Not a word of a specification is in an error: a secret may stand in it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import hcl2
from lark.exceptions import LarkError, UnexpectedInput

from handrail.adapters.nomad.texts import wrong


def read(text: str, name: str) -> Mapping[str, Any]:
    """Return the blocks of a specification in HCL.

    Raises:
        DeclarationError: it does not parse; names its line.
    """
    try:
        found = hcl2.loads(text if text.endswith("\n") else f"{text}\n")
    except UnexpectedInput as error:
        line = error.line if error.line > 0 else _last(text)
        raise wrong(f"it is not HCL: unexpected {_told(error)}", name, line) from None
    except (LarkError, ValueError, TypeError, KeyError, RecursionError) as error:
        raise wrong(f"it is not HCL: {type(error).__name__}", name, None) from None
    return found


def read_json(text: str, name: str) -> Mapping[str, Any]:
    """Return the job of a specification in JSON: as it is, or under `Job`.

    Raises:
        DeclarationError: it does not parse, or is no job.
    """
    try:
        found = json.loads(text)
    except json.JSONDecodeError as error:
        raise wrong(f"it is not JSON: {error.msg}", name, error.lineno) from None
    except RecursionError:
        raise wrong("it is not JSON that anybody could mean", name, None) from None
    job = found.get("Job", found) if isinstance(found, dict) else None
    if not isinstance(job, dict) or not isinstance(job.get("ID"), str) or not job["ID"]:
        raise wrong("it is no job: an object with an `ID`, or one with `Job`", name, 1)
    return job


def is_json(text: str, name: str) -> bool:
    """Whether a specification is meant as JSON."""
    return name.endswith(".json") or text.lstrip().startswith("{")


def _told(error: Any) -> str:
    token = getattr(error, "token", None)
    if token is not None and str(token.type) == "$END":
        return "end of the file"
    return f"text at column {error.column}"


def _last(text: str) -> int:
    return text.count("\n") + 1
