"""One client and its connection to the server: what passes, what is counted, what is refused.

Rules:
- A client that has not shown the run's secret reaches nothing.
- Reads pass as they come. A write leaves together with its looks where the worst of it fits; where
  it does not, the looks go first, under WATCH, and the command only if they say that it may.
- A transaction is kept here until its EXEC, and judged as a whole.
- Memory is bounded: a client that does not read stops the server's side; where the guard must go on
  reading to count, what is the client's waits in a file.
- Others may write between looks and command where no WATCH can be had: in a client's own WATCH,
  while a command waits, and for a flush.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol, cast

from handrail.wire.ledger import Refusal
from handrail.wire.redis import hiding
from handrail.wire.redis.catalog import SUBSCRIBING, Entry
from handrail.wire.redis.counting import Counted, is_blind
from handrail.wire.redis.facts import Facts
from handrail.wire.redis.judging import Judge, Judged, told
from handrail.wire.redis.outbox import Outbox
from handrail.wire.redis.pairing import (
    Changed,
    Exec,
    Local,
    Pairing,
    Silent,
    Subscribing,
    Told,
    Waiting,
)
from handrail.wire.redis.pairing import Entry as Expected
from handrail.wire.redis.plan import (
    DELETE,
    KEY,
    Change,
    MalformedError,
    amounts_of,
    whole,
)
from handrail.wire.redis.replies import ErrorReply, FramingError, Reply
from handrail.wire.redis.requests import Request, Requests, encode, parse
from handrail.wire.redis.scanning import keys_by_pattern

if TYPE_CHECKING:
    from handrail.wire.ledger import Key

OK, QUEUED = b"+OK\r\n", b"+QUEUED\r\n"
NOAUTH = "NOAUTH Authentication required."
NOAUTH_HELLO = (
    "NOAUTH HELLO must be called with the client already authenticated, otherwise the HELLO <proto>"
    " AUTH <user> <pass> option can be used to authenticate the client and select the RESP protocol"
    " version at the same time"
)
WRONGPASS = "WRONGPASS invalid username-password pair or user is disabled."
ABORTED = "EXECABORT Transaction discarded because of previous errors."
NOT_IN_MULTI = "ERR Command not allowed inside a transaction"
MOST_ATTEMPTS = 50
MOST_QUEUED = 100_000
MOST_QUEUED_BYTES = 32 * 1024 * 1024
MOST_WRONG = 10
MOST_COUNTING = 10_000
_PIECE_BYTES = 64 * 1024
_LEAVING_S = 5.0


class Gate(Protocol):
    """What a session needs of its guard."""

    @property
    def judge(self) -> Judge:
        """What all sessions share."""

    def is_secret(self, user: bytes, password: bytes) -> bool:
        """Whether these open this guard."""

    async def connect(self, session: Session) -> asyncio.Transport:
        """Open the server's side; its protocol is the session's `link`."""

    def sign_in(self) -> Sequence[Sequence[bytes]]:
        """Return the commands that sign the guard in; none where none is needed."""

    def left(self, session: Session) -> None:
        """Take note that a session has ended."""


@dataclass(slots=True)
class _Queued:
    """A command of a transaction that waits for its EXEC."""

    request: Request
    judged: Judged | None


@dataclass(slots=True)
class _Transaction:
    """A transaction that is kept here."""

    database: int
    queue: list[_Queued] = field(default_factory=list)
    is_dirty: bool = False
    size_bytes: int = 0


class Link(asyncio.Protocol):
    """The server's side of a session."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def data_received(self, data: bytes) -> None:
        self._session.answered(data)

    def connection_lost(self, exc: Exception | None) -> None:
        del exc
        self._session.server_left()

    def pause_writing(self) -> None:
        self._session.hold_client(full=True)

    def resume_writing(self) -> None:
        self._session.hold_client(full=False)


class Session(asyncio.Protocol):
    """The client's side; see the module."""

    def __init__(self, gate: Gate, requests: Requests) -> None:
        self._gate = gate
        self._judge = gate.judge
        self._ledger = gate.judge.ledger
        self._requests = requests
        self._outbox = Outbox(requests.folder, self.rebalance)
        self._pairing = Pairing(self._outbox.write)
        self.link = Link(self)
        self._server: asyncio.Transport | None = None
        self._client: asyncio.Transport | None = None
        self._known = False
        self._wrong = 0
        self._database = 0
        self._transaction: _Transaction | None = None
        self._in_multi = False  # in `observe`, where transactions are the server's alone
        self._watches = False
        self._busy: asyncio.Task[None] | None = None
        self._server_full: asyncio.Event | None = None
        self._ending = False
        self._said_all = False
        self._in_flight: set[Counted] = set()
        self._scanned: dict[int, list[Change]] = {}  # of a transaction's flushes, by their identity
        self.ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    # --- the client's side ---------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop has transports of its own, which are none by class.
        self._client = cast("asyncio.Transport", transport)
        self._outbox.open(self._client)

    def data_received(self, data: bytes) -> None:
        self._requests.feed(data)
        self._go_on()

    def pause_writing(self) -> None:
        self._outbox.pause()

    def resume_writing(self) -> None:
        self._outbox.resume()

    def eof_received(self) -> bool:
        """The client has said all that it will: what it asked for is still answered."""
        self._said_all = True
        if self._pairing.is_listening or self._pairing.is_waiting:
            return False
        self._check_end()
        return True

    def connection_lost(self, exc: Exception | None) -> None:
        del exc
        self._client = None
        self._outbox.close()
        self._requests.close()
        self._transaction = None
        self._check_end()

    def hold_client(self, *, full: bool) -> None:
        """Read no more of the client while the server takes no more."""
        if full and self._server_full is None:
            self._server_full = asyncio.Event()
        elif not full and self._server_full is not None:
            self._server_full.set()
            self._server_full = None
        self._rest_or_read()

    def _rest_or_read(self) -> None:
        if self._client is None or self._client.is_closing():
            return
        crowded = self._pairing.counting > MOST_COUNTING
        if self._server_full or self._busy or crowded:
            self._client.pause_reading()
        else:
            self._client.resume_reading()

    # --- the server's side ---------------------------------------------------------------------

    def answered(self, data: bytes) -> None:
        """Take what the server sent."""
        crowded = self._pairing.counting > MOST_COUNTING
        try:
            self._pairing.feed(data)
        except FramingError:
            self.cut()
            return
        if crowded and self._pairing.counting <= MOST_COUNTING:
            self._rest_or_read()
            self._go_on()
        self.rebalance()
        self._check_end()

    def server_left(self) -> None:
        """The server has closed its side: nobody knows what of the last commands it did."""
        self._server, self._ending = None, True
        for counted in tuple(self._in_flight):
            counted.lost()
        if self._busy is not None:
            self._busy.cancel()
        if self._server_full is not None:
            self._server_full.set()
        self._outbox.end()
        self._over()

    def rebalance(self) -> None:
        """Read of the server only what the client takes, but for what the guard waits for."""
        if self._server is None or self._server.is_closing():
            return
        needs = self._busy is not None or self._pairing.counting > 0
        if self._outbox.is_full and not needs:
            self._server.pause_reading()
        else:
            self._server.resume_reading()

    # --- the end -------------------------------------------------------------------------------

    def leave(self) -> asyncio.Future[None]:
        """Take nothing more; end when what is under way has ended."""
        self._ending = True
        if self._client is not None:
            self._client.pause_reading()
        self._requests.close()
        self._check_end()
        return self.ended

    def cut(self) -> None:
        """End at once, whatever is under way."""
        self._ending = True
        if self._busy is not None:
            self._busy.cancel()
        for counted in tuple(self._in_flight):
            counted.lost()
        for side in (self._client, self._server):
            if side is not None:
                side.abort()
        self._over()

    def _check_end(self) -> None:
        """Close where nothing more is to come, and what is counted has been counted."""
        if self._client is not None and not (self._ending or self._said_all):
            return
        # What waits for somebody else is not waited for.
        if not (self._pairing.is_waiting or self._pairing.is_listening):
            awaited = self._pairing.pending if self._client is not None else self._in_flight
            if self._busy is not None or awaited:
                return
        for counted in tuple(self._in_flight):
            counted.never()
        self._ending = True
        if self._server is not None:
            self._server.close()
            self._server = None
        self._outbox.end()
        self._over()

    def _over(self) -> None:
        self._requests.close()
        if not self.ended.done():
            self.ended.set_result(None)
            self._gate.left(self)

    # --- one request after the other -----------------------------------------------------------

    def _go_on(self) -> None:
        """Take as many requests as are there."""
        try:
            while self._busy is None and not self._ending:
                if self._pairing.counting > MOST_COUNTING:
                    self._rest_or_read()
                    return
                if self._known and self._transaction is None and self._server is not None:
                    self._pass_run()
                request = self._requests.next_request()
                if request is None:
                    return
                self._take(request)
        except FramingError as error:
            self._say(f"ERR {error}")
            self._ending = True
            self._check_end()

    def _pass_run(self) -> None:
        """Pass on, as they came, all requests in a row that need no more than a glance."""
        requests, judge, database = self._requests, self._judge, self._database
        data, start = requests.data, requests.at
        if not requests.is_between:
            return
        at, count, size, observes = start, 0, len(data), judge.mode == "observe"
        find, follow, end = judge.catalog.find, judge.follow, start
        refusal: Refusal | None = None
        while at < size and data[at] == 0x2A:  # noqa: PLR2004  a star
            words: list[bytes] = []
            end = parse(data, at, words)
            if end < 0 or not words:
                break
            entry = find(words)
            if not (entry.is_plain or (observes and entry.passes_observed)):
                break
            if entry.kind != "pass" and (refusal := follow(entry, words, database)) is not None:
                break
            count += 1
            at = end
        if count:
            requests.at = at
            self._send(data[start:at] if start or at < size else data)
            self._pairing.plain(count)
        if refusal is not None:
            requests.at = end
            self._say_no(refusal)

    def _take(self, request: Request) -> None:
        words = request.arguments
        entry = self._judge.catalog.find(words)
        if not self._known and entry.name not in {"AUTH", "HELLO", "QUIT", "RESET"}:
            request.close()
            self._say(NOAUTH)
            return
        if entry.kind == "special" and entry.name in _SPECIAL:
            _SPECIAL[entry.name](self, request, entry)
        elif self._judge.mode == "observe":
            self._observe(request, entry)
        elif self._transaction is not None:
            self._queue(request, entry, self._transaction)
        else:
            self._weigh(request, entry)

    def _say(self, error: str) -> None:
        """Answer with an error of the guard's own, in its turn."""
        line = error.replace("\r", " ").replace("\n", " ").encode("utf-8", "backslashreplace")
        self._pairing.expect(Local(b"-%s\r\n" % line))

    def _say_no(self, refusal: Refusal) -> None:
        self._say(f"HANDRAIL {told(refusal)}")

    def _send(self, data: bytes) -> None:
        if self._server is not None:
            self._server.write(data)

    def _forward(self, request: Request, expected: Expected | None = None) -> None:
        """Send a request, and expect its reply for the client."""
        if expected is None:
            self._pairing.plain(1)
        else:
            self._pairing.expect(expected)
        if request.file is None:
            self._send(request.raw)
        else:
            self._work(self._stream_all([request]))

    # --- work that takes its time --------------------------------------------------------------

    def _work(self, work: Coroutine[None, None, None]) -> None:
        """Do something that waits; no other request is taken meanwhile."""
        self._busy = asyncio.get_running_loop().create_task(work)
        self._busy.add_done_callback(self._worked)
        self._rest_or_read()
        self.rebalance()

    def _worked(self, task: asyncio.Task[None]) -> None:
        self._busy = None
        if not task.cancelled() and task.exception() is not None:
            # A defect, or a server that broke off in the middle: nothing is let through after it.
            self._ledger.tell("refused", f"a connection was cut: {task.exception()!r}")
            self.cut()
            return
        self._rest_or_read()
        self.rebalance()
        self._go_on()
        self._check_end()

    async def _stream(self, parts: Sequence[bytes | Request]) -> None:
        """Send pieces and large requests in order, no faster than the server takes them."""
        for part in parts:
            if isinstance(part, bytes):
                self._send(part)
            elif part.file is None:
                self._send(part.raw)
            else:
                part.file.seek(0)
                while piece := part.file.read(_PIECE_BYTES):
                    if self._server_full is not None:
                        await self._server_full.wait()
                    self._send(piece)

    async def _stream_all(self, parts: Sequence[bytes | Request]) -> None:
        """The same, for what is not sent again."""
        try:
            await self._stream(parts)
        finally:
            for part in parts:
                if isinstance(part, Request):
                    part.close()

    async def ask(self, *commands: Sequence[bytes]) -> list[Reply]:
        """Ask the server in the guard's own name; whole replies."""
        return await self._asked(commands, whole=True)

    async def _asked(self, commands: Sequence[Sequence[bytes]], *, whole: bool) -> list[Reply]:
        if not commands:
            return []
        answers: list[Reply] = []
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        def tell(reply: Reply) -> None:
            answers.append(reply)
            if len(answers) == len(commands) and not done.done():
                done.set_result(None)

        for command in commands:
            self._pairing.expect(Silent(tell, whole=whole or command[0] == b"TIME"))
        self._send(b"".join(encode(*command) for command in commands))
        self.rebalance()
        await done
        return answers

    async def _told(self, request: Request) -> bytes:
        """Forward a request, and return the first line of its reply."""
        done: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

        def tell(line: bytes) -> None:
            if not done.done():
                done.set_result(line)

        self._pairing.expect(Told(tell))
        self._send(request.raw)
        return await done

    # --- greeting ------------------------------------------------------------------------------

    def _auth(self, request: Request, entry: Entry) -> None:
        words = request.arguments
        if not entry.accepts(len(words)) or len(words) > 3:  # noqa: PLR2004  user and password
            self._say(_wrong_number(entry))
        elif self._transaction is not None:
            self._spoil(NOT_IN_MULTI)
        elif self._opens(words[-2] if len(words) == 3 else b"default", words[-1]):  # noqa: PLR2004
            self._work(self._sign_in(None))
        else:
            self._turn_away()

    def _opens(self, user: bytes, password: bytes) -> bool:
        return self._gate.is_secret(user, password)

    def _turn_away(self) -> None:
        self._ledger.tell("bypass", "a client without the secret of this run was turned away")
        self._say(WRONGPASS)
        self._wrong += 1
        if self._wrong >= MOST_WRONG:
            self._ending = True
            self._check_end()

    async def _sign_in(self, then: Request | None) -> None:
        """Open the server's side, if that is not done; then answer, or forward `then`."""
        if self._server is None:
            why = await self._connect()
            if why:
                self._say(f"HANDRAIL the server does not let the guard in: {why}")
                self._ending = True
                return
        self._known = self._requests.is_known = True
        if then is None:
            self._pairing.expect(Local(OK))
        else:
            line = await self._told(then)
            if line[:1] != b"-" and len(then.arguments) > 1:
                self._pairing.protocol = 3 if then.arguments[1] == b"3" else 2

    async def _connect(self) -> str:
        """Open the server's side; return why it could not be; empty when it is open."""
        try:
            self._server = await self._gate.connect(self)
        except OSError as error:
            return str(error)
        answers = await self._asked(self._gate.sign_in(), whole=False)
        for answer in answers:
            if isinstance(answer, ErrorReply):
                return answer.text.decode("utf-8", "backslashreplace")
        return ""

    def _hello(self, request: Request, entry: Entry) -> None:
        del entry
        words = request.arguments
        given, rest = _split_hello(words)
        if self._transaction is not None:
            self._spoil(NOT_IN_MULTI)
        elif given is None and not self._known:
            self._say(NOAUTH_HELLO)
        elif given is not None and not self._opens(*given):
            self._turn_away()
        else:
            self._work(self._sign_in(Request(rest, encode(*rest))))

    def _quit(self, request: Request, entry: Entry) -> None:
        del request, entry
        self._pairing.expect(Local(OK))
        self._ending = True
        self._check_end()

    def _reset(self, request: Request, entry: Entry) -> None:
        del entry
        if not self._known:
            self._pairing.expect(Local(b"+RESET\r\n"))
            return
        self._work(self._start_again(request))

    async def _start_again(self, request: Request) -> None:
        line = await self._told(request)
        if line[:1] == b"-":
            return
        self._known = self._requests.is_known = self._in_multi = self._watches = False
        self._database, self._transaction, self._pairing.protocol = 0, None, 2
        self._pairing.subscribed = dict.fromkeys(self._pairing.subscribed, 0)
        await self._asked(self._gate.sign_in(), whole=False)

    # --- the connection's own commands ---------------------------------------------------------

    def _select(self, request: Request, entry: Entry) -> None:
        if self._in_multi or not entry.accepts(len(request.arguments)):
            self._other(request, entry)
        elif self._transaction is None:
            self._work(self._change_database(request))
        else:
            self._select_later(request, self._transaction)

    async def _change_database(self, request: Request) -> None:
        line = await self._told(request)
        if line == b"+OK":
            self._database = int(request.arguments[1])

    def _select_later(self, request: Request, transaction: _Transaction) -> None:
        try:
            database = whole(request.arguments[1])
        except MalformedError:
            database = -1
        if 0 <= database < self._judge.databases:
            transaction.database = database
        # Else the server says no, and stays where it is.
        self._keep(_Queued(request, None), transaction)

    def _other(self, request: Request, entry: Entry) -> None:
        if self._judge.mode == "observe":
            self._observe(request, entry)
        elif self._transaction is not None:
            self._queue(request, entry, self._transaction)
        else:
            self._forward(request)

    def _watch(self, request: Request, entry: Entry) -> None:
        if self._transaction is not None:
            self._say("ERR WATCH inside MULTI is not allowed")
            return
        refusal = self._judge.follow_template(
            self._judge.template(entry, request.arguments, self._database)
        )
        if refusal is not None:
            self._say_no(refusal)
            return
        self._watches = self._watches or entry.accepts(len(request.arguments))
        self._forward(request)

    def _unwatch(self, request: Request, entry: Entry) -> None:
        if self._transaction is not None:
            self._keep(_Queued(request, None), self._transaction)
            return
        del entry
        self._watches = False
        self._forward(request)

    def _subscribe(self, request: Request, entry: Entry) -> None:
        if self._transaction is not None or self._in_multi:
            self._spoil(NOT_IN_MULTI)
        elif not entry.accepts(len(request.arguments)):
            self._forward(request)
        else:
            count = len(request.arguments) - 1 or None
            self._forward(request, Subscribing(SUBSCRIBING[entry.name], count))

    def _config_get(self, request: Request, entry: Entry) -> None:
        if self._transaction is not None or self._in_multi:
            self._spoil("ERR CONFIG GET is not allowed inside a transaction behind a guard")
            return
        del entry
        self._forward(request, Changed(hiding.without_secrets))

    def _client_reply(self, request: Request, entry: Entry) -> None:
        """Refuse what makes the server leave replies out; ON changes nothing."""
        del entry
        if [word.upper() for word in request.arguments[2:]] == [b"ON"] and not self._transaction:
            self._forward(request)
        else:
            self._spoil("ERR CLIENT REPLY is not allowed behind a guard")

    def _monitor(self, request: Request, entry: Entry) -> None:
        del request
        self._ledger.tell("bypass", f"{entry.name} was refused")
        self._spoil(f"HANDRAIL {entry.name} is not allowed behind a guard")

    def _spoil(self, error: str) -> None:
        """Refuse a command; a transaction that it stands in will not run."""
        if self._transaction is not None:
            self._transaction.is_dirty = True
            self._say(error)
        elif self._in_multi:
            # The server must know, too: it gets a command that it refuses.
            line = b"-%s\r\n" % error.encode()
            self._forward(Request([], encode(b"HANDRAIL")), Changed(lambda _: line))
        else:
            self._say(error)

    # --- observing -----------------------------------------------------------------------------

    def _observe(self, request: Request, entry: Entry) -> None:
        if entry.kind != "special":
            self._judge.follow(entry, request.arguments, self._database)
        if entry.kind == "admin":
            self._ledger.tell("bypass", f"{entry.name} was passed on")
        if entry.name == "MULTI":
            self._in_multi = True
        elif entry.name in {"EXEC", "DISCARD"}:
            self._in_multi = False
        blocks = entry.may_block(request.arguments) and not self._in_multi
        self._forward(request, Waiting() if blocks else None)

    # --- one command ---------------------------------------------------------------------------

    def _weigh(self, request: Request, entry: Entry) -> None:
        """Let one command through, counted, or refuse it."""
        judged = self._judged(request, entry, self._database)
        if isinstance(judged, str):
            request.close()
            self._say(judged)
        elif judged is None:
            self._forward(request, Waiting() if entry.may_block(request.arguments) else None)
        elif judged.plan is None:
            self._work(self._flush(request, judged))
        elif judged.is_unheld or self._fits_worst(judged):
            self._let_through(request, judged)
        else:
            self._work(self._look_first(request, judged))

    def _judged(
        self, request: Request, entry: Entry, database: int, *, apart: bool = False
    ) -> Judged | str | None:
        """Return what a command would do; an error to answer with; None where it only reads."""
        words = request.arguments
        if entry.kind != "unknown" and not entry.accepts(len(words)):
            return _wrong_number(entry)
        if entry.kind == "unknown" and not self._judge.catalog.knows(words):
            second = words[0].upper() in self._judge.catalog.entries
            return _unknown(words, is_second=second)
        refusal: Refusal | None = None
        if entry.only_reads or (entry.kind == "publish" and self._judge.mode != "read-only"):
            refusal = self._judge.follow(entry, words, database)
            return f"HANDRAIL {told(refusal)}" if refusal else None
        try:
            judged = self._judge.judge(entry, words, database, apart=apart)
        except MalformedError as error:
            return str(error)
        return f"HANDRAIL {told(judged)}" if isinstance(judged, Refusal) else judged

    def _fits_worst(self, judged: Judged) -> bool:
        """Whether a command may run whatever it finds; nothing is set aside yet."""
        plan = judged.plan
        if self._judge.mode != "hold":
            return True
        return (
            plan is not None
            and plan.worst is not None
            and self._ledger.fits(amounts_of(plan.worst))
        )

    def _let_through(self, request: Request, judged: Judged) -> None:
        """Send a command with its looks, and count it when they are answered."""
        counted = self._counted([judged])
        if isinstance(counted, Refusal):
            request.close()
            self._say_no(counted)
            return
        entries, parts = counted.expected(judged, request)
        for expected in entries:
            self._pairing.expect(expected)
        if request.file is None:
            self._send(b"".join(part for part in _raw(parts)))
        else:
            self._work(self._stream_all(parts))

    def _counted(
        self, judged: Sequence[Judged], amounts: dict[Key, int] | None = None
    ) -> Counted | Refusal:
        """Set aside what commands may do; say why it may not be."""
        counted = Counted(self._ledger, self._in_flight)
        if amounts is None:
            worst: list[Change] = []
            for one in judged:
                worst += (one.plan.worst if one.plan else None) or ()
            amounts = amounts_of(worst)
        refusal = self._ledger.reserve(counted, amounts, statement=judged[0].template)
        if refusal is not None:
            return refusal
        for one in judged:
            if one.is_unheld:
                self._ledger.leave_unheld(one.template)
        self._in_flight.add(counted)
        return counted

    async def _look_first(self, request: Request, judged: Judged) -> None:
        """Run one command only where it fits by what is there; WATCH sees to it that it stays."""
        plan = judged.plan
        assert plan is not None  # noqa: S101  flushes go another way
        # Under a client's own WATCH, or where it may wait, no transaction of ours can be had.
        alone = self._watches or plan.blocks or not plan.keys or request.file is not None
        for _attempt in range(MOST_ATTEMPTS):
            watch = [] if alone else [(b"WATCH", *plan.keys)]
            answers = (await self._asked([*watch, *plan.looks], whole=False))[len(watch) :]
            refusal = self._blind(answers, judged.template)
            counted = refusal or self._counted([judged], amounts_of(plan.count(answers)))
            if isinstance(counted, Refusal):
                await self._unwatch_ours(watching=not alone)
                request.close()
                self._say_no(counted)
                return
            if self._client is None:
                counted.never()
                return
            if alone:
                await self._run_alone(request, judged, counted)
                return
            if await self._run_wrapped(request, judged, counted):
                return
        self._say_no(self._ledger.refuse(_RESTLESS.format(judged.template), judged.template))

    def _blind(self, answers: Sequence[Reply], template: str) -> Refusal | None:
        """Say that a command cannot be judged where the guard itself may not look."""
        for answer in answers:
            if isinstance(answer, ErrorReply) and is_blind(answer):
                why = answer.text[:200].decode("utf-8", "backslashreplace")
                what = f"run {template}, which cannot be looked into: {why}"
                return self._ledger.refuse(what, template)
        return None

    async def _unwatch_ours(self, *, watching: bool) -> None:
        if watching:
            await self._asked([(b"UNWATCH",)], whole=False)

    async def _run_alone(self, request: Request, judged: Judged, counted: Counted) -> None:
        entries, parts = counted.expected(judged, request)
        for expected in entries:
            self._pairing.expect(expected)
        await self._stream_all(parts)

    async def _run_wrapped(self, request: Request, judged: Judged, counted: Counted) -> bool:
        """Run one command in a transaction of ours; return False where WATCH undid it."""
        line = await self._execute([(request, judged)], counted, shown=None)
        return line not in {b"*-1", b"_"}

    # --- transactions --------------------------------------------------------------------------

    def _multi(self, request: Request, entry: Entry) -> None:
        if self._judge.mode == "observe":
            self._observe(request, entry)
        elif not entry.accepts(len(request.arguments)):
            self._say(_wrong_number(entry))
        elif self._transaction is not None:
            self._say("ERR MULTI calls can not be nested")
        else:
            self._transaction = _Transaction(self._database)
            self._pairing.expect(Local(OK))

    def _queue(self, request: Request, entry: Entry, transaction: _Transaction) -> None:
        judged = self._judged(request, entry, transaction.database, apart=True)
        if isinstance(judged, str):
            request.close()
            transaction.is_dirty = True
            self._say(judged)
            return
        self._keep(_Queued(request, judged), transaction)

    def _keep(self, queued: _Queued, transaction: _Transaction) -> None:
        transaction.size_bytes += len(queued.request.raw)
        too_much = transaction.size_bytes > MOST_QUEUED_BYTES
        if too_much or len(transaction.queue) >= MOST_QUEUED:
            queued.request.close()
            self._spoil("HANDRAIL this transaction is too large for the guard")
            return
        transaction.queue.append(queued)
        self._pairing.expect(Local(QUEUED))

    def _discard(self, request: Request, entry: Entry) -> None:
        if self._judge.mode == "observe":
            self._observe(request, entry)
        elif self._transaction is None:
            self._say("ERR DISCARD without MULTI")
        else:
            self._drop(self._transaction)
            self._pairing.expect(Local(OK))

    def _drop(self, transaction: _Transaction) -> None:
        for queued in transaction.queue:
            queued.request.close()
        self._transaction = None
        if self._watches:
            self._watches = False
            self._pairing.expect(Silent(lambda _: None))
            self._send(encode(b"UNWATCH"))

    def _exec(self, request: Request, entry: Entry) -> None:
        transaction = self._transaction
        if self._judge.mode == "observe":
            self._observe(request, entry)
        elif transaction is None:
            self._say("ERR EXEC without MULTI")
        elif transaction.is_dirty:
            self._drop(transaction)
            self._say(ABORTED)
        else:
            self._work(self._settle_transaction(transaction))

    async def _settle_transaction(self, transaction: _Transaction) -> None:
        writes = [queued.judged for queued in transaction.queue if queued.judged is not None]
        self._transaction = None
        for _attempt in range(MOST_ATTEMPTS):
            counted, watching = await self._weigh_transaction(writes)
            if isinstance(counted, Refusal):
                await self._unwatch_ours(watching=watching)
                self._drop(transaction)
                self._say(f"EXECABORT HANDRAIL {told(counted)}")
                return
            if self._client is None:
                counted.never()
                self._drop(transaction)
                return
            pairs = [(queued.request, queued.judged) for queued in transaction.queue]
            own = watching and not self._watches
            line = await self._execute(pairs, counted, shown=len(pairs), again=own)
            if line in {b"*-1", b"_"} and own:
                continue
            if line[:1] == b"*" and line != b"*-1":
                self._database = transaction.database
            self._watches = False
            self._drop(transaction)
            return
        self._drop(transaction)
        self._say(f"EXECABORT HANDRAIL {_RESTLESS.format('this transaction')}")

    async def _weigh_transaction(self, writes: Sequence[Judged]) -> tuple[Counted | Refusal, bool]:
        """Set aside what a transaction would do; and say whether WATCH is on what it depends on."""
        if not writes:
            return Counted(self._ledger, self._in_flight), False
        plain = [one for one in writes if not one.is_unheld]
        worst: list[Change] | None = []
        for one in plain:
            more = one.plan.worst if one.plan is not None else None
            worst = None if worst is None or more is None else [*worst, *more]
        flushes = any(one.plan is None for one in writes)
        self._scanned = {}
        if not flushes and self._judge.mode != "hold":
            return self._counted(writes), False
        if worst is not None and self._ledger.fits(amounts_of(worst)):
            return self._counted(writes, amounts_of(worst)), False
        return await self._look_at_all(writes)

    async def _look_at_all(self, writes: Sequence[Judged]) -> tuple[Counted | Refusal, bool]:
        here = self._database
        # WATCH and looks are about the database that each command runs in.
        facts, changes = Facts(), list[Change]()
        watching = False
        for one in writes:
            select = [(b"SELECT", b"%d" % one.database)] if one.database != here else []
            here = one.database
            if one.plan is None:
                await self._asked(select, whole=False)
                self._scanned[id(one)] = await self._scan(one)
                changes += self._scanned[id(one)]
                continue
            if one.is_unheld:
                continue
            watch = [(b"WATCH", *one.plan.keys)] if one.plan.keys else []
            before = [*select, *watch]
            answers = (await self._asked([*before, *one.plan.looks], whole=False))[len(before) :]
            watching = watching or bool(watch)
            refusal = self._blind(answers, one.template)
            found = facts.changes(one.plan, one.database, answers)
            if refusal is None and found is None:
                refusal = self._ledger.refuse(f"run {one.template} after commands that hide it")
            if refusal is not None:
                await self._back(here)
                return refusal, watching
            changes += found or ()
        await self._back(here)
        return self._counted(writes, amounts_of(changes)), watching

    async def _back(self, here: int) -> None:
        if here != self._database:
            await self._asked([(b"SELECT", b"%d" % self._database)], whole=False)

    async def _execute(
        self,
        pairs: Sequence[tuple[Request, Judged | None]],
        counted: Counted,
        *,
        shown: int | None,
        again: bool = True,
    ) -> bytes:
        """Send MULTI, commands with their looks, EXEC; return the first line of what EXEC says.

        Args:
            pairs: the commands.
            counted: what was set aside for them.
            shown: how many replies the client awaits; None for the one alone.
            again: whether it is tried again where WATCH undid it: the client need not know.
        """
        done: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        elements: list[Expected] = []
        parts: list[bytes | Request] = [encode(b"MULTI")]
        refused: list[bytes] = []
        for request, judged in pairs:
            if judged is None:
                entries, pieces = counted.plain(request)
            else:
                entries, pieces = counted.expected(judged, request, self._scanned.get(id(judged)))
            elements += entries
            parts += pieces
        parts.append(encode(b"EXEC"))

        def queued(reply: Reply) -> None:
            if isinstance(reply, ErrorReply):
                refused.append(b"-%s\r\n" % reply.text)

        def tell(line: bytes) -> None:
            if line[:1] != b"*" or line == b"*-1":
                counted.never()
            if shown is None and line[:1] == b"-":
                # The one command was refused where it was queued: that is its reply.
                self._pairing.expect(Local(refused[0] if refused else line + b"\r\n"))
            if not done.done():
                done.set_result(line)

        def is_kept(line: bytes) -> bool:
            if line[:1] == b"-":
                return shown is not None
            return not again

        for _ in range(len(elements) + 1):
            self._pairing.expect(Silent(queued))
        self._pairing.expect(Exec(elements, shown, tell, is_kept=is_kept))
        await self._stream(parts)
        return await done

    # --- flushes -------------------------------------------------------------------------------

    async def _scan(self, judged: Judged) -> list[Change]:
        """Return what a flush would delete: every key, by pattern."""
        every = judged.entry.name == "FLUSHALL"
        counts = await keys_by_pattern(self.ask, judged.database, every=every)
        return [(DELETE, KEY, place, number) for place, number in counts.items()]

    async def _flush(self, request: Request, judged: Judged) -> None:
        changes = await self._scan(judged)
        counted = self._counted([judged], amounts_of(changes))
        if isinstance(counted, Refusal):
            self._say_no(counted)
            return
        entries, parts = counted.expected(judged, request, changes)
        for expected in entries:
            self._pairing.expect(expected)
        await self._stream(parts)


_RESTLESS = "run {}: others change what it depends on all the time"


def _raw(parts: Sequence[bytes | Request]) -> list[bytes]:
    return [part if isinstance(part, bytes) else part.raw for part in parts]


def _wrong_number(entry: Entry) -> str:
    name = entry.name.lower().replace(" ", "|")
    return f"ERR wrong number of arguments for '{name}' command"


def _unknown(words: Sequence[bytes], *, is_second: bool) -> str:
    if is_second:
        second = words[1][:128].decode("utf-8", "backslashreplace")
        name = words[0].decode("utf-8", "backslashreplace").upper()
        return f"ERR unknown subcommand '{second}'. Try {name} HELP."
    shown = words[0][:128].decode("utf-8", "backslashreplace")
    begins = "".join(f"'{word[:128].decode('utf-8', 'backslashreplace')}' " for word in words[1:20])
    return f"ERR unknown command '{shown}', with args beginning with: {begins[:128]}"


def _split_hello(words: Sequence[bytes]) -> tuple[tuple[bytes, bytes] | None, list[bytes]]:
    """Return user and password of a HELLO, and its words without them."""
    at = 2
    while at < len(words) - 1:
        if words[at].upper() == b"AUTH" and at + 2 < len(words):
            return (words[at + 1], words[at + 2]), [*words[:at], *words[at + 3 :]]
        at += 2
    return None, list(words)


_Handler = Callable[[Session, Request, Entry], None]
_SPECIAL: dict[str, _Handler] = {
    "AUTH": Session._auth,
    "HELLO": Session._hello,
    "QUIT": Session._quit,
    "RESET": Session._reset,
    "SELECT": Session._select,
    "WATCH": Session._watch,
    "UNWATCH": Session._unwatch,
    "MULTI": Session._multi,
    "EXEC": Session._exec,
    "DISCARD": Session._discard,
    "CONFIG GET": Session._config_get,
    "CLIENT REPLY": Session._client_reply,
    "MONITOR": Session._monitor,
    "SYNC": Session._monitor,
    "PSYNC": Session._monitor,
    **dict.fromkeys(SUBSCRIBING, Session._subscribe),
}
