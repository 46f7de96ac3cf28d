"""Make, list and revoke the tokens by which a server knows people.

A token is shown once. What its person may do is the lesser of its role and of what `roles` in
policy.yaml grants them; with --team it counts for what that group is granted alone.

examples:
  handrail tokens create --person ana@pilot.example --role operator --expires 30d
  handrail tokens create --person ana@pilot.example --role operator --team web
  handrail tokens list
  handrail tokens revoke 1a2b3c4d
"""

from __future__ import annotations

import argparse
import re
from typing import TYPE_CHECKING, Any

from handrail.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from handrail.cli.call import Call

_SECONDS = {"m": 60, "h": 3600, "d": 86400, "w": 604800}


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    parser.add_argument("what", choices=["create", "list", "revoke"])
    parser.add_argument("id", nargs="?", default="", metavar="ID", help="to revoke")
    parser.add_argument("--person", default="", metavar="NAME", help="as in allowed_signers")
    parser.add_argument(
        "--role", default="viewer", metavar="ROLE", help="viewer, operator, approver or admin"
    )
    parser.add_argument("--team", default="", metavar="GROUP", help="of the policy: for it alone")
    parser.add_argument(
        "--expires", default="30d", metavar="TIME", help="such as 12h or 90d; 30d when left out"
    )


def run(call: Call) -> int:
    """Create, list or revoke."""
    from handrail.core import people
    from handrail.plans.canonical import plain

    options = call.options
    if options.what == "create":
        token, secret = people.create(call.world, call.declared.policy, **wanted(call))
        return show_made(call, vars(token), secret)
    if options.what == "revoke":
        return show_revoked(call, vars(people.revoke(call.world, options.id)))
    found = [plain(token) for token in people.tokens(call.world)]
    return show_list(call, [one for one in found if isinstance(one, dict)])


def wanted(call: Call) -> dict[str, Any]:
    """Return what the options say of a new token."""
    options = call.options
    if not options.person:
        raise UsageError("auth.token", "a token is for one person: --person NAME")
    found = re.fullmatch(r"([1-9][0-9]{0,4})([mhdw])", options.expires)
    if found is None:
        raise UsageError("auth.token", f"`{options.expires}` is no time such as 12h or 90d")
    return {
        "person": options.person,
        "role": options.role,
        "team": options.team,
        "lasts_s": int(found[1]) * _SECONDS[found[2]],
    }


def show_made(call: Call, token: Mapping[str, Any], secret: str) -> int:
    """Write a new token, this once."""
    from handrail.cli import screen

    if call.options.json:
        screen.write_json({"format": 1, "token": _told(token), "secret": secret})
        return 0
    team = f" of {token['team']}" if token["team"] else ""
    screen.write(
        f"{secret}\n\nfor {token['person']}, {token['role']}{team}, until "
        f"{token['expires_at'][:16].replace('T', ' ')} UTC. It is not shown again.\n"
        f"next: export HANDRAIL_URL=... HANDRAIL_TOKEN=...     on {token['person']}'s machine"
    )
    return 0


def show_revoked(call: Call, token: Mapping[str, Any]) -> int:
    """Write that a token counts no more."""
    from handrail.cli import screen

    if call.options.json:
        screen.write_json({"format": 1, "token": _told(token)})
    else:
        screen.write(f"revoked: {token['id']} of {token['person']}. It counts no more.")
    return 0


def show_list(call: Call, tokens: Sequence[Mapping[str, Any]]) -> int:
    """Write every token, but none that could be used."""
    from handrail.cli import screen

    if call.options.json:
        screen.write_json({"format": 1, "tokens": [_told(token) for token in tokens]})
        return 0
    if not tokens:
        screen.write("no tokens yet.\nnext: handrail tokens create --person NAME --role operator")
        return 0
    rows = [
        (
            token["id"],
            token["person"],
            token["role"],
            token["team"] or "-",
            "revoked" if token["revoked_at"] else f"until {token['expires_at'][:10]}",
            f"used {token['used_at'][:10]}" if token["used_at"] else "never used",
        )
        for token in tokens
    ]
    head = ("id", "person", "role", "team", "counts", "last used")
    screen.write("\n".join(screen.columns([head, *rows], indent="")))
    return 0


def _told(token: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in token.items() if name != "digest"}
