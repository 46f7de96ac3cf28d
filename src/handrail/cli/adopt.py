"""Note who a store or a platform is, in its declaration, so that no other is mistaken for it.

A PostgreSQL server and a cluster say who they are; nothing is written to them. A SQLite database
gets a small table with a random id.

examples:
  handrail adopt store/pilot-db
  handrail adopt platform/prod
"""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from handrail.errors import UsageError

if TYPE_CHECKING:
    from handrail.cli.call import Call
    from handrail.estate.model import Resource


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    parser.add_argument("store", metavar="STORE", help="store/name, or platform/name")


def run(call: Call) -> int:
    """Ask it who it is, and write that into the estate."""
    from handrail.cli import screen
    from handrail.core import adopting

    resource = _named(call)
    identity = adopting.adopt(call.world, resource)
    if call.options.json:
        screen.write_json(
            {
                "format": 1,
                resource.kind: resource.ref,
                "identity": str(identity),
                "version": identity.version,
            }
        )
    else:
        screen.write(f"{resource.ref} is {identity}\nwritten to {resource.place.file}; commit it.")
    return 0


def _named(call: Call) -> Resource:
    """Return the store, or another resource that says who it is, that is meant.

    Raises:
        UsageError: there is none.
    """
    from handrail.estate.shapes import nearest

    name = call.options.store
    kinds = ("store", *(kind for kit in call.kits for kind in kit.identify))
    known = {one.ref: one for one in call.declared.estate.of_kinds(kinds)}
    for ref in (name, *(f"{kind}/{name}" for kind in kinds)):
        if ref in known:
            return known[ref]
    kind = name.partition("/")[0] if "/" in name else "store"
    raise UsageError(
        f"estate.unknown-{'store' if kind == 'store' else 'resource'}",
        f"no {kind if kind in kinds else 'store'} `{name}` is declared",
        hint=nearest(name, tuple(known)),
    )
