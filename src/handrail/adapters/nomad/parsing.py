"""A specification read by the cluster itself; by python-hcl2 here where the cluster is away.

Rules:
- HCL goes to the server's own parser: what it means is what this cluster would run.
- JSON is taken as it is: what `nomad job inspect` or `nomad job run -output` prints.
- A value of a variable is never shown, also where the server shows it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from handrail.adapters.nomad import files
from handrail.adapters.nomad.link import Link
from handrail.adapters.nomad.specs import spec_of
from handrail.adapters.nomad.texts import check, wrong
from handrail.adapters.nomad.variables import assignments, declared_in
from handrail.errors import DeclarationError, PlatformError
from handrail.kits.deploys.model import Spec

_AT = re.compile(r"input\.hcl:(?P<line>\d+)(?:,(?P<column>\d+))?[-\d,]*:\s*(?P<why>.*)", re.DOTALL)
_BEGINNING = re.compile(r"^Failed to parse job: *(<nil>: *)?", re.IGNORECASE)
_ABOUT = re.compile(r'variable "([\w-]+)"|\bvar\.([\w-]+)')
_INVALID = re.compile(r"^\d+ errors? occurred", re.IGNORECASE)
_SHORTEST_HIDDEN = 3
_SAID_CHARACTERS = 500


def parse(link: Link, text: str, name: str, variables: Mapping[str, str]) -> Spec:
    """Return what a specification says.

    Raises:
        DeclarationError: it does not parse, or is for another namespace or region; names its line.
        PlatformError: the cluster is away, and nothing is wrong with the specification as such.
    """
    check(text, name)
    if name.endswith(".json") or text.lstrip().startswith("{"):
        from handrail.adapters.nomad import offline  # noqa: PLC0415  its parser is slow to import

        return spec_of(_placed(link, offline.read_json(text, name), name))
    marked, found = files.mark(text, name)
    body = _by_server(link, marked, name, variables)
    files.check(body, found, name)
    return spec_of(_placed(link, body, name), tuple(sorted(found)))


def _by_server(link: Link, text: str, name: str, variables: Mapping[str, str]) -> Mapping[str, Any]:
    declared = declared_in(text)
    body = {
        "JobHCL": text,
        "Canonicalize": True,
        "Variables": assignments(declared, variables),
    }

    def refused(said: str) -> DeclarationError | None:
        return _refusal(said, text, name, variables) if _BEGINNING.match(said) else None

    try:
        found = link.send("/v1/jobs/parse", body, wrong=refused)
    except PlatformError as error:
        if error.is_passing:
            from handrail.adapters.nomad import offline  # noqa: PLC0415  as above

            offline.read(text, name)  # an error of it is told first: it can be mended meanwhile
        raise
    if not isinstance(found, dict):
        raise wrong("the cluster reads no job in it", name, None)
    return found


def _refusal(said: str, text: str, name: str, variables: Mapping[str, str]) -> DeclarationError:
    """Return the server's words about a specification, with its line."""
    told = _BEGINNING.sub("", hide(said.strip(), variables))
    at = _AT.search(told)
    if at is None:
        return wrong(_short(told), name, _line_of(told, text))
    column = f" (column {at['column']})" if at["column"] else ""
    why = _AT.split(at["why"])[0] if _AT.search(at["why"]) else at["why"]
    return wrong(f"{_short(why)}{column}", name, int(at["line"]))


def _line_of(told: str, text: str) -> int | None:
    """Return where the variable is declared that the server speaks of: it says no line then."""
    named = _ABOUT.search(told)
    at = (
        re.search(rf'^\s*variable\s+"?{re.escape(named[1] or named[2])}"?', text, re.MULTILINE)
        if named
        else None
    )
    return text.count("\n", 0, at.end()) + 1 if at else None


def invalid(said: str, name: str) -> DeclarationError | None:
    """Return the error of a job that the server will not run as it is; None for another one."""
    line = " ".join(said.split())
    if not _INVALID.match(line):
        return None
    return DeclarationError(
        "deploys.spec",
        f"the cluster would not run `{name}`: {_short(_INVALID.sub('', line).strip(': *'))}",
    )


def hide(text: str, variables: Mapping[str, str]) -> str:
    """Return text without the values of variables."""
    for name, value in sorted(variables.items(), key=lambda item: -len(item[1])):
        for each in {value, value.strip(), *value.split("\n")}:
            if len(each) >= _SHORTEST_HIDDEN:
                text = text.replace(each, f"(value of {name})")
    return text


def _placed(link: Link, body: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """Return a job with the namespace and region that it goes to.

    Raises:
        DeclarationError: it says another one than the platform is declared with.
    """
    found = dict(body)
    for key, ours, general in (
        ("Namespace", link.where.namespace, "default"),
        ("Region", link.where.region, "global"),
    ):
        said = found.get(key) or general
        if ours and said not in {ours, general}:
            raise wrong(
                f"it is for {key.lower()} `{said}`, and `{link.resource}` is for `{ours}`",
                name,
                None,
            )
        found[key] = ours or said
    found["Name"] = found.get("Name") or found["ID"]
    return found


def _short(text: str) -> str:
    line = " ".join(text.split()).strip(" *;.")
    return line if len(line) <= _SAID_CHARACTERS else f"{line[:_SAID_CHARACTERS]}..."
