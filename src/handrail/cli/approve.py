"""Sign a plan that somebody else wants to run, with an SSH key of `allowed_signers`.

Shows exactly what is approved, and asks before it signs. The approval counts once, for the time
that the policy says; with --standing for every run of the same that stays inside the bounds that
are shown, until the first one that does not. Nobody approves their own run.

examples:
  handrail approve 7f3a-91c2
  handrail approve 7f3a-91c2 --key ~/.ssh/id_ed25519 --yes --because "test day"
  handrail approve 7f3a-91c2 --yes --name store/pilot-db     (risk critical)
  handrail approve 7f3a-91c2 --standing 30d

`handrail withdraw 7f3a-91c2` takes it back, `handrail approvals` lists what counts.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from handrail.errors import KeysError, UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from handrail.cli.call import Call
    from handrail.plans.model import Approval, Plan


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    parser.add_argument("digest", metavar="DIGEST", help="of the plan; its beginning is enough")
    parser.add_argument("--key", metavar="FILE", help="SSH key to sign with")
    parser.add_argument("--because", default="", metavar="TEXT", help="why, for the record")
    parser.add_argument(
        "--name",
        default="",
        metavar="TARGET",
        help="the target's name, typed out; needed at risk critical",
    )
    parser.add_argument(
        "--standing",
        metavar="DURATION",
        help="for every run of the same, for so long: 12h, 30d",
    )
    parser.add_argument("--yes", action="store_true", help="sign without asking")


def run(call: Call) -> int:
    """Show the plan, ask, sign and record."""
    from handrail.cli import plan as plans
    from handrail.cli import screen
    from handrail.core import approving, records

    options = call.options
    plan = records.find_plan(call.world.journal, options.digest)
    standing_s = seconds_of(options.standing)
    if not options.json:
        plans.show(call, plan, with_next=False)
        screen.write("")
    name = confirm(call, plan)
    approval = approving.approve(
        call.world,
        call.declared,
        plan,
        key_of(call),
        because=options.because,
        typed=name,
        standing_s=standing_s,
    )
    if options.json:
        from handrail.plans.canonical import plain

        screen.write_json({"format": 1, "approval": plain(approval)})
    else:
        screen.write("\n".join(lines(plan, approval, *_tally(call, plan, approval))))
    return 0


def seconds_of(text: str | None) -> int:
    """Return the seconds of `--standing`; 0 where it is not given."""
    from handrail.estate.shapes import DURATION_PATTERN, seconds

    if text is None:
        return 0
    if not DURATION_PATTERN.fullmatch(text) or not seconds(text):
        raise UsageError("usage", f"`{text}` is no duration", hint="such as --standing 12h, or 30d")
    return seconds(text)


def _tally(call: Call, plan: Plan, approval: Approval) -> tuple[int, int, tuple[str, ...]]:
    """Return how many have still to approve, of how many, and who may."""
    from handrail.core.approving import tally

    return tally(call.world, call.declared.policy, plan, approval.made_at)


def lines(
    plan: Plan, approval: Approval, more: int, wanted: int, candidates: Sequence[str]
) -> list[str]:
    """Return what was approved, and what comes next.

    Args:
        plan: as recorded.
        approval: the new one.
        more: how many people have still to approve.
        wanted: how many it takes.
        candidates: who may; empty for anybody in `allowed_signers`.
    """
    from handrail.cli import screen

    short, scope = screen.short(plan.digest), "for one run"
    if approval.bounds is not None:
        scope = (
            f"for every run of {plan.request.operation} on {plan.target.resource} that stays "
            f"inside this budget; handrail withdraw {approval.id} ends it"
        )
    until = approval.expires_at[:16].replace("T", " ")
    said = [screen.wrap(f"approved {short} as {approval.person}, until {until} UTC, {scope}.", "")]
    if more:
        may = ", ".join(candidates) or "anybody else in allowed_signers"
        said.append(f"{wanted - more} of {wanted} have approved.")
        said.append(screen.wrap(f"next: handrail approve {short}     (ask {may})", "      "))
        return said
    who = plan.request.person or "whoever asked"
    return [*said, f"next: handrail run {short}     ({who} does that)"]


def confirm(call: Call, plan: Plan) -> str:
    """Ask what must be asked, and return the target's name as it was typed."""
    from handrail.core.approving import names_target

    options = call.options
    if names_target(plan) and not options.name:
        return ask(f"type the target's name to approve ({plan.target.resource}): ")
    if not options.yes and not options.name and ask("sign this? [y/N] ").lower() != "y":
        raise UsageError("usage", "not signed")
    return str(options.name)


def ask(question: str) -> str:
    """Ask whoever sits at the terminal, and return the answer.

    Raises:
        UsageError: nobody does.
    """
    if not sys.stdin.isatty():
        raise UsageError(
            "usage.not-interactive",
            "nobody is there to answer: " + question.strip(": "),
            hint="give --yes, and --name at risk critical",
        )
    sys.stderr.write(question)
    sys.stderr.flush()
    return sys.stdin.readline().strip()


def key_of(call: Call) -> Path:
    """Return the key to sign with: as given, as set, git's, or the usual one."""
    world = call.world
    for said in (call.options.key, world.environment.get("HANDRAIL_KEY"), _git_key(world.root)):
        if said:
            return Path(said).expanduser()
    usual = Path("~/.ssh/id_ed25519").expanduser()
    if usual.exists():
        return usual
    raise KeysError(
        "keys.unavailable",
        "no SSH key to sign with was found",
        hint="give one: handrail approve DIGEST --key FILE",
    )


def _git_key(root: Path) -> str:
    found = subprocess.run(
        ["git", "-C", str(root), "config", "user.signingkey"],  # noqa: S607  the git that the person uses
        capture_output=True,
        text=True,
        check=False,
    )
    value = found.stdout.strip()
    return value if value.startswith(("/", "~")) else ""
