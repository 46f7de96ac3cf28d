"""An app's file of variables, as it stands in its repository: `name = "value"`, or YAML. Pure.

Rules:
- YAML where its name ends in `.yaml`, `.yml` or `.json`, and flat: one name, one value a line.
- Else lines of HCL: text in quotes, numbers, `true`, `false`; a list stays as it is written.
- An error names file and line, and never shows a value: it may be one that nobody should read.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping

import yaml

from handrail.errors import DeclarationError, Place

_LINE = re.compile(r"\s*([A-Za-z_][A-Za-z0-9_-]*)\s*=\s*(.*?)\s*")
_QUOTED = re.compile(r'("(?:[^"\\]|\\.)*")\s*(?:(?:#|//).*)?')
_LIST = re.compile(r'(\[(?:[^\[\]#"]|"(?:[^"\\]|\\.)*")*\])\s*(?:(?:#|//).*)?')
_BARE = re.compile(r"(-?\d+(?:\.\d+)?|true|false)\s*(?:(?:#|//).*)?")
_YAML = (".yaml", ".yml", ".json")
_DEEPEST = 2
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_-]*")


def read(text: str, path: str) -> Mapping[str, str]:
    """Return the variables by name.

    Args:
        text: of the file.
        path: its name in the repository, for errors.

    Raises:
        DeclarationError: `deploys.spec`: a line is none of these.
    """
    return _yaml(text, path) if path.lower().endswith(_YAML) else _hcl(text, path)


def _hcl(text: str, path: str) -> Mapping[str, str]:
    found: dict[str, str] = {}
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip() or line.lstrip().startswith(("#", "//")):
            continue
        match = _LINE.fullmatch(line)
        if match is None:
            raise _wrong(path, number, 'this is no line `name = "value"`')
        name, written = match.groups()
        if name in found:
            raise _wrong(path, number, f"`{name}` is there twice")
        found[name] = _value(written, path, number, name)
    return found


def _value(written: str, path: str, number: int, name: str) -> str:
    quoted = _QUOTED.fullmatch(written)
    if quoted is not None:
        try:
            return str(json.loads(quoted[1], strict=False))
        except ValueError as error:
            raise _wrong(path, number, f"the value of `{name}` has an unknown escape") from error
    bare = _BARE.fullmatch(written) or _LIST.fullmatch(written)
    if bare is not None:
        return bare[1]
    raise _wrong(
        path, number, f"the value of `{name}` is no text in quotes, number, `true`, `false` or list"
    )


def _yaml(text: str, path: str) -> Mapping[str, str]:
    try:
        line = _too_deep(text)
        if line is not None:
            raise _wrong(path, line, "this is nested too deep for variables")
        node = yaml.compose(text, Loader=yaml.CSafeLoader)
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise _wrong(path, line, f"this is no YAML: {error.problem}") from error
    except (yaml.YAMLError, RecursionError) as error:
        raise _wrong(path, 1, "this is no YAML") from error
    if node is None:
        return {}
    if not isinstance(node, yaml.MappingNode):
        raise _wrong(path, 1, "this is no list of names with values")
    found: dict[str, str] = {}
    for key, value in node.value:
        line = key.start_mark.line + 1
        if not isinstance(key, yaml.ScalarNode) or not _NAME.fullmatch(key.value):
            raise _wrong(path, line, "this is no name of a variable")
        if key.value in found:
            raise _wrong(path, line, f"`{key.value}` is there twice")
        found[key.value] = _told(value, path, line, key.value)
    return found


def _too_deep(text: str) -> int | None:
    """Return the line that nests deeper than variables do; None where none does.

    Event by event: what builds a tree of it ends the process where that is a million deep.
    """
    depth = 0
    for event in yaml.parse(text, Loader=yaml.CSafeLoader):
        depth += isinstance(event, yaml.CollectionStartEvent)
        depth -= isinstance(event, yaml.CollectionEndEvent)
        if depth > _DEEPEST:
            return event.start_mark.line + 1 if event.start_mark else 1
    return None


def _told(node: yaml.Node, path: str, line: int, name: str) -> str:
    """Return a value as HCL would have it: a list of texts in brackets."""
    if isinstance(node, yaml.ScalarNode) and node.tag != "tag:yaml.org,2002:null":
        return str(node.value)
    if isinstance(node, yaml.SequenceNode) and all(
        isinstance(one, yaml.ScalarNode) for one in node.value
    ):
        return json.dumps([one.value for one in node.value])
    raise _wrong(path, line, f"the value of `{name}` is neither one value nor a list of such")


def _wrong(path: str, line: int, why: str) -> DeclarationError:
    return DeclarationError(
        "deploys.spec", why, at=Place(path, line), hint='as `replicas = 3` or `name = "value"`'
    )
