"""PostgreSQL's own regression suite: the same output through an observing guard as direct.

Rules:
- Two servers that are made alike, one for each run; the outputs are compared file by file, byte by
  byte, and not with what the release expects: the server's own version may be another one.
- The files lie where the server's user may read and write them.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from bench.rehearsal_clone import server
from scripts.torture import sources
from scripts.torture.comparing import Outcome, compare

from handrail.adapters.postgres.binaries import installed
from support import guard_process

REASONS = sources.HERE / "regression-differences.txt"
_LONGEST_S = 1800


def run(*, short: bool = False) -> Outcome:
    """Run the suite direct, then through the guard.

    Raises:
        UnavailableError: it cannot be had, or there is no server here.
    """
    del short  # it takes a minute
    found = installed(os.environ)
    if not found:
        raise sources.UnavailableError("no PostgreSQL programs on this machine")
    binaries = found[0]
    told = subprocess.run(
        [binaries.program("pg_config"), "--pgxs"], capture_output=True, text=True, check=True
    )
    program = Path(told.stdout.strip()).parents[1] / "test/regress/pg_regress"
    if not program.is_file():
        raise sources.UnavailableError(f"{program} is missing (Debian: postgresql-client-NN)")
    source = sources.regression(binaries.major, binaries.program("pg_config"))
    direct, direct_s = _once(source, program, behind=False)
    guarded, guarded_s = _once(source, program, behind=True)
    return compare(
        "postgres-regression", direct, guarded, REASONS, duration_s=(direct_s, guarded_s)
    )


def _once(source: Path, program: Path, *, behind: bool) -> tuple[Mapping[str, str], float]:
    """Return each test's output, and how long all took."""
    with server() as (cluster, folder):
        for path in (folder, *folder.parents):
            if path.owner() == folder.owner() and str(path).startswith(str(folder)):
                path.chmod(0o755)
        suite, results = folder / "regress", folder / "out"
        shutil.copytree(source, suite)
        for path in (results, results / "results"):
            path.mkdir()
            path.chmod(0o777)
        address = cluster.address()
        with _target(address.url(), dict(address.environment()), behind=behind) as environment:
            argv = [str(program), f"--inputdir={suite}", f"--outputdir={results}"]
            argv += [f"--bindir={cluster.binaries.folder}", f"--dlpath={suite / 'lib'}"]
            argv += [f"--schedule={suite / 'parallel_schedule'}", "--max-concurrent-tests=20"]
            argv += [f"--host={environment['PGHOST']}", f"--port={environment['PGPORT']}"]
            argv += [f"--user={environment['PGUSER']}"]
            began = time.monotonic()
            subprocess.run(
                argv,
                env={**_plain(), **environment},
                cwd=results,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                timeout=_LONGEST_S,
                check=False,  # exit 1: some output is not what the release expects
            )
            took_s = time.monotonic() - began
        return _outputs(results / "results", folder, cluster.superuser), took_s


@contextmanager
def _target(
    url: str, environment: Mapping[str, str], *, behind: bool
) -> Iterator[Mapping[str, str]]:
    """Give the environment of a client: of the server itself, or of a guard before it."""
    if not behind:
        yield environment
        return
    with guard_process.running("postgres", url) as guard:
        yield guard.environment


def _plain() -> dict[str, str]:
    kept = {n: v for n, v in os.environ.items() if not n.startswith(("PG", "LC_", "LANG"))}
    return {**kept, "PATH": "/usr/local/bin:/usr/bin:/bin"}


def _outputs(results: Path, folder: Path, superuser: str) -> dict[str, str]:
    """Return the outputs, without what is another in every run."""
    texts = {path.stem: path.read_text(errors="replace") for path in results.glob("*.out")}
    return {
        name: text.replace(str(folder), "FOLDER").replace(superuser, "SUPERUSER")
        for name, text in texts.items()
    }
