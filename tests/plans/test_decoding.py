"""Values are decoded from any thread."""

from __future__ import annotations

import subprocess
import sys

_RACE = """
import sys, threading
from dataclasses import make_dataclass
from handrail.plans.decoding import decode
sys.setswitchinterval(1e-6)
for turn in range(150):
    inner = make_dataclass("Inner", [(f"x{n}", int, 0) for n in range(30)])
    outer = make_dataclass("Outer", [(f"y{n}", tuple[inner, ...], ()) for n in range(20)])
    start = threading.Barrier(4)
    def race():
        start.wait()
        assert decode({"y0": [{"x1": 7}]}, outer).y0[0].x1 == 7
    threads = [threading.Thread(target=race) for _ in range(4)]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
"""


def test_threads_meet_a_class_for_the_first_time_together() -> None:
    """Four threads that decode values of a new class at once all get theirs."""
    done = subprocess.run([sys.executable, "-c", _RACE], capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (0, b"")
