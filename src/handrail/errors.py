"""Every deliberate error of Handrail, and the one renderer that makes text of it.

Rules:
- An error is facts: a code, what is wrong, where it was declared, and what to do instead.
- Every code stands in `CODES` with one sentence; the reference page is made from that table.
- The class of an error decides the exit code, and nothing else does.
- Text that came from outside (names, server messages, script output) passes `sanitise` before it
  reaches a terminal: an escape sequence in a table name must not move anybody's cursor.
"""

from __future__ import annotations

import unicodedata
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable


class Place:
    """Where something was declared: a file as the reader would name it, and a line from 1."""

    __slots__ = ("file", "line")

    def __init__(self, file: str, line: int | None = None) -> None:
        self.file = file
        self.line = line

    def __str__(self) -> str:
        return self.file if self.line is None else f"{self.file}:{self.line}"

    def __repr__(self) -> str:
        return f"Place({self.file!r}, {self.line!r})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Place) and (self.file, self.line) == (other.file, other.line)

    def __hash__(self) -> int:
        return hash((self.file, self.line))


class HandrailError(Exception):
    """The root of the tree: something ran and failed (exit code 1)."""

    exit_code = 1

    def __init__(self, code: str, message: str, *, at: Place | None = None, hint: str = "") -> None:
        """Keep the facts.

        Args:
            code: a key of `CODES`, such as `estate.unknown-store`.
            message: what is wrong, in one sentence without a full stop; names in backticks.
            at: where the cause was declared, when it was.
            hint: what to do instead, usually a command.
        """
        if code not in CODES:
            raise AssertionError(f"error code {code!r} is not in CODES")
        super().__init__(message)
        self.code = code
        self.message = message
        self.at = at
        self.hint = hint

    def as_json(self) -> dict[str, object]:
        """Return the facts as the documented JSON shape of an error."""
        return {
            "code": self.code,
            "message": sanitise(self.message),
            "file": sanitise(self.at.file) if self.at else None,
            "line": self.at.line if self.at else None,
            "hint": sanitise(self.hint),
        }


class UsageError(HandrailError):
    """The call itself is wrong: an unknown name, a missing argument (exit code 2)."""

    exit_code = 2


class DeclarationError(HandrailError):
    """A file of the team's repository is wrong (exit code 2)."""

    exit_code = 2


class DeclarationErrors(DeclarationError):  # noqa: N818  it is several of them
    """Several declarations are wrong; all of them are shown, in the order of the files."""

    def __init__(self, errors: Iterable[DeclarationError]) -> None:
        self.errors = tuple(errors)
        first = self.errors[0]
        super().__init__(first.code, first.message, at=first.at, hint=first.hint)


class RefusedError(HandrailError):
    """A guard, or a fact that could not be read, refuses (exit code 3)."""

    exit_code = 3


class WaitingError(HandrailError):
    """Nothing is wrong, but somebody has to act first (exit code 4)."""

    exit_code = 4


class OverBudgetError(HandrailError):
    """The run did more than its budget allows (exit code 5)."""

    exit_code = 5


class StoreError(HandrailError):
    """A store does not answer, or answers what it should not (exit code 1)."""


class ScriptError(HandrailError):
    """A script could not be started or watched (exit code 1)."""


class JournalError(HandrailError):
    """The journal cannot be written, read or believed (exit code 1)."""


class FencedError(JournalError):
    """Somebody else goes on with what this process was writing (exit code 1)."""


class EngineError(HandrailError):
    """What runs walks does not answer (exit code 1)."""


class NotifyError(HandrailError):
    """A notice was not taken (exit code 1).

    Attributes:
        is_passing: whether another attempt may help.
        retry_after_s: how long to wait at least, as whoever did not take it said; 0 for unsaid.
    """

    is_passing = True
    retry_after_s = 0.0


class PlatformError(HandrailError):
    """A platform, registry or repository does not answer, or refuses (exit code 1).

    Attributes:
        is_passing: whether another attempt may help: a leader is lost, a limit is reached.
    """

    is_passing = False


class KeysError(HandrailError):
    """A signature could not be made or does not verify (exit code 1)."""


CODES: dict[str, str] = {
    # Declarations
    "estate.syntax": "A file is not YAML, or uses YAML that a declaration may not (aliases, tags).",
    "estate.too-large": "A file is larger or deeper than a declaration can be.",
    "estate.outside": "A path or symbolic link leads out of the repository.",
    "estate.unreadable": "A file cannot be read.",
    "estate.unknown-key": "A key that the reference does not have.",
    "estate.missing-key": "A required key is not there.",
    "estate.wrong-type": "A value of another shape than the reference says.",
    "estate.bad-name": "A name with characters other than letters, digits, dot, dash, underscore.",
    "estate.duplicate": "The same name is declared twice.",
    "estate.unknown-resource": "A reference to a resource that is not declared.",
    "estate.unknown-store": "An operation or command names a store that is not declared.",
    "estate.unknown-environment": "A resource names an environment that is not declared.",
    "estate.cycle": "Hard needs form a circle: nothing in it could ever start first.",
    "estate.no-backup": "A durable store declares no backup.",
    "estate.production-data": "A store outside production holds production data.",
    "estate.secret": "A secret is written by value; declarations hold references to secrets only.",
    "estate.expired": "A contraindication is past its expiry date and no longer judged.",
    "estate.expiring": "A contraindication is to be looked at again within 30 days.",
    "estate.replay": "A contraindication would not have refused the run that it names.",
    "operations.unknown": "No operation of that name is declared.",
    "operations.script-missing": "An operation's script does not exist in the repository.",
    "operations.script-not-executable": "An operation's script may not be executed.",
    "operations.material-too-large": "A script's folder is too large to be made part of a plan.",
    "operations.parameter": "A parameter is unknown, missing or of another type than declared.",
    "operations.node": "An operation cannot run on the node that it names.",
    "operations.target": "The target is missing, ambiguous, or not one the operation is for.",
    "operations.question": "A question of an operation cannot be asked as it is declared.",
    "operations.waves": "The waves of an operation do not fit together, or not its targets.",
    "operations.python": "A Python operation's decorator cannot be read without running it.",
    "policy.unknown-guard": "The policy names a guard that no kit registers.",
    "policy.unknown-group": "The policy names a group that it does not declare.",
    "policy.quorum": "More people must approve than the group has.",
    "policy.unbending": "The policy turns down a guard that may not be turned down.",
    # Planning and judging
    "plan.unknown": "No plan, run or rehearsal has an id that begins so.",
    "plan.ambiguous": "Several ids begin so.",
    "plan.stale": "The world has moved since the plan was made; it must be made anew.",
    "plan.refused": "A guard refuses.",
    "plan.waiting": "Somebody has to act first.",
    # Stores
    "store.unreachable": "The store does not answer.",
    "store.denied": "The store refuses the credentials or a right that is needed.",
    "store.recovering": "The server is in recovery, or read-only.",
    "store.failed": "The store answered with an error.",
    "store.missing": "The database or file does not exist.",
    "store.not-a-store": "The file or server is not what it was declared to be.",
    "store.identity": "The store is not the one that was adopted.",
    "store.unsupported": "The store, or its version, cannot do what was asked.",
    "store.tools-missing": "Programs that are needed for this store are not on this machine.",
    "store.locked": "Another process holds the store's lock for too long.",
    "store.disk-full": "The disk is full, or would be.",
    "store.url": "A store's address cannot be read, or a variable that holds it is not set.",
    "store.moved": "Others wrote to the store in between; going back would lose what they wrote.",
    "backup.failed": "A backup could not be made.",
    "backup.not-restorable": "A backup could not be restored, so it does not count.",
    "backup.damaged": "A backup is not as it was written.",
    "clone.failed": "A clone could not be made.",
    "clone.not-distinct": "It cannot be proven that the clone is not the real store.",
    # Scripts
    "script.start": "The script could not be started.",
    "script.confine": "The script must be confined, and this machine cannot.",
    "node.unreachable": "A node does not answer, or the connection to it was cut.",
    "node.host-key": "A node is not the one that was declared, or declares no host key.",
    "node.denied": "A node lets nobody in with the keys at hand.",
    "node.unfit": "A node, or what is to run there, lacks what a script needs.",
    "node.lost": "A node went away while a script ran there; it is looked for again.",
    # Platforms
    "platform.unreachable": "A platform does not answer, or has no leader now.",
    "platform.address": "A platform's address or token cannot be read, or is not set.",
    "platform.denied": "A platform refuses the credentials or a right that is needed.",
    "platform.failed": "A platform answered with an error.",
    "platform.moved": "Somebody else changed what runs since the plan was made.",
    "platform.unsupported": "A platform cannot do what was asked.",
    "platform.extra": "A package that the platform needs is not installed.",
    "deploys.spec": "A specification does not parse, or is not one.",
    "deploys.unknown-task": "An image is for a task that the specification does not have.",
    "deploys.unknown-group": "There is no such group of machines or instances.",
    "deploys.unknown-machine": "There is no such machine, or more than one.",
    "deploys.nothing": "There is nothing to roll back to, or nothing runs.",
    "deploys.import": "What is to be imported cannot be read.",
    "deploys.hook": "A web hook is not signed, was seen before, or is not for any app.",
    "source.no-ref": "An app's repository has no such branch, tag or commit.",
    "source.refused": "An app's repository, or a file of it, is not read for safety.",
    "source.unreachable": "An app's repository does not answer, or lets nobody in.",
    "image.unknown": "A registry has no such image.",
    "image.unreachable": "A registry does not answer, lets nobody in, or wants less to be asked.",
    "rehearsal.failed": "The rehearsal ended before it had measured anything.",
    "rehearsal.touched-target": "The real store changed while the rehearsal ran.",
    # Approving
    "keys.unavailable": "The SSH key or ssh-keygen cannot be used.",
    "keys.not-allowed": "The key belongs to nobody in `allowed_signers`.",
    "keys.signature": "A signature does not verify.",
    "keys.own-run": "Nobody approves their own run.",
    "keys.seal": "A backup cannot be encrypted or decrypted with the keys at hand.",
    "approval.unneeded": "There is nothing to approve.",
    "approval.name": "The typed name is not the target's.",
    "approval.none": "There is no approval of that person that could be withdrawn.",
    "approval.standing": "An approval of this plan cannot stand for more than one run.",
    "break-glass.denied": "The glass may not be broken here, or not by this person.",
    "break-glass.unneeded": "Nothing of the plan waits for people: the glass need not be broken.",
    "break-glass.unreviewed": "The glass was broken before, and nobody has reviewed that yet.",
    "break-glass.nothing": "There is no broken glass to review.",
    "question.unknown": "No run asks such a question now.",
    "question.answer": "The answer is not one that the question allows.",
    "question.answered": "The question has been answered, has expired, or is not asked any more.",
    "hold.unknown": "No statement, or more than one, waits under that id.",
    # Running
    "run.locked": "Another run holds the resource.",
    "run.unfinished": "An earlier run on the resource was cut off and must be resumed first.",
    "run.over-budget": "The run did more than it did in rehearsal.",
    "run.undo-failed": "The undo failed; the state is described in the journal.",
    "run.unknown-outcome": "Nobody knows whether the script finished; somebody has to say.",
    "run.nothing": "There is nothing to resume or undo.",
    "run.irreversible": "The operation declares that it cannot be undone.",
    "walk.wrong": "A run over several targets is put together wrongly.",
    "walk.unknown": "There is no run of that number.",
    "walk.word": "A word to a run means nothing there.",
    "temporal.address": "HANDRAIL_TEMPORAL is no address of a Temporal server.",
    "temporal.extra": "The package that speaks to a Temporal server is not installed.",
    "temporal.away": "The Temporal server does not answer, or not as it should.",
    # Journal
    "journal.unwritable": "The journal cannot be written; nothing is done without it.",
    "journal.damaged": "The journal's chain is broken.",
    "journal.format": "The journal was written by a newer Handrail.",
    "journal.fenced": "Another engine goes on with this run; this one has stopped.",
    "journal.unknown": "Nobody knows whether a record was kept; it is read again first.",
    "notify.failed": "A notice was not delivered.",
    "notify.unknown": "No destination of that name is declared.",
    "schedule.unknown": "No operation of that name has a schedule, or it is not paused.",
    # The server
    "auth.missing": "The request has no token, or one that nobody gave out.",
    "auth.expired": "The token has expired.",
    "auth.revoked": "The token was revoked.",
    "auth.forbidden": "The token's person may not do that there.",
    "auth.token": "A token cannot be made or revoked as asked.",
    "api.request": "The request is not as the API describes it.",
    "api.not-found": "There is nothing at that address.",
    "api.method": "That address does not take this method.",
    "api.too-large": "The request is too large.",
    "api.too-slow": "The request took too long to arrive.",
    "api.too-many": "More requests came with this token than are answered.",
    "api.repeated": "The idempotency key was used for another request, or for one under way.",
    "api.draining": "The server is about to end, and begins nothing.",
    "api.broken": "The server cannot answer now; its own log says why.",
    "server.listen": "The server cannot listen there.",
    "server.running": "Another server works on the same state.",
    "server.extra": "A package that the server needs is not installed.",
    "remote.unreachable": "The server of HANDRAIL_URL does not answer.",
    "remote.insecure": "A token would be sent unencrypted, or to somebody unproven.",
    "remote.answer": "The server's answer is not understood.",
    "remote.local-only": "The command works on this machine alone, not against a server.",
    # The call
    "usage": "The command line is wrong.",
    "usage.not-interactive": "A question must be answered, and nobody is there to answer it.",
    "interrupted": "Stopped by Ctrl-C.",
    "internal": "A defect of Handrail.",
}


def sanitise(text: str, *, keep_lines: bool = False) -> str:
    r"""Return `text` with every control, format and bidirectional character made visible.

    Tabs stay; line ends stay only with `keep_lines`. An escape becomes the four characters `\x1b`.
    """
    if text.isascii() and text.isprintable():
        return text
    return "".join(_visible(character, keep_lines=keep_lines) for character in text)


def _visible(character: str, *, keep_lines: bool) -> str:
    if character == "\t" or (keep_lines and character == "\n"):
        return character
    if unicodedata.category(character) in {"Cc", "Cf", "Cs", "Zl", "Zp"}:
        return character.encode("unicode_escape", "surrogatepass").decode("ascii")
    return character


def render(error: HandrailError) -> str:
    """Return the text a person reads: code and message, place, hint."""
    errors = error.errors if isinstance(error, DeclarationErrors) else (error,)
    return "\n\n".join(_render_one(one) for one in errors)


def _render_one(error: HandrailError) -> str:
    lines = [f"error[{error.code}]: {_indented(error.message)}"]
    if error.at is not None:
        lines.append(f"  --> {sanitise(str(error.at))}")
    if error.hint:
        lines += ["", f"hint: {_indented(error.hint)}"]
    return "\n".join(lines)


def _indented(text: str) -> str:
    """Return text whose later lines cannot be taken for ours: a name may hold a line end."""
    return sanitise(text, keep_lines=True).replace("\n", "\n       ")
