"""What stands in a specification in HCL, and whether all of it stands in Nomad's JSON, too.

A second way to read it, by python-hcl2, that knows nothing of what the adapter does.

Rules:
- Each group and task is looked for by its name; within it, each block and attribute by its name as
  Nomad's JSON has it, and each plain value as what it means there (a duration in nanoseconds).
- An expression (`var.x`, a function, an interpolation of HCL's own) must be there by name alone.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

import hcl2
from hcl2.utils import SerializationOptions

_MAPS = {"env", "meta", "canary_meta", "config", "options", "header", "headers", "params"}
# HCL's names to those of JSON, where these are not the same without underscores.
_NAMES = {
    "attribute": ("LTarget", "Attribute"),
    "value": ("RTarget", "Value"),
    "operator": ("Operand",),
    "group": ("TaskGroups",),
    "identity": ("Identities",),
    "aud": ("Audience",),
    "affinity": ("Affinities",),
    "distinct_hosts": ("Operand",),
    "reschedule": ("ReschedulePolicy",),
    "restart": ("RestartPolicy",),
    "data": ("EmbeddedTmpl",),
    "destination": ("DestPath", "RelativeDest", "Destination"),
    "source": ("GetterSource", "SourcePath", "Source"),
    "mode": ("GetterMode", "Mode"),
    "options": ("GetterOptions", "Options"),
    "memory": ("MemoryMB",),
    "memory_max": ("MemoryMaxMB",),
    "env": ("Env", "Envvars"),
    "left_delimiter": ("LeftDelim",),
    "right_delimiter": ("RightDelim",),
    "cron": ("Spec",),
    "crons": ("Specs",),
    "static": ("Value", "Static"),
    "port": ("PortLabel", "Port", "DynamicPorts", "ReservedPorts"),
    "logs": ("LogConfig",),
    "max_file_size": ("MaxFileSizeMB",),
    "size": ("SizeMB",),
    "dns": ("DNS",),
    "network": ("Networks",),
    "mount": ("VolumeMounts",),
    "csi_plugin": ("CSIPluginConfig",),
    "perms": ("Perms",),
    "hook": ("Hook",),
    "task": ("Tasks", "TaskName"),
    "check": ("Checks",),
    "check_restart": ("CheckRestart",),
}
_UNITS = {"ns": 1, "us": 10**3, "ms": 10**6, "s": 10**9, "m": 60 * 10**9, "h": 3600 * 10**9}
_DURATION = re.compile(r"(?:\d+(?:\.\d+)?(?:ns|us|ms|s|m|h))+")


def lost(text: str, body: Mapping[str, Any]) -> list[str]:
    """Return what of a specification is not in its JSON."""
    options = SerializationOptions(strip_string_quotes=True, explicit_blocks=False)
    (job,) = hcl2.loads(text, serialization_options=options)["job"]
    ((name, block),) = job.items()
    missing = [] if body.get("ID") == name else [f"job {name}"]
    return missing + list(_missing(block, body, f"job {name}"))


def _missing(block: Mapping[str, Any], json: Any, path: str) -> Iterator[str]:
    for name, value in block.items():
        if name.startswith("__"):
            continue
        where = f"{path} > {name}"
        for each in value if _is_blocks(value) else [value]:
            yield from _of(name, each, json, where)


def _of(name: str, value: Any, json: Any, where: str) -> Iterator[str]:
    found = list(_named(name, json))
    if name in _MAPS and isinstance(value, dict):
        pairs = {key: each for key, each in value.items() if not key.startswith("__")}
        for key, each in pairs.items():
            if not any(_has(tree, key, each) for tree in found):
                yield f"{where} > {key}"
    elif isinstance(value, dict) and _is_labelled(name, value):
        ((label, inner),) = ((k, v) for k, v in value.items() if not k.startswith("__"))
        inside = list(_labelled(found, label))
        if not inside:
            yield f"{where} {label}"
        else:
            yield from _missing(inner, inside, f"{where} {label}")
    elif isinstance(value, dict):
        if not found:
            yield where
        yield from _missing(value, found, where)
    elif not any(_equal(each, value) for each in found):
        yield f"{where} = {value!r}"


def _is_blocks(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(each, dict) for each in value)


def _is_labelled(name: str, value: Mapping[str, Any]) -> bool:
    inner = [each for key, each in value.items() if not key.startswith("__")]
    labelled = {"group", "task", "volume", "port"}
    return name in labelled and len(inner) == 1 and isinstance(inner[0], dict)


def _labelled(found: list[Any], label: str) -> Iterator[Any]:
    """Give the trees that a label names: by key, `Name` or `Label`."""
    for tree in found:
        for each in tree if isinstance(tree, list) else [tree]:
            if isinstance(each, dict):
                if label in each:
                    yield each[label]
                if label in {each.get("Name"), each.get("Label")}:
                    yield each


def _named(name: str, json: Any) -> Iterator[Any]:
    """Give what stands under a name of HCL, however deep."""
    plain = name.replace("_", "").lower()
    wanted = {plain, f"{plain}s", *(each.lower() for each in _NAMES.get(name, ()))}
    if isinstance(json, dict):
        for key, value in json.items():
            if key.lower() in wanted:
                yield value
            yield from _named(name, value)
    elif isinstance(json, list):
        for each in json:
            yield from _named(name, each)


def _has(tree: Any, key: str, value: Any) -> bool:
    """Whether a map of the team's own has a pair; blocks in it are lists of maps there."""
    trees = tree if isinstance(tree, list) else [tree]
    return any(
        isinstance(each, dict) and key in each and _equal(each[key], value) for each in trees
    )


def _equal(there: Any, value: Any) -> bool:  # noqa: PLR0911  one return for each kind of value
    if isinstance(value, str) and "${" in value and not isinstance(there, str):
        return True  # an expression that gives a list, map or number
    if isinstance(value, str):
        return _text(there, value)
    if isinstance(value, bool):
        return there is value or there in {str(value).lower(), "distinct_hosts" if value else ""}
    if isinstance(value, int | float):
        return there == value or str(there) == str(value)
    if isinstance(value, dict):
        pairs = [(k, v) for k, v in value.items() if not k.startswith("__")]
        return all(_has(there, key, each) for key, each in pairs)
    if isinstance(value, list) and _is_blocks(value):
        return all(any(_equal(one, each) for one in _list(there)) for each in value)
    if isinstance(value, list):
        return (
            isinstance(there, list) and len(there) == len(value) and all(map(_equal, there, value))
        )
    return False


def _text(there: Any, value: str) -> bool:
    if isinstance(there, bool | int | float):
        return str(there).lower() == value or (
            _DURATION.fullmatch(value) is not None and there == _nanoseconds(value)
        )
    if not isinstance(there, str):
        return False
    # A heredoc is told with its marks; what HCL computes is not known here.
    return there == value or "${" in value or value.startswith("<<") or there in value


def _nanoseconds(text: str) -> float:
    pairs = re.findall(r"(\d+(?:\.\d+)?)(ns|us|ms|s|m|h)", text)
    return sum(float(count) * _UNITS[unit] for count, unit in pairs)


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]
