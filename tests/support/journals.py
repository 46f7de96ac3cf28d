"""A journal with several chains, for tests that damage it."""

from __future__ import annotations

from handrail.ports import Journal, Record


def fill(journal: Journal, *, close: bool = True) -> None:
    """Write three chains of one to four records, the second reopened; close them with `close`."""
    for number, length in enumerate((4, 2, 1), start=1):
        chain = f"run-{number}"
        for step in range(length):
            journal.append(chain, "done", {"step": step})
        if close:
            journal.close(chain)
    journal.append("run-2", "undone", {})
    if close:
        journal.close("run-2")


def read(journal: Journal) -> tuple[list[Record], list[Record]]:
    """Return all records but the anchors, and the anchors."""
    records = [record for chain in journal.chains() for record in journal.records(chain)]
    return records, list(journal.anchors())
