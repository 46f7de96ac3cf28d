"""Note who a store is, in its declaration, so that another one is never mistaken for it.

A PostgreSQL server says who it is; nothing is written to it. A SQLite database gets a small table
with a random id.

examples:
  handrail adopt store/pilot-db
"""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from handrail.errors import UsageError

if TYPE_CHECKING:
    from handrail.cli.call import Call


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    parser.add_argument("store", metavar="STORE", help="store/name")


def run(call: Call) -> int:
    """Ask the store who it is, and write that into the estate."""
    from handrail.cli import screen
    from handrail.core import adopting

    stores = call.declared.estate.stores
    resource = stores.get(call.options.store) or stores.get(f"store/{call.options.store}")
    if resource is None:
        from handrail.estate.shapes import nearest

        raise UsageError(
            "estate.unknown-store",
            f"no store `{call.options.store}` is declared",
            hint=nearest(call.options.store, tuple(stores)),
        )
    identity = adopting.adopt(call.world, resource)
    if call.options.json:
        screen.write_json(
            {
                "format": 1,
                "store": resource.ref,
                "identity": str(identity),
                "version": identity.version,
            }
        )
    else:
        screen.write(f"{resource.ref} is {identity}\nwritten to {resource.place.file}; commit it.")
    return 0
