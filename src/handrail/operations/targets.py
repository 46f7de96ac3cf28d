"""Which targets an operation fits, what they are counted under, and whether its waves fit them.

Rules:
- In the order of the estate's files: the same for everybody.
- A limit counts for every target or is an error: one without the group would have no limit.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from handrail.errors import DeclarationError
from handrail.estate.model import Estate, Resource
from handrail.estate.shapes import nearest
from handrail.operations.model import Operation, Waves

CODE = "operations.waves"


def fitting(operation: Operation, estate: Estate) -> tuple[Resource, ...]:
    """Return every declared resource that an operation is for; empty where none is."""
    on = operation.on
    return tuple(
        resource
        for resource in estate.of_kinds(on.kinds)
        if (not on.name or resource.name == on.name)
        and (not on.environment or resource.environment == on.environment)
    )


def groups_of(resource: Resource) -> Mapping[str, str]:
    """Return what a target is counted under, kind of group to name: `{site: berlin}`."""
    site = str(resource.settings.get("site") or "").partition("/")[2]
    declared = resource.settings.get("groups") or {}
    own = dict(declared) if isinstance(declared, Mapping) else {}
    usual = {"environment": resource.environment, "site": site}
    return own | {kind: name for kind, name in usual.items() if name}


def wave_errors(operation: Operation, estate: Estate) -> list[DeclarationError]:
    """Return what is wrong between an operation's waves and its targets."""
    waves = operation.waves
    if waves is None:
        return []
    at = waves.place or operation.place
    return [
        DeclarationError(CODE, f"operation `{operation.name}`: {said}", at=at, hint=hint)
        for said, hint in _wrong(operation, waves, estate)
    ]


def _wrong(operation: Operation, waves: Waves, estate: Estate) -> Iterator[tuple[str, str]]:
    targets = {resource.ref: resource for resource in fitting(operation, estate)}
    if operation.also:
        yield "`also` names stores that every target would share; waves change each by itself", ""
    for ref in waves.first:
        if ref not in targets:
            yield f"`first` names `{ref}`, which it is not for", nearest(ref, tuple(targets))
    grouped = {ref: groups_of(resource) for ref, resource in targets.items()}
    known = tuple({kind: None for groups in grouped.values() for kind in groups})
    for key, limits in (("at-once-per", waves.at_once_per), ("failures-per", waves.failures_per)):
        for kind in limits:
            without = [ref for ref, groups in grouped.items() if kind not in groups]
            if without:
                hint = f"declare it there, `site: ...` or `groups: {{{kind}: ...}}`"
                said = f"`{key}` limits each `{kind}`, and `{without[0]}` has none"
                yield said, hint if kind in known else nearest(kind, known)
