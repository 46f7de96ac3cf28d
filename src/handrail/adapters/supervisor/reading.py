"""An app's specification for supervisord: YAML in the app's repository, read strictly.

Rules:
- `${name}` stands for a variable, in values alone: what a variable holds cannot become a key.
  `$${name}` is the text `${name}`.
- What was read is written out whole, defaults too: two texts that mean the same are equal.
- In commands, environments and checks `{port}`, `{instance}` and `{image}` stand for what each
  instance has; other braces are text.
- A check is made from outside, by address: a program of the repository is run by nobody but
  supervisord.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

import yaml

from handrail.errors import DeclarationError, DeclarationErrors, Place
from handrail.estate.shapes import (
    COUNT,
    DURATION,
    NAME_TEXT,
    Choice,
    Key,
    ListOf,
    MapOf,
    Record,
    Source,
    Text,
    parse,
)

LONGEST_CHARACTERS = 512 * 1024
MOST_INSTANCES = 100
_HIGHEST_PORT = 65535
_VARIABLE = re.compile(r"\$(\$?)\{([^{}]*)\}")
_WORD = Text(r"[^\x00\ud800-\udfff]{0,32768}", "text")
_ENVIRONMENT = MapOf(_WORD, re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,255}"))
_PATH = Text(
    r"(?!/)(?!.*(^|/)\.\.(/|$))[^\x00-\x1f\\]{1,512}", "a path inside of the app's repository"
)
_ADDRESS = Text(r"(https?|tcp)://[^\s\x00-\x1f]{1,1000}", "an address: http://... or tcp://...")
_USER = Text(r"[A-Za-z_][A-Za-z0-9_.-]{0,31}\$?", "a user's name")


def _plain(**given: Any) -> dict[str, Any]:
    given.pop("place")
    return {name.replace("_", "-"): value for name, value in given.items() if value is not None}


def _task(*, place: Place, command: Any, environment: Any, **rest: Any) -> dict[str, Any]:
    return _plain(place=place, command=list(command), environment=dict(environment), **rest)


_STOP = Record(
    _plain,
    {
        "signal": Key(
            Choice("TERM", "HUP", "INT", "QUIT", "USR1", "USR2"), "what it is told", default="TERM"
        ),
        "wait": Key(DURATION, "how long it may take before it is killed", default=10),
    },
)
TASK = Record(
    _task,
    {
        "command": Key(
            ListOf(_WORD), "the program and its words; no shell reads them", required=True
        ),
        "instances": Key(COUNT, "how many run", default=1),
        "port": Key(COUNT, "of instance 0, each next one has the next; also in $PORT"),
        "image": Key(_WORD, "what `{image}` stands for, where the program runs one"),
        "directory": Key(_PATH, "where it runs, a path among `files`", default="."),
        "environment": Key(_ENVIRONMENT, "its environment beside supervisord's", default={}),
        "user": Key(_USER, "whom it runs as, where supervisord is root"),
        "check": Key(_ADDRESS, "what must answer before an instance is healthy"),
        "stop": Key(_STOP, "how it is ended", default={"signal": "TERM", "wait": 10}),
    },
)
UPDATE = Record(
    _plain,
    {
        "at-once": Key(COUNT, "how many instances are replaced at once", default=1),
        "canaries": Key(COUNT, "instances a task that are replaced first, and wait", default=0),
        "healthy": Key(DURATION, "how long an instance must run before it counts", default=2),
        "deadline": Key(DURATION, "how long some may take to get healthy", default=120),
    },
)
_UPDATE = {"at-once": 1, "canaries": 0, "healthy": 2, "deadline": 120}
APP = Record(
    _plain,
    {
        "app": Key(NAME_TEXT, "its name", required=True),
        "files": Key(ListOf(_PATH), "files and folders of the repository to be there", default=()),
        "update": Key(UPDATE, "how a new version takes over", default=_UPDATE),
        "tasks": Key(MapOf(TASK), "what runs", required=True),
    },
)


def read(text: str, name: str, variables: Mapping[str, str]) -> dict[str, Any]:
    """Return the body of a specification.

    Args:
        text: the YAML.
        name: its path in the repository, for errors.
        variables: what `${...}` stands for.

    Raises:
        DeclarationErrors: with every problem, each with its line.
    """
    source = Source(name)
    if len(text) > LONGEST_CHARACTERS:
        said = f"a specification has at most {LONGEST_CHARACTERS} characters"
        raise DeclarationErrors([DeclarationError("deploys.spec", said, at=Place(name, 1))])
    root, body = parse(text, source), None
    if root is not None:
        _fill(root, variables, source)
        body = APP.read(root, source)
        if body is not None:
            _check(body, root, source)
    elif not source.problems:
        source.problems.append(DeclarationError("deploys.spec", "it is empty", at=Place(name, 1)))
    if source.problems or body is None:
        raise DeclarationErrors([_ours(problem) for problem in source.problems])
    body["files"] = sorted(set(body["files"]))
    return dict(body)


def _ours(problem: DeclarationError) -> DeclarationError:
    return DeclarationError("deploys.spec", problem.message, at=problem.at, hint=problem.hint)


def _fill(root: yaml.Node, variables: Mapping[str, str], source: Source) -> None:
    """Put variables' values into every scalar; keys stay as they are written."""
    for node in _values(root):
        if isinstance(node.value, str) and "${" in node.value:
            node.value = _VARIABLE.sub(
                lambda found, node=node: _value(found, node, variables, source),  # type: ignore[misc]
                node.value,
            )


def _value(
    found: re.Match[str], node: yaml.Node, variables: Mapping[str, str], source: Source
) -> str:
    if found[1]:
        return found[0][1:]
    if found[2] not in variables:
        known = ", ".join(sorted(variables)[:12]) or "none"
        said = f"the variable `{found[2]}` has no value"
        source.problem("deploys.spec", said, node, f"variables that have one: {known}")
    return variables.get(found[2], "")


def _values(root: yaml.Node) -> Iterator[yaml.ScalarNode]:
    """Yield every scalar that is no key, once; an alias leads to what was seen before."""
    seen: set[int] = set()
    stack = [root]
    while stack:
        node = stack.pop()
        if id(node) in seen:
            continue
        seen.add(id(node))
        if isinstance(node, yaml.ScalarNode):
            yield node
        elif isinstance(node, yaml.MappingNode):
            stack += [value for _, value in node.value]
        elif isinstance(node, yaml.SequenceNode):
            stack += node.value


def _check(body: Mapping[str, Any], root: yaml.Node, source: Source) -> None:
    """Report what no single value shows."""
    if not body["tasks"]:
        source.problem("deploys.spec", "it has no task", root)
    if body["update"]["at-once"] < 1 or body["update"]["deadline"] <= body["update"]["healthy"]:
        source.problem(
            "deploys.spec", "`at-once` is at least 1, and `deadline` longer than `healthy`", root
        )
    if sum(task["instances"] for task in body["tasks"].values()) > MOST_INSTANCES:
        source.problem("deploys.spec", f"at most {MOST_INSTANCES} instances in all", root)
    for name, task in body["tasks"].items():
        for why in _wrong(task):
            source.problem("deploys.spec", f"task `{name}`: {why}", root)


def _wrong(task: Mapping[str, Any]) -> Iterator[str]:
    if not (task["command"] and task["command"][0]) or task["command"][0].startswith("-"):
        yield "`command` is missing: the program and its words"
    port = task.get("port")
    if port is not None and not 1 <= port <= _HIGHEST_PORT - task["instances"]:
        yield "`port` is between 1 and 65535, for every instance"
    said = [*task["command"], *task["environment"].values(), task.get("check", "")]
    for word, key in (("{port}", "port"), ("{image}", "image")):
        if key not in task and any(word in text for text in said):
            yield f"`{word}` is used, and there is no `{key}`"
