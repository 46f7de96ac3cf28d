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

from handrail.errors import DeclarationError, Place

TEXT_BYTES = 1024 * 1024


def read(text: str, name: str) -> Mapping[str, Any]:
    """Return the blocks of a specification in HCL.

    Raises:
        DeclarationError: it does not parse; names its line.
    """
    _check_size(text, name)
    try:
        found = hcl2.loads(text if text.endswith("\n") else f"{text}\n")
    except UnexpectedInput as error:
        line = error.line if error.line > 0 else _last(text)
        raise _wrong(f"it is not HCL: unexpected {_told(error)}", name, line) from None
    except (LarkError, ValueError, TypeError, KeyError, RecursionError) as error:
        raise _wrong(f"it is not HCL: {type(error).__name__}", name, None) from None
    return found


def read_json(text: str, name: str) -> Mapping[str, Any]:
    """Return the job of a specification in JSON: as it is, or under `Job`.

    Raises:
        DeclarationError: it does not parse, or is no job.
    """
    _check_size(text, name)
    try:
        found = json.loads(text)
    except json.JSONDecodeError as error:
        raise _wrong(f"it is not JSON: {error.msg}", name, error.lineno) from None
    except RecursionError:
        raise _wrong("it is not JSON that anybody could mean", name, None) from None
    job = found.get("Job", found) if isinstance(found, dict) else None
    if not isinstance(job, dict) or not isinstance(job.get("ID"), str) or not job["ID"]:
        raise _wrong("it is no job: an object with an `ID`, or one with `Job`", name, 1)
    return job


def is_json(text: str, name: str) -> bool:
    """Whether a specification is meant as JSON."""
    return name.endswith(".json") or text.lstrip().startswith("{")


def _check_size(text: str, name: str) -> None:
    if len(text.encode("utf-8", "replace")) > TEXT_BYTES:
        raise _wrong(f"it is larger than {TEXT_BYTES // 1024} KiB", name, None)
    if "\x00" in text:
        raise _wrong(
            "it is not text: it holds a zero byte",
            name,
            text.count("\n", 0, text.index("\x00")) + 1,
        )


def _told(error: Any) -> str:
    token = getattr(error, "token", None)
    if token is not None and str(token.type) == "$END":
        return "end of the file"
    return f"text at column {error.column}"


def _last(text: str) -> int:
    return text.count("\n") + 1


def _wrong(why: str, name: str, line: int | None) -> DeclarationError:
    return DeclarationError(
        "deploys.spec", f"`{name}` is no specification: {why}", at=Place(name, line)
    )
