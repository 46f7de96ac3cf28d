"""Commanding: any command line behind guards, with an estate or without one.

Rules:
- The command inherits the environment, but nothing in it leads round the guard: what points at a
  guarded store points at the guard; what finds a way by itself (service, passfile) is not there.
- A secret of a store never stands in the command's arguments.
- What it did is journalled when it has ended, and what its guards saw when they see it.
- A command that ends badly has nothing swapped in, and open transactions roll back.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from handrail.core import guarding, scripts, together
from handrail.core.guarding import Guard, Part
from handrail.core.world import Talk, World
from handrail.errors import Place, ScriptError, StoreError, UsageError
from handrail.estate.checking import holds_password
from handrail.estate.model import Address, Resource, StoreSettings
from handrail.plans.canonical import plain
from handrail.plans.effect import Effect, worst_first
from handrail.plans.holding import Event, Limits, Report, Stop
from handrail.ports import Command, Connection, Finished, Store

# What libpq takes a connection from; options that only shape a session (PGTZ) stay.
_LIBPQ = re.compile(
    "PG(HOST|HOSTADDR|PORT|DATABASE|USER|PASSWORD|PASSFILE|SERVICE|SERVICEFILE|CHANNELBINDING"
    "|REQUIREPEER|REQUIREAUTH|REQUIRESSL|SSL.*|GSS.*|KRB.*|TARGETSESSIONATTRS|LOADBALANCEHOSTS)"
)
_REDIS = re.compile("REDISCLI_AUTH|REDIS_(URL|HOST|PORT|USERNAME|USER|PASSWORD|DB)")
_NO_TIMEOUT_S = 10 * 365 * 86400


@dataclass(frozen=True)
class Asked:
    """What is to be run, and how.

    Attributes:
        argv: the command, as somebody typed it.
        cwd: where.
        limits: what it is held to.
        open_network: it may reach whatever it wants; the guard is then avoidable.
        inherits: its standard streams are this process's own.
    """

    argv: tuple[str, ...]
    cwd: Path
    limits: Limits
    open_network: bool = False
    inherits: bool = True


@dataclass(frozen=True)
class Guarded:
    """How a command ended, and what it did."""

    finished: Finished
    reports: tuple[Report, ...]
    effects: tuple[Effect, ...]

    @property
    def stop(self) -> Stop | None:
        """Why it was stopped; None when it was not."""
        return guarding.first_stop(self.reports)

    @property
    def exit_code(self) -> int:
        """What `handrail guard` exits with."""
        if self.stop is not None:
            return 5
        if self.finished.ended == "interrupted":
            return 130
        return 0 if self.finished.ended == "exited" and self.finished.exit_code == 0 else 1


def undeclared(kind: str, address: str, taken: Sequence[str]) -> Resource:
    """Return a resource for a store that no estate declares; its name is none of `taken`."""
    tail = address.split("?", maxsplit=1)[0].rstrip("/").rpartition("/")[2]
    name = re.sub(r"[^A-Za-z0-9._-]", "-", without_port(tail)).strip("-._")[:50] or kind
    if name.isdecimal():  # a database of Redis has no name
        name = kind if name == "0" else f"{kind}-{name}"
    number = 2
    found = name
    while f"store/{found}" in taken:
        found, number = f"{name}-{number}", number + 1
    settings = StoreSettings(kind, Address(value=address), "durable", (), "", None)
    return Resource("store", found, Place(f"--{kind}"), store=settings)


def without_port(tail: str) -> str:
    """Return the last part of an address without the credentials and port of a mere host."""
    return tail.rpartition("@")[2].partition(":")[0]


def run(world: World, store: Store, asked: Asked, talk: Talk) -> Guarded:
    """Run a command behind a guard of a store, or of several, and return what came of it.

    Raises:
        StoreError: a store does not answer, or has no guard.
        ScriptError: the command could not be started.
        UsageError: a secret of a store stands in the command's arguments, or it does not exist.
    """
    _refuse_secrets(store, asked.argv)
    _sweep(world)
    name = world.ids.new()[:8]
    with world.locks.hold(_lock(name), "handrail guard"):
        return _journalled(world, store, asked, talk, world.state / "guards" / name)


def _lock(name: str) -> str:
    return f"guard/{name}"


def _sweep(world: World) -> None:
    """Remove what killed guards worked with: it may hold what their stores do."""
    for left in (world.state / "guards").glob("*"):
        if world.locks.holder(_lock(left.name)) is None:
            shutil.rmtree(left, ignore_errors=True)


def _journalled(world: World, store: Store, asked: Asked, talk: Talk, folder: Path) -> Guarded:
    folder.mkdir(parents=True, mode=0o700)
    chain = f"guard-{folder.name}"
    told = {"command": asked.argv[0], "store": store.resource}
    world.journal.append(chain, "opened", told | {"mode": asked.limits.mode})
    try:
        guarded = _run(world, store, asked, talk, folder, chain)
    except BaseException as error:
        world.journal.append(chain, "failed", {"error": type(error).__name__})
        raise
    else:
        body = plain(guarded)
        world.journal.append(chain, "ended", body if isinstance(body, dict) else {})
        return guarded
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        world.journal.close(chain)


def _run(world: World, store: Store, asked: Asked, talk: Talk, folder: Path, chain: str) -> Guarded:
    before, private = folder / "before", folder / "guard"
    for made in (before, private):
        made.mkdir(mode=0o700)
    store.observe(before)
    hearing = guarding.Hearing(
        lambda event: world.journal.append(chain, "guard-event", plain(event)),  # type: ignore[arg-type]  # a dataclass is a mapping
        talk,
    )
    with guarding.opened(world, store, asked.limits, before, private, hearing) as guard:
        for word in asked.argv:
            if holds_password(word):
                hearing(Event("bypass", "an address with a password is among the arguments"))
        finished, reports = guarding.attend(
            guard,
            lambda connection: _attend(
                world, _command(world, guard, connection, asked, folder, chain), talk
            ),
            hearing,
        )
    hearing.check()
    effects = [
        effect
        for number, (part, report) in enumerate(zip(together.parts_of(store), reports, strict=True))
        for effect in _done(part, together.folder_of(store, number, before), report)
    ]
    return Guarded(finished, reports, worst_first(effects))


def _done(store: Store, before: Path, report: Report) -> tuple[Effect, ...]:
    try:
        measured = store.effects(before)
    except StoreError as error:
        measured = (
            Effect(store.resource, "unknown", "store", store.resource, detail=error.message),
        )
    return guarding.done(measured, report)


def _attend(world: World, command: Command, talk: Talk) -> Finished:
    try:
        return world.processes.run(command, lambda _: None, talk.output)
    except KeyboardInterrupt:
        return Finished(-2, "interrupted", 0.0, 0)


def _command(
    world: World, guard: Guard, connection: Connection, asked: Asked, folder: Path, chain: str
) -> Command:
    environment = inherited(world.environment, guard.parts) | dict(connection.environment)
    return Command(
        argv=(str(_program(world, asked)), *asked.argv[1:]),
        cwd=asked.cwd,
        environment=environment | {"HANDRAIL_RUN": scripts.mark_of(world, chain)},
        timeout_s=_NO_TIMEOUT_S,
        output=folder / "output.log",
        reserve_bytes=0,
        confine=None if asked.open_network else guarding.cage(world, guard.store, connection),
        inherits=asked.inherits,
    )


def _program(world: World, asked: Asked) -> Path:
    word = asked.argv[0]
    found = asked.cwd / word if "/" in word else world.processes.find_program(word)
    if found is None:
        raise ScriptError(
            "script.start", f"there is no program `{word}`", hint="a script here is named ./NAME"
        )
    return found


def inherited(environment: Mapping[str, str], parts: Sequence[Part]) -> dict[str, str]:
    """Return the environment that a command inherits, with nothing that leads round its guards.

    A variable that holds the address of a guarded store holds the guard's; one that holds its
    password, or that a client of its kind would connect by, is not there.
    """
    kinds = {part.store.kind for part in parts}
    # Asked once: a store may ask its server before it can say how it is reached.
    pairs = [(part.store.connection(), part.guard.connection()) for part in parts]
    found = {}
    for name, value in environment.items():
        if name == "HANDRAIL_JOURNAL":  # it may hold a password, and is nothing to the command
            continue
        if "postgres" in kinds and _LIBPQ.fullmatch(name):
            continue
        if "redis" in kinds and _REDIS.fullmatch(name):
            continue
        pointed = _pointed(value, pairs)
        if pointed is not None:
            found[name] = pointed
    return found


def _pointed(value: str, pairs: Sequence[tuple[Connection, Connection]]) -> str | None:
    """Return a variable's value with a guard's address in the place of its store's."""
    for real, guard in pairs:
        for key in ("url", "path"):
            own = real.parts.get(key)
            if own and (value == own or (key == "url" and _same_server(value, own))):
                return _like(value, guard.parts.get(key, ""))
        if any(secret and secret in value for secret in real.secrets):
            return None
    return value


def _like(value: str, address: str) -> str:
    """Return a guard's address with the scheme of the one it stands for: it names a driver."""
    scheme, mark, _ = value.partition("://")
    own = scheme.startswith("postgres")
    return f"{scheme}://{address.partition('://')[2]}" if mark and own else address


_URL = re.compile(r"[a-z][a-z0-9+]*://(?:[^/@]*@)?(?P<host>[^/?#]*)(?P<path>/[^?#]*)?(?:[?#].*)?")
_PORTS = {"postgres": "5432", "postgresql": "5432", "redis": "6379", "rediss": "6379"}


def _same_server(one: str, other: str) -> bool:
    """Whether two URLs lead to the same server and database, whoever asks and however."""
    places = []
    for url in (one, other):
        found = _URL.fullmatch(url)
        if found is None or not found["host"]:
            return False
        scheme = url.partition("://")[0].partition("+")[0]
        host, colon, port = found["host"].rpartition(":")
        place = (host, port) if colon else (found["host"], _PORTS.get(scheme, ""))
        places.append((scheme.replace("postgresql", "postgres"), *place, found["path"] or "/"))
    return places[0] == places[1]


def _refuse_secrets(store: Store, argv: Sequence[str]) -> None:
    for secret in store.connection().secrets:
        if secret and any(secret in word for word in argv):
            raise UsageError(
                "usage",
                f"a secret of {store.resource} stands among the command's arguments",
                hint="leave the address out: the command finds the guard's in its environment",
            )
