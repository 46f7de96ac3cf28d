"""The kinds of resource that the core knows, as shapes. A kit adds its own by `register`.

Rules:
- A kind stands under its plural in a file of `estate/`.
- Every kind may declare an environment, needs, checks and contraindications.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import yaml

from handrail.errors import Place
from handrail.estate.model import (
    Action,
    Address,
    BackupRule,
    Check,
    Contraindication,
    Environment,
    Need,
    Resource,
    StoreSettings,
)
from handrail.estate.shapes import (
    COUNT,
    DATE,
    DURATION,
    FLAG,
    NAME_TEXT,
    REFERENCE,
    TEXT,
    Choice,
    Either,
    Key,
    ListOf,
    MapOf,
    Record,
    Source,
    Text,
    nearest,
    placed,
)

DAY_S = 86400


def _address(*, place: Place, env: str, file: str) -> Address:
    del place
    return Address(env=env, file=file)


ADDRESS = Either(
    Text(convert=lambda text: Address(value=text), saying="an address"),
    Record(
        _address,
        {
            "env": Key(
                Text(r"[A-Za-z_][A-Za-z0-9_]*", "a variable's name"),
                "environment variable that holds it",
                default="",
            ),
            "file": Key(TEXT, "file that holds it, and nothing else", default=""),
        },
    ),
)


class _SecretShape:
    """`{env: NAME}` or `{file: PATH}`: a value itself would stand in git for ever."""

    def read(self, node: yaml.Node, source: Source) -> Address | None:
        found: Address | None = ADDRESS.read(node, source)
        if found is None:
            return None
        if not found.env and not found.file:
            hint = "write {env: NAME}, and set that variable where Handrail runs"
            source.problem("estate.wrong-type", "a secret stands here by reference", node, hint)
            return None
        return found

    def schema(self) -> dict[str, Any]:
        return {
            "anyOf": [
                {
                    "type": "object",
                    "properties": {key: {"type": "string"}},
                    "required": [key],
                    "additionalProperties": False,
                }
                for key in ("env", "file")
            ]
        }


SECRET = _SecretShape()


class _NeedShape:
    """`store/routes-db`, or `{service/router: soft}`."""

    def read(self, node: yaml.Node, source: Source) -> Any:
        if not isinstance(node, yaml.MappingNode):
            target = REFERENCE.read(node, source)
            return None if target is None else Need(target, hard=True)
        if len(node.value) != 1:
            return source.problem(
                "estate.wrong-type", "expected one `kind/name: soft` or `kind/name: hard`", node
            )
        key, value = node.value[0]
        target = REFERENCE.read(key, source)
        strength = Choice("soft", "hard").read(value, source)
        return Need(target, hard=strength == "hard") if target and strength else None

    def schema(self) -> dict[str, Any]:
        soft = {
            "type": "object",
            "propertyNames": REFERENCE.schema(),
            "minProperties": 1,
            "maxProperties": 1,
            "additionalProperties": {"enum": ["soft", "hard"]},
        }
        return {"anyOf": [REFERENCE.schema(), soft]}


class _CheckShape:
    """`http://...`, `tcp://host:port`, `{sql: ..., store: ...}`, `{command: [...]}`."""

    _kinds = ("http", "tcp", "sql", "command")
    _mapping = Record(
        dict,
        {
            "http": Key(TEXT, "address that must answer with a status below 400", default=""),
            "tcp": Key(TEXT, "`host:port` that must accept a connection", default=""),
            "sql": Key(TEXT, "query whose first value is looked at", default=""),
            "command": Key(ListOf(TEXT), "program that must exit with 0", default=()),
            "store": Key(
                REFERENCE, "the store that `sql` asks; the target when left out", default=""
            ),
            "expect": Key(TEXT, "text that must be in the answer", default=""),
        },
    )

    def read(self, node: yaml.Node, source: Source) -> Check | None:
        if isinstance(node, yaml.ScalarNode):
            return self._scalar(node, source)
        found = self._mapping.read(node, source)
        if found is None:
            return None
        kinds = [kind for kind in self._kinds if found[kind]]
        if len(kinds) != 1:
            source.problem(
                "estate.wrong-type",
                "a check is exactly one of `http`, `tcp`, `sql`, `command`",
                node,
            )
            return None
        value = found[kinds[0]]
        return Check(
            kinds[0],
            value if isinstance(value, tuple) else (value,),
            found["expect"],
            found["store"],
        )

    def _scalar(self, node: yaml.ScalarNode, source: Source) -> Check | None:
        scheme = node.value.partition("://")[0]
        if scheme in {"http", "https"}:
            return Check("http", (node.value,))
        if scheme == "tcp":
            return Check("tcp", (node.value.removeprefix("tcp://"),))
        source.problem(
            "estate.wrong-type",
            f"`{node.value}` is not a check",
            node,
            "write http://..., tcp://host:port, {sql: ...} or {command: [...]}",
        )
        return None

    def schema(self) -> dict[str, Any]:
        one = {"oneOf": [{"required": [kind]} for kind in self._kinds]}
        address = {"type": "string", "pattern": "^(https?|tcp)://"}
        return {"anyOf": [address, self._mapping.schema() | one]}


CHECKS = ListOf(_CheckShape())


def _contraindication(
    *,
    place: Place,
    operation: str,
    because: str,
    unless: Mapping[str, str],
    expires: str,
    owner: str,
    replay: int,
) -> Contraindication:
    return Contraindication(operation, because, unless, expires, place, owner, replay)


_COMMON = {
    "environment": Key(NAME_TEXT, "the environment it belongs to", default=""),
    "needs": Key(ListOf(placed(_NeedShape())), "what it cannot do without", default=()),
    "checks": Key(CHECKS, "how its health is probed", default=()),
    "contraindications": Key(
        ListOf(
            Record(
                _contraindication,
                {
                    "operation": Key(TEXT, "the operation that harms it", required=True),
                    "because": Key(TEXT, "the incident that taught it", required=True),
                    "unless": Key(MapOf(TEXT), "parameters that make it harmless", default={}),
                    "expires": Key(DATE, "when it must be looked at again", default=""),
                    "owner": Key(TEXT, "who looks at it then", default=""),
                    "replay": Key(COUNT, "a run that it would have refused", default=0),
                },
            )
        ),
        "operations that harm it although they are right elsewhere",
        default=(),
    ),
    "summary": Key(TEXT, "one sentence for people", default=""),
}


def _backups(*, place: Place, to: str, every: int, keep: int, prove: int) -> BackupRule:
    del place
    return BackupRule(to, every, keep, prove)


_STORE_KEYS = {
    "kind": Key(Choice("postgres", "sqlite", "redis", "files"), "what it is", required=True),
    "url": Key(ADDRESS, "where it is: by value without a password, or {env: NAME}", required=True),
    "durability": Key(
        Choice("durable", "lossy"), "whether anybody would miss its content", default="durable"
    ),
    "holds": Key(
        ListOf(Choice("production-data", "personal-data", "copies")),
        "what kind of data is in it",
        default=(),
    ),
    "identity": Key(TEXT, "who it says it is; written by `handrail adopt`", default=""),
    "backups": Key(
        Record(
            _backups,
            {
                "to": Key(REFERENCE, "the object store that keeps them", required=True),
                "every": Key(
                    DURATION,
                    "how often one is made by the clock; `0s`: not by the clock",
                    default=DAY_S,
                ),
                "keep": Key(COUNT, "how many", default=14),
                "prove": Key(
                    DURATION,
                    "how old the last proof of restore may be; it is renewed before",
                    default=7 * DAY_S,
                ),
            },
        ),
        "how it is backed up",
    ),
    "site": Key(REFERENCE, "where it stands", default=""),
    "groups": Key(
        MapOf(NAME_TEXT), "what else it is counted under in waves: `{rack: r3}`", default={}
    ),
}

# It stands on ssh's command line: no option, no other word.
_HOST = Text(r"[A-Za-z0-9:\[][A-Za-z0-9.:_%\[\]-]{0,254}", "a host's name or address")


def _action(*, place: Place, do: str, owner: str, open: bool, link: str) -> Action:  # noqa: A002  the key's name
    return Action(do, owner, open, link, place)


_ACTION = {
    "do": Key(TEXT, "what was to be done", required=True),
    "owner": Key(TEXT, "who does it", default=""),
    "open": Key(FLAG, "whether it still has to be done", default=True),
    "link": Key(TEXT, "where it is tracked", default=""),
}

_EXTRA: dict[str, dict[str, Key]] = {
    "store": _STORE_KEYS,
    "object": {
        "path": Key(TEXT, "directory that holds the objects", required=True),
        "recipients": Key(ListOf(TEXT), "age or SSH public keys that may read backups", default=()),
    },
    "service": {
        "runs-on": Key(ListOf(REFERENCE), "groups, nodes or apps it runs on", default=()),
        "quorum": Key(COUNT, "the fewest machines that it can live with", default=0),
    },
    "node": {
        "site": Key(REFERENCE, "where it stands", default=""),
        "address": Key(_HOST, "how it is reached: as the team's ssh config knows it", default=""),
        "user": Key(
            Text(r"[A-Za-z_][A-Za-z0-9_.-]{0,31}\$?", "a user's name"),
            "whom a script runs as there; else whom the ssh config says",
            default="",
        ),
        "port": Key(
            Text(
                r"[1-9][0-9]{0,4}",
                "a port",
                convert=int,
                number={"type": "integer", "minimum": 1, "maximum": 99999},
            ),
            "of its SSH server; else what the ssh config says",
            default=0,
        ),
        "host-keys": Key(
            ListOf(
                Text(
                    r"(ssh|ecdsa|sk-ssh|sk-ecdsa)-[a-z0-9@.-]+ [A-Za-z0-9+/]{40,}={0,3}",
                    "a type and a key, such as `ssh-ed25519 AAAA...`",
                )
            ),
            "the host keys that it has: by any other it is not known",
            default=(),
        ),
        "platform": Key(REFERENCE, "what knows it as one of its machines", default=""),
        "machine": Key(TEXT, "what it is called there, id or name; else as here", default=""),
        "work": Key(
            Text(r"/[A-Za-z0-9._/-]*[A-Za-z0-9._-]", "an absolute path"),
            "folder there for the private folders of scripts",
            default="/var/tmp",  # noqa: S108  private folders are made in it
        ),
    },
    "group": {
        "nodes": Key(ListOf(REFERENCE), "its members", default=()),
        "platform": Key(REFERENCE, "what keeps its size", default=""),
        "name": Key(TEXT, "what it is called there; else as here", default=""),
    },
    "incident": {
        "date": Key(DATE, "when it was", default=""),
        "link": Key(TEXT, "where more is told of it", default=""),
        "actions": Key(
            ListOf(Record(_action, _ACTION)), "what was to be done after it", default=()
        ),
    },
    "site": {},
    "device": {
        "site": Key(REFERENCE, "where it stands", default=""),
        "address": Key(TEXT, "how it is reached", default=""),
    },
    "feed": {"url": Key(TEXT, "where it is fetched", default="")},
    "dataset": {"table": Key(TEXT, "where it is stored", default="")},
}


def _environment(
    *, place: Place, production: bool, max_age: int | None, max_rows: int | None, summary: str
) -> Environment:
    del summary
    return Environment("", production, max_age, max_rows, place)


ENVIRONMENTS = MapOf(
    Record(
        _environment,
        {
            "production": Key(FLAG, "whether real users depend on it", default=False),
            "max-age": Key(DURATION, "how old data may be here"),
            "max-rows": Key(COUNT, "how many rows a store may hold here"),
            "summary": Key(TEXT, "one sentence for people", default=""),
        },
    )
)


def kinds(extra: Mapping[str, Mapping[str, Key]] | None = None) -> dict[str, MapOf]:
    """Return the shape of each section of an estate file: the plural of a kind, to its shape.

    Args:
        extra: kinds of kits, to their own keys.
    """
    every = {**_EXTRA, **(extra or {})}
    return {f"{kind}s": MapOf(_resource(kind, keys)) for kind, keys in every.items()}


def _resource(kind: str, keys: Mapping[str, Key]) -> Record:
    """Return the shape of a resource: it gives a function from the name, which stands outside."""

    def make(
        *,
        place: Place,
        environment: str,
        needs: Any,
        checks: Any,
        contraindications: Any,
        summary: str,
        **own: Any,
    ) -> Callable[[str], Resource]:
        settings = {"summary": summary, **own}
        store = None
        if kind == "store":
            settings = {"summary": summary, "site": own.pop("site"), "groups": own.pop("groups")}
            store = _store(**own)

        def named(name: str) -> Resource:
            return Resource(
                kind, name, place, environment, needs, checks, contraindications, settings, store
            )

        return named

    return Record(make, {**_COMMON, **keys})


def _store(
    *,
    kind: str,
    url: Address,
    durability: str,
    holds: tuple[str, ...],
    identity: str,
    backups: BackupRule | None,
) -> StoreSettings:
    return StoreSettings(kind, url, durability, holds, identity, backups)


def unknown_section(name: str, known: Mapping[str, object]) -> str:
    """Return the hint for a section that no kind has."""
    return nearest(name, tuple(known))
