"""Observes a server, and says what has changed since.

Rules:
- What differs is read from every key's value, wherever the change came from: a script inside the
  server, an eviction, SWAPDB, a rename. That is `net`.
- On a clone every single change is counted besides, from its record. That is `rows`; where the
  record was cut off, only what differs is known.
- On a server that others use, their changes are counted too: `rows` is then a ceiling, and says so.
- Settings, users and functions are looked at as well.
"""

from __future__ import annotations

import json
import secrets
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path

from handrail.adapters.redis import comparing, recording, replaying, scratch
from handrail.adapters.redis.cloning import Clone
from handrail.adapters.redis.connecting import Address, Session, connected
from handrail.adapters.redis.keys import IDENTITY_KEY, new_table, read_keys
from handrail.adapters.redis.others import others
from handrail.adapters.redis.settings import Besides, changes, read_besides
from handrail.errors import StoreError
from handrail.plans.effect import CEILING, Effect, worst_first

_KEYS_FILE = "keys.sqlite"
_NOTES_FILE = "notes.json"


@dataclass(frozen=True)
class _Notes:
    """What was there besides keys.

    Attributes:
        besides: settings, users, functions.
        identity: the id that `adopt` wrote; empty for none.
        exact: whether expiries were read exactly.
        record: of a clone; None elsewhere.
    """

    besides: Besides
    identity: str
    exact: bool
    record: recording.Record | None


def observe(address: Address, clone: Clone | None, into: Path) -> None:
    """Write the state now into the empty directory `into`; on a clone, begin its record."""
    with connected(address) as session:
        record = recording.begin(session, clone.server.folder, into) if clone else None
        path = into / _KEYS_FILE
        path.touch(mode=0o600)
        with new_table(path) as table:
            exact = read_keys(session, table)
        notes = _Notes(read_besides(session), _identity(session), exact, record)
    (into / _NOTES_FILE).touch(mode=0o600)
    (into / _NOTES_FILE).write_text(json.dumps(asdict(notes)))
    for name in (_KEYS_FILE, _NOTES_FILE):
        scratch.flush(into / name)
    scratch.flush(into)


def effects(
    address: Address, clone: Clone | None, before: Path, resource: str
) -> tuple[Effect, ...]:
    """Return what has changed since `observe(before)`, worst first."""
    was = _read_notes(before)
    with connected(address) as session:
        file = _record_file(session, clone, was)
        net = _differences(session, before, exact=was.exact)
        besides = list(changes(resource, was.besides, read_besides(session)))
        identity = _identity(session)
        crowd = () if clone else others(session)
    gross = _count(clone, before, was, file) if clone and file else None
    found = [*_merged(resource, net, gross, crowd), *besides]
    if was.identity and identity != was.identity:
        verb = "update" if identity else "delete"
        found.append(Effect(resource, verb, "key", IDENTITY_KEY.decode(), 1, 1))
    return worst_first(found)


def _merged(
    resource: str,
    net: comparing.Amounts,
    gross: comparing.Amounts | None,
    crowd: tuple[str, ...],
) -> Iterator[Effect]:
    if gross is None:
        detail = f"{CEILING}: others were connected: {', '.join(crowd[:3])}" if crowd else ""
        for (verb, kind, name), number in net.items():
            yield Effect(resource, verb, kind, name, number, None, detail)
        return
    for key in net.keys() | gross.keys():
        verb, kind, name = key
        yield Effect(resource, verb, kind, name, max(net[key], gross[key]), net[key])


def _differences(session: Session, before: Path, *, exact: bool) -> comparing.Amounts:
    seconds, micros = session.ask("TIME")
    with new_table() as table:
        is_exact = read_keys(session, table)
        comparing.attach(table, before / _KEYS_FILE)
        now_ms = int(seconds) * 1000 + int(micros) // 1000
        found = comparing.differences(table, now_ms, exact=exact and is_exact)
        table.commit()
        return found


def _record_file(session: Session, clone: Clone | None, was: _Notes) -> Path | None:
    if clone is None or was.record is None:
        return None
    return recording.find(session, clone.server.folder, was.record)


def _count(clone: Clone, before: Path, was: _Notes, file: Path) -> comparing.Amounts:
    at = before / f"replaying-{secrets.token_hex(4)}"
    offset = was.record.offset if was.record else 0
    with (
        scratch.passing(
            at, clone.program, before / recording.BEFORE_FILE, clone.notes.databases
        ) as server,
        connected(server.admin) as session,
    ):
        return replaying.count(session, before / _KEYS_FILE, recording.entries(file, offset))


def _identity(session: Session) -> str:
    session.ask("SELECT", 0)
    found = session.may("GET", IDENTITY_KEY)
    return found.decode("utf-8", "replace") if found else ""


def _read_notes(before: Path) -> _Notes:
    try:
        told = json.loads((before / _NOTES_FILE).read_text())
        record: Mapping[str, object] | None = told["record"]
        with closing(sqlite3.connect(f"file:{before / _KEYS_FILE}?mode=ro", uri=True)) as table:
            table.execute("SELECT 1 FROM keys LIMIT 1")
        return _Notes(
            Besides(**told["besides"]),
            told["identity"],
            told["exact"],
            recording.Record(**record) if record else None,  # type: ignore[arg-type]
        )
    except (OSError, ValueError, KeyError, TypeError, sqlite3.Error) as error:
        raise StoreError(
            "store.failed",
            f"what was observed before cannot be read: {error}",
            hint="what has changed since is not known; compare with a backup",
        ) from error
