"""An independent process that destroys a clone when nobody else can any more.

Rules:
- It holds one end of a pipe. The pipe closes when the rehearsal ends or its process dies, by
  whatever signal; then, and at the deadline, what is left of the clone is destroyed and journalled.
- It is a session of its own: Ctrl-C and a closing terminal do not end it.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def stand_by(root: Path, state: Path, clone: Path, deadline_s: int) -> Iterator[None]:
    """Have `handrail reap` stand by for `clone` while this is held."""
    argv = [sys.executable, "-m", "handrail", "reap", clone.name, "--deadline", str(deadline_s)]
    guardian = subprocess.Popen(
        [*argv, "--root", str(root), "--state", str(state)],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
        cwd="/",
    )
    try:
        yield
    finally:
        if guardian.stdin:
            guardian.stdin.close()
        guardian.wait()
