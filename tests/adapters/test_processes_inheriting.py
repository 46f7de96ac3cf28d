"""A command whose standard streams are this process's own: it may ask, and print where it likes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from support.scripts import PATH, Workshop, require_confinement

DRIVER = """
import sys
from pathlib import Path
from handrail.adapters.processes import LocalProcesses
from handrail.ports import Command, Confine
folder, confined = Path(sys.argv[1]), sys.argv[2] == "confined"
command = Command(
    ("/bin/sh", "-c", "read line; echo out $line; echo err $line >&2; exit 3"), folder,
    {"PATH": "/bin:/usr/bin"}, 20, folder / "output.log", reserve_bytes=0, inherits=True,
    confine=Confine(network_only=True) if confined else None,
)
finished = LocalProcesses().run(command, lambda _: None, lambda piece: sys.exit(f"got {piece}"))
sys.exit(finished.exit_code + finished.output_bytes)
"""


@pytest.mark.parametrize("how", ["plain", "confined"])
def test_streams(tmp_path: Path, how: str) -> None:
    """It reads and prints where this process does; nothing of it is kept or handed on."""
    if how == "confined":
        require_confinement(Workshop(tmp_path).processes)
    done = subprocess.run(
        [sys.executable, "-c", DRIVER, str(tmp_path), how],
        input="hello\n",
        capture_output=True,
        text=True,
        check=False,
        env={"PATH": PATH},
    )
    assert (done.stdout, done.stderr, done.returncode) == ("out hello\n", "err hello\n", 3)
    assert (tmp_path / "output.log").read_bytes() == b""
