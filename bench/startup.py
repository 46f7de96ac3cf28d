"""What starting costs: CPU time of whole processes, children included, against `python -c pass`.

Rules:
- Each turn runs every program once (A B C A B C ...), so that a slow moment hits all; a ratio is
  the median over the turns.
- Every program has its bytecode, as after any installation: a first run that does not count makes
  it, in a folder of the bench's own.
- `handrail plan` works on an estate of 1,000 resources in a git repository, on a SQLite store that
  was adopted. It may cost three empty processes and the reading of the same YAML by the library's
  own C loader; its ratio is what it costs over what it may.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from bench.estates import make_repository

BOUND = 3.0
_TURNS = 15
_EMPTY = (sys.executable, "-c", "pass")
_HANDRAIL = str(Path(sys.executable).with_name("handrail"))
_READ_YAML = """
import sys, yaml
for path in sys.argv[1:]:
    with open(path, "rb") as file:
        yaml.load(file, Loader=yaml.CSafeLoader)
"""


def main() -> list[dict[str, object]]:
    """Return what `handrail --help` and `handrail plan` cost."""
    with tempfile.TemporaryDirectory(prefix="handrail-bench-") as name:
        environment = {**os.environ, "PYTHONPYCACHEPREFIX": f"{name}/bytecode"}
        environment.pop("PYTHONDONTWRITEBYTECODE", None)
        return [_help(environment), _plan(environment, Path(name) / "repository")]


def _help(environment: Mapping[str, str]) -> dict[str, object]:
    programs = ((_HANDRAIL, "--help"), _EMPTY)
    turns = _measured(programs, environment)
    ratio = statistics.median(help_s / empty_s for help_s, empty_s in turns)
    help_s, empty_s = (statistics.median(column) for column in zip(*turns, strict=True))
    detail = f"{help_s * 1000:.1f} ms, python -c pass {empty_s * 1000:.1f} ms"
    return {"name": "handrail-help", "ratio": round(ratio, 3), "bound": BOUND, "detail": detail}


def _plan(environment: Mapping[str, str], root: Path) -> dict[str, object]:
    make_repository(root, resources=1000)
    environment = {**environment, "HANDRAIL_ROOT": str(root)}
    subprocess.run((_HANDRAIL, "adopt", "pilot-db"), env=environment, check=True, stdout=-3)
    files = map(str, sorted(root.glob("*/*.yaml")))
    programs = ((_HANDRAIL, "plan", "reset-pilot"), _EMPTY, (_EMPTY[0], "-c", _READ_YAML, *files))
    turns = _measured(programs, environment)
    ratio = statistics.median(
        plan_s / (BOUND * empty_s + read_s - empty_s) for plan_s, empty_s, read_s in turns
    )
    plan_s, empty_s, read_s = (statistics.median(column) for column in zip(*turns, strict=True))
    detail = (
        f"{plan_s * 1000:.0f} ms, python -c pass {empty_s * 1000:.1f} ms, "
        f"reading the YAML {(read_s - empty_s) * 1000:.0f} ms"
    )
    return {"name": "handrail-plan", "ratio": round(ratio, 3), "bound": 1.0, "detail": detail}


def _measured(
    programs: Sequence[tuple[str, ...]], environment: Mapping[str, str]
) -> list[tuple[float, ...]]:
    """Return the CPU seconds of each program, a row a turn."""
    for program in programs:
        _cpu_s(program, environment)
    return [tuple(_cpu_s(program, environment) for program in programs) for _ in range(_TURNS)]


def _cpu_s(argv: tuple[str, ...], environment: Mapping[str, str]) -> float:
    """Return the user and system time of a program and of all that it waited for.

    A refused plan (exit code 3) is a plan.
    """
    quiet = [(os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0)]
    child = os.posix_spawn(argv[0], argv, environment, file_actions=quiet)
    _, status, used = os.wait4(child, 0)
    if os.waitstatus_to_exitcode(status) not in {0, 3}:
        raise RuntimeError(f"{argv[0]} ended with status {status}")
    return used.ru_utime + used.ru_stime


if __name__ == "__main__":
    for row in main():
        print(row)
