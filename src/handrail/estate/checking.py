"""What is wrong with an estate as a whole: references, circles, unsafe declarations.

Rules:
- An error makes the estate unusable for planning; a warning does not.
- Pure: the present date is an argument.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import date, timedelta

from handrail.errors import DeclarationError, Place
from handrail.estate.graph import circles
from handrail.estate.model import Environment, Estate, Resource
from handrail.estate.shapes import nearest

# What expires within so many days is said beforehand.
_SOON_DAYS = 30
_PASSWORD_IN_URL = re.compile(r"://[^/@\s]*:[^/@\s]+@|(?i:password)\s*=")


def errors(estate: Estate) -> list[DeclarationError]:
    """Return what makes the estate unusable, in the order of declaration."""
    found: list[DeclarationError] = []
    for resource in estate.resources.values():
        found += _references(estate, resource)
        if resource.store is not None:
            found += _store_errors(resource)
    found += [_circle(estate, circle) for circle in circles(estate)]
    return found


def warnings(estate: Estate, today: date) -> list[DeclarationError]:
    """Return what is unsafe but can be planned with: the guards will say so again."""
    found: list[DeclarationError] = []
    for resource in estate.resources.values():
        if resource.store is not None:
            found += _store_warnings(estate, resource)
        found += _expired(resource, today)
    return found


def _references(estate: Estate, resource: Resource) -> Iterator[DeclarationError]:
    environment = resource.environment
    if environment and environment not in estate.environments:
        yield DeclarationError(
            "estate.unknown-environment",
            f"`{resource.ref}` belongs to unknown environment `{environment}`",
            at=resource.place,
            hint=nearest(environment, tuple(estate.environments)),
        )
    for target, place in _targets(resource):
        if target not in estate.resources:
            yield DeclarationError(
                "estate.unknown-resource",
                f"`{resource.ref}` refers to unknown `{target}`",
                at=place,
                hint=nearest(target, tuple(estate.resources)),
            )


def _targets(resource: Resource) -> Iterator[tuple[str, Place]]:
    for need, place in resource.needs:
        yield need.target, place
    for check in resource.checks:
        if check.store:
            yield check.store, resource.place
    if resource.store and resource.store.backups:
        yield resource.store.backups.to, resource.place
    for key in ("runs-on", "nodes", "site", "platform", "service"):
        value = resource.settings.get(key.replace("-", "_")) or ()
        for ref in (value,) if isinstance(value, str) else value:  # type: ignore[attr-defined]  # shapes made it a tuple
            yield ref, resource.place


def holds_password(address: str) -> bool:
    """Whether a store's address holds a secret by value."""
    return _PASSWORD_IN_URL.search(address) is not None


def _store_errors(resource: Resource) -> Iterator[DeclarationError]:
    store = resource.store
    if store and holds_password(store.url.value):
        yield DeclarationError(
            "estate.secret",
            f"`{resource.ref}` holds a password by value",
            at=resource.place,
            hint="write `url: {env: NAME}` and set the variable where Handrail runs",
        )


def _store_warnings(estate: Estate, resource: Resource) -> Iterator[DeclarationError]:
    environment = estate.environments.get(resource.environment)
    store = resource.store
    holds = store.holds if store else ()
    if "production-data" in holds and not _is_production(environment):
        yield DeclarationError(
            "estate.production-data",
            f"`{resource.ref}` holds production data in environment `{resource.environment}`",
            at=resource.place,
            hint="a test server with real data is still real data: it is guarded as production",
        )
    if store and store.durability == "durable" and store.backups is None:
        yield DeclarationError(
            "estate.no-backup",
            f"durable `{resource.ref}` declares no backup",
            at=resource.place,
            hint="add `backups: {to: object/...}`, or `durability: lossy` if nobody would miss it",
        )
    if store and not store.identity:
        yield DeclarationError(
            "estate.missing-key",
            f"`{resource.ref}` has no identity: nobody can tell it from another server",
            at=resource.place,
            hint=f"handrail adopt {resource.ref}",
        )


def _is_production(environment: Environment | None) -> bool:
    return environment is not None and environment.production


def _expired(resource: Resource, today: date) -> Iterator[DeclarationError]:
    soon = (today + timedelta(days=_SOON_DAYS)).isoformat()
    for found in resource.contraindications:
        if not found.expires or found.expires > soon:
            continue
        is_over = found.expires < today.isoformat()
        ends = "expired" if is_over else "expires"
        by = f"; {found.owner} looks after it" if found.owner else ""
        yield DeclarationError(
            "estate.expired" if is_over else "estate.expiring",
            f"the contraindication of `{found.operation}` for `{resource.ref}` "
            f"{ends} on {found.expires}{by}",
            at=found.place,
            hint=f"read {found.because} again, then move the date or remove it",
        )


def _circle(estate: Estate, circle: tuple[str, ...]) -> DeclarationError:
    return DeclarationError(
        "estate.cycle",
        "hard needs form a circle: " + " -> ".join(circle),
        at=estate.resources[circle[0]].place,
        hint="make one of these needs `soft`",
    )
