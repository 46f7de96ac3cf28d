"""Whether an operation can run on the node that it names.

Rules:
- A node is told from another by a host key that the estate declares; without one nothing runs.
- What a script on a node needs of this machine comes to it by a port: a file does not.
"""

from __future__ import annotations

from collections.abc import Iterator

from handrail.errors import DeclarationError
from handrail.estate.model import Estate, Resource
from handrail.estate.shapes import nearest
from handrail.operations.model import Operation

CODE = "operations.node"
REACHED = ("postgres", "redis")


def node_errors(operation: Operation, estate: Estate) -> list[DeclarationError]:
    """Return what is wrong between an operation and its node."""
    ref = operation.runs_on
    if not ref:
        return []
    if ref not in estate.resources:
        known = [r.ref for r in estate.resources.values() if r.kind == "node"]
        said = f"operation `{operation.name}` runs on unknown `{ref}`"
        hint = nearest(ref, known)
        return [DeclarationError("estate.unknown-resource", said, at=operation.place, hint=hint)]
    return [
        DeclarationError(
            CODE, f"operation `{operation.name}`: {said}", at=operation.place, hint=hint
        )
        for said, hint in _wrong(operation, estate.resources[ref], estate)
    ]


def _wrong(operation: Operation, node: Resource, estate: Estate) -> Iterator[tuple[str, str]]:
    if node.kind != "node":
        yield f"`{node.ref}` is no node", "a script runs on one node, `runs-on: node/...`"
        return
    if not node.settings.get("address"):
        yield f"{node.ref} declares no `address`", f"at {node.place}"
    if not node.settings.get("host_keys"):
        hint = "there: cat /etc/ssh/ssh_host_ed25519_key.pub     (type and key, without the name)"
        yield f"{node.ref} declares no `host-keys`: nobody could tell it from another", hint
    if operation.function:
        yield "a Python operation runs on this machine: a node has no Handrail", ""
    if operation.questions:
        yield "a script on a node cannot ask", "make what it asks parameters"
    for store in _stores(operation, estate):
        if store.store and store.store.kind not in REACHED:
            yield f"{store.ref} is in files of this machine: {node.ref} does not reach it", ""
            return


def _stores(operation: Operation, estate: Estate) -> Iterator[Resource]:
    on = operation.on
    for resource in estate.stores.values():
        is_meant = (not on.name or resource.name == on.name) and (
            not on.environment or resource.environment == on.environment
        )
        if resource.ref in operation.also or ((on.name or on.environment) and is_meant):
            yield resource
