"""Say what changed between two readings of the catalogs, as effects.

Rules:
- What goes with a dropped or created table (its columns, indexes, triggers) is not said again.
- A table under another id with the same name was replaced: the rows that were in it are gone.
- A partition that was detached is dropped from its table, though its rows are still somewhere.
- An object made anew exactly as it was has been altered, not lost, unless it holds rows.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from handrail.adapters.postgres.catalog import Item
from handrail.plans.effect import Effect

RELATIONS = frozenset({"table", "materialized view", "view", "foreign table"})
HOLDERS = frozenset({"table", "materialized view"})
# Shown as changed, but not spelled out: long, or nobody's business.
UNSPOKEN = frozenset({"definition", "value", "password", "member of", "options", "foreign"})

Rows = Callable[[str], int | None]
Key = tuple[str, str]


def differences(
    resource: str, before: Sequence[Item], after: Sequence[Item], rows: Rows
) -> list[Effect]:
    """Return the effects that lead from `before` to `after`; `rows` tells a table's rows before."""
    return _Difference(resource, before, after, rows).effects()


class _Difference:
    """Two readings side by side."""

    def __init__(
        self, resource: str, before: Sequence[Item], after: Sequence[Item], rows: Rows
    ) -> None:
        self._resource = resource
        self._before = {(i.kind, i.key): i for i in before if i.kind != "database properties"}
        self._after = {(i.kind, i.key): i for i in after if i.kind != "database properties"}
        self._rows = rows
        self._gone = {key: i for key, i in self._before.items() if key not in self._after}
        self._new = {key: i for key, i in self._after.items() if key not in self._before}
        self._lost_tables = {i.key for i in self._gone.values() if i.kind in RELATIONS}
        self._new_tables = {i.key for i in self._new.values() if i.kind in RELATIONS}

    def effects(self) -> list[Effect]:
        found: list[Effect] = []
        new_by_name = {(i.kind, i.name): key for key, i in self._new.items()}
        replaced = set()
        for item in self._gone.values():
            twin = new_by_name.get((item.kind, item.name))
            if twin:
                replaced.add(twin)
            if item.parent not in self._lost_tables:
                found += self._lost(item, self._after[twin] if twin else None)
        for key, item in self._new.items():
            if key not in replaced and item.parent not in self._new_tables:
                detail = "not valid" if item.attributes.get("valid") is False else ""
                found.append(self._effect("create", item, detail=detail))
        for key, item in self._before.items():
            if key in self._after:
                found += self._kept(item, self._after[key])
        return found

    def _effect(
        self, verb: str, item: Item, *, rows: int | None = None, detail: str = ""
    ) -> Effect:
        return Effect(self._resource, verb, item.kind, item.name, rows=rows, detail=detail)

    def _lost(self, item: Item, twin: Item | None) -> list[Effect]:
        rows = None
        if item.kind in HOLDERS and not item.attributes.get("partitioned"):
            rows = self._rows(item.key)
        elif item.kind == "column":
            rows = self._rows(item.parent)
        if twin is None:
            return [self._effect("drop", item, rows=rows)]
        if item.kind in HOLDERS or _spoken(item) != _spoken(twin):
            return [self._effect("replace", item, rows=rows)]
        return [self._effect("alter", item, detail="made anew, as it was")]

    def _kept(self, old: Item, new: Item) -> list[Effect]:
        found = []
        if self._local_name(old, self._before) != self._local_name(new, self._after):
            found.append(self._effect("rename", old, detail=f"now {new.name}"))
        if old.attributes.get("bound") and not new.attributes.get("bound"):
            rows = self._rows(old.key)
            parents = ", ".join(old.attributes.get("parents") or [])
            detail = f"detached from {parents}; the table itself stays"
            found.append(
                Effect(self._resource, "drop", "partition", old.name, rows=rows, detail=detail)
            )
        found += self._grants(old, new)
        mine, theirs = _spoken(old), _spoken(new)
        other = [n for n in sorted(mine) if n != "grants" and mine.get(n) != theirs.get(n)]
        # A column of another type is stored and sorted in another way: that follows.
        other = ["type"] if "type" in other and old.kind == "column" else other
        changes = [_change(name, mine.get(name), theirs.get(name)) for name in other]
        if changes:
            found.append(self._effect("alter", old, detail="; ".join(changes)))
        return found

    @staticmethod
    def _local_name(item: Item, items: Mapping[Key, Item]) -> str:
        """Return the name without its table's, so that a renamed table renames only itself."""
        for kind in RELATIONS:
            parent = items.get((kind, item.parent))
            if parent:
                return item.name.removeprefix(parent.name + ".")
        return item.name

    def _grants(self, old: Item, new: Item) -> list[Effect]:
        had, has = (set(item.attributes.get("grants") or []) for item in (old, new))
        if old.attributes.get("owner") != new.attributes.get("owner"):
            return []  # the owner's own rights moved with the ownership
        found = []
        if had - has:
            found.append(self._effect("revoke", old, detail=", ".join(sorted(had - has))))
        if has - had:
            found.append(self._effect("grant", old, detail=", ".join(sorted(has - had))))
        return found


def _spoken(item: Item) -> dict[str, Any]:
    return {k: v for k, v in item.attributes.items() if not k.startswith(("_", "~"))}


def _change(name: str, old: object, new: object) -> str:
    if name == "type":
        return f"now {new}, was {old}"
    if name in UNSPOKEN or isinstance(old, (list, dict)) or isinstance(new, (list, dict)):
        return f"another {name}"
    return f"{name} now {_word(new)}, was {_word(old)}"


def _word(value: object) -> str:
    if value is None or value == "":
        return "none"
    if isinstance(value, bool):
        return "on" if value else "off"
    return str(value)
