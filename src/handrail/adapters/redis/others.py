"""Says who else is connected.

Rules:
- Connections of Handrail's own name are left out, and so are replicas.
- A server that hides its clients from this user is one where nobody is seen.
"""

from __future__ import annotations

from handrail.adapters.redis.connecting import CLIENT_NAME, Session


def others(session: Session) -> tuple[str, ...]:
    """Return the other clients, for people: `worker as ana from 10.0.3.2`."""
    told = session.may("CLIENT", "LIST", "TYPE", "NORMAL") or b""
    told += session.may("CLIENT", "LIST", "TYPE", "PUBSUB") or b""
    found = set()
    for line in told.decode("utf-8", "replace").splitlines():
        client = dict(word.split("=", 1) for word in line.split(" ") if "=" in word)
        if client.get("name") != CLIENT_NAME:
            found.add(_said(client))
    return tuple(sorted(found))


def _said(client: dict[str, str]) -> str:
    name = client.get("name") or client.get("lib-name") or "a client"
    host = client.get("addr", "").rpartition(":")[0]
    place = "this machine" if host.startswith("/") or not host else host
    return f"{name} as {client.get('user', 'default')} from {place}"
