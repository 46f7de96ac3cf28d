"""Who a server says it is.

Rules:
- `adopt` writes the id into the key `handrail:identity` of database 0: so it goes wherever the data
  goes (replicas, backups, a restart), which `run_id` and `master_replid` do not. It is no content:
  no measure, checksum or effect counts it.
- FLUSHALL takes it away; the restore of a backup brings it back, and so does `adopt`.
- The endpoint is where it was reached, with the database that a script begins in.
- A clone is known by its `dbfilename`, `handrail-clone-<marker>.rdb`: a setting that the server
  itself tells, and that goes into no backup.
"""

from __future__ import annotations

import re

from handrail.adapters.redis.connecting import Address, Session, connected
from handrail.adapters.redis.keys import IDENTITY_KEY
from handrail.errors import StoreError
from handrail.plans.facts import Identity

UNADOPTED = "unadopted"
OLDEST = 6
_CLONE_FILE = re.compile(r"handrail-clone-([0-9a-f]+)\.rdb")


def clone_file(marker: str) -> str:
    """Return the `dbfilename` that only the clone of that marker has."""
    return f"handrail-clone-{marker}.rdb"


def identify(address: Address) -> Identity:
    """Return who answers at `address`.

    Raises:
        StoreError: it is down, loading, a replica, a cluster or a sentinel, or refuses.
    """
    with connected(address, timeout_s=10.0) as session:
        server = session.info("server")
        _check_usable(address, server, session.info("replication"), session.info("cluster"))
        return Identity(
            id=f"redis:{_read_id(session)}",
            endpoint=f"{address}/{address.database}",
            version=_version(server),
            marker=_marker(session),
        )


def adopt(address: Address, new_id: str) -> Identity:
    """Give the server `new_id` where it has none, and return who it is."""
    found = identify(address)
    if found.id != f"redis:{UNADOPTED}":
        return found
    with connected(address) as session:
        put_id(session, new_id)
    return identify(address)


def put_id(session: Session, who: str) -> None:
    """Write an id where there is none. The session is at database 0 afterwards."""
    session.ask("SELECT", 0)
    session.ask("SET", IDENTITY_KEY, who, "NX")


def _read_id(session: Session) -> str:
    if session.address.database:
        session.ask("SELECT", 0)
    found = session.may("GET", IDENTITY_KEY)
    return found.decode("utf-8", "replace") if found else UNADOPTED


def _marker(session: Session) -> str:
    told = session.may("CONFIG", "GET", "dbfilename") or [b"", b""]
    match = _CLONE_FILE.fullmatch(told[1].decode("utf-8", "replace"))
    return match[1] if match else ""


def _version(server: dict[str, str]) -> str:
    name = "Valkey" if server.get("server_name") == "valkey" else "Redis"
    number = server.get("valkey_version") or server.get("redis_version") or "of unknown version"
    return f"{name} {number}"


def _check_usable(
    address: Address, server: dict[str, str], replication: dict[str, str], cluster: dict[str, str]
) -> None:
    mode = server.get("redis_mode", "standalone")
    if mode != "standalone" or cluster.get("cluster_enabled") == "1":
        raise StoreError(
            "store.unsupported",
            f"Redis at {address} runs as {mode}, which is not supported",
            hint="use a server that stands alone, or its primary",
        )
    if replication.get("role") == "slave":
        raise StoreError(
            "store.recovering",
            f"Redis at {address} is a replica",
            hint=f"use the primary's address, {replication.get('master_host', '')}",
        )
    number = server.get("redis_version", "")
    if number and int(number.split(".", 1)[0]) < OLDEST:
        raise StoreError(
            "store.unsupported",
            f"Redis at {address} is {number}; {OLDEST} is the oldest supported",
            hint="upgrade the server, or run this operation without Handrail",
        )
