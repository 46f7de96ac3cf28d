"""An engine inside of this process: one thread that writes, and threads only while steps act.

Rules:
- It decides nothing by itself: the journal says what was, and `plans/moving.py` what comes next.
- A step is journalled before it acts and after; what it returned is durable before the next begins.
- Each walk has one writer. Whoever else goes on with it writes first; the other's next mark is
  refused (`FencedError`), and it lets go of the walk.
- A walk that waits holds no thread, no lock, no connection, and no more memory than its number.
"""

from handrail.adapters.embedded.engine import EmbeddedEngine

__all__ = ["EmbeddedEngine"]
