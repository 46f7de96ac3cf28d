"""Takes the server's secrets out of what CONFIG GET tells.

Rules:
- The script gets the settings that it asked for, secrets empty.
"""

from __future__ import annotations

from handrail.wire.redis.replies import Reply, decode

SECRET = frozenset(
    {
        b"requirepass",
        b"masterauth",
        b"primaryauth",
        b"masteruser",
        b"primaryuser",
        b"tls-key-file-pass",
        b"tls-client-key-file-pass",
    }
)


def without_secrets(reply: bytes) -> bytes:
    """Return an answer of CONFIG GET, a flat list or a map, without secrets."""
    told: Reply = decode(reply)
    if not isinstance(told, list):
        return reply
    values = [item if isinstance(item, bytes) else b"" for item in told]
    for at in range(0, len(values) - 1, 2):
        if values[at].lower() in SECRET:
            values[at + 1] = b""
    header = reply[: reply.index(b"\r\n") + 2]
    return header + b"".join(b"$%d\r\n%s\r\n" % (len(value), value) for value in values)
