"""Runs a step's script on a node, and finds out there what became of it: the port `Processes`.

Rules:
- `started` is called while the script stands before its first instruction: it is journalled first.
- A connection that is cut is made anew, and the output goes on where it stopped, until long after
  the script's own time is up; only then nobody knows how it ended.
- Ports back to the guard lead to it again after a cut; what the script had open is cut for good.
- Ctrl-C ends the script on the node before it is passed on.
- Nothing is removed from the node before the caller says that the result is safe.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from handrail.adapters.ssh.connecting import CutError, Link, Node
from handrail.adapters.ssh.following import Followed
from handrail.adapters.ssh.packing import Place, pack, program_of, reserve_kib, verb
from handrail.errors import ScriptError, WaitingError
from handrail.ports import OUTPUT_LIMIT_BYTES, Command, Finished

BACKOFF_S, BACKOFF_MOST_S = 0.2, 15.0
OVERTIME_S = 120.0
_LIST_LIMIT = 1000


class SshProcesses:
    """The processes of one node."""

    def __init__(
        self,
        node: Node,
        config: Path | None = None,
        *,
        grace_s: int = 5,
        overtime_s: float = OVERTIME_S,
    ) -> None:
        """Begin; nothing is connected yet.

        Args:
            node: which one.
            config: what `ssh` reads instead of the user's own config.
            grace_s: between asking a process to end and killing it.
            overtime_s: for how long beyond a script's own time a cut connection is made anew.
        """
        self._node = node
        self._config = config
        self._grace_s = grace_s
        self._overtime_s = overtime_s

    def ready(self) -> None:
        """Raise where no script can be run: the node is away, or another one."""
        self._link().close()

    def can_confine(self) -> str:
        """Return that a node confines nothing."""
        return f"on {self._node.ref} a script is not confined"

    def find_program(self, name: str) -> Path | None:
        """Return None: what a node has is not looked up from here."""
        del name
        return None

    def run(
        self, command: Command, started: Callable[[int], None], output: Callable[[bytes], None]
    ) -> Finished:
        """Run `command` on the node to the end of all that it starts; see `ports.Processes`."""
        mark = command.environment.get("HANDRAIL_RUN", "")
        name = f"handrail-{mark}-{secrets.token_hex(4)}"
        place = Place(mark, f"{self._node.work}/{name}", self._grace_s)
        until_s = command.timeout_s + self._overtime_s
        step = _Step(self._node, command, place, self._config, until_s)
        followed = Followed(command.output, command.output_limit_bytes, output)
        try:
            step.begin(started)
            begun_s = time.monotonic()
            step.follow(followed)
        except KeyboardInterrupt:
            step.interrupt(followed)
            raise
        finally:
            step.close()
        finished = self._finished(followed)
        # The node counts whole seconds; here it takes as long as the connection was away.
        here_s = time.monotonic() - begun_s
        return replace(finished, duration_s=min(here_s, finished.duration_s + 1))

    def collect(
        self, token: str, kept: Path, timeout_s: float, output: Callable[[bytes], None]
    ) -> Finished | None:
        """Return how a script ended that was started before, once it has; None: nobody knows."""
        with self._link() as link:
            found = self._listed(link, verb(self._node, token, "places", {}))
        begun = [name for state, name in found if state == "begun"]
        if len(begun) != 1:
            return None
        place = Place(token, f"{self._node.work}/{begun[0]}", self._grace_s)
        followed = Followed(kept, OUTPUT_LIMIT_BYTES, output)
        step = _Step(self._node, None, place, self._config, timeout_s + self._overtime_s)
        try:
            step.follow(followed)
        except KeyboardInterrupt:
            step.interrupt(followed)
            raise
        finally:
            step.close()
        return None if followed.is_lost else self._finished(followed)

    def end_leftovers(self, token: str) -> tuple[str, ...]:
        """End what is left of a run on the node, and remove what was kept; return the names."""
        return self.forget((token,))

    def forget(self, tokens: Sequence[str]) -> tuple[str, ...]:
        """Remove what the node kept of runs whose results are safe; end what is left of them."""
        found: list[str] = []
        with self._link() as link:
            for token in tokens:
                text = verb(self._node, token, "forget", {"grace": self._grace_s})
                found += [name for word, name in self._listed(link, text) if word == "survivor"]
        return tuple(found)

    def _listed(self, link: Link, text: bytes) -> list[tuple[str, str]]:
        """Return what the node lists, as words and values."""
        found: list[tuple[str, str]] = []
        try:
            with link.asking(text) as call:
                for _ in range(_LIST_LIMIT):
                    line = call.line()
                    if line == "end":
                        return found
                    word, _, value = line.partition(" ")
                    if "/" not in value:
                        found.append((word, value))
        except CutError:
            pass
        raise _unreachable(self._node)

    def _link(self) -> Link:
        return Link(self._node, self._config)

    def _finished(self, followed: Followed) -> Finished:
        if followed.finished is None:
            raise AssertionError("followed without an end")
        why = self.can_confine()
        return replace(followed.finished, confined=why, traced=why)


class _Step:
    """One script on a node, over one connection after the other."""

    def __init__(
        self,
        node: Node,
        command: Command | None,
        place: Place,
        config: Path | None,
        patience_s: float,
    ) -> None:
        self._node = node
        self._command = command
        self._place = place
        self._config = config
        self._ports: dict[tuple[str, int], int] = {}
        self._link: Link | None = None
        self._until = time.monotonic() + patience_s
        self._is_stopped = False

    # --- beginning -----------------------------------------------------------------------------

    def begin(self, started: Callable[[int], None]) -> None:
        """Take everything to the node, and start the script there.

        Raises:
            ScriptError: it did not begin.
        """
        try:
            link = self._connected()
            archive = self._archive()
            self._prepare(link, archive)
            self._launch(link, started)
        except CutError:
            raise _unreachable(self._node) from None

    def _archive(self) -> bytes:
        command = self._asked()
        environment = dict(command.environment)
        for forward in command.forwards:
            port = str(self._ports[forward.host, forward.port])
            environment = {k: v.replace(forward.mark, port) for k, v in environment.items()}
        return pack(command, self._place, environment)

    def _prepare(self, link: Link, archive: bytes) -> None:
        command = self._asked()
        settings = {"reserve_kib": reserve_kib(command), "program_path": program_of(command)}
        with link.asking(self._verb("prepare", settings)) as call:
            call.send([archive], is_last=True)
            said = call.line()
        if said != "ready":
            raise self._unfit(said.removeprefix("fail "))

    def _launch(self, link: Link, started: Callable[[int], None]) -> None:
        """Let the script begin, once that is journalled.

        The connection may be cut after the word was given: then following finds out.
        """
        with link.asking(self._verb("launch")) as call:
            word, _, number = call.line().partition(" ")
            if word != "process" or not number.isdecimal():
                raise CutError
            started(int(number))
            try:
                call.send([b"go\n"])
                call.line()
            except CutError:
                return

    def _unfit(self, said: str) -> ScriptError:
        word, _, detail = said.partition(" ")
        work, ref = self._node.work, self._node.ref
        reasons = {
            "program": f"it has no program `{detail}`",
            "work": f"no private folder can be made in {work}",
            "disk": f"{work} has {detail or '0'} KiB free",
            "copy": f"the files could not be written: {detail}",
            "changed": "the files did not arrive as they were sent",
            "noexec": f"{work} is on a disk that runs no programs",
        }
        why = reasons.get(word, "it said what nobody understands")
        return ScriptError("node.unfit", f"{ref} cannot run the script: {why}")

    # --- following -----------------------------------------------------------------------------

    def follow(self, followed: Followed) -> None:
        """Take the output to its end, over as many connections as that needs.

        Raises:
            WaitingError: the node does not answer any more.
            ScriptError: it has no such step.
        """
        wait_s = BACKOFF_S
        while followed.finished is None:
            had = followed.have_bytes
            try:
                self._follow(self._connected(), followed)
            except CutError:
                self._rest(wait_s)
            except ScriptError as error:
                # Away for now, or not taken back in: as good as cut. What is no such node is not.
                if error.code not in {"node.unreachable", "node.denied"}:
                    raise
                self._rest(wait_s)
            wait_s = BACKOFF_S if followed.have_bytes > had else min(wait_s * 2, BACKOFF_MOST_S)

    def _follow(self, link: Link, followed: Followed) -> None:
        tethered = "yes" if self._command and self._command.tethered else ""
        settings = {"have": followed.have_bytes, "tethered": tethered}
        with link.asking(self._verb("follow", settings)) as call:
            followed.hear(call, self._heed)

    def _heed(self) -> None:
        """End a script that somebody lets go of, or whose keeper should have ended it long ago."""
        if self._command is None or self._is_stopped:
            return
        if self._command.is_over():
            self._stop("interrupted")
        elif time.monotonic() > self._until:
            self._stop("timeout")

    def _rest(self, wait_s: float) -> None:
        self.close()
        if time.monotonic() + wait_s > self._until:
            raise WaitingError(
                "node.lost",
                f"{self._node.ref} does not answer any more; how the script ended stands there",
            )
        time.sleep(wait_s)

    def _connected(self) -> Link:
        """Return the connection; where there is none, one that leads back to the guard again."""
        if self._link is None:
            self._link = Link(self._node, self._config)
            for forward in self._command.forwards if self._command else ():
                self._forward(self._link, (forward.host, forward.port))
        return self._link

    def _forward(self, link: Link, pair: tuple[str, int]) -> None:
        """Let the node reach the guard; after a cut at the port that the script knows."""
        known = self._ports.get(pair, 0)
        try:
            self._ports[pair] = link.forward(*pair, at=known)
        except ScriptError:
            if not known:
                raise
            # The node still holds it for the connection that was cut: the script goes on without.

    # --- ending --------------------------------------------------------------------------------

    def interrupt(self, followed: Followed) -> None:
        """End the script and all that it started.

        Raises:
            WaitingError: the node cannot be reached: there it goes on.
        """
        try:
            self.close()
            self._stop("interrupted")
            if followed.finished is None:
                self.follow(followed)
        except (ScriptError, CutError) as error:
            if isinstance(error, ScriptError) and error.code == "node.unfit":
                return  # it had not begun, and never will
            said = f"{self._node.ref} cannot be reached, and its script may go on there"
            raise WaitingError("node.lost", said) from error

    def _stop(self, reason: str) -> None:
        self._is_stopped = True
        text = self._verb("stop", {"reason": reason})
        with Link(self._node, self._config) as link, link.asking(text) as call:
            call.line()

    def close(self) -> None:
        """End the connection. What runs goes on."""
        link, self._link = self._link, None
        if link is not None:
            link.close()

    def _verb(self, words: str, settings: dict[str, object] | None = None) -> bytes:
        return verb(self._node, self._place.mark, words, settings or {}, self._place)

    def _asked(self) -> Command:
        if self._command is None:
            raise AssertionError("a step that is only followed has no command")
        return self._command


def _unreachable(node: Node) -> ScriptError:
    return ScriptError("node.unreachable", f"the connection to {node.ref} was cut")
