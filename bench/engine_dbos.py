"""DBOS's side of `bench/engine.py`, run by the Python of an environment of its own.

`engine_dbos.py step|fan-out TARGETS STEPS`: print one JSON object with `seconds`: of one step of a
workflow of STEPS, or of TARGETS child workflows of two steps each, started one after the other.
"""

from __future__ import annotations

import json
import os
import sys
import time

STEPS_OF_A_CHILD = 2


def measure(what: str, targets: int, steps: int) -> float:
    """Return the seconds, once warm."""
    from dbos import DBOS  # type: ignore[import-not-found]  # noqa: PLC0415  in the bench's own venv alone

    DBOS(
        config={
            "name": "bench",
            "system_database_url": f"sqlite:///{os.environ['DBOS_FILE']}",
            "run_admin_server": False,
            "log_level": "ERROR",
        }
    )

    @DBOS.step()  # type: ignore[untyped-decorator]  # DBOS has no types
    def nothing() -> int:
        return 1

    @DBOS.workflow()  # type: ignore[untyped-decorator]  # DBOS has no types
    def lane(count: int) -> int:
        return sum(nothing() for _ in range(count))

    @DBOS.workflow()  # type: ignore[untyped-decorator]  # DBOS has no types
    def fan_out(count: int) -> int:
        handles = [DBOS.start_workflow(lane, STEPS_OF_A_CHILD) for _ in range(count)]
        return sum(handle.get_result() for handle in handles)

    DBOS.launch()
    lane(2)
    began = time.perf_counter()
    if what == "step":
        lane(steps)
    else:
        fan_out(targets)
    seconds = time.perf_counter() - began
    DBOS.destroy()
    return seconds / (steps if what == "step" else 1)


if __name__ == "__main__":
    print(json.dumps({"seconds": measure(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))}))
