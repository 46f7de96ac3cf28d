"""What people outside are told of, and who is told what, as values.

Rules:
- A notice has one id for ever: whoever hears it twice can tell.
- No notice holds a secret; a channel holds its secrets by reference.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase

from handrail.errors import Place
from handrail.estate.model import Address
from handrail.plans.canonical import sha256

# Kinds of notice, in the words of their reader, with how grave each is.
KINDS: Mapping[str, tuple[str, str]] = {
    "incident": (
        "incident",
        "an operation has not succeeded when it was expected to, or a backup is overdue",
    ),
    "break-glass": ("incident", "somebody ran a plan without the approval that it needs"),
    "over-budget": ("warning", "a run was stopped or undone by its budget"),
    "failed": ("warning", "a run ended, and was not confirmed; or a backup failed"),
    "undone": (
        "warning",
        "a deploy, or another operation of a kit, was put back: by its watch, or by somebody; who "
        "is told of `failed` is told of it, too",
    ),
    "refused": ("warning", "a run of a schedule, or of a web hook, was refused"),
    "skipped": ("warning", "a scheduled time was missed, also of a backup"),
    "waiting": ("warning", "somebody has to act: approve, answer, resume"),
    "resolved": ("info", "what was expected has come after an incident"),
    "begun": ("info", "a deploy, or another operation of a kit, has begun"),
    "confirmed": ("info", "a run was confirmed"),
    "test": ("info", "somebody tried a destination"),
}
BY_DEFAULT = tuple(kind for kind in KINDS if kind not in {"begun", "confirmed", "test"})
_LONGEST_ID_CHARACTERS = 24


@dataclass(frozen=True)
class Notice:
    """Something that people outside are told.

    Attributes:
        id: the same for every attempt to tell it.
        kind: a key of `KINDS`.
        severity: `incident`, `warning` or `info`.
        title: one line.
        text: what happened, in a sentence or two.
        time: when, ISO 8601 UTC.
        run: its number; 0 where no run is meant.
        environment: of the resource; empty where it has none.
        person: who did it, or asked for it.
        next: the command that comes next; empty where there is none.
        link: a page with more; empty where none is declared.
    """

    id: str
    kind: str
    severity: str
    title: str
    text: str
    time: str
    operation: str = ""
    run: int = 0
    resource: str = ""
    environment: str = ""
    person: str = ""
    next: str = ""
    link: str = ""


@dataclass(frozen=True)
class Webhook:
    """An address that takes a JSON object by POST, signed as Standard Webhooks has it.

    Attributes:
        url: by reference where it holds a secret.
        secret: what signs; None for unsigned.
        authority: a file of the certificates that are trusted besides the system's; may be empty.
        plain: whether http:// may be used to elsewhere than this machine.
    """

    url: Address
    secret: Address | None = None
    authority: str = ""
    plain: bool = False


@dataclass(frozen=True)
class Slack:
    """An incoming webhook of Slack, or of what takes the same: the address is its secret."""

    url: Address
    authority: str = ""
    plain: bool = False


@dataclass(frozen=True)
class Email:
    """A mail server, and who is written to.

    Attributes:
        server: `host` or `host:port`.
        tls: `starttls`, `tls` from the first byte, or `none`.
        user: as whom; empty for nobody.
    """

    server: str
    sender: str
    to: tuple[str, ...]
    tls: str = "starttls"
    user: Address | None = None
    password: Address | None = None
    authority: str = ""


@dataclass(frozen=True)
class Destination:
    """Who is told of what.

    Attributes:
        name: how people call it.
        channel: how it is told.
        kinds: of notice.
        environments: of the resource; empty for any, and for notices without one.
        resources: patterns such as `store/pilot-*`; empty for any, and for notices without one.
    """

    name: str
    channel: Webhook | Slack | Email
    place: Place
    kinds: tuple[str, ...] = BY_DEFAULT
    environments: tuple[str, ...] = ()
    resources: tuple[str, ...] = ()

    def wants(self, notice: Notice) -> bool:
        """Whether it is told of `notice`."""
        is_failed = notice.kind == "undone" and "failed" in self.kinds
        return (
            (notice.kind in self.kinds or is_failed)
            and (not self.environments or notice.environment in self.environments)
            and (not self.resources or any(fnmatchcase(notice.resource, p) for p in self.resources))
        )


@dataclass(frozen=True)
class Notifications:
    """Everybody who is told, by name, and where there is more to see.

    Attributes:
        link: an address with `{run}`, `{resource}` or `{operation}` in it; empty for none.
    """

    to: Mapping[str, Destination] = field(default_factory=dict)
    link: str = ""

    def routed(self, notice: Notice) -> tuple[str, ...]:
        """Return the names of those who are told of `notice`."""
        return tuple(name for name, one in self.to.items() if one.wants(notice))

    def page(self, notice: Notice) -> str:
        """Return the address of the page with more of `notice`; empty where there is none."""
        from urllib.parse import quote  # noqa: PLC0415  few commands tell anybody anything

        found = self.link
        if "{run}" in found and not notice.run:
            return ""
        for word, value in (
            ("run", str(notice.run)),
            ("resource", notice.resource),
            ("operation", notice.operation),
        ):
            found = found.replace(f"{{{word}}}", quote(value))
        return found


def notice_id(*what: object) -> str:
    """Return the id of the notice that tells of `what`: the same for the same."""
    return sha256("\n".join(str(one) for one in what))[:_LONGEST_ID_CHARACTERS]
