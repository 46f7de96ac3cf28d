"""What a client says at its start changes nothing of how it is held."""

from __future__ import annotations

import socket

import pytest

from handrail.wire.postgres import frames
from support.guarding import Database, budget, hold
from support.opening import Raw, prove, start, until_ready

READING = "default_transaction_read_only"


@pytest.mark.parametrize(
    "settings",
    [
        {READING: "off"},
        {READING.upper(): "off"},
        {READING: "off", READING.title(): "off"},
        {"options": f"-c {READING}=off"},
        {"options": f"--{READING.replace('_', '-')}=off"},
    ],
    ids=["plain", "capitals", "twice", "options", "long option"],
)
def test_no_setting_of_the_start_lets_it_write(
    database: Database, settings: dict[str, str]
) -> None:
    """A client that begins with writing switched on, however it is spelt, is held all the same."""
    database.direct(
        "CREATE FUNCTION tidy() RETURNS int LANGUAGE plpgsql AS"
        " $$ BEGIN DELETE FROM notes; RETURN 1; END $$"
    )
    with database.guarded(hold(budget(delete_notes=49))) as guarded:
        there = guarded.guard.connection().parts
        place = (there["host"], int(there["port"]))
        with Raw(socket.create_connection(place, timeout=10)) as raw:
            raw.send(start(3 << 16, user=there["user"], database=there["database"], **settings))
            prove(raw, there["password"])
            until_ready(raw)
            raw.send(frames.query("SELECT tidy()"))
            errors = [frames.said(body).code for kind, body in until_ready(raw) if kind == b"E"]
    assert errors == ["HR000"]
    assert database.counts()["notes"] == 50
