"""The pages of the files that a team writes, from the shapes that read them."""

from __future__ import annotations

from typing import Any

from handrail.estate.kinds import ENVIRONMENTS, kinds
from handrail.estate.shapes import (
    DURATION,
    PERCENT,
    Choice,
    Either,
    Flag,
    Key,
    ListOf,
    MapOf,
    Record,
    Shape,
    Text,
)
from handrail.operations.shapes import OPERATION
from handrail.plans.notifications import NOTIFICATIONS
from handrail.plans.policy import POLICY

RULES = """\
Every problem is reported with its file, its line and the nearest right word; `handrail check` shows
all of them. Unknown keys are errors. Scalars are taken as they are written: `1.10`, `on` and `yes`
are text where text is wanted. Aliases of collections, tags and merge keys are refused. A file has
at most 4 MiB and 40 levels. A list of one may be written without brackets.

Names are letters, digits, dot, dash and underscore, 63 at most, and begin with a letter or digit. A
duration is a whole number and `s`, `m`, `h`, `d` or `w`: `90s`, `10m`, `24h`, `30d`.
"""
ESTATE = f"""\
# Estate files

`estate/*.yaml` and `estate/*.yml`, in folders of any depth, say what exists. All files together are
one estate; what stands in which file does not matter. A resource is addressed `kind/name`:
`pilot-db` under `stores:` is `store/pilot-db`.

{RULES}
`handrail schema estate` prints the JSON Schema for editors.
"""
ESTATE_EXAMPLE = """\
## Example

```yaml
# estate/pilot.yaml
environments:
  production: {production: true}
  pilot: {max-age: 30d, max-rows: 100000}

stores:
  pilot-db:
    kind: postgres
    url: {env: PILOT_DB_URL}
    environment: pilot
    holds: [production-data]
    backups: {to: object/backups, every: 1d, keep: 14, prove: 7d}

objects:
  backups:
    path: /var/backups/handrail

services:
  pilot-api:
    environment: pilot
    needs: [store/pilot-db, {service/router: soft}]
    checks:
      - http://127.0.0.1:8080/health
      - {sql: "select count(*) > 0 from devices", store: store/pilot-db}
    contraindications:
      - operation: reset-pilot
        because: incident/2021-01-12
        unless: {keep: "true"}
        expires: 2027-01-12
  router:
    checks: [tcp://127.0.0.1:9000]
```

`needs` is followed against its direction: who needs what is touched is told as a consequence, and
is watched after a run. A hard need stops its dependant, a soft one degrades it.
"""
OPERATION_TEXT = f"""\
# Operation files

`operations/*.yaml` declare what somebody does again and again, one operation a file. A function in
`operations/*.py` may be one too, with the same keys: see
[write-a-python-operation.md](../how-to/write-a-python-operation.md).

{RULES}
`handrail schema operation` prints the JSON Schema for editors.
"""
OPERATION_EXAMPLE = """\
## Example

```yaml
# operations/trim-sessions.yaml
operation: trim-sessions
summary: Remove sessions older than some days
run: ./scripts/trim_sessions.sh {days}
on: {store: {environment: pilot}}
undo: restore
parameters:
  days: {type: int, default: 30, summary: how old a session may become}
environment: {PILOT_DB: url}
inherit: [HTTPS_PROXY]
uses: [lib/db.sh]
timeout: 10m
watch: {checks: [service/pilot-api], soak: 10m, every: 10s}
```

What runs is the digest of every file in the script's own folder (unless that is the repository
itself), of what `uses` names, and of the undo script's folder: at most 2,000 files and 64 MiB. A
rehearsal that read another file of the repository does not count, and says which one to add to
`uses`.

`{days}` in `run` is replaced by the parameter's value, in arguments alone; a value stays one word.
The same value is in `HANDRAIL_PARAMETER_DAYS`.

The script runs in the repository's root. It reaches its store by the names of the store's own
clients (`DATABASE_URL`; for PostgreSQL `PGHOST`, `PGPORT`, `PGUSER`, `PGPASSWORD`, `PGDATABASE`),
and by the names that `environment` maps to a part of the address.
"""
POLICY_TEXT = f"""\
# The policy file

`policy.yaml` in the repository's root says what a team asks of a plan. Everything in it is
optional; without the file the defaults below hold, and they are safe. What each guard looks at is
in
[guards.md](guards.md).

{RULES}
`handrail schema policy` prints the JSON Schema for editors.
"""
POLICY_EXAMPLE = """\
## Example

```yaml
# policy.yaml
guards:
  review: low
  rehearsed: low
rehearsal: {max-age: 12h, drift: 2%, tolerance: 1%, tolerance-rows: 10, confine: require}
approval: {max-age: 4h, by: {critical: dba}}
groups: {dba: [ben@pilot.example, chi@pilot.example]}
undo-for: 3d
freezes:
  - {risk: high, days: [friday], start: "15:00", zone: Europe/Berlin, because: the weekend}
```

An unknown guard, an unknown group, and a guard that binds later than it may are errors.
"""
NOTIFICATIONS_TEXT = f"""\
# The notifications file

`notifications.yaml` in the repository's root says who outside is told what. Without the file nobody
is told anything. How it is told, and what each kind means, is in
[notifications.md](../how-to/notifications.md).

{RULES}
`handrail schema notifications` prints the JSON Schema for editors.
"""
NOTIFICATIONS_EXAMPLE = """\
## Example

```yaml
# notifications.yaml
link: https://handrail.internal/runs/{run}
to:
  on-call:
    webhook: {url: {env: HOOK_URL}, secret: {env: HOOK_SECRET}}
    for: [incident, break-glass]
    environments: [production]
  team-chat:
    slack: {url: {env: CHAT_URL}}
    resources: ["store/pilot-*"]
```

A secret by value, an unknown kind, environment or resource, and a destination of no channel or two
are errors.
"""
_SECONDS = (("d", 86400), ("h", 3600), ("m", 60), ("s", 1))


def estate_page() -> str:
    """Return the page of `estate/*.yaml`."""
    sections = kinds()
    common = set.intersection(*(set(_record(shape).keys) for shape in sections.values()))
    shared = {name: key for name, key in _record(sections["stores"]).keys.items() if name in common}
    parts = [ESTATE, "## `environments`\n", table(_record(ENVIRONMENTS).keys)]
    parts += ["## Every resource\n", table(shared)]
    for name, shape in sections.items():
        own = {n: key for n, key in _record(shape).keys.items() if n not in common}
        parts += [f"## `{name}`\n", table(own) if own else "No keys of its own.\n"]
    return "\n".join([*parts, ESTATE_EXAMPLE])


def operation_page() -> str:
    """Return the page of `operations/*.yaml`."""
    return "\n".join([OPERATION_TEXT, "## Keys\n", table(OPERATION.keys), OPERATION_EXAMPLE])


def policy_page() -> str:
    """Return the page of `policy.yaml`."""
    return "\n".join([POLICY_TEXT, "## Keys\n", table(POLICY.keys), POLICY_EXAMPLE])


def notifications_page() -> str:
    """Return the page of `notifications.yaml`."""
    keys = table(NOTIFICATIONS.keys)
    return f"{NOTIFICATIONS_TEXT}\n## Keys\n\n{keys}\n{NOTIFICATIONS_EXAMPLE}"


def _record(shape: Shape) -> Record:
    """Return the record that a section's map is of."""
    found = _inside(shape, "_item")
    if not isinstance(found, Record):
        raise TypeError(f"{found!r} is no record")
    return found


def _inside(shape: Shape, name: str) -> Any:
    """Return what a shape is made of: only this page looks inside."""
    return vars(shape)[name]


def table(keys: dict[str, Key]) -> str:
    """Return the keys of a record as a table, those of records in it below their own."""
    rows = _rows(keys, "")
    return "\n".join(["| key | value | default | what it is |", "|---|---|---|---|", *rows, ""])


def _rows(keys: dict[str, Key], above: str) -> list[str]:
    """Return a row a key, with the keys of the records below it."""
    rows = []
    for name, key in keys.items():
        path = f"{above}{name}"
        default = "**required**" if key.required else _default(key)
        rows.append(f"| `{path}` | {_value(key.shape)} | {default} | {key.doc} |")
        record, mark = _below(key.shape)
        if record is not None:
            rows += _rows(record.keys, f"{path}{mark}.")
    return rows


def _below(shape: Shape) -> tuple[Record | None, str]:
    """Return the record in a shape, and how the way to it is written."""
    if isinstance(shape, Record):
        return shape, ""
    if isinstance(shape, ListOf):
        found, mark = _below(_inside(shape, "_item"))
        return found, f"[]{mark}"
    if isinstance(shape, MapOf):
        found, mark = _below(_inside(shape, "_item"))
        return found, f".NAME{mark}"
    found = getattr(shape, "_mapping", None)
    return (found, "") if isinstance(found, Record) else (None, "")


def _value(shape: Shape) -> str:  # noqa: PLR0911  a table of shapes
    """Return what a value may be, in a few words."""
    match shape:
        case Text():
            return _short(str(_inside(shape, "_saying")))
        case Flag():
            return "`true` or `false`"
        case Choice():
            return ", ".join(f"`{word}`" for word in _inside(shape, "_words"))
        case ListOf():
            return f"list of: {_value(_inside(shape, '_item'))}"
        case MapOf():
            return f"map of names to: {_value(_inside(shape, '_item'))}"
        case Record():
            return "keys below"
        case Either():
            return f"{_value(_inside(shape, '_scalar'))}, or keys below"
        case _ if "_shape" in vars(shape):
            return _value(_inside(shape, "_shape"))
    said = (type(shape).__doc__ or "").partition(": a value itself")[0].strip().rstrip(".")
    return said[:1].lower() + said[1:]


def _short(saying: str) -> str:
    return saying.removeprefix("a ").removeprefix("an ").partition(" such as")[0].rstrip(",")


def _default(key: Key) -> str:
    value = key.default
    if value is None or value in ("", (), {}):
        return ""
    if key.shape is DURATION and not value:
        return ""
    if key.shape is DURATION:
        return next(f"`{value // size}{unit}`" for unit, size in _SECONDS if value % size == 0)
    if key.shape is PERCENT:
        return f"`{value:.0%}`"
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    return f"`{value}`" if isinstance(value, str | int) else ""
