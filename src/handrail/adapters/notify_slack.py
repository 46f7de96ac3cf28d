"""Notices to Slack, or to whatever takes its incoming webhooks (Mattermost, Rocket.Chat, Zulip).

Rules:
- What came from outside can neither mention anybody nor make a link: `&`, `<` and `>` are escaped.
- `text` says everything in plain words, for a phone's lock screen and for what shows no blocks.
- The address is the secret: it is in no error.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from handrail.adapters.notify_http import Hook, post
from handrail.errors import sanitise
from handrail.plans.canonical import encode

_MARKS = {"incident": ":rotating_light:", "warning": ":warning:", "info": ":information_source:"}
_ESCAPES = {"&": "&amp;", "<": "&lt;", ">": "&gt;"}
_MORE = "..."
# Slack refuses a block with more than 3,000.
_LONGEST_CHARACTERS = 2600
_LONGEST_TITLE_CHARACTERS = 250


class SlackNotifier:
    """`ports.Notifier` by an incoming webhook."""

    def __init__(self, hook: Hook) -> None:
        self._hook = hook

    def send(self, notice: Mapping[str, Any]) -> None:
        """Send one notice; see `ports.Notifier`."""
        post(self._hook, encode(message(notice)).encode(), {})


def message(notice: Mapping[str, Any]) -> dict[str, object]:
    """Return a notice as Slack takes it."""
    mark = _MARKS.get(str(notice["severity"]), "")
    title = escape(str(notice["title"]), _LONGEST_TITLE_CHARACTERS)
    text = escape(str(notice["text"]), _LONGEST_CHARACTERS)
    said = f"{mark} *{title}*" + (f"\n{text}" if text else "")
    blocks: list[dict[str, object]] = [
        {"type": "section", "text": {"type": "mrkdwn", "text": said, "verbatim": True}}
    ]
    details = _details(notice)
    if details:
        elements = [{"type": "mrkdwn", "text": details, "verbatim": True}]
        blocks.append({"type": "context", "elements": elements})
    return {"text": f"{title}: {text}" if text else title, "blocks": blocks}


def _details(notice: Mapping[str, Any]) -> str:
    parts = [escape(str(notice[key]), 200) for key in ("resource", "person") if notice.get(key)]
    if notice.get("next"):
        parts.append(f"`{escape(str(notice['next']), 300).replace('`', '')}`")
    if notice.get("link"):
        # An address of ours; what could end the link early is percent-encoded.
        link = str(notice["link"]).replace("|", "%7C").replace(">", "%3E").replace("<", "%3C")
        parts.append(f"<{link}|more>")
    return "  ·  ".join(parts)


def escape(text: str, longest: int) -> str:
    """Return text that Slack shows as it is, in at most so many characters with its escapes."""
    pieces: list[str] = []
    left = longest - len(_MORE)
    for character in sanitise(text[:longest], keep_lines=True):
        piece = _ESCAPES.get(character, character)
        left -= len(piece)
        if left < 0:
            return "".join(pieces) + _MORE
        pieces.append(piece)
    return "".join(pieces) + (_MORE if len(text) > longest else "")
