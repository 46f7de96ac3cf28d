"""A team's own programs: run, observed, confined for a rehearsal, and ended with all they started.

Rules:
- Handrail is never a script's parent: a launcher stands between, and its death loses nothing.
- When `run` returns or raises, nothing that the script started is left.
- A rehearsed script is confined by the kernel, or the caller is told in one sentence why not.
"""

from handrail.adapters.processes.running import LocalProcesses

__all__ = ["LocalProcesses"]
