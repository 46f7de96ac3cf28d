"""Reading everything that is declared, and finding an operation and its target in it."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar
from urllib.parse import urlsplit

from handrail.core import together
from handrail.core.world import Declared, Kit
from handrail.errors import DeclarationError, DeclarationErrors, Place, UsageError
from handrail.estate import checking
from handrail.estate import loading as estates
from handrail.estate.model import Address, Estate, Resource, StoreSettings
from handrail.estate.shapes import Key, nearest
from handrail.operations import loading as operations
from handrail.operations import questions
from handrail.operations.model import Operation
from handrail.operations.targets import fitting
from handrail.plans import notifications as notices
from handrail.plans import policy as policies
from handrail.plans.judging import Guard

T = TypeVar("T")
SCHEMES = {
    "postgres": ("postgres://", "postgresql://"),
    "redis": ("redis://", "rediss://", "unix://"),
}
FILES_PREFIX = "files:"


def load(root: Path, kits: Sequence[Kit], guards: Sequence[Guard]) -> Declared:
    """Return what is declared below `root`.

    Raises:
        DeclarationErrors: with every problem that makes it unusable.
    """
    kinds: dict[str, dict[str, Key]] = {}
    for kit in kits:
        kinds.update({kind: dict(keys) for kind, keys in kit.kinds.items()})
    problems: list[DeclarationError] = []
    estate = _read(lambda: estates.load(root, kinds), problems)
    found = _read(lambda: operations.load(root), problems)
    policy = _read(lambda: policies.load(root, tuple(guard.name for guard in guards)), problems)
    told = _read(lambda: notices.load(root), problems)
    if estate is not None:
        problems += checking.errors(estate)
    if estate is not None and told is not None:
        problems += notices.errors(told, estate)
    if estate is not None and found is not None:
        for kit in kits:
            found = {operation.name: operation for operation in kit.operations} | found
        problems += operations.errors(found, estate, root)
    if found is not None and policy is not None:
        problems += questions.group_errors(found.values(), policy.groups)
    if problems or estate is None or found is None or policy is None or told is None:
        raise DeclarationErrors(sorted(problems, key=_position))
    return Declared(estate, found, policy, told)


def _read(load_one: Callable[[], T], problems: list[DeclarationError]) -> T | None:
    """Return what is read; None, with all that is wrong with it in `problems`."""
    try:
        return load_one()
    except DeclarationErrors as error:
        problems += error.errors
        return None


def _position(problem: DeclarationError) -> tuple[str, int]:
    return (problem.at.file, problem.at.line or 0) if problem.at else ("", 0)


def find_operation(declared: Declared, name: str, root: Path, target: str) -> Operation:
    """Return the operation of that name, or one for the script at that path.

    Raises:
        UsageError: neither is there.
    """
    if name in declared.operations:
        return declared.operations[name]
    if "/" in name or (Path.cwd() / name).is_file():
        return operations.undeclared(name, root, target or "store/")
    raise UsageError(
        "operations.unknown",
        f"no operation `{name}` is declared",
        hint=_nearest(declared, name) or f"a script is named by its path: ./{name}",
    )


def _nearest(declared: Declared, name: str) -> str:
    """Return the operation that was meant; the list of them, without what kits bring, if short."""
    close = nearest(name, tuple(declared.operations))
    return close if close.startswith("did you mean") else nearest(name, declared.own_operations)


def find_target(estate: Estate, operation: Operation, on: str | None) -> Resource:
    """Return the one resource that is meant.

    Args:
        estate: where it is declared.
        operation: what it is for.
        on: what the caller said: `store/name`, `name`, a store's URL, file or directory; None for
            the only one that the operation can mean.

    Raises:
        UsageError: there is none, or more than one.
    """
    # A run on several stores is recorded under all their names.
    found = _one_target(estate, operation, on.partition("+")[0] if on and operation.also else on)
    also = [estate.resources[ref] for ref in operation.also if ref != found.ref]
    return together.joined(found, also, estate) if also else found


def _one_target(estate: Estate, operation: Operation, on: str | None) -> Resource:
    if on is None:
        return _only(estate, operation)
    kinds = operation.on.kinds
    for ref in (on, *(f"{kind}/{on}" for kind in kinds)):
        if ref in estate.resources:
            return estate.resources[ref]
    if operation.act:
        raise UsageError(
            "operations.target",
            f"no {' or '.join(kinds)} `{on}` is declared",
            hint=nearest(on, [one.name for one in estate.of_kinds(kinds)]),
        )
    if kind_of(on) != "sqlite" or _is_file(on):
        return undeclared_store(on)
    raise UsageError(
        "estate.unknown-store",
        f"no store `{on}` is declared, and it is no file, directory, postgres:// or redis:// URL",
        hint=nearest(on, [r.name for r in estate.stores.values()]),
    )


def kind_of(address: str) -> str:
    """Return what kind of store an address is of: a URL's scheme, a directory, else a database."""
    for kind, schemes in SCHEMES.items():
        if address.startswith(schemes):
            return kind
    is_tree = address.startswith(FILES_PREFIX) or Path(address).is_dir()
    return "files" if is_tree else "sqlite"


def undeclared_store(address: str) -> Resource:
    """Return a resource for a store that no estate declares, with the safest assumptions."""
    kind = kind_of(address)
    value = address
    if kind not in SCHEMES:
        value = str(Path(address.removeprefix(FILES_PREFIX)).resolve())
    name = re.sub(r"[^A-Za-z0-9._-]", "-", _name(kind, value)).strip("-._")
    settings = StoreSettings(kind, Address(value=value), "durable", (), "", None)
    return Resource("store", name[:63] or "database", Place("--on"), store=settings)


def _name(kind: str, address: str) -> str:
    """Return what people would call the store: its database, its host, its file."""
    without = address.split("?", maxsplit=1)[0].rstrip("/")
    if kind == "postgres":
        return without.rpartition("/")[2]
    if kind == "redis":
        host = urlsplit(address).hostname or ""
        return host if re.search("[a-z]", host) else "redis"
    return Path(address).stem


def without_password(address: str) -> str:
    """Return a database's address as it may be shown."""
    return re.sub(r"(://[^:/@]*):[^/]*@", r"\1@", address)


def _only(estate: Estate, operation: Operation) -> Resource:
    on = operation.on
    found = fitting(operation, estate)
    if len(found) == 1 and (on.name or on.environment or operation.declared):
        return found[0]
    names = [resource.ref for resource in found]
    said = "fits several: " + ", ".join(names) if names else "fits no declared store"
    raise UsageError(
        "operations.target",
        f"operation `{operation.name}` {said}",
        at=operation.place,
        hint=f"choose one with --on {names[0] if names else 'STORE, URL or FILE'}",
    )


def _is_file(text: str) -> bool:
    return "\0" not in text and Path(text).exists()
