"""The shape of `schedule:` in an operation: when it begins by itself, and when it is missed.

Rules:
- A cron expression has five fields and some time that it means; a zone is an IANA name. Both are
  tried here, so that a mistake is told with its line, and not at three in the morning.
- Without `cron` a schedule begins nothing: it says that somebody else does, and by when.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from datetime import UTC, datetime, tzinfo
from typing import Any

import yaml

from handrail.errors import DeclarationError, Place
from handrail.estate.shapes import (
    DURATION,
    FLAG,
    NAME_TEXT,
    REFERENCE,
    TEXT,
    Choice,
    Key,
    ListOf,
    MapOf,
    Record,
    Source,
    Text,
)
from handrail.operations.model import Schedule

_LONGEST_CHARACTERS = 200
_FIELDS = 5
_TIME = re.compile(r"([01]?[0-9]|2[0-3]):([0-5][0-9])")
_SOME_DAY = datetime(2026, 1, 1, tzinfo=UTC)


def zone_of(name: str) -> tzinfo:
    """Return a time zone by its IANA name.

    Raises:
        ValueError: there is none of that name.
    """
    if name == "UTC":
        return UTC
    from zoneinfo import ZoneInfo  # noqa: PLC0415  few files have a calendar

    try:
        return ZoneInfo(name)
    except (KeyError, OSError) as error:
        raise ValueError(f"unknown time zone `{name}`") from error


def cron_problem(text: str) -> str:
    """Return why `text` is no cron expression that ever means a time; empty when it is one."""
    from cronsim import CronSim, CronSimError  # noqa: PLC0415  few files have a calendar

    if len(text) > _LONGEST_CHARACTERS or len(text.split()) != _FIELDS:
        return "expected five fields: minute, hour, day of month, month, day of week"
    try:
        is_some = next(CronSim(text, _SOME_DAY), None) is not None
    # A field of brackets or of digits that are none makes the library trip.
    except (CronSimError, ValueError, TypeError, AssertionError, IndexError) as error:
        return f"not a cron expression: {str(error).lower() or 'a field that cannot be read'}"
    return "" if is_some else "no such day will ever be"


def cron_of(by: str) -> str:
    """Return the cron expression of a time of day such as `06:00`; any other text as it is."""
    found = _TIME.fullmatch(by)
    return f"{int(found[2])} {int(found[1])} * * *" if found else by


class _CronShape:
    """Five fields, such as `0 3 * * *`."""

    _hint = "such as `0 3 * * *`"

    def read(self, node: yaml.Node, source: Source) -> str | None:
        found: str | None = TEXT.read(node, source)
        if found is None:
            return None
        text = self._cron(found)
        why = cron_problem(text)
        if why:
            said = f"{why}, found `{found}`"
            source.problem("estate.wrong-type", said, node, self._hint)
            return None
        return text

    def _cron(self, text: str) -> str:
        return " ".join(text.split())

    def schema(self) -> dict[str, Any]:
        return {"type": "string", "pattern": r"^\s*(\S+\s+){4}\S+\s*$"}


class _ByShape(_CronShape):
    """A time of day such as `06:00`, or five fields."""

    _hint = "such as `06:00` or `0 6 * * 1-5`"

    def _cron(self, text: str) -> str:
        return super()._cron(cron_of(text))

    def schema(self) -> dict[str, Any]:
        return {"anyOf": [super().schema(), {"type": "string", "pattern": f"^({_TIME.pattern})$"}]}


class _ZoneShape:
    """An IANA name, or UTC."""

    def read(self, node: yaml.Node, source: Source) -> str | None:
        name: str | None = TEXT.read(node, source)
        if name is None:
            return None
        try:
            zone_of(name)
        except ValueError:
            hint = "write an IANA name such as Europe/London, or UTC"
            source.problem("estate.wrong-type", f"unknown time zone `{name}`", node, hint)
            return None
        return name

    def schema(self) -> dict[str, Any]:
        return {"type": "string", "minLength": 1}


def _schedule(
    *, place: Place, jitter: int, late: int, expect: int, parameters: Mapping[str, str], **rest: Any
) -> Schedule:
    return Schedule(
        place=place,
        jitter_s=jitter,
        late_s=late,
        expect_s=expect,
        parameters=parameters,
        **rest,
    )


_ONE = Record(
    _schedule,
    {
        "name": Key(NAME_TEXT, "what tells it from the operation's other schedules", default=""),
        "cron": Key(
            _CronShape(), "when it begins: five fields; without it nothing begins", default=""
        ),
        "zone": Key(_ZoneShape(), "the time zone of `cron` and `by`", default="UTC"),
        "jitter": Key(
            DURATION, "it begins up to so much later, always the same for one time", default=0
        ),
        "late": Key(DURATION, "how long after its time it may still begin", default=3600),
        "missed": Key(
            Choice("skip", "once"),
            "whether times that were missed altogether are skipped, or made up for by one run",
            default="skip",
        ),
        "on": Key(REFERENCE, "the target, where the operation leaves a choice", default=""),
        "parameters": Key(
            MapOf(Text(saying="a parameter's value")), "values of its parameters", default={}
        ),
        "rehearse": Key(
            FLAG, "rehearse first, where the newest rehearsal counts no more", default=False
        ),
        "expect": Key(DURATION, "the longest time from one success to the next", default=0),
        "by": Key(
            _ByShape(),
            "a time of day, or a cron expression, by which it must have succeeded",
            default="",
        ),
    },
)


class SchedulesShape:
    """One schedule, or a list of them."""

    _mapping = _ONE

    def read(self, node: yaml.Node, source: Source) -> tuple[Schedule, ...] | None:
        found = ListOf(self._mapping).read(node, source)
        if found is None:
            return None
        for one in found:
            if not one.cron and not one.expects:
                _problem(source, one, "a schedule has a `cron`, an `expect` or a `by`")
        names = Counter(one.name for one in found)
        for one in found:
            if names[one.name] > 1:
                said = f"`{one.name}` is the name of several" if one.name else "no name"
                _problem(source, one, f"each of several schedules has its own `name`: {said}")
        return found

    def schema(self) -> dict[str, Any]:
        some = [{"required": [key]} for key in ("cron", "expect", "by")]
        one = self._mapping.schema() | {"anyOf": some}
        return {"anyOf": [{"type": "array", "items": one}, one]}


def _problem(source: Source, one: Schedule, said: str) -> None:
    source.problems.append(DeclarationError("estate.missing-key", said, at=one.place))
