"""`python -m scripts.torture [--short] [SUITE ...]`: run other projects' suites through the guard.

Exit code: 0 when every difference has its reason, 1 when one has none. A suite that cannot be had
here is skipped, and that is said; with HANDRAIL_REQUIRE=all that is a failure.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

TOP = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(TOP), str(TOP / "tests")]

from scripts.torture import clients, regression, sources  # noqa: E402
from scripts.torture.comparing import Outcome  # noqa: E402

_SUITES: dict[str, Callable[..., Outcome]] = {
    "postgres-regression": regression.run,
    "psycopg2": clients.psycopg2,
    "asyncpg": clients.asyncpg,
    "redis-py": clients.redis_py,
}
# The project's own tests, for longer: not part of the short form.
_FUZZ, _KILLS = "fuzz", "kills"
_LONG = (_FUZZ, _KILLS)
# Half of them over each database; HANDRAIL_KILLS says otherwise.
_KILLS_EACH = "1000"
# Of workers and servers of Temporal, which take longer to start; HANDRAIL_TEMPORAL_KILLS.
_TEMPORAL_KILLS = "200"


def main() -> int:
    """Run what is named, else everything."""
    every = (*_SUITES, *_LONG)
    parser = argparse.ArgumentParser(prog="python -m scripts.torture", description=__doc__)
    parser.add_argument("suites", nargs="*", metavar="SUITE", help="of: " + ", ".join(every))
    parser.add_argument("--short", action="store_true", help="what is quick alone")
    options = parser.parse_args()
    unknown = set(options.suites) - set(every)
    if unknown:
        parser.error(f"no suite is called {', '.join(sorted(unknown))}")
    names = options.suites or [name for name in every if name not in _LONG or not options.short]
    failed = [name for name in names if not _run(name, short=options.short)]
    return 1 if failed else 0


def _run(name: str, *, short: bool) -> bool:
    """Run one, and say what came of it."""
    print(f"{name} ...", file=sys.stderr, flush=True)
    if name in _LONG:
        return _fuzz() if name == _FUZZ else _kill()
    try:
        outcome = _SUITES[name](short=short)
    except sources.UnavailableError as error:
        print(f"skipped  {name}: {error}", flush=True)
        return os.environ.get("HANDRAIL_REQUIRE") != "all"
    print(_told(outcome), flush=True)
    return outcome.is_good


def _fuzz() -> bool:
    """Run the fuzz tests of the guards and of the API with many more examples."""
    argv = [sys.executable, "-m", "pytest", "-q", "-n", "auto", "-m", "hypothesis"]
    argv += ["tests/wire", "tests/api/test_description.py"]
    environment = {**os.environ, "HYPOTHESIS_PROFILE": "torture"}
    return subprocess.run(argv, cwd=TOP, env=environment, check=False).returncode == 0


def _kill() -> bool:
    """Kill engines in mid-run; the count and the seed are printed."""
    argv = [sys.executable, "-m", "pytest", "-q", "-s", "-n", "0", "tests/adapters"]
    argv += ["-k", "killed_at_any_moment", "-p", "no:randomly"]
    environment = {
        "HANDRAIL_KILLS": _KILLS_EACH,
        "HANDRAIL_TEMPORAL_KILLS": _TEMPORAL_KILLS,
        **os.environ,
    }
    return subprocess.run(argv, cwd=TOP, env=environment, check=False).returncode == 0


def _told(outcome: Outcome) -> str:
    direct_s, guarded_s = outcome.duration_s
    mark = "ok" if outcome.is_good else "x"
    lines = [
        f"{mark:<7}  {outcome.suite}: {outcome.tests} tests, {len(outcome.listed)} listed "
        f"differences, {len(outcome.unlisted)} others; direct {direct_s:.0f} s, guarded "
        f"{guarded_s:.0f} s" + (f"; {outcome.note}" if outcome.note else "")
    ]
    lines += [f"  listed    {name}: {reason}" for name, reason in outcome.listed]
    lines += [f"  x         {name}: {how}" for name, how in outcome.unlisted]
    lines += [f"  no more   {name}: is listed, and did not differ" for name in outcome.unseen]
    return "\n".join(lines)


if __name__ == "__main__":
    raise SystemExit(main())
