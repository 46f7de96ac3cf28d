"""What differs between two specifications, line by line, for people.

Rules:
- Every difference has a line: `~ web > command: a -> b`, `+ ...`, `- ...`; equal bodies have none.
- A long value is cut, and the two sides of a line never look the same because of that.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from handrail.plans.canonical import encode, sha256

_LONGEST_CHARACTERS = 120
_Path = tuple[tuple[str, bool], ...]  # each name, and whether it is a list's member


def differences(before: object, after: object) -> tuple[str, ...]:
    """Return one line for each value that is added, gone or another, in the order of the paths.

    Args:
        before: JSON values: what runs; None for nothing.
        after: JSON values: what would run.
    """
    olds = {} if before is None else dict(_leaves((), before))
    news = {} if after is None else dict(_leaves((), after))
    paths = sorted({*olds, *news})
    return tuple(_line(p, olds.get(p), news.get(p)) for p in paths if olds.get(p) != news.get(p))


def _leaves(path: _Path, value: object) -> Iterator[tuple[_Path, str]]:
    """Yield the canonical text of each value that has no others inside, by where it stands."""
    inside = _inside(value)
    if not inside:
        yield path, encode(value)
    for name, one in inside.items():
        yield from _leaves((*path, (name, isinstance(value, list | tuple))), one)


def _inside(value: object) -> Mapping[str, object]:
    """Return what is looked into: mappings, and lists of mappings by their names."""
    if isinstance(value, Mapping):
        return value
    if not isinstance(value, list | tuple) or not all(isinstance(v, Mapping) for v in value):
        return {}
    names = [str(item.get("Name", "")) for item in value]
    known = all(names) and len(set(names)) == len(names)
    return {name if known else str(n): value[n] for n, name in enumerate(names)}


def _line(path: _Path, old: str | None, new: str | None) -> str:
    where = " > ".join(name for name, _ in path)
    if old is None or new is None:
        return f"{'+' if old is None else '-'} {where}: {_told(new or old or '')}"
    first, second = _told(old), _told(new)
    if first == second:
        first, second = f"{first} ({sha256(old)[:8]})", f"{second} ({sha256(new)[:8]})"
    return f"~ {where}: {first} -> {second}"


def _told(text: str) -> str:
    text = text[1:-1] if text[:1] == '"' else text
    return text if len(text) <= _LONGEST_CHARACTERS else f"{text[: _LONGEST_CHARACTERS - 3]}..."
