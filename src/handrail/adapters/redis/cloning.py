"""Makes a clone of a server from a backup: a server of its own, as like the original as can be.

Rules:
- Its settings, its number of databases and its users' rules are the original's, as far as those
  could be read when the backup was made; every password is another, and random.
- The script has the same user name as on the original; no other user can log in.
- A setting that makes the server write, replicate or listen elsewhere is never copied.
- Commands that the original renames or modules that it loads cannot be copied: loading a module's
  data fails, and says so.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from handrail.adapters.redis import scratch
from handrail.adapters.redis.backups import DUMP_FILE, RDB_FILE, Notes, load_dumps, read_notes
from handrail.adapters.redis.connecting import Address, connected
from handrail.adapters.redis.identity import clone_file
from handrail.adapters.redis.programs import Program, find_program, read_version
from handrail.adapters.redis.settings import make_alike
from handrail.plans.facts import Backup
from handrail.ports import Progress

_EVERYTHING = "on ~* &* +@all"


@dataclass(frozen=True)
class Clone:
    """A running clone.

    Attributes:
        server: with our own way in.
        script: how a script reaches it.
        program: that it runs.
        notes: of the backup that it was made of.
    """

    server: scratch.Scratch
    script: Address
    program: Program
    notes: Notes


def make(
    original: Address,
    backup: Backup,
    at: Path,
    marker: str,
    environment: Mapping[str, str],
    progress: Progress,
) -> Clone:
    """Make a clone in the empty directory `at`."""
    notes = read_notes(backup)
    program = find_program(environment, read_version(notes.version))
    folder = scratch.claim(at, marker)
    name = clone_file(marker)
    data = Path(backup.path) / RDB_FILE
    progress(0, backup.size_bytes)
    if data.is_file():
        scratch.place_data(data, folder, name)
    user, password = original.user or "default", secrets.token_hex(24)
    wanted = {"dbfilename": name, "databases": str(notes.databases)}
    server = scratch.start(folder, program, wanted, _users(notes.users, user, password))
    (folder / name).unlink(missing_ok=True)
    with connected(server.admin) as session:
        if not data.is_file():
            load_dumps(session, Path(backup.path) / DUMP_FILE, notes)
        make_alike(session, notes.settings)
    progress(backup.size_bytes, backup.size_bytes)
    script = replace(server.admin, user=user, password=password, database=original.database)
    return Clone(server, script, program, notes)


def _users(rules: Mapping[str, str], user: str, password: str) -> list[str]:
    """Return lines of configuration: everybody with the same rights, and one who may come in."""
    lines = []
    for name, rights in {user: _EVERYTHING, **rules}.items():
        secret = f" >{password}" if name == user else ""
        lines.append(f"user {name} {rights}{secret}")
    return lines
