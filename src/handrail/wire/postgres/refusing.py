"""Refusals, as the server itself says them.

Rules:
- A statement is replaced by one that fails on the server with our message: what state its
  transaction is in stays the server's own business.
- The text is handed over as digits: no setting of the script's changes how it is read.
"""

from __future__ import annotations

from handrail.wire.ledger import Refusal
from handrail.wire.postgres import frames

CODE = "HR000"
_CONTEXT = (b"W", b"F", b"L", b"R")


def failing(refusal: Refusal) -> bytes:
    """Return a simple query that fails with what `refusal` says."""
    parts = {"MESSAGE": refusal.message, "DETAIL": refusal.detail, "HINT": refusal.hint}
    said = ", ".join(f"{name} = {_literal(text)}" for name, text in parts.items() if text)
    body = f"BEGIN RAISE EXCEPTION USING ERRCODE = '{CODE}', {said}; END"
    return frames.query(f"DO LANGUAGE plpgsql $handrail${body}$handrail$")


def _literal(text: str) -> str:
    digits = text.encode().hex()
    return (
        f"pg_catalog.convert_from(pg_catalog.decode('{digits}'::pg_catalog.text,"
        " 'hex'::pg_catalog.text), 'UTF8'::pg_catalog.name)"
    )


def without_context(error: bytes) -> bytes:
    """Return the server's ErrorResponse without where in our own statement it was raised."""
    kept, at = b"", frames.HEADER
    while at < len(error) and error[at]:
        _, end = frames.text(error, at + 1)
        kept += error[at:end] if error[at : at + 1] not in _CONTEXT else b""
        at = end
    return frames.build(b"E", kept + b"\0")


def frame(refusal: Refusal) -> bytes:
    """Return the ErrorResponse itself, for a server that could not say it."""
    fields = {"S": "ERROR", "V": "ERROR", "C": CODE, "M": refusal.message}
    fields |= {"D": refusal.detail} if refusal.detail else {}
    fields |= {"H": refusal.hint} if refusal.hint else {}
    body = b"".join(key.encode() + value.encode() + b"\0" for key, value in fields.items())
    return frames.build(b"E", body + b"\0")
