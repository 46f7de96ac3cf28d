"""Reading `notifications.yaml`: who is told what, and how.

Rules:
- A secret (a hook's address, a key, a password) is declared by reference, never by value.
- Without the file nobody is told anything; what happened stands in the journal all the same.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import yaml

from handrail.errors import DeclarationError, DeclarationErrors, Place
from handrail.estate.kinds import ADDRESS, SECRET
from handrail.estate.loading import link_problem, read_text
from handrail.estate.model import Estate
from handrail.estate.shapes import (
    FLAG,
    NAME_TEXT,
    TEXT,
    Choice,
    Key,
    ListOf,
    MapOf,
    Record,
    Source,
    Text,
    nearest,
    parse,
)
from handrail.plans.notice import (
    BY_DEFAULT,
    KINDS,
    Destination,
    Email,
    Notifications,
    Slack,
    Webhook,
)

FILE = "notifications.yaml"


def _webhook(*, place: Place, **rest: Any) -> Webhook:
    del place
    return Webhook(**rest)


def _slack(*, place: Place, **rest: Any) -> Slack:
    del place
    return Slack(**rest)


def _email(*, place: Place, **rest: Any) -> Email:
    del place
    rest["sender"] = rest.pop("from")
    return Email(**rest)


_MAILBOX = Text(r"[^@\s<>,;:\"\\]{1,64}@[A-Za-z0-9.-]{1,253}", "an address such as ops@example.org")
_SERVER = Text(r"[A-Za-z0-9.-]{1,253}(:[0-9]{1,5})?", "a server such as smtp.example.org:587")
_AUTHORITY = Key(TEXT, "file of certificates that are trusted besides the system's", default="")
_PLAIN = Key(FLAG, "allow http:// to another machine", default=False)
_CHANNELS = {
    "webhook": Record(
        _webhook,
        {
            "url": Key(ADDRESS, "where it is sent", required=True),
            "secret": Key(SECRET, "what signs it, as `whsec_...`"),
            "authority": _AUTHORITY,
            "plain": _PLAIN,
        },
    ),
    "slack": Record(
        _slack,
        {
            "url": Key(SECRET, "the incoming webhook's address", required=True),
            "authority": _AUTHORITY,
            "plain": _PLAIN,
        },
    ),
    "email": Record(
        _email,
        {
            "server": Key(_SERVER, "the mail server", required=True),
            "from": Key(_MAILBOX, "who writes", required=True),
            "to": Key(ListOf(_MAILBOX), "who is written to", required=True),
            "tls": Key(
                Choice("starttls", "tls", "none"), "how it is protected", default="starttls"
            ),
            "user": Key(ADDRESS, "as whom"),
            "password": Key(SECRET, "its password"),
            "authority": _AUTHORITY,
        },
    ),
}
_DESTINATION = Record(
    dict,
    {
        **{name: Key(shape, f"told by {name}") for name, shape in _CHANNELS.items()},
        "for": Key(ListOf(Choice(*KINDS)), "kinds of notice", default=BY_DEFAULT),
        "environments": Key(ListOf(NAME_TEXT), "of these environments alone", default=()),
        "resources": Key(ListOf(TEXT), "of these resources alone: `store/pilot-*`", default=()),
    },
)


class _DestinationShape:
    """One channel, and what is told there."""

    _mapping = _DESTINATION

    def read(self, node: yaml.Node, source: Source) -> Destination | None:
        found = self._mapping.read(node, source)
        if found is None:
            return None
        channels = [found[name] for name in _CHANNELS if found[name] is not None]
        if len(channels) != 1:
            said = "a destination is exactly one of " + ", ".join(f"`{c}`" for c in _CHANNELS)
            source.problem("estate.wrong-type", said, node)
            return None
        channel = channels[0]
        if isinstance(channel, Email) and channel.tls == "none" and channel.password:
            source.problem(
                "estate.wrong-type", "a password is not sent without TLS", node, "tls: starttls"
            )
            return None
        return Destination(
            "",
            channel,
            found["place"],
            found["for"],
            found["environments"],
            found["resources"],
        )

    def schema(self) -> dict[str, Any]:
        return self._mapping.schema() | {"oneOf": [{"required": [name]} for name in _CHANNELS]}


NOTIFICATIONS = Record(
    dict,
    {
        "link": Key(
            Text(r"https?://\S+", "an address such as https://handrail.internal/runs/{run}"),
            "where there is more to see; may hold {run}, {resource}, {operation}",
            default="",
        ),
        "to": Key(MapOf(_DestinationShape()), "who is told, by name", default={}),
    },
)


def load(root: Path) -> Notifications:
    """Return what `root/notifications.yaml` declares; nothing when there is none.

    Raises:
        DeclarationErrors: with every problem.
    """
    path = root / FILE
    if (problem := link_problem(root, path)) is not None:
        raise DeclarationErrors([problem])
    if not path.exists():
        return Notifications()
    source = Source(FILE)
    node = parse(read_text(root, FILE, source), source)
    found = NOTIFICATIONS.read(node, source) if node is not None else None
    if source.problems:
        raise DeclarationErrors(source.problems)
    if found is None:
        return Notifications()
    to = {name: replace(one, name=name) for name, one in found["to"].items()}
    return Notifications(to, found["link"])


def errors(found: Notifications, estate: Estate) -> Iterator[DeclarationError]:
    """Yield what is wrong between the destinations and the estate."""
    for one in found.to.values():
        for name in one.environments:
            if name not in estate.environments:
                yield DeclarationError(
                    "estate.unknown-environment",
                    f"`{one.name}` is told of unknown environment `{name}`",
                    at=one.place,
                    hint=nearest(name, tuple(estate.environments)),
                )
        for pattern in one.resources:
            if not any(fnmatchcase(ref, pattern) for ref in estate.resources):
                yield DeclarationError(
                    "estate.unknown-resource",
                    f"`{one.name}` is told of `{pattern}`, and no resource is called so",
                    at=one.place,
                    hint=nearest(pattern, tuple(estate.resources)),
                )
