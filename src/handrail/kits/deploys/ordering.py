"""In which order several resources are changed: what others need goes first. Pure.

Rules:
- A need counts through whatever lies between: another resource, or the service that an app is.
- Where nothing says otherwise, and in a circle of needs, they go as they were given.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from handrail.estate.model import Estate


def order(estate: Estate, refs: Sequence[str]) -> tuple[str, ...]:
    """Return `refs`, each once, those that others of them need first."""
    wanted = dict.fromkeys(refs)
    needs = {ref: _needed(estate, ref, wanted) for ref in wanted}
    found: dict[str, None] = {}
    while len(found) < len(wanted):
        left = [ref for ref in wanted if ref not in found]
        ready = [ref for ref in left if needs[ref] <= found.keys()]
        # In a circle none is ready: the first goes, and opens it.
        found.update(dict.fromkeys(ready or left[:1]))
    return tuple(found)


def _needed(estate: Estate, ref: str, wanted: Mapping[str, None]) -> set[str]:
    """Return those of `wanted` that `ref` cannot do without, directly or not."""
    apps = _apps(estate)
    seen = {ref}
    pending = [ref]
    while pending:
        for target in _steps(estate, pending.pop(), apps):
            if target not in seen:
                seen.add(target)
                pending.append(target)
    return {one for one in seen if one in wanted and one != ref}


def _steps(estate: Estate, ref: str, apps: Mapping[str, Sequence[str]]) -> tuple[str, ...]:
    resource = estate.resources.get(ref)
    needs = [need.target for need, _ in resource.needs] if resource else []
    service = resource.settings.get("service") if resource and resource.kind == "app" else ""
    own = estate.resources.get(str(service)) if service else None
    needs += [need.target for need, _ in own.needs] if own else []
    return (*needs, *apps.get(ref, ()))


def _apps(estate: Estate) -> Mapping[str, Sequence[str]]:
    """Return the apps that each service is."""
    found: dict[str, list[str]] = {}
    for resource in estate.of_kinds(("app",)):
        service = resource.settings.get("service")
        if service:
            found.setdefault(str(service), []).append(resource.ref)
    return found
