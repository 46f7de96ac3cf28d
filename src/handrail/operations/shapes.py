"""The shape of `operations/*.yaml`."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Mapping
from typing import Any

import yaml

from handrail.errors import Place
from handrail.estate.kinds import CHECKS
from handrail.estate.model import Check
from handrail.estate.shapes import (
    COUNT,
    DURATION,
    NAME,
    NAME_TEXT,
    REFERENCE,
    TEXT,
    Choice,
    Key,
    ListOf,
    MapOf,
    Record,
    Source,
    Text,
)
from handrail.operations import questions as asked
from handrail.operations.model import (
    DeclaredEffect,
    Operation,
    Parameter,
    Question,
    Schedule,
    Selector,
    Undo,
    Watch,
    Waves,
)
from handrail.operations.schedules import SchedulesShape

PARTS = ("url", "host", "port", "user", "password", "database", "path")
VERBS = ("drop", "truncate", "delete", "update", "alter", "insert", "create")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_IRREVERSIBLE = re.compile(r"irreversible *(:|$)")
_AT_LEAST_ONE = Text(
    r"[1-9][0-9]{0,8}",
    "a whole number from 1",
    convert=int,
    number={"type": "integer", "minimum": 1},
)
_NOUN = Text(r"[a-z]+ \S.*", "a kind and a name, such as `table sessions`")


class _PartShape:
    """A part of the connection, `password`; or of another store's, `cache.password`."""

    _own = Choice(*PARTS)
    _named = Text(
        rf"{NAME.pattern}\.({'|'.join(PARTS)})", "a store's name and a part, such as `cache.url`"
    )

    def read(self, node: yaml.Node, source: Source) -> str | None:
        is_named = isinstance(node, yaml.ScalarNode) and "." in node.value
        found: str | None = (self._named if is_named else self._own).read(node, source)
        return found

    def schema(self) -> dict[str, Any]:
        return {"anyOf": [self._own.schema(), self._named.schema()]}


class _Words:
    """A command line: text that is split as a shell splits words, or a list of words."""

    def read(self, node: yaml.Node, source: Source) -> tuple[str, ...] | None:
        if isinstance(node, yaml.SequenceNode):
            words = ListOf(TEXT).read(node, source)
        else:
            text = TEXT.read(node, source)
            words = None if text is None else _split(text, node, source)
        if words == ():
            source.problem("estate.wrong-type", "a command line must not be empty", node)
            return None
        return words

    def schema(self) -> dict[str, Any]:
        words = {"type": "array", "items": TEXT.schema(), "minItems": 1}
        return {"anyOf": [{"type": "string", "minLength": 1}, words]}


def _split(text: str, node: yaml.Node, source: Source) -> tuple[str, ...] | None:
    try:
        return tuple(shlex.split(text))
    except ValueError as error:
        source.problem("estate.wrong-type", f"not a command line: {error}", node)
        return None


class _UndoShape:
    """`restore`, `irreversible: <why>` or a script."""

    _mapping = Record(dict, {"irreversible": Key(TEXT, "why it cannot be undone", required=True)})

    def read(self, node: yaml.Node, source: Source) -> Any:
        if isinstance(node, yaml.MappingNode):
            found = self._mapping.read(node, source)
            return Undo("irreversible", reason=found["irreversible"]) if found else None
        if isinstance(node, yaml.ScalarNode) and node.value == "restore":
            return Undo("restore")
        if isinstance(node, yaml.ScalarNode) and _IRREVERSIBLE.match(node.value):
            reason = node.value.partition(":")[2].strip()
            if reason:
                return Undo("irreversible", reason=reason)
            return source.problem(
                "estate.wrong-type",
                "say why it is irreversible",
                node,
                "undo: {irreversible: the mails are sent}",
            )
        words = _Words().read(node, source)
        return None if words is None else Undo("script", argv=words)

    def schema(self) -> dict[str, Any]:
        unsaid = {"not": {"pattern": "^irreversible *:? *$"}}
        return {"anyOf": [{"const": "restore"}, _Words().schema() | unsaid, self._mapping.schema()]}


class _EffectShape:
    """`{delete: table sessions, rows: 500}`."""

    _mapping = Record(
        dict,
        {
            **{verb: Key(_NOUN, f"what it may {verb}", default="") for verb in VERBS},
            "rows": Key(COUNT, "the most rows"),
        },
    )

    def read(self, node: yaml.Node, source: Source) -> DeclaredEffect | None:
        found = self._mapping.read(node, source)
        if found is None:
            return None
        verbs = [verb for verb in VERBS if found[verb]]
        if len(verbs) != 1:
            source.problem(
                "estate.wrong-type", "an effect has exactly one of " + ", ".join(VERBS), node
            )
            return None
        kind, _, name = found[verbs[0]].partition(" ")
        return DeclaredEffect(verbs[0], kind, name.strip(), found["rows"])

    def schema(self) -> dict[str, Any]:
        return self._mapping.schema() | {"oneOf": [{"required": [verb]} for verb in VERBS]}


class _WatchedShape:
    """A resource whose checks are watched, or a check of the operation's own."""

    def read(self, node: yaml.Node, source: Source) -> Any:
        if isinstance(node, yaml.ScalarNode) and "://" not in node.value:
            return REFERENCE.read(node, source)
        found = CHECKS.read(node, source)
        return found[0] if found else None

    def schema(self) -> dict[str, Any]:
        return {"anyOf": [REFERENCE.schema(), CHECKS.schema()]}


def _watch(*, place: Place, checks: tuple[Any, ...], soak: int, every: int) -> Watch:
    del place
    return Watch(
        tuple(c for c in checks if isinstance(c, Check)),
        tuple(c for c in checks if isinstance(c, str)),
        soak,
        max(1, every),
    )


def _selector(*, place: Place, name: str, environment: str) -> tuple[str, str]:
    del place
    return name, environment


class _OnShape:
    """`store/pilot-db`, or `{store: {environment: pilot}}`."""

    _mapping = MapOf(
        Record(
            _selector,
            {
                "name": Key(NAME_TEXT, "the one resource", default=""),
                "environment": Key(NAME_TEXT, "every resource of this environment", default=""),
            },
        )
    )

    def read(self, node: yaml.Node, source: Source) -> Selector | None:
        if isinstance(node, yaml.ScalarNode):
            reference = REFERENCE.read(node, source)
            if reference is None:
                return None
            kind, _, name = reference.partition("/")
            return Selector(kind, name)
        found = self._mapping.read(node, source)
        if found is None or len(found) != 1:
            if found is not None:
                source.problem("estate.wrong-type", "`on` names exactly one kind", node)
            return None
        kind, (name, environment) = next(iter(found.items()))
        return Selector(kind, name, environment)

    def schema(self) -> dict[str, Any]:
        one = {"minProperties": 1, "maxProperties": 1}
        return {"anyOf": [REFERENCE.schema(), self._mapping.schema() | one]}


def _waves(*, soak: tuple[int, ...], **rest: Any) -> Waves:
    return Waves(soak_s=soak, **rest)


class _WavesShape:
    """How it goes over many targets."""

    _mapping = Record(
        _waves,
        {
            "sizes": Key(
                ListOf(
                    Text(
                        r"[1-9][0-9]{0,5}|[1-9][0-9]?(\.[0-9]+)? ?%|0\.[0-9]*[1-9][0-9]* ?%|all",
                        "a number of targets, a percentage such as `10%`, or `all`",
                        number={"type": "integer", "minimum": 1},
                    )
                ),
                "targets of each wave, the last `all` that are left; else `[1, 10%, all]`",
                default=Waves.sizes,
            ),
            "soak": Key(
                ListOf(DURATION),
                "how long a wave is left alone before the next: one for all, or one a pause",
                default=Waves.soak_s,
            ),
            "at-once": Key(_AT_LEAST_ONE, "targets that are under way at once", default=10),
            "at-once-per": Key(
                MapOf(_AT_LEAST_ONE), "the same for each member of a group: `{site: 2}`", default={}
            ),
            "failures": Key(COUNT, "failed targets that are borne; one more stops it", default=0),
            "failures-per": Key(
                MapOf(COUNT), "the same for each member of a group: `{site: 1}`", default={}
            ),
            "then": Key(
                Choice("hold", "undo"),
                "when it stops: `hold` for a human, or `undo` all that was done",
                default="hold",
            ),
            "first": Key(ListOf(REFERENCE), "targets that go first, in this order", default=()),
        },
    )

    def read(self, node: yaml.Node, source: Source) -> Waves | None:
        found: Waves | None = self._mapping.read(node, source)
        if found is None:
            return None
        for key, said in self._wrong(found):
            source.problem("operations.waves", said, _at(node, key))
            return None
        return found

    @staticmethod
    def _wrong(found: Waves) -> Iterator[tuple[str, str]]:
        """Yield each key whose value does not fit the others, and why."""
        if not found.sizes or found.sizes[-1] != "all":
            yield "sizes", "the last wave is `all`: else some targets were in none"
        if "all" in found.sizes[:-1]:
            yield "sizes", "`all` stands in front of another wave, which would be empty"
        pauses = len(found.sizes) - 1
        if len(found.soak_s) not in {1, pauses}:
            yield "soak", f"{len(found.soak_s)} times for {pauses} pauses between waves"
        twice = [ref for ref in found.first if found.first.count(ref) > 1]
        if twice:
            yield "first", f"`{twice[0]}` stands twice"

    def schema(self) -> dict[str, Any]:
        return self._mapping.schema()


def _at(node: yaml.Node, name: str) -> yaml.Node:
    """Return the value of a key in a mapping; the mapping where it has none such."""
    pairs = node.value if isinstance(node, yaml.MappingNode) else ()
    return next((value for key, value in pairs if key.value == name), node)


def _parameter(
    *,
    place: Place,
    type: str,  # noqa: A002  the key's own name
    default: str | None,
    choices: tuple[str, ...],
    summary: str,
) -> Parameter:
    del place
    return Parameter("", "choice" if choices else type, default, choices, summary)


def _operation(
    *,
    place: Place,
    operation: str,
    run: tuple[str, ...],
    on: Selector,
    parameters: Mapping[str, Parameter],
    timeout: int,
    schedule: tuple[Schedule, ...],
    questions: Mapping[str, Question],
    **rest: Any,
) -> Operation:
    named = tuple(
        Parameter(name, p.type, p.default, p.choices, p.summary) for name, p in parameters.items()
    )
    return Operation(
        name=operation,
        argv=run,
        on=on,
        place=place,
        parameters=named,
        timeout_s=timeout,
        schedules=schedule,
        questions=asked.named(questions),
        **rest,
    )


PARAMETER = Record(
    _parameter,
    {
        "type": Key(Choice("text", "int", "bool"), "what it may hold", default="text"),
        "default": Key(TEXT, "what it is when nobody says; without one it must be given"),
        "choices": Key(ListOf(TEXT), "the only values it may have", default=()),
        "summary": Key(TEXT, "one sentence for people", default=""),
    },
)

OPERATION = Record(
    _operation,
    {
        "operation": Key(NAME_TEXT, "its name", required=True),
        "summary": Key(TEXT, "one sentence for people", default=""),
        "run": Key(
            _Words(), "the script, relative to the repository, and its arguments", required=True
        ),
        "on": Key(_OnShape(), "what it is for", required=True),
        "also": Key(ListOf(REFERENCE), "other stores that it touches", default=()),
        "runs-on": Key(
            REFERENCE, "the node that its scripts run on; else this machine", default=""
        ),
        "undo": Key(_UndoShape(), "`restore`, a script, or `irreversible: <why>`", required=True),
        "watch": Key(
            Record(
                _watch,
                {
                    "checks": Key(
                        ListOf(_WatchedShape()), "resources and checks to watch", default=()
                    ),
                    "soak": Key(DURATION, "how long everything must stay healthy", default=60),
                    "every": Key(DURATION, "between two probes", default=5),
                },
            ),
            "what must stay healthy afterwards",
            default=Watch(),
        ),
        "parameters": Key(MapOf(PARAMETER), "what may be given with -p", default={}),
        "questions": Key(asked.QUESTIONS, "what the script may ask while it runs", default={}),
        "environment": Key(
            MapOf(_PartShape(), _VARIABLE),
            "variables that the script reads its connection from",
            default={},
        ),
        "inherit": Key(
            ListOf(Text(_VARIABLE.pattern, "a variable's name")),
            "variables it gets from whoever runs it",
            default=(),
        ),
        "uses": Key(ListOf(TEXT), "files and folders it uses besides its own folder", default=()),
        "timeout": Key(DURATION, "when it is ended", default=3600),
        "waves": Key(_WavesShape(), "how it goes over all of its targets, some at a time"),
        "effects": Key(
            ListOf(_EffectShape()), "the most that it does, where nobody rehearses", default=()
        ),
        "schedule": Key(
            SchedulesShape(), "when it begins by itself, and is expected to succeed", default=()
        ),
    },
)
